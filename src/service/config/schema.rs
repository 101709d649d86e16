//! The JSON Schema of the configuration, and the check of a given table against it.
//!
//! The schema is made from the types, so it knows every key. Checking a table against it before serde sees
//! it finds all faults at once, each with its full key; serde would stop at the first and name none.

use std::sync::LazyLock;

use serde_json::Value as Json;
use toml::Value;

use super::model::Config;
use super::source::{Start, UnitText};

/// A key's place in the tree: table keys and array indices from the root.
pub(super) type Path = Vec<String>;

/// What the schema finds wrong at one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) path: Path,
    /// The key itself is wrong, not its value.
    pub(super) at_key: bool,
    pub(super) message: String,
    pub(super) remedy: String,
}

static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    schema.insert("title".to_owned(), Json::from("viaflux configuration"));
    schema.to_value()
});

/// The JSON Schema (draft 2020-12) of the configuration file, for editors and other tools.
pub fn json_schema() -> &'static Json {
    &SCHEMA
}

/// `source[0].topic` of the path `source`, `0`, `topic`.
pub(super) fn key_name(path: &[String]) -> String {
    let mut name = String::new();
    for part in path {
        if part.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() {
            name.push_str(&format!("[{part}]"));
        } else {
            if !name.is_empty() {
                name.push('.');
            }
            let bare = !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if bare {
                name.push_str(part)
            } else {
                name.push_str(&format!("{part:?}"))
            }
        }
    }
    name
}

/// All faults of `value` as a configuration.
pub(super) fn check(value: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    visit(&SCHEMA, value, &mut Vec::new(), &mut faults);
    faults
}

/// The faults of a single value as the one at `path`, or `None` if there is no such key.
pub(super) fn check_at(path: &[String], value: &Value) -> Option<Vec<Fault>> {
    let mut schema: &Json = &SCHEMA;
    for part in path {
        schema = child(schema, part)?;
    }
    let mut faults = Vec::new();
    visit(schema, value, &mut path.to_vec(), &mut faults);
    Some(faults)
}

/// Schema of a member or item.
fn child<'a>(schema: &'a Json, part: &str) -> Option<&'a Json> {
    let here = schema["properties"].get(part).or_else(|| {
        let more = schema.get("additionalProperties").filter(|s| s.is_object());
        let items = schema
            .get("items")
            .filter(|_| part.bytes().all(|b| b.is_ascii_digit()));
        more.or(items)
    });
    here.or_else(|| branches(schema)?.iter().find_map(|branch| child(branch, part)))
}

fn branches(schema: &Json) -> Option<&Vec<Json>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()
}

fn visit(schema: &Json, value: &Value, path: &mut Path, faults: &mut Vec<Fault>) {
    if let Some(branches) = branches(schema) {
        visit_branches(branches, value, path, faults);
        return;
    }
    if let Some(word) = schema.get("const") {
        if word.as_str() != value.as_str() {
            faults.push(wrong_word(path, value, &[word.as_str().unwrap_or_default()]));
        }
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
        if !value.as_str().is_some_and(|v| words.contains(&v)) {
            faults.push(wrong_word(path, value, &words));
        }
        return;
    }
    let types = types(schema);
    if !types.is_empty() && !types.iter().any(|t| is_of(value, t)) {
        faults.push(Fault {
            path: path.clone(),
            at_key: false,
            message: format!("`{}` is {}", key_name(path), article(value.type_str())),
            remedy: format!("expected {}", expected(&types)),
        });
        return;
    }
    match value {
        Value::Table(table) => visit_table(schema, table, path, faults),
        Value::Array(items) => visit_array(schema, items, path, faults),
        Value::Integer(n) => visit_number(schema, *n as f64, path, faults),
        Value::Float(x) => visit_number(schema, *x, path, faults),
        Value::String(text) => {
            let bad = match schema["format"].as_str() {
                Some("viaflux-start") => text.parse::<Start>().err(),
                Some("viaflux-unit") => UnitText::try_from(text.clone()).err(),
                _ => None,
            };
            if let Some(message) = bad {
                faults.push(Fault {
                    path: path.clone(),
                    at_key: false,
                    message,
                    remedy: String::new(),
                });
            }
        }
        _ => {}
    }
}

/// The faults of the branch that fits best: none if one fits, else those of the branch of the value's type.
fn visit_branches(branches: &[Json], value: &Value, path: &mut Path, faults: &mut Vec<Fault>) {
    let words: Vec<&str> = branches.iter().flat_map(words_of).collect();
    if value.is_str() && words.contains(&value.as_str().unwrap_or_default()) {
        return;
    }
    let mut best: Option<Vec<Fault>> = None;
    for branch in branches {
        let mut found = Vec::new();
        visit(branch, value, path, &mut found);
        if found.is_empty() {
            return;
        }
        // Faults deeper inside mean that the branch is of the value's type.
        let depth = |faults: &[Fault]| faults.iter().map(|f| f.path.len()).max().unwrap_or(0);
        if best.as_ref().is_none_or(|b| depth(&found) > depth(b)) {
            best = Some(found);
        }
    }
    match best {
        Some(found) if words.is_empty() || found.iter().any(|f| f.path.len() > path.len()) => {
            faults.extend(found);
        }
        _ => faults.push(wrong_word(path, value, &words)),
    }
}

/// The words that a schema allows.
fn words_of(schema: &Json) -> Vec<&str> {
    if let Some(word) = schema["const"].as_str() {
        return vec![word];
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().filter_map(Json::as_str).collect();
    }
    branches(schema)
        .map(|b| b.iter().flat_map(words_of).collect())
        .unwrap_or_default()
}

fn wrong_word(path: &Path, value: &Value, words: &[&str]) -> Fault {
    let given = value
        .as_str()
        .map_or_else(|| article(value.type_str()), |text| format!("{text:?}"));
    let listed: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    let near = value
        .as_str()
        .and_then(|text| nearest(text, words.iter().copied()));
    Fault {
        path: path.clone(),
        at_key: false,
        message: format!("`{}` is {given}; it may be {}", key_name(path), listed.join(", ")),
        remedy: near.map_or_else(String::new, |word| format!("did you mean {word:?}?")),
    }
}

fn visit_table(schema: &Json, table: &toml::Table, path: &mut Path, faults: &mut Vec<Fault>) {
    let Some(known) = schema["properties"].as_object() else {
        let more = &schema["additionalProperties"];
        let names = words_of(&schema["propertyNames"]);
        for (key, value) in table {
            path.push(key.clone());
            if !names.is_empty() && !names.contains(&key.as_str()) {
                faults.push(unknown_key(path, names.iter().copied()));
            } else if more.is_object() {
                visit(more, value, path, faults);
            }
            path.pop();
        }
        return;
    };
    for (key, value) in table {
        path.push(key.clone());
        match known.get(key) {
            Some(schema) => visit(schema, value, path, faults),
            None => faults.push(unknown_key(path, known.keys().map(String::as_str))),
        }
        path.pop();
    }
    for required in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
    {
        if !table.contains_key(required) {
            faults.push(Fault {
                path: path.clone(),
                at_key: false,
                message: format!("`{}` lacks the key `{required}`", key_name(path)),
                remedy: String::new(),
            });
        }
    }
}

fn unknown_key<'a>(path: &Path, known: impl Iterator<Item = &'a str>) -> Fault {
    let known: Vec<&str> = known.collect();
    let key = path.last().map_or("", String::as_str);
    let remedy = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    Fault {
        path: path.clone(),
        at_key: true,
        message: format!("unknown key `{}`", key_name(path)),
        remedy,
    }
}

/// The known name most like `word`, if one is alike at all.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(alike, _)| *alike >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

fn visit_array(schema: &Json, items: &[Value], path: &mut Path, faults: &mut Vec<Fault>) {
    let bound = |name: &str| schema[name].as_u64();
    let exact = bound("minItems").filter(|n| bound("maxItems") == Some(*n));
    if let Some(n) = exact.filter(|n| *n != items.len() as u64) {
        faults.push(Fault {
            path: path.clone(),
            at_key: false,
            message: format!("`{}` has {} values", key_name(path), items.len()),
            remedy: format!("expected {n}"),
        });
        return;
    }
    for (i, item) in items.iter().enumerate() {
        path.push(i.to_string());
        visit(&schema["items"], item, path, faults);
        path.pop();
    }
}

fn visit_number(schema: &Json, number: f64, path: &Path, faults: &mut Vec<Fault>) {
    let (min, max) = limits(schema, path);
    let low = min.is_some_and(|m| number < m);
    let high = max.is_some_and(|m| number > m);
    if low || high || !number.is_finite() {
        faults.push(Fault {
            path: path.clone(),
            at_key: false,
            message: format!("`{}` is {number}, out of range", key_name(path)),
            remedy: format!("expected {}", range_text(min, max)),
        });
    }
}

/// Least and greatest value of a number: the schema's, and the range of [`super::validate::range`] within it.
pub(super) fn limits(schema: &Json, path: &[String]) -> (Option<f64>, Option<f64>) {
    let width = match schema["format"].as_str() {
        Some("uint32") => Some(f64::from(u32::MAX)),
        Some("int32") => Some(f64::from(i32::MAX)),
        _ => None,
    };
    let (min, max) = (schema["minimum"].as_f64(), schema["maximum"].as_f64().or(width));
    match super::validate::range(path) {
        Some((low, high)) => (Some(low), Some(high)),
        None => (min, max),
    }
}

/// `1 to 300`, `at least 1`, … .
pub(super) fn range_text(min: Option<f64>, max: Option<f64>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "a finite number".to_owned(),
    }
}

/// The schema's types but null (TOML has none).
pub(super) fn types(schema: &Json) -> Vec<&str> {
    match &schema["type"] {
        Json::String(one) => vec![one.as_str()],
        Json::Array(many) => many
            .iter()
            .filter_map(Json::as_str)
            .filter(|t| *t != "null")
            .collect(),
        _ => Vec::new(),
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_str(),
        "integer" => value.is_integer(),
        "number" => value.is_integer() || value.is_float(),
        "boolean" => value.is_bool(),
        "array" => value.is_array(),
        "object" => value.is_table(),
        _ => false,
    }
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

fn expected(types: &[&str]) -> String {
    let name = |kind: &&str| match *kind {
        "string" => "a text in quotes",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list […]",
        _ => "a table",
    };
    types.iter().map(name).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let table: toml::Table = text.parse().unwrap();
        check(&Value::Table(table))
            .into_iter()
            .map(|f| format!("{} | {}", f.message, f.remedy))
            .collect()
    }

    #[test]
    fn the_defaults_have_no_fault() {
        let defaults = Value::try_from(Config::default()).unwrap();
        assert_eq!(check(&defaults), []);
    }

    #[test]
    fn finds_all_faults_at_once() {
        let found = faults(
            r#"
            [server]
            lisen = "x"
            allow_anonymous = "yes"
            [ingest]
            max_future_s = -1
            [[source]]
            kind = "kafak"
            start = "soon"
            fields = { lattitude = "y", lon = { path = "x", unit = "furlongs" }, lat = 3 }
            "#,
        );
        let all = found.join("\n");
        for expected in [
            "unknown key `server.lisen` | did you mean `listen`?",
            "`server.allow_anonymous` is a string | expected true or false",
            "`ingest.max_future_s` is -1, out of range",
            "`source[0].kind` is \"kafak\"",
            "did you mean \"kafka\"?",
            "`soon` is no beginning",
            "unknown key `source[0].fields.lattitude` | did you mean `lat`?",
            "unknown unit `furlongs`",
            "`source[0].fields.lat`",
        ] {
            assert!(all.contains(expected), "no `{expected}` in\n{all}");
        }
    }

    #[test]
    fn names_of_keys() {
        let name = |parts: &[&str]| key_name(&parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(name(&["source", "0", "topic"]), "source[0].topic");
        assert_eq!(
            name(&["kafka", "properties", "sasl.password"]),
            "kafka.properties.\"sasl.password\""
        );
    }
}
