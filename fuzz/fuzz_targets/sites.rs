//! Any text is a list of sites or an error; every site is bound or left unbound with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use viaflux::network::sites::{bind, parse_sites};
use viaflux_fuzz::NETWORK;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse_sites(text) {
        Ok(sites) => {
            let bound = bind(&NETWORK, &sites);
            assert_eq!(bound.sites.len() + bound.unbound.len(), sites.len());
            for site in &bound.sites {
                assert!(site.offset_mm <= NETWORK.segment(site.segment).length_mm);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
