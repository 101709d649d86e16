//! The configuration: one TOML file, environment variables over it, flags over both.
//!
//! Stages own their settings; this gathers them, says where a value came from, finds every fault at once
//! and shows each where it stands.

mod diagnostic;
mod document;
mod hash;
mod load;
mod model;
mod schema;
mod source;
mod validate;

pub use diagnostic::{ConfigError, Place, Problem};
pub use document::{document, example};
pub use load::{Loaded, Override, load};
pub use model::{Baseline, Config, Kafka, Log, LogFormat, Map, Metrics, Profile, Sink, SinkKind, SinkTopics};
pub use schema::json_schema;
pub use source::{
    FieldEntry, PathAndUnit, Source, SourceKind, Start, UnitText, parse_duration_ms, preset, preset_names,
    standard_topic,
};
pub(crate) use validate::is_secret;
