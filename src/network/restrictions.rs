//! Turn restrictions: from OSM relations to banned turns and banned sequences of segments (algorithms §1.5).

use std::collections::BTreeMap;

use super::build::BuildReport;
use super::osm::OsmRestriction;
use super::tags::Tags;
use super::*;

/// Longest chain of segments over via ways that is followed.
const VIA_MAX: usize = 64;
/// Most segments tried for one restriction. A way that crosses itself again and again has more chains than
/// can be counted; a real one needs a few dozen.
const TRIES_MAX: u32 = 20_000;

/// Banned turns and banned sequences.
pub(super) type Turns = (Vec<(SegmentIndex, SegmentIndex)>, Vec<Vec<SegmentIndex>>);

/// What a restriction says.
struct Rule {
    only: bool,
    conditional: bool,
}

/// Resolves restrictions on a network, and bans driving through the nodes `blocked` (sorted or not). Counts what was
/// kept and what was ignored.
pub(super) fn resolve(
    network: &Network,
    restrictions: &[OsmRestriction],
    blocked: &[i64],
    report: &mut BuildReport,
) -> Turns {
    let mut bans = Vec::new();
    let mut via_bans = Vec::new();
    report.restrictions_read = restrictions.len() as u64;
    for r in restrictions {
        let kept = rule(&r.tags).and_then(|rule| {
            if let Some(node) = r.via_node {
                at_node(network, r, node, rule.only, &mut bans)?;
            } else {
                over_ways(network, r, rule.only, &mut via_bans)?;
            }
            Ok(rule)
        });
        match kept {
            Ok(rule) => {
                report.restrictions_kept += 1;
                report.restrictions_conditional += u64::from(rule.conditional);
            }
            Err(reason) => *report.restrictions_ignored.entry(reason.to_owned()).or_default() += 1,
        }
    }
    let mut is_blocked = blocked.to_vec();
    is_blocked.sort_unstable();
    for (i, s) in network.segments().iter().enumerate() {
        if is_blocked.binary_search(&s.key.to_node).is_ok() {
            for &to in network.successors(i as u32) {
                if s.twin != Some(to) {
                    bans.push((i as u32, to));
                }
            }
        }
    }
    bans.sort_unstable();
    bans.dedup();
    via_bans.sort_unstable();
    via_bans.dedup();
    (bans, via_bans)
}

/// Reads the tags: the restriction for cars, timed or not.
fn rule(tags: &Tags) -> Result<Rule, &'static str> {
    let keys = [
        "restriction:motorcar",
        "restriction:motor_vehicle",
        "restriction:vehicle",
        "restriction",
    ];
    let plain = keys
        .iter()
        .find_map(|k| tags.get(*k).map(|v| (v.as_str(), false)));
    let timed = || {
        keys.iter().find_map(|k| {
            let value = tags.get(&format!("{k}:conditional"))?;
            Some((value.split('@').next().unwrap_or(value).trim(), true))
        })
    };
    let Some((kind, conditional)) = plain.or_else(timed) else {
        let other = tags.keys().any(|k| k.starts_with("restriction:"));
        return Err(if other { "not for cars" } else { "no kind" });
    };
    let excepts_cars = tags.get("except").is_some_and(|v| {
        v.split(';')
            .any(|x| matches!(x.trim(), "motorcar" | "motor_vehicle" | "vehicle" | "car"))
    });
    if excepts_cars {
        return Err("cars excepted");
    }
    if kind.starts_with("no_") {
        Ok(Rule {
            only: false,
            conditional,
        })
    } else if kind.starts_with("only_") {
        Ok(Rule {
            only: true,
            conditional,
        })
    } else {
        Err("unknown kind")
    }
}

/// Segments of a way that end at a node, and those that begin there.
fn at(network: &Network, way: i64, node: i64) -> (Vec<SegmentIndex>, Vec<SegmentIndex>) {
    let all = network.segments_of_way(way);
    let pick = |f: fn(&SegmentKey) -> i64| -> Vec<SegmentIndex> {
        let mut found: Vec<_> = all
            .iter()
            .copied()
            .filter(|&i| f(&network.segment(i).key) == node)
            .collect();
        found.sort_unstable();
        found
    };
    (pick(|k| k.to_node), pick(|k| k.from_node))
}

fn at_node(
    network: &Network,
    r: &OsmRestriction,
    node: i64,
    only: bool,
    bans: &mut Vec<(SegmentIndex, SegmentIndex)>,
) -> Result<(), &'static str> {
    known(network, r)?;
    let (arriving, _) = at(network, r.from, node);
    let (_, leaving) = at(network, r.to, node);
    if r.from == r.to && !only {
        // A U-turn ban names one way twice; it holds for every arm of the way at the node.
        let mut found = false;
        for &f in &arriving {
            if let Some(t) = network.segment(f).twin.filter(|t| leaving.contains(t)) {
                bans.push((f, t));
                found = true;
            }
        }
        return if found { Ok(()) } else { Err("no such turn") };
    }
    if arriving.is_empty() || leaving.is_empty() {
        // Against a one-way street, or a way that does not touch the node.
        return Err("no such turn");
    }
    if arriving.len() > 1 || leaving.len() > 1 {
        return Err("a way passes through the node");
    }
    let (from, to) = (arriving[0], leaving[0]);
    if only {
        bans.extend(
            network
                .successors(from)
                .iter()
                .filter(|&&t| t != to)
                .map(|&t| (from, t)),
        );
    } else {
        bans.push((from, to));
    }
    Ok(())
}

fn known(network: &Network, r: &OsmRestriction) -> Result<(), &'static str> {
    let mut ways = r.via_ways.iter().chain([&r.from, &r.to]);
    if ways.all(|&w| !network.segments_of_way(w).is_empty()) {
        Ok(())
    } else {
        Err("way not in the map")
    }
}

fn over_ways(
    network: &Network,
    r: &OsmRestriction,
    only: bool,
    via_bans: &mut Vec<Vec<SegmentIndex>>,
) -> Result<(), &'static str> {
    if r.via_ways.is_empty() {
        return Err("no via");
    }
    known(network, r)?;
    // All chains of segments: from, then each via way in turn, then to. The shortest are the ones that are meant.
    let mut chains: BTreeMap<usize, Vec<Vec<SegmentIndex>>> = BTreeMap::new();
    let mut tries = 0;
    for &from in network.segments_of_way(r.from) {
        let mut chain = vec![from];
        follow(network, r, 0, &mut chain, &mut chains, &mut tries);
    }
    if tries > TRIES_MAX {
        return Err("too many ways to read it");
    }
    let Some((_, mut found)) = chains.pop_first() else {
        return Err("no such turn");
    };
    found.sort_unstable();
    found.dedup();
    if found.len() > 1 {
        return Err("several ways to read it");
    }
    let chain = found.swap_remove(0);
    if !only {
        via_bans.push(chain);
        return Ok(());
    }
    let (to, driven) = chain.split_last().expect("a chain has from, via and to");
    let last = *driven.last().expect("a chain has from, via and to");
    for &other in network.successors(last).iter().filter(|t| *t != to) {
        let mut ban = driven.to_vec();
        ban.push(other);
        via_bans.push(ban);
    }
    Ok(())
}

/// Goes on from the chain's last segment: `done` via ways have been entered.
fn follow(
    network: &Network,
    r: &OsmRestriction,
    done: usize,
    chain: &mut Vec<SegmentIndex>,
    found: &mut BTreeMap<usize, Vec<Vec<SegmentIndex>>>,
    tries: &mut u32,
) {
    let shortest = found.keys().next().copied().unwrap_or(VIA_MAX);
    if chain.len() >= shortest {
        return;
    }
    let last = *chain.last().expect("begins with one");
    let here = network.segment(last).key.way;
    for &next in network.successors(last) {
        if network.segment(last).twin == Some(next) || chain.contains(&next) {
            continue;
        }
        *tries += 1;
        if *tries > TRIES_MAX {
            return;
        }
        let way = network.segment(next).key.way;
        chain.push(next);
        if done == r.via_ways.len() && way == r.to {
            found.entry(chain.len()).or_default().push(chain.clone());
        } else if done < r.via_ways.len() && way == r.via_ways[done] {
            follow(network, r, done + 1, chain, found, tries);
        } else if done > 0 && way == here {
            follow(network, r, done, chain, found, tries);
        }
        chain.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawn::{build, draw, restrict};

    /// A via way that joins every node with every other: the chains through it are without number, and none
    /// reaches the way at the restriction's end.
    #[test]
    fn a_tangled_via_way_is_given_up() {
        // An Eulerian circuit of the complete graph on A–I.
        let tangle = "ABCDEFGHIACEGIBDFHADGAEHBEIDHCGBFICFA";
        let mut osm = draw(
            "
            .A.B.C
            D.E.F.
            .G.H.I
            J....X
            K....Y",
            &["JA", &format!("{tangle} name=x"), "XY"],
        );
        restrict(
            &mut osm,
            1,
            Err(&[2]),
            3,
            "type=restriction restriction=no_u_turn",
        );
        let (_, report) = build(&osm);
        assert_eq!(report.restrictions_ignored["too many ways to read it"], 1);
    }
}
