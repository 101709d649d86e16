//! A small town for tests: a map drawn in characters, vehicles that drive along its nodes, and an engine that
//! reads what they report.
#![allow(dead_code, reason = "every test file uses its own part of the town")]

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use viaflux::assess::{Places, Profile};
use viaflux::baseline::Baseline;
use viaflux::engine::{Batch, Engine, LogSpec, Output, Record, Setup};
use viaflux::ingest::{self, Area, Counts, Decoder, Feed, FieldMapping, Rejection, SubjectKey};
use viaflux::locate::Sites;
use viaflux::network::osm::{OsmData, OsmNode, OsmRestriction, OsmWay};
use viaflux::network::{BuildSettings, Network, SegmentIndex, SegmentKey};
use viaflux::publish::Publication;
use viaflux::units::EventTime;
use viaflux::{aggregate, publish};

/// 2026-03-09T06:30:00Z, a pane's beginning.
pub(crate) const EPOCH: i64 = 1_773_037_800_000;
/// Metres between two columns, and between two rows of a picture.
const GRID_M: f64 = 50.0;
const LAT: f64 = 34.0;
const LON: f64 = 108.0;
/// Metres of a degree of latitude and of longitude at [`LAT`] on WGS-84.
const LAT_M: f64 = 110_922.4;
const LON_M: f64 = 92_385.0;

/// A whole number below `n`.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: u32) -> u32 {
    rng.next_u32() % n
}

/// A road map.
#[derive(Clone)]
pub(crate) struct Town {
    pub(crate) network: Arc<Network>,
    nodes: BTreeMap<char, (f64, f64)>,
}

/// The map of a picture: every letter or digit is a node at its place. A way is a word of such characters, then
/// tags (`highway=secondary` where none is named); ways get the ids 1, 2 … in order. Behind the ways,
/// `1@B@2 restriction=…` is a turn restriction from way 1 over node B to way 2. `signals` are the nodes with
/// traffic lights.
pub(crate) fn draw(picture: &str, ways: &[&str], signals: &str) -> Town {
    let mut osm = OsmData::default();
    let mut nodes = BTreeMap::new();
    for (row, line) in picture.lines().enumerate() {
        for (column, c) in line.chars().enumerate().filter(|(_, c)| c.is_alphanumeric()) {
            let lat = LAT - row as f64 * GRID_M / LAT_M;
            let lon = LON + column as f64 * GRID_M / LON_M;
            let mut node = OsmNode {
                lat,
                lon,
                ..OsmNode::default()
            };
            if signals.contains(c) {
                node.tags
                    .insert("highway".to_owned(), "traffic_signals".to_owned());
            }
            osm.nodes.insert(id(c), node);
            nodes.insert(c, (lat, lon));
        }
    }
    for (i, way) in ways.iter().enumerate() {
        let mut words = way.split(' ');
        let first = words.next().unwrap();
        let mut tags: BTreeMap<String, String> = words
            .map(|w| w.split_once('=').unwrap())
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let turn: Vec<&str> = first.split('@').collect();
        if let [from, via, to] = turn[..] {
            tags.insert("type".to_owned(), "restriction".to_owned());
            osm.restrictions.push(OsmRestriction {
                id: i as i64 + 1,
                from: from.parse().unwrap(),
                via_node: via.chars().next().map(id),
                via_ways: Vec::new(),
                to: to.parse().unwrap(),
                tags,
            });
            continue;
        }
        tags.entry("highway".to_owned())
            .or_insert_with(|| "secondary".to_owned());
        osm.ways.push(OsmWay {
            id: i as i64 + 1,
            nodes: first.chars().map(id).collect(),
            tags,
        });
    }
    let (network, _) = Network::build(&osm, &BuildSettings::default());
    Town {
        network: Arc::new(network),
        nodes,
    }
}

fn id(node: char) -> i64 {
    i64::from(u32::from(node))
}

impl Town {
    /// A segment as `from>to`, by the characters of its ends.
    pub(crate) fn name(&self, segment: SegmentIndex) -> String {
        let key = self.network.segment(segment).key;
        let c = |id: i64| u32::try_from(id).ok().and_then(char::from_u32).unwrap();
        format!("{}>{}", c(key.from_node), c(key.to_node))
    }

    /// The segment `from>to`.
    pub(crate) fn segment(&self, name: &str) -> SegmentIndex {
        let all = 0..self.network.segments().len() as SegmentIndex;
        all.into_iter()
            .find(|s| self.name(*s) == name)
            .unwrap_or_else(|| panic!("no segment {name}"))
    }

    /// The published id of the segment `from>to`.
    pub(crate) fn key(&self, name: &str) -> SegmentKey {
        self.network.segment(self.segment(name)).key
    }

    pub(crate) fn road(&self, nodes: &str) -> Road {
        let points: Vec<(f64, f64)> = nodes.chars().map(|c| self.nodes[&c]).collect();
        let mut at = vec![0.0];
        for pair in points.windows(2) {
            let (dx, dy) = ((pair[1].1 - pair[0].1) * LON_M, (pair[1].0 - pair[0].0) * LAT_M);
            at.push(at[at.len() - 1] + dx.hypot(dy));
        }
        Road {
            nodes: nodes.chars().collect(),
            points,
            at,
        }
    }
}

/// A way through the town.
#[derive(Clone)]
pub(crate) struct Road {
    nodes: Vec<char>,
    points: Vec<(f64, f64)>,
    /// Metres from the beginning to each node.
    at: Vec<f64>,
}

impl Road {
    pub(crate) fn length(&self) -> f64 {
        self.at[self.at.len() - 1]
    }

    /// Metres to a node.
    pub(crate) fn to(&self, node: char) -> f64 {
        self.at[self.nodes.iter().position(|n| *n == node).unwrap()]
    }

    /// Latitude, longitude and heading after `m` metres.
    pub(crate) fn place(&self, m: f64) -> (f64, f64, f64) {
        let k = self
            .at
            .iter()
            .rposition(|a| *a <= m)
            .unwrap_or(0)
            .min(self.at.len() - 2);
        let f = (m - self.at[k]) / (self.at[k + 1] - self.at[k]);
        let (a, b) = (self.points[k], self.points[k + 1]);
        let heading = ((b.1 - a.1) * LON_M).atan2((b.0 - a.0) * LAT_M).to_degrees();
        (
            a.0 + (b.0 - a.0) * f,
            a.1 + (b.1 - a.1) * f,
            heading.rem_euclid(360.0),
        )
    }
}

/// One report of a vehicle in the shape of the preset `viaflux`.
pub(crate) fn report(id: &str, ms: i64, place: (f64, f64, f64), speed_mps: f64, class: &str) -> String {
    let (lat, lon, heading) = place;
    format!(
        r#"{{"vehicle_id":"{id}","event_time":{},"lat":{lat:.7},"lon":{lon:.7},"speed_kph":{:.2},"heading_deg":{heading:.1},"vehicle_class":"{class}"}}"#,
        EPOCH + ms,
        speed_mps * 3.6
    )
}

/// One interval of a sensor, ending at `ms`. Its occupancy wavers, or it would be stuck.
pub(crate) fn measurement(id: &str, ms: i64, interval_ms: i64, speed_kph: f64, volume_vph: u32) -> String {
    let occupancy = 8.0 + (ms / interval_ms % 3) as f64 / 2.0;
    format!(
        r#"{{"sensor_id":"{id}","collection_interval_start_date":{},"collection_interval_end_date":{},"average_speed_kph":{speed_kph},"volume_vph":{volume_vph},"occupancy_percent":{occupancy}}}"#,
        EPOCH + ms - interval_ms,
        EPOCH + ms
    )
}

/// One record on its way to the engine.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) log: u16,
    /// When the log took it in, in ms since [`EPOCH`].
    pub(crate) arrival: i64,
    pub(crate) payload: String,
}

/// What an engine is made of.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) town: Town,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) sensors: Vec<(String, SegmentIndex)>,
    pub(crate) lanes: u16,
    pub(crate) threads: usize,
    /// Whether the logs stamp append time.
    pub(crate) append_time: bool,
    pub(crate) observe: bool,
    pub(crate) ingest: ingest::Settings,
    pub(crate) aggregate: aggregate::Settings,
    pub(crate) every_pane: bool,
    /// Whether the logs of vehicles are partitions of one source.
    pub(crate) partitioned: bool,
}

impl Rig {
    pub(crate) fn new(town: &Town, feeds: Vec<Feed>) -> Self {
        Self {
            town: town.clone(),
            feeds,
            sensors: Vec::new(),
            lanes: 1,
            threads: 1,
            append_time: false,
            observe: false,
            ingest: ingest::Settings::default(),
            aggregate: aggregate::Settings::default(),
            every_pane: false,
            partitioned: false,
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        let network = &self.town.network;
        let (south_west, north_east) = network.bounds();
        let area = Area::around(south_west, north_east, self.ingest.area_margin_m);
        let segments: BTreeMap<SubjectKey, SegmentIndex> = self
            .sensors
            .iter()
            .map(|(id, segment)| (SubjectKey::of(id), *segment))
            .collect();
        let known = Arc::new(segments.keys().copied().collect());
        let log = |(i, feed): (usize, &Feed)| LogSpec {
            name: format!("log/{i}"),
            source: if self.partitioned {
                "log".to_owned()
            } else {
                format!("log/{i}")
            },
            decoder: Arc::new(
                Decoder::new(
                    FieldMapping::viaflux(*feed),
                    None,
                    self.ingest.clone(),
                    area,
                    Arc::clone(&known),
                )
                .keep_ids(self.observe),
            ),
            feed: *feed,
            lanes: self.lanes,
            lateness_ms: i64::from(self.ingest.allowed_lateness_s) * 1000,
            settings: self.ingest.clone(),
        };
        Engine::new(Setup {
            network: Arc::clone(network),
            baseline: Arc::new(Baseline::prior(Arc::clone(network))),
            sites: Arc::new(Sites {
                segments,
                ..Default::default()
            }),
            places: Arc::new(Places::whole_city(network)),
            profile: Arc::new(profile()),
            locate: Default::default(),
            aggregate: self.aggregate.clone(),
            assess: Default::default(),
            publish: publish::Settings {
                every_pane: self.every_pane,
                ..Default::default()
            },
            logs: self.feeds.iter().enumerate().map(log).collect(),
            threads: self.threads,
            observe: self.observe,
            config_hash: [7; 32],
        })
    }

    /// Records as batches of `size`, and at last the end of all logs. Offsets count from 0 in each log.
    pub(crate) fn batches(&self, items: &[Item], size: usize) -> Vec<Batch> {
        let mut next = vec![0_u64; self.feeds.len()];
        let mut out: Vec<Batch> = Vec::new();
        for part in items.chunks(size) {
            let mut batch = Batch::default();
            for item in part {
                let offset = &mut next[usize::from(item.log)];
                batch.push(Record {
                    log: item.log,
                    offset: *offset,
                    append_time: self.append_time.then(|| EventTime::from_ms(EPOCH + item.arrival)),
                    control: false,
                    key: &[],
                    value: item.payload.as_bytes(),
                });
                *offset += 1;
            }
            out.push(batch);
        }
        let mut end = Batch::default();
        (0..self.feeds.len()).for_each(|log| end.end(log as u16));
        out.push(end);
        out
    }

    /// Everything that an engine makes of `items`.
    pub(crate) fn run(&self, items: &[Item], batch: usize) -> Told {
        let mut engine = self.engine();
        let mut out = Output::default();
        for batch in self.batches(items, batch) {
            let told = engine.told();
            let from = (out.refused.len(), out.matches.len());
            engine.step(&batch, &mut out, &mut ());
            let panes = out.refused[from.0..].iter().map(|r| r.pane);
            let first = panes.chain(out.matches[from.1..].iter().map(|m| m.pane)).min();
            assert!(
                first.is_none_or(|first| first >= told),
                "all of the panes before {told} had been told, not so pane {first:?}"
            );
        }
        Told::of(&engine, out)
    }
}

/// What an engine told of a whole input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// End of each pane and the digest up to it.
    pub(crate) chain: Vec<(i64, String)>,
    pub(crate) publications: Vec<Publication>,
    pub(crate) counts: Vec<Counts>,
    /// Lines of `matches.ndjson`, in the order pane, log, place in the log.
    pub(crate) matches: Vec<String>,
    pub(crate) turns: Vec<aggregate::TurnFlow>,
    /// Refused records, in the same order.
    pub(crate) refusals: Vec<(i64, u16, u64, Rejection, bool)>,
}

impl Told {
    pub(crate) fn of(engine: &Engine, mut out: Output) -> Self {
        out.matches.sort_by_key(|m| (m.pane, m.log, m.offset));
        let matches: Vec<String> = out
            .matches
            .into_iter()
            .map(|m| String::from_utf8(m.line).unwrap())
            .collect();
        let told = out.refused.iter();
        let mut refusals: Vec<_> = told
            .map(|r| (r.pane, r.log, r.offset, r.reason, r.at_once))
            .collect();
        refusals.sort_unstable();
        Self {
            chain: out
                .closed
                .iter()
                .map(|c| (c.end.ms() - EPOCH, c.digest.to_string()))
                .collect(),
            publications: out.publications,
            turns: out.turns,
            counts: (0..engine.logs())
                .map(|l| engine.log_counts(l as u16).clone())
                .collect(),
            matches,
            refusals,
        }
    }

    /// Records refused for `reason`.
    pub(crate) fn refused(&self, reason: Rejection) -> u64 {
        self.counts.iter().map(|c| c.rejected[reason as usize]).sum()
    }

    pub(crate) fn used(&self) -> u64 {
        self.counts.iter().map(|c| c.used).sum()
    }
}

/// The default graded scale.
pub(crate) fn profile() -> Profile {
    toml::from_str(include_str!("../../config/profiles/gbt33171-2016.toml")).unwrap()
}
