//! A proxy between a controller and the API server, which does things wrong at moments of one's choice. Talks to the API server.
//!
//! Plain HTTP on loopback to the controller; towards the API server the tests' own kubeconfig. Writes to Leases are not counted: when
//! they happen is a matter of time, not of what the controller decides. Nor are events, which nothing depends on: to be killed there is
//! to be killed before the write that follows. Reads of single objects are always answered as the API server does: it promises that
//! they are of this moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::client::Body;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{client, cluster};
use crate::fault::{At, Fault, Kind, expired_event, forbidden, gone};

/// How long watches are frozen, and lists are old.
const WHILE: Duration = Duration::from_secs(8);
/// Who cannot renew its lease for ten seconds ends.
const OUTAGE: Duration = Duration::from_secs(13);
/// Lists are as old as this many writes.
const WRITES_AGO: usize = 3;

/// A proxy; it stops when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    upstream: kube::Client,
    faults: Vec<Fault>,
    /// How often watches were ended, and whether with a word.
    ended: watch::Sender<(u32, bool)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    victim: Option<i32>,
    writes: Vec<String>,
    tries: HashMap<String, usize>,
    struck: Vec<String>,
    /// How many of the writes were kept from being done.
    undone: usize,
    /// The faults at one write that have been.
    spent: BTreeSet<usize>,
    frozen_until: Option<Instant>,
    out_until: Option<Instant>,
    stale_until: Option<Instant>,
    /// What was listed since no watch may begin where it was; none while it may.
    listed: Option<BTreeSet<String>>,
    /// Namespaces in which nothing may be listed or watched.
    forbidden: BTreeSet<String>,
    /// The lists that watches begin with, as they were.
    lists: BTreeMap<String, Option<Bytes>>,
}

impl Proxy {
    /// A proxy that does these; it kills the process that [`Proxy::aim`] names.
    pub fn start(faults: Vec<Fault>) -> Self {
        cluster().block_on(async {
            let upstream = client(cluster().kubeconfig()).await;
            let state = State { upstream, faults, ended: watch::Sender::new((0, false)), seen: Mutex::default() };
            let state = Arc::new(state);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, Arc::clone(&state)));
            Self { address, state, server }
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process to kill.
    pub fn aim(&self, pid: u32) {
        self.state.seen().victim = Some(i32::try_from(pid).unwrap());
    }

    /// From now on nothing may be listed or watched in a namespace, as if the rights in it were gone with it; or it may again.
    pub fn forbid(&self, namespace: &str, forbid: bool) {
        let mut seen = self.state.seen();
        if forbid {
            seen.forbidden.insert(namespace.to_owned());
        } else {
            seen.forbidden.remove(namespace);
        }
    }

    /// The writes that something went wrong at.
    pub fn struck(&self) -> Vec<String> {
        self.state.seen().struck.clone()
    }

    /// The writes so far: what was done to what.
    pub fn writes(&self) -> Vec<String> {
        self.state.seen().writes.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- what was written through the proxy: {:#?}\n--- of which failed: {:#?}",
                self.writes(),
                self.struck()
            );
        }
        self.server.abort();
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Broken>>;
type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| forward(Arc::clone(&state), request));
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

/// An error ends the connection.
async fn forward(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Broken> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if state.is_out() {
        return Err("nobody is there".into());
    }
    head.headers.remove(http::header::HOST);
    head.headers.remove(http::header::CONNECTION);
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    head.uri = path.parse()?;
    if head.method == Method::GET && state.forbids(&path) {
        return Ok(boxed(forbidden()));
    }
    if head.method == Method::GET {
        return Arc::clone(&state).read(head, &path).await;
    }
    let Some(kind) = state.count(&head, &body).await else { return Ok(state.send(head, body).await) };
    if kind.is_done() {
        let answer = state.send(head, body).await;
        if Kind::OF_READS.contains(&kind) {
            return Ok(answer);
        }
    }
    match kind {
        Kind::KilledBefore | Kind::KilledAfter => {
            state.kill();
            never().await
        }
        Kind::Silent => never().await,
        _ => kind.answer().map(boxed).ok_or_else(|| "the connection broke".into()),
    }
}

impl Seen {
    /// The number of the last write, counted from the first whose words hold `from`, without those that were not done.
    fn number(&self, from: &str) -> usize {
        self.writes.iter().skip_while(|words| !words.contains(from)).count().saturating_sub(self.undone)
    }
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Whether this is a list or a watch in a namespace where there may be none.
    fn forbids(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let Some((_, rest)) = path.split_once("/namespaces/") else { return false };
        let parts: Vec<&str> = rest.split('/').collect();
        parts.len() == 2 && self.seen().forbidden.contains(parts[0])
    }

    fn is_out(&self) -> bool {
        self.seen().out_until.is_some_and(|until| Instant::now() < until)
    }

    async fn send(&self, head: Parts, body: Bytes) -> Answer {
        boxed(match self.upstream.send(Request::from_parts(head, Body::from(body.to_vec()))).await {
            Ok(mut response) => {
                *response.version_mut() = Version::HTTP_11;
                response
            }
            Err(error) => Response::builder().status(502).body(Body::from(error.to_string().into_bytes())).unwrap(),
        })
    }

    /// Counts a write and says what goes wrong at it.
    async fn count(&self, head: &Parts, body: &[u8]) -> Option<Kind> {
        let path = head.uri.path();
        let passed_over = ["/authorization.k8s.io/", "/coordination.k8s.io/", "/events"];
        if passed_over.iter().any(|part| path.contains(part)) {
            return None;
        }
        let object: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let (due, about_to_be_stale) = {
            let mut seen = self.seen();
            seen.writes.push(in_words(head, &object));
            let tries = seen.tries.entry(format!("{} {path} {name}", head.method)).or_default();
            *tries += 1;
            let first_try = *tries % 2 == 1;
            let faults = self.faults.iter().enumerate();
            let due = faults.clone().find(|(n, fault)| match fault.at {
                At::Write { number, from } => number == seen.number(from) && !seen.spent.contains(n),
                At::EveryFirstTry => first_try,
            });
            let stale = faults.clone().any(|(_, fault)| match fault.at {
                At::Write { number, from } if fault.kind == Kind::Stale => {
                    seen.number(from) == number.saturating_sub(WRITES_AGO).max(1)
                }
                _ => false,
            });
            if let Some((n, fault)) = due {
                seen.spent.insert(n);
                seen.undone += usize::from(!fault.kind.is_done());
            }
            (due.map(|(_, fault)| fault.kind), stale)
        };
        if about_to_be_stale {
            self.remember_lists().await;
        }
        due.inspect(|kind| self.strike(*kind))
    }

    fn strike(&self, kind: Kind) {
        let mut seen = self.seen();
        let last = seen.writes.last().cloned().unwrap_or_default();
        seen.struck.push(format!("{kind:?} {last}"));
        match kind {
            Kind::Frozen => seen.frozen_until = Some(Instant::now() + WHILE),
            Kind::Stale => seen.stale_until = Some(Instant::now() + WHILE),
            Kind::Outage => seen.out_until = Some(Instant::now() + OUTAGE),
            Kind::Gone => seen.listed = Some(BTreeSet::new()),
            _ => {}
        }
        if matches!(kind, Kind::Expired | Kind::Gone | Kind::Stale | Kind::Outage) {
            self.ended.send_modify(|ended| *ended = (ended.0 + 1, matches!(kind, Kind::Expired | Kind::Stale)));
        }
    }

    fn kill(&self) {
        if let Some(pid) = self.seen().victim.take() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }

    /// Takes down the lists that watches begin with, as they are now.
    async fn remember_lists(&self) {
        let paths: Vec<String> = self.seen().lists.keys().cloned().collect();
        for path in paths {
            let request = Request::get(&path).header(http::header::ACCEPT, "application/json").body(Body::empty());
            if let Ok(answer) = self.upstream.send(request.unwrap()).await
                && let Ok(body) = answer.into_body().collect().await
            {
                self.seen().lists.insert(path, Some(body.to_bytes()));
            }
        }
    }

    async fn read(self: Arc<Self>, head: Parts, path: &str) -> Result<Answer, Broken> {
        let of = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default();
        if query.contains("watch=true") {
            if self.seen().listed.as_ref().is_some_and(|listed| !listed.contains(&of)) {
                return Ok(boxed(gone()));
            }
            let (head, body) = self.send(head, Bytes::new()).await.into_parts();
            return Ok(Response::from_parts(head, watched(body, self)));
        }
        // The observer asks for everything at once.
        if query.contains("limit=") {
            let mut seen = self.seen();
            if let Some(listed) = &mut seen.listed {
                listed.insert(of);
            }
            let is_stale = seen.stale_until.is_some_and(|until| Instant::now() < until);
            let before = seen.lists.entry(path.to_owned()).or_default().clone();
            if let Some(before) = before.filter(|_| is_stale) {
                let answer = Response::builder().header(http::header::CONTENT_TYPE, "application/json");
                return Ok(boxed(answer.body(Body::from(before)).unwrap()));
            }
        }
        Ok(self.send(head, Bytes::new()).await)
    }
}

/// A watch, held up while that is so, and ended when it is to end.
fn watched(body: UnsyncBoxBody<Bytes, Broken>, state: Arc<State>) -> UnsyncBoxBody<Bytes, Broken> {
    let ended = state.ended.subscribe();
    let begin = (Some(body), state, ended, true);
    let frames = futures::stream::unfold(begin, |(body, state, mut ended, between_events)| async move {
        let mut body = body?;
        let frame = tokio::select! {
            _ = ended.changed() => {
                let told = ended.borrow().1 && between_events;
                return told.then(|| (Ok(Frame::data(Bytes::from(expired_event()))), (None, state, ended, true)));
            }
            frame = body.frame() => frame?,
        };
        loop {
            let until = state.seen().frozen_until.filter(|until| Instant::now() < *until);
            let Some(until) = until else { break };
            tokio::time::sleep_until(until.into()).await;
        }
        let between_events = frame.as_ref().ok().and_then(Frame::data_ref).is_none_or(|data| data.ends_with(b"\n"));
        Some((frame, (Some(body), state, ended, between_events)))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn boxed(response: Response<Body>) -> Answer {
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A write in words that two runs have in common as far as they can.
fn in_words(head: &Parts, object: &Value) -> String {
    let parts: Vec<&str> = head.uri.path().split('/').skip_while(|part| *part != "namespaces").skip(2).collect();
    let task = object["metadata"]["labels"]["holdfast.dev/task"].as_str().unwrap_or_default();
    // The names of Jobs end in a hash.
    let parts = if parts.first() == Some(&"jobs") { &parts[..1] } else { &parts[..] };
    format!("{} {} {task}", head.method, parts.join("/")).trim_end().to_owned()
}

/// The connection of a killed process gets no answer any more.
async fn never() -> Result<Answer, Broken> {
    let never: Infallible = std::future::pending().await;
    match never {}
}
