//! How a feed's fields become ours: the field mapping of a source, compiled for decoding.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Datum;

/// What a source reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub enum Feed {
    /// Vehicle positions.
    Probe,
    /// Roadside sensor intervals.
    Sensor,
}

/// Encoding of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// One CSV row; columns are named by the header row of the file.
    Csv,
}

/// Our fields that a feed may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
#[repr(u8)]
pub enum Field {
    /// Vehicle id (text or whole number). Required of probes.
    VehicleId,
    /// Time of the fix, or end of the interval. Required.
    EventTime,
    /// Latitude in degrees. Required of probes.
    Lat,
    /// Longitude in degrees. Required of probes.
    Lon,
    /// Speed, km/h unless a unit is named.
    Speed,
    /// Direction of travel in degrees clockwise from north.
    Heading,
    /// Accuracy in metres.
    Accuracy,
    /// Kind of vehicle (a word of interfaces §1).
    VehicleClass,
    /// Whether a taxi has a passenger (boolean or 0/1).
    Occupied,
    /// Whether the ignition is on (boolean or 0/1).
    Ignition,
    /// Number of satellites.
    Satellites,
    /// Whether the receiver has a fix (boolean, 0/1).
    Fix,
    /// Sensor id. Required of sensors.
    SensorId,
    /// Beginning of the interval.
    IntervalStart,
    /// Length of the interval, seconds unless a unit is named. Either this or `interval_start`.
    Interval,
    /// Vehicles counted in the interval.
    Count,
    /// Flow in vehicles per hour.
    Volume,
    /// Share of time occupied in percent.
    Occupancy,
    /// The sensor says that its data are wrong (boolean).
    DataError,
}

impl Field {
    /// Number of fields.
    pub const COUNT: usize = 19;

    /// All fields in the order of their numbers.
    pub const ALL: [Field; Self::COUNT] = [
        Field::VehicleId,
        Field::EventTime,
        Field::Lat,
        Field::Lon,
        Field::Speed,
        Field::Heading,
        Field::Accuracy,
        Field::VehicleClass,
        Field::Occupied,
        Field::Ignition,
        Field::Satellites,
        Field::Fix,
        Field::SensorId,
        Field::IntervalStart,
        Field::Interval,
        Field::Count,
        Field::Volume,
        Field::Occupancy,
        Field::DataError,
    ];

    /// The word in configuration and dead letters.
    pub const fn label(self) -> &'static str {
        match self {
            Field::VehicleId => "vehicle_id",
            Field::EventTime => "event_time",
            Field::Lat => "lat",
            Field::Lon => "lon",
            Field::Speed => "speed",
            Field::Heading => "heading",
            Field::Accuracy => "accuracy",
            Field::VehicleClass => "vehicle_class",
            Field::Occupied => "occupied",
            Field::Ignition => "ignition",
            Field::Satellites => "satellites",
            Field::Fix => "fix",
            Field::SensorId => "sensor_id",
            Field::IntervalStart => "interval_start",
            Field::Interval => "interval",
            Field::Count => "count",
            Field::Volume => "volume",
            Field::Occupancy => "occupancy",
            Field::DataError => "data_error",
        }
    }

    /// Whether records of `feed` have it.
    pub const fn is_of(self, feed: Feed) -> bool {
        match self {
            Field::EventTime | Field::Lat | Field::Lon | Field::Speed | Field::Heading => true,
            Field::VehicleId
            | Field::Accuracy
            | Field::VehicleClass
            | Field::Occupied
            | Field::Ignition
            | Field::Satellites
            | Field::Fix => matches!(feed, Feed::Probe),
            Field::SensorId
            | Field::IntervalStart
            | Field::Interval
            | Field::Count
            | Field::Volume
            | Field::Occupancy
            | Field::DataError => matches!(feed, Feed::Sensor),
        }
    }

    /// What it is without a unit, and the words of the units that it may have instead.
    pub const fn units(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Field::VehicleId | Field::SensorId => ("text or whole number", &[]),
            Field::EventTime | Field::IntervalStart => (
                "text in RFC 3339, or whole milliseconds since 1970",
                &["ms", "s", "rfc3339", "local:<strftime>@<zone>"],
            ),
            Field::Lat | Field::Lon => ("degrees", &["e7", "e6"]),
            Field::Speed => ("km/h", &["mps", "kph", "knots", "mph"]),
            Field::Heading => ("degrees clockwise from north", &[]),
            Field::Accuracy => ("metres", &[]),
            Field::VehicleClass => ("a word", &[]),
            Field::Occupied | Field::Ignition | Field::Fix | Field::DataError => {
                ("truth value, or 0 and 1", &[])
            }
            Field::Satellites | Field::Count => ("number", &[]),
            Field::Interval => ("seconds", &["ms", "s"]),
            Field::Volume => ("vehicles per hour", &[]),
            Field::Occupancy => ("percent", &[]),
        }
    }

    /// Whether it may have a unit.
    pub fn takes(self, unit: &Unit) -> bool {
        self.units().1.contains(&unit.label())
    }
}

/// Unit of a field in the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub enum Unit {
    /// Metres per second.
    Mps,
    /// Kilometres per hour.
    Kph,
    /// Nautical miles per hour.
    Knots,
    /// Miles per hour.
    Mph,
    /// Whole milliseconds (of time: since 1970-01-01 UTC).
    Ms,
    /// Seconds (of time: since 1970-01-01 UTC; fractions allowed).
    S,
    /// RFC 3339 text only.
    Rfc3339,
    /// Local time: `(strftime pattern, IANA time zone)`, written `local:<strftime>@<zone>`.
    Local(String, String),
    /// Whole number of 1e-7 degrees.
    E7,
    /// Whole number of 1e-6 degrees.
    E6,
}

impl Unit {
    /// The word in the configuration.
    pub const fn label(&self) -> &'static str {
        match self {
            Unit::Mps => "mps",
            Unit::Kph => "kph",
            Unit::Knots => "knots",
            Unit::Mph => "mph",
            Unit::Ms => "ms",
            Unit::S => "s",
            Unit::Rfc3339 => "rfc3339",
            Unit::Local(..) => "local:<strftime>@<zone>",
            Unit::E7 => "e7",
            Unit::E6 => "e6",
        }
    }
}

impl std::str::FromStr for Unit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "mps" => Unit::Mps,
            "kph" => Unit::Kph,
            "knots" => Unit::Knots,
            "mph" => Unit::Mph,
            "ms" => Unit::Ms,
            "s" => Unit::S,
            "rfc3339" => Unit::Rfc3339,
            "e7" => Unit::E7,
            "e6" => Unit::E6,
            _ => {
                let Some((pattern, zone)) = text.strip_prefix("local:").and_then(|r| r.rsplit_once('@'))
                else {
                    return Err(format!(
                        "unknown unit `{text}`; known: mps, kph, knots, mph, ms, s, rfc3339, local:<strftime>@<zone>, e7, e6"
                    ));
                };
                jiff::tz::TimeZone::get(zone)
                    .map_err(|_| format!("unknown time zone `{zone}` in unit `{text}`"))?;
                Unit::Local(pattern.to_owned(), zone.to_owned())
            }
        })
    }
}

/// Where a field stands in a feed's record, and in which unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSource {
    /// JSON pointer (`/position/latitude`, `/axles/0/load`; a name without `/` means a top-level member) or CSV
    /// column name.
    pub path: String,
    /// Unit, where it is not the field's own.
    pub unit: Option<Unit>,
}

/// How the records of one source are decoded. Part of the configuration hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldMapping {
    /// What the source reports.
    pub feed: Feed,
    /// Encoding.
    pub format: Format,
    /// What stands between the columns of a CSV row, where it is no comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// Datum of its positions.
    pub datum: Datum,
    /// Where our fields stand.
    pub fields: BTreeMap<Field, FieldSource>,
}

impl FieldMapping {
    /// Our own shape of `feed` (preset `viaflux`, interfaces §1).
    pub fn viaflux(feed: Feed) -> Self {
        let pairs: &[(Field, &str, Option<Unit>)] = match feed {
            Feed::Probe => &[
                (Field::VehicleId, "vehicle_id", None),
                (Field::EventTime, "event_time", None),
                (Field::Lat, "lat", None),
                (Field::Lon, "lon", None),
                (Field::Speed, "speed_kph", None),
                (Field::Heading, "heading_deg", None),
                (Field::Accuracy, "accuracy_m", None),
                (Field::VehicleClass, "vehicle_class", None),
                (Field::Occupied, "occupied", None),
                (Field::Ignition, "ignition", None),
                (Field::Satellites, "satellites", None),
                (Field::Fix, "fix", None),
            ],
            Feed::Sensor => &[
                (Field::SensorId, "sensor_id", None),
                (Field::EventTime, "collection_interval_end_date", None),
                (Field::IntervalStart, "collection_interval_start_date", None),
                (Field::Speed, "average_speed_kph", None),
                (Field::Volume, "volume_vph", None),
                (Field::Occupancy, "occupancy_percent", None),
                (Field::Lat, "lat", None),
                (Field::Lon, "lon", None),
                (Field::Heading, "heading_deg", None),
                (Field::DataError, "data_error", None),
            ],
        };
        Self::of(feed, pairs)
    }

    /// The shape of the simulated city (preset `simulated-city`, interfaces §1 and §7).
    pub fn simulated_city(feed: Feed) -> Self {
        let pairs: &[(Field, &str, Option<Unit>)] = match feed {
            Feed::Probe => &[
                (Field::VehicleId, "vehicle_id", None),
                (Field::EventTime, "ts", Some(Unit::Ms)),
                (Field::Lat, "lat", None),
                (Field::Lon, "lon", None),
                (Field::Speed, "speed_mps", Some(Unit::Mps)),
                (Field::Heading, "heading_deg", None),
                (Field::Accuracy, "accuracy_m", None),
            ],
            Feed::Sensor => &[
                (Field::SensorId, "sensor_id", None),
                (Field::EventTime, "ts", Some(Unit::Ms)),
                (Field::Interval, "period_s", None),
                (Field::Count, "count", None),
                (Field::Occupancy, "occupancy", None),
                (Field::Speed, "speed_mps", Some(Unit::Mps)),
            ],
        };
        Self::of(feed, pairs)
    }

    fn of(feed: Feed, pairs: &[(Field, &str, Option<Unit>)]) -> Self {
        let fields = pairs
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
            .collect();
        Self {
            feed,
            format: Format::Json,
            separator: None,
            datum: Datum::Wgs84,
            fields,
        }
    }

    /// What stands between the columns of a CSV row.
    pub fn separator(&self) -> u8 {
        // Anything else is refused with the configuration.
        self.separator
            .and_then(|c| u8::try_from(c).ok())
            .filter(u8::is_ascii)
            .unwrap_or(b',')
    }

    /// The fields that every record of a feed must fill. A sensor's also needs its interval.
    pub const fn required(feed: Feed) -> &'static [Field] {
        match feed {
            Feed::Probe => &[Field::VehicleId, Field::EventTime, Field::Lat, Field::Lon],
            Feed::Sensor => &[Field::SensorId, Field::EventTime],
        }
    }

    /// The required fields that this mapping does not fill.
    pub fn missing(&self) -> Vec<Field> {
        let required = Self::required(self.feed);
        let mut missing: Vec<Field> = required
            .iter()
            .copied()
            .filter(|f| !self.fields.contains_key(f))
            .collect();
        if self.feed == Feed::Sensor
            && !self.fields.contains_key(&Field::Interval)
            && !self.fields.contains_key(&Field::IntervalStart)
        {
            missing.push(Field::Interval);
        }
        missing
    }
}
