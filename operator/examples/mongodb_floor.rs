//! What a backup of MongoDB is measured beside: `mongodb_floor <uri> read` reads all batches of a database with one cursor and throws them
//! away; `mongodb_floor <uri> seed <documents>` makes the database. Talks to the server.

use anyhow::{Context, Result, bail};
use bson::{DateTime, RawDocumentBuf, doc, rawdoc};
use futures::StreamExt;
use mongodb::Client;

const DATABASE: &str = "bench";
const COLLECTIONS: i64 = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let uri = arguments.first().context("missing: uri")?;
    let client = Client::with_uri_str(uri).await?;
    match (arguments.get(1).map(String::as_str), arguments.get(2)) {
        (Some("read"), None) => read(&client).await,
        (Some("seed"), Some(documents)) => seed(&client, documents.parse()?).await,
        _ => bail!("mongodb_floor <uri> read | seed <documents>"),
    }
}

async fn read(client: &Client) -> Result<()> {
    let database = client.database(DATABASE);
    let (mut documents, mut bytes) = (0_u64, 0_u64);
    for collection in 0..COLLECTIONS {
        let collection = database.collection::<RawDocumentBuf>(&format!("c{collection}"));
        let mut cursor = collection.find(doc! {}).batch().await?;
        while let Some(batch) = cursor.next().await {
            let batch = batch?;
            for document in batch.doc_slices()? {
                let document = document?.as_document().context("no document")?;
                documents += 1;
                bytes += document.as_bytes().len() as u64;
            }
        }
    }
    println!("{documents} documents, {bytes} bytes");
    Ok(())
}

async fn seed(client: &Client, documents: i64) -> Result<()> {
    let database = client.database(DATABASE);
    let each = documents / COLLECTIONS;
    for collection in 0..COLLECTIONS {
        let collection = database.collection::<RawDocumentBuf>(&format!("c{collection}"));
        for start in (0..each).step_by(1000) {
            collection.insert_many((start..each.min(start + 1000)).map(document)).await?;
        }
    }
    let statistics = database.run_command(doc! {"dbStats": 1}).await?;
    println!("{}", statistics.get("dataSize").context("no dataSize")?);
    Ok(())
}

/// Some 400 bytes, half of which compress.
fn document(n: i64) -> RawDocumentBuf {
    let mut noise = fastrand::Rng::with_seed(n.unsigned_abs());
    let token: String = (0..96).map(|_| noise.alphanumeric()).collect();
    rawdoc! {
        "_id": n,
        "name": format!("name of {n}"),
        "token": token,
        "joined": DateTime::from_millis(n * 60_000),
        "score": noise.f64(),
        "tags": ["some words", "that repeat", noise.i32(0..50)],
        "address": {"street": format!("street {}", n % 977), "city": "a city whose name is long", "zip": noise.i32(..)},
        "note": "some words that repeat and some words that do not, to be found in each of them",
    }
}
