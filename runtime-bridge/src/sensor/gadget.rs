//! Events of Inspektor Gadget's image-based gadgets: a line of `-o json`, or of its log export.
//!
//! Source: inspektor-gadget/inspektor-gadget `gadgets/trace_*/program.bpf.c` and their integration tests (0.40 and later). No
//! event says which gadget it is of, so that follows from the fields that only one has: `cap`, `fname`, `qr`, `code`, `op`, `addr`, `type`
//! with `src` and `dst`, `exepath`.
//!
//! A process stands in `proc`, before 0.36 at the top.

use std::{net::IpAddr, sync::Arc};

use dna::{Act, Activity, Origin, Outcome, Process, Protocol, SeenContainer};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Malformed, NOT_COMPARED, OF_THE_HOST, Told, container_id, image_digest, image_name, kernel,
    lenient::{Flag, Nested, Number, Text},
    words,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    timestamp: Text<'a>,
    timestamp_raw: Number,
    #[serde(borrow)]
    k8s: Nested<K8s<'a>>,
    #[serde(borrow)]
    runtime: Nested<Runtime<'a>>,
    #[serde(borrow)]
    proc: Nested<Proc<'a>>,
    #[serde(borrow)]
    comm: Text<'a>,
    pid: Number,
    uid: Number,
    #[serde(borrow)]
    pcomm: Text<'a>,
    ppid: Number,
    #[serde(borrow)]
    error: Text<'a>,
    // trace_exec
    #[serde(borrow)]
    args: Text<'a>,
    #[serde(borrow)]
    exepath: Text<'a>,
    #[serde(borrow)]
    parent_exepath: Text<'a>,
    #[serde(borrow)]
    file: Text<'a>,
    #[serde(borrow)]
    cwd: Text<'a>,
    upper_layer: Flag,
    // trace_open
    #[serde(borrow)]
    fname: Text<'a>,
    #[serde(borrow)]
    fullpath: Text<'a>,
    #[serde(borrow)]
    flags: Text<'a>,
    flags_raw: Number,
    // trace_tcp, trace_tcpconnect, trace_dns; of trace_mount, texts
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    src: Nested<Endpoint<'a>>,
    #[serde(borrow)]
    dst: Nested<Endpoint<'a>>,
    #[serde(borrow)]
    qr: Text<'a>,
    // trace_bind
    #[serde(borrow)]
    addr: Nested<Endpoint<'a>>,
    // trace_capabilities
    #[serde(borrow)]
    cap: Text<'a>,
    capable: Flag,
    audit: Number,
    // audit_seccomp
    #[serde(borrow)]
    syscall: Text<'a>,
    #[serde(borrow)]
    code: Text<'a>,
    // trace_mount
    #[serde(borrow)]
    op: Text<'a>,
    #[serde(borrow)]
    call: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct K8s<'a> {
    #[serde(borrow)]
    node: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow, rename = "podName")]
    pod: Text<'a>,
    #[serde(borrow, rename = "podUID")]
    pod_uid: Text<'a>,
    #[serde(borrow, rename = "containerName")]
    container: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Runtime<'a> {
    #[serde(borrow)]
    container_id: Text<'a>,
    #[serde(borrow)]
    container_name: Text<'a>,
    #[serde(borrow)]
    container_image_name: Text<'a>,
    #[serde(borrow)]
    container_image_digest: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Proc<'a> {
    #[serde(borrow)]
    comm: Text<'a>,
    pid: Number,
    creds: Nested<Creds>,
    #[serde(borrow)]
    parent: Nested<Parent<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Creds {
    uid: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parent<'a> {
    #[serde(borrow)]
    comm: Text<'a>,
    pid: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Endpoint<'a> {
    #[serde(borrow)]
    addr: Text<'a>,
    port: Number,
    #[serde(borrow)]
    proto: Text<'a>,
}

/// Reads one event.
///
/// # Errors
/// [`Malformed`] where it is not JSON, or has no time.
pub(crate) fn decode(item: &[u8]) -> Result<Told, Malformed> {
    let event: Event<'_> = serde_json::from_slice(item)
        .map_err(|error| Malformed::new(format!("not an event of a gadget, one JSON object: {error}")))?;
    let Some(at) = time(&event) else {
        return Err(Malformed::new("no time: neither `timestamp_raw` nor `timestamp`; use a gadget of 0.31 or later"));
    };
    let Some(container) = container(&event) else { return Ok(Told::Nothing(OF_THE_HOST)) };
    let Some((act, outcome)) = act(&event) else { return Ok(Told::Nothing(NOT_COMPARED)) };
    let node = event.k8s.as_ref().and_then(|k8s| k8s.node.owned());
    Ok(Told::Activity(Arc::new(Activity {
        at,
        sensor: "inspektor-gadget".to_owned(),
        node,
        container,
        process: process(&event, &act),
        ancestors: ancestors(&event),
        act,
        outcome,
        rule: None,
    })))
}

fn time(event: &Event<'_>) -> Option<Timestamp> {
    let exact = event.timestamp_raw.0.and_then(|number| Timestamp::from_nanosecond(i128::from(number)).ok());
    exact.or_else(|| event.timestamp.as_deref().and_then(|text| text.parse().ok()))
}

fn container(event: &Event<'_>) -> Option<SeenContainer> {
    let (k8s, runtime) = (event.k8s.as_ref(), event.runtime.as_ref());
    let id = runtime.and_then(|runtime| container_id(runtime.container_id.as_deref()?));
    let pod = k8s.and_then(|k8s| k8s.pod.owned());
    if id.is_none() && pod.is_none() {
        return None;
    }
    let name = k8s.and_then(|k8s| k8s.container.owned());
    Some(SeenContainer {
        id,
        name: name.or_else(|| runtime.and_then(|runtime| runtime.container_name.owned())),
        image: runtime.and_then(|runtime| image_name(runtime.container_image_name.as_deref()?)),
        digest: runtime.and_then(|runtime| image_digest(runtime.container_image_digest.as_deref()?)),
        namespace: k8s.and_then(|k8s| k8s.namespace.owned()),
        pod,
        pod_uid: k8s.and_then(|k8s| k8s.pod_uid.owned()),
    })
}

fn process(event: &Event<'_>, act: &Act) -> Process {
    let proc = event.proc.as_ref();
    let of_proc = |number: fn(&Proc<'_>) -> Number| proc.map(number).filter(|number| number.0.is_some());
    let exe = event.exepath.owned();
    let is_memory = exe.as_deref().is_some_and(|exe| exe.starts_with("memfd:") || exe.starts_with("/memfd:"));
    let origin = match event.upper_layer.0 {
        _ if is_memory => Some(Origin::Memory),
        Some(true) => Some(Origin::Written),
        // `false` is also written where the gadget could not tell.
        _ => None,
    };
    let argv = match act {
        Act::Exec { .. } => event.args.as_deref().map(words).unwrap_or_default(),
        _ => Vec::new(),
    };
    Process {
        pid: of_proc(|proc| proc.pid).unwrap_or(event.pid).fit(),
        id: None,
        name: proc.and_then(|proc| proc.comm.owned()).or_else(|| event.comm.owned()),
        exe,
        argv,
        cwd: event.cwd.owned(),
        uid: of_proc(|proc| proc.creds.as_ref().map(|creds| creds.uid).unwrap_or_default()).unwrap_or(event.uid).fit(),
        origin,
    }
}

fn ancestors(event: &Event<'_>) -> Vec<Process> {
    let parent = event.proc.as_ref().and_then(|proc| proc.parent.as_ref());
    let parent = Process {
        pid: parent.map_or(event.ppid, |parent| parent.pid).fit(),
        name: parent.and_then(|parent| parent.comm.owned()).or_else(|| event.pcomm.owned()),
        exe: event.parent_exepath.owned(),
        ..Process::default()
    };
    if parent == Process::default() { Vec::new() } else { vec![parent] }
}

fn act(event: &Event<'_>) -> Option<(Act, Outcome)> {
    let outcome = kernel::failed(event.error.as_deref());
    if let Some(cap) = event.cap.as_deref() {
        return used(event, cap);
    }
    if let (Some(code), Some(call)) = (event.code.as_deref(), event.syscall.as_deref()) {
        return audited(call, code);
    }
    if event.qr.as_deref().is_some() {
        return asked(event).map(|act| (act, outcome));
    }
    if let Some(path) = event.fullpath.owned().or_else(|| event.fname.owned()) {
        let act = match event.flags.as_deref() {
            Some(flags) => kernel::opened(path, flags)?,
            None => kernel::opened_by_number(path, event.flags_raw.0?),
        };
        return Some((act, outcome));
    }
    if let Some(op) = event.op.as_deref() {
        let name = op.to_ascii_lowercase();
        let is_mount = matches!(name.as_str(), "mount" | "umount");
        return is_mount.then(|| (Act::Syscall { name, arguments: event.call.owned() }, outcome));
    }
    if let Some(bound) = event.addr.as_ref() {
        return bound.listens().map(|act| (act, outcome));
    }
    if let (Some(src), Some(dst)) = (event.src.as_ref(), event.dst.as_ref()) {
        return connected(event.kind.as_deref(), src, dst).map(|act| (act, outcome));
    }
    if event.args.as_deref().is_some() || event.exepath.as_deref().is_some() {
        return Some((Act::Exec { file: event.file.owned() }, outcome));
    }
    None
}

/// A check that the kernel does not count as a use (`CAP_OPT_NOAUDIT`) asks what would be, for a message or a hint.
fn used(event: &Event<'_>, cap: &str) -> Option<(Act, Outcome)> {
    if event.audit.0 == Some(0) {
        return None;
    }
    let outcome = match event.capable.0 {
        Some(false) => Outcome::Failed { error: "EPERM".to_owned() },
        _ => Outcome::Done,
    };
    Some((Act::Capability { name: kernel::capability(cap)? }, outcome))
}

/// A system call that a seccomp profile logs or refuses.
fn audited(call: &str, code: &str) -> Option<(Act, Outcome)> {
    let name = call.to_ascii_lowercase();
    let name = name.strip_prefix("sys_").unwrap_or(&name).to_owned();
    let outcome = match code.strip_prefix("SECCOMP_RET_")? {
        "ALLOW" | "LOG" => Outcome::Done,
        _ => Outcome::Blocked,
    };
    Some((Act::Syscall { name, arguments: None }, outcome))
}

/// A question of the container to a name server; the name asked for is not the peer's.
fn asked(event: &Event<'_>) -> Option<Act> {
    let server = event.dst.as_ref().filter(|_| event.qr.as_deref() == Some("Q"))?;
    server.connects(Protocol::Udp)
}

fn connected(kind: Option<&str>, src: &Endpoint<'_>, dst: &Endpoint<'_>) -> Option<Act> {
    match kind {
        // trace_tcpconnect tells of nothing else, so it does not say.
        Some("connect") | None => dst.connects(Protocol::Tcp),
        Some("accept") => Some(Act::Accept { port: src.port.fit().filter(|port| *port != 0)?, peer: dst.ip() }),
        _ => None,
    }
}

impl Endpoint<'_> {
    fn ip(&self) -> Option<IpAddr> {
        self.addr.as_deref().and_then(|addr| addr.parse().ok())
    }

    fn connects(&self, protocol: Protocol) -> Option<Act> {
        let protocol = self.proto.as_deref().and_then(kernel::protocol).unwrap_or(protocol);
        let port = self.port.fit().filter(|port| *port != 0)?;
        Some(Act::Connect { protocol, address: self.ip(), host: None, port })
    }

    /// No gadget tells of listen(2). A stream socket that is bound to a port of its choice is about to.
    fn listens(&self) -> Option<Act> {
        let protocol = self.proto.as_deref().and_then(kernel::protocol)?;
        let port = self.port.fit().filter(|port| *port != 0)?;
        Some(Act::Listen { protocol, address: self.ip(), port })
    }
}
