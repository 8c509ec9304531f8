//! A layer's place in the tests: a root, and something beside it that must stay as it is.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use super::{Tar, names};
use crate::image::layer::apply::{Applied, Bytes, Limits, Retold, apply};
use crate::image::layer::recipe;
use crate::sys::process::unmask_thread;

/// A root in a directory of its own, so that anything beside it is an escape.
pub(super) struct Jail {
    dir: tempfile::TempDir,
}

impl Jail {
    pub(super) fn new() -> Jail {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("staging/diff")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Jail { dir }
    }

    pub(super) fn staging(&self) -> std::path::PathBuf {
        self.dir.path().join("staging")
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.staging().join("diff").join(name)
    }

    pub(super) fn apply(&self, tar: Tar) -> Result<Applied> {
        self.apply_bytes(&tar.bytes(), &Limits::default())
    }

    /// Applies an archive; whatever it is, it can be told again afterwards.
    pub(super) fn apply_bytes(&self, bytes: &[u8], limits: &Limits) -> Result<Applied> {
        for name in ["recipe", "blob"] {
            let _ = fs::remove_file(self.staging().join(name));
        }
        let root = File::open(self.path("")).unwrap();
        let applied = std::thread::scope(|scope| {
            let work = || {
                unmask_thread().unwrap();
                apply(&mut &bytes[..], &self.staging(), root.as_fd(), Bytes::Passing, limits)
            };
            scope.spawn(work).join().unwrap()
        })?;
        let mut told = Vec::new();
        match applied.retold {
            Retold::Exact => {
                recipe::tar(&self.staging()).unwrap().read_to_end(&mut told).unwrap();
                assert_eq!(names(&self.staging()), ["diff", "recipe"]);
            }
            Retold::Not => {
                told = fs::read(self.staging().join("blob")).unwrap();
                assert_eq!(names(&self.staging()), ["blob", "diff"]);
            }
        }
        assert!(told == bytes, "{} bytes told of {}", told.len(), bytes.len());
        Ok(applied)
    }

    pub(super) fn refuses(&self, tar: Tar, reason: &str) {
        let text = format!("{:#}", self.apply(tar).expect_err(reason));
        assert!(text.contains(reason), "{text}");
        self.assert_nothing_outside();
    }

    pub(super) fn assert_nothing_outside(&self) {
        assert_eq!(names(self.dir.path()), ["outside", "staging"]);
        let kept = names(&self.staging());
        assert!(kept.iter().all(|name| matches!(&name[..], "diff" | "recipe" | "blob")), "{kept:?}");
        assert_eq!(names(&self.dir.path().join("outside")), ["secret"]);
        let secret = self.dir.path().join("outside/secret");
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!((fs::metadata(&secret).unwrap().nlink(), fs::metadata(&secret).unwrap().mode() & 0o777), (1, 0o644));
    }

    pub(super) fn outside(&self, name: &str) -> String {
        self.dir.path().join("outside").join(name).to_str().unwrap().to_owned()
    }
}
