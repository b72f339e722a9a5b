//! Texts that a file's code and data refer to and that read as command lines of a shell: a program that runs a line which is not
//! known may run one of these. Looked for only where a function is bound to that runs programs.

use super::{Named, Search};
use crate::{code::insn::Step, lines};

impl Search<'_> {
    /// The lines referred to, as they stand there, with the conversions of a format.
    pub(super) fn lines_named(&self, steps: &[Step]) -> Vec<Named> {
        let mut found = Vec::new();
        if !self.binary.imports.iter().any(|name| RUNNERS.contains(&name.as_str())) {
            return found;
        }
        for step in steps {
            let line = self.refers(step).and_then(|to| self.line(to)).zip(self.layout.function(step.at));
            found.extend(line.map(|(text, node)| Named { node, at: step.at, text }));
        }
        for (at, to) in self.held() {
            let line = self.line(to).zip(self.layout.object(at));
            found.extend(line.map(|(text, node)| Named { node, at, text }));
        }
        found.sort();
        found.dedup_by(|next, kept| next.node == kept.node && next.text == kept.text);
        found.truncate(MAX_LINES);
        found
    }

    fn line(&self, at: u64) -> Option<String> {
        let is_first = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_');
        let is_line = self.binary.bytes_at(at).first().is_some_and(is_first) && !self.binary.is_code(at);
        self.text(at).filter(|text| is_line && lines::program(text).is_some())
    }
}

/// Functions that run a program.
pub(crate) const RUNNERS: &[&str] = &[
    "execv",
    "execvp",
    "execve",
    "execvpe",
    "execl",
    "execlp",
    "execle",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
];

/// Lines kept of one file: few hold more than some ten.
const MAX_LINES: usize = 500;
