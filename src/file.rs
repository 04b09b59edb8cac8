//! Files: opened only where they are regular, and replaced as a whole.
//!
//! A save writes a temporary file beside the target, flushes it to the disk and renames it. Whatever stops it
//! (a full disk, an error, a crash) leaves the old file as it was, and a program that has the old file
//! mapped, or is reading it, keeps the old bytes. `File::create` would cut the file that such a mapping looks
//! into.

use crate::error::{Error, Result, text};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What the error of a file says that is no regular one.
const NOT_REGULAR: &str = "take for a regular file";

/// The error of doing `what` with a file; `Resource` where there was no memory for it.
pub(crate) fn failed(what: &'static str, path: &Path, e: &io::Error) -> Error {
    if e.kind() == ErrorKind::OutOfMemory {
        return Error::Resource { what: "bytes for a file", amount: path.as_os_str().len() };
    }
    Error::Io { what, path: text(path.display()), kind: e.kind() }
}

fn not_regular(path: &Path) -> Error {
    Error::Io { what: NOT_REGULAR, path: text(path.display()), kind: ErrorKind::InvalidInput }
}

/// Opens a regular file to read it, and gives its bytes.
///
/// **Errors**: `Io`, for a directory, a pipe or a device too. Never waits for a writer of a pipe.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Without it, opening a pipe waits until somebody writes to it. Regular files know no such waiting.
        options.custom_flags(libc::O_NONBLOCK);
    }
    // Elsewhere a directory or a device cannot always be opened: it is looked at first.
    #[cfg(not(unix))]
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(not_regular(path));
    }
    let file = options.open(path).map_err(|e| failed("read", path, &e))?;
    let about = file.metadata().map_err(|e| failed("read", path, &e))?;
    if about.is_file() { Ok((file, about.len())) } else { Err(not_regular(path)) }
}

/// Replaces a file by what `write` writes, or makes it: all of it or nothing. A symbolic link stays one, and
/// the file that it names is replaced. On unix the permissions of a file that is replaced stay. Elsewhere the
/// new file has those of its folder, and a read-only one is not replaced.
///
/// **Errors**: `Io`, for a target that is no regular file too, and on Windows for one that the system will
/// not replace, because a program has it open without sharing it, or mapped. The target is unchanged then,
/// and no temporary file is left.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let failed = |e: io::Error| failed("write", path, &e);
    let resolved;
    let target = match fs::symlink_metadata(path) {
        Ok(about) if about.file_type().is_symlink() => {
            resolved = fs::canonicalize(path).map_err(failed)?;
            &*resolved
        }
        _ => path,
    };
    let old = match fs::metadata(target) {
        Ok(about) if !about.is_file() => return Err(not_regular(path)),
        Ok(about) => Some(about.permissions()),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(failed(e)),
    };
    if cfg!(not(unix)) && old.as_ref().is_some_and(fs::Permissions::readonly) {
        return Err(failed(ErrorKind::PermissionDenied.into()));
    }
    let (mut file, temporary) = Temporary::beside(target).map_err(failed)?;
    write(&mut file).map_err(failed)?;
    if let Some(permissions) = old.filter(|_| cfg!(unix)) {
        file.set_permissions(permissions).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    drop(file);
    temporary.rename(target).map_err(failed)
}

/// A file that is removed unless it is renamed.
struct Temporary(Option<PathBuf>);

impl Temporary {
    /// A new file in the folder of `target`: a rename does not cross file systems.
    fn beside(target: &Path) -> io::Result<(File, Temporary)> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        if target.file_name().is_none() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let folder = folder(target);
        loop {
            let (mut name, number) = ([0; 64], NEXT.fetch_add(1, Relaxed));
            write!(&mut name[..], ".kvern-{}-{number}.tmp", std::process::id())?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let mut path = PathBuf::new();
            let bytes = folder.as_os_str().len() + name.len() + 1;
            path.try_reserve(bytes).map_err(|_| ErrorKind::OutOfMemory)?;
            path.push(folder);
            path.push(std::str::from_utf8(name).unwrap_or_default());
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, Temporary(Some(path)))),
                // Left by a process of this number that was killed.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes the place of `target`.
    fn rename(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.0 {
            fs::rename(path, target)?;
            self.0 = None;
        }
        // The name itself is on the disk when its folder is; not every file system can flush one.
        #[cfg(unix)]
        if let Ok(folder) = File::open(folder(target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The folder of a file.
fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed when it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("kvern-file-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(name).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = Folder::new("fails");
        let path = folder.0.join("a");
        fs::write(&path, "old").unwrap();
        let e = replace(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(ErrorKind::StorageFull.into())
        });
        assert_eq!(
            e,
            Err(Error::Io { what: "write", path: text(path.display()), kind: ErrorKind::StorageFull })
        );
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), folder.names()), ("old", vec!["a".into()]));
        let panicked = std::panic::catch_unwind(|| replace(&path, |_| panic!("inside")));
        assert!(panicked.is_err());
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), folder.names()), ("old", vec!["a".into()]));
        replace(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), folder.names()), ("new", vec!["a".into()]));
    }

    #[cfg(unix)]
    #[test]
    fn readers_keep_the_old_file_and_links_and_permissions_stay() {
        use std::io::Read;
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let folder = Folder::new("readers");
        let (path, link) = (folder.0.join("a"), folder.0.join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a", &link).unwrap();
        let (mut reader, bytes) = open(&link).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        replace(&link, |file| file.write_all(b"newer")).unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), bytes), ("old", 3));
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        let about = fs::metadata(&path).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), about.mode() & 0o777), ("newer", 0o640));
        assert_ne!(about.ino(), inode);
        assert_eq!(folder.names(), ["a", "link"]);
    }

    #[cfg(not(unix))]
    #[test]
    fn a_read_only_file_is_not_replaced() {
        let folder = Folder::new("read-only");
        let path = folder.0.join("a");
        fs::write(&path, "old").unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions.clone()).unwrap();
        let e = replace(&path, |_| panic!("was opened")).unwrap_err();
        assert!(matches!(e, Error::Io { kind: ErrorKind::PermissionDenied, .. }), "{e}");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), folder.names()), ("old", vec!["a".into()]));
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        replace(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = Folder::new("regular");
        let pipe = folder.0.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&*pipe, &*folder.0, Path::new("/dev/zero")] {
            let refused =
                format!("cannot take for a regular file {}: invalid input parameter", path.display());
            assert_eq!(open(path).unwrap_err().to_string(), refused);
            let write = |_: &mut File| -> io::Result<()> { panic!("{} was opened", path.display()) };
            assert_eq!(replace(path, write).unwrap_err().to_string(), refused);
        }
        assert!(matches!(replace(Path::new("/"), |_| Ok(())), Err(Error::Io { .. })));
        let nowhere = folder.0.join("nowhere/a");
        assert!(matches!(replace(&nowhere, |_| Ok(())), Err(Error::Io { kind: ErrorKind::NotFound, .. })));
        assert_eq!(folder.names(), ["pipe"]);
    }
}
