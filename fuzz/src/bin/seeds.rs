//! Writes a few seeds for every target into `fuzz/corpus/<target>/`. Run it in the folder of the main package.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use viaflux::engine::{Batch, Record};
use viaflux::network::osm::write_xml;
use viaflux_fuzz::{NETWORK, checkpoint_header, csv_decoders, engine, json_decoders, town};

const PROBE: &str = r#"{"vehicle_id":"taxi-1042","event_time":"2026-11-23T05:30:58.000Z","lat":34.261034,"lon":108.942262,"speed_kph":18.4,"heading_deg":92,"accuracy_m":6.0,"vehicle_class":"taxi","occupied":true,"satellites":9,"fix":1}"#;
const SENSOR: &str = r#"{"sensor_id":"RS-0417","collection_interval_start_date":"2026-11-23T05:30:00Z","collection_interval_end_date":"2026-11-23T05:31:00Z","average_speed_kph":41.2,"volume_vph":1260,"occupancy_percent":14.5,"lat":34.261,"lon":108.942,"heading_deg":-4,"data_error":false,"lane_data":[{"lane_order":1}]}"#;

const JSON: [&str; 12] = [
    PROBE,
    SENSOR,
    r#"{"position":{"fixTime":"2026-11-23T05:30:58.000+00:00","latitude":34.261,"longitude":108.942,"speed":9.7,"course":92,"valid":true,"attributes":{"sat":9}},"device":{"uniqueId":"a"}}"#,
    r#"{"VP":{"veh":1042,"tst":"2026-11-23T05:30:58.000Z","lat":34.261,"long":108.942,"spd":5.1,"hdg":92}}"#,
    r#"{"vehicle_id":"v1","ts":1795411858000,"lon":108.942,"lat":34.261,"speed_mps":5.1,"heading_deg":92.5,"accuracy_m":5}"#,
    r#"{"sensor_id":"d1","ts":1795411860000,"period_s":60,"count":21,"occupancy":14.5,"speed_mps":11.4}"#,
    r#"{"v":["x"],"v":{"0":"gcj"},"t":"2026-11-23 13:30:58","p":{"lat":342610340,"lon":108942262},"s":11.4}"#,
    r#"{"id":7,"t":1795411858.5,"i":60000,"a/b":34.2613,"a~b":108.9466,"s":41,"n":21}"#,
    r#"{"vehicle_id":"","event_time":-1,"lat":1e400,"lon":NaN}"#,
    r#"{"vehicle_id":"\ud834\udd1e","event_time":1795411858000,"lat":108.942262,"lon":34.261034}"#,
    "[[[[{}]]]]",
    "",
];

const CSV: [&str; 6] = [
    "taxi-1042,2026-11-23T05:30:58.000Z,34.261034,108.942262,18.4,92,6,taxi,true,1\n",
    "\"ta\"\"xi\",1795411858000, 34.261034 ,108.942262,,,,,,",
    "RS-0417,2026-11-23T05:30:00Z,2026-11-23T05:31:00Z,41.2,1260,14.5,34.261,108.942,false",
    "23/11/26 07:30:58,34261034,1089422620,id,0,1",
    "23/11/26 07:30:58,34261034,1089422620,id,0,1,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,9.9",
    "\r\n\"",
];

const LOG: &str = r#"{"schema":"viaflux.log/1","sources":[{"id":"probes","topic":"p","partitions":8,"log_append_time":true,"format":"json"},{"id":"s","topic":"s","partitions":1}]}
{"topic":"p","partition":3,"offset":17,"append_time_ms":1795411858012,"key":"taxi-1042","value_b64":"e30=","headers":{}}
{"topic":"p","partition":3,"offset":18,"append_time_ms":null,"key":null,"key_b64":"/w==","value_b64":null,"headers":{"a":null,"b":["x",{"b64":"AA=="}]}}
{"topic":"s","partition":0,"offset":18446744073709551615,"append_time_ms":0,"value_b64":"eyJraW5kIjoiaWRsZSJ9","headers":{"viaflux.control":"1"}}
"#;

const CONTROL: [&str; 4] = [
    r#"{"kind":"idle","watermark_ms":1795411858000}"#,
    r#"{"kind":"idle","watermark_ms":-9223372036854775808}"#,
    r#"{"kind":"later","watermark_ms":9223372036854775807}"#,
    r#"["idle",1]"#,
];

const SITES: [&str; 3] = [
    r#"[{"station":"st1","lat":34.26,"lon":108.9415,"heading_deg":90,"highway":"primary","way":11,"way_dir":"forward","lanes":[{"sensor_id":"d1","lane_index":0},{"sensor_id":7,"lane_index":300}]},{"sensor_id":"d3","lat":34.2627,"lon":108.9415}]"#,
    r#"{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Point","coordinates":[108.9415,34.26]},"properties":{"sensor_id":"RS-0417","heading_deg":null,"way":"12","way_dir":"backward"}}]}"#,
    "{}",
];

const CONFIG: [&str; 5] = [
    "[map]\nfile = \"v.map\"\n[ingest]\nallowed_lateness_s = 15\nmax_future_s = 60\n[assess.alert]\n[server]\nlisten = \"127.0.0.1:8080\"\n",
    "[[source]]\nid = \"a\"\nkind = \"file\"\npath = \"a.csv\"\nformat = \"csv\"\ndatum = \"gcj02\"\nstart = \"15m\"\n[source.fields]\nvehicle_id = \"id\"\nevent_time = { path = \"t\", unit = \"local:%Y@Asia/Shanghai\" }\nlat = \"y\"\nlon = \"x\"\n",
    "[[sink]]\nkind = \"file\"\npath = \"out\"\n[kafka]\nbrokers = [\"a:9092\"]\n[kafka.properties]\n\"fetch.min.bytes\" = 1\nx = 0xffffffffffffffffff\ny = 1e999\n",
    "SERVER__LISTEN=\"0.0.0.0:1\"\nSOURCE__0__PRESET=hfp\nKAFKA__PROPERTIES__SASL_PASSWORD=x\nSOURCE__9__ID=1\nLOG=[",
    "a = [[[[[[[[[[[[]]]]]]]]]]]]\nb.c.d.e.f.g = 1979-05-27T07:32:00Z\n",
];

fn main() -> io::Result<()> {
    let json = json_decoders().len() as u8;
    for (i, text) in JSON.iter().enumerate() {
        for choice in 0..json {
            seed(
                "decode_json",
                &format!("{i}-{choice}"),
                &[&[choice], text.as_bytes()].concat(),
            )?;
        }
    }
    let csv = csv_decoders().len() as u8;
    for (i, text) in CSV.iter().enumerate() {
        for choice in 0..csv {
            seed(
                "decode_csv",
                &format!("{i}-{choice}"),
                &[&[choice], text.as_bytes()].concat(),
            )?;
        }
    }
    texts("control", &CONTROL)?;
    texts("sites", &SITES)?;
    texts("config", &CONFIG)?;
    for (i, text) in CONFIG.iter().enumerate() {
        // So that the words of the schema stand in the corpus too.
        let commented = viaflux::service::config::example();
        seed(
            "config",
            &format!("example-{i}"),
            format!("{text}\n{commented}").as_bytes(),
        )?;
    }

    seed("event_log", "plain", LOG.as_bytes())?;
    seed("event_log", "zst", &zstd::bulk::compress(LOG.as_bytes(), 3)?)?;
    // What a level-22 file asks of its reader: a window of 128 MiB.
    seed("event_log", "zst-long", b"\x28\xb5\x2f\xfd\x04\x88\x01\x00\x00")?;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(LOG.as_bytes())?;
    seed("event_log", "gz", &gz.finish()?)?;

    let mut map = Vec::new();
    NETWORK.write(&mut map)?;
    seed("map_file", "whole", &map)?;
    seed("map_file", "content", &map[20..map.len() - 32])?;

    let mut xml = Vec::new();
    write_xml(&town(), &mut xml)?;
    seed("osm_xml", "town", &xml)?;
    seed("osm_xml", "via", VIA.as_bytes())?;
    seed("osm_pbf", "town", &pbf())?;

    let mut engine = engine();
    let header = checkpoint_header(&engine).len();
    let mut kept = |name: &str, engine: &viaflux::engine::Engine| {
        let whole = engine.checkpoint(b"companion");
        let length = u64::from_le_bytes(whole[12..20].try_into().expect("eight bytes")) as usize;
        let plain = zstd::bulk::decompress(&whole[20..whole.len() - 32], length)?;
        seed("checkpoint", &format!("{name}-whole"), &whole)?;
        seed("checkpoint", name, &plain[header..])
    };
    kept("empty", &engine)?;
    let mut batch = Batch::default();
    for i in 0..40_u64 {
        let text = PROBE
            .replace("05:30:58", &format!("05:{:02}:{:02}", 30 + i / 12, i % 12 * 5))
            .replace("34.261034", "34.26")
            .replace("108.942262", &format!("{}", 108.94 + i as f64 * 0.0002));
        batch.push(Record {
            log: 0,
            offset: i,
            append_time: None,
            control: false,
            key: b"",
            value: text.as_bytes(),
        });
        let (start, end) = (format!("05:{}:00Z", 30 + i), format!("05:{}:00Z", 31 + i));
        let text = SENSOR.replace("05:30:00Z", &start).replace("05:31:00Z", &end);
        if i < 4 {
            batch.push(Record {
                log: 1,
                offset: i,
                append_time: None,
                control: false,
                key: b"",
                value: text.as_bytes(),
            });
        }
    }
    engine.step(&batch, &mut Default::default(), &mut ());
    kept("busy", &engine)?;

    // Bytes for a log of a hundred steps; the fuzzer finds its own soon.
    let steps: Vec<u8> = (0..2000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    seed("ingest_machine", "steps", &steps)
}

fn texts(target: &str, texts: &[&str]) -> io::Result<()> {
    texts
        .iter()
        .enumerate()
        .try_for_each(|(i, text)| seed(target, &i.to_string(), text.as_bytes()))
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = Path::new("fuzz/corpus").join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)
}

const VIA: &str = r#"<?xml version='1.0'?><osm><node id="1" lat="34.26" lon="108.94"/><node id="2" lat="34.261" lon="108.94"><tag k="barrier" v="bollard"/></node>
<node id="3" lat="34.262" lon="108.94" visible="true"/><node id="4" lat="34.263" lon="108.941"/>
<way id="1"><nd ref="1"/><nd ref="2"/><nd ref="1"/><tag k="highway" v="primary"/><tag k="oneway" v="-1"/><tag k="maxspeed" v="30 mph"/></way>
<way id="2"><nd ref="2"/><nd ref="3"/><nd ref="2"/><nd ref="9"/><tag k="highway" v="trunk"/><tag k="maxspeed:forward" v="CN:urban"/><tag k="lanes" v="3;4"/></way>
<way id="3"><nd ref="3"/><nd ref="4"/><tag k="highway" v="residential"/><tag k="access" v="destination"/><tag k="junction" v="roundabout"/></way>
<relation id="1"><member type="way" ref="1" role="from"/><member type="way" ref="2" role="via"/><member type="way" ref="3" role="to"/><tag k="type" v="restriction"/><tag k="restriction:conditional" v="only_straight_on @ (Mo-Fr)"/></relation></osm>"#;

/// The smallest whole OSM PBF file: plain and dense nodes, a way, a restriction, uncompressed so that the
/// fuzzer changes what is in the blobs.
fn pbf() -> Vec<u8> {
    let strings: [&str; 14] = [
        "",
        "highway",
        "primary",
        "name",
        "长安南路",
        "type",
        "restriction",
        "no_u_turn",
        "from",
        "via",
        "to",
        "oneway",
        "yes",
        "traffic_signals",
    ];
    let table: Vec<u8> = strings.iter().flat_map(|s| field(1, s.as_bytes())).collect();
    let node = [
        varint_field(1, zigzag(1)),
        field(2, &[1]),
        field(3, &[13]),
        varint_field(8, zigzag(342_600_000)),
        varint_field(9, zigzag(1_089_400_000)),
    ]
    .concat();
    let deltas = |values: &[i64]| {
        values
            .iter()
            .flat_map(|v| varint(zigzag(*v)))
            .collect::<Vec<u8>>()
    };
    let dense = [
        field(1, &deltas(&[2, 1])),
        field(8, &deltas(&[342_600_000, 20_000])),
        field(9, &deltas(&[1_089_420_000, 10_000])),
        field(10, &[1, 13, 0, 0]),
    ]
    .concat();
    let way = [
        varint_field(1, 11),
        field(2, &[1, 3, 11]),
        field(3, &[2, 4, 12]),
        field(8, &deltas(&[1, 1, 1])),
    ]
    .concat();
    let relation = [
        varint_field(1, 21),
        field(2, &[5, 6]),
        field(3, &[6, 7]),
        field(8, &[8, 9, 10]),
        field(9, &deltas(&[11, -9, 9])),
        field(10, &[1, 0, 1]),
    ]
    .concat();
    let group = [
        field(1, &node),
        field(2, &dense),
        field(3, &way),
        field(4, &relation),
    ]
    .concat();
    let block = [field(1, &table), field(2, &group)].concat();
    let header = [field(4, b"OsmSchema-V0.6"), field(4, b"DenseNodes")].concat();
    [blob("OSMHeader", &header), blob("OSMData", &block)].concat()
}

fn blob(kind: &str, content: &[u8]) -> Vec<u8> {
    let blob = [field(1, content), varint_field(2, content.len() as u64)].concat();
    let header = [field(1, kind.as_bytes()), varint_field(3, blob.len() as u64)].concat();
    [&(header.len() as u32).to_be_bytes()[..], &header, &blob].concat()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

fn varint_field(number: u8, value: u64) -> Vec<u8> {
    [&[number << 3][..], &varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
