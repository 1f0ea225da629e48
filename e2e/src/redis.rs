//! Redis and Valkey servers in Pods: started, seeded, and looked at by their own client in the Pod itself. Talks to the cluster.

use serde_json::{Value, json};

use crate::command::Ended;
use crate::images;
use crate::objects::secret;
use crate::postgres::random_name;
use crate::session;
use crate::space::Space;
use crate::wait::{seconds, wait_for};

/// A Redis or Valkey server.
pub struct Redis {
    namespace: String,
    name: String,
    password: String,
}

/// Of each key of a database its type and when it goes, of streams also groups and what is pending.
const KEYS: &str = include_str!("keys.lua");

impl Redis {
    /// Starts a server (`redis:7`, `redis:8`, `valkey:9`) in a namespace and waits until it answers. Its whole content is a test's own, so
    /// there is none to share.
    pub fn start(space: &Space, name: &str, image: &str) -> Self {
        Self::start_with(space, name, image, &random_name("p'a\\s s"))
    }

    /// Starts a server with this password and waits until it answers.
    pub fn start_with(space: &Space, name: &str, image: &str, password: &str) -> Self {
        space.apply(&secret(&format!("{name}-server"), &json!({"password": password})));
        space.apply(&images::redis_pod(name, image));
        space.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"server": name}, "ports": [{"port": 6379}]},
        }));
        let server = Self { namespace: space.name().to_owned(), name: name.to_owned(), password: password.to_owned() };
        server.wait_ready();
        server
    }

    /// Waits until it answers and has read what it had.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for(&format!("Redis {} answers", self.host()), seconds(90), || {
            let ended = self.cli(&["ping"], b"");
            if ended.text().trim() == "PONG" { Ok(()) } else { Err(ended.text() + &ended.stderr) }
        });
    }

    /// Its name in the cluster's DNS.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// A Secret for a policy with the password of this server.
    pub fn credentials(&self, name: &str) -> Value {
        secret(name, &json!({"password": self.password}))
    }

    /// A source of a policy: this server, with the password in the Secret `redis`.
    pub fn source(&self, name: &str) -> Value {
        json!({"name": name, "redis": {"host": self.host(), "credentialsSecret": {"name": "redis"}}})
    }

    /// Runs one command and gives what it answers.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> String {
        let ended = self.cli(arguments, b"");
        let text = ended.text();
        // The client ends with 0 also where the server answered with an error.
        let refused = ["ERR ", "NOAUTH", "WRONGPASS", "(error)"].iter().any(|word| text.starts_with(word));
        assert!(ended.ok && !refused, "{arguments:?} on {}: {text}{}", self.host(), ended.stderr);
        text.trim_end().to_owned()
    }

    /// Runs commands, one a line.
    #[track_caller]
    pub fn commands(&self, lines: &str) {
        let ended = self.cli(&["-e"], lines.as_bytes());
        let text = ended.text();
        assert!(
            ended.ok && !text.contains("ERR ") && !text.contains("(error)"),
            "on {}: {text}{}",
            self.host(),
            ended.stderr
        );
    }

    /// What is in it, as text that two equal servers have in common: a digest of all values, each key with its type and the moment it
    /// goes, groups of streams, functions.
    #[track_caller]
    pub fn contents(&self) -> String {
        let mut all = vec![self.command(&["debug", "digest"]), self.command(&["function", "list", "withcode"])];
        let used = self.command(&["info", "keyspace"]);
        let databases: Vec<&str> = used.lines().filter_map(|line| line.strip_prefix("db")?.split(':').next()).collect();
        for database in databases {
            all.push(format!("database {database}"));
            all.push(self.command(&["-n", database, "eval", KEYS, "0"]));
        }
        all.join("\n")
    }

    /// Role, and every setting that has to do with replication and persistence.
    #[track_caller]
    pub fn settings(&self) -> String {
        let role = self.command(&["info", "replication"]);
        let role: Vec<&str> =
            role.lines().filter(|line| line.starts_with("role:") || line.starts_with("connected_slaves:")).collect();
        let patterns = ["config", "get", "*master*", "*repl*", "append*", "save", "min-*", "*slave*", "*primary*"];
        let answer = self.command(&patterns) + "\n";
        let lines: Vec<&str> = answer.split('\n').collect();
        // Names and values in turn, in an order that differs from start to start.
        let mut settings: Vec<String> = lines.chunks_exact(2).map(|pair| pair.join(" ")).collect();
        settings.sort();
        role.into_iter().map(str::to_owned).chain(settings).collect::<Vec<_>>().join("\n")
    }

    /// Ends the server at once; its container is started again, with the data on disk.
    #[track_caller]
    pub fn restart(&self) {
        let before = self.run_id();
        // The connection goes with the server.
        self.cli(&["shutdown", "nosave", "now", "force"], b"");
        wait_for("the server is another", seconds(60), || {
            let now = self.cli(&["info", "server"], b"").text();
            if now.contains("run_id:") && !now.contains(&before) { Ok(()) } else { Err(now) }
        });
        self.wait_ready();
    }

    fn run_id(&self) -> String {
        let info = self.command(&["info", "server"]);
        info.lines().find(|line| line.starts_with("run_id:")).expect("a run_id").trim().to_owned()
    }

    /// Runs the server's own client in its Pod.
    pub fn cli(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let script = "REDISCLI_AUTH=$(cat /etc/redis-secret/password) && export REDISCLI_AUTH VALKEYCLI_AUTH=$REDISCLI_AUTH && exec cli \"$@\"";
        let mut all = vec!["bash", "-c", script, "cli"];
        all.extend_from_slice(arguments);
        session::run(&self.namespace, &self.name, &all, input)
    }
}
