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

use crate::{Cluster, free_port, run};

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    port: String,
    child: Mutex<Child>,
    options: Vec<String>,
    /// What its commands begin with, where it runs in another network.
    network: Vec<String>,
    host: String,
}

impl Postgres {
    /// Starts one with these settings (`name=value`) and waits until it answers. `certificate` is a chain and its key, in PEM, for TLS.
    pub fn start(settings: &[&str], certificate: Option<(&str, &str)>) -> Self {
        Self::start_at(settings, certificate, Vec::new(), "127.0.0.1")
    }

    /// Starts one in a cluster's network, at an address of its node.
    pub fn start_inside(cluster: &Cluster, address: &str) -> Self {
        Self::start_at(&[], None, cluster.network(), address)
    }

    fn start_at(settings: &[&str], certificate: Option<(&str, &str)>, network: Vec<String>, host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("this suite runs as root");
        let data = folder.path().join("data");
        let made = ["--auth=trust", "--username=mayfly", "--encoding=UTF8", "--no-sync", "--pgdata"];
        run(as_nobody(&mut program(&[], "initdb")).args(made).arg(&data).current_dir("/")).ok();
        let trusted = fs::read_to_string(data.join("pg_hba.conf")).expect("who may connect");
        private(&data.join("pg_hba.conf"), &format!("{trusted}host all all 10.0.0.0/8 trust\n"));
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        if let Some((chain, key)) = certificate {
            for (name, text) in [("server.crt", chain), ("server.key", key)] {
                private(&data.join(name), text);
            }
            settings.push("ssl=on".to_owned());
        }
        let options: Vec<String> = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
        let port = free_port().to_string();
        let child = spawn(&network, folder.path(), (host, &port), &options);
        let host = host.to_owned();
        let server = Self { folder, port, child: Mutex::new(child), options, network, host };
        server.wait();
        server
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://mayfly@{}:{}/{database}", self.host, self.port)
    }

    /// The URL of a new, empty database of this name.
    pub fn database(&self, name: &str) -> String {
        run(self.client("createdb").arg(name)).ok();
        self.url(name)
    }

    /// What a query gives, in a database: a row a line, columns apart by `|`.
    pub fn query(&self, database: &str, query: &str) -> String {
        run(self.client("psql").args(["-At", "-d", database, "-c", query])).ok().text().trim().to_owned()
    }

    fn client(&self, name: &str) -> Command {
        let mut client = program(&self.network, name);
        client.args(["-h", &self.host, "-p", &self.port, "-U", "mayfly"]).current_dir("/");
        client
    }

    /// Ends it as a loss of power would: without a word to anybody.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no panic");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Starts it again, on what is on disk.
    pub fn restart(&self) {
        *self.child.lock().expect("no panic") =
            spawn(&self.network, self.folder.path(), (&self.host, &self.port), &self.options);
        self.wait();
    }

    fn wait(&self) {
        let began = Instant::now();
        let is_up = || run(self.client("pg_isready").arg("-q")).code == 0;
        while !is_up() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "PostgreSQL does not answer: {}", log());
            let mut child = self.child.lock().expect("no panic");
            if child.try_wait().expect("a child").is_some() {
                // Processes of the one that was killed are still there.
                *child = spawn(&self.network, self.folder.path(), (&self.host, &self.port), &self.options);
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

fn spawn(network: &[String], folder: &Path, (host, port): (&str, &str), options: &[String]) -> Child {
    let log = fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).expect("a log");
    // Into another network only root may go.
    let become_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned);
    let mut command = match network {
        [] => program(&[], "postgres"),
        network => program(&[network, &become_nobody].concat(), "postgres"),
    };
    command.args(["-p", port, "-h", host, "-k", ""]).arg("-D").arg(folder.join("data")).args(options);
    if network.is_empty() {
        as_nobody(&mut command);
    }
    let command = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
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

/// A program of the newest PostgreSQL of this machine, begun by these words.
fn program(words: &[String], name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    let path = found.pop().unwrap_or_else(|| panic!("this suite needs `{name}`: apt-get install postgresql"));
    match words {
        [] => Command::new(path),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(path);
            command
        }
    }
}

/// PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;
