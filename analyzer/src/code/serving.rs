//! What code does again and again once a server serves: the loops that wait for events and what they lead to, and the functions
//! whose address is taken, which may be called from there. All else is only the way to the loop.

use std::collections::BTreeSet;

use super::{
    FATAL, depth,
    link::{Place, Process, Reached},
    module::{Edge, Module, Node},
    numbers,
};

/// What is reached while serving.
#[derive(Debug)]
pub(crate) struct Serving(Reached);

impl Serving {
    /// Finds it in the reached code of a process; none where no loop waits.
    pub(crate) fn of(process: &Process, reached: &Reached) -> Option<Self> {
        let mut places = looped(process, reached);
        if places.is_empty() {
            return None;
        }
        places.extend(handled(process, reached));
        Some(Self(process.reach_from(places, FATAL)))
    }

    /// A loop that waits leads to a place, or a function whose address is taken.
    pub(crate) fn leads_to(&self, place: Place) -> bool {
        self.0.step(place).is_some()
    }
}

/// The files outside the C library.
fn outside(process: &Process) -> impl Iterator<Item = (usize, &Module)> {
    let modules = process.modules.iter().map(AsRef::as_ref).enumerate();
    modules.filter(|(_, module)| !depth::is_c_library(module))
}

/// What loops that wait call.
fn looped(process: &Process, reached: &Reached) -> Vec<Place> {
    let waiting = waiting(process, reached);
    let mut looped = Vec::new();
    for (index, module) in outside(process) {
        for (node, edges) in &module.looped {
            let targets = || edges.iter().flat_map(|edge| called(process, index, *edge));
            if reached.step((index, *node)).is_some() && targets().any(|place| waiting.contains(&place)) {
                looped.extend(targets());
            }
        }
    }
    looped
}

/// Functions whose address the code of a file outside the C library takes, or its data holds, or that are asked for by name.
fn handled(process: &Process, reached: &Reached) -> Vec<Place> {
    let mut handled = Vec::new();
    for (index, module) in outside(process) {
        for (node, edges) in (0..).zip(&module.edges) {
            // The entry hands `main` over to the C library.
            if reached.step((index, node)).is_none() || module.entry == Some(node) {
                continue;
            }
            handled.extend(process.asked((index, node)));
            for edge in edges {
                match *edge {
                    Edge::Take(to) | Edge::Points(to) => handled.push((index, to)),
                    Edge::PointsImport(name) => handled.extend(process.imported(index, name)),
                    _ => {}
                }
            }
        }
        let listed = module.tables.iter().chain(&module.python).flatten().map(|(_, _, node)| (index, *node));
        handled.extend(listed.filter(|place| reached.step(*place).is_some()));
    }
    // Of a file that is opened at run time, any name may be asked for.
    for index in process.opened() {
        let exports = process.modules.get(index).into_iter().flat_map(|module| module.exports.values().flatten());
        handled.extend(exports.map(|export| (index, export.node)));
    }
    handled
}

/// What an edge of a function calls.
fn called(process: &Process, module: usize, edge: Edge) -> impl Iterator<Item = Place> + '_ {
    let (node, name) = match edge {
        Edge::Call(node) => (Some((module, node)), None),
        Edge::Import(name) => (None, Some(name)),
        _ => (None, None),
    };
    node.into_iter().chain(name.into_iter().flat_map(move |name| process.imported(module, name)))
}

/// Functions that wait for events: they make such a call, or call one that does. What the C library does inside of it, as to ask
/// a name server, is another matter.
fn waiting(process: &Process, reached: &Reached) -> BTreeSet<Place> {
    let mut ahead = Vec::new();
    for (index, module) in process.modules.iter().enumerate() {
        if depth::is_c_library(module) {
            let exports = WAITS.iter().filter_map(|name| module.exports.get(*name)).flatten();
            ahead.extend(exports.map(|export| (index, export.node)));
        } else {
            let waits = module.sites.keys().filter(|node| is_wait(module, **node));
            ahead.extend(waits.map(|node| (index, *node)));
        }
    }
    ahead.retain(|place| reached.step(*place).is_some());
    if ahead.is_empty() {
        return BTreeSet::new();
    }
    let mut callers: Vec<(Place, Place)> = Vec::new();
    for (index, module) in outside(process) {
        for (node, edges) in (0..).zip(&module.edges) {
            if reached.step((index, node)).is_some() {
                let places = edges.iter().flat_map(|edge| called(process, index, *edge));
                callers.extend(places.map(|place| (place, (index, node))));
            }
        }
    }
    callers.sort_unstable();
    let mut waiting = BTreeSet::new();
    while let Some(place) = ahead.pop() {
        if waiting.insert(place) {
            let from = callers.partition_point(|(called, _)| *called < place);
            let rest = callers.get(from..).unwrap_or_default().iter();
            ahead.extend(rest.take_while(|(called, _)| *called == place).map(|(_, caller)| *caller));
        }
    }
    waiting
}

fn is_wait(module: &Module, node: Node) -> bool {
    let sites = module.sites.get(&node).into_iter().flatten().filter(|site| !site.is_32_bit);
    let name = |number: &u32| numbers::name(module.machine, *number);
    sites.flat_map(|site| &site.numbers).filter_map(name).any(|name| WAITS.contains(&name))
}

/// System calls by which a server waits for what to do next.
const WAITS: [&str; 14] = [
    "accept",
    "accept4",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "io_uring_enter",
    "poll",
    "ppoll",
    "pselect",
    "pselect6",
    "recvmmsg",
    "rt_sigsuspend",
    "select",
    "sigsuspend",
];
