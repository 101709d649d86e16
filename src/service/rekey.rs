//! `viaflux rekey`: a topic written anew, keyed by vehicle, so that each vehicle's records lie in one
//! partition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rdkafka::message::Message;

use super::brokers::{self, BrokerArgs};
use super::record::progress;
use crate::sink::kafka::{Outgoing, RecordProducer, TopicSpec, ensure_topics};
use crate::source::kafka::{
    self, KafkaConnection, KafkaInput, KafkaSource, LogRange, Next, RangeReader, Start, partition_counts,
};

/// Records of one partition kept while the others catch up. Above the first number the partition is held
/// back, below the second it goes on.
const HOLD_AT: usize = 10_000;
const GO_ON_AT: usize = 2_000;
/// With `--follow`, how long a record waits for older ones of other partitions.
const PATIENCE: Duration = Duration::from_secs(1);

/// Write a topic anew, keyed by a field of its records.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  \
    viaflux rekey --brokers k1:9092 --from gps.raw --to traffic.probe.position.v1 --key vehicle_id --follow")]
pub struct RekeyArgs {
    #[command(flatten)]
    brokers: BrokerArgs,
    /// Topic to read.
    #[arg(long, value_name = "TOPIC")]
    from: String,
    /// Topic to write.
    #[arg(long, value_name = "TOPIC")]
    to: String,
    /// Field of the key: a name or a JSON pointer.
    #[arg(long, value_name = "FIELD")]
    key: String,
    /// Where to begin: `earliest`, `latest`, an age (15m), an RFC 3339 moment, or an offset.
    #[arg(long, default_value = "earliest", value_parser = brokers::start)]
    start: Start,
    /// Go on with what comes, until Ctrl-C; else stop at what is there now.
    #[arg(long)]
    follow: bool,
    /// Create the target if it is missing, with this many partitions, stamped by the broker.
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..))]
    create_topic: Option<i32>,
}

/// What was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Records acknowledged.
    pub records: u64,
    /// Records without the field; they are kept and dealt out in turn.
    pub without_key: u64,
    /// Control records left out: they belong to a partition of the old topic.
    pub controls_skipped: u64,
}

impl RekeyArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Kafka cannot be read or written.
    pub fn run(self) -> anyhow::Result<()> {
        let connection = self.brokers.connection("rekey");
        let stop = brokers::stop_on_interrupt().context("watching for Ctrl-C")?;
        let rekeyed = self.rekey(&connection, &stop)?;
        eprintln!("{} records written to {}", rekeyed.records, self.to);
        if rekeyed.without_key > 0 {
            eprintln!(
                "{} of them have no `{}` and were dealt out in turn",
                rekeyed.without_key, self.key
            );
        }
        if rekeyed.controls_skipped > 0 {
            eprintln!("{} control records were left out", rekeyed.controls_skipped);
        }
        Ok(())
    }

    /// Rewrites until the end of what is there now, or until `stop`.
    ///
    /// A vehicle whose records lie in several partitions gets them in the order of their message times.
    ///
    /// # Errors
    /// Kafka cannot be read or written.
    pub fn rekey(&self, connection: &KafkaConnection, stop: &AtomicBool) -> anyhow::Result<Rekeyed> {
        if self.from == self.to {
            bail!("--from and --to are the same topic: it would be read and written for ever");
        }
        let input = KafkaInput {
            topic: self.from.clone(),
            start: self.start,
        };
        let found = KafkaSource::connect(connection, &[input])?;
        let spec = TopicSpec::input(&self.to, self.create_topic.unwrap_or(16));
        ensure_topics(connection, &[spec], self.create_topic.is_some())?;
        let targets = partition_counts(connection, &[&self.to])?
            .first()
            .copied()
            .flatten()
            .map_or(1, |count| u64::from(count.unsigned_abs()));

        let ranges: Vec<LogRange> = found
            .logs
            .iter()
            .map(|log| LogRange {
                topic: log.topic.clone(),
                partition: log.partition,
                from: log.start,
                to: (!self.follow).then_some(log.high),
            })
            .collect();
        let total = ranges
            .iter()
            .map(|r| r.to.map(|to| to.saturating_sub(r.from)))
            .sum::<Option<u64>>();
        let bar = progress(total);
        let mut reader = RangeReader::open(connection, &ranges)?;
        let producer = RecordProducer::new(connection)?;
        let mut merge = Merge::default();
        let mut rekeyed = Rekeyed::default();
        let mut done = false;
        loop {
            if stop.load(Ordering::Relaxed) || (done && merge.is_empty()) {
                break;
            }
            if !done {
                let timeout = if merge.is_empty() { 100 } else { 5 };
                match reader.next(Duration::from_millis(timeout))? {
                    Next::Done => done = true,
                    Next::Nothing => {}
                    Next::Message(message) => {
                        if kafka::is_control(&message) {
                            rekeyed.controls_skipped += 1;
                        } else {
                            let waiting = Waiting {
                                time: message.timestamp().to_millis().unwrap_or(i64::MIN),
                                arrived: Instant::now(),
                                offset: u64::try_from(message.offset()).unwrap_or(0),
                                key: message.key().map(<[u8]>::to_vec),
                                value: message.payload().map(<[u8]>::to_vec),
                                headers: brokers::headers(&message),
                            };
                            merge.push(message.partition(), waiting);
                        }
                    }
                }
                let (hold, go_on) = merge.flow();
                let named = |partitions: Vec<i32>| -> Vec<(String, i32)> {
                    partitions
                        .into_iter()
                        .map(|partition| (self.from.clone(), partition))
                        .collect()
                };
                reader.hold(&named(hold), true)?;
                reader.hold(&named(go_on), false)?;
            }
            let open: Vec<i32> = reader.open_places().map(|(_, partition)| *partition).collect();
            while let Some(waiting) = merge.pop(&open, self.follow) {
                let field = waiting
                    .value
                    .as_deref()
                    .and_then(|value| serde_json::from_slice::<serde_json::Value>(value).ok())
                    .and_then(|record| brokers::json_key(&record, &self.key));
                let partition = if field.is_some() {
                    None
                } else {
                    rekeyed.without_key += 1;
                    i32::try_from(waiting.offset % targets.max(1)).ok()
                };
                let headers: Vec<(&str, Option<&[u8]>)> = waiting
                    .headers
                    .iter()
                    .map(|(k, v)| (k.as_str(), v.as_deref()))
                    .collect();
                let key = field.as_deref().map(str::as_bytes).or(waiting.key.as_deref());
                let outgoing = Outgoing {
                    topic: &self.to,
                    partition,
                    key,
                    value: waiting.value.as_deref(),
                };
                producer.send(outgoing, &headers)?;
                bar.inc(1);
            }
        }
        producer.flush(Duration::from_secs(60))?;
        bar.finish_and_clear();
        rekeyed.records = producer.acknowledged();
        Ok(rekeyed)
    }
}

#[derive(Debug)]
struct Waiting {
    time: i64,
    arrived: Instant,
    offset: u64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Merges partitions by message time; within a partition the order stays.
#[derive(Debug, Default)]
struct Merge {
    queues: BTreeMap<i32, VecDeque<Waiting>>,
    held: BTreeMap<i32, bool>,
}

impl Merge {
    fn push(&mut self, partition: i32, waiting: Waiting) {
        self.queues.entry(partition).or_default().push_back(waiting);
    }

    fn is_empty(&self) -> bool {
        self.queues.values().all(VecDeque::is_empty)
    }

    /// Partitions to hold back and to let go on.
    fn flow(&mut self) -> (Vec<i32>, Vec<i32>) {
        let (mut hold, mut go_on) = (Vec::new(), Vec::new());
        for (partition, queue) in &self.queues {
            let held = self.held.entry(*partition).or_insert(false);
            if !*held && queue.len() >= HOLD_AT {
                *held = true;
                hold.push(*partition);
            } else if *held && queue.len() <= GO_ON_AT {
                *held = false;
                go_on.push(*partition);
            }
        }
        (hold, go_on)
    }

    /// The oldest record, if none of the `open` partitions can still bring an older one; with `impatient` also
    /// after [`PATIENCE`].
    fn pop(&mut self, open: &[i32], impatient: bool) -> Option<Waiting> {
        let heads = self
            .queues
            .iter()
            .filter_map(|(p, queue)| Some((*p, queue.front()?)));
        let (partition, head) = heads.min_by_key(|(_, head)| head.time)?;
        let complete = open
            .iter()
            .all(|p| self.queues.get(p).is_some_and(|queue| !queue.is_empty()));
        if complete || (impatient && head.arrived.elapsed() >= PATIENCE) {
            self.queues.get_mut(&partition)?.pop_front()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: i64, offset: u64) -> Waiting {
        Waiting {
            time,
            arrived: Instant::now(),
            offset,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn partitions_are_merged_by_time_and_none_is_overtaken() {
        let mut merge = Merge::default();
        for (time, offset) in [(10, 0), (30, 1)] {
            merge.push(0, at(time, offset));
        }
        assert!(
            merge.pop(&[0, 1], false).is_none(),
            "partition 1 may still bring an older record"
        );
        merge.push(1, at(20, 100));
        let mut order = Vec::new();
        while let Some(waiting) = merge.pop(&[0, 1], false) {
            order.push(waiting.offset);
        }
        assert_eq!(order, [0, 100]);
        assert_eq!(
            merge.pop(&[0], false).map(|w| w.offset),
            Some(1),
            "partition 1 is done"
        );
        assert!(merge.is_empty());
    }

    #[test]
    fn a_partition_far_ahead_is_held_back() {
        let mut merge = Merge::default();
        for i in 0..HOLD_AT as i64 {
            merge.push(3, at(i, i as u64));
        }
        assert_eq!(merge.flow(), (vec![3], vec![]));
        assert_eq!(merge.flow(), (vec![], vec![]), "said once");
        while merge.queues[&3].len() > GO_ON_AT {
            merge.pop(&[3], false);
        }
        assert_eq!(merge.flow(), (vec![], vec![3]));
    }
}
