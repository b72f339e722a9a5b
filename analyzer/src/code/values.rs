//! One function's instructions in, the values that its registers may hold at chosen places out.
//!
//! A forward data-flow analysis over basic blocks. Values are small sets: constants, what a register or stack slot held when the
//! function was entered, addresses in the own frame. No memory but the own frame is followed.

use std::collections::BTreeSet;

use super::insn::{Effect, Flow, Machine, Register, Step};

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
    /// Slots of the own frame, sorted.
    frame: Vec<(i64, Value)>,
}

impl State {
    fn entry(machine: Machine) -> Self {
        let register = |index: usize| {
            let index = Register::try_from(index).unwrap_or(0);
            Value::One(if index == machine.stack() { Atom::Frame(0) } else { Atom::Entry(index, 0) })
        };
        Self { registers: (0..machine.registers()).map(register).collect(), frame: Vec::new() }
    }

    fn unknown(machine: Machine) -> Self {
        Self { registers: vec![Value::Any; machine.registers()], frame: Vec::new() }
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
                    match self.slot(at).ok().and_then(|index| self.frame.get(index)) {
                        Some((_, value)) => value.clone(),
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

    /// Where a slot of the frame is kept, or would be.
    fn slot(&self, at: i64) -> Result<usize, usize> {
        self.frame.binary_search_by_key(&at, |(at, _)| *at)
    }

    fn store(&mut self, base: &Value, offset: i64, value: Value) {
        let Value::One(Atom::Frame(at)) = base else { return };
        let at = at.wrapping_add(offset);
        match self.slot(at) {
            Ok(index) => {
                if let Some((_, known)) = self.frame.get_mut(index) {
                    *known = value;
                }
            }
            Err(index) if self.frame.len() < MAX_SLOTS => self.frame.insert(index, (at, value)),
            Err(_) => {}
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
        let mut join = |mine: &mut Value, theirs: &Value| {
            if *mine != Value::Any && mine != theirs {
                let joined = mine.join(theirs);
                changed |= joined != *mine;
                *mine = joined;
            }
        };
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            join(mine, theirs);
        }
        let before = self.frame.len();
        let mut theirs = other.frame.iter().peekable();
        self.frame.retain_mut(|(at, mine)| {
            while theirs.next_if(|(other, _)| other < at).is_some() {}
            let Some((_, theirs)) = theirs.next_if(|(other, _)| other == at) else { return false };
            join(mine, theirs);
            true
        });
        changed |= before != self.frame.len();
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
    let of = |block: &Block| lines.get(block.begin..block.end).unwrap_or_default();
    let asked: Vec<bool> = blocks.iter().map(|block| of(block).iter().any(|(step, _)| wanted(step))).collect();
    // What leads to no wanted place says nothing about it.
    let mut matters = leading_to(&blocks, asked.clone());
    let is_table = |block: &Block| of(block).last().is_some_and(|(step, _)| step.flow() == Flow::JumpIndirect);
    // What no direct jump reaches: targets of jump tables, landing pads of exceptions, padding. It counts with what holds where
    // a jump table is used.
    if blocks.iter().any(is_table) {
        let reached = led_to(&blocks);
        if matters.iter().zip(&reached).any(|(matters, reached)| *matters && !reached) {
            let tables = blocks.iter().zip(&matters).map(|(block, matters)| *matters || is_table(block)).collect();
            matters = leading_to(&blocks, tables);
        }
    }
    let matters = |index: usize| matters.get(index).copied().unwrap_or_default();
    let mut states: Vec<Option<State>> = vec![None; blocks.len()];
    // Lowest first, as control mostly runs: states settle in few visits.
    let mut ahead: BTreeSet<usize> = BTreeSet::new();
    let mut visits: Vec<u32> = vec![0; blocks.len()];
    let mut budget = MAX_LINES;
    let mut at_tables: Option<State> = None;
    if let Some(first) = states.first_mut().filter(|_| matters(0)) {
        *first = Some(match entry {
            Entry::Function => State::entry(convention.machine),
            Entry::Amid => State::unknown(convention.machine),
        });
        ahead.insert(0);
    }
    loop {
        let Some(index) = ahead.pop_first() else {
            let Some(tables) = at_tables.take() else { break };
            for (index, (block, state)) in blocks.iter().zip(&mut states).enumerate().skip(1) {
                let is_padding = of(block).first().is_none_or(|(step, _)| step.flow() == Flow::Padding);
                if state.is_none() && matters(index) && !is_padding {
                    *state = Some(tables.clone());
                    ahead.insert(index);
                }
            }
            continue;
        };
        let (Some(Some(state)), Some(block), Some(visit)) =
            (states.get(index), blocks.get(index), visits.get_mut(index))
        else {
            continue;
        };
        *visit = visit.saturating_add(1);
        if *visit > MAX_VISITS || budget == 0 {
            continue;
        }
        let mut state = state.clone();
        for (step, effects) in of(block) {
            budget = budget.saturating_sub(1);
            pass(&mut state, step, effects, convention);
        }
        if is_table(block) {
            match &mut at_tables {
                Some(known) => {
                    known.merge(&state);
                }
                None => at_tables = Some(state.clone()),
            }
        }
        for next in block.next.into_iter().flatten().filter(|next| matters(*next)) {
            let is_new = match states.get_mut(next) {
                Some(Some(known)) => known.merge(&state),
                Some(slot) => {
                    *slot = Some(state.clone());
                    true
                }
                None => false,
            };
            if is_new {
                ahead.insert(next);
            }
        }
    }
    for (index, block) in blocks.iter().enumerate().filter(|(index, _)| asked.get(*index) == Some(&true)) {
        // A block whose state did not settle says nothing, nor one that nothing reaches.
        let is_settled = visits.get(index).is_some_and(|count| *count <= MAX_VISITS) && budget != 0;
        let state = states.get_mut(index).and_then(Option::take).filter(|_| is_settled);
        let mut state = state.unwrap_or_else(|| State::unknown(convention.machine));
        for (step, effects) in of(block) {
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

/// Instructions that run in a row.
#[derive(Debug)]
struct Block {
    /// The first line, and the one after the last.
    begin: usize,
    end: usize,
    /// The blocks that may follow.
    next: [Option<usize>; 2],
}

/// The basic blocks, in order.
fn blocks(lines: &[Line]) -> Vec<Block> {
    let index = |at: u64| lines.binary_search_by_key(&at, |(step, _)| step.at).ok();
    let mut begins: Vec<usize> = vec![0];
    for (number, (step, _)) in lines.iter().enumerate() {
        match step.flow() {
            Flow::Jump(to) | Flow::Branch(to) => {
                begins.extend(index(to));
                begins.push(number.saturating_add(1));
            }
            Flow::JumpIndirect | Flow::Stop => begins.push(number.saturating_add(1)),
            _ => {}
        }
    }
    begins.retain(|begin| *begin < lines.len());
    begins.sort_unstable();
    begins.dedup();
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    let block = |(number, (begin, end)): (usize, (usize, usize))| {
        let last = end.checked_sub(1).and_then(|last| lines.get(last)).map(|(step, _)| step.flow());
        let on = (end < lines.len()).then_some(number.saturating_add(1));
        let there = |to: u64| begins.binary_search(&index(to)?).ok();
        let next = match last {
            Some(Flow::Jump(to)) => [there(to), None],
            Some(Flow::Branch(to)) => [there(to), on],
            Some(Flow::JumpIndirect | Flow::Stop) | None => [None, None],
            Some(_) => [on, None],
        };
        Block { begin, end, next }
    };
    begins.iter().copied().zip(ends).enumerate().map(block).collect()
}

/// The blocks from which control may come to the given ones, these among them.
fn leading_to(blocks: &[Block], mut found: Vec<bool>) -> Vec<bool> {
    let mut before: Vec<(usize, usize)> = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        before.extend(block.next.into_iter().flatten().map(|next| (next, index)));
    }
    before.sort_unstable();
    let ahead = found.iter().enumerate().filter(|(_, found)| **found).map(|(index, _)| index).collect();
    follow(ahead, &mut found, |index| {
        let from = before.partition_point(|(next, _)| *next < index);
        before.get(from..).unwrap_or_default().iter().take_while(move |(next, _)| *next == index).map(|(_, at)| *at)
    });
    found
}

/// The blocks that control comes to from the first one without a jump table.
fn led_to(blocks: &[Block]) -> Vec<bool> {
    let mut found: Vec<bool> = (0..blocks.len()).map(|index| index == 0).collect();
    follow(vec![0], &mut found, |index| blocks.get(index).into_iter().flat_map(|block| block.next).flatten());
    found
}

/// Marks what can be come to.
fn follow<I: Iterator<Item = usize>>(mut ahead: Vec<usize>, found: &mut [bool], to: impl Fn(usize) -> I) {
    while let Some(index) = ahead.pop() {
        for next in to(index) {
            if let Some(found) = found.get_mut(next).filter(|found| !**found) {
                *found = true;
                ahead.push(next);
            }
        }
    }
}

/// A system call's number is chosen among two or three; tables of more are not followed.
const MAX_ATOMS: usize = 8;
/// Slots of a frame that are followed: arguments and locals, not arrays.
const MAX_SLOTS: usize = 256;
/// Times that a block's state may grow; real functions need some ten.
const MAX_VISITS: u32 = 60;
/// Instructions evaluated in one function: the largest interpreters' loops have some 50,000.
const MAX_LINES: usize = 400_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64, flow: Flow, set: Option<(Register, u64)>) -> Line {
        (Step::new(at, flow, None), set.map(|(to, value)| Effect::Set { to, value }).into_iter().collect())
    }

    /// What a register may hold before the system call, and the instructions evaluated.
    fn at_call(lines: &[Line], register: Register) -> (Vec<Atom>, usize) {
        let convention = Convention { machine: Machine::X86_64, keeps_nothing: false };
        let mut found = Vec::new();
        let is_call = |step: &Step| step.flow() == Flow::Syscall;
        let done = evaluate(lines, convention, Entry::Function, is_call, |_, state| {
            found.extend(state.register(register).atoms().unwrap_or_default());
        });
        (found, done)
    }

    #[test]
    fn what_leads_to_no_wanted_place_is_not_evaluated() {
        let mut lines = vec![
            line(0, Flow::Next, Some((0, 1))),
            line(1, Flow::Branch(3), None),
            line(2, Flow::Next, Some((0, 2))),
            line(3, Flow::Syscall, None),
            line(4, Flow::Stop, None),
        ];
        let both = vec![Atom::Constant(1), Atom::Constant(2)];
        let (found, done) = at_call(&lines, 0);
        assert_eq!(found, both);
        lines.extend([line(5, Flow::Next, Some((0, 3))), line(6, Flow::Branch(5), None), line(7, Flow::Stop, None)]);
        let (found, more) = at_call(&lines, 0);
        // The lines themselves are counted, and nothing else.
        assert_eq!((found, more), (both.clone(), done + 3));
        // What nothing comes to, as padding, adds nothing.
        lines.push(line(8, Flow::Jump(3), Some((0, 4))));
        assert_eq!(at_call(&lines, 0).0, both);
    }

    #[test]
    fn at_the_target_of_a_jump_table_holds_what_held_at_the_table() {
        let lines = [
            line(0, Flow::Branch(2), None),
            line(1, Flow::Stop, None),
            line(2, Flow::Next, Some((3, 7))),
            line(3, Flow::JumpIndirect, None),
            line(4, Flow::Syscall, None),
            line(5, Flow::Stop, None),
        ];
        assert_eq!(at_call(&lines, 3).0, vec![Atom::Constant(7)]);
    }
}
