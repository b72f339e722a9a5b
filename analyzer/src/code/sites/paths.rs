//! Absolute paths that a file's code and data refer to: weaker evidence than an argument, since nobody is seen to use them.

use super::{Named, Search};
use crate::code::{
    insn::{Effect, Step},
    module::Node,
    values::Line,
};

impl Search<'_> {
    /// The paths referred to; `*` stands for what a format fills in.
    pub(super) fn paths(&mut self, steps: &[Step]) -> Vec<Named> {
        let mut found = Vec::new();
        let mut decoded = None;
        for step in steps {
            let Some(to) = self.refers(step).filter(|to| self.starts_path(*to)) else { continue };
            let Some(node) = self.layout.function(step.at) else { continue };
            let path = self.closed_path(to).or_else(|| self.measured_path(node, step.at, to, &mut decoded));
            found.extend(path.map(|text| Named { node, at: step.at, text }));
            if found.len() >= MAX_PATHS {
                return found;
            }
        }
        for (at, to) in self.held().filter(|(_, to)| self.starts_path(*to)) {
            // Rust and Go keep the length beside the pointer.
            let len = self.binary.bytes_at(at.saturating_add(8)).first_chunk().copied().map(u64::from_le_bytes);
            let path = self.closed_path(to).or_else(|| self.path(to, usize::try_from(len?).ok()?));
            if let (Some(text), Some(node)) = (path, self.layout.object(at)) {
                found.push(Named { node, at, text });
            }
            if found.len() >= MAX_PATHS {
                break;
            }
        }
        found.sort();
        found.dedup_by(|next, kept| next.node == kept.node && next.text == kept.text);
        found
    }

    fn starts_path(&self, at: u64) -> bool {
        let bytes = self.binary.bytes_at(at);
        bytes.first() == Some(&b'/') && bytes.get(1).is_some_and(u8::is_ascii_alphanumeric) && !self.binary.is_code(at)
    }

    /// A path that a zero byte closes.
    fn closed_path(&self, at: u64) -> Option<String> {
        let bytes = self.binary.bytes_at(at);
        let bytes = bytes.get(..PATH_BYTES).unwrap_or(bytes);
        self.path(at, memchr::memchr(0, bytes)?)
    }

    fn path(&self, at: u64, len: usize) -> Option<String> {
        let bytes = self.binary.bytes_at(at).get(..len).filter(|_| (2..PATH_BYTES).contains(&len))?;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@%".contains(byte);
        if !bytes.iter().all(is_part) {
            return None;
        }
        Some(super::calls::glob_of(&String::from_utf8_lossy(bytes)))
    }

    /// A path whose length the code holds beside its address, as Rust's and Go's does.
    /// The function that was decoded last often has the next one too.
    fn measured_path(
        &mut self,
        node: Node,
        at: u64,
        to: u64,
        decoded: &mut Option<(Node, Vec<Line>)>,
    ) -> Option<String> {
        let function = self.functions.get(node as usize).filter(|_| self.work != 0)?;
        let (_, lines) = match decoded.take().filter(|(known, _)| *known == node) {
            Some(known) => decoded.insert(known),
            None => decoded.insert((node, self.lines(function))),
        };
        self.work = self.work.saturating_sub(lines.len());
        let index = lines.binary_search_by_key(&at, |(step, _)| step.at).ok()?;
        let near = |distance: usize| {
            let after = lines.get(index.saturating_add(distance));
            [after, index.checked_sub(distance).and_then(|before| lines.get(before))]
        };
        let lens = (1..NEAR).flat_map(near).flatten().flat_map(|(_, effects)| effects);
        lens.filter_map(|effect| match effect {
            Effect::Set { value, .. } => usize::try_from(*value).ok(),
            _ => None,
        })
        .find_map(|len| self.path(to, len))
    }
}

/// Paths kept of one file: interpreters name some hundreds.
const MAX_PATHS: usize = 10_000;
/// Longer ones are no constants.
const PATH_BYTES: usize = 256;
/// Instructions between an address and its length.
const NEAR: usize = 5;
