//! A control record is understood and written again the same, or ignored; no record breaks the machine of a log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use viaflux::ingest::{Control, Ingest, Released, Settings};

fuzz_target!(|data: &[u8]| {
    let control = Control::parse(data);
    if let Some(control) = control {
        assert_eq!(Control::parse(&control.encode()), Some(control));
    }
    let mut ingest = Ingest::new(Settings::default(), 15_000);
    let mut out = Released::default();
    ingest.control(0, control);
    ingest.release(&mut out);
    assert_eq!(ingest.watermark().is_some(), control.is_some());
    assert!(ingest.counts().balanced() && ingest.counts().control == 1);
});
