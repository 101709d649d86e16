//! Any bytes are an event in range or a rejection. The first byte chooses the mapping.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use viaflux::ingest::Decoder;
use viaflux_fuzz::{decode, json_decoders};

static DECODERS: LazyLock<Vec<Decoder>> = LazyLock::new(json_decoders);

fuzz_target!(|data: &[u8]| decode(&DECODERS, data));
