//! ELF files: a body in, the facts of its headers, dynamic section, notes and strings out.
//!
//! goblin decodes one structure at a time from slices that were cut with a limit; its `Elf::parse` is not used, since it
//! wants the whole file and trusts more of it. Addresses are turned into offsets by the program headers alone, as the kernel
//! and the loader do, so that a file without section headers says as much. No instruction is decoded here.

mod hardening;
mod packing;

use dna::{Linkage, Needed, Tristate};
use goblin::{
    container::Ctx,
    elf::{Elf, ProgramHeader, SectionHeader, dynamic, dynamic::Dyn, header, program_header, section_header},
};
use scroll::{
    Pread as _,
    ctx::{SizeWith, TryFromCtx},
};

use crate::{
    InodeId, ReadError, Rootfs,
    inventory::formats::{GoBuild, parse_build_info},
};

/// An ELF file and what the next steps ask of it.
#[derive(Debug, Clone)]
pub struct ElfFile {
    /// The facts of the DNA; the paths of `needed` are still open.
    pub facts: dna::Elf,
    /// `e_machine`.
    pub machine: u16,
    /// 64-bit class.
    pub is_64: bool,
    /// Little-endian.
    pub is_little_endian: bool,
    /// The kernel can start it: an executable, or a shared object that says so.
    pub is_program: bool,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DF_1_NODEFLIB`: not in the default directories.
    pub is_outside_default_folders: bool,
    /// The strings of `.comment`: one a compiler.
    pub comment: Vec<String>,
    /// What Go's linker wrote.
    pub go: Option<GoBuild>,
    /// Marks of languages in its strings.
    pub marks: Marks,
}

/// Marks of languages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Names of the C++ library, or of its mangling, among the dynamic names.
    pub cplusplus: bool,
    /// Paths of Rust's own library, as its panics carry them, or a section of `cargo auditable`.
    pub rust: bool,
    /// Calls `__libc_start_main`, as C's start files do.
    pub c_start: bool,
}

/// An ELF file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// Its bytes are not to be had.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A structure contradicts itself or the file.
    #[error("malformed ELF: {0}")]
    Malformed(&'static str),
}

/// Reads an ELF file; none where the body does not start with ELF's magic.
///
/// # Errors
/// [`ElfError`]: the body cannot be read, or the kernel would refuse its headers.
pub fn read(rootfs: &Rootfs, inode: InodeId) -> Result<Option<ElfFile>, ElfError> {
    let head = rootfs.read_range(inode, 0, HEAD_BYTES)?;
    if !head.starts_with(header::ELFMAG) {
        return Ok(None);
    }
    let body = Body::open(rootfs, inode, &head)?;
    let dynamic = Dynamic::read(&body)?;
    let interpreter = match body.segment(program_header::PT_INTERP) {
        Some(segment) => Some(text(until_nul(&body.range(segment.p_offset, segment.p_filesz.min(PATH_BYTES))?))),
        None => None,
    };
    let is_shared = body.header.e_type == header::ET_DYN;
    let is_pie = dynamic.flags_1 & dynamic::DF_1_PIE != 0;
    let starts = body.segments.iter().any(|segment| {
        segment.p_type == program_header::PT_LOAD
            && segment.p_flags & program_header::PF_X != 0
            && (segment.p_vaddr..segment.p_vaddr.saturating_add(segment.p_filesz)).contains(&body.header.e_entry)
    });
    let is_program = match body.header.e_type {
        header::ET_EXEC => true,
        // A loader has an entry and needs nothing; an ordinary library has no entry, or needs the C library.
        header::ET_DYN => {
            interpreter.is_some() || is_pie || (starts && body.header.e_entry != 0 && dynamic.needed.is_empty())
        }
        _ => false,
    };
    let comment = body.section_bytes(b".comment", COMMENT_BYTES)?.unwrap_or_default();
    let constants = match body.section(b".rodata") {
        Some(section) => body.range(section.sh_offset, section.sh_size.min(CONSTANTS_BYTES))?,
        None => Vec::new(),
    };
    let go = read_go(&body)?;
    let symbols = body.section_bytes(b".strtab", STRINGS_BYTES)?;
    let has = |name: &[u8]| memchr::memmem::find(&dynamic.strings, name).is_some();
    let marks = Marks {
        cplusplus: has(b"GLIBCXX_") || has(b"CXXABI_") || has(b"\0_ZNSt") || has(b"\0_ZSt"),
        rust: body.section(b".dep-v0").is_some()
            || memchr::memmem::find(&constants, b"/rustc/").is_some()
            || memchr::memmem::find(&constants, b"library/core/src/").is_some(),
        c_start: has(b"__libc_start_main"),
    };
    let linkage = match (&interpreter, is_shared) {
        (Some(_), _) => Linkage::Dynamic,
        (None, true) => Linkage::StaticPie,
        (None, false) => Linkage::Static,
    };
    let build_id = body.build_id()?;
    let stripped = !body.sections.iter().any(|(_, section)| section.sh_type == section_header::SHT_SYMTAB);
    let evidence = hardening::Names {
        dynamic: &dynamic.strings,
        symbols: symbols.as_deref().filter(|_| !stripped),
        is_dynamic: linkage == Linkage::Dynamic,
        is_go: go.is_some(),
        is_musl: interpreter.as_deref().is_some_and(|name| name.contains("ld-musl-")),
    };
    let facts = dna::Elf {
        architecture: architecture(body.header.e_machine, body.is_64(), body.is_little_endian()),
        linkage,
        interpreter,
        needed: dynamic.needed.iter().map(|name| Needed { name: name.clone(), path: None }).collect(),
        rpath: dynamic.rpath.clone(),
        runpath: dynamic.runpath.clone(),
        build_id,
        stripped,
        hardening: hardening::read(&body, &dynamic, &evidence, is_program && is_shared),
        packing: packing::read(&body, &head, &dynamic)?,
    };
    Ok(Some(ElfFile {
        facts,
        machine: body.header.e_machine,
        is_64: body.is_64(),
        is_little_endian: body.is_little_endian(),
        is_program,
        soname: dynamic.soname,
        is_outside_default_folders: dynamic.flags_1 & dynamic::DF_1_NODEFLIB != 0,
        comment: comment.split(|b| *b == 0).filter(|line| !line.is_empty()).map(text).collect(),
        go,
        marks,
    }))
}

/// Feeds any bytes to the reader, for fuzzing.
pub fn read_bytes(bytes: &[u8]) -> Result<Option<ElfFile>, ElfError> {
    let (rootfs, inode) = Rootfs::of_bytes(bytes);
    read(&rootfs, inode)
}

/// A file with its two header tables.
pub(crate) struct Body<'a> {
    rootfs: &'a Rootfs,
    inode: InodeId,
    pub(crate) header: header::Header,
    ctx: Ctx,
    pub(crate) segments: Vec<ProgramHeader>,
    pub(crate) sections: Vec<(Vec<u8>, SectionHeader)>,
}

impl<'a> Body<'a> {
    pub(crate) fn open(rootfs: &'a Rootfs, inode: InodeId, head: &[u8]) -> Result<Self, ElfError> {
        let header = Elf::parse_header(head).map_err(|_| ElfError::Malformed("header"))?;
        let container = header.container().map_err(|_| ElfError::Malformed("class"))?;
        let endian = header.endianness().map_err(|_| ElfError::Malformed("byte order"))?;
        let ctx = Ctx::new(container, endian);
        let mut body = Self { rootfs, inode, header, ctx, segments: Vec::new(), sections: Vec::new() };
        // The kernel takes no other entry size; section headers are not its concern, so a bad table is no table.
        let entry = <ProgramHeader as SizeWith<Ctx>>::size_with(&ctx);
        if header.e_phnum != 0 && usize::from(header.e_phentsize) != entry {
            return Err(ElfError::Malformed("size of a program header"));
        }
        let section = <SectionHeader as SizeWith<Ctx>>::size_with(&ctx);
        let mut shnum = u64::from(header.e_shnum);
        let mut names = u32::from(header.e_shstrndx);
        let mut phnum = u64::from(header.e_phnum);
        let has_sections = header.e_shoff != 0 && usize::from(header.e_shentsize) == section;
        if has_sections {
            // Extended numbering, gABI chapter 4: what does not fit stands in section header 0.
            let first = body.table::<SectionHeader>(header.e_shoff, 1, section)?;
            if let Some(first) = first.first() {
                if shnum == 0 {
                    shnum = first.sh_size;
                }
                if header.e_shstrndx == 0xffff {
                    names = first.sh_link;
                }
                if header.e_phnum == 0xffff {
                    phnum = u64::from(first.sh_info);
                }
            }
            let table = body.table::<SectionHeader>(header.e_shoff, shnum.min(SECTIONS), section)?;
            let names = match usize::try_from(names).ok().and_then(|index| table.get(index)) {
                Some(names) => body.range(names.sh_offset, names.sh_size.min(STRINGS_BYTES))?,
                None => Vec::new(),
            };
            body.sections = table
                .into_iter()
                // A name is some tens of bytes; a lying one costs neither a copy nor a scan of the whole table per section.
                .map(|section| (string_at(&names, section.sh_name as u64, 64).to_vec(), section))
                .collect();
        }
        body.segments = body.table::<ProgramHeader>(header.e_phoff, phnum.min(SEGMENTS), entry)?;
        Ok(body)
    }

    /// As many entries of a table as the file holds, at most `count`.
    pub(crate) fn table<T>(&self, offset: u64, count: u64, size: usize) -> Result<Vec<T>, ElfError>
    where
        T: for<'b> TryFromCtx<'b, Ctx, Error = goblin::error::Error>,
    {
        let bytes = self.range(offset, count.saturating_mul(size as u64))?;
        Ok(bytes.chunks_exact(size.max(1)).map_while(|entry| entry.pread_with::<T>(0, self.ctx).ok()).collect())
    }

    pub(crate) fn is_64(&self) -> bool {
        self.ctx.container.is_big()
    }

    pub(crate) fn is_little_endian(&self) -> bool {
        self.ctx.le.is_little()
    }

    pub(crate) fn range(&self, offset: u64, len: u64) -> Result<Vec<u8>, ElfError> {
        Ok(self.rootfs.read_range(self.inode, offset, len)?)
    }

    pub(crate) fn segment(&self, kind: u32) -> Option<&ProgramHeader> {
        self.segments.iter().find(|segment| segment.p_type == kind)
    }

    pub(crate) fn section(&self, name: &[u8]) -> Option<&SectionHeader> {
        let found = self.sections.iter().find(|(have, _)| have == name).map(|(_, section)| section);
        found.filter(|section| section.sh_type != section_header::SHT_NOBITS)
    }

    fn section_bytes(&self, name: &[u8], limit: u64) -> Result<Option<Vec<u8>>, ElfError> {
        self.section(name).map(|section| self.range(section.sh_offset, section.sh_size.min(limit))).transpose()
    }

    /// The file's offset of an address, and how many bytes of its segment follow in the file.
    fn offset_of(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().filter(|segment| segment.p_type == program_header::PT_LOAD).find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr).filter(|inside| *inside < segment.p_filesz)?;
            Some((segment.p_offset.checked_add(inside)?, segment.p_filesz.checked_sub(inside)?))
        })
    }

    fn build_id(&self) -> Result<Option<String>, ElfError> {
        for segment in self.segments.iter().filter(|segment| segment.p_type == program_header::PT_NOTE).take(NOTES) {
            let notes = self.range(segment.p_offset, segment.p_filesz.min(NOTES_BYTES))?;
            if let Some(id) = find_note(&notes, self.is_little_endian(), segment.p_align) {
                return Ok(Some(id.iter().map(|byte| format!("{byte:02x}")).collect()));
            }
        }
        let section = self.section_bytes(b".note.gnu.build-id", NOTES_BYTES)?.unwrap_or_default();
        let id = find_note(&section, self.is_little_endian(), 4);
        Ok(id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

/// The dynamic section, as far as it bears on loading and hardening.
#[derive(Default)]
pub(crate) struct Dynamic {
    is_present: bool,
    pub(crate) needed: Vec<String>,
    pub(crate) soname: Option<String>,
    /// Addresses of functions run at start and end (`DT_INIT`, `DT_FINI`).
    pub(crate) initial: Vec<u64>,
    rpath: Vec<String>,
    runpath: Vec<String>,
    flags: u64,
    flags_1: u64,
    bind_now: bool,
    strings: Vec<u8>,
}

impl Dynamic {
    pub(crate) fn read(body: &Body<'_>) -> Result<Self, ElfError> {
        let Some(segment) = body.segment(program_header::PT_DYNAMIC) else { return Ok(Self::default()) };
        let size = <Dyn as SizeWith<Ctx>>::size_with(&body.ctx);
        let count = segment.p_filesz.checked_div(size as u64).unwrap_or(0).min(DYNAMIC);
        let mut entries = body.table::<Dyn>(segment.p_offset, count, size)?;
        if entries.is_empty() && segment.p_filesz != 0 {
            return Err(ElfError::Malformed("the dynamic segment is outside the file"));
        }
        if let Some(end) = entries.iter().position(|entry| entry.d_tag == dynamic::DT_NULL) {
            entries.truncate(end);
        }
        // The loader keeps the last of each tag, dl_map: `info[dyn->d_tag] = dyn`.
        let value = |tag| entries.iter().rfind(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
        let strings = match value(dynamic::DT_STRTAB).and_then(|address| body.offset_of(address)) {
            Some((offset, rest)) => {
                let len = value(dynamic::DT_STRSZ).unwrap_or(rest).min(rest).min(STRINGS_BYTES);
                body.range(offset, len)?
            }
            None => Vec::new(),
        };
        let name = |at: u64| text(string_at(&strings, at, PATH_BYTES));
        let list = |tag| match value(tag) {
            Some(at) => name(at).split(':').map(str::to_owned).collect(),
            None => Vec::new(),
        };
        Ok(Self {
            is_present: true,
            needed: entries.iter().filter(|e| e.d_tag == dynamic::DT_NEEDED).map(|e| name(e.d_val)).collect(),
            soname: value(dynamic::DT_SONAME).map(name),
            initial: [dynamic::DT_INIT, dynamic::DT_FINI].into_iter().filter_map(value).collect(),
            rpath: list(dynamic::DT_RPATH),
            runpath: list(dynamic::DT_RUNPATH),
            flags: value(dynamic::DT_FLAGS).unwrap_or(0),
            flags_1: value(dynamic::DT_FLAGS_1).unwrap_or(0),
            bind_now: value(dynamic::DT_BIND_NOW).is_some(),
            strings,
        })
    }
}

fn read_go(body: &Body<'_>) -> Result<Option<GoBuild>, ElfError> {
    let writable = |segment: &&ProgramHeader| {
        segment.p_type == program_header::PT_LOAD && segment.p_flags & program_header::PF_W != 0
    };
    let (offset, len) = match body.section(b".go.buildinfo") {
        Some(section) => (section.sh_offset, section.sh_size),
        None if body.sections.is_empty() => match body.segments.iter().find(writable) {
            Some(segment) => (segment.p_offset, segment.p_filesz),
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    let blob = body.range(offset, len.min(GO_BYTES))?;
    let memory = |address, len: u64| {
        let (offset, rest) = body.offset_of(address)?;
        body.range(offset, len.min(rest)).ok()
    };
    Ok(parse_build_info(&blob, |header| header.string(GO_BYTES, memory)))
}

/// The GNU build id among notes; each is three words, a name and a description, both padded.
fn find_note(notes: &[u8], is_little_endian: bool, align: u64) -> Option<&[u8]> {
    let pad = |len: usize| len.checked_next_multiple_of(if align == 8 { 8 } else { 4 });
    let word = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().ok()?;
        let word = if is_little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
        usize::try_from(word).ok()
    };
    let mut rest = notes;
    loop {
        let (name_len, desc_len) = (word(rest.get(..4)?)?, word(rest.get(4..8)?)?);
        let kind = word(rest.get(8..12)?)?;
        let name = rest.get(12..12usize.checked_add(name_len)?)?;
        let start = pad(12usize.checked_add(name_len)?)?;
        let end = start.checked_add(desc_len)?;
        let desc = rest.get(start..end)?;
        if kind == 3 && name == b"GNU\0" && (1..=64).contains(&desc_len) {
            return Some(desc);
        }
        rest = rest.get(pad(end)?..)?;
    }
}

/// The string at an offset, cut at `limit` bytes before its end is looked for: many may point into one long one.
pub(crate) fn string_at(strings: &[u8], at: u64, limit: u64) -> &[u8] {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    let rest = strings.get(start..).unwrap_or_default();
    until_nul(usize::try_from(limit).ok().and_then(|limit| rest.get(..limit)).unwrap_or(rest))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An architecture in the words of `GOARCH`.
fn architecture(machine: u16, is_64: bool, is_little_endian: bool) -> String {
    let name = match (machine, is_64, is_little_endian) {
        (header::EM_X86_64, _, _) => "amd64",
        (header::EM_386, _, _) => "386",
        (header::EM_AARCH64, _, _) => "arm64",
        (header::EM_ARM, _, true) => "arm",
        (header::EM_RISCV, true, _) => "riscv64",
        (header::EM_PPC64, _, true) => "ppc64le",
        (header::EM_PPC64, _, false) => "ppc64",
        (header::EM_S390, true, _) => "s390x",
        (header::EM_MIPS, true, true) => "mips64le",
        (header::EM_MIPS, true, false) => "mips64",
        (header::EM_MIPS, false, true) => "mipsle",
        (header::EM_MIPS, false, false) => "mips",
        (258, true, true) => "loong64",
        _ => return format!("em-{machine}"),
    };
    name.to_owned()
}

/// Whether a bit set says yes.
fn tristate(holds: bool) -> Tristate {
    if holds { Tristate::Yes } else { Tristate::No }
}

/// The header and, as linkers place them, the program headers, interpreter and notes.
pub(crate) const HEAD_BYTES: u64 = 4 << 10;
/// The kernel refuses tables above 64 KiB, binfmt_elf.c `load_elf_phdrs`.
const SEGMENTS: u64 = 1_170;
/// Linked programs have tens of sections.
const SECTIONS: u64 = 65_536;
/// Entries of a dynamic section: real ones have tens, one per needed library.
const DYNAMIC: u64 = 4_096;
/// PATH_MAX.
const PATH_BYTES: u64 = 4_096;
/// Dynamic strings: the largest seen (Chromium, LLVM) have some 10 MiB.
const STRINGS_BYTES: u64 = 32 << 20;
const COMMENT_BYTES: u64 = 64 << 10;
/// Constants searched for the paths of Rust's library, which every program of it holds in many places.
const CONSTANTS_BYTES: u64 = 1 << 20;
const NOTES: usize = 16;
const NOTES_BYTES: u64 = 64 << 10;
/// Go build information: a large program names a thousand modules of a hundred bytes.
const GO_BYTES: u64 = 1 << 20;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
