//! `/healthz`, `/readyz` and `/metrics`. Talks to whoever asks.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use tokio::net::TcpListener;

use super::cache::World;
use super::metrics::{Counters, render};

/// As many connections may wait to be taken.
const BACKLOG: i32 = 1024;

/// What is told to whoever asks.
#[derive(Default)]
pub struct Health {
    /// Whether this controller leads.
    pub leads: AtomicBool,
    /// Whether the cache has been filled, but for namespaces that cannot be listed. A controller that waits for its turn is ready without.
    pub synced: AtomicBool,
    /// What is known.
    pub world: Arc<World>,
    /// Counts.
    pub counters: Arc<Counters>,
}

/// Serves on an address, for ever.
///
/// # Errors
/// Where it cannot listen there.
pub async fn serve(address: SocketAddr, health: Arc<Health>) -> std::io::Result<()> {
    let listener = listen(address)?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, routes).await
}

/// Listens on an address. `[::]` is every address of IPv4 too, whatever the node's default is; without IPv6 it is every one of IPv4.
///
/// # Errors
/// Where it cannot listen there.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match listen_there(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
            tracing::info!("there is no IPv6 here: listening on IPv4");
            listen_there(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        result => result,
    }
}

fn listen_there(address: SocketAddr) -> std::io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        net::sockopt::set_ipv6_v6only(&socket, address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether the kernel has no IPv6, or has it switched off.
fn has_no_ipv6(error: &std::io::Error) -> bool {
    let no_ipv6 = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT];
    no_ipv6.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

async fn ready(State(health): State<Arc<Health>>) -> impl IntoResponse {
    match (health.leads.load(Ordering::SeqCst), health.synced.load(Ordering::SeqCst)) {
        (false, _) => (StatusCode::OK, "ready to take over\n"),
        (true, true) => (StatusCode::OK, "leading\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "leading, and still listing\n"),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    // While it is still listing, half of the objects would look like all there are.
    let knows = health.leads.load(Ordering::SeqCst) && health.synced.load(Ordering::SeqCst);
    let world = knows.then_some(&*health.world);
    if let Ok(text) = render(world, &health.counters) {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text);
    }
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(address: SocketAddr, port: u16) -> bool {
        std::net::TcpStream::connect((address.ip(), port)).is_ok()
    }

    #[tokio::test]
    async fn the_address_of_all_takes_connections_of_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(reaches("127.0.0.1:0".parse().unwrap(), port), "IPv4");
        // A machine without IPv6 has no such address; there the one of IPv4 is all there is.
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            assert!(reaches("[::1]:0".parse().unwrap(), port), "IPv6");
        }
    }

    #[tokio::test]
    async fn one_address_is_that_one_alone() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(listener.local_addr().unwrap().is_ipv4());
        if let Ok(listener) = listen("[::1]:0".parse().unwrap()) {
            let port = listener.local_addr().unwrap().port();
            assert!(reaches("[::1]:0".parse().unwrap(), port));
            assert!(!reaches("127.0.0.1:0".parse().unwrap(), port));
        }
    }

    #[test]
    fn only_a_machine_without_ipv6_falls_back() {
        for (errno, without) in
            [(Errno::AFNOSUPPORT, true), (Errno::ADDRNOTAVAIL, true), (Errno::ADDRINUSE, false), (Errno::ACCESS, false)]
        {
            assert_eq!(has_no_ipv6(&errno.into()), without, "{errno}");
        }
    }
}
