//! Any bytes are a checkpoint that is taken or refused. What was taken can be kept and taken again.
//!
//! Once as they are, once as the state behind the right header and with a checksum that fits.
#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use viaflux::engine::Engine;
use viaflux_fuzz::{checkpoint, checkpoint_header, engine};

struct Bench {
    engine: Engine,
    /// Its checkpoint when it has read nothing.
    empty: Vec<u8>,
    header: Vec<u8>,
}

static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| {
    let engine = engine();
    Mutex::new(Bench {
        empty: engine.checkpoint(b""),
        header: checkpoint_header(&engine),
        engine,
    })
});

fuzz_target!(|data: &[u8]| {
    let Bench {
        engine,
        empty,
        header,
    } = &mut *BENCH.lock().expect("one thread");
    let whole = checkpoint(&[&header[..], data].concat());
    for bytes in [data, &whole] {
        match engine.restore(bytes) {
            Ok(companion) => {
                let kept = engine.checkpoint(&companion);
                assert_eq!(engine.restore(&kept).as_ref(), Ok(&companion));
                assert_eq!(engine.restore(empty), Ok(Vec::new()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        assert_eq!(&engine.checkpoint(b""), empty, "on an error nothing has changed");
    }
});
