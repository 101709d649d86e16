//! ingest: from a log's bytes to events in order.
//!
//! Each input log (a Kafka partition, a plain file) is one [`Ingest`] machine: it decodes, guards, decides
//! lateness once against its own watermark, and releases what it accepted in order of event time. Every
//! record ends as an event or under exactly one [`Rejection`].

mod clock;
mod control;
mod datum;
mod decode;
mod event;
mod log;
mod mapping;
mod order;
mod rejection;
mod settings;

pub use control::Control;
pub use datum::Datum;
pub use decode::{Area, Decoded, Decoder, Explanation};
pub use event::{Event, Measurement, Probe, SubjectKey, VehicleClass};
pub use log::{Counts, Ingest, Refused, Released};
pub use mapping::{Feed, Field, FieldMapping, FieldSource, Format, Unit};
pub use rejection::Rejection;
pub use settings::Settings;
