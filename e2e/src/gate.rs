//! Holds up a dump at a place of one's choice, to have time for what is to go wrong meanwhile. Talks to a database.

use crate::postgres::{Postgres, random_name};
use crate::wait::{seconds, wait_for};

/// A lock that no reader gets past, in a prepared transaction, so that no session has to be kept. Dropped, it is open.
pub struct Gate<'a> {
    server: &'a Postgres,
    database: String,
    transaction: String,
}

impl<'a> Gate<'a> {
    /// Stops dumps of a database before their first byte: pg_dump locks all tables at its start, and this is one of them.
    pub fn before_the_data(server: &'a Postgres, database: &str) -> Self {
        server.sql(database, "create table if not exists gate ()");
        Self::lock(server, database, "gate")
    }

    /// Stops dumps of a database after the rows of all tables: large objects come last.
    pub fn after_the_tables(server: &'a Postgres, database: &str) -> Self {
        server.sql(database, "select lo_from_bytea(0, 'at the end')");
        Self::lock(server, database, "pg_largeobject")
    }

    fn lock(server: &'a Postgres, database: &str, table: &str) -> Self {
        let transaction = random_name("gate");
        let script = format!("begin; lock table {table} in access exclusive mode; prepare transaction '{transaction}'");
        server.sql(database, &script);
        Self { server, database: database.to_owned(), transaction }
    }

    /// Waits until a dump stands before it, and gives the process that serves it in the database server.
    pub fn wait_for_a_dump(&self) -> i64 {
        wait_for(&format!("a dump of {} is held up", self.database), seconds(60), || {
            let waiting = "select coalesce(min(pid), 0) from pg_stat_activity \
                           where datname = current_database() and wait_event_type = 'Lock'";
            match self.server.sql(&self.database, waiting).parse() {
                Ok(0) | Err(_) => Err("none yet".to_owned()),
                Ok(pid) => Ok(pid),
            }
        })
    }

    /// Lets everybody pass.
    pub fn open(self) {}
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.server.try_sql(&self.database, &format!("rollback prepared '{}'", self.transaction));
    }
}
