//! The baseline file.
//!
//! ```text
//! "VIAFLUXB" | format u32 | length of content u64 | zstd(postcard(content)) | BLAKE3 of all before, 32 bytes
//! ```

use std::io::{self, Read, Write};

use super::calendar::SLOTS;
use super::learned::{Learned, LinkHistory};

const MAGIC: &[u8; 8] = b"VIAFLUXB";
/// Format of the file; files of another one are refused.
pub const FORMAT: u32 = 1;
/// A baseline never unpacks to more than this: 2.3 KB for each of 3.5 million links.
const UNPACKED_MAX: u64 = 8 << 30;
/// Memory taken for it before a byte of it is there.
const UNPACKED_AT_ONCE: u64 = 1 << 20;
const LEVEL: i32 = 9;

/// Why a baseline file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineFileError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The first bytes are not those of a baseline.
    #[error("this is not a viaflux baseline; make one with `viaflux baseline build`")]
    NotABaseline,
    /// It was made by another version of the program.
    #[error("the baseline has format {found}, this program reads format {FORMAT}; build it again")]
    Format {
        /// The file's format.
        found: u32,
    },
    /// Cut short or changed.
    #[error("the baseline is damaged: its checksum does not match; copy or build it again")]
    Damaged,
    /// The checksum is right and the content is not: a fault of the program that wrote it.
    #[error("the baseline's content is invalid: {0}; build it again and report this")]
    Invalid(String),
}

impl Learned {
    fn content(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("lists of numbers and text always encode")
    }

    /// 16 hex digits of BLAKE3 over the content: equal content, equal version.
    pub fn version(&self) -> String {
        blake3::hash(&self.content()).to_hex()[..16].to_owned()
    }

    /// Writes the file; equal content gives equal bytes.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let content = self.content();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
        bytes.extend(zstd::bulk::compress(&content, LEVEL)?);
        let sum = blake3::hash(&bytes);
        out.write_all(&bytes)?;
        out.write_all(sum.as_bytes())?;
        out.flush()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`BaselineFileError`]: not a baseline, another format, damaged or invalid.
    pub fn read(mut from: impl Read) -> Result<Self, BaselineFileError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let rest = bytes
            .strip_prefix(MAGIC.as_slice())
            .ok_or(BaselineFileError::NotABaseline)?;
        let (format, rest) = rest.split_first_chunk().ok_or(BaselineFileError::Damaged)?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(BaselineFileError::Format { found: format });
        }
        let (length, rest) = rest.split_first_chunk().ok_or(BaselineFileError::Damaged)?;
        let (packed, sum) = rest.split_last_chunk::<32>().ok_or(BaselineFileError::Damaged)?;
        if blake3::hash(&bytes[..bytes.len() - sum.len()]).as_bytes() != sum {
            return Err(BaselineFileError::Damaged);
        }
        let length = u64::from_le_bytes(*length);
        let content = unpacked(packed, length).ok_or(BaselineFileError::Damaged)?;
        let learned: Learned =
            postcard::from_bytes(&content).map_err(|e| BaselineFileError::Invalid(e.to_string()))?;
        learned.check().map_err(BaselineFileError::Invalid)?;
        Ok(learned)
    }

    fn check(&self) -> Result<(), String> {
        if !self.links.is_sorted_by(|a, b| a.key < b.key) {
            return Err("its links are not in order".to_owned());
        }
        let whole = |l: &LinkHistory| {
            let week = &l.week;
            [&week.speed, &week.variation, &week.days].map(Vec::len) == [SLOTS; 3]
                && week
                    .speed
                    .iter()
                    .zip(&week.days)
                    .all(|(v, n)| (*v > 0) == (*n > 0))
                && l.free_flow.used > 0
        };
        match self.links.iter().find(|l| !whole(l)) {
            Some(link) => Err(format!("link {} has no whole week", link.key)),
            None => Ok(()),
        }
    }
}

/// The `length` bytes that were packed; `None` if they are not that many. Memory grows with what is there, not
/// with what the file says.
fn unpacked(packed: &[u8], length: u64) -> Option<Vec<u8>> {
    if length > UNPACKED_MAX {
        return None;
    }
    let mut plain = Vec::with_capacity(length.min(UNPACKED_AT_ONCE) as usize);
    let stream = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
    stream.take(length + 1).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 == length).then_some(plain)
}
