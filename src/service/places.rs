//! Regions and corridors of a map, from two GeoJSON files of the configuration.
//!
//! Both are a `FeatureCollection` (RFC 7946: WGS-84, `[longitude, latitude]`) whose features carry an id, by
//! which they are sorted and named in messages:
//!
//! | file | geometry | properties |
//! |---|---|---|
//! | `map.regions` | `Polygon` or `MultiPolygon` | `id` (or `region_id`) |
//! | `map.corridors` | `LineString` in the direction of travel | `id` (or `corridor_id`); `name` for people, by default the id; `segment_ids` instead of the geometry |
//!
//! The files are read once, at the start. Every fault in a file is told, not only the first.

mod corridor;
mod geojson;
mod region;

use anyhow::{Context, Result};

use super::config;
use crate::assess::Places;
use crate::network::Network;

/// Most regions of a map.
pub const REGIONS_MAX: usize = 500;
/// Most corridors of a map.
pub const CORRIDORS_MAX: usize = 200;

/// The places of a map: the regions of `map.regions` (without it the whole city) and the corridors of
/// `map.corridors` (without it none), each in order of id.
///
/// A region has the [evaluated](crate::assess::evaluated) segments whose midpoint lies inside. A corridor has
/// the segments that it names, or those that its line follows.
///
/// # Errors
/// Which file, feature and vertex or segment cannot be used, why, and what to do.
pub fn load(network: &Network, map: &config::Map) -> Result<Places> {
    let mut places = Places::whole_city(network);
    if let Some(path) = &map.regions {
        places.regions = geojson::read(path, "region_id", REGIONS_MAX)
            .and_then(|features| region::all(network, &features))
            .with_context(|| format!("map.regions: {}", path.display()))?;
    }
    if let Some(path) = &map.corridors {
        places.corridors = geojson::read(path, "corridor_id", CORRIDORS_MAX)
            .and_then(|features| corridor::all(network, &features))
            .with_context(|| format!("map.corridors: {}", path.display()))?;
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
