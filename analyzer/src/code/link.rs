//! The files that one process maps, bound to each other as the loader would, and what of their code can be reached.
//!
//! A pointer to a function is live where the code that takes it is, or the data object that holds it. Nothing is known of which
//! live pointer an indirect call takes, so each live one counts as called. A node's *distance* sums up how indirectly it is
//! reached; the prediction of what really happens rests on it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{
    module::{Edge, Export, Module, Node, Table},
    sites::Argument,
};
use crate::words::Words;

/// A function or data object of a process: the file's number and the node in it.
pub(crate) type Place = (usize, Node);

/// The files of a process: the program first, then its libraries in the loader's order, its interpreter among them.
#[derive(Debug)]
pub(crate) struct Process {
    pub(super) modules: Vec<Arc<Module>>,
    /// Tables of the program, by number, in which a name that it is called by stands: only such names are looked up.
    closed: BTreeSet<usize>,
    called: BTreeSet<String>,
    /// The words of Python's sources; none where they are not known, and any function of its modules may be called.
    words: Option<Arc<Words>>,
    /// What the names that each file asks for stand for.
    bound: Vec<Bound>,
    /// The calls of each file, by their numbers, that ask the loader for names at run time; by the function that calls.
    asking: Vec<Vec<(Node, usize)>>,
}

/// What the names that a file asks for stand for, name after name.
#[derive(Debug, Default)]
struct Bound {
    places: Vec<Place>,
    /// Where those of each name end.
    ends: Vec<usize>,
}

/// What can be reached.
#[derive(Debug)]
pub(crate) struct Reached {
    /// Distances by module and node; [`FAR`] where it is not reached.
    nodes: Vec<Vec<u32>>,
    /// Something asks for another scheduling of threads.
    pub(super) is_scheduled: bool,
}

/// How far from the start a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) distance: u32,
}

impl Process {
    /// Binds files to each other. The program is called by the given names; none where they are not known. Python's sources use
    /// the given words.
    pub(crate) fn new(modules: Vec<Arc<Module>>, called: BTreeSet<String>, words: Option<Arc<Words>>) -> Self {
        let mut known = HashMap::new();
        let bound = modules.iter().map(|module| Bound::of(module, &modules, &mut known)).collect();
        let asks = |module: &Arc<Module>| {
            let calls = module.calls.iter().enumerate();
            let asking = calls.filter(|(_, call)| matches!(call.name.as_str(), "dlsym" | "dlvsym"));
            asking.map(|(index, call)| (call.node, index)).collect()
        };
        let asking = modules.iter().map(asks).collect();
        let tables = modules.first().map(|module| module.tables.as_slice()).unwrap_or_default();
        let is_closed = |table: &Table| {
            let has = |name: &String| table.iter().any(|(_, known, _)| known == name);
            called.iter().any(has)
        };
        let closed = tables.iter().enumerate().filter(|(_, table)| is_closed(table)).map(|(index, _)| index).collect();
        Self { modules, closed, called, words, bound, asking }
    }

    /// The files that no other needs from the start: the program and its interpreter apart.
    pub(super) fn opened(&self) -> Vec<usize> {
        let mut bound: BTreeSet<usize> = BTreeSet::from([0]);
        let mut ahead = vec![0];
        while let Some(index) = ahead.pop() {
            let needed = self.modules.get(index).map(|module| module.needed.as_slice()).unwrap_or_default();
            for (other, module) in self.modules.iter().enumerate() {
                let is_needed = module.soname.as_ref().is_some_and(|soname| needed.contains(soname));
                if is_needed && bound.insert(other) {
                    ahead.push(other);
                }
            }
        }
        let is_loader = |module: &Module| LOADER_NAMES.iter().any(|name| module.exports.contains_key(*name));
        let modules = self.modules.iter().enumerate();
        modules.filter(|(index, module)| !bound.contains(index) && !is_loader(module)).map(|(index, _)| index).collect()
    }

    /// Whether anything may look a function of a Python module up that a file of this number defines.
    fn is_used(&self, module: usize, name: &str) -> bool {
        let Some(words) = &self.words else { return true };
        let mut others = self.modules.iter().enumerate().filter(|(other, _)| *other != module);
        words.contains(name) || others.any(|(_, other)| other.words.contains(name))
    }

    /// The functions that a name stands for in a process.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = Place> + '_ {
        named(&self.modules, name)
    }

    /// The functions of that name in a program that brings its C library along.
    fn inner(&self, name: &str) -> impl Iterator<Item = Place> {
        let program = self.modules.first().filter(|_| self.modules.len() == 1);
        let functions = program.map(|program| program.functions.as_slice()).unwrap_or_default();
        functions
            .iter()
            .zip(0..)
            .filter(move |(function, _)| function.name.as_deref() == Some(name))
            .map(|(_, node)| (0, node))
    }

    /// What a function asks the loader for at run time, by name.
    pub(super) fn asked(&self, (module, node): Place) -> impl Iterator<Item = Place> + '_ {
        let asking = self.asking.get(module).map(Vec::as_slice).unwrap_or_default();
        let from = asking.partition_point(|(asker, _)| *asker < node);
        let own = asking.get(from..).unwrap_or_default().iter().take_while(move |(asker, _)| *asker == node);
        let calls = own.filter_map(move |(_, call)| self.modules.get(module)?.calls.get(*call));
        calls.flat_map(|call| &call.arguments).flat_map(Argument::texts).flat_map(|name| self.named(name))
    }

    /// What a name that a file asks for stands for.
    pub(super) fn imported(&self, module: usize, index: u32) -> impl Iterator<Item = Place> + '_ {
        self.bound.get(module).map(|bound| bound.places(index)).unwrap_or_default().iter().copied()
    }

    /// Follows all code from the program's entry and the files' start-up functions, but enters no function of the given names.
    pub(crate) fn reach(&self, avoided: &[&str]) -> Reached {
        self.search(avoided, None).reached
    }

    /// The shortest way from a start to a place, both ends in it; empty where the place is not reached.
    pub(crate) fn way(&self, to: Place, avoided: &[&str]) -> Vec<Place> {
        let search = self.search(avoided, Some(BTreeMap::new()));
        let trail = search.trail.unwrap_or_default();
        let mut way = Vec::new();
        let mut at = search.reached.step(to).map(|_| to);
        while let Some(place) = at {
            way.push(place);
            at = trail.get(&place).copied();
        }
        way.reverse();
        way
    }

    /// Follows all code from some places on.
    pub(super) fn reach_from(&self, places: Vec<Place>, avoided: &[&str]) -> Reached {
        let mut search = self.searcher(avoided, None);
        // Another scheduling may have been asked for on the way there.
        search.reached.is_scheduled = true;
        places.into_iter().for_each(|place| search.visit(place, 0));
        search.run();
        search.reached
    }

    /// Nothing is followed yet.
    fn searcher(&self, avoided: &[&str], trail: Option<BTreeMap<Place, Place>>) -> Search<'_> {
        let nodes = self.modules.iter().map(|module| vec![FAR; module.edges.len()]).collect();
        Search {
            process: self,
            reached: Reached { nodes, is_scheduled: false },
            ahead: vec![VecDeque::new(); CLASSES],
            avoided: avoided.iter().flat_map(|name| self.named(name)).collect(),
            trail,
            from: None,
            guards: GUARDS.iter().flat_map(|name| self.named(name).chain(self.inner(name))).collect(),
            held: BTreeMap::new(),
        }
    }

    /// Follows the code; with a `trail`, each place is noted with the one it was reached from.
    fn search(&self, avoided: &[&str], trail: Option<BTreeMap<Place, Place>>) -> Search<'_> {
        let mut search = self.searcher(avoided, trail);
        for (index, module) in self.modules.iter().enumerate() {
            // The program's own entry, and the interpreter's: a library's is seldom set and never used by the loader.
            let is_started = index == 0 || LOADER_NAMES.iter().any(|name| module.exports.contains_key(*name));
            let entry = module.entry.filter(|_| is_started);
            for node in entry.into_iter().chain(module.initial.iter().copied()) {
                search.visit((index, node), 0);
            }
        }
        // Of a file that is opened at run time, any name may be asked for.
        for index in self.opened() {
            let exports = self.modules.get(index).into_iter().flat_map(|module| module.exports.values().flatten());
            for export in exports {
                search.visit((index, export.node), TAKEN);
            }
        }
        search.run();
        search
    }
}

impl Bound {
    /// Looks up the names that an edge leads to; `known` holds those of other files.
    fn of<'a>(module: &'a Module, modules: &'a [Arc<Module>], known: &mut HashMap<&'a str, Vec<Place>>) -> Self {
        let mut is_used = vec![false; module.imports.len()];
        for edge in module.edges.iter().flatten() {
            if let Edge::Import(index) | Edge::PointsImport(index) = edge
                && let Some(is_used) = is_used.get_mut(*index as usize)
            {
                *is_used = true;
            }
        }
        let mut bound = Self::default();
        for (name, is_used) in module.imports.iter().zip(is_used) {
            if is_used {
                bound.places.extend(known.entry(name).or_insert_with(|| named(modules, name).collect()).iter());
            }
            bound.ends.push(bound.places.len());
        }
        bound
    }

    fn places(&self, index: u32) -> &[Place] {
        let index = index as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ends.get(index).and_then(|end| self.places.get(start..*end)).unwrap_or_default()
    }
}

/// What a name stands for in a process: the first file in the loader's order that defines it has it.
fn named<'a>(modules: &'a [Arc<Module>], name: &str) -> impl Iterator<Item = Place> + use<'a> {
    let mut modules = modules.iter().enumerate();
    let found = modules.find_map(|(index, module)| Some((index, module.exports.get(name)?)));
    found.into_iter().flat_map(|(index, list)| current(list).map(move |export| (index, export.node)))
}

/// What others bind to under one name: old versions only where there is no other.
fn current(list: &[Export]) -> impl Iterator<Item = &Export> {
    let is_old = list.iter().all(|export| export.is_old_version);
    list.iter().filter(move |export| is_old || !export.is_old_version)
}

impl Reached {
    /// A node's step; none where it is not reached.
    pub(crate) fn step(&self, place: Place) -> Option<Step> {
        let distance = self.nodes.get(place.0)?.get(place.1 as usize).copied().filter(|distance| *distance != FAR)?;
        Some(Step { distance })
    }
}

struct Search<'a> {
    process: &'a Process,
    reached: Reached,
    /// Work by distance, in a ring of as many classes as the dearest edge costs.
    ahead: Vec<VecDeque<(Place, u32)>>,
    avoided: BTreeSet<Place>,
    /// Whence each place was reached, where that is asked for, and the place that is followed.
    trail: Option<BTreeMap<Place, Place>>,
    from: Option<Place>,
    /// Functions that ask for another scheduling.
    guards: BTreeSet<Place>,
    /// What is entered only once one of them is reached, with its distance.
    held: BTreeMap<Place, u32>,
}

impl Search<'_> {
    fn visit(&mut self, place: Place, distance: u32) {
        if self.guards.contains(&place) && !self.is_library_s_own(place) {
            self.reached.is_scheduled = true;
            self.guards.clear();
            std::mem::take(&mut self.held).into_iter().for_each(|(place, distance)| self.visit(place, distance));
        }
        let known = self.reached.nodes.get(place.0).and_then(|nodes| nodes.get(place.1 as usize));
        if known.is_none_or(|known| *known <= distance) || self.avoided.contains(&place) {
            return;
        }
        match self.reached.nodes.get_mut(place.0).and_then(|nodes| nodes.get_mut(place.1 as usize)) {
            Some(slot) if distance < *slot => *slot = distance,
            _ => return,
        }
        if let (Some(trail), Some(from)) = (&mut self.trail, self.from) {
            trail.insert(place, from);
        }
        if let Some(class) = self.ahead.get_mut(distance as usize % CLASSES) {
            class.push_back((place, distance));
        }
    }

    /// A C library calls its own function for attributes that only others could have set.
    fn is_library_s_own(&self, guard: Place) -> bool {
        let Some((module, node)) = self.from else { return false };
        let function = self.process.modules.get(module).and_then(|module| module.functions.get(node as usize));
        let name = function.and_then(|function| function.name.as_deref()).unwrap_or_default();
        module == guard.0 && (module != 0 || name.trim_start_matches('_').starts_with("pthread_"))
    }

    fn run(&mut self) {
        let mut distance = 0u32;
        let mut empty = 0;
        while empty <= CLASSES {
            let next = self.ahead.get_mut(distance as usize % CLASSES).and_then(VecDeque::pop_front);
            let Some((place, at)) = next else {
                distance = distance.saturating_add(1);
                empty = empty.saturating_add(1);
                continue;
            };
            empty = 0;
            if self.reached.step(place).is_some_and(|step| step.distance == at) {
                self.follow(place, at);
            }
        }
    }

    fn follow(&mut self, place: Place, distance: u32) {
        self.from = Some(place);
        let process = self.process;
        let Some(module) = process.modules.get(place.0) else { return };
        process.asked(place).for_each(|to| self.visit(to, distance.saturating_add(TAKEN)));
        for (index, table) in module.tables.iter().enumerate() {
            let is_closed = place.0 == 0 && process.closed.contains(&index);
            for (_, name, node) in held_by(table, place.1) {
                match is_closed {
                    // What it is called by is what it does, as `main` is elsewhere.
                    true if process.called.contains(name) => {
                        self.visit((place.0, *node), distance.saturating_add(CALL))
                    }
                    true => {}
                    false => self.visit((place.0, *node), distance.saturating_add(POINTED)),
                }
            }
        }
        for table in &module.python {
            for (_, _, node) in held_by(table, place.1).filter(|(_, name, _)| process.is_used(place.0, name)) {
                self.visit((place.0, *node), distance.saturating_add(POINTED));
            }
        }
        let is_entry = place.0 == 0 && module.entry == Some(place.1);
        for edge in module.edges.get(place.1 as usize).into_iter().flatten() {
            match *edge {
                Edge::Call(node)
                    if !self.reached.is_scheduled
                        && module.scheduling.called.contains(&node)
                        && module.scheduling.callers.contains(&place.1) =>
                {
                    let distance = distance.saturating_add(CALL);
                    let held = self.held.entry((place.0, node)).or_insert(distance);
                    *held = distance.min(*held);
                }
                Edge::Call(node) => self.visit((place.0, node), distance.saturating_add(CALL)),
                // The entry hands `main` over to the C library.
                Edge::Take(node) if is_entry => self.visit((place.0, node), distance.saturating_add(CALL)),
                Edge::Take(node) => self.visit((place.0, node), distance.saturating_add(TAKEN)),
                Edge::Data(node) => self.visit((place.0, node), distance),
                Edge::Points(node) => self.visit((place.0, node), distance.saturating_add(POINTED)),
                Edge::Import(index) => {
                    process.imported(place.0, index).for_each(|to| self.visit(to, distance.saturating_add(CALL)));
                }
                Edge::PointsImport(index) => {
                    process.imported(place.0, index).for_each(|to| self.visit(to, distance.saturating_add(POINTED)));
                }
            }
        }
    }
}

/// The functions of a table whose pointers an object holds.
fn held_by(table: &Table, object: Node) -> impl Iterator<Item = &(Node, String, Node)> {
    let from = table.partition_point(|(holder, _, _)| *holder < object);
    table.get(from..).unwrap_or_default().iter().take_while(move |(holder, _, _)| *holder == object)
}

/// Names that only the loaders of glibc and musl define.
const LOADER_NAMES: [&str; 2] = ["_rtld_global", "_dlstart"];
/// What asks for another scheduling than a thread has by itself: the protocol of a mutex (pthread_mutexattr_setprotocol(3p)), the
/// attributes of a thread (pthread_attr_setinheritsched(3)) or of a program to start (posix_spawn(3)).
const GUARDS: [&str; 10] = [
    "pthread_mutexattr_setprotocol",
    "pthread_mutexattr_setprioceiling",
    "pthread_mutex_setprioceiling",
    "pthread_attr_setinheritsched",
    "pthread_attr_setschedpolicy",
    "pthread_attr_setschedparam",
    "pthread_attr_setaffinity_np",
    "pthread_setattr_default_np",
    "posix_spawnattr_setschedpolicy",
    "posix_spawnattr_setschedparam",
];
const CALL: u32 = 1;
/// A function whose address code takes: it may be called, or only stored.
const TAKEN: u32 = 4;
/// A function that data points to.
const POINTED: u32 = 8;
/// No node is as far.
const FAR: u32 = u32::MAX;
/// More than the dearest edge.
const CLASSES: usize = 9;
