//! An ELF file as its code needs it: memory as the loader would map it, symbols, pointers that the loader fills in, and where
//! functions start. No instruction is decoded here.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection as _};
use goblin::elf::{SectionHeader, header, program_header, reloc, section_header, sym};

use super::{golang, insn::Machine};
use crate::{
    InodeId, Rootfs,
    elf::{Body, Dynamic, ElfError, string_at, text},
};

/// What the decoder and the summary need of an ELF file.
#[derive(Debug)]
pub(super) struct Binary {
    pub(super) machine: Machine,
    /// Linked to no fixed place: what looks like an address in its code is one only where it is computed.
    pub(super) is_movable: bool,
    pub(super) entry: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) symbols: Vec<Symbol>,
    /// Pointers in data by the address they stand at, sorted.
    pub(super) pointers: Vec<(u64, Pointer)>,
    /// Names that other files define, by the number [`Pointer::Import`] holds.
    pub(super) imports: Vec<String>,
    /// Names of the files it needs, and its own (`DT_NEEDED`, `DT_SONAME`).
    pub(super) needed: Vec<String>,
    pub(super) soname: Option<String>,
    /// Slots of the global offset table: eight bytes each, one pointer each.
    pub(super) slots: Vec<u64>,
    /// Start and length of functions by their unwind tables.
    pub(super) frames: Vec<(u64, u64)>,
    /// Functions run at start and end.
    pub(super) initial: Vec<u64>,
    /// Functions by Go's own table.
    pub(super) go: Vec<golang::Function>,
}

/// A loadable segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    /// Length in memory: zeros follow the bytes.
    pub(super) len: u64,
    /// Where its bytes stand in the file.
    pub(super) offset: u64,
    pub(super) is_code: bool,
}

/// A symbol that the file defines.
#[derive(Debug, Clone)]
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) kind: SymbolKind,
    /// Other files can bind to it.
    pub(super) is_exported: bool,
    /// Only files linked against an older version bind to it.
    pub(super) is_old_version: bool,
}

/// What a symbol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SymbolKind {
    Function,
    /// A function that returns the function to use (`STT_GNU_IFUNC`).
    Resolver,
    Data,
}

/// What the loader writes at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pointer {
    /// An address of this file.
    Here(u64),
    /// What a function of this file returns (`IRELATIVE`).
    Resolved(u64),
    /// A name, by its number among the imports, or defined here too.
    Import(u32),
}

impl Binary {
    /// Reads a file; none where its machine is not one we decode.
    pub(super) fn read(rootfs: &Rootfs, inode: InodeId) -> Result<Option<Self>, ElfError> {
        let head = rootfs.read_range(inode, 0, crate::elf::HEAD_BYTES)?;
        if !head.starts_with(header::ELFMAG) {
            return Ok(None);
        }
        let body = Body::open(rootfs, inode, &head)?;
        let Some(machine) = Machine::of(body.header.e_machine) else { return Ok(None) };
        if !body.is_64() || !body.is_little_endian() {
            return Ok(None);
        }
        let is_movable = body.header.e_type == header::ET_DYN;
        let mut binary = Self::new(machine, is_movable, body.header.e_entry, segments(&body)?);
        let dynamic = Dynamic::read(&body)?;
        binary.read_symbols(&body)?;
        binary.read_pointers(&body, &dynamic.initial)?;
        (binary.needed, binary.soname) = (dynamic.needed, dynamic.soname);
        binary.read_frames(&body);
        binary.go = golang::functions(&binary, body.section(b".gopclntab").map(|section| section.sh_addr));
        Ok(Some(binary))
    }

    /// Memory without symbols or pointers yet.
    pub(super) fn new(machine: Machine, is_movable: bool, entry: u64, segments: Vec<Segment>) -> Self {
        Self {
            machine,
            is_movable,
            entry,
            segments,
            symbols: Vec::new(),
            pointers: Vec::new(),
            imports: Vec::new(),
            needed: Vec::new(),
            soname: None,
            slots: Vec::new(),
            frames: Vec::new(),
            initial: Vec::new(),
            go: Vec::new(),
        }
    }

    /// The bytes from an address to the end of its segment's file contents.
    pub(super) fn bytes_at(&self, at: u64) -> &[u8] {
        let Some(segment) = self.segment_of(at) else { return &[] };
        let skip = usize::try_from(at.saturating_sub(segment.start)).unwrap_or(usize::MAX);
        segment.bytes.get(skip..).unwrap_or_default()
    }

    /// The segment that an address lies in.
    pub(super) fn segment_of(&self, at: u64) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.start <= at);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (at.checked_sub(segment.start)? < segment.len).then_some(segment)
    }

    /// The segments that hold code.
    pub(super) fn code(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.is_code)
    }

    /// Whether an address lies in code.
    pub(super) fn is_code(&self, at: u64) -> bool {
        self.segment_of(at).is_some_and(|segment| segment.is_code)
    }

    /// Where in the file an address stands.
    pub(super) fn offset_of(&self, at: u64) -> Option<u64> {
        let segment = self.segment_of(at)?;
        segment.offset.checked_add(at.checked_sub(segment.start)?)
    }

    /// What the loader writes at an address.
    pub(super) fn pointer(&self, at: u64) -> Option<Pointer> {
        let index = self.pointers.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        self.pointers.get(index).map(|(_, pointer)| *pointer)
    }

    fn u64_at(&self, at: u64) -> Option<u64> {
        self.bytes_at(at).first_chunk().copied().map(u64::from_le_bytes)
    }

    fn read_symbols(&mut self, body: &Body<'_>) -> Result<(), ElfError> {
        let mut known = BTreeSet::<(u64, String)>::new();
        let mut budget = ALL_NAMES_BYTES;
        for (kind, is_dynamic) in [(section_header::SHT_DYNSYM, true), (section_header::SHT_SYMTAB, false)] {
            let Some(table) = body.sections.iter().map(|(_, section)| section).find(|section| section.sh_type == kind)
            else {
                continue;
            };
            let names = usize::try_from(table.sh_link).ok().and_then(|index| body.sections.get(index));
            let Some((_, names)) = names else { continue };
            let names = body.range(names.sh_offset, names.sh_size.min(NAMES_BYTES))?;
            let versions =
                match body.sections.iter().find(|(_, section)| section.sh_type == section_header::SHT_GNU_VERSYM) {
                    Some((_, section)) if is_dynamic => body.range(section.sh_offset, section.sh_size)?,
                    _ => Vec::new(),
                };
            let entries = body.table::<sym::Sym>(table.sh_offset, (table.sh_size / SYMBOL_BYTES).min(SYMBOLS), 24)?;
            for (index, entry) in entries.iter().enumerate() {
                let kind = match entry.st_type() {
                    sym::STT_FUNC => SymbolKind::Function,
                    sym::STT_GNU_IFUNC => SymbolKind::Resolver,
                    sym::STT_OBJECT => SymbolKind::Data,
                    // Assembly often leaves the type open.
                    sym::STT_NOTYPE
                        if self.is_code(entry.st_value) && !entry.is_import() && entry.st_bind() != sym::STB_LOCAL =>
                    {
                        SymbolKind::Function
                    }
                    _ if is_dynamic => SymbolKind::Data,
                    _ => continue,
                };
                let name = text(string_at(&names, entry.st_name as u64, NAME_BYTES.min(budget)));
                budget = budget.saturating_sub(name.len() as u64);
                if is_dynamic {
                    self.imports.push(name.clone());
                }
                if entry.st_shndx == section_header::SHN_UNDEF as usize || entry.st_value == 0 {
                    continue;
                }
                let is_exported = is_dynamic && entry.st_bind() != sym::STB_LOCAL;
                let version = versions.chunks_exact(2).nth(index).and_then(|word| word.first_chunk().copied());
                let is_old_version = version.is_some_and(|word| u16::from_le_bytes(word) & VERSION_HIDDEN != 0);
                if known.insert((entry.st_value, name.clone())) {
                    let (at, len) = (entry.st_value, entry.st_size);
                    self.symbols.push(Symbol { name, at, len, kind, is_exported, is_old_version });
                }
            }
        }
        self.symbols.sort_by(|one, other| (one.at, &one.name).cmp(&(other.at, &other.name)));
        Ok(())
    }

    /// Reads what the loader fills in, and finds what it calls first: by arrays of pointers, and the functions it is told.
    fn read_pointers(&mut self, body: &Body<'_>, functions: &[u64]) -> Result<(), ElfError> {
        let mut relocations: Vec<reloc::Reloc> = Vec::new();
        for (name, section) in &body.sections {
            let is_dynamic = section.sh_flags & u64::from(section_header::SHF_ALLOC) != 0;
            match section.sh_type {
                section_header::SHT_RELA if is_dynamic => {
                    let count = (section.sh_size / RELOCATION_BYTES).min(RELOCATIONS);
                    let bytes = body.range(section.sh_offset, count.saturating_mul(RELOCATION_BYTES))?;
                    relocations.extend(bytes.chunks_exact(24).filter_map(relocation));
                }
                SHT_RELR => self.read_relr(&body.range(section.sh_offset, section.sh_size.min(RELR_BYTES))?),
                section_header::SHT_INIT_ARRAY | section_header::SHT_FINI_ARRAY | section_header::SHT_PREINIT_ARRAY => {
                    self.initial.extend(words_of(section));
                }
                _ if name == b".got" || name == b".got.plt" => {
                    self.slots.extend(words_of(section));
                }
                _ => {}
            }
        }
        let by_address: BTreeMap<String, u64> = self
            .symbols
            .iter()
            .filter(|symbol| symbol.is_exported && !symbol.is_old_version)
            .map(|symbol| (symbol.name.clone(), symbol.at))
            .collect();
        for entry in relocations {
            let (symbol, addend) = (entry.r_sym, entry.r_addend.unwrap_or(0));
            let name = || self.imports.get(symbol).and_then(|name| by_address.get(name));
            let pointer = match (self.machine, entry.r_type) {
                (Machine::X86_64, reloc::R_X86_64_RELATIVE) | (Machine::Aarch64, reloc::R_AARCH64_RELATIVE) => {
                    Pointer::Here(addend.cast_unsigned())
                }
                (Machine::X86_64, reloc::R_X86_64_IRELATIVE) | (Machine::Aarch64, reloc::R_AARCH64_IRELATIVE) => {
                    Pointer::Resolved(addend.cast_unsigned())
                }
                (Machine::X86_64, reloc::R_X86_64_GLOB_DAT | reloc::R_X86_64_JUMP_SLOT)
                | (Machine::Aarch64, reloc::R_AARCH64_GLOB_DAT | reloc::R_AARCH64_JUMP_SLOT) => {
                    self.slots.push(entry.r_offset);
                    Pointer::Import(u32::try_from(symbol).unwrap_or(0))
                }
                (Machine::X86_64, reloc::R_X86_64_64) | (Machine::Aarch64, reloc::R_AARCH64_ABS64) => match name() {
                    Some(at) if addend != 0 => Pointer::Here(at.wrapping_add_signed(addend)),
                    _ => Pointer::Import(u32::try_from(symbol).unwrap_or(0)),
                },
                _ => continue,
            };
            self.pointers.push((entry.r_offset, pointer));
        }
        self.pointers.sort_by_key(|(at, _)| *at);
        self.pointers.dedup_by_key(|(at, _)| *at);
        self.slots.sort_unstable();
        self.slots.dedup();
        // What the loader calls first, by the pointers in those arrays.
        let target = |at: &u64| match self.pointer(*at) {
            Some(Pointer::Here(to) | Pointer::Resolved(to)) => Some(to),
            // A name that the file defines itself.
            Some(Pointer::Import(index)) => {
                self.imports.get(index as usize).and_then(|name| by_address.get(name)).copied()
            }
            None => self.u64_at(*at),
        };
        let mut initial: Vec<u64> = self.initial.iter().filter_map(target).filter(|at| self.is_code(*at)).collect();
        initial.extend(functions.iter().copied().filter(|at| self.is_code(*at)));
        for symbol in &self.symbols {
            // Programs without a dynamic section: crti's functions.
            if matches!(symbol.name.as_str(), "_init" | "_fini") {
                initial.push(symbol.at);
            }
        }
        initial.sort_unstable();
        initial.dedup();
        self.initial = initial;
        Ok(())
    }

    /// Packed relative relocations: an address, then bit sets of the 63 words that follow (gABI, `DT_RELR`).
    fn read_relr(&mut self, bytes: &[u8]) {
        let mut next = 0u64;
        for word in bytes.as_chunks::<8>().0 {
            let word = u64::from_le_bytes(*word);
            if word & 1 == 0 {
                self.relative(word);
                next = word.wrapping_add(8);
            } else {
                for bit in 1..64u64 {
                    if word >> bit & 1 == 1 {
                        self.relative(next.wrapping_add((bit - 1) * 8));
                    }
                }
                next = next.wrapping_add(63 * 8);
            }
        }
    }

    fn relative(&mut self, at: u64) {
        // A word packs 63 of them.
        if self.pointers.len() as u64 >= RELOCATIONS {
            return;
        }
        if let Some(to) = self.u64_at(at) {
            self.pointers.push((at, Pointer::Here(to)));
        }
    }

    fn read_frames(&mut self, body: &Body<'_>) {
        let Some(section) = body.section(b".eh_frame") else { return };
        let len = usize::try_from(section.sh_size).unwrap_or(0);
        let bytes = self.bytes_at(section.sh_addr);
        let bytes = bytes.get(..len).unwrap_or(bytes);
        let frames = EhFrame::new(bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.sh_addr);
        let mut entries = frames.entries(&bases);
        let mut found = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(frame) = partial.parse(|section, bases, offset| section.cie_from_offset(bases, offset)) else {
                continue;
            };
            found.push((frame.initial_address(), frame.len()));
        }
        found.retain(|(at, len)| *len != 0 && self.is_code(*at));
        found.sort_unstable();
        found.dedup_by_key(|(at, _)| *at);
        self.frames = found;
    }
}

/// The loadable segments; one that may be executed is cut where its sections of instructions begin and end, since linkers put
/// constants beside them.
fn segments(body: &Body<'_>) -> Result<Vec<Segment>, ElfError> {
    let mut segments = Vec::new();
    let instructions = u64::from(section_header::SHF_EXECINSTR);
    let mut budget = SEGMENT_BYTES;
    for segment in body.segments.iter().filter(|segment| segment.p_type == program_header::PT_LOAD) {
        let (start, filled) = (segment.p_vaddr, segment.p_filesz.min(segment.p_memsz));
        let end = start.saturating_add(filled);
        let is_code = segment.p_flags & program_header::PF_X != 0;
        let mut code: Vec<(u64, u64)> = body
            .sections
            .iter()
            .filter(|(_, section)| is_code && section.sh_flags & instructions != 0)
            .map(|(_, section)| (section.sh_addr, section.sh_addr.saturating_add(section.sh_size)))
            .filter(|(from, to)| start <= *from && from < to && *to <= end)
            .collect();
        code.sort_unstable();
        let mut part = |from: u64, to: u64, len: u64, is_code: bool| {
            let offset = segment.p_offset.saturating_add(from.saturating_sub(start));
            let bytes = body.range(offset, to.saturating_sub(from))?;
            budget = budget
                .checked_sub(bytes.len() as u64)
                .ok_or(ElfError::Malformed("segments that overlap, or are larger than 256 MiB"))?;
            segments.push(Segment { start: from, bytes, len, offset, is_code });
            Ok::<(), ElfError>(())
        };
        let mut at = start;
        let has_sections = !code.is_empty();
        for (from, to) in code {
            if from < at {
                continue;
            }
            if at < from {
                part(at, from, from.saturating_sub(at), false)?;
            }
            part(from, to, to.saturating_sub(from), true)?;
            at = to;
        }
        let rest = start.saturating_add(segment.p_memsz).saturating_sub(at);
        if rest != 0 {
            part(at, end, rest, is_code && !has_sections)?;
        }
    }
    segments.sort_by_key(|segment| segment.start);
    Ok(segments)
}

/// The addresses of a section's words.
fn words_of(section: &SectionHeader) -> impl Iterator<Item = u64> + use<> {
    let start = section.sh_addr;
    (0..(section.sh_size / 8).min(SLOTS)).map(move |index| start.saturating_add(index.saturating_mul(8)))
}

/// One entry of a table with addends.
fn relocation(bytes: &[u8]) -> Option<reloc::Reloc> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let info = word(8)?;
    Some(reloc::Reloc {
        r_offset: word(0)?,
        r_addend: Some(word(16)?.cast_signed()),
        r_sym: usize::try_from(info >> 32).ok()?,
        r_type: u32::try_from(info & 0xffff_ffff).ok()?,
    })
}

/// `Elf64_Sym`.
const SYMBOL_BYTES: u64 = 24;
/// `Elf64_Rela`.
const RELOCATION_BYTES: u64 = 24;
/// Node.js, unstripped, has some 400,000.
const SYMBOLS: u64 = 4_000_000;
/// Node.js has some 90,000, Chromium 1,500,000.
const RELOCATIONS: u64 = 3_000_000;
const RELR_BYTES: u64 = 64 << 20;
const NAMES_BYTES: u64 = 256 << 20;
/// C++ mangles whole types into a name.
const NAME_BYTES: u64 = 64 << 10;
/// All names of a file together: many symbols may point into one long string.
const ALL_NAMES_BYTES: u64 = 128 << 20;
/// Words of a global offset table or an array of functions: one for each name that a file binds.
const SLOTS: u64 = 1_000_000;
/// Bytes of all segments together: they do not overlap in a real file.
const SEGMENT_BYTES: u64 = 256 << 20;
const SHT_RELR: u32 = 19;
/// `VERSYM_HIDDEN`: not the default version.
const VERSION_HIDDEN: u16 = 0x8000;
