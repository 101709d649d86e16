//! Health of the roadside sensors, lane by lane: rules on their records, silence, and a comparison with probes
//! (algorithms §3.7), with the alert `sensor_fault`.
//!
//! A sensor is judged as a pane closes. What a faulty one says stays out of the estimates from the next pane on
//! (its records are *used*: they are what it is judged by), until it has been sane for `release_min`. Its usual
//! flow and speed are learned from intervals in which it was sane.

mod lane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{About, Alert, AlertId, AlertType, Severity, Transition};
use crate::aggregate::SegmentFlow;
use crate::ingest::{Measurement, SubjectKey};
use crate::locate::Reading;
use crate::network::{Network, RoadClass, SegmentFlags, SegmentIndex};
use crate::units::{EventTime, MmPerS};
use lane::{Around, Judgement, Lane};

/// Name and version of the rule; both enter the alert's identity.
pub const SENSOR_RULE: (&str, u32) = ("sensor-fault", 1);

/// Effective number of probes, in thousandths, from which their speed says something of a sensor.
const PROBES_MILLI: u64 = 3_000;
/// Share of the free-flow speed, in permille, from which probes on a segment without a signal drive everywhere as
/// fast as at the sensor. In a jam they need not: it may begin behind it.
const FLOWING_PERMILLE: u32 = 600;
/// Shortest segment on which probes are compared with a sensor.
const COMPARED_MM: u32 = 150_000;

/// Settings of the watch over sensors (section `[assess.sensor]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct SensorSettings {
    /// Equal records in a row, with traffic, speed and occupancy, from which a sensor is stuck.
    pub stuck_records: u32,
    /// The same where a record lacks speed or occupancy, and may repeat by chance.
    pub stuck_records_bare: u32,
    /// Intervals without a record, while other sensors report, from which a sensor is silent.
    pub silent_intervals: u32,
    /// Vehicles expected since the last one from which a sensor without hits is faulty. The gap must be three
    /// times `no_hits_min`.
    pub no_hits_vehicles: u32,
    /// Minutes without hits that suffice, with 80 % of `no_hits_vehicles`, where vehicles came steadily.
    pub no_hits_min: u32,
    /// Share of the minutes of the last quarter of an hour with a vehicle that is steady.
    pub no_hits_busy_share: f64,
    /// Minutes of full occupancy without a vehicle from which a loop of a motorway or trunk road is locked on, while
    /// traffic moves beside it.
    pub locked_on_min: u32,
    /// The same on other roads, and where nothing shows that traffic moves.
    pub locked_on_alone_min: u32,
    /// Vehicles of one lane in 30 s that are chatter.
    pub chatter_per_30s: u32,
    /// Share of the speed limit above which the mean speed of an interval is not plausible.
    pub speed_ratio_max: f64,
    /// Minutes without a break in which probes must contradict a sensor.
    pub contradiction_min: u32,
    /// Minutes in which a faulty sensor must be sane before it is believed again.
    pub release_min: u32,
    /// Most open alerts of sensors.
    pub alerts_max: u32,
    /// Most sensors watched; further ones are believed.
    pub sensors_max: u32,
}

impl Default for SensorSettings {
    fn default() -> Self {
        Self {
            stuck_records: 4,
            stuck_records_bare: 11,
            silent_intervals: 4,
            no_hits_vehicles: 10,
            no_hits_min: 5,
            no_hits_busy_share: 0.75,
            locked_on_min: 2,
            locked_on_alone_min: 30,
            chatter_per_30s: 38,
            speed_ratio_max: 1.8,
            contradiction_min: 15,
            release_min: 15,
            alerts_max: 1_000,
            sensors_max: 100_000,
        }
    }
}

/// What is wrong with a sensor (interfaces §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It repeats one record.
    Stuck,
    /// It counts nobody where vehicles were to be expected.
    NoHits,
    /// Its speeds fit only after × 3.6 or ÷ 3.6.
    Unit,
    /// It reports nothing while other sensors do.
    Silent,
    /// It is occupied all the time and counts nobody.
    LockedOn,
    /// It counts more vehicles than a lane carries.
    Chatter,
    /// Its speeds are above all that is plausible.
    Implausible,
    /// Its speed differs from that of probes for long.
    Biased,
    /// Its speed is that of the other direction.
    Swapped,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 9] = [
        Cause::Stuck,
        Cause::NoHits,
        Cause::Unit,
        Cause::Silent,
        Cause::LockedOn,
        Cause::Chatter,
        Cause::Implausible,
        Cause::Biased,
        Cause::Swapped,
    ];

    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Cause::Stuck => "stuck",
            Cause::NoHits => "no_hits",
            Cause::Unit => "unit",
            Cause::Silent => "silent",
            Cause::LockedOn => "locked_on",
            Cause::Chatter => "chatter",
            Cause::Implausible => "implausible",
            Cause::Biased => "biased",
            Cause::Swapped => "swapped",
        }
    }

    /// A sensor that says nothing leaves a gap; one that says what is wrong misleads.
    const fn severity(self) -> Severity {
        match self {
            Cause::NoHits | Cause::Silent | Cause::LockedOn => Severity::Minor,
            _ => Severity::Moderate,
        }
    }
}

/// Health of a sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Nothing speaks against it.
    #[default]
    Ok,
    /// Its last records are odd, but not for long enough. It is believed.
    Suspect(Cause),
    /// It is not believed.
    Faulty(Cause),
}

impl Health {
    /// The names of all states.
    pub const LABELS: [&'static str; 3] = ["ok", "suspect", "faulty"];

    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Suspect(_) => "suspect",
            Health::Faulty(_) => "faulty",
        }
    }

    /// What is wrong, if anything.
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Health::Ok => None,
            Health::Suspect(cause) | Health::Faulty(cause) => Some(cause),
        }
    }
}

/// A faulty sensor, as its alert tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorFault {
    /// Its id.
    pub sensor: String,
    /// Where it stands.
    pub segment: SegmentIndex,
    /// What is wrong.
    pub cause: Cause,
    /// Its last interval.
    pub interval: (EventTime, EventTime),
    /// Vehicles counted in it, in thousandths.
    pub count_milli: u32,
    /// Occupancy in it, in permille.
    pub occupancy_permille: Option<u32>,
    /// Mean speed in it.
    pub speed: Option<MmPerS>,
    /// Its records so far.
    pub records: u64,
}

/// A sensor as of the last closed pane.
#[derive(Clone, Copy, Debug)]
pub struct SensorView {
    /// Which.
    pub sensor: SubjectKey,
    /// Where it stands.
    pub segment: SegmentIndex,
    /// Its health.
    pub health: Health,
    /// Since when, if it is not well.
    pub since: Option<EventTime>,
    /// Its last interval.
    pub interval: (EventTime, EventTime),
    /// Vehicles counted in it, in thousandths.
    pub count_milli: u32,
    /// Occupancy in it, in permille.
    pub occupancy_permille: Option<u32>,
    /// Mean speed in it.
    pub speed: Option<MmPerS>,
    /// Its records so far, and those of them that came while it was not believed.
    pub records: (u64, u64),
}

/// What is remembered of a sensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sensor {
    segment: SegmentIndex,
    lane: Lane,
    health: Health,
    /// Since when it has this health.
    since: EventTime,
    /// Since when a faulty one has been sane again.
    sane: Option<EventTime>,
    /// What probes have said against it, in how many panes without a break.
    contradiction: Option<(Cause, u32)>,
    records: u64,
    /// Records that came while it was not believed.
    disbelieved: u64,
    alert: Option<Alert>,
}

/// The watch over all sensors. All of it survives in checkpoints.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    sensors: BTreeMap<SubjectKey, Sensor>,
    faulty: BTreeSet<SubjectKey>,
    /// End of the newest interval of any sensor: against it silence is measured, so that a feed that stops does
    /// not make every sensor silent.
    heard: Option<EventTime>,
    open: u32,
}

/// What a pane shows of roads and sensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaneOf<'a> {
    /// Its end.
    pub(super) now: EventTime,
    pub(super) pane_ms: i64,
    pub(super) network: &'a Network,
    /// In order of index.
    pub(super) segments: &'a [SegmentFlow],
    /// Sensor intervals of the pane, in order of sensor and time.
    pub(super) readings: &'a [Reading],
    /// Ids of sensors.
    pub(super) names: &'a BTreeMap<SubjectKey, Box<str>>,
    /// Time without a record of any sensor after which alerts are stale.
    pub(super) stale_ms: i64,
}

impl PaneOf<'_> {
    fn flow(&self, segment: SegmentIndex) -> Option<&SegmentFlow> {
        let at = self.segments.binary_search_by_key(&segment, |f| f.segment).ok()?;
        Some(&self.segments[at]).filter(|f| f.window.effective_milli >= PROBES_MILLI)
    }
}

impl Watch {
    /// Sensors that are not believed.
    pub(super) fn faulty(&self) -> &BTreeSet<SubjectKey> {
        &self.faulty
    }

    /// Open alerts in order of sensor key.
    pub(super) fn open_alerts(&self) -> impl Iterator<Item = &Alert> {
        self.sensors.values().filter_map(|s| s.alert.as_ref())
    }

    /// All sensors in order of key.
    pub(super) fn views(&self) -> impl Iterator<Item = SensorView> + '_ {
        self.sensors.iter().map(|(&sensor, s)| {
            let (count_milli, occupancy_permille, speed) = s.lane.shows();
            SensorView {
                sensor,
                segment: s.segment,
                health: s.health,
                since: (s.health != Health::Ok).then_some(s.since),
                interval: s.interval(),
                count_milli,
                occupancy_permille,
                speed,
                records: (s.records, s.disbelieved),
            }
        })
    }

    /// When an open alert becomes stale if no sensor reports.
    pub(super) fn due(&self, stale_ms: i64) -> Option<EventTime> {
        let fresh = self.open_alerts().any(|a| !a.stale);
        self.heard.filter(|_| fresh).map(|heard| heard.plus_ms(stale_ms))
    }

    /// Takes the readings of a closed pane and judges. Returns how many alerts were not opened for want of room.
    pub(super) fn step(&mut self, pane: &PaneOf<'_>, s: &SensorSettings, out: &mut Vec<Alert>) -> u64 {
        let mut heard_from: BTreeSet<SubjectKey> = BTreeSet::new();
        for reading in pane.readings {
            let m = &reading.measurement;
            if !self.sensors.contains_key(&m.sensor) && self.sensors.len() >= s.sensors_max as usize {
                continue;
            }
            let sensor = self
                .sensors
                .entry(m.sensor)
                .or_insert_with(|| Sensor::new(m, reading.segment));
            sensor.segment = reading.segment;
            sensor.take(m, pane.network, s);
            heard_from.insert(m.sensor);
            self.heard = self.heard.max(Some(m.time));
        }
        let Some(heard) = self.heard else { return 0 };
        let mut on_segment: BTreeMap<SegmentIndex, Vec<SubjectKey>> = BTreeMap::new();
        for (key, sensor) in &self.sensors {
            on_segment.entry(sensor.segment).or_default().push(*key);
        }
        let mut judged: Vec<(SubjectKey, Judgement)> = Vec::new();
        for (&key, sensor) in &mut self.sensors {
            if !heard_from.contains(&key) {
                judged.extend(sensor.silent(heard, s).map(|j| (key, j)));
            }
            if let Some(fault) = sensor.contradicted(pane, s) {
                judged.push((key, fault));
            }
        }
        for key in heard_from {
            let judgement = self.judge(key, &on_segment, pane, s);
            // What probes say counts too: such a sensor is not sane because its records are well-formed.
            if judgement != Judgement::Sane || !judged.iter().any(|(k, _)| *k == key) {
                judged.push((key, judgement));
            }
        }
        let mut refused = 0;
        for (key, judgement) in judged {
            refused += self.apply(key, judgement, pane, s, out);
        }
        let stale = pane.now.since(heard) >= pane.stale_ms;
        for sensor in self.sensors.values_mut() {
            if let Some(alert) = sensor.alert.as_mut().filter(|a| a.stale != stale) {
                alert.stale = stale;
                alert.revision += 1;
                alert.transition = Transition::Updated;
                alert.updated_at = pane.now;
                out.push(alert.clone());
            }
        }
        refused
    }

    fn judge(
        &self,
        key: SubjectKey,
        on_segment: &BTreeMap<SegmentIndex, Vec<SubjectKey>>,
        pane: &PaneOf<'_>,
        s: &SensorSettings,
    ) -> Judgement {
        let sensor = &self.sensors[&key];
        let segment = pane.network.segment(sensor.segment);
        let lanes = &on_segment[&sensor.segment];
        let mut witnessed = (0, 0);
        for other in lanes.iter().filter(|k| **k != key && !self.faulty.contains(k)) {
            let (seen, expected) = self.sensors[other].lane.witness(sensor.lane.hit());
            witnessed = (witnessed.0 + seen, witnessed.1 + expected);
        }
        let around = Around {
            segment,
            witnessed,
            lanes: if lanes.len() > 1 {
                1
            } else {
                u32::from(segment.lanes)
            },
            probes_permille: pane.flow(sensor.segment).and_then(|f| f.window.ratio_permille()),
        };
        sensor.lane.judge(&around, s)
    }

    /// Draws the consequences of a judgement. 1 if an alert was not opened for want of room.
    fn apply(
        &mut self,
        key: SubjectKey,
        judgement: Judgement,
        pane: &PaneOf<'_>,
        s: &SensorSettings,
        out: &mut Vec<Alert>,
    ) -> u64 {
        let Some(sensor) = self.sensors.get_mut(&key) else {
            return 0;
        };
        let faulty = matches!(sensor.health, Health::Faulty(_));
        match judgement {
            Judgement::Fault(cause, since) => {
                sensor.sane = None;
                if sensor.health == Health::Faulty(cause) {
                    return 0;
                }
                if !faulty {
                    sensor.since = since;
                    sensor.lane.unlearn();
                    self.faulty.insert(key);
                }
                sensor.health = Health::Faulty(cause);
                if sensor.alert.is_none() && self.open >= s.alerts_max {
                    return 1;
                }
                let about = sensor.fault(&name(pane.names, key), cause);
                let next = match sensor.alert.take() {
                    Some(old) => Alert {
                        revision: old.revision + 1,
                        transition: Transition::Updated,
                        severity: cause.severity(),
                        updated_at: pane.now,
                        about: About::Sensor(about),
                        ..old
                    },
                    None => {
                        self.open += 1;
                        opened(about, since, pane.now)
                    }
                };
                out.push(next.clone());
                sensor.alert = Some(next);
            }
            Judgement::Doubtful(cause) if !faulty => {
                if sensor.health != Health::Suspect(cause) {
                    sensor.health = Health::Suspect(cause);
                    sensor.since = sensor.lane.last();
                }
            }
            Judgement::Doubtful(_) => sensor.sane = None,
            Judgement::Sane if !faulty => sensor.health = Health::Ok,
            Judgement::Sane => {
                let last = sensor.lane.last();
                let since = *sensor.sane.get_or_insert(last);
                if last.since(since) < sensor.release_ms(s) {
                    return 0;
                }
                sensor.health = Health::Ok;
                sensor.sane = None;
                self.faulty.remove(&key);
                if let Some(old) = sensor.alert.take() {
                    self.open -= 1;
                    out.push(Alert {
                        revision: old.revision + 1,
                        transition: Transition::Resolved,
                        updated_at: pane.now,
                        ends_at: Some(pane.now),
                        stale: false,
                        ..old
                    });
                }
            }
        }
        0
    }
}

impl Sensor {
    fn new(m: &Measurement, segment: SegmentIndex) -> Self {
        Self {
            segment,
            lane: Lane::new(m),
            health: Health::Ok,
            since: m.time,
            sane: None,
            contradiction: None,
            records: 0,
            disbelieved: 0,
            alert: None,
        }
    }

    fn interval(&self) -> (EventTime, EventTime) {
        let end = self.lane.last();
        (end.plus_ms(-i64::from(self.lane.interval_ms())), end)
    }

    fn take(&mut self, m: &Measurement, network: &Network, s: &SensorSettings) {
        // Against probes a sensor is judged by its speeds, so they must go on to be known.
        let learn = match self.health {
            Health::Faulty(Cause::Biased | Cause::Swapped | Cause::Unit) if self.contradiction.is_some() => {
                true
            }
            Health::Faulty(_) => self.sane.is_some(),
            _ => true,
        };
        self.records += 1;
        self.disbelieved += u64::from(matches!(self.health, Health::Faulty(_)));
        self.lane.take(m, network.segment(self.segment), s, learn);
    }

    /// Silence, while other sensors were heard until `heard`.
    fn silent(&self, heard: EventTime, s: &SensorSettings) -> Option<Judgement> {
        let (gap_ms, interval_ms) = (heard.since(self.lane.last()), i64::from(self.lane.interval_ms()));
        if gap_ms >= interval_ms * i64::from(s.silent_intervals.max(1)) {
            return Some(Judgement::Fault(Cause::Silent, self.lane.last()));
        }
        let suspect =
            gap_ms * 2 >= interval_ms * i64::from(s.silent_intervals.max(1)) && gap_ms >= 2 * interval_ms;
        suspect.then_some(Judgement::Doubtful(Cause::Silent))
    }

    /// What the probes of the segment say against it, where a loop and a vehicle measure the same: no signal, no
    /// jam, enough probes.
    fn contradicted(&mut self, pane: &PaneOf<'_>, s: &SensorSettings) -> Option<Judgement> {
        let against = self.against(pane);
        self.contradiction = against.map(|cause| match self.contradiction {
            Some((before, panes)) if before == cause => (cause, panes + 1),
            _ => (cause, 1),
        });
        let (cause, panes) = self.contradiction?;
        let lasted_ms = i64::from(panes) * pane.pane_ms;
        (lasted_ms >= i64::from(s.contradiction_min) * 60_000)
            .then(|| Judgement::Fault(cause, pane.now.plus_ms(-lasted_ms)))
    }

    fn against(&self, pane: &PaneOf<'_>) -> Option<Cause> {
        let segment = pane.network.segment(self.segment);
        if segment.class > RoadClass::Secondary
            || segment.flags.has(SegmentFlags::SIGNAL_END)
            || segment.length_mm < COMPARED_MM
        {
            return None;
        }
        let sensor = u64::from(self.lane.recent_speed(pane.now)?);
        let window = &pane.flow(self.segment)?.window;
        if window.ratio_permille()? < FLOWING_PERMILLE {
            return None;
        }
        let permille = |speed: MmPerS| sensor * 1000 / u64::from(speed.max(1));
        let other = segment
            .twin
            .and_then(|twin| pane.flow(twin)?.window.speed())
            .map(permille);
        match permille(window.speed()?) {
            600..1_667 => None,
            _ if other.is_some_and(|p| (800..1_250).contains(&p)) => Some(Cause::Swapped),
            185..417 | 2_400..5_400 => Some(Cause::Unit),
            _ => Some(Cause::Biased),
        }
    }

    /// A silent sensor that speaks is well soon; one that said what was wrong must show that it is.
    fn release_ms(&self, s: &SensorSettings) -> i64 {
        match self.health {
            Health::Faulty(Cause::Silent) => {
                i64::from(self.lane.interval_ms()) * i64::from(s.silent_intervals)
            }
            _ => i64::from(s.release_min) * 60_000,
        }
    }

    fn fault(&self, name: &str, cause: Cause) -> SensorFault {
        let (count_milli, occupancy_permille, speed) = self.lane.shows();
        SensorFault {
            sensor: name.to_owned(),
            segment: self.segment,
            cause,
            interval: self.interval(),
            count_milli,
            occupancy_permille,
            speed,
            records: self.records,
        }
    }
}

fn name(names: &BTreeMap<SubjectKey, Box<str>>, key: SubjectKey) -> String {
    names
        .get(&key)
        .map_or_else(|| format!("{:016x}", key.0), |id| id.to_string())
}

fn opened(fault: SensorFault, since: EventTime, now: EventTime) -> Alert {
    Alert {
        id: AlertId::of(SENSOR_RULE, AlertType::SensorFault, &fault.sensor, since),
        revision: 1,
        kind: AlertType::SensorFault,
        transition: Transition::Opened,
        severity: fault.cause.severity(),
        starts_at: since,
        updated_at: now,
        ends_at: None,
        about: About::Sensor(fault),
        // The cause and the last record say it all.
        conditions: Vec::new(),
        stale: false,
    }
}
