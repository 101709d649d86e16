//! Any bytes behind the beginning of an OSM PBF file are an extract or an error.
#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use viaflux::network::osm::OsmData;
use viaflux::network::{BuildSettings, Network};
use viaflux_fuzz::{Scratch, exercise};

static FILE: LazyLock<Mutex<Scratch>> = LazyLock::new(|| Mutex::new(Scratch::new(".pbf")));

fuzz_target!(|data: &[u8]| {
    let mut file = FILE.lock().expect("one thread");
    match OsmData::read_pbf(file.with(data)) {
        Ok(osm) => exercise(&Network::build(&osm, &BuildSettings::default()).0),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
