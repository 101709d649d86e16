//! Reading: defaults, the file over them, the environment over it, flags over all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path as FilePath;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::diagnostic::{ConfigError, Place, Problem};
use super::model::Config;
use super::schema::{self, Fault, Path, key_name};
use super::validate;

/// Prefix of environment variables that set a key: `VIAFLUX__SECTION__KEY`.
const PREFIX: &str = "VIAFLUX__";

/// A value given by a flag of the command line.
#[derive(Clone, Debug)]
pub struct Override {
    /// Name of the flag, such as `--listen`.
    pub flag: &'static str,
    /// Full key, such as `server.listen`.
    pub key: &'static str,
    /// The value.
    pub value: Value,
}

/// A configuration that passed every check, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// All values as one table.
    pub effective: Table,
    /// Name of the file, if one was read.
    pub file: Option<String>,
    places: Places,
}

impl Loaded {
    /// Where the value of a key came from; `path` is its table keys and array indices from the root.
    pub fn place(&self, path: &[String]) -> Place {
        self.places.of(path)
    }
}

/// Reads the configuration: the defaults, `file` (if given) over them, the variables of `environment` named
/// `VIAFLUX__…` over it, and `overrides` over all. A list in the file replaces the default list.
///
/// # Errors
/// [`ConfigError`] with every fault found: unreadable file, bad TOML, unknown keys, wrong types, values out
/// of range, keys that contradict each other.
pub fn load(
    file: Option<&FilePath>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<Loaded, ConfigError> {
    let mut reader = Reader::of_defaults();
    let mut source = None;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| {
            ConfigError::plain(format!(
                "cannot read the configuration file `{}`: {e}",
                path.display()
            ))
        })?;
        let (name, text) = source.insert((path.display().to_string(), text));
        if let Err(problems) = reader.read_file(text) {
            return Err(ConfigError::new(Some((name.clone(), text.clone())), problems));
        }
    }
    reader.read_environment(environment);
    for flag in overrides {
        let path: Path = flag.key.split('.').map(str::to_owned).collect();
        reader.set(path, flag.value.clone(), Place::Flag(flag.flag.to_owned()));
    }
    reader.finish(source)
}

/// What was given, in layers.
struct Reader {
    tree: Value,
    places: Places,
    problems: Vec<Problem>,
}

/// Where values were given, by path. A value without an entry has its parent's.
#[derive(Debug, Default)]
struct Places(BTreeMap<Path, Given>);

#[derive(Clone, Debug)]
struct Given {
    key: Place,
    value: Place,
}

impl Places {
    fn of(&self, path: &[String]) -> Place {
        self.given(path).map_or(Place::Default, |g| g.value.clone())
    }

    /// The entry of the path or of its nearest ancestor that has one.
    fn given(&self, path: &[String]) -> Option<&Given> {
        (0..=path.len()).rev().find_map(|n| self.0.get(&path[..n]))
    }

    fn of_fault(&self, fault: &Fault) -> Place {
        let given = self.given(&fault.path);
        given.map_or(Place::Default, |g| {
            if fault.at_key {
                g.key.clone()
            } else {
                g.value.clone()
            }
        })
    }
}

impl Reader {
    fn of_defaults() -> Self {
        let tree =
            Value::try_from(Config::default()).expect("the defaults are representable, a test reads them");
        Self {
            tree,
            places: Places::default(),
            problems: Vec::new(),
        }
    }

    fn read_file(&mut self, text: &str) -> Result<(), Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problem = |e: &toml::de::Error| Problem {
                key: String::new(),
                message: format!("this is not TOML: {}", e.message().trim_end()),
                remedy: String::new(),
                place: e.span().map_or(Place::Default, Place::File),
            };
            return Err(errors.iter().map(problem).collect());
        }
        let mut given = Vec::new();
        let value = plain(&table, &mut Vec::new(), &mut given);
        for (path, key, value) in given {
            self.places.0.insert(
                path,
                Given {
                    key: Place::File(key),
                    value: Place::File(value),
                },
            );
        }
        merge(&mut self.tree, value);
        Ok(())
    }

    fn read_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut variables: Vec<(Path, String, String)> = environment
            .into_iter()
            .filter_map(|(name, text)| Some((env_path(name.strip_prefix(PREFIX)?), name, text)))
            .collect();
        // Items of a list are added in the order of their number: 10 after 9.
        variables.sort_by_cached_key(|(path, name, _)| {
            let part = |p: &String| (p.parse::<usize>().unwrap_or(usize::MAX), p.clone());
            (path.iter().map(part).collect::<Vec<_>>(), name.clone())
        });
        for (path, name, text) in variables {
            let value = env_value(&path, &text);
            self.set(path, value, Place::Environment(name));
        }
    }

    /// Puts a value at a path, making tables and the next item of a list on the way.
    fn set(&mut self, path: Path, value: Value, place: Place) {
        let mut at = &mut self.tree;
        for (depth, part) in path.iter().enumerate() {
            let found = match at {
                Value::Table(table) => {
                    if !table.contains_key(part) {
                        // A list of tables that is not there yet begins with item 0.
                        let list = path.get(depth + 1).is_some_and(|next| next == "0");
                        let new = if list {
                            Value::Array(Vec::new())
                        } else {
                            Value::Table(Table::new())
                        };
                        table.insert(part.clone(), new);
                    }
                    table.get_mut(part)
                }
                Value::Array(items) => match part.parse::<usize>() {
                    Ok(i) if i <= items.len() => {
                        if i == items.len() {
                            items.push(Value::Table(Table::new()));
                        }
                        items.get_mut(i)
                    }
                    _ => None,
                },
                _ => None,
            };
            let Some(next) = found else {
                let parent = key_name(&path[..depth]);
                self.problems.push(Problem {
                    key: key_name(&path),
                    message: format!("there is no `{}` to set", key_name(&path)),
                    remedy: format!("`{parent}` is neither a table nor a list with an item before `{part}`"),
                    place,
                });
                return;
            };
            at = next;
        }
        *at = value;
        self.places.0.retain(|known, _| !known.starts_with(&path));
        self.places.0.insert(
            path,
            Given {
                key: place.clone(),
                value: place,
            },
        );
    }

    fn problem(&self, fault: Fault) -> Problem {
        Problem {
            key: key_name(&fault.path),
            place: self.places.of_fault(&fault),
            message: fault.message,
            remedy: fault.remedy,
        }
    }

    /// What contradicts itself in the parts of the configuration that have none of `faults`: so that a mistyped key
    /// hides nothing elsewhere.
    fn faults_beside(&self, faults: &[Path]) -> Vec<Problem> {
        // A section, or an item of a list, as long as it takes to judge it by itself.
        let part = |path: &Path| {
            let item = path.get(1).is_some_and(|second| second.parse::<usize>().is_ok());
            path.iter().take(1 + usize::from(item)).cloned().collect::<Path>()
        };
        let mut tree = self.tree.clone();
        for fault in faults {
            remove(&mut tree, fault);
        }
        let Ok(config) = Config::deserialize(tree) else {
            return Vec::new();
        };
        let from_file = |path: &[String]| matches!(self.places.of(path), Place::File(_));
        validate::faults(&config, from_file)
            .into_iter()
            .filter(|fault| !faults.iter().any(|f| part(f) == part(&fault.path)))
            .map(|fault| self.problem(fault))
            .collect()
    }

    fn finish(mut self, source: Option<(String, String)>) -> Result<Loaded, ConfigError> {
        let mut faults = Vec::new();
        for fault in schema::check(&self.tree) {
            faults.push(fault.path.clone());
            self.problems.push(self.problem(fault));
        }
        if !self.problems.is_empty() {
            let more = self.faults_beside(&faults);
            self.problems.extend(more);
            return Err(ConfigError::new(source, self.problems));
        }
        let config = match Config::deserialize(self.tree.clone()) {
            Ok(config) => config,
            Err(e) => {
                let message = e.to_string().trim_end().replace('\n', "; ");
                return Err(ConfigError::new(
                    source,
                    vec![Problem {
                        key: String::new(),
                        message,
                        remedy: String::new(),
                        place: Place::Default,
                    }],
                ));
            }
        };
        let from_file = |path: &[String]| matches!(self.places.of(path), Place::File(_));
        let problems: Vec<Problem> = validate::faults(&config, from_file)
            .into_iter()
            .map(|fault| self.problem(fault))
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError::new(source, problems));
        }
        let Value::Table(effective) = self.tree else {
            unreachable!("the root of a TOML document is a table")
        };
        Ok(Loaded {
            config,
            effective,
            file: source.map(|(name, _)| name),
            places: self.places,
        })
    }
}

/// Takes a key out, so that its default stands there; an item of a list stays.
fn remove(tree: &mut Value, path: &[String]) {
    match (tree, path) {
        (Value::Table(table), [last]) => {
            table.remove(last);
        }
        (Value::Table(table), [first, rest @ ..]) => {
            if let Some(inner) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
        (Value::Array(items), [first, rest @ ..]) => {
            let item = first.parse::<usize>().ok().and_then(|i| items.get_mut(i));
            if let Some(inner) = item {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

type Found = Vec<(Path, Range<usize>, Range<usize>)>;

/// The document without its spans; the spans of key and value go to `found` by path.
fn plain(table: &Spanned<DeTable<'_>>, path: &mut Path, found: &mut Found) -> Value {
    let mut out = Table::new();
    for (key, value) in table.get_ref() {
        path.push(key.get_ref().to_string());
        found.push((path.clone(), key.span(), value.span()));
        out.insert(key.get_ref().to_string(), plain_value(value, path, found));
        path.pop();
    }
    Value::Table(out)
}

fn plain_value(value: &Spanned<DeValue<'_>>, path: &mut Path, found: &mut Found) -> Value {
    match value.get_ref() {
        DeValue::Table(table) => plain(&Spanned::new(value.span(), table.clone()), path, found),
        DeValue::Array(items) => {
            let mut out = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                path.push(i.to_string());
                found.push((path.clone(), item.span(), item.span()));
                out.push(plain_value(item, path, found));
                path.pop();
            }
            Value::Array(out)
        }
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(at) => Value::Datetime(*at),
        // Numbers beyond 64 bits stay texts, which the schema then refuses at their place.
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or_else(|_| Value::String(n.to_string()), Value::Integer),
        DeValue::Float(x) => x
            .as_str()
            .parse()
            .map_or_else(|_| Value::String(x.to_string()), Value::Float),
    }
}

/// Lays `over` upon `under`: tables key by key, everything else (lists too) whole.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Table(under), Value::Table(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(known) => merge(known, value),
                    None => {
                        under.insert(key, value);
                    }
                }
            }
        }
        (under, over) => *under = over,
    }
}

/// `KAFKA__GROUP_ID` → `kafka`, `group_id`. Properties of librdkafka have dots where the variable has `_`.
fn env_path(name: &str) -> Path {
    let parts: Path = name.split("__").map(str::to_ascii_lowercase).collect();
    match parts.as_slice() {
        [kafka, properties, rest @ ..]
            if kafka == "kafka" && properties == "properties" && !rest.is_empty() =>
        {
            vec![
                kafka.clone(),
                properties.clone(),
                rest.join("_").replace('_', "."),
            ]
        }
        _ => parts,
    }
}

/// A variable's text as TOML, or as a plain text where it is none or the key wants one.
fn env_value(path: &Path, text: &str) -> Value {
    let literal = Value::String(text.to_owned());
    let parsed = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .filter(|t| t.len() == 1);
    match parsed.and_then(|mut t| t.remove("v")) {
        None => literal,
        Some(value) => {
            let fits = |v: &Value| schema::check_at(path, v).is_some_and(|faults| faults.is_empty());
            if !fits(&value) && fits(&literal) {
                literal
            } else {
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::service::config::Start;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn read(text: &str, variables: &[(&str, &str)], flags: &[Override]) -> Result<Loaded, String> {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(Some(file.path()), env(variables), flags).map_err(|e| {
            e.to_string()
                .replace(&file.path().display().to_string(), "v.toml")
        })
    }

    fn path(text: &str) -> Path {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(load(None, env(&[]), &[]).unwrap().config, Config::default());
        assert_eq!(read("", &[], &[]).unwrap().config, Config::default());
    }

    #[test]
    fn a_mistyped_key_hides_no_fault_elsewhere() {
        let text = "[server]\nlisen = 'x'\n[aggregate]\npane_s = 60\nwindow_s = 90\n\
                    [[source]]\npreset = 'viaflux'\n[source.fields]\nlattitude = 'y'\n\
                    [[source]]\nid = 'b'\nkind = 'file'\n[log]\nlevel = 'infoo'\n";
        let told = read(text, &[], &[]).unwrap_err();
        for part in [
            "unknown key `server.lisen`",
            "unknown key `source[0].fields.lattitude`",
            "no multiple of `pane_s`",
            "`source[1]` is of kind `file` but names no `path`",
            "`infoo`, which is no level",
        ] {
            assert!(told.contains(part), "{part}:\n{told}");
        }
        for level in [
            "warn",
            "info,viaflux::engine=debug",
            "viaflux=trace,rdkafka=off",
            "off",
        ] {
            let loaded = read(&format!("[log]\nlevel = '{level}'"), &[], &[]);
            assert!(loaded.is_ok(), "{level}: {}", loaded.unwrap_err());
        }
        let told = read("[forecast]\nfile = 'b'", &[], &[]).unwrap_err();
        assert!(told.contains("unknown key `forecast`"), "{told}");
    }

    #[test]
    fn flags_over_environment_over_file_over_defaults() {
        let text =
            "[server]\nlisten = '127.0.0.1:1'\n[admin]\nlisten = '127.0.0.1:2'\n[log]\nlevel = 'warn'\n";
        let variables = [
            ("VIAFLUX__SERVER__LISTEN", "127.0.0.1:3"),
            ("VIAFLUX__ADMIN__LISTEN", "127.0.0.1:4"),
        ];
        let flag = Override {
            flag: "--listen",
            key: "server.listen",
            value: Value::String("127.0.0.1:5".into()),
        };
        let loaded = read(text, &variables, &[flag]).unwrap();
        assert_eq!(loaded.config.server.listen, "127.0.0.1:5");
        assert_eq!(loaded.config.admin.listen, "127.0.0.1:4");
        assert_eq!(loaded.config.log.level, "warn");
        assert_eq!(
            loaded.place(&path("server.listen")),
            Place::Flag("--listen".into())
        );
        assert_eq!(
            loaded.place(&path("admin.listen")),
            Place::Environment("VIAFLUX__ADMIN__LISTEN".into())
        );
        assert!(matches!(loaded.place(&path("log.level")), Place::File(_)));
        assert_eq!(loaded.place(&path("map.file")), Place::Default);
    }

    #[test]
    fn environment_reaches_lists_properties_and_texts_that_look_like_numbers() {
        let variables = [
            ("VIAFLUX__SOURCE__0__TOPIC", "taxis"),
            ("VIAFLUX__SOURCE__2__ID", "007"),
            ("VIAFLUX__SOURCE__2__TOPIC", "12"),
            ("VIAFLUX__SOURCE__2__START", "earliest"),
            ("VIAFLUX__KAFKA__BROKERS", r#"["a:9092", "b:9092"]"#),
            ("VIAFLUX__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret=1"),
            ("VIAFLUX__INGEST__MAX_FUTURE_S", "90"),
            ("HOME", "/root"),
        ];
        let config = load(None, env(&variables), &[]).unwrap().config;
        assert_eq!(config.source.len(), 3);
        assert_eq!(config.source[0].topic(), "taxis");
        assert_eq!((config.source[2].name(), config.source[2].topic()), ("007", "12"));
        assert_eq!(config.source[2].start, Start::Earliest);
        assert_eq!(config.kafka.brokers, ["a:9092", "b:9092"]);
        assert_eq!(config.kafka.properties["sasl.password"], "s3cret=1");
        assert_eq!(config.ingest.max_future_s, 90);
    }

    #[test]
    fn an_environment_fault_names_its_variable() {
        let e = load(None, env(&[("VIAFLUX__SERVER__LISEN", "x")]), &[])
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("unknown key `server.lisen`") && e.contains("VIAFLUX__SERVER__LISEN"),
            "{e}"
        );
        let e = load(None, env(&[("VIAFLUX__SOURCE__7__TOPIC", "x")]), &[])
            .unwrap_err()
            .to_string();
        assert!(e.contains("no `source[7].topic` to set"), "{e}");
    }

    #[test]
    fn a_file_fault_is_shown_with_line_and_caret() {
        let text = "# viaflux\n[server]\nlisen = \"127.0.0.1:1\"\n";
        assert_eq!(
            read(text, &[], &[]).unwrap_err(),
            "unknown key `server.lisen`\n  --> v.toml:3:1\n   |\n 3 | lisen = \"127.0.0.1:1\"\n   | ^^^^^ did you \
             mean `listen`?"
        );
        let e = read("[ingest]\nmax_future_s = 90\nmax_accuracy_m = true\n", &[], &[]).unwrap_err();
        assert!(
            e.contains("v.toml:3:18") && e.contains("^^^^ expected a whole number"),
            "{e}"
        );
        let e = read("[server\nlisten = 1\n", &[], &[]).unwrap_err();
        assert!(e.contains("not TOML") && e.contains("v.toml:1:8"), "{e}");
        let e = read("[aggregate]\npane_s = 0\n", &[], &[]).unwrap_err();
        assert!(
            e.contains("`aggregate.pane_s` is 0, out of range") && e.contains("v.toml:2:10"),
            "{e}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let e = load(Some(FilePath::new("/nowhere/v.toml")), env(&[]), &[])
            .unwrap_err()
            .to_string();
        assert!(e.contains("/nowhere/v.toml"), "{e}");
    }

    #[test]
    fn lists_in_the_file_replace_the_default_list() {
        let config = read("[[source]]\nid = 'one'\nfeed = 'sensor'\n", &[], &[])
            .unwrap()
            .config;
        assert_eq!(config.source.len(), 1);
        assert_eq!(config.source[0].topic(), "traffic.sensor.measurement.v1");
    }
}
