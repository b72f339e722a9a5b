//! The table of capabilities, `data/capabilities.toml`: which system calls, libraries and programs ask for which capability.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

/// When the kernel asks for a capability.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    #[serde(rename = "source")]
    _source: String,
    /// Only where the container has other users than root.
    #[serde(default)]
    pub(super) others: bool,
    /// System calls that may ask for it, however they are reached.
    #[serde(default)]
    pub(super) calls: Vec<String>,
    /// System calls that may ask for it, where the program's own file asks for them.
    #[serde(default)]
    pub(super) asked: Vec<String>,
    /// Of calls whose arguments decide, which ones: other values ask for nothing.
    #[serde(default)]
    pub(super) only: Vec<Only>,
    /// Starts of the file names of libraries that use it.
    #[serde(default)]
    pub(super) libraries: Vec<String>,
}

/// A call that asks for a capability by what it is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Only {
    pub(super) call: String,
    /// The sensitive parameter, from 0, and the values or flags of it.
    pub(super) parameter: usize,
    pub(super) values: Vec<String>,
}

impl Entry {
    /// Whether what a call is given may ask for the capability; what is not known may.
    pub(super) fn is_asked_with(&self, call: &dna::Syscall) -> bool {
        let mut only = self.only.iter().filter(|only| only.call == call.name).peekable();
        if only.peek().is_none() {
            return true;
        }
        only.any(|only| {
            let told = call.arguments.as_ref().and_then(|arguments| arguments.may_be(only.parameter, &only.values));
            told != Some(false)
        })
    }
}

/// A program that exists to use a privilege.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Program {
    names: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
    /// In normal operation.
    #[serde(default)]
    pub(super) needs: Vec<String>,
    /// In some configurations.
    #[serde(default)]
    pub(super) may: Vec<String>,
    /// Only with one of these arguments; one that starts with `-` may carry its value, `--set=…`.
    #[serde(default)]
    words: Vec<String>,
    /// Only where it becomes another user.
    #[serde(default)]
    pub(super) dropped: bool,
}

impl Program {
    /// Whether its arguments ask for the privilege; an argument that is not known may.
    pub(super) fn is_asked_by(&self, arguments: &[Option<String>]) -> bool {
        let asks = |word: &str| {
            let head = word.split_once('=').filter(|_| word.starts_with('-')).map_or(word, |(head, _)| head);
            self.words.iter().any(|wanted| wanted == head)
        };
        self.words.is_empty() || arguments.iter().any(|word| word.as_deref().is_none_or(asks))
    }
}

/// All capabilities of the table.
pub(super) fn entries() -> &'static [Entry] {
    &TABLE.capability
}

/// The entries of a program by one of its names.
pub(super) fn programs(name: &str) -> &'static [&'static Program] {
    PROGRAMS.get(name).map(Vec::as_slice).unwrap_or_default()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    capability: Vec<Entry>,
    program: Vec<Program>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("../../data/capabilities.toml")).expect("the table is part of the program and tested")
});

static PROGRAMS: LazyLock<BTreeMap<&str, Vec<&Program>>> = LazyLock::new(|| {
    let mut programs: BTreeMap<&str, Vec<&Program>> = BTreeMap::new();
    for program in &TABLE.program {
        for name in &program.names {
            programs.entry(name).or_default().push(program);
        }
    }
    programs
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::filecaps;

    #[test]
    fn every_name_is_one_the_kernel_has() {
        let capabilities: BTreeSet<String> = filecaps::all().collect();
        let entries = entries().iter().map(|entry| &entry.name);
        let programs = TABLE.program.iter().flat_map(|program| program.needs.iter().chain(&program.may));
        for name in entries.chain(programs) {
            assert!(capabilities.contains(name), "{name}");
        }
        let calls = crate::code::call_names();
        for call in super::entries().iter().flat_map(|entry| entry.calls.iter().chain(&entry.asked)) {
            assert!(calls.contains(call.as_str()), "{call}");
        }
    }

    #[test]
    fn a_word_may_carry_its_value() {
        let asked = |name: &str, words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| Some((*word).to_owned())).collect();
            programs(name).iter().any(|program| program.is_asked_by(&words))
        };
        assert!(asked("date", &["--set=now"]) && asked("ip", &["link", "set", "x"]) && asked("mount", &[]));
        assert!(!asked("date", &["+%s"]) && !asked("ip", &["addr", "show"]) && !asked("ls", &[]));
    }
}
