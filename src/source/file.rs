//! Plain files of records, one a line: NDJSON or CSV, plain, `.gz` or `.zst`, or standard input (`-`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::thread;

use crossbeam_channel::Receiver;

use crate::engine::{Batch, LogIndex, Record};
use crate::ingest::Format;

/// Records of one batch. Fixed: what a batch holds never depends on timing.
pub const BATCH_RECORDS: usize = 8192;
/// Batches read ahead.
const AHEAD: usize = 4;
/// Of a longer line only this much is kept: enough for ingest to see that it is too long.
const LINE_BYTES_MAX: usize = 1 << 20;

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
    unpack(raw).map_err(fail("reading"))
}

/// Unpacks a stream by its magic bytes, so that standard input and odd names work.
///
/// # Errors
/// What reading its first bytes gave.
pub fn unpack(raw: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut raw = BufReader::with_capacity(1 << 18, raw);
    let start = raw.fill_buf()?;
    Ok(if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
        // Frames that ask for more than 128 MiB of window are refused.
        decoder.window_log_max(27)?;
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

/// A file being read on a thread of its own.
#[derive(Debug)]
pub struct FileSource {
    header: Option<Vec<String>>,
    batches: Receiver<Result<Batch, FileError>>,
}

impl FileSource {
    /// Begins to read `path` as log `log`; records before offset `from` (a 1-based line) are passed over.
    /// Of a CSV file the first line names the columns. `records` is the length of a batch.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be opened.
    pub fn start(
        path: &Path,
        log: LogIndex,
        format: Format,
        from: u64,
        records: usize,
    ) -> Result<Self, FileError> {
        let mut input = open(path)?;
        let path = path.to_owned();
        let mut line = Vec::new();
        let mut number = 0;
        let mut header = None;
        if format == Format::Csv {
            number = 1;
            read_line(&mut *input, &mut line).map_err(|error| FileError {
                doing: "reading the header row of",
                path: path.clone(),
                error,
            })?;
            let names = csv::ReaderBuilder::new()
                .has_headers(false)
                .from_reader(&line[..])
                .records()
                .next()
                .and_then(Result::ok)
                .map(|row| {
                    row.iter()
                        .map(|c| c.trim_start_matches('\u{feff}').to_owned())
                        .collect()
                });
            header = Some(names.unwrap_or_default());
        }
        let (send, batches) = crossbeam_channel::bounded(AHEAD);
        thread::Builder::new()
            .name("source-file".to_owned())
            .spawn(move || {
                let mut batch = Batch::default();
                loop {
                    match read_line(&mut *input, &mut line) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(error) => {
                            let _ = send.send(Err(FileError {
                                doing: "reading",
                                path,
                                error,
                            }));
                            return;
                        }
                    }
                    number += 1;
                    if number < from {
                        continue;
                    }
                    batch.push(Record {
                        log,
                        offset: number,
                        append_time: None,
                        control: false,
                        key: &[],
                        value: &line,
                    });
                    if batch.len() == records && send.send(Ok(std::mem::take(&mut batch))).is_err() {
                        return;
                    }
                }
                if !batch.is_empty() {
                    let _ = send.send(Ok(batch));
                }
            })
            .map_err(|error| FileError {
                doing: "starting a thread for",
                path: PathBuf::from("the file"),
                error,
            })?;
        Ok(Self { header, batches })
    }

    /// Columns of a CSV file.
    pub fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// The next batch, `None` at the end of the file.
    ///
    /// # Errors
    /// [`FileError`] where reading or unpacking fails.
    pub fn next(&self) -> Result<Option<Batch>, FileError> {
        self.batches.recv().ok().transpose()
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
            unpack(Box::new(io::Cursor::new(packed)))
                .unwrap()
                .read_to_end(&mut out)
                .unwrap();
            assert_eq!(out, plain);
        }
    }
}
