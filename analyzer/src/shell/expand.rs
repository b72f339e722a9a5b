//! Words to arguments: parameter expansion, command substitution, field splitting, globs (POSIX.1-2024, Shell Command
//! Language, 2.6), with "not known" as a value of its own.

use brush_parser::{
    ast,
    word::{
        Parameter, ParameterExpr, ParameterTestType, SpecialParameter, SubstringMatchKind, TildeExpr, WordPiece,
        WordPieceWithSource,
    },
};
use dna::ImagePath;

use super::{
    Arg, pattern, syntax,
    walk::{State, Walk},
};
use crate::{InodeKind, Rootfs};

/// Fields in the making.
#[derive(Default)]
struct Fields {
    done: Vec<Field>,
    current: Option<Field>,
}

#[derive(Default, Clone)]
struct Field {
    text: String,
    /// The same as a pattern, quoted characters escaped.
    pattern: String,
    unknown: bool,
    glob: bool,
}

impl Fields {
    fn text(&mut self, text: &str, quoted: bool) {
        let field = self.current.get_or_insert_default();
        field.text.push_str(text);
        if quoted {
            field.pattern.push_str(&pattern::quote(text));
        } else {
            field.pattern.push_str(text);
            field.glob |= pattern::is_pattern(text);
        }
    }

    fn unknown(&mut self) {
        let field = self.current.get_or_insert_default();
        field.unknown = true;
        field.pattern.push('*');
    }

    fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    /// The value of an expansion: split at white space unless quoted.
    fn value(&mut self, value: Arg, quoted: bool) {
        match value {
            None => self.unknown(),
            Some(value) if quoted => self.text(&value, true),
            Some(value) => {
                let mut rest = value.as_str();
                while let Some(at) = rest.find([' ', '\t', '\n']) {
                    let (word, after) = rest.split_at(at);
                    if !word.is_empty() {
                        self.text(word, false);
                    }
                    self.end();
                    rest = after.trim_start_matches([' ', '\t', '\n']);
                }
                if !rest.is_empty() {
                    self.text(rest, false);
                }
            }
        }
    }
}

impl Walk<'_> {
    /// A word as arguments: none, one or several.
    pub(super) fn arguments(&mut self, word: &ast::Word, state: &mut State) -> Vec<Arg> {
        let mut out = Vec::new();
        for field in self.fields(&word.value, state) {
            if field.unknown {
                out.push(None);
            } else if field.glob {
                let found = glob(self.world.rootfs, &state.cwd, &field.pattern);
                // A pattern that matches nothing stands for itself.
                if found.is_empty() { out.push(Some(field.text)) } else { out.extend(found.into_iter().map(Some)) }
            } else {
                out.push(Some(field.text));
            }
        }
        out
    }

    /// A word as one value, neither split nor globbed: of an assignment, a `case`, a redirection.
    pub(super) fn single(&mut self, text: &str, state: &mut State) -> Arg {
        let fields = self.quoted_fields(text, state);
        let mut all = Some(String::new());
        for (index, field) in fields.into_iter().enumerate() {
            all = match (all, field.unknown) {
                (Some(all), false) if index == 0 => Some(all + &field.text),
                (Some(all), false) => Some(all + " " + &field.text),
                _ => None,
            };
        }
        all
    }

    /// The word of a redirection: its value, and the path it leads to, `*` in place of what is not known.
    pub(super) fn target(&mut self, text: &str, state: &mut State) -> (Arg, Option<String>) {
        match self.quoted_fields(text, state).as_slice() {
            [field] if field.unknown => (None, Some(field.pattern.replace('\\', ""))),
            [field] => (Some(field.text.clone()), Some(field.text.clone())),
            _ => (None, None),
        }
    }

    /// A word as a pattern, quoted characters escaped; none where a part of it is not known.
    pub(super) fn as_pattern(&mut self, text: &str, state: &mut State) -> Arg {
        let mut fields = Fields::default();
        self.pieces(&syntax::pieces(text), false, state, &mut fields);
        fields.end();
        match fields.done.as_slice() {
            [] => Some(String::new()),
            [field] if !field.unknown => Some(field.pattern.clone()),
            _ => None,
        }
    }

    fn fields(&mut self, text: &str, state: &mut State) -> Vec<Field> {
        let mut fields = Fields::default();
        self.pieces(&syntax::pieces(text), false, state, &mut fields);
        fields.end();
        fields.done
    }

    fn quoted_fields(&mut self, text: &str, state: &mut State) -> Vec<Field> {
        let mut fields = Fields::default();
        self.pieces(&syntax::pieces(text), true, state, &mut fields);
        fields.end();
        fields.done
    }

    fn pieces(&mut self, pieces: &[WordPieceWithSource], quoted: bool, state: &mut State, out: &mut Fields) {
        for piece in pieces {
            match &piece.piece {
                WordPiece::Text(text) => out.text(text, quoted),
                WordPiece::SingleQuotedText(text) | WordPiece::AnsiCQuotedText(text) => out.text(text, true),
                WordPiece::EscapeSequence(text) => out.text(text.strip_prefix('\\').unwrap_or(text), true),
                WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => {
                    // `""` is an argument, `"$@"` without arguments is none.
                    let only_all = matches!(inner.as_slice(), [one] if is_all(&one.piece));
                    if !only_all {
                        out.text("", true);
                    }
                    self.pieces(inner, true, state, out);
                }
                WordPiece::TildeExpansion(TildeExpr::Home) => out.value(state.variable("HOME"), true),
                WordPiece::TildeExpansion(TildeExpr::UserHome(name)) => {
                    let home =
                        self.world.accounts.users.iter().find(|user| user.name == *name).map(|user| user.home.clone());
                    out.value(home, true);
                }
                WordPiece::TildeExpansion(_) => out.unknown(),
                WordPiece::ParameterExpansion(expression) => self.parameter(expression, quoted, state, out),
                WordPiece::CommandSubstitution(text) | WordPiece::BackquotedCommandSubstitution(text) => {
                    let value = self.substitute(text, state);
                    out.value(value, quoted);
                }
                WordPiece::ArithmeticExpression(expression) => {
                    let value = expression.value.trim().parse::<i64>().ok().map(|number| number.to_string());
                    out.value(value, quoted);
                }
            }
        }
    }

    fn parameter(&mut self, expression: &ParameterExpr, quoted: bool, state: &mut State, out: &mut Fields) {
        use ParameterExpr as E;
        if let E::Parameter { parameter, indirect: false } = expression
            && let Parameter::Special(SpecialParameter::AllPositionalParameters { concatenate }) = parameter
        {
            let arguments = state.arguments.clone();
            for (index, argument) in arguments.into_iter().enumerate() {
                if index > 0 && quoted && *concatenate {
                    out.text(" ", true);
                } else if index > 0 {
                    out.end();
                }
                out.value(argument, quoted);
            }
            return;
        }
        if let E::VariableNames { prefix, .. } = expression {
            let names: Vec<String> = state.names_with_prefix(prefix);
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    out.end();
                }
                out.text(&name, true);
            }
            return;
        }
        let value = self.value_of(expression, state);
        out.value(value, quoted);
    }

    fn value_of(&mut self, expression: &ParameterExpr, state: &mut State) -> Arg {
        use ParameterExpr as E;
        match expression {
            E::Parameter { parameter, indirect } => self.get(parameter, *indirect, state),
            E::UseDefaultValues { parameter, indirect, test_type, default_value } => {
                match self.tested(parameter, *indirect, test_type, state) {
                    Tested::Set(value) => value,
                    Tested::Unset => self.single(default_value.as_deref().unwrap_or_default(), state),
                }
            }
            E::AssignDefaultValues { parameter, indirect, test_type, default_value } => {
                match self.tested(parameter, *indirect, test_type, state) {
                    Tested::Set(value) => value,
                    Tested::Unset => {
                        let value = self.single(default_value.as_deref().unwrap_or_default(), state);
                        if let Parameter::Named(name) = parameter {
                            state.assign(name, value.clone());
                        }
                        value
                    }
                }
            }
            E::IndicateErrorIfNullOrUnset { parameter, indirect, .. } => self.get(parameter, *indirect, state),
            E::UseAlternativeValue { parameter, indirect, test_type, alternative_value } => {
                match self.tested(parameter, *indirect, test_type, state) {
                    Tested::Unset => Some(String::new()),
                    Tested::Set(None) => None,
                    Tested::Set(Some(_)) => self.single(alternative_value.as_deref().unwrap_or_default(), state),
                }
            }
            E::ParameterLength { parameter, indirect } => {
                Some(self.get(parameter, *indirect, state)?.chars().count().to_string())
            }
            E::RemoveSmallestSuffixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), state, Trim::Suffix, false)
            }
            E::RemoveLargestSuffixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), state, Trim::Suffix, true)
            }
            E::RemoveSmallestPrefixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), state, Trim::Prefix, false)
            }
            E::RemoveLargestPrefixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), state, Trim::Prefix, true)
            }
            E::Substring { parameter, indirect, offset, length } => {
                let value: Vec<char> = self.get(parameter, *indirect, state)?.chars().collect();
                let from = offset.value.trim().parse::<usize>().ok()?;
                let count = match length {
                    Some(length) => length.value.trim().parse::<usize>().ok()?,
                    None => value.len(),
                };
                Some(value.into_iter().skip(from).take(count).collect())
            }
            E::UppercasePattern { parameter, indirect, pattern: None } => {
                Some(self.get(parameter, *indirect, state)?.to_uppercase())
            }
            E::LowercasePattern { parameter, indirect, pattern: None } => {
                Some(self.get(parameter, *indirect, state)?.to_lowercase())
            }
            E::ReplaceSubstring { parameter, indirect, pattern, replacement, match_kind } => {
                let value = self.get(parameter, *indirect, state)?;
                if pattern::is_pattern(pattern) {
                    return None;
                }
                let from = self.single(pattern, state)?;
                let to = self.single(replacement.as_deref().unwrap_or_default(), state)?;
                Some(match match_kind {
                    SubstringMatchKind::Anywhere => value.replace(&from, &to),
                    SubstringMatchKind::FirstOccurrence => value.replacen(&from, &to, 1),
                    SubstringMatchKind::Prefix => value.strip_prefix(&from).map_or(value.clone(), |rest| to + rest),
                    SubstringMatchKind::Suffix => {
                        value.strip_suffix(&from).map_or(value.clone(), |rest| rest.to_owned() + &to)
                    }
                })
            }
            _ => None,
        }
    }

    fn get(&mut self, parameter: &Parameter, indirect: bool, state: &mut State) -> Arg {
        let value = match parameter {
            Parameter::Positional(0) => Some(state.name.clone()),
            Parameter::Positional(number) => {
                let index = usize::try_from(*number).ok()?.checked_sub(1)?;
                state.arguments.get(index).cloned().unwrap_or_else(|| Some(String::new()))
            }
            Parameter::Special(SpecialParameter::PositionalParameterCount) => Some(state.arguments.len().to_string()),
            Parameter::Special(SpecialParameter::ShellName) => Some(state.name.clone()),
            Parameter::Special(SpecialParameter::AllPositionalParameters { .. }) => {
                state.arguments.iter().cloned().collect::<Option<Vec<_>>>().map(|all| all.join(" "))
            }
            Parameter::Special(_) => None,
            Parameter::Named(name) => {
                self.outcome.reads.insert(name.clone());
                match name.as_str() {
                    "BASH_SOURCE" => self.file().map(ToString::to_string).or_else(|| Some(state.name.clone())),
                    "EUID" | "UID" => state.uid.map(|uid| uid.to_string()),
                    "PWD" => state.cwd.to_str().map(str::to_owned),
                    "RANDOM" | "SECONDS" | "LINENO" | "HOSTNAME" | "PPID" | "BASHPID" => None,
                    _ => state.variable(name),
                }
            }
            Parameter::NamedWithIndex { name, index } if name == "BASH_SOURCE" && index == "0" => {
                self.file().map(ToString::to_string)
            }
            _ => None,
        };
        match (indirect, value) {
            (false, value) => value,
            (true, Some(name)) => state.variable(&name),
            (true, None) => None,
        }
    }

    fn tested(&mut self, parameter: &Parameter, indirect: bool, test: &ParameterTestType, state: &mut State) -> Tested {
        let set = match parameter {
            Parameter::Named(name) => state.is_set(name),
            Parameter::Positional(number) => usize::try_from(*number).is_ok_and(|n| n <= state.arguments.len()),
            _ => true,
        };
        let value = self.get(parameter, indirect, state);
        match (test, &value) {
            _ if !set => Tested::Unset,
            (ParameterTestType::UnsetOrNull, Some(text)) if text.is_empty() => Tested::Unset,
            _ => Tested::Set(value),
        }
    }

    fn trimmed(
        &mut self,
        parameter: &Parameter,
        indirect: bool,
        pattern: Option<&str>,
        state: &mut State,
        side: Trim,
        largest: bool,
    ) -> Arg {
        let value = self.get(parameter, indirect, state)?;
        let pattern = self.as_pattern(pattern.unwrap_or_default(), state)?;
        // Cuts at every character; patterns are short, values are arguments.
        let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).take(4096).collect();
        if (side == Trim::Suffix) != largest {
            cuts.reverse();
        }
        for cut in cuts {
            let (head, tail) = value.split_at(cut);
            let (gone, rest) = if side == Trim::Prefix { (head, tail) } else { (tail, head) };
            if pattern::matches(&pattern, gone) {
                return Some(rest.to_owned());
            }
        }
        Some(value)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trim {
    Prefix,
    Suffix,
}

enum Tested {
    Set(Arg),
    Unset,
}

fn is_all(piece: &WordPiece) -> bool {
    matches!(
        piece,
        WordPiece::ParameterExpansion(ParameterExpr::Parameter {
            parameter: Parameter::Special(SpecialParameter::AllPositionalParameters { concatenate: false }),
            ..
        })
    )
}

/// Files a glob matches, sorted, at most a thousand.
pub(crate) fn glob(rootfs: &Rootfs, cwd: &ImagePath, pattern: &str) -> Vec<String> {
    const MAX_MATCHES: usize = 1000;
    let mut found = vec![(if pattern.starts_with('/') { "/".to_owned() } else { String::new() })];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in &found {
            let here = if base.is_empty() { "." } else { base };
            let join = |name: &str| match base.as_str() {
                "" => name.to_owned(),
                base if base.ends_with('/') => format!("{base}{name}"),
                base => format!("{base}/{name}"),
            };
            if !pattern::is_pattern(part) {
                let plain: String = part.replace('\\', "");
                let path = join(&plain);
                if rootfs.resolve_from(cwd, path.as_bytes()).is_ok() {
                    next.push(path);
                }
                continue;
            }
            let Ok(folder) = rootfs.resolve_from(cwd, here.as_bytes()) else { continue };
            if !matches!(rootfs.inode(folder.inode).kind, InodeKind::Directory(_)) {
                continue;
            }
            for (name, _) in rootfs.children(folder.inode) {
                if let Ok(name) = std::str::from_utf8(name)
                    && (!name.starts_with('.') || part.starts_with('.'))
                    && pattern::matches(part, name)
                {
                    next.push(join(name));
                }
            }
        }
        next.truncate(MAX_MATCHES);
        found = next;
    }
    found.retain(|path| !path.is_empty());
    found
}
