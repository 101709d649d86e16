//! One event-time clock over unlike feeds (docs: ARCHITECTURE.md, *Time*): deterministic, fresh, never stuck.
//!
//! A simulated broker holds four probe partitions (one of them silent for 50 s, then with a backlog 120 s
//! old), a loop feed with an interval of five minutes, and one vehicle whose clock stands in 2099. Two
//! processes whose clocks are 3 s apart read it at their own pace and write idle marks into it; one is killed
//! at a random moment and goes on from its checkpoint. Afterwards the log is replayed in other interleavings,
//! with one thread and with four. All digest chains must be equal.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use viaflux::assess::{Places, Profile};
use viaflux::baseline::Baseline;
use viaflux::engine::{Batch, Engine, LogSpec, Output, Record, Setup};
use viaflux::ingest::{self, Area, Decoder, Feed, FieldMapping, SubjectKey};
use viaflux::locate::Sites;
use viaflux::network::osm::{OsmData, OsmNode, OsmWay};
use viaflux::network::{BuildSettings, Network};
use viaflux::service::idle::{IDLE_TIMEOUT_MS, IdleWatch};
use viaflux::units::EventTime;

/// 2026-03-09T06:30:00Z.
const EPOCH: i64 = 1_773_037_800_000;
const EIGHT_MONTHS: i64 = 245 * 86_400_000;
const PROBE_LOGS: usize = 4;
const SENSOR_LOG: usize = PROBE_LOGS;
const LOGS: usize = PROBE_LOGS + 1;
/// Freshness that the design promises: a pane is closed this long after its end at the latest.
const FRESH_MS: i64 = 120_000;

fn below(rng: &mut ChaCha8Rng, n: u32) -> u32 {
    rng.next_u32() % n
}

/// A straight two-way road of 3 km, cut by side roads every 300 m.
fn network() -> Arc<Network> {
    let mut osm = OsmData::default();
    let node = |lat: f64, lon: f64| OsmNode {
        lat,
        lon,
        ..OsmNode::default()
    };
    let tags = |class: &str| BTreeMap::from([("highway".to_owned(), class.to_owned())]);
    for i in 0..=10_i64 {
        osm.nodes.insert(1 + i, node(34.0, 108.0 + 0.003_25 * i as f64));
        osm.nodes
            .insert(101 + i, node(34.002, 108.0 + 0.003_25 * i as f64));
        osm.ways.push(OsmWay {
            id: 100 + i,
            nodes: vec![1 + i, 101 + i],
            tags: tags("residential"),
        });
    }
    osm.ways.insert(
        0,
        OsmWay {
            id: 1,
            nodes: (1..=11).collect(),
            tags: tags("primary"),
        },
    );
    Arc::new(Network::build(&osm, &BuildSettings::default()).0)
}

fn profile() -> Profile {
    toml::from_str(include_str!("../config/profiles/gbt33171-2016.toml")).unwrap()
}

fn engine(network: &Arc<Network>, threads: usize) -> Engine {
    let (south_west, north_east) = network.bounds();
    let settings = ingest::Settings::default();
    let area = Area::around(south_west, north_east, settings.area_margin_m);
    let mut found = Vec::new();
    let middle = viaflux::units::Position::from_degrees(34.0, 108.005).unwrap();
    network.candidates(middle, 20_000, &mut found);
    let sites: BTreeMap<SubjectKey, u32> = (0..2)
        .map(|i| (SubjectKey::of(&format!("loop-{i}")), found[i].segment))
        .collect();
    let sensors = Arc::new(sites.keys().copied().collect());
    let log = |i: usize| {
        let feed = if i == SENSOR_LOG {
            Feed::Sensor
        } else {
            Feed::Probe
        };
        let decoder = Decoder::new(
            FieldMapping::simulated_city(feed),
            None,
            settings.clone(),
            area,
            Arc::clone(&sensors),
        );
        LogSpec {
            name: format!("log/{i}"),
            source: "log".to_owned(),
            decoder: Arc::new(decoder),
            feed,
            lanes: 1,
            lateness_ms: i64::from(settings.allowed_lateness_s) * 1000,
            settings: settings.clone(),
        }
    };
    Engine::new(Setup {
        network: Arc::clone(network),
        baseline: Arc::new(Baseline::prior(Arc::clone(network))),
        sites: Arc::new(Sites {
            segments: sites.clone(),
            ..Default::default()
        }),
        places: Arc::new(Places::whole_city(network)),
        profile: Arc::new(profile()),
        locate: Default::default(),
        aggregate: Default::default(),
        assess: Default::default(),
        publish: Default::default(),
        logs: (0..LOGS).map(log).collect(),
        threads,
        observe: false,
        config_hash: [7; 32],
    })
}

#[derive(Clone)]
struct Stored {
    append: i64,
    control: bool,
    value: Vec<u8>,
}

/// The broker: logs that only grow.
struct Broker {
    logs: Vec<Vec<Stored>>,
    append_time: bool,
}

impl Broker {
    fn append(&mut self, log: usize, now: i64, control: bool, value: Vec<u8>) {
        self.logs[log].push(Stored {
            append: now,
            control,
            value,
        });
    }

    fn push(&self, log: usize, offset: usize, batch: &mut Batch) {
        let stored = &self.logs[log][offset];
        batch.push(Record {
            log: log as u16,
            offset: offset as u64,
            append_time: self.append_time.then(|| EventTime::from_ms(stored.append)),
            control: stored.control,
            key: &[],
            value: &stored.value,
        });
    }
}

/// What will be appended when: the feeds of one run.
fn feeds(rng: &mut ChaCha8Rng, minutes: i64, shift: i64) -> Vec<(i64, usize, Vec<u8>)> {
    let mut out = Vec::new();
    for vehicle in 0..24_i64 {
        let log = (vehicle % PROBE_LOGS as i64) as usize;
        let mut x = f64::from(below(rng, 3000));
        let speed = 6.0 + f64::from(below(rng, 10));
        let mut t = EPOCH + i64::from(below(rng, 5000));
        while t < EPOCH + minutes * 60_000 {
            x = (x + speed * 5.0) % 3000.0;
            let lon = 108.0 + x / 92_350.0;
            // The broken clock: eight months or 73 years ahead of the others makes no difference.
            let stamp = if vehicle == 5 {
                t - shift + 2_300_000_000_000
            } else {
                t - shift
            };
            let line = format!(
                r#"{{"vehicle_id":"v{vehicle}","ts":{stamp},"lat":34.00001,"lon":{lon:.7},"speed_mps":{speed},"heading_deg":90}}"#
            );
            let mut arrival = t + 300 + i64::from(below(rng, 2500));
            // Log 2 is cut off for 50 s; then what is 120 s old comes first.
            let cut = EPOCH + 240_000..EPOCH + 290_000;
            if log == 2 && cut.contains(&arrival) {
                arrival = cut.end + (t - cut.start) / 100;
            }
            if log == 2 && (EPOCH + 170_000..EPOCH + 180_000).contains(&t) {
                arrival = cut.end;
            }
            out.push((arrival, log, line.into_bytes()));
            t += 5000;
        }
    }
    for interval in 1..=minutes / 5 {
        for sensor in 0..2 {
            let end = EPOCH + interval * 300_000;
            let line = format!(
                r#"{{"sensor_id":"loop-{sensor}","ts":{},"period_s":300,"count":40,"occupancy":6.5,"speed_mps":12.5}}"#,
                end - shift
            );
            out.push((
                end + 4000 + i64::from(below(rng, 2000)),
                SENSOR_LOG,
                line.into_bytes(),
            ));
        }
    }
    out.sort_by_key(|(arrival, log, _)| (*arrival, *log));
    out
}

/// A process that reads the broker.
struct Process {
    engine: Engine,
    idle: IdleWatch,
    skew: i64,
    chain: Vec<(i64, String)>,
    /// Greatest time between the end of a pane and its closing.
    delay: i64,
}

impl Process {
    fn new(network: &Arc<Network>, skew: i64, now: i64) -> Self {
        Self {
            engine: engine(network, 1),
            idle: IdleWatch::new(LOGS, IDLE_TIMEOUT_MS, now + skew),
            skew,
            chain: Vec::new(),
            delay: 0,
        }
    }

    /// Reads up to `most` records of each log and marks silent ones.
    fn turn(&mut self, broker: &mut Broker, rng: &mut ChaCha8Rng, now: i64, shift: i64) {
        for log in 0..LOGS {
            let from = self.engine.next_offset(log as u16) as usize;
            let to = broker.logs[log].len().min(from + 1 + below(rng, 40) as usize);
            let mut batch = Batch::default();
            (from..to).for_each(|offset| broker.push(log, offset, &mut batch));
            let data = broker.logs[log][from..to].iter().any(|s| !s.control);
            self.step(&batch, now, shift);
            if data {
                self.idle
                    .records(log as u16, self.engine.watermark(log as u16), now + self.skew);
            }
            if to == broker.logs[log].len() {
                self.idle.caught_up(log as u16);
            }
        }
        let watermarks: Vec<_> = (0..LOGS).map(|l| self.engine.watermark(l as u16)).collect();
        for (log, control) in self.idle.due(&watermarks, now + self.skew) {
            broker.append(usize::from(log), now, true, control.encode());
        }
    }

    fn step(&mut self, batch: &Batch, now: i64, shift: i64) {
        let mut out = Output::default();
        self.engine.step(batch, &mut out, &mut ());
        for closed in out.closed {
            self.chain.push((closed.end.ms(), closed.digest.to_string()));
            self.delay = self.delay.max(now - shift - closed.end.ms());
        }
    }
}

/// The chain of a replay that reads the logs in an order drawn by `rng`.
fn replay(
    network: &Arc<Network>,
    broker: &Broker,
    threads: usize,
    rng: &mut ChaCha8Rng,
) -> (Engine, Vec<(i64, String)>) {
    let mut engine = engine(network, threads);
    let mut chain = Vec::new();
    let mut at = [0; LOGS];
    while (0..LOGS).any(|l| at[l] < broker.logs[l].len()) {
        let mut batch = Batch::default();
        for _ in 0..1 + below(rng, 8) {
            let log = below(rng, LOGS as u32) as usize;
            for _ in 0..below(rng, 60) {
                if at[log] < broker.logs[log].len() {
                    broker.push(log, at[log], &mut batch);
                    at[log] += 1;
                }
            }
        }
        let mut out = Output::default();
        engine.step(&batch, &mut out, &mut ());
        chain.extend(out.closed.into_iter().map(|c| (c.end.ms(), c.digest.to_string())));
    }
    (engine, chain)
}

/// Asserts that one chain is the beginning of the other and that both have come far.
fn same_chain(a: &[(i64, String)], b: &[(i64, String)], what: &str) {
    let n = a.len().min(b.len());
    assert!(n >= 20, "{what}: only {n} panes to compare");
    for (x, y) in a.iter().zip(b) {
        assert_eq!(x, y, "{what}: the chains part");
    }
}

fn run(seed: u64, append_time: bool, shift: i64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let network = network();
    let minutes = 16;
    let mut feeds = feeds(&mut rng, minutes, shift).into_iter().peekable();
    let mut broker = Broker {
        logs: vec![Vec::new(); LOGS],
        append_time,
    };
    let mut a = Process::new(&network, 0, EPOCH);
    let mut b = Process::new(&network, 3000, EPOCH);
    let killed_at = EPOCH + 120_000 + i64::from(below(&mut rng, 600_000));
    let saved_at = killed_at - i64::from(below(&mut rng, 60_000));
    let (mut saved, mut killed) = (None, false);
    let mut now = EPOCH;
    while now < EPOCH + minutes * 60_000 {
        while let Some((_, log, value)) = feeds.next_if(|(arrival, ..)| *arrival <= now) {
            // A clock far ahead is refused by append time; data of months ago carry the append time of then.
            broker.append(log, now - shift, false, value);
        }
        a.turn(&mut broker, &mut rng, now, shift);
        if now >= saved_at && saved.is_none() {
            saved = Some((b.engine.checkpoint(b"companion"), b.chain.len()));
        }
        if now >= killed_at && !killed {
            killed = true;
            let (bytes, length) = saved.clone().unwrap();
            b = Process::new(&network, 3000, now);
            assert_eq!(b.engine.restore(&bytes).unwrap(), b"companion");
            // What it told after the checkpoint it tells again; the comparison below sees both.
            b.chain = a.chain[..length.min(a.chain.len())].to_vec();
            assert_eq!(b.chain.len(), length, "process a lags behind a checkpoint of b");
        }
        b.turn(&mut broker, &mut rng, now, shift);
        now += 200 + i64::from(below(&mut rng, 400));
    }
    assert!(killed);
    same_chain(&a.chain, &b.chain, "two processes");
    // The first panes wait for the first records and marks; after that every pane is on time.
    assert!(
        a.delay <= FRESH_MS,
        "seed {seed}: a pane was closed {} ms after its end",
        a.delay
    );
    let last = a.chain.last().unwrap().0;
    assert!(
        now - shift - last <= FRESH_MS + 30_000,
        "seed {seed}: stuck at {last}"
    );
    for threads in [1, 4] {
        let (engine, chain) = replay(&network, &broker, threads, &mut rng);
        same_chain(&a.chain, &chain, &format!("replay with {threads} threads"));
        assert!(chain.len() >= a.chain.len());
        for (i, log) in broker.logs.iter().enumerate() {
            let counts = engine.log_counts(i as u16);
            assert_eq!(counts.read, log.iter().filter(|s| !s.control).count() as u64);
            assert!(counts.balanced());
            assert_eq!(counts.control, log.iter().filter(|s| s.control).count() as u64);
        }
        let late = engine.log_counts(2).rejected[ingest::Rejection::Late as usize];
        assert!(late > 0, "the backlog of the silent partition is late");
        let future: u64 = (0..LOGS)
            .map(|l| engine.log_counts(l as u16).rejected[ingest::Rejection::ClockFuture as usize])
            .sum();
        assert!(future > 100, "the clock of 2099 is refused: {future}");
    }
}

#[test]
fn live_restarted_and_replayed_runs_agree() {
    for seed in 0..6 {
        run(seed, false, 0);
    }
}

#[test]
fn the_same_with_append_time() {
    for seed in 10..14 {
        run(seed, true, 0);
    }
}

#[test]
fn the_same_with_data_eight_months_old() {
    for seed in 20..23 {
        run(seed, false, EIGHT_MONTHS);
    }
}

#[test]
fn a_vehicle_with_a_clock_in_2099_changes_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let network = network();
    let all = feeds(&mut rng, 6, 0);
    let chain = |with: bool| {
        let mut engine = engine(&network, 1);
        let mut chain = Vec::new();
        for (_, log, value) in all
            .iter()
            .filter(|(_, _, v)| with || !v.starts_with(br#"{"vehicle_id":"v5""#))
        {
            let mut batch = Batch::default();
            let offset = engine.next_offset(*log as u16);
            let record = Record {
                log: *log as u16,
                offset,
                append_time: None,
                control: false,
                key: &[],
                value,
            };
            batch.push(record);
            let mut out = Output::default();
            engine.step(&batch, &mut out, &mut ());
            chain.extend(out.closed.into_iter().map(|c| (c.end, c.digest)));
        }
        let mut batch = Batch::default();
        (0..LOGS).for_each(|l| batch.end(l as u16));
        let mut out = Output::default();
        engine.step(&batch, &mut out, &mut ());
        chain.extend(out.closed.into_iter().map(|c| (c.end, c.digest)));
        chain
    };
    let (with, without) = (chain(true), chain(false));
    assert!(with.len() >= 12, "{}", with.len());
    assert_eq!(with, without);
}

#[test]
fn a_file_of_one_vehicle_is_used_whole() {
    let network = network();
    let mut engine = engine(&network, 1);
    let mut batch = Batch::default();
    for i in 0..40_u64 {
        let lon = 108.001 + 0.0005 * i as f64;
        let ts = EPOCH + 30_000 * i as i64;
        let line = format!(r#"{{"vehicle_id":"only","ts":{ts},"lat":34.00001,"lon":{lon:.7}}}"#);
        batch.push(Record {
            log: 0,
            offset: i + 1,
            append_time: None,
            control: false,
            key: &[],
            value: line.as_bytes(),
        });
    }
    (0..LOGS).for_each(|l| batch.end(l as u16));
    let mut out = Output::default();
    engine.step(&batch, &mut out, &mut ());
    let counts = engine.log_counts(0);
    assert_eq!((counts.read, counts.used), (40, 40), "{:?}", counts.rejected);
    assert_eq!(
        out.closed.last().unwrap().end.ms(),
        EPOCH + 30_000 * 40,
        "every pane up to the last record"
    );
    assert!(!out.closed.last().unwrap().assessment.states.is_empty());
}
