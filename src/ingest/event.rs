use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::units::{Bearing, EventTime, MmPerS, Position};

/// A vehicle or sensor inside the engine: 64 bits of XXH3 over the feed's id. The id itself goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectKey(pub u64);

impl SubjectKey {
    /// The key of an id.
    pub fn of(id: &str) -> Self {
        Self(xxh3_64(id.as_bytes()))
    }
}

/// Kind of vehicle (interfaces §1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum VehicleClass {
    #[default]
    Car,
    Taxi,
    Bus,
    Coach,
    Truck,
    Hazmat,
    Van,
    Motorcycle,
    Other,
}

impl VehicleClass {
    /// The class of a feed's word; an unknown word is [`VehicleClass::Other`].
    pub fn of(word: &str) -> Self {
        match word {
            "car" => Self::Car,
            "taxi" => Self::Taxi,
            "bus" => Self::Bus,
            "coach" => Self::Coach,
            "truck" => Self::Truck,
            "hazmat" => Self::Hazmat,
            "van" => Self::Van,
            "motorcycle" => Self::Motorcycle,
            _ => Self::Other,
        }
    }

    /// Whether it may use roads that are closed to cars but open to buses and taxis.
    pub const fn uses_bus_roads(self) -> bool {
        matches!(self, Self::Bus | Self::Coach | Self::Taxi)
    }

    /// Weight of its contributions in permille (algorithms §3.3, `w_class`).
    pub const fn weight_permille(self) -> u32 {
        match self {
            Self::Car | Self::Taxi | Self::Van | Self::Other => 1000,
            Self::Truck | Self::Hazmat => 700,
            Self::Bus | Self::Coach => 300,
            Self::Motorcycle => 200,
        }
    }
}

/// One report of a vehicle's position, decoded and checked.
///
/// The order is that of algorithms §4: time, vehicle, content; the place in the log comes last, so that it
/// decides between equal contents only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Probe {
    /// When the position was taken.
    pub time: EventTime,
    /// Who reports.
    pub vehicle: SubjectKey,
    /// Where, in WGS-84.
    pub position: Position,
    /// Reported speed.
    pub speed: Option<MmPerS>,
    /// Reported direction of travel.
    pub heading: Option<Bearing>,
    /// Reported accuracy (one sigma) in millimetres.
    pub accuracy_mm: Option<u32>,
    /// Kind of vehicle.
    pub class: VehicleClass,
    /// Taxi with a passenger.
    pub occupied: Option<bool>,
    /// Whether the ignition is on.
    pub ignition: Option<bool>,
    /// Place in its log.
    pub offset: u64,
}

/// One interval of a roadside sensor, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Measurement {
    /// End of the interval: its event time.
    pub time: EventTime,
    /// Which sensor.
    pub sensor: SubjectKey,
    /// Length of the interval in milliseconds, at least 1.
    pub interval_ms: u32,
    /// Vehicles counted in the interval, in thousandths (a rate over the interval need not be whole).
    pub count_milli: Option<u32>,
    /// Share of time occupied, in permille.
    pub occupancy_permille: Option<u32>,
    /// Mean speed over the vehicles counted; `None` where nothing passed.
    pub speed: Option<MmPerS>,
    /// Position given in the event, for sensors without a site.
    pub position: Option<Position>,
    /// Direction given in the event.
    pub heading: Option<Bearing>,
    /// Place in its log.
    pub offset: u64,
}

/// What ingest makes of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Event {
    /// A vehicle's position.
    Probe(Probe),
    /// A sensor's interval.
    Measurement(Measurement),
}

impl Event {
    /// Event time: of the fix, or the interval's end.
    pub fn time(&self) -> EventTime {
        match self {
            Event::Probe(p) => p.time,
            Event::Measurement(m) => m.time,
        }
    }

    /// The first moment that it speaks of: of the fix, or the interval's beginning.
    pub fn begin(&self) -> EventTime {
        match self {
            Event::Probe(p) => p.time,
            Event::Measurement(m) => m.time.plus_ms(-i64::from(m.interval_ms)),
        }
    }

    /// Vehicle or sensor.
    pub fn subject(&self) -> SubjectKey {
        match self {
            Event::Probe(p) => p.vehicle,
            Event::Measurement(m) => m.sensor,
        }
    }

    /// Place in its log.
    pub fn offset(&self) -> u64 {
        match self {
            Event::Probe(p) => p.offset,
            Event::Measurement(m) => m.offset,
        }
    }
}
