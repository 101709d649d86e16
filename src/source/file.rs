//! Plain files of records, one a line: NDJSON or CSV, plain, `.gz` or `.zst`, or standard input (`-`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::engine::{Batch, LogIndex, Record};
use crate::ingest::{FieldMapping, Format};
use crate::units::EventTime;

/// Records of one batch. Fixed: what a batch holds never depends on timing.
pub const BATCH_RECORDS: usize = 8192;
/// Batches read ahead.
const AHEAD: usize = 4;
/// Of a longer line only this much is kept: enough for ingest to see that it is too long.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Greatest window of a zstd frame, as a power of two: 128 MiB, so that files of `zstd --long` can be read.
const WINDOW_LOG_MAX: u32 = 27;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {error}")]
pub struct FileError {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub error: io::Error,
}

/// Opens a file (`-`: standard input) and unpacks it if its first bytes are those of gzip or zstd.
///
/// # Errors
/// [`FileError`] if it cannot be opened or its first bytes not be read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, FileError> {
    open_within(path, WINDOW_LOG_MAX)
}

/// As [`open`], with windows of zstd frames up to `window_log_max`, as a power of two.
pub(super) fn open_within(path: &Path, window_log_max: u32) -> Result<Box<dyn BufRead + Send>, FileError> {
    let fail = |doing| {
        move |error| FileError {
            doing,
            path: path.to_owned(),
            error,
        }
    };
    let raw: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(fail("opening"))?)
    };
    unpack(raw, window_log_max).map_err(fail("reading"))
}

/// Unpacks a stream by its magic bytes, so that standard input and odd names work.
///
/// # Errors
/// What reading its first bytes gave.
pub(super) fn unpack(raw: Box<dyn Read + Send>, window_log_max: u32) -> io::Result<Box<dyn BufRead + Send>> {
    let mut raw = BufReader::with_capacity(1 << 18, raw);
    let start = raw.fill_buf()?;
    Ok(if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
        decoder.window_log_max(window_log_max)?;
        Box::new(BufReader::with_capacity(1 << 18, decoder))
    } else if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(
            1 << 18,
            flate2::bufread::MultiGzDecoder::new(raw),
        ))
    } else {
        Box::new(raw)
    })
}

/// What some programs put before the first line of a text in UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Drops the byte order mark that the first line of a file may begin with.
fn drop_mark(line: &mut Vec<u8>) {
    if line.starts_with(BYTE_ORDER_MARK) {
        line.drain(..BYTE_ORDER_MARK.len());
    }
}

/// Reads a line without its line end into `line`, of a longer one its first bytes. `false` at the end.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if buffer.is_empty() {
            break;
        }
        any = true;
        let (part, used, done) = match memchr(buffer) {
            Some(i) => (&buffer[..i], i + 1, true),
            None => (buffer, buffer.len(), false),
        };
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        input.consume(used);
        if done {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(any)
}

fn memchr(buffer: &[u8]) -> Option<usize> {
    buffer.iter().position(|b| *b == b'\n')
}

/// A file, its header row read.
pub struct FileInput {
    path: PathBuf,
    /// `None` for what may keep whoever opens it waiting (a pipe, a terminal): the reading thread opens it.
    input: Option<Box<dyn BufRead + Send>>,
    header: Option<Vec<String>>,
    /// Lines read so far.
    number: u64,
}

impl std::fmt::Debug for FileInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileInput")
            .field("path", &self.path)
            .field("header", &self.header)
            .finish()
    }
}

impl FileInput {
    /// Opens a file of records of `mapping`. Of a CSV file the first line names the columns.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be opened or read.
    pub fn open(path: &Path, mapping: &FieldMapping) -> Result<Self, FileError> {
        let waits = path.as_os_str() == "-"
            || std::fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir());
        let (mut header, mut number) = (None, 0);
        let mut input = (mapping.format == Format::Csv || !waits)
            .then(|| open(path))
            .transpose()?;
        if let (Format::Csv, Some(input)) = (mapping.format, &mut input) {
            let mut line = Vec::new();
            number = 1;
            read_line(&mut **input, &mut line).map_err(|error| FileError {
                doing: "reading the header row of",
                path: path.to_owned(),
                error,
            })?;
            let row = csv::ReaderBuilder::new()
                .has_headers(false)
                .delimiter(mapping.separator())
                .from_reader(&line[..])
                .records()
                .next();
            let names = row.and_then(Result::ok).map(|row| {
                row.iter()
                    .map(|c| c.trim_start_matches('\u{feff}').trim().to_owned())
                    .collect()
            });
            header = Some(names.unwrap_or_default());
        }
        Ok(Self {
            path: path.to_owned(),
            input,
            header,
            number,
        })
    }

    /// Columns of a CSV file.
    pub fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// Reads on a thread of its own, as log `log`, in batches of `records`; records before offset `from` (a
    /// 1-based line) are passed over.
    pub fn start(self, log: LogIndex, from: u64, records: usize) -> FileSource {
        let (send, batches) = crossbeam_channel::bounded(AHEAD);
        thread::spawn(move || self.read(log, from, records, &send));
        FileSource { batches }
    }

    fn read(mut self, log: LogIndex, from: u64, records: usize, send: &Sender<Result<Batch, FileError>>) {
        let mut batch = Batch::default();
        let mut line = Vec::new();
        let mut input = match self.input.take().map_or_else(|| open(&self.path), Ok) {
            Ok(input) => input,
            Err(error) => {
                let _ = send.send(Err(error));
                return;
            }
        };
        loop {
            match read_line(&mut *input, &mut line) {
                Ok(true) => self.number += 1,
                Ok(false) => break,
                Err(error) => {
                    // A receiver that is gone has no use for the error either.
                    let _ = send.send(Err(FileError {
                        doing: "reading",
                        path: self.path,
                        error,
                    }));
                    return;
                }
            }
            if self.number < from {
                continue;
            }
            if self.number == 1 {
                drop_mark(&mut line);
            }
            batch.push(record(log, self.number, &line));
            if batch.len() == records && send.send(Ok(std::mem::take(&mut batch))).is_err() {
                return;
            }
        }
        if !batch.is_empty() {
            let _ = send.send(Ok(batch));
        }
    }

    /// Reads the whole file and gives its lines in the order of `time`; a line without one stays behind the
    /// line before it. Offsets count the lines in this order.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be read.
    pub fn sorted(
        mut self,
        log: LogIndex,
        from: u64,
        records: usize,
        time: impl Fn(&[u8]) -> Option<EventTime>,
    ) -> Result<FileSource, FileError> {
        let (mut lines, mut line, mut last) = (Vec::new(), Vec::new(), EventTime::from_ms(i64::MIN));
        let mut input = self.input.take().map_or_else(|| open(&self.path), Ok)?;
        while read_line(&mut *input, &mut line).map_err(|error| FileError {
            doing: "reading",
            path: self.path.clone(),
            error,
        })? {
            if lines.is_empty() {
                drop_mark(&mut line);
            }
            last = time(&line).unwrap_or(last);
            lines.push((last, line.clone()));
        }
        // Stable: lines of one moment keep their order.
        lines.sort_by_key(|(time, _)| *time);
        let (send, batches) = crossbeam_channel::bounded(AHEAD);
        thread::spawn(move || {
            let mut batch = Batch::default();
            for (i, (_, line)) in lines.iter().enumerate() {
                let offset = i as u64 + 1;
                if offset < from {
                    continue;
                }
                batch.push(record(log, offset, line));
                if batch.len() == records && send.send(Ok(std::mem::take(&mut batch))).is_err() {
                    return;
                }
            }
            if !batch.is_empty() {
                let _ = send.send(Ok(batch));
            }
        });
        Ok(FileSource { batches })
    }
}

fn record(log: LogIndex, offset: u64, line: &[u8]) -> Record<'_> {
    Record {
        log,
        offset,
        append_time: None,
        control: false,
        key: &[],
        value: line,
    }
}

/// What a file gives within a time.
#[derive(Debug)]
pub enum Polled {
    /// Records.
    Batch(Batch),
    /// Nothing yet.
    Waiting,
    /// The end of the file.
    End,
}

/// A file being read.
#[derive(Debug)]
pub struct FileSource {
    batches: Receiver<Result<Batch, FileError>>,
}

impl FileSource {
    /// The next batch, if it comes within `patience`: a pipe may be silent for long.
    ///
    /// # Errors
    /// [`FileError`] where opening, reading or unpacking fails.
    pub fn poll(&self, patience: Duration) -> Result<Polled, FileError> {
        match self.batches.recv_timeout(patience) {
            Ok(batch) => Ok(Polled::Batch(batch?)),
            Err(RecvTimeoutError::Timeout) => Ok(Polled::Waiting),
            Err(RecvTimeoutError::Disconnected) => Ok(Polled::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut input, mut line, mut out) = (BufReader::with_capacity(3, bytes), Vec::new(), Vec::new());
        while read_line(&mut input, &mut line).unwrap() {
            out.push(line.clone());
        }
        out
    }

    #[test]
    fn every_line_is_a_record_the_empty_ones_too() {
        assert_eq!(lines(b"one\r\n\ntwo\n"), [&b"one"[..], b"", b"two"]);
        assert_eq!(lines(b"no end"), [b"no end"]);
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_line_without_end_does_not_fill_memory() {
        let long = vec![b'x'; 3 * LINE_BYTES_MAX];
        let all = lines(&[&long[..], b"\nnext"].concat());
        assert_eq!(all[0].len(), LINE_BYTES_MAX);
        assert_eq!(all[1], b"next");
    }

    #[test]
    fn gzip_and_zstd_are_unpacked_whatever_the_name() {
        let plain = b"{}\n{}\n".to_vec();
        let zst = zstd::encode_all(&plain[..], 1).unwrap();
        let mut gz = Vec::new();
        let mut encoder = flate2::write::GzEncoder::new(&mut gz, flate2::Compression::fast());
        io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap();
        for packed in [plain.clone(), zst, gz] {
            let mut out = Vec::new();
            unpack(Box::new(io::Cursor::new(packed)), WINDOW_LOG_MAX)
                .unwrap()
                .read_to_end(&mut out)
                .unwrap();
            assert_eq!(out, plain);
        }
    }
}
