//! `/healthz`, `/readyz` and `/metrics`. Talks to whoever asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::cache::World;
use super::metrics::{Counters, render};

/// What is told to whoever asks.
#[derive(Default)]
pub struct Health {
    /// Whether this controller leads.
    pub leads: AtomicBool,
    /// Whether the cache has been filled. A controller that waits for its turn is ready without.
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
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, routes).await
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
