//! Sources: where records come from and how their fields become ours.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ingest::{Datum, Feed, Field, FieldMapping, FieldSource, Format, Unit};

/// Kind of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A topic of the cluster in `[kafka]`.
    #[default]
    Kafka,
    /// Files, read once.
    File,
    /// The built-in simulated city.
    Simulated,
}

/// One feed of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Its name in metrics and messages; empty: `probes` or `sensors`, after the feed.
    pub id: String,
    /// What it is.
    pub kind: SourceKind,
    /// What it reports.
    pub feed: Feed,
    /// Topic (kind `kafka`); the standard topic of the feed if absent.
    pub topic: Option<String>,
    /// File (kind `file`); may be `.zst` or `.gz`.
    pub path: Option<PathBuf>,
    /// Several files (kind `file`), merged by event time.
    pub paths: Vec<PathBuf>,
    /// Shape of its records: `viaflux`, `traccar`, `hfp`, `simulated-city`. With neither preset nor fields:
    /// `viaflux`.
    pub preset: Option<String>,
    /// Encoding; if absent that of the files' names (`.csv`, `.csv.gz`, `.csv.zst`), else the preset's.
    pub format: Option<Format>,
    /// What stands between the columns of a CSV row: one ASCII character such as `;` or a tab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// Datum of its positions; the preset's if absent.
    pub datum: Option<Datum>,
    /// How far behind the greatest event time a record is still taken; `[ingest]`'s if absent.
    #[schemars(range(min = 0, max = 86_400))]
    pub allowed_lateness_s: Option<u32>,
    /// How far ahead a clock may run; `[ingest]`'s if absent.
    #[schemars(range(min = 0, max = 86_400))]
    pub max_future_s: Option<u32>,
    /// Where to begin when no checkpoint says otherwise: a time ago such as `15m`, `earliest` or `latest`.
    pub start: Start,
    /// Our fields: where each stands in a record, over those of the preset.
    #[schemars(schema_with = "fields_schema")]
    pub fields: BTreeMap<Field, FieldEntry>,
}

/// A map whose keys are our fields; by itself schemars would allow any key.
fn fields_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = generator.subschema_for::<BTreeMap<String, FieldEntry>>();
    schema.insert(
        "propertyNames".to_owned(),
        generator.subschema_for::<Field>().to_value(),
    );
    schema
}

impl Default for Source {
    fn default() -> Self {
        Self {
            id: String::new(),
            kind: SourceKind::Kafka,
            feed: Feed::Probe,
            topic: None,
            path: None,
            paths: Vec::new(),
            preset: None,
            format: None,
            separator: None,
            datum: None,
            allowed_lateness_s: None,
            max_future_s: None,
            start: Start::default(),
            fields: BTreeMap::new(),
        }
    }
}

impl Source {
    /// The standard probe source: topic `traffic.probe.position.v1` in our own shape.
    pub fn probes() -> Self {
        Self {
            id: "probes".to_owned(),
            topic: Some(standard_topic(Feed::Probe).to_owned()),
            preset: Some("viaflux".to_owned()),
            ..Self::default()
        }
    }

    /// The standard sensor source: topic `traffic.sensor.measurement.v1` in our own shape.
    pub fn sensors() -> Self {
        Self {
            id: "sensors".to_owned(),
            feed: Feed::Sensor,
            topic: Some(standard_topic(Feed::Sensor).to_owned()),
            preset: Some("viaflux".to_owned()),
            ..Self::default()
        }
    }

    /// Its name: the given one, or the feed's.
    pub fn name(&self) -> &str {
        match (self.id.as_str(), self.feed) {
            ("", Feed::Probe) => "probes",
            ("", Feed::Sensor) => "sensors",
            (id, _) => id,
        }
    }

    /// Its topic: the given one, or the feed's standard topic.
    pub fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or(standard_topic(self.feed))
    }

    /// Its files: `path`, then `paths`.
    pub fn files(&self) -> Vec<&Path> {
        self.path
            .iter()
            .chain(&self.paths)
            .map(PathBuf::as_path)
            .collect()
    }

    /// Whether its files are CSV by their names.
    fn named_csv(&self) -> Result<bool, (&'static str, String)> {
        let files = self.files();
        let of = |path: &&Path| {
            let name = path.to_string_lossy().to_ascii_lowercase();
            let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
            plain.ends_with(".csv") || plain.ends_with(".tsv")
        };
        match files.iter().filter(|path| of(path)).count() {
            0 => Ok(false),
            n if n == files.len() => Ok(true),
            _ => Err((
                "format",
                "some of its files are CSV by their names, some are not; make two sources of them, or say \
                 `format`"
                    .to_owned(),
            )),
        }
    }

    /// How its records are decoded: the preset (if any) with the source's own keys over it.
    ///
    /// # Errors
    /// The key (within the source) and what is wrong: an unknown preset, one without this feed, a required
    /// field that nothing fills, a field of the other feed, a unit that does not fit its field, a CSV column written
    /// as a JSON pointer, a separator that is none.
    pub fn mapping(&self) -> Result<FieldMapping, (&'static str, String)> {
        let name = match &self.preset {
            Some(name) => Some(name.as_str()),
            None if self.fields.is_empty() => Some("viaflux"),
            None => None,
        };
        let mut mapping = match name {
            Some(name) => preset(name, self.feed).map_err(|e| ("preset", e))?,
            None => FieldMapping {
                feed: self.feed,
                format: Format::default(),
                separator: None,
                datum: Datum::default(),
                fields: BTreeMap::new(),
            },
        };
        mapping.format = self.format.unwrap_or(match self.named_csv()? {
            true => Format::Csv,
            false => mapping.format,
        });
        if let Some(separator) = self.separator {
            if mapping.format != Format::Csv {
                let text = "only the columns of a CSV row have a separator".to_owned();
                return Err(("separator", text));
            }
            if !separator.is_ascii() || separator.is_ascii_alphanumeric() || "\"\r\n".contains(separator) {
                let text = format!("{separator:?} cannot separate columns; use `,`, `;`, `|` or a tab");
                return Err(("separator", text));
            }
            mapping.separator = (separator != ',').then_some(separator);
        }
        mapping.datum = self.datum.unwrap_or(mapping.datum);
        for (field, entry) in &self.fields {
            mapping.fields.insert(*field, entry.resolve());
        }
        for (field, at) in &mapping.fields {
            if !field.is_of(self.feed) {
                let text = format!("`{}` is no field of a {} feed", word(field), word(&self.feed));
                return Err(("fields", text));
            }
            if let Some(unit) = at.unit.as_ref().filter(|unit| !field.takes(unit)) {
                let (own, known) = field.units();
                let known = match known {
                    [] => format!("it has no other than {own}"),
                    known => format!("use {}, or none: {own}", known.join(", ")),
                };
                let text = format!(
                    "`{}` cannot have the unit `{}`; {known}",
                    word(field),
                    unit.label()
                );
                return Err(("fields", text));
            }
        }
        if mapping.format == Format::Csv
            && let Some((field, at)) = mapping.fields.iter().find(|(_, at)| at.path.starts_with('/'))
        {
            let text = format!(
                "`{}` is read from `{}`, a JSON pointer, but the format is CSV: name the column",
                word(field),
                at.path
            );
            return Err(("fields", text));
        }
        let missing: Vec<String> = mapping.missing().iter().map(word).collect();
        if !missing.is_empty() {
            let text = format!(
                "nothing fills the required field{} `{}`: say where it stands under `fields`",
                if missing.len() == 1 { "" } else { "s" },
                missing.join("`, `")
            );
            return Err(("fields", text));
        }
        Ok(mapping)
    }
}

/// The topic of a feed in interfaces §1.
pub fn standard_topic(feed: Feed) -> &'static str {
    match feed {
        Feed::Probe => "traffic.probe.position.v1",
        Feed::Sensor => "traffic.sensor.measurement.v1",
    }
}

/// The configuration's word of a unit-variant enum.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Where a field stands in a record: its path alone, or path and unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldEntry {
    /// JSON pointer (`/position/latitude`, `/axles/0/load`), top-level member or CSV column.
    Path(String),
    /// The same, with the unit of the value.
    WithUnit(PathAndUnit),
}

/// Where a field stands and in which unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathAndUnit {
    /// JSON pointer (`/position/latitude`), top-level member or CSV column.
    pub path: String,
    /// `mps`, `kph`, `knots`, `mph`, `ms`, `s`, `rfc3339`, `local:<strftime>@<zone>`, `e7` or `e6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitText>,
}

impl FieldEntry {
    fn resolve(&self) -> FieldSource {
        match self {
            FieldEntry::Path(path) => FieldSource {
                path: path.clone(),
                unit: None,
            },
            FieldEntry::WithUnit(at) => FieldSource {
                path: at.path.clone(),
                unit: at.unit.as_ref().map(|u| u.unit.clone()),
            },
        }
    }
}

/// A unit as written in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitText {
    text: String,
    unit: Unit,
}

impl TryFrom<String> for UnitText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unit = text.parse()?;
        Ok(Self { text, unit })
    }
}

impl From<UnitText> for String {
    fn from(unit: UnitText) -> String {
        unit.text
    }
}

impl JsonSchema for UnitText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Unit".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "viaflux-unit",
            "pattern": "^(mps|kph|knots|mph|ms|s|rfc3339|e7|e6|local:.+@.+)$",
        })
    }
}

/// Where a source begins when no checkpoint says otherwise. Written `15m`, `earliest` or `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Start {
    /// So many milliseconds ago.
    Ago(u64),
    /// At the oldest record that the log still has.
    Earliest,
    /// Behind the newest record.
    Latest,
}

impl Default for Start {
    fn default() -> Self {
        Self::Ago(15 * 60 * 1000)
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => parse_duration_ms(text).map(Self::Ago).map_err(|_| {
                format!(
                    "`{text}` is no beginning; one is a time ago such as \"15m\", \"earliest\" or \"latest\""
                )
            }),
        }
    }
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Ago(ms) => {
                let units = [
                    (86_400_000, "d"),
                    (3_600_000, "h"),
                    (60_000, "m"),
                    (1000, "s"),
                    (1, "ms"),
                ];
                let (size, unit) = units
                    .into_iter()
                    .find(|(size, _)| ms % size == 0)
                    .unwrap_or((1, "ms"));
                // Zero is a multiple of everything; seconds read best.
                if ms == 0 {
                    f.write_str("0s")
                } else {
                    write!(f, "{}{unit}", ms / size)
                }
            }
        }
    }
}

impl From<Start> for String {
    fn from(start: Start) -> String {
        start.to_string()
    }
}

impl JsonSchema for Start {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "viaflux-start",
            "pattern": "^(earliest|latest|[0-9]+(ms|s|m|h|d))$",
        })
    }
}

/// Milliseconds of a duration such as `250ms`, `30s`, `15m`, `2h` or `1d`.
///
/// # Errors
/// What a duration looks like, if `text` is none or too long for 64 bits.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let size = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|_| size > 0)
        .and_then(|n| n.checked_mul(size))
        .ok_or_else(|| format!("`{text}` is no duration; one looks like 250ms, 30s, 15m, 2h or 1d"))
}

/// A preset's file: the shapes of a system's feeds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    probe: Option<PresetFeed>,
    sensor: Option<PresetFeed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetFeed {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    datum: Datum,
    fields: BTreeMap<Field, FieldEntry>,
}

/// The built-in presets: name and file.
const PRESETS: [(&str, &str); 4] = [
    ("viaflux", include_str!("../../../config/presets/viaflux.toml")),
    ("traccar", include_str!("../../../config/presets/traccar.toml")),
    ("hfp", include_str!("../../../config/presets/hfp.toml")),
    (
        "simulated-city",
        include_str!("../../../config/presets/simulated-city.toml"),
    ),
];

/// Names of the built-in presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The mapping of a built-in preset.
///
/// # Errors
/// The known names if there is none of that name; the feeds it has if it lacks this one.
pub fn preset(name: &str, feed: Feed) -> Result<FieldMapping, String> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = preset_names().collect();
        return Err(format!("unknown preset `{name}`; known: {}", known.join(", ")));
    };
    let preset: Preset = toml::from_str(text).map_err(|e| format!("preset `{name}`: {e}"))?;
    let (found, kind, other) = match feed {
        Feed::Probe => (preset.probe, "probe", "sensor"),
        Feed::Sensor => (preset.sensor, "sensor", "probe"),
    };
    let shape =
        found.ok_or_else(|| format!("preset `{name}` has no {kind} feed, only `feed = \"{other}\"`"))?;
    Ok(FieldMapping {
        feed,
        format: shape.format,
        separator: None,
        datum: shape.datum,
        fields: shape
            .fields
            .into_iter()
            .map(|(field, entry)| (field, entry.resolve()))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_hold_what_they_must() {
        for feed in [Feed::Probe, Feed::Sensor] {
            assert_eq!(preset("viaflux", feed).unwrap(), FieldMapping::viaflux(feed));
            assert_eq!(
                preset("simulated-city", feed).unwrap(),
                FieldMapping::simulated_city(feed)
            );
        }
        for name in preset_names() {
            let mapping = preset(name, Feed::Probe).unwrap();
            assert!(mapping.missing().is_empty(), "{name}");
        }
        let traccar = preset("traccar", Feed::Probe).unwrap();
        assert_eq!(traccar.fields[&Field::Speed].unit, Some(Unit::Knots));
        assert_eq!(
            preset("hfp", Feed::Probe).unwrap().fields[&Field::Speed].unit,
            Some(Unit::Mps)
        );
        assert!(
            preset("hfp", Feed::Sensor)
                .unwrap_err()
                .contains("no sensor feed")
        );
        assert!(preset("tracar", Feed::Probe).unwrap_err().contains("traccar"));
    }

    #[test]
    fn durations_and_starts() {
        assert_eq!(parse_duration_ms("15m"), Ok(900_000));
        assert_eq!(parse_duration_ms("250ms"), Ok(250));
        for bad in ["", "15", "m", "1.5h", "-3s", "3 s", "99999999999999999d"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        for text in ["15m", "90s", "2h", "1d", "1500ms", "0s", "earliest", "latest"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
        assert!("newest".parse::<Start>().unwrap_err().contains("earliest"));
    }

    #[test]
    fn files_are_csv_by_their_names() {
        let source = |text: &str| toml::from_str::<Source>(text).unwrap().mapping();
        for name in ["a.csv", "b.CSV.gz", "c.csv.zst"] {
            let mapping = source(&format!("path = '{name}'")).unwrap();
            assert_eq!((mapping.format, mapping.separator()), (Format::Csv, b','));
        }
        assert_eq!(source("path = 'a.ndjson'").unwrap().format, Format::Json);
        assert_eq!(
            source("path = 'a.csv'\nformat = 'json'").unwrap().format,
            Format::Json
        );
        assert_eq!(
            source("path = 'a.csv'\nseparator = ';'").unwrap().separator(),
            b';'
        );
        assert_eq!(source("paths = ['a.csv', 'b.ndjson']").unwrap_err().0, "format");
        assert_eq!(source("separator = ';'").unwrap_err().0, "separator");
        assert_eq!(
            source("path = 'a.csv'\nseparator = 'x'").unwrap_err().0,
            "separator"
        );
        // What is the default has one hash, written or not.
        assert_eq!(
            source("path = 'a.csv'\nseparator = ','"),
            source("path = 'a.csv'")
        );
    }

    #[test]
    fn own_fields_lie_over_the_preset() {
        let source: Source = toml::from_str(
            r#"
            preset = "traccar"
            datum = "gcj02"
            [fields]
            speed = { path = "/v", unit = "kph" }
            satellites = "/sat"
            "#,
        )
        .unwrap();
        let mapping = source.mapping().unwrap();
        assert_eq!(
            mapping.fields[&Field::Speed],
            FieldSource {
                path: "/v".into(),
                unit: Some(Unit::Kph)
            }
        );
        assert_eq!(mapping.fields[&Field::Satellites].path, "/sat");
        assert_eq!(mapping.datum, Datum::Gcj02);
        assert!(mapping.fields.contains_key(&Field::Lat));
    }

    #[test]
    fn a_mapping_without_a_required_field_is_refused() {
        let source: Source = toml::from_str("[fields]\nvehicle_id = 'id'\nlat = 'y'\nlon = 'x'").unwrap();
        let (key, text) = source.mapping().unwrap_err();
        assert_eq!(key, "fields");
        assert!(text.contains("`event_time`"), "{text}");
        for (text, part) in [
            (
                "speed = { path = 'v', unit = 'mph' }\nevent_time = { path = 't', unit = 'mph' }",
                "`event_time` cannot have the unit `mph`",
            ),
            ("heading = { path = 'h', unit = 's' }", "degrees clockwise"),
            ("lat = { path = 'y', unit = 'kph' }", "use e7, e6"),
            ("occupancy = 'o'", "no field of a probe feed"),
        ] {
            let source: Source = toml::from_str(&format!("preset = 'viaflux'\n[fields]\n{text}")).unwrap();
            let (key, told) = source.mapping().unwrap_err();
            assert!(key == "fields" && told.contains(part), "{told}");
        }
        let csv: Source = toml::from_str("format = 'csv'\npreset = 'traccar'").unwrap();
        assert!(csv.mapping().unwrap_err().1.contains("JSON pointer"));
    }
}
