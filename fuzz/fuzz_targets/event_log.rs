//! Any bytes, plain or with the magic of zstd or gzip, are records of known partitions up to the first error.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use viaflux::engine::Batch;
use viaflux::source::event_log::{EventLogReader, LogRecord};

fuzz_target!(|data: &[u8]| {
    let raw = Box::new(Cursor::new(data.to_vec()));
    let mut reader = match EventLogReader::from_read(Path::new("fuzz"), raw) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut record = LogRecord::default();
    let mut batch = Batch::default();
    loop {
        match reader.read(&mut record) {
            Ok(true) => {
                let header = reader.header();
                let source = header.sources.iter().find(|s| s.topic == record.topic);
                assert!(source.is_some_and(|s| record.partition < s.partitions));
                let log = header
                    .log(&record.topic, record.partition)
                    .expect("read accepts known partitions only");
                assert!(u64::from(log) < header.logs());
                batch.clear();
                record.push_to(&mut batch, log);
                assert_eq!(batch.record(0).control, record.is_control());
            }
            Ok(false) => break,
            Err(error) => {
                assert!(error.to_string().contains("fuzz"), "it names the file: {error}");
                break;
            }
        }
    }
});
