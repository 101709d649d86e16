//! The README's first command, as a newcomer sees it: a city, a page, an API, metrics, within a minute.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends the demo however the test ends.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

/// Asks until the answer satisfies, at most a minute.
fn wait_for(address: &str, path: &str, enough: impl Fn(u16, &str) -> bool) -> String {
    let begin = Instant::now();
    loop {
        let (status, body) = get(address, path);
        if enough(status, &body) {
            return body;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{path} after a minute: {status} {:.2000}",
            body
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_newcomer_sees_traffic_within_a_minute() {
    let child = Command::new(env!("CARGO_BIN_EXE_viaflux"))
        .args(["demo", "--no-open", "--speed", "30", "--vehicles", "1200"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut demo = Demo(child);
    let mut line = String::new();
    BufReader::new(demo.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let mut urls = line
        .split("http://")
        .skip(1)
        .map(|u| u.split([' ', '/']).next().unwrap().trim().to_owned());
    let (public, admin) = (urls.next().unwrap(), urls.next().unwrap());

    let (status, page) = get(&public, "/");
    assert!(status == 200 && page.contains("<canvas"), "the page: {status}");
    let roads = wait_for(&public, "/api/v1/network", |status, _| status == 200);
    assert!(
        roads.contains("LineString") && !roads.contains("OpenStreetMap"),
        "the simulated city credits itself"
    );
    // Coloured roads: states with a level that somebody measured.
    wait_for(&public, "/api/v1/segments?limit=20000", |status, body| {
        status == 200
            && body.matches("\"basis\":\"live\"").count() > 100
            && body.contains("\"level\":\"slow\"")
    });
    let regions = wait_for(&public, "/api/v1/regions", |status, body| {
        status == 200 && body.contains("\"city\"")
    });
    assert!(regions.contains("coverage_ratio"));
    let alerts = wait_for(&public, "/api/v1/alerts", |_, body| {
        body.contains("\"type\":\"congestion\"")
    });
    assert!(alerts.contains("\"evidence\""));
    let digest = wait_for(&public, "/api/v1/digest", |_, body| body.contains("blake3:"));
    assert!(digest.contains("pane_end"));
    let metrics = wait_for(&admin, "/metrics", |_, body| {
        body.contains("viaflux_ingest_records_total{")
    });
    for name in [
        "viaflux_build_info",
        "viaflux_watermark_timestamp_seconds",
        "viaflux_segments{basis=\"live\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not in /metrics");
    }
    assert_eq!(get(&admin, "/livez").0, 200);
    wait_for(&admin, "/readyz", |status, _| status == 200);
}
