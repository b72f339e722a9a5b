//! The names of system calls by number. Source: `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` of Linux 6.16.

use super::insn::Machine;

/// The kernel's name for a number.
pub(crate) fn name(machine: Machine, number: u32) -> Option<&'static str> {
    let table = match machine {
        Machine::X86_64 => include_str!("../../data/syscalls-x86_64.tsv"),
        Machine::Aarch64 => include_str!("../../data/syscalls-aarch64.tsv"),
    };
    let line = |line: &'static str| line.split_once('\t').filter(|(known, _)| known.parse() == Ok(number));
    table.lines().find_map(line).map(|(_, name)| name)
}

/// The name of a system call of 32-bit x86.
pub(crate) fn name_32_bit(number: u32) -> Option<&'static str> {
    let line = |line: &'static str| line.split_once('\t').filter(|(known, _)| known.parse() == Ok(number));
    include_str!("../../data/syscalls-i386.tsv").lines().find_map(line).map(|(_, name)| name)
}
