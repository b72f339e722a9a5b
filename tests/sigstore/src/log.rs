//! Transparency logs: a Merkle tree that grows (RFC 6962), and what a log says of an entry.
//!
//! Rekor v1 signs a promise with the time of entry (SET) and a checkpoint with its ECDSA key; Rekor v2 signs checkpoints
//! only, with Ed25519, and knows no time.

use crate::key::{Key, KeyType};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};

/// The protocol a log speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogVersion {
    /// Rekor as deployed since 2021.
    V1,
    /// Rekor on tiles, since 2025.
    V2,
}

/// A log with its key and all its entries.
pub(crate) struct Log {
    pub(crate) version: LogVersion,
    pub(crate) key: Key,
    name: String,
    leaves: Mutex<Vec<Vec<u8>>>,
}

/// An entry and all that its log says of it; a fault changes a field.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) kind: &'static str,
    pub(crate) kind_version: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) log_id: [u8; 32],
    /// Place in the log over all its shards, and in the tree of this one.
    pub(crate) log_index: u64,
    pub(crate) tree_index: u64,
    pub(crate) tree_size: u64,
    pub(crate) root: [u8; 32],
    /// Absent in a downgraded bundle.
    pub(crate) path: Option<Vec<[u8; 32]>>,
    pub(crate) checkpoint: String,
    /// Version 1 only: Unix seconds, and the promise.
    pub(crate) time: Option<i64>,
    pub(crate) promise: Option<Vec<u8>>,
}

impl Log {
    /// A log that holds some entries of others already.
    pub(crate) fn new(version: LogVersion, name: &str) -> Self {
        let key = Key::generate(match version {
            LogVersion::V1 => KeyType::P256,
            LogVersion::V2 => KeyType::Ed25519,
        });
        let leaves = (0..5).map(|number| format!("entry {number} of someone else").into_bytes()).collect();
        Self { version, key, name: name.to_owned(), leaves: Mutex::new(leaves) }
    }

    /// The log's id: version 1 hashes the public key, version 2 name and key as signed notes do (C2SP signed-note).
    pub(crate) fn id(&self) -> [u8; 32] {
        let public = self.key.public_der();
        match self.version {
            LogVersion::V1 => Sha256::digest(public).into(),
            LogVersion::V2 => {
                let raw = &public[public.len() - 32..];
                Sha256::digest([self.name.as_bytes(), b"\n\x01", raw].concat()).into()
            }
        }
    }

    /// Base URL as the trusted root names it.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.name)
    }

    /// Enters a body at a time.
    pub(crate) fn append(&self, kind: (&'static str, &'static str), body: Vec<u8>, time: i64) -> Logged {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.push(body.clone());
        let hashes: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let tree_index = hashes.len() - 1;
        let root = tree_root(&hashes);
        let tree_size = hashes.len() as u64;
        let (time, log_index) = match self.version {
            LogVersion::V1 => (Some(time), EARLIER_SHARDS + tree_index as u64),
            LogVersion::V2 => (None, tree_index as u64),
        };
        let mut logged = Logged {
            kind: kind.0,
            kind_version: kind.1,
            body,
            log_id: self.id(),
            log_index,
            tree_index: tree_index as u64,
            tree_size,
            root,
            path: Some(inclusion_path(&hashes, tree_index)),
            checkpoint: self.checkpoint(tree_size, &root, &self.key),
            time,
            promise: None,
        };
        logged.promise = time.map(|_| self.key.sign(&logged.promised()));
        logged
    }

    /// The proof of the entry before, in the same tree.
    pub(crate) fn neighbor_path(&self, logged: &Logged) -> (u64, Vec<[u8; 32]>) {
        let leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        let size = usize::try_from(logged.tree_size).expect("small");
        let hashes: Vec<_> = leaves[..size].iter().map(|leaf| leaf_hash(leaf)).collect();
        (size as u64 - 2, inclusion_path(&hashes, size - 2))
    }

    /// A signed note over size and root, signed in this log's name by `key`.
    pub(crate) fn checkpoint(&self, size: u64, root: &[u8; 32], key: &Key) -> String {
        let origin = match self.version {
            LogVersion::V1 => format!("{} - {TREE_ID}", self.name),
            LogVersion::V2 => self.name.clone(),
        };
        let note = format!("{origin}\n{size}\n{}\n", BASE64_STANDARD.encode(root));
        let signature = [&self.id()[..4], &key.sign(note.as_bytes())].concat();
        format!("{note}\n— {} {}\n", self.name, BASE64_STANDARD.encode(signature))
    }
}

impl Logged {
    /// What a promise signs: canonical JSON of the entry.
    pub(crate) fn promised(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(&self.payload()).expect("JSON")
    }

    /// The entry in a bundle: `TransparencyLogEntry` of protobuf-specs, as JSON.
    pub(crate) fn json(&self) -> Value {
        let mut entry = json!({
            "logIndex": self.log_index.to_string(),
            "logId": { "keyId": BASE64_STANDARD.encode(self.log_id) },
            "kindVersion": { "kind": self.kind, "version": self.kind_version },
            "canonicalizedBody": BASE64_STANDARD.encode(&self.body),
        });
        if let Some(time) = self.time {
            entry["integratedTime"] = time.to_string().into();
        }
        if let Some(promise) = &self.promise {
            entry["inclusionPromise"] = json!({ "signedEntryTimestamp": BASE64_STANDARD.encode(promise) });
        }
        if let Some(path) = &self.path {
            entry["inclusionProof"] = json!({
                "logIndex": self.tree_index.to_string(),
                "rootHash": BASE64_STANDARD.encode(self.root),
                "treeSize": self.tree_size.to_string(),
                "hashes": path.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect::<Vec<_>>(),
                "checkpoint": { "envelope": self.checkpoint },
            });
        }
        entry
    }

    /// The entry in cosign's annotation `dev.sigstore.cosign/bundle`, which has the promise and no proof.
    pub(crate) fn annotation(&self) -> String {
        let promise = self.promise.as_deref().map(|promise| BASE64_STANDARD.encode(promise));
        json!({ "SignedEntryTimestamp": promise, "Payload": self.payload() }).to_string()
    }

    /// The entry as the API of version 1 answers, under its id.
    pub(crate) fn answer(&self) -> Value {
        let mut answer = self.payload();
        let promise = self.promise.as_deref().unwrap_or_default();
        answer["verification"] = json!({
            "inclusionProof": {
                "checkpoint": self.checkpoint,
                "hashes": self.path.iter().flatten().map(|hash| hex(hash)).collect::<Vec<_>>(),
                "logIndex": self.tree_index,
                "rootHash": hex(&self.root),
                "treeSize": self.tree_size,
            },
            "signedEntryTimestamp": BASE64_STANDARD.encode(promise),
        });
        answer
    }

    fn payload(&self) -> Value {
        json!({
            "body": BASE64_STANDARD.encode(&self.body),
            "integratedTime": self.time.unwrap_or_default(),
            "logIndex": self.log_index,
            "logID": hex(&self.log_id),
        })
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hash of a leaf (RFC 6962, section 2.1).
pub(crate) fn leaf_hash(leaf: &[u8]) -> [u8; 32] {
    Sha256::digest([&[0], leaf].concat()).into()
}

fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::digest([&[1], &left[..], right].concat()).into()
}

/// Root over hashes of leaves, of which there is at least one.
fn tree_root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node_hash(&tree_root(left), &tree_root(right))
        }
    }
}

/// Audit path of a leaf (RFC 6962, section 2.1.1), from the leaf up.
fn inclusion_path(leaves: &[[u8; 32]], index: usize) -> Vec<[u8; 32]> {
    if leaves.len() == 1 {
        return vec![];
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, other) = match index.checked_sub(left.len()) {
        Some(index) => (inclusion_path(right, index), tree_root(left)),
        None => (inclusion_path(left, index), tree_root(right)),
    };
    path.push(other);
    path
}

/// Largest power of two below `size`, which is two or more.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

/// Entries that earlier shards of the log hold, so that an index into the log is not one into the tree.
const EARLIER_SHARDS: u64 = 4_163_431;
const TREE_ID: u64 = 1_193_050_959_916_656_506;
