//! The binary against a real Apache Kafka, from end to end.
//!
//! `tests/broker/kafka.sh start` starts a broker and prints the variables that these tests want:
//! `VIAFLUX_KAFKA` (a plain listener), `VIAFLUX_KAFKA_SASL` (SASL/PLAIN without TLS) and `VIAFLUX_KAFKA_DIR`
//! (its folder, so that it can be killed and started again). Without them the tests are skipped, aloud.
//! `VIAFLUX_BIN` names another binary to test than the one just built.

#![cfg(unix)]
// Helpers outside of #[test] functions.
#![allow(clippy::unwrap_used)]

#[path = "live/broker.rs"]
mod broker;
#[path = "live/city.rs"]
mod city;
#[path = "live/crash.rs"]
mod crash;
#[path = "live/group.rs"]
mod group;
#[path = "live/journal.rs"]
mod journal;
#[path = "live/outage.rs"]
mod outage;
#[path = "live/outputs.rs"]
mod outputs;
#[path = "live/process.rs"]
mod process;
#[path = "live/refusal.rs"]
mod refusal;
#[path = "live/replay.rs"]
mod replay;
