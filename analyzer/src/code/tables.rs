//! Functions that a program looks up by a name: in data, texts and pointers to functions side by side. A program of many calls -
//! busybox, toybox - keeps its applets so, and runs only the one it is called by.
//!
//! Two shapes are known: records that begin with a pointer to the name and one to the function (toybox's `toy_list`), and a list of
//! sorted names with an array of as many pointers beside it (busybox's `applet_names` and `applet_main`).
//!
//! An interpreter offers its native functions to scripts in the same way: Python's modules list theirs in `PyMethodDef` records
//! (`Include/methodobject.h`), which a `PyModuleDef` points to (`Include/moduleobject.h`).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    binary::{Binary, Pointer},
    module::{Layout, Node, fixed_pointers},
};

/// Functions by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Where a pointer to a function stands, the name, the function.
    pub(super) entries: Vec<(u64, String, Node)>,
}

/// The tables of a file.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// What the program itself looks up.
    pub(super) own: Vec<Table>,
    /// Functions of Python's modules.
    pub(super) python: Vec<Table>,
}

impl Tables {
    /// Where their pointers stand.
    pub(super) fn pointers(&self) -> impl Iterator<Item = u64> + '_ {
        self.own.iter().chain(&self.python).flat_map(|table| &table.entries).map(|(at, _, _)| *at)
    }
}

/// Finds the tables of a file.
pub(super) fn find(binary: &Binary, layout: &Layout) -> Tables {
    let mut pointers: Vec<(u64, u64)> = binary
        .pointers
        .iter()
        .filter_map(|(at, pointer)| match pointer {
            Pointer::Here(to) => Some((*at, *to)),
            _ => None,
        })
        .collect();
    if !binary.is_movable {
        pointers.extend(fixed_pointers(binary, layout));
        pointers.sort_unstable();
        pointers.dedup_by_key(|(at, _)| *at);
    }
    let python = modules(binary, layout, &pointers);
    let known: BTreeSet<u64> = python.iter().flat_map(|table| &table.entries).map(|(at, _, _)| *at).collect();
    let mut own = records(binary, layout, &pointers);
    own.retain(|table| !table.entries.iter().any(|(at, _, _)| known.contains(at)));
    own.extend(lists(binary, layout, &pointers));
    Tables { own, python }
}

/// The functions of Python's modules: where a definition names a module, and what it lists.
fn modules(binary: &Binary, layout: &Layout, pointers: &[(u64, u64)]) -> Vec<Table> {
    let pointer = |at: u64| {
        let index = pointers.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        pointers.get(index).map(|(_, to)| *to)
    };
    let text = |at: u64| pointer(at).and_then(|text| name_at(binary, text));
    let table = |(holder, table): &(u64, u64)| {
        // `m_name`, `m_doc`, `m_size`, `m_methods`.
        text(holder.checked_sub(3 * WORD)?)?;
        let size = number(binary, holder.checked_sub(WORD)?)?;
        if binary.is_code(*table) || !(-1..MAX_STATE).contains(&size) {
            return None;
        }
        let mut entries = Vec::new();
        let records = (0..MAX_METHODS).map_while(|index| table.checked_add(index.checked_mul(METHOD)?));
        for at in records {
            let Some(name) = text(at) else { break };
            let to = at.saturating_add(WORD);
            let flags = number(binary, at.saturating_add(2 * WORD))? & 0xffff_ffff;
            if !(1..=METHOD_FLAGS).contains(&flags) {
                return None;
            }
            if let Some(node) = pointer(to).filter(|to| binary.is_code(*to)).and_then(|to| layout.function(to)) {
                entries.push((to, name, node));
            }
        }
        Some(Table { entries }).filter(|table| !table.entries.is_empty())
    };
    pointers.iter().filter_map(table).collect()
}

fn number(binary: &Binary, at: u64) -> Option<i64> {
    Some(i64::from_le_bytes(*binary.bytes_at(at).first_chunk()?))
}

/// Records of a name and a function, all of one size.
fn records(binary: &Binary, layout: &Layout, pointers: &[(u64, u64)]) -> Vec<Table> {
    let entries = pointers.windows(2).filter_map(|pair| match pair {
        [(at, text), (next, to)] if *next == at.saturating_add(WORD) && binary.is_code(*to) => {
            Some((*next, name_at(binary, *text)?, layout.function(*to)?))
        }
        _ => None,
    });
    let mut tables = Vec::new();
    let mut run: Vec<(u64, String, Node)> = Vec::new();
    let mut stride = 0;
    let mut close = |run: &mut Vec<(u64, String, Node)>| {
        let entries = std::mem::take(run);
        if entries.len() >= MIN_NAMES {
            tables.push(Table { entries });
        }
    };
    for (at, name, node) in entries {
        let gap = run.last().map(|(last, _, _)| at.saturating_sub(*last));
        match gap {
            Some(gap) if run.len() == 1 && (2 * WORD..=MAX_RECORD).contains(&gap) => stride = gap,
            Some(gap) if gap == stride && run.len() > 1 => {}
            Some(_) => close(&mut run),
            None => {}
        }
        run.push((at, name, node));
    }
    close(&mut run);
    tables
}

/// Lists of sorted names, each with the array of as many pointers.
fn lists(binary: &Binary, layout: &Layout, pointers: &[(u64, u64)]) -> Vec<Table> {
    let mut arrays = BTreeMap::<usize, Vec<&[(u64, u64)]>>::new();
    let is_next = |one: &(u64, u64), other: &(u64, u64)| {
        let is_cut = layout.is_object(other.0) || !binary.is_code(other.1);
        other.0 == one.0.saturating_add(WORD) && binary.is_code(one.1) && !is_cut
    };
    for run in pointers.chunk_by(is_next).filter(|run| run.len() >= MIN_NAMES) {
        arrays.entry(run.len()).or_default().push(run);
    }
    if arrays.is_empty() {
        return Vec::new();
    }
    let mut tables = Vec::new();
    for names in binary.segments.iter().filter(|segment| !segment.is_code).flat_map(|segment| sorted(&segment.bytes)) {
        // Two arrays of one length would leave open which it is.
        let Some([array]) = arrays.get(&names.len()).map(Vec::as_slice) else { continue };
        let entry = |(name, (at, to)): (String, &(u64, u64))| Some((*at, name, layout.function(*to)?));
        tables.push(Table { entries: names.into_iter().zip(*array).filter_map(entry).collect() });
    }
    tables
}

/// Runs of names that follow each other in order, each ended by a zero byte.
fn sorted(bytes: &[u8]) -> Vec<Vec<String>> {
    let mut runs = Vec::new();
    let mut run: Vec<&[u8]> = Vec::new();
    let mut close = |run: &mut Vec<&[u8]>| {
        if run.len() >= MIN_NAMES {
            runs.push(run.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect());
        }
        run.clear();
    };
    for name in bytes.split(|byte| *byte == 0) {
        if !is_name(name) {
            close(&mut run);
            continue;
        }
        if run.last().is_some_and(|last| *last >= name) {
            close(&mut run);
        }
        run.push(name);
    }
    close(&mut run);
    runs
}

fn name_at(binary: &Binary, at: u64) -> Option<String> {
    if binary.is_code(at) {
        return None;
    }
    let bytes = binary.bytes_at(at);
    let bytes = bytes.get(..=NAME_BYTES).unwrap_or(bytes);
    let name = bytes.get(..memchr::memchr(0, bytes)?).filter(|name| is_name(name))?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// What a command may be called.
fn is_name(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"[_-.+".contains(byte);
    (1..=NAME_BYTES).contains(&text.len()) && text.iter().all(is_part)
}

const WORD: u64 = 8;
/// Fewer are no program of many calls.
const MIN_NAMES: usize = 20;
const NAME_BYTES: usize = 32;
/// `PyMethodDef`: a name, a function, flags, a text.
const METHOD: u64 = 4 * WORD;
const MAX_METHODS: u64 = 2000;
/// All `METH_*` bits.
const METHOD_FLAGS: i64 = 0x3ff;
/// A module's state is no larger.
const MAX_STATE: i64 = 1 << 24;
/// A record of a name, a function, flags and texts.
const MAX_RECORD: u64 = 64;
