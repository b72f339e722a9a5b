//! What a container was seen to do of what was predicted of it, and beside it.
//!
//! In: [`Expected`], and activities that are no deviations. Out: [`Used`], each once for a container: the item of the prediction that came
//! true, or what was done that it does not name and nobody is alerted of. What is done again and again costs a look into a set.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use dna::{Act, Activity, Protocol};

use crate::{
    compare::is_private,
    expected::{Expected, Node},
    names::shared,
};

/// A dimension of behavior, as the DNA calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Programs executed.
    Exec,
    /// Ports opened.
    Listen,
    /// Peers called.
    Connect,
    /// Files written.
    Write,
    /// Sensitive files read.
    Read,
    /// System calls, where a sensor tells of them.
    Syscalls,
    /// Capabilities used.
    Capabilities,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Exec, Self::Listen, Self::Connect, Self::Write, Self::Read, Self::Syscalls, Self::Capabilities];

    /// Its name in the DNA.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Write => "write",
            Self::Read => "read",
            Self::Syscalls => "syscalls",
            Self::Capabilities => "capabilities",
        }
    }
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Used {
    /// In which dimension.
    pub dimension: Dimension,
    /// The item of the prediction; what was done, where there is none.
    pub item: Arc<str>,
    /// Whether it is predicted.
    pub is_predicted: bool,
}

/// What is known of one container.
#[derive(Debug, Default)]
pub struct Uses {
    hasher: RandomState,
    /// Acts that were looked at.
    seen: HashSet<u64>,
    /// Items that were told.
    told: HashSet<u64>,
    /// How many of these nobody predicted.
    strange: usize,
}

impl Uses {
    /// What is new about an activity that is as expected, of the program at this node.
    pub fn take(&mut self, expected: &Expected, activity: &Activity, node: Option<Node>) -> Option<Used> {
        let program = node.filter(|node| expected.is_known(*node));
        let act = match &activity.act {
            Act::Exec { .. } => self.hasher.hash_one((0, node)),
            Act::Listen { protocol, port, .. } => self.hasher.hash_one((1, protocol, port)),
            Act::Connect { protocol, address, host, port } => self.hasher.hash_one((2, protocol, address, host, port)),
            Act::Write { path, .. } => self.hasher.hash_one((3, program, path)),
            Act::Read { path } => self.hasher.hash_one((4, program, path)),
            Act::Syscall { name, .. } => self.hasher.hash_one((5, name)),
            Act::Capability { name } => self.hasher.hash_one((6, name)),
            _ => return None,
        };
        if self.seen.len() >= MOST_SEEN {
            self.seen.clear();
        }
        if !self.seen.insert(act) {
            return None;
        }
        let used = used(expected, activity, node)?;
        let item = self.hasher.hash_one(&used);
        if self.told.contains(&item) || !used.is_predicted && self.strange >= MOST_STRANGE {
            return None;
        }
        self.told.insert(item);
        self.strange += usize::from(!used.is_predicted);
        Some(used)
    }
}

/// The item of the prediction that an activity is, or what it is beside it.
fn used(expected: &Expected, activity: &Activity, node: Option<Node>) -> Option<Used> {
    let of = |dimension, predicted: Option<Arc<str>>, strange: &dyn Fn() -> String| {
        let is_predicted = predicted.is_some();
        Some(Used { dimension, item: predicted.unwrap_or_else(|| strange().into()), is_predicted })
    };
    match &activity.act {
        Act::Exec { .. } => {
            let node = node?;
            let path = shared(&expected.path(node));
            Some(Used { dimension: Dimension::Exec, item: path, is_predicted: expected.reached(node).is_some() })
        }
        Act::Listen { protocol, port, .. } => {
            let name = port_name(*protocol, *port);
            let is_predicted = expected.listens(*protocol, *port);
            Some(Used { dimension: Dimension::Listen, item: shared(&name), is_predicted })
        }
        Act::Connect { port: 0, .. } => None,
        Act::Connect { protocol, address, host, port } => {
            let text = address.map(|address| address.to_string());
            let names: Vec<&str> = [text.as_deref(), host.as_deref()].into_iter().flatten().collect();
            let predicted = expected.peer(&names, *port).map(|name| shared(&name));
            of(Dimension::Connect, predicted, &|| match (host, address) {
                (Some(host), _) => format!("{host}:{port}"),
                // Pods and services have other addresses each time.
                (None, Some(address)) if is_private(*address) => format!("private:{}", port_name(*protocol, *port)),
                (None, Some(address)) => format!("{address}:{port}"),
                (None, None) => format!("unknown:{port}"),
            })
        }
        Act::Write { path, .. } => {
            of(Dimension::Write, expected.written_as(node, path), &|| folder(path).to_owned() + "/*")
        }
        // Only files that nobody is to read are told of.
        Act::Read { path } => {
            expected.read_as(node, path).and_then(|item| of(Dimension::Read, Some(item), &String::new))
        }
        Act::Syscall { name, .. } => {
            let item = expected.calls(node, name).then(|| shared(name));
            of(Dimension::Syscalls, item, &|| name.clone())
        }
        Act::Capability { name } => {
            let item = expected.needs(name).then(|| shared(name));
            of(Dimension::Capabilities, item, &|| name.clone())
        }
        _ => None,
    }
}

/// A port as it is named here and in a snapshot: `tcp/80`.
#[must_use]
pub fn port_name(protocol: Protocol, port: u16) -> String {
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        _ => "other",
    };
    format!("{protocol}/{port}")
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Acts of a container that are remembered as looked at: then all are looked at again.
const MOST_SEEN: usize = 1024;
/// Items of a container that nobody predicted, and that are told.
const MOST_STRANGE: usize = 64;
