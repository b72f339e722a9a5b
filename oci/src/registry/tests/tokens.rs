//! Tokens: their scope, their end, and what else a token service may answer.

use super::*;

/// A registry that takes tokens which its token service gives as `give` says; each needs what stands in `needs`.
fn guarded(
    give: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    needs: impl Fn(&Asked) -> String + Send + Sync + 'static,
) -> Server {
    Server::image(move |asked, own| {
        if asked.path.starts_with("/token") {
            return Some(give(asked));
        }
        let fields = format!(
            "WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s\",scope=\"repository:team/app:pull\"\r\n"
        );
        (asked.authorization != format!("Bearer {}", needs(asked))).then(|| reply(401, &fields, b"")).or_else(|| {
            match asked.method.as_str() {
                "PUT" | "DELETE" => Some(reply(201, "", b"")),
                _ => None,
            }
        })
    })
}

/// The token names the actions it was given for.
fn by_scope(asked: &Asked) -> Vec<u8> {
    let scope = asked.path.rsplit_once("app%3A").map_or("", |(_, actions)| actions).replace("%2C", "-");
    reply(200, "", format!("{{\"token\":\"{scope}\"}}").as_bytes())
}

#[test]
fn each_action_has_a_token_of_its_own_and_no_more_than_it_needs() {
    let needs = |asked: &Asked| match asked.method.as_str() {
        "PUT" => "pull-push".to_owned(),
        "DELETE" => "pull-delete".to_owned(),
        _ => "pull".to_owned(),
    };
    let server = guarded(by_scope, needs);
    let digest = Digest::sha256(b"");
    server.with(
        |_| {},
        async |r| {
            for _ in 0..2 {
                assert!(r.manifest("1").await.present().is_some());
                r.push_manifest("1", OCI_MANIFEST, b"{}").await.expect("pushed");
                assert_eq!(r.delete_manifest(&digest).await.expect("answered"), Deletion::Deleted);
            }
        },
    );
    assert_eq!(server.asked("/token").len(), 3);
    let refused = server.asked("/v2/").iter().filter(|asked| !asked.authorization.starts_with("Bearer")).count();
    assert_eq!(refused, 1, "once it is known what the registry wants, it is shown at once");
}

#[test]
fn a_token_is_replaced_before_it_ends_and_once_where_it_is_refused() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    // Issued 55 s ago for 60 s: it is replaced at the next request, before the registry refuses it.
    let issued = move |asked: &Asked| {
        let text =
            format!("{{\"token\":\"t{}\",\"expires_in\":60,\"issued_at\":\"{}\"}}", asked.before, clock(now - 55));
        reply(200, "", text.as_bytes())
    };
    let server = guarded(issued, |asked| format!("t{}", asked.before.saturating_sub(1)));
    server.with(
        |_| {},
        async |r| {
            assert!(r.manifest("1").await.present().is_some());
            assert!(r.manifest("1").await.present().is_some());
        },
    );
    assert_eq!(server.asked("/manifests/1").len(), 3, "one refusal, of the request without any token");
    assert_eq!(server.asked("/token").len(), 2);
    let never =
        guarded(|asked| reply(200, "", format!("{{\"token\":\"t{}\"}}", asked.before).as_bytes()), |_| "x".to_owned());
    let refused = never.with(|_| {}, async |r| r.manifest("1").await.known());
    assert!(matches!(refused, Err(Error::Denied { status: 401, .. })));
    assert_eq!((never.asked("/token").len(), never.asked("/manifests/1").len()), (1, 2));
}

/// A time as RFC 3339.
fn clock(seconds: u64) -> String {
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
    let parts: Vec<&str> = date.split(' ').collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    let month = months.iter().position(|name| *name == part(2)).expect("a month") + 1;
    format!("{}-{month:02}-{}T{}Z", part(3), part(1), part(4))
}

#[test]
fn a_token_service_that_does_not_answer_as_it_should_is_unknown_and_shows_no_secret() {
    for (answer, denied) in [
        (reply(401, "", b"hunter2"), true),
        (reply(403, "", b"hunter2"), true),
        (reply(404, "", b""), false),
        (reply(429, "Retry-After: 999\r\n", b""), false),
        (reply(500, "", b""), false),
        (reply(200, "", b"{\"tok\":\"hunter2\"}"), false),
        (reply(200, "", b"<html>hunter2"), false),
        (Vec::new(), false),
    ] {
        let server = guarded(move |_| answer.clone(), |_| "x".to_owned());
        let error =
            server.with(|settings| settings.retries = 0, async |r| r.head("1").await.known()).expect_err("unknown");
        assert_eq!(matches!(error, Error::Denied { .. }), denied, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

/// A pull secret for a server, of several users by place.
fn secret(server: &Server, users: &[(&str, &str)]) -> PullSecret {
    let entries = users.iter().map(|(below, user)| {
        (format!("{}{below}", server.address), serde_json::json!({"username": user, "password": "p"}))
    });
    let auths: serde_json::Map<_, _> = entries.collect();
    PullSecret::parse(serde_json::json!({"auths": auths}).to_string().as_bytes(), false, "x").expect("a secret")
}

#[test]
fn credentials_are_tried_in_turn_until_one_is_taken() {
    // `Basic Zzpw` is `g:p`; `Basic aDpw`, `h:p`, is let in but shown nothing.
    let server = Server::image(|asked, _| match asked.authorization.as_str() {
        "Basic Zzpw" => None,
        "Basic aDpw" => Some(reply(404, "", b"")),
        "Basic YTpw" => Some(reply(403, "", b"")),
        _ => Some(reply(401, "WWW-Authenticate: Basic realm=\"r\"\r\n", b"")),
    });
    let tried = |sources: Vec<Credentials>| {
        let before = server.asked("").len();
        let found = server.with(
            |settings| settings.credentials = sources,
            async |r| {
                let first = r.manifest("1").await.known().map(|found| found.is_some());
                (first, r.manifest("none").await.known().map(|found| found.is_some()))
            },
        );
        (found, server.asked("").len() - before)
    };
    let pull = |users: &[(&str, &str)]| Credentials::PullSecrets(vec![secret(&server, users)]);
    let (found, asked) = tried(vec![pull(&[("/team/app", "a"), ("/team", "h"), ("", "g")])]);
    assert!(matches!(found, (Ok(true), Ok(false))), "{found:?}");
    assert_eq!(asked, 5, "one to learn what it wants, three to find who may, one more with that");
    let (found, _) = tried(vec![Credentials::Anonymous, pull(&[("/other", "h")]), pull(&[("", "g")])]);
    assert!(matches!(found, (Ok(true), Ok(false))), "{found:?}");
    let (found, _) = tried(vec![pull(&[("", "a")])]);
    assert!(matches!(found, (Err(Error::Denied { status: 403, .. }), Err(_))), "{found:?}");
    let (found, _) = tried(vec![pull(&[("", "h")]), pull(&[("", "a")])]);
    assert!(matches!(found, (Ok(false), Ok(false))), "one that is let in is told what is there: {found:?}");
}
