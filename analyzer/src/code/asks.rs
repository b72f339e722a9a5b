//! What a process asks the kernel for by numbers: the values that sensitive arguments have at all reached places.
//!
//! A system call's values are all known where each reached instruction that makes it, and each reached call of a function that
//! passes its own parameters on to one, was evaluated to constants. A function that is called through a pointer, or from code
//! that was not evaluated, may be given others.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Reach,
    link::Place,
    module::{Edge, Module},
    numbers,
    sites::{Argument, Call},
};

/// The values that a call's sensitive arguments may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// By place: each argument's values; none where they are not known.
    pub(crate) values: BTreeSet<Vec<Option<Vec<u64>>>>,
    /// There may be others.
    pub(crate) is_open: bool,
}

/// Which of a function's arguments are a system call's sensitive ones, in the order of the call's own.
struct Interest {
    function: &'static str,
    call: &'static str,
    arguments: &'static [Source],
}

/// Where a function's system call gets an argument from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The function's own argument.
    Own(usize),
    /// Always this.
    Always(u64),
}

use Source::{Always, Own};

const fn interest(function: &'static str, call: &'static str, arguments: &'static [Source]) -> Interest {
    Interest { function, call, arguments }
}

/// -1: an identity that stays (setreuid(2)).
const SAME: Source = Always(0xffff_ffff);

/// The functions of the C library and the calls they make (their man pages; glibc's and musl's sources).
const FUNCTIONS: [Interest; 17] = [
    interest("socket", "socket", &[Own(0), Own(1), Own(2)]),
    interest("socketpair", "socketpair", &[Own(0), Own(1)]),
    interest("clone", "clone", &[Own(2)]),
    interest("unshare", "unshare", &[Own(0)]),
    interest("setns", "setns", &[Own(1)]),
    interest("prctl", "prctl", &[Own(0)]),
    interest("ioctl", "ioctl", &[Own(1)]),
    interest("mount", "mount", &[Own(3)]),
    interest("personality", "personality", &[Own(0)]),
    interest("setuid", "setuid", &[Own(0)]),
    interest("setgid", "setgid", &[Own(0)]),
    interest("setreuid", "setreuid", &[Own(0), Own(1)]),
    interest("setregid", "setregid", &[Own(0), Own(1)]),
    interest("setresuid", "setresuid", &[Own(0), Own(1), Own(2)]),
    interest("setresgid", "setresgid", &[Own(0), Own(1), Own(2)]),
    interest("seteuid", "setresuid", &[SAME, Own(0), SAME]),
    interest("setegid", "setresgid", &[SAME, Own(0), SAME]),
];

/// Whether a system call's arguments are asked for.
pub(super) fn is_of_interest(call: &str) -> bool {
    FUNCTIONS.iter().any(|interest| interest.call == call)
}

/// The sensitive arguments at the instruction: the kernel has those of clone(2) in another order.
fn raw(call: &str) -> &'static [Source] {
    match FUNCTIONS.iter().find(|interest| interest.function == call) {
        Some(interest) if interest.function != "clone" => interest.arguments,
        _ => &[Own(0)],
    }
}

impl Reach {
    /// What is asked, by system call.
    pub(crate) fn asked(&self) -> BTreeMap<&'static str, Asked> {
        let mut asked = BTreeMap::<&'static str, Asked>::new();
        let through = self.through();
        for (index, module) in self.process.modules.iter().enumerate() {
            let is_reached = |call: &&Call| self.reached.step((index, call.node)).is_some();
            for call in module.calls.iter().filter(is_reached) {
                let Some(interest) = FUNCTIONS.iter().find(|interest| interest.function == call.name) else { continue };
                note(asked.entry(interest.call).or_default(), call, interest.arguments);
            }
            for call in module.raw.iter().filter(is_reached) {
                let Some(name) = FUNCTIONS.iter().map(|interest| interest.call).find(|name| *name == call.name) else {
                    continue;
                };
                // A function of interest is asked about at its callers.
                if !through.get(&(index, call.node)).is_some_and(|calls| calls.contains(name)) {
                    note(asked.entry(name).or_default(), call, raw(name));
                }
            }
            self.instructions(index, module, &through, &mut asked);
            self.edges(index, module, &through, &mut asked);
        }
        asked
    }

    /// The functions that pass parameters on to a call: those of the C library, and those that were found to.
    fn through(&self) -> BTreeMap<Place, BTreeSet<&'static str>> {
        let mut through = BTreeMap::<Place, BTreeSet<&'static str>>::new();
        for interest in &FUNCTIONS {
            for place in self.process.named(interest.function) {
                through.entry(place).or_default().insert(interest.call);
            }
        }
        for (index, module) in self.process.modules.iter().enumerate() {
            for call in module.calls.iter().filter(|call| call.is_passed) {
                let interest = FUNCTIONS.iter().find(|interest| interest.function == call.name);
                if let Some(interest) = interest {
                    through.entry((index, call.node)).or_default().insert(interest.call);
                }
            }
            // In a static program the functions go by their own names, which are not exported.
            for (node, function) in (0..).zip(&module.functions) {
                let interest = FUNCTIONS.iter().filter(|interest| function.name.as_deref() == Some(interest.function));
                for interest in interest {
                    through.entry((index, node)).or_default().insert(interest.call);
                }
            }
        }
        through
    }

    /// Reached instructions whose arguments were not evaluated.
    fn instructions(
        &self,
        index: usize,
        module: &Module,
        through: &BTreeMap<Place, BTreeSet<&'static str>>,
        asked: &mut BTreeMap<&'static str, Asked>,
    ) {
        for (node, sites) in &module.sites {
            if self.reached.step((index, *node)).is_none() {
                continue;
            }
            for site in sites.iter().filter(|site| !site.is_32_bit) {
                let names = site.numbers.iter().filter_map(|number| numbers::name(module.machine, *number));
                for name in names.filter(|name| is_of_interest(name)) {
                    let is_passed = through.get(&(index, *node)).is_some_and(|calls| calls.contains(name));
                    let is_evaluated = module.raw.iter().any(|call| call.at == site.at && call.name == name);
                    if !is_passed && !is_evaluated {
                        asked.entry(name).or_default().is_open = true;
                    }
                }
            }
        }
    }

    /// Reached ways into functions that pass parameters on, where nothing tells what they are given.
    fn edges(
        &self,
        index: usize,
        module: &Module,
        through: &BTreeMap<Place, BTreeSet<&'static str>>,
        asked: &mut BTreeMap<&'static str, Asked>,
    ) {
        for (node, edges) in (0..).zip(&module.edges) {
            if self.reached.step((index, node)).is_none() {
                continue;
            }
            for edge in edges {
                let (targets, is_call): (Vec<Place>, bool) = match *edge {
                    Edge::Call(to) => (vec![(index, to)], true),
                    Edge::Take(to) | Edge::Points(to) => (vec![(index, to)], false),
                    Edge::Import(import) => (self.process.imported(index, import).collect(), true),
                    Edge::PointsImport(import) => (self.process.imported(index, import).collect(), false),
                    Edge::Data(_) => continue,
                };
                for name in targets.iter().filter_map(|place| through.get(place)).flatten() {
                    let from = module.calls.partition_point(|call| call.node < node);
                    let mut calls =
                        module.calls.get(from..).unwrap_or_default().iter().take_while(|call| call.node == node);
                    let is_told = |call: &Call| {
                        FUNCTIONS.iter().any(|interest| interest.function == call.name && interest.call == *name)
                    };
                    if !is_call || !calls.any(is_told) {
                        asked.entry(name).or_default().is_open = true;
                    }
                }
            }
        }
    }
}

/// Takes what is known at one place.
fn note(asked: &mut Asked, call: &Call, sources: &[Source]) {
    let value = |source: &Source| match source {
        Always(value) => Some(vec![*value]),
        Own(index) => call.arguments.get(*index).and_then(Argument::numbers).map(<[u64]>::to_vec),
    };
    let values: Vec<Option<Vec<u64>>> = sources.iter().map(value).collect();
    if call.is_passed && values.contains(&None) {
        return;
    }
    asked.is_open |= values.contains(&None);
    let is_known = sources.iter().zip(&values).any(|(source, value)| matches!(source, Own(_)) && value.is_some());
    if is_known && asked.values.len() < MAX_VALUES {
        asked.values.insert(values);
    } else {
        asked.is_open |= is_known;
    }
}

/// Different values of one call in one process.
const MAX_VALUES: usize = 200;
