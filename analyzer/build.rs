//! Names the analyzer's sources and what it is built with, so that it never reads what another version of it kept.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    find(Path::new("src"), &mut files)?;
    files.push(PathBuf::from("../Cargo.lock"));
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        // A crate alone has no lock file.
        (file.display().to_string(), fs::read(&file).ok()).hash(&mut hash);
    }
    println!("cargo:rustc-env=MAYFLY_SOURCES={:016x}", hash.finish());
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    println!("cargo:rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { find(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
