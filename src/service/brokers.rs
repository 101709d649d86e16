//! What the commands that talk to Kafka have in common: where it is, moments on the command line, and a stop
//! on Ctrl-C that lets files be finished.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use rdkafka::message::{Headers, Message};

use crate::source::kafka::{KafkaConnection, Start};
use crate::units::EventTime;

/// Where Kafka is.
#[derive(Clone, Debug, Args)]
pub struct BrokerArgs {
    /// Some brokers of the cluster.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "VIAFLUX__KAFKA__BROKERS",
        help_heading = "Kafka"
    )]
    pub brokers: String,
    /// A librdkafka property, such as `security.protocol=SASL_PLAINTEXT`; may be given several times.
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = property, help_heading = "Kafka")]
    pub properties: Vec<(String, String)>,
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=VALUE".to_owned()),
    }
}

impl BrokerArgs {
    /// The connection of a command.
    pub fn connection(&self, command: &str) -> KafkaConnection {
        KafkaConnection {
            brokers: self.brokers.clone(),
            group_id: format!("viaflux-{command}"),
            client_id: format!("viaflux-{command}"),
            properties: self.properties.iter().cloned().collect::<BTreeMap<_, _>>(),
        }
    }
}

/// Parses `earliest`, `latest`, an age (`15m`, `2h`, `30s`, `1d`), an RFC 3339 moment or an offset.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    if text == "earliest" {
        return Ok(Start::Earliest);
    }
    if text == "latest" {
        return Ok(Start::Latest);
    }
    if let Ok(offset) = text.parse() {
        return Ok(Start::Offset(offset));
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Start::At(EventTime::from_ms(moment.as_millisecond())));
    }
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => 0,
    };
    let number = text
        .get(..text.len().saturating_sub(1))
        .and_then(|digits| digits.parse::<u64>().ok());
    match number.and_then(|number| number.checked_mul(unit_ms)) {
        Some(ms) if unit_ms > 0 => Ok(Start::Ago(ms)),
        _ => Err(
            "want `earliest`, `latest`, an age such as 15m, an RFC 3339 moment with its zone, or an \
                  offset"
                .to_owned(),
        ),
    }
}

/// A flag that Ctrl-C raises; a second Ctrl-C ends the process.
///
/// # Errors
/// The signal handler cannot be installed.
pub(crate) fn stop_on_interrupt() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let raised = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("viaflux-interrupt".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    raised.store(true, Ordering::Relaxed);
                    if tokio::signal::ctrl_c().await.is_ok() {
                        std::process::exit(130);
                    }
                }
            });
        })?;
    Ok(stop)
}

/// Headers of a message, owned.
pub(crate) fn headers<M: Message>(message: &M) -> Vec<(String, Option<Vec<u8>>)> {
    message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    })
}

/// Reads the value of a field of a JSON record as a message key: text as it is, numbers in digits. `field` is
/// a name or a JSON pointer (`/vehicle/id`).
pub(crate) fn json_key(record: &serde_json::Value, field: &str) -> Option<String> {
    let value = if field.starts_with('/') {
        record.pointer(field)
    } else {
        record.get(field)
    };
    match value? {
        serde_json::Value::String(text) if !text.is_empty() => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_age_a_moment_or_an_offset() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("latest"), Ok(Start::Latest));
        assert_eq!(start("15m"), Ok(Start::Ago(900_000)));
        assert_eq!(start("2d"), Ok(Start::Ago(172_800_000)));
        assert_eq!(start("1234"), Ok(Start::Offset(1234)));
        assert_eq!(
            start("2026-11-23T05:30:58.012+08:00"),
            Ok(Start::At(EventTime::from_ms(1_795_383_058_012)))
        );
        for wrong in ["", "m", "15x", "-3m", "2026-11-23", "é"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_text_or_a_number_at_a_name_or_pointer() {
        let record = serde_json::json!({"id": "a", "n": 7, "v": {"id": "b"}, "e": "", "x": null});
        assert_eq!(json_key(&record, "id").as_deref(), Some("a"));
        assert_eq!(json_key(&record, "n").as_deref(), Some("7"));
        assert_eq!(json_key(&record, "/v/id").as_deref(), Some("b"));
        for missing in ["e", "x", "v", "nothing", "/v/x"] {
            assert_eq!(json_key(&record, missing), None, "{missing}");
        }
    }
}
