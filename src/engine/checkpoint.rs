//! Checkpoints: the state of all machines in one checksummed object (design §7).
//!
//! ```text
//! "VIAFLUXC" | format u32 | length u64 | zstd(postcard(header, logs, lanes, shards, assess, publish)) | BLAKE3
//! ```

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{Engine, LOGIC_VERSION};
use crate::ingest::{Ingest, SubjectKey};
use crate::locate::PaneIndex;
use crate::{aggregate, assess, locate, publish};

const MAGIC: &[u8; 8] = b"VIAFLUXC";
const FORMAT: u32 = 2;
/// A checkpoint never unpacks to more than this: 16 GiB.
const UNPACKED_MAX: usize = 16 << 30;
/// Memory taken for it before a byte of it is there.
const UNPACKED_AT_ONCE: usize = 1 << 20;
/// Greatest window of a zstd frame, as a power of two: 8 MiB. Level 1 needs 512 KiB.
const WINDOW_LOG_MAX: u32 = 23;

/// Why a checkpoint cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not one, or of another format.
    #[error("not a checkpoint of this version")]
    Foreign,
    /// Cut short or changed.
    #[error("damaged: its checksum does not fit")]
    Damaged,
    /// Made by another version of the logic, another map, baseline or configuration.
    #[error(
        "made with another {what} ({made_with}, here {here}); go on with that one, or start anew without --state"
    )]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// Its value in the checkpoint.
        made_with: String,
        /// Its value here.
        here: String,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    logic_version: u32,
    map_version: String,
    /// Version of the baseline file, or `prior`.
    baseline: String,
    config_hash: [u8; 32],
    /// Names of the input logs, in order: the partition count is part of the checkpoint.
    logs: Vec<String>,
}

#[derive(Serialize)]
struct View<'a> {
    header: Header,
    logs: Vec<&'a Ingest>,
    lanes: Vec<&'a locate::LaneState>,
    shards: Vec<&'a aggregate::State>,
    assess: &'a assess::State,
    publish: &'a publish::State,
    next: Option<PaneIndex>,
    names: &'a BTreeMap<SubjectKey, Box<str>>,
    companion: &'a [u8],
}

#[derive(Deserialize)]
struct Image {
    header: Header,
    logs: Vec<Ingest>,
    lanes: Vec<locate::LaneState>,
    shards: Vec<aggregate::State>,
    assess: assess::State,
    publish: publish::State,
    next: Option<PaneIndex>,
    names: BTreeMap<SubjectKey, Box<str>>,
    companion: Vec<u8>,
}

impl Engine {
    fn header(&self) -> Header {
        Header {
            logic_version: LOGIC_VERSION,
            map_version: self.map_version().to_owned(),
            baseline: self.baseline_version().to_owned(),
            config_hash: self.config_hash,
            logs: self.logs.iter().map(|l| l.spec.name.clone()).collect(),
        }
    }

    /// The state of all machines, to be taken between two batches, with `companion`: what the service must
    /// know at exactly this point (lengths of output files, journals).
    pub fn checkpoint(&self, companion: &[u8]) -> Vec<u8> {
        let view = View {
            header: self.header(),
            logs: self.logs.iter().map(|l| &l.ingest).collect(),
            lanes: self.lanes.iter().map(|l| l.locate.state()).collect(),
            shards: self.shards.iter().map(|s| s.aggregate.state()).collect(),
            assess: self.assess.state(),
            publish: self.publish.state(),
            next: self.next,
            names: &self.names,
            companion,
        };
        let plain = postcard::to_stdvec(&view).expect("plain state always encodes");
        let packed = zstd::bulk::compress(&plain, 1).expect("compressing memory to memory does not fail");
        let mut out = Vec::with_capacity(packed.len() + 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(plain.len() as u64).to_le_bytes());
        out.extend_from_slice(&packed);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// Goes on from a checkpoint and returns its companion. On an error nothing has changed.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is damaged or belongs to another engine.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        let rest = bytes
            .strip_prefix(MAGIC.as_slice())
            .ok_or(CheckpointError::Foreign)?;
        let (format, rest) = rest.split_first_chunk::<4>().ok_or(CheckpointError::Damaged)?;
        if u32::from_le_bytes(*format) != FORMAT {
            return Err(CheckpointError::Foreign);
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(CheckpointError::Damaged)?;
        let (packed, hash) = rest.split_last_chunk::<32>().ok_or(CheckpointError::Damaged)?;
        if blake3::hash(&bytes[..bytes.len() - 32]).as_bytes() != hash {
            return Err(CheckpointError::Damaged);
        }
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| CheckpointError::Damaged)?;
        if length > UNPACKED_MAX {
            return Err(CheckpointError::Damaged);
        }
        let plain = unpacked(packed, length).ok_or(CheckpointError::Damaged)?;
        // The header comes first, so that another version's state need not be understood to be refused.
        let (header, _): (Header, &[u8]) =
            postcard::take_from_bytes(&plain).map_err(|_| CheckpointError::Damaged)?;
        self.check(&header)?;
        let image: Image = postcard::from_bytes(&plain).map_err(|_| CheckpointError::Damaged)?;
        if image.logs.len() != self.logs.len()
            || image.lanes.len() != self.lanes.len()
            || image.shards.len() != self.shards.len()
        {
            return Err(CheckpointError::Damaged);
        }
        debug_assert_eq!(image.header, header);
        for (log, ingest) in self.logs.iter_mut().zip(image.logs) {
            log.ingest = ingest;
        }
        for (lane, state) in self.lanes.iter_mut().zip(image.lanes) {
            lane.locate.restore(state);
        }
        for (shard, state) in self.shards.iter_mut().zip(image.shards) {
            shard.aggregate.restore(state);
        }
        self.assess.restore(image.assess);
        self.publish.restore(image.publish);
        self.next = image.next;
        self.names = image.names;
        Ok(image.companion)
    }

    fn check(&self, made: &Header) -> Result<(), CheckpointError> {
        let here = self.header();
        let mismatch = |what, made_with: String, here: String| {
            Err(CheckpointError::Mismatch {
                what,
                made_with,
                here,
            })
        };
        if made.logic_version != here.logic_version {
            return mismatch(
                "version of viaflux",
                made.logic_version.to_string(),
                here.logic_version.to_string(),
            );
        }
        if made.map_version != here.map_version {
            return mismatch("map", made.map_version.clone(), here.map_version);
        }
        if made.baseline != here.baseline {
            return mismatch("baseline", made.baseline.clone(), here.baseline);
        }
        if made.logs != here.logs {
            return mismatch("set of input logs", made.logs.join(", "), here.logs.join(", "));
        }
        if made.config_hash != here.config_hash {
            let hex = |h: &[u8; 32]| blake3::Hash::from_bytes(*h).to_hex()[..16].to_owned();
            return mismatch("configuration", hex(&made.config_hash), hex(&here.config_hash));
        }
        Ok(())
    }
}

/// The `length` bytes that were packed; `None` if they are not that many. Memory grows with what is there, not
/// with what the file says.
fn unpacked(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(length.min(UNPACKED_AT_ONCE));
    let mut stream = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
    stream.window_log_max(WINDOW_LOG_MAX).ok()?;
    stream.take(length as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() == length).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_says_of_its_length_is_not_believed() {
        let packed = zstd::bulk::compress(&[7; 1000], 1).unwrap();
        assert_eq!(unpacked(&packed, 1000), Some(vec![7; 1000]));
        for length in [0, 999, 1001, UNPACKED_MAX] {
            assert_eq!(unpacked(&packed, length), None, "{length}");
        }
    }
}
