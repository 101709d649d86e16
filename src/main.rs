//! The `viaflux` command.
fn main() {}
