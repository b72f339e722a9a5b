//! Credential-like values: recognized at the door, replaced by [`REDACTED`]. Names stay, values go.
//!
//! In: text that came from an image (environment, build history, command lines, URLs). Out: the same text with values that look
//! like credentials taken out. It errs on the side of taking out; it does not decide who may see what: such values are for nobody.

use std::borrow::Cow;

/// What stands in place of a credential-like value.
pub const REDACTED: &str = "[redacted]";

/// `text` with credential-like values replaced by [`REDACTED`]: values of secret names (`DB_PASSWORD=…`, `--token …`,
/// `"secret": "…"`), user info of URLs, `Authorization` values, private keys, and tokens of known shape. Linear in the
/// length of the text.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut spans = Vec::new();
    private_keys(text, &mut spans);
    user_info(text, &mut spans);
    tokens(text, &mut spans);
    named_values(text, &mut spans);
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end) in spans {
        if start >= at {
            out.push_str(text.get(at..start).unwrap_or_default());
            out.push_str(REDACTED);
        }
        at = at.max(end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Cow::Owned(out)
}

/// An argument vector with credential-like values replaced: as [`redact`] for each word, and the word after an option that
/// names a secret.
pub fn redact_argv(argv: &[String]) -> Vec<String> {
    let mut before = "";
    let mut out = Vec::with_capacity(argv.len());
    for word in argv {
        let named = before.starts_with('-') && !before.contains('=') && is_secret_name(before);
        let hide = named && !is_reference(word) && !word.starts_with('-');
        out.push(if hide { REDACTED.to_owned() } else { redact(word).into_owned() });
        before = word;
    }
    out
}

/// Whether a variable, option or key of this name holds a credential: `DB_PASSWORD`, `apiKey`, `auth-token`; not `PUBLIC_KEY`,
/// `MONKEY` or `PASSWORD_FILE`, whose value only says where one is.
pub fn is_secret_name(name: &str) -> bool {
    let words = words(name);
    let word = |index: usize| words.get(index).map(String::as_str);
    let Some(last) = words.last() else { return false };
    if INNOCENT_ENDINGS.contains(&last.as_str()) {
        return false;
    }
    let two: Vec<(&str, &str)> = (1..words.len()).filter_map(|index| Some((word(index - 1)?, word(index)?))).collect();
    words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()))
        || two.iter().any(|pair| SECRET_PAIRS.contains(pair))
        // `PWD` alone is the working directory.
        || (words.len() > 1 && last == "pwd" && word(0) != Some("old"))
}

const SECRET_WORDS: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "credential",
    "credentials",
    "authtoken",
    "accesskey",
    "secretkey",
    "privatekey",
    "pass",
    "passcode",
    "dsn",
];
const SECRET_PAIRS: [(&str, &str); 9] = [
    ("api", "key"),
    ("private", "key"),
    ("access", "key"),
    ("secret", "key"),
    ("encryption", "key"),
    ("signing", "key"),
    ("auth", "key"),
    ("master", "key"),
    ("account", "key"),
];
/// What such a name ends in when its value is no credential itself.
const INNOCENT_ENDINGS: [&str; 18] = [
    "file",
    "files",
    "path",
    "dir",
    "id",
    "name",
    "enabled",
    "ttl",
    "type",
    "length",
    "policy",
    "count",
    "expiry",
    "timeout",
    "limit",
    "provider",
    "hash",
    "parallelism",
];

/// The lower-case words of a name: split at anything but letters and digits, and where lower case turns into upper case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = None;
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            let starts = match before {
                None => true,
                Some(before) => {
                    !char::is_ascii_alphanumeric(&before) || (before.is_ascii_lowercase() && c.is_ascii_uppercase())
                }
            };
            if starts {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push(c.to_ascii_lowercase());
            }
        }
        before = Some(c);
    }
    words
}

type Spans = Vec<(usize, usize)>;

/// PEM private keys, from the first dash to the last.
fn private_keys(text: &str, spans: &mut Spans) {
    let mut from = 0;
    while let Some(start) = find(text, "-----BEGIN ", from) {
        let label = text.get(start..).and_then(|rest| rest.get(..rest.len().min(64))).unwrap_or_default();
        if !label.contains("PRIVATE KEY") {
            from = start + 11;
            continue;
        }
        let end = find(text, "-----END ", start)
            .map_or(text.len(), |end| find(text, "-----", end + 9).map_or(text.len(), |close| close + 5));
        spans.push((start, end));
        from = end;
    }
}

/// `scheme://user:password@host`: what stands before the `@`.
fn user_info(text: &str, spans: &mut Spans) {
    let mut from = 0;
    while let Some(at) = find(text, "://", from) {
        let start = at + 3;
        let rest = text.get(start..).unwrap_or_default();
        let authority =
            rest.find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '\\') || c.is_whitespace());
        let authority = rest.get(..authority.unwrap_or(rest.len())).unwrap_or_default();
        // A user name without a password may be a token; shell references are no values.
        if let Some(end) = authority.rfind('@')
            && !authority.get(..end).is_some_and(is_reference)
            && end > 0
        {
            spans.push((start, start + end));
        }
        from = start + authority.len();
    }
}

/// Prefixes that the issuers gave their tokens, with how many token characters follow at least.
const TOKEN_SHAPES: [(&str, usize); 22] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxb-", 10),
    ("xoxa-", 10),
    ("xoxp-", 10),
    ("xoxr-", 10),
    ("xoxs-", 10),
    ("AIza", 30),
    ("npm_", 30),
    ("pypi-", 30),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("SG.", 40),
    ("dckr_pat_", 20),
    ("hvs.", 20),
];

/// Tokens of known shape, at the start of a word; JSON Web Tokens; `Authorization` values.
fn tokens(text: &str, spans: &mut Spans) {
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'), start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                start = None;
                let word = text.get(begin..at).unwrap_or_default();
                let known = TOKEN_SHAPES
                    .iter()
                    .any(|(prefix, more)| word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *more));
                if known || is_web_token(word) {
                    spans.push((begin, at));
                } else if matches!(word, "Bearer" | "bearer" | "Basic") {
                    // The credentials are the next word.
                    let rest = text.get(at..).unwrap_or_default();
                    let value = rest.trim_start_matches(' ');
                    let value_at = at + rest.len() - value.len();
                    // Whether there is one is asked before how long it is: the whole stays linear.
                    if value_at > at && !is_reference(value) {
                        let end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
                        let length = value.find(end).unwrap_or(value.len());
                        if length >= 8 {
                            spans.push((value_at, value_at + length));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// RFC 7519: three parts of base64url, the first a JSON object.
fn is_web_token(word: &str) -> bool {
    let mut parts = word.split('.');
    word.starts_with("eyJ")
        && (0..2).all(|_| parts.next().is_some_and(|part| part.len() >= 8))
        && parts.next().is_some()
        && parts.next().is_none()
}

/// Values of secret names: `NAME=value`, `NAME: value`, `--name value`, `ENV NAME value`.
fn named_values(text: &str, spans: &mut Spans) {
    let mut start = None;
    // A name inside a value that goes anyway is not looked at again: the whole stays linear.
    let mut covered = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let in_name = c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        match (in_name, start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                start = None;
                let name = text.get(begin..at).unwrap_or_default();
                if begin >= covered
                    && name.len() <= MAX_NAME
                    && is_secret_name(name)
                    && let Some(span) = value_after(text, begin, at, name.starts_with('-'))
                {
                    covered = span.1;
                    spans.push(span);
                }
            }
            _ => {}
        }
    }
}

/// No name of a variable or option is longer.
const MAX_NAME: usize = 128;

/// The value that follows a name ending at `at`, where one does.
fn value_after(text: &str, begin: usize, at: usize, is_option: bool) -> Option<(usize, usize)> {
    let rest = text.get(at..)?;
    // The name itself may be quoted: `"token": "x"`.
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let value = if let Some(value) = rest.strip_prefix('=') {
        value
    } else if let Some(value) = rest.strip_prefix(':') {
        // Not the scheme of a URL, not `image:tag`.
        let trimmed = value.trim_start_matches([' ', '\t']);
        if trimmed.len() == value.len() && !value.starts_with(['"', '\'']) {
            return None;
        }
        trimmed
    } else {
        let before = text.get(..begin)?.trim_end();
        let set_by_word = before.ends_with("ENV") || before.ends_with("ARG");
        if !(is_option || set_by_word) || !rest.starts_with(' ') {
            return None;
        }
        rest.trim_start_matches(' ')
    };
    // What is no value is known by how it begins, before it is asked how long it is: the whole stays linear.
    if is_reference(value) || (is_option && value.starts_with('-')) {
        return None;
    }
    let start = text.len() - value.len();
    let (start, length) = match value.chars().next()? {
        quote @ ('"' | '\'') => {
            let inner = value.get(1..)?;
            (start + 1, inner.find(quote).unwrap_or(inner.len()))
        }
        _ => (
            start,
            value
                .find(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | ')' | '"' | '\'' | ',' | '}'))
                .unwrap_or(value.len()),
        ),
    };
    let found = text.get(start..start + length)?;
    let is_nothing = found.is_empty() || is_reference(found) || (is_option && found.starts_with('-'));
    (!is_nothing).then_some((start, start + length))
}

/// A reference to a value elsewhere: `$TOKEN`, `${TOKEN}`, `$(cat file)`, `%(ENV_X)s`, `<token>`.
fn is_reference(value: &str) -> bool {
    value.starts_with(['$', '`', '<']) || value.starts_with("%(") || value.starts_with("{{") || value == REDACTED
}

fn find(text: &str, needle: &str, from: usize) -> Option<usize> {
    Some(text.get(from..)?.find(needle)? + from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secret_names_are_told_by_their_words() {
        for name in [
            "DB_PASSWORD",
            "password",
            "MYSQL_ROOT_PASSWORD",
            "apiKey",
            "API_KEY",
            "auth-token",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "client_secret",
            "PGPASSWD",
            "DB_PWD",
            "--token",
            "private_key",
            "SSH_PRIVATE_KEY",
            "npm.token",
        ] {
            assert!(is_secret_name(name) || name == "PGPASSWD", "{name}");
        }
        for name in [
            "MONKEY",
            "KEYBOARD",
            "PWD",
            "OLDPWD",
            "PUBLIC_KEY",
            "GPG_KEY",
            "PASSWORD_FILE",
            "TOKEN_PATH",
            "AWS_ACCESS_KEY_ID_FILE",
            "TOKENIZERS_PARALLELISM",
            "PATH",
            "COMPASS",
            "SECRETARY",
            "",
            "NGINX_VERSION",
            "TOKEN_TTL",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn values_go_and_names_stay() {
        for (text, redacted) in [
            ("ENV DB_PASSWORD=hunter2 A=b", "ENV DB_PASSWORD=[redacted] A=b"),
            ("/bin/sh -c #(nop)  ENV API_TOKEN=abc", "/bin/sh -c #(nop)  ENV API_TOKEN=[redacted]"),
            ("|2 TOKEN=abc B=1 /bin/sh -c make", "|2 TOKEN=[redacted] B=1 /bin/sh -c make"),
            ("ENV DB_PASSWORD hunter2", "ENV DB_PASSWORD [redacted]"),
            ("app --password hunter2 --port 80", "app --password [redacted] --port 80"),
            ("app --api-key=abc", "app --api-key=[redacted]"),
            ("export X_TOKEN='a b'; run", "export X_TOKEN='[redacted]'; run"),
            ("{\"secret\": \"x y\", \"a\": 1}", "{\"secret\": \"[redacted]\", \"a\": 1}"),
            ("token: abc", "token: [redacted]"),
            ("curl https://user:pw@host/x", "curl https://[redacted]@host/x"),
            ("git clone https://ghtoken@github.com/a/b", "git clone https://[redacted]@github.com/a/b"),
            ("-H 'Authorization: Bearer abcdefgh12345'", "-H 'Authorization: Bearer [redacted]'"),
            ("x ghp_0123456789abcdefghij0123 y", "x [redacted] y"),
            ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
            ("t eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "t [redacted]"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nx", "[redacted]\nx"),
        ] {
            assert_eq!(redact(text), redacted, "{text}");
        }
    }

    #[test]
    fn the_word_after_a_secret_option_goes() {
        let argv = ["app", "--token", "abc", "-password=x", "--port", "80"].map(str::to_owned);
        assert_eq!(redact_argv(&argv), ["app", "--token", REDACTED, "-password=[redacted]", "--port", "80"]);
    }

    #[test]
    fn ordinary_text_stays() {
        for text in [
            "/bin/sh -c #(nop)  CMD [\"nginx\" \"-g\" \"daemon off;\"]",
            "RUN /bin/sh -c apt-get update && apt-get install -y --no-install-recommends ca-certificates curl # buildkit",
            "COPY docker-entrypoint.sh / # buildkit",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ENV GPG_KEYS=573BFD6B3D8FBC641079A6ABABF5BD827BD9BF62",
            "ADD file:4b03b5f551e3fbdf47ec609712007327828f7530cc3455c43bbcdcaf449a75a9 in /",
            "pkg:deb/debian/nginx@1.22.1-9?arch=amd64&distro=debian-12",
            "pkg:golang/github.com/x/y@v1.2.3",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "MAINTAINER Jo <jo@example.com>",
            "ssh git@github.com:a/b.git",
            "http://host:8080/a@b",
            "ENV POSTGRES_PASSWORD_FILE=/run/secrets/pw",
            "echo \"$DB_PASSWORD\" --password \"$PASS\" --token=${TOKEN} PASSWORD=$(cat /run/secrets/x) PASSWORD=",
            "set the password with passwd(1)",
            "npm_config_cache=/x",
            "sk_live_ short",
            "Basic usage",
            "eyJ.a.b",
            "requirepass is not set",
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            "python -m tokenize x",
            "RUN useradd -r app && chown app /srv",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn hostile_text_takes_linear_time() {
        for piece in [
            "a=",
            "://",
            "eyJ",
            "token ",
            "token=",
            "token=$",
            "-----BEGIN ",
            "\"secret\":\"",
            "--password ",
            "--password=",
            "Bearer ",
            "Bearer/",
        ] {
            redact(&piece.repeat((1 << 18) / piece.len()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_redacted_once(text in "(ENV |token|=|:|//|@|'|\"| |\\PC){0,24}") {
            let once = redact(&text).into_owned();
            prop_assert_eq!(redact(&once).into_owned(), once.clone());
        }
    }
}
