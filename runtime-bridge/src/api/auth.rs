//! Who asks, and what he may: read or write, in which namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use axum::{extract::Request, http::header};
use dna::Digest;
use futures_util::future::BoxFuture;

use crate::door::ClientName;

/// Finds out who a caller is.
pub trait Authenticate: Send + Sync {
    /// The caller, where these credentials are known here; what he may do by `access`.
    fn caller<'a>(
        &'a self,
        credentials: &'a Credentials,
        access: Access,
    ) -> BoxFuture<'a, Result<Option<Caller>, Unavailable>>;
}

/// Whoever knows does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What a request asks for: what is not asked for need not be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// To read.
    Read,
    /// To read, and to change.
    Write,
}

/// What a request says of who sends it.
#[derive(Clone, Default)]
pub struct Credentials {
    token: Option<String>,
    peer: Option<ClientName>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn of(request: &Request) -> Self {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            let token = token.trim();
            (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
        });
        Self { token, peer: request.extensions().get::<Option<ClientName>>().cloned().flatten() }
    }

    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.peer.is_none()
    }

    /// The bearer token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The name in the client's certificate, which was verified.
    pub fn peer(&self) -> Option<&str> {
        self.peer.as_ref().map(|name| &*name.0)
    }
}

/// Who asks, and what he may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// His name, for the audit trail.
    pub name: String,
    /// The cluster he sees; all of them where it is absent.
    pub cluster: Option<String>,
    /// What he may read.
    pub read: Namespaces,
    /// What he may change.
    pub write: Namespaces,
}

/// A set of namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All, with what is of none that is known.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Namespaces {
    /// None.
    pub const fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether one is among them.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }
}

impl Caller {
    /// Whether he may read what is there.
    pub fn may_read(&self, cluster: &str, namespace: &str) -> bool {
        self.sees(cluster) && self.read.has(namespace)
    }

    /// Whether he may change what is there.
    pub fn may_write(&self, cluster: &str, namespace: &str) -> bool {
        self.sees(cluster) && self.write.has(namespace)
    }

    /// Whether he may read any of what a scope reaches; what a scope does not name it reaches all of.
    pub fn may_read_in(&self, cluster: Option<&str>, namespace: Option<&str>) -> bool {
        cluster.is_none_or(|cluster| self.sees(cluster)) && namespace.is_none_or(|namespace| self.read.has(namespace))
    }

    /// Whether he may change all of what a scope reaches.
    pub fn may_write_all(&self, cluster: Option<&str>, namespace: Option<&str>) -> bool {
        let is_cluster = cluster.map_or(self.cluster.is_none(), |cluster| self.sees(cluster));
        is_cluster && namespace.map_or(self.write == Namespaces::All, |namespace| self.write.has(namespace))
    }

    /// Whether he sees a cluster.
    pub fn sees(&self, cluster: &str) -> bool {
        self.cluster.as_ref().is_none_or(|own| own == cluster)
    }
}

/// Who is known by configuration: by the SHA-256 of a token, or by the name in a client's certificate.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// By the token's SHA-256, 64 hexadecimal digits in small letters.
    pub tokens: BTreeMap<String, Caller>,
    /// By the certificate's common name.
    pub peers: BTreeMap<String, Caller>,
}

impl Authenticate for Fixed {
    fn caller<'a>(
        &'a self,
        credentials: &'a Credentials,
        _: Access,
    ) -> BoxFuture<'a, Result<Option<Caller>, Unavailable>> {
        // Looked up by its digest: how long that takes says nothing of the token.
        let by_token = credentials.token().and_then(|token| self.tokens.get(&sha256(token)));
        let by_peer = || credentials.peer().and_then(|name| self.peers.get(name));
        let found = by_token.or_else(by_peer).cloned();
        Box::pin(async { Ok(found) })
    }
}

/// The SHA-256 of a token, as [`Fixed`] has it.
pub fn sha256(token: &str) -> String {
    Digest::sha256(token.as_bytes()).hex().to_owned()
}
