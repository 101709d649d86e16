//! The public listener: page, API, live stream.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, MatchedPath, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use super::ServerSettings;
use super::access::{Hosts, Token};
use super::board::{Board, LEVELS, Snapshot};
use super::health::Health;
use super::openapi::openapi;
use super::problem::Problem;
use super::roads::{Area, nearest, network_geojson, push_line, push_road, push_string};
use super::stream::stream;
use crate::network::{SegmentIndex, SegmentKey};
use crate::sink::metrics::Metrics;
use crate::units::{Bearing, Position};

/// Most features or alerts in one answer.
pub(super) const LIMIT_MAX: usize = 20_000;
/// Features or alerts in one answer where the caller names no limit.
pub(super) const LIMIT_DEFAULT: usize = 1_000;
/// Longest path and query, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Longest body of a request, in bytes: no route reads one.
const BODY_BYTES_MAX: u64 = 1_024;
/// Answers that take long to build, at once.
const LARGE_ANSWERS_MAX: usize = 2;
/// Form of the map's answer, raised when its properties change: a copy that a browser keeps of another form of
/// the same map is not current.
const NETWORK_FORM: u32 = 2;
/// Search radius of `/nearest` in metres where the caller names none, and the largest.
const RADIUS_M: (f64, f64) = (50.0, 500.0);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GEO_JSON: HeaderValue = HeaderValue::from_static("application/geo+json");

/// What the handlers share.
pub(super) struct App {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    token: Option<Token>,
    hosts: Hosts,
    timeout: Duration,
    streams: Arc<Semaphore>,
    large: Arc<Semaphore>,
    // Built at the first request: it costs a second for a large map and does not change.
    network_gzip: OnceLock<Bytes>,
    stopped: watch::Receiver<Option<Duration>>,
}

impl App {
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) fn streams(&self) -> &Arc<Semaphore> {
        &self.streams
    }

    pub(super) fn stopped(&self) -> watch::Receiver<Option<Duration>> {
        self.stopped.clone()
    }
}

/// Path and handler of every route of the API; the OpenAPI document covers exactly these.
fn api() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/api/v1/network", get(network)),
        ("/api/v1/segments", get(segments)),
        ("/api/v1/segments/{id}", get(segment)),
        ("/api/v1/nearest", get(nearest_segment)),
        ("/api/v1/corridors", get(corridors)),
        ("/api/v1/corridors/{id}", get(corridor)),
        ("/api/v1/regions", get(regions)),
        ("/api/v1/regions/{id}", get(region)),
        ("/api/v1/alerts", get(alerts)),
        ("/api/v1/sensors", get(sensors)),
        ("/api/v1/alerts/{id}", get(alert)),
        ("/api/v1/digest", get(digest)),
        ("/api/v1/status", get(status)),
        ("/api/v1/stream", get(stream)),
        ("/openapi.json", get(document)),
    ]
}

/// Paths of the API.
#[cfg(test)]
pub(super) fn api_paths() -> Vec<&'static str> {
    api().into_iter().map(|(path, _)| path).collect()
}

pub(super) fn router(
    settings: &ServerSettings,
    token: Option<Token>,
    hosts: Hosts,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stopped: watch::Receiver<Option<Duration>>,
) -> Router {
    let app = Arc::new(App {
        board,
        metrics,
        health,
        token,
        hosts,
        timeout: Duration::from_secs(u64::from(settings.request_timeout_s)),
        streams: Arc::new(Semaphore::new(settings.stream_clients_max as usize)),
        large: Arc::new(Semaphore::new(LARGE_ANSWERS_MAX)),
        network_gzip: OnceLock::new(),
        stopped,
    });
    let router = api().into_iter().fold(Router::new(), |router, (path, handler)| {
        router.route(path, handler)
    });
    #[cfg(feature = "console")]
    let router = router.merge(super::page::routes());
    router
        .fallback(|uri: Uri| async move {
            Problem::not_found(format!(
                "nothing at {}; the routes are listed at /openapi.json",
                uri.path()
            ))
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not possible at {}; use GET", uri.path()),
            )
            .with(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            tracing::error!("a request handler panicked");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request met a fault of the server; see its log",
            )
            .into_response()
        }))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Limits, access, time-out, headers and metrics of every request.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    // Patterns and a closed set of methods only: labels must not be the caller's to choose.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let mut response = match refused(&app, &request) {
        Some(problem) => problem.into_response(),
        None => tokio::time::timeout(app.timeout, next.run(request))
            .await
            .unwrap_or_else(|_| {
                Problem::busy(format!(
                    "no answer within {} s; ask for less or later",
                    app.timeout.as_secs()
                ))
                .into_response()
            }),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    app.metrics
        .http_request(route, method, response.status().as_u16(), start.elapsed());
    response
}

/// Why a request is not even looked at.
fn refused(app: &App, request: &Request) -> Option<Problem> {
    let uri = request.uri();
    if let Some(reason) = app.hosts.refuse(uri, request.headers()) {
        return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, reason));
    }
    let bytes = uri.path().len() + uri.query().map_or(0, str::len);
    if bytes > URL_BYTES_MAX {
        return Some(Problem::new(
            StatusCode::URI_TOO_LONG,
            format!("path and query have {bytes} bytes, at most {URL_BYTES_MAX} are read"),
        ));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|l| l > BODY_BYTES_MAX) {
        return Some(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("no route reads a body; at most {BODY_BYTES_MAX} bytes are taken"),
        ));
    }
    let guarded = ["/api/", "/tiles/"].iter().any(|p| uri.path().starts_with(p));
    if guarded
        && let Some(token) = &app.token
        && !token.admits(
            request
                .headers()
                .get(header::AUTHORIZATION)
                .map(HeaderValue::as_bytes),
        )
    {
        return Some(unauthorized("server"));
    }
    None
}

pub(super) fn unauthorized(section: &str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        format!(
            "the header `Authorization: Bearer …` is missing or shows another token than {section}.bearer_token_file"
        ),
    )
    .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"viaflux\""))
}

/// The `{id}` of a path; what is no text in UTF-8 is answered with a problem like any other mistake.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(e) => Err(Problem::bad_request(format!(
                "the id in {} cannot be read ({}); write it percent-encoded in UTF-8",
                parts.uri.path(),
                e.body_text()
            ))),
        }
    }
}

/// Parameters of a query, each known and given at most once.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|e| Problem::bad_request(format!("the query cannot be read: {e}")))?;
        for (i, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let rule = if known.is_empty() {
                    "this route takes none".to_owned()
                } else {
                    format!("this route takes {}", known.join(", "))
                };
                return Err(Problem::bad_request(format!(
                    "`{name}` is no parameter here; {rule}"
                )));
            }
            if pairs[..i].iter().any(|(n, _)| n == name) {
                return Err(Problem::bad_request(format!(
                    "`{name}` is given twice; give it once"
                )));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn number(&self, name: &str, range: std::ops::RangeInclusive<f64>) -> Result<Option<f64>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.trim().parse::<f64>() {
            Ok(value) if range.contains(&value) => Ok(Some(value)),
            _ => Err(Problem::bad_request(format!(
                "{name}=`{text}` must be a number from {} to {}",
                range.start(),
                range.end()
            ))),
        }
    }

    fn required(&self, name: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, Problem> {
        let (from, to) = (*range.start(), *range.end());
        self.number(name, range)?.ok_or_else(|| {
            Problem::bad_request(format!(
                "`{name}` is missing; it must be a number from {from} to {to}"
            ))
        })
    }

    fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        match text.parse::<usize>() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(Problem::bad_request(format!(
                "limit=`{text}` must be a whole number from 1 to {LIMIT_MAX}"
            ))),
        }
    }

    fn area(&self) -> Result<Option<Area>, Problem> {
        let Some(text) = self.get("bbox") else {
            return Ok(None);
        };
        let error = |what: &str| {
            Problem::bad_request(format!(
                "bbox=`{text}`: {what}; it must be west,south,east,north in degrees, such as 108.9,34.2,109.0,34.3"
            ))
        };
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|n| n.trim().parse::<f64>()).collect();
        let numbers = numbers.map_err(|_| error("not four numbers"))?;
        let [west, south, east, north] = numbers[..] else {
            return Err(error("not four numbers"));
        };
        let corner =
            |lat, lon| Position::from_degrees(lat, lon).map_err(|_| error("a corner is no position"));
        let (sw, ne) = (corner(south, west)?, corner(north, east)?);
        if west > east {
            return Err(error(
                "west lies east of east (a box over the antimeridian must be asked for in two)",
            ));
        }
        if south > north {
            return Err(error("south lies north of north"));
        }
        Ok(Some(Area {
            west: sw.lon_e7(),
            south: sw.lat_e7(),
            east: ne.lon_e7(),
            north: ne.lat_e7(),
        }))
    }

    fn min_level(&self) -> Result<Option<u8>, Problem> {
        let Some(text) = self.get("min_level") else {
            return Ok(None);
        };
        match LEVELS.iter().position(|l| *l == text) {
            Some(level) => Ok(u8::try_from(level).ok()),
            None => Err(Problem::bad_request(format!(
                "min_level=`{text}` is no level; they are, from best to worst, {}",
                LEVELS.join(", ")
            ))),
        }
    }
}

fn body(kind: HeaderValue, text: impl Into<Bytes>) -> Response {
    (
        [(header::CONTENT_TYPE, kind)],
        axum::body::Body::from(text.into()),
    )
        .into_response()
}

/// Builds a large answer aside, so that small ones need not wait for it.
async fn large(
    app: &Arc<App>,
    build: impl FnOnce(&App) -> Result<Response, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let fault = || {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer could not be built; see the log",
        )
    };
    let permit = Arc::clone(&app.large)
        .acquire_owned()
        .await
        .map_err(|_| fault())?;
    let app = Arc::clone(app);
    let built = tokio::task::spawn_blocking(move || {
        // Held by the work itself: a caller that gives up does not make room for more of it.
        let _permit = permit;
        build(&app)
    });
    built.await.map_err(|error| {
        tracing::error!(%error, "building an answer failed");
        fault()
    })?
}

async fn network(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    // Weak, since it stands for the plain and for the compressed form.
    let version = app.board.roads().version();
    let tag = format!("{version}-{NETWORK_FORM}");
    let etag = HeaderValue::from_str(&format!("W/\"{tag}\"")).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the map's version is no header value",
        )
    })?;
    let common = [
        (header::ETAG, etag),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        ),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|tags| {
            tags.split(',')
                .map(str::trim)
                .any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t).trim_matches('"') == tag)
        });
    if known {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let accepts_gzip = accepts_gzip(&headers);
    let mut response = large(&app, move |app| {
        let gzip = app.network_gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let written = encoder.write_all(network_geojson(app.board.roads()).as_bytes());
            let gzip = written
                .and_then(|()| encoder.finish())
                .expect("writing to memory does not fail");
            Bytes::from(gzip)
        });
        if accepts_gzip {
            let mut response = body(GEO_JSON, gzip.clone());
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return Ok(response);
        }
        let mut plain = Vec::new();
        GzDecoder::new(&gzip[..])
            .read_to_end(&mut plain)
            .expect("the bytes were compressed above");
        Ok(body(GEO_JSON, plain))
    })
    .await?;
    response.headers_mut().extend(common);
    Ok(response)
}

/// Whether `Accept-Encoding` names gzip without refusing it (`;q=0`).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|value| {
            value.split(',').any(|coding| {
                let mut parts = coding.split(';').map(str::trim);
                let refused = || {
                    coding
                        .split(';')
                        .filter_map(|p| p.trim().strip_prefix("q="))
                        .any(|q| q.trim().parse::<f32>().is_ok_and(|q| q == 0.0))
                };
                parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !refused()
            })
        })
}

/// Appends a segment's feature, its properties being the state as published.
fn push_feature(out: &mut String, app: &App, i: SegmentIndex, state: Option<&[u8]>) {
    let roads = app.board.roads();
    let key = roads.segments()[i as usize].key;
    let _ = write!(out, "{{\"type\":\"Feature\",\"id\":\"{key}\",\"geometry\":");
    push_line(out, &roads.geometry(i));
    out.push_str(",\"properties\":");
    match state {
        Some(state) => out.push_str(&String::from_utf8_lossy(state)),
        // Nothing was published yet: no data is not free flow.
        None => {
            let _ = write!(
                out,
                "{}",
                json!({
                    "schema": "viaflux.segment_state/1",
                    "segment_id": key.to_string(),
                    "segment": i,
                    "map_version": roads.version(),
                    "way_id": key.way,
                    "current_speed_kph": null,
                    "speed_ratio": null,
                    "basis": "none",
                    "level": "unknown",
                })
            );
        }
    }
}

/// What every collection says of itself.
fn push_moment(out: &mut String, app: &App, pane_end: Option<crate::units::EventTime>, event: u64) {
    out.push_str("\"map_version\":");
    push_string(out, app.board.roads().version());
    let pane_end = json!(pane_end.map(|t| t.to_string()));
    let _ = write!(out, ",\"pane_end\":{pane_end},\"last_event_id\":\"{event}\"");
}

async fn segments(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::parse(&uri, &["bbox", "min_level", "limit", "cursor"])?;
    let (area, min_level, limit) = (params.area()?, params.min_level()?, params.limit()?);
    let count = app.board.areas().len();
    let from = match params.get("cursor") {
        None => 0,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|c| *c <= count)
            .ok_or_else(|| {
                Problem::bad_request(format!(
                    "cursor=`{text}` is none; take `next_cursor` of the page before"
                ))
            })?,
    };
    large(&app, move |app| {
        let snapshot = app.board.snapshot();
        let mut found = snapshot
            .states(from)
            .filter(|(i, _)| area.is_none_or(|a| a.meets(app.board.areas()[*i])))
            .filter(|(_, state)| min_level.is_none_or(|min| state.level.is_some_and(|l| l >= min)));
        let mut out = String::from("{\"type\":\"FeatureCollection\",");
        push_moment(&mut out, app, snapshot.pane.pane_end, snapshot.event);
        out.push_str(",\"features\":[");
        for (n, (i, state)) in found.by_ref().take(limit).enumerate() {
            if n > 0 {
                out.push(',');
            }
            // The map's indices are u32.
            push_feature(&mut out, app, i as SegmentIndex, Some(&state.body));
            out.push('}');
        }
        let next = found.next().map(|(i, _)| i.to_string());
        let _ = write!(out, "],\"next_cursor\":{}}}", json!(next));
        Ok(body(GEO_JSON, out))
    })
    .await
}

async fn segment(State(app): State<Arc<App>>, Id(id): Id, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let key: SegmentKey = id.parse().map_err(Problem::bad_request)?;
    let Some(i) = app.board.roads().find(key) else {
        let version = app.board.roads().version();
        return Err(Problem::not_found(format!(
            "the map (version {version}) has no segment {key}; see /api/v1/network or /api/v1/nearest"
        )));
    };
    let mut out = String::new();
    push_one(&mut out, &app, i);
    out.push('}');
    Ok(body(GEO_JSON, out))
}

/// Appends one segment with its road, without the closing brace.
fn push_one(out: &mut String, app: &App, i: SegmentIndex) {
    let snapshot = app.board.snapshot();
    push_feature(out, app, i, snapshot.state(i).map(|s| &s.body[..]));
    out.push_str(",\"road\":");
    push_road(out, app.board.roads(), i);
}

async fn nearest_segment(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::parse(&uri, &["lat", "lon", "heading", "radius_m"])?;
    let (lat, lon) = (
        params.required("lat", -90.0..=90.0)?,
        params.required("lon", -180.0..=180.0)?,
    );
    let heading = params
        .number("heading", 0.0..=360.0)?
        .and_then(Bearing::from_degrees);
    let radius_m = params.number("radius_m", 1.0..=RADIUS_M.1)?.unwrap_or(RADIUS_M.0);
    let at = Position::from_degrees(lat, lon)
        .map_err(|e| Problem::bad_request(format!("lat={lat}, lon={lon} is no position ({e:?})")))?;
    // At most 500,000 mm.
    let Some(found) = nearest(app.board.roads(), at, heading, (radius_m * 1000.0) as u32) else {
        let direction = if heading.is_some() {
            " in that direction (within 60 degrees)"
        } else {
            ""
        };
        return Err(Problem::not_found(format!(
            "no road{direction} within {radius_m} m of lat={lat}, lon={lon}; a larger radius_m (to {}) may find one",
            RADIUS_M.1
        )));
    };
    let mut out = String::new();
    push_one(&mut out, &app, found.segment);
    let place = json!({
        "distance_m": f64::from(found.distance_mm) / 1000.0,
        "offset_m": f64::from(found.offset_mm) / 1000.0,
        "bearing_deg": found.bearing.degrees(),
    });
    let _ = write!(out, ",\"match\":{place}}}");
    Ok(body(GEO_JSON, out))
}

/// A list of published objects under a name.
fn list<'a>(app: &App, snapshot: &Snapshot, name: &str, bodies: impl Iterator<Item = &'a Bytes>) -> Response {
    let mut out = String::from("{");
    push_moment(&mut out, app, snapshot.pane.pane_end, snapshot.event);
    let _ = write!(out, ",\"{name}\":[");
    for (n, one) in bodies.enumerate() {
        if n > 0 {
            out.push(',');
        }
        out.push_str(&String::from_utf8_lossy(one));
    }
    out.push_str("]}");
    body(JSON, out)
}

async fn corridors(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let snapshot = app.board.snapshot();
    Ok(list(
        &app,
        &snapshot,
        "corridors",
        snapshot.corridors.values().map(|(_, body)| body),
    ))
}

async fn corridor(State(app): State<Arc<App>>, Id(id): Id, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    match app.board.snapshot().corridors.get(&id) {
        Some((_, one)) => Ok(body(JSON, one.clone())),
        None => Err(Problem::not_found(format!(
            "nothing is known of a corridor `{id}`; those with a travel time are listed at /api/v1/corridors"
        ))),
    }
}

async fn regions(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let snapshot = app.board.snapshot();
    Ok(list(
        &app,
        &snapshot,
        "regions",
        snapshot.regions.values().map(|(_, body)| body),
    ))
}

async fn region(State(app): State<Arc<App>>, Id(id): Id, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    match app.board.snapshot().regions.get(&id) {
        Some((_, one)) => Ok(body(JSON, one.clone())),
        None => Err(Problem::not_found(format!(
            "nothing is known of a region `{id}`; those with an index are listed at /api/v1/regions"
        ))),
    }
}

async fn alerts(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::parse(&uri, &["state", "limit"])?;
    let limit = params.limit()?;
    let wanted = match params.get("state") {
        None | Some("open") => Some(false),
        Some("resolved") => Some(true),
        Some("all") => None,
        Some(other) => {
            return Err(Problem::bad_request(format!(
                "state=`{other}` must be open, resolved or all"
            )));
        }
    };
    let snapshot = app.board.snapshot();
    let mut found: Vec<_> = snapshot
        .alerts
        .iter()
        .filter(|(_, a)| wanted.is_none_or(|resolved| a.resolved == resolved))
        .collect();
    // What changed last stands first.
    found.sort_by(|(a, x), (b, y)| y.time.cmp(&x.time).then_with(|| a.cmp(b)));
    Ok(list(
        &app,
        &snapshot,
        "alerts",
        found.iter().take(limit).map(|(_, a)| &a.body),
    ))
}

async fn sensors(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let limit = Params::parse(&uri, &["limit"])?.limit()?;
    let snapshot = app.board.snapshot();
    Ok(list(
        &app,
        &snapshot,
        "sensors",
        snapshot.sensors.iter().take(limit),
    ))
}

async fn alert(State(app): State<Arc<App>>, Id(id): Id, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    match app.board.snapshot().alerts.get(&id) {
        Some(one) => Ok(body(JSON, one.body.clone())),
        None => Err(Problem::not_found(format!(
            "no alert `{id}` is known; open ones are listed at /api/v1/alerts, resolved ones for 24 h at \
             /api/v1/alerts?state=resolved"
        ))),
    }
}

async fn digest(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let snapshot = app.board.snapshot();
    let answer = json!({
        "digest": snapshot.pane.digest,
        "pane_end": snapshot.pane.pane_end.map(|t| t.to_string()),
        "map_version": app.board.roads().version(),
        "config_hash": snapshot.status.config_hash,
    });
    Ok(body(JSON, answer.to_string()))
}

async fn status(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let snapshot = app.board.snapshot();
    let reasons = app.health.not_ready();
    let now = app.board.now();
    let s = &*snapshot.status;
    let answer = json!({
        "ready": reasons.is_empty(),
        "reason": (!reasons.is_empty()).then(|| reasons.join("; ")),
        "mode": s.mode,
        "version": env!("CARGO_PKG_VERSION"),
        "map_version": app.board.roads().version(),
        "config_hash": s.config_hash,
        "server_time": now.to_string(),
        "pane_end": snapshot.pane.pane_end.map(|t| t.to_string()),
        "age_s": snapshot.pane.pane_end.map(|t| now.since(t).max(0) as f64 / 1000.0),
        "since_last_pane_s": snapshot.pane_at.map(|t| t.elapsed().as_secs_f64()),
        "coverage_ratio": s.coverage_ratio,
        "records": s.records,
        "sources": s.sources,
        "segments_total": app.board.areas().len(),
        "segments_by_basis": s.segments_by_basis,
        "alerts_open": snapshot.alerts.values().filter(|a| !a.resolved).count(),
        "last_event_id": snapshot.event.to_string(),
    });
    Ok(body(JSON, answer.to_string()))
}

async fn document(uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    Ok(body(JSON, openapi().to_string()))
}
