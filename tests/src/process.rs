//! Programs run to their end: arguments in, exit code and both outputs out.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
    /// From start to end.
    pub wall: Duration,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// This output, after making sure that the program ended well.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stderr, self.text());
        self
    }
}

/// The program under test: `MAYFLY`, or what `cargo build --release --bin mayfly` made.
pub fn mayfly_path() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let path = env::var_os("MAYFLY").map_or_else(|| target.join("release/mayfly"), PathBuf::from);
    assert!(path.exists(), "{} is missing: run `cargo build --release --bin mayfly` first", path.display());
    path
}

/// `mayfly` with these arguments, without a blob cache unless they name one.
pub fn mayfly<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    run(Command::new(mayfly_path()).args(arguments))
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Output {
    let start = Instant::now();
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Output {
        code: done.status.code().unwrap_or(-1),
        stdout: done.stdout,
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        wall: start.elapsed(),
    }
}

/// A tool of the machine; `package` is the Debian package that has it.
pub fn tool(name: &str, package: &str) -> Command {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(name).exists());
    assert!(found, "this suite needs `{name}`: apt-get install {package}");
    Command::new(name)
}
