//! A proxy between a controller and the API server, which kills the controller at a write of one's choice. Talks to the API server.
//!
//! Plain HTTP on loopback to the controller; towards the API server the tests' own kubeconfig. Writes to Leases are not counted: when
//! they happen is a matter of time, not of what the controller decides. Nor are events, which nothing depends on: to be killed there is
//! to be killed before the write that follows.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::client::Body;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cluster::{client, cluster};

/// When to kill. Writes are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never.
    None,
    /// At this write, before the API server hears of it.
    BeforeSending(usize),
    /// At this write, after the API server has done it and before the controller knows.
    BeforeTheReply(usize),
}

/// A proxy; it stops when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    upstream: kube::Client,
    watched: Mutex<Watched>,
}

struct Watched {
    fault: Fault,
    victim: Option<i32>,
    writes: Vec<String>,
    struck: bool,
}

impl Proxy {
    /// A proxy that does this to the process that [`Proxy::aim`] names.
    pub fn start(fault: Fault) -> Self {
        cluster().block_on(async {
            let upstream = client(cluster().kubeconfig()).await;
            let watched = Mutex::new(Watched { fault, victim: None, writes: Vec::new(), struck: false });
            let state = Arc::new(State { upstream, watched });
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
        self.state.watched.lock().unwrap().victim = Some(i32::try_from(pid).unwrap());
    }

    /// Whether it has killed.
    pub fn has_struck(&self) -> bool {
        self.state.watched.lock().unwrap().struck
    }

    /// The writes so far: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.state.watched.lock().unwrap().writes.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| forward(Arc::clone(&state), request));
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn forward(state: Arc<State>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let due = state.count(&request);
    if due == Some(Moment::Before) {
        state.strike();
        return never().await;
    }
    request.headers_mut().remove(http::header::HOST);
    request.headers_mut().remove(http::header::CONNECTION);
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    *request.uri_mut() = path.parse().unwrap();
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return never().await };
    let answer = state.upstream.send(Request::from_parts(head, Body::from(body.to_bytes().to_vec()))).await;
    if due == Some(Moment::After) {
        state.strike();
        return never().await;
    }
    Ok(match answer {
        Ok(mut response) => {
            *response.version_mut() = Version::HTTP_11;
            response
        }
        Err(error) => Response::builder().status(502).body(Body::from(error.to_string().into_bytes())).unwrap(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl State {
    /// Counts a write and says whether this is the one.
    fn count(&self, request: &Request<Incoming>) -> Option<Moment> {
        let path = request.uri().path();
        let passed_over = ["/authorization.k8s.io/", "/coordination.k8s.io/", "/events"];
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads || passed_over.iter().any(|part| path.contains(part)) {
            return None;
        }
        let mut watched = self.watched.lock().unwrap();
        watched.writes.push(format!("{} {path}", request.method()));
        let number = watched.writes.len();
        match watched.fault {
            Fault::BeforeSending(due) if due == number => Some(Moment::Before),
            Fault::BeforeTheReply(due) if due == number => Some(Moment::After),
            _ => None,
        }
    }

    fn strike(&self) {
        let mut watched = self.watched.lock().unwrap();
        if let Some(pid) = watched.victim.take() {
            watched.struck = true;
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

/// The connection of a killed process gets no answer any more.
async fn never() -> Result<Response<Body>, Infallible> {
    std::future::pending().await
}
