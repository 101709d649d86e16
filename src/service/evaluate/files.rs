//! Files of a run or a truth: NDJSON, plain or compressed, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::de::Deserialize;

/// Opens `name` in `folder`, or `name.zst`, or `name.gz`; `None` if there is none of them.
pub(super) fn open(folder: &Path, name: &str) -> anyhow::Result<Option<(PathBuf, Box<dyn BufRead>)>> {
    for suffix in ["", ".zst", ".gz"] {
        let path = folder.join(format!("{name}{suffix}"));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("cannot open `{}`", path.display())),
        };
        let plain: Box<dyn Read> = match suffix {
            ".zst" => Box::new(
                zstd::Decoder::new(file).with_context(|| format!("cannot read `{}`", path.display()))?,
            ),
            ".gz" => Box::new(flate2::read::MultiGzDecoder::new(file)),
            _ => Box::new(file),
        };
        return Ok(Some((path, Box::new(BufReader::with_capacity(1 << 20, plain)))));
    }
    Ok(None)
}

/// Calls `each` with every line of `name` in `folder`, without its line feed; `false` if there is no such file.
pub(super) fn lines(
    folder: &Path,
    name: &str,
    mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let Some((path, mut file)) = open(folder, name)? else {
        return Ok(false);
    };
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = file
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot read `{}` at line {number}", path.display()))?;
        if read == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        each(text).with_context(|| format!("`{}`, line {number}", path.display()))?;
    }
    Ok(true)
}

/// Calls `each` with every line of `name` in `folder`, read as `T`; `false` if there is no such file.
pub(super) fn rows<T>(
    folder: &Path,
    name: &str,
    mut each: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<bool>
where
    T: for<'a> Deserialize<'a>,
{
    lines(folder, name, |line| {
        if line.is_empty() {
            Ok(())
        } else {
            each(serde_json::from_slice(line)?)
        }
    })
}

/// The summary of a run, if it has one.
pub(super) fn summary(run: &Path) -> anyhow::Result<Option<serde_json::Value>> {
    let Some((path, mut file)) = open(run, "summary.json")? else {
        return Ok(None);
    };
    let mut text = String::new();
    file.read_to_string(&mut text)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let value = serde_json::from_str(&text).with_context(|| format!("`{}` is no JSON", path.display()))?;
    Ok(Some(value))
}

/// Milliseconds since 1970 of a moment in RFC 3339.
pub(super) fn moment_ms(text: &str) -> anyhow::Result<i64> {
    let moment: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("`{text}` is no moment in RFC 3339"))?;
    Ok(moment.as_millisecond())
}
