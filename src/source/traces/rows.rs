//! Traces as rows: CSV with a header row, and NDJSON of positions or of whole traces.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Found, Lines, Point, Rows, heading, position, speed};
use crate::ingest::{Area, Decoder, Event, FieldMapping, Settings, VehicleClass};
use crate::units::{EventTime, Position};

/// What a column or member may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Id,
    Time,
    Lat,
    Lon,
    Kph,
    Mps,
    Heading,
    Accuracy,
    Class,
}

const FIELDS: usize = 9;

/// Common names, of two of one meaning the better first; only their letters and digits are compared, in lower case.
/// A plain `speed` is not among them: nothing tells its unit.
const NAMES: [(&str, Is); 39] = [
    ("trackid", Is::Id),
    ("tripid", Is::Id),
    ("traceid", Is::Id),
    ("trajid", Is::Id),
    ("trajectoryid", Is::Id),
    ("vehicleid", Is::Id),
    ("deviceid", Is::Id),
    ("taxiid", Is::Id),
    ("track", Is::Id),
    ("trip", Is::Id),
    ("vehicle", Is::Id),
    ("device", Is::Id),
    ("id", Is::Id),
    ("eventtime", Is::Time),
    ("timestamp", Is::Time),
    ("datetime", Is::Time),
    ("gpstime", Is::Time),
    ("fixtime", Is::Time),
    ("time", Is::Time),
    ("ts", Is::Time),
    ("latitude", Is::Lat),
    ("lat", Is::Lat),
    ("longitude", Is::Lon),
    ("lon", Is::Lon),
    ("lng", Is::Lon),
    ("long", Is::Lon),
    ("speedkph", Is::Kph),
    ("speedkmh", Is::Kph),
    ("kph", Is::Kph),
    ("speedmps", Is::Mps),
    ("speedms", Is::Mps),
    ("headingdeg", Is::Heading),
    ("heading", Is::Heading),
    ("bearing", Is::Heading),
    ("course", Is::Heading),
    ("azimuth", Is::Heading),
    ("accuracym", Is::Accuracy),
    ("accuracy", Is::Accuracy),
    ("vehicleclass", Is::Class),
];

/// The names that one looked for, to tell people.
const WANTED: &str = "latitude or lat, longitude, lon or lng; besides them track_id, vehicle_id, device_id or id, \
                      time, timestamp or ts, speed_kph or speed_mps, heading or course, accuracy";

/// What a name means, and its place in [`NAMES`].
fn meaning(name: &str) -> Option<(usize, Is)> {
    let plain: String = name
        .chars()
        .filter(|c| c.is_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let rank = NAMES.iter().position(|(n, _)| *n == plain)?;
    Some((rank, NAMES[rank].1))
}

/// For each [`Is`] the index of the name that tells it best.
fn places<'n>(names: impl Iterator<Item = &'n str>) -> [Option<usize>; FIELDS] {
    let mut best: [Option<(usize, usize)>; FIELDS] = [None; FIELDS];
    for (i, name) in names.enumerate() {
        if let Some((rank, is)) = meaning(name) {
            let slot = &mut best[is as usize];
            if slot.is_none_or(|(r, _)| rank < r) {
                *slot = Some((rank, i));
            }
        }
    }
    best.map(|b| b.map(|(_, i)| i))
}

/// A row's cells by meaning: texts of a CSV row, or those of JSON values; `None` where there is nothing.
type Cells<'a> = [Option<Cow<'a, str>>; FIELDS];

/// A point from cells, with the id of its track.
fn point(line: u64, cells: &Cells<'_>) -> Result<Point, String> {
    let number = |is: Is| -> Result<Option<f64>, String> {
        let Some(text) = &cells[is as usize] else {
            return Ok(None);
        };
        let number = text.parse().map_err(|_| format!("`{text}` is no number"))?;
        Ok(Some(number))
    };
    let degrees =
        |is: Is, name: &str| number(is).and_then(|n| n.ok_or_else(|| format!("there is no {name}")));
    let place = position(degrees(Is::Lat, "latitude")?, degrees(Is::Lon, "longitude")?)?;
    let time = cells[Is::Time as usize].as_deref().unwrap_or_default();
    let mps = number(Is::Mps)?.or(number(Is::Kph)?.map(|kph| kph / 3.6));
    let accuracy = number(Is::Accuracy)?.filter(|m| (0.0..=1e5).contains(m));
    let class = cells[Is::Class as usize].as_deref().map(VehicleClass::of);
    Ok(Point {
        time: time_of_text(time)?,
        speed: mps.and_then(speed),
        heading: number(Is::Heading)?.and_then(heading),
        accuracy_mm: accuracy.map(|m| (m * 1000.0).round() as u32),
        bus_roads: class.is_some_and(VehicleClass::uses_bus_roads),
        ..Point::at(line, place)
    })
}

/// A time as traces have it: RFC 3339, without a zone taken as UTC; milliseconds or, below 1e11, seconds. Nothing
/// is no time.
pub(super) fn time_of_text(text: &str) -> Result<Option<EventTime>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = text.parse::<f64>() {
        return time_of_number(number).map(Some);
    }
    let utc = || -> Option<EventTime> {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        let time = jiff::tz::Offset::UTC.to_timestamp(local).ok()?;
        Some(EventTime::from_ms(time.as_millisecond()))
    };
    match EventTime::parse_rfc3339(text).or_else(utc) {
        Some(time) => Ok(Some(time)),
        None => Err(format!(
            "`{text}` is no time: neither like 2026-11-23T05:30:58Z nor seconds or milliseconds since 1970"
        )),
    }
}

/// Seconds above this lie in the year 5138, milliseconds below it in 1973.
const MS_FROM: f64 = 1e11;

fn time_of_number(number: f64) -> Result<EventTime, String> {
    let ms = if number.abs() < MS_FROM {
        number * 1000.0
    } else {
        number
    };
    if !(0.0..=EventTime::MAX_PLAUSIBLE.ms() as f64).contains(&ms) {
        return Err(format!(
            "{number} is no time in seconds or milliseconds since 1970"
        ));
    }
    Ok(EventTime::from_ms(ms.round() as i64))
}

/// Lines with their numbers from 1, those of nothing but space left out.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    (1..).zip(lines).filter(|(_, line)| !line.is_empty())
}

/// Reads CSV.
pub(super) fn read_csv(text: &[u8], rows: &Rows, found: &mut Found) -> Result<(), String> {
    let first = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let separator = match rows {
        Rows::Named(Some(c)) => {
            u8::try_from(*c).map_err(|_| format!("`{c}` cannot separate columns; use , ; | or a tab"))?
        }
        Rows::Named(None) => {
            let count = |s: &u8| first.iter().filter(|b| *b == s).count();
            *b"\t|;,".iter().max_by_key(|s| count(s)).unwrap_or(&b',')
        }
        Rows::Mapped(mapping, _) => mapping.separator(),
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let header: Vec<String> = reader
        .byte_headers()
        .map_err(|e| e.to_string())?
        .iter()
        .map(|c| String::from_utf8_lossy(c).into_owned())
        .collect();
    if let Rows::Mapped(mapping, settings) = rows {
        if let Some((_, at)) = mapping.fields.iter().find(|(field, at)| {
            FieldMapping::required(mapping.feed).contains(field) && !header.contains(&at.path)
        }) {
            let has = header.join(", ");
            return Err(format!("no column `{}`; the header row has {has}", at.path));
        }
        let decoder = decoder(mapping, Some(&header), settings);
        lines(text)
            .skip(1)
            .for_each(|(number, line)| decode(&decoder, number, line, found));
        return Ok(());
    }
    let places = places(header.iter().map(String::as_str));
    for (is, name) in [(Is::Lat, "latitude"), (Is::Lon, "longitude")] {
        if places[is as usize].is_none() {
            let has: String = header.join(", ").chars().take(200).collect();
            return Err(format!(
                "the first line names no column of the {name}; it reads: {has}\nknown names are {WANTED}; others need a preset or a [[source]]"
            ));
        }
    }
    let (mut row, mut numbers) = (csv::ByteRecord::new(), Lines::of(text));
    loop {
        match reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        }
        let line = numbers.of_text_at(row.position().map_or(0, |p| p.byte() as usize));
        let cells = places.map(|place| {
            let cell = String::from_utf8_lossy(row.get(place?)?);
            (!cell.is_empty()).then_some(cell)
        });
        take(line, &cells, found);
    }
}

fn take(line: u64, cells: &Cells<'_>, found: &mut Found) {
    match point(line, cells) {
        Ok(point) => found.push_to(cells[Is::Id as usize].as_deref(), point),
        Err(problem) => found.refuse(line, problem),
    }
}

/// Reads NDJSON: a position a line, or a trace `{"id": …, "pts": [[lon, lat, seconds, km/h, degrees], …]}` a line, of
/// whose points the last three may be missing or null.
pub(super) fn read_json(text: &[u8], rows: &Rows, found: &mut Found) -> Result<(), String> {
    if let Rows::Mapped(mapping, settings) = rows {
        let decoder = decoder(mapping, None, settings);
        lines(text).for_each(|(number, line)| decode(&decoder, number, line, found));
        return Ok(());
    }
    for (number, line) in lines(text) {
        let row = match serde_json::from_slice(line) {
            Ok(Value::Object(row)) => row,
            Ok(_) => {
                found.refuse(number, "no JSON object");
                continue;
            }
            Err(e) => {
                found.refuse(number, format_args!("not one JSON value: {e}"));
                continue;
            }
        };
        if let Some(Value::Array(points)) = row.get("pts") {
            found.begin(row.get("id").and_then(text_of).map(Cow::into_owned));
            for p in points {
                match trace_point(number, p) {
                    Ok(point) => found.push(point),
                    Err(problem) => found.refuse(number, problem),
                }
            }
            continue;
        }
        let places = places(row.keys().map(String::as_str));
        let values: Vec<&Value> = row.values().collect();
        take(number, &places.map(|place| text_of(values[place?])), found);
    }
    Ok(())
}

/// A value as a cell.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

fn trace_point(line: u64, value: &Value) -> Result<Point, String> {
    let number = |i: usize| value.get(i).and_then(Value::as_f64);
    let (Some(lon), Some(lat)) = (number(0), number(1)) else {
        return Err(format!(
            "a point is [lon, lat, seconds, km/h, degrees], not {value}"
        ));
    };
    Ok(Point {
        // Always seconds, and often counted from the trace's own beginning.
        time: number(2).map(|s| EventTime::from_ms((s * 1000.0).round() as i64)),
        speed: number(3).and_then(|kph| speed(kph / 3.6)),
        heading: number(4).and_then(heading),
        ..Point::at(line, position(lat, lon)?)
    })
}

/// A decoder for all the world: a trace beside the map is off the road, not refused.
fn decoder(mapping: &FieldMapping, header: Option<&[String]>, settings: &Settings) -> Decoder {
    let corner = |lat, lon| Position::from_degrees(lat, lon).expect("the corners of the world are positions");
    let world = Area::around(corner(-90.0, -180.0), corner(90.0, 180.0), 0);
    Decoder::new(
        mapping.clone(),
        header,
        settings.clone(),
        world,
        Arc::new(HashSet::new()),
    )
    .keep_ids(true)
}

fn decode(decoder: &Decoder, line: u64, payload: &[u8], found: &mut Found) {
    match decoder.decode(payload, line) {
        Ok(decoded) => {
            if let Event::Probe(p) = decoded.event {
                let point = Point {
                    line,
                    time: Some(p.time),
                    position: p.position,
                    speed: p.speed,
                    heading: p.heading,
                    accuracy_mm: p.accuracy_mm,
                    bus_roads: p.class.uses_bus_roads(),
                };
                found.push_to(decoded.id.as_deref(), point);
            }
        }
        Err(reason) => {
            let detail = decoder
                .explain(payload)
                .map_or_else(|| reason.label().to_owned(), |e| e.detail);
            found.refuse(line, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Feed;

    fn csv(text: &str) -> Result<Found, String> {
        let mut found = Found::default();
        read_csv(text.as_bytes(), &Rows::Named(None), &mut found).map(|()| found)
    }

    #[test]
    fn columns_are_known_by_many_names() {
        for text in [
            "TrackID,Latitude,Longitude,Time\n7,50.5,8.25,2020-01-01T00:00:05Z\n",
            "time;LNG;lat;Vehicle-Id\n2020-01-01 00:00:05;8.25;50.5;7\n",
            "ts\ttrip_id\tlong\tlat\tvehicle_id\r\n1577836805\t7\t8.25\t50.5\tother\r\n",
            "timestamp|id|lon|lat\n1577836805000|7|8.25|50.5",
        ] {
            let found = csv(text).unwrap();
            assert_eq!(found.first_refused, None, "{text}");
            let (id, points) = &found.tracks[0];
            assert_eq!((id.as_deref(), points.len()), (Some("7"), 1), "{text}");
            let p = points[0];
            assert_eq!((p.line, p.time.map(|t| t.ms())), (2, Some(1_577_836_805_000)));
            assert_eq!((p.position.lat(), p.position.lon()), (50.5, 8.25));
        }
    }

    #[test]
    fn rows_are_refused_one_by_one_and_tracks_may_be_mixed() {
        let found = csv("id,lat,lon,time,speed_kph,heading,accuracy\na,50,8,,36,-1,5\nb,50,8,,,90,\na,x,8,,,,\na,50,8,noon,,,\na,50\na,50,8.1,,,,\n")
            .unwrap();
        let sizes: Vec<usize> = found.tracks.iter().map(|(_, p)| p.len()).collect();
        assert_eq!((sizes, found.refused), (vec![2, 1], 3));
        assert_eq!(found.first_refused.as_deref(), Some("line 4: `x` is no number"));
        let p = found.tracks[0].1[0];
        assert_eq!(
            (p.time, p.speed, p.heading, p.accuracy_mm),
            (None, Some(10_000), None, Some(5_000))
        );
    }

    #[test]
    fn a_header_that_names_no_place_is_told() {
        let error = csv("1,2008-02-02 15:36:08,116.51,39.92\n").unwrap_err();
        assert!(
            error.contains("latitude") && error.contains("116.51") && error.contains("lng"),
            "{error}"
        );
    }

    #[test]
    fn ndjson_of_positions_and_of_traces() {
        let text = r#"{"vehicle_id":"a","event_time":"2020-01-01T00:00:05Z","lat":50,"lon":8,"speed_kph":36,"heading_deg":90,"accuracy_m":5.0,"vehicle_class":"bus"}

{"vehicle_id":"a","ts":1577836806000,"lat":50,"lon":8,"speed_mps":null}
{"id":12,"pts":[[8,50,0,36,270],[8.1,50],[8.2,50,2.5,null,null],[8.3]]}
{"vehicle_id":"a","lat":50
[1]
"#;
        let mut found = Found::default();
        read_json(text.as_bytes(), &Rows::Named(None), &mut found).unwrap();
        let sizes: Vec<_> = found
            .tracks
            .iter()
            .map(|(id, p)| (id.as_deref(), p.len()))
            .collect();
        assert_eq!((sizes, found.refused), (vec![(Some("a"), 2), (Some("12"), 3)], 3));
        let a = &found.tracks[0].1;
        assert_eq!(
            (a[0].speed, a[0].accuracy_mm, a[0].bus_roads),
            (Some(10_000), Some(5_000), true)
        );
        assert_eq!(
            (a[1].line, a[1].time.map(|t| t.ms())),
            (3, Some(1_577_836_806_000))
        );
        assert_eq!(found.tracks[1].1[2].time, Some(EventTime::from_ms(2_500)));
    }

    #[test]
    fn a_mapping_brings_its_units_and_rules() {
        let rows = Rows::Mapped(
            Box::new(FieldMapping::simulated_city(Feed::Probe)),
            Settings::default(),
        );
        let mut found = Found::default();
        let text = "{\"vehicle_id\":\"a\",\"ts\":1577836806000,\"lat\":50,\"lon\":8,\"speed_mps\":10}\n\
                    {\"vehicle_id\":\"a\",\"lat\":50,\"lon\":8}\n";
        read_json(text.as_bytes(), &rows, &mut found).unwrap();
        assert_eq!((found.tracks[0].1[0].speed, found.refused), (Some(10_000), 1));
        assert!(
            found
                .first_refused
                .is_some_and(|f| f.contains("line 2") && f.contains("`ts`")),
            "the field is named"
        );
    }
}
