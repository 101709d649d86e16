//! Regions: the segments inside polygons.

use anyhow::{Context, Result, bail, ensure};
use geo::{BoundingRect, Contains, Coord, Intersects, LineString, MultiPolygon, Polygon};
use serde_json::Value;

use super::geojson::{self, Feature, list, position};
use crate::assess::{Region, evaluated};
use crate::network::{Network, SegmentIndex};
use crate::units::Position;

/// The regions of all features.
pub(super) fn all(network: &Network, features: &[Feature]) -> Result<Vec<Region>> {
    let midpoints: Vec<(SegmentIndex, Coord)> = (0..network.segments().len() as SegmentIndex)
        .filter(|&i| evaluated(network, i))
        .map(|i| (i, coord(network.position_at(i, network.segment(i).length_mm / 2))))
        .collect();
    geojson::places(features, |feature| {
        Ok(Region {
            id: feature.id.clone(),
            segments: inside(network, &midpoints, &area(feature)?)?,
        })
    })
}

/// Whole 1e-7 degrees, which f64 holds exactly: with geo's exact predicates, inside is inside on every machine.
fn coord(p: Position) -> Coord {
    Coord {
        x: f64::from(p.lon_e7()),
        y: f64::from(p.lat_e7()),
    }
}

fn area(feature: &Feature) -> Result<MultiPolygon> {
    match feature.geometry() {
        Some(("Polygon", rings)) => Ok(MultiPolygon::new(vec![polygon(rings)?])),
        Some(("MultiPolygon", parts)) => list(parts, "polygons")?
            .iter()
            .enumerate()
            .map(|(i, rings)| polygon(rings).with_context(|| format!("polygon {}", i + 1)))
            .collect(),
        Some((other, _)) => bail!("its geometry is a {other}; a region is a Polygon or a MultiPolygon"),
        None => bail!("has no geometry; a region is a Polygon or a MultiPolygon"),
    }
}

fn polygon(rings: &Value) -> Result<Polygon> {
    let rings = list(rings, "rings")?
        .iter()
        .enumerate()
        .map(|(i, points)| ring(points).with_context(|| format!("ring {}", i + 1)))
        .collect::<Result<Vec<_>>>()?;
    let mut rings = rings.into_iter();
    let outer = rings.next().context("a polygon without a ring")?;
    Ok(Polygon::new(outer, rings.collect()))
}

fn ring(points: &Value) -> Result<LineString> {
    let points = list(points, "positions")?;
    let coords = points
        .iter()
        .enumerate()
        .map(|(i, p)| {
            position(p)
                .map(coord)
                .with_context(|| format!("vertex {}", i + 1))
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        coords.len() >= 4 && coords.first() == coords.last(),
        "it is not closed; a ring has at least 4 vertices and ends where it begins"
    );
    Ok(LineString::new(coords))
}

fn inside(
    network: &Network,
    midpoints: &[(SegmentIndex, Coord)],
    area: &MultiPolygon,
) -> Result<Vec<SegmentIndex>> {
    let Some(frame) = area.bounding_rect() else {
        bail!("has no polygon");
    };
    let segments: Vec<SegmentIndex> = midpoints
        .iter()
        .filter(|(_, at)| frame.intersects(at) && area.contains(at))
        .map(|&(i, _)| i)
        .collect();
    if segments.is_empty() {
        let (south_west, north_east) = network.bounds();
        bail!(
            "no segment from tertiary up has its midpoint inside; the map reaches from {} to {} (longitude \
             first): correct the region, or leave it out",
            geojson::shown(south_west),
            geojson::shown(north_east)
        );
    }
    Ok(segments)
}
