//! The journal: idle marks of logs to which this process may not write (design, law 2).
//!
//! A mark must stand in the log that it concerns, so that whoever reads it again closes the same panes. Where
//! the broker forbids that, it stands in `journal.ndjson` of the state folder instead, with the offset before
//! which it acts, and is on disk before it acts. After a restart [`Pending`] brings it back to its place, and
//! `record --state` puts it into the event log.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::{Batch, LogIndex};
use crate::ingest::Control;

/// Name of the file in a state folder.
const FILE: &str = "journal.ndjson";

/// Why a journal cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the journal {}: {error}", path.display())]
pub struct JournalError {
    /// What was tried.
    pub doing: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub error: io::Error,
}

/// A control record that stands beside its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Topic of its log.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// It acts behind the record before this offset.
    pub offset: u64,
    /// What it says.
    pub control: Control,
}

/// The journal of a state folder, open to append.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens or makes the journal of `dir` and returns what stands in it. Of several entries at one place only
    /// the last is kept: watermarks only rise.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read or rewritten.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let path = dir.join(FILE);
        let fail = |doing| {
            let path = path.clone();
            move |error| JournalError { doing, path, error }
        };
        let entries = read(dir)?;
        let temporary = path.with_extension("tmp");
        let rewrite = || -> io::Result<()> {
            fs::create_dir_all(dir)?;
            let mut file = File::create(&temporary)?;
            for entry in &entries {
                file.write_all(&line(entry))?;
            }
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        rewrite().map_err(fail("rewriting"))?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(fail("opening"))?;
        Ok((Self { path, file }, entries))
    }

    /// Appends an entry; when this returns it is on disk.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be written: the entry must not act then.
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let line = line(entry);
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| JournalError {
                doing: "writing",
                path: self.path.clone(),
                error,
            })
    }
}

fn line(entry: &Entry) -> Vec<u8> {
    let mut line = serde_json::to_vec(entry).expect("names and integers always encode");
    line.push(b'\n');
    line
}

/// What stands in the journal of `dir`, in the order of topic, partition and offset; nothing if there is none.
/// A last line that was cut off by a crash never acted and is left out.
///
/// # Errors
/// [`JournalError`] if it cannot be read or is none.
pub fn read(dir: &Path) -> Result<Vec<Entry>, JournalError> {
    let path = dir.join(FILE);
    let fail = |error| JournalError {
        doing: "reading",
        path: path.clone(),
        error,
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut entries: BTreeMap<(String, u32, u64), Entry> = BTreeMap::new();
    for (n, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        let entry: Entry = serde_json::from_slice(line).map_err(|e| {
            let text = format!("line {}: {e}", n + 1);
            fail(io::Error::new(io::ErrorKind::InvalidData, text))
        })?;
        entries.insert((entry.topic.clone(), entry.partition, entry.offset), entry);
    }
    Ok(entries.into_values().collect())
}

/// Entries that are to act when their place is reached, by log.
#[derive(Clone, Debug)]
pub struct Pending<K>(BTreeMap<K, VecDeque<(u64, Control)>>);

impl<K: Ord + Copy> Pending<K> {
    /// The entries of the logs that `log` knows, from the offset on at which each is begun.
    pub fn new(entries: &[Entry], log: impl Fn(&Entry) -> Option<(K, u64)>) -> Self {
        let mut pending: BTreeMap<K, VecDeque<(u64, Control)>> = BTreeMap::new();
        for entry in entries {
            if let Some((log, from)) = log(entry)
                && entry.offset >= from
            {
                let queue = pending.entry(log).or_default();
                queue.push_back((entry.offset, entry.control));
            }
        }
        Self(pending)
    }

    /// Takes the next entry of `log` whose place is at or before `next`, the offset behind the last record.
    pub fn due(&mut self, log: K, next: u64) -> Option<(u64, Control)> {
        let queue = self.0.get_mut(&log)?;
        let due = queue.front().filter(|(offset, _)| *offset <= next).copied();
        if due.is_some() {
            queue.pop_front();
        }
        if queue.is_empty() {
            self.0.remove(&log);
        }
        due
    }
}

impl Pending<LogIndex> {
    /// The entries that act before any record is read; `next` gives the offset at which a log is begun.
    pub fn begin(&mut self, logs: usize, next: impl Fn(LogIndex) -> u64) -> Batch {
        let mut batch = Batch::default();
        for log in 0..logs as LogIndex {
            self.put(&mut batch, log, next(log));
        }
        batch
    }

    /// A batch with the entries put in whose places lie in it or right behind it.
    pub fn weave(&mut self, batch: Batch) -> Batch {
        if self.0.is_empty() {
            return batch;
        }
        let mut woven = Batch::default();
        for (i, record) in batch.iter().enumerate() {
            self.put(&mut woven, record.log, record.offset);
            match batch.is_journalled(i) {
                true => woven.journal(record.log, record.offset, record.value),
                false => woven.push(record),
            }
            self.put(&mut woven, record.log, record.offset + 1);
        }
        batch.ended().iter().for_each(|log| woven.end(*log));
        woven
    }

    fn put(&mut self, batch: &mut Batch, log: LogIndex, next: u64) {
        while let Some((offset, control)) = self.due(log, next) {
            batch.journal(log, offset, &control.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::EventTime;

    fn entry(partition: u32, offset: u64, ms: i64) -> Entry {
        Entry {
            topic: "gps".to_owned(),
            partition,
            offset,
            control: Control::Idle {
                watermark_ms: EventTime::from_ms(ms),
            },
        }
    }

    #[test]
    fn a_journal_outlives_a_crash_and_keeps_the_last_entry_of_a_place() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, []);
        for e in [entry(1, 7, 10), entry(0, 3, 11), entry(1, 7, 20)] {
            journal.append(&e).unwrap();
        }
        drop(journal);
        // Cut off in the middle of a line.
        let path = dir.path().join(FILE);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"topic\":\"gps\",\"part");
        fs::write(&path, text).unwrap();
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, [entry(0, 3, 11), entry(1, 7, 20)]);
        journal.append(&entry(0, 9, 30)).unwrap();
        assert_eq!(
            read(dir.path()).unwrap(),
            [entry(0, 3, 11), entry(0, 9, 30), entry(1, 7, 20)]
        );
        fs::write(&path, b"no journal\n").unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("journal.ndjson") && error.contains("line 1"),
            "{error}"
        );
    }

    #[test]
    fn entries_come_back_at_their_places() {
        use crate::engine::Record;
        let all = [entry(0, 2, 1), entry(0, 5, 2), entry(0, 6, 3), entry(1, 4, 4)];
        let mut pending = Pending::new(&all, |e| Some((e.partition as LogIndex, 3)));
        let mut batch = Batch::default();
        for (log, offset) in [(0, 3), (1, 3), (0, 4), (0, 5)] {
            batch.push(Record {
                log,
                offset,
                append_time: None,
                control: false,
                key: b"",
                value: b"x",
            });
        }
        assert!(pending.begin(2, |_| 3).is_empty(), "none is due yet");
        let woven = pending.weave(batch);
        let seen: Vec<_> = (0..woven.len())
            .map(|i| {
                let r = woven.record(i);
                (r.log, r.offset, woven.is_journalled(i))
            })
            .collect();
        let expected = [
            (0, 3, false),
            (1, 3, false),
            (1, 4, true),
            (0, 4, false),
            (0, 5, true),
            (0, 5, false),
            (0, 6, true),
        ];
        assert_eq!(seen, expected);
        assert_eq!((pending.due(0, u64::MAX), pending.due(1, u64::MAX)), (None, None));
    }
}
