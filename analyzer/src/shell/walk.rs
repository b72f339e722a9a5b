//! The abstract run of a script: syntax tree and state in, calls out.
//!
//! A state is one way through the script so far. Where a branch cannot be decided, the way splits and both parts are at most
//! *likely*; a branch that this start does not take is walked apart, as *possible*. Work is bounded by steps and by the number of
//! ways; where the bound is hit, that is an unknown.

use std::{collections::BTreeMap, rc::Rc};

use brush_parser::{SourceSpan, ast};
use dna::{Condition, Confidence, ImagePath};

use super::{Arg, Call, Circumstances, Outcome, Source, World, Written, matches, output, syntax};

/// Commands looked at in one script, branches not taken included.
const MAX_STEPS: usize = 20_000;
/// Ways through a script followed at once.
const MAX_WAYS: usize = 12;
/// Functions, sourced files and substitutions inside each other.
const MAX_DEPTH: usize = 12;
/// Rounds of a loop over known words.
const MAX_ROUNDS: usize = 64;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Known.
    Known(bool),
    /// A program was run; programs are expected to succeed.
    Expected,
    /// Cannot be told.
    Open,
}

/// One way through the script.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) arguments: Vec<Arg>,
    pub(super) variables: BTreeMap<String, Variable>,
    pub(super) uid: Option<u32>,
    pub(super) cwd: ImagePath,
    functions: BTreeMap<String, Rc<ast::FunctionBody>>,
    pub(super) confidence: Confidence,
    pub(super) when: Vec<Condition>,
    /// `$1` and on are still those the script was started with.
    pub(super) arguments_given: bool,
    /// Lines on standard input, where they are known.
    pub(super) input: Option<Vec<String>>,
    pub(super) ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) value: Arg,
    pub(super) exported: bool,
}

impl State {
    pub(super) fn variable(&self, name: &str) -> Arg {
        self.variables.get(name).map_or_else(|| Some(String::new()), |variable| variable.value.clone())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// Sets a variable. A credential's value never enters the walk: that it is set is all that counts.
    pub(super) fn assign(&mut self, name: &str, value: Arg) {
        let value = value.map(|value| shield(name, value));
        let exported = self.variables.get(name).is_some_and(|variable| variable.exported);
        self.variables.insert(name.to_owned(), Variable { value, exported });
    }

    pub(super) fn names_with_prefix(&self, prefix: &str) -> Vec<String> {
        self.variables.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    pub(super) fn path(&self) -> String {
        self.variable("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| super::DEFAULT_PATH.to_owned())
    }

    /// At most this sure from here on.
    fn at_most(mut self, confidence: Confidence) -> Self {
        self.confidence = self.confidence.max(confidence);
        self
    }

    fn under(mut self, condition: Option<Condition>) -> Self {
        self.when.extend(condition);
        self
    }

    fn same_as(&self, other: &Self) -> bool {
        (&self.arguments, &self.variables, &self.cwd, self.ended)
            == (&other.arguments, &other.variables, &other.cwd, other.ended)
    }
}

/// `value`, or what stands in its place where it is a credential.
pub(crate) fn shield(name: &str, value: String) -> String {
    if !value.is_empty() && (dna::is_secret_name(name) || dna::redact(&value) != value) {
        return dna::REDACTED.to_owned();
    }
    value
}

type Ways = Vec<(State, Status)>;

/// The walk: what it has found so far, and where it is.
pub(super) struct Walk<'a> {
    pub(super) world: World<'a>,
    pub(super) outcome: Outcome,
    files: Vec<Option<ImagePath>>,
    steps: usize,
    line: Option<u32>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(world: World<'a>) -> Self {
        Self { world, outcome: Outcome::default(), files: Vec::new(), steps: 0, line: None }
    }

    /// Walks a whole script.
    pub(super) fn run(mut self, source: Source<'_>, start: &Circumstances) -> Outcome {
        let variables = start.env.iter().map(|(name, value)| {
            (name.clone(), Variable { value: value.clone().map(|value| shield(name, value)), exported: true })
        });
        let state = State {
            name: start.name.clone(),
            arguments: start.arguments.clone(),
            variables: variables.collect(),
            uid: start.uid,
            cwd: start.cwd.clone(),
            functions: BTreeMap::new(),
            confidence: Confidence::Certain,
            when: Vec::new(),
            arguments_given: true,
            input: None,
            ended: false,
        };
        self.script(source.text, source.path.cloned(), vec![state]);
        if self.steps > MAX_STEPS {
            self.open(format!("the script has more than {MAX_STEPS} steps; the rest was not followed"));
        }
        self.outcome
    }

    /// The file being walked.
    pub(super) fn file(&self) -> Option<&ImagePath> {
        self.files.last().and_then(Option::as_ref)
    }

    pub(super) fn open(&mut self, why: String) {
        let place = (self.file().cloned(), self.line, why);
        if !self.outcome.open.contains(&place) {
            self.outcome.open.push(place);
        }
    }

    /// Walks the text of a file, or of a command line where there is none, in the given states.
    pub(super) fn script(&mut self, text: &str, path: Option<ImagePath>, states: Vec<State>) -> Vec<State> {
        if self.files.len() >= MAX_DEPTH {
            self.open("scripts nest too deep; the rest was not followed".to_owned());
            return states;
        }
        let program = match syntax::parse(text) {
            Ok(program) => program,
            Err(why) => {
                self.files.push(path);
                self.line = None;
                self.open(why);
                self.files.pop();
                return states;
            }
        };
        let line = self.line;
        let inherits = path.is_none() && !self.files.is_empty();
        self.files.push(if inherits { self.file().cloned() } else { path });
        let mut states = states;
        for list in &program.complete_commands {
            states = self.list(list, states);
        }
        self.files.pop();
        self.line = line;
        states
    }

    fn list(&mut self, list: &ast::CompoundList, states: Vec<State>) -> Vec<State> {
        let mut states = states;
        for ast::CompoundListItem(item, _) in &list.0 {
            let mut next: Vec<State> = Vec::new();
            for state in states {
                if state.ended {
                    next.push(state);
                    continue;
                }
                for (state, _) in self.and_or(item, state) {
                    match next.iter_mut().find(|other| other.same_as(&state)) {
                        // Two ways that meet again are one: as sure as the surer, under what both ask for.
                        Some(other) => {
                            other.confidence = other.confidence.min(state.confidence);
                            other.when.retain(|condition| state.when.contains(condition));
                        }
                        None => next.push(state),
                    }
                }
            }
            next.sort_by_key(|state| (state.ended, state.confidence));
            if next.len() > MAX_WAYS {
                next.truncate(MAX_WAYS);
                self.open("the script branches too often; not every way was followed".to_owned());
            }
            states = next;
        }
        states
    }

    /// Like [`Walk::list`], with the status of the last command.
    fn list_status(&mut self, list: &ast::CompoundList, state: State) -> Ways {
        let Some((ast::CompoundListItem(last, _), before)) = list.0.split_last() else {
            return vec![(state, Status::Known(true))];
        };
        let states = self.list(&ast::CompoundList(before.to_vec()), vec![state]);
        let mut ways = Vec::new();
        for state in states {
            if state.ended { ways.push((state, Status::Open)) } else { ways.extend(self.and_or(last, state)) }
        }
        ways
    }

    fn and_or(&mut self, list: &ast::AndOrList, state: State) -> Ways {
        let given = state.when.len();
        let mut ways = self.pipeline(&list.first, state);
        let mut before = &list.first;
        for part in &list.additional {
            let (next, wanted) = match part {
                ast::AndOr::And(next) => (next, true),
                ast::AndOr::Or(next) => (next, false),
            };
            let condition = condition_of(before);
            let mut after = Vec::new();
            for (state, status) in ways {
                if state.ended {
                    after.push((state, status));
                    continue;
                }
                let condition =
                    condition.clone().filter(|_| state.arguments_given).map(|c| if wanted { c } else { negate(c) });
                match status {
                    Status::Known(is) if is == wanted => after.extend(self.pipeline(next, state.under(condition))),
                    Status::Expected if wanted => after.extend(self.pipeline(next, state.at_most(Confidence::Likely))),
                    Status::Known(_) | Status::Expected => {
                        self.not_taken(state.clone().under(condition), |walk, state| {
                            walk.pipeline(next, state);
                        });
                        after.push((state, status));
                    }
                    Status::Open => {
                        after.extend(self.pipeline(next, state.clone().under(condition).at_most(Confidence::Likely)));
                        after.push((state.at_most(Confidence::Likely), Status::Known(!wanted)));
                    }
                }
            }
            ways = after;
            before = next;
        }
        // Conditions hold inside the list only.
        for (state, _) in &mut ways {
            if !state.ended {
                state.when.truncate(given);
            }
        }
        ways
    }

    /// Walks what this start does not run.
    fn not_taken(&mut self, state: State, walk: impl FnOnce(&mut Self, State)) {
        if state.confidence < Confidence::Possible {
            walk(self, state.at_most(Confidence::Possible));
        }
    }

    fn pipeline(&mut self, pipeline: &ast::Pipeline, state: State) -> Ways {
        let ways = match pipeline.seq.as_slice() {
            [command] => self.command(command, state),
            commands => {
                // Each part is a process of its own: what it changes is gone with it, what it prints the next one reads.
                let mut input = state.input.clone();
                let mut status = Status::Expected;
                for command in commands {
                    let mut part = state.clone();
                    part.input.clone_from(&input);
                    input = self.printed(command, &part);
                    let ways = self.command(command, part);
                    status = ways.first().map_or(Status::Open, |(_, status)| *status);
                }
                vec![(state, status)]
            }
        };
        if !pipeline.bang {
            return ways;
        }
        let not = |status| match status {
            Status::Known(is) => Status::Known(!is),
            _ => Status::Open,
        };
        ways.into_iter().map(|(state, status)| (state, not(status))).collect()
    }

    /// What a command prints, where that is known.
    fn printed(&mut self, command: &ast::Command, state: &State) -> Option<Vec<String>> {
        let ast::Command::Simple(simple) = command else { return None };
        let mut state = state.clone();
        let argv = self.words(simple, &mut state).into_iter().collect::<Option<Vec<_>>>()?;
        output::lines(&argv, &state, self.world)
    }

    /// The value of a command substitution; the commands in it are walked too.
    pub(super) fn substitute(&mut self, text: &str, state: &State) -> Arg {
        if self.files.len() >= MAX_DEPTH {
            return None;
        }
        let program = syntax::parse(text).ok()?;
        self.script(text, None, vec![state.clone()]);
        let [list] = program.complete_commands.as_slice() else { return None };
        let [ast::CompoundListItem(only, _)] = list.0.as_slice() else { return None };
        if !only.additional.is_empty() {
            return None;
        }
        let mut state = state.clone();
        for command in &only.first.seq {
            let lines = self.printed(command, &state)?;
            state.input = Some(lines);
        }
        Some(state.input?.join("\n"))
    }

    fn command(&mut self, command: &ast::Command, state: State) -> Ways {
        self.steps = self.steps.saturating_add(1);
        if self.steps > MAX_STEPS || state.ended {
            return vec![(state, Status::Open)];
        }
        match command {
            ast::Command::Simple(simple) => self.simple(simple, state),
            ast::Command::Compound(compound, redirects) => {
                let mut state = state;
                self.redirects(redirects.as_ref(), &mut state);
                self.compound(compound, state)
            }
            ast::Command::Function(function) => {
                let mut state = state;
                state.functions.insert(function.fname.value.clone(), Rc::new(function.body.clone()));
                vec![(state, Status::Known(true))]
            }
            ast::Command::ExtendedTest(test, _) => {
                self.at(&test.loc);
                let mut state = state;
                let status = self.extended_test(&test.expr, &mut state);
                vec![(state, status.map_or(Status::Open, Status::Known))]
            }
        }
    }

    fn at(&mut self, span: &SourceSpan) {
        // Text inside a word has lines of its own; the line of the word is the better answer.
        if self.line.is_none() || self.files.len() <= 1 {
            self.line = u32::try_from(span.start.line).ok();
        }
    }

    fn compound(&mut self, compound: &ast::CompoundCommand, state: State) -> Ways {
        use ast::CompoundCommand as C;
        match compound {
            C::BraceGroup(group) => self.list_status(&group.list, state),
            C::Subshell(subshell) => {
                let inner = state.clone();
                let ways = self.list_status(&subshell.list, inner);
                let status = ways.first().map_or(Status::Open, |(_, status)| *status);
                vec![(state, status)]
            }
            C::IfClause(clause) => self.if_clause(clause, state),
            C::CaseClause(clause) => self.case_clause(clause, state),
            C::ForClause(clause) => self.for_clause(clause, state),
            C::WhileClause(clause) | C::UntilClause(clause) => self.while_clause(clause, state),
            C::ArithmeticForClause(clause) => {
                let states = self.list(&clause.body.list, vec![state.at_most(Confidence::Likely)]);
                states.into_iter().map(|state| (state, Status::Open)).collect()
            }
            C::Arithmetic(_) => vec![(state, Status::Open)],
            C::Coprocess(coprocess) => {
                self.command(&coprocess.body, state.clone());
                vec![(state, Status::Known(true))]
            }
        }
    }

    fn if_clause(&mut self, clause: &ast::IfClauseCommand, state: State) -> Ways {
        let mut ways = Vec::new();
        let given = state.when.len();
        let mut undecided = vec![state];
        let first = (Some(&clause.condition), &clause.then);
        let elses = clause.elses.iter().flatten().map(|part| (part.condition.as_ref(), &part.body));
        for (condition, body) in [first].into_iter().chain(elses) {
            let mut next = Vec::new();
            for state in std::mem::take(&mut undecided) {
                let Some(test) = condition else {
                    ways.extend(self.list_status(body, state));
                    continue;
                };
                let known = list_condition(test).filter(|_| state.arguments_given);
                for (state, status) in self.list_status(test, state) {
                    let taken = state.clone().under(known.clone());
                    let other = state.clone().under(known.clone().map(negate));
                    match status {
                        _ if state.ended => ways.push((state, status)),
                        Status::Known(true) => {
                            ways.extend(self.list_status(body, taken));
                            self.elses_not_taken(clause, body, other);
                        }
                        Status::Known(false) => {
                            self.not_taken(taken, |walk, state| {
                                walk.list(body, vec![state]);
                            });
                            next.push(other);
                        }
                        Status::Expected | Status::Open => {
                            ways.extend(self.list_status(body, taken.at_most(Confidence::Likely)));
                            next.push(other.at_most(Confidence::Likely));
                        }
                    }
                }
            }
            undecided = next;
        }
        ways.extend(undecided.into_iter().map(|state| (state, Status::Known(true))));
        for (state, _) in &mut ways {
            if !state.ended {
                state.when.truncate(given);
            }
        }
        ways
    }

    /// Walks, as not taken, every part of an `if` after the one that was.
    fn elses_not_taken(&mut self, clause: &ast::IfClauseCommand, taken: &ast::CompoundList, state: State) {
        let elses: Vec<_> = clause.elses.iter().flatten().collect();
        let from = elses.iter().position(|part| std::ptr::eq(&raw const part.body, taken)).map_or(0, |index| index + 1);
        for part in elses.into_iter().skip(from) {
            self.not_taken(state.clone(), |walk, state| {
                walk.list(&part.body, vec![state]);
            });
        }
    }

    fn case_clause(&mut self, clause: &ast::CaseClauseCommand, state: State) -> Ways {
        self.at(&clause.loc);
        let mut state = state;
        let value = self.single(&clause.value.value, &mut state);
        let argument = argument_index(&clause.value.value).filter(|_| state.arguments_given);
        let given = state.when.len();
        let mut ways = Vec::new();
        let mut decided = false;
        for item in &clause.cases {
            let mut fits = Some(false);
            for word in &item.patterns {
                let pattern = self.as_pattern(&word.value, &mut state);
                fits = match (&value, pattern) {
                    (Some(value), Some(pattern)) if matches(&pattern, value) => Some(true),
                    (Some(_), Some(_)) => fits,
                    (_, Some(pattern)) if pattern == "*" => Some(true),
                    _ => fits.filter(|fits| *fits),
                };
                if fits == Some(true) {
                    break;
                }
            }
            let condition = match (argument, item.patterns.as_slice()) {
                (Some(index), [word]) if word.value != "*" && !word.value.contains('$') => {
                    Some(Condition::Argv { index, matches: word.value.trim_matches('"').to_owned(), negated: false })
                }
                _ => None,
            };
            let Some(body) = &item.cmd else {
                decided |= fits == Some(true);
                continue;
            };
            let here = state.clone().under(condition);
            match fits {
                _ if decided => self.not_taken(here, |walk, state| {
                    walk.list(body, vec![state]);
                }),
                Some(false) => self.not_taken(here, |walk, state| {
                    walk.list(body, vec![state]);
                }),
                Some(true) => {
                    decided = true;
                    ways.extend(self.list_status(body, here));
                }
                None => ways.extend(self.list_status(body, here.at_most(Confidence::Likely))),
            }
        }
        if !decided || ways.is_empty() {
            ways.push((state, Status::Known(true)));
        }
        for (state, _) in &mut ways {
            if !state.ended {
                state.when.truncate(given);
            }
        }
        ways
    }

    fn for_clause(&mut self, clause: &ast::ForClauseCommand, state: State) -> Ways {
        self.at(&clause.loc);
        let mut state = state;
        let values = match &clause.values {
            Some(words) => words.iter().flat_map(|word| self.arguments(word, &mut state)).collect(),
            None => state.arguments.clone(),
        };
        // A glob that matches nothing stands for itself: the loop's body will test for that.
        let mut states = vec![state];
        for value in values.into_iter().take(MAX_ROUNDS) {
            for state in &mut states {
                state.assign(&clause.variable_name, value.clone());
            }
            states = self.list(&clause.body.list, states);
        }
        states.into_iter().map(|state| (state, Status::Known(true))).collect()
    }

    fn while_clause(&mut self, clause: &ast::WhileOrUntilClauseCommand, state: State) -> Ways {
        let ast::WhileOrUntilClauseCommand(condition, body, _) = clause;
        let before = state.clone();
        // A loop that reads known lines runs once for each.
        let rounds = state.input.as_ref().map_or(1, Vec::len).min(MAX_ROUNDS);
        let reads = before.input.is_some();
        let mut states = vec![state];
        for _ in 0..rounds {
            let mut next = Vec::new();
            for state in states {
                for (state, status) in self.list_status(condition, state) {
                    let state =
                        if reads || status == Status::Known(true) { state } else { state.at_most(Confidence::Likely) };
                    next.extend(self.list(&body.list, vec![state]));
                }
            }
            states = next;
            states.truncate(MAX_WAYS);
        }
        if states.iter().all(|state| state.ended) {
            states.push(before.at_most(Confidence::Likely));
        }
        states.into_iter().map(|state| (state, Status::Known(true))).collect()
    }

    /// The words of a simple command, expanded; assignments in front are left out.
    fn words(&mut self, simple: &ast::SimpleCommand, state: &mut State) -> Vec<Arg> {
        let mut argv = Vec::new();
        if let Some(word) = &simple.word_or_name {
            argv.extend(self.arguments(word, state));
        }
        for item in simple.suffix.iter().flat_map(|suffix| &suffix.0) {
            match item {
                ast::CommandPrefixOrSuffixItem::Word(word) => argv.extend(self.arguments(word, state)),
                ast::CommandPrefixOrSuffixItem::AssignmentWord(_, word) => argv.push(self.single(&word.value, state)),
                ast::CommandPrefixOrSuffixItem::ProcessSubstitution(..) => argv.push(None),
                ast::CommandPrefixOrSuffixItem::IoRedirect(_) => {}
            }
        }
        argv
    }

    fn simple(&mut self, simple: &ast::SimpleCommand, state: State) -> Ways {
        let mut state = state;
        if let Some(span) = simple.word_or_name.as_ref().and_then(|word| word.loc.as_ref()) {
            self.at(span);
        }
        let items =
            simple.prefix.iter().flat_map(|prefix| &prefix.0).chain(simple.suffix.iter().flat_map(|suffix| &suffix.0));
        let mut assigned = Vec::new();
        for item in items {
            match item {
                ast::CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirect(redirect, &mut state),
                ast::CommandPrefixOrSuffixItem::ProcessSubstitution(_, inner) => {
                    self.list(&inner.list, vec![state.clone()]);
                }
                _ => {}
            }
        }
        for item in simple.prefix.iter().flat_map(|prefix| &prefix.0) {
            if let ast::CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) = item
                && let ast::AssignmentName::VariableName(name) = &assignment.name
            {
                let value = match &assignment.value {
                    ast::AssignmentValue::Scalar(word) => self.single(&word.value, &mut state),
                    ast::AssignmentValue::Array(_) => None,
                };
                let value = if assignment.append {
                    state.variable(name).zip(value).map(|(old, new)| old + &new)
                } else {
                    value
                };
                assigned.push((name.clone(), value));
            }
        }
        let argv = self.words(simple, &mut state);
        let Some((name, rest)) = argv.split_first() else {
            for (name, value) in assigned {
                state.assign(&name, value);
            }
            return vec![(state, Status::Known(true))];
        };
        let Some(name) = name else {
            let word = simple.word_or_name.as_ref().map_or("", |word| word.value.as_str());
            let word: String = word.chars().take(60).collect();
            self.open(format!("runs `{}`, whose value is not known", dna::redact(&word)));
            return vec![(state, Status::Open)];
        };
        if let Some(body) = state.functions.get(name).cloned() {
            return self.call_function(&body, rest.to_vec(), state);
        }
        self.builtin_or_call(name, rest, assigned, state)
    }

    fn call_function(&mut self, body: &ast::FunctionBody, arguments: Vec<Arg>, state: State) -> Ways {
        if self.files.len() >= MAX_DEPTH {
            return vec![(state, Status::Open)];
        }
        let outer = (state.arguments.clone(), state.arguments_given);
        let inner = State { arguments, arguments_given: false, ..state };
        self.files.push(self.file().cloned());
        let ways = self.compound(&body.0, inner);
        self.files.pop();
        let restore = |(mut state, status): (State, Status)| {
            if !state.ended || state.input.as_deref() == Some(RETURNED) {
                (state.arguments, state.arguments_given) = outer.clone();
            }
            (state, status)
        };
        ways.into_iter().map(restore).collect()
    }

    /// Emits a call of a program.
    pub(super) fn call(&mut self, argv: Vec<Arg>, assigned: &[(String, Arg)], state: &State) {
        let exported = state.variables.iter().filter(|(_, variable)| variable.exported);
        let mut env: BTreeMap<String, Arg> =
            exported.map(|(name, variable)| (name.clone(), variable.value.clone())).collect();
        env.extend(assigned.iter().map(|(name, value)| (name.clone(), value.clone().map(|value| shield(name, value)))));
        self.outcome.calls.push(Call {
            argv,
            env,
            cwd: state.cwd.clone(),
            file: self.file().cloned(),
            line: self.line,
            confidence: state.confidence,
            when: state.when.clone(),
        });
    }

    fn redirects(&mut self, list: Option<&ast::RedirectList>, state: &mut State) {
        for redirect in list.iter().flat_map(|list| &list.0) {
            self.redirect(redirect, state);
        }
    }

    /// Notes a file that is opened for writing.
    fn write(&mut self, place: Option<String>, state: &State) {
        let path = place.and_then(|place| state.cwd.join(place.as_bytes()).ok());
        // What starts unknown may be anywhere.
        let Some(path) = path.filter(|path| path.components().next().is_some_and(|first| !first.contains(&b'*')))
        else {
            return;
        };
        let (file, line) = (self.file().cloned(), self.line);
        self.outcome.writes.push(Written { path, file, line, confidence: state.confidence, when: state.when.clone() });
    }

    /// Looks only for commands inside the words of a redirection, for input that is known and for files written.
    fn redirect(&mut self, redirect: &ast::IoRedirect, state: &mut State) {
        match redirect {
            ast::IoRedirect::File(_, kind, ast::IoFileRedirectTarget::Filename(word)) => {
                let (path, place) = self.target(&word.value, state);
                match kind {
                    ast::IoFileRedirectKind::Read => {
                        state.input = path.and_then(|path| output::file_lines(&path, state, self.world));
                    }
                    ast::IoFileRedirectKind::Write
                    | ast::IoFileRedirectKind::Append
                    | ast::IoFileRedirectKind::Clobber
                    | ast::IoFileRedirectKind::ReadAndWrite => self.write(place, state),
                    _ => {}
                }
            }
            ast::IoRedirect::OutputAndError(word, _) => {
                let (_, place) = self.target(&word.value, state);
                self.write(place, state);
            }
            ast::IoRedirect::File(_, _, ast::IoFileRedirectTarget::ProcessSubstitution(_, inner)) => {
                self.list(&inner.list, vec![state.clone()]);
                state.input = None;
            }
            ast::IoRedirect::HereDocument(_, document) if document.requires_expansion => {
                self.single(&document.doc.value, state);
            }
            ast::IoRedirect::HereString(_, word) => {
                let text = self.single(&word.value, state);
                state.input = text.map(|text| text.lines().map(str::to_owned).collect());
            }
            _ => {}
        }
    }
}

const RETURNED: &[String] = &[];

/// The condition that a list of commands tests, where it is one of those a DNA can state.
fn list_condition(list: &ast::CompoundList) -> Option<Condition> {
    match list.0.as_slice() {
        [ast::CompoundListItem(only, _)] if only.additional.is_empty() => condition_of(&only.first),
        _ => None,
    }
}

fn condition_of(pipeline: &ast::Pipeline) -> Option<Condition> {
    let [ast::Command::Simple(simple)] = pipeline.seq.as_slice() else { return None };
    let name = simple.word_or_name.as_ref()?.value.as_str();
    let mut words: Vec<&str> = Vec::new();
    for item in &simple.suffix.as_ref()?.0 {
        let ast::CommandPrefixOrSuffixItem::Word(word) = item else { return None };
        words.push(&word.value);
    }
    if name == "[" {
        words.pop_if(|last| *last == "]")?;
    } else if name != "test" {
        return None;
    }
    let literal = |text: &str| {
        let text = text.trim_matches(['"', '\'']);
        (!text.contains(['$', '`', '\\'])).then(|| text.to_owned())
    };
    let condition = match words.as_slice() {
        [left, "=" | "==" | "-eq", right] if is_own_uid(left) => {
            Condition::Uid { equals: literal(right)?.parse().ok()?, negated: false }
        }
        [left, "!=" | "-ne", right] if is_own_uid(left) => {
            Condition::Uid { equals: literal(right)?.parse().ok()?, negated: true }
        }
        [left, operator @ ("=" | "==" | "!="), right] => {
            let index = argument_index(left)?;
            Condition::Argv { index, matches: super::pattern::quote(&literal(right)?), negated: *operator == "!=" }
        }
        [operator @ ("-n" | "-z"), word] => {
            Condition::Env { name: variable_name(word)?, matches: "?*".to_owned(), negated: *operator == "-z" }
        }
        ["-e" | "-f" | "-d" | "-x" | "-s" | "-r", path] => {
            let path = literal(path).filter(|path| path.starts_with('/'))?;
            Condition::Exists { path: path.parse().ok()?, negated: false }
        }
        _ => return None,
    };
    Some(if pipeline.bang { negate(condition) } else { condition })
}

fn is_own_uid(word: &str) -> bool {
    matches!(word.trim_matches('"'), "$(id -u)" | "`id -u`" | "$EUID" | "$UID" | "${EUID}" | "${UID}")
}

/// The number of the argument that a word is: `$1`, `"${1}"`.
fn argument_index(word: &str) -> Option<u32> {
    variable_text(word)?.parse().ok().filter(|index| *index > 0)
}

fn variable_name(word: &str) -> Option<String> {
    let name = variable_text(word)?;
    let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    well_formed.then(|| name.to_owned())
}

fn variable_text(word: &str) -> Option<&str> {
    let inner = word.trim_matches('"').strip_prefix('$')?;
    let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
    Some(inner.strip_suffix(":-").or_else(|| inner.strip_suffix('-')).unwrap_or(inner))
}

fn negate(condition: Condition) -> Condition {
    match condition {
        Condition::Argv { index, matches, negated } => Condition::Argv { index, matches, negated: !negated },
        Condition::Env { name, matches, negated } => Condition::Env { name, matches, negated: !negated },
        Condition::Uid { equals, negated } => Condition::Uid { equals, negated: !negated },
        Condition::Exists { path, negated } => Condition::Exists { path, negated: !negated },
        other => other,
    }
}
