//! service

pub mod config;
