//! assess: from flow to states, indices and alerts.
//!
//! [`Assess`] takes every closed pane of all shards at once, links and segments in order of index: first each
//! link's own estimate, then the states of its segments, its alert, and at last what looks at many of them
//! (regions, corridors). Everything is final: nothing said here is corrected later.

mod alert;
mod estimate;
mod evidence;
mod keying;
mod level;
mod obstruction;
mod places;
mod profile;
mod sensor;
mod settings;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use alert::{
    About, Alert, AlertId, AlertType, CONGESTION_RULE, Evidence, Severity, Transition,
    subject as link_subject,
};
pub use evidence::{Bound, Condition, Measure};
pub use keying::{KEYING_RULE, Keying};
pub use level::{Basis, Level, Trend};
pub use obstruction::{OBSTRUCTION_RULE, Obstruction};
pub use places::{Corridor, CorridorTime, Places, Region, RegionIndex, evaluated};
pub use profile::{Grade, GradeKind, Index, IndexKind, Profile, Side};
pub use sensor::{Cause, Health, SENSOR_RULE, SensorFault, SensorSettings, SensorView};
pub use settings::{AlertSettings, ObstructionSettings, RegionSettings, Settings, StateSettings};
pub use state::SegmentState;

use crate::aggregate::{LOOK_BACK, LinkFlow, PaneFlow, Passage, SegmentFlow};
use crate::baseline::{Baseline, Slot};
use crate::ingest::SubjectKey;
use crate::locate::{PaneIndex, Reading, Sighting};
use crate::network::{LinkIndex, Network, SegmentFlags, SegmentIndex};
use crate::units::{EventTime, MmPerS, travel_time_ms};
use alert::{LinkMemory, PaneView, Rule, Sight};
use estimate::{Estimate, fuse, variation};
use keying::SourceMemory;
use obstruction::{Obstructions, Scene};
use sensor::{PaneOf, Watch};

/// A resolved alert's tombstone follows after this time (design, law 8).
const TOMBSTONE_MS: i64 = 24 * 3_600_000;
/// Change of travel time that is a trend, in percent.
const TREND_PERCENT: u32 = 10;

/// What one closed pane says, each list in order of id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessment {
    /// Which pane.
    pub pane: PaneIndex,
    /// States of all segments that are not unknown, and of those that became unknown.
    pub states: Vec<SegmentState>,
    /// Corridors with any coverage.
    pub corridors: Vec<CorridorTime>,
    /// Regions with any coverage.
    pub regions: Vec<RegionIndex>,
    /// Transitions of alerts.
    pub alerts: Vec<Alert>,
    /// Alerts whose tombstone is due.
    pub forgotten: Vec<AlertId>,
}

impl Assessment {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
            && self.corridors.is_empty()
            && self.regions.is_empty()
            && self.alerts.is_empty()
            && self.forgotten.is_empty()
    }
}

/// When a pane in which no shard sees anything can still change what is said or remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The next one can.
    Next,
    /// None before the first that ends then or later.
    At(EventTime),
    /// None.
    Never,
}

/// The machine. What survives in checkpoints is [`Assess::state`].
#[derive(Debug)]
pub struct Assess {
    network: Arc<Network>,
    baseline: Arc<Baseline>,
    settings: Settings,
    profile: Arc<Profile>,
    places: Arc<Places>,
    pane_ms: i64,
    window_ms: i64,
    rule: Rule,
    /// Names of the sources whose keying is watched.
    sources: Vec<String>,
    state: State,
}

/// What must survive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    segments: BTreeMap<SegmentIndex, SegmentState>,
    links: BTreeMap<LinkIndex, LinkMemory>,
    open: u32,
    obstructions: Obstructions,
    /// Resolved alerts in order of their end.
    resolved: VecDeque<(EventTime, AlertId)>,
    /// Alerts not opened for want of room.
    refused: u64,
    /// Vehicles sampled for wrong keying, by source.
    keying: BTreeMap<u16, SourceMemory>,
    /// Health of sensors.
    sensors: Watch,
}

impl Assess {
    /// A machine that knows nothing yet. `sources` are the sources with several partitions, to which
    /// [`Assess::sighted`] refers.
    pub fn new(
        network: Arc<Network>,
        baseline: Arc<Baseline>,
        settings: Settings,
        profile: Arc<Profile>,
        places: Arc<Places>,
        (pane_ms, window_ms): (i64, i64),
        sources: Vec<String>,
    ) -> Self {
        let rule = Rule::new(&settings.alert, pane_ms);
        Self {
            network,
            baseline,
            settings,
            profile,
            places,
            pane_ms,
            window_ms,
            rule,
            sources,
            state: State::default(),
        }
    }

    /// What must survive.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, state: State) {
        self.state = state;
    }

    /// States as of the last closed pane.
    pub fn segments(&self) -> &BTreeMap<SegmentIndex, SegmentState> {
        &self.state.segments
    }

    /// Open alerts: those of links in order of link, obstructions in order of segment, those of sources in order of
    /// source, of sensors in order of key.
    pub fn open_alerts(&self) -> impl Iterator<Item = &Alert> {
        let links = self.state.links.values().filter(|m| m.is_open());
        let sources = self.state.keying.values().filter_map(SourceMemory::open);
        links
            .filter_map(|m| m.alert.as_ref())
            .chain(self.state.obstructions.open())
            .chain(sources)
            .chain(self.state.sensors.open_alerts())
    }

    /// Sensors that are not believed: what they say belongs to no estimate from the next pane on.
    pub fn faulty_sensors(&self) -> &BTreeSet<SubjectKey> {
        self.state.sensors.faulty()
    }

    /// Every sensor heard of, as of the last closed pane, in order of key.
    pub fn sensors(&self) -> impl Iterator<Item = SensorView> + '_ {
        self.state.sensors.views()
    }

    /// Takes vehicles seen in `partition` of a source. All sightings of a pane must have come before that pane
    /// is closed; their order does not matter.
    pub fn sighted(&mut self, source: u16, partition: u16, sightings: impl Iterator<Item = Sighting>) {
        let memory = self.state.keying.entry(source).or_default();
        sightings.for_each(|s| memory.see(s, partition));
    }

    /// Alerts that were not opened because `open_alerts_max` was reached.
    pub fn refused_alerts(&self) -> u64 {
        self.state.refused
    }

    /// When the next pane without data is due. While a state is held or an alert not known to be stale, each is.
    pub fn due(&self) -> Due {
        let links = &self.state.links;
        if !self.state.segments.is_empty()
            || !links.values().all(LinkMemory::is_still)
            || !self.state.obstructions.is_still()
        {
            return Due::Next;
        }
        let tombstone = self.state.resolved.front().map(|(t, _)| t.plus_ms(TOMBSTONE_MS));
        let forgotten = links.values().filter_map(|m| m.forgotten_at(&self.rule));
        let stale_ms = self.stale_ms();
        let watched = self
            .state
            .keying
            .iter()
            .filter(|(source, _)| usize::from(**source) < self.sources.len());
        let keying = watched.filter_map(|(_, memory)| memory.due(stale_ms));
        let first = forgotten
            .chain(keying)
            .chain(self.state.sensors.due(stale_ms))
            .chain(tombstone)
            .min();
        first.map_or(Due::Never, Due::At)
    }

    fn stale_ms(&self) -> i64 {
        i64::from(self.settings.alert.stale_min) * 60_000
    }

    /// Takes the closed pane of every shard. `names` are the ids of sensors; one without is told by its key.
    pub fn step(
        &mut self,
        pane: PaneIndex,
        shards: Vec<PaneFlow>,
        names: &BTreeMap<SubjectKey, Box<str>>,
    ) -> Assessment {
        let end = EventTime::from_ms((pane + 1) * self.pane_ms);
        let mut segments: Vec<SegmentFlow> = Vec::new();
        let mut links: Vec<LinkFlow> = Vec::new();
        let mut readings: Vec<Reading> = Vec::new();
        let mut passages: Vec<Passage> = Vec::new();
        for mut shard in shards {
            assert_eq!(shard.pane, pane, "shards show different panes");
            segments.append(&mut shard.segments);
            links.append(&mut shard.links);
            readings.append(&mut shard.readings);
            passages.append(&mut shard.passages);
        }
        segments.sort_unstable_by_key(|f| f.segment);
        links.sort_unstable_by_key(|f| f.link);
        passages.sort_unstable_by_key(|p| p.segment);
        // Two records of one sensor for one interval stand in the order of their content.
        readings.sort_unstable_by(|a, b| {
            (a.measurement.sensor, &a.measurement).cmp(&(b.measurement.sensor, &b.measurement))
        });

        let mut out = Assessment {
            pane,
            ..Assessment::default()
        };
        out.states = self.states(&segments, &links, end);
        out.alerts = self.alerts(&links, end);
        self.obstructions(pane, &passages, end, &mut out.alerts);
        self.keying(end, &mut out.alerts);
        let seen = PaneOf {
            now: end,
            pane_ms: self.pane_ms,
            network: &self.network,
            segments: &segments,
            readings: &readings,
            names,
            stale_ms: self.stale_ms(),
        };
        let from = out.alerts.len();
        self.state.refused += self
            .state
            .sensors
            .step(&seen, &self.settings.sensor, &mut out.alerts);
        let over = |a: &&Alert| a.transition == Transition::Resolved;
        self.state
            .resolved
            .extend(out.alerts[from..].iter().filter(over).map(|a| (end, a.id)));
        out.alerts.sort_unstable_by_key(|a| (a.id, a.revision));
        self.places(&mut out, end);
        while self
            .state
            .resolved
            .front()
            .is_some_and(|(t, _)| end.since(*t) >= TOMBSTONE_MS)
        {
            out.forgotten
                .extend(self.state.resolved.pop_front().map(|(_, id)| id));
        }
        out
    }

    fn states(&mut self, segments: &[SegmentFlow], links: &[LinkFlow], end: EventTime) -> Vec<SegmentState> {
        let mut old = std::mem::take(&mut self.state.segments);
        let mut out = Vec::new();
        let network = Arc::clone(&self.network);
        let slot = self.slot(end);
        for flow in links {
            let estimate = self.link_estimate(flow, slot);
            let trend = self.trend(flow.link, estimate);
            for &i in &network.links()[flow.link as usize].segments {
                let own = segments
                    .binary_search_by_key(&i, |f| f.segment)
                    .ok()
                    .map(|k| &segments[k]);
                let before = old.remove(&i);
                if let Some(state) = self.segment(i, own, (flow, estimate), before, trend, (end, slot)) {
                    self.state.segments.insert(i, state.clone());
                    out.push(state);
                }
            }
        }
        // Whatever nobody has seen for unknown_s is unknown from here on.
        out.extend(old.into_values().map(|state| self.unknown(state.segment, end)));
        out.sort_unstable_by_key(|s| s.segment);
        out
    }

    /// Speed ratio of a link over its window, from the probes and sensors of all its segments.
    fn link_estimate(&self, flow: &LinkFlow, slot: Slot) -> Option<Estimate> {
        self.estimate(flow.link, &flow.window, flow, slot)
    }

    fn estimate(
        &self,
        link: LinkIndex,
        sums: &crate::aggregate::Sums,
        flow: &LinkFlow,
        slot: Slot,
    ) -> Option<Estimate> {
        let first = self
            .network
            .segment(self.network.links()[link as usize].segments[0]);
        let probes = sums
            .ratio_permille()
            .map(|r| (f64::from(r) / 1000.0, sums.effective_milli as f64 / 1000.0));
        let sensors = flow
            .sensor_ratio_permille
            .map(|r| (f64::from(r) / 1000.0, f64::from(flow.sensors.min(1))));
        let cv = variation(first, &self.settings.state);
        let learned = self.baseline.variation_permille(link, slot);
        Some(fuse(probes, sensors, cv, &self.settings.state)?.knowing(learned, cv))
    }

    /// The slot of the baseline that a pane ending at `end` lies in.
    fn slot(&self, end: EventTime) -> Slot {
        self.baseline.slot(end.plus_ms(-1))
    }

    fn trend(&mut self, link: LinkIndex, estimate: Option<Estimate>) -> Option<Trend> {
        let memory = self.state.links.entry(link).or_default();
        let ratio = estimate?.ratio_permille().max(1);
        memory.ratios.push_back(ratio);
        if memory.ratios.len() > 10 {
            memory.ratios.pop_front();
        }
        let before = *memory.ratios.front().filter(|_| memory.ratios.len() >= 4)?;
        // Travel time is the inverse of the ratio.
        Some(if before * 100 > ratio * (100 + TREND_PERCENT) {
            Trend::Increasing
        } else if ratio * 100 > before * (100 + TREND_PERCENT) {
            Trend::Decreasing
        } else {
            Trend::Stable
        })
    }

    fn segment(
        &self,
        i: SegmentIndex,
        own: Option<&SegmentFlow>,
        (link, link_estimate): (&LinkFlow, Option<Estimate>),
        before: Option<SegmentState>,
        trend: Option<Trend>,
        (end, slot): (EventTime, Slot),
    ) -> Option<SegmentState> {
        let s = self.network.segment(i);
        let free_flow = self.baseline.free_flow(i);
        let typical_permille = self.baseline.typical_permille(s.link, slot);
        let latest = own.map(|f| f.latest);
        let fresh_since = end.plus_ms(-i64::from(self.settings.state.live_panes) * self.pane_ms);
        let own_estimate = own.and_then(|f| {
            let probes = f
                .window
                .speed()
                .map(|v| (share(v, free_flow), f.window.effective_milli as f64 / 1000.0));
            // At a short approach to a signal a loop sees the queue, not the speed of the stretch.
            let short = s.length_mm < 150_000 && s.flags.has(SegmentFlags::SIGNAL_END);
            let sensors = f
                .sensor
                .filter(|_| !short || probes.is_none())
                .and_then(|x| Some((share(x.speed?, free_flow), 1.0)));
            let cv = variation(s, &self.settings.state);
            let learned = self.baseline.variation_permille(s.link, slot);
            Some(fuse(probes, sensors, cv, &self.settings.state)?.knowing(learned, cv))
        });
        let enough = own_estimate.is_some_and(|e| e.effective >= self.settings.state.segment_own_n);
        let live = enough && latest.is_some_and(|l| l >= fresh_since);
        // While nothing comes the last state is held: fewer and fewer old observations must not look like
        // traffic that gets better or worse.
        let silent = link.latest < fresh_since && before.as_ref().is_some_and(|b| b.level != Level::Unknown);
        let estimate = if live {
            own_estimate
        } else if silent {
            None
        } else {
            link_estimate.or(own_estimate).map(|e| e.shrunk(typical_permille))
        };
        let Some(e) = estimate else {
            // Nothing new: the last state is held until it is unknown.
            let mut held = before.filter(|b| b.level != Level::Unknown)?;
            held.window_start = end.plus_ms(-self.window_ms);
            held.window_end = end;
            held.typical = self.baseline.typical(i, slot);
            held.basis = Basis::Blended;
            held.vehicle_count = own.map_or(0, |f| f.window.vehicles);
            held.sample_count = own.map_or(0, |f| f.window.positions);
            held.trend = None;
            // Certainty fades with age, to nothing when the segment becomes unknown.
            held.confidence_permille = held.confidence_permille * 9 / 10;
            return Some(held);
        };
        let ratio_permille = e.ratio_permille();
        Some(SegmentState {
            segment: i,
            window_start: end.plus_ms(-self.window_ms),
            window_end: end,
            speed: Some(((f64::from(free_flow) * e.ratio).round() as MmPerS).max(1)),
            free_flow,
            typical: self.baseline.typical(i, slot),
            ratio_permille: Some(ratio_permille),
            vehicle_count: own.map_or(0, |f| f.window.vehicles),
            sample_count: own.map_or(0, |f| f.window.positions),
            probe_share_permille: (1000.0 * e.probe_share).round() as u32,
            // The age of what the speed rests on.
            latest: if live { latest } else { Some(link.latest) },
            confidence_permille: e.confidence_permille(),
            basis: if live { Basis::Live } else { Basis::Blended },
            level: Level::of(ratio_permille),
            grade: Some(self.profile.grade(ratio_permille)),
            trend,
        })
    }

    fn unknown(&self, i: SegmentIndex, end: EventTime) -> SegmentState {
        SegmentState {
            segment: i,
            window_start: end.plus_ms(-self.window_ms),
            window_end: end,
            speed: None,
            free_flow: self.baseline.free_flow(i),
            typical: self.baseline.typical(i, self.slot(end)),
            ratio_permille: None,
            vehicle_count: 0,
            sample_count: 0,
            probe_share_permille: 0,
            latest: None,
            confidence_permille: 0,
            basis: Basis::None,
            level: Level::Unknown,
            grade: None,
            trend: None,
        }
    }

    fn alerts(&mut self, links: &[LinkFlow], end: EventTime) -> Vec<Alert> {
        let mut out = Vec::new();
        let mut memories = std::mem::take(&mut self.state.links);
        for flow in links {
            memories.entry(flow.link).or_default();
        }
        for (&link, memory) in &mut memories {
            let flow = links
                .binary_search_by_key(&link, |f| f.link)
                .ok()
                .map(|k| &links[k]);
            let sight = flow.and_then(|f| self.sight(f, end));
            let room = self.state.open < self.settings.alert.open_alerts_max;
            let was_open = memory.is_open();
            let latest = flow.map(|f| f.latest);
            let view = PaneView {
                now: end,
                sight,
                latest,
                room,
            };
            let alert = memory.step(&self.network, link, &view, &self.rule);
            match (was_open, memory.is_open()) {
                (false, true) => {
                    self.state.open += 1;
                    // Reopened: it is not over, so its tombstone is not due either.
                    let id = memory.alert.as_ref().map(|a| a.id);
                    self.state.resolved.retain(|(_, r)| Some(*r) != id);
                }
                (true, false) => {
                    self.state.open -= 1;
                    self.state
                        .resolved
                        .extend(memory.alert.as_ref().map(|a| (end, a.id)));
                }
                _ => {}
            }
            out.extend(alert);
        }
        memories.retain(|link, m| !m.is_idle() || links.binary_search_by_key(link, |f| f.link).is_ok());
        self.state.links = memories;
        out
    }

    /// Alerts about roads on which nobody passes.
    fn obstructions(&mut self, pane: PaneIndex, passages: &[Passage], end: EventTime, out: &mut Vec<Alert>) {
        let from = out.len();
        let open = self.state.open + self.state.obstructions.open().count() as u32;
        let scene = Scene {
            network: &self.network,
            settings: &self.settings.obstruction,
            pane,
            pane_ms: self.pane_ms,
            now: end,
            stale_ms: self.stale_ms(),
            reopen_ms: i64::from(self.settings.alert.reopen_min) * 60_000,
            room: self.settings.alert.open_alerts_max.saturating_sub(open),
        };
        self.state
            .obstructions
            .step(&scene, passages, &mut self.state.refused, out);
        for alert in &out[from..] {
            match alert.transition {
                Transition::Opened => self.state.resolved.retain(|(_, r)| *r != alert.id),
                Transition::Resolved => self.state.resolved.push_back((end, alert.id)),
                Transition::Updated => {}
            }
        }
    }

    /// Alerts about the keying of sources, whose windows up to `end` are complete.
    fn keying(&mut self, end: EventTime, out: &mut Vec<Alert>) {
        let stale_ms = self.stale_ms();
        for (source, memory) in &mut self.state.keying {
            let from = out.len();
            let Some(name) = self.sources.get(usize::from(*source)) else {
                continue;
            };
            memory.step(name, end, stale_ms, out);
            let over = |a: &&Alert| a.transition == Transition::Resolved;
            self.state
                .resolved
                .extend(out[from..].iter().filter(over).map(|a| (end, a.id)));
        }
    }

    /// What a pane shows of a link to its alert: the last two minutes if they hold enough, else the window.
    fn sight(&self, flow: &LinkFlow, end: EventTime) -> Option<Sight> {
        let enough = (self.settings.state.segment_own_n * 1000.0) as u64;
        let (sums, window_ms) = if flow.recent.effective_milli >= enough {
            (&flow.recent, self.window_ms.min(LOOK_BACK * self.pane_ms))
        } else {
            (&flow.window, self.window_ms)
        };
        let estimate = self.estimate(flow.link, sums, flow, self.slot(end))?;
        let link = &self.network.links()[flow.link as usize];
        let free_ms: u64 = link
            .segments
            .iter()
            .filter_map(|&i| {
                let s = self.network.segment(i);
                travel_time_ms(u64::from(s.length_mm), self.baseline.free_flow(i))
            })
            .sum();
        let now_ms = (free_ms as f64 / estimate.ratio.max(0.001)).round() as u64;
        let fresh_since = end.plus_ms(-i64::from(self.settings.state.live_panes) * self.pane_ms);
        let fresh = flow.latest >= fresh_since;
        let live = fresh && estimate.effective >= self.settings.state.segment_own_n;
        let evidence = Evidence {
            ratio_permille: estimate.ratio_permille(),
            speed: crate::units::speed_mm_s(link.length_mm, now_ms).unwrap_or(0),
            delay_ms: now_ms.saturating_sub(free_ms),
            vehicle_count: sums.vehicles,
            sample_count: sums.positions,
            sensors: flow.sensors,
            confidence_permille: estimate.confidence_permille(),
            basis: if live { Basis::Live } else { Basis::Blended },
            window: (end.plus_ms(-window_ms), end),
        };
        Some(Sight {
            estimate,
            evidence,
            fresh,
        })
    }

    fn places(&self, out: &mut Assessment, end: EventTime) {
        let state = |i: SegmentIndex| self.state.segments.get(&i);
        for (n, region) in self.places.regions.iter().enumerate() {
            let least = self.settings.region.coverage_min;
            let index = places::region_index(
                &self.network,
                (n as u32, region),
                state,
                &self.profile,
                least,
                end,
            );
            if index.coverage_permille > 0 {
                out.regions.push(index);
            }
        }
        for (n, corridor) in self.places.corridors.iter().enumerate() {
            let time = places::corridor_time(
                &self.network,
                (n as u32, corridor),
                state,
                (&self.baseline, self.slot(end)),
                end,
            );
            if time.travel_time_ms.is_some() {
                out.corridors.push(time);
            }
        }
    }
}

fn share(speed: MmPerS, free_flow: MmPerS) -> f64 {
    f64::from(speed) / f64::from(free_flow.max(1))
}
