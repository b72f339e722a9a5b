//! Sensors that are asked: servers that speak as Tetragon and KubeArmor do, over TCP, TLS and a socket, and a bridge that follows them.

use std::{
    convert::Infallible,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lineage::Ledger;
use runtime_bridge::pull::{kubearmor, tetragon};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::{Bridge, free_port};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, ServerStreamingService},
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};
use tonic_prost::ProstCodec;

use crate::world::{Certificates, counted, ledger, runtime, start, subject};

/// What a sensor tells on one of its streams; nobody listens, and it is lost, as with the sensors.
struct Feed<A> {
    listeners: Mutex<Vec<mpsc::Sender<Result<A, Status>>>>,
}

impl<A> Default for Feed<A> {
    fn default() -> Self {
        Self { listeners: Mutex::default() }
    }
}

impl<A: Clone> Feed<A> {
    /// Whether anybody was told.
    async fn tell(&self, event: A) -> bool {
        let listeners = self.listeners.lock().expect("no panic").clone();
        let mut told = false;
        for listener in listeners {
            told |= listener.send(Ok(event.clone())).await.is_ok();
        }
        told
    }

    fn end(&self) {
        self.listeners.lock().expect("no panic").clear();
    }
}

/// Tells the feed to who asks.
struct Asked<A>(Arc<Feed<A>>);

impl<Q, A: Send + 'static> ServerStreamingService<Q> for Asked<A> {
    type Response = A;
    type ResponseStream = ReceiverStream<Result<A, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Q>) -> Self::Future {
        let (tell, told) = mpsc::channel(64);
        self.0.listeners.lock().expect("no panic").push(tell);
        std::future::ready(Ok(Response::new(ReceiverStream::new(told))))
    }
}

/// Both sensors.
#[derive(Clone, Default)]
struct Sensors {
    events: Arc<Feed<tetragon::Event>>,
    alerts: Arc<Feed<kubearmor::Alert>>,
    logs: Arc<Feed<kubearmor::Log>>,
}

/// The same service under the name of each.
macro_rules! named {
    ($sensor:ident, $name:literal) => {
        #[derive(Clone)]
        struct $sensor(Sensors);

        impl NamedService for $sensor {
            const NAME: &'static str = $name;
        }

        impl Service<http::Request<Body>> for $sensor {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<Self::Response, Infallible>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let sensors = self.0.clone();
                Box::pin(async move { Ok(sensors.answer(request).await) })
            }
        }
    };
}

named!(Tetragon, "tetragon.FineGuidanceSensors");
named!(KubeArmor, "feeder.LogService");

impl Sensors {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        match request.uri().path() {
            tetragon::EVENTS => {
                Grpc::new(ProstCodec::<tetragon::Event, ()>::default())
                    .server_streaming(Asked(self.events), request)
                    .await
            }
            kubearmor::ALERTS => {
                let codec = ProstCodec::<kubearmor::Alert, kubearmor::Request>::default();
                Grpc::new(codec).server_streaming(Asked(self.alerts), request).await
            }
            kubearmor::LOGS => {
                let codec = ProstCodec::<kubearmor::Log, kubearmor::Request>::default();
                Grpc::new(codec).server_streaming(Asked(self.logs), request).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

/// Where a server listens.
enum At<'a> {
    Port(u16),
    Socket(&'a Path),
}

/// Serves until it is dropped.
struct Serving {
    sensors: Sensors,
    end: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Serving {
    async fn start(at: At<'_>, tls: Option<ServerTlsConfig>) -> Self {
        let sensors = Sensors::default();
        let (end, ended) = oneshot::channel::<()>();
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("certificates");
        }
        let router = server.add_service(Tetragon(sensors.clone())).add_service(KubeArmor(sensors.clone()));
        let ended = async move { _ = ended.await };
        let served = match at {
            At::Port(port) => {
                let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
                let incoming = TcpListenerStream::new(listener);
                tokio::spawn(async move { _ = router.serve_with_incoming_shutdown(incoming, ended).await })
            }
            At::Socket(path) => {
                let incoming = UnixListenerStream::new(UnixListener::bind(path).expect("a socket"));
                tokio::spawn(async move { _ = router.serve_with_incoming_shutdown(incoming, ended).await })
            }
        };
        Self { sensors, end: Some(end), served }
    }

    /// Ends, with all its streams.
    async fn stop(mut self) {
        _ = self.end.take().expect("once").send(());
        self.sensors.events.end();
        self.sensors.alerts.end();
        self.sensors.logs.end();
        self.served.await.expect("it ends");
    }
}

fn message<M: DeserializeOwned>(json: Value) -> M {
    serde_json::from_value(json).expect("a message")
}

/// A shell that nothing in the image leads to, as Tetragon tells of it.
fn shell(number: u32) -> tetragon::Event {
    let pod = json!({"namespace": "shop", "name": "web-1", "uid": "u1", "container": {"id": format!("containerd://{}", "0123456789ab".repeat(5)),
        "name": "app", "image": {"id": format!("registry.test/served@{}", subject()), "name": "registry.test/served:1"}}});
    let process = |id: u32, binary: &str| {
        json!({"exec_id": format!("id-{id}"), "pid": id, "uid": 0, "cwd": "/", "binary": binary, "arguments": "-c id",
            "docker": "0123456789ab012", "pod": pod})
    };
    message(
        json!({"process_exec": {"process": process(100 + number, "/usr/bin/dash"), "parent": process(1, "/usr/sbin/served")},
        "node_name": "n1", "time": Timestamp::now().to_string()}),
    )
}

/// The same, as KubeArmor's log does.
fn log(number: i32) -> Value {
    let now = Timestamp::now();
    json!({"Timestamp": now.as_second(), "UpdatedTime": now.to_string(), "HostName": "n1", "NamespaceName": "shop", "PodName": "web-2",
        "ContainerID": "fedcba987654".repeat(5), "ContainerName": "app", "ContainerImage": format!("registry.test/served@{}", subject()),
        "HostPPID": 1, "HostPID": 100 + number, "UID": 0, "ParentProcessName": "/usr/sbin/served", "ProcessName": "/usr/bin/dash",
        "Type": "ContainerLog", "Source": "/usr/sbin/served", "Operation": "Process", "Resource": "/usr/bin/dash -c id",
        "Data": "syscall=SYS_EXECVE", "Result": "Passed", "Cwd": "/"})
}

/// Tells until somebody follows.
async fn tell<A: Clone>(feed: &Feed<A>, event: impl Fn() -> A) {
    let until = Instant::now() + Duration::from_secs(60);
    while !feed.tell(event()).await {
        assert!(Instant::now() < until, "nobody asks");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn sensor(name: &str, dialect: &str, pull: &str) -> String {
    format!("[[sensor]]\nname = \"{name}\"\ndialect = \"{dialect}\"\ncluster = \"one\"\npull = {{ {pull} }}\n")
}

/// A ledger in a folder, and a bridge that follows these sensors.
async fn bridge(folder: &Path, sensors: &str) -> (Ledger, Bridge) {
    let url = format!("sqlite:{}", folder.join("ledger.db").display());
    let ledger = ledger(&url).await;
    let bridge = start(folder, free_port(), sensors, &["--ledger".to_owned(), url]);
    (ledger, bridge)
}

#[test]
fn what_a_sensor_tells_is_judged_and_what_was_told_to_nobody_is_known_to_be_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let port = free_port();
        let address = format!("address = \"http://127.0.0.1:{port}\"");
        let sensors = sensor("tetragon", "tetragon", &address) + &sensor("kubearmor", "kubearmor", &address);
        // The bridge is there before the sensors.
        let (ledger, bridge) = bridge(folder.path(), &sensors).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let serving = Serving::start(At::Port(port), None).await;
        tell(&serving.sensors.events, || shell(1)).await;
        tell(&serving.sensors.logs, || message(log(1))).await;
        let mut blocked = log(2);
        blocked["Type"] = "MatchedPolicy".into();
        blocked["PolicyName"] = "no-shells".into();
        blocked["Action"] = "Block".into();
        blocked["Result"] = "Permission denied".into();
        tell(&serving.sensors.alerts, || message(blocked.clone())).await;
        let counts = counted(&ledger, 3).await;
        assert_eq!(counts.get("Pod/web-1 /usr/bin/dash"), Some(&1), "{counts:?}");
        assert_eq!(counts.get("Pod/web-2 /usr/bin/dash"), Some(&2), "{counts:?}");

        serving.stop().await;
        let missed = Timestamp::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let serving = Serving::start(At::Port(port), None).await;
        let back = Timestamp::now();
        tell(&serving.sensors.events, || shell(2)).await;
        assert_eq!(counted(&ledger, 4).await.values().sum::<u64>(), 4);
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let blind = ledger.blind(Some("one"), missed, None, 100).await.expect("read");
            let covers = |row: &&lineage::BlindRow| {
                row.sensor == "tetragon" && row.cause == "away" && row.from <= back && row.until >= back
            };
            if let Some(row) = blind.iter().find(covers) {
                assert!(row.reason.contains("GetEvents at 127.0.0.1"), "{row:?}");
                break;
            }
            assert!(Instant::now() < until, "the time without the sensor is not told: {blind:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bridge.end();
        serving.stop().await;
    });
}

#[test]
fn a_sensor_is_followed_over_tls_by_who_shows_a_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = Certificates::new(folder.path());
    runtime().block_on(async {
        let port = free_port();
        let read = |path: &str| fs::read_to_string(path).expect("a file");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(read(&files.server), read(&files.server_key)))
            .client_ca_root(Certificate::from_pem(read(&files.ca)));
        let serving = Serving::start(At::Port(port), Some(tls)).await;
        let known =
            format!("address = \"https://127.0.0.1:{port}\", server_name = \"localhost\", ca = \"{}\"", files.ca);
        let shown = format!("{known}, certificate = \"{}\", key = \"{}\"", files.client, files.client_key);
        let sensors = sensor("known", "tetragon", &shown) + &sensor("unknown", "tetragon", &known);
        let (ledger, bridge) = bridge(folder.path(), &sensors).await;
        tell(&serving.sensors.events, || shell(1)).await;
        assert_eq!(counted(&ledger, 1).await.values().sum::<u64>(), 1);
        let blind = ledger.blind(Some("one"), Timestamp::UNIX_EPOCH, None, 100).await.expect("read");
        assert!(blind.iter().all(|row| row.sensor == "unknown") && !blind.is_empty(), "{blind:?}");
        bridge.end();
        serving.stop().await;
    });
}

#[test]
fn a_sensor_is_followed_by_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let path = folder.path().join("tetragon.sock");
        let serving = Serving::start(At::Socket(&path), None).await;
        let (ledger, bridge) =
            bridge(folder.path(), &sensor("tetragon", "tetragon", &format!("address = \"unix://{}\"", path.display())))
                .await;
        tell(&serving.sensors.events, || shell(1)).await;
        assert_eq!(counted(&ledger, 1).await.values().sum::<u64>(), 1);
        bridge.end();
        serving.stop().await;
    });
}
