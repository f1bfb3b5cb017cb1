//! The files, and where everything lies.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Arguments, Result};

/// A directory with what is served, and room for what is fetched. Dropping it removes all.
#[derive(Debug)]
pub(crate) struct World {
    home: TempDir,
    pub(crate) cordee: PathBuf,
    /// This program.
    pub(crate) own: PathBuf,
    pub(crate) size: u64,
}

/// The file that is fetched.
pub(crate) const NAME: &str = "file";

impl World {
    pub(crate) fn new(arguments: &Arguments) -> Result<World> {
        let own = std::env::current_exe()?;
        let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
        let cordee = arguments.cordee.clone().unwrap_or_else(|| beside.join("cordee"));
        let directory = arguments.directory.clone().unwrap_or(beside);
        let home = tempfile::Builder::new().prefix("bench-blocks-").tempdir_in(directory)?;
        fs::create_dir(home.path().join("served"))?;
        let world = World { home, cordee, own, size: arguments.size };
        world.file(NAME, world.size)?;
        Ok(world)
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// What is served.
    pub(crate) fn served(&self) -> PathBuf {
        self.home.path().join("served")
    }

    /// What was fetched.
    pub(crate) fn target(&self) -> PathBuf {
        self.home.path().join("target")
    }

    /// Makes a file of random bytes that is served.
    pub(crate) fn file(&self, name: &str, length: u64) -> Result<()> {
        let mut file = File::create(self.served().join(name))?;
        write(&mut file, length)
    }

    /// Writes and deletes more than a run writes, so that its pages need not be found anew; so
    /// whoever runs first does not pay for it.
    pub(crate) fn prime(&self) -> Result<()> {
        self.clean();
        let path = self.home.path().join("primed");
        let mut file = File::create(&path)?;
        let piece = vec![1; 1 << 20];
        for _ in 0..(self.size + self.size / 5) >> 20 {
            file.write_all(&piece)?;
        }
        fs::remove_file(path)?;
        Ok(())
    }

    /// Removes what was fetched.
    pub(crate) fn clean(&self) {
        for end in ["", ".part", ".part.journal", ".aria2", ".st"] {
            let _ = fs::remove_file(self.home.path().join(format!("target{end}")));
        }
    }

    /// That what was fetched is as long as what was served, and, `whole`, the same.
    pub(crate) fn check(&self, name: &str, whole: bool) -> Result<()> {
        let (source, target) = (self.served().join(name), self.target());
        let same = fs::metadata(&source)?.len() == fs::metadata(&target)?.len()
            && (!whole || hash(&source)? == hash(&target)?);
        if same { Ok(()) } else { Err("what came is not what was served".into()) }
    }
}

fn write(file: &mut File, length: u64) -> Result<()> {
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    let mut rest = length;
    while rest > 0 {
        random.fill(&mut piece);
        let bytes = rest.min(1 << 20);
        file.write_all(&piece[..bytes as usize])?;
        rest -= bytes;
    }
    Ok(())
}

fn hash(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}
