//! `viaflux check`: is the configuration good, and is what it names there?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use toml::Value;

use super::cli::{self, Global};
use super::config::{ConfigError, Loaded, Place, SourceKind};
use crate::network::Network;

/// Validate the configuration and what it names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  viaflux check -c config/viaflux.toml\n  \
                        viaflux check -c config/viaflux.toml --offline --json")]
pub struct CheckArgs {
    /// Check the configuration alone: open no file that it names, ask no broker.
    #[arg(long)]
    pub offline: bool,
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
enum Outcome {
    Good,
    Bad,
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
    /// [`ConfigError`] (exit code 78) if the configuration is bad, or something that it names is missing or
    /// damaged.
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
        let bad = report.checks.iter().filter(|c| c.result == Outcome::Bad).count();
        if bad > 0 {
            let s = if bad == 1 { "" } else { "s" };
            return Err(ConfigError::plain(format!("{bad} check{s} failed, see the report")).into());
        }
        Ok(())
    }
}

/// Checks what the configuration names.
fn named(loaded: &Loaded, offline: bool, checks: &mut Vec<Check>) {
    let config = &loaded.config;
    let mut check = |what: String, test: &dyn Fn() -> Result<String, String>| {
        let (result, detail) = match offline {
            true => (Outcome::Skipped, "--offline".to_owned()),
            false => match test() {
                Ok(detail) => (Outcome::Good, detail),
                Err(detail) => (Outcome::Bad, detail),
            },
        };
        checks.push(Check { what, result, detail });
    };
    let map = &config.map.file;
    check(format!("map {}", map.display()), &|| {
        let network = Network::load(map).map_err(|e| format!("{e}; build one with `viaflux map build`"))?;
        Ok(format!(
            "version {}, {} segments",
            network.version(),
            network.segments().len()
        ))
    });
    let files = [
        ("sensor sites", &config.map.sensors),
        ("regions", &config.map.regions),
        ("corridors", &config.map.corridors),
        ("baseline", &config.baseline.file),
        ("server token", &config.server.bearer_token_file),
        ("admin token", &config.admin.bearer_token_file),
        ("SASL password", &config.kafka.sasl_password_file),
        ("TLS key password", &config.kafka.ssl_key_password_file),
    ];
    for (what, path) in files {
        if let Some(path) = path {
            check(format!("{what} {}", path.display()), &|| readable(path));
        }
    }
    if let Some(path) = &config.map.sensors {
        check(format!("sensor sites {} are JSON", path.display()), &|| {
            let text = std::fs::read(path).map_err(|e| e.to_string())?;
            let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            let count = value.as_array().or(value["features"].as_array()).map(Vec::len);
            count
                .map(|n| format!("{n} stations"))
                .ok_or_else(|| "neither a list nor GeoJSON features".to_owned())
        });
    }
    for path in &config.profile.files {
        check(format!("profile {}", path.display()), &|| readable(path));
    }
    for source in config.source.iter().filter(|s| s.kind == SourceKind::File) {
        for path in source.files() {
            check(format!("source {}: {}", source.name(), path.display()), &|| {
                readable(path)
            });
        }
    }
}

/// Whether a file can be opened and read.
fn readable(path: &Path) -> Result<String, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    file.read(&mut [0]).map_err(|e| e.to_string())?;
    if size == 0 {
        Err("it is empty".to_owned())
    } else {
        Ok(format!("{size} bytes"))
    }
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
                Outcome::Bad => "BAD ",
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
        assert_eq!(readable(file.path()).unwrap(), "1 bytes");
    }
}
