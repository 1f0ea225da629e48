//! A way to the tests' server on which users and roles are kept as mongod keeps them, which that server itself does not do.
//!
//! Everything passes to the server, but for what is asked of `admin.system.users`, `admin.system.roles` and `admin.system.version`, `usersInfo`, and
//! `_mergeAuthzCollections`. That one does what mongod's source says: it goes on past whatever it cannot insert, and with `drop` it updates who is
//! there and removes who is not in the temporary collection, of the one database `db`.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bson::{Bson, Document, doc};

/// A port in front of the server's.
pub struct Mongod {
    pub port: u16,
    kept: Arc<Mutex<Kept>>,
}

/// What it keeps.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub users: Vec<Document>,
    pub roles: Vec<Document>,
    /// A user whom it does not insert, without a word.
    pub loses: Option<String>,
    /// What it does about documents whose timestamps are empty.
    pub timestamps: Timestamps,
    /// Whether it was asked to leave the empty timestamps of a document.
    pub asked: bool,
    /// Whether it refuses `_mergeAuthzCollections`.
    pub forbids: bool,
}

/// What becomes of `Timestamp(0, 0)` where it stands in the first level of a document that is inserted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// What the server behind makes of it.
    #[default]
    Passed,
    /// It is replaced by the time, unless the command says `bypassEmptyTsReplacement`.
    Replaced,
    /// It is replaced by the time, and the server does not know of another way.
    AlwaysReplaced,
}

impl Mongod {
    /// Before the server at this port.
    pub fn before(server: u16, kept: Kept) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::new(Mutex::new(kept));
        let shared = kept.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let kept = shared.clone();
                std::thread::spawn(move || serve(client, server, &kept));
            }
        });
        Self { port, kept }
    }

    /// Changes what it keeps.
    pub fn change(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept.lock().unwrap());
    }

    /// What it keeps.
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap().clone()
    }
}

const OP_MSG: i32 = 2013;

fn serve(mut client: TcpStream, mut server: TcpStream, kept: &Mutex<Kept>) -> io::Result<()> {
    loop {
        let message = read_message(&mut client)?;
        let answer = command(&message).and_then(|command| answer(&command, &mut server, kept));
        if let Some(answer) = answer {
            client.write_all(&encode(&answer, number(&message[4..])))?;
            continue;
        }
        server.write_all(&message)?;
        // A message that more follows gets no answer.
        if number(&message[12..]) == OP_MSG && message[16] & 2 != 0 {
            continue;
        }
        let answer = read_message(&mut server)?;
        client.write_all(&answer)?;
    }
}

fn number(bytes: &[u8]) -> i32 {
    i32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message)?;
    message.resize(usize::try_from(number(&message)).unwrap(), 0);
    stream.read_exact(&mut message[16..])?;
    Ok(message)
}

/// The command of a message: what stands in its first section.
fn command(message: &[u8]) -> Option<Document> {
    let sections = message.get(20..)?;
    (number(&message[12..]) == OP_MSG && sections.first() == Some(&0))
        .then(|| Document::from_reader(&mut &sections[1..]).unwrap())
}

fn encode(document: &Document, answers: i32) -> Vec<u8> {
    let document = document.to_vec().unwrap();
    let mut message = Vec::new();
    for number in [i32::try_from(21 + document.len()).unwrap(), 1, answers, OP_MSG, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&document);
    message
}

fn answer(command: &Document, server: &mut TcpStream, kept: &Mutex<Kept>) -> Option<Document> {
    if command.contains_key("insert") {
        return insert(command.clone(), server, &mut kept.lock().unwrap());
    }
    if command.get_str("$db").ok() != Some("admin") {
        return None;
    }
    let (name, value) = command.iter().next()?;
    match (name.as_str(), value) {
        ("find", Bson::String(collection)) => {
            let kept = kept.lock().unwrap();
            let documents = match collection.as_str() {
                "system.users" => kept.users.clone(),
                "system.roles" => kept.roles.clone(),
                "system.version" => vec![
                    doc! {"_id": "featureCompatibilityVersion", "version": "7.0"},
                    doc! {"_id": "authSchema", "currentVersion": 5},
                ],
                _ => return None,
            };
            let filter = command.get_document("filter").cloned().unwrap_or_default();
            let found: Vec<Document> = documents.into_iter().filter(|document| fits(document, &filter)).collect();
            Some(doc! {"cursor": {"firstBatch": found, "id": 0_i64, "ns": format!("admin.{collection}")}, "ok": 1.0})
        }
        ("usersInfo", _) => Some(doc! {"users": kept.lock().unwrap().users.clone(), "ok": 1.0}),
        ("_mergeAuthzCollections", _) => Some(merge(command, server, &mut kept.lock().unwrap())),
        _ => None,
    }
}

fn insert(mut command: Document, server: &mut TcpStream, kept: &mut Kept) -> Option<Document> {
    const FIELD: &str = "bypassEmptyTsReplacement";
    let bypassed = command.remove(FIELD).is_some_and(|value| value == Bson::Boolean(true));
    let is_empty = command.get_array("documents").is_ok_and(Vec::is_empty);
    kept.asked |= bypassed && !is_empty;
    match kept.timestamps {
        Timestamps::Passed => return None,
        Timestamps::AlwaysReplaced if bypassed => {
            let words = format!("BSON field 'insert.{FIELD}' is an unknown field.");
            return Some(doc! {"ok": 0.0, "code": 40415, "codeName": "Location40415", "errmsg": words});
        }
        _ if is_empty => {
            let words = "Write batch sizes must be between 1 and 100000. Got 0 operations.";
            return Some(doc! {"ok": 0.0, "code": 16, "codeName": "InvalidLength", "errmsg": words});
        }
        Timestamps::Replaced if bypassed => {}
        _ => {
            for document in command.get_array_mut("documents").unwrap() {
                for (name, value) in document.as_document_mut().unwrap().iter_mut() {
                    if name != "_id" && *value == Bson::Timestamp(bson::Timestamp { time: 0, increment: 0 }) {
                        *value = Bson::Timestamp(bson::Timestamp { time: 1_800_000_000, increment: 1 });
                    }
                }
            }
        }
    }
    server.write_all(&encode(&command, 0)).unwrap();
    self::command(&read_message(server).unwrap())
}

fn fits(document: &Document, filter: &Document) -> bool {
    filter.iter().all(|(field, wanted)| match wanted {
        Bson::Document(any) => any.get_array("$in").unwrap().contains(document.get(field).unwrap()),
        wanted => document.get(field) == Some(wanted),
    })
}

fn merge(command: &Document, server: &mut TcpStream, kept: &mut Kept) -> Document {
    if kept.forbids {
        return doc! {"ok": 0.0, "code": 13, "codeName": "Unauthorized", "errmsg": "Not authorized to update user/role data"};
    }
    let (database, drop) = (command.get_str("db").unwrap(), command.get_bool("drop").unwrap());
    let Kept { users, roles, loses, .. } = kept;
    for (parameter, list, name) in [("tempUsersCollection", users, "user"), ("tempRolesCollection", roles, "role")] {
        let Ok(temporary) = command.get_str(parameter) else { continue };
        let find = doc! {"find": temporary.strip_prefix("admin.").unwrap(), "batchSize": 10_000, "$db": "admin"};
        server.write_all(&encode(&find, 0)).unwrap();
        let found = self::command(&read_message(server).unwrap()).unwrap();
        let batch = found.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        let given = batch.iter().map(|document| document.as_document().unwrap().clone());
        let given: Vec<Document> = given.filter(|document| document.get_str("db").ok() == Some(database)).collect();
        let who = |document: &Document| document.get_str(name).unwrap().to_owned();
        let mut left: BTreeSet<String> = if drop {
            list.iter().filter(|document| document.get_str("db").ok() == Some(database)).map(who).collect()
        } else {
            BTreeSet::new()
        };
        for document in given {
            let there = list.iter().position(|d| d.get_str("db").ok() == Some(database) && who(d) == who(&document));
            match there {
                Some(place) if left.contains(&who(&document)) => list[place] = document.clone(),
                // A key that is there already: told to the server's log, and to nobody else.
                Some(_) => {}
                None if loses.as_ref() == Some(&who(&document)) => {}
                None => list.push(document.clone()),
            }
            left.remove(&who(&document));
        }
        list.retain(|document| document.get_str("db").ok() != Some(database) || !left.contains(&who(document)));
    }
    doc! {"ok": 1.0}
}
