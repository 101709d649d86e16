//! What cannot work says so, quickly and with the remedy.

use std::time::{Duration, Instant};

use viaflux::publish::Topic;
use viaflux::sink::kafka::{TopicSpec, ensure_topics};
use viaflux::source::kafka::KafkaSource;

use crate::{address, broker, connection, earliest, fill, fresh, topic};

const IN_TIME: Duration = Duration::from_secs(15);

#[test]
fn an_unknown_topic_is_named_with_the_command_that_makes_it() {
    let Some(brokers) = broker() else { return };
    let begun = Instant::now();
    let missing = fresh("missing");
    let error = KafkaSource::connect(&connection(&brokers, "g"), &earliest(&missing))
        .unwrap_err()
        .to_string();
    assert!(begun.elapsed() < IN_TIME, "took {:?}", begun.elapsed());
    assert!(
        error.contains(&missing) && error.contains("kafka-topics.sh --bootstrap-server"),
        "{error}"
    );
    let spec = TopicSpec::output(Topic::SegmentState, &missing, 2);
    let error = ensure_topics(&connection(&brokers, ""), &[spec], false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("--topic {missing} --partitions 2")),
        "{error}"
    );
}

#[test]
fn a_port_on_which_nobody_listens_is_an_error_in_time() {
    if broker().is_none() {
        return;
    }
    let begun = Instant::now();
    let error = KafkaSource::connect(&connection("127.0.0.1:9", "g"), &earliest("t"))
        .unwrap_err()
        .to_string();
    assert!(begun.elapsed() < IN_TIME, "took {:?}", begun.elapsed());
    assert!(
        error.contains("127.0.0.1:9") && error.contains("refused"),
        "{error}"
    );
}

#[test]
fn wrong_credentials_are_an_error_in_time_and_right_ones_work() {
    let (Some(brokers), Some(sasl)) = (broker(), address("VIAFLUX_KAFKA_SASL")) else {
        return;
    };
    let name = topic(&brokers, "sasl", 1, true);
    fill(&brokers, &name, 1, 0..10);
    let with = |password: &str| {
        let mut connection = connection(&sasl, &fresh("sasl"));
        for (key, value) in [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "alice"),
            ("sasl.password", password),
        ] {
            connection.properties.insert(key.to_owned(), value.to_owned());
        }
        connection
    };
    let begun = Instant::now();
    let error = KafkaSource::connect(&with("guess"), &earliest(&name))
        .unwrap_err()
        .to_string();
    assert!(begun.elapsed() < IN_TIME, "took {:?}", begun.elapsed());
    assert!(
        error.contains("refused the credentials") && !error.contains("guess"),
        "{error}"
    );
    let topics = KafkaSource::connect(&with("alice-secret"), &earliest(&name)).unwrap();
    assert_eq!(topics.logs[0].high, 10);

    // A listener that wants a password, asked without one.
    let begun = Instant::now();
    let error = KafkaSource::connect(&connection(&sasl, "g"), &earliest(&name))
        .unwrap_err()
        .to_string();
    assert!(begun.elapsed() < IN_TIME, "took {:?}", begun.elapsed());
    assert!(error.contains("security.protocol"), "{error}");
}

#[test]
fn output_topics_are_made_with_their_cleanup_and_inputs_are_stamped() {
    let Some(brokers) = broker() else { return };
    let connection = connection(&brokers, "");
    let (states, input) = (fresh("states"), fresh("input"));
    let specs = [
        TopicSpec::output(Topic::SegmentState, &states, 2),
        TopicSpec::input(&input, 3),
    ];
    assert_eq!(
        ensure_topics(&connection, &specs, true).unwrap(),
        [states.clone(), input.clone()]
    );
    assert_eq!(
        ensure_topics(&connection, &specs, true).unwrap(),
        Vec::<String>::new(),
        "they exist"
    );
    let inputs: Vec<_> = [&states, &input]
        .into_iter()
        .flat_map(|name| earliest(name))
        .collect();
    let topics = KafkaSource::connect(&connection, &inputs).unwrap();
    let told: Vec<_> = topics
        .topics
        .iter()
        .map(|t| (t.partitions, t.log_append_time))
        .collect();
    assert_eq!(told, [(2, Some(false)), (3, Some(true))]);
}
