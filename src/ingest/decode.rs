//! From the bytes of a record to an [`Event`], by the field mapping of its source.
//!
//! The mapping is compiled once to a tree of member names; a record is then read in one pass over its JSON
//! (or its CSV row) without building a document.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Event, Feed, Field, FieldMapping, Format, Measurement, Probe, Rejection, Settings, SubjectKey, Unit,
};
use crate::units::{Bearing, EventTime, Position, PositionError};

/// Longest vehicle or sensor id in bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest text shown of a value that is refused.
const SHOWN_CHARS_MAX: usize = 60;
/// Longest sensor interval believed: one hour.
const INTERVAL_MS_MAX: f64 = 3_600_000.0;

/// The box in which positions are believed: the map's bounds and a margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    south_west: Position,
    north_east: Position,
}

impl Area {
    /// The box of two corners widened by `margin_m` metres on each side.
    pub fn around(south_west: Position, north_east: Position, margin_m: u32) -> Self {
        let dlat = f64::from(margin_m) / 111_195.0;
        let lat_max = south_west.lat().abs().max(north_east.lat().abs()).min(89.0);
        let dlon = dlat / libm::cos(lat_max.to_radians());
        let corner = |lat: f64, lon: f64| {
            Position::from_degrees(lat.clamp(-90.0, 90.0), lon.clamp(-180.0, 180.0))
                .expect("clamped degrees are in range")
        };
        Self {
            south_west: corner(south_west.lat() - dlat, south_west.lon() - dlon),
            north_east: corner(north_east.lat() + dlat, north_east.lon() + dlon),
        }
    }

    /// Whether a position lies in the box.
    pub fn contains(&self, p: Position) -> bool {
        (self.south_west.lat_e7()..=self.north_east.lat_e7()).contains(&p.lat_e7())
            && (self.south_west.lon_e7()..=self.north_east.lon_e7()).contains(&p.lon_e7())
    }
}

/// A value as it stands in a record.
#[derive(Clone, Debug, Default, PartialEq)]
enum Raw<'a> {
    /// Not there, or null.
    #[default]
    Absent,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array or an object.
    Other,
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Absent => f.write_str("nothing"),
            Raw::Bool(b) => write!(f, "{b}"),
            Raw::Int(i) => write!(f, "{i}"),
            Raw::Float(x) => write!(f, "{x}"),
            Raw::Text(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                write!(f, "the text {cut:?}…")
            }
            Raw::Text(text) => write!(f, "the text {text:?}"),
            Raw::Other => f.write_str("a list or an object"),
        }
    }
}

/// Why a record is refused, and by which field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault {
    reason: Rejection,
    field: Option<Field>,
    problem: &'static str,
}

impl Fault {
    const fn at(field: Field, reason: Rejection, problem: &'static str) -> Self {
        Self {
            reason,
            field: Some(field),
            problem,
        }
    }

    const fn missing(field: Field) -> Self {
        Self::at(field, Rejection::Schema, "it is required")
    }

    const fn whole(reason: Rejection, problem: &'static str) -> Self {
        Self {
            reason,
            field: None,
            problem,
        }
    }
}

/// Why a record was refused, in words for the person who maps a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason.
    pub reason: Rejection,
    /// Our field that it was refused for, if it was for one.
    pub field: Option<Field>,
    /// What is wrong, with what was found, and where.
    pub detail: String,
}

type Slots<'a> = [Raw<'a>; Field::COUNT];

/// A node of the tree of member names.
#[derive(Clone, Debug, Default)]
struct Names {
    children: Vec<(String, Names)>,
    field: Option<Field>,
}

impl Names {
    fn insert(&mut self, path: &str, field: Field) {
        let mut node = self;
        let parts = path.strip_prefix('/').map_or_else(
            || vec![path.to_owned()],
            |p| {
                // RFC 6901: ~1 is a slash, ~0 a tilde.
                p.split('/')
                    .map(|s| s.replace("~1", "/").replace("~0", "~"))
                    .collect()
            },
        );
        for part in parts {
            let i = match node.children.iter().position(|(n, _)| *n == part) {
                Some(i) => i,
                None => {
                    node.children.push((part, Names::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[i].1;
        }
        node.field = Some(field);
    }

    fn child(&self, name: &str) -> Option<&Names> {
        self.children.iter().find(|(n, _)| n == name).map(|(_, c)| c)
    }
}

/// An event with the id that it came under, which the engine itself does not keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The event.
    pub event: Event,
    /// Vehicle or sensor id, if [`Decoder::keep_ids`] was asked for, or of a sensor without a site.
    pub id: Option<Box<str>>,
}

/// Decodes the records of one source. Stateless: batches are decoded on many threads.
#[derive(Clone, Debug)]
pub struct Decoder {
    mapping: FieldMapping,
    names: Names,
    /// For CSV: the field of each column.
    columns: Vec<Option<Field>>,
    settings: Settings,
    area: Area,
    sensors: Arc<HashSet<SubjectKey>>,
    zone: Option<jiff::tz::TimeZone>,
    keep_ids: bool,
}

impl Decoder {
    /// A decoder for `mapping`; `header` names the columns of a CSV feed (without one, paths are column
    /// numbers from 0). `sensors` are the sensors that have a site.
    pub fn new(
        mapping: FieldMapping,
        header: Option<&[String]>,
        settings: Settings,
        area: Area,
        sensors: Arc<HashSet<SubjectKey>>,
    ) -> Self {
        let mut names = Names::default();
        let mut columns = Vec::new();
        let mut zone = None;
        for (field, source) in &mapping.fields {
            names.insert(&source.path, *field);
            let column = match header {
                Some(header) => header.iter().position(|c| c.trim() == source.path),
                None => source.path.parse().ok(),
            };
            if let (Format::Csv, Some(i)) = (mapping.format, column) {
                if columns.len() <= i {
                    columns.resize(i + 1, None);
                }
                columns[i] = Some(*field);
            }
            if let Some(Unit::Local(_, name)) = &source.unit {
                zone = jiff::tz::TimeZone::get(name).ok();
            }
        }
        Self {
            mapping,
            names,
            columns,
            settings,
            area,
            sensors,
            zone,
            keep_ids: false,
        }
    }

    /// Also returns ids, for observers (`--matches`).
    #[must_use]
    pub fn keep_ids(mut self, keep: bool) -> Self {
        self.keep_ids = keep;
        self
    }

    /// Decodes and checks the payload of the record at `offset`.
    ///
    /// # Errors
    /// The first guard that refuses it, in the order size, decode, schema, finite, range, place, unit of
    /// time, fix.
    pub fn decode(&self, payload: &[u8], offset: u64) -> Result<Decoded, Rejection> {
        self.read(payload, |slots| self.event(slots?, offset))
            .map_err(|fault| fault.reason)
    }

    /// Says what is wrong with a record that [`Decoder::decode`] refuses; `None` of one that it takes. For samples:
    /// it reads the record anew.
    pub fn explain(&self, payload: &[u8]) -> Option<Explanation> {
        self.read(payload, |read| {
            let (fault, found) = match read {
                Err(fault) => (fault, None),
                Ok(slots) => {
                    let fault = self.event(slots, 0).err()?;
                    (fault, fault.field.map(|field| slots[field as usize].to_string()))
                }
            };
            let mut detail = fault.problem.to_owned();
            if let (Some(field), Some(found)) = (fault.field, found) {
                detail = match self.mapping.fields.get(&field) {
                    Some(at) => format!("{detail}; found {found} at `{}`", at.path),
                    None => format!("{detail}; the mapping does not say where it stands"),
                };
            } else if fault.reason == Rejection::Decode
                && self.mapping.format == Format::Json
                && let Err(error) = serde_json::from_slice::<IgnoredAny>(payload)
            {
                detail = format!("{detail}: {error}");
            }
            Some(Explanation {
                reason: fault.reason,
                field: fault.field,
                detail,
            })
        })
    }

    /// Reads the fields of a record and hands them to `then`.
    fn read<T>(&self, payload: &[u8], then: impl FnOnce(Result<&Slots<'_>, Fault>) -> T) -> T {
        if payload.len() > self.settings.record_bytes_max as usize {
            let fault = Fault::whole(Rejection::Oversize, "longer than `ingest.record_bytes_max`");
            return then(Err(fault));
        }
        let mut slots: Slots<'_> = std::array::from_fn(|_| Raw::Absent);
        let mut text = [0_u8; 4096];
        let read = match self.mapping.format {
            Format::Json => self.read_json(payload, &mut slots),
            Format::Csv => self.read_csv(payload, &mut text, &mut slots),
        };
        then(read.map(|()| &slots))
    }

    fn event(&self, slots: &Slots<'_>, offset: u64) -> Result<Decoded, Fault> {
        match self.mapping.feed {
            Feed::Probe => self.probe(slots, offset),
            Feed::Sensor => self.measurement(slots, offset),
        }
    }

    fn read_json<'a>(&self, payload: &'a [u8], slots: &mut Slots<'a>) -> Result<(), Fault> {
        const BROKEN: Fault = Fault::whole(Rejection::Decode, "not one JSON value");
        let mut json = serde_json::Deserializer::from_slice(payload);
        Node {
            names: &self.names,
            slots,
        }
        .deserialize(&mut json)
        .map_err(|_| BROKEN)?;
        json.end().map_err(|_| BROKEN)?;
        // JSON that is no object leaves every slot empty: a required field is missing.
        Ok(())
    }

    fn read_csv<'a>(&self, payload: &[u8], text: &'a mut [u8], slots: &mut Slots<'a>) -> Result<(), Fault> {
        let mut reader = csv_core::ReaderBuilder::new()
            .delimiter(self.mapping.separator())
            .build();
        let mut ends = [0_usize; 64];
        let (mut input, mut written, mut fields) = (payload, 0, 0);
        loop {
            let (result, read, out, cut) =
                reader.read_record(input, &mut text[written..], &mut ends[fields..]);
            input = &input[read..];
            written += out;
            fields += cut;
            match result {
                csv_core::ReadRecordResult::InputEmpty => {}
                csv_core::ReadRecordResult::Record | csv_core::ReadRecordResult::End => break,
                csv_core::ReadRecordResult::OutputFull | csv_core::ReadRecordResult::OutputEndsFull => {
                    let problem = "a CSV row of more than 64 columns or 4096 bytes";
                    return Err(Fault::whole(Rejection::Decode, problem));
                }
            }
        }
        if fields < self.columns.len() {
            let problem = "fewer columns than the mapping needs; is the separator right?";
            return Err(Fault::whole(Rejection::Decode, problem));
        }
        let text: &'a [u8] = text;
        let mut begin = 0;
        for (field, end) in self.columns.iter().zip(ends) {
            if let Some(field) = field {
                let cell = std::str::from_utf8(&text[begin..end])
                    .map_err(|_| Fault::at(*field, Rejection::Decode, "not UTF-8"))?
                    .trim();
                slots[*field as usize] = csv_value(*field, cell);
            }
            begin = end;
        }
        Ok(())
    }

    fn probe(&self, slots: &Slots<'_>, offset: u64) -> Result<Decoded, Fault> {
        let (vehicle, id) = self.subject(Field::VehicleId, slots)?;
        let time = self
            .time(Field::EventTime, slots)?
            .ok_or(Fault::missing(Field::EventTime))?;
        let lat = self
            .degrees(Field::Lat, slots)?
            .ok_or(Fault::missing(Field::Lat))?;
        let lon = self
            .degrees(Field::Lon, slots)?
            .ok_or(Fault::missing(Field::Lon))?;
        let speed = self.speed(slots)?;
        let heading = heading(slots)?;
        let accuracy = number(Field::Accuracy, slots)?;
        let satellites = number(Field::Satellites, slots)?;
        let fix = truth(Field::Fix, slots)?;
        let occupied = truth(Field::Occupied, slots)?;
        let ignition = truth(Field::Ignition, slots)?;
        let class = match &slots[Field::VehicleClass as usize] {
            Raw::Absent => super::VehicleClass::default(),
            Raw::Text(word) => super::VehicleClass::of(word),
            _ => return Err(Fault::at(Field::VehicleClass, Rejection::Schema, "not a text")),
        };
        if accuracy.is_some_and(|a| a < 0.0) {
            return Err(Fault::at(Field::Accuracy, Rejection::OutOfRange, "below 0"));
        }
        let position = self.place(lat, lon)?;
        let time = plausible(time)?;
        if fix == Some(false) {
            return Err(Fault::at(Field::Fix, Rejection::NoFix, "the receiver has no fix"));
        }
        if accuracy.is_some_and(|a| a > f64::from(self.settings.max_accuracy_m)) {
            let problem = "worse than `ingest.max_accuracy_m`";
            return Err(Fault::at(Field::Accuracy, Rejection::NoFix, problem));
        }
        if satellites.is_some_and(|n| n < f64::from(self.settings.min_satellites)) {
            let problem = "fewer than `ingest.min_satellites`";
            return Err(Fault::at(Field::Satellites, Rejection::NoFix, problem));
        }
        let accuracy_mm = accuracy.map(|a| (a * 1000.0).round() as u32);
        let event = Event::Probe(Probe {
            time,
            vehicle,
            position,
            speed,
            heading,
            accuracy_mm,
            class,
            occupied,
            ignition,
            offset,
        });
        Ok(Decoded { event, id })
    }

    fn measurement(&self, slots: &Slots<'_>, offset: u64) -> Result<Decoded, Fault> {
        let (sensor, id) = self.subject(Field::SensorId, slots)?;
        let time = self
            .time(Field::EventTime, slots)?
            .ok_or(Fault::missing(Field::EventTime))?;
        let interval_ms = match self.time(Field::IntervalStart, slots)? {
            Some(start) => time.since(start) as f64,
            None => {
                let scale = if self.unit(Field::Interval) == Some(&Unit::Ms) {
                    1.0
                } else {
                    1000.0
                };
                number(Field::Interval, slots)?.ok_or(Fault::missing(Field::Interval))? * scale
            }
        };
        let count = number(Field::Count, slots)?;
        let volume = number(Field::Volume, slots)?;
        let occupancy = number(Field::Occupancy, slots)?;
        let speed = self.speed(slots)?;
        let error = truth(Field::DataError, slots)?;
        let heading = heading(slots)?;
        let lat = self.degrees(Field::Lat, slots)?;
        let lon = self.degrees(Field::Lon, slots)?;
        if count.is_none() && volume.is_none() && speed.is_none() && occupancy.is_none() {
            let problem = "no `speed`, `count`, `volume` or `occupancy`: it measures nothing";
            return Err(Fault::whole(Rejection::Schema, problem));
        }
        let count = count.or_else(|| volume.map(|v| v * interval_ms / 3_600_000.0));
        let range = |field, problem| Err(Fault::at(field, Rejection::OutOfRange, problem));
        if !(1.0..=INTERVAL_MS_MAX).contains(&interval_ms) {
            let mapped = self.mapping.fields.contains_key(&Field::IntervalStart);
            let field = if mapped {
                Field::IntervalStart
            } else {
                Field::Interval
            };
            return range(field, "an interval that is not between 1 ms and 1 h");
        }
        if count.is_some_and(|c| !(0.0..=1e5).contains(&c)) {
            let mapped = self.mapping.fields.contains_key(&Field::Count);
            let field = if mapped { Field::Count } else { Field::Volume };
            return range(field, "not between 0 and 100,000 vehicles in the interval");
        }
        if occupancy.is_some_and(|o| !(0.0..=100.0).contains(&o)) {
            return range(Field::Occupancy, "not between 0 and 100 %");
        }
        let position = match (lat, lon) {
            (Some(lat), Some(lon)) => Some(self.place(lat, lon)?),
            _ => None,
        };
        let time = plausible(time)?;
        if position.is_none() && !self.sensors.contains(&sensor) {
            let problem = "no sensor site has this id, and the record brings no position";
            return Err(Fault::at(Field::SensorId, Rejection::UnknownSensor, problem));
        }
        if error == Some(true) {
            let problem = "the sensor says that its data are wrong";
            return Err(Fault::at(Field::DataError, Rejection::SensorFault, problem));
        }
        let event = Event::Measurement(Measurement {
            time,
            sensor,
            interval_ms: interval_ms.round() as u32,
            count_milli: count.map(|c| (c * 1000.0).round() as u32),
            occupancy_permille: occupancy.map(|o| (o * 10.0).round() as u32),
            speed,
            position,
            heading,
            offset,
        });
        Ok(Decoded { event, id })
    }

    fn unit(&self, field: Field) -> Option<&Unit> {
        self.mapping.fields.get(&field).and_then(|s| s.unit.as_ref())
    }

    fn subject(&self, field: Field, slots: &Slots<'_>) -> Result<(SubjectKey, Option<Box<str>>), Fault> {
        let id: Cow<'_, str> = match &slots[field as usize] {
            Raw::Text(text) => Cow::Borrowed(text),
            Raw::Int(i) => Cow::Owned(i.to_string()),
            Raw::Absent => return Err(Fault::missing(field)),
            _ => return Err(Fault::at(field, Rejection::Schema, "not a text or whole number")),
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(Fault::at(field, Rejection::Schema, "not 1 to 128 bytes long"));
        }
        let key = SubjectKey::of(&id);
        // A sensor without a site is known to nobody else.
        let keep = self.keep_ids || (field == Field::SensorId && !self.sensors.contains(&key));
        Ok((key, keep.then(|| Box::from(&*id))))
    }

    fn time(&self, field: Field, slots: &Slots<'_>) -> Result<Option<EventTime>, Fault> {
        let refuse = |problem| Fault::at(field, Rejection::Schema, problem);
        let zoned = || refuse("not a time in RFC 3339 with a zone, such as 2026-11-23T05:30:58Z or …+08:00");
        let time = match (self.unit(field), &slots[field as usize]) {
            (_, Raw::Absent) => return Ok(None),
            (None | Some(Unit::Ms), Raw::Int(ms)) => EventTime::from_ms(*ms),
            (Some(Unit::S), Raw::Int(s)) => EventTime::from_ms(s.saturating_mul(1000)),
            (Some(Unit::S), Raw::Float(s)) if s.is_finite() => {
                EventTime::from_ms((s * 1000.0).round() as i64)
            }
            (None | Some(Unit::Rfc3339), Raw::Text(text)) => {
                EventTime::parse_rfc3339(text).ok_or_else(zoned)?
            }
            (Some(Unit::Local(pattern, _)), Raw::Text(text)) => {
                let unlike = || refuse("not a local time of the pattern in its unit");
                let zone = self.zone.clone().ok_or_else(unlike)?;
                let local = jiff::civil::DateTime::strptime(pattern, &**text).map_err(|_| unlike())?;
                // In the hour that a clock change repeats, jiff takes the earlier one.
                let time = zone.to_timestamp(local).map_err(|_| unlike())?;
                EventTime::from_ms(time.as_millisecond())
            }
            (Some(Unit::Rfc3339), _) => return Err(zoned()),
            (Some(Unit::Local(..)), _) => return Err(refuse("not a text, as its unit says")),
            (Some(Unit::S), _) => return Err(refuse("not seconds since 1970, as its unit says")),
            (Some(Unit::Ms), _) => return Err(refuse("not whole milliseconds since 1970, as its unit says")),
            _ => {
                return Err(refuse(
                    "neither a time in RFC 3339 nor whole milliseconds since 1970",
                ));
            }
        };
        Ok(Some(time))
    }

    fn degrees(&self, field: Field, slots: &Slots<'_>) -> Result<Option<f64>, Fault> {
        let scale = match self.unit(field) {
            Some(Unit::E7) => 1e-7,
            Some(Unit::E6) => 1e-6,
            _ => 1.0,
        };
        Ok(number(field, slots)?.map(|n| n * scale))
    }

    fn speed(&self, slots: &Slots<'_>) -> Result<Option<u32>, Fault> {
        // Exact: km/h by 1/3.6, the international mile 1,609.344 m, the nautical mile 1,852 m.
        let mm_s = match self.unit(Field::Speed) {
            Some(Unit::Mps) => 1000.0,
            Some(Unit::Knots) => 1_852_000.0 / 3600.0,
            Some(Unit::Mph) => 1_609_344.0 / 3600.0,
            _ => 1000.0 / 3.6,
        };
        match number(Field::Speed, slots)?.map(|n| n * mm_s) {
            None => Ok(None),
            Some(v) if (0.0..=f64::from(self.settings.speed_max_mps) * 1000.0).contains(&v) => {
                Ok(Some(v.round() as u32))
            }
            Some(_) => {
                let problem = "below 0 or above `ingest.speed_max_mps`; is its unit right?";
                Err(Fault::at(Field::Speed, Rejection::OutOfRange, problem))
            }
        }
    }

    fn place(&self, lat: f64, lon: f64) -> Result<Position, Fault> {
        let refuse = |reason, problem| Err(Fault::at(Field::Lat, reason, problem));
        // About 100 m around 0, 0: receivers without a fix write small noise there.
        if lat.abs() < 1e-3 && lon.abs() < 1e-3 {
            return refuse(Rejection::NullIsland, "latitude and longitude are 0");
        }
        let here = |lat: f64, lon: f64| {
            let (lat, lon) = self.mapping.datum.to_wgs84(lat, lon);
            Position::from_degrees(lat, lon)
        };
        match here(lat, lon) {
            Ok(p) if self.area.contains(p) => Ok(p),
            Err(PositionError::NotFinite) => refuse(Rejection::NotFinite, "not a finite number"),
            other => {
                if here(lon, lat).is_ok_and(|p| self.area.contains(p)) {
                    refuse(Rejection::Swapped, "latitude and longitude have changed places")
                } else if other.is_ok() {
                    let problem =
                        "the position lies outside of the map and its margin `ingest.area_margin_m`";
                    refuse(Rejection::OutOfArea, problem)
                } else {
                    refuse(
                        Rejection::OutOfRange,
                        "no latitude and longitude in degrees; is a unit missing?",
                    )
                }
            }
        }
    }
}

fn number(field: Field, slots: &Slots<'_>) -> Result<Option<f64>, Fault> {
    match &slots[field as usize] {
        Raw::Absent => Ok(None),
        Raw::Int(i) => Ok(Some(*i as f64)),
        Raw::Float(f) if f.is_finite() => Ok(Some(*f)),
        Raw::Float(_) => Err(Fault::at(field, Rejection::NotFinite, "not a finite number")),
        _ => Err(Fault::at(field, Rejection::Schema, "not a number")),
    }
}

fn truth(field: Field, slots: &Slots<'_>) -> Result<Option<bool>, Fault> {
    match &slots[field as usize] {
        Raw::Absent => Ok(None),
        Raw::Bool(b) => Ok(Some(*b)),
        Raw::Int(i @ (0 | 1)) => Ok(Some(*i == 1)),
        _ => Err(Fault::at(field, Rejection::Schema, "not true, false, 0 or 1")),
    }
}

/// Times in another unit than the source says fall outside two centuries.
fn plausible(time: EventTime) -> Result<EventTime, Fault> {
    if (EventTime::MIN_PLAUSIBLE..=EventTime::MAX_PLAUSIBLE).contains(&time) {
        Ok(time)
    } else {
        let problem = "a time that no feed can mean; seconds for milliseconds?";
        Err(Fault::at(Field::EventTime, Rejection::ClockUnit, problem))
    }
}

fn heading(slots: &Slots<'_>) -> Result<Option<Bearing>, Fault> {
    match number(Field::Heading, slots)? {
        None => Ok(None),
        Some(d) if (-360.0..=360.0).contains(&d) => Ok(Bearing::from_degrees(d)),
        Some(_) => {
            let problem = "not between -360 and 360 degrees";
            Err(Fault::at(Field::Heading, Rejection::OutOfRange, problem))
        }
    }
}

/// A CSV cell has no type of its own: the field decides.
fn csv_value(field: Field, cell: &str) -> Raw<'_> {
    if cell.is_empty() {
        return Raw::Absent;
    }
    match field {
        Field::VehicleId | Field::SensorId | Field::VehicleClass => Raw::Text(Cow::Borrowed(cell)),
        _ => {
            if let Ok(i) = cell.parse() {
                return Raw::Int(i);
            }
            if let Ok(f) = cell.parse() {
                return Raw::Float(f);
            }
            match cell {
                "true" | "TRUE" | "True" => Raw::Bool(true),
                "false" | "FALSE" | "False" => Raw::Bool(false),
                _ => Raw::Text(Cow::Borrowed(cell)),
            }
        }
    }
}

/// Reads one JSON value at a node of the tree of names.
struct Node<'n, 's, 'a> {
    names: &'n Names,
    slots: &'s mut Slots<'a>,
}

impl<'a> Node<'_, '_, 'a> {
    fn put<E>(self, raw: Raw<'a>) -> Result<(), E> {
        if let Some(field) = self.names.field {
            self.slots[field as usize] = raw;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.put(Raw::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.put(Raw::Int(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.put(i64::try_from(v).map_or(Raw::Float(v as f64), Raw::Int))
    }

    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.put(Raw::Float(v))
    }

    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<(), E> {
        self.put(Raw::Text(Cow::Borrowed(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        self.put(Raw::Text(Cow::Owned(v.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        // null: as if it were not there
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Node { names, slots } = self;
        // RFC 6901: a number names an element, written without leading zeros.
        let indices = names
            .children
            .iter()
            .any(|(n, _)| n.as_bytes().first().is_some_and(u8::is_ascii_digit));
        if indices {
            for i in 0_usize.. {
                let more = match names.child(&i.to_string()) {
                    Some(names) => seq.next_element_seed(Node { names, slots })?.is_some(),
                    None => seq.next_element::<IgnoredAny>()?.is_some(),
                };
                if !more {
                    break;
                }
            }
        } else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        if let Some(field) = names.field {
            slots[field as usize] = Raw::Other;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Node { names, slots } = self;
        while let Some(child) = map.next_key_seed(Member(names))? {
            match child {
                Some(names) => map.next_value_seed(Node { names, slots })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Some(field) = names.field {
            slots[field as usize] = Raw::Other;
        }
        Ok(())
    }
}

/// Reads a member name and looks it up, without keeping it.
struct Member<'n>(&'n Names);

impl<'de, 'n> DeserializeSeed<'de> for Member<'n> {
    type Value = Option<&'n Names>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Member<'n> {
    type Value = Option<&'n Names>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::FieldSource;

    fn decoder(mapping: FieldMapping) -> Decoder {
        let corner = |lat, lon| Position::from_degrees(lat, lon).unwrap();
        let area = Area::around(corner(34.0, 108.0), corner(35.0, 109.0), 1_000);
        Decoder::new(mapping, None, Settings::default(), area, Arc::default())
    }

    #[test]
    fn a_refused_record_says_why() {
        let decoder = decoder(FieldMapping::viaflux(Feed::Probe));
        let good = r#"{"vehicle_id":"a","event_time":"2026-11-23T05:30:58Z","lat":34.2,"lon":108.9}"#;
        assert_eq!(decoder.explain(good.as_bytes()), None);
        let cases = [
            ("58Z", "58", Some(Field::EventTime), "with a zone"),
            (
                "58Z",
                "58",
                Some(Field::EventTime),
                r#"found the text "2026-11-23T05:30:58" at `event_time`"#,
            ),
            (
                "34.2",
                r#""34.2""#,
                Some(Field::Lat),
                r#"not a number; found the text "34.2" at `lat`"#,
            ),
            (
                r#","lon":108.9"#,
                "",
                Some(Field::Lon),
                "required; found nothing at `lon`",
            ),
            (
                "vehicle_id",
                "vehicle",
                Some(Field::VehicleId),
                "required; found nothing at `vehicle_id`",
            ),
            (
                r#""a""#,
                "[1]",
                Some(Field::VehicleId),
                "found a list or an object",
            ),
            (
                r#""2026-11-23T05:30:58Z""#,
                "1795411858",
                Some(Field::EventTime),
                "seconds for milliseconds?",
            ),
            ("34.2", "44.2", Some(Field::Lat), "outside of the map"),
            (
                "108.9}",
                r#"108.9,"speed_kph":900}"#,
                Some(Field::Speed),
                "is its unit right?",
            ),
            ("}", "", None, "not one JSON value: EOF while parsing"),
        ];
        for (from, to, field, part) in cases {
            let bad = good.replace(from, to);
            let why = decoder.explain(bad.as_bytes()).unwrap();
            assert_eq!(Err(why.reason), decoder.decode(bad.as_bytes(), 0), "{bad}");
            assert!(why.field == field && why.detail.contains(part), "{bad}: {why:?}");
        }
    }

    #[test]
    fn elements_of_lists_are_found_by_number() {
        let mut mapping = FieldMapping::viaflux(Feed::Probe);
        let at = |path: &str| FieldSource {
            path: path.to_owned(),
            unit: None,
        };
        mapping.fields.insert(Field::Lon, at("/geometry/coordinates/0"));
        mapping.fields.insert(Field::Lat, at("/geometry/coordinates/1"));
        mapping.fields.insert(Field::Speed, at("/samples/10/v"));
        let decoder = decoder(mapping);
        let samples: Vec<String> = (0..12).map(|i| format!(r#"{{"v":{i}}}"#)).collect();
        let record = format!(
            r#"{{"vehicle_id":"a","event_time":1795411858000,"geometry":{{"coordinates":[108.9,34.2,400]}},"samples":[{}]}}"#,
            samples.join(",")
        );
        let Event::Probe(fix) = decoder.decode(record.as_bytes(), 0).unwrap().event else {
            panic!("a probe feed gives probes")
        };
        assert_eq!(fix.position, Position::from_degrees(34.2, 108.9).unwrap());
        assert_eq!(fix.speed, Some(2778), "10 km/h");
        let short = record.replace("[108.9,34.2,400]", "[108.9]");
        let why = decoder.explain(short.as_bytes()).unwrap();
        assert!(
            why.detail.contains("nothing at `/geometry/coordinates/1`"),
            "{why:?}"
        );
    }

    #[test]
    fn columns_are_separated_as_the_mapping_says() {
        let mut mapping = FieldMapping::viaflux(Feed::Probe);
        mapping.format = Format::Csv;
        let header = ["vehicle_id", "event_time", "lat", "lon"].map(str::to_owned);
        let area = decoder(mapping.clone()).area;
        let of = |mapping| Decoder::new(mapping, Some(&header), Settings::default(), area, Arc::default());
        let row = b"a;2026-11-23T05:30:58Z;34.2;108.9";
        let why = of(mapping.clone()).explain(row).unwrap();
        assert!(why.detail.contains("is the separator right?"), "{why:?}");
        mapping.separator = Some(';');
        assert!(of(mapping).decode(row, 0).is_ok());
    }

    #[test]
    fn fields_know_their_words_and_units() {
        for (i, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, i);
            assert_eq!(serde_json::to_value(field).unwrap(), field.label());
            for unit in field.units().1 {
                let text = unit
                    .replace("<strftime>", "%F %T")
                    .replace("<zone>", "Asia/Shanghai");
                assert!(field.takes(&text.parse().unwrap()), "{field:?} {unit}");
            }
        }
        for feed in [Feed::Probe, Feed::Sensor] {
            assert!(FieldMapping::required(feed).iter().all(|f| f.is_of(feed)));
        }
    }
}
