//! The laws of the design over random small fleets (ARCHITECTURE.md, *Laws*): neither arrival order within the
//! allowed lateness, nor the interleaving of partitions, nor batch sizes, threads, duplicates, a broken clock,
//! or a restart from a checkpoint changes a byte of what is told; every record is counted once; and published
//! speeds are those of a naive computation by sorting and grouping.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod scene;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use scene::{EPOCH, Item, Rig, Road, Told, Town, below, draw, measurement, report};
use viaflux::engine::{Batch, CheckpointError, Output};
use viaflux::ingest::{Control, Feed, Rejection, SubjectKey};
use viaflux::publish::Topic;
use viaflux::service::journal::{Entry, Pending};
use viaflux::source::event_log::LogRecord;
use viaflux::units::EventTime;

/// Logs of vehicles; the sensors' log stands behind them.
const PROBE_LOGS: u16 = 3;
const LATENESS_MS: i64 = 15_000;

/// Two-way streets around blocks of 300 m by 200 m.
fn town() -> Town {
    let picture = "\
a     b     c     d



e     f     g     h



i     j     k     l";
    draw(
        picture,
        &["abcd", "efgh highway=primary", "ijkl", "aei", "bfj", "cgk", "dhl"],
        "fg",
    )
}

/// What is drawn at random of a fleet; the details follow from `seed`.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    seed: u64,
    vehicles: u32,
    minutes: u32,
    sensors: u32,
    /// Broken records in a thousand.
    defects: u32,
    append_time: bool,
}

fn fleet() -> impl Strategy<Value = Fleet> {
    (
        any::<u64>(),
        10_u32..20,
        4_u32..9,
        0_u32..3,
        prop_oneof![Just(0_u32), Just(60)],
        any::<bool>(),
    )
        .prop_map(|(seed, vehicles, minutes, sensors, defects, append_time)| Fleet {
            seed,
            vehicles,
            minutes,
            sensors,
            defects,
            append_time,
        })
}

/// A record and whether it is whole and its clock right.
#[derive(Clone, Debug)]
struct Made {
    item: Item,
    sound: bool,
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A walk through the town that does not turn back, of at least `metres`.
fn walk(town: &Town, rng: &mut ChaCha8Rng, metres: f64) -> Road {
    let grid = ["abcd", "efgh", "ijkl"];
    let (mut row, mut column) = (below(rng, 3) as i32, below(rng, 4) as i32);
    let (mut word, mut last) = (String::new(), (9, 9));
    loop {
        word.push(char::from(grid[row as usize].as_bytes()[column as usize]));
        let step = [(0, 1), (1, 0), (0, -1), (-1, 0)][below(rng, 4) as usize];
        let (r, c) = (row + step.0, column + step.1);
        if !(0..3).contains(&r) || !(0..4).contains(&c) || step == (-last.0, -last.1) {
            word.pop();
            continue;
        }
        (row, column, last) = (r, c, step);
        if word.len() >= 2 && town.road(&word).length() >= metres {
            return town.road(&word);
        }
    }
}

impl Fleet {
    fn rig(&self, town: &Town) -> Rig {
        let mut feeds = vec![Feed::Probe; usize::from(PROBE_LOGS)];
        feeds.push(Feed::Sensor);
        let mut rig = Rig::new(town, feeds);
        rig.sensors = vec![
            ("loop-0".into(), town.segment("e>f")),
            ("loop-1".into(), town.segment("g>f")),
        ];
        rig.append_time = self.append_time;
        rig.observe = true;
        rig.lanes = 2;
        rig
    }

    /// The records in the order of their time.
    fn records(&self, town: &Town) -> Vec<Made> {
        let mut rng = rng(self.seed);
        let mut out = Vec::new();
        let end = i64::from(self.minutes) * 60_000;
        for v in 0..self.vehicles {
            self.drive(town, v, end, &mut rng, &mut out);
        }
        for sensor in 0..self.sensors {
            for minute in 1..=i64::from(self.minutes) {
                let speed = 20.0 + f64::from(below(&mut rng, 300)) / 10.0;
                let flow = below(&mut rng, 15) * 60;
                let payload = measurement(&format!("loop-{sensor}"), minute * 60_000, 60_000, speed, flow);
                out.push(Made {
                    item: Item {
                        log: PROBE_LOGS,
                        arrival: minute * 60_000,
                        payload,
                    },
                    sound: true,
                });
            }
        }
        out.sort_by(|a, b| (a.item.arrival, &a.item.payload).cmp(&(b.item.arrival, &b.item.payload)));
        out
    }

    fn drive(&self, town: &Town, v: u32, end: i64, rng: &mut ChaCha8Rng, out: &mut Vec<Made>) {
        let road = walk(town, rng, 12.0 * end as f64 / 1000.0);
        let every = 2_000 + i64::from(below(rng, 4)) * 1_000;
        let class = ["car", "taxi", "bus", "truck"][below(rng, 4) as usize];
        // Half of the fleet creeps or stands for a while, so that levels change and alerts have a reason.
        let jam = i64::from(below(rng, 120)) * 1000..end - i64::from(below(rng, 90)) * 1000;
        let (creeps, stands) = (below(rng, 2) == 0, v.is_multiple_of(3));
        // Taxis tell of their passengers, others of their ignition, some of them.
        let (mut sign, tells) = (below(rng, 2) == 0, below(rng, 2) == 0);
        let (mut m, mut t) = (0.0, i64::from(below(rng, 5000)));
        while t < end {
            let free = 8.0 + f64::from(below(rng, 40)) / 10.0;
            let speed = if creeps && jam.contains(&t) {
                f64::from(below(rng, 20)) / if stands { 1000.0 } else { 10.0 }
            } else {
                free
            };
            let (lat, lon, heading) = road.place(m);
            let off = |rng: &mut ChaCha8Rng| (f64::from(below(rng, 2001)) - 1000.0) / 1000.0 * 0.000_04;
            let place = (lat + off(rng), lon + off(rng), heading);
            let id = format!("v{v}");
            let log = (v % u32::from(PROBE_LOGS)) as u16;
            let mut whole = report(&id, t, place, speed, class);
            if tells {
                sign ^= below(rng, 20) == 0;
                let field = if class == "taxi" { "occupied" } else { "ignition" };
                whole.truncate(whole.len() - 1);
                whole += &format!(",\"{field}\":{sign}}}");
            }
            let mut made = |payload: String, sound| {
                out.push(Made {
                    item: Item {
                        log,
                        arrival: t,
                        payload,
                    },
                    sound,
                })
            };
            if below(rng, 1000) < self.defects {
                made(self.broken(&whole, t, rng), false);
            } else if below(rng, 1000) < self.defects / 2 {
                // A fix 400 m off, whole in itself.
                made(report(&id, t, (lat + 0.0036, lon, heading), speed, class), true);
            } else {
                made(whole, true);
            }
            m = (m + speed * every as f64 / 1000.0).min(road.length());
            t += every;
        }
    }

    fn broken(&self, whole: &str, t: i64, rng: &mut ChaCha8Rng) -> String {
        let time = format!("\"event_time\":{}", EPOCH + t);
        match below(rng, 7) {
            0 => whole[..whole.len() / 2].to_owned(),
            1 => whole.replace("\"lat\"", "\"latitude\""),
            2 => whole.replace("\"speed_kph\":", "\"speed_kph\":-"),
            3 => whole.replace("\"lat\":34.", "\"lat\":94."),
            4 => whole.replace(&time, &format!("\"event_time\":{}", (EPOCH + t) / 1000)),
            // Far behind every watermark that any arrival order can lead to, once there is one.
            5 if t > 120_000 => whole.replace(&time, &format!("\"event_time\":{}", EPOCH + t - 100_000)),
            _ => String::new(),
        }
    }
}

fn items(made: &[Made]) -> Vec<Item> {
    made.iter().map(|m| m.item.clone()).collect()
}

/// Asserts that every record is counted once, and that the fleet was worth reading.
fn sane(told: &Told, read: usize) -> Result<(), TestCaseError> {
    for counts in &told.counts {
        prop_assert!(counts.balanced(), "{counts:?}");
    }
    prop_assert_eq!(told.counts.iter().map(|c| c.read).sum::<u64>(), read as u64);
    prop_assert!(
        told.used() as usize * 10 > read * 7,
        "most records are used: {:?}",
        told.counts
    );
    prop_assert!(told.chain.len() >= 8, "{} panes", told.chain.len());
    prop_assert!(told.publications.iter().any(|p| p.topic == Topic::SegmentState));
    Ok(())
}

/// Asserts that two runs told the same, without comparing counts or places in the logs.
fn same(a: &Told, b: &Told, what: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(&a.chain, &b.chain, "{}: the digest chains part", what);
    prop_assert_eq!(
        a.publications.len(),
        b.publications.len(),
        "{}: publications",
        what
    );
    for (x, y) in a.publications.iter().zip(&b.publications) {
        prop_assert_eq!(x, y, "{}: publications", what);
    }
    prop_assert_eq!(&a.turns, &b.turns, "{}: turns", what);
    Ok(())
}

/// One order of reading all logs that keeps the order within each.
fn interleave(items: &[Item], rng: &mut ChaCha8Rng) -> Vec<Item> {
    let mut logs: BTreeMap<u16, std::collections::VecDeque<Item>> = BTreeMap::new();
    for item in items {
        logs.entry(item.log).or_default().push_back(item.clone());
    }
    let mut out = Vec::new();
    while !logs.is_empty() {
        let k = below(rng, logs.len() as u32) as usize;
        let log = *logs.keys().nth(k).unwrap();
        // Sometimes one record, sometimes the whole log.
        let run = [1, 5, 200, 100_000][below(rng, 4) as usize];
        let queue = logs.get_mut(&log).unwrap();
        out.extend(queue.drain(..run.min(queue.len())));
        if queue.is_empty() {
            logs.remove(&log);
        }
    }
    out
}

/// Vehicles that report every 10 s for 25 minutes. For the first ten, each record of the first `wrong` vehicles
/// is dealt to any of the partitions. Returns the records, and what a naive count of the first five minutes
/// says: vehicles, vehicles in two partitions, and the two least partitions of each of these.
fn misdealt(town: &Town, wrong: usize, seed: u64) -> (Vec<Item>, (usize, usize, BTreeSet<u16>)) {
    let road = town.road("abcdhlkjie");
    let ids = (0..).map(|i| format!("s{i}"));
    // Only these are in the sample that is watched.
    let ids = ids.filter(|id| SubjectKey::of(id).0.is_multiple_of(16)).take(40);
    let (mut items, mut dice) = (Vec::new(), rng(seed));
    let mut naive: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
    for (v, id) in ids.enumerate() {
        for t in (0..1500_i64).step_by(10) {
            let lost = v < wrong && t < 600;
            let log = if lost {
                below(&mut dice, u32::from(PROBE_LOGS)) as u16
            } else {
                v as u16 % PROBE_LOGS
            };
            let m = (t as f64 * 9.0 + v as f64 * 31.0) % road.length();
            items.push(Item {
                log,
                arrival: t * 1000,
                payload: report(&id, t * 1000, road.place(m), 9.0, "car"),
            });
            if t < 300 {
                naive.entry(v).or_default().insert(log);
            }
        }
    }
    items.sort_by_key(|i| i.arrival);
    let split = naive.values().filter(|p| p.len() > 1);
    let partitions = split.clone().flat_map(|p| p.iter().copied().take(2)).collect();
    (items, (naive.len(), split.count(), partitions))
}

fn split_alerts(told: &Told) -> Vec<serde_json::Value> {
    let bodies = told.publications.iter().filter(|p| p.topic == Topic::AlertEvent);
    bodies
        .map(|p| serde_json::from_slice(p.body.as_ref().unwrap()).unwrap())
        .filter(|a: &serde_json::Value| a["type"] == "split_identity")
        .collect()
}

/// `PROPTEST_CASES` asks for more.
fn cases(n: u32) -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default().cases
    } else {
        n
    };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn arrival_order_within_the_lateness(fleet in fleet(), seed: u64) {
        let town = town();
        let rig = fleet.rig(&town);
        let made = fleet.records(&town);
        let plain = rig.run(&items(&made), 8192);
        sane(&plain, made.len())?;
        let mut dice = rng(seed);
        let mut shuffled: Vec<(i64, Item)> = items(&made)
            .into_iter()
            .map(|i| (i.arrival + i64::from(below(&mut dice, LATENESS_MS as u32 - 1000)), i))
            .collect();
        shuffled.sort_by_key(|(at, _)| *at);
        let shuffled: Vec<Item> = shuffled.into_iter().map(|(_, i)| i).collect();
        let other = rig.run(&shuffled, 8192);
        same(&plain, &other, "shuffled")?;
        prop_assert_eq!(&plain.counts, &other.counts);
    }

    #[test]
    fn interleaving_batches_and_threads(fleet in fleet(), seed: u64) {
        let town = town();
        let rig = fleet.rig(&town);
        let all = items(&fleet.records(&town));
        let plain = rig.run(&all, 8192);
        sane(&plain, all.len())?;
        let mut dice = rng(seed);
        for (batch, threads) in [(1, 1), (7, 4), (8192, 2)] {
            let other = Rig { threads, ..rig.clone() }.run(&interleave(&all, &mut dice), batch);
            // Matches carry the place in the log, which an interleaving does not touch.
            prop_assert_eq!(&plain.matches, &other.matches);
            prop_assert_eq!(&plain.refusals, &other.refusals);
            same(&plain, &other, &format!("batches of {batch}, {threads} threads"))?;
            prop_assert_eq!(&plain.counts, &other.counts);
        }
    }

    #[test]
    fn duplicates(fleet in fleet(), seed: u64) {
        let town = town();
        let rig = fleet.rig(&town);
        let made = fleet.records(&town);
        let plain = rig.run(&items(&made), 8192);
        let mut dice = rng(seed);
        let mut doubled: Vec<(i64, Item)> = Vec::new();
        for Made { item, sound } in &made {
            doubled.push((item.arrival, item.clone()));
            if *sound {
                for _ in 0..below(&mut dice, 3) {
                    // Up to 40 s later: some come while the first still waits for its order, some too late.
                    doubled.push((item.arrival + i64::from(below(&mut dice, 40_000)), item.clone()));
                }
            }
        }
        doubled.sort_by_key(|(at, _)| *at);
        let more = doubled.len() - made.len();
        let doubled: Vec<Item> = doubled.into_iter().map(|(_, i)| i).collect();
        let other = rig.run(&doubled, 100);
        same(&plain, &other, "doubled")?;
        let extra = |r| other.refused(r) - plain.refused(r);
        prop_assert_eq!(extra(Rejection::Duplicate) + extra(Rejection::Late), more as u64);
        prop_assert!(more < 50 || (extra(Rejection::Duplicate) > 0 && extra(Rejection::Late) > 0));
        prop_assert_eq!(plain.used(), other.used());
        for reason in Rejection::ALL {
            if ![Rejection::Duplicate, Rejection::Late].contains(&reason) {
                prop_assert_eq!(plain.refused(reason), other.refused(reason), "{}", reason.label());
            }
        }
    }

    #[test]
    fn a_clock_in_2099(fleet in fleet(), seed: u64) {
        let town = town();
        let rig = fleet.rig(&town);
        let all = items(&fleet.records(&town));
        let plain = rig.run(&all, 8192);
        let mut dice = rng(seed);
        let mut mixed = all.clone();
        let road = town.road("efgh");
        for t in (0..i64::from(fleet.minutes) * 60).step_by(5) {
            let payload = report("broken", t * 1000 + 2_300_000_000_000, road.place(t as f64), 1.0, "car");
            mixed.push(Item { log: below(&mut dice, u32::from(PROBE_LOGS)) as u16, arrival: t * 1000, payload });
        }
        mixed.sort_by_key(|i| i.arrival);
        let other = rig.run(&mixed, 64);
        same(&plain, &other, "with a clock in 2099")?;
        let broken = (mixed.len() - all.len()) as u64;
        prop_assert_eq!(other.refused(Rejection::ClockFuture), plain.refused(Rejection::ClockFuture) + broken);
        prop_assert_eq!(plain.used(), other.used());
    }

    #[test]
    fn a_restart_at_any_record(fleet in fleet(), at: prop::sample::Index, threads in 1_usize..4, batch in 1_usize..300) {
        let town = town();
        let rig = fleet.rig(&town);
        let all = items(&fleet.records(&town));
        let plain = rig.run(&all, 8192);
        let batches = rig.batches(&all, batch);
        let cut = at.index(batches.len());
        let (mut out, mut first) = (Output::default(), rig.engine());
        batches[..cut].iter().for_each(|b| first.step(b, &mut out, &mut ()));
        let bytes = first.checkpoint(b"companion");
        let mut second = Rig { threads, ..rig.clone() }.engine();
        prop_assert_eq!(second.restore(&bytes).unwrap(), b"companion");
        batches[cut..].iter().for_each(|b| second.step(b, &mut out, &mut ()));
        let other = Told::of(&second, out);
        same(&plain, &other, "restarted")?;
        prop_assert_eq!(&plain.counts, &other.counts);
        prop_assert_eq!(&plain.matches, &other.matches);
        prop_assert_eq!(&plain.refusals, &other.refusals);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    /// A log falls silent for minutes and its idle marks stand in a journal: a restart that brings them back to
    /// their places, and a replay of what `record` exports, give what was told live.
    #[test]
    fn marks_in_a_journal_act_at_their_places(seed: u64, batch in 1_usize..200, cut: prop::sample::Index) {
        let town = town();
        let rig = Rig::new(&town, vec![Feed::Probe; 2]);
        let (items, _) = misdealt(&town, 0, seed);
        let mut dice = rng(seed);
        let (from, to) = (i64::from(below(&mut dice, 600)), 900 + i64::from(below(&mut dice, 300)));
        let items: Vec<Item> = items
            .into_iter()
            .filter(|i| i.log < 2 && (i.log == 0 || !(from * 1000..to * 1000).contains(&i.arrival)))
            .collect();
        // Live: while log 1 is silent, a mark every 30 s, 45 s behind log 0.
        let (mut live, mut out, mut journal) = (rig.engine(), Output::default(), Vec::new());
        let (mut stored, mut next, mut marked) = (Vec::new(), [0_u64; 2], from * 1000);
        let mut saved = live.checkpoint(b"");
        let (mut from_checkpoint, cut) = ([0_u64; 2], cut.index(items.len()));
        for (n, item) in items.iter().enumerate() {
            while marked + 30_000 <= item.arrival && marked < to * 1000 {
                marked += 30_000;
                let control = Control::Idle { watermark_ms: EventTime::from_ms(EPOCH + marked - 45_000) };
                journal.push(Entry { topic: "gps".to_owned(), partition: 1, offset: next[1], control });
                let mut mark = Batch::default();
                mark.journal(1, next[1], &control.encode());
                live.step(&mark, &mut out, &mut ());
            }
            if n == cut {
                (saved, from_checkpoint) = (live.checkpoint(b""), next);
            }
            let offset = next[usize::from(item.log)];
            next[usize::from(item.log)] += 1;
            let record = LogRecord {
                topic: "gps".to_owned(),
                partition: u32::from(item.log),
                offset,
                value: Some(item.payload.clone().into_bytes()),
                ..LogRecord::default()
            };
            let mut one = Batch::default();
            record.push_to(&mut one, item.log);
            live.step(&one, &mut out, &mut ());
            stored.push(record);
        }
        let chain = Told::of(&live, out).chain;
        let silent = (EPOCH + from * 1000, EPOCH + to * 1000);
        prop_assert!(
            chain.iter().any(|(end, _)| (silent.0 + 60_000..silent.1).contains(&(end + EPOCH))),
            "marks closed panes: {chain:?}"
        );

        // Restarted: the journal comes back to its places.
        let mut again = rig.engine();
        again.restore(&saved).unwrap();
        let mut out = Output::default();
        let mut pending = Pending::new(&journal, |e| Some((e.partition as u16, from_checkpoint[e.partition as usize])));
        again.step(&pending.begin(2, |log| from_checkpoint[usize::from(log)]), &mut out, &mut ());
        let rest: Vec<&LogRecord> = stored.iter().filter(|r| r.offset >= from_checkpoint[r.partition as usize]).collect();
        for part in rest.chunks(batch) {
            let mut records = Batch::default();
            part.iter().for_each(|r| r.push_to(&mut records, r.partition as u16));
            again.step(&pending.weave(records), &mut out, &mut ());
        }
        let told = Told::of(&again, out);
        prop_assert!(chain.ends_with(&told.chain), "{chain:?}\n{:?}", told.chain);
        prop_assert_eq!(again.digest(), live.digest());

        // Replayed: partition by partition, the marks among the records.
        let (mut replayed, mut out) = (rig.engine(), Output::default());
        let mut pending = Pending::new(&journal, |e| Some((e.partition, 0)));
        let mut exported = Vec::new();
        stored.sort_by_key(|r| (r.partition, r.offset));
        for record in stored {
            while let Some((at, control)) = pending.due(record.partition, record.offset) {
                exported.push(LogRecord::journalled("gps", record.partition, at, control));
            }
            exported.push(record);
        }
        while let Some((at, control)) = pending.due(1, next[1]) {
            exported.push(LogRecord::journalled("gps", 1, at, control));
        }
        for part in exported.chunks(batch) {
            let mut records = Batch::default();
            part.iter().for_each(|r| r.push_to(&mut records, r.partition as u16));
            replayed.step(&records, &mut out, &mut ());
        }
        prop_assert_eq!(&Told::of(&replayed, out).chain, &chain);
        prop_assert_eq!(replayed.counts(), live.counts());
    }

    #[test]
    fn wrong_keys_are_told_the_same_however_partitions_interleave(wrong in 0_usize..40, seed: u64, cut: prop::sample::Index) {
        let town = town();
        let mut rig = Rig::new(&town, vec![Feed::Probe; usize::from(PROBE_LOGS)]);
        rig.partitioned = true;
        let (all, (vehicles, split, partitions)) = misdealt(&town, wrong, seed);
        let plain = rig.run(&all, 8192);
        let alerts = split_alerts(&plain);
        let transitions: Vec<&str> = alerts.iter().map(|a| a["transition"].as_str().unwrap()).collect();
        prop_assert_eq!(split * 100 > vehicles, !alerts.is_empty());
        if let Some(first) = alerts.first() {
            let evidence = &first["evidence"];
            prop_assert_eq!(&evidence["source"], "log");
            prop_assert_eq!(&evidence["ids_sampled"], vehicles);
            prop_assert_eq!(&evidence["ids_split"], split);
            let told: Vec<u16> = serde_json::from_value(evidence["partitions"].clone()).unwrap();
            prop_assert!(told.iter().eq(&partitions), "{told:?} {partitions:?}");
            prop_assert_eq!((transitions[0], *transitions.last().unwrap()), ("opened", "resolved"));
        }
        let mut dice = rng(seed);
        for (batch, threads) in [(3, 3), (500, 1)] {
            let rig = Rig { threads, ..rig.clone() };
            let batches = rig.batches(&interleave(&all, &mut dice), batch);
            let cut = cut.index(batches.len());
            let (mut out, mut first, mut second) = (Output::default(), rig.engine(), rig.engine());
            batches[..cut].iter().for_each(|b| first.step(b, &mut out, &mut ()));
            second.restore(&first.checkpoint(b"")).unwrap();
            batches[cut..].iter().for_each(|b| second.step(b, &mut out, &mut ()));
            same(&plain, &Told::of(&second, out), &format!("batches of {batch}, {threads} threads"))?;
        }
        // Logs that are each all of their source may hold whom they like.
        rig.partitioned = false;
        prop_assert!(split_alerts(&rig.run(&all, 8192)).is_empty());
    }

    #[test]
    fn a_damaged_checkpoint_is_refused_and_changes_nothing(fleet in fleet(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 40)) {
        let town = town();
        let rig = fleet.rig(&town);
        let all = items(&fleet.records(&town));
        let plain = rig.run(&all, 8192);
        let batches = rig.batches(&all, 50);
        let mut first = rig.engine();
        batches[..batches.len() / 2].iter().for_each(|b| first.step(b, &mut Output::default(), &mut ()));
        let bytes = first.checkpoint(b"");
        let mut fresh = rig.engine();
        // Every byte of the head and of the trailer, and many in between.
        let edges = (0..24).chain(bytes.len() - 33..bytes.len()).map(|i| (i, 0));
        for (i, bit) in flips.iter().map(|(i, bit)| (i.index(bytes.len()), *bit)).chain(edges) {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1 << bit;
            let refused = fresh.restore(&damaged);
            prop_assert!(
                matches!(refused, Err(CheckpointError::Damaged | CheckpointError::Foreign)),
                "byte {i} of {}: {refused:?}", bytes.len()
            );
            let cut = fresh.restore(&bytes[..i]);
            prop_assert!(matches!(cut, Err(CheckpointError::Damaged | CheckpointError::Foreign)), "cut at {i}: {cut:?}");
        }
        let mut out = Output::default();
        batches.iter().for_each(|b| fresh.step(b, &mut out, &mut ()));
        let other = Told::of(&fresh, out);
        same(&plain, &other, "after refusals")?;
    }
}

#[test]
fn a_checkpoint_of_another_engine_is_refused_by_name() {
    let town = town();
    let rig = Rig::new(&town, vec![Feed::Probe]);
    let bytes = rig.engine().checkpoint(b"");
    let other_map = draw("a     b", &["ab"], "");
    let why = |rig: &Rig| match rig.engine().restore(&bytes) {
        Err(CheckpointError::Mismatch { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&Rig::new(&other_map, vec![Feed::Probe])), "map");
    assert_eq!(
        why(&Rig::new(&town, vec![Feed::Probe, Feed::Probe])),
        "set of input logs"
    );
}

#[test]
fn the_fleets_are_worth_the_effort() {
    // What is never told cannot differ: over some fleets there must be alerts, sensors, many levels and refusals.
    let town = town();
    let (mut seen, mut refused) = (BTreeMap::<String, u32>::new(), [0; Rejection::ALL.len()]);
    for seed in 0..12 {
        let fleet = Fleet {
            seed,
            vehicles: 18,
            minutes: 9,
            sensors: 2,
            defects: 60,
            append_time: false,
        };
        let told = fleet.rig(&town).run(&items(&fleet.records(&town)), 8192);
        for p in &told.publications {
            let body: serde_json::Value = serde_json::from_slice(p.body.as_ref().unwrap()).unwrap();
            for key in ["level", "basis", "transition", "trend"] {
                if let Some(word) = body[key].as_str() {
                    *seen.entry(word.to_owned()).or_default() += 1;
                }
            }
            if body["sensor_share"].as_f64().is_some_and(|s| s > 0.0) {
                *seen.entry("sensor".to_owned()).or_default() += 1;
            }
        }
        for reason in Rejection::ALL {
            refused[reason as usize] += told.refused(reason);
        }
    }
    let words = "free_flow heavy slow queuing stationary live blended opened sensor increasing stable";
    for word in words.split(' ') {
        assert!(seen.contains_key(word), "never told: {word}; told: {seen:?}");
    }
    use Rejection::{ClockUnit, Decode, Jump, Late, OutOfRange, Schema};
    for reason in [Decode, Schema, OutOfRange, ClockUnit, Late, Jump] {
        assert!(refused[reason as usize] > 0, "never refused: {}", reason.label());
    }
}

// --- faults that were fixed: how many records a batch holds must not matter --------------------------------

/// Nodes of a road of 15 km, one every 300 m.
const LONG: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno";

fn long_road() -> Town {
    let picture: String = LONG.chars().map(|c| format!("{c}     ")).collect();
    draw(&picture, &[&format!("{LONG} highway=primary")], "")
}

/// Twenty vehicles at 10 m/s, one of which reports only every `step_ms`.
fn convoy(town: &Town, step_ms: i64) -> Vec<Item> {
    let road = town.road(LONG);
    let mut out = Vec::new();
    for v in 0..20_i64 {
        let mut t = v * 311;
        while t < 900_000 {
            let m = 100.0 * v as f64 + 10.0 * t as f64 / 1000.0;
            let payload = report(&format!("v{v}"), t, road.place(m), 10.0, "car");
            out.push(Item {
                log: 0,
                arrival: t,
                payload,
            });
            t += if v == 3 { step_ms } else { 5000 };
        }
    }
    out.sort_by_key(|i| i.arrival);
    out
}

fn batch_sizes_agree(rig: &Rig, items: &[Item]) -> Told {
    let whole = rig.run(items, 8192);
    assert!(whole.chain.len() >= 25, "{} panes", whole.chain.len());
    for size in [1, 7] {
        assert_eq!(rig.run(items, size), whole, "batches of {size}");
    }
    whole
}

#[test]
fn steps_longer_than_the_settling_time() {
    let town = long_road();
    let rig = Rig::new(&town, vec![Feed::Probe]);
    for step_ms in [5_000, 61_000, 100_000, 119_000] {
        let told = batch_sizes_agree(&rig, &convoy(&town, step_ms));
        assert_eq!(told.counts[0].used, told.counts[0].read, "{:?}", told.counts);
    }
}

#[test]
fn a_full_order_buffer() {
    let town = long_road();
    let mut rig = Rig::new(&town, vec![Feed::Probe]);
    rig.ingest.order_buffer_max = 4;
    let mut items = convoy(&town, 5_000);
    items.sort_by_key(|i| i.arrival + (i.payload.len() as i64 * 7919 + i.arrival * 31) % 14_000);
    let told = batch_sizes_agree(&rig, &items);
    assert!(
        told.refused(Rejection::Late) > 0,
        "a limit that is reached shows: {:?}",
        told.counts
    );
}

#[test]
fn a_fix_that_was_held_for_long() {
    // One id, two vehicles 10 km apart; what the second one reports waits for a fix that agrees.
    let town = long_road();
    let rig = Rig::new(&town, vec![Feed::Probe]);
    let road = town.road(LONG);
    let mut items = convoy(&town, 5_000);
    for (t, m) in [(100_000, 100.0), (110_000, 10_000.0), (210_000, 10_050.0)] {
        let whole = report("twin", t, road.place(m), 10.0, "car");
        let bare = whole.replace("\"speed_kph\":36.00,\"heading_deg\":90.0,", "");
        assert_ne!(bare, whole);
        items.push(Item {
            log: 0,
            arrival: t,
            payload: bare,
        });
    }
    items.sort_by_key(|i| i.arrival);
    batch_sizes_agree(&rig, &items);
}

#[test]
fn an_empty_batch_and_an_empty_log() {
    let rig = Rig::new(&town(), vec![Feed::Probe, Feed::Sensor]);
    let mut engine = rig.engine();
    let mut out = Output::default();
    engine.step(&Batch::default(), &mut out, &mut ());
    for batch in rig.batches(&[], 1) {
        engine.step(&batch, &mut out, &mut ());
    }
    let told = Told::of(&engine, out);
    assert_eq!(
        (told.chain.len(), told.publications.len(), told.used()),
        (0, 0, 0)
    );
}

// --- sensors at the edge of a pane -----------------------------------------------------------------------

proptest! {
    #![proptest_config(cases(64))]

    /// Intervals of any length end anywhere, at the border of a pane above all, and panes close as soon as the
    /// watermark allows: nothing is booked to a closed pane, and nothing within the lateness is lost.
    #[test]
    fn sensor_intervals_and_lateness(
        seed: u64, period in prop::sample::select(vec![1_000_i64, 5_000, 7_300, 15_000, 30_000, 60_000, 90_000]),
        lateness_s in prop::sample::select(vec![0_u32, 1, 15, 29, 30, 60, 61]), batch in 1_usize..50,
    ) {
        let town = town();
        let mut rig = Rig::new(&town, vec![Feed::Sensor, Feed::Sensor]);
        rig.sensors = vec![("loop-0".into(), town.segment("e>f")), ("loop-1".into(), town.segment("g>f"))];
        rig.ingest.allowed_lateness_s = lateness_s;
        rig.append_time = true;
        let mut dice = rng(seed);
        let mut all = Vec::new();
        for log in 0..2_u16 {
            for k in 1..=(600_000 / period) {
                let end = k * period;
                // On its way for up to the lateness, so that it is never behind the watermark.
                let late = i64::from(below(&mut dice, lateness_s * 1000 + 1));
                let payload = measurement(&format!("loop-{log}"), end, period, 40.0, 600);
                all.push(Item { log, arrival: end + late, payload });
            }
        }
        all.sort_by_key(|i| i.arrival);
        let plain = rig.run(&all, 8192);
        prop_assert_eq!(plain.used(), all.len() as u64, "{:?}", plain.counts);
        prop_assert!(plain.chain.len() >= 15, "{} panes", plain.chain.len());
        let other = rig.run(&interleave(&all, &mut dice), batch);
        same(&plain, &other, "another order, smaller batches")?;
        prop_assert_eq!(&plain.counts, &other.counts);
    }
}

// --- long silence ----------------------------------------------------------------------------------------

/// Twelve vehicles in a jam along one street for a quarter of an hour; `gap_ms` later they pass freely, and
/// `gap_ms` after that once more.
fn jam_and_silence(town: &Town, gap_ms: i64) -> Vec<Item> {
    let road = town.road("ijkl");
    let mut out = Vec::new();
    for (round, speed) in [(0, 1.0), (1, 9.0), (2, 9.0)] {
        for v in 0..12_i64 {
            for t in (v * 311..900_000).step_by(5_000) {
                let at = round * (gap_ms + 900_000) + t;
                let m = (40.0 * v as f64 + speed * t as f64 / 1000.0) % road.length();
                out.push(Item {
                    log: 0,
                    arrival: at,
                    payload: report(
                        &format!("v{v}-{round}-{}", t / 90_000),
                        at,
                        road.place(m),
                        speed,
                        "car",
                    ),
                });
            }
        }
    }
    out.sort_by_key(|i| i.arrival);
    out
}

/// What was told of segments and alerts, but for the keys in `without`.
fn said(told: &Told, without: &BTreeSet<String>) -> Vec<(String, Option<String>)> {
    let of = |p: &&viaflux::publish::Publication| {
        !matches!(p.topic, Topic::Region | Topic::Corridor) && !without.contains(&p.key)
    };
    let text = |body: &Vec<u8>| String::from_utf8(body.clone()).unwrap();
    let publications = told.publications.iter().filter(of);
    publications
        .map(|p| (p.id.clone(), p.body.as_ref().map(text)))
        .collect()
}

#[test]
fn silence_says_what_closing_pane_by_pane_says() {
    let town = town();
    let mut rig = Rig::new(&town, vec![Feed::Probe]);
    rig.append_time = true;
    let gap_ms = 30 * 3_600_000;
    let items = jam_and_silence(&town, gap_ms);
    let jumped = rig.run(&items, 8192);
    assert!(
        jumped.chain.len() < 400,
        "{} panes were closed",
        jumped.chain.len()
    );
    // Vehicles that pass elsewhere one by one keep the panes coming one by one.
    let road = town.road("abcd");
    let mut busy = items.clone();
    for t in (0..2 * gap_ms + 2_700_000).step_by(20_000) {
        busy.push(Item {
            log: 0,
            arrival: t,
            payload: report(
                &format!("passes-{}", t / 80_000),
                t,
                road.place(50.0 + 9.0 * (t % 80_000) as f64 / 1000.0),
                9.0,
                "car",
            ),
        });
    }
    busy.sort_by_key(|i| i.arrival);
    let stepped = rig.run(&busy, 8192);
    assert!(
        stepped.chain.len() > 7000,
        "{} panes were closed",
        stepped.chain.len()
    );
    let keys =
        |told: &Told| -> BTreeSet<String> { told.publications.iter().map(|p| p.key.clone()).collect() };
    let elsewhere = keys(&stepped).difference(&keys(&jumped)).cloned().collect();
    let (a, b) = (said(&jumped, &BTreeSet::new()), said(&stepped, &elsewhere));
    assert_eq!(a.len(), b.len());
    assert_eq!(a, b);
    let stale = a
        .iter()
        .filter(|(_, body)| body.as_ref().is_some_and(|b| b.contains("\"stale\":true")));
    assert!(stale.count() > 0, "no alert was open while nothing came");
    assert!(a.iter().any(|(_, body)| body.is_none()), "no tombstone");
    assert!(
        a.iter()
            .any(|(_, body)| body.as_ref().is_some_and(|b| b.contains("\"level\":\"unknown\"")))
    );
}

#[test]
fn a_jump_over_years_costs_no_more() {
    let town = town();
    let mut rig = Rig::new(&town, vec![Feed::Probe]);
    rig.append_time = true;
    let items = jam_and_silence(&town, 35 * 365 * 86_400_000);
    let whole = rig.run(&items, 8192);
    assert!(whole.chain.len() < 400, "{} panes were closed", whole.chain.len());
    for size in [1, 7] {
        assert_eq!(rig.run(&items, size), whole, "batches of {size}");
    }
    // What a batch gives may be taken a few panes at a time.
    let (mut engine, mut out, mut most) = (rig.engine(), Output::default(), 0);
    for batch in rig.batches(&items, 8192) {
        let mut more = true;
        let mut batch = Some(batch);
        while more {
            let before = out.closed.len();
            more = engine.step_some(&batch.take().unwrap_or_default(), 3, &mut out, &mut ());
            most = most.max(out.closed.len() - before);
        }
    }
    assert_eq!((Told::of(&engine, out), most), (whole, 3));
}

// --- oracle --------------------------------------------------------------------------------------------

/// One vehicle's way along the straight road: (time in ms, metres), straight in between.
type Drive = Vec<(i64, f64)>;

/// Σ distance and Σ time of all drives by segment and pane, by cutting every step at every border.
fn cells(drives: &[Drive], borders: &[f64], pane_ms: i64) -> BTreeMap<(usize, i64), (f64, f64)> {
    let mut out: BTreeMap<(usize, i64), (f64, f64)> = BTreeMap::new();
    for step in drives.iter().flat_map(|d| d.windows(2)) {
        let ((t0, x0), (t1, x1)) = (step[0], step[1]);
        let mut cuts: Vec<f64> = vec![t0 as f64, t1 as f64];
        if x1 > x0 {
            let crossed = borders.iter().filter(|b| x0 < **b && **b < x1);
            cuts.extend(crossed.map(|b| t0 as f64 + (b - x0) / (x1 - x0) * (t1 - t0) as f64));
        }
        let panes = t0.div_euclid(pane_ms) + 1..=(t1 - 1).div_euclid(pane_ms);
        cuts.extend(panes.map(|p| (p * pane_ms) as f64));
        cuts.sort_by(f64::total_cmp);
        for pair in cuts.windows(2) {
            let at = |t: f64| x0 + (x1 - x0) * (t - t0 as f64) / (t1 - t0) as f64;
            let middle = (pair[0] + pair[1]) / 2.0;
            let segment = borders.iter().filter(|b| **b <= at(middle)).count() - 1;
            let cell = out
                .entry((segment, (middle / pane_ms as f64).floor() as i64))
                .or_default();
            cell.0 += at(pair[1]) - at(pair[0]);
            cell.1 += (pair[1] - pair[0]) / 1000.0;
        }
    }
    out
}

#[test]
fn published_speeds_are_those_of_sorting_and_grouping() {
    // A one-way road of four segments; vehicles at random speeds, each of which changes with the road.
    let picture = "\
A       B       C       D       E



        x       y       z";
    let town = draw(
        picture,
        &["ABCDE highway=primary oneway=yes", "Bx", "Cy", "Dz"],
        "",
    );
    let road = town.road("ABCDE");
    let names = ["A>B", "B>C", "C>D", "D>E"];
    let borders: Vec<f64> = "ABCD".chars().map(|c| road.to(c)).collect();
    for (window_s, seed) in [(30, 1), (300, 2), (300, 3)] {
        let mut dice = rng(seed);
        let (mut drives, mut items) = (Vec::new(), Vec::new());
        for v in 0..120_i64 {
            let slow = [1.0, 0.4, 0.8, 0.25][below(&mut dice, 4) as usize];
            let (mut t, mut m, mut drive) =
                (v * 7_000 + i64::from(below(&mut dice, 7_000)), 1.0, Drive::new());
            let mut speed_at = |m: f64| {
                let segment = borders.iter().filter(|b| **b <= m).count() - 1;
                [14.0, 9.0 * slow, 12.0, 5.0][segment] + f64::from(below(&mut dice, 20)) / 10.0
            };
            let mut speed = speed_at(m);
            while m < road.length() - 1.0 {
                drive.push((t, m));
                let payload = report(&format!("v{v}"), t, road.place(m), speed, "car");
                items.push(Item {
                    log: 0,
                    arrival: t,
                    payload,
                });
                // Evenly from one reported speed to the next.
                let next = speed_at(m + speed * 4.0);
                t += 4_000;
                m += (speed + next) / 2.0 * 4.0;
                speed = next;
            }
            drives.push(drive);
        }
        items.sort_by_key(|i| i.arrival);
        let mut rig = Rig::new(&town, vec![Feed::Probe]);
        rig.aggregate.window_s = window_s;
        rig.every_pane = true;
        let told = rig.run(&items, 8192);
        assert_eq!(told.used() as usize, items.len(), "{:?}", told.counts);
        let cells = cells(&drives, &borders, 30_000);
        let mut compared = 0;
        for p in told
            .publications
            .iter()
            .filter(|p| p.topic == Topic::SegmentState)
        {
            let state: serde_json::Value = serde_json::from_slice(p.body.as_ref().unwrap()).unwrap();
            if state["basis"] != "live" {
                continue;
            }
            let segment = names
                .iter()
                .position(|n| town.key(n).to_string() == p.key)
                .unwrap();
            let last = (p.time.ms() - EPOCH) / 30_000 - 1;
            let (mut distance, mut time) = (0.0, 0.0);
            for age in 0..i64::from(window_s) / 30 {
                if let Some((d, t)) = cells.get(&(segment, last - age)) {
                    // The weight of a pane falls by e in five minutes.
                    let weight = (-30.0 * age as f64 / 300.0).exp();
                    distance += weight * d;
                    time += weight * t;
                }
            }
            let (truth, told) = (
                3.6 * distance / time,
                state["current_speed_kph"].as_f64().unwrap(),
            );
            assert!(
                (told / truth - 1.0).abs() < 0.01 || (told - truth).abs() < 0.1,
                "{} at {}: told {told}, by sorting and grouping {truth}",
                names[segment],
                p.time
            );
            compared += 1;
        }
        assert!(
            compared > 60,
            "window {window_s}: only {compared} states compared"
        );
    }
}
