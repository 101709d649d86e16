//! Any bytes are a checkpoint that is taken or refused. What was taken can be kept again.
//!
//! Once as they are, once as the state behind the right header and with a checksum that fits.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use viaflux_fuzz::{checkpoint, checkpoint_header, engine};

static HEADER: LazyLock<Vec<u8>> = LazyLock::new(|| checkpoint_header(&engine()));

fuzz_target!(|data: &[u8]| {
    let mut engine = engine();
    if let Err(error) = engine.restore(data) {
        assert!(!error.to_string().is_empty());
    }
    let plain = [&HEADER[..], data].concat();
    let before = engine.checkpoint(b"");
    match engine.restore(&checkpoint(&plain)) {
        Ok(companion) => {
            let kept = engine.checkpoint(&companion);
            assert_eq!(engine.restore(&kept).as_ref(), Ok(&companion));
            assert_eq!(engine.checkpoint(&companion), kept);
        }
        Err(_) => assert_eq!(engine.checkpoint(b""), before, "on an error nothing has changed"),
    }
});
