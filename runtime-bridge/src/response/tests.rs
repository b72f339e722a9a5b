//! What is done, what is not and why; by hands that only remember.

use std::sync::Mutex;

use dna::Activity;
use futures_util::FutureExt as _;
use lineage::{Checkpoint, Committed};
use policies::runtime::Planned;
use serde_json::json;

use super::*;
use crate::{
    Class, Deviation,
    alert::{Place, collate},
    rules::Ruled,
    stored,
};

#[derive(Debug, Default)]
struct Remembering {
    did: Mutex<Vec<String>>,
    is_failing: bool,
}

impl Hands for Remembering {
    fn may<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, Result<bool, String>> {
        async move { Ok(namespace == "shop") }.boxed()
    }

    fn act<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Value, Undone>> {
        async move {
            if self.is_failing {
                return Err(Undone::Failed("no right".to_owned()));
            }
            let did = format!("{} {}/{}", order.action.name(), order.namespace, order.target);
            self.did.lock().expect("no panic").push(did);
            Ok(json!({"replicas": 3}))
        }
        .boxed()
    }

    fn undo<'a>(&'a self, row: &'a ResponseRow) -> BoxFuture<'a, Result<(), String>> {
        async move {
            self.did.lock().expect("no panic").push(format!("undo {} {}", row.action, row.target));
            Ok(())
        }
        .boxed()
    }
}

fn alert(namespace: &str, responses: &[(ResponseAction, bool)]) -> Alert {
    let place = Place {
        cluster: "c".to_owned(),
        namespace: namespace.to_owned(),
        owner: "Deployment/web".to_owned(),
        container: "app".to_owned(),
        image: String::new(),
        digest: "sha256:aa".to_owned(),
    };
    let deviation = Deviation {
        class: Class::Write,
        subject: "/etc/passwd".to_owned(),
        message: String::new(),
        after: None,
        layer: None,
        package: None,
        risk: 0.9,
        drivers: Vec::new(),
        technique: String::new(),
        blocked: false,
    };
    let activity: Activity = serde_json::from_value(json!({"at": Timestamp::now(), "sensor": "s", "process": {},
        "container": {"pod": "web-1", "podUid": "u1"}, "act": {"kind": "write", "path": "/etc/passwd", "change": "open"}}))
    .expect("an activity");
    let mut alert = None;
    collate(&mut alert, &place, "web-1", &deviation, &activity, std::iter::empty());
    let mut alert = alert.expect("an alert");
    let planned = |(action, dry_run): &(ResponseAction, bool)| Planned {
        action: *action,
        dry_run: *dry_run,
        rules: ["miners".to_owned()].into(),
    };
    alert.ruled = Ruled { responses: responses.iter().map(planned).collect(), ..Ruled::default() };
    alert
}

struct Bench {
    ledger: Ledger,
    hands: Arc<Remembering>,
    responder: Responder,
    revision: u64,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(hands: Remembering, limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = Ledger::open(&url).await.expect("a ledger");
        let hands = Arc::new(hands);
        let by: Arc<dyn Hands> = hands.clone();
        let responder = Responder::new(ledger.clone(), "c", Some(by), limits);
        Self { ledger, hands, responder, revision: 0, _folder: folder }
    }

    async fn see(&mut self, alert: &Alert) {
        let known = self.ledger.alerts_by_id(&[alert.id.clone()].into(), Timestamp::now()).await.expect("read").pop();
        let row = stored::row(alert, known.map_or(0, |row| row.head.revision)).expect("packed");
        let at = Timestamp::now();
        let checkpoint = Checkpoint { bridge: "b".into(), epoch: 0, offset: 1, judged: Vec::new(), at };
        let done = self.ledger.commit(&checkpoint, &[row], &[], &[]).await.expect("committed");
        assert!(matches!(done, Committed::Done(_)));
        self.responder.catch_up(&mut self.revision, &mut None).await.expect("read");
    }

    fn did(&self) -> Vec<String> {
        std::mem::take(&mut *self.hands.did.lock().expect("no panic"))
    }

    async fn states(&self) -> Vec<(String, &'static str, String)> {
        let rows = self.ledger.responses(None, 100).await.expect("read");
        let mut states: Vec<_> = rows.into_iter().map(|row| (row.action, row.state.as_str(), row.note)).collect();
        states.sort();
        states
    }
}

#[tokio::test]
async fn what_is_meant_is_done_once_and_taken_back_once() {
    use ResponseAction::{DeletePod, Isolate, QuarantineDigest, ScaleToZero};
    let mut bench = Bench::new(Remembering::default(), Limits::default()).await;
    let alert = alert("shop", &[(Isolate, false), (DeletePod, true), (ScaleToZero, false), (QuarantineDigest, false)]);
    bench.see(&alert).await;
    bench.see(&alert).await;
    let mut did = bench.did();
    did.sort();
    assert_eq!(did, ["Isolate shop/web-1", "QuarantineDigest shop/sha256:aa", "ScaleToZero shop/Deployment/web"]);
    let states = bench.states().await;
    assert_eq!(
        states.iter().map(|(action, state, _)| (action.as_str(), *state)).collect::<Vec<_>>(),
        [("DeletePod", "dry-run"), ("Isolate", "done"), ("QuarantineDigest", "done"), ("ScaleToZero", "done")]
    );
    let trail = bench.ledger.audit(&alert.id).await.expect("read");
    assert_eq!(trail.len(), 3);
    assert!(trail.iter().all(|entry| entry.actor == "mayfly" && entry.reason.contains("by miners")), "{trail:?}");

    // A clone in another process has nothing to do.
    let mut revision = 0;
    bench.responder.catch_up(&mut revision, &mut None).await.expect("read");
    assert!(bench.did().is_empty());

    for row in bench.ledger.responses(None, 100).await.expect("read") {
        let undone = bench.responder.undo(&row, "alice", "a drill").await;
        assert_eq!(undone.is_err(), row.state == ResponseState::DryRun, "{undone:?}");
        let row = bench.ledger.response(&row.id).await.expect("read").expect("there");
        assert!(bench.responder.undo(&row, "alice", "again").await.is_err());
    }
    let mut did = bench.did();
    did.sort();
    assert_eq!(did, ["undo Isolate web-1", "undo ScaleToZero Deployment/web"], "a quarantine is the ledger's");
    bench.see(&alert).await;
    assert!(bench.did().is_empty(), "what a person took back is not done again");
}

#[tokio::test]
async fn what_is_not_allowed_is_kept_with_why() {
    let mut bench = Bench::new(Remembering::default(), Limits { per_hour: 20, per_namespace: 1 }).await;
    bench.see(&alert("bank", &[(ResponseAction::DeletePod, false)])).await;
    assert!(bench.states().await[0].2.contains("no label mayfly.dev/respond=true"), "{:?}", bench.states().await);
    bench.see(&alert("shop", &[(ResponseAction::Isolate, false), (ResponseAction::DeletePod, false)])).await;
    assert_eq!(bench.did(), ["Isolate shop/web-1"]);
    let states = bench.states().await;
    assert!(
        states.iter().any(|(_, state, note)| *state == "refused" && note.contains("the limits are 20 and 1")),
        "{states:?}"
    );
    // Suppressed, resolved, or of another cluster: nothing.
    let mut quiet = alert("shop", &[(ResponseAction::Isolate, false)]);
    quiet.state = State::Resolved;
    assert!(orders(&quiet, "c").is_empty());
    assert!(orders(&alert("shop", &[(ResponseAction::Isolate, false)]), "d").is_empty());

    let mut failing = Bench::new(Remembering { is_failing: true, ..Remembering::default() }, Limits::default()).await;
    failing.see(&alert("shop", &[(ResponseAction::Isolate, false)])).await;
    assert_eq!(failing.states().await, [("Isolate".to_owned(), "failed", "no right".to_owned())]);
    let idle = Responder::new(failing.ledger.clone(), "c", None, Limits::default());
    let row = failing.ledger.responses(None, 1).await.expect("read").remove(0);
    assert!(idle.undo(&row, "a", "b").await.expect_err("nothing").contains("failed"));
}
