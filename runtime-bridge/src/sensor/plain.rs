//! Whether a text is one in which no credential can be: most command lines. To look for one takes longer than all else with an event.

/// What every name of a secret has in it, in any case. Source: `dna::is_secret_name`.
const NAMES: [&[u8]; 7] = [b"pass", b"secret", b"token", b"key", b"credential", b"dsn", b"pwd"];
/// How URLs, keys and the schemes of `Authorization` begin.
const MARKS: [&[u8]; 4] = [b"://", b"-----", b"bearer", b"basic"];
/// Tokens of known shape are one word of at least so many letters, digits and `_-.`.
const TOKEN: usize = 15;

/// Whether `dna::redact` leaves a text as it is; where this says no, it may do so all the same.
pub(crate) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        run = if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') { run + 1 } else { 0 };
        if run >= TOKEN && is_begun(bytes, at + 1 - run) {
            return false;
        }
        let begins = |of: &[u8]| bytes.get(at..at + of.len()).is_some_and(|here| here.eq_ignore_ascii_case(of));
        let is_marked = match byte.to_ascii_lowercase() {
            b'p' | b's' | b't' | b'k' | b'c' | b'd' => NAMES.iter().any(|name| begins(name)),
            b':' | b'-' | b'b' => MARKS.iter().any(|mark| begins(mark)),
            _ => false,
        };
        if is_marked {
            return false;
        }
    }
    true
}

/// Whether a word begins as some issuer's token does: with two letters of one. Most long words do not.
fn is_begun(bytes: &[u8], at: usize) -> bool {
    const BEGIN: [&[u8]; 14] =
        [b"AK", b"AS", b"gh", b"gi", b"gl", b"xo", b"AI", b"np", b"py", b"sk", b"rk", b"SG", b"dc", b"hv"];
    let here = bytes.get(at..at + 2).unwrap_or_default();
    here == b"ey" || BEGIN.contains(&here)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_servers_are_started_with_is_plain() {
        for line in [
            "served -g daemon -c /etc/served/served.conf",
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id 0123456789abcdef0123456789abcdef",
            "nginx: master process nginx -g daemon off;",
            "runc init",
        ] {
            assert!(is_plain(line), "{line}");
        }
    }

    #[test]
    fn what_is_taken_out_is_not_plain() {
        for line in [
            "ENV DB_PASSWORD=hunter2",
            "app --api-key=abc",
            "curl https://user:pw@host/x",
            "-H 'Authorization: Bearer abcdefgh12345'",
            "-H 'Authorization: Basic abcdefgh12345'",
            "x ghp_0123456789abcdefghij0123 y",
            "AKIAIOSFODNN7EXAMPLE",
            "t eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
        ] {
            assert!(!is_plain(line) && dna::redact(line) != line, "{line}");
        }
    }

    proptest! {
        /// A text that is plain has nothing to be taken out, whole or word by word.
        #[test]
        fn nothing_is_taken_out_of_a_plain_text(words in prop::collection::vec(prop_oneof![
            "[a-zA-Z0-9_.-]{0,12}",
            prop::sample::select(vec!["DB_PASSWORD=x1", "--token", "apiKey: v", "ENV", "A=b", "https://u:p@h", "http:/x", "Bearer", "Basic",
                "pwd", "my-pwd", "dsn=a", "PASS", "-----BEGIN", "PRIVATE", "KEY-----", "é", "\n", "\"", "=", ":", "x="]).prop_map(str::to_owned),
            (prop::sample::select(vec!["AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxb-", "xoxs-", "AIza",
                "npm_", "pypi-", "sk_live_", "rk_live_", "SG.", "dckr_pat_", "hvs.", "eyJ"]), "[a-zA-Z0-9_.-]{0,50}").prop_map(|(a, b)| a.to_owned() + &b),
        ], 0..8), gap in prop::sample::select(vec![" ", "", "/", "="])) {
            let text = words.join(gap);
            if is_plain(&text) {
                prop_assert_eq!(dna::redact(&text), text.as_str());
                let words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
                prop_assert_eq!(dna::redact_argv(&words), words);
            }
        }
    }
}
