//! Opening a file that is one.
//!
//! A FIFO would wait for a writer, a device may never end, and looking at them can have
//! effects of its own; so they are told apart before they are opened.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use seqrs_core::Error;

use crate::atomic::kind_of;

/// Opens a regular file, symbolic links followed, and gives its length in bytes.
///
/// # Errors
/// [`Error::ModelFile`] if there is none or the system refuses.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Error> {
    let what = || format!("{path:?}");
    let refused = |error: io::Error| Error::model_file(what(), "a file to read", error);
    let file = match fs::metadata(path).map_err(refused)? {
        metadata if metadata.is_file() => File::open(path).map_err(refused)?,
        other => return Err(Error::model_file(what(), "a file to read", kind_of(&other))),
    };
    let len = file.metadata().map_err(refused)?.len();
    Ok((file, len))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path().join(name);
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        symlink("loop", at("loop")).unwrap();
        symlink("fifo", at("link")).unwrap();
        for (path, got) in [
            (at("fifo"), "got a FIFO"),
            (at("link"), "got a FIFO"),
            (at("loop"), "symbolic links"),
            (at("none"), "No such file"),
            (scratch.path().to_path_buf(), "got a directory"),
            ("/dev/zero".into(), "got a device"),
        ] {
            let message = open(&path).unwrap_err().to_string();
            assert!(message.contains(got), "{message}");
        }
    }
}
