//! Any text is a configuration or a list of its faults, as a file and as the value of a variable.
#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use viaflux::service::config::load;
use viaflux_fuzz::Scratch;

static FILE: LazyLock<Mutex<Scratch>> = LazyLock::new(|| Mutex::new(Scratch::new(".toml")));

fuzz_target!(|data: &[u8]| {
    let mut file = FILE.lock().expect("one thread");
    match load(Some(file.with(data)), std::iter::empty(), &[]) {
        Ok(loaded) => {
            loaded.config.hash();
            for source in &loaded.config.source {
                source
                    .mapping()
                    .expect("a configuration that was accepted has mappings");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // NAME=value lines.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let variables = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .take(16)
        .map(|(name, value)| (format!("VIAFLUX__{name}"), value.to_owned()));
    if let Err(error) = load(None, variables, &[]) {
        assert!(!error.to_string().is_empty());
    }
});
