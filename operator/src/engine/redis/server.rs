//! A server as the engine sees it: one connection, worked with on threads that may block. Talks to the server.

use std::collections::BTreeSet;

use holdfast_crds::Reason;

use super::facts::{self, Facts, Shard};
use super::link::{Link, Login};
use super::slots::{self, Node};
use super::trouble;
use crate::task::Failure;

/// A connection that is used from async code. Where a call is dropped, the connection is ended.
pub(super) struct Server {
    /// How it was reached.
    pub login: Login,
    link: Option<Link>,
}

impl Server {
    /// Connects and logs in.
    pub async fn connect(login: &Login) -> Result<Self, Failure> {
        let (login, to) = (login.clone(), login.clone());
        let link = tokio::task::spawn_blocking(move || to.connect()).await.map_err(|error| panicked(&error))??;
        Ok(Self { login, link: Some(link) })
    }

    /// Works with the connection on a thread of its own.
    pub async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Link) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let gone =
            || Failure::new(Reason::SourceUnreachable, format!("{}: the connection is gone", self.login.address));
        let mut link = self.link.take().ok_or_else(gone)?;
        let hangup = link.hangup();
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut link);
            (link, result)
        });
        let (link, result) = worked.await.map_err(|error| panicked(&error))?;
        hangup.keep();
        self.link = Some(link);
        result
    }

    /// The connection itself.
    pub fn into_link(self) -> Result<Link, Failure> {
        self.link.ok_or_else(|| Failure::new(Reason::SourceUnreachable, "the connection is gone"))
    }

    /// The server, for messages.
    pub fn place(&self) -> String {
        format!("redis at {}", self.login.address)
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_encrypted)
    }

    /// What `INFO` says.
    pub async fn facts(&mut self) -> Result<Facts, Failure> {
        self.with(read_facts).await
    }

    /// The primaries of its cluster.
    pub async fn shards(&mut self) -> Result<Vec<Shard>, Failure> {
        let asked = self.login.address.clone();
        self.with(move |link| {
            let reply = link.must(&["CLUSTER", "SLOTS"], Reason::SourceUnreachable)?;
            facts::shards(&reply, &asked)
                .map_err(|why| Failure::new(Reason::SourceUnreachable, format!("{}: {why}", link.place())))
        })
        .await
    }

    /// What a node of a cluster says of itself.
    pub async fn node(&mut self) -> Result<Node, Failure> {
        self.with(|link| {
            let reply = link.must(&["CLUSTER", "NODES"], Reason::SourceUnreachable)?;
            let text = reply.text().unwrap_or_default();
            slots::node(&text).ok_or_else(|| {
                let why = "CLUSTER NODES gave an answer that is not understood: no line of it is the node's own";
                Failure::new(Reason::SourceUnreachable, format!("{}: {why}", link.place()))
            })
        })
        .await
    }

    /// A setting; none where the user may not ask, or it is not known.
    pub async fn setting(&mut self, name: &'static str) -> Result<Option<String>, Failure> {
        self.with(move |link| {
            let reply = link.call(&["CONFIG", "GET", name])?;
            Ok(reply.elements().get(1).and_then(super::resp::Reply::text))
        })
        .await
    }

    /// Names of the modules it has loaded; none where the user may not ask.
    pub async fn modules(&mut self) -> Result<Option<BTreeSet<String>>, Failure> {
        self.with(|link| {
            let reply = link.call(&["MODULE", "LIST"])?;
            if matches!(reply, super::resp::Reply::Error(_)) {
                return Ok(None);
            }
            // Each as a list of names and values, of which `name` comes first.
            Ok(Some(reply.elements().iter().filter_map(|module| module.elements().get(1)?.text()).collect()))
        })
        .await
    }
}

/// What `INFO` says, on a thread that may block.
pub(super) fn read_facts(link: &mut Link) -> Result<Facts, Failure> {
    let reply = link.must(&["INFO"], Reason::SourceUnreachable)?;
    let text = reply.text().ok_or_else(|| link.refused("INFO", &reply, Reason::SourceUnreachable))?;
    let facts = Facts::parse(&text);
    if facts.is_sentinel() {
        return Err(Failure::new(
            Reason::InvalidConfiguration,
            format!("{}: this is a Sentinel, which holds no data: name the Redis server itself as host", link.place()),
        ));
    }
    Ok(facts)
}

/// A thread of ours that panicked.
pub(super) fn panicked(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Reason::DumpFailed, format!("the worker's own thread ended: {error}"))
}

/// A reply that must not be an error, unless the command is not for us.
pub(super) fn permitted(reply: &super::resp::Reply) -> bool {
    !matches!(reply, super::resp::Reply::Error(words) if trouble::is_forbidden(words))
}
