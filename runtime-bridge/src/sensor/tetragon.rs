//! Tetragon's JSON: a line of its export file, or of `tetra getevents -o json`.
//!
//! Source: cilium/tetragon `api/v1/tetragon/{events,tetragon}.proto` (1.4). Names are as in the files, numbers of 64 bits are texts,
//! what has its default value is left out. What a hook says follows from the function and the types of its arguments, never from
//! a policy's name or from how many arguments it asks for.

use std::{net::IpAddr, sync::Arc};

use dna::{Act, Activity, Change, Origin, Outcome, Process, Protocol, SeenContainer};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Loss, Malformed, NOT_COMPARED, OF_THE_HOST, Told, container_id, image_digest, image_name, kernel,
    lenient::{Nested, Number, Text},
};
use crate::limits::{self, ANCESTORS, FIELDS, WORDS};

const AGAIN: &str = "a step of an execution that is told of again when it is done";

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    time: Text<'a>,
    #[serde(borrow)]
    node_name: Text<'a>,
    #[serde(borrow)]
    process_exec: Nested<Of<'a>>,
    #[serde(borrow)]
    process_exit: Nested<Of<'a>>,
    #[serde(borrow)]
    process_kprobe: Nested<Of<'a>>,
    #[serde(borrow)]
    process_tracepoint: Nested<Of<'a>>,
    #[serde(borrow)]
    process_lsm: Nested<Of<'a>>,
    #[serde(borrow)]
    process_loader: Nested<Of<'a>>,
    #[serde(borrow)]
    process_uprobe: Nested<Of<'a>>,
    #[serde(borrow)]
    process_usdt: Nested<Of<'a>>,
    #[serde(borrow)]
    process_throttle: Nested<Throttle<'a>>,
    rate_limit_info: Nested<RateLimit>,
}

/// What the kinds have between them.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Of<'a> {
    #[serde(borrow)]
    process: Nested<Proc<'a>>,
    #[serde(borrow)]
    parent: Nested<Proc<'a>>,
    #[serde(borrow)]
    ancestors: Nested<Vec<Nested<Proc<'a>>>>,
    #[serde(borrow)]
    function_name: Text<'a>,
    #[serde(borrow)]
    subsys: Text<'a>,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    args: Nested<Vec<Nested<Argument<'a>>>>,
    #[serde(borrow, rename = "return")]
    returned: Nested<Argument<'a>>,
    #[serde(borrow)]
    action: Text<'a>,
    #[serde(borrow)]
    return_action: Text<'a>,
    #[serde(borrow)]
    policy_name: Text<'a>,
    #[serde(borrow)]
    path: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Proc<'a> {
    #[serde(borrow)]
    exec_id: Text<'a>,
    pid: Number,
    uid: Number,
    #[serde(borrow)]
    cwd: Text<'a>,
    #[serde(borrow)]
    binary: Text<'a>,
    #[serde(borrow)]
    arguments: Text<'a>,
    #[serde(borrow)]
    pod: Nested<Pod<'a>>,
    #[serde(borrow)]
    docker: Text<'a>,
    binary_properties: Nested<Properties>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pod<'a> {
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    container: Nested<Container<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    image: Nested<Image<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Image<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Properties {
    file: Nested<PropertiesFile>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PropertiesFile {
    inode: Nested<Inode>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Inode {
    links: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Throttle<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    cgroup: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RateLimit {
    number_of_dropped_process_events: Number,
}

/// One of these is there.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Argument<'a> {
    #[serde(borrow)]
    string_arg: Text<'a>,
    int_arg: Number,
    uint_arg: Number,
    size_arg: Number,
    long_arg: Number,
    #[serde(borrow)]
    file_arg: Nested<File<'a>>,
    #[serde(borrow)]
    path_arg: Nested<File<'a>>,
    #[serde(borrow)]
    dentry_arg: Nested<File<'a>>,
    #[serde(borrow)]
    linux_binprm_arg: Nested<File<'a>>,
    #[serde(borrow)]
    sock_arg: Nested<Sock<'a>>,
    #[serde(borrow)]
    skb_arg: Nested<Sock<'a>>,
    #[serde(borrow)]
    socket_arg: Nested<Sock<'a>>,
    #[serde(borrow)]
    sockaddr_arg: Nested<SockAddr<'a>>,
    #[serde(borrow)]
    capability_arg: Nested<Cap<'a>>,
    #[serde(borrow)]
    module_arg: Nested<Module<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File<'a> {
    #[serde(borrow)]
    path: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Sock<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    protocol: Text<'a>,
    #[serde(borrow)]
    saddr: Text<'a>,
    #[serde(borrow)]
    daddr: Text<'a>,
    sport: Number,
    dport: Number,
    #[serde(borrow)]
    state: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SockAddr<'a> {
    #[serde(borrow, alias = "sin_addr")]
    addr: Text<'a>,
    #[serde(alias = "sin_port")]
    port: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cap<'a> {
    value: Number,
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Module<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

/// Reads one event.
///
/// # Errors
/// [`Malformed`] where it is not JSON, has no time, or is of no kind that Tetragon writes.
pub(crate) fn decode(item: &[u8]) -> Result<Told, Malformed> {
    let event: Event<'_> = serde_json::from_slice(item)
        .map_err(|error| Malformed::new(format!("not an event of Tetragon, one JSON object: {error}")))?;
    let Some(at) = event.time.as_deref().and_then(|time| time.parse().ok()) else {
        return Err(Malformed::new("no `time`, or none of RFC 3339: is it excluded by a field filter of the export?"));
    };
    let node = event.node_name.owned();
    if let Some(limit) = event.rate_limit_info.as_ref() {
        let count = limit.number_of_dropped_process_events.fit();
        return Ok(Told::Loss(Loss { at, node, count, reason: "rate limit of the export".to_owned() }));
    }
    if let Some(throttle) = event.process_throttle.as_ref() {
        return Ok(throttled(throttle, at, node));
    }
    let (of, act): (Of<'_>, fn(&Of<'_>) -> Acted) = match event {
        Event { process_exec: Nested(Some(of)), .. } => (of, |_| Acted::Act(Act::Exec { file: None }, Outcome::Done)),
        Event { process_exit: Nested(Some(of)), .. } => (of, |_| Acted::Act(Act::Exit, Outcome::Done)),
        Event { process_loader: Nested(Some(of)), .. } => (of, loaded),
        Event { process_kprobe: Nested(Some(of)), .. } | Event { process_lsm: Nested(Some(of)), .. } => (of, hooked),
        Event { process_tracepoint: Nested(Some(of)), .. } => (of, traced),
        Event { process_uprobe: Nested(Some(_)), .. } | Event { process_usdt: Nested(Some(_)), .. } => {
            return Ok(Told::Nothing(NOT_COMPARED));
        }
        _ => {
            return Err(Malformed::new(
                "none of process_exec, process_exit, process_kprobe, process_tracepoint, process_lsm, process_loader, \
                 process_throttle and rate_limit_info",
            ));
        }
    };
    let Some(actor) = of.process.as_ref() else { return Err(Malformed::new("an event without its `process`")) };
    let Some(container) = container(actor) else { return Ok(Told::Nothing(OF_THE_HOST)) };
    let (act, outcome) = match act(&of) {
        Acted::Act(act, outcome) => (act, outcome),
        Acted::Nothing(why) => return Ok(Told::Nothing(why)),
    };
    let process = process(actor);
    let blocked = is_blocking(of.action.as_deref()) || is_blocking(of.return_action.as_deref());
    Ok(Told::Activity(Arc::new(Activity {
        at,
        sensor: "tetragon".to_owned(),
        node,
        container,
        process,
        ancestors: ancestors(&of),
        act,
        outcome: if blocked { Outcome::Blocked } else { outcome },
        rule: of.policy_name.owned(),
    })))
}

/// What makes two lines one event: its kind, its function, the process and the time.
pub(crate) fn identity(item: &[u8]) -> Option<Vec<String>> {
    let event: Event<'_> = serde_json::from_slice(item).ok()?;
    let time: Timestamp = event.time.as_deref()?.parse().ok()?;
    let kinds = [
        ("exec", &event.process_exec),
        ("exit", &event.process_exit),
        ("kprobe", &event.process_kprobe),
        ("tracepoint", &event.process_tracepoint),
        ("lsm", &event.process_lsm),
        ("loader", &event.process_loader),
        ("uprobe", &event.process_uprobe),
        ("usdt", &event.process_usdt),
    ];
    let (kind, of) = kinds.into_iter().find_map(|(kind, of)| Some((kind, of.as_ref()?)))?;
    let id = of.process.as_ref()?.exec_id.owned()?;
    let name = [&of.function_name, &of.event, &of.path].into_iter().find_map(Text::owned).unwrap_or_default();
    Some(vec![kind.to_owned(), name, id, time.as_nanosecond().to_string()])
}

/// What an event says was done, before it is known by whom.
enum Acted {
    Act(Act, Outcome),
    Nothing(&'static str),
}

fn throttled(throttle: &Throttle<'_>, at: Timestamp, node: Option<String>) -> Told {
    if throttle.kind.as_deref() == Some("THROTTLE_STOP") {
        return Told::Nothing("events of a cgroup are told of again");
    }
    let cgroup = throttle.cgroup.as_deref().unwrap_or_default();
    Told::Loss(Loss { at, node, count: None, reason: format!("too many events of cgroup {cgroup}: it is throttled") })
}

fn is_blocking(action: Option<&str>) -> bool {
    matches!(
        action,
        Some(
            "KPROBE_ACTION_SIGKILL"
                | "KPROBE_ACTION_OVERRIDE"
                | "KPROBE_ACTION_NOTIFYKILLER"
                | "KPROBE_ACTION_NOTIFYENFORCER"
        )
    )
}

fn container(process: &Proc<'_>) -> Option<SeenContainer> {
    let pod = process.pod.as_ref();
    let container = pod.and_then(|pod| pod.container.as_ref());
    let id = [container.and_then(|container| container.id.as_deref()), process.docker.as_deref()];
    let id = id.into_iter().flatten().find_map(container_id);
    if pod.is_none() && id.is_none() {
        return None;
    }
    let image = container.and_then(|container| container.image.as_ref());
    Some(SeenContainer {
        id,
        name: container.and_then(|container| container.name.owned()),
        image: image.and_then(|image| image_name(image.name.as_deref()?)),
        digest: image.and_then(|image| image_digest(image.id.as_deref()?)),
        namespace: pod.and_then(|pod| pod.namespace.owned()),
        pod: pod.and_then(|pod| pod.name.owned()),
        pod_uid: pod.and_then(|pod| pod.uid.owned()),
    })
}

fn process(process: &Proc<'_>) -> Process {
    let exe = process.binary.owned();
    let mut argv: Vec<String> = exe.iter().cloned().collect();
    argv.extend(process.arguments.as_deref().map(arguments).unwrap_or_default());
    let is_memory = exe.as_deref().is_some_and(|exe| exe.starts_with("memfd:") || exe.starts_with("/memfd:"));
    let links = (|| process.binary_properties.as_ref()?.file.as_ref()?.inode.as_ref()?.links.0)();
    let origin = match links {
        _ if is_memory => Some(Origin::Memory),
        Some(0) => Some(Origin::Deleted),
        _ => None,
    };
    Process {
        pid: process.pid.fit(),
        id: process.exec_id.owned(),
        name: None,
        exe,
        argv: dna::redact_argv(&argv),
        cwd: process.cwd.owned(),
        uid: process.uid.fit(),
        origin,
    }
}

/// The arguments, one text: those with a space in them stand in quotes, and quotes in them are not escaped; a quote before a
/// space is taken for the closing one. Credentials are taken out with the whole command line.
fn arguments(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = limits::line(text.trim_ascii());
    // One more than is kept, so that the cut shows; looking for a closing quote must not cost the whole line for each word.
    while !rest.is_empty() && words.len() <= WORDS {
        let quoted = rest.strip_prefix('"').and_then(|inner| {
            let end = inner
                .match_indices('"')
                .map(|(at, _)| at)
                .find(|at| inner.get(at + 1..).is_some_and(|after| after.is_empty() || after.starts_with(' ')))?;
            Some((inner.get(..end)?, inner.get(end + 1..)?))
        });
        let (word, after) = quoted.or_else(|| rest.split_once(' ')).unwrap_or((rest, ""));
        words.push(word.to_owned());
        rest = after.trim_ascii_start();
    }
    words
}

fn ancestors(of: &Of<'_>) -> Vec<Process> {
    let above = of.ancestors.as_ref().map(Vec::as_slice).unwrap_or_default();
    let parent = of.parent.as_ref().into_iter();
    parent.chain(above.iter().filter_map(Nested::as_ref)).take(ANCESTORS).map(process).collect()
}

fn loaded(of: &Of<'_>) -> Acted {
    match of.path.owned() {
        Some(path) => Acted::Act(Act::Read { path }, Outcome::Done),
        None => Acted::Nothing(NOT_COMPARED),
    }
}

fn traced(of: &Of<'_>) -> Acted {
    let event = of.event.as_deref().unwrap_or_default();
    match of.subsys.as_deref() {
        Some("syscalls") => match event.strip_prefix("sys_enter_").or_else(|| event.strip_prefix("sys_exit_")) {
            Some(call) => called(call, of),
            None => Acted::Nothing(NOT_COMPARED),
        },
        Some("raw_syscalls") => Acted::Nothing("a system call by its number only"),
        Some("module") if event == "module_load" => {
            let arguments = Arguments::new(of).text();
            Acted::Act(Act::Syscall { name: "init_module".to_owned(), arguments }, Outcome::Done)
        }
        _ => Acted::Nothing(NOT_COMPARED),
    }
}

/// A kernel function, or a hook of a security module.
fn hooked(of: &Of<'_>) -> Acted {
    let function = of.function_name.as_deref().unwrap_or_default();
    if let Some(call) = call_of(function) {
        return called(call, of);
    }
    let arguments = Arguments::new(of);
    let outcome = kernel::returned(arguments.returned());
    let hook = function.strip_prefix("security_").unwrap_or(function);
    let act = match hook {
        "bprm_check" | "bprm_check_security" | "bprm_creds_for_exec" | "bprm_creds_from_file" => {
            return executed(of, &arguments, outcome);
        }
        "bprm_committing_creds" | "bprm_committed_creds" => return Acted::Nothing(AGAIN),
        "tcp_connect"
        | "tcp_v4_connect"
        | "tcp_v6_connect"
        | "socket_connect"
        | "__inet_stream_connect"
        | "udp_sendmsg"
        | "udpv6_sendmsg"
        | "ip4_datagram_connect"
        | "ip6_datagram_connect"
        | "sctp_connect"
        | "ip_output" => connected(&arguments, hook),
        "inet_csk_listen_start" | "inet_listen" | "socket_listen" => listening(&arguments),
        "socket_bind" | "inet_bind" | "inet6_bind" => bound(&arguments),
        "inet_csk_accept" | "socket_accept" | "inet_accept" => accepted(&arguments),
        // The last step of a connection from outside: to TCP_ESTABLISHED, which is 1.
        "tcp_set_state" if arguments.is_received() => accepted(&arguments),
        "file_permission" | "file_open" | "file_post_open" => touched(&arguments),
        // What is written to a private mapping, as loaders do, does not reach the file.
        "mmap_file" => arguments.path().map(|path| Act::Read { path }),
        // A descriptor without what it was opened for.
        "fd_install" => None,
        "cap_capable" | "capable" | "ns_capable" => arguments.capability().map(|name| Act::Capability { name }),
        "sb_mount" | "do_mount" | "path_mount" | "move_mount" => syscall("mount", &arguments),
        "ptrace_access_check" | "ptrace_traceme" => syscall("ptrace", &arguments),
        "bpf" | "bpf_prog_alloc" | "bpf_prog_load" | "bpf_map_alloc" | "bpf_check" => syscall("bpf", &arguments),
        "do_init_module" | "kernel_module_request" | "kernel_read_file" | "find_module_sections" => {
            syscall("init_module", &arguments)
        }
        "create_user_ns" | "create_user_namespace" => syscall("unshare", &arguments),
        _ => match kernel::change(hook) {
            Some(change) => arguments.last_path().map(|path| Act::Write { path, change }),
            None => return Acted::Nothing("of a kernel function that is not compared"),
        },
    };
    act.map_or(Acted::Nothing("of a hook whose policy does not ask for what it says"), |act| Acted::Act(act, outcome))
}

/// `openat` of `__x64_sys_openat`, `sys_openat`, `__arm64_sys_openat`.
fn call_of(function: &str) -> Option<&str> {
    let name = function.trim_start_matches('_');
    ["x64_sys_", "arm64_sys_", "ia32_sys_", "se_sys_", "sys_", "do_sys_"]
        .into_iter()
        .find_map(|prefix| name.strip_prefix(prefix))
}

fn called(call: &str, of: &Of<'_>) -> Acted {
    let arguments = Arguments::new(of);
    let outcome = kernel::returned(arguments.returned());
    let act = match call {
        "execve" | "execveat" => return executed(of, &arguments, outcome),
        "open" | "openat" | "openat2" | "open_by_handle_at" => opened(&arguments),
        "creat" | "write" | "pwrite64" | "writev" | "pwritev" => {
            arguments.path().map(|path| Act::Write { path, change: Change::Open })
        }
        "read" | "pread64" | "readv" | "preadv" | "readlink" | "readlinkat" => {
            arguments.path().map(|path| Act::Read { path })
        }
        "connect" | "sendto" | "sendmsg" => connected(&arguments, call),
        "bind" => bound(&arguments),
        "listen" => listening(&arguments),
        "accept" | "accept4" => accepted(&arguments),
        "clone" | "clone3" | "fork" | "vfork" | "close" | "exit" | "exit_group" => return Acted::Nothing(NOT_COMPARED),
        _ if kernel::is_identity(call) => {
            let id = arguments.numbers().next().and_then(|id| u32::try_from(id).ok());
            Some(Act::Identity { call: call.to_owned(), id })
        }
        _ => match (kernel::change(call), arguments.last_path()) {
            (Some(change), Some(path)) => Some(Act::Write { path, change }),
            _ => syscall(call, &arguments),
        },
    };
    act.map_or(Acted::Nothing("of a hook whose policy does not ask for what it says"), |act| Acted::Act(act, outcome))
}

/// An execution that is done is told of by `process_exec`; here only what does not come to that counts.
fn executed(of: &Of<'_>, arguments: &Arguments<'_, '_>, outcome: Outcome) -> Acted {
    let blocked = is_blocking(of.action.as_deref()) || is_blocking(of.return_action.as_deref());
    if outcome.is_done() && !blocked {
        return Acted::Nothing(AGAIN);
    }
    Acted::Act(Act::Exec { file: arguments.path() }, outcome)
}

#[expect(clippy::unnecessary_wraps, reason = "an arm beside those that may have nothing to say")]
fn syscall(name: &str, arguments: &Arguments<'_, '_>) -> Option<Act> {
    Some(Act::Syscall { name: name.to_owned(), arguments: arguments.text() })
}

/// `security_file_permission(file, mask)`: MAY_WRITE is 2, MAY_READ is 4, MAY_APPEND is 8.
fn touched(arguments: &Arguments<'_, '_>) -> Option<Act> {
    let path = arguments.path()?;
    let mask = arguments.numbers().next()?;
    if mask & (2 | 8) != 0 {
        Some(Act::Write { path, change: Change::Open })
    } else {
        (mask & 4 != 0).then_some(Act::Read { path })
    }
}

/// `openat(folder, path, flags)`, of which a policy may ask for any; a number before the path is the folder.
fn opened(arguments: &Arguments<'_, '_>) -> Option<Act> {
    let path = arguments.path()?;
    let flags = arguments.all().skip_while(|argument| argument.path().is_none()).find_map(Argument::number)?;
    Some(kernel::opened_by_number(path, flags))
}

fn connected(arguments: &Arguments<'_, '_>, function: &str) -> Option<Act> {
    let sock = arguments.sock();
    let address = arguments.all().find_map(|argument| argument.sockaddr_arg.as_ref());
    if let Some(path) = address.and_then(|address| address.addr.as_deref()).filter(|addr| addr.starts_with('/')) {
        return Some(Act::ConnectUnix { path: path.to_owned() });
    }
    let protocol = sock.and_then(Sock::protocol).or_else(|| protocol_of(function))?;
    let (ip, port) = match (address, sock) {
        (Some(address), _) if address.port.0.is_some() => (ip(&address.addr), address.port),
        (_, Some(sock)) => (ip(&sock.daddr), sock.dport),
        _ => return None,
    };
    Some(Act::Connect { protocol, address: ip, host: None, port: port.fit().filter(|port| *port != 0)? })
}

/// A kernel function of one protocol says which.
fn protocol_of(function: &str) -> Option<Protocol> {
    ["tcp", "udp", "sctp"].into_iter().find(|name| function.starts_with(name)).and_then(kernel::protocol)
}

fn listening(arguments: &Arguments<'_, '_>) -> Option<Act> {
    let sock = arguments.sock()?;
    let protocol = sock.protocol().unwrap_or(Protocol::Tcp);
    let port = sock.sport.fit().filter(|port| *port != 0)?;
    Some(Act::Listen { protocol, address: ip(&sock.saddr), port })
}

/// A stream socket that is bound does not listen yet.
fn bound(arguments: &Arguments<'_, '_>) -> Option<Act> {
    let protocol = arguments.sock()?.protocol().filter(|protocol| *protocol == Protocol::Udp)?;
    let address = arguments.all().find_map(|argument| argument.sockaddr_arg.as_ref())?;
    let port = address.port.fit().filter(|port| *port != 0)?;
    Some(Act::Listen { protocol, address: ip(&address.addr), port })
}

fn accepted(arguments: &Arguments<'_, '_>) -> Option<Act> {
    let sock = arguments.sock()?;
    let port = sock.sport.fit().filter(|port| *port != 0)?;
    Some(Act::Accept { port, peer: ip(&sock.daddr).filter(|peer| !peer.is_unspecified()) })
}

fn ip(text: &Text<'_>) -> Option<IpAddr> {
    text.as_deref().and_then(|text| text.parse().ok())
}

impl Sock<'_> {
    fn protocol(&self) -> Option<Protocol> {
        [&self.protocol, &self.kind].into_iter().find_map(|text| kernel::protocol(text.as_deref()?))
    }
}

impl Argument<'_> {
    fn path(&self) -> Option<&str> {
        let file = [&self.file_arg, &self.path_arg, &self.dentry_arg, &self.linux_binprm_arg]
            .into_iter()
            .find_map(|file| file.as_ref()?.path.as_deref());
        file.or_else(|| self.string_arg.as_deref())
    }

    fn number(&self) -> Option<i64> {
        [self.int_arg, self.uint_arg, self.size_arg, self.long_arg].into_iter().find_map(|number| number.0)
    }
}

/// The arguments a policy asked for.
struct Arguments<'e, 'a> {
    of: &'e Of<'a>,
}

impl<'e, 'a> Arguments<'e, 'a> {
    fn new(of: &'e Of<'a>) -> Self {
        Self { of }
    }

    fn all(&self) -> impl Iterator<Item = &'e Argument<'a>> {
        let arguments = self.of.args.as_ref().map(Vec::as_slice).unwrap_or_default();
        arguments.iter().take(FIELDS).filter_map(Nested::as_ref)
    }

    fn returned(&self) -> Option<i64> {
        self.of.returned.as_ref().and_then(Argument::number)
    }

    fn numbers(&self) -> impl Iterator<Item = i64> {
        self.all().filter_map(Argument::number)
    }

    fn path(&self) -> Option<String> {
        self.all().find_map(Argument::path).map(|path| self.absolute(path))
    }

    /// Of two paths, the second is the new name.
    fn last_path(&self) -> Option<String> {
        self.all().filter_map(Argument::path).last().map(|path| self.absolute(path))
    }

    /// A system call has its path as the program wrote it.
    fn absolute(&self, path: &str) -> String {
        let cwd = self.of.process.as_ref().and_then(|process| process.cwd.as_deref()).unwrap_or_default();
        if path.starts_with('/') || cwd.is_empty() {
            return path.to_owned();
        }
        format!("{}/{}", cwd.trim_end_matches('/'), path.trim_start_matches("./"))
    }

    fn sock(&self) -> Option<&'e Sock<'a>> {
        let of = |argument: &'e Argument<'a>| {
            [&argument.sock_arg, &argument.socket_arg, &argument.skb_arg].into_iter().find_map(Nested::as_ref)
        };
        self.all().find_map(of).or_else(|| self.of.returned.as_ref().and_then(of))
    }

    fn is_received(&self) -> bool {
        self.sock().is_some_and(|sock| sock.state.as_deref() == Some("TCP_SYN_RECV"))
            && self.numbers().next() == Some(1)
    }

    fn capability(&self) -> Option<String> {
        let argument = self.all().find_map(|argument| argument.capability_arg.as_ref());
        let by_name = argument.and_then(|cap| kernel::capability(cap.name.as_deref()?));
        by_name.or_else(|| kernel::capability(&argument?.value.0?.to_string()))
    }

    /// Texts and numbers, in order.
    fn text(&self) -> Option<String> {
        let texts: Vec<String> = self
            .all()
            .filter_map(|argument| {
                let text = argument.path().or_else(|| argument.module_arg.as_ref()?.name.as_deref());
                text.map(str::to_owned).or_else(|| argument.number().map(|number| number.to_string()))
            })
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_in_quotes_are_one() {
        assert_eq!(arguments(r#"-c "curl https://ebpf.io" -v"#), ["-c", "curl https://ebpf.io", "-v"]);
        assert_eq!(arguments(r#"-c "a="b"c d" e"#), ["-c", r#"a="b"c d"#, "e"]);
        assert_eq!(arguments(r#"a "b c"#), ["a", "\"b", "c"]);
        assert_eq!(arguments("  "), [""; 0]);
    }

    #[test]
    fn a_function_is_known_on_every_machine() {
        for function in ["__x64_sys_openat", "sys_openat", "__arm64_sys_openat", "__se_sys_openat"] {
            assert_eq!(call_of(function), Some("openat"), "{function}");
        }
        assert_eq!(call_of("security_file_open"), None);
    }
}
