//! Checkpoints on disk: temporary file, fsync, rename, fsync of the folder; the newest three are kept, and a
//! damaged one is passed over with a warning (design §7).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::engine::{CheckpointError, Engine};
use crate::sink::lock::FolderLock;

/// Checkpoints kept.
const KEPT: usize = 3;
const ENDING: &str = "ckpt";

/// Why checkpoints cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk did not do what was asked.
    #[error("{doing} {path}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// A checkpoint that belongs to another engine.
    #[error("checkpoint {path}: {error}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: CheckpointError,
    },
}

/// A folder of checkpoints, ours alone.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    next: u64,
    _lock: FolderLock,
}

impl Checkpoints {
    /// Opens (or makes) the folder.
    ///
    /// # Errors
    /// [`StoreError::Io`] if that fails, or if another process works in it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|error| io_error("creating", dir, error))?;
        let lock = FolderLock::take(dir, ".state.lock").map_err(|error| io_error("locking", dir, error))?;
        let mut store = Self {
            dir: dir.to_owned(),
            next: 1,
            _lock: lock,
        };
        store.next = store.list()?.last().map_or(1, |(n, _)| n + 1);
        Ok(store)
    }

    /// Whether it holds a checkpoint, be it whole or damaged.
    pub fn holds_any(&self) -> bool {
        self.next > 1
    }

    /// Lets `engine` go on from the newest checkpoint that is whole, and returns its companion.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the newest whole one belongs to another map, configuration or version:
    /// going on from an older one would not help.
    pub fn restore(&self, engine: &mut Engine) -> Result<Option<Vec<u8>>, StoreError> {
        for (_, path) in self.list()?.into_iter().rev() {
            let bytes = fs::read(&path).map_err(|error| io_error("reading", &path, error))?;
            match engine.restore(&bytes) {
                Ok(companion) => {
                    tracing::info!(checkpoint = %path.display(), "going on from a checkpoint");
                    return Ok(Some(companion));
                }
                Err(error @ (CheckpointError::Damaged | CheckpointError::Foreign)) => {
                    tracing::warn!(checkpoint = %path.display(), %error, "passed over; trying the one before");
                }
                Err(error) => return Err(StoreError::Refused { path, error }),
            }
        }
        Ok(None)
    }

    /// Keeps a checkpoint; older ones beyond three go.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the checkpoints before are untouched then.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(format!("{:012}.{ENDING}", self.next));
        let temporary = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| io_error("writing", &path, error))?;
        self.next += 1;
        let all = self.list()?;
        for (_, old) in all.iter().take(all.len().saturating_sub(KEPT)) {
            // One that stays behind costs space only; the next time tries again.
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(checkpoint = %old.display(), %error, "an old checkpoint stays");
            }
        }
        Ok(path)
    }

    /// Numbers and paths, oldest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let entries = fs::read_dir(&self.dir).map_err(|error| io_error("listing", &self.dir, error))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(|error| io_error("listing", &self.dir, error))?
                .path();
            let number = path
                .file_stem()
                .and_then(|s| s.to_str())
                .and_then(|s| s.parse().ok());
            if let (Some(number), Some(ENDING)) = (number, path.extension().and_then(|e| e.to_str())) {
                found.push((number, path));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn io_error(doing: &'static str, path: &Path, error: io::Error) -> StoreError {
    StoreError::Io {
        doing,
        path: path.to_owned(),
        error,
    }
}
