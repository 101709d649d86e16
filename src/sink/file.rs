//! Files of a run: one NDJSON file for each kind of publication, refused records as a sample, the digest
//! chain. Their lengths are part of a checkpoint, and a restore cuts them back to it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lock::FolderLock;
use crate::publish::{Publication, Topic};

/// Why an output file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {error}")]
pub struct FileSinkError {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub error: io::Error,
}

/// The files of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputFile {
    /// `segment-states.ndjson`
    SegmentStates,
    /// `corridors.ndjson`
    Corridors,
    /// `regions.ndjson`
    Regions,
    /// `alerts.ndjson`
    Alerts,
    /// `rejected.ndjson`: a sample of the refused records.
    Rejected,
    /// `matches.ndjson`: where each fix was placed.
    Matches,
    /// `turns.ndjson`: how long vehicles took to each next segment.
    Turns,
    /// `digests.ndjson`: the chain after each pane that changed it.
    Digests,
}

impl OutputFile {
    /// Its name in the run's folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SegmentStates => "segment-states.ndjson",
            Self::Corridors => "corridors.ndjson",
            Self::Regions => "regions.ndjson",
            Self::Alerts => "alerts.ndjson",
            Self::Rejected => "rejected.ndjson",
            Self::Matches => "matches.ndjson",
            Self::Turns => "turns.ndjson",
            Self::Digests => "digests.ndjson",
        }
    }

    /// The file of a publication; alert states are for compacted topics only.
    const fn of(topic: Topic) -> Option<Self> {
        match topic {
            Topic::SegmentState => Some(Self::SegmentStates),
            Topic::Corridor => Some(Self::Corridors),
            Topic::Region => Some(Self::Regions),
            Topic::AlertEvent => Some(Self::Alerts),
            Topic::AlertState => None,
        }
    }
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
}

/// Where the files of a run begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin<'a> {
    /// Behind what a checkpoint knows of: each file is cut back to its length there (by name; 0 if absent).
    At(&'a BTreeMap<String, u64>),
    /// Anew: what they hold is replaced.
    Anew,
    /// Anew, and refused where they hold something; the text says what to do then.
    InEmpty(&'a str),
}

/// Writes a run into a folder, which is ours alone meanwhile.
#[derive(Debug)]
pub struct FileSink {
    files: BTreeMap<OutputFile, Open>,
    lines: u64,
    _lock: FolderLock,
}

impl FileSink {
    /// Opens `files` in `dir`.
    ///
    /// # Errors
    /// [`FileSinkError`] naming the file or folder; also if another process works in it, if a file is shorter than
    /// its length of record, or holds what must not be replaced. No file has been changed then.
    pub fn open(dir: &Path, files: &[OutputFile], begin: Begin<'_>) -> Result<Self, FileSinkError> {
        let fail = |doing| {
            let path = dir.to_owned();
            move |error| FileSinkError { doing, path, error }
        };
        std::fs::create_dir_all(dir).map_err(fail("creating the folder"))?;
        let lock = FolderLock::take(dir, ".results.lock").map_err(fail("locking"))?;
        if let Begin::InEmpty(remedy) = begin {
            for kind in files {
                let path = dir.join(kind.name());
                let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
                if bytes > 0 {
                    let text = format!("it holds {bytes} bytes of an earlier run; {remedy}");
                    return Err(FileSinkError {
                        doing: "not replacing",
                        path,
                        error: io::Error::new(io::ErrorKind::AlreadyExists, text),
                    });
                }
            }
        }
        let mut open = BTreeMap::new();
        for &kind in files {
            let path = dir.join(kind.name());
            let fail = |doing| {
                let path = path.clone();
                move |error| FileSinkError { doing, path, error }
            };
            let length = match begin {
                Begin::At(lengths) => lengths.get(kind.name()).copied().unwrap_or(0),
                Begin::Anew | Begin::InEmpty(_) => 0,
            };
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(fail("opening"))?;
            let found = file.metadata().map_err(fail("reading the length of"))?.len();
            if found < length {
                let error = io::Error::other(format!(
                    "it has {found} bytes, the checkpoint was made when it had {length}; start anew without --state"
                ));
                return Err(fail("going on with")(error));
            }
            file.set_len(length).map_err(fail("cutting"))?;
            file.seek(SeekFrom::Start(length))
                .map_err(fail("going to the end of"))?;
            open.insert(
                kind,
                Open {
                    path,
                    file: BufWriter::with_capacity(1 << 18, file),
                    length,
                },
            );
        }
        Ok(Self {
            files: open,
            lines: 0,
            _lock: lock,
        })
    }

    /// Lines written since it was opened.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether a file is one of this run.
    pub fn holds(&self, kind: OutputFile) -> bool {
        self.files.contains_key(&kind)
    }

    /// Appends a line to a file of this run; a file that was not asked for is left out.
    ///
    /// # Errors
    /// [`FileSinkError`] if it cannot be written.
    pub fn line(&mut self, kind: OutputFile, line: &[u8]) -> Result<(), FileSinkError> {
        let Some(open) = self.files.get_mut(&kind) else {
            return Ok(());
        };
        open.file
            .write_all(line)
            .and_then(|()| open.file.write_all(b"\n"))
            .map_err(|error| FileSinkError {
                doing: "writing",
                path: open.path.clone(),
                error,
            })?;
        open.length += line.len() as u64 + 1;
        self.lines += 1;
        Ok(())
    }

    /// Appends a publication to its file.
    ///
    /// # Errors
    /// [`FileSinkError`] if it cannot be written.
    pub fn publish(&mut self, publication: &Publication) -> Result<(), FileSinkError> {
        match (OutputFile::of(publication.topic), &publication.body) {
            (Some(kind), Some(body)) => self.line(kind, body),
            _ => Ok(()),
        }
    }

    /// Writes out what is buffered; with `sync`, waits until the disk has it. Returns the lengths by name.
    ///
    /// # Errors
    /// [`FileSinkError`] if it cannot be written.
    pub fn flush(&mut self, sync: bool) -> Result<BTreeMap<String, u64>, FileSinkError> {
        let mut lengths = BTreeMap::new();
        for (kind, open) in &mut self.files {
            let fail = |error| FileSinkError {
                doing: "writing",
                path: open.path.clone(),
                error,
            };
            open.file.flush().map_err(fail)?;
            if sync {
                open.file.get_ref().sync_data().map_err(|error| FileSinkError {
                    doing: "syncing",
                    path: open.path.clone(),
                    error,
                })?;
            }
            lengths.insert(kind.name().to_owned(), open.length);
        }
        Ok(lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_replaced_only_if_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let open = |begin: Begin<'_>| FileSink::open(dir.path(), &[OutputFile::Alerts], begin);
        let path = dir.path().join(OutputFile::Alerts.name());
        let mut sink = open(Begin::InEmpty("move it")).unwrap();
        let second = open(Begin::Anew).unwrap_err();
        assert!(second.to_string().contains("another viaflux"), "{second}");
        sink.line(OutputFile::Alerts, b"one").unwrap();
        let lengths = sink.flush(false).unwrap();
        sink.line(OutputFile::Alerts, b"two").unwrap();
        sink.flush(false).unwrap();
        drop(sink);
        let refused = open(Begin::InEmpty("move it")).unwrap_err().to_string();
        assert!(
            refused.contains("alerts.ndjson") && refused.contains("move it"),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        drop(open(Begin::At(&lengths)).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        drop(open(Begin::Anew).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
