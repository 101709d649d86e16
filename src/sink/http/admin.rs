//! The admin listener: metrics and probes.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::access::{Hosts, Token};
use super::health::{Check, Health};
use super::problem::Problem;
use super::public::unauthorized;
use crate::sink::metrics::Metrics;
use crate::sink::prometheus::CONTENT_TYPE;

#[derive(Debug)]
struct Admin {
    token: Option<Token>,
    hosts: Hosts,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

pub(super) fn router(
    token: Option<Token>,
    hosts: Hosts,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Router {
    let admin = Arc::new(Admin {
        token,
        hosts,
        metrics,
        health,
    });
    Router::new()
        .route("/metrics", get(exposition))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .fallback(|uri: Uri| async move {
            Problem::not_found(format!(
                "nothing at {}; there are /metrics, /livez, /readyz and /startupz",
                uri.path()
            ))
        })
        .layer(from_fn_with_state(Arc::clone(&admin), named))
        .with_state(admin)
}

/// Refuses names that are not this listener's.
async fn named(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match admin.hosts.refuse(request.uri(), request.headers()) {
        Some(reason) => Problem::new(StatusCode::MISDIRECTED_REQUEST, reason).into_response(),
        None => next.run(request).await,
    }
}

async fn exposition(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(token) = &admin.token
        && !token.admits(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes))
    {
        return Err(unauthorized("admin"));
    }
    let text = admin.metrics.text().map_err(|e| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {e}"),
        )
    })?;
    Ok((
        [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))],
        text,
    )
        .into_response())
}

async fn livez(State(admin): State<Arc<Admin>>, uri: Uri) -> Response {
    answer(&admin.health.liveness(), &uri)
}

async fn readyz(State(admin): State<Arc<Admin>>, uri: Uri) -> Response {
    answer(&admin.health.readiness(), &uri)
}

async fn startupz(State(admin): State<Arc<Admin>>, uri: Uri) -> Response {
    answer(&admin.health.startup(), &uri)
}

/// 200 if all pass, else 503 with the reasons; `?verbose` lists every check, as Kubernetes' own servers do.
fn answer(checks: &[Check], uri: &Uri) -> Response {
    let failed: Vec<&str> = checks.iter().filter_map(|c| c.reason.as_deref()).collect();
    let verbose = uri
        .query()
        .is_some_and(|q| q.split('&').any(|p| p == "verbose" || p.starts_with("verbose=")));
    let mut text = String::new();
    if verbose {
        for check in checks {
            let _ = match &check.reason {
                None => writeln!(text, "[+]{} ok", check.name),
                Some(reason) => writeln!(text, "[-]{} failed: {reason}", check.name),
            };
        }
    }
    let (status, word) = if failed.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failed.join("; "))
    };
    let _ = writeln!(text, "{word}");
    (
        status,
        [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            ),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
        text,
    )
        .into_response()
}
