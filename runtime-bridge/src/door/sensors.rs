//! Who may send, as somebody wrote it down.
//!
//! ```toml
//! [[sensor]]
//! name = "falco-eu"                # in the path, in metrics and on alerts
//! dialect = "falco"
//! cluster = "eu"
//! path_secret_sha256 = "…"         # printf %s SECRET | sha256sum
//! bytes_per_second = 1000000       # more is marked, see `door`
//!
//! [[sensor]]
//! name = "tetragon-eu"
//! dialect = "tetragon"
//! cluster = "eu"
//! pull = { address = "http://tetragon.kube-system:54321" }    # asked, in place of posting; see `pull`
//! ```

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Deserializer, de};

use crate::{
    pull::Pull,
    sensor::Dialect,
    settings::{self, SettingsError},
};

/// All sensors; each has a name of its own, a dialect that is known, and a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensors(Vec<Sensor>);

/// A sensor that may send.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sensor {
    /// Its id: up to 64 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// What it speaks: the name of a [`Dialect`].
    pub dialect: String,
    /// The cluster that it watches.
    pub cluster: String,
    /// SHA-256 of its bearer token.
    pub token_sha256: Option<SecretDigest>,
    /// SHA-256 of the secret at the end of its path.
    pub path_secret_sha256: Option<SecretDigest>,
    /// Common name of its client certificate, which TLS verifies.
    pub client_cn: Option<String>,
    /// What it sends at most, on average over ten seconds; more is taken but marked.
    pub bytes_per_second: Option<u64>,
    /// Where it is asked for its events, where it does not post them.
    pub pull: Option<Pull>,
}

/// SHA-256 of a secret, which itself is written nowhere. It does not print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

impl Sensors {
    /// Reads TOML. `place` is where it is from, for the error.
    ///
    /// # Errors
    /// [`SettingsError`]: the first thing that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            #[serde(default)]
            sensor: Vec<Sensor>,
        }
        let document: Document = settings::read(text, place)?;
        let mut names = BTreeSet::new();
        for (number, sensor) in document.sensor.iter().enumerate() {
            let is_first = names.insert(&sensor.name);
            let reason = sensor.problem().or_else(|| (!is_first).then(|| "another sensor has this name".to_owned()));
            if let Some(reason) = reason {
                let place = format!("{place}: sensor {} {:?}", number + 1, sensor.name);
                return Err(SettingsError { place, reason });
            }
        }
        Ok(Self(document.sensor))
    }

    /// The sensors.
    pub fn iter(&self) -> impl Iterator<Item = &Sensor> {
        self.0.iter()
    }
}

impl IntoIterator for Sensors {
    type Item = Sensor;
    type IntoIter = std::vec::IntoIter<Sensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Sensor {
    fn problem(&self) -> Option<String> {
        if !settings::is_name(&self.name) {
            return Some("`name` must be 1 to 64 of a-z, 0-9 and -".to_owned());
        }
        if self.dialect.parse::<Dialect>().is_err() {
            let known = Dialect::ALL.map(Dialect::name).join(", ");
            return Some(format!("`dialect` {:?} is not known; there are: {known}", self.dialect));
        }
        if self.cluster.is_empty() {
            return Some("`cluster` is empty; name the cluster that it watches".to_owned());
        }
        if self.client_cn.as_deref() == Some("") {
            return Some("`client_cn` is empty; write the certificate's common name".to_owned());
        }
        if self.bytes_per_second == Some(0) {
            return Some("`bytes_per_second` is 0; leave it out where there is no limit".to_owned());
        }
        if let Some(pull) = &self.pull {
            return pull.problem(&self.dialect);
        }
        let has_none = self.token_sha256.is_none() && self.path_secret_sha256.is_none() && self.client_cn.is_none();
        has_none.then(|| {
            "it has no credential, so that anybody could send as it; give `token_sha256`, `path_secret_sha256` or \
             `client_cn`, or `pull`"
                .to_owned()
        })
    }
}

impl SecretDigest {
    /// Whether this is the secret; takes as long for any that is not.
    #[must_use]
    pub fn is_of(&self, secret: &[u8]) -> bool {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, digest.as_ref()).is_ok()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest")
    }
}

impl<'de> Deserialize<'de> for SecretDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (to, from) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let byte = std::str::from_utf8(from).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
            *to = byte.filter(|_| is_hex).ok_or_else(|| {
                de::Error::custom("not a SHA-256 of 64 hexadecimal digits; make it by `printf %s SECRET | sha256sum`")
            })?;
        }
        let empty = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"");
        if empty.as_ref() == digest {
            return Err(de::Error::custom("it is the SHA-256 of nothing; make it by `printf %s SECRET | sha256sum`"));
        }
        Ok(Self(digest))
    }
}
