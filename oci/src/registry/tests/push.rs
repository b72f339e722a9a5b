//! Writing: uploads wherever the registry sends them, manifests, deletions.

use super::*;
use crate::Descriptor;

const BYTES: &[u8] = b"an attestation";

/// What was sent, in order, by method and path.
fn sent(server: &Server) -> Vec<String> {
    server.asked("").iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
}

fn push(server: &Server) -> Result<Descriptor, Error> {
    server.with(|_| {}, async |r| r.push_blob("text/plain", BYTES).await)
}

#[test]
fn a_blob_is_uploaded_in_one_piece_unless_it_is_there() {
    for place in ["/up/1?state=a", "http://OWN/up/1?state=a"] {
        let server = Server::start(move |asked, own| match asked.method.as_str() {
            "POST" => reply(202, &format!("Location: {}\r\n", place.replace("OWN", own)), b""),
            "PUT" => reply(201, "", b""),
            _ => reply(404, "", b""),
        });
        let digest = Digest::sha256(BYTES);
        assert_eq!(push(&server).expect("pushed"), Descriptor::of("text/plain", BYTES));
        let put = format!("PUT /up/1?state=a&digest={}", digest.as_str().replace(':', "%3A"));
        let want = [format!("HEAD /v2/team/app/blobs/{digest}"), "POST /v2/team/app/blobs/uploads/".to_owned(), put];
        assert_eq!(sent(&server), want);
        let last = server.asked("/up/").remove(0);
        assert_eq!((last.body.as_slice(), last.content_type.as_str()), (BYTES, "application/octet-stream"));
    }
    let server = Server::start(|_, _| reply(200, "", b""));
    push(&server).expect("there");
    assert_eq!(sent(&server).len(), 1);
}

#[test]
fn an_upload_goes_elsewhere_without_credentials_and_is_begun_anew_when_lost() {
    let store = Server::start(|asked, _| match asked.before {
        0 => reply(404, "", b"{\"errors\":[{\"code\":\"BLOB_UPLOAD_UNKNOWN\"}]}"),
        1 => reply(503, "", b""),
        _ => reply(201, "", b""),
    });
    let to = store.address.clone();
    let server = Server::start(move |asked, _| match (asked.authorization.as_str(), asked.method.as_str()) {
        ("Basic dTpw", "POST") => reply(202, &format!("Location: http://{to}/up\r\n"), b""),
        ("Basic dTpw", _) => reply(404, "", b""),
        _ => reply(401, "WWW-Authenticate: Basic realm=\"r\"\r\n", b""),
    });
    let file = auth_file(&server, "u", "p");
    let with = |settings: &mut Settings| settings.credentials = files(&file);
    server.with(with, async |r| r.push_blob("", BYTES).await).expect("pushed");
    assert_eq!(store.asked("/up").len(), 3);
    assert!(store.asked("").iter().all(|asked| asked.authorization.is_empty()));
}

#[test]
fn an_upload_that_is_refused_or_led_astray_is_an_error() {
    let answering = |status: u16, location: &'static str| {
        Server::start(move |asked, _| match asked.method.as_str() {
            "POST" => reply(202, location, b""),
            "PUT" => reply(status, "", b"{\"errors\":[{\"code\":\"SIZE_INVALID\",\"message\":\"too large\"}]}"),
            _ => reply(404, "", b""),
        })
    };
    let error = push(&answering(413, "Location: /up\r\n")).expect_err("refused");
    assert!(matches!(&error, Error::Status { status: 413, message, .. } if message == "too large"), "{error}");
    assert!(matches!(push(&answering(403, "Location: /up\r\n")), Err(Error::Denied { status: 403, .. })));
    assert!(matches!(push(&answering(201, "")), Err(Error::Malformed { .. })));
    assert!(matches!(push(&answering(201, "Location: file:///etc/passwd\r\n")), Err(Error::Unsupported { .. })));
    let gone = answering(404, "Location: /up\r\n");
    assert!(matches!(push(&gone), Err(Error::Status { status: 404, .. })), "it ends at some time");
    let [https, http] = ["https://a/x", "http://a/x"].map(|url| reqwest::Url::parse(url).expect("a URL"));
    assert!(transport::downgrade(&https, &http, "it", "x").is_err());
    assert!(transport::downgrade(&http, &https, "it", "x").is_ok());
}

#[test]
fn a_manifest_is_stored_by_tag_or_digest_and_the_subject_is_heard() {
    let subject = Digest::sha256(b"subject");
    let fields = format!("OCI-Subject: {subject}\r\nDocker-Content-Digest: {}\r\n", Digest::sha256(BYTES));
    let server = Server::start(move |asked, _| match asked.method.as_str() {
        "PUT" => reply(201, &fields, b""),
        _ => reply(404, "", b""),
    });
    let digest = Digest::sha256(BYTES);
    for name in ["sha256-abc.att", digest.as_str()] {
        let pushed = server.with(|_| {}, async |r| r.push_manifest(name, OCI_MANIFEST, BYTES).await).expect("pushed");
        assert_eq!(pushed, Pushed { descriptor: Descriptor::of(OCI_MANIFEST, BYTES), subject: Some(subject.clone()) });
        let asked = server.asked(name).remove(0);
        assert_eq!((asked.body.as_slice(), asked.content_type.as_str()), (BYTES, OCI_MANIFEST));
    }
    let other = Digest::sha256(b"other");
    let error = server.with(|_| {}, async |r| r.push_manifest(other.as_str(), OCI_MANIFEST, BYTES).await);
    assert!(matches!(error, Err(Error::Digest { .. })));
    let changed = Server::start(move |_, _| reply(201, &format!("Docker-Content-Digest: {other}\r\n"), b""));
    let error = changed.with(|_| {}, async |r| r.push_manifest("1", OCI_MANIFEST, BYTES).await);
    assert!(matches!(error, Err(Error::Digest { .. })), "the registry stored something else");
    let silent = Server::start(|_, _| reply(201, "", b""));
    let pushed = silent.with(|_| {}, async |r| r.push_manifest("1", OCI_MANIFEST, BYTES).await).expect("pushed");
    assert_eq!(pushed.subject, None);
}

#[test]
fn a_deletion_is_done_absent_refused_or_unknown() {
    let deleted = |status: u16| {
        let server = Server::start(move |_, _| reply(status, "", b"{\"errors\":[{\"message\":\"no\"}]}"));
        let digest = Digest::sha256(BYTES);
        server.with(|settings| settings.retries = 0, async |r| r.delete_manifest(&digest).await)
    };
    assert!(matches!(deleted(202), Ok(Deletion::Deleted)));
    assert!(matches!(deleted(404), Ok(Deletion::Absent)));
    for refused in [400, 401, 403, 405, 501] {
        assert!(matches!(deleted(refused), Ok(Deletion::Refused { status, .. }) if status == refused), "{refused}");
    }
    for unknown in [429, 500, 503] {
        assert!(deleted(unknown).is_err(), "{unknown}");
    }
}
