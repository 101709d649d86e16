use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use super::pane::Cell;
use super::passage::Passages;
use super::sensor::Standing;
use super::turns::{TurnFlow, Turns};
use super::window::{Sums, Window};
use super::{LinkFlow, PaneFlow, SegmentFlow, Settings, StandingTimes};
use crate::baseline::{Baseline, Travel};
use crate::ingest::SubjectKey;
use crate::locate::{Contribution, Occurrence, PaneIndex, Passage, Reading};
use crate::network::{LinkIndex, Network, SegmentIndex};
use crate::units::{EventTime, travel_time_ms};

/// Panes that conditions of alerts look at first (algorithms §7.1, *Look-back*).
pub const LOOK_BACK: i64 = 4;

/// The machine of one shard. What survives in checkpoints is [`Aggregate::state`].
#[derive(Debug)]
pub struct Aggregate {
    network: Arc<Network>,
    settings: Settings,
    baseline: Arc<Baseline>,
    pane_ms: i64,
    window_panes: i64,
    unknown_ms: i64,
    state: State,
}

/// What must survive of a shard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    open: BTreeMap<PaneIndex, HashMap<SegmentIndex, Cell, FixedState>>,
    windows: BTreeMap<SegmentIndex, Window>,
    sensors: Standing,
    turns: Turns,
    times: StandingTimes,
    passages: Passages,
    closed: Option<PaneIndex>,
}

impl Aggregate {
    /// A shard without data.
    pub fn new(settings: &Settings, network: Arc<Network>, baseline: Arc<Baseline>) -> Self {
        Self {
            network,
            settings: settings.clone(),
            baseline,
            pane_ms: i64::from(settings.pane_s) * 1000,
            window_panes: i64::from(settings.window_s.div_ceil(settings.pane_s)),
            unknown_ms: i64::from(settings.unknown_s) * 1000,
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

    /// The oldest pane with something in it.
    pub fn first_open(&self) -> Option<PaneIndex> {
        let cells = self.state.open.first_key_value().map(|(p, _)| *p);
        let others = [self.state.sensors.first_pane(), self.state.passages.first_pane()];
        cells.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Number of open panes with contributions.
    pub fn open_panes(&self) -> usize {
        self.state.open.len()
    }

    /// Whether no window sees anything any more. Blocks of turns have ended before: they are not longer than
    /// `unknown_s`.
    pub fn quiet(&self) -> bool {
        self.state.windows.is_empty()
    }

    /// Time that vehicles stood so far, by what it was.
    pub fn standing_times(&self) -> &StandingTimes {
        &self.state.times
    }

    /// Takes a contribution to an open pane.
    ///
    /// # Panics
    /// If the pane has been closed: locate broke its promise.
    pub fn contribute(&mut self, c: &Contribution) {
        assert!(
            self.state.closed.is_none_or(|p| c.pane > p),
            "a contribution to the closed pane {}",
            c.pane
        );
        self.state
            .open
            .entry(c.pane)
            .or_default()
            .entry(c.segment)
            .or_default()
            .add(c);
    }

    /// Takes a segment passed whole, left in an open pane.
    ///
    /// # Panics
    /// If the pane has been closed: locate broke its promise.
    pub fn pass(&mut self, passage: &Passage) {
        assert!(
            self.state.closed.is_none_or(|p| passage.pane > p),
            "a passage in the closed pane {}",
            passage.pane
        );
        let segment = self.network.segment(passage.segment);
        let free_ms = travel_time_ms(u64::from(segment.length_mm), segment.free_flow).unwrap_or(0);
        if self.network.successors(passage.segment).len() > 1 {
            let block_ms = i64::from(self.settings.block_s) * 1000;
            let begin = (passage.pane * self.pane_ms).div_euclid(block_ms) * block_ms;
            self.state.turns.add(EventTime::from_ms(begin), passage, free_ms);
        }
        // Half the free-flow speed takes twice the time.
        if f64::from(passage.time_ms) * self.settings.others_ratio <= free_ms as f64 {
            let cells = self.state.open.entry(passage.pane).or_default();
            let cell = cells.entry(passage.segment).or_default();
            cell.passed
                .add(passage.entered, self.settings.others_pass as usize);
        }
    }

    /// Takes a sensor interval of an open pane.
    ///
    /// # Panics
    /// If the pane has been closed.
    pub fn read(&mut self, reading: Reading) {
        assert!(
            self.state.closed.is_none_or(|p| reading.pane > p),
            "a reading of a closed pane"
        );
        self.state.sensors.push(reading);
    }

    /// Takes what a vehicle did in an open pane.
    ///
    /// # Panics
    /// If the pane has been closed.
    pub fn observe(&mut self, o: &Occurrence) {
        assert!(
            self.state.closed.is_none_or(|p| o.pane > p),
            "an occurrence in a closed pane"
        );
        self.state.passages.add(o);
    }

    /// Closes `pane` and shows it. What `disbelieved` sensors say is in no flow.
    ///
    /// # Panics
    /// If panes are not closed in order, each once.
    pub fn close(&mut self, pane: PaneIndex, disbelieved: &BTreeSet<SubjectKey>) -> PaneFlow {
        assert!(
            self.state.closed.is_none_or(|p| pane > p),
            "pane {pane} closed twice"
        );
        self.state.closed = Some(pane);
        let end = EventTime::from_ms((pane + 1) * self.pane_ms);
        if let Some(cells) = self.state.open.remove(&pane) {
            let begin = EventTime::from_ms(pane * self.pane_ms);
            let most = self.settings.others_pass as usize;
            for (segment, cell) in cells {
                let window = self.state.windows.get_mut(&segment);
                let mut passed = cell.passed.clone();
                if let Some(window) = &window {
                    passed.join(&window.passed, most);
                }
                let sums = cell.close(begin, &passed, &self.settings, &mut self.state.times);
                // Without traffic nothing was seen of the segment.
                let window = match (window, &sums) {
                    (Some(window), _) => window,
                    (None, Some(_)) => self.state.windows.entry(segment).or_insert(Window::new(begin)),
                    (None, None) => continue,
                };
                window.passed = passed;
                if let Some(sums) = sums {
                    window.push(pane, self.pane_ms, sums);
                }
            }
        }
        let readings = self.state.sensors.close(pane, end, disbelieved);
        let standing: Vec<SegmentIndex> = self.state.sensors.segments().collect();
        for segment in standing {
            if let Some(flow) = self.state.sensors.flow(segment) {
                let window = self
                    .state
                    .windows
                    .entry(segment)
                    .or_insert_with(|| Window::new(flow.latest));
                window.latest = window.latest.max(flow.latest);
            }
        }
        let (unknown, length) = (self.unknown_ms, self.window_panes);
        self.state.windows.retain(|_, window| {
            window.slide(pane, length);
            end.since(window.latest) < unknown
        });
        let turns = self
            .state
            .turns
            .close(end, i64::from(self.settings.block_s) * 1000);
        let begin = EventTime::from_ms(pane * self.pane_ms);
        let passages = self.state.passages.close(pane, begin);
        PaneFlow {
            readings,
            passages,
            ..self.show(pane, turns)
        }
    }

    /// What was driven in the pane that was closed last, in order of segment: what baselines are learned from.
    pub fn travel(&self) -> impl Iterator<Item = Travel> + '_ {
        let closed = self.state.closed;
        self.state.windows.iter().filter_map(move |(&segment, window)| {
            let (pane, sums) = window.last().filter(|(pane, _)| Some(*pane) == closed)?;
            Some(Travel {
                begin: EventTime::from_ms(pane * self.pane_ms),
                segment,
                weighted_mm: sums.weighted_mm,
                weighted_ms: sums.weighted_ms,
                weight: sums.weight,
            })
        })
    }

    fn show(&self, pane: PaneIndex, turns: Vec<TurnFlow>) -> PaneFlow {
        let mut flow = PaneFlow {
            pane,
            turns,
            ..PaneFlow::default()
        };
        let mut links = BTreeSet::new();
        for (&segment, window) in &self.state.windows {
            let s = self.network.segment(segment);
            links.insert(s.link);
            flow.segments.push(SegmentFlow {
                segment,
                window: window.sums(pane, self.window_panes, s.class, self.baseline.free_flow(segment)),
                latest: window.latest,
                sensor: self.state.sensors.flow(segment),
            });
        }
        flow.links = links
            .into_iter()
            .filter_map(|link| self.link(link, pane, &flow.segments))
            .collect();
        flow
    }

    fn link(&self, link: LinkIndex, pane: PaneIndex, segments: &[SegmentFlow]) -> Option<LinkFlow> {
        let (mut window, mut recent) = (Sums::default(), Sums::default());
        let mut latest: Option<EventTime> = None;
        let (mut sensors, mut ratios, mut speaking) = (0, 0_u64, 0);
        for &segment in &self.network.links()[link as usize].segments {
            let Ok(i) = segments.binary_search_by_key(&segment, |f| f.segment) else {
                continue;
            };
            let (flow, s) = (&segments[i], self.network.segment(segment));
            window.join(&flow.window);
            let free_flow = self.baseline.free_flow(segment);
            if let Some(w) = self.state.windows.get(&segment) {
                recent.join(&w.sums(pane, LOOK_BACK, s.class, free_flow));
            }
            latest = latest.max(Some(flow.latest));
            if let Some((speed, n)) = flow.sensor.and_then(|f| Some((f.speed?, f.sensors))) {
                ratios += u64::from(speed) * 1000 / u64::from(free_flow.max(1));
                sensors += n;
                speaking += 1;
            }
        }
        Some(LinkFlow {
            link,
            window,
            recent,
            latest: latest?,
            sensor_ratio_permille: ratios.checked_div(speaking).map(|r| r as u32),
            sensors,
        })
    }
}
