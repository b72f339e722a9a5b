//! Tests of the reader: built files, and mutations of them and of this test's own executable.

use dna::{Linkage, Relro, Tristate};
use proptest::prelude::*;

use super::{ElfError, find_note, fixture::Build, read_bytes};

fn program() -> Build {
    Build {
        interpreter: Some("/lib64/ld-linux-x86-64.so.2"),
        needed: vec!["libm.so.6", "libc.so.6"],
        names: vec!["__libc_start_main"],
        ..Build::default()
    }
}

fn elf(build: &Build) -> super::ElfFile {
    read_bytes(&build.bytes()).expect("well formed").expect("an ELF file")
}

#[test]
fn a_dynamic_program_says_interpreter_and_needed_in_order() {
    let file = elf(&program());
    let needed: Vec<_> = file.facts.needed.iter().map(|needed| needed.name.as_str()).collect();
    assert_eq!((needed.as_slice(), file.facts.linkage), (&["libm.so.6", "libc.so.6"][..], Linkage::Dynamic));
    assert_eq!(file.facts.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    assert_eq!(file.facts.architecture, "amd64");
    assert!(file.is_program && file.marks.c_start && file.facts.stripped);
}

#[test]
fn a_shared_library_is_no_program_and_a_static_pie_is() {
    let library = Build { needed: vec!["libc.so.6"], soname: Some("liba.so.1"), ..Build::default() };
    assert!(!elf(&library).is_program);
    assert_eq!(elf(&library).soname.as_deref(), Some("liba.so.1"));
    let pie = elf(&Build { flags_1: 0x0800_0000, ..Build::default() });
    assert!(pie.is_program && pie.facts.linkage == Linkage::StaticPie && pie.facts.hardening.pie == Tristate::Yes);
    let fixed = elf(&Build { is_fixed: true, ..Build::default() });
    assert!(fixed.is_program && fixed.facts.linkage == Linkage::Static && fixed.facts.hardening.pie == Tristate::No);
}

#[test]
fn relro_is_full_only_with_binding_at_start() {
    const RELRO: (u32, u32) = (0x6474_e552, 4);
    let relro = |extra: &[(u32, u32)], flags_1| {
        elf(&Build { extra_segments: extra.to_vec(), flags_1, ..program() }).facts.hardening.relro
    };
    assert_eq!(relro(&[], 1), Relro::No);
    assert_eq!(relro(&[RELRO], 0), Relro::Partial);
    assert_eq!(relro(&[RELRO], 1), Relro::Full);
}

#[test]
fn an_absent_stack_header_is_decided_by_architecture() {
    const STACK: u32 = 0x6474_e551;
    let nx = |extra: &[(u32, u32)], machine| {
        elf(&Build { extra_segments: extra.to_vec(), machine, ..program() }).facts.hardening.nx
    };
    assert_eq!(nx(&[(STACK, 6)], None), Tristate::Yes);
    assert_eq!(nx(&[(STACK, 7)], None), Tristate::No);
    assert_eq!(nx(&[], None), Tristate::Unknown);
    assert_eq!(nx(&[], Some(40)), Tristate::No);
}

#[test]
fn canary_and_fortify_show_by_whole_names() {
    let of = |names: &[&'static str]| elf(&Build { names: names.to_vec(), ..program() }).facts.hardening;
    let both = of(&["__stack_chk_fail", "__memcpy_chk"]);
    assert_eq!((both.canary, both.fortify), (Tristate::Yes, Tristate::Yes));
    let none = of(&["memcpy", "my__stack_chk_fail_not"]);
    assert_eq!((none.canary, none.fortify), (Tristate::No, Tristate::No));
    assert_eq!(of(&["exit"]).fortify, Tristate::Unknown);
    let is_static = elf(&Build { is_fixed: true, names: vec!["memcpy"], ..Build::default() }).facts.hardening;
    assert_eq!((is_static.canary, is_static.fortify), (Tristate::Unknown, Tristate::Unknown));
}

#[test]
fn upx_and_noise_are_packed_and_an_ordinary_file_is_not() {
    let noise: Vec<u8> = (0u32..1 << 16).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let packed = Build { is_fixed: true, tail: noise.clone(), ..Build::default() };
    let found = elf(&packed).facts.packing.expect("noise");
    assert!(found.packer.is_none() && found.entropy_centibits > 750);
    let marked = elf(&Build { is_fixed: true, names: vec!["UPX!"], ..Build::default() });
    assert_eq!(marked.facts.packing.expect("marked").packer.as_deref(), Some("UPX"));
    assert_eq!(elf(&Build { tail: noise, ..program() }).facts.packing, None);
    assert_eq!(elf(&Build { is_fixed: true, tail: vec![b'a'; 1 << 16], ..Build::default() }).facts.packing, None);
}

#[test]
fn a_build_id_is_found_behind_another_note() {
    let mut notes = Vec::new();
    for (kind, desc) in [(1u32, vec![9; 5]), (3, vec![0xab; 4])] {
        for word in [4, u32::try_from(desc.len()).expect("short"), kind] {
            notes.extend(word.to_le_bytes());
        }
        notes.extend(b"GNU\0");
        notes.extend(&desc);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
    assert_eq!(find_note(&notes, true, 4), Some(&[0xab; 4][..]));
    notes.truncate(notes.len() - 1);
    assert_eq!(find_note(&notes, true, 4), None);
}

#[test]
fn what_the_kernel_refuses_is_malformed() {
    let mut bytes = program().bytes();
    bytes[54] = 57;
    assert!(matches!(read_bytes(&bytes), Err(ElfError::Malformed("size of a program header"))));
    let mut bytes = program().bytes();
    // The second program header is the dynamic segment; its offset is 8 bytes in.
    bytes[64 + 56 + 8..64 + 56 + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read_bytes(&bytes), Err(ElfError::Malformed("the dynamic segment is outside the file"))));
    assert!(matches!(read_bytes(b"\x7fELF\x02\x01\x01"), Err(ElfError::Malformed("header"))));
    assert!(read_bytes(b"#!/bin/sh\n").expect("readable").is_none());
}

#[test]
fn this_very_test_was_written_in_rust() {
    let own = std::fs::read("/proc/self/exe").expect("own executable");
    let file = read_bytes(&own).expect("well formed").expect("an ELF file");
    assert!(file.is_program && !file.facts.stripped && file.comment.iter().any(|line| line.contains("rustc")));
}

proptest! {
    #[test]
    fn mutated_files_never_panic(at in prop::collection::vec((0usize..600, any::<u8>()), 1..12), cut in 0usize..900) {
        let mut bytes = Build { extra_segments: vec![(4, 4), (0x6474_e552, 4)], runpath: Some("$ORIGIN/../lib"), ..program() }.bytes();
        for (at, byte) in at {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut.max(4));
        drop(read_bytes(&bytes));
    }
}
