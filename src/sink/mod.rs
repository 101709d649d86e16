//! Where results go.

pub mod http;
pub mod metrics;
pub mod prometheus;
