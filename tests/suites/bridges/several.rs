//! Several bridges on one stream of JetStream and one PostgreSQL: each of them, and both servers, are killed while events come.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dna::Digest;
use jiff::Timestamp;
use lineage::AlertQuery;
use serde_json::{Value, json};
use tests::{Bridge, Nats, Postgres, free_port};

use crate::world::{Certificates, command, counted, ledger, runtime, start, subject};

const SECRET: &str = "a-secret-of-this-test";

/// Bridges of one stream, by number.
struct Group {
    folder: tempfile::TempDir,
    options: Vec<String>,
    ports: Vec<u16>,
}

impl Group {
    fn new(nats: &Nats, ledger: &str, bridges: usize) -> Self {
        let url = format!("url = \"nats://127.0.0.1:{}\"", nats.port());
        Self::with(&format!("{url}\nstream = \"events\"\npartitions = 8\nmax_bytes = 268435456\n"), ledger, bridges)
    }

    /// Whose stream is as this text says.
    fn with(stream: &str, ledger: &str, bridges: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stream = tests::written(folder.path(), "stream.toml", stream);
        let options = ["--ledger", ledger, "--stream", &stream].map(str::to_owned).to_vec();
        Self { folder, options, ports: (0..bridges).map(|_| free_port()).collect() }
    }

    fn folder(&self, number: usize) -> PathBuf {
        let folder = self.folder.path().join(number.to_string());
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn options(&self, number: usize) -> Vec<String> {
        let name = ["--name".to_owned(), format!("b{number}")];
        [&self.options[..], &name].concat()
    }

    fn start(&self, number: usize) -> Bridge {
        start(&self.folder(number), self.ports[number], &sensors(), &self.options(number))
    }

    /// Starts one that is to end by itself.
    fn run_to_its_end(&self, number: usize) -> tests::Output {
        tests::run(&mut command(&self.folder(number), self.ports[number], &sensors(), &self.options(number)))
    }
}

fn sensors() -> String {
    let secret = Digest::sha256(SECRET.as_bytes());
    let secret = secret.hex();
    let sensor = |dialect: &str| {
        format!(
            "[[sensor]]\nname = \"{dialect}\"\ndialect = \"{dialect}\"\ncluster = \"one\"\npath_secret_sha256 = \"{secret}\"\n"
        )
    };
    sensor("falco") + &sensor("kubernetes-audit")
}

/// An event of one of many containers, each the only one of its pod. Its number is in its time.
fn event(container: u64, number: u64, mut fields: Value) -> Value {
    let start = 1_790_000_000_000_000_000_u64;
    fields["evt.time"] = (start + number * 1_000_000).into();
    fields["evt.num"] = number.into();
    fields["container.id"] = format!("{container:012x}").into();
    fields["container.name"] = "app".into();
    fields["container.image.repository"] = "registry.test/served".into();
    fields["container.image.digest"] = subject().to_string().into();
    fields["k8s.ns.name"] = "shop".into();
    fields["k8s.pod.name"] = format!("web-{container}").into();
    json!({"rule": "a rule", "source": "syscall", "hostname": "node", "output_fields": fields})
}

/// Writes that nothing in the image does: one alert for each of these files of each container, so often.
fn intrusion(number: u64) -> Value {
    const FILES: [&str; 4] = ["/etc/passwd", "/etc/ld.so.preload", "/usr/bin/ls", "/etc/cron.d/x"];
    let file = FILES[usize::try_from(number % 4).expect("small")];
    let fields = json!({"evt.type": "openat", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "proc.exe": "served",
        "fd.name": file, "evt.is_open_write": true});
    event((number / 4) % CONTAINERS, number, fields)
}

/// The answer's status and body; none where there is no answer.
async fn answer(client: &reqwest::Client, port: u16, sensor: &str, body: String) -> Option<(u16, String)> {
    let url = format!("http://127.0.0.1:{port}/v1/events/{sensor}/{SECRET}");
    let answer = client.post(url).body(body).timeout(Duration::from_secs(5)).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

async fn post(client: &reqwest::Client, port: u16, body: String) -> bool {
    answer(client, port, "falco", body).await.is_some_and(|(status, _)| status == 200)
}

/// Posts to one bridge after the other until one takes it, as a balancer in front of them would have it.
async fn post_to_any(client: &reqwest::Client, ports: &[u16], first: u64, body: &str) {
    let until = Instant::now() + Duration::from_secs(120);
    for turn in first.. {
        let port = ports[usize::try_from(turn).expect("small") % ports.len()];
        if post(client, port, body.to_owned()).await {
            return;
        }
        assert!(Instant::now() < until, "no bridge takes events");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start_containers(client: &reqwest::Client, ports: &[u16], containers: u64) {
    for container in 0..containers {
        let starts = json!({"evt.type": "execve", "proc.pid": 10, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"});
        let serves = json!({"evt.type": "listen", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "tcp", "fd.lport": 80});
        for (number, fields) in [(0, starts), (1, serves)] {
            post_to_any(client, ports, container, &event(container, number, fields).to_string()).await;
        }
    }
}

const CONTAINERS: u64 = 20;

#[test]
fn what_several_bridges_answered_is_judged_once_whoever_is_killed() {
    let (postgres, nats) = (Postgres::start(&[], None), Nats::start(""));
    let url = postgres.database("ledger");
    let group = Group::new(&nats, &url, 3);
    let seconds: u64 = std::env::var("BRIDGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    runtime().block_on(async {
        let ledger = ledger(&url).await;
        let mut bridges: Vec<Option<Bridge>> = (0..3).map(|number| Some(group.start(number))).collect();
        let client = reqwest::Client::new();
        start_containers(&client, &group.ports, CONTAINERS).await;

        let (is_over, answered, number) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(10)));
        let senders: Vec<_> = (0..4_u64)
            .map(|sender| {
                let (client, ports) = (client.clone(), group.ports.clone());
                let (is_over, answered, number) = (Arc::clone(&is_over), Arc::clone(&answered), Arc::clone(&number));
                tokio::spawn(async move {
                    let mut turn = sender;
                    while !is_over.load(Ordering::SeqCst) {
                        turn += 1;
                        let first = number.fetch_add(20, Ordering::SeqCst);
                        let body: String =
                            (first..first + 20).map(|number| format!("{}\n", intrusion(number))).collect();
                        // What gets no answer is sent again, to another bridge: it is one event still.
                        post_to_any(&client, &ports, turn, &body).await;
                        answered.fetch_add(20, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
            })
            .collect();
        let pause = || tokio::time::sleep(Duration::from_secs(seconds));
        pause().await;
        bridges[1].take().expect("it runs").kill();
        pause().await;
        // A while on, what it judged is judged by others, though it is not back.
        let before = counted(&ledger, 0).await.values().sum::<u64>();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(counted(&ledger, 0).await.values().sum::<u64>() > before, "nothing is judged any more");
        nats.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        nats.restart();
        pause().await;
        bridges[1] = Some(group.start(1));
        pause().await;
        postgres.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        postgres.restart();
        pause().await;
        bridges[0].take().expect("it runs").kill();
        bridges[0] = Some(group.start(0));
        bridges[2].take().expect("it runs").end();
        pause().await;
        is_over.store(true, Ordering::SeqCst);
        for sender in senders {
            sender.await.expect("it sends");
        }
        let answered = answered.load(Ordering::SeqCst);
        let counts = counted(&ledger, answered).await;
        assert_eq!(counts.values().sum::<u64>(), answered, "{counts:?} of {answered} events that were answered");
        // None of it is counted later.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(counted(&ledger, answered).await.values().sum::<u64>(), answered);
        println!("{answered} events were answered by three bridges, each was judged once");
        bridges.into_iter().flatten().for_each(Bridge::end);
    });
}

#[test]
fn who_ran_a_command_is_known_whichever_bridge_judges_it() {
    let (postgres, nats) = (Postgres::start(&[], None), Nats::start(""));
    let url = postgres.database("ledger");
    let group = Group::new(&nats, &url, 2);
    runtime().block_on(async {
        let ledger = ledger(&url).await;
        let bridges = [group.start(0), group.start(1)];
        let client = reqwest::Client::new();
        start_containers(&client, &group.ports, CONTAINERS).await;
        for container in 0..CONTAINERS {
            let number = 1_000 + container * 60_000;
            let shell = json!({"evt.type": "execve", "proc.pid": 500, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash",
                "proc.exe": "sh", "proc.cmdline": "sh -c id"});
            post_to_any(&client, &group.ports, container, &event(container, number, shell).to_string()).await;
            let at = Timestamp::from_millisecond(1_790_000_000_000 + i64::try_from(number).expect("small")).expect("a time");
            let pod = format!("web-{container}");
            let call = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": pod,
                "stage": "ResponseStarted", "requestURI": format!("/api/v1/namespaces/shop/pods/{pod}/exec?command=sh"), "verb": "create",
                "user": {"username": format!("jane-{container}")}, "sourceIPs": ["192.0.2.1"], "responseStatus": {"code": 101},
                "objectRef": {"resource": "pods", "namespace": "shop", "name": pod, "apiVersion": "v1", "subresource": "exec"},
                "requestReceivedTimestamp": at.to_string(), "stageTimestamp": at.to_string()});
            let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [call]});
            let port = group.ports[usize::try_from(container % 2).expect("small")];
            let answer = answer(&client, port, "kubernetes-audit", list.to_string()).await;
            assert_eq!(answer, Some((200, "{}".to_owned())));
        }
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = AlertQuery { limit: 100, ..AlertQuery::default() };
            let heads = ledger.alerts(&asked, Timestamp::now()).await.expect("read");
            let ids = heads.into_iter().map(|head| head.id).collect();
            let rows = ledger.alerts_by_id(&ids, Timestamp::now()).await.expect("read");
            let users = rows.iter().filter_map(|row| {
                let alert = runtime_bridge::stored::alert(row).expect("an alert");
                Some((row.head.owner.clone(), alert.users.first()?.clone()))
            });
            let users: BTreeMap<String, String> = users.collect();
            let wanted = (0..CONTAINERS).map(|container| (format!("Pod/web-{container}"), format!("jane-{container}")));
            if users == wanted.collect() {
                break;
            }
            assert!(Instant::now() < until, "{users:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bridges.into_iter().for_each(Bridge::end);
    });
}

#[test]
fn a_full_stream_refuses_and_gives_up_nothing() {
    let (postgres, nats) = (Postgres::start(&[], None), Nats::start(""));
    let url = postgres.database("ledger");
    let stream = format!("url = \"nats://127.0.0.1:{}\"\npartitions = 4\nmax_bytes = 1048576\n", nats.port());
    let group = Group::with(&stream, &url, 1);
    runtime().block_on(async {
        let ledger = ledger(&url).await;
        let bridge = group.start(0);
        let client = reqwest::Client::new();
        start_containers(&client, &group.ports, CONTAINERS).await;
        // Nothing is judged while the ledger is away.
        postgres.kill();
        let (mut number, mut answered) = (10, 0);
        let refused = loop {
            let body: String = (number..number + 20).map(|number| format!("{}\n", intrusion(number))).collect();
            match answer(&client, group.ports[0], "falco", body).await {
                Some((200, _)) => (number, answered) = (number + 20, answered + 20),
                Some((503, body)) => break body,
                other => panic!("{other:?}"),
            }
        };
        assert!(refused.contains("the stream is full of what is not judged yet"), "{refused}");
        assert!(answered > 200, "{answered} events fill it");
        postgres.restart();
        let body: String = (number..number + 20).map(|number| format!("{}\n", intrusion(number))).collect();
        post_to_any(&client, &group.ports, 0, &body).await;
        answered += 20;
        assert_eq!(counted(&ledger, answered).await.values().sum::<u64>(), answered);
        bridge.end();
    });
}

#[test]
fn a_stream_is_reached_over_tls_by_who_is_known() {
    let files = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::new(files.path());
    let configuration = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\n\
         authorization {{ users: [{{ user: mayfly, password: \"a-password-of-this-test\" }}] }}\n",
        certificates.server, certificates.server_key, certificates.ca
    );
    let nats = Nats::start(&configuration);
    let url = format!(
        "url = \"tls://mayfly:a-password-of-this-test@localhost:{}\"\npartitions = 2\nmax_bytes = 268435456\n",
        nats.port()
    );
    let tls = format!(
        "ca = \"{}\"\nclient_certificate = \"{}\"\nclient_key = \"{}\"\n",
        certificates.ca, certificates.client, certificates.client_key
    );
    let folder = tempfile::tempdir().expect("a folder");
    let ledger_url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    runtime().block_on(async {
        let ledger = ledger(&ledger_url).await;
        let group = Group::with(&(url.clone() + &tls), &ledger_url, 1);
        let bridge = group.start(0);
        let client = reqwest::Client::new();
        start_containers(&client, &group.ports, 1).await;
        post_to_any(&client, &group.ports, 0, &intrusion(80).to_string()).await;
        assert_eq!(counted(&ledger, 1).await.values().sum::<u64>(), 1);
        bridge.end();
        // What cannot be is said at once, and no password with it.
        for (stream, told) in [
            (url.replace("s = 2\n", "s = 4\n") + &tls, "it has 2 partitions and is to have 4"),
            (url.replace("268435456", "1125899906842624") + "stream = \"vast\"\n" + &tls, "no room for it"),
            (url.clone() + &tls.replace("ca.pem", "none.pem"), "none.pem: No such file"),
        ] {
            let group = Group::with(&stream, &ledger_url, 1);
            let ended = group.run_to_its_end(0);
            assert!(ended.code != 0 && ended.stderr.contains(told), "{}", ended.stderr);
            assert!(!ended.stderr.contains("a-password-of-this-test"), "{}", ended.stderr);
        }
    });
}
