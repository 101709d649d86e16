//! Whole traces from files: GPX, CSV and NDJSON, plain, `.gz` or `.zst`, or standard input (`-`).
//!
//! What a file is, its first bytes tell. A file is read whole: its tracks come in the order in which each is
//! first met, the points of each in order of time.

mod gpx;
mod rows;
mod times;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, FileError};
use crate::ingest::{FieldMapping, Settings};
use crate::units::{Bearing, EventTime, MmPerS, Position};

pub use times::{ASSUMED_MPS, Timing};

/// A point of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// 1-based line of the file on which it begins.
    pub line: u64,
    /// When, where the file says so.
    pub time: Option<EventTime>,
    /// Where, in WGS-84.
    pub position: Position,
    /// Speed.
    pub speed: Option<MmPerS>,
    /// Direction of travel.
    pub heading: Option<Bearing>,
    /// Accuracy (one standard deviation) in millimetres.
    pub accuracy_mm: Option<u32>,
    /// The vehicle may use roads that are closed to cars but open to buses and taxis.
    pub bus_roads: bool,
}

impl Point {
    /// A point of which no more is known than where it is.
    fn at(line: u64, position: Position) -> Self {
        Self {
            line,
            time: None,
            position,
            speed: None,
            heading: None,
            accuracy_mm: None,
            bus_roads: false,
        }
    }
}

/// The way of one vehicle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Its name in the file, or `track-1`, `track-2`, …; no two traces of a file have the same.
    pub id: String,
    /// Points in order of time; one without time stays behind the point before it.
    pub points: Vec<Point>,
    /// A time for each point, never falling: the file's own, or an assumed one.
    pub times: Vec<EventTime>,
    /// What had to be done to the times.
    pub timing: Timing,
}

/// What a file held.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// Traces with points.
    pub traces: Vec<Trace>,
    /// Points that cannot be used.
    pub refused: u64,
    /// The first of these: where, and what is wrong with it.
    pub first_refused: Option<String>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// How to read the rows of NDJSON and CSV.
#[derive(Clone, Debug)]
pub enum Rows {
    /// By the common names of columns and members; what stands between the columns of a CSV row is seen from the
    /// header row, unless it is named.
    Named(Option<char>),
    /// As a feed of this mapping: with its units, and with its rules for what a position is.
    Mapped(Box<FieldMapping>, Settings),
}

/// Why a file gives no traces.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it seems to be.
    #[error("{path}: {problem}", path = .path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
}

/// Reads the traces of a file. Times that are missing are made up, so that a way is looked for from point to point
/// at [`ASSUMED_MPS`]; no pause longer than `silence` is assumed.
///
/// # Errors
/// [`TraceError`] if the file cannot be read, is of no known form, or holds no point that can be used.
pub fn read(path: &Path, rows: &Rows, silence: Duration) -> Result<Traces, TraceError> {
    let mut bytes = Vec::new();
    file::open(path)?
        .read_to_end(&mut bytes)
        .map_err(|error| FileError {
            doing: "reading",
            path: path.to_owned(),
            error,
        })?;
    let form = |problem| TraceError::Form {
        path: path.to_owned(),
        problem,
    };
    let text = bytes.strip_prefix(file::BYTE_ORDER_MARK).unwrap_or(&bytes);
    let mut found = Found::default();
    match text.iter().find(|b| !b.is_ascii_whitespace()) {
        None => return Err(form("the file is empty".to_owned())),
        Some(b'<') if matches!(rows, Rows::Mapped(..)) => {
            return Err(form("GPX needs no mapping of fields; leave it out".to_owned()));
        }
        Some(b'<') => gpx::read(&String::from_utf8_lossy(text), &mut found).map_err(form)?,
        Some(b'{') => rows::read_json(text, rows, &mut found).map_err(form)?,
        Some(_) => rows::read_csv(text, rows, &mut found).map_err(form)?,
    }
    found.finish(silence).map_err(form)
}

/// Traces as they are being read.
#[derive(Debug, Default)]
struct Found {
    tracks: Vec<(Option<String>, Vec<Point>)>,
    by_id: HashMap<String, usize>,
    refused: u64,
    first_refused: Option<String>,
    notes: Vec<String>,
}

impl Found {
    /// Begins a track of its own.
    fn begin(&mut self, id: Option<String>) {
        self.tracks.push((id, Vec::new()));
    }

    /// Adds a point to the last track begun.
    fn push(&mut self, point: Point) {
        if let Some((_, points)) = self.tracks.last_mut() {
            points.push(point);
        }
    }

    /// Adds a point to the track of an id, wherever that stands in the file.
    fn push_to(&mut self, id: Option<&str>, point: Point) {
        let key = id.unwrap_or_default();
        let track = match self.by_id.get(key) {
            Some(track) => *track,
            None => {
                self.begin(id.map(str::to_owned));
                self.by_id.insert(key.to_owned(), self.tracks.len() - 1);
                self.tracks.len() - 1
            }
        };
        self.tracks[track].1.push(point);
    }

    /// Counts a point that cannot be used.
    fn refuse(&mut self, line: u64, problem: impl std::fmt::Display) {
        self.refused += 1;
        if self.first_refused.is_none() {
            self.first_refused = Some(format!("line {line}: {problem}"));
        }
    }

    fn finish(self, silence: Duration) -> Result<Traces, String> {
        let tracks: Vec<_> = self.tracks.into_iter().filter(|(_, p)| !p.is_empty()).collect();
        if tracks.is_empty() {
            let why = match self.first_refused {
                Some(first) => format!(
                    "none of its {} points can be used; the first stands on {first}",
                    self.refused
                ),
                None => "it holds no points".to_owned(),
            };
            return Err(why);
        }
        let mut taken: HashMap<String, u32> = HashMap::new();
        let traces = tracks.into_iter().enumerate().map(|(i, (id, points))| {
            let mut id = id.unwrap_or_else(|| format!("track-{}", i + 1));
            // A name that others bear too is numbered.
            while let Some(n) = taken.get_mut(&id) {
                *n += 1;
                id = format!("{id} ({n})");
            }
            taken.insert(id.clone(), 1);
            times::trace(id, points, silence)
        });
        Ok(Traces {
            traces: traces.collect(),
            refused: self.refused,
            first_refused: self.first_refused,
            notes: self.notes,
        })
    }
}

/// Tells on which line of a text a byte stands, of bytes in rising order.
#[derive(Debug)]
struct Lines<'a> {
    text: &'a [u8],
    byte: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self {
            text,
            byte: 0,
            line: 1,
        }
    }

    /// The 1-based line of the first byte from `byte` on that is no line end.
    fn of_text_at(&mut self, byte: usize) -> u64 {
        let ends = self.text[byte..]
            .iter()
            .take_while(|b| b"\r\n".contains(b))
            .count();
        let feeds = self.text[self.byte..byte + ends]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        self.byte = byte + ends;
        self.line += feeds as u64;
        self.line
    }
}

/// A position from degrees, or what is wrong with them.
fn position(lat: f64, lon: f64) -> Result<Position, String> {
    if lat.abs() < 1e-3 && lon.abs() < 1e-3 {
        return Err("latitude and longitude are 0: the receiver had no fix".to_owned());
    }
    Position::from_degrees(lat, lon)
        .map_err(|_| format!("{lat}, {lon} is no latitude and longitude in degrees"))
}

/// A speed that a vehicle can have, from m/s; receivers write negative ones for "not known".
fn speed(mps: f64) -> Option<MmPerS> {
    (0.0..=150.0)
        .contains(&mps)
        .then(|| (mps * 1000.0).round() as MmPerS)
}

/// A direction, from degrees; receivers write negative ones for "not known".
fn heading(degrees: f64) -> Option<Bearing> {
    (0.0..=360.0)
        .contains(&degrees)
        .then(|| Bearing::from_degrees(degrees))
        .flatten()
}
