//! JSON of the output events (interfaces §2). Integers of the engine become units of the contract here and
//! nowhere else.

use serde::Serialize;

use crate::aggregate::TurnFlow;
use crate::assess::{
    About, Alert, Bound, CONGESTION_RULE, Cause, Condition, CorridorTime, KEYING_RULE, Level,
    OBSTRUCTION_RULE, Obstruction, Places, Profile, Region, RegionIndex, SENSOR_RULE, SegmentState,
    SensorView, Transition,
};
use crate::locate::Match;
use crate::network::{LinkIndex, Network, SegmentFlags, SegmentIndex};
use crate::units::{EventTime, MmPerS, Position, kph, travel_time_ms};

/// A moment as RFC 3339, formatted without going through the formatter for each of thousands of states.
#[derive(Serialize)]
#[serde(transparent)]
struct Moment(String);

impl From<EventTime> for Moment {
    fn from(time: EventTime) -> Self {
        Self(time.to_string())
    }
}

fn round(value: f64, decimals: i32) -> f64 {
    let scale = f64::from(10_i32.pow(decimals.unsigned_abs()));
    (value * scale).round() / scale
}

fn speed_kph(speed: MmPerS) -> f64 {
    round(kph(speed), 1)
}

fn share(permille: u32) -> f64 {
    f64::from(permille) / 1000.0
}

fn seconds(ms: u64) -> f64 {
    round(ms as f64 / 1000.0, 1)
}

/// `[lon, lat]` with 7 decimals.
fn lon_lat(p: Position) -> [f64; 2] {
    [p.lon(), p.lat()]
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs of numbers and text always encode")
}

#[derive(Serialize)]
struct SegmentStateJson<'a> {
    schema: &'static str,
    segment_id: String,
    segment: SegmentIndex,
    map_version: &'a str,
    way_id: i64,
    forward: bool,
    window_start: Moment,
    window_end: Moment,
    current_speed_kph: Option<f64>,
    free_flow_speed_kph: f64,
    typical_speed_kph: f64,
    speed_ratio: Option<f64>,
    current_travel_time_s: Option<f64>,
    free_flow_travel_time_s: f64,
    delay_s: Option<f64>,
    vehicle_count: u32,
    sample_count: u32,
    probe_share: f64,
    sensor_share: f64,
    age_s: Option<i64>,
    confidence: f64,
    basis: &'static str,
    baseline: &'a str,
    level: &'static str,
    grade: Option<&'a str>,
    grade_index: Option<u8>,
    trend: Option<&'static str>,
    partial: bool,
    provisional: bool,
}

/// A segment state as JSON; `baseline` is the version of the baseline in use.
pub fn segment_json(
    network: &Network,
    baseline: &str,
    profile: &Profile,
    state: &SegmentState,
    provisional: bool,
) -> Vec<u8> {
    let s = network.segment(state.segment);
    let length = u64::from(s.length_mm);
    let free_ms = travel_time_ms(length, state.free_flow).unwrap_or(0);
    let now_ms = state.speed.and_then(|v| travel_time_ms(length, v));
    to_json(&SegmentStateJson {
        schema: "viaflux.segment_state/1",
        segment_id: s.key.to_string(),
        segment: state.segment,
        map_version: network.version(),
        way_id: s.key.way,
        forward: !s.flags.has(SegmentFlags::BACKWARD),
        window_start: state.window_start.into(),
        window_end: state.window_end.into(),
        current_speed_kph: state.speed.map(speed_kph),
        free_flow_speed_kph: speed_kph(state.free_flow),
        typical_speed_kph: speed_kph(state.typical),
        speed_ratio: state.ratio_permille.map(share),
        current_travel_time_s: now_ms.map(seconds),
        free_flow_travel_time_s: seconds(free_ms),
        delay_s: now_ms.map(|now| seconds(now.saturating_sub(free_ms))),
        vehicle_count: state.vehicle_count,
        sample_count: state.sample_count,
        probe_share: share(state.probe_share_permille),
        sensor_share: share(state.sensor_share_permille()),
        age_s: state.latest.map(|l| (state.window_end.since(l) / 1000).max(0)),
        confidence: share(state.confidence_permille),
        basis: state.basis.label(),
        baseline,
        level: state.level.label(),
        grade: state.grade.and_then(|g| profile.label(g)),
        grade_index: state.grade,
        trend: state.trend.map(crate::assess::Trend::label),
        partial: false,
        provisional,
    })
}

#[derive(Serialize)]
struct CorridorJson<'a> {
    schema: &'static str,
    corridor_id: &'a str,
    name: &'a str,
    window_end: Moment,
    travel_time_s: Option<f64>,
    free_flow_travel_time_s: f64,
    typical_travel_time_s: f64,
    delay_s: Option<f64>,
    length_m: f64,
    coverage_ratio: f64,
    confidence: f64,
}

/// A corridor's travel time as JSON.
pub fn corridor_json(places: &Places, time: &CorridorTime) -> Vec<u8> {
    let corridor = &places.corridors[time.corridor as usize];
    to_json(&CorridorJson {
        schema: "viaflux.corridor_travel_time/1",
        corridor_id: &corridor.id,
        name: &corridor.name,
        window_end: time.time.into(),
        travel_time_s: time.travel_time_ms.map(seconds),
        free_flow_travel_time_s: seconds(time.free_flow_ms),
        typical_travel_time_s: seconds(time.typical_ms),
        delay_s: time
            .travel_time_ms
            .map(|t| seconds(t.saturating_sub(time.free_flow_ms))),
        length_m: round(time.length_mm as f64 / 1000.0, 1),
        coverage_ratio: share(time.coverage_permille),
        confidence: share(time.confidence_permille),
    })
}

#[derive(Serialize)]
struct RegionJson<'a> {
    schema: &'static str,
    region_id: &'a str,
    window_end: Moment,
    profile: &'a str,
    profile_verified: bool,
    index: Option<f64>,
    tti: Option<f64>,
    mean_speed_kph: Option<f64>,
    length_m_by_level: serde_json::Map<String, serde_json::Value>,
    coverage_ratio: f64,
}

/// A region's index as JSON.
pub fn region_json(places: &Places, profile: &Profile, index: &RegionIndex) -> Vec<u8> {
    let lengths = Level::ALL
        .iter()
        .zip(index.length_m)
        .map(|(l, m)| (l.label().to_owned(), m.into()))
        .collect();
    to_json(&RegionJson {
        schema: "viaflux.region_index/1",
        region_id: &places.regions[index.region as usize].id,
        window_end: index.time.into(),
        profile: &profile.id,
        profile_verified: profile.index.verified,
        index: index.index_centi.map(|c| f64::from(c) / 100.0),
        tti: index.tti_permille.map(share),
        mean_speed_kph: index.mean_speed.map(speed_kph),
        length_m_by_level: lengths,
        coverage_ratio: share(index.coverage_permille),
    })
}

#[derive(Serialize)]
struct AlertJson<'a> {
    schema: &'static str,
    alert_id: String,
    revision: u32,
    r#type: &'static str,
    transition: &'static str,
    severity: &'static str,
    starts_at: Moment,
    updated_at: Moment,
    ends_at: Option<Moment>,
    place: PlaceJson<'a>,
    values: ValuesJson,
    evidence: EvidenceJson<'a>,
    rule: &'static str,
    rule_version: u32,
    stale: bool,
    cause: Option<&'static str>,
    merged_into: Option<String>,
}

/// Where it is; all of it empty for what has no place on the road.
#[derive(Default, Serialize)]
struct PlaceJson<'a> {
    name: Option<&'a str>,
    region: Option<&'a str>,
    segment_ids: Vec<String>,
    way_ids: Vec<i64>,
    head: Option<[f64; 2]>,
    tail: Option<[f64; 2]>,
    length_m: Option<f64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ValuesJson {
    Link {
        speed_kph: f64,
        speed_ratio: f64,
        delay_s: f64,
    },
    Obstruction {
        without_passage_s: f64,
        passages_expected: f64,
        vehicles_standing: u32,
        standing_s: f64,
        score: f64,
    },
    Keying {
        split_ratio: f64,
    },
    Sensor {
        vehicle_count: f64,
        speed_kph: Option<f64>,
        occupancy_percent: Option<f64>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum EvidenceJson<'a> {
    Link {
        vehicle_count: u32,
        sample_count: u32,
        sensor_count: u32,
        basis: &'static str,
        confidence: f64,
        windows: [String; 1],
        baseline: &'a str,
        conditions: Vec<ConditionJson>,
    },
    Obstruction {
        vehicle_count: u32,
        passages_before: u32,
        windows: [String; 2],
        baseline: &'static str,
        conditions: Vec<ConditionJson>,
    },
    Keying {
        source: &'a str,
        ids_sampled: u32,
        ids_split: u32,
        partitions: &'a [u16],
        windows: [String; 1],
        conditions: Vec<ConditionJson>,
    },
    Sensor {
        sensor_id: &'a str,
        record_count: u64,
        last_interval: [Moment; 2],
        windows: [String; 1],
    },
}

/// A condition of the rule with what met it, both in the unit that its name tells.
#[derive(Serialize)]
struct ConditionJson {
    measure: &'static str,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
}

impl From<&Condition> for ConditionJson {
    fn from(c: &Condition) -> Self {
        let (measure, unit) = c.measure.label();
        let scaled = |value: i64| round(value as f64 / unit, 3);
        let (at_least, at_most) = match c.bound {
            Bound::AtLeast(bound) => (Some(scaled(bound)), None),
            Bound::AtMost(bound) => (None, Some(scaled(bound))),
        };
        Self {
            measure,
            value: scaled(c.value),
            at_least,
            at_most,
        }
    }
}

/// A revision of an alert as JSON; `baseline` as in [`segment_json`].
pub fn alert_json(network: &Network, baseline: &str, places: &Places, alert: &Alert) -> Vec<u8> {
    let span = |(from, to): (EventTime, EventTime)| [format!("{from}/{to}")];
    let conditions = || alert.conditions.iter().map(ConditionJson::from).collect();
    let (place, values, evidence, rule, cause) = match &alert.about {
        About::Link { link, evidence: e } => (
            link_place(network, places, *link),
            ValuesJson::Link {
                speed_kph: speed_kph(e.speed),
                speed_ratio: share(e.ratio_permille),
                delay_s: seconds(e.delay_ms),
            },
            EvidenceJson::Link {
                vehicle_count: e.vehicle_count,
                sample_count: e.sample_count,
                sensor_count: e.sensors,
                basis: e.basis.label(),
                confidence: share(e.confidence_permille),
                windows: span(e.window),
                baseline,
                conditions: conditions(),
            },
            CONGESTION_RULE,
            None,
        ),
        About::Obstruction(o) => (
            obstruction_place(network, places, o),
            ValuesJson::Obstruction {
                without_passage_s: seconds(o.at.since(o.last_passage).unsigned_abs()),
                passages_expected: round(o.missing_milli as f64 / 1000.0, 1),
                vehicles_standing: o.standing,
                standing_s: seconds(u64::from(o.stood_ms)),
                score: f64::from(o.score_tenths) / 10.0,
            },
            EvidenceJson::Obstruction {
                vehicle_count: o.standing,
                passages_before: o.usual,
                windows: [
                    format!(
                        "{}/{}",
                        o.last_passage.plus_ms(-(o.usual_ms as i64)),
                        o.last_passage
                    ),
                    format!("{}/{}", o.last_passage, o.at),
                ],
                baseline: "own history",
                conditions: conditions(),
            },
            OBSTRUCTION_RULE,
            None,
        ),
        About::Keying(k) => (
            PlaceJson::default(),
            ValuesJson::Keying {
                split_ratio: share(k.split_permille()),
            },
            EvidenceJson::Keying {
                source: &k.source,
                ids_sampled: k.vehicles,
                ids_split: k.split,
                partitions: &k.partitions,
                windows: span(k.window),
                conditions: conditions(),
            },
            KEYING_RULE,
            None,
        ),
        About::Sensor(s) => (
            segment_place(network, places, s.segment),
            ValuesJson::Sensor {
                vehicle_count: f64::from(s.count_milli) / 1000.0,
                speed_kph: s.speed.map(speed_kph),
                occupancy_percent: s.occupancy_permille.map(|o| f64::from(o) / 10.0),
            },
            EvidenceJson::Sensor {
                sensor_id: &s.sensor,
                record_count: s.records,
                last_interval: [s.interval.0.into(), s.interval.1.into()],
                windows: span((alert.starts_at, alert.updated_at)),
            },
            SENSOR_RULE,
            Some(s.cause.label()),
        ),
    };
    to_json(&AlertJson {
        schema: "viaflux.alert/1",
        alert_id: alert.id.to_string(),
        revision: alert.revision,
        r#type: alert.kind.label(),
        transition: alert.transition.label(),
        severity: alert.severity.label(),
        starts_at: alert.starts_at.into(),
        updated_at: alert.updated_at.into(),
        ends_at: alert
            .ends_at
            .filter(|_| alert.transition == Transition::Resolved)
            .map(Into::into),
        place,
        values,
        evidence,
        rule: rule.0,
        rule_version: rule.1,
        stale: alert.stale,
        cause,
        merged_into: None,
    })
}

/// The segment on which a sensor stands.
fn segment_place<'a>(network: &'a Network, places: &'a Places, i: SegmentIndex) -> PlaceJson<'a> {
    let segment = network.segment(i);
    PlaceJson {
        name: network.name(i),
        region: region_of(places, i),
        segment_ids: vec![segment.key.to_string()],
        way_ids: vec![segment.key.way],
        head: Some(lon_lat(network.position_at(i, segment.length_mm))),
        tail: Some(lon_lat(network.position_at(i, 0))),
        length_m: Some(round(f64::from(segment.length_mm) / 1000.0, 1)),
    }
}

fn region_of(places: &Places, i: SegmentIndex) -> Option<&str> {
    let holds = |r: &&Region| r.segments.binary_search(&i).is_ok();
    places.regions.iter().find(holds).map(|r| r.id.as_str())
}

fn link_place<'a>(network: &'a Network, places: &'a Places, link: LinkIndex) -> PlaceJson<'a> {
    let link = &network.links()[link as usize];
    let last = link.segments[link.segments.len() - 1];
    chain_place(
        network,
        places,
        &link.segments,
        (0, network.segment(last).length_mm),
    )
}

fn obstruction_place<'a>(network: &'a Network, places: &'a Places, o: &Obstruction) -> PlaceJson<'a> {
    chain_place(network, places, &o.segments, (o.tail_mm, o.head_mm))
}

/// Consecutive segments, from so many mm behind the beginning of the first to so many behind that of the last.
fn chain_place<'a>(
    network: &'a Network,
    places: &'a Places,
    segments: &[SegmentIndex],
    (tail_mm, head_mm): (u32, u32),
) -> PlaceJson<'a> {
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    let mut way_ids: Vec<i64> = segments.iter().map(|&i| network.segment(i).key.way).collect();
    way_ids.dedup();
    let before: u64 = segments[..segments.len() - 1]
        .iter()
        .map(|&i| u64::from(network.segment(i).length_mm))
        .sum();
    let length_mm = (before + u64::from(head_mm)).saturating_sub(u64::from(tail_mm));
    PlaceJson {
        name: segments.iter().find_map(|&i| network.name(i)),
        region: region_of(places, first),
        segment_ids: segments
            .iter()
            .map(|&i| network.segment(i).key.to_string())
            .collect(),
        way_ids,
        head: Some(lon_lat(network.position_at(last, head_mm))),
        tail: Some(lon_lat(network.position_at(first, tail_mm))),
        length_m: Some(round(length_mm as f64 / 1000.0, 1)),
    }
}

#[derive(Serialize)]
struct SensorJson<'a> {
    schema: &'static str,
    sensor_id: &'a str,
    segment_id: String,
    name: Option<&'a str>,
    position: Option<[f64; 2]>,
    health: &'static str,
    cause: Option<&'static str>,
    since: Option<Moment>,
    interval_start: Moment,
    interval_end: Moment,
    vehicle_count: f64,
    occupancy_percent: Option<f64>,
    speed_kph: Option<f64>,
    record_count: u64,
    disbelieved_count: u64,
}

/// A sensor with its health. `offset_mm` is its place on its segment, where it is known.
pub fn sensor_json(network: &Network, id: &str, offset_mm: Option<u32>, s: &SensorView) -> Vec<u8> {
    to_json(&SensorJson {
        schema: "viaflux.sensor/1",
        sensor_id: id,
        segment_id: network.segment(s.segment).key.to_string(),
        name: network.name(s.segment),
        position: offset_mm.map(|mm| lon_lat(network.position_at(s.segment, mm))),
        health: s.health.label(),
        cause: s.health.cause().map(Cause::label),
        since: s.since.map(Into::into),
        interval_start: s.interval.0.into(),
        interval_end: s.interval.1.into(),
        vehicle_count: f64::from(s.count_milli) / 1000.0,
        occupancy_percent: s.occupancy_permille.map(|o| f64::from(o) / 10.0),
        speed_kph: s.speed.map(speed_kph),
        record_count: s.records.0,
        disbelieved_count: s.records.1,
    })
}

#[derive(Serialize)]
struct MatchJson<'a> {
    line: u64,
    vehicle_id: &'a str,
    event_time: Moment,
    segment_id: Option<String>,
    way_id: Option<i64>,
    forward: Option<bool>,
    offset_m: Option<f64>,
    distance_m: Option<f64>,
    posterior: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// A line of `matches.ndjson`: where the fix of `vehicle_id` was placed.
pub fn match_json(network: &Network, vehicle_id: &str, m: &Match) -> Vec<u8> {
    let place = m.place.as_ref().ok();
    let segment = place.map(|p| network.segment(p.segment));
    let metres = |mm: u32| round(f64::from(mm) / 1000.0, 2);
    to_json(&MatchJson {
        line: m.offset,
        vehicle_id,
        event_time: m.time.into(),
        segment_id: segment.map(|s| s.key.to_string()),
        way_id: segment.map(|s| s.key.way),
        forward: segment.map(|s| !s.flags.has(SegmentFlags::BACKWARD)),
        offset_m: place.map(|p| metres(p.offset_mm)),
        distance_m: place.map(|p| metres(p.distance_mm)),
        posterior: place.map(|p| share(u32::from(p.posterior_permille))),
        reason: m.place.as_ref().err().map(|r| r.label()),
    })
}

#[derive(Serialize)]
struct TurnJson {
    window_start: Moment,
    window_end: Moment,
    segment_id: String,
    next_segment_id: String,
    traversals: u32,
    mean_travel_time_s: f64,
    mean_delay_s: f64,
    mean_stop_s: f64,
    stops: u32,
}

/// A line of `turns.ndjson`: how long vehicles took on a segment before they went on to another.
pub fn turn_json(network: &Network, turn: &TurnFlow) -> Vec<u8> {
    let sums = &turn.sums;
    let mean_s = |ms: u64| round(ms as f64 / 1000.0 / f64::from(sums.traversals.max(1)), 1);
    to_json(&TurnJson {
        window_start: turn.begin.into(),
        window_end: turn.end.into(),
        segment_id: network.segment(turn.from).key.to_string(),
        next_segment_id: network.segment(turn.to).key.to_string(),
        traversals: sums.traversals,
        mean_travel_time_s: mean_s(sums.time_ms),
        mean_delay_s: mean_s(sums.delay_ms),
        mean_stop_s: mean_s(sums.stop_ms),
        stops: sums.stops,
    })
}
