//! Links: consecutive segments of one directed road, 200 m to 1 km long (algorithms §1.3).
//!
//! A road goes on over a node where two segments are each other's straightest continuation and bear the same name
//! or the same class. Such chains are parted at signals, once 200 m are reached, and then evenly to at most 1 km.
//! Every segment lies in exactly one link; a road shorter than 200 m is a link of its own.

use super::*;

/// A link is not closed at a signal before this length, in mm.
pub const LINK_MIN_MM: u64 = 200_000;
/// Longest link of several segments, in mm.
pub const LINK_MAX_MM: u64 = 1_000_000;

/// Greatest turn within a link, in hundredths of a degree: by name, by class without two names, by class against
/// the names.
const TURN_MAX: [u16; 3] = [9_000, 6_000, 3_000];

/// Flags that all segments of a link share: traffic of different kinds does not make one speed.
const SHARED: u16 =
    SegmentFlags::BUS_ONLY | SegmentFlags::RESTRICTED | SegmentFlags::MINOR | SegmentFlags::ROUNDABOUT;

/// Parts all segments into links, ordered by their first segment.
pub(super) fn build(network: &Network) -> Vec<Link> {
    let n = network.segments().len() as u32;
    let next: Vec<Option<SegmentIndex>> = (0..n).map(|s| best(network, s, true)).collect();
    let previous: Vec<Option<SegmentIndex>> = (0..n).map(|s| best(network, s, false)).collect();
    // A continuation counts if it is the best one seen from both sides.
    let next: Vec<Option<SegmentIndex>> = (0..n)
        .map(|s| next[s as usize].filter(|&t| previous[t as usize] == Some(s)))
        .collect();
    let mut has_previous = vec![false; n as usize];
    for t in next.iter().flatten() {
        has_previous[*t as usize] = true;
    }

    let mut done = vec![false; n as usize];
    let mut links = Vec::new();
    // Roads with a beginning first, then rings from their lowest segment.
    let starts = (0..n).filter(|&s| !has_previous[s as usize]).chain(0..n);
    for start in starts {
        let mut chain = Vec::new();
        let mut at = Some(start);
        while let Some(s) = at.filter(|&s| !done[s as usize]) {
            done[s as usize] = true;
            chain.push(s);
            at = next[s as usize];
        }
        if !chain.is_empty() {
            part(network, &chain, &mut links);
        }
    }
    links.sort_by_key(|l: &Link| l.segments[0]);
    links
}

/// The straightest continuation of a segment (`ahead`) or the straightest way into it.
fn best(network: &Network, s: SegmentIndex, ahead: bool) -> Option<SegmentIndex> {
    let own = network.segment(s);
    let others = if ahead {
        network.successors(s)
    } else {
        network.predecessors(s)
    };
    others
        .iter()
        .copied()
        .filter(|&t| t != s && own.twin != Some(t))
        .filter_map(|t| {
            let other = network.segment(t);
            let (from, to) = if ahead { (s, t) } else { (t, s) };
            if network.turn_banned(from, to) || own.flags.0 & SHARED != other.flags.0 & SHARED {
                return None;
            }
            let names = (network.name(s), network.name(t));
            let rank = match names {
                (Some(a), Some(b)) if a == b => 0,
                _ if own.class != other.class => return None,
                (Some(_), Some(_)) => 2,
                _ => 1,
            };
            let end = network.bearing_at(from, network.segment(from).length_mm);
            let turn = end.difference(network.bearing_at(to, 0));
            (turn <= TURN_MAX[rank]).then_some((rank, turn, t))
        })
        .min()
        .map(|(.., t)| t)
}

/// Parts one directed road into links.
fn part(network: &Network, chain: &[SegmentIndex], out: &mut Vec<Link>) {
    let length = |s: &SegmentIndex| u64::from(network.segment(*s).length_mm);
    let sum = |run: &[SegmentIndex]| run.iter().map(length).sum::<u64>();

    // From signal to signal, but not shorter than the minimum.
    let mut runs: Vec<Vec<SegmentIndex>> = vec![Vec::new()];
    let mut driven = 0;
    for s in chain {
        let run = runs.last_mut().expect("never empty");
        run.push(*s);
        driven += length(s);
        if driven >= LINK_MIN_MM && network.segment(*s).flags.has(SegmentFlags::SIGNAL_END) {
            runs.push(Vec::new());
            driven = 0;
        }
    }
    runs.retain(|r| !r.is_empty());
    // A short rest joins the run before it, if that stays within the maximum.
    if let [.., before, rest] = &runs[..]
        && sum(rest) < LINK_MIN_MM
        && sum(before) + sum(rest) <= LINK_MAX_MM
    {
        let rest = runs.pop().expect("there are two");
        runs.last_mut().expect("there are two").extend(rest);
    }

    for run in runs {
        let total = sum(&run);
        let pieces = total.div_ceil(LINK_MAX_MM);
        let mut link = Vec::new();
        let (mut begun, mut at, mut made) = (0, 0, 0);
        for (i, s) in run.iter().enumerate() {
            link.push(*s);
            at += length(s);
            let Some(following) = run.get(i + 1).map(length) else {
                break;
            };
            // Cut at the segment end nearest to even spacing, and wherever the next segment would not fit.
            let ideal = total * (made + 1) / pieces;
            let nearest = made + 1 < pieces && at.abs_diff(ideal) <= (at + following).abs_diff(ideal);
            if nearest || at - begun + following > LINK_MAX_MM {
                out.push(Link {
                    segments: std::mem::take(&mut link),
                    length_mm: at - begun,
                });
                begun = at;
                made = (made + 1).min(pieces - 1);
            }
        }
        out.push(Link {
            segments: link,
            length_mm: total - begun,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawn::{build, chain, draw, tag};
    use super::*;

    fn links(n: &Network) -> Vec<String> {
        let mut all: Vec<String> = n.links().iter().map(|l| chain(n, &l.segments)).collect();
        all.sort();
        all
    }

    #[test]
    fn a_road_goes_on_over_ways_and_junctions() {
        let osm = draw(
            "
            . . C
            A . B . D",
            &["AB name=Main", "BC name=Side", "BD name=Main"],
        );
        let (n, _) = build(&osm);
        assert_eq!(links(&n), ["1:A>B 3:B>D", "2:B>C", "2:C>B", "3:D>B 1:B>A"]);
        assert!(n.links()[n.segments()[0].link as usize].segments.contains(&0));
    }

    #[test]
    fn signals_part_a_road_once_it_is_long_enough() {
        // Signals at B (100 m), C (250 m), D (500 m); E ends the road at 600 m, too short for a link of its own.
        let mut osm = draw(
            "A.B..C....D.E",
            &["AB oneway=yes", "BC oneway=yes", "CD oneway=yes", "DE oneway=yes"],
        );
        for node in ['B', 'C', 'D'] {
            tag(&mut osm, node, "highway=traffic_signals");
        }
        let (n, _) = build(&osm);
        assert_eq!(links(&n), ["1:A>B 2:B>C", "3:C>D 4:D>E"]);
    }

    #[test]
    fn long_roads_are_parted_evenly() {
        // 30 columns of 50 m: 1,500 m with a junction every 250 m.
        let osm = draw(
            "A....B....C....D....E....F....G",
            &[
                "AB oneway=yes",
                "BC oneway=yes",
                "CD oneway=yes",
                "DE oneway=yes",
                "EF oneway=yes",
                "FG oneway=yes",
            ],
        );
        let (n, _) = build(&osm);
        assert_eq!(links(&n), ["1:A>B 2:B>C 3:C>D", "4:D>E 5:E>F 6:F>G"]);
        assert!(n.links().iter().all(|l| l.length_mm.abs_diff(750_000) < 50));
    }

    #[test]
    fn a_ring_is_a_link_too() {
        let osm = draw(
            "
            .B.
            A.C
            .D.",
            &["ABC oneway=yes", "CDA oneway=yes"],
        );
        let (n, _) = build(&osm);
        let total: usize = n.links().iter().map(|l| l.segments.len()).sum();
        assert_eq!(total, n.segments().len());
    }

    #[test]
    fn buses_and_cars_share_no_link() {
        let osm = draw(
            "A..B..C",
            &[
                "AB oneway=yes name=Main",
                "BC oneway=yes name=Main access=no bus=yes",
            ],
        );
        let (n, _) = build(&osm);
        assert_eq!(links(&n), ["1:A>B", "2:B>C"]);
    }
}
