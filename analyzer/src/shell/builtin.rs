//! Builtins of the shells, and tests: what a simple command does without a program.

use brush_parser::ast;
use dna::Confidence;

use super::{
    Arg, NOT_KNOWN, matches, output,
    walk::{State, Status, Variable, Walk, shield},
};
use crate::InodeKind;

type Ways = Vec<(State, Status)>;

impl Walk<'_> {
    /// Runs a builtin, or emits the call of a program.
    pub(super) fn builtin_or_call(
        &mut self,
        name: &str,
        rest: &[Arg],
        assigned: Vec<(String, Arg)>,
        state: State,
    ) -> Ways {
        let mut state = state;
        let first = rest.first().cloned().flatten();
        let known = |state, is| vec![(state, Status::Known(is))];
        match name {
            ":" | "true" => known(state, true),
            "false" => known(state, false),
            "[" | "test" | "[[" => {
                let status = self.test(name, rest, &state);
                vec![(state, status.map_or(Status::Open, Status::Known))]
            }
            "exec" => {
                let rest = exec_words(rest);
                if !rest.is_empty() {
                    self.call(rest.to_vec(), &assigned, &state);
                    state.ended = true;
                }
                known(state, true)
            }
            "exit" => {
                state.ended = true;
                known(state, first.is_none_or(|code| code == "0"))
            }
            "return" | "break" | "continue" => known(state, first.is_none_or(|code| code == "0")),
            "set" => {
                set(rest, &mut state);
                known(state, true)
            }
            "shift" => {
                let count = first.map_or(Some(1), |count| count.parse::<usize>().ok()).unwrap_or(1);
                state.arguments.drain(..count.min(state.arguments.len()));
                state.arguments_given = false;
                known(state, true)
            }
            "export" | "readonly" | "declare" | "local" | "typeset" => {
                declare(rest, name == "export", &mut state);
                known(state, true)
            }
            "unset" => {
                for name in rest.iter().flatten() {
                    state.variables.remove(name);
                }
                known(state, true)
            }
            "cd" | "pushd" => {
                let target = first.or_else(|| state.variable("HOME"));
                if let Some(found) = target.and_then(|target| self.world.resolve(&state.cwd, &target).ok()) {
                    state.cwd = found.path;
                }
                vec![(state, Status::Expected)]
            }
            "read" | "mapfile" | "readarray" => read(rest, state),
            "." | "source" => self.source(rest, state),
            "eval" => self.eval(rest, state),
            "trap" => {
                // The command runs when the signal comes, if it does.
                if let Some(command) = first.filter(|command| command != "-" && !command.is_empty()) {
                    let mut then = state.clone();
                    then.confidence = then.confidence.max(Confidence::Possible);
                    self.script(&command, None, vec![then]);
                }
                known(state, true)
            }
            "command" | "builtin" => self.command_builtin(name, rest, assigned, state),
            "type" | "hash" => {
                let status = first.map(|name| self.exists(&name, &state));
                vec![(state, status.map_or(Status::Open, Status::Known))]
            }
            "getopts" => {
                if let Some(Some(variable)) = rest.get(1) {
                    state.assign(variable, None);
                }
                vec![(state, Status::Open)]
            }
            "let" | "wait" => vec![(state, Status::Open)],
            // `echo`, `printf`, `test`, `kill` … exist as programs too; the builtin is what runs.
            "alias" | "bg" | "bind" | "caller" | "compgen" | "complete" | "dirs" | "disown" | "echo" | "enable"
            | "fc" | "fg" | "history" | "jobs" | "kill" | "logout" | "popd" | "printf" | "pwd" | "shopt"
            | "suspend" | "times" | "ulimit" | "umask" | "unalias" => known(state, true),
            _ => {
                let status = match (name, first.as_deref()) {
                    ("which", Some(program)) => Status::Known(self.exists(program, &state)),
                    _ => Status::Expected,
                };
                let mut argv = vec![Some(name.to_owned())];
                argv.extend_from_slice(rest);
                self.call(argv, &assigned, &state);
                vec![(state, status)]
            }
        }
    }

    /// Words that are not known stand in the text as a variable whose value is not known: `eval exec "$java" $options` runs what it is
    /// known to run. Where the first word is not known, nothing is.
    fn eval(&mut self, words: &[Arg], mut state: State) -> Ways {
        let is_known = words.iter().all(Option::is_some);
        if !is_known {
            self.open("evaluates text that is not known".to_owned());
            if words.first().is_none_or(Option::is_none) {
                return vec![(state, Status::Open)];
            }
            state.assign(NOT_KNOWN, None);
        }
        let words = words.iter().map(|word| word.clone().unwrap_or_else(|| format!("\"${NOT_KNOWN}\"")));
        let states = self.script(&words.collect::<Vec<_>>().join(" "), None, vec![state]);
        let ended = states.into_iter().map(|mut state| {
            state.variables.remove(NOT_KNOWN);
            (state, Status::Open)
        });
        ended.collect()
    }

    fn command_builtin(&mut self, name: &str, rest: &[Arg], assigned: Vec<(String, Arg)>, state: State) -> Ways {
        let options = rest.iter().take_while(|word| word.as_deref().is_some_and(|word| word.starts_with('-'))).count();
        let (options, words) = rest.split_at(options);
        let Some((first, rest)) = words.split_first() else { return vec![(state, Status::Known(false))] };
        if name == "command" && options.iter().flatten().any(|option| option.contains(['v', 'V'])) {
            let status = first.as_ref().map(|name| self.exists(name, &state));
            return vec![(state, status.map_or(Status::Open, Status::Known))];
        }
        match first {
            Some(first) if first != "command" && first != "builtin" => {
                self.builtin_or_call(first, rest, assigned, state)
            }
            _ => vec![(state, Status::Open)],
        }
    }

    /// Whether a name means a program.
    fn exists(&self, name: &str, state: &State) -> bool {
        output::is_builtin(name) || self.world.find_program(&state.cwd, name, &state.path()).is_some()
    }

    fn source(&mut self, rest: &[Arg], state: State) -> Ways {
        let Some(Some(name)) = rest.first() else {
            self.open("reads commands from a file whose name is not known".to_owned());
            return vec![(state, Status::Open)];
        };
        let found = if name.contains('/') {
            self.world.resolve(&state.cwd, name).ok()
        } else {
            let path = format!("{}:.", state.path());
            path.split(':').find_map(|folder| self.world.resolve(&state.cwd, &format!("{folder}/{name}")).ok())
        };
        let Some(found) = found else { return vec![(state, Status::Known(false))] };
        let body = self.world.rootfs.read(found.inode, self.world.text_bytes);
        let Some(text) = body.ok().and_then(|body| String::from_utf8(body).ok()) else {
            self.open(format!("reads commands from {}, which is no text", found.path));
            return vec![(state, Status::Open)];
        };
        if !self.outcome.sourced.contains(&found.path) {
            self.outcome.sourced.push(found.path.clone());
        }
        let states = self.script(&text, Some(found.path), vec![state]);
        states.into_iter().map(|state| (state, Status::Expected)).collect()
    }

    /// `test`, test(1): decided where its operands are known and the image tells.
    fn test(&self, name: &str, words: &[Arg], state: &State) -> Option<bool> {
        let words = match (name, words.split_last()) {
            ("[", Some((Some(last), rest))) if last == "]" => rest,
            ("[", _) => return None,
            _ => words,
        };
        self.test_words(words, state)
    }

    fn test_words(&self, words: &[Arg], state: &State) -> Option<bool> {
        let text: Vec<Option<&str>> = words.iter().map(Option::as_deref).collect();
        // `-o` binds weaker than `-a`.
        for (operator, all) in [("-o", false), ("-a", true)] {
            if let Some(at) = text.iter().skip(1).position(|word| *word == Some(operator)).map(|at| at + 1)
                && text.len() > 3
            {
                let (left, right) =
                    (self.test_words(words.get(..at)?, state), self.test_words(words.get(at + 1..)?, state));
                return match (left, right) {
                    (Some(left), Some(right)) => Some(if all { left && right } else { left || right }),
                    (Some(is), None) | (None, Some(is)) if is != all => Some(is),
                    _ => None,
                };
            }
        }
        match text.as_slice() {
            [] => Some(false),
            [Some("!"), ..] if text.len() > 1 => self.test_words(words.get(1..)?, state).map(|is| !is),
            [Some(only)] => Some(!only.is_empty()),
            [Some(operator), Some(operand)] => self.unary(operator, operand, state),
            [Some(left), Some(operator), Some(right)] => binary(left, operator, right),
            _ => None,
        }
    }

    fn unary(&self, operator: &str, operand: &str, state: &State) -> Option<bool> {
        let found = || self.world.resolve(&state.cwd, operand).ok().map(|found| self.world.rootfs.inode(found.inode));
        // What is below /proc, /sys and /dev at run time is not in the image.
        let outside = ["/proc", "/sys", "/dev", "/run/secrets"].iter().any(|folder| operand.starts_with(folder));
        Some(match operator {
            "-n" => !operand.is_empty(),
            "-z" => operand.is_empty(),
            "-t" => return None,
            "-v" => state.is_set(operand),
            _ if operator.len() == 2 && outside => return None,
            "-e" | "-a" => found().is_some(),
            "-r" | "-w" if found().is_some() => return None,
            "-r" | "-w" => false,
            "-f" => found().is_some_and(|inode| matches!(inode.kind, InodeKind::File(_))),
            "-d" => found().is_some_and(|inode| matches!(inode.kind, InodeKind::Directory(_))),
            "-x" => found().is_some_and(|inode| inode.meta.mode & 0o111 != 0),
            "-s" => found().is_some_and(|inode| match &inode.kind {
                InodeKind::File(file) => file.size > 0,
                _ => true,
            }),
            "-h" | "-L" => {
                let path = state.cwd.join(operand.as_bytes()).ok()?;
                let found = self.world.rootfs.lookup(&path).ok();
                found.is_some_and(|found| matches!(self.world.rootfs.inode(found.inode).kind, InodeKind::Symlink(_)))
            }
            "-S" | "-p" | "-b" | "-c" => false,
            _ => return None,
        })
    }

    /// `[[ … ]]`.
    pub(super) fn extended_test(&mut self, test: &ast::ExtendedTestExpr, state: &mut State) -> Option<bool> {
        use ast::{BinaryPredicate as B, ExtendedTestExpr as E, UnaryPredicate as U};
        match test {
            E::And(left, right) => match (self.extended_test(left, state), self.extended_test(right, state)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            E::Or(left, right) => match (self.extended_test(left, state), self.extended_test(right, state)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            E::Not(inner) => self.extended_test(inner, state).map(|is| !is),
            E::Parenthesized(inner) => self.extended_test(inner, state),
            E::UnaryTest(predicate, word) => {
                let operand = self.single(&word.value, state)?;
                let operator = match predicate {
                    U::FileExists => "-e",
                    U::FileExistsAndIsDir => "-d",
                    U::FileExistsAndIsRegularFile => "-f",
                    U::FileExistsAndIsSymlink => "-L",
                    U::FileExistsAndIsNotZeroLength => "-s",
                    U::FileExistsAndIsExecutable => "-x",
                    U::FileExistsAndIsReadable => "-r",
                    U::FileExistsAndIsWritable => "-w",
                    U::StringHasZeroLength => "-z",
                    U::StringHasNonZeroLength => "-n",
                    U::ShellVariableIsSetAndAssigned => "-v",
                    _ => return None,
                };
                self.unary(operator, &operand, state)
            }
            E::BinaryTest(predicate, left, right) => {
                let value = self.single(&left.value, state);
                match predicate {
                    B::StringExactlyMatchesPattern => Some(matches(&self.as_pattern(&right.value, state)?, &value?)),
                    B::StringDoesNotExactlyMatchPattern => {
                        Some(!matches(&self.as_pattern(&right.value, state)?, &value?))
                    }
                    B::StringExactlyMatchesString => Some(value? == self.single(&right.value, state)?),
                    B::StringDoesNotExactlyMatchString => Some(value? != self.single(&right.value, state)?),
                    _ => None,
                }
            }
        }
    }
}

fn binary(left: &str, operator: &str, right: &str) -> Option<bool> {
    let numbers = || Some((left.parse::<i64>().ok()?, right.parse::<i64>().ok()?));
    Some(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "-eq" => numbers().map(|(a, b)| a == b)?,
        "-ne" => numbers().map(|(a, b)| a != b)?,
        "-lt" => numbers().map(|(a, b)| a < b)?,
        "-le" => numbers().map(|(a, b)| a <= b)?,
        "-gt" => numbers().map(|(a, b)| a > b)?,
        "-ge" => numbers().map(|(a, b)| a >= b)?,
        _ => return None,
    })
}

/// The command of `exec`, without bash's options.
fn exec_words(rest: &[Arg]) -> &[Arg] {
    match rest {
        [Some(option), _, rest @ ..] if option == "-a" => exec_words(rest),
        [Some(option), rest @ ..] if matches!(option.as_str(), "--" | "-c" | "-l" | "-cl") => exec_words(rest),
        rest => rest,
    }
}

fn set(rest: &[Arg], state: &mut State) {
    let mut words = rest.iter();
    let mut seen = 0usize;
    while let Some(word) = words.next() {
        seen += 1;
        match word.as_deref() {
            Some("--") => break,
            // `-o NAME`, also at the end of a cluster: `-euo pipefail`.
            Some(option) if option.starts_with(['-', '+']) && option.ends_with('o') => {
                words.next();
                seen += 1;
            }
            Some(option) if option.starts_with(['-', '+']) && option.len() > 1 => {}
            _ => {
                seen -= 1;
                break;
            }
        }
    }
    let ended_by_dashes = rest.get(seen.wrapping_sub(1)).is_some_and(|word| word.as_deref() == Some("--"));
    let arguments = rest.get(seen..).unwrap_or_default();
    if ended_by_dashes || !arguments.is_empty() {
        state.arguments = arguments.to_vec();
        state.arguments_given = false;
    }
}

fn declare(rest: &[Arg], export: bool, state: &mut State) {
    for word in rest {
        let Some(word) = word else { continue };
        if word.starts_with('-') {
            continue;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), state.variable(word)),
        };
        let exported = export || state.variables.get(name).is_some_and(|variable| variable.exported);
        if word.contains('=') || state.is_set(name) {
            let value = value.map(|value| shield(name, value));
            state.variables.insert(name.to_owned(), Variable { value, exported });
        }
    }
}

/// `read`: takes a line where the input is known.
fn read(rest: &[Arg], state: State) -> Ways {
    let mut state = state;
    let line = match &mut state.input {
        Some(lines) if lines.is_empty() => return vec![(state, Status::Known(false))],
        Some(lines) => Some(lines.remove(0)),
        None => None,
    };
    let names: Vec<&String> = rest.iter().flatten().filter(|word| !word.starts_with('-')).collect();
    match (names.as_slice(), &line) {
        ([name], _) => state.assign(name, line.clone()),
        (names, _) => names.iter().for_each(|name| state.assign(name, None)),
    }
    let status = if line.is_some() { Status::Known(true) } else { Status::Open };
    vec![(state, status)]
}
