//! Who may use the API, as somebody wrote it down.
//!
//! ```toml
//! [[caller]]
//! name = "soc"                     # in the audit trail
//! token_sha256 = "…"               # printf %s TOKEN | sha256sum
//! role = "write"                   # or "read"
//! cluster = "eu"                   # without it: all
//! namespaces = ["shop"]            # without it: all
//! ```

use std::collections::BTreeSet;

use serde::Deserialize;

use super::auth::{Caller, Fixed, Namespaces};
use crate::settings::{self, SettingsError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    caller: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    token_sha256: Option<String>,
    client_cn: Option<String>,
    role: Role,
    cluster: Option<String>,
    namespaces: Option<BTreeSet<String>>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Role {
    Read,
    Write,
}

impl Fixed {
    /// Reads TOML. `place` is where it is from, for the error.
    ///
    /// # Errors
    /// [`SettingsError`]: the first thing that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Self, SettingsError> {
        let failed = |reason: String| SettingsError { place: place.to_owned(), reason };
        let document: Document = settings::read(text, place)?;
        let mut fixed = Self::default();
        for Entry { name, token_sha256, client_cn, role, cluster, namespaces } in document.caller {
            let read = namespaces.map_or(Namespaces::All, Namespaces::Only);
            let write = if role == Role::Write { read.clone() } else { Namespaces::none() };
            let caller = Caller { name: name.clone(), cluster, read, write };
            if token_sha256.is_none() && client_cn.is_none() {
                return Err(failed(format!("caller {name:?} shows nothing; give it token_sha256 or client_cn")));
            }
            if let Some(digest) = token_sha256 {
                let digest = digest.to_ascii_lowercase();
                if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(failed(format!(
                        "token_sha256 of caller {name:?} is no SHA-256; make it by `printf %s TOKEN | sha256sum`"
                    )));
                }
                if fixed.tokens.insert(digest, caller.clone()).is_some() {
                    return Err(failed(format!("caller {name:?} has the token of another")));
                }
            }
            if let Some(common_name) = client_cn
                && fixed.peers.insert(common_name, caller).is_some()
            {
                return Err(failed(format!("caller {name:?} has the client certificate of another")));
            }
        }
        Ok(fixed)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn callers_are_read_and_what_is_wrong_is_said() {
        let digest = "a".repeat(64);
        let good = format!(
            "[[caller]]\nname = \"soc\"\nrole = \"write\"\nnamespaces = [\"shop\"]\ntoken_sha256 = \"{digest}\"\n"
        );
        let fixed = Fixed::parse(&good, "f").expect("callers");
        let caller = &fixed.tokens[&digest];
        assert!(caller.may_write("any", "shop") && !caller.may_read("any", "other"));
        for (text, place, wanted) in [
            (good.replace("write", "admin"), "f:3: ", "unknown variant"),
            (good.replace(&digest, "secret"), "f: ", "is no SHA-256"),
            (good.replace("token_sha256", "token"), "f:5: ", "unknown field"),
            (format!("{good}{good}"), "f: ", "the token of another"),
            ("[[caller]]\nname = \"x\"\nrole = \"read\"\n".to_owned(), "f: ", "shows nothing"),
        ] {
            let error = Fixed::parse(&text, "f").expect_err("wrong").to_string();
            assert!(error.starts_with(place) && error.contains(wanted), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
