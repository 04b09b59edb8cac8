//! Options of `pack` and `verify`.

use std::path::PathBuf;

use clap::Args;

use crate::report::outputs::ARCHIVE;

/// Options of `pack` and `verify`.
#[derive(Args, Clone, Debug)]
pub struct PackArgs {
    /// Directory of the archive
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub dist: PathBuf,
}

impl PackArgs {
    /// The archive.
    pub fn archive(&self) -> PathBuf {
        self.dist.join(format!("{}.tar.gz", ARCHIVE))
    }

    /// SHA-256 of the archive and of each file in it.
    pub fn sums(&self) -> PathBuf {
        self.dist.join(format!("{}.sha256", ARCHIVE))
    }
}
