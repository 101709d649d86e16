//! What types cannot say: ranges of the stages' numbers and keys that must agree.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::model::{Config, SinkKind};
use super::schema::{Fault, key_name};
use super::source::SourceKind;
use crate::baseline::{Calendar, Holidays};
use crate::sink::http::is_host_name;

/// Least and greatest sensible value of the stages' numbers, by full key. Beyond them a value is a slip of
/// the pen (a unit, a zero too many), or the method no longer holds.
const RANGES: &[(&str, f64, f64)] = &[
    ("ingest.max_future_s", 0.0, 86_400.0),
    ("ingest.future_agree", 1.0, 1_000.0),
    ("ingest.future_alone", 1.0, 100_000.0),
    ("ingest.virtual_partitions", 1.0, 1_024.0),
    ("ingest.allowed_lateness_s", 0.0, 86_400.0),
    ("ingest.max_accuracy_m", 1.0, 10_000.0),
    ("ingest.min_satellites", 0.0, 32.0),
    ("ingest.speed_max_mps", 10.0, 300.0),
    ("ingest.record_bytes_max", 256.0, 16_777_216.0),
    ("ingest.area_margin_m", 0.0, 1_000_000.0),
    ("ingest.order_buffer_max", 1_000.0, 4_294_967_295.0),
    ("baseline.late_full_s", 0.0, 86_400.0),
    ("locate.max_speed_mps", 10.0, 150.0),
    ("locate.outlier_m", 5.0, 10_000.0),
    ("locate.thin_m", 0.0, 200.0),
    ("locate.dwell_speed_mps", 0.0, 10.0),
    ("locate.sigma_m", 0.5, 100.0),
    ("locate.sigma_min", 0.5, 100.0),
    ("locate.sigma_max", 0.5, 100.0),
    ("locate.radius_m", 5.0, 1_000.0),
    ("locate.k", 1.0, 64.0),
    ("locate.heading_sigma_deg", 1.0, 180.0),
    ("locate.heading_min_mps", 0.0, 30.0),
    ("locate.heading_floor", -100.0, 0.0),
    ("locate.beta0", 0.1, 1_000.0),
    ("locate.beta_per_s", 0.0, 100.0),
    ("locate.beta_max", 0.1, 1_000.0),
    ("locate.back_tol_m", 0.0, 200.0),
    ("locate.offroad_m", 5.0, 1_000.0),
    ("locate.temper_s", 0.1, 600.0),
    ("locate.temper_min", 0.0, 1.0),
    ("locate.drift_noise_m", 0.01, 100.0),
    ("locate.reckon_mps", 0.0, 1_000.0),
    ("locate.reckon_share", 0.0, 100.0),
    ("locate.lag_s", 0.0, 3_600.0),
    ("locate.pending_max", 1.0, 1_000.0),
    ("locate.skip_points", 0.0, 100.0),
    ("locate.skip_s", 0.0, 3_600.0),
    ("locate.dwell_snap_m", 0.0, 100.0),
    ("locate.park_m", 5.0, 200.0),
    ("locate.park_s", 1.0, 86_400.0),
    ("locate.ignition_off_s", 0.0, 86_400.0),
    ("locate.bus_stop_s", 0.0, 3_600.0),
    ("locate.line_m", 0.0, 1_000.0),
    ("locate.settle_s", 0.0, 3_600.0),
    ("locate.break_s", 1.0, 86_400.0),
    ("locate.evict_s", 1.0, 604_800.0),
    ("locate.min_posterior_permille", 0.0, 1_000.0),
    ("locate.frozen_fixes", 2.0, 1_000.0),
    ("locate.frozen_min_mps", 0.0, 100.0),
    ("locate.vehicles_max", 1.0, 1e9),
    ("aggregate.pane_s", 1.0, 3_600.0),
    ("aggregate.window_s", 1.0, 86_400.0),
    ("aggregate.unknown_s", 1.0, 86_400.0),
    ("aggregate.block_s", 1.0, 86_400.0),
    ("aggregate.pickup_unsure_s", 0.0, 86_400.0),
    ("aggregate.unsure_permille", 0.0, 1_000.0),
    ("aggregate.others_pass", 1.0, 100.0),
    ("aggregate.others_ratio", 0.01, 2.0),
    ("aggregate.passed_s", 0.0, 86_400.0),
    ("aggregate.alone_s", 0.0, 86_400.0),
    ("aggregate.jam_vehicles", 1.0, 1_000.0),
    ("aggregate.shards", 1.0, 1_024.0),
    ("assess.state.segment_own_n", 0.0, 1_000.0),
    ("assess.state.live_panes", 1.0, 1_000.0),
    ("assess.state.cv_urban", 0.01, 5.0),
    ("assess.state.cv_motorway", 0.01, 5.0),
    ("assess.state.cv_short", 0.01, 5.0),
    ("assess.state.cv_sensor", 0.01, 5.0),
    ("assess.alert.open_ratio", 0.01, 1.0),
    ("assess.alert.close_ratio", 0.01, 1.0),
    ("assess.alert.close_min", 1.0, 1_440.0),
    ("assess.alert.stale_min", 1.0, 1_440.0),
    ("assess.alert.vehicles_min", 1.0, 1_000.0),
    ("assess.alert.min_m", 0.0, 100_000.0),
    ("assess.alert.reopen_min", 0.0, 1_440.0),
    ("assess.alert.update_min", 1.0, 1_440.0),
    ("assess.alert.open_alerts_max", 1.0, 10_000_000.0),
    ("assess.sensor.stuck_records", 2.0, 1_000.0),
    ("assess.sensor.stuck_records_bare", 2.0, 1_000.0),
    ("assess.sensor.silent_intervals", 2.0, 1_000.0),
    ("assess.sensor.no_hits_vehicles", 1.0, 10_000.0),
    ("assess.sensor.no_hits_min", 1.0, 1_440.0),
    ("assess.sensor.no_hits_busy_share", 0.0, 1.0),
    ("assess.sensor.locked_on_min", 1.0, 1_440.0),
    ("assess.sensor.locked_on_alone_min", 1.0, 1_440.0),
    ("assess.sensor.chatter_per_30s", 1.0, 1_000.0),
    ("assess.sensor.speed_ratio_max", 1.0, 10.0),
    ("assess.sensor.contradiction_min", 1.0, 1_440.0),
    ("assess.sensor.release_min", 0.0, 1_440.0),
    ("assess.sensor.alerts_max", 1.0, 1_000_000.0),
    ("assess.sensor.sensors_max", 1.0, 10_000_000.0),
    ("assess.obstruction.standing_s", 30.0, 3_600.0),
    ("assess.obstruction.vehicles_min", 1.0, 1_000.0),
    ("assess.obstruction.silence_s", 30.0, 900.0),
    ("assess.obstruction.passages_min", 2.0, 10_000.0),
    ("assess.obstruction.beyond_m", 0.0, 2_000.0),
    ("assess.obstruction.stop_line_m", 0.0, 1_000.0),
    ("assess.obstruction.incident_score", 0.5, 6.5),
    ("assess.obstruction.closure_score", 0.5, 6.5),
    ("assess.region.coverage_min", 0.0, 1.0),
    ("publish.heartbeat_s", 1.0, 86_400.0),
    ("publish.ratio_step_permille", 1.0, 1_000.0),
];

/// The range of a number, if one narrower than its type is set.
pub(super) fn range(path: &[String]) -> Option<(f64, f64)> {
    let key = key_name(path);
    RANGES
        .iter()
        .find(|(known, _, _)| *known == key)
        .map(|(_, low, high)| (*low, *high))
}

/// Properties of librdkafka that are secrets.
const SECRETS: [&str; 6] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
];

/// Whether a property of librdkafka holds a secret (and so is never shown).
pub(crate) fn is_secret(property: &str) -> bool {
    SECRETS.contains(&property) || property.contains("password") || property.contains("secret")
}

/// Faults of a configuration whose values are each in range. `from_file` says whether the value at a path
/// was given by the file.
pub(super) fn faults(config: &Config, from_file: impl Fn(&[String]) -> bool) -> Vec<Fault> {
    let mut found = Faults::default();
    stages(config, &mut found);
    sources(config, &mut found);
    sinks(config, &mut found);
    listeners(config, &mut found);
    kafka(config, from_file, &mut found);
    if config.map.file.as_os_str().is_empty() {
        found.add(
            "map.file",
            "`map.file` is empty",
            "name a file made by `viaflux map build`",
        );
    }
    if let Some(zone) = &config.baseline.zone
        && let Err(problem) = Calendar::new(zone, &Holidays::default())
    {
        found.add(
            "baseline.zone",
            problem,
            "names are those of the IANA time zone database",
        );
    }
    if config.profile.id.is_empty() {
        found.add(
            "profile.id",
            "`profile.id` is empty",
            "the default is \"gbt33171-2016\"",
        );
    }
    // A directive that is no level is the name of a target, with all its lines: rarely what was meant.
    let bare = |d: &&str| !d.contains(['=', '[']) && !d.contains("::") && !d.starts_with("viaflux");
    let mut directives = config.log.level.split(',').map(str::trim);
    if let Some(word) =
        directives.find(|d| bare(d) && d.parse::<tracing_subscriber::filter::LevelFilter>().is_err())
    {
        found.add(
            "log.level",
            format!("`log.level` holds `{word}`, which is no level"),
            "levels are error, warn, info, debug, trace and off; for one part \"info,viaflux::engine=debug\"",
        );
    } else if let Err(e) = config.log.level.parse::<tracing_subscriber::EnvFilter>() {
        found.add(
            "log.level",
            format!("`log.level` is no filter: {e}"),
            "one looks like \"info\"",
        );
    }
    found.0
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let path = key.split('.').map(str::to_owned).collect();
        self.add_at(path, message, remedy);
    }

    fn add_at(&mut self, path: Vec<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Fault {
            path,
            at_key: false,
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

fn stages(config: &Config, found: &mut Faults) {
    let (l, a, alert) = (&config.locate, &config.aggregate, &config.assess.alert);
    if a.window_s < a.pane_s || !a.window_s.is_multiple_of(a.pane_s) {
        found.add(
            "aggregate.window_s",
            format!(
                "`aggregate.window_s` is {}, no multiple of `pane_s` = {}",
                a.window_s, a.pane_s
            ),
            "a window is made of whole panes",
        );
    }
    if a.unknown_s < a.window_s {
        found.add(
            "aggregate.unknown_s",
            format!(
                "`aggregate.unknown_s` is {}, less than `window_s` = {}",
                a.unknown_s, a.window_s
            ),
            "a segment cannot be unknown while its window holds data",
        );
    }
    if a.block_s > a.unknown_s {
        found.add(
            "aggregate.block_s",
            format!(
                "`aggregate.block_s` is {}, more than `unknown_s` = {}",
                a.block_s, a.unknown_s
            ),
            "a block of turns ends while its segments are known",
        );
    }
    if l.sigma_min > l.sigma_max {
        found.add(
            "locate.sigma_min",
            format!(
                "`locate.sigma_min` is {}, more than `sigma_max` = {}",
                l.sigma_min, l.sigma_max
            ),
            "",
        );
    }
    if l.beta0 > l.beta_max {
        found.add(
            "locate.beta0",
            format!(
                "`locate.beta0` is {}, more than `beta_max` = {}",
                l.beta0, l.beta_max
            ),
            "",
        );
    }
    if l.evict_s < l.break_s {
        found.add(
            "locate.evict_s",
            format!(
                "`locate.evict_s` is {}, less than `break_s` = {}",
                l.evict_s, l.break_s
            ),
            "a vehicle is forgotten after its track ended",
        );
    }
    if alert.open_ratio >= alert.close_ratio {
        found.add(
            "assess.alert.close_ratio",
            format!(
                "`assess.alert.close_ratio` is {}, not above `open_ratio` = {}",
                alert.close_ratio, alert.open_ratio
            ),
            "without a gap between them alerts flutter",
        );
    }
    let [hold, of] = alert.open_of_min;
    if hold == 0 || hold > of || of > 1_440 {
        found.add(
            "assess.alert.open_of_min",
            format!("`assess.alert.open_of_min` is [{hold}, {of}]"),
            "expected [m, n] with 1 ≤ m ≤ n ≤ 1440: m of the last n minutes",
        );
    }
}

fn sources(config: &Config, found: &mut Faults) {
    let mut names = BTreeSet::new();
    if config.source.is_empty() {
        found.add(
            "source",
            "there is no `[[source]]`",
            "without one nothing comes in",
        );
    }
    for (i, source) in config.source.iter().enumerate() {
        let at = |key: &str| vec!["source".to_owned(), i.to_string(), key.to_owned()];
        let name = key_name(&at("")[..2]);
        if !names.insert(source.name()) {
            found.add_at(
                at("id"),
                format!("`{name}` has the id `{}`, like a source before it", source.name()),
                "give each source an `id` of its own",
            );
        }
        if let Err((key, text)) = source.mapping() {
            found.add_at(at(key), format!("`{name}`: {text}"), "");
        }
        let files = source.files();
        match source.kind {
            SourceKind::File if files.is_empty() => {
                found.add_at(
                    at("path"),
                    format!("`{name}` is of kind `file` but names no `path`"),
                    "",
                );
            }
            SourceKind::Kafka | SourceKind::Simulated if !files.is_empty() => {
                let key = if source.path.is_some() { "path" } else { "paths" };
                found.add_at(
                    at(key),
                    format!("`{name}` names a file but is not of kind `file`"),
                    "say kind = \"file\", or remove the path",
                );
            }
            _ => {}
        }
        if source.kind != SourceKind::Kafka && source.topic.is_some() {
            found.add_at(
                at("topic"),
                format!("`{name}` names a topic but is not of kind `kafka`"),
                "",
            );
        }
        if source.topic.as_deref() == Some("") {
            found.add_at(at("topic"), format!("`{name}` has an empty topic"), "");
        }
    }
}

fn sinks(config: &Config, found: &mut Faults) {
    let mut names = BTreeSet::new();
    for (i, sink) in config.sink.iter().enumerate() {
        let at = |key: &str| vec!["sink".to_owned(), i.to_string(), key.to_owned()];
        let name = key_name(&at("")[..2]);
        if sink.id.is_empty() || !names.insert(sink.id.as_str()) {
            found.add_at(
                at("id"),
                format!(
                    "`{name}` has the id `{}`, which is empty or taken by a sink before it",
                    sink.id
                ),
                "give each sink an `id` of its own",
            );
        }
        match (sink.kind, &sink.path) {
            (SinkKind::File, None) => {
                found.add_at(
                    at("path"),
                    format!("`{name}` is of kind `file` but names no `path`"),
                    "",
                );
            }
            (SinkKind::Kafka, Some(_)) => {
                found.add_at(
                    at("path"),
                    format!("`{name}` names a folder but is of kind `kafka`"),
                    "say kind = \"file\", or remove the path",
                );
            }
            _ => {}
        }
    }
}

fn listeners(config: &Config, found: &mut Faults) {
    let open = [
        (
            "server",
            &config.server.listen,
            &config.server.bearer_token_file,
            config.server.allow_anonymous,
            &config.server.hosts,
        ),
        (
            "admin",
            &config.admin.listen,
            &config.admin.bearer_token_file,
            config.admin.allow_anonymous,
            &config.admin.hosts,
        ),
    ];
    for (section, listen, token, anonymous, hosts) in open {
        for (i, host) in hosts.iter().enumerate().filter(|(_, h)| !is_host_name(h)) {
            found.add(
                &format!("{section}.hosts.{i}"),
                format!("{host:?} is no host name"),
                "write the name alone, without scheme and port, such as \"traffic.example.org\"",
            );
        }
        let key = format!("{section}.listen");
        match is_loopback(listen) {
            None => found.add(
                &key,
                format!("`{key}` is {listen:?}, no address with a port"),
                "expected one like \"127.0.0.1:8080\" or \"[::1]:8080\"",
            ),
            Some(false) if token.is_none() && !anonymous => found.add(
                &key,
                format!("`{key}` is {listen}, which others can reach, but nobody is asked who they are"),
                format!("set `{section}.bearer_token_file`, or `{section}.allow_anonymous = true`"),
            ),
            _ => {}
        }
    }
    if config.server.listen == config.admin.listen && !config.server.listen.ends_with(":0") {
        found.add(
            "admin.listen",
            format!(
                "`admin.listen` is {}, the address of `server.listen`",
                config.admin.listen
            ),
            "people and machines have a listener each",
        );
    }
}

/// Whether a listener is reached from this machine only; `None` if it is no address with a port.
fn is_loopback(listen: &str) -> Option<bool> {
    if let Ok(address) = listen.parse::<SocketAddr>() {
        return Some(match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        });
    }
    let (host, port) = listen.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    (host == "localhost").then_some(true)
}

fn kafka(config: &Config, from_file: impl Fn(&[String]) -> bool, found: &mut Faults) {
    let used = config.source.iter().any(|s| s.kind == SourceKind::Kafka)
        || config.sink.iter().any(|s| s.kind == SinkKind::Kafka);
    if used && config.kafka.brokers.is_empty() {
        found.add(
            "kafka.brokers",
            "`kafka.brokers` is empty, but a source or sink is of kind `kafka`",
            "",
        );
    }
    for (i, broker) in config.kafka.brokers.iter().enumerate() {
        let port = broker
            .rsplit_once(':')
            .and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if port.is_none() {
            found.add(
                &format!("kafka.brokers.{i}"),
                format!("{broker:?} is no broker"),
                "expected \"host:port\", such as \"localhost:9092\"",
            );
        }
    }
    if config.kafka.group_id.is_empty() {
        found.add(
            "kafka.group_id",
            "`kafka.group_id` is empty",
            "the default is \"viaflux\"",
        );
    }
    // Set by the engine: another value would break its promises.
    let owned = [
        ("bootstrap.servers", "set `kafka.brokers`"),
        ("group.id", "set `kafka.group_id`"),
        ("client.id", "set `kafka.client_id`"),
        (
            "enable.auto.commit",
            "offsets are committed with the state that they led to",
        ),
        (
            "enable.auto.offset.store",
            "offsets are committed with the state that they led to",
        ),
        ("auto.offset.reset", "set `start` of the source"),
        ("enable.idempotence", "output is always idempotent"),
        ("transactional.id", "transactions are not used"),
    ];
    for property in config.kafka.properties.keys() {
        let path = ["kafka", "properties", property.as_str()]
            .map(str::to_owned)
            .to_vec();
        if let Some((_, why)) = owned.iter().find(|(name, _)| name == property) {
            found.add_at(path, format!("`{property}` is not to be set here"), *why);
        } else if is_secret(property) && from_file(&path) {
            let variable = property.to_ascii_uppercase().replace('.', "_");
            let remedy = match property.as_str() {
                "sasl.password" => "set `kafka.sasl_password_file`".to_owned(),
                "ssl.key.password" => "set `kafka.ssl_key_password_file`".to_owned(),
                _ => "a secret does not belong in this file".to_owned(),
            };
            found.add_at(
                path,
                format!("`{property}` is a secret"),
                format!("{remedy}, or the variable VIAFLUX__KAFKA__PROPERTIES__{variable}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::config::load;
    use crate::service::config::schema::{self, json_schema};

    fn messages(text: &str) -> String {
        let config: Config = toml::from_str(text).unwrap();
        let list: Vec<String> = faults(&config, |_| true)
            .into_iter()
            .map(|f| format!("{} ({})", f.message, f.remedy))
            .collect();
        list.join("\n")
    }

    #[test]
    fn every_range_names_a_number_whose_default_lies_in_it() {
        let defaults = toml::Value::try_from(Config::default()).unwrap();
        for (key, low, high) in RANGES {
            let value = key.split('.').try_fold(&defaults, |at, part| at.get(part));
            let number = value.and_then(|v| v.as_float().or(v.as_integer().map(|n| n as f64)));
            let number = number.unwrap_or_else(|| panic!("`{key}` is no number of the configuration"));
            assert!((*low..=*high).contains(&number), "default of `{key}`: {number}");
        }
    }

    #[test]
    fn every_number_of_a_stage_has_a_range() {
        fn walk(at: &serde_json::Value, path: &mut Vec<String>, bare: &mut Vec<String>) {
            for (key, schema) in at["properties"].as_object().into_iter().flatten() {
                path.push(key.clone());
                let number = schema::types(schema)
                    .iter()
                    .any(|t| *t == "integer" || *t == "number");
                if number && range(path).is_none() {
                    bare.push(key_name(path));
                }
                walk(schema, path, bare);
                path.pop();
            }
        }
        let mut bare = Vec::new();
        for stage in ["ingest", "locate", "aggregate", "assess", "publish"] {
            walk(
                &json_schema()["properties"][stage],
                &mut vec![stage.to_owned()],
                &mut bare,
            );
        }
        assert_eq!(bare, Vec::<String>::new());
    }

    #[test]
    fn the_defaults_agree() {
        assert_eq!(faults(&Config::default(), |_| true), []);
    }

    #[test]
    fn contradictions_are_named() {
        for (text, expected) in [
            ("[aggregate]\npane_s = 40\n", "no multiple of `pane_s` = 40"),
            ("[aggregate]\nunknown_s = 60\n", "less than `window_s`"),
            ("[aggregate]\nblock_s = 3600\n", "more than `unknown_s`"),
            ("[assess.alert]\nopen_ratio = 0.6\n", "alerts flutter"),
            ("[assess.alert]\nopen_of_min = [5, 4]\n", "1 ≤ m ≤ n"),
            ("[server]\nlisten = '0.0.0.0:80'\n", "server.bearer_token_file"),
            ("[admin]\nlisten = '127.0.0.1:8080'\n", "a listener each"),
            ("[server]\nhosts = ['a.example:80']\n", "no host name"),
            ("[server]\nlisten = 'here'\n", "no address with a port"),
            ("[kafka]\nbrokers = ['localhost']\n", "no broker"),
            (
                "[kafka.properties]\n'sasl.password' = 'x'\n",
                "kafka.sasl_password_file",
            ),
            (
                "[kafka.properties]\n'enable.auto.commit' = true\n",
                "not to be set here",
            ),
            ("[[source]]\nkind = 'file'\n", "names no `path`"),
            ("[[source]]\npath = 'x'\n", "not of kind `file`"),
            ("[[source]]\n[[source]]\n", "an `id` of its own"),
            ("[[source]]\npreset = 'viafluxx'\n", "unknown preset `viafluxx`"),
            ("source = []\n", "nothing comes in"),
            ("[[sink]]\nkind = 'file'\n", "names no `path`"),
            ("[log]\nlevel = 'info,=,'\n", "no filter"),
        ] {
            let found = messages(text);
            assert!(found.contains(expected), "{text} gave: {found}");
        }
        assert_eq!(messages("[server]\nlisten = '[::1]:80'\n"), "");
        assert_eq!(
            messages("[server]\nlisten = '0.0.0.0:80'\nallow_anonymous = true\n"),
            ""
        );
    }

    #[test]
    fn a_secret_may_come_by_the_environment() {
        let variable = (
            "VIAFLUX__KAFKA__PROPERTIES__SASL_PASSWORD".to_owned(),
            "x".to_owned(),
        );
        assert!(load(None, [variable], &[]).is_ok());
    }
}
