//! Any text is an extract or an error; an extract becomes a network that works and that its file holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use viaflux::network::osm::{OsmData, write_xml};
use viaflux::network::{BuildSettings, Network};
use viaflux_fuzz::exercise;

fuzz_target!(|data: &[u8]| {
    let osm = match OsmData::read_xml(data) {
        Ok(osm) => osm,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let (network, report) = Network::build(&osm, &BuildSettings::default());
    assert_eq!(report.segments as usize, network.segments().len());
    exercise(&network);
    let mut file = Vec::new();
    network.write(&mut file).expect("writing to memory");
    let again = Network::read(&file).expect("a map that was built can be read");
    assert_eq!(again.segments(), network.segments());
    let mut text = Vec::new();
    write_xml(&osm, &mut text).expect("writing to memory");
    assert!(OsmData::read_xml(&text[..]).is_ok());
});
