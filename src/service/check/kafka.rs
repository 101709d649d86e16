//! What `viaflux check` asks the brokers: are the topics there and set as they must be, and do the records of a
//! vehicle keep to one partition?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::message::Message;

use super::{Check, Outcome};
use crate::ingest::{Area, Decoder, Feed, Field, Rejection};
use crate::service::config::{Config, Source};
use crate::service::live::{connection, output_topics};
use crate::service::run::kafka_sources;
use crate::sink::kafka::TopicSpec;
use crate::source::kafka::{
    KafkaConnection, KafkaInput, KafkaSource, KafkaSourceError, LogRange, Next, RangeReader, Start,
    is_control, partition_counts, topic_settings,
};
use crate::units::Position;

/// Newest records read of a source, over all its partitions: a fleet that reports 10,000 times a second gives
/// each vehicle the time to report twice.
const SAMPLE_RECORDS_MAX: u64 = 400_000;
/// How long they are read.
const SAMPLE_TIME: Duration = Duration::from_secs(10);
/// Share of the vehicles that may be seen in two partitions, in percent (design §4).
const SPLIT_PERCENT_MAX: usize = 1;
/// Partitions of an input topic that an operator is advised to make.
const INPUT_PARTITIONS: i32 = 16;

/// What is known of a topic.
struct Known {
    partitions: Option<i32>,
    settings: Option<BTreeMap<String, String>>,
}

impl Known {
    fn setting(&self, key: &str) -> Option<&str> {
        self.settings.as_ref()?.get(key).map(String::as_str)
    }
}

/// Asks everything and adds a check for each answer. Ends within about half a minute.
pub(super) fn ask(config: &Config, checks: &mut Vec<Check>) {
    let connection = match connection(config) {
        Ok(connection) => connection,
        Err(error) => return checks.push(Check::new("brokers", Outcome::Bad, format!("{error:#}"))),
    };
    let sources = kafka_sources(config);
    let outputs = output_topics(config, sources.iter().map(|s| s.topic()));
    let mut names: Vec<&str> = sources.iter().map(|s| s.topic()).collect();
    if let Some((_, specs)) = &outputs {
        names.extend(specs.iter().map(|s| s.name.as_str()));
    }
    let known = match known(&connection, &names) {
        Ok(known) => known,
        Err(error) => return checks.push(Check::new("brokers", outcome(&error), error.to_string())),
    };
    let detail = format!("{} answered", connection.brokers);
    checks.push(Check::new("brokers", Outcome::Good, detail));
    let (of_sources, of_outputs) = known.split_at(sources.len());
    for (source, known) in sources.iter().zip(of_sources) {
        let what = format!("source {}", source.name());
        let (result, detail) = input(&connection.brokers, source.topic(), known);
        checks.push(Check::new(what, result, detail));
        if source.feed == Feed::Probe && known.partitions.is_some_and(|n| n > 1) {
            let what = format!("keys of source {}", source.name());
            let (result, detail) = keys(&connection, config, source)
                .unwrap_or_else(|error| (outcome(&error), error.to_string()));
            checks.push(Check::new(what, result, detail));
        }
    }
    if let Some((create, specs)) = &outputs {
        for (spec, known) in specs.iter().zip(of_outputs) {
            let (result, detail) = output(&connection.brokers, spec, known, *create);
            checks.push(Check::new(format!("topic {}", spec.name), result, detail));
        }
    }
}

/// A broker that is away says nothing about the configuration.
fn outcome(error: &KafkaSourceError) -> Outcome {
    match error {
        KafkaSourceError::NoBroker { .. }
        | KafkaSourceError::Query { .. }
        | KafkaSourceError::Fatal { .. } => Outcome::Failed,
        _ => Outcome::Bad,
    }
}

fn known(connection: &KafkaConnection, names: &[&str]) -> Result<Vec<Known>, KafkaSourceError> {
    let counts = partition_counts(connection, names)?;
    let there: Vec<&str> = names
        .iter()
        .zip(&counts)
        .filter(|(_, count)| count.is_some())
        .map(|(name, _)| *name)
        .collect();
    let mut settings = topic_settings(connection, &there)?.into_iter();
    Ok(counts
        .into_iter()
        .map(|partitions| Known {
            partitions,
            settings: partitions.and_then(|_| settings.next().flatten()),
        })
        .collect())
}

fn alter(brokers: &str, topic: &str, setting: &str) -> String {
    format!(
        "`kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} \
         --add-config {setting}`"
    )
}

fn input(brokers: &str, topic: &str, known: &Known) -> (Outcome, String) {
    let Some(partitions) = known.partitions else {
        let command = TopicSpec::input(topic, INPUT_PARTITIONS).command(brokers);
        return (
            Outcome::Bad,
            format!("there is no topic {topic}; create it with `{command}`"),
        );
    };
    let mut text = format!("topic {topic}, {partitions} partitions");
    let mut result = Outcome::Good;
    match known.setting("message.timestamp.type") {
        Some("LogAppendTime") => text.push_str(", stamped by the broker"),
        Some(other) => {
            result = Outcome::Warning;
            text.push_str(&format!(
                "; its records carry {other}, which counts as no append time: clocks that run ahead are held until \
                 others agree; better {}",
                alter(brokers, topic, "message.timestamp.type=LogAppendTime")
            ));
        }
        None => {
            result = Outcome::Warning;
            text.push_str(
                "; the broker does not tell its settings (ACL DescribeConfigs), see to it that they have \
                 message.timestamp.type=LogAppendTime",
            );
        }
    }
    if let Some(policy) = known.setting("cleanup.policy").filter(|p| p.contains("compact")) {
        result = Outcome::Warning;
        text.push_str(&format!(
            "; cleanup.policy={policy} takes records away that a replay needs; better {}",
            alter(brokers, topic, "cleanup.policy=delete")
        ));
    }
    (result, text)
}

fn output(brokers: &str, spec: &TopicSpec, known: &Known, create: bool) -> (Outcome, String) {
    let Some(partitions) = known.partitions else {
        return if create {
            let text = "not there yet; `run` will create it".to_owned();
            (Outcome::Good, text)
        } else {
            let command = spec.command(brokers);
            let text = format!("not there; create it with `{command}`, or set create_topics of the sink");
            (Outcome::Bad, text)
        };
    };
    let Some(policy) = known.setting("cleanup.policy") else {
        let text = format!(
            "{partitions} partitions; the broker does not tell its settings (ACL DescribeConfigs), see to it that \
             they have cleanup.policy={}",
            spec.cleanup_policy()
        );
        return (Outcome::Warning, text);
    };
    if policy.contains("compact") == spec.is_compacted() {
        return (
            Outcome::Good,
            format!("{partitions} partitions, cleanup.policy={policy}"),
        );
    }
    let why = if spec.is_compacted() {
        "its readers would lose what has not changed for long"
    } else {
        "all but the last record of a key would be lost"
    };
    // Commas part settings on the command line.
    let wanted = format!("cleanup.policy=[{}]", spec.cleanup_policy());
    let text = format!(
        "cleanup.policy={policy}: {why}; {}",
        alter(brokers, &spec.name, &wanted)
    );
    (Outcome::Bad, text)
}

/// Partitions in which a vehicle was read, and how often.
#[derive(Debug)]
struct Seen {
    first: i32,
    other: Option<i32>,
    times: u32,
}

/// A sample of the records of a source.
#[derive(Debug, Default)]
struct Sample {
    read: u64,
    vehicles: BTreeMap<Box<str>, Seen>,
    refused: BTreeMap<Rejection, u64>,
}

impl Sample {
    fn add(&mut self, partition: i32, id: Result<Box<str>, Rejection>) {
        self.read += 1;
        match id {
            Ok(id) => {
                let seen = self.vehicles.entry(id).or_insert(Seen {
                    first: partition,
                    other: None,
                    times: 0,
                });
                seen.times += 1;
                if partition != seen.first {
                    seen.other.get_or_insert(partition);
                }
            }
            Err(reason) => *self.refused.entry(reason).or_default() += 1,
        }
    }

    /// What the sample says; `remedy` is how the keys are put right.
    fn verdict(&self, remedy: &str) -> (Outcome, String) {
        if self.read == 0 {
            return (
                Outcome::Warning,
                "no records yet, so nothing can be said".to_owned(),
            );
        }
        if let (true, Some((reason, n))) = (
            self.vehicles.is_empty(),
            self.refused.iter().max_by_key(|(_, n)| **n),
        ) {
            let text = format!(
                "none of the newest {} records can be used, {n} of them because of `{}`; do preset and fields of the \
                 source fit them?",
                self.read,
                reason.label()
            );
            return (Outcome::Warning, text);
        }
        // Of a vehicle that was read once nothing can be said.
        let twice = self.vehicles.iter().filter(|(_, seen)| seen.times > 1);
        let known = twice.clone().count();
        let split: Vec<String> = twice
            .filter_map(|(id, seen)| Some(format!("{id} ({} and {})", seen.first, seen.other?)))
            .collect();
        if known == 0 {
            let text = format!(
                "none of {} vehicles was read twice, so nothing can be said",
                self.vehicles.len()
            );
            return (Outcome::Warning, text);
        }
        let share = split.len() as f64 * 100.0 / known as f64;
        let text = format!(
            "{} of {known} vehicles ({share:.1} %) lie in two partitions",
            split.len()
        );
        if split.len() * 100 <= known * SPLIT_PERCENT_MAX {
            return (Outcome::Good, text);
        }
        let examples = split.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        (
            Outcome::Bad,
            format!("{text}, such as {examples}; a vehicle must keep to one: {remedy}"),
        )
    }
}

/// Reads the newest records of all partitions and looks where their vehicles are.
fn keys(
    connection: &KafkaConnection,
    config: &Config,
    source: &Source,
) -> Result<(Outcome, String), KafkaSourceError> {
    let mapping = match source.mapping() {
        Ok(mapping) => mapping,
        Err((key, problem)) => return Ok((Outcome::Bad, format!("{key}: {problem}"))),
    };
    let id = mapping.fields.get(&Field::VehicleId);
    let remedy = format!(
        "`viaflux rekey --brokers {} --from {} --to {}.keyed --key {}`, then read that topic",
        connection.brokers,
        source.topic(),
        source.topic(),
        id.map_or("vehicle_id", |at| &at.path)
    );
    // Where on Earth does not matter here: another city's vehicles are keyed wrongly all the same.
    let corner = |lat, lon| Position::from_degrees(lat, lon).expect("the corners of the Earth are in range");
    let area = Area::around(corner(-90.0, -180.0), corner(90.0, 180.0), 0);
    let decoder = Decoder::new(mapping, None, config.ingest.clone(), area, Default::default()).keep_ids(true);

    let input = KafkaInput {
        topic: source.topic().to_owned(),
        start: Start::Latest,
    };
    let found = KafkaSource::connect(connection, &[input])?;
    let each = SAMPLE_RECORDS_MAX / (found.logs.len() as u64).max(1);
    let ranges: Vec<LogRange> = found
        .logs
        .iter()
        .map(|log| LogRange {
            topic: log.topic.clone(),
            partition: log.partition,
            from: log.high.saturating_sub(each).max(log.low),
            to: Some(log.high),
        })
        .collect();
    let mut reader = RangeReader::open(connection, &ranges)?;
    let mut sample = Sample::default();
    let begun = Instant::now();
    while begun.elapsed() < SAMPLE_TIME {
        match reader.next(Duration::from_millis(100))? {
            Next::Done => break,
            Next::Nothing => {}
            Next::Message(message) if is_control(&message) => {}
            Next::Message(message) => {
                let decoded = decoder.decode(message.payload().unwrap_or_default(), 0);
                let id = decoded.map(|d| d.id.unwrap_or_default());
                sample.add(message.partition(), id);
            }
        }
    }
    Ok(sample.verdict(&remedy))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::service::config::load;
    use crate::sink::kafka::{Outgoing, RecordProducer};

    fn of(brokers: &str, topic: &str) -> Config {
        let set = |key: &str, value: String| (format!("VIAFLUX__{key}"), value);
        let variables = [
            set("KAFKA__BROKERS", format!("[\"{brokers}\"]")),
            set("SOURCE", format!(r#"[{{id = "probes", topic = "{topic}"}}]"#)),
            set("SINK", "[]".to_owned()),
        ];
        load(None, variables, &[]).unwrap().config
    }

    fn asked(config: &Config) -> Vec<Check> {
        let mut checks = Vec::new();
        ask(config, &mut checks);
        checks
    }

    /// Sends two reports of each of 100 vehicles; those of the first `wrong` to two partitions.
    fn fill(connection: &KafkaConnection, topic: &str, wrong: i32) {
        let producer = RecordProducer::new(connection).unwrap();
        for i in 0..200 {
            let vehicle = i % 100;
            let value = format!(
                r#"{{"vehicle_id":"v{vehicle:02}","event_time":"2026-11-23T05:30:58Z","lat":34.2,"lon":108.9}}"#
            );
            let second = i >= 100 && vehicle < wrong;
            let outgoing = Outgoing {
                topic,
                partition: Some((vehicle + i32::from(second)) % 3),
                value: Some(value.as_bytes()),
                ..Outgoing::default()
            };
            producer.send(outgoing, &[]).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_topic_is_missed_and_wrong_keys_are_found() {
        let cluster = MockCluster::new(1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let (good, bad) = (of(&brokers, "good"), of(&brokers, "bad"));
        for (topic, config, wrong) in [("good", &good, 1), ("bad", &bad, 2)] {
            cluster.create_topic(topic, 3, 1).unwrap();
            fill(&connection(config).unwrap(), topic, wrong);
        }
        let checks = asked(&good);
        assert_eq!(checks[0].result, Outcome::Good, "{checks:?}");
        // The mock does not tell settings.
        assert_eq!(checks[1].result, Outcome::Warning, "{checks:?}");
        assert!(checks[1].detail.contains("DescribeConfigs"), "{checks:?}");
        assert_eq!(checks[2].result, Outcome::Good, "{checks:?}");
        assert!(
            checks[2].detail.starts_with("1 of 100 vehicles (1.0 %)"),
            "{checks:?}"
        );

        let keys = asked(&bad).remove(2);
        assert_eq!(keys.result, Outcome::Bad, "{keys:?}");
        for part in [
            "2 of 100 vehicles (2.0 %)",
            "such as v00 (0 and 1), v01 (1 and 2);",
            "rekey --brokers",
            "--from bad --to bad.keyed --key vehicle_id",
        ] {
            assert!(keys.detail.contains(part), "{part}: {keys:?}");
        }

        let checks = asked(&of(&brokers, "nowhere"));
        assert_eq!(checks.len(), 2, "{checks:?}");
        assert_eq!(checks[1].result, Outcome::Bad);
        assert!(
            checks[1]
                .detail
                .contains("--create --topic nowhere --partitions 16"),
            "{checks:?}"
        );
    }

    #[test]
    fn a_broker_that_is_away_is_no_bad_configuration() {
        let checks = asked(&of("127.0.0.1:1", "t"));
        assert_eq!(checks.len(), 1, "{checks:?}");
        assert_eq!(checks[0].result, Outcome::Failed, "{checks:?}");
    }

    #[test]
    fn little_is_said_of_little() {
        let mut sample = Sample::default();
        assert_eq!(sample.verdict("").0, Outcome::Warning);
        sample.add(0, Err(Rejection::Schema));
        let (result, text) = sample.verdict("");
        assert!(result == Outcome::Warning && text.contains("`schema`"), "{text}");
        sample.add(0, Ok("a".into()));
        sample.add(1, Ok("b".into()));
        let (result, text) = sample.verdict("");
        assert!(
            result == Outcome::Warning && text.contains("none of 2 vehicles was read twice"),
            "{text}"
        );
        sample.add(2, Ok("b".into()));
        let (result, text) = sample.verdict("so");
        assert_eq!(result, Outcome::Bad);
        assert!(text.contains("b (1 and 2)") && text.ends_with("so"), "{text}");
    }

    #[test]
    fn settings_of_topics_are_held_against_what_is_needed() {
        use crate::publish::Topic;
        let known = |settings: &[(&str, &str)]| Known {
            partitions: Some(1),
            settings: Some(
                settings
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
        };
        let of = |settings: &[(&str, &str)]| input("b:1", "in", &known(settings)).0;
        let stamped = ("message.timestamp.type", "LogAppendTime");
        assert_eq!(of(&[stamped, ("cleanup.policy", "delete")]), Outcome::Good);
        assert_eq!(of(&[stamped, ("cleanup.policy", "compact")]), Outcome::Warning);
        assert_eq!(of(&[("message.timestamp.type", "CreateTime")]), Outcome::Warning);

        let states = TopicSpec::output(Topic::SegmentState, "states", 1);
        let events = TopicSpec::output(Topic::AlertEvent, "events", 1);
        let of = |spec, policy| output("b:1", spec, &known(&[("cleanup.policy", policy)]), false);
        assert_eq!(of(&states, "compact,delete").0, Outcome::Good);
        let (result, text) = of(&states, "delete");
        assert!(
            result == Outcome::Bad
                && text.contains("--entity-name states --add-config cleanup.policy=[compact,delete]"),
            "{text}"
        );
        assert_eq!(of(&events, "delete").0, Outcome::Good);
        assert_eq!(of(&events, "compact").0, Outcome::Bad);
        let missing = Known {
            partitions: None,
            settings: None,
        };
        assert_eq!(output("b:1", &states, &missing, true).0, Outcome::Good);
        assert_eq!(output("b:1", &states, &missing, false).0, Outcome::Bad);
    }
}
