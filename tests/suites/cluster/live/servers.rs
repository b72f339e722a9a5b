//! What runs: real servers, each a Deployment that the kubelet probes and that clients use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tests::run;

use crate::world::{World, wait};

/// The namespace of them all; rules are in force there.
pub(super) const NAMESPACE: &str = "watched";

/// A real server.
pub(super) struct Server {
    /// Its image, its Deployment and its container.
    pub(super) name: &'static str,
    /// How the kubelet asks it, in JSON: once a second or so, and less often.
    ready: &'static str,
    alive: &'static str,
}

/// In the order in which they are taken.
const SERVERS: [Server; 8] = [
    Server {
        name: "nginx",
        ready: r#"{"httpGet": {"path": "/", "port": 80}}"#,
        alive: r#"{"exec": {"command": ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1/"]}}"#,
    },
    Server {
        name: "redis",
        ready: r#"{"exec": {"command": ["redis-cli", "ping"]}}"#,
        alive: r#"{"exec": {"command": ["sh", "-c", "redis-cli info server | grep -q redis_version"]}}"#,
    },
    Server {
        name: "flask-gunicorn",
        ready: r#"{"httpGet": {"path": "/", "port": 8000}}"#,
        alive: r#"{"exec": {"command": ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/')"]}}"#,
    },
    Server {
        name: "node-http",
        ready: r#"{"httpGet": {"path": "/", "port": 3000}}"#,
        alive: r#"{"tcpSocket": {"port": 3000}}"#,
    },
    Server {
        name: "postgres",
        ready: r#"{"exec": {"command": ["pg_isready", "-U", "postgres", "-h", "127.0.0.1"]}}"#,
        alive: r#"{"exec": {"command": ["bash", "-c", "psql -U postgres -Atc 'select 1' | grep -q 1"]}}"#,
    },
    Server {
        name: "php-apache",
        ready: r#"{"httpGet": {"path": "/index.php", "port": 80}}"#,
        alive: r#"{"tcpSocket": {"port": 80}}"#,
    },
    Server {
        name: "busybox-httpd",
        ready: r#"{"httpGet": {"path": "/", "port": 8080}}"#,
        alive: r#"{"exec": {"command": ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]}}"#,
    },
    Server {
        name: "haproxy",
        ready: r#"{"httpGet": {"path": "/health", "port": 8080}}"#,
        alive: r#"{"httpGet": {"path": "/stats", "port": 8404}}"#,
    },
];

/// So many servers.
pub(super) fn servers(count: usize) -> &'static [Server] {
    SERVERS.get(..count).unwrap_or(&SERVERS)
}

impl Server {
    /// Brings its image to the cluster's registry, and deploys it.
    pub(super) fn deploy(&self, world: &World, images: &Path) {
        let image = format!("127.0.0.1:5000/watched/{}:1", self.name);
        run(world.cluster.inside("crane").arg("push").arg(images.join(self.name)).arg(&image)).ok();
        let probe = |text: &str, period: u32| {
            let mut probe: Value = serde_json::from_str(text).expect("a probe");
            // Many of them share few cores.
            probe.as_object_mut().expect("fields").extend([
                ("periodSeconds".to_owned(), json!(period)),
                ("timeoutSeconds".to_owned(), json!(10)),
                ("failureThreshold".to_owned(), json!(12)),
            ]);
            probe
        };
        let labels = json!({"app": self.name});
        let container = json!({"name": self.name, "image": image, "readinessProbe": probe(self.ready, 2),
            "livenessProbe": probe(self.alive, 10)});
        world.cluster.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "progressDeadlineSeconds": 600,
                "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}}}}));
    }

    /// `kubectl VERB … deployment/NAME …`.
    pub(super) fn kubectl(&self, world: &World, verb: &[&str], more: &[&str]) {
        let deployment = format!("deployment/{}", self.name);
        world.cluster.kubectl([verb, &["-n", NAMESPACE, &deployment], more].concat()).ok();
    }

    /// Waits until its Deployment is as it is wanted, and no pod of before is left.
    pub(super) fn settled(&self, world: &World) {
        self.kubectl(world, &["rollout", "status"], &["--timeout", "420s"]);
        let wanted = world.cluster.get(NAMESPACE, "deployment", self.name)["spec"]["replicas"].as_u64();
        wait(120, &format!("{} has its pods and no others", self.name), || {
            let count = self.pods(world).len();
            if u64::try_from(count).ok() == wanted { Ok(()) } else { Err(format!("{count} of {wanted:?}")) }
        });
    }

    fn pods(&self, world: &World) -> Vec<Value> {
        let label = format!("app={}", self.name);
        let list = world.cluster.kubectl(["get", "pods", "-n", NAMESPACE, "-l", &label, "-o", "json"]).ok().json();
        list["items"].as_array().expect("pods").clone()
    }

    /// One of its pods, as it runs.
    pub(super) fn pod(&self, world: &World) -> Running {
        let pod = self.pods(world).into_iter().next().expect("a pod");
        let status = &pod["status"]["containerStatuses"][0];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let id = text(&status["containerID"]).rsplit_once("://").expect("an id").1.to_owned();
        let digest = text(&status["imageID"]).rsplit_once('@').expect("a digest").1.to_owned();
        Running { name: text(&pod["metadata"]["name"]), digest, pid: first_process(&id) }
    }

    /// Has clients use it, as the harness does: from outside, in its network.
    pub(super) fn drive(&self, world: &World, harness: &Path) {
        let corpus = fs::read_to_string(harness.join("corpus-open.toml")).expect("the harness's images");
        let corpus: toml::Table = corpus.parse().expect("TOML");
        let images = corpus["image"].as_array().expect("images");
        let own =
            images.iter().find(|image| image["name"].as_str() == Some(self.name)).expect("an image of the harness");
        let Some(script) = own.get("drive").and_then(toml::Value::as_str) else { return };
        let script = script.replace("$D", &format!("python3 {}", harness.join("drive.py").display()));
        // What is tried is that Mayfly is silent: on a busy machine, clients may find a server slow.
        wait(90, &format!("clients of {} are served", self.name), || {
            let done = run(self.pod(world).in_network().args(["sh", "-c", &script]));
            if done.code == 0 { Ok(()) } else { Err(done.stderr) }
        });
    }

    /// Ends its container, which the kubelet starts again.
    pub(super) fn restart_container(&self, world: &World) {
        let restarts = || {
            let pods = self.pods(world);
            let count =
                |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
            pods.iter().map(count).sum::<u64>()
        };
        let before = restarts();
        let pid = self.pod(world).pid;
        run(Command::new("kill").arg("-9").arg(pid.to_string())).ok();
        wait(120, &format!("the container of {} is started again", self.name), || {
            let now = restarts();
            if now > before { Ok(()) } else { Err(format!("{now} restarts")) }
        });
    }
}

/// A pod that runs.
pub(super) struct Running {
    pub(super) name: String,
    /// Of its container's image.
    pub(super) digest: String,
    /// Its container's first process, as this machine numbers it.
    pub(super) pid: u32,
}

impl Running {
    /// What a command begins with that is to run in the pod's network; no sensor sees it.
    pub(super) fn in_network(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n"]);
        command
    }

    /// Whether its image has a program on its path. Nothing is executed to find out.
    pub(super) fn has(&self, program: &str) -> bool {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let environment = fs::read(process.join("environ")).expect("its variables");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let path = environment.split('\0').find_map(|variable| variable.strip_prefix("PATH="));
        // What the runtime sets where the image says nothing.
        let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let root = process.join("root");
        // A link there may be absolute, so that it leads nowhere from here.
        let is_there =
            |folder: &str| fs::symlink_metadata(root.join(folder.trim_start_matches('/')).join(program)).is_ok();
        path.split(':').any(is_there)
    }
}

/// The first process of a container, found by the cgroup that carries its id.
fn first_process(id: &str) -> u32 {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let found = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if !read("cgroup").contains(id) {
            return None;
        }
        // `NSpid:` ends with the number that the process has in its own namespace.
        let status = read("status");
        let own = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.to_owned();
        (own == "1").then_some(pid)
    });
    found.min().unwrap_or_else(|| panic!("container {id} has no first process"))
}
