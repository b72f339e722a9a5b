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
        let read = |offset, len| tree.read_range(inode, offset, len);
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

/// ELF files made in memory, for tests here and of what is in sections.
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
pub(super) mod fixture {
    /// A 64-bit little-endian executable with these sections, loaded together as one writable segment at address 0x1000.
    pub(in super::super) fn elf(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut names = vec![0];
        let mut headers = vec![0; 64];
        let mut body = Vec::new();
        let mut file = vec![0; 64 + 56];
        let start = file.len() as u64;
        let mut header = |name: usize, offset: u64, len: usize| {
            let mut bytes = [0; 64];
            bytes[..4].copy_from_slice(&u32::try_from(name).expect("small").to_le_bytes());
            bytes[4] = 1;
            bytes[24..32].copy_from_slice(&offset.to_le_bytes());
            bytes[32..40].copy_from_slice(&(len as u64).to_le_bytes());
            headers.extend(bytes);
        };
        for (name, contents) in sections {
            body.resize(body.len().next_multiple_of(16), 0);
            header(names.len(), start + body.len() as u64, contents.len());
            names.extend(name.bytes().chain([0]));
            body.extend(contents);
        }
        let data_len = body.len() as u64;
        header(names.len(), start + data_len, names.len() + 10);
        names.extend(b".shstrtab\0");
        body.extend(&names);
        let table = start + body.len() as u64;
        let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut file, 0, b"\x7fELF\x02\x01\x01");
        // e_type, e_machine; e_phoff, e_shoff; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
        put(&mut file, 16, &[2, 0, 62, 0, 1]);
        put(&mut file, 32, &64_u64.to_le_bytes());
        put(&mut file, 40, &table.to_le_bytes());
        let count = u16::try_from(sections.len() + 2).expect("few");
        put(&mut file, 52, &[64, 56, 1, 64, count, count - 1].map(u16::to_le_bytes).concat());
        // p_type and p_flags; p_offset, p_vaddr, p_paddr, p_filesz, p_memsz.
        put(&mut file, 64, &[1, 0, 0, 0, 6]);
        put(&mut file, 72, &[start, 0x1000, 0, data_len, data_len].map(u64::to_le_bytes).concat());
        [file, body, headers].concat()
    }
}

#[cfg(test)]
mod tests {
    use dna::{ImagePath, Limits};

    use super::*;
    use crate::Rootfs;

    fn with_sections<T>(file: &[u8], look: impl FnOnce(Option<Sections>) -> T) -> T {
        let mut root = Rootfs::default();
        root.put_file("/x", 0o755, file);
        let limits = Limits::default();
        let tree = Tree::new(&root, &limits);
        let found = root.resolve(&"/x".parse::<ImagePath>().expect("no NUL")).expect("exists");
        look(Sections::read(&tree, found.inode).expect("in memory"))
    }

    #[test]
    fn sections_and_segments_are_ranges() {
        let file = fixture::elf(&[(".a", vec![1; 20]), (".ab", vec![2; 30])]);
        with_sections(&file, |sections| {
            let sections = sections.expect("an executable");
            assert_eq!(sections.named(b".a"), Some(Range { offset: 120, len: 20 }));
            assert_eq!(sections.named(b".ab"), Some(Range { offset: 152, len: 30 }));
            assert_eq!(sections.named(b".b"), None);
            assert_eq!(sections.data(), Some(Range { offset: 120, len: 62 }));
            assert_eq!(sections.at(0x1020, 30), Some(Range { offset: 152, len: 30 }));
            assert_eq!((sections.at(0x1020, 31), sections.at(0xfff, 1), sections.at(u64::MAX, 2)), (None, None, None));
        });
    }

    #[test]
    fn what_is_no_executable_has_no_sections() {
        let mut object = fixture::elf(&[]);
        *object.get_mut(16).expect("inside") = 1;
        for file in [b"#!/bin/sh\n".as_slice(), b"\x7fELF", &object] {
            with_sections(file, |sections| assert!(sections.is_none()));
        }
    }
}
