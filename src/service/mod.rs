//! service

pub mod map;
