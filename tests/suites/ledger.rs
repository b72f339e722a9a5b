//! The ledger on both stores: the same cases on SQLite and on a real PostgreSQL; then what only a server can do to it: be
//! killed, hang, refuse, and prove who it is.

#[path = "../../lineage/tests/cases/mod.rs"]
mod cases;

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cases::{at, binding, decision, run};
use dna::Digest;
use lineage::{Binding, Error, Ledger, Record, Recorder, RecorderOptions, Verdict};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tests::Postgres;

mod on_sqlite {
    fn fresh() -> (String, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        (format!("sqlite:{}", folder.path().join("ledger.db").display()), folder)
    }

    crate::suite!(fresh);
}

mod on_postgres {
    crate::suite!(super::database);
}

/// A new database of a server that all cases share, and that ends with the last of them.
fn database() -> (String, Arc<Postgres>) {
    static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let running = server.upgrade().unwrap_or_else(|| Arc::new(Postgres::start(&["max_connections=300"], None)));
    *server = Arc::downgrade(&running);
    (running.database(&format!("case{}", NUMBER.fetch_add(1, Ordering::SeqCst))), running)
}

#[test]
fn a_server_that_is_killed_loses_nothing_that_was_taken() {
    let server = Postgres::start(&[], None);
    let url = server.database("ledger");
    let spool = tempfile::tempdir().expect("a folder");
    run(async {
        let ledger = Ledger::open(&url).await.expect("a ledger");
        let recorder = Recorder::start(ledger.clone(), &RecorderOptions::new(spool.path())).expect("a recorder");
        let mut taken = 0;
        let mut take = |count: i64| {
            for n in 0..count {
                assert!(recorder.record(binding(&format!("p{}", taken + n), n)));
                assert!(recorder.record(decision("web", "shop", Verdict::Allow, n)));
            }
            taken += count;
        };
        for _ in 0..2 {
            take(400);
            tokio::time::sleep(Duration::from_millis(30)).await;
            server.kill();
            take(400);
            while !recorder.counts().is_behind {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let error = ledger.ping().await.expect_err("it is down").to_string();
            assert!(error.contains("in the ledger postgres://127.0.0.1:"), "{error}");
            server.restart();
        }
        take(100);
        let counts = recorder.shutdown(Duration::from_secs(60)).await;
        assert_eq!(
            (counts.accepted, counts.written, counts.lost(), counts.spool_bytes),
            (3400, 3400, 0, 0),
            "{counts:?}"
        );
        assert!(counts.retries > 0);
        let rows = ledger.size().await.expect("measured").rows;
        assert_eq!((rows["bindings"], rows["decisions"]), (1700, 1700));
    });
}

#[test]
fn a_recorder_begins_before_its_ledger() {
    let server = Postgres::start(&[], None);
    let url = server.database("ledger");
    server.kill();
    let spool = tempfile::tempdir().expect("a folder");
    run(async {
        let ledger = Ledger::new(&url).expect("a ledger");
        let recorder = Recorder::start(ledger.clone(), &RecorderOptions::new(spool.path())).expect("a recorder");
        assert!(recorder.record(binding("p", 1)));
        while !recorder.counts().is_behind {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.restart();
        let counts = recorder.shutdown(Duration::from_secs(60)).await;
        assert_eq!((counts.written, counts.spool_bytes), (1, 0), "{counts:?}");
        assert_eq!(ledger.bindings_of_pod("east", "p").await.expect("read").len(), 1);
    });
}

#[test]
fn what_the_server_refuses_is_counted_and_holds_up_nothing() {
    let (url, _server) = database();
    let spool = tempfile::tempdir().expect("a folder");
    run(async {
        let ledger = Ledger::open(&url).await.expect("a ledger");
        let recorder = Recorder::start(ledger.clone(), &RecorderOptions::new(spool.path())).expect("a recorder");
        // Three names of 1 KiB that do not compress: more than an index entry takes.
        let long =
            |seed: u32| (0..20).map(move |n| Digest::sha256(&[seed.to_le_bytes(), [n; 4]].concat()).hex().to_owned());
        let [cluster, pod_uid, container] = [1, 2, 3].map(|seed| long(seed).collect::<String>());
        let refused: Record = Binding { cluster, pod_uid, container, ..binding("bad", 0) }.into();
        for n in 0..20 {
            recorder.record(binding(&format!("p{n}"), n));
        }
        recorder.record(refused);
        for n in 20..40 {
            recorder.record(binding(&format!("p{n}"), n));
        }
        let counts = recorder.shutdown(Duration::from_secs(60)).await;
        assert_eq!((counts.written, counts.lost_refused), (40, 1), "{counts:?}");
        assert_eq!(ledger.size().await.expect("measured").rows["bindings"], 40);
    });
}

#[test]
fn a_server_that_hangs_is_waited_for_seconds_only() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    run(async {
        let began = Instant::now();
        let url = format!("postgres://mayfly:hunter2@127.0.0.1:{port}/ledger?sslmode=disable");
        let error = Ledger::open(&url).await.expect_err("it hangs");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let text = format!("{error} {error:?}");
        assert!(text.contains("cannot be reached") && !text.contains("hunter2"), "{text}");
    });
}

#[test]
fn a_server_proves_who_it_is() {
    let authority = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).expect("signed").pem(), Issuer::new(params, key))
    };
    let ((ours, issuer), (other, _)) = (authority("ours"), authority("other"));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("names");
    let leaf = params.signed_by(&key, &issuer).expect("signed").pem();
    let server = Postgres::start(&[], Some((&leaf, &key.serialize_pem())));
    let url = server.database("ledger").replace("127.0.0.1", "localhost");
    let folder = tempfile::tempdir().expect("a folder");
    run(async {
        let open = async |pem: &str, url: &str| {
            let root = tests::written(folder.path(), "root.pem", pem);
            Ledger::open(&format!("{url}?sslmode=verify-full&sslrootcert={root}")).await
        };
        let ledger = open(&ours, &url).await.expect("the right authority");
        ledger.write(&[binding("p", 1).into()], at(1)).await.expect("written");
        for (pem, url) in [(&other, url.clone()), (&ours, url.replace("localhost", "127.0.0.1"))] {
            let error = open(pem, &url).await.expect_err("a refusal");
            assert!(matches!(&error, Error::Migrate { .. }) && error.to_string().contains("sslrootcert"), "{error}");
        }
        let plain = Postgres::start(&[], None);
        let error = open(&ours, &plain.database("ledger")).await.expect_err("no TLS at all");
        assert!(error.to_string().contains("sslmode=disable"), "{error}");
    });
}
