//! Sensor sites: read from a file, bound to segments.
//!
//! Two shapes of file are read. `sensors.json`: an array of stations with `station`, `lat`, `lon` and, where known,
//! `heading_deg` (direction of the traffic measured), `highway` (road class), `way` and `way_dir` (OSM way and
//! `forward` or `backward`), and `lanes`: an array of `{sensor_id, lane_index}`; a station without lanes has a
//! `sensor_id` of its own. GeoJSON: a FeatureCollection of points whose properties have these names.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

/// Farthest that a site may lie from its segment, in mm: sensors stand beside wide roads, on gantries and poles.
const RADIUS_MM: u32 = 40_000;
/// Greatest difference of the site's heading from the segment's, in hundredths of a degree.
const HEADING_MAX: u16 = 4_500;
/// Another road that is not farther than the nearest by this much, in mm, makes a site ambiguous.
const APART_MM: u32 = 5_000;

/// One sensor and what is known of its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorSite {
    /// Id in the measurements.
    pub sensor_id: String,
    /// Station that it belongs to (the lane sensors of one cross-section); its own id if it stands alone.
    pub station: String,
    /// Where it stands.
    pub position: Position,
    /// Direction of the traffic it measures.
    pub heading: Option<Bearing>,
    /// Class of its road. A class that is no link stands for its links too: sources often do not tell them apart.
    pub class: Option<RoadClass>,
    /// OSM way of its road. Counts only if the map has that way.
    pub way: Option<i64>,
    /// Whether the traffic goes in the order of the way's nodes. Counts only with `way`.
    pub forward: Option<bool>,
    /// Lane, 0 at the right edge.
    pub lane: Option<u8>,
}

/// A sensor on its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSite {
    /// Id in the measurements.
    pub sensor_id: String,
    /// Station that it belongs to.
    pub station: String,
    /// Segment whose traffic it measures.
    pub segment: SegmentIndex,
    /// Place on the segment, in mm from its beginning.
    pub offset_mm: u32,
}

/// Why a sensor has no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// No segment lies near.
    NothingNear,
    /// Segments lie near, but none has the heading, class or way given.
    NothingFits {
        /// The property that the last of them failed: `way`, `class` or `heading`.
        property: &'static str,
    },
    /// Several roads fit equally well; the site needs a heading, a class or a way.
    Ambiguous {
        /// The nearest.
        first: SegmentKey,
        /// The other.
        second: SegmentKey,
        /// How much farther the other is, in mm.
        apart_mm: u32,
    },
}

impl Unbound {
    /// Short name of the reason.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NothingNear => "nothing_near",
            Self::NothingFits { .. } => "nothing_fits",
            Self::Ambiguous { .. } => "ambiguous",
        }
    }
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingNear => write!(f, "no road within {} m", RADIUS_MM / 1000),
            Self::NothingFits { property } => {
                write!(f, "no road within {} m has its {property}", RADIUS_MM / 1000)
            }
            Self::Ambiguous {
                first,
                second,
                apart_mm,
            } => write!(
                f,
                "ambiguous: segments {first} and {second} lie {:.1} m apart; give the site a heading_deg, highway or way",
                f64::from(*apart_mm) / 1000.0
            ),
        }
    }
}

/// Sites on their segments, and those without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Bound sensors, in the order given.
    pub sites: Vec<BoundSite>,
    /// Sensors without a segment and why, in the order given. Ambiguous ones are among them: nothing is guessed.
    pub unbound: Vec<(String, Unbound)>,
}

/// Why a file of sites cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SitesError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The JSON is neither shape of file.
    #[error("neither an array of stations nor a GeoJSON FeatureCollection of points")]
    Shape,
    /// One entry is not usable.
    #[error("station {index} (counted from 1): {what}")]
    Station {
        /// Place in the list, from 1.
        index: usize,
        /// What is wrong.
        what: String,
    },
    /// The same sensor stands twice in the file.
    #[error("sensor `{sensor_id}` is listed twice")]
    Twice {
        /// The id.
        sensor_id: String,
    },
}

/// Reads a file of sites, either shape.
///
/// # Errors
/// [`SitesError`], with the place in the file.
pub fn read_sites(path: impl AsRef<Path>) -> Result<Vec<SensorSite>, SitesError> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).map_err(|source| SitesError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse_sites(&text)
}

/// Reads sites from a text, either shape.
///
/// # Errors
/// [`SitesError`], with the place in the list.
pub fn parse_sites(text: &str) -> Result<Vec<SensorSite>, SitesError> {
    let value: Value = serde_json::from_str(text)?;
    let stations: Vec<&Value> = match &value {
        Value::Array(stations) => stations.iter().collect(),
        Value::Object(o) if o.get("type").and_then(Value::as_str) == Some("FeatureCollection") => o
            .get("features")
            .and_then(Value::as_array)
            .ok_or(SitesError::Shape)?
            .iter()
            .collect(),
        _ => return Err(SitesError::Shape),
    };
    let mut sites = Vec::new();
    for (i, station) in stations.into_iter().enumerate() {
        let wrong = |what| SitesError::Station { index: i + 1, what };
        station_sites(station, &mut sites).map_err(wrong)?;
    }
    let mut ids: Vec<&str> = sites.iter().map(|s: &SensorSite| s.sensor_id.as_str()).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(SitesError::Twice {
            sensor_id: w[0].to_owned(),
        }),
        None => Ok(sites),
    }
}

fn station_sites(station: &Value, sites: &mut Vec<SensorSite>) -> Result<(), String> {
    let feature = station.get("geometry").is_some();
    let properties = if feature {
        station.get("properties")
    } else {
        Some(station)
    };
    let properties = properties
        .filter(|p| p.is_object())
        .ok_or("it has no properties")?;
    let get = |key: &str| properties.get(key).filter(|v| !v.is_null());
    let number = |key: &str| match get(key) {
        None => Ok(None),
        Some(v) => v
            .as_f64()
            .map(Some)
            .ok_or_else(|| format!("`{key}` is no number")),
    };
    let text = |v: &Value| match v {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };

    let (lat, lon) = if feature {
        let point = station
            .get("geometry")
            .filter(|g| g.get("type").and_then(Value::as_str) == Some("Point"));
        let at = |i| point.and_then(|g| g.get("coordinates")?.get(i)?.as_f64());
        match (at(1), at(0)) {
            (Some(lat), Some(lon)) => (lat, lon),
            _ => return Err("its geometry is no Point with coordinates [lon, lat]".to_owned()),
        }
    } else {
        (
            number("lat")?.ok_or("`lat` is missing")?,
            number("lon")?.ok_or("`lon` is missing")?,
        )
    };
    let position =
        Position::from_degrees(lat, lon).map_err(|_| format!("lat {lat}, lon {lon} is no position"))?;
    let heading = number("heading_deg")?.and_then(Bearing::from_degrees);
    let class = match get("highway") {
        None => None,
        Some(v) => match v.as_str().and_then(RoadClass::from_highway) {
            Some(class) => Some(class),
            None => {
                return Err(format!(
                    "highway {v} is no road class; one looks like \"primary\""
                ));
            }
        },
    };
    let way = match get("way") {
        None => None,
        Some(v) => match v.as_i64().or_else(|| v.as_str()?.parse().ok()) {
            Some(way) => Some(way),
            None => return Err(format!("way {v} is no OSM id")),
        },
    };
    let forward = match get("way_dir").map(|v| v.as_str()) {
        None => None,
        Some(Some("forward")) => Some(true),
        Some(Some("backward")) => Some(false),
        Some(_) => return Err("`way_dir` is neither \"forward\" nor \"backward\"".to_owned()),
    };
    let own = get("sensor_id").and_then(text);
    let station_id = get("station").and_then(text);
    let site = |sensor_id: String, lane| SensorSite {
        station: station_id.clone().unwrap_or_else(|| sensor_id.clone()),
        sensor_id,
        position,
        heading,
        class,
        way,
        forward,
        lane,
    };
    match get("lanes").and_then(Value::as_array) {
        Some(lanes) => {
            for lane in lanes {
                let id = lane
                    .get("sensor_id")
                    .and_then(text)
                    .ok_or("a lane has no `sensor_id`")?;
                let index = lane
                    .get("lane_index")
                    .and_then(Value::as_u64)
                    .and_then(|n| u8::try_from(n).ok());
                sites.push(site(id, index));
            }
        }
        None => sites.push(site(own.ok_or("`sensor_id` and `lanes` are missing")?, None)),
    }
    Ok(())
}

/// Binds sites to segments by position and by heading, class and way, as far as they are given.
///
/// A way counts only if the map has it (maps age), and then alone decides among roads. Two roads that fit and lie
/// less than 5 m apart leave the site unbound, unless one continues the other.
pub fn bind(network: &Network, sites: &[SensorSite]) -> Bound {
    let mut bound = Bound::default();
    let mut near = Vec::new();
    for site in sites {
        network.candidates(site.position, RADIUS_MM, &mut near);
        match choose(network, site, &mut near) {
            Ok(place) => bound.sites.push(BoundSite {
                sensor_id: site.sensor_id.clone(),
                station: site.station.clone(),
                segment: place.segment,
                offset_mm: place.offset_mm,
            }),
            Err(reason) => bound.unbound.push((site.sensor_id.clone(), reason)),
        }
    }
    bound
}

fn choose(network: &Network, site: &SensorSite, near: &mut Vec<Candidate>) -> Result<Candidate, Unbound> {
    if near.is_empty() {
        return Err(Unbound::NothingNear);
    }
    let mut keep = |property, fits: &dyn Fn(&Candidate) -> bool| {
        near.retain(|c| fits(c));
        if near.is_empty() {
            Err(Unbound::NothingFits { property })
        } else {
            Ok(())
        }
    };
    let known_way = site.way.filter(|&w| !network.segments_of_way(w).is_empty());
    if let Some(way) = known_way {
        keep("way", &|c| network.segment(c.segment).key.way == way)?;
        if let Some(forward) = site.forward {
            keep("way direction", &|c| {
                network.segment(c.segment).flags.has(SegmentFlags::BACKWARD) != forward
            })?;
        }
    } else if let Some(class) = site.class {
        keep("class", &|c| {
            let here = network.segment(c.segment).class;
            here == class || here.without_link() == class
        })?;
    }
    if let Some(heading) = site.heading {
        keep("heading", &|c| c.bearing.difference(heading) <= HEADING_MAX)?;
    }
    let best = near[0];
    let nearest = network.segment(best.segment);
    let rival = near[1..]
        .iter()
        .take_while(|c| c.distance_mm - best.distance_mm < APART_MM)
        .find(|c| {
            let other = network.segment(c.segment);
            let continues =
                nearest.twin != Some(c.segment) && (other.from == nearest.to || other.to == nearest.from);
            !continues
        });
    match rival {
        Some(other) => Err(Unbound::Ambiguous {
            first: nearest.key,
            second: network.segment(other.segment).key,
            apart_mm: other.distance_mm - best.distance_mm,
        }),
        None => Ok(best),
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawn::{build, draw, seg};
    use super::*;

    /// Two carriageways 50 m apart, and a side road.
    fn network() -> Network {
        let osm = draw(
            "
            B.....A
            C..E..D
            ...F...",
            &[
                "AB oneway=yes highway=primary",
                "CED oneway=yes highway=primary",
                "EF",
            ],
        );
        build(&osm).0
    }

    fn site(n: &Network, segment: SegmentIndex, offset_mm: u32) -> SensorSite {
        SensorSite {
            sensor_id: "S".to_owned(),
            station: "S".to_owned(),
            position: n.position_at(segment, offset_mm),
            heading: None,
            class: None,
            way: None,
            forward: None,
            lane: None,
        }
    }

    #[test]
    fn heading_class_and_way_decide() {
        let n = network();
        let (ce, ef, fe) = (seg(&n, 2, 'C', 'E'), seg(&n, 3, 'E', 'F'), seg(&n, 3, 'F', 'E'));
        let bound = bind(&n, &[site(&n, ce, 50_000)]);
        assert_eq!(bound.sites[0].segment, ce);
        assert!(bound.sites[0].offset_mm.abs_diff(50_000) < 20);

        // Both directions of a two-way road fit without a heading.
        let mut on_side = site(&n, ef, 25_000);
        let bound = bind(&n, std::slice::from_ref(&on_side));
        assert_eq!(bound.unbound[0].1.label(), "ambiguous");
        assert!(
            bound.unbound[0].1.to_string().contains("heading_deg"),
            "{}",
            bound.unbound[0].1
        );
        on_side.heading = Bearing::from_degrees(10.0);
        assert_eq!(bind(&n, std::slice::from_ref(&on_side)).sites[0].segment, fe);
        on_side.heading = None;
        (on_side.way, on_side.forward) = (Some(3), Some(true));
        assert_eq!(bind(&n, std::slice::from_ref(&on_side)).sites[0].segment, ef);

        // A way that the map does not have is no way.
        let mut s = site(&n, ce, 50_000);
        s.way = Some(99);
        assert_eq!(bind(&n, std::slice::from_ref(&s)).sites[0].segment, ce);
        s.class = Some(RoadClass::Motorway);
        assert_eq!(
            bind(&n, &[s]).unbound[0].1,
            Unbound::NothingFits { property: "class" }
        );

        let far = SensorSite {
            position: Position::from_degrees(1.0, 1.0).unwrap(),
            ..site(&n, ce, 0)
        };
        assert_eq!(bind(&n, &[far]).unbound[0].1, Unbound::NothingNear);

        // Where a road goes on in the next segment, both fit and neither is wrong.
        let mut s = site(&n, seg(&n, 2, 'E', 'D'), 0);
        s.heading = Bearing::from_degrees(90.0);
        assert_eq!(n.segment(bind(&n, &[s]).sites[0].segment).key.way, 2);
    }

    #[test]
    fn reads_both_shapes_alike() {
        let stations = r#"[{"station":"S1","way":7,"way_dir":"backward","highway":"tertiary","lon":8.5,"lat":49.5,
            "heading_deg":94.9,"lanes":[{"sensor_id":"S1-L0","lane_index":0},{"sensor_id":"S1-L1","lane_index":1}]},
            {"sensor_id":"X","lat":49.25,"lon":8.25}]"#;
        let geojson = r#"{"type":"FeatureCollection","features":[
            {"type":"Feature","geometry":{"type":"Point","coordinates":[8.5,49.5]},"properties":
             {"station":"S1","way":"7","way_dir":"backward","highway":"tertiary","heading_deg":94.9,
              "lanes":[{"sensor_id":"S1-L0","lane_index":0},{"sensor_id":"S1-L1","lane_index":1}]}},
            {"type":"Feature","geometry":{"type":"Point","coordinates":[8.25,49.25]},"properties":{"sensor_id":"X"}}]}"#;
        let sites = parse_sites(stations).unwrap();
        assert_eq!(sites, parse_sites(geojson).unwrap());
        assert_eq!(sites.len(), 3);
        assert_eq!(
            (
                sites[1].sensor_id.as_str(),
                sites[1].station.as_str(),
                sites[1].lane
            ),
            ("S1-L1", "S1", Some(1))
        );
        assert_eq!(
            (sites[1].way, sites[1].forward, sites[1].class),
            (Some(7), Some(false), Some(RoadClass::Tertiary))
        );
        assert_eq!((sites[2].station.as_str(), sites[2].heading), ("X", None));
    }

    #[test]
    fn says_which_station_is_wrong() {
        let message = |text: &str| parse_sites(text).unwrap_err().to_string();
        assert!(message("{").contains("not JSON"));
        assert!(message("{}").contains("FeatureCollection"));
        let good = r#"{"sensor_id":"A","lat":1,"lon":2}"#;
        assert!(
            message(&format!(r#"[{good},{{"sensor_id":"B","lat":1}}]"#))
                .contains("station 2 (counted from 1): `lon` is missing")
        );
        assert!(message(r#"[{"sensor_id":"A","lat":91,"lon":2}]"#).contains("no position"));
        assert!(message(r#"[{"lat":1,"lon":2}]"#).contains("sensor_id"));
        assert!(message(r#"[{"sensor_id":"A","lat":1,"lon":2,"highway":"lane"}]"#).contains("no road class"));
        assert!(message(&format!("[{good},{good}]")).contains("`A` is listed twice"));
    }
}
