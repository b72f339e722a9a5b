//! `mayfly keys generate`, and how a private key is read.

use std::{
    fs::OpenOptions,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use trust::{NewKey, SigningKey};

use crate::{args::trust::Keys, output};

/// Makes keys.
pub(crate) fn run(command: &Keys) -> anyhow::Result<()> {
    let Keys::Generate { output_prefix } = command;
    let with = |extension: &str| {
        let mut name = output_prefix.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let (private, public) = (with(".key"), with(".pub"));
    if let Some(there) = [&private, &public].into_iter().find(|path| path.exists()) {
        bail!("{} is there already: a key is not written over", there.display());
    }
    let new = NewKey::generate(&password(&private, true)?)?;
    write(&private, &new.private, 0o600)?;
    write(&public, &new.public, 0o644)?;
    output::say(&format!("private key {}, public key {}", private.display(), public.display()));
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a private key.
pub(crate) fn read(path: &Path) -> anyhow::Result<SigningKey> {
    let text =
        String::from_utf8(output::read(path)?).ok().with_context(|| format!("{} is not text", path.display()))?;
    SigningKey::from_pem(&text, || password(path, false)).with_context(|| path.display().to_string())
}

/// The password of a key, from the environment or from whoever sits there.
fn password(key: &Path, new: bool) -> anyhow::Result<Vec<u8>> {
    for name in ["MAYFLY_KEY_PASSWORD", "COSIGN_PASSWORD"] {
        if let Some(password) = std::env::var_os(name) {
            return Ok(std::os::unix::ffi::OsStringExt::into_vec(password));
        }
    }
    if !std::io::stdin().is_terminal() {
        bail!("the password of {} is not known: set MAYFLY_KEY_PASSWORD", key.display());
    }
    let ask = |text: String| rpassword::prompt_password(text).context("cannot read the password");
    let password = ask(format!("Password of {}: ", key.display()))?;
    if new && password != ask("Again: ".to_owned())? {
        bail!("the passwords differ");
    }
    Ok(password.into_bytes())
}
