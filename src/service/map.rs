//! `viaflux map`: build, describe, ask and export the road network.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::network::osm::OsmData;
use crate::network::{BuildSettings, Candidate, Network, RoadClass, SegmentFlags};
use crate::units::{Bearing, Position, kph};

/// Build, describe, ask and export a road network.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  viaflux map build xian.osm.pbf -o xian.map\n  viaflux map info xian.map\n  \
                        viaflux map nearest xian.map 34.26 108.94\n  \
                        viaflux map export xian.map -o segments.ndjson.zst"
)]
pub struct MapArgs {
    #[command(subcommand)]
    command: MapCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum MapCommand {
    Build(BuildArgs),
    Info(InfoArgs),
    Nearest(NearestArgs),
    Export(ExportArgs),
}

impl MapArgs {
    /// Runs the command; `json` prints its report as JSON.
    ///
    /// # Errors
    /// Which file cannot be read or written, and why.
    pub fn run(self, json: bool) -> Result<()> {
        match self.command {
            MapCommand::Build(args) => args.run(json),
            MapCommand::Info(args) => args.run(json),
            MapCommand::Nearest(args) => args.run(json),
            MapCommand::Export(args) => args.run(),
        }
    }
}

/// Build a map from an OpenStreetMap extract (PBF or XML).
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  viaflux map build xian.osm.pbf -o xian.map\n  \
                        viaflux map build xian.osm.pbf -o xian.map --json")]
pub struct BuildArgs {
    /// OpenStreetMap extract, .osm.pbf or .osm.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Map to write.
    #[arg(short, long, value_name = "M")]
    pub output: PathBuf,
    /// Longest segment in metres; longer stretches are cut at shape nodes.
    #[arg(long, value_name = "METRES", default_value_t = BuildSettings::default().segment_max_m)]
    pub segment_max_m: f64,
}

impl BuildArgs {
    /// Builds and writes the map, and prints what was done with the extract.
    ///
    /// # Errors
    /// If the extract cannot be read or holds no road, or the map cannot be written.
    pub fn run(self, json: bool) -> Result<()> {
        if !(self.segment_max_m >= 10.0 && self.segment_max_m <= 100_000.0) {
            bail!(
                "--segment-max-m {} is not between 10 and 100000",
                self.segment_max_m
            );
        }
        let osm = OsmData::read(&self.file)?;
        let (network, report) = Network::build(
            &osm,
            &BuildSettings {
                segment_max_m: self.segment_max_m,
            },
        );
        if network.segments().is_empty() {
            bail!(
                "{} holds no road that motor vehicles may use\n{report}",
                self.file.display()
            );
        }
        network.save(&self.output)?;
        let mut out = io::stdout().lock();
        if json {
            let all = json!({"map": self.output, "map_version": network.version(), "report": report});
            writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        } else {
            writeln!(
                out,
                "{}: map version {}\n{report}",
                self.output.display(),
                network.version()
            )?;
        }
        Ok(())
    }
}

/// Describe a map.
#[derive(Clone, Debug, Args)]
pub struct InfoArgs {
    /// Map.
    #[arg(value_name = "M")]
    pub map: PathBuf,
}

/// What `map info` prints.
#[derive(Clone, Debug, Serialize)]
struct Info {
    map_version: String,
    segments: usize,
    nodes: usize,
    links: usize,
    shape_pieces: usize,
    length_km: f64,
    /// `[west, south, east, north]` in degrees.
    bbox: [f64; 4],
    km_by_class: BTreeMap<RoadClass, f64>,
    segment_mean_m: f64,
    segment_longest_m: f64,
    link_mean_m: f64,
    link_longest_m: f64,
    limits_tagged_ratio: f64,
    signal_ends: usize,
}

impl Info {
    fn of(network: &Network) -> Self {
        let segments = network.segments();
        let metres = |mm: u64| mm as f64 / 1000.0;
        let total: u64 = segments.iter().map(|s| u64::from(s.length_mm)).sum();
        let count = |flag| segments.iter().filter(|s| s.flags.has(flag)).count();
        let mut km_by_class = BTreeMap::new();
        for s in segments {
            *km_by_class.entry(s.class).or_insert(0.0) += f64::from(s.length_mm) / 1e6;
        }
        let (sw, ne) = network.bounds();
        let per = |n: usize| metres(total) / n.max(1) as f64;
        Self {
            map_version: network.version().to_owned(),
            segments: segments.len(),
            nodes: network.node_count(),
            links: network.links().len(),
            shape_pieces: network.index().pieces(),
            length_km: metres(total) / 1000.0,
            bbox: [sw.lon(), sw.lat(), ne.lon(), ne.lat()],
            km_by_class,
            segment_mean_m: per(segments.len()),
            segment_longest_m: metres(segments.iter().map(|s| u64::from(s.length_mm)).max().unwrap_or(0)),
            link_mean_m: per(network.links().len()),
            link_longest_m: metres(network.links().iter().map(|l| l.length_mm).max().unwrap_or(0)),
            limits_tagged_ratio: count(SegmentFlags::LIMIT_TAGGED) as f64 / segments.len().max(1) as f64,
            signal_ends: count(SegmentFlags::SIGNAL_END),
        }
    }
}

impl InfoArgs {
    /// Prints the map's version, size and extent.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn run(self, json: bool) -> Result<()> {
        let info = Info::of(&Network::load(&self.map)?);
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(&info)?)?;
            return Ok(());
        }
        let [west, south, east, north] = info.bbox;
        writeln!(out, "map version   {}", info.map_version)?;
        writeln!(out, "extent        lat {south} to {north}, lon {west} to {east}")?;
        writeln!(
            out,
            "segments      {} over {} nodes, {:.1} km directed, mean {:.0} m, longest {:.0} m",
            info.segments, info.nodes, info.length_km, info.segment_mean_m, info.segment_longest_m
        )?;
        writeln!(
            out,
            "links         {}, mean {:.0} m, longest {:.0} m",
            info.links, info.link_mean_m, info.link_longest_m
        )?;
        writeln!(
            out,
            "limits        {:.1} % of segments tagged",
            info.limits_tagged_ratio * 100.0
        )?;
        writeln!(out, "signals       at the end of {} segments", info.signal_ends)?;
        for (class, km) in &info.km_by_class {
            writeln!(out, "  {:<16}{km:>10.1} km", class.label())?;
        }
        Ok(())
    }
}

/// List the segments near a place, nearest first.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  viaflux map nearest city.map 34.26 108.94\n  \
                        viaflux map nearest city.map -23.55,-46.63 --heading 90 --radius-m 50")]
pub struct NearestArgs {
    /// Map.
    #[arg(value_name = "M")]
    pub map: PathBuf,
    /// Latitude in degrees (WGS-84), or both as LAT,LON.
    #[arg(value_name = "LAT", allow_hyphen_values = true)]
    pub lat: String,
    /// Longitude in degrees (WGS-84).
    #[arg(value_name = "LON", allow_negative_numbers = true)]
    pub lon: Option<f64>,
    /// How far to look.
    #[arg(long, value_name = "METRES", default_value_t = 100.0)]
    pub radius_m: f64,
    /// Only segments driven within 60 degrees of this heading.
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    pub heading: Option<f64>,
    /// Most segments to list.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub limit: usize,
}

impl NearestArgs {
    /// Prints the segments.
    ///
    /// # Errors
    /// If the map cannot be read, the place is none, or no segment lies near.
    pub fn run(self, json: bool) -> Result<()> {
        let degrees = |text: &str| text.trim().parse::<f64>().ok();
        let place = match (self.lat.split_once(','), self.lon) {
            (None, Some(lon)) => degrees(&self.lat).map(|lat| (lat, lon)),
            (Some((lat, lon)), None) => degrees(lat).zip(degrees(lon)),
            _ => None,
        };
        let Some((lat, lon)) = place else {
            let text = "a place is LAT and LON, such as 34.26 108.94 or -23.55,-46.63";
            return Err(super::cli::UsageError(text.to_owned()).into());
        };
        let Ok(at) = Position::from_degrees(lat, lon) else {
            bail!("{lat} {lon} is no place: LAT lies within ±90, LON within ±180");
        };
        if !(self.radius_m > 0.0 && self.radius_m <= 100_000.0) {
            bail!("--radius-m {} is not between 0 and 100000", self.radius_m);
        }
        let heading = match self.heading.map(|h| (h, Bearing::from_degrees(h))) {
            Some((h, None)) => bail!("--heading {h} is no angle"),
            other => other.and_then(|(_, bearing)| bearing),
        };
        let network = Network::load(&self.map)?;
        let mut found = Vec::new();
        network.candidates(at, (self.radius_m * 1000.0).round() as u32, &mut found);
        if let Some(heading) = heading {
            found.retain(|c| c.bearing.difference(heading) <= 6_000);
        }
        found.truncate(self.limit);
        if found.is_empty() {
            let (sw, ne) = network.bounds();
            bail!(
                "no segment within {} m of {lat} {lon}; the map spans lat {} to {}, lon {} to {}",
                self.radius_m,
                sw.lat(),
                ne.lat(),
                sw.lon(),
                ne.lon()
            );
        }
        let mut out = io::stdout().lock();
        if json {
            let all: Vec<Value> = found.iter().map(|c| describe(&network, c)).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
            return Ok(());
        }
        for c in &found {
            let s = network.segment(c.segment);
            writeln!(
                out,
                "{:>6.1} m  {:<36}  {:>5.1}°  {:<14} {:>3} km/h  at {:.1} of {:.1} m  {}",
                f64::from(c.distance_mm) / 1000.0,
                s.key.to_string(),
                c.bearing.degrees(),
                s.class.label(),
                s.limit_kph,
                f64::from(c.offset_mm) / 1000.0,
                f64::from(s.length_mm) / 1000.0,
                network.name(c.segment).unwrap_or("")
            )?;
        }
        Ok(())
    }
}

fn describe(network: &Network, c: &Candidate) -> Value {
    let s = network.segment(c.segment);
    json!({
        "segment_id": s.key.to_string(), "segment": c.segment, "link_id": network.link_key(s.link).to_string(),
        "way_id": s.key.way, "forward": !s.flags.has(SegmentFlags::BACKWARD),
        "distance_m": f64::from(c.distance_mm) / 1000.0, "offset_m": f64::from(c.offset_mm) / 1000.0,
        "length_m": f64::from(s.length_mm) / 1000.0, "heading_deg": c.bearing.degrees(),
        "class": s.class, "name": network.name(c.segment), "speed_limit_kph": s.limit_kph,
        "speed_limit_tagged": s.flags.has(SegmentFlags::LIMIT_TAGGED),
        "free_flow_speed_kph": (kph(s.free_flow) * 10.0).round() / 10.0, "lanes": s.lanes,
    })
}

/// Write all segments as NDJSON, one a line.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Map.
    #[arg(value_name = "M")]
    pub map: PathBuf,
    /// File to write; `-` is standard output, a name ending in .zst is compressed.
    #[arg(short, long, value_name = "F")]
    pub output: PathBuf,
}

impl ExportArgs {
    /// Writes the segments.
    ///
    /// # Errors
    /// If the map cannot be read or the file not be written.
    pub fn run(self) -> Result<()> {
        let network = Network::load(&self.map)?;
        if self.output == Path::new("-") {
            return export(&network, BufWriter::new(io::stdout().lock()))
                .context("writing to standard output");
        }
        let told = || format!("writing {}", self.output.display());
        let file = File::create(&self.output).with_context(told)?;
        if self.output.extension().is_some_and(|e| e == "zst") {
            let mut encoder = zstd::Encoder::new(BufWriter::new(file), 3).with_context(told)?;
            export(&network, &mut encoder).with_context(told)?;
            encoder
                .finish()
                .and_then(|mut rest| rest.flush())
                .with_context(told)
        } else {
            export(&network, BufWriter::new(file)).with_context(told)
        }
    }
}

fn export(network: &Network, mut out: impl Write) -> Result<()> {
    for (i, s) in network.segments().iter().enumerate() {
        let i = i as u32;
        let geometry: Vec<[f64; 2]> = network
            .geometry(i)
            .into_iter()
            .map(|p| [p.lon(), p.lat()])
            .collect();
        let line = json!({
            "segment_id": s.key.to_string(), "segment": i, "link_id": network.link_key(s.link).to_string(),
            "way_id": s.key.way, "forward": !s.flags.has(SegmentFlags::BACKWARD),
            "from_node": s.key.from_node, "to_node": s.key.to_node,
            "length_m": f64::from(s.length_mm) / 1000.0, "geometry": geometry,
        });
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        map: MapArgs,
    }

    const XML: &str = r#"<osm version="0.6">
        <node id="1" lat="-30.0" lon="-51.2"/><node id="2" lat="-30.0" lon="-51.199"/><node id="3" lat="-30.001" lon="-51.199"/>
        <way id="10"><nd ref="1"/><nd ref="2"/><nd ref="3"/><tag k="highway" v="primary"/><tag k="name" v="Rua A"/></way>
        </osm>"#;

    fn run(words: &[&str]) -> Result<()> {
        Cli::try_parse_from([&["map"], words].concat())
            .expect("the words are a command")
            .map
            .run(false)
    }

    #[test]
    fn builds_asks_and_exports() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (osm, map, lines, packed) = (
            path("a.osm"),
            path("a.map"),
            path("a.ndjson"),
            path("a.ndjson.zst"),
        );
        std::fs::write(&osm, XML).unwrap();
        run(&["build", &osm, "-o", &map]).unwrap();
        run(&["info", &map]).unwrap();
        run(&["nearest", &map, "-30.0001", "-51.1995"]).unwrap();
        run(&["nearest", &map, "-30.0001,-51.1995", "--limit", "1"]).unwrap();
        run(&[
            "nearest",
            "--limit",
            "1",
            &map,
            "-30.0001",
            "-51.1995",
            "--radius-m",
            "50",
        ])
        .unwrap();
        assert!(
            run(&["nearest", &map, "-30.0001"])
                .unwrap_err()
                .to_string()
                .contains("LAT and LON")
        );
        let far = run(&["nearest", &map, "49", "8"]).unwrap_err().to_string();
        assert!(far.contains("the map spans lat -30.001 to -30"), "{far}");
        run(&["export", &map, "-o", &lines]).unwrap();
        run(&["export", &map, "-o", &packed]).unwrap();

        let text = std::fs::read_to_string(&lines).unwrap();
        assert_eq!(
            zstd::decode_all(File::open(&packed).unwrap()).unwrap(),
            text.as_bytes()
        );
        let all: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(all.len(), 2);
        let forward = all.iter().find(|v| v["forward"] == true).unwrap();
        assert_eq!(forward["segment_id"], "10:1:3");
        assert_eq!(forward["link_id"], "10:1:3");
        assert_eq!(
            (&forward["way_id"], &forward["from_node"], &forward["to_node"]),
            (&json!(10), &json!(1), &json!(3))
        );
        assert_eq!(
            forward["geometry"],
            json!([[-51.2, -30.0], [-51.199, -30.0], [-51.199, -30.001]])
        );
        assert!(
            (forward["length_m"].as_f64().unwrap() - 207.4).abs() < 0.5,
            "{forward}"
        );
    }

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("empty.osm"), "<osm></osm>").unwrap();
        let told = |words: &[&str]| format!("{:#}", run(words).unwrap_err());
        assert!(told(&["build", &path("empty.osm"), "-o", &path("m")]).contains("holds no road"));
        assert!(told(&["build", &path("none.osm"), "-o", &path("m")]).contains("none.osm"));
        std::fs::write(path("text"), "hello, this is no map").unwrap();
        let message = told(&["info", &path("text")]);
        assert!(
            message.contains("text") && message.contains("viaflux map build"),
            "{message}"
        );
        assert!(told(&["build", &path("text"), "-o", &path("m")]).contains("not an OSM PBF file"));
        assert!(told(&["nearest", &path("text"), "91", "0"]).contains("no place"));
    }
}
