//! What cannot work ends soon, with an error that names it.

use std::sync::RwLockReadGuard;
use std::time::Duration;

use crate::broker::{Broker, broker, variable};
use crate::city::{City, Feeds, Run};
use crate::process::{Child, viaflux};

const IN_TIME: Duration = Duration::from_secs(20);

/// Runs and expects an end with this code and these words on stderr. Returns stderr.
fn refused(run: &Run, code: i32, words: &[&str]) -> String {
    let mut command = viaflux();
    command.arg("run").arg("-c").arg(&run.config);
    let mut child = Child::spawn(&mut command, &run.config.with_extension("log"));
    let status = child.wait(IN_TIME);
    let log = child.log();
    assert_eq!(status.code(), Some(code), "{log}");
    let error = log.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(error, 1, "one error, told once:\n{log}");
    for word in words {
        assert!(log.contains(word), "`{word}` is not said:\n{log}");
    }
    log
}

/// The guard keeps the broker up.
type Prepared = (Broker, RwLockReadGuard<'static, ()>, City, Feeds);

fn prepared(name: &str) -> Option<Prepared> {
    let broker = broker()?;
    let shared = broker.shared();
    let city = City::simulate(&["--duration", "1m", "--vehicles", "20"]);
    let feeds = Feeds::make(&broker, name, true);
    Some((broker, shared, city, feeds))
}

#[test]
fn a_topic_that_does_not_exist() {
    let Some((broker, _shared, city, mut feeds)) = prepared("topic") else {
        return;
    };
    feeds.sensors = format!("{}-mistyped", feeds.prefix);
    let run = feeds.configure(&broker.address, &city, "group", "a", "");
    refused(&run, 1, &[&feeds.sensors, "kafka-topics.sh"]);
}

#[test]
fn wrong_credentials() {
    let (Some((_, _shared, city, feeds)), Some(sasl)) = (prepared("sasl"), variable("VIAFLUX_KAFKA_SASL"))
    else {
        return;
    };
    let login = "\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanisms\" = \"PLAIN\"\n\
                 \"sasl.username\" = \"alice\"";
    let run = feeds.configure(&sasl, &city, "group", "a", login);
    let password = city.file("password");
    std::fs::write(&password, "guessed\n").unwrap();
    let text = std::fs::read_to_string(&run.config).unwrap();
    let with_password = format!("[kafka]\nsasl_password_file = \"{}\"\n", password.display());
    std::fs::write(&run.config, text.replace("[kafka]\n", &with_password)).unwrap();
    let log = refused(&run, 1, &["refused the credentials", &sasl]);
    assert!(!log.contains("guessed"), "the password is told:\n{log}");
}

#[test]
fn no_broker() {
    let Some((_, _shared, city, feeds)) = prepared("nobody") else {
        return;
    };
    let run = feeds.configure("127.0.0.1:9", &city, "group", "a", "");
    refused(&run, 1, &["127.0.0.1:9", "answered"]);
}

#[test]
fn a_bad_configuration() {
    let Some((broker, _shared, city, feeds)) = prepared("config") else {
        return;
    };
    let run = feeds.configure(&broker.address, &city, "group", "a", "");
    let text = std::fs::read_to_string(&run.config).unwrap();
    std::fs::write(&run.config, text.replace("group_id", "grup_id")).unwrap();
    refused(&run, 78, &["grup_id", "group_id"]);
}
