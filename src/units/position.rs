use serde::{Deserialize, Serialize};

/// A WGS-84 position in 1e-7 degrees (about 1 cm): finite and in range by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    lat_e7: i32,
    lon_e7: i32,
}

/// Why a pair of numbers is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// NaN or infinite.
    #[error("a coordinate is no finite number")]
    NotFinite,
    /// Latitude beyond ±90 or longitude beyond ±180 degrees.
    #[error("latitude beyond ±90 or longitude beyond ±180 degrees")]
    OutOfRange,
}

impl Position {
    /// The position of a latitude and a longitude in degrees.
    ///
    /// # Errors
    /// [`PositionError`] if a number is not finite or out of range.
    pub fn from_degrees(lat: f64, lon: f64) -> Result<Self, PositionError> {
        if !lat.is_finite() || !lon.is_finite() {
            return Err(PositionError::NotFinite);
        }
        if lat.abs() > 90.0 || lon.abs() > 180.0 {
            return Err(PositionError::OutOfRange);
        }
        // In range, so the casts cannot saturate.
        Ok(Self {
            lat_e7: (lat * 1e7).round() as i32,
            lon_e7: (lon * 1e7).round() as i32,
        })
    }

    /// Latitude in 1e-7 degrees.
    pub const fn lat_e7(self) -> i32 {
        self.lat_e7
    }

    /// Longitude in 1e-7 degrees.
    pub const fn lon_e7(self) -> i32 {
        self.lon_e7
    }

    /// Latitude in degrees.
    pub fn lat(self) -> f64 {
        f64::from(self.lat_e7) / 1e7
    }

    /// Longitude in degrees.
    pub fn lon(self) -> f64 {
        f64::from(self.lon_e7) / 1e7
    }

    /// Great-circle distance in metres (haversine on the mean sphere, R = 6,371,008.8 m).
    ///
    /// Uses `libm`, so that the result is the same on every platform.
    pub fn distance_m(self, other: Position) -> f64 {
        let (a, b) = (self.lat().to_radians(), other.lat().to_radians());
        let (dlat, dlon) = (b - a, (other.lon() - self.lon()).to_radians());
        let (slat, slon) = (libm::sin(dlat / 2.0), libm::sin(dlon / 2.0));
        let h = slat * slat + libm::cos(a) * libm::cos(b) * slon * slon;
        2.0 * 6_371_008.8 * libm::asin(libm::sqrt(h).min(1.0))
    }
}

/// A compass direction of travel in hundredths of a degree, clockwise from north, 0..36000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bearing(u16);

impl Bearing {
    /// The bearing of `degrees`, taken modulo 360; `None` if not finite.
    pub fn from_degrees(degrees: f64) -> Option<Self> {
        if !degrees.is_finite() {
            return None;
        }
        Some(Self(
            ((degrees.rem_euclid(360.0) * 100.0).round() as u32 % 36_000) as u16,
        ))
    }

    /// Hundredths of a degree, 0..36000.
    pub fn centidegrees(self) -> u16 {
        self.0
    }

    /// Degrees clockwise from north, 0.0 to 359.99.
    pub fn degrees(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// The smaller angle between two bearings in hundredths of a degree, 0 to 18000.
    pub fn difference(self, other: Bearing) -> u16 {
        let d = self.0.abs_diff(other.0);
        d.min(36_000 - d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_position() {
        assert_eq!(
            Position::from_degrees(f64::NAN, 0.0),
            Err(PositionError::NotFinite)
        );
        assert_eq!(Position::from_degrees(90.1, 0.0), Err(PositionError::OutOfRange));
        assert_eq!(
            Position::from_degrees(0.0, -180.5),
            Err(PositionError::OutOfRange)
        );
        let p = Position::from_degrees(34.261_034, 108.942_262).unwrap();
        assert_eq!((p.lat_e7(), p.lon_e7()), (342_610_340, 1_089_422_620));
    }

    #[test]
    fn distance_of_a_degree_of_latitude() {
        let a = Position::from_degrees(49.0, 8.0).unwrap();
        let b = Position::from_degrees(50.0, 8.0).unwrap();
        assert!((a.distance_m(b) - 111_195.0).abs() < 1.0);
    }

    #[test]
    fn bearings_wrap() {
        let north = Bearing::from_degrees(359.999).unwrap();
        assert_eq!(north.degrees(), 0.0);
        let a = Bearing::from_degrees(-10.0).unwrap();
        let b = Bearing::from_degrees(15.0).unwrap();
        assert_eq!(a.difference(b), 2500);
        assert_eq!(Bearing::from_degrees(f64::INFINITY), None);
    }
}
