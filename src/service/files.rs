//! Plain files as input logs: opened, read in the order that keeps memory small, driven to their end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::city::{City, LogDoor};
use super::config::{Config, SourceKind};
use super::driver::Driver;
use super::pace::{Pace, Speed};
use crate::engine::{Batch, LogIndex, LogSpec};
use crate::source::file::{BATCH_RECORDS, FileInput, FileSource, Polled};

/// Records of a batch when a pace is kept: small, so that time passes evenly.
const PACED_RECORDS: usize = 64;

/// How long a file may keep the others waiting.
const PATIENCE: Duration = Duration::from_millis(100);

/// The files of a configuration's sources, open.
#[derive(Debug)]
pub struct Files {
    inputs: Vec<FileInput>,
}

/// How files are driven.
#[derive(Clone, Copy, Debug)]
pub struct Drive {
    /// Pace.
    pub speed: Speed,
    /// Tell the engine where a file ends, so that it closes the last panes.
    pub drain: bool,
    /// Bring each file into the order of event time first.
    pub sort: bool,
}

impl Files {
    /// Opens the files of all sources of kind `file`; their logs are in the order of the configuration.
    ///
    /// # Errors
    /// Which file cannot be opened, or which column is missing.
    pub fn open(config: &Config, city: &City, keep_ids: bool) -> Result<(Self, Vec<LogSpec>)> {
        let (mut logs, mut inputs) = (Vec::new(), Vec::new());
        for source in config.source.iter().filter(|s| s.kind == SourceKind::File) {
            let mapping = source
                .mapping()
                .map_err(|(key, problem)| anyhow::anyhow!("source `{}`, {key}: {problem}", source.name()))?;
            let paths: Vec<PathBuf> = source.files().into_iter().map(PathBuf::from).collect();
            for path in paths {
                let input = FileInput::open(&path, &mapping)?;
                let name = path.display().to_string();
                let door = LogDoor::Whole {
                    name: &name,
                    header: input.header(),
                    lanes: config.ingest.virtual_partitions,
                };
                logs.push(city.log(config, source, door, keep_ids)?);
                inputs.push(input);
            }
        }
        Ok((Self { inputs }, logs))
    }

    /// Drives all files to their end, or until `stop`.
    ///
    /// Results do not depend on which file is read next; the one that is furthest behind holds the panes open,
    /// so reading it keeps memory small. One that gives nothing for a while (a pipe whose writer is silent) does
    /// not keep the others from being read.
    ///
    /// # Errors
    /// What cannot be read, written or delivered.
    pub fn drive(self, driver: &mut Driver, how: Drive, stop: &AtomicBool) -> Result<()> {
        let records = if how.speed == Speed::Max {
            BATCH_RECORDS
        } else {
            PACED_RECORDS
        };
        let mut open: Vec<Reading> = Vec::new();
        for (i, input) in self.inputs.into_iter().enumerate() {
            let log = i as LogIndex;
            let from = driver.engine().next_offset(log);
            let file = if how.sort {
                let decoder = driver.engine().decoder(log);
                input.sorted(log, from, records, |line| {
                    Some(decoder.decode(line, 0).ok()?.event.time())
                })?
            } else {
                input.start(log, from, records)
            };
            // A restored log that had ended has nothing more to say.
            if !driver.engine().ended(log) {
                open.push(Reading {
                    log,
                    file,
                    silent: false,
                });
            }
        }
        let progress = super::progress::records("replaying");
        let mut pace = Pace::new(how.speed);
        while !open.is_empty() && !stop.load(Ordering::Relaxed) {
            open.sort_by_key(|r| (driver.engine().watermark(r.log), r.log));
            let Some((k, polled)) = next(&mut open)? else {
                driver.tick()?;
                continue;
            };
            let log = open[k].log;
            match polled {
                Polled::Batch(batch) => {
                    progress.inc(batch.len() as u64);
                    driver.take(&batch)?;
                    pace.wait(driver.engine().greatest(log), stop);
                }
                Polled::Waiting => {}
                Polled::End => {
                    open.remove(k);
                    if how.drain {
                        let mut batch = Batch::default();
                        batch.end(log);
                        driver.take(&batch)?;
                    }
                }
            }
        }
        progress.finish_and_clear();
        driver.finish()
    }
}

/// A file that has not ended.
#[derive(Debug)]
struct Reading {
    log: LogIndex,
    file: FileSource,
    /// It gave nothing when it was asked last, so it is not waited for while others give something.
    silent: bool,
}

/// What the first file that has something gives, and its place; `None` if all were silent for a while.
fn next(open: &mut [Reading]) -> Result<Option<(usize, Polled)>> {
    let alone = open.iter().all(|r| r.silent);
    for (k, reading) in open.iter_mut().enumerate() {
        let patience = if reading.silent && (k > 0 || !alone) {
            Duration::ZERO
        } else {
            PATIENCE
        };
        match reading.file.poll(patience)? {
            Polled::Waiting => reading.silent = true,
            polled => {
                reading.silent = false;
                return Ok(Some((k, polled)));
            }
        }
    }
    Ok(None)
}
