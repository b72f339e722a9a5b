//! The arguments that a file gives to functions of interest: those that run programs, open libraries and files, and ask the
//! kernel for what a profile cares about.
//!
//! A caller is evaluated around the call. Where it only passes its own parameter on, it is a wrapper: its callers are evaluated
//! with the same question, some levels up. A buffer that a format filled just before stands for the format.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Callers, Search, WRAPPER_DEPTH};
use crate::code::{
    binary::Pointer,
    insn::{Register, Step},
    module::Node,
    values::{Atom, State, Value},
};

/// A call of a function of interest, or of a wrapper of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The function that calls.
    pub(in crate::code) node: Node,
    /// Virtual address.
    pub(in crate::code) at: u64,
    /// The name of the function of interest.
    pub(in crate::code) name: String,
    /// Its first arguments.
    pub(in crate::code) arguments: Vec<Argument>,
    /// What of its numbers is not known comes from the caller's own callers, which were asked.
    pub(in crate::code) is_passed: bool,
}

/// What an argument is known to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Argument {
    /// It may be anything, or nobody asks.
    #[default]
    Any,
    /// One of some numbers.
    Numbers(Vec<u64>),
    /// Texts among which it is; there may be others. `*` stands for what a format fills in.
    Texts(Vec<String>),
    /// The words of a vector of texts, as far as they are known.
    Words(Vec<Option<String>>),
}

impl Argument {
    pub(crate) fn texts(&self) -> &[String] {
        match self {
            Self::Texts(texts) => texts,
            _ => &[],
        }
    }

    pub(crate) fn numbers(&self) -> Option<&[u64]> {
        match self {
            Self::Numbers(numbers) => Some(numbers),
            _ => None,
        }
    }

    pub(crate) fn words(&self) -> &[Option<String>] {
        match self {
            Self::Words(words) => words,
            _ => &[],
        }
    }
}

/// What an argument says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Skip,
    Number,
    Text,
    /// A vector of texts, closed by a null pointer.
    Words,
    /// This and all that follow are texts, closed by a null pointer.
    Rest,
    /// A buffer that the text of a later argument fills.
    Buffer,
    /// A format that fills the buffer.
    Format,
}

/// The functions of interest, and what their arguments say. Source: POSIX.1-2024, the Linux and glibc man pages; `__*_2` and
/// `__*_chk` are what `_FORTIFY_SOURCE` makes of them.
fn kinds(name: &str) -> Option<&'static [Kind]> {
    use Kind::{Buffer, Format, Number, Rest, Skip, Text, Words};
    Some(match name {
        "syscall" => &[Number],
        "dlsym" | "dlvsym" | "dlmopen" => &[Skip, Text],
        "dlopen" | "__libc_dlopen_mode" => &[Text, Number],
        "execv" | "execvp" | "execve" | "execvpe" => &[Text, Words],
        "execl" | "execlp" | "execle" => &[Text, Rest],
        "posix_spawn" | "posix_spawnp" => &[Skip, Text, Skip, Skip, Words],
        "system" | "popen" => &[Text, Skip],
        "open" | "open64" | "__open_2" | "__open64_2" | "__open" | "__open64" => &[Text, Number],
        "openat" | "openat64" | "__openat_2" | "__openat64_2" => &[Skip, Text, Number],
        "fopen" | "fopen64" | "freopen" | "freopen64" => &[Text, Text],
        "creat" | "creat64" | "mkdir" | "rmdir" | "unlink" | "remove" | "chmod" | "chown" | "lchown" | "mkfifo"
        | "mknod" | "truncate" | "truncate64" | "mkstemp" | "mkstemp64" | "mkostemp" | "mkstemps" | "mkdtemp"
        | "mktemp" | "chroot" | "opendir" | "utime" | "utimes" => &[Text],
        "rename" | "symlink" | "link" => &[Text, Text],
        "iconv_open" => &[Text, Text],
        "OSSL_PROVIDER_load" | "OSSL_PROVIDER_try_load" => &[Skip, Text],
        "mount" => &[Text, Text, Text, Number],
        "umount2" => &[Text, Number],
        "pam_start" | "getpwnam" | "getgrnam" | "getpwnam_r" | "getgrnam_r" => &[Text],
        "socket" => &[Number, Number, Number],
        "socketpair" => &[Number, Number],
        "setsockopt" => &[Skip, Number, Number],
        "clone" => &[Skip, Skip, Number],
        "unshare" | "personality" => &[Number],
        "setns" => &[Skip, Number],
        "prctl" => &[Number, Number],
        "ioctl" => &[Skip, Number],
        "setuid" | "setgid" | "seteuid" | "setegid" => &[Number],
        "setreuid" | "setregid" => &[Number, Number],
        "setresuid" | "setresgid" => &[Number, Number, Number],
        "setgroups" => &[Number],
        "sched_setscheduler" | "setpriority" | "setrlimit" | "setrlimit64" => &[Number, Number],
        "sprintf" => &[Buffer, Format],
        "snprintf" | "__sprintf_chk" => &[Buffer, Skip, Format],
        "__snprintf_chk" => &[Buffer, Skip, Skip, Skip, Format],
        "strcpy" | "strncpy" | "__strcpy_chk" | "strlcpy" => &[Buffer, Format],
        _ => return None,
    })
}

fn fills(kinds: &[Kind]) -> bool {
    kinds.first() == Some(&Kind::Buffer)
}

/// What is asked at a call: the function of interest behind it, and its arguments in terms of the callee's entry.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    name: String,
    arguments: Vec<Value>,
}

/// Places that are asked something, by function.
type Questions = BTreeMap<Node, BTreeMap<u64, Vec<Wanted>>>;

/// An answer before buffers are looked up.
struct Answer {
    wanted: Wanted,
    call: Call,
}

impl Search<'_> {
    /// The arguments given to functions of interest.
    pub(super) fn calls(&mut self, callers: &Callers) -> Vec<Call> {
        let mut found: Vec<Call> = Vec::new();
        let mut questions = self.questions(callers);
        let mut asked: BTreeMap<Node, Vec<Wanted>> = BTreeMap::new();
        for depth in 1..=WRAPPER_DEPTH {
            let mut next = Questions::new();
            for (node, places) in &questions {
                let mut answers = Vec::new();
                self.evaluate(
                    *node,
                    |step| places.contains_key(&step.at),
                    |search, step, state| {
                        for wanted in places.get(&step.at).into_iter().flatten() {
                            answers.push(search.answer(*node, step, state, wanted));
                        }
                    },
                );
                let formats = formats(&answers);
                for mut answer in answers {
                    let kinds = kinds(&answer.wanted.name).unwrap_or_default();
                    if fills(kinds) {
                        continue;
                    }
                    for (argument, value) in answer.call.arguments.iter_mut().zip(&answer.wanted.arguments) {
                        if *argument == Argument::Any
                            && let Value::One(Atom::Frame(at)) = value
                            && let Some(texts) = formats.get(at)
                        {
                            *argument = Argument::Texts(texts.iter().cloned().collect());
                        }
                    }
                    // What comes from the caller's own caller is asked there.
                    let known = asked.entry(*node).or_default();
                    let is_passed = answer.wanted.arguments.iter().any(is_passed);
                    let is_asked = known.len() < MAX_QUESTIONS || known.contains(&answer.wanted);
                    let mut numbers =
                        kinds.iter().zip(&answer.wanted.arguments).filter(|(kind, _)| **kind == Kind::Number);
                    answer.call.is_passed =
                        is_passed && is_asked && depth < WRAPPER_DEPTH && numbers.all(|(_, value)| is_settled(value));
                    if found.len() < MAX_CALLS {
                        found.push(answer.call);
                    }
                    if is_passed && is_asked && !known.contains(&answer.wanted) {
                        known.push(answer.wanted.clone());
                        for (caller, at) in callers.of(*node).filter(|(caller, _)| caller != node) {
                            next.entry(caller).or_default().entry(at).or_default().push(answer.wanted.clone());
                        }
                    }
                }
            }
            if next.is_empty() {
                break;
            }
            questions = next;
        }
        // A pointer to the function may be kept for a call that is not seen.
        for (import, places) in &callers.taken {
            let name = usize::try_from(*import).ok().and_then(|index| self.binary.imports.get(index));
            let Some((name, kinds)) = name.and_then(|name| Some((name, kinds(name)?))) else { continue };
            if kinds.contains(&Kind::Number) && !fills(kinds) {
                found.extend(places.iter().take(MAX_CALLS).map(|(node, at)| Call {
                    node: *node,
                    at: *at,
                    name: name.clone(),
                    arguments: vec![Argument::Any; kinds.len()],
                    is_passed: false,
                }));
            }
        }
        found.sort_by(|one, other| {
            (one.node, one.at, &one.name, &one.arguments).cmp(&(other.node, other.at, &other.name, &other.arguments))
        });
        found.dedup();
        found
    }

    /// The calls of the functions of interest by their names.
    fn questions(&self, callers: &Callers) -> Questions {
        let mut questions = Questions::new();
        let registers: &[Register] = self.binary.machine.arguments();
        let mut add = |name: &str, places: Vec<(Node, u64)>| {
            let Some(kinds) = kinds(name) else { return };
            let asks = |(kind, register): (&Kind, &Register)| match kind {
                Kind::Skip => Value::Any,
                _ => Value::One(Atom::Entry(*register, 0)),
            };
            let mut arguments: Vec<Value> = kinds.iter().zip(registers).map(asks).collect();
            if kinds.last() == Some(&Kind::Rest) {
                arguments
                    .extend(registers.iter().skip(kinds.len()).map(|register| Value::One(Atom::Entry(*register, 0))));
            }
            for (node, at) in places {
                let wanted = Wanted { name: name.to_owned(), arguments: arguments.clone() };
                questions.entry(node).or_default().entry(at).or_default().push(wanted);
            }
        };
        for (import, places) in &callers.imports {
            let name = usize::try_from(*import).ok().and_then(|index| self.binary.imports.get(index));
            add(name.map_or("", String::as_str), places.clone());
        }
        let mut named: BTreeSet<(Node, &str)> = BTreeSet::new();
        for symbol in self.binary.symbols.iter().filter(|symbol| kinds(&symbol.name).is_some()) {
            named.extend(self.layout.function(symbol.at).map(|node| (node, symbol.name.as_str())));
        }
        for (node, name) in named {
            add(name, callers.of(node).collect());
        }
        // A format alone says nothing.
        questions.retain(|_, places| {
            places.values().flatten().any(|wanted| kinds(&wanted.name).is_some_and(|kinds| !fills(kinds)))
        });
        questions
    }

    fn answer(&mut self, node: Node, step: &Step, state: &State, wanted: &Wanted) -> Answer {
        let kinds = kinds(&wanted.name).unwrap_or_default();
        let values: Vec<Value> = wanted.arguments.iter().map(|value| self.substitute(step, state, value)).collect();
        let mut arguments = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let kind = kinds.get(index).or(kinds.last()).copied().unwrap_or(Kind::Skip);
            arguments.push(match kind {
                Kind::Skip | Kind::Buffer => Argument::Any,
                Kind::Number => super::constants(value).map_or(Argument::Any, Argument::Numbers),
                Kind::Text => self.texts(value).map_or(Argument::Any, Argument::Texts),
                Kind::Format => self
                    .texts(value)
                    .map_or(Argument::Any, |texts| Argument::Texts(texts.iter().map(|text| glob_of(text)).collect())),
                Kind::Words => self.words(state, value).map_or(Argument::Any, Argument::Words),
                Kind::Rest => {
                    let rest = values.get(index..).unwrap_or_default();
                    let is_end = |value: &&Value| **value != Value::One(Atom::Constant(0));
                    let word = |value: &Value| self.texts(value).and_then(|texts| texts.into_iter().next());
                    arguments.push(Argument::Words(rest.iter().take_while(is_end).map(word).collect()));
                    break;
                }
            });
        }
        let call = Call { node, at: step.at, name: wanted.name.clone(), arguments, is_passed: false };
        Answer { wanted: Wanted { name: wanted.name.clone(), arguments: values }, call }
    }

    /// A value in terms of a callee's entry, in terms of the caller's.
    fn substitute(&mut self, step: &Step, state: &State, value: &Value) -> Value {
        let mut all: Option<Value> = None;
        for atom in value.atoms().unwrap_or_default() {
            let next = match atom {
                Atom::Constant(_) => Value::One(*atom),
                Atom::Entry(_, 0) | Atom::Stacked(_) | Atom::Field(_, _) => self.argument(step, state, *atom),
                Atom::Entry(register, plus) => state.register(*register).plus(*plus),
                Atom::Frame(_) | Atom::Memory => Value::Any,
            };
            all = Some(all.map_or_else(|| next.clone(), |known| known.join(&next)));
        }
        all.unwrap_or(Value::Any)
    }

    /// The texts among what a value points to.
    fn texts(&self, value: &Value) -> Option<Vec<String>> {
        let at = |atom: &Atom| match atom {
            Atom::Constant(at) if *at >= LOWEST_TEXT => self.text(*at),
            _ => None,
        };
        let texts: Vec<String> = value.atoms()?.iter().filter_map(at).collect();
        (!texts.is_empty()).then_some(texts)
    }

    /// The words of a vector, in the own frame or in data.
    fn words(&self, state: &State, value: &Value) -> Option<Vec<Option<String>>> {
        let mut words = Vec::new();
        match value {
            Value::One(base @ Atom::Frame(_)) => {
                let base = Value::One(*base);
                for index in 0..MAX_WORDS {
                    let word = state.load(&base, index.saturating_mul(8));
                    if word == Value::One(Atom::Constant(0)) {
                        return Some(words);
                    }
                    words.push(self.texts(&word).and_then(|texts| texts.into_iter().next()));
                }
                // Without its end only what is known at its start counts.
                words.truncate(words.iter().rposition(Option::is_some)?.saturating_add(1));
                Some(words)
            }
            Value::One(Atom::Constant(at)) if *at >= LOWEST_TEXT => {
                for index in 0..MAX_WORDS {
                    let place = at.checked_add_signed(index.saturating_mul(8))?;
                    match self.binary.pointer(place) {
                        Some(Pointer::Here(to)) => words.push(self.text(to)),
                        Some(_) => words.push(None),
                        None => break,
                    }
                }
                (!words.is_empty()).then_some(words)
            }
            _ => None,
        }
    }
}

/// What fills buffers of a frame, by their places.
fn formats(answers: &[Answer]) -> BTreeMap<i64, BTreeSet<String>> {
    let mut formats = BTreeMap::<i64, BTreeSet<String>>::new();
    for answer in answers.iter().filter(|answer| kinds(&answer.wanted.name).is_some_and(fills)) {
        let Some(Value::One(Atom::Frame(at))) = answer.wanted.arguments.first() else { continue };
        let texts = answer.call.arguments.iter().flat_map(Argument::texts);
        formats.entry(*at).or_default().extend(texts.take(MAX_FORMATS).cloned());
    }
    formats
}

/// Whether a caller's caller decides.
fn is_passed(value: &Value) -> bool {
    let passed = |atom: &Atom| matches!(atom, Atom::Entry(_, _) | Atom::Stacked(_));
    value.atoms().is_some_and(|atoms| atoms.iter().any(passed))
}

/// Whether a value is known as far as the callers' callers know it.
fn is_settled(value: &Value) -> bool {
    let settled = |atom: &Atom| matches!(atom, Atom::Constant(_) | Atom::Entry(_, _) | Atom::Stacked(_));
    value.atoms().is_some_and(|atoms| atoms.iter().all(settled))
}

/// A format as a pattern: `*` for each conversion.
pub(super) fn glob_of(format: &str) -> String {
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if rest.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        while rest.next_if(|c| !c.is_ascii_alphabetic() || matches!(c, 'l' | 'h' | 'z' | 'j' | 't' | 'L')).is_some() {}
        rest.next();
        if !out.ends_with('*') {
            out.push('*');
        }
    }
    out
}

/// Calls kept of one file: the largest programs make some thousands.
const MAX_CALLS: usize = 20_000;
/// Different questions asked of one wrapper's callers.
const MAX_QUESTIONS: usize = 8;
/// Words of one vector.
const MAX_WORDS: i64 = 32;
/// Formats that fill one buffer.
const MAX_FORMATS: usize = 8;
/// Below it constants are numbers, and a movable file has its header.
const LOWEST_TEXT: u64 = 0x100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_a_pattern() {
        assert_eq!(glob_of("/run/%s.pid"), "/run/*.pid");
        assert_eq!(glob_of("/tmp/%s%08lx-100%%"), "/tmp/*-100%");
    }
}
