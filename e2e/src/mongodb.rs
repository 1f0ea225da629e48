//! MongoDB servers in Pods: started, seeded, and looked at by `pymongo` in the Pod itself. Talks to the cluster.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::command::Ended;
use crate::images;
use crate::objects::secret;
use crate::postgres::{random_name, shared_space};
use crate::session;
use crate::space::Space;
use crate::wait::{seconds, wait_for};

/// A MongoDB server.
pub struct Mongodb {
    namespace: String,
    name: String,
    password: String,
}

/// What scripts find ready: `client`, `db` (the database they are run for), and the modules a seed needs.
const PRELUDE: &str = r#"
import datetime, hashlib, json, sys
import bson, pymongo
client = pymongo.MongoClient("mongodb://127.0.0.1:27017", username="root", password=open("/secret/password").read())
db = client[sys.argv[1]]
"#;

/// Of each collection its type, options, indexes, count and a hash of its documents as the bytes they are.
const CONTENTS: &str = r#"
for info in sorted(db.list_collections(), key=lambda c: c["name"]):
    name = info["name"]
    documents, count = hashlib.sha256(), 0
    for batch in db[name].find_raw_batches({}, sort=[("_id", 1)]):
        for document in bson.decode_all(batch, bson.CodecOptions(document_class=bson.raw_bson.RawBSONDocument)):
            documents.update(document.raw)
            count += 1
    # `storageEngine` is how the server keeps an index, not what it is.
    indexes = [] if info["type"] == "view" else sorted(({k: v for k, v in i.items() if k != "storageEngine"} for i in db[name].list_indexes()), key=lambda i: i["name"])
    print(json.dumps([name, info["type"], info["options"], indexes, count, documents.hexdigest()], default=repr))
"#;

impl Mongodb {
    /// Starts a server in a namespace and waits until it answers.
    pub fn start(space: &Space, name: &str) -> Self {
        Self::start_with(space, name, &random_name("p:a@s%s/"))
    }

    /// Starts a server with this password of the user `root` and waits until it answers.
    pub fn start_with(space: &Space, name: &str, password: &str) -> Self {
        space.apply(&secret(&format!("{name}-server"), &json!({"password": password})));
        space.apply(&images::mongodb_pod(name));
        space.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"server": name}, "ports": [{"port": 27017}]},
        }));
        space.wait("Pod", name, "is ready", seconds(90), |pod| {
            pod["status"]["containerStatuses"][0]["ready"].as_bool().unwrap_or(false)
        });
        Self { namespace: space.name().to_owned(), name: name.to_owned(), password: password.to_owned() }
    }

    /// The server that all tests of the process share, each with databases of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Mongodb> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(shared_space(), "mongodb"))
    }

    /// Its name in the cluster's DNS.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// A Secret for a policy: the connection string, and user and password by themselves.
    pub fn credentials(&self, name: &str) -> Value {
        let encoded: String = self.password.bytes().map(percent_encoded).collect();
        let uri = format!("mongodb://root:{encoded}@{}:27017/", self.host());
        secret(name, &json!({"uri": uri, "username": "root", "password": self.password}))
    }

    /// A source of a policy: this database, with the connection string in the Secret `mongodb`.
    pub fn source(&self, name: &str, database: &str) -> Value {
        json!({"name": name, "mongodb": {"uriSecret": {"name": "mongodb", "key": "uri"}, "database": database}})
    }

    /// Fills a database with a name of its own by a script in Python, which finds it as `db`.
    #[track_caller]
    pub fn seed(&self, script: &str) -> String {
        let database = random_name("db");
        self.python(&database, script);
        database
    }

    /// Drops a database.
    #[track_caller]
    pub fn drop_database(&self, database: &str) {
        self.python(database, "client.drop_database(db.name)");
    }

    /// What is in a database, as text that two equal databases have in common.
    #[track_caller]
    pub fn contents(&self, database: &str) -> String {
        self.python(database, CONTENTS)
    }

    /// Runs a script in Python that finds a database as `db`, and gives what it prints.
    #[track_caller]
    pub fn python(&self, database: &str, script: &str) -> String {
        let ended = self.exec(&["python3", "-", database], format!("{PRELUDE}{script}").as_bytes());
        assert!(ended.ok, "a script on {}: {}", self.host(), ended.stderr);
        ended.text().trim().to_owned()
    }

    /// Keeps readers of a collection waiting until [`Mongodb::let_pass`]: a lock in the database below, in a prepared transaction.
    #[track_caller]
    pub fn hold_up(&self, database: &str, collection: &str) {
        let table = self.sql(&format!(
            "select 'documentdb_data.documents_' || collection_id from documentdb_api_catalog.collections \
             where database_name = '{database}' and collection_name = '{collection}'"
        ));
        let lock = format!("begin; lock table {table} in access exclusive mode; prepare transaction '{database}'");
        self.sql(&lock);
    }

    /// Waits until somebody stands before what [`Mongodb::hold_up`] holds.
    #[track_caller]
    pub fn wait_for_a_reader(&self) {
        wait_for("a reader is held up", seconds(60), || {
            match self.sql("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").as_str() {
                "0" => Err("none yet".to_owned()),
                _ => Ok(()),
            }
        });
    }

    /// Lets readers pass again.
    #[track_caller]
    pub fn let_pass(&self, database: &str) {
        self.sql(&format!("rollback prepared '{database}'"));
    }

    fn sql(&self, script: &str) -> String {
        let arguments = [
            "psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-f",
            "-",
        ];
        let ended = self.exec(&arguments, script.as_bytes());
        assert!(ended.ok, "psql on {}: {}", self.host(), ended.stderr);
        ended.text().trim().to_owned()
    }

    /// Runs a program in the server's Pod.
    pub fn exec(&self, arguments: &[&str], input: &[u8]) -> Ended {
        session::run(&self.namespace, &self.name, arguments, input)
    }
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}
