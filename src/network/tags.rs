//! What the tags of a way and of a node mean for the roads: class, access, direction, limit, lanes, signals.
//!
//! The rules are those of algorithms §1.1, §1.2 and §1.4; the order of the access keys is OSRM's
//! (`profiles/car.lua`: motorcar, motor_vehicle, vehicle, access).

use std::collections::BTreeMap;

use super::{RoadClass, SegmentFlags};
use crate::units::MmPerS;

/// Tags of one OSM object.
pub(super) type Tags = BTreeMap<String, String>;

fn get<'a>(tags: &'a Tags, key: &str) -> Option<&'a str> {
    tags.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
}

/// Keys of nodes that the build reads; the others are left out when an extract is read from PBF.
#[cfg(feature = "service")]
pub(super) const NODE_KEYS: [&str; 14] = [
    "highway",
    "barrier",
    "access",
    "vehicle",
    "motor_vehicle",
    "motorcar",
    "bus",
    "psv",
    "taxi",
    "bollard",
    "crossing",
    "crossing:signals",
    "direction",
    "traffic_signals:direction",
];

/// The road class of a `highway` value, `None` if nothing with four wheels drives there.
pub(super) fn class_of(highway: &str) -> Option<RoadClass> {
    use RoadClass::*;
    Some(match highway {
        "motorway" => Motorway,
        "motorway_link" => MotorwayLink,
        "trunk" => Trunk,
        "trunk_link" => TrunkLink,
        "primary" => Primary,
        "primary_link" => PrimaryLink,
        "secondary" => Secondary,
        "secondary_link" => SecondaryLink,
        "tertiary" => Tertiary,
        "tertiary_link" => TertiaryLink,
        "unclassified" | "road" => Unclassified,
        "residential" => Residential,
        "living_street" => LivingStreet,
        "busway" | "bus_guideway" => Busway,
        "service" => Service,
        _ => return None,
    })
}

/// Whether a reader keeps a way with these tags: its `highway` value is one of roads, or of a road under
/// construction. What is decided by other tags (area, access) is left to the build, which counts it.
#[cfg(feature = "service")]
pub(super) fn is_road(tags: &Tags) -> bool {
    get(tags, "highway").is_some_and(|h| h == "construction" || class_of(h).is_some())
}

/// Who may drive in one direction of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Private, destination or delivery traffic.
    Restricted,
    /// Buses (and taxis).
    BusOnly,
    /// Nobody that is matched.
    Closed,
}

/// What a way's tags say about the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Road {
    /// Road class.
    pub(super) class: RoadClass,
    /// Access in the order of the node list.
    pub(super) forward: Access,
    /// Access against the order of the node list.
    pub(super) backward: Access,
    /// Cars drive in one direction only.
    pub(super) oneway: bool,
    /// Flags equal in both directions.
    pub(super) flags: u16,
}

/// Reads a way's tags.
///
/// # Errors
/// The reason why the way is left out: a label of the build report.
pub(super) fn road(tags: &Tags) -> Result<Road, &'static str> {
    let highway = get(tags, "highway").ok_or("no highway")?;
    let class = if highway == "construction" {
        let open = ["motorcar", "motor_vehicle", "vehicle", "access"]
            .iter()
            .find_map(|k| get(tags, k))
            .is_some_and(|v| matches!(v, "yes" | "permissive" | "designated" | "destination"));
        if !open {
            return Err("construction");
        }
        get(tags, "construction")
            .and_then(class_of)
            .ok_or("construction")?
    } else {
        class_of(highway).ok_or("highway")?
    };
    if get(tags, "area") == Some("yes") {
        return Err("area");
    }
    let mut flags = 0;
    for (key, flag) in [("bridge", SegmentFlags::BRIDGE), ("tunnel", SegmentFlags::TUNNEL)] {
        if get(tags, key).is_some_and(|v| v != "no" && v != "building_passage") {
            flags |= flag;
        }
    }
    let roundabout = matches!(get(tags, "junction"), Some("roundabout" | "circular"));
    if roundabout {
        flags |= SegmentFlags::ROUNDABOUT;
    }
    if class == RoadClass::Service {
        flags |= SegmentFlags::MINOR;
    }

    let oneway_value = [
        "oneway:motorcar",
        "oneway:motor_vehicle",
        "oneway:vehicle",
        "oneway",
    ]
    .iter()
    .find_map(|k| get(tags, k));
    let tidal = get(tags, "oneway:conditional").is_some()
        || matches!(oneway_value, Some("reversible" | "alternating"));
    let direction = if tidal {
        flags |= SegmentFlags::TIDAL;
        0
    } else {
        match oneway_value {
            Some("yes" | "true" | "1") => 1,
            Some("-1" | "reverse") => -1,
            Some("no" | "false" | "0") => 0,
            _ => i32::from(roundabout || class == RoadClass::Motorway),
        }
    };
    let mut forward = access(tags, class, "forward");
    let mut backward = access(tags, class, "backward");
    let contraflow = if contraflow_bus(tags) {
        Access::BusOnly
    } else {
        Access::Closed
    };
    match direction {
        1 => backward = contraflow,
        -1 => forward = contraflow,
        _ => {}
    }
    if forward == Access::Closed && backward == Access::Closed {
        return Err("access");
    }
    Ok(Road {
        class,
        forward,
        backward,
        oneway: direction != 0,
        flags,
    })
}

/// Access in one direction: the most specific key decides, with its directed form first.
fn access(tags: &Tags, class: RoadClass, direction: &str) -> Access {
    let value = |key: &str| get(tags, &format!("{key}:{direction}")).or_else(|| get(tags, key));
    let bus = || {
        ["bus", "psv", "taxi", "tourist_bus", "minibus"]
            .iter()
            .any(|k| value(k).is_some_and(|v| matches!(v, "yes" | "designated" | "official" | "permissive")))
    };
    if class == RoadClass::Busway {
        return if value("bus").or_else(|| value("psv")) == Some("no") {
            Access::Closed
        } else {
            Access::BusOnly
        };
    }
    let car = ["motorcar", "motor_vehicle", "vehicle", "access"]
        .iter()
        .find_map(|k| value(k));
    match car {
        Some("no" | "emergency" | "military" | "use_sidepath") if bus() => Access::BusOnly,
        Some("no" | "emergency" | "military" | "use_sidepath") => Access::Closed,
        Some("psv" | "bus" | "taxi" | "psv;taxi" | "bus;taxi") => Access::BusOnly,
        Some(
            "private"
            | "destination"
            | "delivery"
            | "customers"
            | "permit"
            | "residents"
            | "agricultural"
            | "forestry"
            | "agricultural;forestry"
            | "forestry;agricultural"
            | "employees",
        ) => Access::Restricted,
        _ => Access::Open,
    }
}

/// Whether buses may drive against a one-way road.
fn contraflow_bus(tags: &Tags) -> bool {
    ["oneway:bus", "oneway:psv", "oneway:taxi"]
        .iter()
        .any(|k| matches!(get(tags, k), Some("no" | "false" | "0")))
        || ["busway", "busway:left", "busway:right", "busway:both"]
            .iter()
            .any(|k| {
                matches!(
                    get(tags, k),
                    Some("opposite_lane" | "opposite" | "opposite_track")
                )
            })
        || ["lanes:bus:backward", "lanes:psv:backward"].iter().any(|k| {
            get(tags, k)
                .and_then(|v| v.parse::<u32>().ok())
                .is_some_and(|n| n > 0)
        })
}

/// Legal limit where none is posted and prior free-flow speed, in km/h (algorithms §1.4; a link has its
/// class's limit less 20 and 0.6 of its prior; a busway is taken as a tertiary road with a limit of 50).
pub(super) const fn class_speeds(class: RoadClass) -> (u8, f64) {
    use RoadClass::*;
    match class {
        Motorway => (120, 95.0),
        MotorwayLink => (100, 57.0),
        Trunk => (80, 65.0),
        TrunkLink => (60, 39.0),
        Primary => (60, 45.0),
        PrimaryLink => (40, 27.0),
        Secondary => (50, 38.0),
        SecondaryLink => (30, 22.8),
        Tertiary => (40, 32.0),
        TertiaryLink => (20, 19.2),
        Unclassified | Residential => (30, 25.0),
        LivingStreet => (20, 12.0),
        Busway => (50, 32.0),
        Service => (20, 12.0),
    }
}

/// Prior of the free-flow speed in mm/s: the class's, but not above the limit.
pub(super) fn prior_free_flow(class: RoadClass, limit_kph: u8) -> MmPerS {
    let kph = class_speeds(class).1.min(f64::from(limit_kph));
    ((kph * 1_000_000.0 / 3600.0).round() as MmPerS).max(1)
}

/// The limit in km/h in one direction, and whether it stands in the map.
pub(super) fn limit(tags: &Tags, class: RoadClass, forward: bool) -> (u8, bool) {
    let directed = if forward {
        "maxspeed:forward"
    } else {
        "maxspeed:backward"
    };
    for key in [
        directed,
        "maxspeed",
        "zone:maxspeed",
        "source:maxspeed",
        "maxspeed:type",
    ] {
        match get(tags, key).map(parse_limit) {
            Some(Limit::Kph(kph)) => return (kph, true),
            Some(Limit::ClassDefault) => return (class_speeds(class).0, false),
            Some(Limit::Unknown) | None => {}
        }
    }
    let lanes = if forward {
        "maxspeed:lanes:forward"
    } else {
        "maxspeed:lanes:backward"
    };
    for key in [lanes, "maxspeed:lanes"] {
        let fastest = get(tags, key).and_then(|v| {
            v.split('|')
                .filter_map(|lane| match parse_limit(lane.trim()) {
                    Limit::Kph(kph) => Some(kph),
                    _ => None,
                })
                .max()
        });
        if let Some(kph) = fastest {
            return (kph, true);
        }
    }
    (class_speeds(class).0, false)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// A posted or implied speed.
    Kph(u8),
    /// No limit, or one that depends on the country: the class's default holds.
    ClassDefault,
    /// Not understood.
    Unknown,
}

/// One `maxspeed` value. Speeds below 10 km/h are ignored and those above 140 clamped, as Valhalla does
/// (`docs/concepts/speeds.md`); walking pace counts as 10.
fn parse_limit(text: &str) -> Limit {
    let text = text.trim();
    match text {
        "none" => return Limit::ClassDefault,
        "walk" => return Limit::Kph(10),
        _ => {}
    }
    if let Some((_, zone)) = text.split_once(':') {
        // "DE:urban", "DE:zone30", "DE:zone:30", "FR:30"
        let digits = zone.trim_start_matches(|c: char| !c.is_ascii_digit());
        return match zone {
            "urban" => Limit::Kph(50),
            "living_street" | "walk" | "bicycle_road" | "rural" | "motorway" | "trunk" | "nsl_single"
            | "nsl_dual" => Limit::ClassDefault,
            _ => number(digits, 1.0),
        };
    }
    for (unit, factor) in [
        ("mph", 1.609_344),
        ("km/h", 1.0),
        ("kmh", 1.0),
        ("kph", 1.0),
        ("knots", 1.852),
    ] {
        if let Some(value) = text.strip_suffix(unit) {
            return number(value.trim(), factor);
        }
    }
    // "50; 30": the lowest of several holds somewhere on the way; the first is the posted one.
    number(text.split(';').next().unwrap_or(text).trim(), 1.0)
}

fn number(text: &str, factor: f64) -> Limit {
    match text.parse::<f64>() {
        Ok(value) if (10.0..1000.0).contains(&(value * factor)) => {
            Limit::Kph((value * factor).round().min(140.0) as u8)
        }
        _ => Limit::Unknown,
    }
}

/// Lanes in one direction, at least 1.
pub(super) fn lanes(tags: &Tags, class: RoadClass, oneway: bool, forward: bool) -> u8 {
    let count = |key: &str| {
        get(tags, key)
            .and_then(|v| v.parse::<f64>().ok())
            .filter(|n| (0.0..=20.0).contains(n))
            .map(|n| n as u8)
    };
    let (own, other) = if forward {
        ("lanes:forward", "lanes:backward")
    } else {
        ("lanes:backward", "lanes:forward")
    };
    let known = match (count(own), count("lanes")) {
        (Some(n), _) => Some(n),
        (None, Some(n)) if oneway => Some(n),
        (None, Some(n)) => match count(other) {
            Some(m) => Some(n.saturating_sub(m)),
            None => Some(n.saturating_sub(count("lanes:both_ways").unwrap_or(0)) / 2),
        },
        (None, None) => None,
    };
    known
        .unwrap_or(if matches!(class, RoadClass::Motorway | RoadClass::Trunk) {
            2
        } else {
            1
        })
        .max(1)
}

/// The name of a road: its `name`, else its number (`ref`).
pub(super) fn name(tags: &Tags) -> Option<&str> {
    get(tags, "name").or_else(|| get(tags, "ref"))
}

/// A device for the traffic at a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    /// A traffic signal, with or without a crossing.
    pub(super) signal: bool,
    /// The signal of a pedestrian crossing.
    pub(super) crossing: bool,
    /// A stop or give-way sign.
    pub(super) yields: bool,
    /// A toll booth.
    pub(super) toll: bool,
    /// A barrier that stops cars.
    pub(super) blocked: bool,
    /// Holds for traffic in the order of the way's nodes.
    pub(super) forward: bool,
    /// Holds for traffic against the order of the way's nodes.
    pub(super) backward: bool,
}

/// Reads a node's tags.
pub(super) fn control(tags: &Tags) -> Control {
    if tags.is_empty() {
        return Control::default();
    }
    let highway = get(tags, "highway");
    let crossing_signal =
        get(tags, "crossing") == Some("traffic_signals") || get(tags, "crossing:signals") == Some("yes");
    let signal = highway == Some("traffic_signals") || (highway == Some("crossing") && crossing_signal);
    let barrier = get(tags, "barrier");
    let direction = get(tags, "traffic_signals:direction").or_else(|| get(tags, "direction"));
    Control {
        signal,
        crossing: signal && get(tags, "crossing").is_some_and(|v| v != "no"),
        yields: matches!(highway, Some("stop" | "give_way")),
        toll: barrier == Some("toll_booth") || highway == Some("toll_gantry"),
        blocked: barrier.is_some_and(|b| blocks(b, tags)),
        forward: direction != Some("backward"),
        backward: direction != Some("forward"),
    }
}

/// Whether a barrier stops cars: all do but those that open or only slow down (the list is OSRM's, `car.lua`),
/// unless the node's own access tags say otherwise. What buses pass does not count as blocked.
fn blocks(barrier: &str, tags: &Tags) -> bool {
    let allowed = |v: &str| !matches!(v, "no" | "agricultural" | "forestry" | "emergency" | "military");
    if ["bus", "psv", "taxi"]
        .iter()
        .any(|k| get(tags, k).is_some_and(|v| matches!(v, "yes" | "designated")))
    {
        return false;
    }
    if let Some(v) = ["motorcar", "motor_vehicle", "vehicle", "access"]
        .iter()
        .find_map(|k| get(tags, k))
    {
        return !allowed(v);
    }
    match barrier {
        "bollard" => get(tags, "bollard") != Some("rising"),
        "cattle_grid" | "border_control" | "toll_booth" | "sally_port" | "gate" | "lift_gate"
        | "swing_gate" | "no" | "entrance" | "height_restrictor" | "arch" | "kerb" | "rising_bollard"
        | "speed_bump" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    fn road_of(pairs: &[(&str, &str)]) -> Result<Road, &'static str> {
        road(&tags(pairs))
    }

    #[test]
    fn speed_limits_in_all_forms() {
        let kph = |pairs: &[(&str, &str)]| limit(&tags(pairs), RoadClass::Primary, true);
        assert_eq!(kph(&[("maxspeed", "50")]), (50, true));
        assert_eq!(kph(&[("maxspeed", "30 mph")]), (48, true));
        assert_eq!(kph(&[("maxspeed", "30mph")]), (48, true));
        assert_eq!(kph(&[("maxspeed", "70 km/h")]), (70, true));
        assert_eq!(kph(&[("maxspeed", "walk")]), (10, true));
        assert_eq!(kph(&[("maxspeed", "none")]), (60, false));
        assert_eq!(kph(&[("maxspeed", "300")]), (140, true));
        assert_eq!(kph(&[("maxspeed", "5")]), (60, false), "below 10 km/h is ignored");
        assert_eq!(kph(&[("maxspeed", "fast")]), (60, false));
        assert_eq!(kph(&[("maxspeed", "50;30")]), (50, true));
        assert_eq!(kph(&[("maxspeed", "DE:urban")]), (50, true));
        assert_eq!(kph(&[("zone:maxspeed", "DE:30")]), (30, true));
        assert_eq!(kph(&[("source:maxspeed", "DE:zone:20")]), (20, true));
        assert_eq!(kph(&[("source:maxspeed", "sign")]), (60, false));
        assert_eq!(kph(&[("maxspeed:lanes", "80|60|none")]), (80, true));
        assert_eq!(kph(&[]), (60, false));
        let both = tags(&[
            ("maxspeed:forward", "70"),
            ("maxspeed:backward", "30"),
            ("maxspeed", "50"),
        ]);
        assert_eq!(limit(&both, RoadClass::Primary, true), (70, true));
        assert_eq!(limit(&both, RoadClass::Primary, false), (30, true));
    }

    #[test]
    fn the_prior_is_the_class_speed_below_the_limit() {
        assert_eq!(prior_free_flow(RoadClass::Primary, 60), 12_500);
        assert_eq!(prior_free_flow(RoadClass::Primary, 30), 8_333);
        assert_eq!(prior_free_flow(RoadClass::SecondaryLink, 50), 6_333);
    }

    #[test]
    fn access_follows_the_most_specific_key() {
        let r = road_of(&[
            ("highway", "residential"),
            ("access", "no"),
            ("motor_vehicle", "yes"),
        ])
        .unwrap();
        assert_eq!((r.forward, r.backward), (Access::Open, Access::Open));
        assert_eq!(
            road_of(&[("highway", "residential"), ("motor_vehicle", "no")]),
            Err("access")
        );
        assert_eq!(road_of(&[("highway", "footway")]), Err("highway"));
        assert_eq!(road_of(&[("highway", "service"), ("area", "yes")]), Err("area"));
        for key in ["bus", "psv", "taxi"] {
            let r = road_of(&[("highway", "primary"), ("access", "no"), (key, "yes")]).unwrap();
            assert_eq!(r.forward, Access::BusOnly, "{key}");
        }
        let r = road_of(&[("highway", "service"), ("access", "private")]).unwrap();
        assert_eq!((r.forward, r.flags), (Access::Restricted, SegmentFlags::MINOR));
        let r = road_of(&[("highway", "residential"), ("motor_vehicle:backward", "no")]).unwrap();
        assert_eq!((r.forward, r.backward), (Access::Open, Access::Closed));
        let r = road_of(&[("highway", "busway")]).unwrap();
        assert_eq!((r.class, r.forward), (RoadClass::Busway, Access::BusOnly));
        assert_eq!(
            road_of(&[("highway", "construction"), ("construction", "primary")]),
            Err("construction")
        );
        let open = [
            ("highway", "construction"),
            ("construction", "primary"),
            ("motor_vehicle", "yes"),
        ];
        assert_eq!(road_of(&open).unwrap().class, RoadClass::Primary);
    }

    #[test]
    fn one_way_forms() {
        let dir = |pairs: &[(&str, &str)]| {
            let r = road_of(pairs).unwrap();
            (r.forward, r.backward)
        };
        use Access::*;
        assert_eq!(dir(&[("highway", "primary"), ("oneway", "yes")]), (Open, Closed));
        assert_eq!(dir(&[("highway", "primary"), ("oneway", "-1")]), (Closed, Open));
        assert_eq!(dir(&[("highway", "primary"), ("oneway", "no")]), (Open, Open));
        assert_eq!(dir(&[("highway", "motorway")]), (Open, Closed));
        assert_eq!(dir(&[("highway", "motorway"), ("oneway", "no")]), (Open, Open));
        assert_eq!(
            dir(&[("highway", "primary"), ("junction", "roundabout")]),
            (Open, Closed)
        );
        assert_eq!(
            dir(&[("highway", "primary"), ("oneway", "yes"), ("oneway:bus", "no")]),
            (Open, BusOnly)
        );
        let r = road_of(&[("highway", "primary"), ("oneway", "reversible")]).unwrap();
        assert_eq!(
            (r.forward, r.backward, r.flags),
            (Open, Open, SegmentFlags::TIDAL)
        );
    }

    #[test]
    fn lanes_by_direction() {
        let n = |pairs: &[(&str, &str)], oneway, forward| {
            lanes(&tags(pairs), RoadClass::Primary, oneway, forward)
        };
        assert_eq!(n(&[("lanes", "4")], false, true), 2);
        assert_eq!(n(&[("lanes", "4")], true, true), 4);
        assert_eq!(n(&[("lanes", "3"), ("lanes:backward", "1")], false, true), 2);
        assert_eq!(n(&[("lanes", "1")], false, true), 1);
        assert_eq!(n(&[("lanes", "many")], false, true), 1);
        assert_eq!(lanes(&Tags::new(), RoadClass::Motorway, true, true), 2);
    }

    #[test]
    fn barriers_and_signals() {
        assert!(control(&tags(&[("barrier", "bollard")])).blocked);
        assert!(!control(&tags(&[("barrier", "bollard"), ("motor_vehicle", "yes")])).blocked);
        assert!(!control(&tags(&[("barrier", "lift_gate")])).blocked);
        assert!(control(&tags(&[("barrier", "gate"), ("access", "no")])).blocked);
        let c = control(&tags(&[
            ("highway", "traffic_signals"),
            ("traffic_signals:direction", "forward"),
        ]));
        assert!(c.signal && c.forward && !c.backward && !c.crossing);
        assert!(control(&tags(&[("highway", "crossing"), ("crossing", "traffic_signals")])).crossing);
        assert!(!control(&tags(&[("highway", "crossing"), ("crossing", "zebra")])).signal);
        assert!(control(&tags(&[("barrier", "toll_booth")])).toll);
    }
}
