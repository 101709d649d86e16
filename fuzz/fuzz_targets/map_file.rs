//! Any bytes are a map or an error; what is accepted is used as the stages use it, and written again the same.
//!
//! Once as they are, once as the content of a file whose checksum fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use viaflux::network::Network;
use viaflux_fuzz::{exercise, map_file};

fuzz_target!(|data: &[u8]| {
    if let Err(error) = Network::read(data) {
        assert!(!error.to_string().is_empty());
    }
    let file = map_file(data);
    if let Ok(network) = Network::read(&file) {
        exercise(&network);
        let mut again = Vec::new();
        network.write(&mut again).expect("writing to memory");
        assert!(Network::read(&again).is_ok_and(|n| n.segments() == network.segments()));
    }
});
