//! Both listeners on real sockets, over roads drawn by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use super::public::{LIMIT_MAX, api_paths};
use super::*;
use crate::network::{Candidate, RoadClass, Segment, SegmentFlags, SegmentIndex, SegmentKey};
use crate::publish::{Publication, Topic};
use crate::units::{Bearing, EventTime, Position};

const PANE: i64 = 30_000;

fn at(pane: i64) -> EventTime {
    EventTime::from_ms(1_773_037_800_000 + pane * PANE)
}

/// Straight roads of 0.001 degrees to the north, side by side 0.01 degrees apart; each with its twin.
struct Street {
    segments: Vec<Segment>,
}

impl Street {
    fn new(roads: u32) -> Arc<Self> {
        let segment = |i: u32| {
            let (road, back) = (i64::from(i / 2), i % 2 == 1);
            let (a, b) = (road * 10 + 1, road * 10 + 2);
            Segment {
                key: SegmentKey {
                    way: 1000 + road,
                    from_node: if back { b } else { a },
                    to_node: if back { a } else { b },
                },
                from: i,
                to: i + 1,
                length_mm: 111_195,
                class: RoadClass::PrimaryLink,
                flags: SegmentFlags(SegmentFlags::LIMIT_TAGGED),
                limit_kph: 60,
                free_flow: 15_000,
                lanes: 2,
                twin: Some(i ^ 1),
                link: i,
            }
        };
        Arc::new(Self {
            segments: (0..roads * 2).map(segment).collect(),
        })
    }
}

impl Roads for Street {
    fn version(&self) -> &str {
        "00000000deadbeef"
    }
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
    fn name(&self, i: SegmentIndex) -> Option<&str> {
        (i < 2).then_some("长安\"南\"路")
    }
    fn geometry(&self, i: SegmentIndex) -> Vec<Position> {
        let lon = 108.0 + f64::from(i / 2) * 0.01;
        let mut shape = vec![
            Position::from_degrees(34.0, lon).unwrap(),
            Position::from_degrees(34.001, lon).unwrap(),
        ];
        if i % 2 == 1 {
            shape.reverse();
        }
        shape
    }
    fn find(&self, key: SegmentKey) -> Option<SegmentIndex> {
        self.segments
            .iter()
            .position(|s| s.key == key)
            .map(|i| i as SegmentIndex)
    }
    fn candidates(&self, at: Position, radius_mm: u32, out: &mut Vec<Candidate>) {
        out.clear();
        for i in 0..self.segments.len() as u32 {
            let foot =
                Position::from_degrees(at.lat().clamp(34.0, 34.001), self.geometry(i)[0].lon()).unwrap();
            let distance_mm = (foot.distance_m(at) * 1000.0) as u32;
            if distance_mm <= radius_mm {
                let bearing = Bearing::from_degrees(if i % 2 == 1 { 180.0 } else { 0.0 }).unwrap();
                let offset_mm = (self.geometry(i)[0].distance_m(foot) * 1000.0) as u32;
                out.push(Candidate {
                    segment: i,
                    offset_mm,
                    distance_mm,
                    bearing,
                    off_mm: (0, 0),
                });
            }
        }
        out.sort_by_key(|c| (c.distance_mm, c.segment));
    }
}

fn publication(topic: Topic, key: &str, pane: i64, body: &Value) -> Publication {
    Publication {
        topic,
        key: key.to_owned(),
        id: format!("{topic:?}-{key}-{pane}"),
        time: at(pane),
        body: Some(body.to_string().into_bytes()),
    }
}

fn state_with(road: u32, pane: i64, level: &str, more: &Value) -> Publication {
    let key = format!("{}:{}:{}", 1000 + road, road * 10 + 1, road * 10 + 2);
    let mut body = json!({
        "schema": "viaflux.segment_state/1", "segment_id": key, "segment": road * 2,
        "map_version": "00000000deadbeef", "window_end": at(pane).to_string(), "current_speed_kph": 18.4,
        "basis": "live", "level": level, "partial": false, "provisional": false,
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    publication(Topic::SegmentState, &key, pane, &body)
}

fn state(road: u32, pane: i64, level: &str) -> Publication {
    state_with(road, pane, level, &json!({}))
}

fn alert(id: &str, revision: u64, pane: i64, transition: &str) -> Publication {
    let body = json!({
        "schema": "viaflux.alert/1", "alert_id": id, "revision": revision, "type": "congestion",
        "transition": transition, "severity": "major",
    });
    publication(Topic::AlertEvent, id, pane, &body)
}

struct World {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    handle: Handle,
}

fn world_with(board: Board, server: ServerSettings, admin: AdminSettings) -> World {
    let board = Arc::new(board);
    let metrics = Arc::new(Metrics::new(10_000));
    let health = Arc::new(Health::default());
    let server = ServerSettings {
        listen: "127.0.0.1:0".to_owned(),
        ..server
    };
    let admin = AdminSettings {
        listen: "127.0.0.1:0".to_owned(),
        ..admin
    };
    let handle = serve(
        &server,
        &admin,
        Arc::clone(&board),
        Arc::clone(&metrics),
        Arc::clone(&health),
    )
    .unwrap();
    World {
        board,
        metrics,
        health,
        handle,
    }
}

fn world(roads: u32) -> World {
    let board = Board::with_clock(Street::new(roads), Limits::default(), || at(100));
    world_with(board, ServerSettings::default(), AdminSettings::default())
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
    /// Checks that it is a problem of this status and gives its detail.
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], "about:blank");
        assert!(body["title"].is_string());
        body["detail"].as_str().unwrap().to_owned()
    }
}

fn head(text: &str) -> (u16, BTreeMap<String, String>) {
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    (status, headers)
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        let start = end + 2;
        out.extend_from_slice(&body[start..start + size]);
        body = &body[start + size + 2..];
    }
    out
}

fn request(to: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let (status, headers) = head(std::str::from_utf8(&bytes[..split]).unwrap());
    let body = if headers.get("transfer-encoding").is_some_and(|t| t == "chunked") {
        unchunk(&bytes[split..])
    } else {
        bytes[split..].to_vec()
    };
    Answer {
        status,
        headers,
        body,
    }
}

impl World {
    fn get(&self, path: &str) -> Answer {
        request(self.handle.public_address(), "GET", path, "")
    }
    fn get_with(&self, path: &str, headers: &str) -> Answer {
        request(self.handle.public_address(), "GET", path, headers)
    }
    fn admin(&self, path: &str) -> Answer {
        request(self.handle.admin_address(), "GET", path, "")
    }
    fn metric(&self, line: &str) -> f64 {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        text.lines()
            .find_map(|l| l.strip_prefix(line).and_then(|v| v.trim().parse().ok()))
            .unwrap_or_else(|| panic!("no {line} in {text}"))
    }
}

/// A live stream being read.
struct Live {
    stream: TcpStream,
    text: String,
}

impl Live {
    fn open(world: &World, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(world.handle.public_address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut live = Self {
            stream,
            text: String::new(),
        };
        live.read_until("retry: 3000");
        live.read_until("\n\n");
        live
    }
    /// Reads until all of `what` has been seen somewhere, at most 10 s.
    fn read_until(&mut self, what: &str) {
        let start = Instant::now();
        while !self.text.contains(what) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "waiting for {what:?}: {}",
                self.text
            );
            self.read_some();
        }
    }
    /// Whether the other side has ended the stream.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(n) => {
                self.text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                false
            }
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
    fn read_to_end(&mut self) {
        let start = Instant::now();
        while !self.read_some() && !self.text.ends_with("0\r\n\r\n") {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no end: {}",
                self.text.len()
            );
        }
    }
    /// Number of the last event seen.
    fn last_id(&self) -> u64 {
        self.text
            .lines()
            .rev()
            .find_map(|l| l.strip_prefix("id: "))
            .unwrap()
            .parse()
            .unwrap()
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn states_are_told_as_geojson_and_filtered() {
    let w = world(5);
    assert_eq!(w.get("/api/v1/segments").json()["features"], json!([]));
    let taken = w.board.publish(&[
        state(0, 1, "free_flow"),
        state(1, 1, "slow"),
        state(2, 1, "stationary"),
        state(3, 1, "unknown"),
    ]);
    assert_eq!(
        taken,
        Taken {
            taken: 4,
            ..Taken::default()
        }
    );
    let all = w.get("/api/v1/segments");
    assert_eq!(all.headers["content-type"], "application/geo+json");
    let all = all.json();
    assert_eq!(all["type"], "FeatureCollection");
    assert_eq!(all["map_version"], "00000000deadbeef");
    assert_eq!(all["next_cursor"], Value::Null);
    let first = &all["features"][0];
    assert_eq!(first["id"], "1000:1:2");
    assert_eq!(first["geometry"]["type"], "LineString");
    assert_eq!(
        first["geometry"]["coordinates"],
        json!([[108.0, 34.0], [108.0, 34.001]])
    );
    assert_eq!(first["properties"]["current_speed_kph"], 18.4);
    let ids = |path: &str| -> Vec<String> {
        let features = w.get(path).json()["features"].as_array().unwrap().clone();
        features
            .iter()
            .map(|f| f["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        ids("/api/v1/segments?min_level=slow"),
        ["1001:11:12", "1002:21:22"]
    );
    assert_eq!(ids("/api/v1/segments?min_level=closed"), [""; 0]);
    assert_eq!(ids("/api/v1/segments?bbox=108.005,33,108.015,35"), ["1001:11:12"]);
    assert_eq!(
        ids("/api/v1/segments?bbox=108.02,34.001,108.03,35"),
        ["1002:21:22", "1003:31:32"]
    );
    assert_eq!(
        ids("/api/v1/segments?bbox=108.01%2C34%2C108.02%2C35&min_level=queuing"),
        ["1002:21:22"]
    );
}

#[test]
fn pages_cover_everything_once() {
    let w = world(1300);
    let states: Vec<_> = (0..1300).map(|r| state(r, 1, "slow")).collect();
    w.board.publish(&states);
    let (mut seen, mut path) = (BTreeSet::new(), "/api/v1/segments?limit=499".to_owned());
    let mut pages = 0;
    loop {
        let page = w.get(&path).json();
        pages += 1;
        for f in page["features"].as_array().unwrap() {
            assert!(seen.insert(f["id"].as_str().unwrap().to_owned()));
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/segments?limit=499&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (3, 1300));
}

#[test]
fn older_and_less_final_states_do_not_replace() {
    let w = world(1);
    let show = |p: Publication| {
        let taken = w.board.publish(&[p]);
        let level = w.get("/api/v1/segments/1000:1:2").json()["properties"]["level"].clone();
        (taken.taken, level.as_str().unwrap().to_owned())
    };
    let (provisional, partial) = (json!({"provisional": true}), json!({"partial": true}));
    assert_eq!(show(state_with(0, 2, "slow", &partial)), (1, "slow".to_owned()));
    assert_eq!(show(state(0, 2, "heavy")), (1, "heavy".to_owned()));
    assert_eq!(
        show(state_with(0, 2, "closed", &provisional)),
        (0, "heavy".to_owned())
    );
    assert_eq!(
        show(state_with(0, 2, "closed", &partial)),
        (0, "heavy".to_owned())
    );
    assert_eq!(show(state(0, 1, "closed")), (0, "heavy".to_owned()));
    assert_eq!(
        show(state_with(0, 3, "queuing", &provisional)),
        (1, "queuing".to_owned())
    );
    assert_eq!(show(state(0, 3, "unknown")), (1, "unknown".to_owned()));
}

#[test]
fn what_cannot_be_shown_is_counted() {
    let w = world(1);
    let mut broken = state(0, 1, "slow");
    broken.body = Some(b"{\"level\":".to_vec());
    let mut keyless = state(0, 1, "slow");
    keyless.key = "segment".to_owned();
    let text = publication(Topic::Region, "r", 1, &json!("no object"));
    let taken = w.board.publish(&[broken, keyless, state(7, 1, "slow"), text]);
    assert_eq!(
        taken,
        Taken {
            unreadable: 3,
            not_on_map: 1,
            ..Taken::default()
        }
    );
}

#[test]
fn one_segment_with_and_without_state() {
    let w = world(2);
    let unknown = w.get("/api/v1/segments/1001:12:11").json();
    assert_eq!(unknown["properties"]["level"], "unknown");
    assert_eq!(unknown["properties"]["basis"], "none");
    assert_eq!(unknown["properties"]["current_speed_kph"], Value::Null);
    assert_eq!(
        unknown["geometry"]["coordinates"],
        json!([[108.01, 34.001], [108.01, 34.0]])
    );
    w.board.publish(&[state(0, 1, "slow")]);
    let known = w.get("/api/v1/segments/1000:1:2").json();
    assert_eq!(known["properties"]["level"], "slow");
    assert_eq!(
        known["road"],
        json!({"road_class": "primary_link", "name": "长安\"南\"路", "length_m": 111.2, "speed_limit_kph": 60,
               "speed_limit_tagged": true, "lanes": 2, "oneway": false})
    );
    assert!(
        w.get("/api/v1/segments/5:6:7")
            .problem(404)
            .contains("00000000deadbeef")
    );
    assert!(
        w.get("/api/v1/segments/5-6-7")
            .problem(400)
            .contains("27348213:2911:2912")
    );
}

#[test]
fn nearest_respects_the_heading() {
    let w = world(2);
    let north = w
        .get("/api/v1/nearest?lat=34.0005&lon=108.0001&heading=350")
        .json();
    assert_eq!(north["id"], "1000:1:2");
    assert_eq!(north["match"]["bearing_deg"], 0.0);
    assert!((north["match"]["distance_m"].as_f64().unwrap() - 9.2).abs() < 0.1);
    assert!((north["match"]["offset_m"].as_f64().unwrap() - 55.6).abs() < 0.1);
    assert_eq!(
        w.get("/api/v1/nearest?lat=34.0005&lon=108.0001&heading=170")
            .json()["id"],
        "1000:2:1"
    );
    let detail = w
        .get("/api/v1/nearest?lat=34.0005&lon=108.0001&heading=90")
        .problem(404);
    assert!(detail.contains("direction"), "{detail}");
    assert!(
        w.get("/api/v1/nearest?lat=34.0005&lon=108.005")
            .problem(404)
            .contains("within 50 m")
    );
    assert_eq!(
        w.get("/api/v1/nearest?lat=34.0005&lon=108.004&radius_m=500")
            .status,
        200
    );
}

#[test]
fn wrong_questions_are_told_what_would_be_right() {
    let w = world(1);
    for (path, words) in [
        ("/api/v1/segments?bbox=1,2,3", "west,south,east,north"),
        ("/api/v1/segments?bbox=1,2,3,x", "not four numbers"),
        ("/api/v1/segments?bbox=NaN,2,3,4", "no position"),
        ("/api/v1/segments?bbox=1,2,3,91", "no position"),
        ("/api/v1/segments?bbox=5,2,3,4", "antimeridian"),
        ("/api/v1/segments?bbox=1,5,3,4", "south lies north"),
        ("/api/v1/segments?limit=0", "from 1 to 20000"),
        ("/api/v1/segments?limit=20001", "from 1 to 20000"),
        ("/api/v1/segments?limit=-1", "from 1 to 20000"),
        ("/api/v1/segments?min_level=unknown", "free_flow, heavy, slow"),
        ("/api/v1/segments?cursor=3", "next_cursor"),
        ("/api/v1/segments?cursor=x", "next_cursor"),
        ("/api/v1/segments?box=1,2,3,4", "bbox, min_level, limit, cursor"),
        ("/api/v1/segments?limit=1&limit=2", "twice"),
        ("/api/v1/segments?limit=%FF", "limit"),
        ("/api/v1/nearest?lat=1", "`lon` is missing"),
        ("/api/v1/nearest?lat=91&lon=0", "from -90 to 90"),
        ("/api/v1/nearest?lat=NaN&lon=0", "from -90 to 90"),
        ("/api/v1/nearest?lat=1&lon=0&heading=361", "from 0 to 360"),
        ("/api/v1/nearest?lat=1&lon=0&radius_m=501", "from 1 to 500"),
        ("/api/v1/alerts?state=firing", "open, resolved or all"),
        ("/api/v1/digest?x=1", "takes none"),
        (
            "/api/v1/stream?topics=state,speed",
            "state, alert, index, corridor",
        ),
        ("/api/v1/stream?last_event_id=x", "no number"),
    ] {
        let detail = w.get(path).problem(400);
        assert!(detail.contains(words), "{path}: {detail}");
    }
    assert_eq!(w.get(&format!("/api/v1/segments?limit={LIMIT_MAX}")).status, 200);
    assert!(w.get("/api/v2/segments").problem(404).contains("/openapi.json"));
    assert!(
        w.get("/api/v1/corridors/x")
            .problem(404)
            .contains("/api/v1/corridors")
    );
    let post = request(
        w.handle.public_address(),
        "POST",
        "/api/v1/segments",
        "Content-Length: 0\r\n",
    );
    assert!(post.problem(405).contains("use GET"));
    assert_eq!(post.headers["allow"], "GET, HEAD");
    let long = "x".repeat(3000);
    assert!(
        w.get(&format!("/api/v1/segments?{long}"))
            .problem(414)
            .contains("2048")
    );
    let fat = request(
        w.handle.public_address(),
        "POST",
        "/api/v1/segments",
        "Content-Length: 99999\r\n",
    );
    assert!(fat.problem(413).contains("body"));
    assert_eq!(
        w.metric("viaflux_http_requests_total{code=\"404\",method=\"GET\",route=\"unmatched\"}"),
        1.0
    );
}

#[test]
fn the_map_is_compressed_and_revalidated() {
    let w = world(3);
    let plain = w.get("/api/v1/network");
    assert_eq!(plain.headers["etag"], "W/\"00000000deadbeef-2\"");
    let collection = plain.json();
    assert_eq!(collection["features"].as_array().unwrap().len(), 6);
    assert_eq!(
        collection["features"][1]["properties"],
        json!({"segment_id": "1000:2:1", "segment": 1, "road_class": "primary_link", "name": "长安\"南\"路",
               "length_m": 111.2, "from_street": null, "to_street": null})
    );
    assert_eq!(collection["features"][2]["properties"]["name"], Value::Null);
    let gzip = w.get_with("/api/v1/network", "Accept-Encoding: br, gzip;q=0.8\r\n");
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.body);
    let refused = w.get_with("/api/v1/network", "Accept-Encoding: gzip;q=0\r\n");
    assert!(!refused.headers.contains_key("content-encoding"));
    let same = w.get_with(
        "/api/v1/network",
        "If-None-Match: \"x\", W/\"00000000deadbeef-2\"\r\n",
    );
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(
        w.get_with("/api/v1/network", "If-None-Match: \"other\"\r\n")
            .status,
        200
    );
}

#[test]
fn another_name_for_this_machine_is_refused_on_both_listeners() {
    let w = world(1);
    let ask = |to: SocketAddr, path: &str, host: &str| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let (public, admin) = (w.handle.public_address(), w.handle.admin_address());
    for (to, path, key) in [
        (public, "/api/v1/alerts", "server.hosts"),
        (public, "/openapi.json", "server.hosts"),
        (admin, "/metrics", "admin.hosts"),
    ] {
        let refused = ask(to, path, "rebound.example");
        assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
        assert!(
            refused.contains("application/problem+json") && refused.contains(key),
            "{refused}"
        );
        assert!(ask(to, path, "localhost:1234").starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn an_id_that_is_no_text_is_a_problem_too() {
    let w = world(1);
    for place in ["segments", "corridors", "regions"] {
        let detail = w.get(&format!("/api/v1/{place}/%ff%fe")).problem(400);
        assert!(detail.contains("UTF-8"), "{detail}");
    }
}

#[test]
fn other_answers_are_compressed_too() {
    let w = world(50);
    w.board
        .publish(&(0..50).map(|r| state(r, 1, "slow")).collect::<Vec<_>>());
    let gzip = w.get_with("/api/v1/segments", "Accept-Encoding: gzip\r\n");
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, w.get("/api/v1/segments").body);
}

#[test]
fn alerts_follow_their_revisions() {
    let w = world(1);
    let ids = |state: &str| -> Vec<String> {
        let list = w.get(&format!("/api/v1/alerts?state={state}")).json()["alerts"]
            .as_array()
            .unwrap()
            .clone();
        list.iter()
            .map(|a| format!("{}/{}", a["alert_id"].as_str().unwrap(), a["revision"]))
            .collect()
    };
    w.board
        .publish(&[alert("a", 1, 1, "opened"), alert("b", 1, 2, "opened")]);
    assert_eq!(ids("open"), ["b/1", "a/1"]);
    let taken = w
        .board
        .publish(&[alert("a", 3, 4, "updated"), alert("a", 2, 3, "updated")]);
    assert_eq!((taken.taken, taken.outdated), (1, 1));
    assert_eq!(ids("open"), ["a/3", "b/1"]);
    w.board.publish(&[alert("a", 4, 5, "resolved")]);
    assert_eq!(
        (ids("open"), ids("resolved")),
        (vec!["b/1".to_owned()], vec!["a/4".to_owned()])
    );
    assert_eq!(ids("all").len(), 2);
    assert_eq!(w.get("/api/v1/status").json()["alerts_open"], 1);
    assert_eq!(w.get("/api/v1/alerts/a").json()["revision"], 4);
    assert!(w.get("/api/v1/alerts/c").problem(404).contains("state=resolved"));
    let tombstone = Publication {
        topic: Topic::AlertState,
        body: None,
        ..alert("a", 5, 6, "resolved")
    };
    w.board.publish(&[tombstone]);
    assert_eq!(ids("all"), ["b/1"]);
}

#[test]
fn resolved_alerts_are_bounded_in_number_and_age() {
    let limits = Limits {
        alerts_resolved_max: 3,
        alerts_open_max: 4,
        ..Limits::default()
    };
    let board = Board::new(Street::new(1), limits);
    for i in 0..6 {
        board.publish(&[alert(&format!("r{i}"), 1, i, "resolved")]);
    }
    let kept = |board: &Board| board.snapshot().alerts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(kept(&board), ["r3", "r4", "r5"]);
    let over: u64 = (0..6)
        .map(|i| {
            board
                .publish(&[alert(&format!("o{i}"), 1, 7, "opened")])
                .over_limit
        })
        .sum();
    assert_eq!(over, 2);
    let day = 24 * 3_600_000 / PANE;
    board.publish(&[alert("o0", 2, day + 5, "updated")]);
    assert_eq!(
        kept(&board),
        ["o0", "o1", "o2", "o3", "r5"],
        "only r5 is no older than a day"
    );
}

#[test]
fn corridors_regions_digest_and_status() {
    let w = world(2);
    let corridor = json!({"corridor_id": "ring", "name": "2nd Ring", "travel_time_s": 852.0});
    let region = json!({"region_id": "centre/1", "profile": "gbt33171-2016", "index": 5.4});
    w.board.publish(&[
        publication(Topic::Corridor, "ring", 1, &corridor),
        publication(Topic::Region, "centre/1", 1, &region),
    ]);
    assert_eq!(w.get("/api/v1/corridors").json()["corridors"], json!([corridor]));
    assert_eq!(w.get("/api/v1/corridors/ring").json(), corridor);
    assert_eq!(w.get("/api/v1/regions").json()["regions"], json!([region]));
    assert_eq!(w.get("/api/v1/regions/centre%2F1").json(), region);
    let sensors = [
        json!({"sensor_id": "a", "health": "ok"}),
        json!({"sensor_id": "b", "health": "faulty"}),
    ];
    w.board
        .set_sensors(sensors.iter().map(|s| s.to_string().into_bytes()).collect());
    assert_eq!(w.get("/api/v1/sensors").json()["sensors"], json!(sensors));
    assert_eq!(
        w.get("/api/v1/sensors?limit=1").json()["sensors"],
        json!(sensors[..1])
    );

    let empty = w.get("/api/v1/status").json();
    assert_eq!(
        (&empty["pane_end"], &empty["age_s"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&empty["ready"], &empty["reason"]),
        (&json!(false), &json!("starting"))
    );
    w.health.started();
    w.board.pane_closed(at(98), "blake3:00ff");
    w.board.set_status(Status {
        mode: "run".to_owned(),
        config_hash: Some("blake3:c0".to_owned()),
        records: RecordCounts {
            read: 10,
            used: 8,
            rejected: BTreeMap::from([("late".to_owned(), 2)]),
        },
        sources: vec![SourceStatus {
            id: "probes".to_owned(),
            feed: "probe".to_owned(),
            records_read: 10,
            watermark: Some(at(97)),
            ..SourceStatus::default()
        }],
        coverage_ratio: Some(0.78),
        ..Status::default()
    });
    assert_eq!(
        w.get("/api/v1/digest").json(),
        json!({"digest": "blake3:00ff", "pane_end": at(98).to_string(), "map_version": "00000000deadbeef",
               "config_hash": "blake3:c0"})
    );
    let status = w.get("/api/v1/status").json();
    assert_eq!(
        (&status["ready"], &status["reason"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(status["age_s"], 60.0);
    assert!(status["since_last_pane_s"].as_f64().unwrap() < 10.0);
    assert_eq!(
        status["records"],
        json!({"read": 10, "used": 8, "rejected": {"late": 2}})
    );
    assert_eq!(status["sources"][0]["watermark"], at(97).to_string());
    assert_eq!(status["sources"][0]["last_event_time"], Value::Null);
    assert_eq!(
        (&status["coverage_ratio"], &status["segments_total"]),
        (&json!(0.78), &json!(4))
    );
}

#[test]
fn streams_tell_a_pane_at_once_and_only_what_was_asked() {
    let w = world(3);
    let mut all = Live::open(&w, "/api/v1/stream", "");
    let mut alerts = Live::open(&w, "/api/v1/stream?topics=alert,index", "");
    assert_eq!(w.metric("viaflux_stream_clients "), 2.0);
    w.board.publish(&[
        state(0, 1, "slow"),
        alert("a", 1, 1, "opened"),
        state(1, 1, "heavy"),
        publication(Topic::Region, "c", 1, &json!({"region_id": "c"})),
    ]);
    w.board.pane_closed(at(1), "blake3:01");
    all.read_until("event: pane");
    all.read_until("blake3:01");
    let data = all
        .text
        .lines()
        .skip_while(|l| *l != "event: states")
        .nth(1)
        .unwrap();
    let states: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(states.as_array().unwrap().len(), 2);
    assert_eq!(states[1]["segment_id"], "1001:11:12");
    alerts.read_until("event: index");
    assert!(alerts.text.contains("event: alert") && !alerts.text.contains("event: states"));
    assert_eq!(
        w.get("/api/v1/segments").json()["last_event_id"],
        all.last_id().to_string()
    );
    drop(all);
    drop(alerts);
    wait_for("both streams closed", || {
        w.metric("viaflux_stream_clients ") == 0.0
    });
}

#[test]
fn streams_resume_where_they_broke_off() {
    let w = world(1);
    w.board.publish(&[alert("a", 1, 1, "opened")]);
    let mut live = Live::open(&w, "/api/v1/stream", "");
    w.board.publish(&[alert("a", 2, 2, "updated")]);
    live.read_until("\"revision\":2");
    let seen = live.last_id();
    drop(live);
    for revision in 3..=5 {
        w.board.publish(&[alert("a", revision, 3, "updated")]);
    }
    for (path, header) in [
        ("/api/v1/stream".to_owned(), format!("Last-Event-ID: {seen}\r\n")),
        (format!("/api/v1/stream?last_event_id={seen}"), String::new()),
    ] {
        let mut resumed = Live::open(&w, &path, &header);
        resumed.read_until("\"revision\":5");
        let ids: Vec<u64> = resumed
            .text
            .lines()
            .filter_map(|l| l.strip_prefix("id: ").and_then(|id| id.parse().ok()))
            .collect();
        assert_eq!(ids, [seen, seen + 1, seen + 2, seen + 3]);
        assert!(!resumed.text.contains("\"revision\":2") && !resumed.text.contains("event: reset"));
    }
}

#[test]
fn a_stream_that_missed_events_is_told_so() {
    let limits = Limits {
        events_max: 2,
        ..Limits::default()
    };
    let w = world_with(
        Board::new(Street::new(1), limits),
        ServerSettings::default(),
        AdminSettings::default(),
    );
    let first = Live::open(&w, "/api/v1/stream", "").last_id();
    for revision in 1..=5 {
        w.board.publish(&[alert("a", revision, 1, "updated")]);
    }
    for (i, id) in [
        first.to_string(),
        "17".to_owned(),
        u64::MAX.to_string(),
        "not-ours".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut live = Live::open(&w, "/api/v1/stream", &format!("Last-Event-ID: {id}\r\n"));
        live.read_until("event: reset");
        live.read_until("\n\n");
        let newest = w.board.snapshot().event;
        assert_eq!(live.last_id(), newest, "{id}");
        // From there on it is told everything.
        w.board.publish(&[alert(&format!("after-{i}"), 1, 1, "opened")]);
        live.read_until(&format!("after-{i}"));
        assert_eq!(live.last_id(), newest + 1);
    }
}

#[test]
fn as_many_streams_as_allowed() {
    let settings = ServerSettings {
        stream_clients_max: 2,
        ..ServerSettings::default()
    };
    let w = world_with(
        Board::new(Street::new(1), Limits::default()),
        settings,
        AdminSettings::default(),
    );
    let one = Live::open(&w, "/api/v1/stream", "");
    let _two = Live::open(&w, "/api/v1/stream", "");
    let refused = w.get("/api/v1/stream");
    assert!(refused.problem(503).contains("server.stream_clients_max"));
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(
        w.metric("viaflux_stream_clients_dropped_total{reason=\"limit\"}"),
        1.0
    );
    drop(one);
    wait_for("a free seat", || w.metric("viaflux_stream_clients ") == 1.0);
    Live::open(&w, "/api/v1/stream", "");
}

#[test]
fn a_slow_stream_is_let_go_and_costs_no_more_than_the_ring() {
    let events_bytes_max = 4 << 20;
    let limits = Limits {
        events_bytes_max,
        ..Limits::default()
    };
    let w = world_with(
        Board::new(Street::new(1), limits),
        ServerSettings::default(),
        AdminSettings::default(),
    );
    let mut slow = Live::open(&w, "/api/v1/stream", "");
    // Far more than ring, socket buffers and connection buffer hold together, and nobody reads it.
    let padding = json!({"padding": "x".repeat(200_000)});
    for pane in 0..300 {
        w.board.publish(&[state_with(0, pane, "slow", &padding)]);
        assert!(w.board.ring_bytes() <= events_bytes_max);
        // Let the server write what it can, as in life.
        std::thread::sleep(Duration::from_millis(1));
    }
    slow.read_to_end();
    assert!(slow.text.contains("event: reset"), "{} bytes", slow.text.len());
    assert!(
        slow.text.len() < 40_000_000,
        "{} bytes were buffered",
        slow.text.len()
    );
    assert_eq!(
        w.metric("viaflux_stream_clients_dropped_total{reason=\"slow\"}"),
        1.0
    );
    wait_for("its seat is free", || w.metric("viaflux_stream_clients ") == 0.0);
}

#[test]
fn the_token_guards_api_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "correct-horse-battery\n").unwrap();
    let w = world_with(
        Board::new(Street::new(1), Limits::default()),
        ServerSettings {
            bearer_token_file: Some(path.clone()),
            ..ServerSettings::default()
        },
        AdminSettings {
            bearer_token_file: Some(path),
            ..AdminSettings::default()
        },
    );
    let right = "Authorization: Bearer correct-horse-battery\r\n";
    for path in api_paths()
        .into_iter()
        .filter(|p| p.starts_with("/api/") && !p.contains("stream"))
    {
        let path = path
            .replace("{id}", "1000:1:2")
            .replace("nearest", "nearest?lat=34&lon=108");
        for wrong in [
            "",
            "Authorization: Bearer correct-horse-batterz\r\n",
            "Authorization: Basic eDp5\r\n",
        ] {
            let answer = w.get_with(&path, wrong);
            assert!(answer.problem(401).contains("bearer_token_file"), "{path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"viaflux\"");
        }
        assert_ne!(w.get_with(&path, right).status, 401, "{path}");
    }
    assert_eq!(w.get("/api/v1/stream").status, 401);
    assert_eq!(
        w.get("/api/v1/none").status,
        401,
        "what exists is not told either"
    );
    assert_eq!(w.get("/tiles/segments/1/1/1.mvt").status, 401);
    Live::open(&w, "/api/v1/stream", right);
    assert_eq!(w.get("/openapi.json").status, 200);
    assert_eq!(w.admin("/metrics").status, 401);
    assert_eq!(
        request(w.handle.admin_address(), "GET", "/metrics", right).status,
        200
    );
    assert_eq!(w.admin("/livez").status, 200, "probes carry no token");
}

#[test]
fn probes_give_reasons() {
    let w = world(1);
    assert_eq!(
        (w.admin("/livez").status, w.admin("/startupz").status),
        (200, 503)
    );
    let starting = w.admin("/readyz");
    assert_eq!((starting.status, starting.text().as_str()), (503, "starting\n"));
    w.health.started();
    w.health.fail("assignment", "partial assignment");
    w.health.pass("data");
    assert_eq!(w.admin("/startupz").text(), "ok\n");
    assert_eq!(w.admin("/readyz").text(), "partial assignment\n");
    let verbose = w.admin("/readyz?verbose");
    assert_eq!(verbose.status, 503);
    assert_eq!(
        verbose.text(),
        "[+]startup ok\n[-]assignment failed: partial assignment\n[+]data ok\npartial assignment\n"
    );
    w.health.pass("assignment");
    assert_eq!(w.admin("/readyz").status, 200);
    assert!(w.admin("/debug").problem(404).contains("/readyz"));
    let metrics = w.admin("/metrics");
    assert_eq!(
        metrics.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(metrics.text().contains("viaflux_build_info{"));
}

#[test]
fn every_route_is_documented_and_no_other() {
    let document = openapi();
    let documented: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(documented, api_paths().into_iter().collect());
    assert_eq!(world(1).get("/openapi.json").json(), document);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut referenced = BTreeSet::new();
    collect_references(&document, &mut referenced);
    for name in &referenced {
        assert!(
            schemas.contains_key(name.rsplit('/').next().unwrap()),
            "{name} leads nowhere"
        );
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array().unwrap();
        let named = parameters.iter().filter(|p| p["in"] == "path").count();
        assert_eq!(named, path.matches('{').count(), "{path}");
    }
}

fn collect_references(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().filter(|_| key == "$ref") {
                    Some(name) => drop(out.insert(name.to_owned())),
                    None => collect_references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, out)),
        _ => {}
    }
}

/// What the document says is required stands in real answers.
#[test]
fn answers_keep_what_the_document_promises() {
    let w = world(1);
    let corridor = json!({"corridor_id": "k", "name": "K"});
    w.board.publish(&[
        state(0, 1, "slow"),
        alert("a", 1, 1, "opened"),
        publication(Topic::Corridor, "k", 1, &corridor),
        publication(Topic::Region, "r", 1, &json!({"region_id": "r", "profile": "p"})),
    ]);
    let document = openapi();
    for path in api_paths()
        .into_iter()
        .filter(|p| !p.contains("stream") && *p != "/openapi.json")
    {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        let (kind, media) = content.as_object().unwrap().iter().next().unwrap();
        let name = media["schema"]["$ref"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        let id = match path {
            p if p.contains("corridors") => "k",
            p if p.contains("regions") => "r",
            p if p.contains("alerts") => "a",
            _ => "1000:1:2",
        };
        let url = path
            .replace("{id}", id)
            .replace("nearest", "nearest?lat=34&lon=108");
        let answer = w.get(&url);
        assert_eq!(&answer.headers["content-type"], kind, "{url}");
        let answer = answer.json();
        for key in document["components"]["schemas"][name]["required"]
            .as_array()
            .unwrap()
        {
            assert!(answer.get(key.as_str().unwrap()).is_some(), "{url}: no {key}");
        }
    }
}

#[test]
fn every_answer_carries_the_guarding_headers() {
    let w = world(1);
    for path in [
        "/api/v1/status",
        "/openapi.json",
        "/nowhere",
        "/api/v1/segments?x=1",
    ] {
        let headers = w.get(path).headers;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(
            headers["content-security-policy"].contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert!(headers.contains_key("cache-control"), "{path}");
    }
}

#[cfg(feature = "console")]
#[test]
fn the_page_may_load_its_own_files_only() {
    let w = world(1);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
    ] {
        let answer = w.get(path);
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_str()),
            (200, kind)
        );
        let policy = &answer.headers["content-security-policy"];
        assert!(
            policy.contains("script-src 'self'") && policy.contains("connect-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let page = w.get("/").text();
    assert!(
        !page.contains("<script>") && !page.contains("<style>") && !page.contains(" style="),
        "CSP"
    );
    assert!(
        !page.contains("src=\"http") && !page.contains("href=\"http"),
        "nothing from elsewhere"
    );
}

#[test]
fn an_address_in_use_is_named_with_its_key() {
    let w = world(1);
    let taken = w.handle.admin_address().to_string();
    let try_serve = |server: &str, admin: &str| {
        serve(
            &ServerSettings {
                listen: server.to_owned(),
                ..ServerSettings::default()
            },
            &AdminSettings {
                listen: admin.to_owned(),
                ..AdminSettings::default()
            },
            Arc::clone(&w.board),
            Arc::clone(&w.metrics),
            Arc::clone(&w.health),
        )
        .map(|_| ())
        .unwrap_err()
        .to_string()
    };
    let error = try_serve("127.0.0.1:0", &taken);
    assert!(
        error.contains(&format!("admin.listen = \"{taken}\" is in use")),
        "{error}"
    );
    let error = try_serve(&taken, "127.0.0.1:0");
    assert!(error.contains("server.listen"), "{error}");
    let error = try_serve("0.0.0.0:0", "127.0.0.1:0");
    assert!(error.contains("server.allow_anonymous"), "{error}");
    let error = try_serve("127.0.0.1:0", "[::]:0");
    assert!(error.contains("admin.allow_anonymous"), "{error}");
}

#[test]
fn shutdown_ends_streams_and_frees_the_ports() {
    let w = world(1);
    let mut live = Live::open(&w, "/api/v1/stream", "");
    let (public, admin) = (w.handle.public_address(), w.handle.admin_address());
    let start = Instant::now();
    w.handle.shutdown(Duration::from_secs(5));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "an open stream does not use up the grace"
    );
    live.read_to_end();
    assert!(TcpStream::connect(public).is_err());
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn silent_connections_are_closed() {
    let settings = ServerSettings {
        idle_timeout_s: 1,
        connections_max: 1,
        ..ServerSettings::default()
    };
    let w = world_with(
        Board::new(Street::new(1), Limits::default()),
        settings,
        AdminSettings::default(),
    );
    // The only connection allowed says half a sentence; the next caller gets in once it has been closed.
    let mut half = TcpStream::connect(w.handle.public_address()).unwrap();
    half.write_all(b"GET /api/v1/status HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    assert_eq!(w.get("/api/v1/status").status, 200);
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "the limit of connections was not kept"
    );
    half.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut rest = Vec::new();
    assert!(!matches!(half.read_to_end(&mut rest), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_request_that_trickles_in_is_ended() {
    let settings = ServerSettings {
        request_timeout_s: 1,
        connections_max: 1,
        ..ServerSettings::default()
    };
    let w = world_with(
        Board::new(Street::new(1), Limits::default()),
        settings,
        AdminSettings::default(),
    );
    let mut slow = TcpStream::connect(w.handle.public_address()).unwrap();
    slow.write_all(b"GET /api/v1/status HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    // Something moves all the time, so the connection is never idle.
    while slow.write_all(b"X-More: to come\r\n").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(12), "it goes on for ever");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "it was not given its time"
    );
    assert_eq!(w.get("/api/v1/status").status, 200);
}

#[test]
fn one_address_cannot_take_all_connections() {
    let settings = ServerSettings {
        connections_per_peer_max: 2,
        connections_max: 3,
        ..ServerSettings::default()
    };
    let w = world_with(
        Board::new(Street::new(1), Limits::default()),
        settings,
        AdminSettings::default(),
    );
    let connect = || {
        let stream = TcpStream::connect(w.handle.public_address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream
    };
    let ask = |stream: &mut TcpStream| {
        let mut byte = [0];
        let asked = stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n");
        asked.is_ok() && matches!(stream.read(&mut byte), Ok(1))
    };
    let (mut first, mut second) = (connect(), connect());
    assert!(ask(&mut first) && ask(&mut second));
    assert!(!ask(&mut connect()), "a third one was let in");
    drop(first);
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        ask(&mut connect()),
        "the place of one that has gone is free again"
    );
}

#[test]
fn settings_refuse_unknown_keys_and_have_defaults() {
    let server: ServerSettings = serde_json::from_value(json!({})).unwrap();
    assert_eq!(server, ServerSettings::default());
    assert_eq!(server.listen, "127.0.0.1:8080");
    assert_eq!(AdminSettings::default().listen, "127.0.0.1:9470");
    let error = serde_json::from_value::<AdminSettings>(json!({"port": 1}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("port"), "{error}");
}
