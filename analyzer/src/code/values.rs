//! One function's instructions in, the values that its registers may hold at chosen places out.
//!
//! A forward data-flow analysis over basic blocks. Values are small sets: constants, what a register or stack slot held when the
//! function was entered, addresses in the own frame. No memory but the own frame is followed.

use std::collections::{BTreeMap, BTreeSet};

use super::insn::{Effect, Flow, Machine, REGISTERS, Register, Step};

/// What a register or stack slot may hold: one of some atoms, or anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Value {
    #[default]
    Any,
    One(Atom),
    Some(Box<[Atom]>),
}

/// One possible value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Atom {
    Constant(u64),
    /// What a register held at entry, plus a constant.
    Entry(Register, i64),
    /// What memory at entry's stack pointer plus an offset held at entry: a stack argument.
    Stacked(i64),
    /// What memory at a register's value at entry plus an offset holds: a field of a structure passed by reference.
    Field(Register, i64),
    /// An address in the own frame: entry's stack pointer plus an offset.
    Frame(i64),
    /// What memory at an address that is not followed holds.
    Memory,
}

impl Value {
    /// The atoms, none where it may be anything.
    pub(super) fn atoms(&self) -> Option<&[Atom]> {
        match self {
            Self::Any => None,
            Self::One(atom) => Some(std::slice::from_ref(atom)),
            Self::Some(atoms) => Some(atoms),
        }
    }

    fn of(mut atoms: Vec<Atom>) -> Self {
        atoms.sort_unstable();
        atoms.dedup();
        match atoms.as_slice() {
            [atom] => Self::One(*atom),
            [] => Self::Any,
            _ if atoms.len() > MAX_ATOMS => Self::Any,
            _ => Self::Some(atoms.into()),
        }
    }

    pub(super) fn join(&self, other: &Self) -> Self {
        match (self.atoms(), other.atoms()) {
            (Some(one), Some(two)) if one == two => self.clone(),
            (Some(one), Some(two)) => Self::of([one, two].concat()),
            _ => Self::Any,
        }
    }

    /// The value plus a constant.
    pub(super) fn plus(&self, plus: i64) -> Self {
        self.map(|atom| add(atom, plus, 64))
    }

    fn map(&self, change: impl Fn(Atom) -> Option<Atom>) -> Self {
        let Some(atoms) = self.atoms() else { return Self::Any };
        atoms.iter().map(|atom| change(*atom)).collect::<Option<Vec<Atom>>>().map_or(Self::Any, Self::of)
    }
}

/// Registers and frame at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    registers: Vec<Value>,
    frame: BTreeMap<i64, Value>,
}

impl State {
    fn entry(machine: Machine) -> Self {
        let register = |index: usize| {
            let index = Register::try_from(index).unwrap_or(0);
            Value::One(if index == machine.stack() { Atom::Frame(0) } else { Atom::Entry(index, 0) })
        };
        Self { registers: (0..REGISTERS).map(register).collect(), frame: BTreeMap::new() }
    }

    fn unknown() -> Self {
        Self { registers: vec![Value::Any; REGISTERS], frame: BTreeMap::new() }
    }

    /// What a register may hold.
    pub(super) fn register(&self, register: Register) -> &Value {
        self.registers.get(usize::from(register)).unwrap_or(&Value::Any)
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(slot) = self.registers.get_mut(usize::from(register)) {
            *slot = value;
        }
    }

    /// What memory at an address may hold.
    pub(super) fn load(&self, base: &Value, offset: i64) -> Value {
        let Some(atoms) = base.atoms() else { return Value::One(Atom::Memory) };
        let mut all: Option<Value> = None;
        for atom in atoms {
            let value = match atom {
                Atom::Frame(at) => {
                    let at = at.wrapping_add(offset);
                    match self.frame.get(&at) {
                        Some(value) => value.clone(),
                        // At and above the entry's stack pointer is the caller's frame.
                        None if at >= 0 => Value::One(Atom::Stacked(at)),
                        None => Value::One(Atom::Memory),
                    }
                }
                Atom::Entry(register, plus) => Value::One(Atom::Field(*register, plus.wrapping_add(offset))),
                _ => Value::One(Atom::Memory),
            };
            all = Some(all.map_or_else(|| value.clone(), |known| known.join(&value)));
        }
        all.unwrap_or(Value::Any)
    }

    fn store(&mut self, base: &Value, offset: i64, value: Value) {
        if let Value::One(Atom::Frame(at)) = base
            && (self.frame.len() < MAX_SLOTS || self.frame.contains_key(&at.wrapping_add(offset)))
        {
            self.frame.insert(at.wrapping_add(offset), value);
        }
    }

    fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Set { to, value } => self.set(*to, Value::One(Atom::Constant(*value))),
            Effect::SetByte { to, value } => {
                let value = self.register(*to).map(|atom| match atom {
                    Atom::Constant(whole) => Some(Atom::Constant(whole & !0xff | u64::from(*value))),
                    _ => None,
                });
                self.set(*to, value);
            }
            Effect::Copy { to, from, plus, bits } => {
                let value = self.register(*from).map(|atom| add(atom, *plus, *bits));
                self.set(*to, value);
            }
            Effect::Select { to, from } => {
                let value = self.register(*to).join(self.register(*from));
                self.set(*to, value);
            }
            Effect::Either { to, one, other } => {
                let value = self.register(*one).join(self.register(*other));
                self.set(*to, value);
            }
            Effect::Load { to, base, offset, bits } => {
                let value = self.load(self.register(*base), *offset).map(|atom| add(atom, 0, *bits));
                self.set(*to, value);
            }
            Effect::LoadStatic { to, .. } => self.set(*to, Value::One(Atom::Memory)),
            Effect::Store { from, base, offset } => {
                let (base, value) = (self.register(*base).clone(), self.register(*from).clone());
                self.store(&base, *offset, value);
            }
            Effect::StoreConstant { value, base, offset } => {
                let base = self.register(*base).clone();
                self.store(&base, *offset, Value::One(Atom::Constant(*value)));
            }
            Effect::Forget { to } => self.set(*to, Value::Any),
        }
    }

    /// What may hold at a place reached from two; whether that is news to the first.
    fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            let joined = mine.join(theirs);
            changed |= joined != *mine;
            *mine = joined;
        }
        let before = self.frame.len();
        self.frame.retain(|at, _| other.frame.contains_key(at));
        changed |= before != self.frame.len();
        for (at, mine) in &mut self.frame {
            let joined = other.frame.get(at).map_or(Value::Any, |theirs| mine.join(theirs));
            changed |= joined != *mine;
            *mine = joined;
        }
        changed
    }
}

fn add(atom: Atom, plus: i64, bits: u32) -> Option<Atom> {
    Some(match atom {
        Atom::Constant(value) => {
            let value = value.wrapping_add_signed(plus);
            Atom::Constant(if bits == 32 { value & 0xffff_ffff } else { value })
        }
        Atom::Frame(at) => Atom::Frame(at.wrapping_add(plus)),
        Atom::Entry(register, at) => Atom::Entry(register, at.wrapping_add(plus)),
        same if plus == 0 => same,
        _ => return None,
    })
}

/// How a function's code behaves around calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convention {
    pub(super) machine: Machine,
    /// A call keeps no register (Go).
    pub(super) keeps_nothing: bool,
}

/// Where the instructions begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// At a function's start.
    Function,
    /// Anywhere: nothing is known of what holds there.
    Amid,
}

/// One instruction with its effects.
pub(super) type Line = (Step, Vec<Effect>);

/// Evaluates a function and hands each wanted instruction on with what holds just before it. Returns the instructions evaluated.
pub(super) fn evaluate(
    lines: &[Line],
    convention: Convention,
    entry: Entry,
    wanted: impl Fn(&Step) -> bool,
    mut on: impl FnMut(&Step, &State),
) -> usize {
    let blocks = blocks(lines);
    let mut states: BTreeMap<usize, State> = BTreeMap::new();
    // Lowest first, as control mostly runs: states settle in few visits.
    let mut ahead: BTreeSet<usize> = BTreeSet::new();
    let mut visits: BTreeMap<usize, u32> = BTreeMap::new();
    let mut budget = MAX_LINES;
    // What no direct jump reaches: targets of jump tables, landing pads of exceptions, padding.
    let mut apart: Vec<usize> = blocks.keys().copied().filter(|begin| *begin != 0).collect();
    // What holds where a jump table is used.
    let mut at_tables: Option<State> = None;
    if !lines.is_empty() {
        states.insert(
            0,
            match entry {
                Entry::Function => State::entry(convention.machine),
                Entry::Amid => State::unknown(),
            },
        );
        ahead.insert(0);
    }
    loop {
        let Some(begin) = ahead.pop_first() else {
            let Some(tables) = at_tables.take() else { break };
            apart.retain(|begin| !states.contains_key(begin));
            for begin in &apart {
                if lines.get(*begin).is_some_and(|(step, _)| step.flow() != Flow::Padding) {
                    states.insert(*begin, tables.clone());
                    ahead.insert(*begin);
                }
            }
            continue;
        };
        let (Some(state), Some(block)) = (states.get(&begin), blocks.get(&begin)) else { continue };
        let visit = visits.entry(begin).or_default();
        *visit = visit.saturating_add(1);
        if *visit > MAX_VISITS || budget == 0 {
            continue;
        }
        let mut state = state.clone();
        for (step, effects) in lines.get(begin..block.end).unwrap_or_default() {
            budget = budget.saturating_sub(1);
            pass(&mut state, step, effects, convention);
        }
        let last = block.end.checked_sub(1).and_then(|last| lines.get(last));
        if last.is_some_and(|(step, _)| step.flow() == Flow::JumpIndirect) {
            match &mut at_tables {
                Some(known) => {
                    known.merge(&state);
                }
                None => at_tables = Some(state.clone()),
            }
        }
        for next in &block.next {
            let is_new = match states.get_mut(next) {
                Some(known) => known.merge(&state),
                None => {
                    states.insert(*next, state.clone());
                    true
                }
            };
            if is_new {
                ahead.insert(*next);
            }
        }
    }
    for begin in apart {
        states.entry(begin).or_insert_with(State::unknown);
    }
    for (begin, block) in &blocks {
        let Some(mut state) = states.get(begin).cloned() else { continue };
        // A block whose state did not settle says nothing.
        if visits.get(begin).is_some_and(|count| *count > MAX_VISITS) || budget == 0 {
            state = State::unknown();
        }
        for (step, effects) in lines.get(*begin..block.end).unwrap_or_default() {
            if wanted(step) {
                on(step, &state);
            }
            pass(&mut state, step, effects, convention);
        }
    }
    MAX_LINES.saturating_sub(budget).saturating_add(lines.len())
}

fn pass(state: &mut State, step: &Step, effects: &[Effect], convention: Convention) {
    for effect in effects {
        state.apply(effect);
    }
    match step.flow() {
        Flow::Call(_) | Flow::CallIndirect => {
            let stack = state.register(convention.machine.stack()).clone();
            if convention.keeps_nothing {
                state.registers.fill(Value::Any);
            } else {
                for register in convention.machine.lost_in_calls() {
                    state.set(*register, Value::Any);
                }
            }
            state.set(convention.machine.stack(), stack);
        }
        Flow::Syscall | Flow::Syscall32 => {
            let lost: &[Register] = match convention.machine {
                Machine::X86_64 => &[0, 1, 11],
                Machine::Aarch64 => &[0],
            };
            for register in lost {
                state.set(*register, Value::Any);
            }
        }
        _ => {}
    }
}

#[derive(Debug)]
struct Block {
    end: usize,
    next: Vec<usize>,
}

/// Basic blocks by the index of their first line.
fn blocks(lines: &[Line]) -> BTreeMap<usize, Block> {
    let index = |at: u64| lines.binary_search_by_key(&at, |(step, _)| step.at).ok();
    let mut begins: BTreeSet<usize> = BTreeSet::from([0]);
    for (number, (step, _)) in lines.iter().enumerate() {
        match step.flow() {
            Flow::Jump(to) | Flow::Branch(to) => {
                begins.extend(index(to));
                begins.insert(number.saturating_add(1));
            }
            Flow::JumpIndirect | Flow::Stop => {
                begins.insert(number.saturating_add(1));
            }
            _ => {}
        }
    }
    begins.retain(|begin| *begin < lines.len());
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    let mut blocks = BTreeMap::new();
    for (begin, end) in begins.iter().copied().zip(ends) {
        let last = end.checked_sub(1).and_then(|last| lines.get(last)).map(|(step, _)| step.flow());
        let on = (end < lines.len()).then_some(end);
        let next = match last {
            Some(Flow::Jump(to)) => index(to).into_iter().collect(),
            Some(Flow::Branch(to)) => index(to).into_iter().chain(on).collect(),
            Some(Flow::JumpIndirect | Flow::Stop) | None => Vec::new(),
            Some(_) => on.into_iter().collect(),
        };
        blocks.insert(begin, Block { end, next });
    }
    blocks
}

/// A system call's number is chosen among two or three; tables of more are not followed.
const MAX_ATOMS: usize = 8;
/// Slots of a frame that are followed: arguments and locals, not arrays.
const MAX_SLOTS: usize = 256;
/// Times that a block's state may grow; real functions need some ten.
const MAX_VISITS: u32 = 60;
/// Instructions evaluated in one function: the largest interpreters' loops have some 50,000.
const MAX_LINES: usize = 400_000;
