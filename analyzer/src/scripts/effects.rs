//! What calls do: a file's calls and constants in, commands, ports, peers and files out.
//!
//! How sure: the application's own constants are expected to be used; a package's only where they stand at the top of a file. What a
//! package's functions do is possible where it is constant, and what the interpreter's own library may do in functions that nobody is
//! seen to call is left out.

use std::{cell::Cell, collections::HashSet};

use dna::{Confidence, Connect, Evidence, ImagePath, Known, Listen, Protocol, Subject, Write};

use super::{
    Command, Module, Origin, Place, Scope, Summary, Value, Walk,
    calls::{Call, Site},
    known_env,
    tokens::HOLE,
};
use crate::shell::{Arg, NOT_KNOWN};

/// A call and what it does. A callee with a leading dot is a method of anything; `a.B().c` one of what `a.B()` returns.
pub(super) type Rule = (&'static str, Effect);

/// What a call does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// The first argument is a list of words, or a program; with `shell=True` a line. Python's subprocess.
    Command,
    /// This argument is a line for a shell.
    Line(usize),
    /// A single word is a line for a shell, more are a program and its arguments.
    LineOrWords,
    /// The arguments from this one on are a program and its arguments.
    Words(usize),
    /// A program, and a list of arguments; where `named`, the list begins with the program's name.
    Program { program: usize, list: usize, named: bool },
    /// A module for the same interpreter: Node's fork.
    Fork,
    /// A port: the keyword `port` or this argument, which may be an address of host and port; else the default.
    Listen { port: usize, host: usize, default: Option<u16> },
    /// A port, only where the keyword is written.
    ListenNamed,
    /// A peer: keywords `host` and `port`, or an address of both.
    Connect,
    /// A file and a mode.
    Open { path: usize, mode: usize },
    /// A file is written.
    Write(usize),
    /// A file of any name in the folder for temporary files.
    Temporary,
}

/// What a file's expressions are worked out with.
struct Context<'a> {
    scope: &'a Scope,
    walk: &'a Walk<'a>,
    module: &'a Module,
    /// Steps left: constants made of constants could take for ever.
    fuel: Cell<u32>,
}

/// Adds what the calls of a file do.
pub(super) fn apply(walk: &mut Walk<'_>, module: &Module, summary: &Summary, confidence: Confidence) {
    for site in summary.sites.iter().filter(|site| site.place != Place::Never) {
        let is_application = module.origin == Origin::Application;
        let sureness = match (is_application, site.place) {
            (true, _) | (false, Place::Top) => Confidence::Likely,
            (false, _) if module.origin == Origin::Package => Confidence::Possible,
            // Only temporary files: everything that makes one does it by the standard library.
            (false, _) => continue,
        };
        let name = full_callee(&site.call.callee, &summary.scope);
        // A full name says more than a method's.
        let rules = walk.language.effects;
        let rule = rules.iter().find(|(rule, _)| *rule == name);
        let rule = rule.or_else(|| rules.iter().find(|(rule, _)| rule.starts_with('.') && name.ends_with(rule)));
        let Some((_, effect)) = rule else { continue };
        one(walk, module, summary, site, *effect, confidence.max(sureness), is_application);
    }
}

/// The last parts of the names of calls that may do anything.
pub(super) fn last_parts(rules: &[Rule]) -> HashSet<&'static str> {
    rules.iter().filter_map(|(rule, _)| rule.rsplit('.').next()).chain(GETTERS.iter().copied()).collect()
}

/// A callee with imported names spelled out, and variables replaced by the call that made them.
fn full_callee(callee: &str, scope: &Scope) -> String {
    let full = scope.full_name(callee);
    if let Some((first, rest)) = full.split_once('.')
        && let Some(Value::Call(maker)) = scope.constants.get(first)
    {
        return format!("{}().{rest}", scope.full_name(&maker.callee));
    }
    full
}

fn one(
    walk: &mut Walk<'_>,
    module: &Module,
    summary: &Summary,
    site: &Site,
    effect: Effect,
    confidence: Confidence,
    is_application: bool,
) {
    let call = &site.call;
    let evidence = walk.evidence(module, site.line, format!("{}(…)", call.callee.trim_start_matches('.')));
    let context = Context { scope: &summary.scope, walk, module, fuel: Cell::new(FUEL) };
    let value = |index: usize| call.args.get(index).map_or(Value::Nothing, |value| context.value(value, 0));
    let keyword = |name: &str| {
        let value = call.named.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        // Node and PHP pass options as a map.
        let of_map = || {
            call.args.iter().find_map(|arg| match arg {
                Value::Map(pairs) => pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value),
                _ => None,
            })
        };
        value.or_else(of_map).map(|value| context.value(value, 0))
    };
    match effect {
        Effect::Command => {
            let is_line = matches!(keyword("shell"), Some(Value::True));
            let argument =
                call.args.first().or_else(|| call.named.iter().find(|(name, _)| name == "args").map(|(_, v)| v));
            let argv = match argument.map_or(Value::Unknown, |value| context.value(value, 0)) {
                Value::List(words) if is_line => shell(words.first().and_then(line)),
                Value::List(words) => words.iter().map(text).collect(),
                value if is_line => shell(line(&value)),
                value => vec![text(&value)],
            };
            run(walk, argv, Vec::new(), evidence, confidence, is_application);
        }
        Effect::Line(index) => {
            run(walk, shell(line(&value(index))), Vec::new(), evidence, confidence, is_application);
        }
        Effect::LineOrWords => {
            let words: Vec<Value> = call
                .args
                .iter()
                .flat_map(|arg| match context.value(arg, 0) {
                    Value::List(words) => words,
                    // Ruby's first argument may be a hash of variables, its last one of options.
                    Value::Map(_) => Vec::new(),
                    value => vec![value],
                })
                .collect();
            let argv = match words.as_slice() {
                [only] => shell(line(only)),
                words => words.iter().map(text).collect(),
            };
            run(walk, argv, Vec::new(), evidence, confidence, is_application);
        }
        Effect::Words(from) => {
            let argv = (from..call.args.len()).map(|index| text(&value(index))).collect();
            run(walk, argv, Vec::new(), evidence, confidence, is_application);
        }
        Effect::Program { program, list, named } => {
            if matches!(keyword("shell"), Some(Value::True)) {
                run(walk, shell(line(&value(program))), Vec::new(), evidence, confidence, is_application);
                return;
            }
            let mut argv = vec![text(&value(program))];
            if let Value::List(words) = value(list) {
                argv.extend(words.iter().skip(usize::from(named)).map(text));
            }
            run(walk, argv, Vec::new(), evidence, confidence, is_application);
        }
        Effect::Fork => {
            let program = Some(walk.process.program.to_string_lossy().into_owned());
            let argv = vec![program, text(&value(0))];
            run(walk, argv, Vec::new(), evidence, confidence, is_application);
        }
        Effect::Listen { port, host, default } => {
            let (mut address, mut number) = (keyword("host").or_else(|| keyword("hostname")), keyword("port"));
            if let (None, Some(argument)) = (&number, call.args.get(port)) {
                match context.value(argument, 0) {
                    Value::List(parts) => {
                        address = parts.first().cloned();
                        number = parts.get(1).cloned();
                    }
                    Value::Map(_) => {}
                    value => {
                        address = address.or_else(|| call.args.get(host).map(|_| value_at(&context, call, host)));
                        number = Some(value);
                    }
                }
            }
            let is_datagram = context.is_datagram(&call.callee);
            let number = number.or(default.map(|port| Value::Number(i64::from(port))));
            listen(walk, number, address, is_datagram, evidence, confidence, is_application);
        }
        Effect::ListenNamed => {
            if let Some(number) = keyword("port") {
                let address = keyword("host");
                listen(walk, Some(number), address, false, evidence, confidence, is_application);
            }
        }
        Effect::Connect => {
            let parts = match value(0) {
                Value::List(parts) => parts,
                _ => Vec::new(),
            };
            let host = keyword("host").or_else(|| parts.first().cloned()).as_ref().and_then(text);
            let port = keyword("port").or_else(|| parts.get(1).cloned()).as_ref().and_then(port_of);
            if let Some(host) = host.filter(|host| is_host(host)) {
                let what = Connect { host: dna::redact(&host).into_owned(), port, protocol: Protocol::Tcp };
                let item = Known {
                    what,
                    confidence: Confidence::Possible,
                    probability: None,
                    when: Vec::new(),
                    evidence: vec![evidence],
                };
                walk.findings.connect.push(item);
            }
        }
        Effect::Open { path, mode } => {
            let mode = keyword("mode").or_else(|| Some(value(mode))).as_ref().and_then(text).unwrap_or_default();
            if mode.contains(['w', 'a', 'x', '+', '>']) {
                let path = context.path(&value(path));
                write(walk, path, evidence, confidence, is_application);
            }
        }
        Effect::Write(index) => {
            let path = context.path(&value(index));
            write(walk, path, evidence, confidence, is_application);
        }
        Effect::Temporary => {
            let folder = keyword("dir").as_ref().and_then(text);
            let given = folder.or_else(|| known_env(walk.process).get("TMPDIR").map(|folder| (*folder).to_owned()));
            let folder = given.unwrap_or_else(|| "/tmp".to_owned());
            write(walk, Some(format!("{}/**", folder.trim_end_matches('/'))), evidence, confidence, true);
        }
    }
}

fn value_at(context: &Context<'_>, call: &Call, index: usize) -> Value {
    call.args.get(index).map_or(Value::Nothing, |value| context.value(value, 0))
}

/// A line for a shell; what is not known of it stands there as a variable, but for the program's name.
fn line(value: &Value) -> Arg {
    match value {
        Value::Text(text) if text.contains(HOLE) => {
            let is_named = text.split_whitespace().next().is_some_and(|word| !word.contains(HOLE));
            is_named.then(|| text.replace(HOLE, &format!("\"${NOT_KNOWN}\"")))
        }
        value => text(value),
    }
}

fn shell(line: Arg) -> Vec<Arg> {
    vec![Some("/bin/sh".to_owned()), Some("-c".to_owned()), line]
}

pub(super) fn run(
    walk: &mut Walk<'_>,
    argv: Vec<Arg>,
    mut env: Vec<(String, Arg)>,
    evidence: Evidence,
    confidence: Confidence,
    is_application: bool,
) {
    let is_partly_known = argv.iter().flatten().any(|word| word.contains(NOT_KNOWN));
    if is_partly_known {
        env.push((NOT_KNOWN.to_owned(), None));
    }
    let is_constant = !is_partly_known && argv.iter().all(Option::is_some);
    if argv.is_empty()
        || (!is_application && (argv.first().is_none_or(Option::is_none) || !is_constant && argv.len() == 3))
    {
        return;
    }
    // A command that depends on what is not known is not expected, only possible.
    let confidence = if is_constant { confidence } else { Confidence::Possible };
    walk.findings.runs.push(Command { argv, env, confidence, evidence });
}

fn listen(
    walk: &mut Walk<'_>,
    port: Option<Value>,
    address: Option<Value>,
    is_datagram: bool,
    evidence: Evidence,
    confidence: Confidence,
    is_application: bool,
) {
    if !is_application && confidence == Confidence::Possible {
        return;
    }
    let port = port.unwrap_or(Value::Nothing);
    match port_of(&port) {
        Some(number) => {
            let protocol = if is_datagram { Protocol::Udp } else { Protocol::Tcp };
            let address = address.as_ref().and_then(text).filter(|address| is_host(address));
            let what = Listen { protocol, port: number, address, claimed: false };
            walk.findings.listen.push(Known {
                what,
                confidence,
                probability: None,
                when: Vec::new(),
                evidence: vec![evidence],
            });
        }
        None if matches!(port, Value::Unknown | Value::Name(_)) && is_application => {
            if let Evidence::File { path, .. } = &evidence {
                let path = path.clone();
                walk.unknown(&path, Subject::Listen, "listens on a port that is no constant".to_owned());
            }
        }
        None => {}
    }
}

fn write(walk: &mut Walk<'_>, path: Option<String>, evidence: Evidence, confidence: Confidence, is_application: bool) {
    let Some(path) = path else { return };
    if !is_application && !path.starts_with('/') {
        return;
    }
    let glob: String = path.replace(HOLE, "*");
    let Ok(path) = walk.process.cwd.join(glob.as_bytes()) else { return };
    // A path that starts unknown says nothing.
    if path.components().next().is_none_or(|first| first.contains(&b'*')) || path.as_bytes().starts_with(b"/dev/") {
        return;
    }
    walk.findings.write.push(Known {
        what: Write { path },
        confidence,
        probability: None,
        when: Vec::new(),
        evidence: vec![evidence],
    });
}

/// The text of a value without holes.
fn text(value: &Value) -> Arg {
    match value {
        Value::Text(text) if !text.contains(HOLE) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn port_of(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(number) => u16::try_from(*number).ok(),
        Value::Text(text) => {
            // `tcp://0.0.0.0:80`, `:80`, `80`.
            text.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok())
        }
        _ => None,
    };
    number.filter(|port| *port != 0)
}

impl Context<'_> {
    /// A value with constants, variables of the environment and known functions worked out.
    fn value(&self, value: &Value, depth: u32) -> Value {
        let fuel = self.fuel.get();
        if depth > DEPTH || fuel == 0 {
            return Value::Unknown;
        }
        self.fuel.set(fuel - 1);
        let next = |value: &Value| self.value(value, depth + 1);
        match value {
            Value::Name(name) => self.name(name, depth),
            Value::Env(name) => self.variable(name),
            Value::List(values) => Value::List(values.iter().map(next).collect()),
            Value::Map(pairs) => Value::Map(pairs.iter().map(|(key, value)| (key.clone(), next(value))).collect()),
            Value::Either(values) => {
                let mut last = Value::Nothing;
                for value in values {
                    last = next(value);
                    let is_empty = matches!(&last, Value::Text(text) if text.is_empty());
                    if !matches!(last, Value::Nothing | Value::Unknown | Value::Number(0)) && !is_empty {
                        break;
                    }
                }
                last
            }
            Value::Join(values) => {
                let mut out = String::new();
                for value in values {
                    match next(value) {
                        Value::Text(part) if out.len() < TEXT_BYTES => out.push_str(&part),
                        Value::Number(number) => out.push_str(&number.to_string()),
                        _ => out.push(HOLE),
                    }
                }
                Value::Text(out)
            }
            Value::Call(call) => self.called(call, depth),
            other => other.clone(),
        }
    }

    fn name(&self, name: &str, depth: u32) -> Value {
        let folder = || self.module.file.path.parent().unwrap_or_else(ImagePath::root).to_string_lossy().into_owned();
        match name {
            "__file__" | "__filename" | "__FILE__" => Value::Text(self.module.file.path.to_string_lossy().into_owned()),
            "__dirname" | "__DIR__" | "__dir__" => Value::Text(folder()),
            _ if self.scope.full_name(name) == "sys.executable" || name == "process.execPath" => {
                Value::Text(self.walk.process.program.to_string_lossy().into_owned())
            }
            _ => self.scope.constants.get(name).map_or(Value::Unknown, |value| self.value(value, depth + 1)),
        }
    }

    fn variable(&self, name: &str) -> Value {
        match self.walk.process.env.get(name) {
            Some(Some(value)) => Value::Text(value.clone()),
            Some(None) => Value::Unknown,
            None => Value::Nothing,
        }
    }

    fn called(&self, call: &Call, depth: u32) -> Value {
        let full = self.scope.full_name(&call.callee);
        let last = full.rsplit('.').next().unwrap_or_default();
        let arg = |index: usize| call.args.get(index).map_or(Value::Nothing, |value| self.value(value, depth + 1));
        if is_getter(&full) {
            let Value::Text(name) = arg(0) else { return Value::Unknown };
            return match self.variable(&name) {
                Value::Nothing => match call.named.iter().find(|(name, _)| name == "default") {
                    Some((_, value)) => self.value(value, depth + 1),
                    None => arg(1),
                },
                known => known,
            };
        }
        match last {
            "int" | "str" | "Number" | "parseInt" | "String" | "Integer" | "float" | "intval" | "abspath"
            | "realpath" | "normpath" | "fspath" | "Path" | "PurePath" | "expanduser" | "resolve" | "expand_path"
                if call.args.len() <= 1 || matches!(last, "int" | "parseInt" | "Integer") =>
            {
                arg(0)
            }
            "join" | "resolve" | "Path" if !call.args.is_empty() && full != ".join" => {
                let parts: Vec<String> = (0..call.args.len())
                    .map(|index| match arg(index) {
                        Value::Text(text) => text,
                        _ => HOLE.to_string(),
                    })
                    .collect();
                let mut out = String::new();
                for part in parts.into_iter().filter(|part| part.len() < TEXT_BYTES) {
                    if part.starts_with('/') && full.starts_with("os.") {
                        out.clear();
                    } else if !out.is_empty() && !out.ends_with('/') {
                        out.push('/');
                    }
                    out.push_str(&part);
                }
                Value::Text(out)
            }
            "dirname" => match arg(0) {
                Value::Text(path) => Value::Text(path.rsplit_once('/').map_or(".", |(folder, _)| folder).to_owned()),
                _ => Value::Unknown,
            },
            "gettempdir" | "tmpdir" | "sys_get_temp_dir" => match self.variable("TMPDIR") {
                Value::Nothing => Value::Text("/tmp".to_owned()),
                known => known,
            },
            "getcwd" | "cwd" => Value::Text(self.walk.process.cwd.to_string_lossy().into_owned()),
            "which" => arg(0),
            "split" => match arg(0) {
                Value::Text(line) if !line.contains(HOLE) => {
                    Value::List(line.split_whitespace().map(|word| Value::Text(word.to_owned())).collect())
                }
                _ => Value::Unknown,
            },
            _ => Value::Unknown,
        }
    }

    /// A path: text, or a list of one.
    fn path(&self, value: &Value) -> Option<String> {
        match value {
            // One that starts unknown may be anywhere.
            Value::Text(path) if !path.is_empty() && !path.starts_with(HOLE) && !path.contains("://") => {
                Some(path.clone())
            }
            _ => None,
        }
    }

    /// Whether the thing a method is called on is a socket for datagrams.
    fn is_datagram(&self, callee: &str) -> bool {
        let holder = callee.rsplit_once('.').map_or("", |(holder, _)| holder);
        let is = |value: &Value| match value {
            Value::Name(name) => name.ends_with("SOCK_DGRAM"),
            Value::Text(name) => name.starts_with("udp"),
            _ => false,
        };
        matches!(self.scope.constants.get(holder), Some(Value::Call(call)) if call.args.iter().any(is))
    }
}

/// Whether a call reads the environment.
pub(super) fn is_getter(full: &str) -> bool {
    matches!(
        full,
        "os.environ.get" | "os.getenv" | "environ.get" | "getenv" | "ENV.fetch" | "env" | "os.environ.setdefault"
    )
}

/// The peer that a constant address names; never its credentials.
pub(crate) fn peer(word: &str, evidence: &Evidence) -> Option<Known<Connect>> {
    let (scheme, rest) = word.split_once("://")?;
    let default = SCHEMES.iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known)).map(|(_, port)| *port)?;
    let authority = rest.split(['/', '?', '#', ' ', '"', '\'', '<', '>', ')']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port.parse::<u16>().ok().filter(|port| *port != 0)?)),
        _ => (host, default),
    };
    if !is_host(host) || host.is_empty() {
        return None;
    }
    let what = Connect { host: dna::redact(host).into_owned(), port, protocol: Protocol::Tcp };
    Some(Known {
        what,
        confidence: Confidence::Possible,
        probability: None,
        when: Vec::new(),
        evidence: vec![evidence.clone()],
    })
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
        && host.bytes().any(|byte| byte.is_ascii_alphanumeric() || byte == b':')
}

/// Functions whose arguments name an environment variable, by their last part.
const GETTERS: &[&str] = &["getenv", "get", "fetch", "setdefault"];

/// Ports by scheme. Source: IANA's registry, and each server's documentation.
const SCHEMES: &[(&str, Option<u16>)] = &[
    ("http", Some(80)),
    ("https", Some(443)),
    ("ws", Some(80)),
    ("wss", Some(443)),
    ("ftp", Some(21)),
    ("redis", Some(6379)),
    ("rediss", Some(6379)),
    ("postgres", Some(5432)),
    ("postgresql", Some(5432)),
    ("postgresql+psycopg2", Some(5432)),
    ("mysql", Some(3306)),
    ("mysql+pymysql", Some(3306)),
    ("mongodb", Some(27017)),
    ("mongodb+srv", None),
    ("amqp", Some(5672)),
    ("amqps", Some(5671)),
    ("nats", Some(4222)),
    ("kafka", Some(9092)),
    ("mqtt", Some(1883)),
    ("ldap", Some(389)),
    ("ldaps", Some(636)),
    ("smtp", Some(25)),
    ("memcached", Some(11211)),
];

/// Values looked at for one call.
const FUEL: u32 = 2_000;
/// Constants made of constants.
const DEPTH: u32 = 12;
/// Bytes of one string put together.
const TEXT_BYTES: usize = 64 << 10;
