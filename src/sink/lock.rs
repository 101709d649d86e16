//! One process at a time in a folder: two that write the same files would destroy what the other wrote.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A folder that is ours until this is dropped or the process ends, however it ends.
///
/// The file that is locked stays behind: to remove it would let two others lock two files of one name.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the file `name` in the folder `dir`.
    ///
    /// # Errors
    /// Another process has it; or the file cannot be made. On a file system without locks the folder is taken
    /// with a warning.
    pub fn take(dir: &Path, name: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(name))?;
        match file.try_lock() {
            Ok(()) => {
                // For the message that another one gives; the lock itself does not rest on it.
                let number = std::process::id().to_string();
                file.set_len(0)
                    .and_then(|()| file.seek(SeekFrom::Start(0)))
                    .and_then(|_| file.write_all(number.as_bytes()))?;
            }
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Where reading is refused too, the message does without.
                let _ = file.read_to_string(&mut owner);
                let owner = owner.trim();
                let who = if owner.is_empty() {
                    String::new()
                } else {
                    format!(" (process {owner})")
                };
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!(
                        "another viaflux{who} works in this folder; wait until it has ended, or name another folder"
                    ),
                ));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    folder = %dir.display(),
                    "this file system has no locks; see to it that one process at a time works in this folder"
                );
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path(), ".lock").unwrap();
        let error = FolderLock::take(dir.path(), ".lock").unwrap_err();
        let own = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&own), "{error}");
        // Results and state may lie in one folder.
        FolderLock::take(dir.path(), ".other").unwrap();
        drop(first);
        FolderLock::take(dir.path(), ".lock").unwrap();
    }
}
