//! Any bytes are an extract or an error.
//!
//! Panics of the PBF decoder are caught by the reader and are errors; those of anything else are not.
#![no_main]

use std::panic;
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use viaflux::network::osm::OsmData;
use viaflux::network::{BuildSettings, Network};
use viaflux_fuzz::{Scratch, exercise};

static FILE: LazyLock<Mutex<Scratch>> = LazyLock::new(|| {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let caught = info
            .location()
            .is_some_and(|l| l.file().contains("/osmpbf-") || l.file().contains("/protobuf-"));
        if !caught {
            abort(info);
        }
    }));
    Mutex::new(Scratch::new(".pbf"))
});

fuzz_target!(|data: &[u8]| {
    let mut file = FILE.lock().expect("one thread");
    match OsmData::read_pbf(file.with(data)) {
        Ok(osm) => exercise(&Network::build(&osm, &BuildSettings::default()).0),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
