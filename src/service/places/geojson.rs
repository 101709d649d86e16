//! GeoJSON (RFC 7946) as far as places need it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::units::{Position, PositionError};

/// Greatest size of a file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longest id: it is a message key and a part of an address.
const ID_CHARS_MAX: usize = 128;
/// Most faults told at once.
const FAULTS_MAX: usize = 20;

/// A feature with an id.
#[derive(Debug)]
pub(super) struct Feature {
    /// Its place in the file, from 1.
    pub(super) number: usize,
    /// Id, unique in its file.
    pub(super) id: String,
    properties: Value,
    geometry: Value,
}

impl Feature {
    /// A property that is there and not null.
    pub(super) fn property(&self, key: &str) -> Option<&Value> {
        self.properties.get(key).filter(|v| !v.is_null())
    }

    /// Kind and coordinates of the geometry, `None` without one.
    pub(super) fn geometry(&self) -> Option<(&str, &Value)> {
        let kind = self.geometry.get("type")?.as_str()?;
        Some((kind, self.geometry.get("coordinates").unwrap_or(&Value::Null)))
    }

    fn label(&self) -> String {
        format!("feature {} `{}`", self.number, self.id)
    }
}

/// The features of a file in order of id, at least one and at most `most`. The id is the property `id` or
/// `id_key`, or the feature's own `id`; whole numbers are taken as text.
pub(super) fn read(path: &Path, id_key: &str, most: usize) -> Result<Vec<Feature>> {
    let mut text = Vec::new();
    let size = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
        .context("cannot be read")?;
    ensure!(
        size as u64 <= FILE_BYTES_MAX,
        "larger than {} MiB; simplify its shapes or leave out what is not on the map",
        FILE_BYTES_MAX >> 20
    );
    let Value::Object(mut file) = serde_json::from_slice(&text).context("is no JSON")? else {
        bail!("is no GeoJSON FeatureCollection but another JSON value");
    };
    let kind = file.get("type").and_then(Value::as_str).unwrap_or("no type");
    ensure!(
        kind == "FeatureCollection",
        "is no GeoJSON FeatureCollection but `{kind}`; put it in \
         {{\"type\": \"FeatureCollection\", \"features\": [...]}}"
    );
    let Some(Value::Array(items)) = file.remove("features") else {
        bail!("has no list `features`");
    };
    ensure!(
        !items.is_empty(),
        "has no features; add one or leave out the key of the configuration"
    );
    ensure!(
        items.len() <= most,
        "has {} features; at most {most} are possible",
        items.len()
    );

    let numbered: Vec<(usize, Value)> = items.into_iter().enumerate().map(|(i, v)| (i + 1, v)).collect();
    let mut features = every(&numbered, |(number, item)| {
        feature(*number, item, id_key).with_context(|| format!("feature {number}"))
    })?;
    features.sort_by(|a, b| (&a.id, a.number).cmp(&(&b.id, b.number)));
    for pair in features.windows(2) {
        ensure!(
            pair[0].id != pair[1].id,
            "features {} and {} have the same id `{}`; give each its own",
            pair[0].number,
            pair[1].number,
            pair[1].id
        );
    }
    Ok(features)
}

fn feature(number: usize, item: &Value, id_key: &str) -> Result<Feature> {
    ensure!(
        item.get("type").and_then(Value::as_str) == Some("Feature"),
        "`type` is not `Feature`"
    );
    let member = |key: &str| item.get(key).cloned().unwrap_or(Value::Null);
    let (properties, geometry) = (member("properties"), member("geometry"));
    let given = [properties.get("id"), properties.get(id_key), item.get("id")]
        .into_iter()
        .flatten()
        .find(|v| !v.is_null());
    let id = match given {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) if n.is_i64() || n.is_u64() => n.to_string(),
        Some(other) => bail!("its id is {}, neither text nor a whole number", short(other)),
        None => bail!("has no id; give it a property `id` or `{id_key}`"),
    };
    ensure!(
        !id.is_empty() && id.trim() == id && !id.chars().any(char::is_control),
        "its id {id:?} is empty, begins or ends with a space, or has control characters"
    );
    ensure!(
        id.chars().count() <= ID_CHARS_MAX,
        "its id has {} characters; at most {ID_CHARS_MAX} are possible",
        id.chars().count()
    );
    Ok(Feature {
        number,
        id,
        properties,
        geometry,
    })
}

/// What `make` makes of each item, or the faults of all that cannot be made, so that a file is put right in
/// one go.
fn every<I, T>(items: &[I], mut make: impl FnMut(&I) -> Result<T>) -> Result<Vec<T>> {
    let (mut made, mut faults) = (Vec::with_capacity(items.len()), Vec::new());
    for item in items {
        match make(item) {
            Ok(value) => made.push(value),
            Err(fault) => faults.push(fault),
        }
    }
    match faults.len() {
        0 => Ok(made),
        1 => Err(faults.remove(0)),
        n => {
            let shown: Vec<String> = faults
                .iter()
                .take(FAULTS_MAX)
                .map(|f| format!("\n  {f:#}"))
                .collect();
            let more = if n > FAULTS_MAX { "\n  ..." } else { "" };
            bail!(
                "{n} of {} features cannot be used:{}{more}",
                items.len(),
                shown.concat()
            )
        }
    }
}

/// What `make` makes of each feature; faults begin with the feature's label.
pub(super) fn places<T>(features: &[Feature], mut make: impl FnMut(&Feature) -> Result<T>) -> Result<Vec<T>> {
    every(features, |feature| make(feature).with_context(|| feature.label()))
}

/// A list of coordinates.
pub(super) fn list<'v>(value: &'v Value, of: &str) -> Result<&'v [Value]> {
    match value {
        Value::Array(items) => Ok(items),
        other => bail!("{} stands where a list of {of} is expected", short(other)),
    }
}

/// A position; a third coordinate (height) is passed over.
pub(super) fn position(value: &Value) -> Result<Position> {
    let numbers: Option<Vec<f64>> = value
        .as_array()
        .and_then(|items| items.iter().map(Value::as_f64).collect());
    let Some([lon, lat, ..]) = numbers.as_deref() else {
        bail!(
            "{} is no position; one looks like [8.4037, 49.0069], longitude first",
            short(value)
        );
    };
    match Position::from_degrees(*lat, *lon) {
        Ok(position) => Ok(position),
        Err(PositionError::NotFinite | PositionError::OutOfRange) => bail!(
            "{} is out of range; GeoJSON is in WGS-84 degrees, longitude first (convert with \
             `ogr2ogr -t_srs EPSG:4326`)",
            short(value)
        ),
    }
}

/// A position as GeoJSON writes it.
pub(super) fn shown(position: Position) -> String {
    format!("[{}, {}]", position.lon(), position.lat())
}

/// The beginning of a value's text.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
