use std::path::Path;

use serde_json::{Map, Value, json};

use super::model::Config;

impl Config {
    /// BLAKE3 over the canonical JSON (sorted keys, no spaces) of the keys that can change results, as
    /// `blake3:<64 hex digits>`.
    ///
    /// In it: the stages' settings, the profile, and of each source its name, feed, format, fields, datum and
    /// time guards. Not in it: listeners, log, brokers, topics, sinks, threads, and where files lie; maps
    /// and sites have versions of their own.
    pub fn hash(&self) -> String {
        let sources: Vec<Value> = self
            .source
            .iter()
            .map(|source| {
                json!({
                    "id": source.name(),
                    "feed": source.feed,
                    "mapping": source.mapping().ok(),
                    "allowed_lateness_s": source.allowed_lateness_s.unwrap_or(self.ingest.allowed_lateness_s),
                    "max_future_s": source.max_future_s.unwrap_or(self.ingest.max_future_s),
                })
            })
            .collect();
        let names = |files: &[std::path::PathBuf]| -> Vec<String> {
            files
                .iter()
                .filter_map(|f| Path::file_name(f))
                .map(|n| n.to_string_lossy().into_owned())
                .collect()
        };
        let results = json!({
            "ingest": self.ingest,
            "locate": self.locate,
            "aggregate": self.aggregate,
            "assess": self.assess,
            "publish": self.publish,
            "profile": { "id": self.profile.id, "files": names(&self.profile.files) },
            "sources": sources,
        });
        format!(
            "blake3:{}",
            blake3::hash(canonical(results).to_string().as_bytes()).to_hex()
        )
    }
}

/// The same value with the keys of every object sorted.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                members
                    .into_iter()
                    .map(|(k, v)| (k, canonical(v)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> String {
        toml::from_str::<Config>(text).unwrap().hash()
    }

    #[test]
    fn only_what_can_change_results_changes_the_hash() {
        let plain = hash("");
        assert!(plain.starts_with("blake3:") && plain.len() == 7 + 64);
        for same in [
            "[server]\nlisten = '127.0.0.1:1'\n",
            "[log]\nlevel = 'debug'\n",
            "[kafka]\nbrokers = ['b:1']\n",
            "[map]\nfile = 'elsewhere/x.map'\n",
            "sink = []\n",
            "[ingest]\nmax_future_s = 60\n",
        ] {
            assert_eq!(hash(same), plain, "{same}");
        }
        for other in [
            "[ingest]\nmax_future_s = 61\n",
            "[locate]\nsigma_m = 9.0\n",
            "[aggregate]\npane_s = 60\n",
            "[assess.alert]\nclose_min = 6\n",
            "[publish]\nheartbeat_s = 90\n",
            "[profile]\nid = 'other'\n",
            "[[source]]\nid = 'probes'\n",
        ] {
            assert_ne!(hash(other), plain, "{other}");
        }
    }

    #[test]
    fn a_source_counts_by_what_it_means() {
        let written = hash("[[source]]\npreset = 'viaflux'\nallowed_lateness_s = 15\n");
        let implied = hash("[[source]]\n");
        assert_eq!(written, implied);
        assert_ne!(hash("[[source]]\nallowed_lateness_s = 16\n"), implied);
        assert_ne!(hash("[[source]]\ndatum = 'gcj02'\n"), implied);
        assert_ne!(
            hash("[[source]]\nfields = { speed = 'v' }\npreset = 'viaflux'\n"),
            implied
        );
        assert_eq!(hash("[[source]]\ntopic = 'other'\nstart = 'latest'\n"), implied);
    }
}
