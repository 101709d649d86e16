//! Alerts, and those of congestion: a link's condition over panes, with hysteresis, and the life cycle of what
//! it opens (algorithms §7.1).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::evidence::{Condition, Measure};
use super::keying::Keying;
use super::obstruction::Obstruction;
use super::sensor::SensorFault;
use super::{AlertSettings, Basis};
use crate::network::{Link, LinkIndex, Network, SegmentKey};
use crate::units::{EventTime, MmPerS};

/// Name and version of the rule; both enter the alert's identity.
pub const CONGESTION_RULE: (&str, u32) = ("congestion-default", 1);

/// Kind of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertType {
    /// A link is far below its free-flow speed.
    Congestion,
    /// Vehicles stand in the middle of a road, nobody passes, and the road beyond is free.
    IncidentSuspected,
    /// Nobody leaves a road on which vehicles stand, and the road beyond is free.
    ClosureSuspected,
    /// One vehicle id is seen in two partitions.
    SplitIdentity,
    /// A roadside sensor does not measure what passes it.
    SensorFault,
}

impl AlertType {
    /// All kinds.
    pub const ALL: [AlertType; 5] = [
        AlertType::Congestion,
        AlertType::IncidentSuspected,
        AlertType::ClosureSuspected,
        AlertType::SplitIdentity,
        AlertType::SensorFault,
    ];

    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Congestion => "congestion",
            Self::IncidentSuspected => "incident_suspected",
            Self::ClosureSuspected => "closure_suspected",
            Self::SplitIdentity => "split_identity",
            Self::SensorFault => "sensor_fault",
        }
    }
}

/// What a revision tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// It began (or began again within `reopen_min`).
    Opened,
    /// It changed.
    Updated,
    /// It is over.
    Resolved,
}

impl Transition {
    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Resolved => "resolved",
        }
    }
}

/// How bad, by the delay that a vehicle suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Below 3 minutes.
    Minor,
    /// 3 to 8 minutes.
    Moderate,
    /// 8 to 15 minutes.
    Major,
    /// Above 15 minutes.
    Critical,
}

impl Severity {
    /// All severities.
    pub const ALL: [Severity; 4] = [
        Severity::Minor,
        Severity::Moderate,
        Severity::Major,
        Severity::Critical,
    ];

    fn of(delay_ms: u64) -> Self {
        match delay_ms / 60_000 {
            0..3 => Self::Minor,
            3..8 => Self::Moderate,
            8..15 => Self::Major,
            _ => Self::Critical,
        }
    }

    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Minor => "minor",
            Self::Moderate => "moderate",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

/// 128 bits of BLAKE3 over rule, rule version, subject and onset: equal wherever the same log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AlertId(pub [u8; 16]);

impl AlertId {
    /// The id of an alert of `rule` about `subject` that began at `onset`.
    pub fn of(rule: (&str, u32), kind: AlertType, subject: &str, onset: EventTime) -> Self {
        let mut hash = blake3::Hasher::new();
        for part in [rule.0, kind.label(), subject] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(&rule.1.to_le_bytes());
        hash.update(&onset.ms().to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(id)
    }
}

impl std::fmt::Display for AlertId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What a link showed when a revision was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Speed by free-flow speed, permille.
    pub ratio_permille: u32,
    /// Space-mean speed.
    pub speed: MmPerS,
    /// Delay of one vehicle on the link.
    pub delay_ms: u64,
    /// Vehicles in the window.
    pub vehicle_count: u32,
    /// Positions in the window.
    pub sample_count: u32,
    /// Sensors with a speed.
    pub sensors: u32,
    /// 0 to 1000.
    pub confidence_permille: u32,
    /// What it rests on.
    pub basis: Basis,
    /// The window looked at.
    pub window: (EventTime, EventTime),
}

/// What an alert is about, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// Traffic on a link.
    Link {
        /// Which.
        link: LinkIndex,
        /// What it showed.
        evidence: Evidence,
    },
    /// A road on which nobody passes.
    Obstruction(Obstruction),
    /// How the records of a source are keyed.
    Keying(Keying),
    /// A roadside sensor.
    Sensor(SensorFault),
}

/// One revision of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Identity, fixed at opening.
    pub id: AlertId,
    /// Dense from 1.
    pub revision: u32,
    /// Kind.
    pub kind: AlertType,
    /// What this revision tells.
    pub transition: Transition,
    /// How bad.
    pub severity: Severity,
    /// Onset: beginning of the first pane of the run that led to opening.
    pub starts_at: EventTime,
    /// End of the pane whose closing caused this revision.
    pub updated_at: EventTime,
    /// When it was over.
    pub ends_at: Option<EventTime>,
    /// What it is about, and what it rests on.
    pub about: About,
    /// The conditions that were met, with their bounds; those of the last revision that had any.
    pub conditions: Vec<Condition>,
    /// No data for `stale_min`: held, not known to be over.
    pub stale: bool,
}

/// What one pane showed of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) estimate: Estimate,
    pub(super) evidence: Evidence,
    pub(super) fresh: bool,
}

/// A pane as the alert of one link sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaneView {
    /// End of the pane.
    pub(super) now: EventTime,
    /// What it showed of the link; `None` where nothing is known.
    pub(super) sight: Option<Sight>,
    /// Last observation of the link.
    pub(super) latest: Option<EventTime>,
    /// Whether another alert may be opened.
    pub(super) room: bool,
}

/// What is remembered of a link from pane to pane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LinkMemory {
    /// Ratios of the last panes, newest last; for the trend.
    pub(super) ratios: VecDeque<u32>,
    /// Whether the condition held, newest pane in bit 0.
    held: u32,
    /// Free panes in a row, panes without data left out.
    free: u32,
    /// The open alert, or the last resolved one while it may be reopened.
    pub(super) alert: Option<Alert>,
    /// When the alert was last told.
    told: Option<EventTime>,
}

/// Measures of the rule in panes and permille.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    open_permille: u32,
    close_permille: u32,
    open_panes: u32,
    of_panes: u32,
    close_panes: u32,
    stale_ms: i64,
    vehicles_min: u32,
    min_mm: u64,
    reopen_ms: i64,
    update_ms: i64,
    pane_ms: i64,
}

impl Rule {
    pub(super) fn new(s: &AlertSettings, pane_ms: i64) -> Self {
        let panes = |minutes: u32| (i64::from(minutes) * 60_000 / pane_ms).max(1) as u32;
        Self {
            open_permille: (s.open_ratio * 1000.0).round() as u32,
            close_permille: (s.close_ratio * 1000.0).round() as u32,
            open_panes: panes(s.open_of_min[0]),
            of_panes: panes(s.open_of_min[1]).min(32),
            close_panes: panes(s.close_min),
            stale_ms: i64::from(s.stale_min) * 60_000,
            vehicles_min: s.vehicles_min,
            min_mm: u64::from(s.min_m) * 1000,
            reopen_ms: i64::from(s.reopen_min) * 60_000,
            update_ms: i64::from(s.update_min) * 60_000,
            pane_ms,
        }
    }

    /// What opening asks, with what was found.
    fn opening(&self, sight: &Sight, held: i64, length_mm: u64) -> Vec<Condition> {
        let witnesses = i64::from(sight.evidence.vehicle_count.max(sight.evidence.sensors));
        vec![
            Condition::at_most(
                Measure::RatioUpperPermille,
                i64::from(sight.estimate.upper_permille()),
                i64::from(self.open_permille),
            ),
            Condition::at_least(Measure::PanesHeld, held, i64::from(self.open_panes)),
            Condition::at_least(Measure::Witnesses, witnesses, i64::from(self.vehicles_min)),
            Condition::at_least(Measure::LengthMm, length_mm as i64, self.min_mm as i64),
        ]
    }

    /// What resolution asks, with what was found.
    fn closing(&self, ratio_permille: u32, free: u32) -> Vec<Condition> {
        let asked = i64::from(self.close_permille);
        vec![
            Condition::at_least(Measure::RatioPermille, i64::from(ratio_permille), asked),
            Condition::at_least(Measure::PanesFree, i64::from(free), i64::from(self.close_panes)),
        ]
    }
}

impl LinkMemory {
    pub(super) fn is_open(&self) -> bool {
        self.alert
            .as_ref()
            .is_some_and(|a| a.transition != Transition::Resolved)
    }

    /// Whether nothing of this link needs to be remembered.
    pub(super) fn is_idle(&self) -> bool {
        self.alert.is_none() && self.held == 0
    }

    /// Whether panes without data change nothing until [`LinkMemory::forgotten_at`]. An idle one is dropped by the
    /// next pane.
    pub(super) fn is_still(&self) -> bool {
        let still = |a: &Alert| a.stale || a.transition == Transition::Resolved;
        self.held == 0 && self.alert.as_ref().is_some_and(still)
    }

    /// When a resolved alert can no longer be reopened and is dropped.
    pub(super) fn forgotten_at(&self, rule: &Rule) -> Option<EventTime> {
        let resolved = self.alert.as_ref().filter(|_| !self.is_open())?;
        Some(resolved.ends_at?.plus_ms(rule.reopen_ms))
    }

    /// Moves on by one pane.
    pub(super) fn step(
        &mut self,
        network: &Network,
        link: LinkIndex,
        pane: &PaneView,
        rule: &Rule,
    ) -> Option<Alert> {
        let PaneView {
            now,
            sight,
            latest,
            room,
        } = *pane;
        let fresh = sight.filter(|s| s.fresh);
        let holds = fresh.is_some_and(|s| {
            s.estimate.upper_permille() <= rule.open_permille
                && (s.evidence.vehicle_count >= rule.vehicles_min || s.evidence.sensors > 0)
        });
        self.held = (self.held << 1) | u32::from(holds);
        if let Some(s) = fresh {
            let free = s.estimate.ratio_permille() >= rule.close_permille;
            self.free = if free { self.free + 1 } else { 0 };
        }
        if self.is_open() {
            self.go_on(sight, latest, now, rule)
        } else {
            self.forget(now, rule);
            self.open(network, link, fresh, now, rule, room)
        }
    }

    /// Drops a resolved alert that can no longer be reopened.
    fn forget(&mut self, now: EventTime, rule: &Rule) {
        if self
            .alert
            .as_ref()
            .and_then(|a| a.ends_at)
            .is_some_and(|end| now.since(end) >= rule.reopen_ms)
        {
            self.alert = None;
        }
    }

    fn open(
        &mut self,
        network: &Network,
        link: LinkIndex,
        sight: Option<Sight>,
        now: EventTime,
        rule: &Rule,
        room: bool,
    ) -> Option<Alert> {
        let mask = if rule.of_panes >= 32 {
            u32::MAX
        } else {
            (1 << rule.of_panes) - 1
        };
        let run = self.held & mask;
        let sight = sight.filter(|_| run & 1 == 1 && run.count_ones() >= rule.open_panes)?;
        let Link { segments, length_mm } = &network.links()[link as usize];
        if *length_mm < rule.min_mm || !room {
            return None;
        }
        // The run began with the oldest pane of those that led to opening.
        let oldest = 32 - run.leading_zeros();
        let onset = now.plus_ms(-i64::from(oldest) * rule.pane_ms);
        let severity = Severity::of(sight.evidence.delay_ms);
        let about = About::Link {
            link,
            evidence: sight.evidence,
        };
        let held = i64::from(run.count_ones());
        let conditions = rule.opening(&sight, held, *length_mm);
        let alert = match self.alert.take() {
            Some(old) => Alert {
                revision: old.revision + 1,
                transition: Transition::Opened,
                severity,
                updated_at: now,
                ends_at: None,
                about,
                conditions,
                stale: false,
                ..old
            },
            None => Alert {
                id: AlertId::of(
                    CONGESTION_RULE,
                    AlertType::Congestion,
                    &subject(network, segments).to_string(),
                    onset,
                ),
                revision: 1,
                kind: AlertType::Congestion,
                transition: Transition::Opened,
                severity,
                starts_at: onset,
                updated_at: now,
                ends_at: None,
                about,
                conditions,
                stale: false,
            },
        };
        self.tell(alert, now)
    }

    fn go_on(
        &mut self,
        sight: Option<Sight>,
        latest: Option<EventTime>,
        now: EventTime,
        rule: &Rule,
    ) -> Option<Alert> {
        let old = self.alert.clone()?;
        let About::Link {
            link,
            evidence: before,
        } = old.about
        else {
            return None;
        };
        let mut evidence = before;
        let stale = latest.is_none_or(|l| now.since(l) >= rule.stale_ms) && sight.is_none_or(|s| !s.fresh);
        let mut next = Alert {
            revision: old.revision + 1,
            transition: Transition::Updated,
            updated_at: now,
            stale: old.stale && sight.is_none_or(|s| !s.fresh) || stale,
            ..old.clone()
        };
        if let Some(s) = sight.filter(|s| s.fresh) {
            evidence = s.evidence;
            next.about = About::Link { link, evidence };
            next.severity = Severity::of(s.evidence.delay_ms);
        }
        // Silence resolves nothing: the last word is that of somebody who drove.
        let seen = latest.is_some_and(|l| now.since(l) < rule.pane_ms);
        if self.free >= rule.close_panes && seen {
            next.transition = Transition::Resolved;
            next.ends_at = Some(now);
            next.conditions = rule.closing(evidence.ratio_permille, self.free);
            return self.tell(next, now);
        }
        let due = self.told.is_none_or(|t| now.since(t) >= rule.update_ms);
        let moved = evidence.ratio_permille.abs_diff(before.ratio_permille) >= 100;
        if next.severity != old.severity || next.stale != old.stale || (due && moved) {
            return self.tell(next, now);
        }
        None
    }

    fn tell(&mut self, alert: Alert, now: EventTime) -> Option<Alert> {
        self.alert = Some(alert.clone());
        self.told = Some(now);
        if alert.transition != Transition::Updated {
            // What led here does not count again.
            self.held = 0;
            self.free = 0;
        }
        Some(alert)
    }
}

/// The stable name of a link: that of its first segment.
pub fn subject(network: &Network, segments: &[crate::network::SegmentIndex]) -> SegmentKey {
    network.segment(segments[0]).key
}
