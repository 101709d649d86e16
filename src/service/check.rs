//! `viaflux check`: is the configuration good, and is what it names there?

#[cfg(feature = "kafka")]
mod kafka;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use toml::Value;

use super::city::City;
use super::cli::{self, Global};
use super::config::{Config, ConfigError, Loaded, Place, SinkKind, SourceKind};
use crate::network::Network;
use crate::network::sites::{SensorSite, bind, read_sites};

/// Validate the configuration and what it names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  viaflux check -c config/viaflux.toml\n  \
                        viaflux check -c config/viaflux.toml --no-brokers\n  \
                        viaflux check -c config/viaflux.toml --offline --json")]
pub struct CheckArgs {
    /// Check the configuration alone: open no file that it names, ask no broker.
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
    allow(dead_code, reason = "only brokers give warnings or no answer")
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
        let loaded = global.configure(&[])?;
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
    let mut check = |what: String, test: &mut dyn FnMut() -> Result<String, String>| {
        let (result, detail) = match offline {
            true => (Outcome::Skipped, "--offline".to_owned()),
            false => match test() {
                Ok(detail) => (Outcome::Good, detail),
                Err(detail) => (Outcome::Bad, detail),
            },
        };
        checks.push(Check { what, result, detail });
    };
    let mut network = None;
    check("map".to_owned(), &mut || {
        let map = Network::load(&config.map.file)
            .map_err(|e| format!("{e}; `viaflux map build` makes a map file"))?;
        let detail = format!(
            "{}, version {}, {} segments",
            config.map.file.display(),
            map.version(),
            map.segments().len()
        );
        network = Some(Arc::new(map));
        Ok(detail)
    });
    let mut sites = Vec::new();
    if let Some(path) = &config.map.sensors {
        check("sensor sites".to_owned(), &mut || {
            sites = read_sites(path).map_err(|e| e.to_string())?;
            Ok(match &network {
                Some(network) => bound(network, &sites),
                None => format!("{} sensors, without a map to bind them to", sites.len()),
            })
        });
    }
    if let Some(network) = &network {
        check("profile, regions and corridors".to_owned(), &mut || {
            let city = City::of(Arc::clone(network), &sites, config).map_err(|e| format!("{e:#}"))?;
            Ok(format!(
                "profile {}, {} regions, {} corridors",
                city.profile.id,
                city.places.regions.len(),
                city.places.corridors.len()
            ))
        });
    }
    let files = [
        ("baseline", &config.baseline.file),
        ("token of the server", &config.server.bearer_token_file),
        ("token of the admin listener", &config.admin.bearer_token_file),
        ("SASL password", &config.kafka.sasl_password_file),
        ("password of the TLS key", &config.kafka.ssl_key_password_file),
    ];
    for (what, path) in files {
        if let Some(path) = path {
            check(what.to_owned(), &mut || readable(path));
        }
    }
    for source in config.source.iter().filter(|s| s.kind == SourceKind::File) {
        for path in source.files().into_iter().filter(|p| *p != Path::new("-")) {
            check(format!("source {}", source.name()), &mut || readable(path));
        }
    }
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
    fn offline_opens_nothing_and_a_missing_map_is_bad() {
        let variables = [("VIAFLUX__MAP__FILE".to_owned(), "/nowhere/x.map".to_owned())];
        let loaded = load(None, variables, &[]).unwrap();
        let mut checks = Vec::new();
        named(&loaded, true, &mut checks);
        assert!(checks.iter().all(|c| c.result == Outcome::Skipped));
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
}
