//! `mayfly serve --otlp-endpoint`: the spans of a review as a collector gets them, by OTLP over gRPC.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use h2::server;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    trace::v1::Span,
};
use prost::Message as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

/// A collector on a free port; and the spans that it gets, each with its service's name.
fn collector() -> (SocketAddr, mpsc::Receiver<(String, Span)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("for tokio");
    let (sender, spans) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let path = request.uri().path().to_owned();
                    assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut bytes = Vec::new();
                        while let Some(Ok(piece)) = body.data().await {
                            let _ = body.flow_control().release_capacity(piece.len());
                            bytes.extend_from_slice(&piece);
                        }
                        // A message of gRPC: whether it is compressed, its length, itself.
                        assert_eq!(bytes.first(), Some(&0));
                        let told = ExportTraceServiceRequest::decode(bytes.get(5..).expect("a message")).expect("OTLP");
                        let response = http::Response::builder().header("content-type", "application/grpc");
                        let mut stream =
                            respond.send_response(response.body(()).expect("a head"), false).expect("sent");
                        let answer = ExportTraceServiceResponse::default().encode_to_vec();
                        let length = u32::try_from(answer.len()).expect("short").to_be_bytes();
                        stream.send_data([&[0][..], &length, &answer].concat().into(), false).expect("sent");
                        let trailers = http::HeaderMap::from_iter([(
                            http::HeaderName::from_static("grpc-status"),
                            http::HeaderValue::from_static("0"),
                        )]);
                        stream.send_trailers(trailers).expect("sent");
                        for resource in told.resource_spans {
                            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
                            let name = attributes.iter().find(|one| one.key == "service.name");
                            let name = format!("{:?}", name.and_then(|name| name.value.clone()));
                            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                                let _ = sender.send((name.clone(), span));
                            }
                        }
                    });
                }
            }
        });
    });
    (address, spans)
}

/// A running webhook, ended when dropped.
struct Webhook(Child);

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, collector: SocketAddr) -> (Webhook, SocketAddr) {
    let at = |name: &str| folder.join(name);
    let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: strict}\n\
                spec: {enforcement: Always, require: {dna: {}}}\n";
    fs::write(at("rule.yaml"), rule).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.args(["serve", "--no-cluster", "--plain-http", "--drain", "0", "--listen", "127.0.0.1:0"]);
    command.arg("--rules").arg(at("rule.yaml")).arg("--tls-dir").arg(folder).arg("--data").arg(at("data"));
    command.arg("--otlp-endpoint").arg(format!("http://{collector}")).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (sender, lines) = mpsc::channel();
    let outputs: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
    for output in outputs {
        let sender = sender.clone();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
    }
    let webhook = Webhook(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = Vec::new();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(address) = line.strip_prefix("serving reviews on ").and_then(|address| address.parse().ok()) {
            // Nobody reads the rest; it must not stand in the way.
            thread::spawn(move || lines.iter().for_each(drop));
            return (webhook, address);
        }
        told.push(line);
    }
    panic!("it does not serve: {told:#?}");
}

/// The answer to a review of a pod with an image that no registry gives.
fn asked(address: SocketAddr, ca: &[u8]) -> Value {
    let image = format!("127.0.0.1:1/app@sha256:{}", "0".repeat(64));
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "n", "name": "p",
        "operation": "CREATE", "userInfo": {"username": "alice"}, "oldObject": null,
        "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": image}]}},
    }})
    .to_string();
    let mut roots = RootCertStore::empty();
    roots.add(ca.to_vec().into()).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().expect("a name")).expect("TLS");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).expect("connected"));
    let head =
        "POST /validate?timeout=10s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (_, json) = answer.split_once("\r\n\r\n").expect("an answer");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_collector_gets_a_review_under_the_decision_s_id_with_its_steps_beneath() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("tls.crt"), made.cert.pem()).expect("written");
    fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("written");
    let (collector, spans) = collector();
    let (_webhook, address) = start(folder.path(), collector);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = asked(address, made.cert.der());
        let id = answer.pointer("/response/auditAnnotations/decision").and_then(Value::as_str);
        let id = id.unwrap_or_else(|| panic!("{answer}"));
        ids.push(id.parse::<uuid::Uuid>().expect("an id"));
    }
    // A batch is sent after some seconds.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut found: Vec<Span> = Vec::new();
    let of = |found: &[Span], id: &uuid::Uuid| -> Vec<Span> {
        found.iter().filter(|span| span.trace_id == id.as_bytes()).cloned().collect()
    };
    let is_whole = |spans: &[Span]| spans.iter().any(|span| span.name == "review") && spans.len() > 1;
    while !ids.iter().all(|id| is_whole(&of(&found, id))) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (service, span) = spans.recv_timeout(left).unwrap_or_else(|_| panic!("{ids:?}: {found:#?}"));
        assert!(service.contains("mayfly"), "{service}");
        found.push(span);
    }
    for id in &ids {
        let trace = of(&found, id);
        let roots: Vec<&Span> = trace.iter().filter(|span| span.parent_span_id.is_empty()).collect();
        let [review] = roots.as_slice() else { panic!("one begins: {trace:#?}") };
        assert_eq!(review.name, "review");
        for step in trace.iter().filter(|span| span.name != "review") {
            // Each has its parent in the same trace, and begins within it.
            let parent = trace.iter().find(|span| span.span_id == step.parent_span_id);
            let parent = parent.unwrap_or_else(|| panic!("no parent: {step:#?}"));
            assert_eq!(step.name, "gather");
            assert!(parent.start_time_unix_nano <= step.start_time_unix_nano, "{parent:#?} {step:#?}");
        }
        let has = |name: &str| review.attributes.iter().any(|attribute| attribute.key == name);
        assert!(has("namespace") && has("operation"), "{review:#?}");
    }
}
