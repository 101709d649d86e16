//! Regions and corridors: configured sets of segments.

use serde::{Deserialize, Serialize};

use super::{Basis, Level, Profile, SegmentState};
use crate::baseline::{Baseline, Slot};
use crate::network::{Network, RoadClass, SegmentFlags, SegmentIndex};
use crate::units::{EventTime, MmPerS, speed_mm_s, travel_time_ms};

/// An area with an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Id in messages.
    pub id: String,
    /// Its segments, in order of index.
    pub segments: Vec<SegmentIndex>,
}

/// A route whose travel time is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corridor {
    /// Id in messages.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Its segments in order of travel.
    pub segments: Vec<SegmentIndex>,
}

/// All regions and corridors, each in order of id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Regions.
    pub regions: Vec<Region>,
    /// Corridors.
    pub corridors: Vec<Corridor>,
}

impl Places {
    /// One region `city`: every road of the evaluated classes, tertiary and above.
    pub fn whole_city(network: &Network) -> Self {
        let segments = (0..network.segments().len() as SegmentIndex)
            .filter(|&i| evaluated(network, i))
            .collect();
        Self {
            regions: vec![Region {
                id: "city".to_owned(),
                segments,
            }],
            corridors: Vec::new(),
        }
    }
}

/// Whether a segment enters indices: open to cars, tertiary or above.
pub fn evaluated(network: &Network, i: SegmentIndex) -> bool {
    let s = network.segment(i);
    s.class <= RoadClass::TertiaryLink
        && !s.flags.has(SegmentFlags::BUS_ONLY)
        && !s.flags.has(SegmentFlags::RESTRICTED)
}

/// Index of a region at the close of a pane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionIndex {
    /// Which region, by place in [`Places::regions`].
    pub region: u32,
    /// End of the pane.
    pub time: EventTime,
    /// Index 0 to 10 in hundredths; `None` below the least coverage.
    pub index_centi: Option<u32>,
    /// Travel time index (≥ 1) in permille.
    pub tti_permille: Option<u32>,
    /// Space-mean speed over the covered length.
    pub mean_speed: Option<MmPerS>,
    /// Length in metres by [`Level`], in the order of [`Level::ALL`].
    pub length_m: [u64; 7],
    /// Share of the length with a live or blended state, in permille.
    pub coverage_permille: u32,
}

/// Travel time of a corridor at the close of a pane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorridorTime {
    /// Which corridor, by place in [`Places::corridors`].
    pub corridor: u32,
    /// End of the pane.
    pub time: EventTime,
    /// Sum of the travel times of its segments now, the typical one where a segment has no state; `None`
    /// where nothing is covered.
    pub travel_time_ms: Option<u64>,
    /// The same at free flow.
    pub free_flow_ms: u64,
    /// The same at typical speed.
    pub typical_ms: u64,
    /// Its length in mm.
    pub length_mm: u64,
    /// Share of the length with a live or blended state, in permille.
    pub coverage_permille: u32,
    /// Mean confidence by length, in permille.
    pub confidence_permille: u32,
}

fn permille(part: u64, whole: u64) -> u32 {
    (part * 1000).checked_div(whole).unwrap_or(0) as u32
}

/// The state of a segment if it tells something of the present.
fn covering<'s>(
    state: impl Fn(SegmentIndex) -> Option<&'s SegmentState>,
    i: SegmentIndex,
) -> Option<(&'s SegmentState, MmPerS)> {
    let state = state(i)?;
    let speed = state.speed.filter(|v| *v > 0)?;
    matches!(state.basis, Basis::Live | Basis::Blended).then_some((state, speed))
}

pub(super) fn region_index<'s>(
    network: &Network,
    (number, region): (u32, &Region),
    state: impl Fn(SegmentIndex) -> Option<&'s SegmentState> + Copy,
    profile: &Profile,
    coverage_min: f64,
    time: EventTime,
) -> RegionIndex {
    let mut length_mm = [0_u64; 7];
    let (mut whole, mut covered, mut now_ms, mut free_mm) = (0_u64, 0_u64, 0_u64, 0_u64);
    for &i in &region.segments {
        let length = u64::from(network.segment(i).length_mm);
        whole += length;
        let level = state(i).map_or(Level::Unknown, |s| s.level);
        length_mm[level as usize] += length;
        if let Some((s, speed)) = covering(state, i) {
            covered += length;
            now_ms += travel_time_ms(length, speed).unwrap_or(0);
            free_mm += length * u64::from(s.ratio_permille.unwrap_or(1000).min(1000)) / 1000;
        }
    }
    let coverage_permille = permille(covered, whole);
    // Each segment's DTP is (t − t_ff) / t = 1 − ratio, at least 0; the network's is their mean by length.
    // The sum of travel times would be ruled by the few segments that stand.
    let flowing = permille(free_mm, covered);
    let enough = f64::from(coverage_permille) >= coverage_min * 1000.0 && covered > 0;
    RegionIndex {
        region: number,
        time,
        index_centi: enough.then(|| profile.index_centi(1000 - flowing)),
        // GB/T 33171-2016: DTP = 1 − 1 / TTI, and TTI is at least 1.
        tti_permille: (covered > 0 && flowing > 0).then(|| 1_000_000 / flowing),
        mean_speed: speed_mm_s(covered, now_ms),
        length_m: length_mm.map(|mm| mm / 1000),
        coverage_permille,
    }
}

pub(super) fn corridor_time<'s>(
    network: &Network,
    (number, corridor): (u32, &Corridor),
    state: impl Fn(SegmentIndex) -> Option<&'s SegmentState> + Copy,
    baseline: (&Baseline, Slot),
    time: EventTime,
) -> CorridorTime {
    let mut sum = CorridorTime {
        corridor: number,
        time,
        travel_time_ms: None,
        free_flow_ms: 0,
        typical_ms: 0,
        length_mm: 0,
        coverage_permille: 0,
        confidence_permille: 0,
    };
    let (mut now_ms, mut covered, mut confidence) = (0, 0, 0);
    for &i in &corridor.segments {
        let segment = network.segment(i);
        let length = u64::from(segment.length_mm);
        let free = travel_time_ms(length, baseline.0.free_flow(i)).unwrap_or(0);
        let typical = travel_time_ms(length, baseline.0.typical(i, baseline.1)).unwrap_or(0);
        sum.length_mm += length;
        sum.free_flow_ms += free;
        sum.typical_ms += typical;
        match covering(state, i) {
            Some((s, speed)) => {
                covered += length;
                confidence += length * u64::from(s.confidence_permille);
                now_ms += travel_time_ms(length, speed).unwrap_or(typical);
            }
            None => now_ms += typical,
        }
    }
    sum.travel_time_ms = (covered > 0).then_some(now_ms);
    sum.coverage_permille = permille(covered, sum.length_mm);
    sum.confidence_permille = confidence.checked_div(sum.length_mm).unwrap_or(0) as u32;
    sum
}
