//! Where an ELF file keeps its sections and segments: ranges out, no contents.
//!
//! Only headers are read, so that a tree with a thousand ELF files costs a few thousand small reads. goblin decodes the headers.
//! Source: System V ABI, chapter 4.

use goblin::{
    container::Ctx,
    elf::{
        Elf,
        header::{ET_DYN, ET_EXEC, Header, header32, header64},
        program_header::{PT_LOAD, ProgramHeader},
        section_header::{SHT_NOBITS, SectionHeader},
    },
};

use super::tree::Tree;
use crate::{InodeId, ReadError};

/// The layout of an ELF executable or library.
#[derive(Debug)]
pub(super) struct Sections {
    names: Vec<u8>,
    sections: Vec<SectionHeader>,
    loads: Vec<ProgramHeader>,
}

/// A range of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Where it starts.
    pub(super) offset: u64,
    /// How long it claims to be; the file may end before.
    pub(super) len: u64,
}

impl Sections {
    /// The layout of the file; `None` where it is no ELF executable or library, or its headers are broken: what that means for a
    /// program is judged elsewhere, here it only holds no package.
    ///
    /// # Errors
    /// [`ReadError`] when its body cannot be read.
    pub(super) fn read(tree: &Tree, inode: InodeId) -> Result<Option<Self>, ReadError> {
        let read = |offset, len| tree.rootfs.read_range(inode, offset, len);
        let start = read(0, header64::SIZEOF_EHDR as u64)?;
        if !start.starts_with(b"\x7fELF") || start.len() < header32::SIZEOF_EHDR {
            return Ok(None);
        }
        let Some((header, context)) = header(&start) else { return Ok(None) };
        // Counts are 16 bits wide, so that a table is at most 4 MiB.
        let table = |offset, entry, count: u16| read(offset, (entry as u64).saturating_mul(count.into()));
        let sections = table(header.e_shoff, SectionHeader::size(context), header.e_shnum)?;
        let sections = match sections.len() / SectionHeader::size(context) {
            0 => Vec::new(),
            count => SectionHeader::parse_from(&sections, 0, count, context).unwrap_or_default(),
        };
        let names = sections.get(usize::from(header.e_shstrndx)).map(range);
        let names = names.map_or(Ok(Vec::new()), |range| read(range.offset, range.len.min(MAX_NAMES_BYTES)))?;
        let loads = table(header.e_phoff, ProgramHeader::size(context), header.e_phnum)?;
        let count = loads.len() / ProgramHeader::size(context);
        let mut loads = ProgramHeader::parse(&loads, 0, count, context).unwrap_or_default();
        loads.retain(|header| header.p_type == PT_LOAD);
        Ok(Some(Self { names, sections, loads }))
    }

    /// The section called `name`.
    pub(super) fn named(&self, name: &[u8]) -> Option<Range> {
        let is_named = |header: &&SectionHeader| {
            let rest = self.names.get(header.sh_name..).and_then(|rest| rest.strip_prefix(name));
            header.sh_type != SHT_NOBITS && rest.is_some_and(|rest| rest.first() == Some(&0))
        };
        self.sections.iter().find(is_named).map(range)
    }

    /// Whether it has no section headers.
    pub(super) fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// The first segment that is loaded to be written.
    pub(super) fn data(&self) -> Option<Range> {
        let load = self.loads.iter().find(|load| load.is_write())?;
        Some(Range { offset: load.p_offset, len: load.p_filesz })
    }

    /// Where in the file the `len` bytes are that will be at `address`.
    pub(super) fn at(&self, address: u64, len: u64) -> Option<Range> {
        self.loads.iter().find_map(|load| {
            let into = address.checked_sub(load.p_vaddr)?;
            let inside = into.checked_add(len)? <= load.p_filesz;
            inside.then_some(Range { offset: load.p_offset.checked_add(into)?, len })
        })
    }
}

fn header(start: &[u8]) -> Option<(Header, Ctx)> {
    let header = Elf::parse_header(start).ok()?;
    let context = Ctx::new(header.container().ok()?, header.endianness().ok()?);
    matches!(header.e_type, ET_EXEC | ET_DYN).then_some((header, context))
}

fn range(header: &SectionHeader) -> Range {
    Range { offset: header.sh_offset, len: header.sh_size }
}

/// Section names together: real tables are below 1 KiB, debug builds with a section per function below 1 MiB.
const MAX_NAMES_BYTES: u64 = 4 << 20;
