//! Exploit mitigations: an ELF file's segments, flags and names in, yes, no or unknown for each out.
//!
//! Canaries and `_FORTIFY_SOURCE` show by the names of what they call; a static file without symbols does not tell.

use dna::{Hardening, Relro, Tristate};
use goblin::elf::{dynamic, header, program_header};

use super::{Body, Dynamic, tristate};

/// The names a file holds, and what is known of the tools that made it.
pub(super) struct Names<'a> {
    pub(super) dynamic: &'a [u8],
    pub(super) symbols: Option<&'a [u8]>,
    pub(super) is_dynamic: bool,
    pub(super) is_go: bool,
    pub(super) is_musl: bool,
}

impl Names<'_> {
    fn has(&self, name: &[u8]) -> bool {
        let whole = |strings: &[u8]| {
            memchr::memmem::find_iter(strings, name).any(|at| {
                let end = at.saturating_add(name.len());
                at.checked_sub(1).is_some_and(|before| strings.get(before) == Some(&0))
                    && matches!(strings.get(end), Some(0 | b'@'))
            })
        };
        whole(self.dynamic) || self.symbols.is_some_and(whole)
    }

    /// Whether the absence of a name means that it is not called.
    fn tell(&self) -> bool {
        !self.is_go && (self.is_dynamic || self.symbols.is_some())
    }
}

pub(super) fn read(body: &Body<'_>, dynamic: &Dynamic, names: &Names<'_>, is_pie: bool) -> Hardening {
    let relro = match body.segment(program_header::PT_GNU_RELRO) {
        None => Relro::No,
        // Without a dynamic section nothing is bound lazily.
        Some(_) if !dynamic.is_present => Relro::Full,
        Some(_)
            if dynamic.bind_now
                || dynamic.flags & dynamic::DF_BIND_NOW != 0
                || dynamic.flags_1 & dynamic::DF_1_NOW != 0 =>
        {
            Relro::Full
        }
        Some(_) => Relro::Partial,
    };
    let nx = match body.segment(program_header::PT_GNU_STACK) {
        Some(segment) => tristate(segment.p_flags & program_header::PF_X == 0),
        // arch/*/include/asm/elf.h: without the header these have an executable stack on every kernel; on x86-64 and arm64
        // that changed with 5.8, elsewhere it was not checked.
        None if matches!(body.header.e_machine, header::EM_386 | header::EM_ARM) => Tristate::No,
        None => Tristate::Unknown,
    };
    Hardening { pie: tristate(is_pie), relro, nx, canary: canary(names), fortify: fortify(names) }
}

fn canary(names: &Names<'_>) -> Tristate {
    let marks: [&[u8]; 3] = [b"__stack_chk_fail", b"__stack_chk_guard", b"__stack_chk_fail_local"];
    if marks.iter().any(|name| names.has(name)) {
        Tristate::Yes
    } else if names.tell() {
        Tristate::No
    } else {
        Tristate::Unknown
    }
}

fn fortify(names: &Names<'_>) -> Tristate {
    let checked = |name: &&[u8]| names.has(&[b"__".as_slice(), name, b"_chk"].concat());
    if FORTIFIED.iter().any(checked) {
        Tristate::Yes
    // musl has no checked functions, a static file's C library is not known, and where none of these is called there is
    // nothing to check.
    } else if names.tell() && names.is_dynamic && !names.is_musl && FORTIFIED.iter().any(|name| names.has(name)) {
        Tristate::No
    } else {
        Tristate::Unknown
    }
}

/// Functions of which glibc has a checked form, debug/Makefile.
const FORTIFIED: &[&[u8]] = &[
    b"memcpy",
    b"memmove",
    b"memset",
    b"mempcpy",
    b"strcpy",
    b"strncpy",
    b"stpcpy",
    b"stpncpy",
    b"strcat",
    b"strncat",
    b"sprintf",
    b"snprintf",
    b"vsprintf",
    b"vsnprintf",
    b"printf",
    b"fprintf",
    b"vprintf",
    b"vfprintf",
    b"dprintf",
    b"vdprintf",
    b"asprintf",
    b"vasprintf",
    b"obstack_printf",
    b"syslog",
    b"vsyslog",
    b"fgets",
    b"gets",
    b"fread",
    b"read",
    b"pread",
    b"pread64",
    b"recv",
    b"recvfrom",
    b"readlink",
    b"readlinkat",
    b"getcwd",
    b"getwd",
    b"realpath",
    b"confstr",
    b"getgroups",
    b"gethostname",
    b"getdomainname",
    b"ttyname_r",
    b"getlogin_r",
    b"poll",
    b"ppoll",
    b"mbstowcs",
    b"wcstombs",
    b"mbsrtowcs",
    b"wcsrtombs",
    b"wcrtomb",
    b"wctomb",
    b"wmemcpy",
    b"wmemset",
    b"wcscpy",
    b"swprintf",
    b"wprintf",
    b"fwprintf",
    b"longjmp",
    b"fdelt",
    b"explicit_bzero",
    b"open",
    b"open64",
    b"openat",
];
