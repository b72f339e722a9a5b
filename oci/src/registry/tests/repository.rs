//! Reading: what each kind of answer, and each lie, is taken for.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::{Descriptor, OCI_EMPTY, fixture::descriptor};

fn kind<T>(lookup: &Lookup<T>) -> &'static str {
    match lookup {
        Lookup::Present(_) => "present",
        Lookup::Absent => "absent",
        Lookup::Unknown(_) => "unknown",
    }
}

fn error<T: std::fmt::Debug>(lookup: Lookup<T>) -> Error {
    lookup.known().expect_err("unknown")
}

fn digest() -> Digest {
    Digest::sha256(&manifest("amd64"))
}

fn image_type() -> String {
    format!("Content-Type: {OCI_MANIFEST}; charset=utf-8\r\n")
}

#[test]
fn head_takes_the_registrys_word_for_a_tag_and_asks_for_the_manifest_where_it_gives_none() {
    for told in [true, false] {
        let server = Server::image(move |asked, _| {
            let fields = format!("{}Docker-Content-Digest: {}\r\n", image_type(), digest());
            (told && asked.path.ends_with("/manifests/1")).then(|| reply(200, &fields, &manifest("amd64")))
        });
        let found = server.with(|_| {}, async |repository| repository.head("1").await.known());
        let size = u64::try_from(manifest("amd64").len()).expect("small");
        assert_eq!(found.expect("known"), Some(Descriptor::new(OCI_MANIFEST, digest(), size)));
        let methods: Vec<_> = server.asked("/manifests/1").into_iter().map(|asked| asked.method).collect();
        assert_eq!(methods, if told { vec!["HEAD"] } else { vec!["HEAD", "GET"] });
    }
    let server = Server::image(|asked, _| (asked.method == "HEAD").then(|| reply(405, "", b"")));
    assert_eq!(server.with(|_| {}, async |r| kind(&r.head("1").await)), "present", "a registry that knows GET only");
    let server = Server::image(|_, _| Some(reply(200, &format!("Docker-Content-Digest: {}\r\n", digest()), b"")));
    let other = Digest::sha256(b"other");
    let lie = server.with(|_| {}, async |r| error(r.head(other.as_str()).await));
    assert!(matches!(lie, Error::Digest { .. }), "{lie}");
}

#[test]
fn only_not_found_is_absent() {
    let asked = |answer: Vec<u8>| {
        let server = Server::start(move |_, _| answer.clone());
        server.with(
            |settings| settings.retries = 0,
            async |r| {
                let head = kind(&r.head("1").await);
                let manifest = kind(&r.manifest(digest().as_str()).await);
                let referrers = r.referrers(&digest()).await;
                [head, manifest, kind(&r.blob(&digest(), 1 << 20).await), kind(&referrers.api), kind(&referrers.tag)]
            },
        )
    };
    assert_eq!(asked(reply(404, "", b"")), ["absent"; 5]);
    for status in [401, 403, 408, 410, 418, 429, 500, 502, 503, 504] {
        assert_eq!(asked(reply(status, "", b"{\"errors\":[]}")), ["unknown"; 5], "{status}");
    }
    for status in [400, 405, 406] {
        assert_eq!(asked(reply(status, "", b"")), ["unknown", "unknown", "unknown", "absent", "unknown"], "{status}");
    }
    assert_eq!(asked(Vec::new()), ["unknown"; 5], "it hangs up");
    let login = reply(200, "Content-Type: text/html\r\n", b"<html>Log in</html>");
    assert_eq!(asked(login), ["present", "unknown", "unknown", "unknown", "unknown"]);
}

#[test]
fn not_found_is_believed_of_the_registry_only() {
    let elsewhere = Server::start(|_, _| reply(404, "", b""));
    let to = elsewhere.address.clone();
    let redirecting = |status: u16| {
        let to = to.clone();
        let server = Server::start(move |_, _| reply(status, &format!("Location: http://{to}/login\r\n"), b""));
        server.with(
            |_| {},
            async |r| {
                let referrers = r.referrers(&digest()).await;
                [
                    kind(&r.head("1").await),
                    kind(&r.blob(&digest(), 9).await),
                    kind(&referrers.api),
                    kind(&referrers.tag),
                ]
            },
        )
    };
    assert_eq!(redirecting(307), ["unknown"; 4]);
    assert_eq!(redirecting(303), ["unknown", "unknown", "absent", "unknown"], "as registries with web pages answer");
    let tokens = Server::start(|asked, own| match asked.path.starts_with("/token") {
        true => reply(404, "", b""),
        false => reply(401, &format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n"), b""),
    });
    assert_eq!(tokens.with(|_| {}, async |r| kind(&r.manifest("1").await)), "unknown", "a token service that is gone");
}

#[test]
fn manifests_of_any_kind_are_given_with_their_bytes() {
    let artifact =
        json!({"schemaVersion": 2, "artifactType": "x/y", "config": descriptor(OCI_EMPTY, b"{}")}).to_string();
    let bytes = artifact.clone().into_bytes();
    let server = Server::start(move |_, _| reply(200, "Content-Type: application/x\r\n", &bytes));
    let (found, bytes) =
        server.with(|_| {}, async |r| r.manifest("sha256-abc.sig").await.known()).expect("known").expect("there");
    assert_eq!((found.digest, bytes.as_slice()), (Digest::sha256(artifact.as_bytes()), artifact.as_bytes()));
    assert_eq!(found.media_type, "application/x");
    let parsed: crate::Manifest = serde_json::from_slice(&bytes).expect("a manifest");
    assert_eq!((parsed.artifact_type.as_deref(), parsed.config.size), (Some("x/y"), 2));
}

#[test]
fn manifests_that_are_not_what_their_digest_says_are_unknown() {
    let told = format!("Docker-Content-Digest: {}\r\n", Digest::sha256(b"other"));
    let server = Server::image(move |asked, _| {
        asked.path.ends_with("/manifests/1").then(|| reply(200, &told, &manifest("amd64")))
    });
    assert!(matches!(server.with(|_| {}, async |r| error(r.manifest("1").await)), Error::Digest { .. }));
    let server = Server::start(|_, _| reply(200, "", b"{}"));
    let lie = server.with(|_| {}, async |r| error(r.manifest(digest().as_str()).await));
    assert!(matches!(lie, Error::Digest { .. }), "{lie}");
    let server = Server::start(|_, _| endless(&vec![b' '; 1 << 20]));
    let small = Limits { manifest_bytes: 10_000, ..Limits::default() };
    let large = server.with(|_| {}, async |r| error(r.with_limits(&small).manifest("1").await));
    assert!(matches!(large, Error::Limit { name: "manifest_bytes", .. }), "{large}");
}

#[test]
fn names_that_would_lead_elsewhere_are_not_asked_for() {
    let server = Server::start(|_, _| reply(200, "", b"{}"));
    for name in ["", "../x", "a/b", "1?x=y", "sha256:abc", "a b", &"a".repeat(129)] {
        assert!(
            matches!(server.with(|_| {}, async |r| error(r.manifest(name).await)), Error::Malformed { .. }),
            "{name}"
        );
        assert!(matches!(server.with(|_| {}, async |r| error(r.head(name).await)), Error::Malformed { .. }), "{name}");
    }
    assert_eq!(server.asked("").len(), 0);
}

#[test]
fn a_blob_is_bounded_verified_and_resumed() {
    let bytes: Vec<u8> = (0..9_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::sha256(&bytes);
    let served = bytes.clone();
    let server = Server::start(move |asked, _| match (asked.before, asked.range.as_str()) {
        (0, _) => {
            let mut answer = reply(200, "", &served);
            answer.truncate(answer.len() - 10_000);
            answer
        }
        (_, "") => reply(500, "", b""),
        (_, range) => {
            let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a number");
            reply(206, &format!("Content-Range: bytes {from}-x/y\r\n"), served.get(from..).expect("within"))
        }
    });
    let found = server.with(|_| {}, async |r| r.blob(&digest, 1 << 20).await.known()).expect("known");
    assert_eq!(found.as_ref(), Some(&bytes));
    assert_eq!(server.asked("").len(), 2);
    for answer in [reply(200, "", &bytes), endless(&bytes)] {
        let server = Server::start(move |_, _| answer.clone());
        let large = server.with(|_| {}, async |r| error(r.blob(&digest, 100).await));
        assert!(matches!(large, Error::Limit { limit: 100, .. }), "{large}");
        let exact = server.with(|_| {}, async |r| kind(&r.blob(&digest, 36_000).await));
        assert_eq!(exact, "present");
    }
    let server = Server::start(|_, _| reply(200, "", b"other"));
    assert!(matches!(server.with(|_| {}, async |r| error(r.blob(&digest, 100).await)), Error::Digest { .. }));
    let cut = Server::start(|_, _| b"HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\nabc".to_vec());
    assert!(matches!(cut.with(|_| {}, async |r| error(r.blob(&digest, 100).await)), Error::Connection { .. }));
}

#[test]
fn a_call_ends_by_its_deadline_and_waits_for_nobody_beyond_it() {
    let hanging = Server::start(|_, _| {
        thread::sleep(Duration::from_secs(60));
        Vec::new()
    });
    let soon = |r: &Repository| r.with_deadline(Instant::now() + Duration::from_millis(30));
    let before = Instant::now();
    let late = hanging.with(|_| {}, async |r| error(soon(&r).head("1").await));
    assert!(matches!(late, Error::Timeout { .. }), "{late}");
    let both = hanging.with(|_| {}, async |r| soon(&r).referrers(&digest()).await.all());
    assert!(both.0.is_empty() && matches!(both.1, Some(Error::Timeout { .. })));
    // Far from either time, however busy the machine is.
    assert!(before.elapsed() < Duration::from_secs(30));
    let busy = Server::start(|_, _| reply(429, "Retry-After: 60\r\n", b""));
    let late = busy
        .with(|_| {}, async |r| error(r.with_deadline(Instant::now() + Duration::from_secs(30)).manifest("1").await));
    assert!(matches!(late, Error::Throttled { retry_after: Some(wait), .. } if wait.as_secs() == 60), "{late}");
    assert_eq!(busy.asked("").len(), 1, "a minute is more than there is time for");
}

/// An index of descriptors of the bytes `0`, `1` …
fn listed(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let entries: Vec<Value> = numbers.map(|n| descriptor(OCI_MANIFEST, n.to_string().as_bytes())).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

fn index_reply(fields: &str, body: &[u8]) -> Vec<u8> {
    reply(200, &format!("Content-Type: {OCI_INDEX}\r\n{fields}"), body)
}

#[test]
fn referrers_are_read_from_the_api_page_by_page_and_from_the_tag() {
    let server = Server::start(|asked, own| match asked.path.split_once("referrers/") {
        Some((_, rest)) if rest == digest().as_str() => {
            index_reply("Link: </v2/team/app/referrers/x?page=2>; rel=\"next\"\r\n", &listed(0..2))
        }
        Some((_, "x?page=2")) => index_reply(&format!("Link: <http://{own}/y?page=3>;rel=next\r\n"), &listed(2..4)),
        None if asked.path == "/y?page=3" => index_reply("Link: <z>; rel=\"prev\"\r\n", &listed(4..5)),
        None if asked.path.ends_with(&digest().as_str().replace(':', "-")) => index_reply("", &listed(4..6)),
        _ => reply(404, "", b""),
    });
    let referrers = server.with(|_| {}, async |r| r.referrers(&digest()).await);
    assert_eq!(referrers.api.present().map(Vec::len), Some(5));
    assert_eq!(referrers.tag.present().map(Vec::len), Some(2));
    let (all, reason) = referrers.all();
    assert_eq!((all.len(), reason.is_none()), (6, true), "what both list counts once");
}

#[test]
fn a_list_that_is_not_whole_is_unknown() {
    let api = |second: Vec<u8>, link: &'static str| {
        let server = Server::start(move |asked, _| match asked.path.contains("page=") {
            true => second.clone(),
            false => index_reply(&format!("Link: <{link}>; rel=\"next\"\r\n"), &listed(0..2)),
        });
        server.with(|settings| settings.retries = 0, async |r| kind(&r.referrers(&digest()).await.api))
    };
    let good = || index_reply("", &listed(2..3));
    assert_eq!(api(good(), "?page=2"), "present");
    assert_eq!(api(good(), "http://127.0.0.1:1/?page=2"), "unknown", "another server");
    for status in [303, 400, 401, 404, 405, 406, 429, 500] {
        assert_eq!(api(reply(status, "", b""), "?page=2"), "unknown", "{status}");
    }
    assert_eq!(api(reply(200, "Content-Type: application/json\r\n", b"{}"), "?page=2"), "unknown");
    let endless = index_reply("Link: <?page=2>; rel=\"next\"\r\n", &listed(2..2));
    assert_eq!(api(endless, "?page=2"), "unknown", "it leads in a circle");
    assert_eq!(api(index_reply("", &listed(0..1_000)), "?page=2"), "unknown", "more than the limit");
}

#[test]
fn other_answers_than_indexes_tell_a_missing_api_from_a_page() {
    let api = |media_type: &str, body: &'static [u8]| {
        let fields = if media_type.is_empty() { String::new() } else { format!("Content-Type: {media_type}\r\n") };
        let server = Server::start(move |_, _| reply(200, &fields, body));
        server.with(|_| {}, async |r| kind(&r.referrers(&digest()).await.api))
    };
    let empty = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    assert_eq!(api(OCI_INDEX, empty), "present");
    assert_eq!(api("application/json; charset=utf-8", empty), "present");
    assert_eq!(api("application/json", br#"{"message":"no such route"}"#), "absent");
    assert_eq!(api("application/json", br#"{"mess"#), "unknown");
    for page in ["text/html", "text/plain", ""] {
        assert_eq!(api(page, b"<html>Log in</html>"), "unknown", "{page}");
    }
    assert_eq!(api(OCI_INDEX, br#"{"schemaVersion":2,"manifests":[{"digest":"x"}]}"#), "unknown");
    let image = Server::start(|asked, _| match asked.path.contains("/referrers/") {
        true => reply(404, "", b""),
        false => reply(200, &image_type(), &manifest("amd64")),
    });
    let tag = image.with(|_| {}, async |r| kind(&r.referrers(&digest()).await.tag));
    assert_eq!(tag, "unknown", "an image where the index should be");
}

#[test]
fn requests_are_counted_by_what_became_of_them() {
    let server =
        Server::image(|asked, _| (asked.path.ends_with("/busy") && asked.before == 0).then(|| reply(503, "", b"")));
    let requests = Requests::default();
    let shared = requests.clone();
    server.with(
        |settings| settings.requests = shared,
        async |r| {
            let _ = (r.manifest("1").await, r.manifest("busy").await, r.blob(&digest(), 9).await);
        },
    );
    let counted = |kind, outcome| requests.counts().iter().find(|c| (c.0, c.1) == (kind, outcome)).map_or(0, |c| c.2);
    assert_eq!(counted(RequestKind::Manifest, Outcome::Success), 1);
    assert_eq!(counted(RequestKind::Manifest, Outcome::ServerError), 1);
    assert_eq!(counted(RequestKind::Manifest, Outcome::Missing), 1);
    assert_eq!(requests.total(), u64::try_from(server.asked("").len()).expect("few"));
}

#[test]
fn repositories_are_shared_between_tasks() {
    fn shareable<T: Send + Sync + 'static>(_: T) {}
    let server = Server::image(|_, _| None);
    server.with(
        |_| {},
        async |r| {
            let other = r.clone();
            let task = tokio::spawn(async move { (other.head("1").await, other.referrers(&digest()).await) });
            assert_eq!(kind(&task.await.expect("no panic").0), "present");
            assert!(!format!("{r:?}").contains("credential"));
            shareable(r);
        },
    );
}
