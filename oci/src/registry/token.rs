//! What a registry asks for, and the tokens that answer it: challenges and token documents in, scopes, forms and headers out.
//! Nothing is sent here. Sources: distribution, `spec/auth/token.md`, `oauth.md` and `scope.md`; RFC 9110, section 11.

use std::time::{Duration, Instant, SystemTime};

use http_auth::{ChallengeRef, parse_challenges};
use reqwest::{
    Method, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{credentials::Credential, requests::RequestKind, time, transport::Call};
use crate::Error;

/// What is to be done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Pull => &["pull"],
            Self::Push => &["pull", "push"],
            Self::Delete => &["pull", "delete"],
        }
    }
}

/// How a registry wants to be shown who asks.
#[derive(Debug, Clone)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// Where tokens are fetched.
#[derive(Debug, Clone)]
pub(super) struct Bearer {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
}

impl Challenge {
    /// The challenge of a 401's headers that can be answered; `Bearer` is preferred, as it keeps passwords from the registry.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::Unsupported`] for a realm that no credentials should be sent to; `what` names it.
    pub(super) fn of(headers: &HeaderMap, plain_http: bool, what: &str) -> Result<Option<Self>, Error> {
        let texts: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let parsed: Vec<_> = texts.iter().filter_map(|text| parse_challenges(text).ok()).flatten().collect();
        let find = |scheme: &str| parsed.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        match (find("bearer"), find("basic")) {
            (Some(challenge), _) => Bearer::of(challenge, plain_http, what).map(Self::Bearer).map(Some),
            (None, Some(_)) => Ok(Some(Self::Basic)),
            (None, None) => Ok(None),
        }
    }
}

impl Bearer {
    fn of(challenge: &ChallengeRef<'_>, plain_http: bool, what: &str) -> Result<Self, Error> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
        let realm = realm.filter(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty());
        let realm = realm.ok_or_else(|| Error::malformed(what, "the challenge names no valid realm"))?;
        if realm.scheme() == "http" && !plain_http {
            let reason = "it is reached by plain HTTP, which would show credentials and tokens; use --plain-http if that is meant";
            return Err(Error::Unsupported { what: what.to_owned(), reason: reason.to_owned() });
        }
        let scopes = parameter("scope").unwrap_or_default();
        let scopes = scopes.split_whitespace().take(MAX_SCOPES).map(str::to_owned).collect();
        Ok(Self { realm, service: parameter("service"), scopes })
    }

    /// What to ask for: what the registry named, and what `action` needs of the repository.
    fn scopes(&self, repository: &str, action: Action) -> Vec<String> {
        let own = format!("repository:{repository}:");
        let mut actions = action.names().to_vec();
        let mut scopes = Vec::new();
        for scope in &self.scopes {
            match scope.strip_prefix(&own) {
                Some(names) => {
                    for name in names.split(',') {
                        if !name.is_empty() && !actions.contains(&name) {
                            actions.push(name);
                        }
                    }
                }
                None => scopes.push(scope.clone()),
            }
        }
        scopes.insert(0, format!("{own}{}", actions.join(",")));
        scopes
    }

    /// The request for a token.
    pub(super) fn call(&self, repository: &str, action: Action, credential: Option<&Credential>) -> Call {
        let scopes = self.scopes(repository, action);
        let mut query: Vec<_> = self.service.iter().map(|service| ("service", service.as_str())).collect();
        let mut call = Call::get(RequestKind::Token, self.realm.clone());
        if let Some(Credential::Refresh(token)) = credential {
            let scope = scopes.join(" ");
            query.extend([("scope", scope.as_str()), ("grant_type", "refresh_token")]);
            query.extend([("client_id", "mayfly"), ("refresh_token", token.as_str())]);
            call.method = Method::POST;
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
            call.body = Some(form(&query).into_bytes());
            return call;
        }
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        call.url.query_pairs_mut().extend_pairs(&query);
        if let Some(Credential::Basic { user, password }) = credential {
            call.headers.extend(basic(user, password).map(|header| (AUTHORIZATION, header)));
        }
        call
    }
}

/// A token as a header, and until when to show it.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) header: HeaderValue,
    until: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    /// A token service's answer. Neither the body nor what is wrong with it is ever shown: it is a secret.
    pub(super) fn parse(body: &[u8], what: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<serde_json::Number>,
            issued_at: Option<String>,
        }
        let malformed = |_| Error::malformed(what, "its answer has neither `token` nor `access_token`");
        let answer: Answer = serde_json::from_slice(body).map_err(|_| malformed(()))?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        let header = bearer(&token.filter(|token| !token.is_empty()).ok_or_else(|| malformed(()))?);
        let header = header.ok_or_else(|| Error::malformed(what, "its token cannot be sent as a header"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let issued = answer.issued_at.as_deref().and_then(time::seconds_of);
        // Some write a fraction.
        let expires =
            answer.expires_in.and_then(|n| n.as_u64().or_else(|| n.to_string().split('.').next()?.parse().ok()));
        let until = Instant::now().checked_add(left(expires, issued, now)).unwrap_or_else(Instant::now);
        Ok(Self { header, until })
    }
}

/// How long a token is shown: it lives for 60 s at least, since it was issued, and is replaced a little before its end. Where
/// the clocks differ by more than its life, nothing follows from when it says to be issued.
fn left(expires_in: Option<u64>, issued_at: Option<u64>, now: u64) -> Duration {
    let life = expires_in.unwrap_or(0).clamp(MIN_SECONDS, MAX_SECONDS);
    let age = issued_at.and_then(|issued| now.checked_sub(issued)).filter(|age| *age < life).unwrap_or(0);
    Duration::from_secs((life - age).saturating_sub((life / 10).min(MARGIN_SECONDS)))
}

pub(super) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    sensitive(&format!("Basic {text}"))
}

pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `application/x-www-form-urlencoded`, which is what a URL's query is.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    Url::parse_with_params("http://form", pairs).ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
const MAX_SCOPES: usize = 8;
/// Source: distribution, `spec/auth/token.md`, `expires_in`.
const MIN_SECONDS: u64 = 60;
const MAX_SECONDS: u64 = 24 * 3600;
const MARGIN_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(named: &str, action: Action) -> Vec<String> {
        let realm = Url::parse("https://host.io/token").expect("a URL");
        let scopes = named.split_whitespace().map(str::to_owned).collect();
        Bearer { realm, service: None, scopes }.scopes("a/b", action)
    }

    #[test]
    fn scopes_hold_what_is_needed_and_what_was_named() {
        assert_eq!(scopes("", Action::Pull), ["repository:a/b:pull"]);
        assert_eq!(scopes("repository:a/b:pull", Action::Push), ["repository:a/b:pull,push"]);
        assert_eq!(scopes("repository:a/b:pull,push", Action::Pull), ["repository:a/b:pull,push"]);
        assert_eq!(scopes("repository:a/b:delete", Action::Delete), ["repository:a/b:pull,delete"]);
        assert_eq!(scopes("repository:a/bc:pull x:y:z", Action::Pull).len(), 3);
    }

    #[test]
    fn a_token_lives_a_minute_at_least_and_ends_a_little_early() {
        let seconds = |expires, issued| left(expires, issued, 1_000).as_secs();
        assert_eq!(seconds(None, None), 54);
        assert_eq!(seconds(Some(5), None), 54);
        assert_eq!(seconds(Some(300), None), 290);
        assert_eq!(seconds(Some(300), Some(900)), 190);
        assert_eq!(seconds(Some(60), Some(941)), 0, "used up");
        assert_eq!(seconds(Some(300), Some(100)), 290, "clocks that differ");
        assert_eq!(seconds(Some(300), Some(2_000)), 290, "clocks that differ");
        assert_eq!(seconds(Some(u64::MAX), None), MAX_SECONDS - 10);
    }

    #[test]
    fn answers_without_a_token_are_refused_and_not_shown() {
        for body in [&b"hunter2"[..], b"{}", b"{\"token\":\"\"}", b"{\"token\":\"hunter2\\n\"}", b"{\"token\":7}"] {
            let error = Token::parse(body, "x").expect_err("refused");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let token = Token::parse(br#"{"token":"","access_token":"a","expires_in":3599.5}"#, "x").expect("a token");
        assert!(token.is_fresh());
        assert_eq!(token.header, "Bearer a");
    }
}
