//! Obstructions: a road on which nobody passes any more, although the road beyond is free.
//!
//! Slow traffic alone says little: at a red light and in a jam that begins farther on, vehicles stand too. What
//! tells an accident from both is that passages *end* at one place: vehicles stand, far more of them than usual
//! should have driven on by now, and nobody stands where they would have gone. Whether the first of them stands in
//! the middle of the stretch or at its end decides what is suspected: an incident, or that the road is closed
//! (algorithms §7.4 and §7.5, from the run's own history, without a baseline).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::evidence::{Condition, Measure};
use super::{About, Alert, AlertId, AlertType, ObstructionSettings, Severity, Transition};
use crate::aggregate::{Passage, Standing};
use crate::locate::PaneIndex;
use crate::network::{Network, RoadClass, SegmentIndex};
use crate::units::EventTime;

/// Name and version of the rule; both enter the alert's identity.
pub const OBSTRUCTION_RULE: (&str, u32) = ("no-passage", 1);

/// Past in which usual passages are counted, before the last one.
const USUAL_MS: i64 = 900_000;
/// Least time over which usual passages are spread: a platoon is no rate.
const USUAL_MIN_MS: i64 = 300_000;
/// Past before the last passage in which it is asked whether traffic flowed, without its last minute, in which the
/// obstruction itself may have begun.
const FLOWED_MS: (i64, i64) = (600_000, 60_000);
/// Panes' worth of time that is kept of a segment.
const KEPT_MS: i64 = 1_800_000;
/// An obstruction that nobody saw within this time of the last passage is not found any more: what was usual then
/// need not be usual now.
const FOUND_WITHIN_MS: i64 = 900_000;
/// Panes of the last so many in which the score must be reached.
const HELD: (u32, u32) = (2, 3);
/// Passages within [`AGAIN_MS`] that end an alert.
const AGAIN: u32 = 2;
/// See [`AGAIN`].
const AGAIN_MS: i64 = 120_000;
/// Time since the last passage from which an obstruction is critical.
const CRITICAL_MS: i64 = 900_000;

/// What a pane showed of a segment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    pane: PaneIndex,
    passed: u32,
    span: Option<(EventTime, EventTime)>,
    standing: u32,
}

/// What is remembered of a segment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Memory {
    seen: VecDeque<Seen>,
    /// Whether the score was reached, newest pane in bit 0.
    held: u32,
    /// The open alert, or the last one while it may be reopened.
    alert: Option<Alert>,
}

impl Memory {
    fn open(&self) -> Option<&Alert> {
        self.alert
            .as_ref()
            .filter(|a| a.transition != Transition::Resolved)
    }
}

/// An obstruction as a revision tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstruction {
    /// The segment that nobody leaves, and those before it on the same link on which vehicles stand, in order of
    /// travel.
    pub segments: Vec<SegmentIndex>,
    /// Place of the first vehicle that stands, from the beginning of the last segment, in mm.
    pub head_mm: u32,
    /// Place of the last one, from the beginning of the first segment, in mm.
    pub tail_mm: u32,
    /// Vehicles that stand there.
    pub standing: u32,
    /// For how long the longest has stood, in ms.
    pub stood_ms: u32,
    /// When the last vehicle passed.
    pub last_passage: EventTime,
    /// Passages before, that made them usual.
    pub usual: u32,
    /// The time in which these passed, in ms.
    pub usual_ms: u64,
    /// Passages that should have followed since, in thousandths.
    pub missing_milli: u64,
    /// Points reached, in tenths.
    pub score_tenths: u32,
    /// End of the pane looked at.
    pub at: EventTime,
}

/// What survives of the obstructions of all segments.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Obstructions {
    segments: BTreeMap<SegmentIndex, Memory>,
    /// Those that are suspect or under an open alert: to be looked at even if nothing stands there.
    watched: BTreeSet<SegmentIndex>,
    /// What stood in the pane before.
    before: BTreeMap<SegmentIndex, Vec<Standing>>,
}

/// What is needed to judge besides memory.
pub(super) struct Scene<'a> {
    pub(super) network: &'a Network,
    pub(super) settings: &'a ObstructionSettings,
    pub(super) pane: PaneIndex,
    pub(super) pane_ms: i64,
    /// End of the pane.
    pub(super) now: EventTime,
    /// Silence after which an open alert is stale.
    pub(super) stale_ms: i64,
    /// Time in which the same place reopens the same alert.
    pub(super) reopen_ms: i64,
    /// Alerts that may still be opened.
    pub(super) room: u32,
}

impl Obstructions {
    /// Open alerts in order of segment.
    pub(super) fn open(&self) -> impl Iterator<Item = &Alert> {
        self.watched.iter().filter_map(|s| self.segments.get(s)?.open())
    }

    /// Whether panes without data change nothing.
    pub(super) fn is_still(&self) -> bool {
        let still = |m: &Memory| m.held == 0 && m.open().is_none_or(|a| a.stale);
        self.before.is_empty()
            && self
                .watched
                .iter()
                .filter_map(|s| self.segments.get(s))
                .all(still)
    }

    /// Takes what passed and stood in a pane, and judges. `refused` counts alerts for which there was no room.
    pub(super) fn step(
        &mut self,
        scene: &Scene,
        passages: &[Passage],
        refused: &mut u64,
        out: &mut Vec<Alert>,
    ) {
        for p in passages {
            let memory = self.segments.entry(p.segment).or_default();
            memory.seen.push_back(Seen {
                pane: scene.pane,
                passed: p.passed,
                span: p.span,
                standing: p.standing.len() as u32,
            });
        }
        let kept = scene.pane - KEPT_MS / scene.pane_ms;
        self.segments.retain(|_, m| {
            while m.seen.front().is_some_and(|s| s.pane < kept) {
                m.seen.pop_front();
            }
            let reopens = m
                .alert
                .as_ref()
                .is_some_and(|a| a.ends_at.is_none_or(|end| scene.now.since(end) < scene.reopen_ms));
            if !reopens {
                m.alert = None;
            }
            reopens || !m.seen.is_empty()
        });
        let standing: BTreeMap<SegmentIndex, &[Standing]> = passages
            .iter()
            .filter(|p| !p.standing.is_empty())
            .map(|p| (p.segment, &p.standing[..]))
            .collect();
        let mut room = scene.room;
        let looked_at: BTreeSet<SegmentIndex> = standing.keys().chain(&self.watched).copied().collect();
        for segment in looked_at {
            let here = standing.get(&segment).copied().unwrap_or(&[]);
            let found = self.judge(scene, segment, here, &standing);
            let blocked = found.is_some() && self.queues_at_another(scene, segment);
            let Some(memory) = self.segments.get_mut(&segment) else {
                continue;
            };
            let reached = found.filter(|o| o.score_tenths >= asked_tenths(o, scene));
            memory.held = ((memory.held << 1) | u32::from(reached.is_some())) & ((1 << HELD.1) - 1);
            if memory.open().is_some() {
                out.extend(go_on(memory, scene, reached));
            } else if memory.held.count_ones() >= HELD.0
                && !blocked
                && let Some(obstruction) = reached
            {
                if room > 0 {
                    room -= 1;
                    out.push(open(memory, scene, segment, obstruction));
                } else {
                    *refused += 1;
                }
            }
            if memory.held != 0 || memory.open().is_some() {
                self.watched.insert(segment);
            } else {
                self.watched.remove(&segment);
            }
        }
        self.before = standing.into_iter().map(|(s, v)| (s, v.to_vec())).collect();
    }

    /// What the pane shows of the segment, `None` unless vehicles stand there, nobody passes, and nobody stands
    /// beyond.
    fn judge(
        &self,
        scene: &Scene,
        segment: SegmentIndex,
        here: &[Standing],
        standing: &BTreeMap<SegmentIndex, &[Standing]>,
    ) -> Option<Obstruction> {
        let s = scene.settings;
        let long = |x: &&Standing| x.for_ms >= s.standing_s * 1000;
        let waiting: Vec<&Standing> = here.iter().filter(long).collect();
        let road = scene.network.segment(segment);
        if waiting.is_empty() || road.class >= RoadClass::Residential {
            return None;
        }
        let seen = &self.segments.get(&segment)?.seen;
        let usual = Usual::of(seen, scene.pane_ms)?;
        let silence = scene.now.since(usual.last);
        if silence < i64::from(s.silence_s) * 1000
            || silence > FOUND_WITHIN_MS
            || usual.passed < s.passages_min
            // Longer breaks than usual by half.
            || 2 * silence < 3 * usual.longest_gap_ms
            || !self.is_free_beyond(scene, segment, standing)
        {
            return None;
        }
        let head_mm = waiting.iter().map(|x| x.offset_mm).max()?;
        let missing_milli = u64::from(usual.passed - 1) * silence.unsigned_abs() * 1000 / usual.over_ms;
        let mut obstruction = Obstruction {
            segments: vec![segment],
            head_mm,
            tail_mm: here.iter().map(|x| x.offset_mm).min()?,
            standing: here.len() as u32,
            stood_ms: waiting.iter().map(|x| x.for_ms).max()?,
            last_passage: usual.last,
            usual: usual.passed,
            usual_ms: usual.over_ms,
            missing_milli,
            score_tenths: 0,
            at: scene.now,
        };
        let rest_mm = road.length_mm.saturating_sub(head_mm);
        obstruction.score_tenths = score(missing_milli, rest_mm, &usual, silence);
        // Back along the link as far as vehicles stand.
        let link = &scene.network.links()[road.link as usize].segments;
        let at = link.iter().position(|&x| x == segment)?;
        for &before in link[..at].iter().rev() {
            let Some(others) = standing.get(&before) else {
                break;
            };
            obstruction.segments.insert(0, before);
            obstruction.standing += others.len() as u32;
            obstruction.tail_mm = others.iter().map(|x| x.offset_mm).min()?;
        }
        (obstruction.standing >= s.vehicles_min).then_some(obstruction)
    }

    /// Whether nobody stands, or stood a pane ago, in the first metres beyond the segment.
    fn is_free_beyond(
        &self,
        scene: &Scene,
        segment: SegmentIndex,
        standing: &BTreeMap<SegmentIndex, &[Standing]>,
    ) -> bool {
        let reach = scene.settings.beyond_m * 1000;
        beyond(scene.network, segment, reach).all(|(next, from_mm)| {
            let near = |x: &Standing| from_mm + x.offset_mm < reach;
            let now = standing.get(&next).is_some_and(|all| all.iter().any(near));
            let then = self.before.get(&next).is_some_and(|all| all.iter().any(near));
            !now && !then
        })
    }

    /// Whether the segment lies in the queue of an obstruction that is known.
    fn queues_at_another(&self, scene: &Scene, segment: SegmentIndex) -> bool {
        let known = |(next, _)| self.segments.get(&next).is_some_and(|m| m.open().is_some());
        beyond(scene.network, segment, 2 * scene.settings.beyond_m * 1000).any(known)
    }
}

/// Segments that begin within `reach_mm` after the end of a segment, with the distance to them, nearest first.
fn beyond(
    network: &Network,
    segment: SegmentIndex,
    reach_mm: u32,
) -> impl Iterator<Item = (SegmentIndex, u32)> {
    let mut known: BTreeMap<SegmentIndex, u32> = BTreeMap::new();
    let mut front: BTreeSet<(u32, SegmentIndex, SegmentIndex)> = [(0, segment, segment)].into();
    let mut reached = Vec::new();
    while let Some((from_mm, _, at)) = front.pop_first() {
        let twin = network.segment(at).twin;
        for &next in network.successors(at) {
            if Some(next) == twin || network.turn_banned(at, next) || known.contains_key(&next) {
                continue;
            }
            known.insert(next, from_mm);
            reached.push((next, from_mm));
            let end_mm = from_mm.saturating_add(network.segment(next).length_mm);
            if end_mm < reach_mm {
                front.insert((end_mm, at, next));
            }
        }
    }
    reached.into_iter()
}

/// What was usual before nobody passed any more.
struct Usual {
    passed: u32,
    over_ms: u64,
    longest_gap_ms: i64,
    last: EventTime,
    /// Time spent standing in the ten minutes before, by passage.
    stood_ms: i64,
}

impl Usual {
    fn of(seen: &VecDeque<Seen>, pane_ms: i64) -> Option<Self> {
        let last = seen.iter().rev().find_map(|s| Some(s.span?.1))?;
        let since = last.plus_ms(-USUAL_MS);
        let spans = seen
            .iter()
            .filter_map(|s| Some((s.passed, s.span?)))
            .filter(|(_, span)| span.1 >= since);
        let (mut passed, mut longest_gap_ms, mut before) = (0, 0, None::<EventTime>);
        let mut first = last;
        for (n, (begin, end)) in spans {
            match before {
                None => first = begin,
                Some(t) => longest_gap_ms = longest_gap_ms.max(begin.since(t)),
            }
            (passed, before) = (passed + n, Some(end));
        }
        let (mut stood, mut among) = (0, 0);
        for s in seen {
            let begin = EventTime::from_ms(s.pane * pane_ms);
            let ago = last.since(begin);
            if (FLOWED_MS.1..FLOWED_MS.0).contains(&ago) {
                stood += i64::from(s.standing) * pane_ms;
            }
            if (0..FLOWED_MS.0).contains(&ago) {
                among += i64::from(s.passed);
            }
        }
        Some(Self {
            passed,
            over_ms: last.since(first).max(USUAL_MIN_MS).unsigned_abs(),
            longest_gap_ms,
            last,
            stood_ms: stood / among.max(1),
        })
    }
}

/// Points in tenths: each sign for what it is worth.
fn score(missing_milli: u64, rest_mm: u32, usual: &Usual, silence_ms: i64) -> u32 {
    let worth = [
        // Passages that did not come. As a Poisson count, 9.2 missing ones have a chance of 1 in 10,000.
        (missing_milli >= 4_000, 10),
        (missing_milli >= 5_500, 5),
        (missing_milli >= 9_200, 10),
        (missing_milli >= 15_000, 10),
        // The first vehicle stands before the end: at the end it may wait for somebody to let it go.
        (rest_mm >= 25_000, 10),
        (rest_mm >= 50_000, 5),
        // It did not come gradually.
        (usual.stood_ms <= 10_000, 5),
        (silence_ms >= 2 * usual.longest_gap_ms, 5),
    ];
    worth.iter().filter(|w| w.0).map(|w| w.1).sum()
}

fn last_seen(memory: &Memory, alert: &Alert) -> EventTime {
    let about = match &alert.about {
        About::Obstruction(o) => o.at,
        _ => alert.updated_at,
    };
    let passed = memory.seen.iter().rev().find_map(|s| Some(s.span?.1));
    passed.map_or(about, |p| p.max(about))
}

/// A first vehicle at the end of a road may wait to be let go; in the middle it has no such reason.
fn kind(o: &Obstruction, scene: &Scene) -> AlertType {
    let last = o.segments[o.segments.len() - 1];
    let rest_mm = scene.network.segment(last).length_mm.saturating_sub(o.head_mm);
    if rest_mm >= scene.settings.stop_line_m * 1000 {
        AlertType::IncidentSuspected
    } else {
        AlertType::ClosureSuspected
    }
}

/// Points that open an alert, in tenths.
fn asked_tenths(o: &Obstruction, scene: &Scene) -> u32 {
    let score = match kind(o, scene) {
        AlertType::ClosureSuspected => scene.settings.closure_score,
        _ => scene.settings.incident_score,
    };
    (score * 10.0).round() as u32
}

fn severity(obstruction: &Obstruction) -> Severity {
    if obstruction.at.since(obstruction.last_passage) >= CRITICAL_MS {
        Severity::Critical
    } else {
        Severity::Major
    }
}

/// What the rule asks, with what was found.
fn conditions(o: &Obstruction, scene: &Scene) -> Vec<Condition> {
    let settings = scene.settings;
    vec![
        Condition::at_least(
            Measure::VehiclesStanding,
            i64::from(o.standing),
            i64::from(settings.vehicles_min),
        ),
        Condition::at_least(
            Measure::WithoutPassageMs,
            o.at.since(o.last_passage),
            i64::from(settings.silence_s) * 1000,
        ),
        Condition::at_least(
            Measure::PassagesBefore,
            i64::from(o.usual),
            i64::from(settings.passages_min),
        ),
        Condition::at_least(
            Measure::ScoreTenths,
            i64::from(o.score_tenths),
            i64::from(asked_tenths(o, scene)),
        ),
    ]
}

fn open(memory: &mut Memory, scene: &Scene, segment: SegmentIndex, o: Obstruction) -> Alert {
    let road = scene.network.segment(segment);
    let kind = kind(&o, scene);
    let again = memory.alert.take();
    let (id, revision, kind, starts_at) = match again {
        Some(old) => (old.id, old.revision + 1, old.kind, old.starts_at),
        None => {
            let onset = o.last_passage;
            let id = AlertId::of(OBSTRUCTION_RULE, kind, &road.key.to_string(), onset);
            (id, 1, kind, onset)
        }
    };
    let alert = Alert {
        id,
        revision,
        kind,
        transition: Transition::Opened,
        severity: severity(&o),
        starts_at,
        updated_at: scene.now,
        ends_at: None,
        conditions: conditions(&o, scene),
        about: About::Obstruction(o),
        stale: false,
    };
    memory.alert = Some(alert.clone());
    memory.held = 0;
    alert
}

/// The next revision of an open alert, if there is something to tell.
fn go_on(memory: &mut Memory, scene: &Scene, found: Option<Obstruction>) -> Option<Alert> {
    let old = memory.open()?.clone();
    let since = scene.now.plus_ms(-AGAIN_MS);
    let again: u32 = memory
        .seen
        .iter()
        .filter(|s| s.span.is_some_and(|(first, _)| first >= since))
        .map(|s| s.passed)
        .sum();
    let over = again >= AGAIN;
    let stale = scene.now.since(last_seen(memory, &old)) >= scene.stale_ms;
    let mut next = Alert {
        revision: old.revision + 1,
        transition: if over {
            Transition::Resolved
        } else {
            Transition::Updated
        },
        updated_at: scene.now,
        ends_at: over.then_some(scene.now),
        stale: stale && !over,
        ..old.clone()
    };
    if let Some(o) = found {
        next.severity = severity(&o);
        next.conditions = conditions(&o, scene);
        next.about = About::Obstruction(o);
    }
    if over {
        next.conditions = vec![Condition::at_least(
            Measure::PassagesAgain,
            i64::from(again),
            i64::from(AGAIN),
        )];
    }
    if over || next.stale != old.stale || next.severity != old.severity {
        memory.alert = Some(next.clone());
        return Some(next);
    }
    // Not worth a revision; but what was last seen decides when it is stale.
    if let Some(open) = &mut memory.alert {
        open.about = next.about;
    }
    None
}
