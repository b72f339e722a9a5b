//! Where results go: standard output or a file, whole or not at all; and how an error is told.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{args::ExplainFormat, text};

/// Standard output, or a file that appears complete.
#[derive(Debug, Default)]
pub(crate) struct Destination(pub(crate) Option<PathBuf>);

impl Destination {
    /// Whether a person reads along.
    pub(crate) fn is_terminal(&self) -> bool {
        self.0.is_none() && io::stdout().is_terminal()
    }

    /// Writes everything.
    pub(crate) fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(path) = &self.0 else {
            let mut out = io::stdout().lock();
            return Ok(out.write_all(bytes).and_then(|()| out.flush())?);
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| ".".as_ref());
        let written = tempfile::Builder::new().prefix(".mayfly-").tempfile_in(folder).and_then(|mut file| {
            file.write_all(bytes)?;
            readable_by_all(file.as_file())?;
            file.persist(path).map_err(|error| error.error)
        });
        written.map(|_| ()).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A temporary file is the owner's alone; a result is a file like any other.
fn readable_by_all(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// A small file that someone named: a key, a bundle, a trust root.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_FILE_BYTES, "{} is larger than {MAX_FILE_BYTES} bytes", path.display());
    Ok(bytes)
}

/// JSON for people, with a newline at the end.
pub(crate) fn pretty<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a value to standard output, for people or as JSON.
pub(crate) fn show<T: Serialize + ?Sized>(
    format: ExplainFormat,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    Destination::default().write(&match format {
        ExplainFormat::Human => human(value).into_bytes(),
        ExplainFormat::Json => pretty(value)?,
    })
}

/// Whether the reader of standard output went away: nobody is left to tell.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells an error with its causes, once, on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut told = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Some errors repeat their source's text.
        if !told.ends_with(&cause) {
            if !told.is_empty() {
                told.push_str(": ");
            }
            told.push_str(&cause);
        }
    }
    let _ = writeln!(io::stderr(), "mayfly: {}", text::clean(&dna::redact(&told)));
}

/// Says something on standard error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// As much as any bundle may have.
const MAX_FILE_BYTES: u64 = 64 << 20;
