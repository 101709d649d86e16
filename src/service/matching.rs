//! `viaflux match`: whole traces onto the map.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;
use serde_json::json;

use super::cli::{self, Global, UsageError};
use super::config::{Config, Source};
use crate::ingest::{Area, Feed};
use crate::locate::{Decided, Decisions, Fix, Lag, Matcher, Settings, Track, Unlocated};
use crate::network::{Network, SegmentFlags, SegmentIndex};
use crate::source::traces::{self, ASSUMED_MPS, Rows, Trace, Traces};
use crate::units::{EventTime, Position};

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The ways driven, as a FeatureCollection with one feature for each track.
    Geojson,
    /// The places of all points, one a line.
    Ndjson,
}

/// Match whole traces to the map.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viaflux match ride.gpx --map city.map -o ride.geojson
  viaflux match tracks.csv.gz --map city.map --format ndjson -o matched.ndjson.zst
  viaflux match forwarded.ndjson --map city.map --preset traccar -o ways.geojson
  zstdcat taxis.ndjson.zst | viaflux match - --map city.map --format ndjson

What a file is, its first bytes tell. Columns of CSV and members of NDJSON are known by their common names; others
need --preset or --source. Points are brought into the order of time; where times are missing, a steady 10 m/s is
assumed. What was done is said on stderr. docs/formats.md tells the rest.")]
pub struct MatchArgs {
    /// Traces: GPX, CSV with a header row, or NDJSON; plain, .gz or .zst; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Map file, made by `viaflux map build` [default: that of the configuration]
    #[arg(long, value_name = "M")]
    map: Option<PathBuf>,
    /// Form of the output [default: by the name of OUT, else geojson]
    #[arg(long)]
    format: Option<Form>,
    /// Where to write; - is standard output, a name ending in .zst is compressed
    #[arg(short, long, value_name = "OUT", default_value = "-")]
    out: PathBuf,
    /// Add the matched points to the GeoJSON, as features of their own
    #[arg(long)]
    points: bool,
    /// Shape of NDJSON or CSV rows: viaflux, traccar, hfp, simulated-city
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    preset: Option<String>,
    /// Read the rows as this [[source]] of the configuration does
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// What stands between the columns of a CSV row [default: seen from its first line]
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
    /// Threads; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::thread_count)]
    threads: usize,
}

impl MatchArgs {
    /// Matches and writes; the report goes to stderr, or, as JSON, to where the output does not go.
    ///
    /// # Errors
    /// What cannot be read, understood or written; traces that lie beside the map.
    pub fn run(self, global: &Global) -> Result<()> {
        let config = global.configure(&[])?.config;
        let form = self.form()?;
        let rows = self.rows(&config)?;
        let map = self.map.as_ref().unwrap_or(&config.map.file);
        let network = Arc::new(Network::load(map)?);
        let silence = Duration::from_secs(u64::from(config.locate.break_s));
        let read = traces::read(&self.file, &rows, silence)?;
        self.check_place(&read.traces, &network, map, &config.locate)?;
        self.tell(&read);
        let begin = Instant::now();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(super::threads(self.threads))
            .build()?;
        let progress = super::progress::records("matching");
        let matched: Vec<Matched> = pool.install(|| {
            let matcher = || Matcher::new(Arc::clone(&network), config.locate.clone(), Lag::Full);
            let match_one = |matcher: &mut Matcher, trace| {
                let matched = match_trace(matcher, trace, config.locate.break_s);
                progress.inc(matched.tally.points);
                matched
            };
            read.traces.par_iter().map_init(matcher, match_one).collect()
        });
        progress.finish_and_clear();
        let elapsed = begin.elapsed();
        let output = Output {
            network: &network,
            traces: &read.traces,
            matched: &matched,
            points: self.points,
        };
        self.write(form, &output)?;
        let report = report(&read, &matched, elapsed);
        self.say(global, &report)
    }

    fn form(&self) -> Result<Form> {
        let name = self.out.to_string_lossy();
        let named = name
            .trim_end_matches(".zst")
            .ends_with(".ndjson")
            .then_some(Form::Ndjson);
        let form = self.format.or(named).unwrap_or(Form::Geojson);
        if self.points && form == Form::Ndjson {
            let text = "--points belongs to --format geojson; ndjson is made of points";
            return Err(UsageError(text.to_owned()).into());
        }
        Ok(form)
    }

    fn rows(&self, config: &Config) -> Result<Rows> {
        let mut source = match (&self.preset, &self.source) {
            (None, None) => return Ok(Rows::Named(self.separator)),
            (Some(preset), _) => Source {
                preset: Some(preset.clone()),
                ..Source::default()
            },
            (None, Some(id)) => {
                let probes = || config.source.iter().filter(|s| s.feed == Feed::Probe);
                let Some(source) = probes().find(|s| s.name() == id) else {
                    let known: Vec<&str> = probes().map(Source::name).collect();
                    let text = format!(
                        "--source: the configuration has no source of probes `{id}`; it has {}",
                        if known.is_empty() {
                            "none".to_owned()
                        } else {
                            known.join(", ")
                        }
                    );
                    return Err(UsageError(text).into());
                };
                source.clone()
            }
        };
        source.path = None;
        source.paths = vec![self.file.clone()];
        source.separator = self.separator.or(source.separator);
        let mapping = source.mapping().map_err(|(key, problem)| {
            let flag = match key {
                "separator" => "--separator",
                _ if self.preset.is_some() => "--preset",
                _ => "--source",
            };
            UsageError(format!("{flag}: {problem}"))
        })?;
        Ok(Rows::Mapped(Box::new(mapping), config.ingest.clone()))
    }

    /// Says what had to be done to the file to use it.
    fn tell(&self, read: &Traces) {
        let file = self.file.display();
        for note in &read.notes {
            tracing::warn!("{file}: {note}");
        }
        if let Some(first) = &read.first_refused {
            tracing::warn!("{file}: {} points cannot be used; {first}", read.refused);
        }
        let sorted: u64 = read.traces.iter().map(|t| t.timing.sorted).sum();
        if sorted > 0 {
            tracing::warn!(
                "{file}: {sorted} points are earlier than a point before them; they are matched in order of time"
            );
        }
        let assumed: u64 = read.traces.iter().map(|t| t.timing.assumed).sum();
        if assumed > 0 {
            tracing::warn!(
                "{file}: {assumed} points have no time of their own; the way between them is taken as driven at {ASSUMED_MPS} m/s"
            );
        }
    }

    /// Refuses traces of which no point lies on the map.
    fn check_place(
        &self,
        traces: &[Trace],
        network: &Network,
        map: &Path,
        settings: &Settings,
    ) -> Result<()> {
        let (south_west, north_east) = network.bounds();
        let area = Area::around(south_west, north_east, settings.offroad_m);
        let points = || traces.iter().flat_map(|t| &t.points).map(|p| p.position);
        if points().any(|p| area.contains(p)) {
            return Ok(());
        }
        let span = |of: fn(Position) -> f64| {
            points()
                .map(of)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                    (low.min(v), high.max(v))
                })
        };
        let ((south, north), (west, east)) = (span(Position::lat), span(Position::lon));
        bail!(
            "no point of {} lies on the map {}: the traces span lat {south} to {north}, lon {west} to {east}; the map \
             spans lat {} to {}, lon {} to {}",
            self.file.display(),
            map.display(),
            south_west.lat(),
            north_east.lat(),
            south_west.lon(),
            north_east.lon()
        );
    }

    fn write(&self, form: Form, output: &Output<'_>) -> Result<()> {
        let told = || format!("writing {}", self.out.display());
        if self.out == Path::new("-") {
            let mut out = BufWriter::new(io::stdout().lock());
            output.write(form, &mut out)?;
            return Ok(out.flush()?);
        }
        let mut file = BufWriter::new(File::create(&self.out).with_context(told)?);
        if self.out.extension().is_some_and(|e| e == "zst") {
            let mut packed = zstd::Encoder::new(file, 3).with_context(told)?;
            output.write(form, &mut packed).with_context(told)?;
            file = packed.finish().with_context(told)?;
        } else {
            output.write(form, &mut file).with_context(told)?;
        }
        file.flush().with_context(told)
    }

    fn say(&self, global: &Global, report: &Report) -> Result<()> {
        if !global.json {
            if !global.quiet {
                write!(io::stderr(), "{}", report.told())?;
            }
            return Ok(());
        }
        let text = serde_json::to_string_pretty(report)?;
        if self.out == Path::new("-") {
            writeln!(io::stderr(), "{text}")?;
            return Ok(());
        }
        Ok(cli::print(&text)?)
    }
}

/// Why a way begins anew after a place on the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Break {
    /// No point for longer than `locate.break_s`.
    Silence,
    /// The points between lie off the road.
    OffRoad,
    /// No way leads from the last place to this one.
    NoWay,
}

/// Counts of one trace, or of several.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Tally {
    points: u64,
    located: u64,
    off_road: u64,
    no_way: u64,
    breaks: Breaks,
    #[serde(serialize_with = "metres", rename = "length_m")]
    length_mm: u64,
    #[serde(skip)]
    posterior_permille: u64,
}

/// Times that a way begins anew after a place on the road, by reason.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Breaks {
    silence: u64,
    off_road: u64,
    no_way: u64,
}

fn metres<S: serde::Serializer>(mm: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64((*mm as f64 / 100.0).round() / 10.0)
}

impl Tally {
    /// Mean posterior of the located points, 0 to 1 with three decimals.
    fn mean_posterior(&self) -> Option<f64> {
        (self.located > 0).then(|| (self.posterior_permille as f64 / self.located as f64).round() / 1000.0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.points += other.points;
        self.located += other.located;
        self.off_road += other.off_road;
        self.no_way += other.no_way;
        self.breaks.silence += other.breaks.silence;
        self.breaks.off_road += other.breaks.off_road;
        self.breaks.no_way += other.breaks.no_way;
        self.length_mm += other.length_mm;
        self.posterior_permille += other.posterior_permille;
    }
}

/// A stretch of a segment: from and to in mm from its beginning.
type Stretch = (SegmentIndex, u32, u32);

/// A trace on the map.
#[derive(Debug, Default)]
struct Matched {
    places: Vec<Result<Decided, Unlocated>>,
    /// For each point the way driven since the one before, in mm, where it is known.
    driven_mm: Vec<Option<u64>>,
    /// For each point at which the way begins anew, why.
    breaks: Vec<Option<Break>>,
    /// The ways driven without a break.
    ways: Vec<Vec<Stretch>>,
    tally: Tally,
}

fn match_trace(matcher: &mut Matcher, trace: &Trace, break_s: u32) -> Matched {
    let (mut track, mut out) = (Track::default(), Decisions::default());
    for (i, (point, time)) in trace.points.iter().zip(&trace.times).enumerate() {
        let fix = Fix {
            time: *time,
            position: point.position,
            speed: point.speed,
            heading: point.heading,
            accuracy_mm: point.accuracy_mm,
            bus_roads: point.bus_roads,
            id: i as u64,
        };
        matcher.push(&mut track, fix, &mut out);
    }
    matcher.finish(&mut track, &mut out);
    let mut matched = Matched::default();
    matched.tally.points = out.fixes.len() as u64;
    // The last place on the road with its time, and whether points off the road came since.
    let (mut last, mut off_road): (Option<(EventTime, Decided)>, bool) = (None, false);
    for decision in &out.fixes {
        let (mut driven, mut broken) = (None, None);
        match decision.place {
            Err(Unlocated::OffRoad) => {
                matched.tally.off_road += 1;
                off_road = true;
            }
            Err(Unlocated::NoWay) => matched.tally.no_way += 1,
            Ok(place) => {
                let tally = &mut matched.tally;
                tally.located += 1;
                tally.posterior_permille += u64::from(place.posterior_permille);
                let way = out.way(&place);
                if way.is_empty() {
                    broken = last.map(|(time, _)| {
                        if decision.fix.time.since(time) > i64::from(break_s) * 1000 {
                            tally.breaks.silence += 1;
                            Break::Silence
                        } else if off_road {
                            tally.breaks.off_road += 1;
                            Break::OffRoad
                        } else {
                            tally.breaks.no_way += 1;
                            Break::NoWay
                        }
                    });
                    matched.ways.push(Vec::new());
                } else {
                    // A way that begins beside the last place is drawn as a line of its own.
                    if last.is_none_or(|(_, l)| (l.segment, l.offset_mm) != (way[0], place.from_mm)) {
                        matched.ways.push(Vec::new());
                    }
                    let mm = drive(matcher.network(), &place, way, matched.ways.last_mut());
                    tally.length_mm += mm;
                    driven = Some(mm);
                }
                last = Some((decision.fix.time, place));
                off_road = false;
            }
        }
        matched.places.push(decision.place);
        matched.driven_mm.push(driven);
        matched.breaks.push(broken);
    }
    matched.ways.retain(|way| !way.is_empty());
    matched
}

/// Appends the way to a place to the stretches driven; returns its length in mm.
fn drive(
    network: &Network,
    place: &Decided,
    way: &[SegmentIndex],
    stretches: Option<&mut Vec<Stretch>>,
) -> u64 {
    let Some(stretches) = stretches else { return 0 };
    let mut driven = 0;
    for (k, &segment) in way.iter().enumerate() {
        let from = if k == 0 { place.from_mm } else { 0 };
        let to = if k + 1 == way.len() {
            place.offset_mm
        } else {
            network.segment(segment).length_mm
        };
        if to <= from {
            continue;
        }
        driven += u64::from(to - from);
        match stretches.last_mut() {
            Some(last) if last.0 == segment && last.2 == from => last.2 = to,
            _ => stretches.push((segment, from, to)),
        }
    }
    driven
}

/// What is written.
struct Output<'a> {
    network: &'a Network,
    traces: &'a [Trace],
    matched: &'a [Matched],
    points: bool,
}

/// A line of the NDJSON output, and the properties of a point in GeoJSON.
#[derive(Serialize)]
struct PointJson<'a> {
    line: u64,
    vehicle_id: &'a str,
    point: usize,
    event_time: Option<String>,
    segment_id: Option<String>,
    way_id: Option<i64>,
    forward: Option<bool>,
    name: Option<&'a str>,
    offset_m: Option<f64>,
    distance_m: Option<f64>,
    posterior: Option<f64>,
    lat: Option<f64>,
    lon: Option<f64>,
    driven_m: Option<f64>,
    #[serde(rename = "break", skip_serializing_if = "Option::is_none")]
    broken: Option<Break>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Output<'_> {
    fn write(&self, form: Form, out: &mut dyn Write) -> Result<()> {
        match form {
            Form::Ndjson => self.ndjson(out),
            Form::Geojson => self.geojson(out),
        }
    }

    fn ndjson(&self, out: &mut dyn Write) -> Result<()> {
        for (trace, matched) in self.traces.iter().zip(self.matched) {
            for i in 0..trace.points.len() {
                serde_json::to_writer(&mut *out, &self.point(trace, matched, i))?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// One feature a line, so that the file can be read by eye and by line.
    fn geojson(&self, out: &mut dyn Write) -> Result<()> {
        out.write_all(b"{\"type\":\"FeatureCollection\",\"features\":[")?;
        let mut separator = "\n";
        let mut write = |feature: &serde_json::Value| -> Result<()> {
            out.write_all(separator.as_bytes())?;
            separator = ",\n";
            Ok(serde_json::to_writer(&mut *out, feature)?)
        };
        for (trace, matched) in self.traces.iter().zip(self.matched) {
            write(&self.track(trace, matched))?;
            if !self.points {
                continue;
            }
            for i in 0..trace.points.len() {
                let about = self.point(trace, matched, i);
                let at = about.lon.zip(about.lat).unwrap_or_else(|| {
                    let raw = trace.points[i].position;
                    (raw.lon(), raw.lat())
                });
                write(&json!({
                    "type": "Feature", "geometry": {"type": "Point", "coordinates": [at.0, at.1]}, "properties": about,
                }))?;
            }
        }
        out.write_all(b"\n]}\n")?;
        Ok(())
    }

    fn track(&self, trace: &Trace, matched: &Matched) -> serde_json::Value {
        let lines: Vec<Vec<[f64; 2]>> = matched.ways.iter().map(|w| self.line(w)).collect();
        let geometry = match &lines[..] {
            [] => json!(null),
            [line] => json!({"type": "LineString", "coordinates": line}),
            lines => json!({"type": "MultiLineString", "coordinates": lines}),
        };
        let tally = &matched.tally;
        let time = |p: Option<&traces::Point>| p.and_then(|p| p.time).map(|t| t.to_string());
        json!({
            "type": "Feature", "geometry": geometry, "properties": {
                "vehicle_id": trace.id, "start_time": time(trace.points.first()), "end_time": time(trace.points.last()),
                "points": tally.points, "located": tally.located, "off_road": tally.off_road, "no_way": tally.no_way,
                "breaks": tally.breaks, "length_m": (tally.length_mm as f64 / 100.0).round() / 10.0,
                "mean_posterior": tally.mean_posterior(),
            },
        })
    }

    fn line(&self, way: &[Stretch]) -> Vec<[f64; 2]> {
        let mut line: Vec<[f64; 2]> = Vec::new();
        for &(segment, from, to) in way {
            for p in self.network.stretch(segment, from, to) {
                let p = [p.lon(), p.lat()];
                if line.last() != Some(&p) {
                    line.push(p);
                }
            }
        }
        // A line needs two positions, however near.
        if let [only] = line[..] {
            line.push(only);
        }
        line
    }

    fn point<'a>(&'a self, trace: &'a Trace, matched: &Matched, i: usize) -> PointJson<'a> {
        let (network, point) = (self.network, &trace.points[i]);
        let place = matched.places[i].as_ref().ok();
        let segment = place.map(|p| network.segment(p.segment));
        let at = place.map(|p| network.position_at(p.segment, p.offset_mm));
        let metres = |mm: f64| (mm / 10.0).round() / 100.0;
        PointJson {
            line: point.line,
            vehicle_id: &trace.id,
            point: i + 1,
            event_time: point.time.map(|t| t.to_string()),
            segment_id: segment.map(|s| s.key.to_string()),
            way_id: segment.map(|s| s.key.way),
            forward: segment.map(|s| !s.flags.has(SegmentFlags::BACKWARD)),
            name: place.and_then(|p| network.name(p.segment)),
            offset_m: place.map(|p| metres(f64::from(p.offset_mm))),
            distance_m: at.map(|at| metres(network.distance_mm(at, point.position))),
            posterior: place.map(|p| f64::from(p.posterior_permille) / 1000.0),
            lat: at.map(Position::lat),
            lon: at.map(Position::lon),
            driven_m: matched.driven_mm[i].map(|mm| metres(mm as f64)),
            broken: matched.breaks[i],
            reason: matched.places[i].as_ref().err().map(|r| r.label()),
        }
    }
}

/// What was done, for people and programs.
#[derive(Serialize)]
struct Report {
    tracks: usize,
    refused: u64,
    sorted: u64,
    assumed_times: u64,
    #[serde(flatten)]
    tally: Tally,
    mean_posterior: Option<f64>,
    elapsed_s: f64,
}

fn report(read: &Traces, matched: &[Matched], elapsed: Duration) -> Report {
    let mut tally = Tally::default();
    matched.iter().for_each(|m| tally += m.tally);
    Report {
        tracks: read.traces.len(),
        refused: read.refused,
        sorted: read.traces.iter().map(|t| t.timing.sorted).sum(),
        assumed_times: read.traces.iter().map(|t| t.timing.assumed).sum(),
        mean_posterior: tally.mean_posterior(),
        tally,
        elapsed_s: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
    }
}

impl Report {
    fn told(&self) -> String {
        let Self { tally: t, .. } = self;
        let posterior = self
            .mean_posterior
            .map_or_else(|| "–".to_owned(), |p| format!("{p:.3}"));
        format!(
            "{:>12}  points in {} tracks ({} refused), matched in {:.2} s\n\
             {:>12}  on the road, mean posterior {posterior}\n\
             {:>12}  off the road\n\
             {:>12}  to which no way leads\n\
             {:>12}  breaks: {} silences, {} stretches off the road, {} without a way\n\
             {:>12.3}  km driven\n",
            t.points,
            self.tracks,
            self.refused,
            self.elapsed_s,
            t.located,
            t.off_road,
            t.no_way,
            t.breaks.silence + t.breaks.off_road + t.breaks.no_way,
            t.breaks.silence,
            t.breaks.off_road,
            t.breaks.no_way,
            t.length_mm as f64 / 1e6,
        )
    }
}
