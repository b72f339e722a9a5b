//! Small pieces of machine code, and what must be found in them.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    binary::{Binary, Pointer, Segment, Symbol, SymbolKind},
    golang,
    insn::Machine,
    link::Process,
    module::{Module, summarize},
    numbers,
    serving::Serving,
};

/// A movable file with code at 0x1000 and data at 0x8000.
fn file(machine: Machine, code: &[u8], functions: &[(&str, u64)]) -> Binary {
    let end = 0x1000 + code.len() as u64;
    let ends = functions.iter().skip(1).map(|(_, at)| *at).chain([end]);
    let symbols = functions.iter().zip(ends).map(|((name, at), end)| Symbol {
        name: (*name).to_owned(),
        at: *at,
        len: end.saturating_sub(*at),
        kind: SymbolKind::Function,
        is_exported: true,
        is_old_version: false,
    });
    let segment = |start: u64, bytes: &[u8], is_code| Segment {
        start,
        len: bytes.len() as u64,
        bytes: bytes.to_vec(),
        offset: start,
        is_code,
    };
    let entry = functions.first().map_or(0, |(_, at)| *at);
    let segments = vec![segment(0x1000, code, true), segment(0x8000, &[0; 0x100], false)];
    Binary { symbols: symbols.collect(), ..Binary::new(machine, true, entry, segments) }
}

/// Writes bytes into the data of a file.
fn put(binary: &mut Binary, at: usize, bytes: &[u8]) {
    let data = binary.segments.last_mut().and_then(|data| data.bytes.get_mut(at.checked_sub(0x8000)?..));
    data.and_then(|data| data.get_mut(..bytes.len())).expect("inside the data").copy_from_slice(bytes);
}

/// The numbers that reachable code of a program calls; `None` stands for one that could not be found.
fn reached(modules: Vec<Module>) -> BTreeSet<Option<u32>> {
    numbers_of(&Process::new(modules.into_iter().map(Arc::new).collect(), BTreeSet::new(), None))
}

fn numbers_of(process: &Process) -> BTreeSet<Option<u32>> {
    let reached = process.reach(&[]);
    let mut numbers = BTreeSet::new();
    for (index, module) in process.modules.iter().enumerate() {
        let live = module.sites.iter().filter(|(node, _)| reached.step((index, **node)).is_some());
        for (_, sites) in live {
            for site in sites {
                numbers.extend(site.numbers.iter().copied().map(Some));
                numbers.extend(site.is_open.then_some(None));
            }
        }
    }
    numbers
}

fn x86(code: &[u8], functions: &[(&str, u64)]) -> BTreeSet<Option<u32>> {
    reached(vec![summary(&file(Machine::X86_64, code, functions))])
}

fn found(numbers: &[u32]) -> BTreeSet<Option<u32>> {
    numbers.iter().copied().map(Some).collect()
}

fn summary(binary: &Binary) -> Module {
    summarize(binary).expect("little code")
}

/// Words of AArch64.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_constant_number_is_found() {
    // mov eax, 39; syscall; ret
    assert_eq!(x86(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3], &[("start", 0x1000)]), found(&[39]));
    // xor eax, eax; syscall: read
    assert_eq!(x86(&[0x31, 0xc0, 0x0f, 0x05, 0xc3], &[("start", 0x1000)]), found(&[0]));
    // push 60; pop rax; syscall
    assert_eq!(x86(&[0x6a, 60, 0x58, 0x0f, 0x05, 0xc3], &[("start", 0x1000)]), found(&[60]));
}

#[test]
fn a_number_set_by_its_lowest_byte_is_found() {
    // xor eax, eax; mov al, 56; syscall; ret
    assert_eq!(x86(&[0x31, 0xc0, 0xb0, 56, 0x0f, 0x05, 0xc3], &[("start", 0x1000)]), found(&[56]));
    // rdtsc; mov al, 56: the other bytes are not known
    assert_eq!(x86(&[0x0f, 0x31, 0xb0, 56, 0x0f, 0x05, 0xc3], &[("start", 0x1000)]), [None].into());
}

#[test]
fn a_function_that_is_only_jumped_to_is_a_wrapper() {
    // start: mov eax, 57; jmp tail; ret, known to end there; tail, without a name: syscall; ret
    let code = [0xb8, 57, 0, 0, 0, 0xeb, 3, 0xc3, 0xcc, 0xcc, 0x0f, 0x05, 0xc3];
    let mut binary = file(Machine::X86_64, &code, &[("start", 0x1000)]);
    binary.symbols.iter_mut().for_each(|symbol| symbol.len = 8);
    assert_eq!(reached(vec![summary(&binary)]), found(&[57]));
}

#[test]
fn a_number_in_a_structure_handed_over_with_its_reader_is_found() {
    // start: sub rsp, 24; mov dword [rsp + 8], 105; lea rdi, [rip + reader]; mov rsi, rsp; call each; add rsp, 24; ret
    // each: push rdi; mov rdi, rsi; ret (it calls the reader elsewhere); reader: mov eax, [rdi + 8]; syscall; ret
    let mut code = vec![0x48, 0x83, 0xec, 24, 0xc7, 0x44, 0x24, 8, 105, 0, 0, 0];
    code.extend([0x48, 0x8d, 0x3d, 0x2d, 0, 0, 0, 0x48, 0x89, 0xe6, 0xe8, 0x15, 0, 0, 0, 0x48, 0x83, 0xc4, 24, 0xc3]);
    code.resize(0x30, 0xcc);
    code.extend([0x57, 0x48, 0x89, 0xf7, 0xc3]);
    code.resize(0x40, 0xcc);
    code.extend([0x8b, 0x47, 8, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("each", 0x1030), ("reader", 0x1040)]), found(&[105]));
}

#[test]
fn either_of_two_numbers_counts() {
    // mov eax, 1; mov ecx, 2; test edi, edi; cmovne eax, ecx; syscall; ret
    let code = [0xb8, 1, 0, 0, 0, 0xb9, 2, 0, 0, 0, 0x85, 0xff, 0x0f, 0x45, 0xc1, 0x0f, 0x05, 0xc3];
    assert_eq!(x86(&code, &[("start", 0x1000)]), found(&[1, 2]));
    // mov eax, 3; test edi, edi; je +5; mov eax, 4; syscall; ret
    let code = [0xb8, 3, 0, 0, 0, 0x85, 0xff, 0x74, 5, 0xb8, 4, 0, 0, 0, 0x0f, 0x05, 0xc3];
    assert_eq!(x86(&code, &[("start", 0x1000)]), found(&[3, 4]));
}

#[test]
fn a_number_that_is_not_known_is_open() {
    // rdtsc; syscall; ret
    assert_eq!(x86(&[0x0f, 0x31, 0x0f, 0x05, 0xc3], &[("start", 0x1000)]), [None].into());
}

#[test]
fn padding_between_jumps_changes_no_value() {
    // mov esi, 231; jmp +4; nop; nop; nop; nop; mov eax, esi; syscall; ret
    let code = [0xbe, 231, 0, 0, 0, 0xeb, 4, 0x90, 0x90, 0x90, 0x90, 0x89, 0xf0, 0x0f, 0x05, 0xc3];
    assert_eq!(x86(&code, &[("start", 0x1000)]), found(&[231]));
}

#[test]
fn callers_of_a_wrapper_decide() {
    // start: mov edi, 57; call wrapper; ret (pads to 0x1010)
    // wrapper: mov eax, edi; syscall; ret
    let mut code = vec![0xbf, 57, 0, 0, 0, 0xe8, 6, 0, 0, 0, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0x89, 0xf8, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("wrapper", 0x1010)]), found(&[57]));
    // One more in between: middle passes its second argument on.
    // start: mov esi, 58; call middle; ret / middle: mov edi, esi; jmp wrapper / wrapper
    let mut code = vec![0xbe, 58, 0, 0, 0, 0xe8, 6, 0, 0, 0, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0x89, 0xf7, 0xeb, 12]);
    code.resize(0x20, 0xcc);
    code.extend([0x89, 0xf8, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("middle", 0x1010), ("wrapper", 0x1020)]), found(&[58]));
}

#[test]
fn a_number_on_the_stack_and_one_in_a_structure_are_followed() {
    // start: sub rsp, 24; mov dword [rsp], 105; mov rdi, rsp; call by_reference; add rsp, 24; ret
    // by_reference: mov eax, [rdi]; syscall; ret
    let mut code = vec![0x48, 0x83, 0xec, 24, 0xc7, 0x04, 0x24, 105, 0, 0, 0, 0x48, 0x89, 0xe7, 0xe8, 13, 0, 0, 0];
    code.extend([0x48, 0x83, 0xc4, 24, 0xc3]);
    code.resize(0x20, 0xcc);
    code.extend([0x8b, 0x07, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("by_reference", 0x1020)]), found(&[105]));
    // start: push 41; call on_stack; pop rcx; ret / on_stack: mov rax, [rsp+8]; syscall; ret
    let mut code = vec![0x6a, 41, 0xe8, 9, 0, 0, 0, 0x59, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0x48, 0x8b, 0x44, 0x24, 8, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("on_stack", 0x1010)]), found(&[41]));
}

#[test]
fn code_that_nothing_reaches_does_not_count() {
    // start: ret / other: mov eax, 1; syscall; ret
    let mut code = vec![0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("other", 0x1010)]), BTreeSet::new());
    // start: lea rax, [rip+9] (other); ret: the address is taken, so it may be called.
    let mut code = vec![0x48, 0x8d, 0x05, 9, 0, 0, 0, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    assert_eq!(x86(&code, &[("start", 0x1000), ("other", 0x1010)]), found(&[1]));
}

/// A program that refers to its data at 0x8000, and two functions that only data may lead to.
fn referring() -> Binary {
    // start: lea rax, [rip + to 0x8000]; ret / one: getpid / two: getppid
    let mut code = vec![0x48, 0x8d, 0x05, 0xf9, 0x6f, 0, 0, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    code.resize(0x20, 0xcc);
    code.extend([0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    file(Machine::X86_64, &code, &[("start", 0x1000), ("one", 0x1010), ("two", 0x1020)])
}

#[test]
fn a_pointer_lives_with_the_data_that_holds_it() {
    let mut binary = referring();
    binary.pointers = vec![(0x8008, Pointer::Here(0x1010)), (0x8048, Pointer::Here(0x1020))];
    let object = |at| Symbol {
        name: format!("object{at:x}"),
        at,
        len: 0x20,
        kind: SymbolKind::Data,
        is_exported: false,
        is_old_version: false,
    };
    binary.symbols.extend([object(0x8000), object(0x8040)]);
    assert_eq!(reached(vec![summary(&binary)]), found(&[39]), "only the first object is referred to");
}

#[test]
fn a_function_of_a_python_module_is_called_by_a_name_that_scripts_use() {
    let mut binary = referring();
    // 0x8000 a PyModuleDef, 0x8050 its functions, 0x80b0 names.
    put(&mut binary, 0x8038, &(-1i64).to_le_bytes());
    put(&mut binary, 0x8060, &[1]);
    put(&mut binary, 0x8080, &[0x10]);
    put(&mut binary, 0x80b0, b"posix\0getpid\0getppid");
    let here = |at, to| (at, Pointer::Here(to));
    let functions = [here(0x8050, 0x80b6), here(0x8058, 0x1010), here(0x8070, 0x80bd), here(0x8078, 0x1020)];
    binary.pointers = [here(0x8028, 0x80b0), here(0x8040, 0x8050)].into_iter().chain(functions).collect();
    let used = |words: &[&str]| Some(Arc::new(words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>()));
    let with = |words, more: Option<Module>| {
        let modules = [summary(&binary)].into_iter().chain(more).map(Arc::new).collect();
        numbers_of(&Process::new(modules, BTreeSet::new(), words))
    };
    assert_eq!(with(None, None), found(&[39, 110]), "no source is known");
    assert_eq!(with(used(&["getppid", "os"]), None), found(&[110]));
    // An extension may call what its own data names.
    let mut extension = file(Machine::X86_64, &[0xc3], &[("PyInit_more", 0x1000)]);
    extension.imports = vec!["PyObject_CallMethod".to_owned()];
    put(&mut extension, 0x8008, b"getpid");
    assert_eq!(with(used(&["getppid"]), Some(summary(&extension))), found(&[39, 110]));
}

#[test]
fn another_file_is_reached_through_its_name() {
    // start: call [rip + to 0x8010]; ret
    let code = [0xff, 0x15, 0x0a, 0x70, 0, 0, 0xc3];
    let mut program = file(Machine::X86_64, &code, &[("start", 0x1000)]);
    program.imports = vec![String::new(), "wanted".to_owned()];
    program.slots = vec![0x8010];
    program.pointers = vec![(0x8010, Pointer::Import(1))];
    // wanted: fsync / unwanted: fdatasync
    let mut code = vec![0xb8, 74, 0, 0, 0, 0x0f, 0x05, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0xb8, 75, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    let mut library = file(Machine::X86_64, &code, &[("wanted", 0x1000), ("unwanted", 0x1010)]);
    library.soname = Some("libwanted.so.1".to_owned());
    program.needed = vec!["libwanted.so.1".to_owned()];
    assert_eq!(reached(vec![summary(&program), summary(&library)]), found(&[74]));
    // Opened at run time, any of its names may be asked for.
    program.needed.clear();
    assert_eq!(reached(vec![summary(&program), summary(&library)]), found(&[74, 75]));
}

#[test]
fn int_80_has_the_other_table() {
    // mov eax, 20; int 0x80; ret
    let module = summary(&file(Machine::X86_64, &[0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3], &[("start", 0x1000)]));
    let sites: Vec<_> = module.sites.values().flatten().collect();
    assert!(sites.iter().all(|site| site.is_32_bit) && sites.len() == 1);
    assert_eq!(numbers::name_32_bit(20), Some("getpid"));
    assert_eq!(numbers::name(Machine::X86_64, 20), Some("writev"));
}

#[test]
fn aarch64_is_read_too() {
    let one = |code: &[u32]| reached(vec![summary(&file(Machine::Aarch64, &words(code), &[("start", 0x1000)]))]);
    // mov x8, #172; svc #0; ret
    assert_eq!(one(&[0xd280_1588, 0xd400_0001, 0xd65f_03c0]), found(&[172]));
    // mov w0, #64; mov x8, x0; svc #0; ret
    assert_eq!(one(&[0x5280_0800, 0xaa00_03e8, 0xd400_0001, 0xd65f_03c0]), found(&[64]));
    // start: mov w0, #93; b wrapper / wrapper: mov x8, x0; svc #0; ret
    let code = words(&[0x5280_0ba0, 0x1400_0001, 0xaa00_03e8, 0xd400_0001, 0xd65f_03c0]);
    let binary = file(Machine::Aarch64, &code, &[("start", 0x1000), ("wrapper", 0x1008)]);
    assert_eq!(reached(vec![summary(&binary)]), found(&[93]));
    assert_eq!(numbers::name(Machine::Aarch64, 93), Some("exit"));
    assert_eq!(numbers::name(Machine::Aarch64, 2), Some("io_submit"), "its table is another one");
}

#[test]
fn an_address_of_two_instructions_is_taken() {
    // start: adrp x0, 0x1000; add x0, x0, #0x10; ret; nop / other: mov x8, #129; svc #0; ret
    let code = words(&[0x9000_0000, 0x9100_4000, 0xd65f_03c0, 0xd503_201f, 0xd280_1028, 0xd400_0001, 0xd65f_03c0]);
    let binary = file(Machine::Aarch64, &code, &[("start", 0x1000), ("other", 0x1010)]);
    assert_eq!(reached(vec![summary(&binary)]), found(&[129]));
}

#[test]
fn go_names_its_functions() {
    // A table of Go 1.20: two functions at text offsets 0 and 0x10.
    let mut table = 0xffff_fff1u32.to_le_bytes().to_vec();
    table.extend([0, 0, 1, 8]);
    for word in [2u64, 0, 0x1000, 72, 0, 0, 0, 90] {
        table.extend(word.to_le_bytes());
    }
    table.extend(b"main.main\0os.Open\0");
    for (entry, record) in [(0u32, 24u32), (0x10, 32)] {
        table.extend(entry.to_le_bytes());
        table.extend(record.to_le_bytes());
    }
    table.extend(0x20u32.to_le_bytes());
    table.resize(90 + 24, 0);
    for (entry, name) in [(0u32, 0u32), (0x10, 10)] {
        table.extend(entry.to_le_bytes());
        table.extend(name.to_le_bytes());
    }
    let mut binary = file(Machine::X86_64, &[0x90; 0x20], &[("start", 0x1000)]);
    let data = binary.segments.last_mut().expect("data");
    data.len = table.len() as u64;
    data.bytes = table;
    let names = |section| {
        let found = golang::functions(&binary, section);
        found.into_iter().map(|function| (function.at, function.name)).collect::<Vec<_>>()
    };
    let expected = [(0x1000, "main.main"), (0x1010, "os.Open"), (0x1020, "runtime.etext")];
    let expected: Vec<_> = expected.into_iter().map(|(at, name)| (at, name.to_owned())).collect();
    assert_eq!(names(Some(0x8000)), expected, "the end of Go's code closes the table");
    assert_eq!(names(None), expected, "it is found by its header where sections are stripped");
}

#[test]
fn a_name_asked_for_at_run_time_is_bound() {
    // start: lea rsi, [rip + to 0x8020]; call [rip + to 0x8010]; ret
    let code = [0x48, 0x8d, 0x35, 0x19, 0x70, 0, 0, 0xff, 0x15, 0x03, 0x70, 0, 0, 0xc3];
    let mut program = file(Machine::X86_64, &code, &[("start", 0x1000)]);
    program.imports = vec![String::new(), "dlsym".to_owned()];
    program.slots = vec![0x8010];
    program.pointers = vec![(0x8010, Pointer::Import(1))];
    program.needed = vec!["libc.so.6".to_owned()];
    let data = program.segments.last_mut().expect("data");
    data.bytes.splice(0x20..0x27, *b"wanted\0");
    let mut code = vec![0xb8, 74, 0, 0, 0, 0x0f, 0x05, 0xc3];
    code.resize(0x10, 0xcc);
    code.extend([0xb8, 75, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    let mut library = file(Machine::X86_64, &code, &[("wanted", 0x1000), ("unwanted", 0x1010)]);
    library.soname = Some("libc.so.6".to_owned());
    assert_eq!(reached(vec![summary(&program), summary(&library)]), found(&[74]));
}

/// The numbers that reachable code of AArch64 calls.
fn aarch64(code: &[u32], functions: &[(&str, u64)]) -> BTreeSet<Option<u32>> {
    reached(vec![summary(&file(Machine::Aarch64, &words(code), functions))])
}

#[test]
fn control_does_not_come_back_from_exit() {
    // start: mov x8, #93; svc #0 / next: mov x8, #39; svc #0; ret
    let code = |number: u32| [0xd280_0008 | number << 5, 0xd400_0001, 0xd280_04e8, 0xd400_0001, 0xd65f_03c0];
    let functions = [("start", 0x1000), ("next", 0x1008)];
    assert_eq!(aarch64(&code(93), &functions), found(&[93]));
    assert_eq!(aarch64(&code(172), &functions), found(&[172, 39]), "getpid comes back");
    // start: mov eax, 60; syscall / next: mov eax, 39; syscall; ret
    let code = [0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3];
    assert_eq!(x86(&code, &[("start", 0x1000), ("next", 0x1007)]), found(&[60]));
}

#[test]
fn a_number_in_a_structure_is_loaded_with_its_sign() {
    // start: sub sp, sp, #16; mov w2, #144; str w2, [sp]; mov x0, sp; bl reader; ret
    // reader: ldrsw x8, [x0]; svc #0; ret
    let code = [
        0xd100_43ff,
        0x5280_1202,
        0xb900_03e2,
        0x9100_03e0,
        0x9400_0002,
        0xd65f_03c0,
        0xb980_0008,
        0xd400_0001,
        0xd65f_03c0,
    ];
    assert_eq!(aarch64(&code, &[("start", 0x1000), ("reader", 0x1018)]), found(&[144]));
}

#[test]
fn a_literal_holds_a_number() {
    // start: ldr x8, literal; svc #0; ret; nop; literal: 25
    let code = [0x5800_0088, 0xd400_0001, 0xd65f_03c0, 0xd503_201f, 25, 0];
    assert_eq!(aarch64(&code, &[("start", 0x1000)]), found(&[25]));
}

#[test]
fn data_among_code_is_no_function() {
    // start: adr x0, table; ret; table: "expand 32-byte k", then a branch to other; other: mov x8, #39; svc #0; ret
    let sigma = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    let code = |first: u32| {
        [
            0x1000_0040,
            0xd65f_03c0,
            first,
            sigma[1],
            sigma[2],
            sigma[3],
            0x1400_0001,
            0xd280_04e8,
            0xd400_0001,
            0xd65f_03c0,
        ]
    };
    let found_in = |code: &[u32]| {
        let mut binary = file(Machine::Aarch64, &words(code), &[("start", 0x1000), ("other", 0x101c)]);
        binary.symbols.iter_mut().filter(|symbol| symbol.name == "start").for_each(|symbol| symbol.len = 8);
        reached(vec![summary(&binary)])
    };
    assert_eq!(found_in(&code(sigma[0])), BTreeSet::new());
    // The same with code in place of the table: nop, ret of another function's tail, a branch.
    let mut real = code(0xd503_201f);
    real[3..6].fill(0xaa1f_03e0);
    assert_eq!(found_in(&real), found(&[39]));
}

#[test]
fn what_a_function_is_given_is_known_where_every_place_is() {
    // start: mov edi, 2; mov esi, 1; xor edx, edx; call [rip + to 0x8010]; ret
    let code = |first: &[u8]| {
        let mut code = first.to_vec();
        code.extend([0xbe, 1, 0, 0, 0, 0x31, 0xd2, 0xff, 0x15]);
        code.extend((0x8010u32 - 0x1000 - 4 - u32::try_from(code.len()).expect("short")).to_le_bytes());
        code.push(0xc3);
        code
    };
    let asked = |first: &[u8]| {
        let mut program = file(Machine::X86_64, &code(first), &[("start", 0x1000)]);
        program.imports = vec!["socket".to_owned()];
        program.slots = vec![0x8010];
        program.pointers = vec![(0x8010, Pointer::Import(0))];
        program.needed = vec!["libc.so.6".to_owned()];
        // mov eax, 41; syscall; ret
        let mut library = file(Machine::X86_64, &[0xb8, 41, 0, 0, 0, 0x0f, 0x05, 0xc3], &[("socket", 0x1000)]);
        library.soname = Some("libc.so.6".to_owned());
        let process = Process::new(
            [program, library].iter().map(|file| Arc::new(summary(file))).collect(),
            BTreeSet::new(),
            None,
        );
        let (reached, calm) = (process.reach(&[]), process.reach(&[]));
        let files = vec![dna::ImagePath::root(), dna::ImagePath::root()];
        super::Reach { process, reached, calm, files }.asked().remove("socket").expect("asked")
    };
    // mov edi, 2
    let known = asked(&[0xbf, 2, 0, 0, 0]);
    assert_eq!(known.values, [vec![Some(vec![2]), Some(vec![1]), Some(vec![0])]].into());
    assert!(!known.is_open);
    // rdtsc; mov edi, eax
    let open = asked(&[0x0f, 0x31, 0x89, 0xc7]);
    assert_eq!(open.values, [vec![None, Some(vec![1]), Some(vec![0])]].into());
    assert!(open.is_open);
    // mov rcx, [rip + to 0x8010]; mov edi, 2: a pointer is kept
    assert!(asked(&[0x48, 0x8b, 0x0d, 0x09, 0x70, 0, 0, 0xbf, 2, 0, 0, 0]).is_open);
}

#[test]
fn lines_count_where_a_shell_is_run_with_one_that_is_not_known() {
    // start: lea rax, [rip + to 0x8020]; WHAT; call [rip + to 0x8010]; ret
    let acts = |what: &[u8], name: &str| {
        let mut code = vec![0x48, 0x8d, 0x05];
        code.extend((0x8020u32 - 0x1007).to_le_bytes());
        code.extend(what);
        code.extend([0xff, 0x15]);
        code.extend((0x8010u32 - 0x1000 - 4 - u32::try_from(code.len()).expect("short")).to_le_bytes());
        code.push(0xc3);
        let mut program = file(Machine::X86_64, &code, &[("start", 0x1000)]);
        put(&mut program, 0x8020, b"exec cc -g -O2 -shared -o %o %s\0");
        program.imports = vec![name.to_owned()];
        program.slots = vec![0x8010];
        program.pointers = vec![(0x8010, Pointer::Import(0))];
        let process = Process::new(vec![Arc::new(summary(&program))], BTreeSet::new(), None);
        let (reached, calm) = (process.reach(&[]), process.reach(&[]));
        let reach = super::Reach { process, reached, calm, files: vec![dna::ImagePath::root()] };
        let acts = crate::acts::of_reach(&reach, &crate::Rootfs::default());
        let line = |command: &crate::scripts::Command| command.argv.last().cloned().flatten();
        let lines = |commands: &[crate::scripts::Command]| commands.iter().map(line).collect::<Vec<_>>();
        (lines(&acts.commands), lines(&acts.lines))
    };
    // rdtsc; mov edi, eax
    let open = [0x0f, 0x31, 0x89, 0xc7];
    let known = Some("exec cc -g -O2 -shared -o \"${_not_known}\" \"${_not_known}\"".to_owned());
    assert_eq!(acts(&open, "popen"), (vec![None], vec![known]));
    // mov rdi, rax: it is this line, as it stands.
    assert_eq!(acts(&[0x48, 0x89, 0xc7], "popen").1, Vec::new());
    // It runs nothing.
    assert_eq!(acts(&open, "puts"), (Vec::new(), Vec::new()));
}

#[test]
fn what_only_leads_to_the_loop_is_not_reached_from_it() {
    // start: call bind; again: call wait; call read; jmp again
    let mut code = vec![0xe8, 0x1b, 0, 0, 0, 0xe8, 0x26, 0, 0, 0, 0xe8, 0x31, 0, 0, 0, 0xeb, 0xf4];
    for (at, number) in [(0x20, 49), (0x30, 232), (0x40, 0)] {
        code.resize(at, 0xcc);
        code.extend([0xb8, number, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    }
    let functions = [("start", 0x1000), ("bind", 0x1020), ("wait", 0x1030), ("read", 0x1040)];
    let module = summary(&file(Machine::X86_64, &code, &functions));
    let process = Process::new(vec![Arc::new(module)], BTreeSet::new(), None);
    let serving = Serving::of(&process, &process.reach(&[])).expect("a loop that waits");
    let served: Vec<bool> = (0..4).map(|node| serving.leads_to((0, node))).collect();
    assert_eq!(served, [false, false, true, true]);
}

proptest::proptest! {
    /// Any bytes as code: no panic, and nothing runs away.
    #[test]
    fn any_bytes_are_code(code in proptest::collection::vec(proptest::num::u8::ANY, 0..600), slots in 0u64..4) {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            for is_movable in [true, false] {
                let mut binary = file(machine, &code, &[("start", 0x1000), ("syscall", 0x1040)]);
                binary.is_movable = is_movable;
                binary.slots = (0..slots).map(|slot| 0x8000 + slot * 8).collect();
                binary.pointers = vec![(0x8000, Pointer::Here(0x1010)), (0x8010, Pointer::Resolved(0x1020))];
                let module = summary(&binary);
                reached(vec![module]);
            }
        }
    }
}
