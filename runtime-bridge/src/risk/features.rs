//! What a deviation is like, in numbers: the same list, in the same order, for training and for judging.
//!
//! None of them names an image, a program or a digest, so that what was learned from one image bears on another.

use std::{net::IpAddr, sync::LazyLock};

use dna::{Act, Activity, Completeness, Confidence, Outcome};

use super::past::Earlier;
use crate::{
    Class, Deviation,
    compare::is_private,
    expected::Expected,
    history::{Line, Phase, Standing},
    incident::Tactic,
};

/// Features that are neither a class nor a tactic.
const OWN: [&str; 24] = [
    "risk by rules",
    "descends from a command from outside",
    "descends from a step that was not expected",
    "descends from a login",
    "its start was not seen",
    "executions since the last expected one",
    "text on a shell's command line",
    "the container starts up",
    "acts as root",
    "failed",
    "was blocked",
    "how far the dimension was worked out",
    "what the program does was worked out",
    "how sure it is that the program is executed",
    "the program is the image's",
    "a package owns the program",
    "the peer is out of the site",
    "the peer is the container itself",
    "earlier deviations of the workload",
    "earlier classes of them",
    "earlier tactics of them",
    "highest risk of them by rules",
    "the same was seen earlier",
    "share of the image's other containers with the same",
];

/// How many there are.
pub const COUNT: usize = OWN.len() + Class::ALL.len() + Tactic::ALL.len();

/// Their names, in order.
pub static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let own = OWN.iter().map(|name| (*name).to_owned());
    let classes = Class::ALL.iter().map(|class| format!("class {}", class.name()));
    let tactics = Tactic::ALL.iter().map(|tactic| format!("tactic {}", tactic.name()));
    own.chain(classes).chain(tactics).collect()
});

/// A deviation in numbers, in the order of [`NAMES`].
pub type Features = [f64; COUNT];

/// What goes with an act, beside the deviation that it is: from the DNA, and from where the process comes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scene {
    line: [bool; 4],
    steps: u32,
    is_inline: bool,
    is_startup: bool,
    is_root: bool,
    is_failed: bool,
    /// Of programs, system calls, capabilities, ports, peers, written and read files.
    complete: [f64; 7],
    is_known: bool,
    reached: f64,
    is_of_image: bool,
    is_of_package: bool,
    is_peer_outside: bool,
    is_peer_itself: bool,
}

impl Scene {
    pub(crate) fn new(expected: &Expected, activity: &Activity, standing: &Standing) -> Self {
        let complete = expected.completeness();
        let node = standing.node;
        let peer = match &activity.act {
            Act::Connect { address, .. } => *address,
            _ => None,
        };
        Self {
            line: [Line::Outside, Line::Strayed, Line::Login, Line::Unseen].map(|line| standing.line == line),
            steps: standing.astray,
            is_inline: standing.is_inline,
            is_startup: standing.phase == Phase::Startup,
            is_root: activity.process.uid == Some(0),
            is_failed: matches!(activity.outcome, Outcome::Failed { .. }),
            complete: [
                share(&complete.exec),
                share(&complete.syscalls),
                share(&complete.capabilities),
                share(&complete.listen),
                share(&complete.connect),
                share(&complete.write),
                share(&complete.read),
            ],
            is_known: node.is_some_and(|node| expected.is_known(node)),
            reached: match node.and_then(|node| expected.reached(node)) {
                Some(Confidence::Certain) => 1.0,
                Some(Confidence::Likely) => 0.7,
                Some(Confidence::Possible) => 0.3,
                None => 0.0,
            },
            is_of_image: node.is_some(),
            is_of_package: node.is_some_and(|node| expected.package(node).is_some()),
            is_peer_outside: peer.is_some_and(|peer| !is_private(peer)),
            is_peer_itself: peer.is_some_and(|peer| peer.is_loopback() || is_mapped_loopback(peer)),
        }
    }

    fn complete(&self, class: Class) -> f64 {
        let [exec, syscalls, capabilities, listen, connect, write, read] = self.complete;
        match class {
            Class::Syscall => syscalls,
            Class::Capability | Class::Identity => capabilities,
            Class::Listen => listen,
            Class::Connect => connect,
            Class::Write => write,
            Class::SensitiveRead => read,
            _ => exec,
        }
    }
}

/// A deviation in numbers; `earlier` is what was known before it. Its risk is still that of the rules.
#[must_use]
pub fn features(deviation: &Deviation, scene: &Scene, earlier: &Earlier) -> Features {
    let [outside, strayed, login, unseen] = scene.line;
    let own: [f64; OWN.len()] = [
        deviation.risk,
        flag(outside),
        flag(strayed),
        flag(login),
        flag(unseen),
        f64::from(scene.steps.min(6)),
        flag(scene.is_inline),
        flag(scene.is_startup),
        flag(scene.is_root),
        flag(scene.is_failed),
        flag(deviation.blocked),
        scene.complete(deviation.class),
        flag(scene.is_known),
        scene.reached,
        flag(scene.is_of_image),
        flag(scene.is_of_package),
        flag(scene.is_peer_outside),
        flag(scene.is_peer_itself),
        f64::from(earlier.count.min(64)),
        f64::from(earlier.classes),
        f64::from(earlier.tactics),
        earlier.highest,
        flag(earlier.is_known),
        earlier.share,
    ];
    let tactic = Tactic::of(&deviation.technique);
    let classes = Class::ALL.iter().map(|class| flag(*class == deviation.class));
    let tactics = Tactic::ALL.iter().map(|one| flag(Some(*one) == tactic));
    let mut features = [0.0; COUNT];
    for (place, value) in features.iter_mut().zip(own.into_iter().chain(classes).chain(tactics)) {
        *place = value;
    }
    features
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn share(completeness: &Completeness) -> f64 {
    match completeness {
        Completeness::Complete => 1.0,
        Completeness::Partial { .. } => 0.5,
        _ => 0.0,
    }
}

fn is_mapped_loopback(peer: IpAddr) -> bool {
    matches!(peer, IpAddr::V6(peer) if peer.to_ipv4_mapped().is_some_and(|peer| peer.is_loopback()))
}
