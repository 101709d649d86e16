//! The import arrows of ARCHITECTURE.md, read from the sources: layering inside one crate does not hold by
//! good intentions.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folder of `src/` and the folders that it may import.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("units", &[]),
    ("network", &["units"]),
    ("baseline", &["units", "network"]),
    ("ingest", &["units", "network", "baseline"]),
    ("locate", &["units", "network", "baseline", "ingest"]),
    ("aggregate", &["units", "network", "baseline", "ingest", "locate"]),
    (
        "assess",
        &["units", "network", "baseline", "ingest", "locate", "aggregate"],
    ),
    (
        "publish",
        &[
            "units",
            "network",
            "baseline",
            "ingest",
            "locate",
            "aggregate",
            "assess",
        ],
    ),
    (
        "engine",
        &[
            "units",
            "network",
            "baseline",
            "ingest",
            "locate",
            "aggregate",
            "assess",
            "publish",
        ],
    ),
    ("simulate", &["units", "network"]),
    ("source", &["units", "network", "ingest", "engine", "publish"]),
    // Kafka out uses the connection of Kafka in.
    (
        "sink",
        &[
            "units", "network", "ingest", "assess", "publish", "engine", "source",
        ],
    ),
    (
        "service",
        &[
            "units",
            "network",
            "baseline",
            "ingest",
            "locate",
            "aggregate",
            "assess",
            "publish",
            "engine",
            "simulate",
            "source",
            "sink",
        ],
    ),
    ("main", &["service"]),
];

/// The machines of the stages: only `engine` joins them.
const MACHINES: [(&str, &str); 5] = [
    ("ingest", "Ingest"),
    ("locate", "Locate"),
    ("aggregate", "Aggregate"),
    ("assess", "Assess"),
    ("publish", "Publish"),
];

/// Folders that must not ask the time, draw random numbers or touch the world.
const PURE: [&str; 9] = [
    "units",
    "baseline",
    "ingest",
    "locate",
    "aggregate",
    "assess",
    "publish",
    "engine",
    "simulate",
];

/// What a pure folder must not name, and what to do instead.
const WORLD: [(&str, &str); 10] = [
    ("std::time", "time comes from the log, as EventTime"),
    ("SystemTime", "time comes from the log, as EventTime"),
    (
        "Instant::now",
        "the service times stages through engine::Stopwatch",
    ),
    ("std::fs", "doors are in source, sink and service"),
    ("std::net", "doors are in source, sink and service"),
    ("std::thread", "the engine's pool is the only one"),
    ("tokio::", "the core is synchronous"),
    ("tracing::", "the core returns what happened, it does not log"),
    ("thread_rng", "the core draws no random numbers"),
    ("println!", "the core returns what happened, it does not print"),
];

/// Functions of the standard library that differ between platforms; `libm` has them all.
const INEXACT: [&str; 12] = [
    ".sin()",
    ".cos()",
    ".tan()",
    ".asin()",
    ".acos()",
    ".atan()",
    ".atan2(",
    ".exp()",
    ".ln()",
    ".powf(",
    ".tanh()",
    ".mul_add(",
];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// (folder, file, line number, line without comments) of everything outside test modules.
fn lines() -> Vec<(String, String, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut out = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let folder = name.split(['/', '.']).next().unwrap().to_owned();
        if folder == "lib" || name.ends_with("tests.rs") {
            continue;
        }
        for (i, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            // By convention the test module is the last thing of a file.
            if line.trim_start().starts_with("mod tests") {
                break;
            }
            let code = line.split("//").next().unwrap_or_default().to_owned();
            out.push((folder.clone(), name.clone(), i + 1, code));
        }
    }
    assert!(out.len() > 1000, "the sources were not found");
    out
}

#[test]
fn imports_follow_the_arrows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_IMPORT
        .iter()
        .map(|(f, to)| (*f, to.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for (folder, file, number, code) in lines() {
        let may = allowed.get(folder.as_str()).unwrap_or_else(|| {
            panic!("src/{folder} is not in ARCHITECTURE.md; give it a place and its arrows")
        });
        for (i, _) in code
            .match_indices("crate::")
            .chain(code.match_indices("viaflux::"))
        {
            let rest = code[i..].split_once("::").unwrap().1;
            let to: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if to != folder && allowed.contains_key(to.as_str()) && !may.contains(to.as_str()) {
                wrong.push(format!("src/{file}:{number}: {folder} must not import {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_stage_uses_another_stages_machine() {
    let mut wrong = Vec::new();
    for (folder, file, number, code) in lines() {
        let stage = MACHINES.iter().any(|(f, _)| *f == folder);
        for (owner, machine) in MACHINES {
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if stage && owner != folder && words.clone().any(|w| w == machine) {
                wrong.push(format!("src/{file}:{number}: {folder} uses {owner}::{machine}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_does_not_touch_the_world() {
    let mut wrong = Vec::new();
    for (folder, file, number, code) in lines() {
        let pure = PURE.contains(&folder.as_str());
        for (word, instead) in WORLD {
            if pure && code.contains(word) {
                wrong.push(format!("src/{file}:{number}: {word}: {instead}"));
            }
        }
        if pure || folder == "network" {
            for word in INEXACT {
                if code.contains(word) {
                    wrong.push(format!(
                        "src/{file}:{number}: {word}: use libm, it gives the same everywhere"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
