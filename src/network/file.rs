//! The map file.

/// Why a map file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MapFileError {}
