//! `viaflux check`: is the configuration good, and is what it names there?

#[cfg(feature = "kafka")]
mod kafka;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use toml::Value;

use super::city::{City, LogDoor};
use super::cli::{self, Global};
use super::config::{Config, ConfigError, Loaded, Place, SinkKind, Source, SourceKind};
use crate::network::Network;
use crate::network::sites::{SensorSite, bind, read_sites};
use crate::source::file::{FileInput, Polled};

/// Records of a file that are decoded.
const SAMPLE_RECORDS: usize = 100;

/// What a check found.
type Told = (Outcome, String);

/// Validate the configuration and what it names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  viaflux check -c config/viaflux.toml\n  \
                        viaflux check -c config/viaflux.toml --no-brokers\n  \
                        viaflux check -c config/viaflux.toml --offline --json")]
pub struct CheckArgs {
    /// Leave out what is not on this machine: ask no broker, pass over files that are not here.
    #[arg(long)]
    pub offline: bool,
    /// Ask no broker, check everything else.
    #[arg(long)]
    pub no_brokers: bool,
    /// Print every value and where it came from.
    #[arg(long)]
    pub show: bool,
}

/// What was checked.
#[derive(Debug, Serialize)]
struct Report {
    file: Option<String>,
    config_hash: String,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, Shown>,
}

#[derive(Debug, Serialize)]
struct Check {
    what: String,
    result: Outcome,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    not(feature = "kafka"),
    allow(dead_code, reason = "only brokers give no answer")
)]
enum Outcome {
    Good,
    /// Works, but not as well as it could.
    Warning,
    Bad,
    /// Could not be checked.
    Failed,
    Skipped,
}

#[derive(Debug, Serialize)]
struct Shown {
    value: String,
    from: String,
}

impl CheckArgs {
    /// Checks and prints the report.
    ///
    /// # Errors
    /// [`ConfigError`] (exit code 78) if the configuration is bad, or something that it names is missing, damaged
    /// or unfit; another error if no broker answers.
    pub fn run(self, global: &Global) -> anyhow::Result<()> {
        let loaded = match global.configure(&[]) {
            Ok(loaded) => loaded,
            Err(error) if global.json => {
                cli::print(&serde_json::to_string_pretty(&refused(global, &error))?)?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        let mut report = Report {
            file: loaded.file.clone(),
            config_hash: loaded.config.hash(),
            checks: vec![Check {
                what: "configuration".to_owned(),
                result: Outcome::Good,
                detail: loaded
                    .file
                    .clone()
                    .unwrap_or_else(|| "defaults, no file".to_owned()),
            }],
            values: BTreeMap::new(),
        };
        named(&loaded, self.offline, &mut report.checks);
        brokers(&loaded.config, &self, &mut report.checks);
        if self.show {
            let root = Value::Table(loaded.effective.clone());
            show(&loaded, &root, &mut Vec::new(), &mut report.values);
        }
        let text = if global.json {
            serde_json::to_string_pretty(&report)?
        } else {
            report.to_text()
        };
        cli::print(&text)?;
        let count = |outcome| report.checks.iter().filter(|c| c.result == outcome).count();
        let s = |n| if n == 1 { "" } else { "s" };
        match (count(Outcome::Bad), count(Outcome::Failed)) {
            (0, 0) => Ok(()),
            // Nothing is wrong with the configuration as far as can be told: to try again may help.
            (0, n) => bail!("{n} check{} could not be made, see the report", s(n)),
            (n, _) => Err(ConfigError::plain(format!("{n} check{} failed, see the report", s(n))).into()),
        }
    }
}

/// Checks what the configuration names. Each check tells by itself, so that one damaged file hides no other.
fn named(loaded: &Loaded, offline: bool, checks: &mut Vec<Check>) {
    let config = &loaded.config;
    let mut check = |what: String, path: Option<&Path>, test: &mut dyn FnMut() -> Result<Told, String>| {
        let away = path.filter(|path| offline && !path.exists());
        let (result, detail) = match away {
            Some(path) => (
                Outcome::Skipped,
                format!("{} is not here (--offline)", path.display()),
            ),
            None => test().unwrap_or_else(|detail| (Outcome::Bad, detail)),
        };
        checks.push(Check { what, result, detail });
    };
    let good = |detail| Ok((Outcome::Good, detail));
    let mut network = None;
    check("map".to_owned(), Some(&config.map.file), &mut || {
        let map = Network::load(&config.map.file)
            .map_err(|e| format!("{e}; `viaflux map build` makes a map file"))?;
        let detail = format!(
            "{}, version {}, {} segments",
            config.map.file.display(),
            map.version(),
            map.segments().len()
        );
        network = Some(Arc::new(map));
        good(detail)
    });
    let mut sites = Vec::new();
    if let Some(path) = &config.map.sensors {
        check("sensor sites".to_owned(), Some(path), &mut || {
            sites = read_sites(path).map_err(|e| e.to_string())?;
            good(match &network {
                Some(network) => bound(network, &sites),
                None => format!("{} sensors, without a map to bind them to", sites.len()),
            })
        });
    }
    let mut city = None;
    if let Some(network) = &network {
        check("profile, places and baseline".to_owned(), None, &mut || {
            let found = City::of(Arc::clone(network), &sites, config).map_err(|e| format!("{e:#}"))?;
            let detail = format!(
                "profile {}, {} regions, {} corridors, baseline {}",
                found.profile.id,
                found.places.regions.len(),
                found.places.corridors.len(),
                found.baseline.version()
            );
            city = Some(found);
            good(detail)
        });
    }
    let files = [
        ("token of the server", &config.server.bearer_token_file),
        ("token of the admin listener", &config.admin.bearer_token_file),
        ("SASL password", &config.kafka.sasl_password_file),
        ("password of the TLS key", &config.kafka.ssl_key_password_file),
    ];
    for (what, path) in files {
        if let Some(path) = path {
            check(what.to_owned(), Some(path), &mut || good(readable(path)?));
        }
    }
    for source in config.source.iter().filter(|s| s.kind == SourceKind::File) {
        for path in source.files().into_iter().filter(|p| *p != Path::new("-")) {
            check(format!("source {}", source.name()), Some(path), &mut || {
                let file = readable(path)?;
                match &city {
                    Some(city) => {
                        let (result, detail) = records(config, city, source, path)?;
                        Ok((result, format!("{file}; {detail}")))
                    }
                    None => good(format!("{file}; not decoded, for want of a map")),
                }
            });
        }
    }
}

/// How long a file may take to give its first records.
const PATIENCE: Duration = Duration::from_secs(5);

/// Decodes the first records of a file: a mapping that fits none of them is bad.
fn records(config: &Config, city: &City, source: &Source, path: &Path) -> Result<Told, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e:#}", path.display());
    let mapping = source
        .mapping()
        .map_err(|(key, problem)| format!("{key}: {problem}"))?;
    let input = FileInput::open(path, &mapping).map_err(|e| told(&e))?;
    let name = path.display().to_string();
    let door = LogDoor::Whole {
        name: &name,
        header: input.header(),
        lanes: 1,
    };
    let log = city
        .log(config, source, door, false)
        .map_err(|e| format!("{e:#}"))?;
    let file = input.start(0, 0, SAMPLE_RECORDS);
    let batch = match file.poll(PATIENCE).map_err(|e| told(&e))? {
        Polled::Batch(batch) => batch,
        Polled::End => return Ok((Outcome::Warning, "it holds no record".to_owned())),
        // A pipe: what would come cannot be told.
        Polled::Waiting => return Ok((Outcome::Warning, "it gives no record yet".to_owned())),
    };
    let (mut refused, mut first) = (BTreeMap::<&str, usize>::new(), None);
    for record in batch.iter() {
        if let Some(why) = log.decoder.explain(record.value) {
            *refused.entry(why.reason.label()).or_default() += 1;
            first.get_or_insert((record.offset, why));
        }
    }
    let bad: usize = refused.values().sum();
    let mut detail = format!(
        "{} of its first {} records decode",
        batch.len() - bad,
        batch.len()
    );
    if let Some((line, why)) = first {
        let reasons: Vec<String> = refused
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        let field = why
            .field
            .map_or_else(String::new, |f| format!("`{}`: ", f.label()));
        let (reasons, reason) = (reasons.join(", "), why.reason.label());
        detail.push_str(&format!(
            "; refused: {reasons}; line {line} is `{reason}`: {field}{}",
            why.detail
        ));
    }
    let result = match bad {
        n if n == batch.len() => Outcome::Bad,
        n if n * 10 > batch.len() => Outcome::Warning,
        _ => Outcome::Good,
    };
    Ok((result, detail))
}

/// The report of a configuration that cannot be used.
fn refused(global: &Global, error: &ConfigError) -> serde_json::Value {
    let checks: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| {
            let (line, column) = error.location(problem).unzip();
            serde_json::json!({
                "what": "configuration", "result": Outcome::Bad, "detail": problem.message,
                "key": problem.key, "remedy": problem.remedy, "line": line, "column": column,
            })
        })
        .collect();
    let file = global.config.as_ref().map(|path| path.display().to_string());
    serde_json::json!({ "file": file, "config_hash": null, "checks": checks })
}

/// Checks what the configuration wants of Kafka, if anything.
fn brokers(config: &Config, args: &CheckArgs, checks: &mut Vec<Check>) {
    let wanted = config.source.iter().any(|s| s.kind == SourceKind::Kafka)
        || config.sink.iter().any(|s| s.kind == SinkKind::Kafka);
    let reason = match (args.offline, args.no_brokers) {
        _ if !wanted => return,
        (true, _) => "--offline",
        (_, true) => "--no-brokers",
        _ if cfg!(not(feature = "kafka")) => "this viaflux was built without Kafka",
        _ => {
            #[cfg(feature = "kafka")]
            kafka::ask(config, checks);
            return;
        }
    };
    checks.push(Check::new("brokers", Outcome::Skipped, reason));
}

impl Check {
    fn new(what: impl Into<String>, result: Outcome, detail: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            result,
            detail: detail.into(),
        }
    }
}

/// How sensors find their segments: those that do not are no fault, but worth knowing.
fn bound(network: &Network, sites: &[SensorSite]) -> String {
    let found = bind(network, sites);
    let mut text = format!(
        "{} of {} sensors bound",
        found.sites.len(),
        found.sites.len() + found.unbound.len()
    );
    if let Some((sensor, reason)) = found.unbound.first() {
        text.push_str(&format!("; the first that is not: {sensor}, {reason}"));
    }
    text
}

/// Whether a file can be opened and read.
fn readable(path: &Path) -> Result<String, String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = File::open(path).map_err(told)?;
    let size = file.metadata().map_err(told)?.len();
    if size == 0 {
        return Err(format!("{} is empty", path.display()));
    }
    file.read(&mut [0]).map_err(told)?;
    Ok(format!("{}, {size} bytes", path.display()))
}

/// Collects every value with its origin; secrets stay hidden.
fn show(loaded: &Loaded, value: &Value, path: &mut Vec<String>, out: &mut BTreeMap<String, Shown>) {
    let mut each = |part: String, value: &Value, out: &mut BTreeMap<String, Shown>| {
        path.push(part);
        show(loaded, value, path, out);
        path.pop();
    };
    match value {
        Value::Table(table) => table
            .iter()
            .for_each(|(key, value)| each(key.clone(), value, out)),
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| each(i.to_string(), item, out));
        }
        _ => {
            let secret = path.first().is_some_and(|p| p == "kafka")
                && path
                    .last()
                    .is_some_and(|p| super::config::is_secret(p) && !p.ends_with("_file"));
            let from = match loaded.place(path) {
                Place::Default => "default".to_owned(),
                Place::File(_) => "file".to_owned(),
                Place::Environment(name) => name,
                Place::Flag(name) => name,
            };
            let value = if secret {
                "(secret)".to_owned()
            } else {
                value.to_string()
            };
            out.insert(path.join("."), Shown { value, from });
        }
    }
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.result {
                Outcome::Good => "ok  ",
                Outcome::Warning => "warn",
                Outcome::Bad => "BAD ",
                Outcome::Failed => "FAIL",
                Outcome::Skipped => "skip",
            };
            text.push_str(&format!("{mark}  {}: {}\n", check.what, check.detail));
        }
        text.push_str(&format!("config_hash {}\n", self.config_hash));
        for (key, shown) in &self.values {
            text.push_str(&format!("{key} = {}  # {}\n", shown.value, shown.from));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::config::load;

    #[test]
    fn values_are_shown_with_their_origin_and_without_secrets() {
        let variables = [(
            "VIAFLUX__KAFKA__PROPERTIES__SASL_PASSWORD".to_owned(),
            "hush".to_owned(),
        )];
        let loaded = load(None, variables, &[]).unwrap();
        let mut values = BTreeMap::new();
        show(
            &loaded,
            &Value::Table(loaded.effective.clone()),
            &mut Vec::new(),
            &mut values,
        );
        let password = &values["kafka.properties.sasl.password"];
        assert_eq!(password.value, "(secret)");
        assert_eq!(password.from, "VIAFLUX__KAFKA__PROPERTIES__SASL_PASSWORD");
        assert_eq!(values["source.0.feed"].value, "\"probe\"");
        assert_eq!(values["source.0.feed"].from, "default");
    }

    #[test]
    fn offline_passes_over_what_is_away_and_a_missing_map_is_bad() {
        let variables = [("VIAFLUX__MAP__FILE".to_owned(), "/nowhere/x.map".to_owned())];
        let loaded = load(None, variables, &[]).unwrap();
        let mut checks = Vec::new();
        named(&loaded, true, &mut checks);
        assert!(checks.iter().all(|c| c.result == Outcome::Skipped), "{checks:?}");
        let here = tempfile::NamedTempFile::new().unwrap();
        let variables = [("VIAFLUX__MAP__FILE".to_owned(), here.path().display().to_string())];
        let damaged = load(None, variables, &[]).unwrap();
        checks.clear();
        named(&damaged, true, &mut checks);
        assert_eq!(checks[0].result, Outcome::Bad, "a file that is here is opened");
        checks.clear();
        named(&loaded, false, &mut checks);
        assert_eq!(checks[0].result, Outcome::Bad);
        assert!(
            checks[0].detail.contains("viaflux map build"),
            "{}",
            checks[0].detail
        );
    }

    #[test]
    fn an_empty_file_is_not_readable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(readable(file.path()).is_err());
        std::fs::write(file.path(), "x").unwrap();
        assert_eq!(
            readable(file.path()).unwrap(),
            format!("{}, 1 bytes", file.path().display())
        );
    }

    /// A map of one street, and a file of records beside it.
    fn street(dir: &Path, name: &str, records: &str, fields: &str) -> Vec<Check> {
        use crate::network::BuildSettings;
        use crate::network::osm::{OsmData, OsmNode, OsmWay};
        let mut osm = OsmData::default();
        for id in 1..=2 {
            let node = OsmNode {
                lat: 34.26 + id as f64 * 0.001,
                lon: 108.94,
                ..OsmNode::default()
            };
            osm.nodes.insert(id, node);
        }
        osm.ways.push(OsmWay {
            id: 1,
            nodes: vec![1, 2],
            tags: [("highway".to_owned(), "primary".to_owned())].into(),
        });
        let (map, file, config) = (dir.join("m.map"), dir.join(name), dir.join("c.toml"));
        Network::build(&osm, &BuildSettings::default())
            .0
            .save(&map)
            .unwrap();
        std::fs::write(&file, records).unwrap();
        let text =
            format!("sink = []\n[map]\nfile = {map:?}\n[[source]]\nkind = 'file'\npath = {file:?}\n{fields}");
        std::fs::write(&config, text).unwrap();
        let loaded = load(Some(&config), [], &[]).unwrap();
        let mut checks = Vec::new();
        named(&loaded, false, &mut checks);
        checks
    }

    #[test]
    fn the_first_records_of_a_file_are_decoded() {
        let dir = tempfile::tempdir().unwrap();
        let last = |name, records: &str, fields| street(dir.path(), name, records, fields).pop().unwrap();
        let good = r#"{"vehicle_id":"a","event_time":"2026-11-23T05:30:58Z","lat":34.261,"lon":108.94}"#;
        let check = last("a.ndjson", &format!("{good}\n").repeat(150), "");
        assert_eq!(check.result, Outcome::Good, "{check:?}");
        assert!(
            check.detail.contains("100 of its first 100 records decode"),
            "{check:?}"
        );

        let zoneless = good.replace("58Z", "58");
        let check = last("b.ndjson", &zoneless, "");
        assert_eq!(check.result, Outcome::Bad, "{check:?}");
        for part in [
            "schema 1",
            "line 1 is `schema`: `event_time`",
            "with a zone",
            "05:30:58",
        ] {
            assert!(check.detail.contains(part), "{part}: {check:?}");
        }

        // A list element by its number, in the columns of nobody's standard.
        let nested = r#"{"id":7,"t":1795411858000,"pos":[108.94,34.261]}"#;
        let fields = "[source.fields]\nvehicle_id = 'id'\nevent_time = 't'\nlat = '/pos/1'\nlon = '/pos/0'\n";
        let check = last("c.ndjson", nested, fields);
        assert_eq!(check.result, Outcome::Good, "{check:?}");

        let csv = "vehicle_id;event_time;lat;lon\na;2026-11-23T05:30:58Z;34.261;108.94\n";
        let check = last("d.csv", csv, "separator = ';'");
        assert_eq!(check.result, Outcome::Good, "{check:?}");
        let check = last("e.csv", csv, "");
        assert!(
            check.result == Outcome::Bad && check.detail.contains("no column `vehicle_id`"),
            "{check:?}"
        );
    }

    #[test]
    fn a_bad_configuration_is_told_as_json_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\nlisen = 'x'\n").unwrap();
        let error = load(Some(file.path()), [], &[]).unwrap_err();
        let command = clap::Command::new("viaflux");
        let matches = <Global as clap::Args>::augment_args(command).get_matches_from(["viaflux"]);
        let global = <Global as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        let report = refused(&global, &error);
        let check = &report["checks"][0];
        assert_eq!(
            (&check["result"], &check["line"], &check["column"]),
            (&"bad".into(), &2.into(), &1.into())
        );
        assert!(
            check["detail"].as_str().unwrap().contains("server.lisen"),
            "{report}"
        );
    }
}
