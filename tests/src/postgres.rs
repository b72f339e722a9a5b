//! A PostgreSQL of Debian's package on a free loopback port, as an unprivileged user; ended by process id when dropped.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use crate::{free_port, run};

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    port: String,
    child: Mutex<Child>,
    options: Vec<String>,
}

impl Postgres {
    /// Starts one with these settings (`name=value`) and waits until it answers. `certificate` is a chain and its key, in PEM, for TLS.
    pub fn start(settings: &[&str], certificate: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("this suite runs as root");
        let data = folder.path().join("data");
        let made = ["--auth=trust", "--username=mayfly", "--encoding=UTF8", "--no-sync", "--pgdata"];
        run(as_nobody(&mut program("initdb")).args(made).arg(&data).current_dir("/")).ok();
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        if let Some((chain, key)) = certificate {
            for (name, text) in [("server.crt", chain), ("server.key", key)] {
                private(&data.join(name), text);
            }
            settings.push("ssl=on".to_owned());
        }
        let options: Vec<String> = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
        let port = free_port().to_string();
        let child = spawn(folder.path(), &port, &options);
        let server = Self { folder, port, child: Mutex::new(child), options };
        server.wait();
        server
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://mayfly@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a new, empty database of this name.
    pub fn database(&self, name: &str) -> String {
        run(program("createdb").args(["-h", "127.0.0.1", "-p", &self.port, "-U", "mayfly", name])).ok();
        self.url(name)
    }

    /// Ends it as a loss of power would: without a word to anybody.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no panic");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Starts it again, on what is on disk.
    pub fn restart(&self) {
        *self.child.lock().expect("no panic") = spawn(self.folder.path(), &self.port, &self.options);
        self.wait();
    }

    fn wait(&self) {
        let began = Instant::now();
        let is_up = || {
            let asked = ["-h", "127.0.0.1", "-p", &self.port, "-U", "mayfly", "-q"];
            run(program("pg_isready").args(asked)).code == 0
        };
        while !is_up() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "PostgreSQL does not answer: {}", log());
            let mut child = self.child.lock().expect("no panic");
            if child.try_wait().expect("a child").is_some() {
                // Processes of the one that was killed are still there.
                *child = spawn(self.folder.path(), &self.port, &self.options);
            }
            drop(child);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let child = self.child.get_mut().expect("no panic");
        // An interrupt is its fast shutdown: the processes it made end with it.
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        let _ = child.wait();
    }
}

fn spawn(folder: &Path, port: &str, options: &[String]) -> Child {
    let log = fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).expect("a log");
    let mut command = program("postgres");
    command.args(["-p", port, "-h", "127.0.0.1", "-k", ""]).arg("-D").arg(folder.join("data")).args(options);
    let command = as_nobody(&mut command).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("PostgreSQL starts")
}

/// A file of the server's user alone.
fn private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    chown(path, Some(NOBODY), Some(NOBODY)).expect("its owner");
}

fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// A program of the newest PostgreSQL of this machine.
fn program(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    let path = found.pop().unwrap_or_else(|| panic!("this suite needs `{name}`: apt-get install postgresql"));
    Command::new(path)
}

/// PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;
