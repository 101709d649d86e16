//! service

pub mod config;
pub mod checkpoints;
pub mod city;
pub mod driver;
pub mod replay;
