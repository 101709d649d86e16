use serde::{Deserialize, Serialize};

/// Why a record was not used. A closed set: [`Rejection::label`] is the metric's and the dead letter's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Rejection {
    /// Longer than `record_bytes_max`.
    Oversize,
    /// Not JSON (or not a CSV row of the header's width).
    Decode,
    /// A required field is missing or has another type.
    Schema,
    /// A number that is not finite.
    NotFinite,
    /// A number outside its physical range.
    OutOfRange,
    /// Position 0, 0.
    NullIsland,
    /// Latitude and longitude changed places: the other way round it lies on the map.
    Swapped,
    /// A valid position outside the map.
    OutOfArea,
    /// Its clock runs ahead.
    ClockFuture,
    /// A time in another unit than the source says (seconds for milliseconds).
    ClockUnit,
    /// Behind the watermark of its log.
    Late,
    /// The same vehicle or sensor at the same time again.
    Duplicate,
    /// A position that the vehicle cannot have reached.
    Jump,
    /// The same coordinates again and again while the reported speed says otherwise.
    Frozen,
    /// The receiver says that it has no fix, or an accuracy worse than `max_accuracy_m`.
    NoFix,
    /// A sensor that no site is known for.
    UnknownSensor,
    /// A measurement that the sensor itself marks as faulty, or that its health check excludes.
    SensorFault,
    /// A named limit was reached.
    Limit,
}

impl Rejection {
    /// All reasons, in the order of their guards.
    pub const ALL: [Rejection; 18] = [
        Rejection::Oversize,
        Rejection::Decode,
        Rejection::Schema,
        Rejection::NotFinite,
        Rejection::OutOfRange,
        Rejection::NullIsland,
        Rejection::Swapped,
        Rejection::OutOfArea,
        Rejection::ClockFuture,
        Rejection::ClockUnit,
        Rejection::Late,
        Rejection::Duplicate,
        Rejection::Jump,
        Rejection::Frozen,
        Rejection::NoFix,
        Rejection::UnknownSensor,
        Rejection::SensorFault,
        Rejection::Limit,
    ];

    /// The name in metrics, summaries and dead letters.
    pub const fn label(self) -> &'static str {
        match self {
            Rejection::Oversize => "oversize",
            Rejection::Decode => "decode",
            Rejection::Schema => "schema",
            Rejection::NotFinite => "not_finite",
            Rejection::OutOfRange => "out_of_range",
            Rejection::NullIsland => "null_island",
            Rejection::Swapped => "swapped",
            Rejection::OutOfArea => "out_of_area",
            Rejection::ClockFuture => "clock_future",
            Rejection::ClockUnit => "clock_unit",
            Rejection::Late => "late",
            Rejection::Duplicate => "duplicate",
            Rejection::Jump => "jump",
            Rejection::Frozen => "frozen",
            Rejection::NoFix => "no_fix",
            Rejection::UnknownSensor => "unknown_sensor",
            Rejection::SensorFault => "sensor_fault",
            Rejection::Limit => "limit",
        }
    }
}
