//! A Kubernetes cluster that runs pods, in namespaces of its own; ended with all its processes when dropped.
//! `CLUSTER_BIN` names the folder of its programs, which `.ci/run` builds.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{Output, run};

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    pid: u32,
    /// Process 1 of its namespaces.
    init: u32,
    folder: tempfile::TempDir,
    bin: PathBuf,
}

impl Cluster {
    /// Starts one and waits for its node.
    pub fn start(apiserver_flags: &str) -> Self {
        let bin = env::var_os("CLUSTER_BIN").map(PathBuf::from).filter(|bin| bin.join("kubelet").exists());
        let bin = bin.expect("this suite needs the programs of a cluster in CLUSTER_BIN: `.ci/run` builds them");
        let id = run(Command::new("id").arg("-u")).text();
        assert_eq!(id.trim(), "0", "this suite needs root: it makes namespaces and runs containers");
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/cluster/cluster.sh");
        let up = Command::new(script)
            .args(["up".as_ref(), bin.as_os_str(), folder.path().as_os_str()])
            .env("APISERVER_FLAGS", apiserver_flags)
            .stdin(Stdio::null())
            .output()
            .expect("the script runs");
        let said = String::from_utf8_lossy(&up.stdout);
        let pid = said.trim().parse().unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&up.stderr)));
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
        let init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("process 1");
        Self { pid, init, folder, bin }
    }

    /// The folder of its state, which is the same inside and outside.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A program inside.
    pub fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let path = format!("{}:{}", self.bin.display(), env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-n", "env"]);
        command.arg(format!("PATH={path}")).arg(format!("KUBECONFIG={}/kubeconfig", self.folder.path().display()));
        command.arg(program);
        command
    }

    /// What a command begins with that is to run in the cluster's network.
    pub fn network(&self) -> Vec<String> {
        ["nsenter", "-t", &self.init.to_string(), "-n"].map(str::to_owned).to_vec()
    }

    /// `kubectl` with these arguments.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        run(self.inside("kubectl").args(arguments))
    }

    /// `kubectl` with an object on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], object: &Value) -> Output {
        let started = Instant::now();
        let mut child = self
            .inside("kubectl")
            .args(arguments)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child.stdin.take().expect("its input").write_all(object.to_string().as_bytes()).expect("it reads");
        let done = child.wait_with_output().expect("it ends");
        Output {
            code: done.status.code().unwrap_or(-1),
            stdout: done.stdout,
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            wall: started.elapsed(),
        }
    }

    /// Makes an object, which must be admitted.
    pub fn create(&self, object: &Value) -> Value {
        self.kubectl_with(&["create", "-o", "json"], object).ok().json()
    }

    /// An object as it is.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        self.kubectl(["get", "-n", namespace, kind, name, "-o", "json"]).ok().json()
    }

    /// Waits until `wanted` says yes of an object.
    pub fn until(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        seconds: u64,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let object = self.get(namespace, kind, name);
            if wanted(&object) {
                return object;
            }
            assert!(Instant::now() < deadline, "{kind} {name} did not become so within {seconds} s: {object:#}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Starts a program that stays, with its output in a file of the cluster's folder.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Inside {
        let log = self.folder.path().join(format!("log/{name}"));
        let file = fs::File::create(&log).expect("a log");
        let again = file.try_clone().expect("the same log");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(again).spawn().expect("it starts");
        Inside { child, log }
    }
}

impl Cluster {
    /// A port out here that leads to `port` of the loopback address inside, for programs that speak to both.
    pub fn relay(&self, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let outside = listener.local_addr().expect("an address").port();
        let (init, port) = (self.init.to_string(), port.to_string());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (init, port) = (init.clone(), port.clone());
                thread::spawn(move || relayed(&init, &port, stream));
            }
        });
        outside
    }
}

/// Hands a connection to a program inside; it ends with the connection.
fn relayed(init: &str, port: &str, stream: TcpStream) {
    let Ok(input) = stream.try_clone() else { return };
    let mut command = Command::new("nsenter");
    command.args(["-t", init, "-n", "busybox", "nc", "127.0.0.1", port]).stderr(Stdio::null());
    let _ = command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(stream)).status();
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Process 1 takes everything in its namespaces along; without its parent it would end too.
        let _ = Command::new("kill").args(["-9", &self.init.to_string(), &self.pid.to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Path::new(&format!("/proc/{}", self.init)).exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A program inside the cluster's namespaces.
#[derive(Debug)]
pub struct Inside {
    child: Child,
    log: PathBuf,
}

impl Inside {
    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal: `STOP`.
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()])).ok();
    }

    /// Its process id, outside.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits for its exit code.
    pub fn end(mut self) -> i32 {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        self.child.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
