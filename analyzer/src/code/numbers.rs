//! The names of system calls by number. Source: `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` of Linux 6.16.

use std::{collections::BTreeMap, sync::LazyLock};

use super::insn::Machine;

/// The kernel's name for a number.
pub(crate) fn name(machine: Machine, number: u32) -> Option<&'static str> {
    let table = match machine {
        Machine::X86_64 => &X86_64,
        Machine::Aarch64 => &AARCH64,
    };
    table.get(&number).copied()
}

/// The name of a system call of 32-bit x86.
pub(crate) fn name_32_bit(number: u32) -> Option<&'static str> {
    I386.get(&number).copied()
}

/// All names that we know.
#[cfg(test)]
pub(crate) fn names() -> std::collections::BTreeSet<&'static str> {
    X86_64.values().chain(AARCH64.values()).copied().collect()
}

type Table = BTreeMap<u32, &'static str>;

static X86_64: LazyLock<Table> = LazyLock::new(|| table(include_str!("../../data/syscalls-x86_64.tsv")));
static AARCH64: LazyLock<Table> = LazyLock::new(|| table(include_str!("../../data/syscalls-aarch64.tsv")));
static I386: LazyLock<Table> = LazyLock::new(|| table(include_str!("../../data/syscalls-i386.tsv")));

/// Lines of a number, a tab and a name.
fn table(text: &'static str) -> Table {
    let row = |line: &'static str| line.split_once('\t').and_then(|(number, name)| Some((number.parse().ok()?, name)));
    text.lines().filter_map(row).collect()
}
