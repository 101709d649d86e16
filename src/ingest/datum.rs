//! Chinese datums: GCJ-02 (the offset that maps in China must carry) and BD-09 (Baidu's on top of it).
//!
//! GCJ-02 is not published; the formula is the one that circulates in open source (first in the
//! `eviltransform` project, MIT) and agrees with the official maps within a metre. Its inverse is found by
//! fixed-point iteration.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The geodetic datum of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub enum Datum {
    /// WGS-84, as GNSS receivers give it.
    #[default]
    Wgs84,
    /// GCJ-02 (火星坐标).
    Gcj02,
    /// BD-09 (Baidu).
    Bd09,
}

impl Datum {
    /// Latitude and longitude in WGS-84 degrees of a finite pair in this datum.
    pub fn to_wgs84(self, lat: f64, lon: f64) -> (f64, f64) {
        match self {
            Datum::Wgs84 => (lat, lon),
            Datum::Gcj02 => gcj02_to_wgs84(lat, lon),
            Datum::Bd09 => {
                let (lat, lon) = bd09_to_gcj02(lat, lon);
                gcj02_to_wgs84(lat, lon)
            }
        }
    }
}

/// GCJ-02 applies inside this box only (the formula's own bound of "China").
fn outside_china(lat: f64, lon: f64) -> bool {
    !(72.004..=137.8347).contains(&lon) || !(0.8293..=55.8271).contains(&lat)
}

fn sin(x: f64) -> f64 {
    libm::sin(x)
}

fn gcj_offset(lat: f64, lon: f64) -> (f64, f64) {
    let (x, y) = (lon - 105.0, lat - 35.0);
    let root = libm::sqrt(x.abs());
    let waves = (20.0 * sin(6.0 * x * PI) + 20.0 * sin(2.0 * x * PI)) * 2.0 / 3.0;
    let dlat = -100.0
        + 2.0 * x
        + 3.0 * y
        + 0.2 * y * y
        + 0.1 * x * y
        + 0.2 * root
        + waves
        + (20.0 * sin(y * PI) + 40.0 * sin(y / 3.0 * PI)) * 2.0 / 3.0
        + (160.0 * sin(y / 12.0 * PI) + 320.0 * sin(y * PI / 30.0)) * 2.0 / 3.0;
    let dlon = 300.0
        + x
        + 2.0 * y
        + 0.1 * x * x
        + 0.1 * x * y
        + 0.1 * root
        + waves
        + (20.0 * sin(x * PI) + 40.0 * sin(x / 3.0 * PI)) * 2.0 / 3.0
        + (150.0 * sin(x / 12.0 * PI) + 300.0 * sin(x / 30.0 * PI)) * 2.0 / 3.0;
    // Krasovsky 1940, the ellipsoid of the formula.
    let (a, ee) = (6_378_245.0, 0.006_693_421_622_965_943);
    let rad = lat / 180.0 * PI;
    let magic = 1.0 - ee * sin(rad) * sin(rad);
    let root = libm::sqrt(magic);
    (
        dlat * 180.0 / ((a * (1.0 - ee)) / (magic * root) * PI),
        dlon * 180.0 / (a / root * libm::cos(rad) * PI),
    )
}

fn wgs84_to_gcj02(lat: f64, lon: f64) -> (f64, f64) {
    if outside_china(lat, lon) {
        return (lat, lon);
    }
    let (dlat, dlon) = gcj_offset(lat, lon);
    (lat + dlat, lon + dlon)
}

fn gcj02_to_wgs84(lat: f64, lon: f64) -> (f64, f64) {
    let (mut wlat, mut wlon) = (lat, lon);
    // The offset changes by less than 1e-3 of a step, so each round gains three digits.
    for _ in 0..6 {
        let (glat, glon) = wgs84_to_gcj02(wlat, wlon);
        wlat += lat - glat;
        wlon += lon - glon;
    }
    (wlat, wlon)
}

const BD_PI: f64 = PI * 3000.0 / 180.0;

fn bd09_to_gcj02(lat: f64, lon: f64) -> (f64, f64) {
    let (x, y) = (lon - 0.0065, lat - 0.006);
    let z = libm::sqrt(x * x + y * y) - 0.000_02 * sin(y * BD_PI);
    let theta = libm::atan2(y, x) - 0.000_003 * libm::cos(x * BD_PI);
    (z * sin(theta), z * libm::cos(theta))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_offsets() {
        // Tian'anmen: published pairs of the eviltransform test vectors (Beijing).
        let (lat, lon) = wgs84_to_gcj02(39.911_954, 116.377_817);
        assert!(
            (lat - 39.913_350).abs() < 2e-5 && (lon - 116.384_048).abs() < 2e-5,
            "{lat} {lon}"
        );
        // Outside China nothing changes.
        assert_eq!(wgs84_to_gcj02(49.4, 8.6), (49.4, 8.6));
    }

    #[test]
    fn inverse_is_exact_to_a_centimetre() {
        for (lat, lon) in [(34.26, 108.94), (31.2, 121.5), (22.5, 114.1), (45.8, 126.5)] {
            let (glat, glon) = wgs84_to_gcj02(lat, lon);
            let (wlat, wlon) = Datum::Gcj02.to_wgs84(glat, glon);
            assert!((wlat - lat).abs() < 1e-7 && (wlon - lon).abs() < 1e-7);
            assert!((glat - lat).abs() > 1e-4 || (glon - lon).abs() > 1e-4);
        }
    }

    #[test]
    fn bd09_lies_beyond_gcj02() {
        // A Baidu point near Tian'anmen; its GCJ-02 position is about 900 m away, its WGS-84 one about 1.3 km.
        let (lat, lon) = Datum::Bd09.to_wgs84(39.915, 116.404);
        assert!(
            (lat - 39.9073).abs() < 3e-4 && (lon - 116.3913).abs() < 3e-4,
            "{lat} {lon}"
        );
    }
}
