//! viaflux: streaming traffic analytics.
//!
//! Vehicle positions and roadside sensor measurements go in; live congestion of road segments,
//! corridors, regions and alerts come out. The folders read as the way of the data:
//!
//! ```text
//! source -> ingest -> locate -> aggregate -> assess -> publish -> sink
//! ```
//!
//! [`ingest`], [`locate`], [`aggregate`], [`assess`] and [`publish`] are pure stages joined by [`engine`];
//! [`units`], [`network`] and [`baseline`] are the ground they stand on. `source`, `sink` and `service`
//! (feature `service`) are the only places that touch files, sockets or the clock.

pub mod aggregate;
pub mod assess;
pub mod baseline;
pub mod engine;
pub mod ingest;
pub mod locate;
pub mod network;
pub mod publish;
pub mod simulate;
pub mod units;

#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
pub mod sink;
#[cfg(feature = "service")]
pub mod source;
