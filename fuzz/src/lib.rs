//! What several fuzz targets stand on: a small town, decoders of every known shape, an engine.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::sync::{Arc, LazyLock};

use viaflux::engine::{Engine, LOGIC_VERSION, LogSpec, Setup};
use viaflux::ingest::{
    Area, Datum, Decoder, Event, Feed, Field, FieldMapping, FieldSource, Format, Settings, SubjectKey, Unit,
};
use viaflux::locate::Sites;
use viaflux::network::osm::{OsmData, OsmNode, OsmRestriction, OsmWay};
use viaflux::network::{BuildSettings, Network};
use viaflux::service::city::City;
use viaflux::service::config::{Config, preset, preset_names};
use viaflux::units::{EventTime, Position};

/// The most memory that one input may take at once, in bytes.
pub const ALLOCATION_MAX: usize = 64 << 20;

/// The town: nine nodes in a square of 600 m, streets along the rows and columns, one of them one-way, a turn
/// restriction.
pub fn town() -> OsmData {
    let mut osm = OsmData::default();
    for i in 0..9_i64 {
        let (row, column) = ((i / 3) as f64, (i % 3) as f64);
        let mut tags = BTreeMap::new();
        if i == 4 {
            tags.insert("highway".to_owned(), "traffic_signals".to_owned());
        }
        osm.nodes.insert(
            i + 1,
            OsmNode {
                lat: 34.26 + row * 0.0027,
                lon: 108.94 + column * 0.0033,
                tags,
            },
        );
    }
    let streets: [(&[i64], &[(&str, &str)]); 6] = [
        (
            &[1, 2, 3],
            &[("highway", "primary"), ("name", "长安南路"), ("maxspeed", "60")],
        ),
        (
            &[4, 5, 6],
            &[("highway", "secondary"), ("oneway", "yes"), ("lanes", "2")],
        ),
        (&[7, 8, 9], &[("highway", "tertiary")]),
        (&[1, 4, 7], &[("highway", "residential")]),
        (&[2, 5, 8], &[("highway", "motorway_link")]),
        (&[3, 6, 9], &[("highway", "busway")]),
    ];
    for (i, (nodes, tags)) in streets.into_iter().enumerate() {
        osm.ways.push(OsmWay {
            id: 11 + i as i64,
            nodes: nodes.to_vec(),
            tags: owned(tags),
        });
    }
    osm.restrictions.push(OsmRestriction {
        id: 21,
        from: 12,
        via_node: Some(5),
        via_ways: Vec::new(),
        to: 15,
        tags: owned(&[("type", "restriction"), ("restriction", "no_left_turn")]),
    });
    osm.normalise();
    osm
}

fn owned(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
    tags.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

/// The town's network.
pub static NETWORK: LazyLock<Arc<Network>> =
    LazyLock::new(|| Arc::new(Network::build(&town(), &BuildSettings::default()).0));

/// The box in which the decoders believe positions.
pub fn area() -> Area {
    let (south_west, north_east) = NETWORK.bounds();
    Area::around(south_west, north_east, Settings::default().area_margin_m)
}

/// Ids that have a site.
pub fn sensors() -> HashSet<SubjectKey> {
    ["RS-0417", "d1", "7"].into_iter().map(SubjectKey::of).collect()
}

/// A mapping by hand, for the units and datums that no preset has.
fn odd(feed: Feed, format: Format, datum: Datum, fields: &[(Field, &str, Option<Unit>)]) -> FieldMapping {
    FieldMapping {
        feed,
        format,
        separator: None,
        datum,
        fields: fields
            .iter()
            .map(|(field, path, unit)| {
                (
                    *field,
                    FieldSource {
                        path: (*path).to_owned(),
                        unit: unit.clone(),
                    },
                )
            })
            .collect(),
    }
}

/// Every preset with each of its feeds, and mappings that use all other units and datums.
pub fn json_decoders() -> Vec<Decoder> {
    let mut mappings: Vec<FieldMapping> = preset_names()
        .flat_map(|name| [Feed::Probe, Feed::Sensor].map(|feed| preset(name, feed)))
        .flatten()
        .collect();
    assert!(mappings.len() >= preset_names().count());
    let local = Unit::Local("%Y-%m-%d %H:%M:%S".to_owned(), "Asia/Shanghai".to_owned());
    mappings.push(odd(
        Feed::Probe,
        Format::Json,
        Datum::Gcj02,
        &[
            (Field::VehicleId, "/v/0", None),
            (Field::EventTime, "/t", Some(local.clone())),
            (Field::Lat, "/p/lat", Some(Unit::E7)),
            (Field::Lon, "/p/lon", Some(Unit::E6)),
            (Field::Speed, "/s", Some(Unit::Mph)),
        ],
    ));
    mappings.push(odd(
        Feed::Sensor,
        Format::Json,
        Datum::Bd09,
        &[
            (Field::SensorId, "/id", None),
            (Field::EventTime, "/t", Some(Unit::S)),
            (Field::Interval, "/i", Some(Unit::Ms)),
            (Field::Lat, "/a~1b", None),
            (Field::Lon, "/a~0b", None),
            (Field::Speed, "/s", Some(Unit::Kph)),
            (Field::Count, "/n", None),
        ],
    ));
    mappings.into_iter().map(|m| decoder(m, None)).collect()
}

/// Feeds of rows: by header, by number of the column, with local time.
pub fn csv_decoders() -> Vec<Decoder> {
    let header = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut all = Vec::new();
    for (feed, columns) in [
        (
            Feed::Probe,
            "vehicle_id,event_time,lat,lon,speed_kph,heading_deg,accuracy_m,vehicle_class,occupied,fix",
        ),
        (
            Feed::Sensor,
            "sensor_id,collection_interval_start_date,collection_interval_end_date,average_speed_kph,volume_vph,\
             occupancy_percent,lat,lon,data_error",
        ),
    ] {
        let mut mapping = preset("viaflux", feed).expect("the preset has both feeds");
        mapping.format = Format::Csv;
        all.push(decoder(mapping, Some(&header(columns))));
    }
    let local = Unit::Local("%d/%m/%y %H:%M:%S".to_owned(), "Europe/Helsinki".to_owned());
    let fields = [
        (Field::VehicleId, "3", None),
        (Field::EventTime, "0", Some(local)),
        (Field::Lat, "1", Some(Unit::E6)),
        (Field::Lon, "2", Some(Unit::E7)),
        (Field::Occupied, "5", None),
        // Farther than a row can have columns.
        (Field::Speed, "70", Some(Unit::Knots)),
    ];
    all.push(decoder(
        odd(Feed::Probe, Format::Csv, Datum::Gcj02, &fields[..5]),
        None,
    ));
    all.push(decoder(odd(Feed::Probe, Format::Csv, Datum::Bd09, &fields), None));
    all
}

fn decoder(mapping: FieldMapping, header: Option<&[String]>) -> Decoder {
    Decoder::new(mapping, header, Settings::default(), area(), Arc::new(sensors())).keep_ids(true)
}

/// Decodes `payload` with one of `decoders` and checks that what is accepted is in range.
pub fn decode(decoders: &[Decoder], data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else {
        return;
    };
    let decoder = &decoders[usize::from(choice) % decoders.len()];
    let settings = Settings::default();
    let Ok(decoded) = decoder.decode(payload, 7) else {
        return;
    };
    assert_eq!(
        decoder.decode(payload, 7).as_ref(),
        Ok(&decoded),
        "the same bytes are the same event"
    );
    let event = &decoded.event;
    let id = decoded.id.as_deref().expect("ids were asked for");
    assert!(!id.is_empty() && id.len() <= 128);
    assert_eq!(event.subject(), SubjectKey::of(id));
    assert_eq!(event.offset(), 7);
    assert!((EventTime::MIN_PLAUSIBLE..=EventTime::MAX_PLAUSIBLE).contains(&event.time()));
    assert!(event.begin() <= event.time());
    let speed_max = settings.speed_max_mps * 1000;
    let inside = |p: Position| area().contains(p);
    match event {
        Event::Probe(p) => {
            assert!(inside(p.position));
            assert!(p.speed.is_none_or(|v| v <= speed_max));
            assert!(p.accuracy_mm.is_none_or(|a| a <= settings.max_accuracy_m * 1000));
            assert!(p.heading.is_none_or(|h| (0.0..360.0).contains(&h.degrees())));
        }
        Event::Measurement(m) => {
            assert!((1..=3_600_000).contains(&m.interval_ms));
            assert!(m.speed.is_none_or(|v| v <= speed_max));
            assert!(m.occupancy_permille.is_none_or(|o| o <= 1000));
            assert!(m.count_milli.is_none_or(|c| c <= 100_000_000));
            assert!(m.position.map_or_else(|| sensors().contains(&m.sensor), inside));
            assert!(m.heading.is_none_or(|h| (0.0..360.0).contains(&h.degrees())));
        }
    }
}

/// A small engine over the town: a probe log of two lanes and a sensor log.
pub fn engine() -> Engine {
    let config = Config::default();
    let network = Arc::clone(&NETWORK);
    let city = City::of(network, &[], &config).expect("the default configuration names no files but the map");
    let log = |name: &str, feed, lanes| LogSpec {
        name: name.to_owned(),
        source: name.to_owned(),
        decoder: Arc::new(decoder(
            preset("viaflux", feed).expect("the preset has both feeds"),
            None,
        )),
        feed,
        lanes,
        lateness_ms: 15_000,
        settings: Settings::default(),
    };
    let logs = vec![log("probes/0", Feed::Probe, 2), log("sensors/0", Feed::Sensor, 1)];
    let mut setup: Setup = city.setup(&config, logs, 1, true);
    setup.aggregate.shards = 2;
    setup.sites = Arc::new(Sites {
        segments: sensors()
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .zip(0..)
            .collect(),
        ..Sites::default()
    });
    Engine::new(setup)
}

/// The beginning of the engine's checkpoints, before compression: what says for whom they are.
pub fn checkpoint_header(engine: &Engine) -> Vec<u8> {
    let config = Config::default();
    let hash = *blake3::hash(config.hash().as_bytes()).as_bytes();
    let header = (
        LOGIC_VERSION,
        engine.map_version(),
        engine.baseline_version(),
        hash,
        ["probes/0", "sensors/0"].as_slice(),
    );
    postcard::to_stdvec(&header).expect("plain data encodes")
}

/// A checkpoint around `plain`, with a checksum that fits.
pub fn checkpoint(plain: &[u8]) -> Vec<u8> {
    let mut out = b"VIAFLUXC".to_vec();
    out.extend_from_slice(&2_u32.to_le_bytes());
    out.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    out.extend_from_slice(&zstd::bulk::compress(plain, 1).expect("compressing in memory"));
    sealed(out)
}

/// A map file around `content`, with a checksum that fits.
pub fn map_file(content: &[u8]) -> Vec<u8> {
    let mut out = b"VIAFLUXM".to_vec();
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(&(content.len() as u64).to_le_bytes());
    out.extend_from_slice(content);
    sealed(out)
}

/// `bytes` and their checksum.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

/// A file that is overwritten by each input, for decoders that read from a path.
pub struct Scratch(tempfile::NamedTempFile);

impl Scratch {
    /// A new one in memory, where the system has such a place.
    pub fn new(suffix: &str) -> Self {
        let dir = std::path::Path::new("/dev/shm");
        let dir = if dir.is_dir() {
            dir.to_owned()
        } else {
            std::env::temp_dir()
        };
        Self(
            tempfile::Builder::new()
                .suffix(suffix)
                .tempfile_in(dir)
                .expect("a temporary file"),
        )
    }

    /// The file with these bytes and no others.
    pub fn with(&mut self, bytes: &[u8]) -> &std::path::Path {
        use std::io::Seek;
        let file = self.0.as_file_mut();
        file.rewind()
            .and_then(|()| file.set_len(0))
            .expect("a temporary file can be emptied");
        file.write_all(bytes).expect("a temporary file can be written");
        self.0.path()
    }
}

/// Uses a network as the stages do, so that one that was accepted cannot fail later.
pub fn exercise(network: &Network) {
    let count = network.segments().len() as u32;
    let mut found = Vec::new();
    for i in (0..count).take(64) {
        let s = network.segment(i);
        assert!(s.length_mm > 0 && s.free_flow > 0 && s.lanes > 0);
        let middle = network.position_at(i, s.length_mm / 2);
        network.bearing_at(i, s.length_mm);
        network.candidates(middle, 50_000, &mut found);
        for c in &found {
            assert!(c.offset_mm <= network.segment(c.segment).length_mm);
        }
        for &next in network.successors(i) {
            assert_eq!(network.segment(next).from, s.to);
            network.turn_banned(i, next);
            network.sequence_banned(&[i], next);
        }
        assert!(network.geometry(i).len() >= 2);
        network.osm_nodes(i);
        network.name(i);
        network.link_key(s.link);
        if let Some(twin) = s.twin {
            network.segment(twin);
        }
        assert!(network.segments_of_way(s.key.way).contains(&i));
    }
    network.bounds();
}
