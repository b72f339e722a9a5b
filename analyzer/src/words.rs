//! Names that the scripts of an image use. An interpreter looks its native functions up by name; one whose name no script uses is
//! not called.
//!
//! All Python sources outside the standard library count, whichever the start command runs, so that the answer is one for every
//! command; of the standard library, the modules that they import, transitively, and those that every start imports. Words are
//! taken as they stand, in texts too (`getattr(os, "fork")`); only comments, doc strings and `__all__` say nothing.

use std::collections::BTreeSet;

use dna::ImagePath;

use crate::{InodeId, Resolved, Rootfs};

/// Words of sources.
pub(crate) type Words = BTreeSet<String>;

/// The words of an image's Python sources; none where some cannot be read, or where there is no standard library.
pub(crate) fn python(rootfs: &Rootfs) -> Option<Words> {
    let mut sources = Sources::default();
    let mut standard = Vec::new();
    let mut bytes_left = SOURCE_BYTES;
    let mut read = |inode: InodeId, sources: &mut Sources| {
        let bytes = rootfs.read(inode, bytes_left).ok()?;
        bytes_left = bytes_left.checked_sub(bytes.len() as u64)?;
        sources.read(&bytes);
        Some(())
    };
    for Resolved { path, inode } in rootfs.walk() {
        let Some(file) = rootfs.file(inode).filter(|file| file.size != 0) else { continue };
        match source(&path) {
            Source::Archive => return None,
            // `site` imports it; what it imports itself waits for a person who asks for `help()`.
            Source::Standard(module) if module == ["_sitebuiltins"] => {}
            Source::Standard(module) => standard.push((module, inode)),
            Source::Own => read(inode, &mut sources)?,
            Source::Other => {
                let is_program = rootfs.inode(inode).meta.mode & 0o111 != 0 && file.size <= PROGRAM_BYTES;
                let head = if is_program { rootfs.read_range(inode, 0, 64).unwrap_or_default() } else { Vec::new() };
                let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
                if line.starts_with(b"#!") && memchr::memmem::find(line, b"python").is_some() {
                    read(inode, &mut sources)?;
                }
            }
        }
    }
    if standard.is_empty() {
        return None;
    }
    sources.imported.extend(AT_START.iter().map(|name| (*name).to_owned()));
    loop {
        let is_imported =
            |(module, _): &(Vec<String>, InodeId)| module.iter().all(|part| sources.imported.contains(part));
        let (modules, rest): (Vec<_>, Vec<_>) = standard.into_iter().partition(is_imported);
        standard = rest;
        if modules.is_empty() {
            return Some(sources.words);
        }
        for (_, inode) in modules {
            read(inode, &mut sources)?;
        }
    }
}

/// What a file is to Python.
enum Source {
    /// A module of the standard library, by the parts of its name.
    Standard(Vec<String>),
    /// Any other source.
    Own,
    /// Sources that are not opened here.
    Archive,
    Other,
}

fn source(path: &ImagePath) -> Source {
    let path = path.to_string_lossy();
    let (stem, extension) = path.rsplit_once('.').unwrap_or((&path, ""));
    match extension {
        "py" | "pyw" | "pth" => {}
        // Beside a source it says the same; where it stands alone, its names stand in it as they are.
        "pyc" if !stem.contains("/__pycache__/") => {}
        "pyz" | "pex" | "egg" => return Source::Archive,
        _ => return Source::Other,
    }
    let parts: Vec<&str> = stem.split('/').collect();
    let is_library = |pair: &[&str]| match pair {
        [parent, name] => parent.starts_with("lib") && name.strip_prefix("python3.").is_some_and(is_number),
        _ => false,
    };
    let Some(at) = parts.windows(2).position(is_library) else { return Source::Own };
    let module = parts.get(at.saturating_add(2)..).unwrap_or_default();
    if matches!(module.first(), Some(&("site-packages" | "dist-packages"))) {
        return Source::Own;
    }
    Source::Standard(module.iter().filter(|part| **part != "__init__").map(|part| (*part).to_owned()).collect())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What sources say.
#[derive(Debug, Default)]
struct Sources {
    words: Words,
    /// Words of import statements: parts of the names of modules, and what is taken from them.
    imported: Words,
    statement: Statement,
}

/// What a statement is to the words in it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Statement {
    #[default]
    Other,
    Import,
    /// A list of names to export.
    Exports,
    /// It calls for a module by a text.
    Call,
}

impl Sources {
    /// Adds a source, compiled or not. What is compiled is not told apart: each of its words may be an import.
    fn read(&mut self, source: &[u8]) {
        self.statement = Statement::Other;
        if source.contains(&0) {
            source.split(|byte| !is_part(*byte)).for_each(|word| self.add(word, true));
            return;
        }
        let (mut at, mut depth) = (0usize, 0usize);
        // The last byte that is no space, and whether a statement begins.
        let (mut before, mut is_start) = (b'\n', true);
        while let Some(byte) = source.get(at) {
            let rest = source.get(at..).unwrap_or_default();
            let len = match byte {
                b'#' => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
                b'"' | b'\'' => self.text(rest, is_start),
                byte if is_part(*byte) => {
                    let len = rest.iter().take_while(|byte| is_part(**byte)).count();
                    self.word(rest.get(..len).unwrap_or_default(), is_start);
                    len
                }
                _ => 1,
            };
            match byte {
                b'(' | b'[' | b'{' => depth = depth.saturating_add(1),
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            let is_end = matches!(byte, b'\n' | b';') && depth == 0 && before != b'\\';
            if is_end {
                self.statement = Statement::Other;
            }
            match byte {
                b'\n' if !is_end => {}
                b'\n' | b';' | b':' if depth == 0 => is_start = true,
                b' ' | b'\t' | b'\r' | b'#' => {}
                _ => is_start = false,
            }
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'#') {
                before = *byte;
            }
            at = at.saturating_add(len.max(1));
        }
    }

    /// A text, at its opening quote: the length that is done with.
    fn text(&mut self, rest: &[u8], is_start: bool) -> usize {
        let quote = rest.first().copied().unwrap_or_default();
        match rest.strip_prefix(&[quote; 3]) {
            // A text that is a statement of its own is documentation.
            Some(text) if is_start => {
                memchr::memmem::find(text, &[quote; 3]).map_or(rest.len(), |end| end.saturating_add(6))
            }
            // Its words count as code, and the brackets in it not.
            Some(text) => {
                let end = memchr::memmem::find(text, &[quote; 3]).unwrap_or(text.len());
                self.texts(text.get(..end).unwrap_or_default());
                end.saturating_add(6)
            }
            None => {
                let end = text_end(rest, quote);
                self.texts(rest.get(..end).unwrap_or_default());
                end
            }
        }
    }

    fn texts(&mut self, text: &[u8]) {
        if self.statement != Statement::Exports {
            let is_imported = self.statement == Statement::Call;
            text.split(|byte| !is_part(*byte)).for_each(|word| self.add(word, is_imported));
        }
    }

    fn word(&mut self, word: &[u8], is_start: bool) {
        match word {
            b"import" | b"from" if is_start => self.statement = Statement::Import,
            b"__all__" if is_start => self.statement = Statement::Exports,
            b"import_module" | b"__import__" => self.statement = Statement::Call,
            _ => {}
        }
        self.add(word, self.statement == Statement::Import);
    }

    fn add(&mut self, word: &[u8], is_imported: bool) {
        let Ok(word) = std::str::from_utf8(word) else { return };
        if !(2..=WORD_BYTES).contains(&word.len()) {
            return;
        }
        if !self.words.contains(word) {
            self.words.insert(word.to_owned());
        }
        if is_imported && !self.imported.contains(word) {
            self.imported.insert(word.to_owned());
        }
    }
}

/// The length of a text of one line with its quotes, or of the rest of the line where none closes it.
fn text_end(text: &[u8], quote: u8) -> usize {
    let mut at = 1usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at = at.saturating_add(2),
            b'\n' => return at,
            byte if *byte == quote => return at.saturating_add(1),
            _ => at = at.saturating_add(1),
        }
    }
    text.len()
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Modules that every start imports (`Python/pylifecycle.c`, `Lib/site.py`), by the parts of their names.
const AT_START: &[&str] = &[
    "_collections_abc",
    "abc",
    "aliases",
    "ascii",
    "codecs",
    "encodings",
    "genericpath",
    "importlib",
    "_bootstrap",
    "_bootstrap_external",
    "io",
    "latin_1",
    "machinery",
    "os",
    "posixpath",
    "runpy",
    "site",
    "stat",
    "sysconfig",
    "utf_8",
    "util",
    "warnings",
    "zipimport",
];
/// Sources read at most; of more, nothing is said. An image of a large web application has 40 MiB.
const SOURCE_BYTES: u64 = 96 << 20;
/// Programs that are scripts are small.
const PROGRAM_BYTES: u64 = 1 << 20;
/// No native function has a longer name.
const WORD_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(source: &str) -> Sources {
        let mut sources = Sources::default();
        sources.read(source.as_bytes());
        sources
    }

    #[test]
    fn comments_doc_strings_and_exports_say_nothing() {
        let source = "\"\"\"Fork, sync.\"\"\"\n__all__ = ['mkfifo',\n  'mknod']\nif 1:\n    '''truncate'''\n    # pause\n    os.getpid()\n";
        assert_eq!(sources(source).words.into_iter().collect::<Vec<_>>(), ["__all__", "getpid", "if", "os"]);
    }

    #[test]
    fn texts_may_name_what_is_called() {
        let source =
            "f = getattr(os, 'fork' # zz\n)\nexec(\"\"\"os.sync()\"\"\")\nx = '# it\\'s' + link\ng(f'{os.chown}')\n";
        let words = sources(source).words;
        for word in ["fork", "sync", "link", "chown"] {
            assert!(words.contains(word), "{word} of {words:?}");
        }
        assert!(!words.contains("zz"), "a comment after a text");
    }

    #[test]
    fn import_statements_name_modules() {
        let source = "import aa.bb, cc\nfrom .ee import (ff,\n  gg)\nhh = import_module('ii.jj')\nkk('ll')\nif mm: import nn\noo()\n";
        assert_eq!(
            sources(source).imported.into_iter().collect::<Vec<_>>(),
            ["aa", "bb", "cc", "ee", "ff", "from", "gg", "ii", "import", "jj", "nn"]
        );
    }

    #[test]
    fn standard_modules_count_where_they_are_imported() {
        let mut root = Rootfs::new(40);
        let library = "/usr/lib/python3.11";
        root.put_file(&format!("{library}/os.py"), 0o644, "import stat\n");
        root.put_file(&format!("{library}/shutil.py"), 0o644, "import helper\nos.lchown()\n");
        root.put_file(&format!("{library}/helper.py"), 0o644, "os.sendfile()\n");
        root.put_file(&format!("{library}/pty.py"), 0o644, "os.forkpty()\n");
        root.put_file("/app/main.py", 0o644, "from shutil import copy\npty = 1\n");
        root.put_file("/usr/bin/tool", 0o755, "#!/usr/bin/env python3\nos.mkfifo()\n");
        root.put_file("/usr/bin/other", 0o755, "#!/bin/sh\nmknod\n");
        let words = python(&root).expect("readable");
        for word in ["lchown", "sendfile", "mkfifo"] {
            assert!(words.contains(word), "{word}");
        }
        for word in ["forkpty", "mknod"] {
            assert!(!words.contains(word), "{word}");
        }
        root.put_file("/app/more.pyz", 0o644, "PK");
        assert_eq!(python(&root), None);
    }
}
