//! The web page at `/`, part of the binary.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Only what this server itself sends may run, be shown or be asked.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Path, content type and content of each file.
const FILES: [(&str, &str, &str); 3] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../../web/index.html"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../web/app.js"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("../../../web/style.css"),
    ),
];

/// The routes of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, content)| {
            let answer = move || async move {
                (
                    [
                        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
                        (header::CONTENT_SECURITY_POLICY, POLICY),
                        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                    ],
                    content,
                )
                    .into_response()
            };
            router.route(path, get(answer))
        })
}
