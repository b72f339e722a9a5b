//! Where a file makes system calls, and with which numbers; and the arguments it gives to functions of interest.
//!
//! A number is found by evaluating the function around the instruction. Where it comes from the function's caller - `syscall(2)`
//! itself, musl's cancellation points, Go's runtime forms - the function is a *wrapper*, and its callers are evaluated in turn.

mod calls;
mod lines;
mod paths;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    aarch64, asks,
    binary::{Binary, Pointer},
    insn::{Effect, Flow, Machine, Register, Step, Use},
    module::{Function, Layout, Node},
    numbers,
    values::{self, Atom, Convention, Entry, Line, State, Value},
    x86,
};

pub(crate) use calls::{Argument, Call};
pub(crate) use lines::RUNNERS;

/// A place that makes a system call, or that calls a wrapper that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    /// Virtual address.
    pub(super) at: u64,
    /// Numbers it may have.
    pub(super) numbers: BTreeSet<u32>,
    /// It may have others that could not be found.
    pub(super) is_open: bool,
    /// The numbers are those of 32-bit x86.
    pub(super) is_32_bit: bool,
}

/// A text that a function or data object refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(super) node: Node,
    /// Virtual address of the reference.
    pub(super) at: u64,
    pub(super) text: String,
}

/// How a function takes the number it passes on.
type Parameters = BTreeSet<Atom>;

/// What a file does by itself.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) sites: BTreeMap<Node, Vec<Site>>,
    pub(super) calls: Vec<Call>,
    /// The arguments at the instructions that make system calls of interest, under the calls' names.
    pub(super) raw: Vec<Call>,
    pub(super) paths: Vec<Named>,
    pub(super) lines: Vec<Named>,
}

/// Finds the sites and calls of a file.
pub(super) fn find(binary: &Binary, layout: &Layout, steps: &[Step], functions: &[Function]) -> Found {
    let mut search = Search {
        binary,
        layout,
        functions,
        sites: BTreeMap::new(),
        by_reference: BTreeSet::new(),
        raw: Vec::new(),
        work: MAX_WORK,
    };
    // First the instructions themselves.
    let direct: Vec<&Step> =
        steps.iter().filter(|step| matches!(step.flow(), Flow::Syscall | Flow::Syscall32)).collect();
    let mut wrappers = BTreeMap::<Node, Parameters>::new();
    let nodes: BTreeSet<Node> = direct.iter().filter_map(|step| layout.function(step.at)).collect();
    for node in nodes {
        let register = binary.machine.number();
        search.evaluate(
            node,
            |step| matches!(step.flow(), Flow::Syscall | Flow::Syscall32),
            |search, step, state| {
                let parameters = search.note(node, step, state.register(register));
                search.note_arguments(node, step, state);
                wrappers.entry(node).or_default().extend(parameters);
            },
        );
    }
    // Go's way to have all threads make a call passes the number through the scheduler.
    for (node, function) in (0..).zip(functions) {
        if function.name.as_deref().is_some_and(|name| GO_ALL_THREADS.contains(&name)) {
            wrappers.entry(node).or_default().insert(Atom::Entry(GO_FIRST_ARGUMENT, 0));
        }
    }
    search.look_again();
    // Then the callers of wrappers, and theirs.
    let calls = Callers::new(binary, layout, steps);
    let mut done = BTreeMap::<Node, Parameters>::new();
    for _ in 0..WRAPPER_DEPTH {
        wrappers.retain(|node, parameters| !parameters.is_empty() && done.get(node) != Some(parameters));
        if wrappers.is_empty() {
            break;
        }
        let mut next = BTreeMap::<Node, Parameters>::new();
        let mut by_caller = BTreeMap::<Node, BTreeMap<u64, Parameters>>::new();
        for (wrapper, parameters) in &wrappers {
            for (caller, at) in calls.of(*wrapper) {
                if caller != *wrapper {
                    by_caller.entry(caller).or_default().insert(at, parameters.clone());
                }
            }
        }
        for (giver, wrapper, parameters) in givers(layout, steps, &wrappers, &calls) {
            let Some(start) = functions.get(wrapper as usize).map(|function| function.at) else { continue };
            search.evaluate(
                giver,
                |step| matches!(step.flow(), Flow::Call(_) | Flow::CallIndirect | Flow::Jump(_)),
                |search, step, state| {
                    let registers = search.binary.machine.arguments();
                    let is_given =
                        |register: &Register| *state.register(*register) == Value::One(Atom::Constant(start));
                    if !registers.iter().any(is_given) {
                        return;
                    }
                    for register in registers {
                        for parameter in &parameters {
                            let (Value::One(Atom::Frame(_)), Atom::Field(_, offset)) =
                                (state.register(*register), parameter)
                            else {
                                continue;
                            };
                            let value = search.argument(step, state, Atom::Field(*register, *offset));
                            next.entry(giver).or_default().extend(search.note(giver, step, &value));
                        }
                    }
                },
            );
        }
        for (caller, places) in by_caller {
            search.evaluate(
                caller,
                |step| places.contains_key(&step.at),
                |search, step, state| {
                    let Some(parameters) = places.get(&step.at) else { return };
                    for parameter in parameters {
                        let value = search.argument(step, state, *parameter);
                        let further = search.note(caller, step, &value);
                        next.entry(caller).or_default().extend(further);
                    }
                },
            );
        }
        for (node, parameters) in std::mem::replace(&mut wrappers, next) {
            done.entry(node).or_default().extend(parameters);
        }
    }
    search.close();
    let found = search.calls(&calls);
    let paths = search.paths(steps);
    let lines = search.lines_named(steps);
    if search.work == 0 {
        // What was not evaluated is not known.
        for step in direct {
            if let Some(node) = layout.function(step.at).filter(|node| !search.sites.contains_key(node)) {
                search.note(node, step, &Value::Any);
            }
        }
    }
    Found { sites: search.sites, calls: found, raw: search.raw, paths, lines }
}

/// Functions that hand a wrapper on, which nobody calls by itself, together with a structure that holds its number: musl's `__setxid`
/// has every thread run such a one.
fn givers(
    layout: &Layout,
    steps: &[Step],
    wrappers: &BTreeMap<Node, Parameters>,
    callers: &Callers,
) -> BTreeSet<(Node, Node, Parameters)> {
    let is_field = |parameter: &Atom| matches!(parameter, Atom::Field(_, _));
    let is_handed = |(node, parameters): &(&Node, &Parameters)| {
        parameters.iter().any(is_field) && callers.of(**node).next().is_none()
    };
    let handed: BTreeMap<Node, &Parameters> =
        wrappers.iter().filter(is_handed).map(|(node, parameters)| (*node, parameters)).collect();
    if handed.is_empty() {
        return BTreeSet::new();
    }
    let giver = |step: &Step| {
        let Some((Use::Take, at)) = step.refers() else { return None };
        let wrapper = layout.function(at)?;
        Some((layout.function(step.at)?, wrapper, (*handed.get(&wrapper)?).clone()))
    };
    steps.iter().filter_map(giver).collect()
}

struct Search<'a> {
    binary: &'a Binary,
    layout: &'a Layout,
    functions: &'a [Function],
    sites: BTreeMap<Node, Vec<Site>>,
    /// Numbers that are handed over in structures.
    by_reference: BTreeSet<u32>,
    raw: Vec<Call>,
    /// Instructions that may still be evaluated.
    work: usize,
}

impl Search<'_> {
    /// A function's instructions with their effects.
    fn lines(&self, function: &Function) -> Vec<Line> {
        let bytes = self.binary.bytes_at(function.at);
        let len = usize::try_from(function.end.saturating_sub(function.at)).unwrap_or(0);
        let bytes = bytes.get(..len).unwrap_or(bytes);
        let bytes = bytes.get(..FUNCTION_BYTES).unwrap_or(bytes);
        let mut lines: Vec<Line> = Vec::new();
        match self.binary.machine {
            Machine::X86_64 => x86::effects(bytes, function.at, |step, effects| lines.push((step, effects.to_vec()))),
            Machine::Aarch64 => {
                aarch64::effects(bytes, function.at, |step, effects| lines.push((step, effects.to_vec())))
            }
        }
        for effect in lines.iter_mut().flat_map(|(_, effects)| effects) {
            if let Effect::LoadStatic { to, from, bits } = *effect
                && let Some(value) = self.initial(from, bits)
            {
                *effect = Effect::Set { to, value };
            }
        }
        lines
    }

    fn evaluate(&mut self, node: Node, wanted: impl Fn(&Step) -> bool, mut on: impl FnMut(&mut Self, &Step, &State)) {
        let Some(function) = self.functions.get(node as usize).filter(|_| self.work != 0) else { return };
        let lines = self.lines(function);
        if lines.len() <= MAX_LINES {
            let convention = self.convention();
            let done =
                values::evaluate(&lines, convention, Entry::Function, wanted, |step, state| on(self, step, state));
            self.work = self.work.saturating_sub(done);
        } else {
            self.evaluate_windows(&lines, wanted, on);
        }
    }

    /// What stands just before a place mostly decides: for a giant, which is not evaluated whole, and where all ways into a place
    /// together leave its value open.
    fn evaluate_windows(
        &mut self,
        lines: &[Line],
        wanted: impl Fn(&Step) -> bool,
        mut on: impl FnMut(&mut Self, &Step, &State),
    ) {
        for index in 0..lines.len() {
            let Some((step, _)) = lines.get(index).filter(|_| self.work != 0) else { continue };
            if wanted(step) {
                let at = step.at;
                let window = lines.get(index.saturating_sub(WINDOW)..=index).unwrap_or_default();
                let convention = self.convention();
                let done = values::evaluate(
                    window,
                    convention,
                    Entry::Amid,
                    |step| step.at == at,
                    |step, state| on(self, step, state),
                );
                self.work = self.work.saturating_sub(done);
            }
        }
    }

    fn convention(&self) -> Convention {
        Convention { machine: self.binary.machine, keeps_nothing: !self.binary.go.is_empty() }
    }

    /// Looks again at the instructions whose number is open.
    fn look_again(&mut self) {
        let is_bare = |site: &Site| site.is_open && site.numbers.is_empty();
        let open: BTreeMap<Node, BTreeSet<u64>> = self
            .sites
            .iter()
            .map(|(node, sites)| (*node, sites.iter().filter(|site| is_bare(site)).map(|site| site.at).collect()))
            .filter(|(_, places): &(Node, BTreeSet<u64>)| !places.is_empty())
            .collect();
        for (node, places) in open {
            let Some(function) = self.functions.get(node as usize) else { continue };
            let lines = self.lines(function);
            let register = self.binary.machine.number();
            self.evaluate_windows(
                &lines,
                |step| places.contains(&step.at) && matches!(step.flow(), Flow::Syscall | Flow::Syscall32),
                |search, step, state| {
                    let numbers: Option<BTreeSet<u32>> = constants(state.register(register)).map(|numbers| {
                        numbers.into_iter().filter_map(|number| u32::try_from(number & 0xffff_ffff).ok()).collect()
                    });
                    let numbers = numbers.filter(|numbers| numbers.iter().all(|number| *number < HIGHEST_NUMBER));
                    let sites = search.sites.get_mut(&node).into_iter().flatten();
                    if let (Some(numbers), Some(site)) = (numbers, sites.into_iter().find(|site| site.at == step.at)) {
                        site.numbers = numbers;
                        site.is_open = false;
                    }
                },
            );
        }
    }

    /// The address that an instruction names.
    fn refers(&self, step: &Step) -> Option<u64> {
        match step.refers()? {
            (Use::Take, to) => Some(to),
            (Use::Constant, to) => Some(to).filter(|_| !self.binary.is_movable),
            _ => None,
        }
    }

    /// Where data holds an address of this file, and that address.
    fn held(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.binary.pointers.iter().filter_map(|(at, pointer)| match pointer {
            Pointer::Here(to) if !self.binary.is_code(*at) => Some((*at, *to)),
            _ => None,
        })
    }

    /// The text of printable characters at an address.
    fn text(&self, at: u64) -> Option<String> {
        let bytes = self.binary.bytes_at(at);
        let bytes = bytes.get(..TEXT_BYTES).unwrap_or(bytes);
        let text = bytes.get(..memchr::memchr(0, bytes)?)?;
        let is_text = !text.is_empty() && text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n'));
        is_text.then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// What a variable holds at start, where that may be a system call's number: Go keeps that of `fcntl` in one. Or the text that a variable points to at start.
    fn initial(&self, at: u64, bits: u32) -> Option<u64> {
        if let Some(Pointer::Here(to)) = self.binary.pointer(at) {
            return Some(to).filter(|to| bits == 64 && !self.binary.is_code(*to) && self.text(*to).is_some());
        }
        let value = self.binary.bytes_at(at).first_chunk().copied().map(u64::from_le_bytes)?;
        let value = if bits == 32 { value & 0xffff_ffff } else { value };
        (1..u64::from(HIGHEST_NUMBER)).contains(&value).then_some(value)
    }

    /// Notes what a site's number may be; returns what of it the caller decides.
    fn note(&mut self, node: Node, step: &Step, value: &Value) -> Parameters {
        let mut site =
            Site { at: step.at, numbers: BTreeSet::new(), is_open: false, is_32_bit: step.flow() == Flow::Syscall32 };
        let mut parameters = Parameters::new();
        match value.atoms() {
            None => site.is_open = true,
            Some(atoms) => {
                for atom in atoms {
                    match atom {
                        Atom::Constant(number) => match u32::try_from(*number & 0xffff_ffff) {
                            Ok(number) if number < HIGHEST_NUMBER => {
                                site.numbers.insert(number);
                            }
                            // -1 and the like: no system call.
                            _ => {}
                        },
                        Atom::Entry(_, 0) | Atom::Stacked(_) | Atom::Field(_, _) => {
                            parameters.insert(*atom);
                        }
                        Atom::Entry(_, _) | Atom::Frame(_) | Atom::Memory => site.is_open = true,
                    }
                }
            }
        }
        if !site.numbers.is_empty() || site.is_open {
            let list = self.sites.entry(node).or_default();
            match list.iter_mut().find(|known| known.at == site.at) {
                Some(known) => {
                    known.numbers.extend(&site.numbers);
                    known.is_open |= site.is_open;
                }
                None => list.push(site),
            }
        }
        parameters
    }

    /// Notes what is asked at an instruction whose number is known.
    fn note_arguments(&mut self, node: Node, step: &Step, state: &State) {
        let machine = self.binary.machine;
        let numbers = constants(state.register(machine.number())).unwrap_or_default();
        let [number] = numbers.as_slice() else { return };
        let name = u32::try_from(*number & 0xffff_ffff).ok().and_then(|number| numbers::name(machine, number));
        let Some(name) = name.filter(|name| asks::is_of_interest(name) && step.flow() == Flow::Syscall) else { return };
        let argument =
            |register: &Register| constants(state.register(*register)).map_or(Argument::Any, Argument::Numbers);
        let arguments = machine.call_arguments().iter().map(argument).collect();
        self.raw.push(Call { node, at: step.at, name: name.to_owned(), arguments, is_passed: false });
    }

    /// What a parameter is at a call.
    fn argument(&mut self, step: &Step, state: &State, parameter: Atom) -> Value {
        let machine = self.binary.machine;
        let pushed =
            if matches!(step.flow(), Flow::Call(_) | Flow::CallIndirect) { machine.pushed_by_call() } else { 0 };
        match parameter {
            Atom::Entry(register, _) => state.register(register).clone(),
            Atom::Stacked(at) => state.load(state.register(machine.stack()), at.saturating_sub(pushed)),
            Atom::Field(register, offset) => {
                let value = state.load(state.register(register), offset);
                for atom in value.atoms().unwrap_or_default() {
                    if let Atom::Constant(number) = atom {
                        self.by_reference.extend(u32::try_from(*number).ok().filter(|number| *number < HIGHEST_NUMBER));
                    }
                }
                value
            }
            _ => Value::Any,
        }
    }

    /// A site that reads its number from memory makes no other call than those that the file hands over in structures, and these
    /// count where they are handed over: glibc's `setuid` and its kin tell every thread so which call to make.
    fn close(&mut self) {
        if self.by_reference.is_empty() {
            return;
        }
        for site in self.sites.values_mut().flatten().filter(|site| site.is_open && site.numbers.is_empty()) {
            site.is_open = false;
        }
    }
}

fn constants(value: &Value) -> Option<Vec<u64>> {
    let constant = |atom: &Atom| match atom {
        Atom::Constant(value) => Some(*value),
        _ => None,
    };
    value.atoms()?.iter().map(constant).collect()
}

/// Who calls what, by direct calls and jumps, and by name.
struct Callers {
    /// Callee, caller, place; sorted.
    direct: Vec<(Node, Node, u64)>,
    imports: BTreeMap<u32, Vec<(Node, u64)>>,
    /// Who loads a name's address otherwise than to call it there.
    taken: BTreeMap<u32, Vec<(Node, u64)>>,
}

impl Callers {
    fn new(binary: &Binary, layout: &Layout, steps: &[Step]) -> Self {
        let mut callers = Self { direct: Vec::new(), imports: BTreeMap::new(), taken: BTreeMap::new() };
        let mut names = BTreeMap::<&str, Node>::new();
        for symbol in binary.symbols.iter().filter(|symbol| symbol.is_exported) {
            names.extend(layout.function(symbol.at).map(|node| (symbol.name.as_str(), node)));
        }
        let mut cursor = layout.cursor();
        for step in steps {
            let mut caller = || cursor.function(step.at).map(|(node, _)| node);
            let slot = match step.flow() {
                Flow::Call(to) | Flow::Jump(to) | Flow::Branch(to) => match layout.stub(to) {
                    Some(slot) => slot,
                    None => {
                        if let (Some(callee), Some(caller)) = (layout.function(to), caller())
                            && layout.functions.get(callee as usize).is_some_and(|(start, _)| *start == to)
                        {
                            callers.direct.push((callee, caller, step.at));
                        }
                        continue;
                    }
                },
                Flow::CallIndirect | Flow::JumpIndirect => match step.refers() {
                    Some((Use::Access, slot)) => slot,
                    _ => continue,
                },
                _ => {
                    if let Some((_, slot)) = step.refers()
                        && let Some(Pointer::Import(index)) = binary.pointer(slot)
                        && let Some(taker) = layout.function(step.at)
                    {
                        callers.taken.entry(index).or_default().push((taker, step.at));
                    }
                    continue;
                }
            };
            let Some(caller) = caller() else { continue };
            match binary.pointer(slot) {
                Some(Pointer::Import(index)) => {
                    callers.imports.entry(index).or_default().push((caller, step.at));
                    let name = usize::try_from(index).ok().and_then(|index| binary.imports.get(index));
                    if let Some(node) = name.and_then(|name| names.get(name.as_str())) {
                        callers.direct.push((*node, caller, step.at));
                    }
                }
                Some(Pointer::Here(to)) => {
                    callers.direct.extend(layout.function(to).map(|callee| (callee, caller, step.at)));
                }
                _ => {}
            }
        }
        callers.direct.sort_unstable();
        callers.direct.dedup();
        callers
    }

    fn of(&self, callee: Node) -> impl Iterator<Item = (Node, u64)> + '_ {
        let from = self.direct.partition_point(|(node, _, _)| *node < callee);
        let rest = self.direct.get(from..).unwrap_or_default();
        rest.iter().take_while(move |(node, _, _)| *node == callee).map(|(_, caller, at)| (*caller, *at))
    }
}

/// Functions of Go's package `syscall` whose first argument is a number (pkg.go.dev/syscall).
const GO_ALL_THREADS: [&str; 2] = ["syscall.AllThreadsSyscall", "syscall.AllThreadsSyscall6"];
/// RAX on x86-64, R0 on AArch64 (Go's internal ABI specification).
const GO_FIRST_ARGUMENT: Register = 0;
/// PATH_MAX; names are shorter.
const TEXT_BYTES: usize = 4 << 10;
/// Wrappers of wrappers: Go's system packages have three levels.
const WRAPPER_DEPTH: usize = 5;
/// Above every table's end: x86-64 stood at 468 with Linux 6.16.
const HIGHEST_NUMBER: u32 = 1024;
/// Instructions evaluated for one file, repetitions counted: the largest programs need some two millions.
const MAX_WORK: usize = 40_000_000;
/// Instructions of a function that is evaluated whole.
const MAX_LINES: usize = 8_000;
/// Instructions before a place in a larger one.
const WINDOW: usize = 64;
/// Bytes of one function that is decoded again.
const FUNCTION_BYTES: usize = 1 << 20;
