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

impl Raw<'_> {
    fn number(&self) -> Result<Option<f64>, Rejection> {
        match self {
            Raw::Absent => Ok(None),
            Raw::Int(i) => Ok(Some(*i as f64)),
            Raw::Float(f) if f.is_finite() => Ok(Some(*f)),
            Raw::Float(_) => Err(Rejection::NotFinite),
            _ => Err(Rejection::Schema),
        }
    }

    fn truth(&self) -> Result<Option<bool>, Rejection> {
        match self {
            Raw::Absent => Ok(None),
            Raw::Bool(b) => Ok(Some(*b)),
            Raw::Int(i @ (0 | 1)) => Ok(Some(*i == 1)),
            _ => Err(Rejection::Schema),
        }
    }
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
    /// Vehicle or sensor id, if [`Decoder::keep_ids`] was asked for.
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
        if payload.len() > self.settings.record_bytes_max as usize {
            return Err(Rejection::Oversize);
        }
        let mut slots: Slots<'_> = std::array::from_fn(|_| Raw::Absent);
        let mut text = [0_u8; 4096];
        match self.mapping.format {
            Format::Json => self.read_json(payload, &mut slots)?,
            Format::Csv => self.read_csv(payload, &mut text, &mut slots)?,
        }
        match self.mapping.feed {
            Feed::Probe => self.probe(&slots, offset),
            Feed::Sensor => self.measurement(&slots, offset),
        }
    }

    fn read_json<'a>(&self, payload: &'a [u8], slots: &mut Slots<'a>) -> Result<(), Rejection> {
        let mut json = serde_json::Deserializer::from_slice(payload);
        Node {
            names: &self.names,
            slots,
        }
        .deserialize(&mut json)
        .map_err(|_| Rejection::Decode)?;
        json.end().map_err(|_| Rejection::Decode)?;
        // JSON that is no object leaves every slot empty: a required field is missing.
        Ok(())
    }

    fn read_csv<'a>(
        &self,
        payload: &[u8],
        text: &'a mut [u8],
        slots: &mut Slots<'a>,
    ) -> Result<(), Rejection> {
        let mut reader = csv_core::Reader::new();
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
                    return Err(Rejection::Decode);
                }
            }
        }
        if fields < self.columns.len() {
            return Err(Rejection::Decode);
        }
        let text: &'a [u8] = text;
        let mut begin = 0;
        for (field, end) in self.columns.iter().zip(ends) {
            if let Some(field) = field {
                let cell = std::str::from_utf8(&text[begin..end])
                    .map_err(|_| Rejection::Decode)?
                    .trim();
                slots[*field as usize] = csv_value(*field, cell);
            }
            begin = end;
        }
        Ok(())
    }

    fn probe(&self, slots: &Slots<'_>, offset: u64) -> Result<Decoded, Rejection> {
        let slot = |f: Field| &slots[f as usize];
        let (vehicle, id) = self.subject(slot(Field::VehicleId))?;
        let time = self
            .time(Field::EventTime, slot(Field::EventTime))?
            .ok_or(Rejection::Schema)?;
        let lat = self
            .degrees(Field::Lat, slot(Field::Lat))?
            .ok_or(Rejection::Schema)?;
        let lon = self
            .degrees(Field::Lon, slot(Field::Lon))?
            .ok_or(Rejection::Schema)?;
        let speed = self.speed(slot(Field::Speed))?;
        let heading = heading(slot(Field::Heading).number()?)?;
        let accuracy = slot(Field::Accuracy).number()?;
        let satellites = slot(Field::Satellites).number()?;
        let fix = slot(Field::Fix).truth()?;
        let occupied = slot(Field::Occupied).truth()?;
        let class = match slot(Field::VehicleClass) {
            Raw::Absent => super::VehicleClass::default(),
            Raw::Text(word) => super::VehicleClass::of(word),
            _ => return Err(Rejection::Schema),
        };
        if accuracy.is_some_and(|a| a < 0.0) {
            return Err(Rejection::OutOfRange);
        }
        let position = self.place(lat, lon)?;
        let time = plausible(time)?;
        if fix == Some(false)
            || accuracy.is_some_and(|a| a > f64::from(self.settings.max_accuracy_m))
            || satellites.is_some_and(|n| n < f64::from(self.settings.min_satellites))
        {
            return Err(Rejection::NoFix);
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
            offset,
        });
        Ok(Decoded { event, id })
    }

    fn measurement(&self, slots: &Slots<'_>, offset: u64) -> Result<Decoded, Rejection> {
        let slot = |f: Field| &slots[f as usize];
        let (sensor, id) = self.subject(slot(Field::SensorId))?;
        let time = self
            .time(Field::EventTime, slot(Field::EventTime))?
            .ok_or(Rejection::Schema)?;
        let interval_ms = match self.time(Field::IntervalStart, slot(Field::IntervalStart))? {
            Some(start) => time.since(start) as f64,
            None => {
                let scale = if self.unit(Field::Interval) == Some(&Unit::Ms) {
                    1.0
                } else {
                    1000.0
                };
                slot(Field::Interval).number()?.ok_or(Rejection::Schema)? * scale
            }
        };
        let count = slot(Field::Count).number()?;
        let volume = slot(Field::Volume).number()?;
        let occupancy = slot(Field::Occupancy).number()?;
        let speed = self.speed(slot(Field::Speed))?;
        let error = slot(Field::DataError).truth()?;
        let heading = heading(slot(Field::Heading).number()?)?;
        let lat = self.degrees(Field::Lat, slot(Field::Lat))?;
        let lon = self.degrees(Field::Lon, slot(Field::Lon))?;
        if count.is_none() && volume.is_none() && speed.is_none() && occupancy.is_none() {
            return Err(Rejection::Schema);
        }
        let count = count.or_else(|| volume.map(|v| v * interval_ms / 3_600_000.0));
        if !(1.0..=INTERVAL_MS_MAX).contains(&interval_ms)
            || count.is_some_and(|c| !(0.0..=1e5).contains(&c))
            || occupancy.is_some_and(|o| !(0.0..=100.0).contains(&o))
        {
            return Err(Rejection::OutOfRange);
        }
        let position = match (lat, lon) {
            (Some(lat), Some(lon)) => Some(self.place(lat, lon)?),
            _ => None,
        };
        let time = plausible(time)?;
        if position.is_none() && !self.sensors.contains(&sensor) {
            return Err(Rejection::UnknownSensor);
        }
        if error == Some(true) {
            return Err(Rejection::SensorFault);
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

    fn subject(&self, raw: &Raw<'_>) -> Result<(SubjectKey, Option<Box<str>>), Rejection> {
        let id: Cow<'_, str> = match raw {
            Raw::Text(text) => Cow::Borrowed(text),
            Raw::Int(i) => Cow::Owned(i.to_string()),
            _ => return Err(Rejection::Schema),
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(Rejection::Schema);
        }
        Ok((SubjectKey::of(&id), self.keep_ids.then(|| Box::from(&*id))))
    }

    fn time(&self, field: Field, raw: &Raw<'_>) -> Result<Option<EventTime>, Rejection> {
        let time = match (self.unit(field), raw) {
            (_, Raw::Absent) => return Ok(None),
            (None | Some(Unit::Ms), Raw::Int(ms)) => EventTime::from_ms(*ms),
            (Some(Unit::S), Raw::Int(s)) => EventTime::from_ms(s.saturating_mul(1000)),
            (Some(Unit::S), Raw::Float(s)) if s.is_finite() => {
                EventTime::from_ms((s * 1000.0).round() as i64)
            }
            (None | Some(Unit::Rfc3339), Raw::Text(text)) => {
                EventTime::parse_rfc3339(text).ok_or(Rejection::Schema)?
            }
            (Some(Unit::Local(pattern, _)), Raw::Text(text)) => {
                let zone = self.zone.clone().ok_or(Rejection::Schema)?;
                let local =
                    jiff::civil::DateTime::strptime(pattern, &**text).map_err(|_| Rejection::Schema)?;
                // In the hour that a clock change repeats, jiff takes the earlier one.
                let time = zone.to_timestamp(local).map_err(|_| Rejection::Schema)?;
                EventTime::from_ms(time.as_millisecond())
            }
            _ => return Err(Rejection::Schema),
        };
        Ok(Some(time))
    }

    fn degrees(&self, field: Field, raw: &Raw<'_>) -> Result<Option<f64>, Rejection> {
        let scale = match self.unit(field) {
            Some(Unit::E7) => 1e-7,
            Some(Unit::E6) => 1e-6,
            _ => 1.0,
        };
        Ok(raw.number()?.map(|n| n * scale))
    }

    fn speed(&self, raw: &Raw<'_>) -> Result<Option<u32>, Rejection> {
        // Exact: km/h by 1/3.6, the international mile 1,609.344 m, the nautical mile 1,852 m.
        let mm_s = match self.unit(Field::Speed) {
            Some(Unit::Mps) => 1000.0,
            Some(Unit::Knots) => 1_852_000.0 / 3600.0,
            Some(Unit::Mph) => 1_609_344.0 / 3600.0,
            _ => 1000.0 / 3.6,
        };
        match raw.number()?.map(|n| n * mm_s) {
            None => Ok(None),
            Some(v) if (0.0..=f64::from(self.settings.speed_max_mps) * 1000.0).contains(&v) => {
                Ok(Some(v.round() as u32))
            }
            Some(_) => Err(Rejection::OutOfRange),
        }
    }

    fn place(&self, lat: f64, lon: f64) -> Result<Position, Rejection> {
        // About 100 m around 0, 0: receivers without a fix write small noise there.
        if lat.abs() < 1e-3 && lon.abs() < 1e-3 {
            return Err(Rejection::NullIsland);
        }
        let here = |lat: f64, lon: f64| {
            let (lat, lon) = self.mapping.datum.to_wgs84(lat, lon);
            Position::from_degrees(lat, lon)
        };
        match here(lat, lon) {
            Ok(p) if self.area.contains(p) => Ok(p),
            Err(PositionError::NotFinite) => Err(Rejection::NotFinite),
            other => {
                if here(lon, lat).is_ok_and(|p| self.area.contains(p)) {
                    Err(Rejection::Swapped)
                } else if other.is_ok() {
                    Err(Rejection::OutOfArea)
                } else {
                    Err(Rejection::OutOfRange)
                }
            }
        }
    }
}

/// Times in another unit than the source says fall outside two centuries.
fn plausible(time: EventTime) -> Result<EventTime, Rejection> {
    if (EventTime::MIN_PLAUSIBLE..=EventTime::MAX_PLAUSIBLE).contains(&time) {
        Ok(time)
    } else {
        Err(Rejection::ClockUnit)
    }
}

fn heading(degrees: Option<f64>) -> Result<Option<Bearing>, Rejection> {
    match degrees {
        None => Ok(None),
        Some(d) if (-360.0..=360.0).contains(&d) => Ok(Bearing::from_degrees(d)),
        Some(_) => Err(Rejection::OutOfRange),
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
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.put(Raw::Other)
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
