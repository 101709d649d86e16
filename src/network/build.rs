//! From OSM data to a network (algorithms §1.1 to §1.5).

use std::collections::BTreeMap;
use std::fmt;

use foldhash::{HashMap, HashMapExt};
use serde::{Deserialize, Serialize};

use super::graph::{NONE, Parts, Scale, cumulative_mm, e7};
use super::osm::{OsmData, OsmWay};
use super::tags::{self, Access, Control, Road};
use super::{links, restrictions, *};

/// A signal this near the end of a segment (along it, in mm) is the one of the junction there.
const SIGNAL_APPROACH_MM: u32 = 50_000;
/// A stop or give-way sign this near the end of a segment is the one of the junction there.
const YIELD_APPROACH_MM: u32 = 30_000;

/// Settings of the build (section `[map]` of the configuration).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildSettings {
    /// Longest segment in metres; longer ones are cut at shape nodes.
    pub segment_max_m: f64,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self { segment_max_m: 500.0 }
    }
}

/// What a build did with its input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {
    /// Ways in the input (those whose `highway` value is one of roads).
    pub ways_read: u64,
    /// Ways that became segments.
    pub ways_kept: u64,
    /// Ways left out, by reason.
    pub ways_left_out: BTreeMap<String, u64>,
    /// Nodes where segments begin or end.
    pub nodes: u64,
    /// Directed segments.
    pub segments: u64,
    /// Links.
    pub links: u64,
    /// Length of the directed segments in km, by class.
    pub km_by_class: BTreeMap<RoadClass, f64>,
    /// Directed segments whose speed limit stands in the map.
    pub limits_tagged: u64,
    /// Stretches between junctions that were cut because of their length.
    pub stretches_cut: u64,
    /// Directed segments longer than the limit all the same, for want of shape nodes.
    pub longer_than_max: u64,
    /// Loops, and pairs of stretches with the same ends, that were cut to have names of their own.
    pub loops_cut: u64,
    /// Directed segments dropped because another one of the same way has the same ends.
    pub duplicate_keys_dropped: u64,
    /// The first of their names, at most 20.
    pub duplicate_keys: Vec<String>,
    /// Nodes that ways name and the input does not hold (or not at a valid place); the way is parted there.
    pub nodes_missing: u64,
    /// Nodes with a barrier that stops cars; driving through counts as a banned turn.
    pub barriers: u64,
    /// Turn restrictions in the input.
    pub restrictions_read: u64,
    /// Turn restrictions kept.
    pub restrictions_kept: u64,
    /// Those of them that hold at certain times only (or for some turns of a kind); taken as always.
    pub restrictions_conditional: u64,
    /// Turn restrictions ignored, by reason.
    pub restrictions_ignored: BTreeMap<String, u64>,
}

impl fmt::Display for BuildReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |map: &BTreeMap<String, u64>| {
            if map.is_empty() {
                return String::new();
            }
            let items: Vec<String> = map.iter().map(|(k, v)| format!("{k} {v}")).collect();
            format!(" ({})", items.join(", "))
        };
        let left_out: u64 = self.ways_left_out.values().sum();
        let ignored: u64 = self.restrictions_ignored.values().sum();
        let km: f64 = self.km_by_class.values().sum();
        writeln!(
            f,
            "ways          {} read, {} kept, {left_out} left out{}",
            self.ways_read,
            self.ways_kept,
            list(&self.ways_left_out)
        )?;
        writeln!(
            f,
            "network       {} segments, {} nodes, {} links, {km:.1} km directed",
            self.segments, self.nodes, self.links
        )?;
        for (class, km) in &self.km_by_class {
            writeln!(f, "  {:<16}{km:>10.1} km", class.label())?;
        }
        writeln!(
            f,
            "limits        {} of {} segments tagged",
            self.limits_tagged, self.segments
        )?;
        writeln!(
            f,
            "cuts          {} long stretches, {} loops; {} segments stay longer than the limit",
            self.stretches_cut, self.loops_cut, self.longer_than_max
        )?;
        writeln!(
            f,
            "restrictions  {} read, {} kept ({} conditional), {ignored} ignored{}",
            self.restrictions_read,
            self.restrictions_kept,
            self.restrictions_conditional,
            list(&self.restrictions_ignored)
        )?;
        write!(
            f,
            "findings      {} nodes missing, {} barriers, {} segments dropped for a name used twice",
            self.nodes_missing, self.barriers, self.duplicate_keys_dropped
        )?;
        if !self.duplicate_keys.is_empty() {
            write!(f, ": {}", self.duplicate_keys.join(" "))?;
        }
        Ok(())
    }
}

/// A stretch of one way between two nodes where segments end; both directions share it.
#[derive(Clone, Debug)]
struct Stretch {
    nodes: Vec<i64>,
    cumulative: Vec<u32>,
}

impl Stretch {
    fn length(&self) -> u32 {
        self.cumulative[self.cumulative.len() - 1]
    }

    fn ends(&self) -> (i64, i64) {
        (self.nodes[0], self.nodes[self.nodes.len() - 1])
    }

    /// Parts of the stretch between consecutive cuts (positions in `nodes`, ascending, inner ones only).
    fn cut_at(&self, cuts: &[usize], points: &Points<'_>) -> Vec<Stretch> {
        let mut bounds = vec![0];
        bounds.extend_from_slice(cuts);
        bounds.push(self.nodes.len() - 1);
        bounds
            .windows(2)
            .map(|b| points.stretch(self.nodes[b[0]..=b[1]].to_vec()))
            .collect()
    }
}

/// Places and devices of the nodes in use.
struct Points<'a> {
    scale: Scale,
    places: HashMap<i64, Position>,
    controls: HashMap<i64, Control>,
    osm: &'a OsmData,
}

impl Points<'_> {
    fn place(&self, node: i64) -> Position {
        // Runs hold only nodes that were found before.
        self.places.get(&node).copied().unwrap_or_else(|| e7(0, 0))
    }

    fn control(&self, node: i64) -> Control {
        self.controls.get(&node).copied().unwrap_or_default()
    }

    fn stretch(&self, nodes: Vec<i64>) -> Stretch {
        let places: Vec<Position> = nodes.iter().map(|&n| self.place(n)).collect();
        Stretch {
            cumulative: cumulative_mm(&self.scale, &places),
            nodes,
        }
    }

    /// Remembers a node; `false` if it is missing or nowhere.
    fn learn(&mut self, node: i64) -> bool {
        if self.places.contains_key(&node) {
            return true;
        }
        let Some(found) = self.osm.nodes.get(&node) else {
            return false;
        };
        let Ok(place) = Position::from_degrees(found.lat, found.lon) else {
            return false;
        };
        self.places.insert(node, place);
        let control = tags::control(&found.tags);
        if control.signal || control.yields || control.toll || control.blocked {
            self.controls.insert(node, control);
        }
        true
    }
}

/// A way that is a road, with its runs of existing nodes.
struct Kept<'a> {
    way: &'a OsmWay,
    road: Road,
    runs: Vec<Vec<i64>>,
}

/// A directed segment before it has an index.
struct Draft {
    segment: Segment,
    shape: u32,
    name: u32,
}

impl Network {
    /// Builds the network.
    ///
    /// The result depends on the data alone, not on the order of ways. What could not be used is counted in the report;
    /// nothing in the data makes the build fail.
    pub fn build(osm: &OsmData, settings: &BuildSettings) -> (Network, BuildReport) {
        let mut report = BuildReport {
            ways_read: osm.ways.len() as u64,
            ..BuildReport::default()
        };
        let max_mm = (settings.segment_max_m.max(1.0) * 1000.0).min(f64::from(u32::MAX)) as u32;
        let mut points = Points {
            scale: Scale::default(),
            places: HashMap::new(),
            controls: HashMap::new(),
            osm,
        };

        let kept = kept_ways(osm, &mut points, &mut report);
        // A node is an end of segments if a way ends there or passes it twice, or if several ways do.
        let mut uses: HashMap<i64, u32> = HashMap::new();
        for run in kept.iter().flat_map(|k| &k.runs) {
            for (i, node) in run.iter().enumerate() {
                let end = i == 0 || i + 1 == run.len();
                *uses.entry(*node).or_default() += if end { 2 } else { 1 };
            }
        }

        let mut parts = Parts {
            shape_offsets: vec![0],
            ..Parts::default()
        };
        let mut names: BTreeMap<&str, u32> = kept
            .iter()
            .filter_map(|k| tags::name(&k.way.tags))
            .map(|n| (n, 0))
            .collect();
        for (i, (_, index)) in names.iter_mut().enumerate() {
            *index = i as u32;
        }
        parts.names = names.keys().map(|n| (*n).to_owned()).collect();

        let mut drafts: Vec<Draft> = Vec::new();
        for k in &kept {
            let mut stretches = Vec::new();
            for run in &k.runs {
                split_run(run, &uses, &points, max_mm, &mut stretches, &mut report);
            }
            let stretches = unique_ends(stretches, k.road, &points, &mut report);
            let name = tags::name(&k.way.tags)
                .and_then(|n| names.get(n).copied())
                .unwrap_or(NONE);
            draft_segments(
                k,
                stretches,
                name,
                &points,
                max_mm,
                &mut parts,
                &mut drafts,
                &mut report,
            );
        }

        number_nodes_and_segments(drafts, &points, &mut parts);
        let blocked: Vec<i64> = parts_nodes(&parts)
            .into_iter()
            .filter(|&n| points.control(n).blocked)
            .collect();
        report.barriers = blocked.len() as u64;

        // Restrictions and links ask about neighbours, so they are found on the network without them.
        let network = Network::from_parts(parts, String::new());
        let (bans, via_bans) = restrictions::resolve(&network, &osm.restrictions, &blocked, &mut report);
        let network = network.with_turns(bans, via_bans);
        let links = links::build(&network);
        let network = network.with_links(links);

        let parts = network.parts();
        report.nodes = parts.nodes.len() as u64;
        report.segments = parts.segments.len() as u64;
        report.links = parts.links.len() as u64;
        for s in &parts.segments {
            *report.km_by_class.entry(s.class).or_default() += f64::from(s.length_mm) / 1e6;
            report.limits_tagged += u64::from(s.flags.has(SegmentFlags::LIMIT_TAGGED));
            report.longer_than_max += u64::from(s.length_mm > max_mm);
        }
        (network, report)
    }
}

fn kept_ways<'a>(osm: &'a OsmData, points: &mut Points<'_>, report: &mut BuildReport) -> Vec<Kept<'a>> {
    let mut ways: Vec<&OsmWay> = osm.ways.iter().collect();
    ways.sort_by_key(|w| w.id);
    ways.dedup_by_key(|w| w.id);
    let mut kept = Vec::with_capacity(ways.len());
    for way in ways {
        let mut leave_out = |reason: &str| *report.ways_left_out.entry(reason.to_owned()).or_default() += 1;
        let road = match tags::road(&way.tags) {
            Ok(road) => road,
            Err(reason) => {
                leave_out(reason);
                continue;
            }
        };
        let mut runs: Vec<Vec<i64>> = vec![Vec::new()];
        let mut missing = 0;
        for &node in &way.nodes {
            let run = runs.last_mut().expect("never empty");
            if !points.learn(node) {
                missing += 1;
                if !run.is_empty() {
                    runs.push(Vec::new());
                }
            } else if run.last() != Some(&node) {
                run.push(node);
            }
        }
        runs.retain(|r| r.len() >= 2);
        if runs.is_empty() {
            leave_out("too few nodes");
        } else {
            kept.push(Kept { way, road, runs });
        }
        report.nodes_missing += missing;
    }
    report.ways_kept = kept.len() as u64;
    kept
}

/// Parts a run of nodes at junctions, barriers, toll booths and signals between junctions, then cuts long stretches.
fn split_run(
    run: &[i64],
    uses: &HashMap<i64, u32>,
    points: &Points<'_>,
    max_mm: u32,
    out: &mut Vec<Stretch>,
    report: &mut BuildReport,
) {
    let inner: Vec<usize> = (1..run.len() - 1)
        .filter(|&i| {
            let control = points.control(run[i]);
            uses.get(&run[i]).is_some_and(|&n| n >= 2) || control.blocked || control.toll
        })
        .collect();
    let whole = points.stretch(run.to_vec());
    for stretch in whole.cut_at(&inner, points) {
        // A signal far from both junctions has a stop line of its own; nearer, it is the junction's, and a
        // pedestrian crossing does not part the road.
        let length = stretch.length();
        let signals: Vec<usize> = (1..stretch.nodes.len() - 1)
            .filter(|&i| {
                let control = points.control(stretch.nodes[i]);
                let at = stretch.cumulative[i];
                control.signal
                    && !control.crossing
                    && at >= SIGNAL_APPROACH_MM
                    && length - at >= SIGNAL_APPROACH_MM
            })
            .collect();
        for stretch in stretch.cut_at(&signals, points) {
            let before = out.len();
            cut_long(stretch, max_mm, points, out);
            report.stretches_cut += u64::from(out.len() > before + 1);
        }
    }
}

/// Cuts a stretch longer than `max_mm` at the shape nodes nearest to even spacing, and what is still too long again.
/// Nodes within a tenth of the maximum of an end are no places to cut: they would leave splinters.
fn cut_long(stretch: Stretch, max_mm: u32, points: &Points<'_>, out: &mut Vec<Stretch>) {
    let length = stretch.length();
    if length <= max_mm {
        out.push(stretch);
        return;
    }
    let margin = max_mm / 10;
    let eligible: Vec<usize> = (1..stretch.nodes.len() - 1)
        .filter(|&i| stretch.cumulative[i] >= margin && length - stretch.cumulative[i] >= margin)
        .collect();
    let parts = u64::from(length.div_ceil(max_mm));
    let mut cuts: Vec<usize> = (1..parts)
        .filter_map(|k| {
            let ideal = (u64::from(length) * k / parts) as u32;
            eligible
                .iter()
                .copied()
                .min_by_key(|&i| (stretch.cumulative[i].abs_diff(ideal), i))
        })
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    if cuts.is_empty() {
        out.push(stretch);
        return;
    }
    for part in stretch.cut_at(&cuts, points) {
        cut_long(part, max_mm, points, out);
    }
}

/// Cuts loops at two shape nodes, and stretches of one way with the same ends at one each, so that keys are unique
/// where shape nodes allow it.
fn unique_ends(
    stretches: Vec<Stretch>,
    road: Road,
    points: &Points<'_>,
    report: &mut BuildReport,
) -> Vec<Stretch> {
    let two_way = road.forward != Access::Closed && road.backward != Access::Closed;
    let mut unlooped = Vec::with_capacity(stretches.len());
    for s in stretches {
        let (from, to) = s.ends();
        if from != to {
            unlooped.push(s);
            continue;
        }
        report.loops_cut += 1;
        if s.nodes.len() < 4 {
            // Out and back over one node: the way back has the names of the way out.
            unlooped.extend(s.cut_at(&[1], points));
            continue;
        }
        let length = s.length();
        let first = nearest_inner(&s, length / 3, 1..s.nodes.len() - 2);
        let second = nearest_inner(&s, length - length / 3, first + 1..s.nodes.len() - 1);
        unlooped.extend(s.cut_at(&[first, second], points));
    }
    // In a one-way road A→B and B→A have different names; in a two-way road each has both.
    let name = |s: &Stretch| {
        let (from, to) = s.ends();
        if two_way {
            (from.min(to), from.max(to))
        } else {
            (from, to)
        }
    };
    let mut count: BTreeMap<(i64, i64), u32> = BTreeMap::new();
    for s in &unlooped {
        *count.entry(name(s)).or_default() += 1;
    }
    let mut out = Vec::with_capacity(unlooped.len());
    for s in unlooped {
        if count[&name(&s)] > 1 && s.nodes.len() > 2 {
            let middle = nearest_inner(&s, s.length() / 2, 1..s.nodes.len() - 1);
            report.loops_cut += 1;
            out.extend(s.cut_at(&[middle], points));
        } else {
            out.push(s);
        }
    }
    out
}

fn nearest_inner(s: &Stretch, ideal: u32, range: std::ops::Range<usize>) -> usize {
    let first = range.start;
    range
        .min_by_key(|&i| (s.cumulative[i].abs_diff(ideal), i))
        .unwrap_or(first)
}

#[expect(clippy::too_many_arguments, reason = "one step of the build, called once")]
fn draft_segments(
    kept: &Kept<'_>,
    stretches: Vec<Stretch>,
    name: u32,
    points: &Points<'_>,
    max_mm: u32,
    parts: &mut Parts,
    drafts: &mut Vec<Draft>,
    report: &mut BuildReport,
) {
    let Kept { way, road, .. } = kept;
    debug_assert!(max_mm > 0, "settings are clamped");
    let mut taken: BTreeMap<SegmentKey, ()> = BTreeMap::new();
    for stretch in stretches {
        let mut used = false;
        let shape = parts.shape_offsets.len() as u32 - 1;
        for (forward, access) in [(true, road.forward), (false, road.backward)] {
            if access == Access::Closed {
                continue;
            }
            let (first, last) = stretch.ends();
            let (from_node, to_node) = if forward { (first, last) } else { (last, first) };
            let key = SegmentKey {
                way: way.id,
                from_node,
                to_node,
            };
            if taken.insert(key, ()).is_some() {
                report.duplicate_keys_dropped += 1;
                if report.duplicate_keys.len() < 20 {
                    report.duplicate_keys.push(key.to_string());
                }
                continue;
            }
            used = true;
            let (limit_kph, tagged) = tags::limit(&way.tags, road.class, forward);
            let (signal, yields) = devices_at_end(&stretch, forward, road.oneway, points);
            let mut flags = road.flags;
            for (set, flag) in [
                (tagged, SegmentFlags::LIMIT_TAGGED),
                (road.oneway && access != Access::BusOnly, SegmentFlags::ONEWAY),
                (!forward, SegmentFlags::BACKWARD),
                (access == Access::BusOnly, SegmentFlags::BUS_ONLY),
                (access == Access::Restricted, SegmentFlags::RESTRICTED),
                (signal, SegmentFlags::SIGNAL_END),
                (yields, SegmentFlags::YIELD_END),
            ] {
                if set {
                    flags |= flag;
                }
            }
            drafts.push(Draft {
                segment: Segment {
                    key,
                    from: 0,
                    to: 0,
                    length_mm: stretch.length(),
                    class: road.class,
                    flags: SegmentFlags(flags),
                    limit_kph,
                    free_flow: tags::prior_free_flow(road.class, limit_kph),
                    lanes: tags::lanes(&way.tags, road.class, road.oneway, forward),
                    twin: None,
                    link: 0,
                },
                shape,
                name,
            });
        }
        if used {
            parts
                .positions
                .extend(stretch.nodes.iter().map(|&n| points.place(n)));
            parts.osm_nodes.extend_from_slice(&stretch.nodes);
            parts.shape_offsets.push(parts.positions.len() as u32);
        }
    }
}

/// Whether a signal and a stop or give-way sign hold at the end of a stretch driven in one direction: at the end
/// node, or on the approach to it. On a two-way road a device nearer to the beginning is that of the other end.
fn devices_at_end(stretch: &Stretch, forward: bool, oneway: bool, points: &Points<'_>) -> (bool, bool) {
    let length = stretch.length();
    let (mut signal, mut yields) = (false, false);
    for (i, &node) in stretch.nodes.iter().enumerate() {
        let to_end = if forward {
            length - stretch.cumulative[i]
        } else {
            stretch.cumulative[i]
        };
        let begins = if forward {
            i == 0
        } else {
            i + 1 == stretch.nodes.len()
        };
        let c = points.control(node);
        let holds = if forward { c.forward } else { c.backward };
        if begins || !holds || (!oneway && to_end > length / 2) {
            continue;
        }
        signal |= c.signal && to_end <= SIGNAL_APPROACH_MM;
        yields |= c.yields && to_end <= YIELD_APPROACH_MM;
    }
    (signal, yields)
}

/// OSM ids of the nodes by index.
fn parts_nodes(parts: &Parts) -> Vec<i64> {
    let mut nodes = vec![0; parts.nodes.len()];
    for s in &parts.segments {
        nodes[s.from as usize] = s.key.from_node;
        nodes[s.to as usize] = s.key.to_node;
    }
    nodes
}

/// Numbers nodes along a Hilbert curve and segments by first node, then key: neighbours lie close in memory.
fn number_nodes_and_segments(mut drafts: Vec<Draft>, points: &Points<'_>, parts: &mut Parts) {
    let mut nodes: Vec<i64> = drafts
        .iter()
        .flat_map(|d| [d.segment.key.from_node, d.segment.key.to_node])
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let places = |f: fn(Position) -> i32| nodes.iter().map(move |&n| f(points.place(n)));
    let (west, east) = (
        places(Position::lon_e7).min().unwrap_or(0),
        places(Position::lon_e7).max().unwrap_or(0),
    );
    let (south, north) = (
        places(Position::lat_e7).min().unwrap_or(0),
        places(Position::lat_e7).max().unwrap_or(0),
    );
    let cell = |v: i32, low: i32, high: i32| {
        let span = (i64::from(high) - i64::from(low)).max(1);
        ((i64::from(v) - i64::from(low)) * 65_535 / span) as u32
    };
    nodes.sort_by_cached_key(|&n| {
        let p = points.place(n);
        (
            hilbert(cell(p.lon_e7(), west, east), cell(p.lat_e7(), south, north)),
            n,
        )
    });
    let index: HashMap<i64, u32> = nodes.iter().enumerate().map(|(i, &n)| (n, i as u32)).collect();
    parts.nodes = nodes.iter().map(|&n| points.place(n)).collect();
    for d in &mut drafts {
        d.segment.from = index[&d.segment.key.from_node];
        d.segment.to = index[&d.segment.key.to_node];
    }
    drafts.sort_by_key(|d| (d.segment.from, d.segment.key));

    let mut by_shape = vec![[NONE; 2]; parts.shape_offsets.len() - 1];
    for (i, d) in drafts.iter().enumerate() {
        let side = usize::from(d.segment.flags.has(SegmentFlags::BACKWARD));
        by_shape[d.shape as usize][side] = i as u32;
    }
    for d in &mut drafts {
        let side = usize::from(d.segment.flags.has(SegmentFlags::BACKWARD));
        d.segment.twin = Some(by_shape[d.shape as usize][1 - side]).filter(|&t| t != NONE);
    }
    parts.segment_shape = drafts.iter().map(|d| d.shape).collect();
    parts.segment_name = drafts.iter().map(|d| d.name).collect();
    parts.segments = drafts.into_iter().map(|d| d.segment).collect();
}

/// Place of a cell of a 65,536 × 65,536 grid along a Hilbert curve (Wikipedia, "Hilbert curve", `xy2d`).
fn hilbert(mut x: u32, mut y: u32) -> u64 {
    const N: u32 = 1 << 16;
    let mut d = 0;
    let mut s = N / 2;
    while s > 0 {
        let (rx, ry) = (u32::from(x & s > 0), u32::from(y & s > 0));
        d += u64::from(s) * u64::from(s) * u64::from((3 * rx) ^ ry);
        if ry == 0 {
            if rx == 1 {
                (x, y) = (N - 1 - x, N - 1 - y);
            }
            (x, y) = (y, x);
        }
        s /= 2;
    }
    d
}

#[cfg(test)]
mod tests {
    use super::super::drawn::{build, chain, draw, id, names, restrict, seg, tag};
    use super::*;

    #[test]
    fn a_crossing_parts_both_roads_in_both_directions() {
        let osm = draw(
            "
            . . C
            A . B . D
            . . E",
            &[
                "ABD name=Main",
                "CBE highway=primary oneway=yes lanes=3 maxspeed=30",
            ],
        );
        let (n, report) = build(&osm);
        assert_eq!(names(&n), "1:A>B 1:B>A 1:B>D 1:D>B 2:B>E 2:C>B");
        let ab = seg(&n, 1, 'A', 'B');
        let s = n.segment(ab);
        assert!(s.length_mm.abs_diff(200_000) < 15, "{}", s.length_mm);
        assert_eq!((s.lanes, s.limit_kph), (1, 50));
        assert_eq!(s.twin, Some(seg(&n, 1, 'B', 'A')));
        assert_eq!(n.name(ab), Some("Main"));
        assert_eq!(n.bearing_at(ab, 0).degrees(), 90.0);
        let mut next = n.successors(ab).to_vec();
        next.sort_by_key(|&i| n.segment(i).key);
        assert_eq!(chain(&n, &next), "1:B>A 1:B>D 2:B>E");
        let cb = n.segment(seg(&n, 2, 'C', 'B'));
        assert_eq!(
            (cb.class, cb.lanes, cb.limit_kph, cb.twin),
            (RoadClass::Primary, 3, 30, None)
        );
        assert!(cb.flags.has(SegmentFlags::ONEWAY | SegmentFlags::LIMIT_TAGGED));
        assert_eq!(cb.free_flow, 8_333);
        assert_eq!(n.predecessors(seg(&n, 2, 'B', 'E')).len(), 3);
        assert_eq!(
            (
                report.segments,
                report.nodes,
                report.ways_kept,
                report.limits_tagged
            ),
            (6, 5, 2, 2)
        );
        assert_eq!(chain(&n, n.segments_of_way(2)), "2:B>E 2:C>B");
    }

    #[test]
    fn backward_one_way_runs_against_the_nodes() {
        let (n, _) = build(&draw("A..B..C", &["ABC oneway=-1"]));
        assert_eq!(names(&n), "1:C>A");
        let s = seg(&n, 1, 'C', 'A');
        assert!(
            n.segment(s)
                .flags
                .has(SegmentFlags::BACKWARD | SegmentFlags::ONEWAY)
        );
        assert_eq!(n.osm_nodes(s), ['C', 'B', 'A'].map(id));
        assert_eq!(n.bearing_at(s, 0).degrees(), 270.0);
        assert_eq!(n.geometry(s)[0], n.node_position(n.segment(s).from));
        assert_eq!(n.position_at(s, 0), n.geometry(s)[0]);
        assert_eq!(n.position_at(s, u32::MAX), n.geometry(s)[2]);
        assert!(n.position_at(s, 150_000).distance_m(n.geometry(s)[1]) < 0.03);
    }

    #[test]
    fn a_roundabout_is_one_way_and_parted_at_its_arms() {
        let osm = draw(
            "
            ....B....
            A..C.D..E
            ....F....",
            &["AC", "DE", "CFDBC junction=roundabout"],
        );
        let (n, _) = build(&osm);
        assert_eq!(names(&n), "1:A>C 1:C>A 2:D>E 2:E>D 3:C>D 3:D>C");
        let s = n.segment(seg(&n, 3, 'C', 'D'));
        assert!(s.flags.has(SegmentFlags::ROUNDABOUT | SegmentFlags::ONEWAY));
        assert_eq!(s.twin, None);
    }

    #[test]
    fn a_loop_with_one_junction_is_cut_at_two_shape_nodes() {
        let osm = draw(
            "
            A...B..C
            ....E..D",
            &["AB", "BCDEB highway=residential"],
        );
        let (n, report) = build(&osm);
        assert_eq!(names(&n), "1:A>B 1:B>A 2:B>C 2:B>D 2:C>B 2:C>D 2:D>B 2:D>C");
        assert_eq!((report.loops_cut, report.duplicate_keys_dropped), (1, 0));
    }

    #[test]
    fn stretches_of_one_way_with_the_same_ends_are_cut_apart() {
        // Way 1 leaves A, comes to B two ways round (C and D) and returns.
        let osm = draw(
            "
            ..C..
            A...B
            ..D..",
            &["ACBDA"],
        );
        let (n, report) = build(&osm);
        assert_eq!(report.duplicate_keys_dropped, 0);
        // A is the way's end on both sides: a loop with one junction, cut at two nodes.
        assert_eq!(n.segments().len(), 6);
        let osm = draw(
            "
            ..C..
            A...B..E
            ..D..",
            &["ACBDA", "BE"],
        );
        let (n, report) = build(&osm);
        assert_eq!(report.duplicate_keys_dropped, 0);
        assert_eq!(
            names(&n),
            "1:A>C 1:A>D 1:B>C 1:B>D 1:C>A 1:C>B 1:D>A 1:D>B 2:B>E 2:E>B"
        );
    }

    #[test]
    fn a_way_that_runs_back_on_itself_loses_the_second_run() {
        let (n, report) = build(&draw("A..B..C", &["ABCBA"]));
        assert_eq!(names(&n), "1:A>B 1:B>A 1:B>C 1:C>B");
        assert_eq!(report.duplicate_keys_dropped, 4);
        assert_eq!(report.duplicate_keys.len(), 4);
        let keys: std::collections::BTreeSet<_> = n.segments().iter().map(|s| s.key).collect();
        assert_eq!(keys.len(), n.segments().len());
    }

    #[test]
    fn long_stretches_are_cut_near_even_spacing() {
        // 1,200 m: cuts wanted at 400 and 800 m; nodes stand at 300, 450, 750 and 1,190 m (in columns of 50 m).
        let (n, report) = build(&draw("A.....B..C.....D........E", &["ABCDE oneway=yes"]));
        assert_eq!(names(&n), "1:A>C 1:C>D 1:D>E");
        assert_eq!(report.stretches_cut, 1);
        // No shape nodes: it stays whole.
        let (n, report) = build(&draw("A.......................B", &["AB oneway=yes"]));
        assert!(n.segments()[0].length_mm.abs_diff(1_200_000) < 15);
        assert_eq!((report.stretches_cut, report.longer_than_max), (0, 1));
        // A node near the end is a place to cut, unless it lies within a tenth of the maximum.
        let (n, _) = build(&draw("A.......................B.C", &["ABC oneway=yes"]));
        assert_eq!(names(&n), "1:A>B 1:B>C");
    }

    #[test]
    fn signals_and_signs_stand_at_the_end_that_they_face() {
        let picture = "A....B.C...D";
        let mut osm = draw(picture, &["ABC", "CD"]);
        tag(&mut osm, 'B', "highway=give_way direction=forward");
        tag(&mut osm, 'C', "highway=traffic_signals");
        let (n, _) = build(&osm);
        // B is no junction and 100 m from C: the segment runs A to C, and the sign is too far away to count.
        assert_eq!(names(&n), "1:A>C 1:C>A 2:C>D 2:D>C");
        let flags = |n: &Network, way, from, to| n.segment(seg(n, way, from, to)).flags;
        assert!(flags(&n, 1, 'A', 'C').has(SegmentFlags::SIGNAL_END));
        assert!(!flags(&n, 1, 'A', 'C').has(SegmentFlags::YIELD_END));
        assert!(flags(&n, 2, 'D', 'C').has(SegmentFlags::SIGNAL_END));
        assert!(!flags(&n, 2, 'C', 'D').has(SegmentFlags::SIGNAL_END));

        // A signal far from junctions parts the road; a crossing does not.
        let mut osm = draw(picture, &["ABCD"]);
        tag(&mut osm, 'B', "highway=traffic_signals");
        tag(&mut osm, 'C', "highway=traffic_signals crossing=traffic_signals");
        let (n, _) = build(&osm);
        assert_eq!(names(&n), "1:A>B 1:B>A 1:B>D 1:D>B");
        assert!(flags(&n, 1, 'A', 'B').has(SegmentFlags::SIGNAL_END));

        // On the approach, 50 m before the junction: it faces traffic towards the junction only.
        let mut osm = draw("A......BC.....D", &["ABC", "CD"]);
        osm.nodes.get_mut(&id('B')).unwrap().lon += 0.0001;
        tag(&mut osm, 'B', "highway=traffic_signals");
        let (n, _) = build(&osm);
        assert_eq!(names(&n), "1:A>C 1:C>A 2:C>D 2:D>C");
        assert!(flags(&n, 1, 'A', 'C').has(SegmentFlags::SIGNAL_END));
        assert!(!flags(&n, 1, 'C', 'A').has(SegmentFlags::SIGNAL_END));
        assert!(!flags(&n, 2, 'D', 'C').has(SegmentFlags::SIGNAL_END));
    }

    #[test]
    fn access_decides_who_is_matched_where() {
        let picture = "A..B..C..D..E..F..G";
        let (n, report) = build(&draw(
            picture,
            &[
                "AB motor_vehicle=no taxi=yes",
                "BC motor_vehicle=no",
                "CD access=private",
                "DE oneway=yes oneway:bus=no",
                "EF highway=service",
                "FG highway=footway",
            ],
        ));
        assert_eq!(names(&n), "1:A>B 1:B>A 3:C>D 3:D>C 4:D>E 4:E>D 5:E>F 5:F>E");
        let flags = |way, from, to| n.segment(seg(&n, way, from, to)).flags;
        assert!(flags(1, 'A', 'B').has(SegmentFlags::BUS_ONLY));
        assert!(flags(3, 'C', 'D').has(SegmentFlags::RESTRICTED));
        assert!(flags(4, 'D', 'E').has(SegmentFlags::ONEWAY));
        assert!(flags(4, 'E', 'D').has(SegmentFlags::BUS_ONLY));
        assert!(!flags(4, 'E', 'D').has(SegmentFlags::ONEWAY));
        assert!(flags(5, 'E', 'F').has(SegmentFlags::MINOR));
        assert_eq!(report.ways_left_out.get("access"), Some(&1));
        assert_eq!(report.ways_left_out.get("highway"), Some(&1));
        assert_eq!(report.ways_kept, 4);
    }

    #[test]
    fn missing_nodes_part_a_way() {
        let mut osm = draw("A..B..C..D", &["ABCD", "AX"]);
        osm.ways[0].nodes.insert(2, 999);
        osm.nodes.insert(
            id('E'),
            osm::OsmNode {
                lat: f64::NAN,
                lon: 0.0,
                ..osm::OsmNode::default()
            },
        );
        osm.ways[0].nodes.push(id('E'));
        let (n, report) = build(&osm);
        assert_eq!(names(&n), "1:A>B 1:B>A 1:C>D 1:D>C");
        assert_eq!(report.nodes_missing, 3);
        assert_eq!(report.ways_left_out.get("too few nodes"), Some(&1));
    }

    #[test]
    fn nothing_builds_to_nothing() {
        let (n, report) = build(&OsmData::default());
        assert!(n.segments().is_empty() && n.links().is_empty());
        let mut out = Vec::new();
        n.candidates(n.bounds().0, 1_000_000, &mut out);
        assert!(out.is_empty());
        assert!(report.to_string().contains("0 segments"), "{report}");
    }

    fn crossing() -> OsmData {
        draw(
            "
            . . N
            W . X . E
            . . S",
            &["WX", "XE", "NX", "XS"],
        )
    }

    #[test]
    fn restrictions_at_a_node() {
        let mut osm = crossing();
        restrict(&mut osm, 1, Ok('X'), 3, "restriction=no_left_turn");
        restrict(&mut osm, 2, Ok('X'), 1, "restriction=only_straight_on");
        restrict(&mut osm, 3, Ok('X'), 3, "restriction=no_u_turn");
        restrict(
            &mut osm,
            4,
            Ok('X'),
            1,
            "restriction=no_left_turn except=motorcar;psv",
        );
        restrict(&mut osm, 4, Ok('X'), 2, "restriction:hgv=no_right_turn");
        restrict(
            &mut osm,
            4,
            Ok('X'),
            2,
            "restriction:conditional=no_right_turn@(Mo-Fr)",
        );
        restrict(&mut osm, 4, Ok('W'), 2, "restriction=no_right_turn");
        restrict(&mut osm, 4, Ok('X'), 77, "restriction=no_right_turn");
        let (n, report) = build(&osm);
        let arms = ['W', 'E', 'N', 'S'];
        let mut banned = Vec::new();
        for (i, &a) in arms.iter().enumerate() {
            for (j, &b) in arms.iter().enumerate() {
                if n.turn_banned(seg(&n, i as i64 + 1, a, 'X'), seg(&n, j as i64 + 1, 'X', b)) {
                    banned.push(format!("{a}{b}"));
                }
            }
        }
        assert_eq!(banned.join(" "), "WN EE EN ES NN SE");
        assert_eq!(
            (report.restrictions_kept, report.restrictions_conditional),
            (4, 1)
        );
        let ignored: Vec<_> = report
            .restrictions_ignored
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            ignored.join(", "),
            "cars excepted=1, no such turn=1, not for cars=1, way not in the map=1"
        );
    }

    #[test]
    fn restrictions_over_ways() {
        let picture = "
            A . B . C
            . . . . .
            D . E . F";
        let ways = ["AB", "BC", "BE", "DE", "EF"];
        let mut osm = draw(picture, &ways);
        restrict(&mut osm, 1, Err(&[3]), 4, "restriction=no_u_turn");
        restrict(&mut osm, 2, Err(&[3]), 5, "restriction=only_left_turn");
        restrict(&mut osm, 2, Err(&[]), 5, "restriction=no_left_turn");
        let (n, report) = build(&osm);
        let be = seg(&n, 3, 'B', 'E');
        let (ab, cb) = (seg(&n, 1, 'A', 'B'), seg(&n, 2, 'C', 'B'));
        let (ed, ef) = (seg(&n, 4, 'E', 'D'), seg(&n, 5, 'E', 'F'));
        assert!(n.sequence_banned(&[ab, be], ed));
        assert!(!n.sequence_banned(&[ab, be], ef));
        assert!(n.sequence_banned(&[cb, be], ed) && !n.sequence_banned(&[cb, be], ef));
        assert!(!n.sequence_banned(&[be], ed), "the whole sequence must be driven");
        assert!(!n.turn_banned(be, ed));
        assert_eq!(report.restrictions_kept, 2);
        assert_eq!(report.restrictions_ignored.get("no via"), Some(&1));
    }

    #[test]
    fn a_barrier_counts_as_a_banned_turn() {
        let mut osm = draw("A..B..C", &["ABC"]);
        tag(&mut osm, 'B', "barrier=bollard");
        let (n, report) = build(&osm);
        assert_eq!(names(&n), "1:A>B 1:B>A 1:B>C 1:C>B");
        assert!(n.turn_banned(seg(&n, 1, 'A', 'B'), seg(&n, 1, 'B', 'C')));
        assert!(!n.turn_banned(seg(&n, 1, 'A', 'B'), seg(&n, 1, 'B', 'A')));
        assert_eq!(report.barriers, 1);
    }

    #[test]
    fn the_order_of_the_data_does_not_matter() {
        let mut osm = crossing();
        let (a, _) = build(&osm);
        osm.ways.reverse();
        let (b, _) = build(&osm);
        assert_eq!(a.version(), b.version());
        assert_eq!(a.version().len(), 16);
        osm.ways[0].tags.insert("lanes".to_owned(), "6".to_owned());
        assert_ne!(build(&osm).0.version(), a.version());
        assert!(a.segments().is_sorted_by_key(|s| (s.from, s.key)));
    }

    #[test]
    fn hilbert_visits_neighbours_in_turn() {
        let mut cells: Vec<(u32, u32)> = (0..16).flat_map(|x| (0..16).map(move |y| (x, y))).collect();
        cells.sort_by_key(|&(x, y)| hilbert(x, y));
        assert!(
            cells
                .windows(2)
                .all(|w| w[0].0.abs_diff(w[1].0) + w[0].1.abs_diff(w[1].1) == 1)
        );
    }
}
