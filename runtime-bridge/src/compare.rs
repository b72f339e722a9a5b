//! An act against what is expected: the heart of the bridge, pure.
//!
//! In: [`Expected`], an [`Activity`], its [`Standing`]. Out: deviations, none for what is expected. A dimension that was not worked
//! out raises nothing.

use std::net::IpAddr;

use dna::{Act, Activity, Change, Completeness, Origin, Outcome, Protocol, is_shell};

use crate::{
    Class, Deviation,
    expected::{Expected, Leads, Node},
    history::{self, History, Line, Phase, Standing},
    risk::Scene,
    sensitive,
    text::{self, Intent, Named},
};

/// Ports that the kernel gives to who asks for none: `net.ipv4.ip_local_port_range`, ip(7).
const EPHEMERAL: u16 = 32768;

/// The first port that needs no right (`net.ipv4.ip_unprivileged_port_start`).
const UNPRIVILEGED: u16 = 1024;

/// What came of comparing an activity.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What of it is not expected.
    pub deviations: Vec<Deviation>,
    /// The program that acts; none where the image has no such file.
    pub node: Option<Node>,
    /// What goes with the deviations, for their ranking; nothing where there is none.
    pub scene: Scene,
}

/// Compares an activity and keeps it in the container's history.
pub fn judge(expected: &Expected, history: &mut History, activity: &Activity) -> Vec<Deviation> {
    judge_accepting(expected, history, activity, |_| false).deviations
}

/// The same where somebody accepted some deviations: they are none, and what comes of them has not strayed.
pub fn judge_accepting(
    expected: &Expected,
    history: &mut History,
    activity: &Activity,
    is_accepted: impl Fn(&Deviation) -> bool,
) -> Judged {
    let standing = history.standing(expected, activity);
    let mut deviations = compare(expected, activity, &standing);
    deviations.retain(|deviation| !is_accepted(deviation));
    let line = match (&activity.act, deviations.first()) {
        (Act::Exec { .. }, Some(deviation)) if deviation.class == Class::CommandFromOutside => Line::Outside,
        (Act::Exec { .. }, Some(_)) => Line::Strayed,
        (Act::Exec { .. }, None) if is_login(expected, &standing) => Line::Login,
        _ => standing.line,
    };
    if let Act::Listen { protocol, port, .. } = activity.act
        && expected.listens(protocol, port)
    {
        history.serves();
    }
    history.settle(activity, &standing, line);
    let scene = if deviations.is_empty() { Scene::default() } else { Scene::new(expected, activity, &standing) };
    Judged { deviations, node: standing.node, scene }
}

/// What of an activity is not expected. One act may deviate in several ways.
#[must_use]
pub fn compare(expected: &Expected, activity: &Activity, standing: &Standing) -> Vec<Deviation> {
    let case = Case { expected, activity, standing };
    let mut found = Vec::new();
    match &activity.act {
        Act::Exec { file } => {
            found.extend(case.exec(file.as_deref()));
            found.extend(case.attempts());
        }
        Act::Listen { protocol, address, port } => found.extend(case.listen(*protocol, *address, *port)),
        Act::Connect { protocol, address, host, port } => {
            found.extend(case.connect(*protocol, *address, host.as_deref(), *port));
        }
        Act::Write { path, change } => found.extend(case.write(path, *change)),
        Act::Read { path } => found.extend(case.read(path)),
        Act::ConnectUnix { path } => found.extend(case.read(path)),
        Act::Syscall { name, arguments } => found.extend(case.syscall(name, arguments.as_deref())),
        Act::Capability { name } => found.extend(case.capability(name)),
        Act::Identity { call, id } => found.extend(case.identity(call, *id)),
        _ => {}
    }
    found
}

/// Whether an execution is somebody's login, from which any program of the image may be run.
fn is_login(expected: &Expected, standing: &Standing) -> bool {
    let by = standing.by.as_ref().and_then(|by| by.node);
    by.zip(standing.node).is_some_and(|(from, to)| expected.edge(from, to) == Some(Leads::Login))
}

/// A program's name, of a path or of `argv[0]`, which has a dash before it in a login shell.
fn name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word).trim_start_matches('-')
}

struct Case<'a> {
    expected: &'a Expected,
    activity: &'a Activity,
    standing: &'a Standing,
}

impl Case<'_> {
    fn deviation(
        &self,
        class: Class,
        subject: impl Into<String>,
        message: String,
        risk: f64,
        technique: &str,
    ) -> Deviation {
        let node = self.standing.node;
        let after = self.standing.by.as_ref().and_then(|by| by.node).map(|node| self.expected.path(node));
        let (risk, blocked) = match self.activity.outcome {
            Outcome::Done => (risk, false),
            Outcome::Failed { .. } => (risk * 0.7, false),
            _ => (risk * 0.4, true),
        };
        Deviation {
            class,
            subject: subject.into(),
            message,
            after,
            layer: node.and_then(|node| self.expected.layer(node)),
            package: node.and_then(|node| self.expected.package(node)).map(str::to_owned),
            risk,
            drivers: Vec::new(),
            technique: technique.to_owned(),
            blocked,
        }
    }

    /// The process as a person would name it.
    fn who(&self) -> String {
        let process = &self.activity.process;
        let name = self.standing.node.map(|node| self.expected.path(node)).or_else(|| process.exe.clone());
        name.or_else(|| process.name.clone()).unwrap_or_else(|| "a process".to_owned())
    }

    fn by(&self) -> Option<Node> {
        self.standing.by.as_ref().and_then(|by| by.node)
    }

    /// Whether what led to this process was not expected either.
    fn has_strayed(&self) -> bool {
        matches!(self.standing.line, Line::Strayed | Line::Outside)
    }

    fn exec(&self, file: Option<&str>) -> Option<Deviation> {
        if !self.activity.outcome.is_done() && self.standing.node.is_none() {
            // A name tried along the path.
            return None;
        }
        let process = &self.activity.process;
        let exe = process
            .exe
            .clone()
            .or_else(|| file.map(str::to_owned))
            .or_else(|| process.name.clone())
            .unwrap_or_default();
        let subject = self.standing.node.map_or_else(|| exe.clone(), |node| self.expected.path(node));
        let after = self.by().map(|node| format!(", started by {}", self.expected.path(node))).unwrap_or_default();
        match process.origin {
            Some(Origin::Memory) => {
                let message = format!("a program that is in memory only was executed{after}");
                return Some(self.deviation(Class::ProgramNotInImage, "memfd", message, 0.95, "T1620"));
            }
            Some(Origin::Written | Origin::Deleted) => {
                let message = format!(
                    "{exe} was executed{after}: the image does not have it, it was written in the running container"
                );
                return Some(self.deviation(Class::ProgramNotInImage, exe, message, 0.95, "T1105"));
            }
            _ => {}
        }
        let Some(node) = self.standing.node else {
            if exe.is_empty() {
                return None;
            }
            let message = format!("{exe} was executed{after}: the image has no such program");
            return Some(self.deviation(Class::ProgramNotInImage, exe, message, 0.9, "T1105"));
        };
        if self.standing.is_from_outside {
            return self.outside(node, subject);
        }
        if matches!(self.standing.line, Line::Check | Line::Beside) {
            return None;
        }
        if matches!(self.expected.completeness().exec, Completeness::None) {
            return None;
        }
        if self.standing.line == Line::Outside {
            let message = format!("{subject} was executed by a command from outside");
            return Some(self.deviation(Class::CommandFromOutside, subject, message, 0.5, "T1609"));
        }
        if self.expected.reached(node).is_none() {
            if self.is_read_as_expected(node) {
                return None;
            }
            let is_helper = self.by().is_some_and(|by| self.expected.is_helper(by, node));
            if self.has_strayed() || !is_helper {
                let message = format!(
                    "{subject} was executed{after}: the image has it, but nothing leads to it from the start command"
                );
                return Some(self.deviation(Class::ProgramNotReachable, subject, message, 0.8, "T1059"));
            }
        }
        if self.has_strayed() {
            let message = format!("{subject} was executed{after}, which was not expected itself");
            return Some(self.deviation(Class::StepNotPredicted, subject, message, 0.6, "T1059"));
        }
        self.step(node, subject)
    }

    /// Whether a script of the image is read by an interpreter that is expected here: which of its scripts a server is asked for, no
    /// configuration says.
    fn is_read_as_expected(&self, node: Node) -> bool {
        let reader = self.activity.process.exe.as_deref().and_then(|exe| self.expected.find(exe));
        let edge = self.by().zip(reader).and_then(|(by, reader)| self.expected.edge(by, reader));
        !self.has_strayed()
            && self.expected.is_script(node)
            && edge == Some(Leads::Here)
            && reader.is_some_and(|reader| !self.expected.is_shell(reader))
    }

    /// A command that the runtime started beside the start command.
    fn outside(&self, node: Node, subject: String) -> Option<Deviation> {
        if self.standing.line != Line::Outside {
            let is_reached = self.expected.reached(node).is_some() || self.standing.line != Line::Start;
            if is_reached || matches!(self.expected.completeness().exec, Completeness::None) {
                return None;
            }
            let message = format!(
                "the container was started with {subject}, which nothing leads to from the image's start command"
            );
            return Some(self.deviation(Class::ProgramNotReachable, subject, message, 0.6, "T1610"));
        }
        let line = self.activity.process.argv.join(" ");
        let message = format!("a command was started in the container from outside: {line}");
        Some(self.deviation(Class::CommandFromOutside, subject, message, 0.6, "T1609"))
    }

    /// An expected program, executed by one that is not expected to.
    fn step(&self, node: Node, subject: String) -> Option<Deviation> {
        let by = self.standing.by.as_ref()?;
        let from = by.node?;
        let expected = self.expected;
        // A multicall program is what it is called by, and akin to nothing, not even to itself.
        let called = self.called().filter(|_| expected.is_multicall(node));
        let is_predicted = |from: Node| match called {
            Some(name) => expected.calls_as(from, node, name),
            None => expected.edge(from, node).is_some() || expected.runs_by_shell(from, node),
        };
        let is_kin = |from: Node| called.is_none() && expected.are_kin(from, node);
        if self.standing.line == Line::Login || is_predicted(from) || is_kin(from) {
            return None;
        }
        // Text on a shell's command line belongs to whoever wrote it there. An interpreter that a shell is told to run reads other text
        // than that.
        if let Some(behind) = by.behind.filter(|_| by.is_inline)
            && (is_predicted(behind) && (expected.is_shell(node) || expected.edge(behind, node) != Some(Leads::Reader))
                || is_kin(behind) && !expected.is_interpreter(node))
        {
            return None;
        }
        // `#!/usr/bin/env bash`: the interpreter's interpreter.
        if expected.is_interpreter(node) && expected.is_script(from) && called.is_none_or(is_shell) {
            return None;
        }
        // What a shell reads from its input nobody can work out, and the program that writes there was to start it.
        if by.reads_input && called.is_none() && !expected.is_interpreter(node) {
            return None;
        }
        // What a program executes by its own code is followed only where it was worked out.
        let is_followed = expected.is_known(from) || expected.is_script(from) && expected.reached(from).is_some();
        if !is_followed && !by.is_inline {
            return None;
        }
        let source = expected.path(from);
        let subject = called.map_or_else(|| subject.clone(), |name| format!("{subject} as {name}"));
        let message =
            format!("{subject} was executed by {source}: the image has both, but nothing in {source} leads there");
        let is_shell = called.map_or_else(|| expected.is_shell(node), is_shell);
        let risk = if is_shell { 0.75 } else { 0.6 };
        Some(self.deviation(Class::StepNotPredicted, subject, message, risk, "T1059.004"))
    }

    /// The name that the process's program is called by; busybox(1) and its like take it from their first argument too.
    fn called(&self) -> Option<&str> {
        let process = &self.activity.process;
        let first = name(process.argv.first().or(process.name.as_ref())?);
        let path = self.standing.node.map(|node| self.expected.path(node));
        if path.as_deref().map(name) == Some(first) {
            return process.argv.iter().skip(1).find(|word| !word.starts_with('-')).map(|word| name(word));
        }
        Some(first).filter(|name| !name.is_empty())
    }

    /// Sensitive files that the command line names, whether or not it comes to them.
    fn attempts(&self) -> Vec<Deviation> {
        let is_asked_for = self.standing.is_from_outside && self.standing.line != Line::Outside;
        if is_asked_for || self.standing.phase == Phase::Startup && !self.has_strayed() {
            return Vec::new();
        }
        let argv = &self.activity.process.argv;
        let named = match history::inline(argv).filter(|_| self.standing.is_inline) {
            Some(text) => text::of_shell(&text),
            None => text::of_command(&argv.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        let by = self.by();
        let is_expected = |named: &Named| match named.intent {
            Intent::Read => self.standing.line != Line::Login && self.expected.reads(self.standing.node, &named.path),
            Intent::Write => {
                self.standing.line != Line::Login
                    && (self.expected.writes(self.standing.node, &named.path) || self.expected.writes(by, &named.path))
            }
        };
        let named = named.into_iter().filter(|named| self.has_strayed() || !is_expected(named));
        named
            .map(|Named { path, intent, stake }| {
                let (class, verb) = match intent {
                    Intent::Read => (Class::SensitiveRead, "reads"),
                    Intent::Write => (Class::Write, "changes"),
                };
                let message = format!("a command line of {} {verb} {path}: {}", self.who(), stake.what);
                self.deviation(class, path, message, stake.risk, stake.technique)
            })
            .collect()
    }

    fn listen(&self, protocol: Protocol, address: Option<IpAddr>, port: u16) -> Option<Deviation> {
        if self.expected.listens(protocol, port) && !self.has_strayed() {
            return None;
        }
        let is_unknown = matches!(self.expected.completeness().listen, Completeness::None);
        // A port that nobody named: of passive FTP; where the answer to a datagram comes, which who asks may choose at random among
        // all that need no right (RFC 5452, 9.2).
        let is_chosen = match protocol {
            Protocol::Udp => port >= UNPRIVILEGED || address.is_some_and(|address| address.is_loopback()),
            _ => port >= EPHEMERAL,
        };
        if !self.has_strayed() && (is_unknown || is_chosen) {
            return None;
        }
        let protocol = format!("{protocol:?}").to_lowercase();
        let message = format!("{} listens on {protocol} port {port}, which nothing in the image opens", self.who());
        Some(self.deviation(Class::Listen, format!("{protocol}/{port}"), message, 0.8, "T1571"))
    }

    fn connect(&self, protocol: Protocol, address: Option<IpAddr>, host: Option<&str>, port: u16) -> Option<Deviation> {
        // connect(2) of a datagram socket to port 0 sorts addresses, getaddrinfo(3); it sends nothing.
        if port == 0 {
            return None;
        }
        let text = address.map(|address| address.to_string());
        let names: Vec<&str> = [text.as_deref(), host].into_iter().flatten().collect();
        let peer = names.last().copied().unwrap_or("a peer").to_owned();
        let is_metadata = address.is_some_and(is_metadata);
        if self.is_shell() && !address.is_none_or(|address| address.is_unspecified()) {
            let message = format!("a shell, {}, calls {peer} at port {port}: commands from elsewhere", self.who());
            return Some(self.deviation(Class::Connect, format!("shell/{peer}:{port}"), message, 0.85, "T1059.004"));
        }
        if !self.has_strayed() {
            let is_resolver = port == 53;
            let is_unknown = matches!(self.expected.completeness().connect, Completeness::None);
            // What is served is asked for by its own software too: to stop it, or how it is.
            let is_own = address.is_some_and(|address| address.is_loopback()) && self.expected.listens(protocol, port);
            if self.expected.connects(&names, port) || is_resolver || is_own || (is_unknown && !is_metadata) {
                return None;
            }
            // Names in configuration lead to addresses within the cluster; which ones, no image tells.
            if !is_metadata && address.is_none_or(is_private) && self.may_connect() {
                return None;
            }
        }
        let protocol = format!("{protocol:?}").to_lowercase();
        let (risk, technique) = match address {
            Some(_) if is_metadata => (0.85, "T1552.005"),
            Some(address) if !is_private(address) => (0.7, "T1071"),
            _ => (0.55, "T1071"),
        };
        let message =
            format!("{} calls {peer} at {protocol} port {port}, which nothing in the image names", self.who());
        Some(self.deviation(Class::Connect, format!("{protocol}/{peer}:{port}"), message, risk, technique))
    }

    /// Whether the process is a shell, by the name it goes by: one file may be a shell and much else.
    fn is_shell(&self) -> bool {
        let name = self.activity.process.argv.first().and_then(|word| word.rsplit('/').next());
        name.is_some_and(|name| is_shell(name.trim_start_matches('-')))
            && self.standing.node.is_some_and(|node| self.expected.is_shell(node))
    }

    /// Whether the program calls anybody: it can reach connect(2), or its code is not known.
    fn may_connect(&self) -> bool {
        self.standing.node.is_none_or(|node| !self.expected.is_known(node))
            || self.expected.calls(self.standing.node, "connect")
    }

    fn write(&self, path: &str, change: Change) -> Option<Deviation> {
        if !self.activity.outcome.is_done() {
            return None;
        }
        let stake = match change {
            Change::Remove | Change::Truncate => sensitive::removed(path)?,
            _ => sensitive::written(path)?,
        };
        let is_expected = self.expected.writes(self.standing.node, path);
        let is_at_start = self.standing.phase == Phase::Startup && stake.is_usual_at_start;
        if !self.has_strayed() && (is_expected || is_at_start || self.standing.line == Line::Check) {
            return None;
        }
        let verb = match change {
            Change::Remove => "removed",
            Change::Rename => "put in place",
            Change::Mode => "changed the mode of",
            Change::Owner => "changed the owner of",
            _ => "wrote",
        };
        let message = format!("{} {verb} {path} ({}), which nothing in the image does", self.who(), stake.what);
        Some(self.deviation(Class::Write, path, message, stake.risk, stake.technique))
    }

    fn read(&self, path: &str) -> Option<Deviation> {
        let stake = sensitive::read(path)?;
        if is_own(path, self.activity.process.pid) {
            return None;
        }
        let is_expected = match self.standing.line {
            Line::Check | Line::Beside => true,
            // What a login may run was not worked out: that the server reads a file says nothing of it.
            Line::Login if self.is_unknown_program() => false,
            _ => self.expected.reads(self.standing.node, path),
        };
        if (is_expected || self.is_unknown_helper()) && !self.has_strayed() {
            return None;
        }
        let message = format!("{} read {path}: {}", self.who(), stake.what);
        Some(self.deviation(Class::SensitiveRead, path, message, stake.risk, stake.technique))
    }

    /// Whether nothing is known of what the program does: its own behavior was not worked out.
    fn is_unknown_program(&self) -> bool {
        self.standing.node.is_none_or(|node| !self.expected.is_known(node))
    }

    /// Whether it is a helper whose code nobody looked at, and that was started as helpers are.
    fn is_unknown_helper(&self) -> bool {
        let node = self.standing.node.filter(|node| self.expected.reached(*node).is_none());
        node.is_some() && self.is_unknown_program() && !self.has_strayed() && self.standing.line != Line::Login
    }

    fn syscall(&self, name: &str, arguments: Option<&str>) -> Option<Deviation> {
        if name == "socket" {
            return self.socket(arguments?);
        }
        let (technique, risk) = sensitive::system_call(name)?;
        let is_unknown = matches!(self.expected.completeness().syscalls, Completeness::None);
        let is_expected = self.expected.calls(self.standing.node, name);
        // What a login may run was not worked out, so its calls are nobody's.
        let is_foreign = self.has_strayed() || self.standing.line == Line::Login && self.is_unknown_program();
        if !is_foreign && (is_expected || is_unknown || self.is_unknown_helper()) {
            return None;
        }
        let message = format!("{} called {name}(2), which no expected program can reach", self.who());
        Some(self.deviation(Class::Syscall, name, message, risk, technique))
    }

    /// A socket that sees or makes others' packets: packet(7), raw(7).
    fn socket(&self, arguments: &str) -> Option<Deviation> {
        let mut numbers = arguments.split_ascii_whitespace().map(number);
        let (domain, kind) = (numbers.next().flatten()?, numbers.next().flatten()?);
        const INET: u64 = 2;
        const INET6: u64 = 10;
        const PACKET: u64 = 17;
        const RAW: u64 = 3;
        let is_raw = domain == PACKET || matches!(domain, INET | INET6) && kind & 0xf == RAW;
        // Of a program that was not worked out it is not known what it needs.
        let is_expected = self.expected.needs("CAP_NET_RAW") || self.is_unknown_program();
        if !is_raw || !self.has_strayed() && is_expected && self.standing.line != Line::Login {
            return None;
        }
        let message = format!("{} opened a raw socket, which nothing in the image needs", self.who());
        Some(self.deviation(Class::Syscall, "socket:raw", message, 0.7, "T1046"))
    }

    fn capability(&self, name: &str) -> Option<Deviation> {
        let is_unknown = matches!(self.expected.completeness().capabilities, Completeness::None);
        if !self.has_strayed() && (is_unknown || self.expected.needs(name)) {
            return None;
        }
        let message = format!("{} used {name}, which nothing in the image needs", self.who());
        Some(self.deviation(Class::Capability, name, message, 0.5, "T1548"))
    }

    fn identity(&self, call: &str, id: Option<u32>) -> Option<Deviation> {
        let becomes_root =
            id == Some(0) && self.activity.process.uid.is_some_and(|uid| uid != 0) && call.contains("uid");
        if !becomes_root || !self.activity.outcome.is_done() {
            return None;
        }
        let is_expected = self.expected.needs("CAP_SETUID") && !self.has_strayed() && self.standing.line != Line::Login;
        if is_expected {
            return None;
        }
        let message = format!("{} became root by {call}(2)", self.who());
        Some(self.deviation(Class::Identity, "root", message, 0.7, "T1548.001"))
    }
}

/// A number as strace(1) and Falco write them.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Whether a path below /proc is the process' own.
fn is_own(path: &str, pid: Option<u32>) -> bool {
    let Some(rest) = path.strip_prefix("/proc/") else { return false };
    let of = rest.split('/').next().unwrap_or_default();
    of == "self" || of == "thread-self" || pid.is_some_and(|pid| of == pid.to_string())
}

/// The clouds' metadata services.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            matches!(address.octets(), [169, 254, 169, 254] | [169, 254, 170, 2] | [100, 100, 100, 200])
        }
        IpAddr::V6(address) => address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}

/// Whether an address is within the node, the cluster or the site.
pub(crate) fn is_private(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    match address {
        IpAddr::V4(address) => {
            // RFC 1918; RFC 6598, which clusters use for pods.
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
                || matches!(address.octets(), [100, 64..=127, ..])
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
pub(crate) mod tests;
