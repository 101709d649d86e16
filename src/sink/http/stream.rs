//! The live stream (server-sent events): a cursor over the board's ring.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::board::Board;
use super::events::{Next, Subject};
use super::problem::Problem;
use super::public::{App, Params};
use crate::sink::metrics::Metrics;

/// Interval of the sign of life. It carries the number of the last event looked at, so that a client that
/// asked for rare events does not resume from one that left the ring long ago.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Counts an open stream for as long as it is held.
struct Seat {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    fn take(metrics: Arc<Metrics>, permit: OwnedSemaphorePermit) -> Self {
        metrics.stream_opened();
        Self {
            metrics,
            _permit: permit,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.metrics.stream_closed();
    }
}

struct Reader {
    board: Arc<Board>,
    subjects: Vec<Subject>,
    seen: u64,
    newest: watch::Receiver<u64>,
    stopped: watch::Receiver<Option<Duration>>,
    greeting: Option<String>,
    ended: bool,
    seat: Seat,
}

impl Reader {
    /// The next piece of the stream, `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(Bytes::from(greeting));
        }
        while !self.ended {
            // Marked before looking, so that what comes between looking and waiting wakes us.
            self.newest.borrow_and_update();
            match self.board.after(self.seen, &self.subjects) {
                Next::Event(number, text) => {
                    self.seen = number;
                    return Some(text);
                }
                Next::Gone => {
                    self.ended = true;
                    self.seat.metrics.stream_dropped_slow();
                    let last = self.board.snapshot().event;
                    return Some(Bytes::from(reset(last, "read too slowly: events were dropped")));
                }
                Next::Nothing(looked_at) => self.seen = looked_at,
            }
            tokio::select! {
                changed = self.newest.changed() => self.ended |= changed.is_err(),
                _ = self.stopped.wait_for(Option::is_some) => self.ended = true,
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    return Some(Bytes::from(format!(": still here\nid: {}\n\n", self.seen)));
                }
            }
        }
        None
    }
}

/// Tells a client that it missed events and must load the state anew.
fn reset(last: u64, reason: &str) -> String {
    format!("id: {last}\nevent: reset\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

/// `GET /api/v1/stream`
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = Params::parse(&uri, &["topics", "last_event_id"])?;
    let subjects = subjects(params.get("topics"))?;
    let resume = match (headers.get("last-event-id"), params.get("last_event_id")) {
        // What a reconnecting client says counts over the address it first came with. A value that is no
        // number is not one of ours: the client has missed something.
        (Some(value), _) => Some(value.to_str().ok().and_then(|v| v.trim().parse().ok()).unwrap_or(u64::MAX)),
        (None, Some(value)) => Some(value.parse().map_err(|_| {
            Problem::bad_request(format!(
                "last_event_id=`{value}` is no number; take it from `last_event_id` of an answer or from an event's id"
            ))
        })?),
        (None, None) => None,
    };
    let Ok(permit) = Arc::clone(app.streams()).try_acquire_owned() else {
        app.metrics().stream_refused();
        return Err(Problem::busy(
            "as many live streams as server.stream_clients_max allows are open; ask again later or poll \
             /api/v1/segments",
        ));
    };
    let newest = app.board().newest();
    let last = app.board().snapshot().event;
    let (seen, greeting) = match resume {
        Some(seen) if app.board().after(seen, &subjects) == Next::Gone => (
            last,
            format!(
                "retry: 3000\n{}",
                reset(last, "the events since then are no longer kept")
            ),
        ),
        seen => {
            let seen = seen.unwrap_or(last);
            (seen, format!("retry: 3000\nid: {seen}\n\n"))
        }
    };
    let reader = Reader {
        board: Arc::clone(app.board()),
        subjects,
        seen,
        newest,
        stopped: app.stopped(),
        greeting: Some(greeting),
        ended: false,
        seat: Seat::take(Arc::clone(app.metrics()), permit),
    };
    let pieces = futures_util::stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(piece), reader))
    });
    Ok((
        [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/event-stream"),
            ),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // nginx would hold events back.
            (
                header::HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ],
        Body::from_stream(pieces),
    )
        .into_response())
}

fn subjects(topics: Option<&str>) -> Result<Vec<Subject>, Problem> {
    let Some(topics) = topics else {
        return Ok(Subject::ALL.to_vec());
    };
    topics
        .split(',')
        .map(|word| {
            Subject::ALL
                .into_iter()
                .find(|s| s.word() == word.trim())
                .ok_or_else(|| {
                    let known = Subject::ALL.map(Subject::word).join(", ");
                    Problem::bad_request(format!("topics: `{word}` is no topic; there are {known}"))
                })
        })
        .collect()
}
