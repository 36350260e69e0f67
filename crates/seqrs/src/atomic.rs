//! Writing a file so that a crash leaves the old one or the new one, never half of one.
//!
//! ```text
//! temporary file in the same directory -> write -> fsync -> rename -> fsync of the directory
//! ```
//!
//! The temporary file's name carries the process; its writer holds a lock on it. A process
//! that is killed leaves its file behind, but not its lock: so a file with such a name and
//! a free lock is an orphan, and the next write to the directory removes it. The number of
//! the process alone would not tell, because numbers are used again (in a container the
//! main process is number 1 in every run) and mean nothing to another machine on a shared
//! directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use seqrs_core::Error;

const PREFIX: &str = ".seqrs-";
const SUFFIX: &str = ".tmp";

/// Tells the temporary files of one process apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Replaces the file at `path`, or creates it, with these bytes; when this returns they
/// survive a loss of power. Where `path` is a symbolic link the file it leads to is
/// replaced, and an existing file's permissions are kept.
///
/// # Errors
/// [`Error::ModelFile`] if the path leads to something other than a regular file or if the
/// system refuses (no directory, no permission, no space); the old file is then untouched
/// and nothing is left beside it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let refused = |error: io::Error| {
        Error::model_file(format!("{path:?}"), "a place to write a file to", error)
    };
    let target = Target::of(path)?;
    remove_orphans(&target.directory);
    let temporary = Temporary::create(&target.directory).map_err(refused)?;
    temporary.fill(&target, bytes).map_err(refused)?;
    temporary.rename(&target.path).map_err(refused)?;
    sync_directory(&target.directory).map_err(refused)
}

/// The file to replace, symbolic links resolved.
struct Target {
    path: PathBuf,
    directory: PathBuf,
    permissions: Option<fs::Permissions>,
}

impl Target {
    fn of(path: &Path) -> Result<Self, Error> {
        let refused = |got: String| {
            Err(Error::model_file(format!("{path:?}"), "the path of a regular file", got))
        };
        let existing = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Some(metadata),
            Ok(metadata) => return refused(kind_of(&metadata).into()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return refused(error.to_string()),
        };
        let path = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => match fs::canonicalize(path) {
                Ok(path) => path,
                Err(error) => return refused(format!("a symbolic link to nowhere ({error})")),
            },
            _ => path.to_path_buf(),
        };
        if path.file_name().is_none() {
            return refused("a path without a file name".into());
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        Ok(Self { path, directory, permissions: existing.map(|metadata| metadata.permissions()) })
    }
}

/// What a path leads to, in words.
pub(crate) fn kind_of(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a directory" } else { "something else" }
}

/// A locked temporary file; removed when dropped before it was renamed.
struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn create(directory: &Path) -> io::Result<Self> {
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{PREFIX}{}-{count}{SUFFIX}", process::id()));
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            // Where the file system has no locks nobody can take the file for an orphan.
            let _ = file.lock();
            // Between the two lines above another process may have taken it for one.
            if path.try_exists()? {
                return Ok(Self { file, path, renamed: false });
            }
        }
    }

    fn fill(&self, target: &Target, bytes: &[u8]) -> io::Result<()> {
        if let Some(permissions) = &target.permissions {
            self.file.set_permissions(permissions.clone())?;
        }
        (&self.file).write_all(bytes)?;
        self.file.sync_all()
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what killed writers left. What cannot be removed is left for another time: it is
/// only in the way of tidiness.
fn remove_orphans(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !entry.file_name().to_str().is_some_and(is_temporary) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => {
                let _ = fs::remove_file(&path);
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

/// Whether a file name is `.seqrs-{process}-{count}.tmp`.
fn is_temporary(name: &str) -> bool {
    let numbers = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX))
        .and_then(|rest| rest.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(process, count)| is_number(process) && is_number(count))
}

/// Makes the rename durable.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some network file systems have no such thing.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}

/// A directory is no file that could be opened here; the file system orders renames itself.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_new_bytes_replace_the_old_and_nothing_else_stays() {
        let scratch = Scratch::new();
        let path = scratch.path().join("model");
        write(&path, b"old, and longer").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(scratch.path()), ["model"]);
    }

    #[test]
    fn an_orphan_is_removed_and_the_file_of_a_living_writer_is_not() {
        let scratch = Scratch::new();
        // The same process number as ours: it was used again.
        let orphan = scratch.path().join(format!(".seqrs-{}-999999.tmp", process::id()));
        fs::write(&orphan, b"half").unwrap();
        fs::write(scratch.path().join(".seqrs-4194305-0.tmp"), b"half").unwrap();
        fs::write(scratch.path().join(".seqrs-notes.tmp"), b"somebody's").unwrap();
        let living = Temporary::create(scratch.path()).unwrap();
        write(&scratch.path().join("model"), b"new").unwrap();
        let living_name = living.path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = vec![".seqrs-notes.tmp".to_owned(), living_name, "model".to_owned()];
        expected.sort();
        assert_eq!(names(scratch.path()), expected);
        drop(living);
        assert_eq!(names(scratch.path()), [".seqrs-notes.tmp", "model"]);
    }

    #[test]
    fn many_threads_may_write_one_file() {
        let scratch = Scratch::new();
        let path = scratch.path().join("model");
        std::thread::scope(|scope| {
            for k in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..10 {
                        write(path, &[k; 100]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 100 && bytes.iter().all(|&b| b == bytes[0]));
        assert_eq!(names(scratch.path()), ["model"]);
    }

    #[test]
    fn what_is_no_place_for_a_file_is_refused_and_left_alone() {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("directory")).unwrap();
        for (path, got) in [
            (scratch.path().join("directory"), "got a directory"),
            (scratch.path().join("none/model"), "got No such file"),
            (PathBuf::from("/"), "got a directory"),
            (PathBuf::from(""), "got a path without a file name"),
        ] {
            let message = write(&path, b"new").unwrap_err().to_string();
            assert!(message.contains(got), "{message}");
        }
        assert_eq!(names(scratch.path()), ["directory"]);
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_not_replaced_and_links_are_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path().join(name);
        assert!(write(Path::new("/dev/null"), b"x").unwrap_err().to_string().contains("a device"));

        fs::write(at("run-3"), b"old").unwrap();
        fs::set_permissions(at("run-3"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("run-3", at("latest")).unwrap();
        write(&at("latest"), b"new").unwrap();
        assert!(fs::symlink_metadata(at("latest")).unwrap().is_symlink());
        assert_eq!(fs::read(at("run-3")).unwrap(), b"new");
        assert_eq!(fs::metadata(at("run-3")).unwrap().permissions().mode() & 0o777, 0o640);

        symlink("loop", at("loop")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for name in ["loop", "dangling"] {
            assert!(matches!(write(&at(name), b"x"), Err(Error::ModelFile { .. })), "{name}");
        }
    }
}
