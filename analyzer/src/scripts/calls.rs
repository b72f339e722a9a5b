//! Tokens in; calls with their literal arguments, assigned constants and names of modules out, each with its line. The same reader
//! for every language; what an expression is not literal in stays [`Value::Unknown`].

use std::collections::BTreeMap;

use super::tokens::{HOLE, Kind, Piece, Tokens};

/// An argument as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A string; a [`HOLE`] where it is not known.
    Text(String),
    Number(i64),
    /// A dotted name.
    Name(String),
    Call(Box<Call>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    /// One after the other as one string.
    Join(Vec<Value>),
    /// The first that is not empty.
    Either(Vec<Value>),
    /// An environment variable.
    Env(String),
    True,
    Nothing,
    Unknown,
}

impl Value {
    /// A string that is known whole.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) if !text.contains(HOLE) => Some(text.clone()),
            _ => None,
        }
    }
}

/// A call as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// The dotted name called, `subprocess.run`; with a leading dot where it is called on something else, `.listen`.
    pub(super) callee: String,
    pub(super) args: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

/// Where a call stands: how sure it is that the program gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Run when the file is.
    Top,
    /// In a function, or under a condition.
    Inner,
    /// In what this platform or this start never runs.
    Never,
}

/// A call and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Site {
    pub(super) call: Call,
    pub(super) line: u32,
    pub(super) place: Place,
}

/// How a language writes its expressions.
#[derive(Debug)]
pub(super) struct Grammar {
    /// What joins strings.
    pub(super) join: &'static [&'static str],
    /// What chooses the first that is set.
    pub(super) either: &'static [&'static str],
    /// What stands between a keyword and its value: `=`, `:`, `=>`.
    pub(super) keyword: &'static [&'static str],
    /// A function may be called without parentheses.
    pub(super) bare_calls: bool,
    /// Names of the environment, `os.environ`.
    pub(super) environment: &'static [&'static str],
}

/// What a file's names stand for.
#[derive(Debug, Default, Clone)]
pub(super) struct Scope {
    /// Local name of what was imported: `run` for `subprocess.run`.
    pub(super) aliases: BTreeMap<String, String>,
    /// Constants: none where a name is assigned more than one value.
    pub(super) constants: BTreeMap<String, Value>,
}

impl Scope {
    /// A dotted name with its first part spelled out.
    pub(super) fn full_name(&self, name: &str) -> String {
        let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
        match (self.aliases.get(first), rest) {
            (Some(full), Some(rest)) => format!("{full}.{rest}"),
            (Some(full), None) => full.clone(),
            (None, _) => name.to_owned(),
        }
    }

    /// Notes an assignment.
    pub(super) fn assign(&mut self, name: &str, value: Value) {
        if self.constants.len() >= CONSTANTS {
            return;
        }
        match self.constants.get_mut(name) {
            Some(known) if *known != value => *known = Value::Unknown,
            Some(_) => {}
            None => {
                self.constants.insert(name.to_owned(), value);
            }
        }
    }
}

/// Reads expressions from tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'t, 'a> {
    pub(super) tokens: &'t Tokens<'a>,
    pub(super) grammar: &'static Grammar,
}

impl Reader<'_, '_> {
    /// The dotted name at `at` and the place after it. One that continues an expression starts with a dot.
    pub(super) fn dotted(&self, at: usize) -> Option<(String, usize)> {
        let tokens = self.tokens;
        let first = tokens.name(at)?;
        let is_member = at.checked_sub(1).is_some_and(|before| self.is_member_sign(before));
        let mut name = if is_member { format!(".{first}") } else { first.to_owned() };
        let mut next = at + 1;
        while self.is_member_sign(next) && name.len() < NAME_BYTES {
            let Some(part) = tokens.name(next + 1) else { break };
            name.push('.');
            name.push_str(part);
            next += 2;
        }
        Some((name, next))
    }

    /// Whether what follows is a member: `.`, `->`, `::`, `?.`.
    fn is_member_sign(&self, at: usize) -> bool {
        let text = self.tokens.text(at);
        let is_dot = text == "." && !self.grammar.join.contains(&".");
        (is_dot || matches!(text, "->" | "::" | "?."))
            && self.tokens.get(at).is_some_and(|token| token.kind == Kind::Sign)
    }

    /// A string, with the names that it holds as parts of their own.
    pub(super) fn interpolated(&self, at: usize) -> Value {
        if self.tokens.text(at).len() > STRING_BYTES {
            return Value::Unknown;
        }
        let mut parts: Vec<Value> = self
            .tokens
            .pieces(at)
            .into_iter()
            .take(ARGUMENTS)
            .map(|piece| match piece {
                Piece::Text(text) => Value::Text(text),
                Piece::Code(code) if is_name(&code) => Value::Name(code),
                Piece::Code(_) => Value::Unknown,
            })
            .collect();
        match parts.as_slice() {
            [] => Value::Text(String::new()),
            [Value::Text(_)] => parts.pop().unwrap_or(Value::Unknown),
            _ => Value::Join(parts),
        }
    }

    /// The call whose name starts at `at`, where there is one.
    pub(super) fn call(&self, at: usize) -> Option<Call> {
        let (callee, next) = self.dotted(at)?;
        self.call_of(callee, next, 0).map(|(call, _)| call)
    }

    pub(super) fn call_of(&self, callee: String, next: usize, depth: u32) -> Option<(Call, usize)> {
        if self.tokens.is_sign(next, "(") {
            let end = self.tokens.closing(next);
            let (args, named) = self.arguments(next + 1, end, depth);
            return Some((Call { callee, args, named }, end + 1));
        }
        let starts = match self.tokens.get(next).map(|token| token.kind) {
            Some(Kind::Text { .. } | Kind::Words) => true,
            // Perl's lists, `system $program, …`.
            Some(Kind::Name) => self.grammar.bare_calls && self.tokens.text(next).starts_with('$'),
            _ => false,
        };
        if !self.grammar.bare_calls || !starts {
            return None;
        }
        let end = self.statement_end(next);
        let (args, named) = self.arguments(next, end, depth);
        Some((Call { callee, args, named }, end))
    }

    /// Where a statement without parentheses ends: at `;`, a new line, a closing bracket, or a word such as `or`.
    fn statement_end(&self, mut at: usize) -> usize {
        let line = self.tokens.line(at);
        let mut last_line = line;
        for _ in 0..SKIPPED {
            let Some(token) = self.tokens.get(at) else { break };
            let text = self.tokens.text(at);
            let continues =
                at.checked_sub(1).is_some_and(|before| matches!(self.tokens.text(before), "," | "=>" | "."));
            let ends = match token.kind {
                Kind::Sign => matches!(text, ";" | ")" | "]" | "}" | "||" | "&&"),
                Kind::Name => matches!(text, "or" | "and" | "if" | "unless" | "do" | "rescue"),
                Kind::Newline => true,
                _ => false,
            };
            if ends || (token.line > last_line && !continues) {
                return at;
            }
            last_line = token.line;
            at = if matches!(text, "(" | "[" | "{") && token.kind == Kind::Sign {
                last_line = self.tokens.line(self.tokens.closing(at));
                self.tokens.closing(at) + 1
            } else {
                at + 1
            };
        }
        at
    }

    /// Arguments between `at` and `end`.
    fn arguments(&self, mut at: usize, end: usize, depth: u32) -> (Vec<Value>, Vec<(String, Value)>) {
        let (mut args, mut named) = (Vec::new(), Vec::new());
        while at < end && args.len() + named.len() < ARGUMENTS {
            let is_keyword = self.grammar.keyword.iter().any(|sign| self.tokens.is_sign(at + 1, sign));
            let key = self.tokens.name(at).filter(|_| is_keyword);
            let from = if key.is_some() { at + 2 } else { at };
            if self.tokens.get(from).is_some_and(|token| token.kind == Kind::Words) {
                args.extend(self.tokens.text(from).split_whitespace().map(|word| Value::Text(word.to_owned())));
                at = self.skip(from, end) + 1;
                continue;
            }
            let (value, next) = self.expression(from, end, depth);
            match key {
                Some(key) => named.push((key.to_owned(), value)),
                None => args.push(value),
            }
            at = next + 1;
        }
        (args, named)
    }

    /// The place of the next `,` at this level, or of what ends the statement. Not far: each name of a file may ask.
    fn skip(&self, mut at: usize, end: usize) -> usize {
        for _ in 0..SKIPPED {
            let Some(token) = self.tokens.get(at).filter(|_| at < end) else { break };
            if token.kind == Kind::Newline {
                break;
            }
            if token.kind == Kind::Sign {
                match self.tokens.text(at) {
                    "," | ";" => break,
                    "(" | "[" | "{" => at = self.tokens.closing(at),
                    _ => {}
                }
            }
            at += 1;
        }
        at.min(end)
    }

    /// The value at `at`, up to `end` or the next comma; and where it ends.
    pub(super) fn expression(&self, at: usize, end: usize, depth: u32) -> (Value, usize) {
        if depth > DEPTH {
            return (Value::Unknown, self.skip(at, end));
        }
        let (first, mut next) = self.operand(at, end, depth);
        let mut values = vec![first];
        let mut joins = false;
        let mut eithers = false;
        while next < end && values.len() < ARGUMENTS {
            let sign = self.tokens.text(next);
            let adjacent = self.tokens.string(next).is_some() && self.grammar.join.contains(&"");
            if adjacent {
                joins = true;
            } else if sign == ","
                || sign == ";"
                || self.tokens.get(next).is_some_and(|token| token.kind == Kind::Newline)
            {
                break;
            } else if self.grammar.join.contains(&sign) {
                joins = true;
            } else if self.grammar.either.contains(&sign) {
                eithers = true;
            } else if matches!(sign, "%" | ".format") && matches!(values.last(), Some(Value::Text(_))) {
                let skipped = self.skip(next, end);
                let text = values.pop().map_or(Value::Unknown, formatted);
                values.push(text);
                next = skipped;
                break;
            } else if sign == "if" || sign == "?" {
                // A choice: what it chooses is not known.
                return (self.choice(values.pop(), next, end, depth), self.skip(next, end));
            } else if matches!(sign, "as" | "!" | "unless" | "or" | "and") {
                next = self.skip(next, end);
                break;
            } else {
                return (Value::Unknown, self.skip(next, end));
            }
            let from = if adjacent { next } else { next + 1 };
            let (value, after) = self.operand(from, end, depth);
            values.push(value);
            if after <= next {
                return (Value::Unknown, self.skip(next + 1, end));
            }
            next = after;
        }
        let value = match (joins, eithers) {
            (true, true) => Value::Unknown,
            (true, false) => Value::Join(values),
            (false, true) => Value::Either(values),
            (false, false) => values.pop().unwrap_or(Value::Unknown),
        };
        (value, next)
    }

    /// `A if X else B`, `X ? A : B`: both, as alternatives, where they are the same; else not known.
    fn choice(&self, first: Option<Value>, at: usize, end: usize, depth: u32) -> Value {
        let stop = self.skip(at, end);
        let word = |from: usize, word: &str| (from..stop).find(|at| self.tokens.text(*at) == word);
        if self.tokens.is_sign(at, "?") {
            // `process.env.X ? process.env.X : 3000` reads as its last part would alone.
            let Some(colon) = word(at, ":") else { return Value::Unknown };
            let (yes, _) = self.expression(at + 1, colon, depth + 1);
            let (no, _) = self.expression(colon + 1, stop, depth + 1);
            return Value::Either(vec![yes, no]);
        }
        let Some(other) = word(at, "else") else { return first.unwrap_or(Value::Unknown) };
        let (no, _) = self.expression(other + 1, stop, depth + 1);
        Value::Either(vec![first.unwrap_or(Value::Unknown), no])
    }

    fn operand(&self, at: usize, end: usize, depth: u32) -> (Value, usize) {
        if at >= end || depth > DEPTH {
            return (Value::Unknown, at.max(self.skip(at, end)));
        }
        let Some(token) = self.tokens.get(at) else { return (Value::Unknown, end) };
        let text = self.tokens.text(at);
        let (value, mut next) = match token.kind {
            Kind::Text { .. } => (self.interpolated(at), at + 1),
            Kind::Number => (number(text).map_or(Value::Unknown, Value::Number), at + 1),
            Kind::Words => {
                (Value::List(text.split_whitespace().map(|word| Value::Text(word.to_owned())).collect()), at + 1)
            }
            Kind::Shell | Kind::Regex | Kind::Newline => (Value::Unknown, at + 1),
            Kind::Sign => match text {
                "[" | "{" | "(" => {
                    let close = self.tokens.closing(at).min(end);
                    (self.bracketed(at, close, depth), close + 1)
                }
                "+" | "*" | "..." | "\\" => return self.operand(at + 1, end, depth + 1),
                "-" => (Value::Unknown, at + 2),
                // A symbol, `:name`.
                ":" => (self.tokens.name(at + 1).map_or(Value::Unknown, |name| Value::Text(name.to_owned())), at + 2),
                _ => (Value::Unknown, at + 1),
            },
            Kind::Name => match text {
                "new" | "await" | "return" | "my" => return self.operand(at + 1, end, depth + 1),
                "True" | "true" => (Value::True, at + 1),
                "None" | "False" | "null" | "undefined" | "nil" | "false" | "undef" => (Value::Nothing, at + 1),
                "lambda" | "function" | "async" | "sub" => return (Value::Unknown, self.skip(at, end)),
                _ => self.named(at, depth),
            },
        };
        // What follows takes something out of the value, and the result is not known.
        let mut value = value;
        while next < end {
            let sign = self.tokens.text(next);
            let is_member = self.is_member_sign(next) && self.tokens.name(next + 1).is_some();
            if is_member && self.tokens.is_sign(next + 2, "(") {
                value = match (value, self.tokens.text(next + 1)) {
                    (Value::Text(text), "format") => formatted(Value::Text(text)),
                    (Value::Text(text), "split") => {
                        Value::List(text.split_whitespace().map(|word| Value::Text(word.to_owned())).collect())
                    }
                    (value, "to_i" | "to_s" | "strip" | "toString" | "freeze" | "trim" | "unwrap") => value,
                    _ => Value::Unknown,
                };
                next = self.tokens.closing(next + 2) + 1;
            } else if is_member {
                value = if matches!(self.tokens.text(next + 1), "to_i" | "to_s") { value } else { Value::Unknown };
                next += 2;
            } else if (sign == "[" || sign == "(") && self.tokens.line(next) == self.tokens.line(next.saturating_sub(1))
            {
                value = Value::Unknown;
                next = self.tokens.closing(next) + 1;
            } else if sign == "=>" && !self.grammar.keyword.contains(&"=>") {
                return (Value::Unknown, self.skip(next, end));
            } else {
                break;
            }
        }
        (value, next.min(end.max(at + 1)))
    }

    /// A name, a call, or a variable of the environment.
    fn named(&self, at: usize, depth: u32) -> (Value, usize) {
        let Some((name, next)) = self.dotted(at) else { return (Value::Unknown, at + 1) };
        let of_environment = |name: &str| self.grammar.environment.contains(&name);
        if let Some((holder, key)) = name.rsplit_once('.')
            && of_environment(holder)
            && !self.tokens.is_sign(next, "(")
        {
            return (Value::Env(key.to_owned()), next);
        }
        if of_environment(&name) && (self.tokens.is_sign(next, "[") || self.tokens.is_sign(next, "{")) {
            let close = self.tokens.closing(next);
            let key = self.tokens.string(next + 1).or_else(|| self.tokens.name(next + 1).map(str::to_owned));
            let is_one = close == next + 2;
            return (key.filter(|_| is_one).map_or(Value::Unknown, Value::Env), close + 1);
        }
        if self.tokens.is_sign(next, "(")
            && let Some((call, after)) = self.call_of(name.clone(), next, depth + 1)
        {
            return (Value::Call(Box::new(call)), after);
        }
        (Value::Name(name), next)
    }

    fn bracketed(&self, at: usize, close: usize, depth: u32) -> Value {
        let is_map = self.tokens.is_sign(at, "{");
        let (mut values, mut pairs) = (Vec::new(), Vec::new());
        let mut next = at + 1;
        let mut commas = 0u32;
        while next < close && values.len() + pairs.len() < ARGUMENTS {
            let key = self.tokens.string(next).or_else(|| self.tokens.name(next).map(str::to_owned));
            let separated = self.tokens.is_sign(next + 1, ":") || self.tokens.is_sign(next + 1, "=>");
            match key.filter(|_| separated) {
                Some(key) => {
                    let (value, after) = self.expression(next + 2, close, depth + 1);
                    pairs.push((key, value));
                    next = after;
                }
                None => {
                    let (value, after) = self.expression(next, close, depth + 1);
                    // `{port}` is `{port: port}`.
                    match value {
                        Value::Name(name) if is_map => pairs.push((name.clone(), Value::Name(name))),
                        value => values.push(value),
                    }
                    next = after;
                }
            }
            commas = commas.saturating_add(u32::from(self.tokens.is_sign(next, ",")));
            next += 1;
        }
        if !pairs.is_empty() {
            Value::Map(pairs)
        } else if self.tokens.is_sign(at, "(") && commas == 0 {
            values.pop().unwrap_or(Value::List(Vec::new()))
        } else {
            Value::List(values)
        }
    }
}

fn is_name(code: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$' | b'@');
    code.bytes().next().is_some_and(|byte| !byte.is_ascii_digit()) && code.bytes().all(part)
}

fn number(text: &str) -> Option<i64> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    match plain.get(..2) {
        Some("0x" | "0X") => i64::from_str_radix(plain.get(2..)?, 16).ok(),
        _ => plain.parse().ok(),
    }
}

/// A format with its fields as [`HOLE`]s: `%s` and `{}`.
fn formatted(value: Value) -> Value {
    let Value::Text(text) = value else { return Value::Unknown };
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '%' if rest.peek() == Some(&'%') => {
                out.push('%');
                rest.next();
            }
            '%' => {
                let mut inner = false;
                for skipped in rest.by_ref() {
                    inner = (inner || skipped == '(') && skipped != ')';
                    if skipped.is_ascii_alphabetic() && !inner {
                        break;
                    }
                }
                out.push(HOLE);
            }
            '{' => {
                rest.by_ref().find(|skipped| *skipped == '}');
                out.push(HOLE);
            }
            other => out.push(other),
        }
    }
    Value::Text(out)
}

/// Nesting of expressions that is read.
const DEPTH: u32 = 8;
/// Tokens gone over to find an expression's end.
const SKIPPED: usize = 1_000;
/// Bytes of a string that is kept: a command line or a path is shorter.
const STRING_BYTES: usize = 16 << 10;
/// Arguments of a call, elements of a list.
const ARGUMENTS: usize = 256;
const NAME_BYTES: usize = 200;
const CONSTANTS: usize = 10_000;
