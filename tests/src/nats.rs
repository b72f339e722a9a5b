//! A NATS server with JetStream on a free loopback port; ended by process id when dropped.

use std::{
    env,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use crate::{free_port, written};

/// A running server.
#[derive(Debug)]
pub struct Nats {
    folder: tempfile::TempDir,
    port: u16,
    child: Mutex<Child>,
    options: Vec<String>,
}

impl Nats {
    /// Starts one, with this text in its configuration, and waits until it answers.
    pub fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let file = written(folder.path(), "nats.conf", configuration);
        let data = folder.path().join("data").display().to_string();
        let options =
            ["-c", &file, "-js", "-sd", &data, "-a", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec();
        let child = Mutex::new(spawn(&options));
        let server = Self { folder, port, child, options };
        server.wait();
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that is its own.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Ends it without a word to anybody.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no panic");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Starts it again, on what is on disk.
    pub fn restart(&self) {
        *self.child.lock().expect("no panic") = spawn(&self.options);
        self.wait();
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "nats-server does not answer");
            let ended = self.child.lock().expect("no panic").try_wait().expect("a child");
            assert!(ended.is_none(), "nats-server ended: {ended:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let child = self.child.get_mut().expect("no panic");
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(options: &[String]) -> Child {
    let program = env::var_os("NATS_SERVER").map(PathBuf::from).expect(
        "this suite needs nats-server: `.ci/run` builds it, NATS_SERVER names it (go install github.com/nats-io/nats-server/v2)",
    );
    let mut command = Command::new(program);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("nats-server starts")
}
