//! Signatures of requests to Amazon's services: a request's parts and keys in, its `Authorization` header out. Source: AWS,
//! "Create a signed AWS API request" (Signature Version 4).

use aws_lc_rs::{digest, hmac};

/// What signs.
pub(super) struct Keys<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
}

/// What a signature holds for.
pub(super) struct Scope<'a> {
    /// `20150830T123600Z`.
    pub(super) time: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// The header for a request to `/` without a query; `headers` are all to be signed, by lower-case name, sorted.
pub(super) fn authorization(
    keys: &Keys<'_>,
    scope: &Scope<'_>,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = format!("{method}\n/\n\n{lines}\n{names}\n{}", sha256(body));
    let date = scope.time.get(..8).unwrap_or_default();
    let place = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!("AWS4-HMAC-SHA256\n{}\n{place}\n{}", scope.time, sha256(request.as_bytes()));
    let signature = hex(mac(&key(keys.secret, date, scope), text.as_bytes()).as_ref());
    format!("AWS4-HMAC-SHA256 Credential={}/{place}, SignedHeaders={names}, Signature={signature}", keys.id)
}

fn key(secret: &str, date: &str, scope: &Scope<'_>) -> Vec<u8> {
    let parts = [date, scope.region, scope.service, "aws4_request"];
    let first = format!("AWS4{secret}").into_bytes();
    parts.iter().fold(first, |key, part| mac(&key, part.as_bytes()).as_ref().to_vec())
}

fn mac(key: &[u8], bytes: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes)
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get-vanilla` and `post-vanilla` of AWS' Signature Version 4 test suite.
    #[test]
    fn signatures_are_those_of_the_test_suite() {
        let keys = Keys { id: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
        let scope = Scope { time: "20150830T123600Z", region: "us-east-1", service: "service" };
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        for (method, signature) in [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let want = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}"
            );
            assert_eq!(authorization(&keys, &scope, method, &headers, b""), want);
        }
    }

    /// The worked example of "Deriving a signing key" in the AWS General Reference.
    #[test]
    fn the_key_is_that_of_the_worked_example() {
        let scope = Scope { time: "20120215T000000Z", region: "us-east-1", service: "iam" };
        let key = key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", &scope);
        assert_eq!(hex(&key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    }
}
