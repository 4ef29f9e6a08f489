//! `/healthz`, `/readyz` and `/metrics`.

use crate::metrics::Metrics;
use crate::world::Synced;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the pages tell about.
#[derive(Clone)]
pub struct Pages {
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Whether everything has been listed.
    pub synced: Arc<Synced>,
}

/// Serves for ever.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, pages: Pages) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    axum::serve(listener, router).await
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.synced.all() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first lists from the API server are not complete yet\n")
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, type_)], pages.metrics.text())
}
