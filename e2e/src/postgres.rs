//! Postgres servers in Pods: started, seeded, and looked at by psql in the Pod itself. Talks to the cluster.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::command::Ended;
use crate::images;
use crate::objects::secret;
use crate::session;
use crate::space::Space;
use crate::wait::{seconds, wait_for};

/// A Postgres server.
pub struct Postgres {
    namespace: String,
    name: String,
    password: String,
}

/// What is in a database, as text that two equal databases have in common: its definition, and a hash of the rows of each table.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    /// What pg_dump says of its schema, without what speaks of the dump itself.
    pub schema: String,
    /// Count and hash of the rows of each table, matview, large object and the state of each sequence.
    pub rows: String,
}

impl Postgres {
    /// Starts a server of a major version in a namespace and waits until it answers.
    pub fn start(space: &Space, name: &str, version: u32) -> Self {
        let server = Self::launch(space, name, version, &random_name("pw"));
        server.wait_ready();
        server
    }

    /// The server of a major version that all tests of the process share, each with databases of its own.
    pub fn shared(version: u32) -> &'static Self {
        static SHARED: [OnceLock<Postgres>; 2] = [OnceLock::new(), OnceLock::new()];
        let slot = &SHARED[usize::from(version != 15)];
        slot.get_or_init(|| Self::start(shared_space(), &format!("postgres-{version}"), version))
    }

    /// Starts a server with this password of the user `postgres`; it may not answer yet.
    pub fn launch(space: &Space, name: &str, version: u32, password: &str) -> Self {
        space.apply(&secret(&format!("{name}-server"), &json!({"password": password})));
        space.apply(&images::postgres_pod(name, version));
        space.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"server": name}, "ports": [{"port": 5432}]},
        }));
        Self { namespace: space.name().to_owned(), name: name.to_owned(), password: password.to_owned() }
    }

    /// Waits until it answers.
    pub fn wait_ready(&self) {
        wait_for(&format!("Postgres {} answers", self.host()), seconds(90), || {
            let ended = self.exec(&["pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres"], b"");
            if ended.ok { Ok(()) } else { Err(ended.stderr) }
        });
    }

    /// Its name in the cluster's DNS.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// The password of the user `postgres`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A Secret for a policy with user and password of this server.
    pub fn credentials(&self, name: &str) -> Value {
        secret(name, &json!({"username": "postgres", "password": self.password}))
    }

    /// A source of a policy: this database, with the credentials in the Secret `postgres`.
    pub fn source(&self, name: &str, database: &str) -> Value {
        json!({"name": name, "postgres": {
            "host": self.host(), "database": database, "credentialsSecret": {"name": "postgres"},
        }})
    }

    /// Makes an empty database with a name of its own.
    pub fn create_database(&self) -> String {
        let name = random_name("db");
        self.sql("postgres", &format!("create database {name} template template0"));
        name
    }

    /// Makes a database and fills it by a script.
    #[track_caller]
    pub fn seed(&self, script: &str) -> String {
        let database = self.create_database();
        self.sql(&database, script);
        database
    }

    /// Drops a database with whoever is connected to it.
    #[track_caller]
    pub fn drop_database(&self, database: &str) {
        self.sql("postgres", &format!("drop database {database} with (force)"));
    }

    /// Runs a script in psql and gives its output, unaligned.
    #[track_caller]
    pub fn sql(&self, database: &str, script: &str) -> String {
        let ended = self.try_sql(database, script);
        assert!(ended.ok, "psql in {database} on {}: {}", self.host(), ended.stderr);
        ended.text().trim().to_owned()
    }

    /// Runs a script in psql.
    pub fn try_sql(&self, database: &str, script: &str) -> Ended {
        let arguments =
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "/tmp", "-U", "postgres", "-d", database, "-f", "-"];
        self.exec(&arguments, script.as_bytes())
    }

    /// Whether there is such a database.
    pub fn has_database(&self, database: &str) -> bool {
        !self.sql("postgres", &format!("select 1 from pg_database where datname = '{database}'")).is_empty()
    }

    /// What is in a database.
    pub fn contents(&self, database: &str) -> Contents {
        self.contents_seen_by(self, database)
    }

    /// What is in a database, its schema as the tools of another server tell it: what servers of two versions hold is compared in the
    /// words of one.
    #[track_caller]
    pub fn contents_seen_by(&self, teller: &Self, database: &str) -> Contents {
        let quoted = |text: &str| text.replace('\\', r"\\").replace('\'', r"\'");
        let (host, name, password) = (self.host(), quoted(database), quoted(&self.password));
        let connection = format!("host={host} user=postgres dbname='{name}' password='{password}'");
        // Its Service may hear of the server later than who asks in its Pod.
        wait_for(&format!("{host} can be reached"), seconds(60), || {
            let ended = teller.exec(&["pg_isready", "-h", &host], b"");
            if ended.ok { Ok(()) } else { Err(ended.text()) }
        });
        let ended = teller.exec(&["pg_dump", "--schema-only", "-d", &connection], b"");
        assert!(ended.ok, "pg_dump of {database}: {}", ended.stderr);
        let schema = ended.text().lines().filter(|line| tells_of_the_schema(line)).collect::<Vec<_>>().join("\n");
        Contents { schema, rows: self.sql(database, include_str!("rows.sql")) }
    }

    /// Runs a program in the server's Pod.
    pub fn exec(&self, arguments: &[&str], input: &[u8]) -> Ended {
        session::run(&self.namespace, &self.name, arguments, input)
    }
}

/// The namespace of the servers that all tests of the process share. It goes when the process ends.
pub fn shared_space() -> &'static Space {
    static SPACE: OnceLock<Space> = OnceLock::new();
    SPACE.get_or_init(|| Space::new("servers"))
}

/// A name nobody else has.
pub fn random_name(start: &str) -> String {
    let ending: String = std::iter::repeat_with(fastrand::lowercase).take(8).collect();
    format!("{start}_{ending}")
}

fn tells_of_the_schema(line: &str) -> bool {
    // Comments name the dump's versions; `\restrict` carries a key made for one dump; `SET` speaks to the reading server.
    let passing = ["--", "\\restrict", "\\unrestrict", "SET "];
    !line.trim().is_empty() && !passing.iter().any(|start| line.starts_with(start))
}
