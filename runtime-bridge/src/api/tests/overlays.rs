//! Accept-as-expected, from the proposal to the act that is no deviation any more; and all that must not count.

use lineage::OverlayRow;
use trust::{NewKey, Overlay, OverlayPredicate, SigningKey, Statement};

use super::*;
use crate::overlays::{Accepted, Overlays, Signers};

/// A key, and a file with its public half.
fn key(folder: &tempfile::TempDir, name: &str) -> (SigningKey, std::path::PathBuf) {
    let new = NewKey::generate(b"").expect("a key");
    let path = folder.path().join(name);
    std::fs::write(&path, &new.public).expect("written");
    (SigningKey::from_pem(&new.private, || Ok::<_, trust::SigningKeyError>(Vec::new())).expect("a key"), path)
}

async fn sign(key: &SigningKey, statement: &Value) -> Value {
    let bundle = trust::sign(key, None, statement.to_string().as_bytes()).await.expect("signed");
    serde_json::from_slice(&bundle).expect("JSON")
}

fn signers(file: &std::path::Path) -> Signers {
    let text = format!("[[signer]]\nname = \"security\"\nkey_file = {file:?}\nevidence = \"signature\"\n");
    Signers::parse(&text, "signers.toml").expect("signers")
}

struct Bench {
    server: Server,
    own: SigningKey,
    stranger: SigningKey,
    signers: Signers,
}

async fn bench() -> Bench {
    let (ledger, folder) = ledger().await;
    let ((own, file), (stranger, _)) = (key(&folder, "own.pub"), key(&folder, "stranger.pub"));
    let signers = signers(&file);
    let who: Vec<Arc<dyn Authenticate>> = vec![Arc::new(people())];
    let api = Api::new(ledger, who, Arc::new(sensors)).accepting(signers.clone());
    Bench { server: serve(api, folder, None).await, own, stranger, signers }
}

impl Bench {
    async fn post(&self, token: &str, bundle: &Value) -> Answer {
        self.server.ask("POST", "/overlays", token, Some(bundle.clone())).await
    }

    /// What is accepted, as a bridge reads it.
    async fn overlays(&self) -> Overlays {
        let rows = self.server.api.ledger.overlays_in_force(Timestamp::now()).await.expect("read");
        Overlays::of(&rows, &self.signers, &mut BTreeSet::new())
    }
}

fn soon(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

fn deviation(alert: &alert::Alert) -> Deviation {
    Deviation {
        class: alert.class,
        subject: alert.subject.clone(),
        message: alert.message.clone(),
        after: None,
        layer: None,
        package: None,
        risk: alert.risk,
        drivers: Vec::new(),
        technique: alert.technique.clone(),
        blocked: false,
    }
}

#[tokio::test]
async fn what_is_accepted_is_proposed_signed_and_given_back() {
    let bench = bench().await;
    let server = &bench.server;
    let (alert, foreign) = (alert("shop", "tcp/9000", 0.8, 1), alert("bank", "tcp/1", 0.8, 1));
    server.commit(&[alert.clone(), foreign.clone()], &[]).await;
    let asked = |hours| json!({ "reason": "a debug port", "expiresAt": soon(hours) });
    let proposed = server.act(&alert.id, "accept", SHOP, asked(24)).await;
    assert_eq!(proposed.status, 200, "{}", proposed.text);
    let statement = proposed.json()["statement"].clone();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest("web").hex());
    assert_eq!(statement["predicateType"], "https://mayfly.dev/overlay/v1");
    let scope = json!({"cluster": "east", "namespace": "shop", "owner": "Deployment/web", "container": "web"});
    assert_eq!((&statement["predicate"]["scope"], &statement["predicate"]["actor"]), (&scope, &json!("shop-writer")));
    let is_accepted = |overlays: &Overlays, place: &Place, image: &str, seconds: i64| {
        let at = Timestamp::now() + SignedDuration::from_secs(seconds);
        overlays.accept(image, place, &deviation(&alert), at)
    };
    let image = digest("web").to_string();
    assert!(!is_accepted(&bench.overlays().await, &alert.place, &image, 1), "a proposal is none");

    let taken = bench.post(SHOP, &sign(&bench.own, &statement).await).await;
    assert_eq!(taken.status, 201, "{}", taken.text);
    let view = taken.json();
    assert_eq!(
        (&view["state"], &view["signer"], &view["acceptedBy"]),
        (&json!("inForce"), &json!("security"), &json!("shop-writer"))
    );
    assert_eq!(bench.post(SHOP, &sign(&bench.own, &statement).await).await.status, 200, "signed again, it is the same");
    let overlays = bench.overlays().await;
    assert!(is_accepted(&overlays, &alert.place, &image, 1));
    assert!(!is_accepted(&overlays, &alert.place, &image, -3600), "what was before stays what it was");
    assert!(!is_accepted(&overlays, &alert.place, &image, 25 * 3600), "it ends");
    assert!(!is_accepted(&overlays, &alert.place, &digest("next").to_string(), 1), "another digest");
    let elsewhere = Place { owner: "Deployment/other".into(), ..alert.place.clone() };
    assert!(!is_accepted(&overlays, &elsewhere, &image, 1), "another workload");
    let other = Deviation { subject: "tcp/9001".into(), ..deviation(&alert) };
    assert!(!overlays.accept(&image, &alert.place, &other, Timestamp::now()), "another port");

    // Who sees what, and who did what.
    let id = view["id"].as_str().expect("an id").to_owned();
    let listed = async |token| server.get("/overlays", token).await.json()["overlays"].as_array().map(Vec::len);
    assert_eq!((listed(SHOP_READER).await, listed(READER).await), (Some(1), Some(1)));
    assert_eq!(server.get(&format!("/overlays/{id}"), SHOP_READER).await.json()["accepts"]["subject"], "tcp/9000");
    let trail = server.get(&format!("/alerts/{}", alert.id), SHOP).await.json()["audit"].clone();
    let said: Vec<&str> =
        trail.as_array().expect("entries").iter().filter_map(|entry| entry["reason"].as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("a debug port") && said[1].contains("it is expected from now on"), "{said:?}");

    let revoke = async |token| server.ask("DELETE", &format!("/overlays/{id}?reason=done"), token, None).await;
    revoke(SHOP_READER).await.problem(403);
    assert_eq!(revoke(SHOP).await.status, 204);
    revoke(SHOP).await.problem(404);
    assert!(!is_accepted(&bench.overlays().await, &alert.place, &image, 1), "revoked");
    let view = server.get(&format!("/overlays/{id}"), SHOP).await.json();
    assert_eq!(
        (&view["state"], &view["revokedBy"], &view["revokedReason"]),
        (&json!("revoked"), &json!("shop-writer"), &json!("done"))
    );
    assert!(bench.post(SHOP, &sign(&bench.own, &statement).await).await.problem(409).contains("revoked"));
}

#[tokio::test]
async fn what_must_not_count_is_refused_and_says_why() {
    let bench = bench().await;
    let server = &bench.server;
    let (alert, mut image) = (alert("shop", "tcp/9000", 0.8, 1), alert("shop", "sha256:ab", 0.9, 1));
    image.id = "image".into();
    image.class = Class::BindingMismatch;
    server.commit(&[alert.clone(), image], &[]).await;
    let propose = async |id: &str, token, body: Value| server.act(id, "accept", token, body).await;
    let asked = |expires: Timestamp, scope: Value| json!({ "reason": "x", "expiresAt": expires, "scope": scope });
    propose(&alert.id, SHOP_READER, json!({ "reason": "x", "expiresAt": soon(1) })).await.problem(403);
    propose(&alert.id, SHOP, json!({ "reason": "x", "expiresAt": soon(-1) })).await.problem(400);
    propose(&alert.id, SHOP, json!({ "reason": "x", "expiresAt": soon(24 * 400) })).await.problem(400);
    propose(&alert.id, SHOP, asked(soon(1), json!({"namespace": "bank"}))).await.problem(400);
    propose(&alert.id, SHOP, asked(soon(1), json!({"cluster": "east"}))).await.problem(403);
    assert!(
        propose("image", ADMIN, json!({ "reason": "x", "expiresAt": soon(1) })).await.problem(409).contains("no act")
    );
    let proposed = propose(&alert.id, SHOP, json!({ "reason": "x", "expiresAt": soon(1) })).await;
    let statement = proposed.json()["statement"].clone();

    // Unsigned, by another key, changed after it was signed, about something else.
    bench.post(SHOP, &statement).await.problem(400);
    let by_stranger = sign(&bench.stranger, &statement).await;
    let why = bench.post(SHOP, &by_stranger).await.problem(400);
    assert!(why.contains("signed by key") || why.contains("signature"), "{why}");
    let mut changed = sign(&bench.own, &statement).await;
    let mut wider = statement.clone();
    wider["predicate"]["scope"] = json!({});
    use base64::Engine as _;
    changed["dsseEnvelope"]["payload"] = base64::engine::general_purpose::STANDARD.encode(wider.to_string()).into();
    assert!(bench.post(ADMIN, &changed).await.problem(400).contains("does not verify"));
    let mut dna = statement.clone();
    dna["predicateType"] = "https://mayfly.dev/dna/v1".into();
    assert!(bench.post(SHOP, &sign(&bench.own, &dna).await).await.problem(400).contains("no overlay"));
    let mut two = statement.clone();
    two["subject"].as_array_mut().expect("subjects").push(json!({"digest": {"sha256": digest("other").hex()}}));
    bench.post(SHOP, &sign(&bench.own, &two).await).await.problem(400);
    // Signed by who may, and over; and wider than who sends it may.
    let mut over = statement.clone();
    over["predicate"]["expiresAt"] = json!(soon(-1));
    assert!(bench.post(SHOP, &sign(&bench.own, &over).await).await.problem(400).contains("expiresAt"));
    bench.post(SHOP, &sign(&bench.own, &wider).await).await.problem(403);
    assert_eq!(bench.overlays().await, Overlays::default());
    assert_eq!(server.api.ledger.overlays().await.expect("read"), []);

    // Whoever can write to the ledger makes nothing expected.
    let row = |bundle: &Value, id: Digest, image: Digest, ends: Timestamp| OverlayRow {
        id,
        image,
        bundle: Document::pack(bundle.to_string().as_bytes()).expect("packed"),
        expires_at: ends,
        accepted_at: Timestamp::now() - SignedDuration::from_mins(1),
        accepted_by: "nobody".into(),
        revoked: None,
    };
    let signed = sign(&bench.own, &statement).await;
    let said: Statement = serde_json::from_value(statement.clone()).expect("a statement");
    let (image, predicate) = OverlayPredicate::of(&said).expect("an overlay");
    let (id, ends) = (Digest::sha256(statement.to_string().as_bytes()), predicate.expires_at);
    for (what, row) in [
        ("by a stranger", row(&by_stranger, id.clone(), image.clone(), ends)),
        ("unsigned", row(&statement, id.clone(), image.clone(), ends)),
        ("for another image", row(&signed, id.clone(), digest("other"), ends)),
        ("for longer", row(&signed, id.clone(), image.clone(), soon(48))),
        ("under another name", row(&signed, digest("x"), image.clone(), ends)),
    ] {
        assert!(Accepted::of(&row, &bench.signers).is_err(), "{what}");
        assert_eq!(Overlays::of(&[row], &bench.signers, &mut BTreeSet::new()), Overlays::default(), "{what}");
    }
    let good = Accepted::of(&row(&signed, id, image, ends), &bench.signers).expect("it counts");
    let Overlay { proof, .. } = good.overlay();
    assert_eq!(proof.signer, "security");
    // Who may sign no more makes nothing expected that he signed before.
    assert!(Accepted::of(&row(&signed, good.overlay().id.clone(), digest("web"), ends), &Signers::default()).is_err());
}

#[test]
fn signers_are_read_and_what_is_wrong_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, file) = key(&folder, "a.pub");
    assert!(!signers(&file).is_empty());
    let keyless =
        "[[signer]]\nname = \"alice\"\nsubject = \"alice@example.com\"\nissuer = \"https://issuer.example\"\n";
    assert!(Signers::parse(keyless, "s").is_ok());
    for (text, wanted) in [
        ("[[signer]]\nname = \"a\"\n".to_owned(), "`key_file`, or both"),
        ("[[signer]]\nname = \"a\"\nkey_file = \"/no/such\"\n".to_owned(), "/no/such: it cannot be read"),
        (format!("{keyless}evidence = \"signature\"\n"), "outlives its use"),
        (format!("{keyless}{keyless}"), "another signer has this name"),
        ("[[signer]]\nname = \"a\"\nkey = \"x\"\n".to_owned(), "unknown field `key`"),
    ] {
        let error = Signers::parse(&text, "s").expect_err("wrong").to_string();
        assert!(error.starts_with('s') && error.contains(wanted), "{error}");
    }
}
