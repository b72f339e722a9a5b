//! KubeArmor's logs and alerts as JSON: `karmor logs --json`, its relay's standard output.
//!
//! Source: kubearmor/KubeArmor `protobuf/kubearmor.proto`, `KubeArmor/monitor/logUpdate.go` and
//! `KubeArmor/enforcer/bpflsm/enforcer.go` (1.6). A log tells what was done, an
//! alert which policy said what of it. What an event is stands in small grammars: `Data` (`syscall=SYS_OPENAT fd=-100 flags=O_RDONLY`),
//! `Resource` (a command line, a path, `sin_port=53 sin_addr=10.0.0.10` in any order).
//!
//! The process' number is the node's (`HostPID`), its arguments are in `Resource` where it is executed and in `Source` otherwise.

use std::{net::IpAddr, sync::Arc};

use dna::{Act, Activity, Outcome, Process, Protocol, SeenContainer};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Loss, Malformed, NOT_COMPARED, OF_THE_HOST, Told, container_id, image_digest, image_name, kernel,
    lenient::{Number, Text},
    words,
};

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Event<'a> {
    timestamp: Number,
    #[serde(borrow)]
    updated_time: Text<'a>,
    #[serde(borrow)]
    host_name: Text<'a>,
    #[serde(borrow)]
    namespace_name: Text<'a>,
    #[serde(borrow)]
    pod_name: Text<'a>,
    #[serde(borrow, rename = "ContainerID")]
    container_id: Text<'a>,
    #[serde(borrow)]
    container_name: Text<'a>,
    #[serde(borrow)]
    container_image: Text<'a>,
    #[serde(rename = "HostPPID")]
    host_parent_pid: Number,
    #[serde(rename = "HostPID")]
    host_pid: Number,
    #[serde(rename = "UID")]
    uid: Number,
    #[serde(borrow)]
    parent_process_name: Text<'a>,
    #[serde(borrow)]
    process_name: Text<'a>,
    #[serde(borrow)]
    policy_name: Text<'a>,
    #[serde(borrow, rename = "Type")]
    kind: Text<'a>,
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow)]
    resource: Text<'a>,
    #[serde(borrow)]
    data: Text<'a>,
    #[serde(borrow)]
    action: Text<'a>,
    #[serde(borrow)]
    result: Text<'a>,
    #[serde(borrow)]
    cwd: Text<'a>,
    max_alerts_per_sec: Number,
    dropping_alerts_interval: Number,
}

/// Reads one log or alert.
///
/// # Errors
/// [`Malformed`] where it is not JSON, has no `Operation` or no time.
pub(crate) fn decode(item: &[u8]) -> Result<Told, Malformed> {
    let event: Event<'_> = serde_json::from_slice(item)
        .map_err(|error| Malformed::new(format!("not an event of KubeArmor, one JSON object: {error}")))?;
    let Some(operation) = event.operation.as_deref() else {
        return Err(Malformed::new("no `Operation`: send logs and alerts as they are, as JSON"));
    };
    let Some(at) = time(&event) else {
        return Err(Malformed::new("no time: `UpdatedTime` is no RFC 3339 time and `Timestamp` no number of seconds"));
    };
    let node = event.host_name.owned();
    if operation == "AlertThreshold" {
        return Ok(Told::Loss(throttled(&event, at, node)));
    }
    let is_hosts = matches!(event.kind.as_deref(), Some("HostLog" | "MatchedHostPolicy"));
    let id = event.container_id.as_deref().and_then(container_id);
    if is_hosts || (id.is_none() && event.pod_name.as_deref().is_none()) {
        return Ok(Told::Nothing(OF_THE_HOST));
    }
    let act = match act(operation, &event) {
        Ok(act) => act,
        Err(why) => return Ok(Told::Nothing(why)),
    };
    Ok(Told::Activity(Arc::new(Activity {
        at,
        sensor: "kubearmor".to_owned(),
        node,
        container: SeenContainer {
            id,
            name: event.container_name.owned(),
            image: event.container_image.as_deref().and_then(image_name),
            digest: event.container_image.as_deref().and_then(image_digest),
            namespace: event.namespace_name.owned(),
            pod: event.pod_name.owned(),
            pod_uid: None,
        },
        process: process(&event, &act),
        ancestors: ancestors(&event),
        act,
        outcome: outcome(&event),
        rule: event.policy_name.owned(),
    })))
}

/// `UpdatedTime` has microseconds, `Timestamp` seconds.
fn time(event: &Event<'_>) -> Option<Timestamp> {
    let exact = event.updated_time.as_deref().and_then(|text| text.parse().ok());
    exact.or_else(|| Timestamp::from_second(event.timestamp.0.filter(|seconds| *seconds > 0)?).ok())
}

/// A container's alerts are dropped whole once there are too many.
fn throttled(event: &Event<'_>, at: Timestamp, node: Option<String>) -> Loss {
    let id = event.container_id.as_deref().unwrap_or("?");
    let most = event.max_alerts_per_sec.0.unwrap_or_default();
    let seconds = event.dropping_alerts_interval.0.unwrap_or_default();
    let reason = format!("more than {most} alerts in a second of container {id}: none for {seconds} s");
    Loss { at, node, count: None, reason }
}

fn process(event: &Event<'_>, act: &Act) -> Process {
    let line = if matches!(act, Act::Exec { .. }) { &event.resource } else { &event.source };
    Process {
        pid: event.host_pid.fit(),
        exe: event.process_name.owned(),
        argv: line.as_deref().map(words).unwrap_or_default(),
        cwd: event.cwd.as_deref().and_then(folder),
        uid: event.uid.fit(),
        ..Process::default()
    }
}

/// The sensor writes a slash behind whatever it knows, also behind nothing.
fn folder(cwd: &str) -> Option<String> {
    match cwd.strip_suffix('/')? {
        "" => None,
        "/" => Some("/".to_owned()),
        path => Some(path.to_owned()),
    }
}

fn ancestors(event: &Event<'_>) -> Vec<Process> {
    let parent =
        Process { pid: event.host_parent_pid.fit(), exe: event.parent_process_name.owned(), ..Process::default() };
    if parent == Process::default() { Vec::new() } else { vec![parent] }
}

fn outcome(event: &Event<'_>) -> Outcome {
    // `Audit (Block)` is written where a policy would block and cannot.
    if event.action.as_deref() == Some("Block") {
        return Outcome::Blocked;
    }
    match event.result.as_deref() {
        None | Some("Passed") => Outcome::Done,
        Some("Permission denied") => Outcome::Failed { error: "EACCES".to_owned() },
        Some("Operation not permitted") => Outcome::Failed { error: "EPERM".to_owned() },
        Some("No such file or directory") => Outcome::Failed { error: "ENOENT".to_owned() },
        Some(other) => Outcome::Failed { error: other.to_owned() },
    }
}

/// What it is, or why it is nothing.
fn act(operation: &str, event: &Event<'_>) -> Result<Act, &'static str> {
    let data = Pairs(event.data.as_deref().unwrap_or_default());
    let call = data.call();
    match operation {
        "Process" if matches!(call.as_str(), "ptrace") => Ok(Act::Syscall { name: call, arguments: data.rest() }),
        "Process" => {
            let file = event.resource.as_deref().and_then(|line| line.split_ascii_whitespace().next());
            Ok(Act::Exec { file: file.map(str::to_owned) })
        }
        "File" => file(event, &call, &data),
        "Network" => network(event, &call, &data),
        "Capabilities" => {
            let text = event.resource.as_deref().or_else(|| data.get("capability")).unwrap_or_default();
            let name = text.rsplit('=').next().and_then(kernel::capability);
            name.map(|name| Act::Capability { name }).ok_or("a capability that has no name")
        }
        "Syscall" if kernel::is_identity(&call) => {
            let id = data.get("userid").or_else(|| data.get("groupid")).and_then(|id| id.parse().ok());
            Ok(Act::Identity { call, id })
        }
        "Syscall" if !call.is_empty() => Ok(Act::Syscall { name: call, arguments: data.rest() }),
        _ => Err(NOT_COMPARED),
    }
}

fn file(event: &Event<'_>, call: &str, data: &Pairs<'_>) -> Result<Act, &'static str> {
    let Some(path) = event.resource.owned() else { return Err("a file that has no path") };
    // The enforcer's hooks are called `FILE_UNLINK`, `FILE_MKNOD` …
    if let Some(change) = kernel::change(call.strip_prefix("file_").unwrap_or(call)) {
        return Ok(Act::Write { path, change });
    }
    match data.get("flags").filter(|flags| !flags.is_empty()) {
        Some(flags) => kernel::opened(path, flags).ok_or(NOT_COMPARED),
        // A hook tells that it was opened, and not for what: to read is the least it can be.
        None if matches!(call, "file_open" | "file_permission") => Ok(Act::Read { path }),
        None => Err(NOT_COMPARED),
    }
}

fn network(event: &Event<'_>, call: &str, data: &Pairs<'_>) -> Result<Act, &'static str> {
    let resource = Pairs(event.resource.as_deref().unwrap_or_default());
    let ip = |key: &str| resource.get(key).and_then(|ip| ip.parse::<IpAddr>().ok());
    let port = |key: &str| resource.get(key).and_then(|port| port.parse().ok()).filter(|port: &u16| *port != 0);
    match call {
        "tcp_connect" => {
            let port = port("port").ok_or("a connection that has no port")?;
            let protocol = resource.get("protocol").and_then(kernel::protocol).unwrap_or(Protocol::Tcp);
            Ok(Act::Connect { protocol, address: ip("remoteip"), host: None, port })
        }
        // Its port is the container's own.
        "tcp_accept" => {
            let port = port("port").ok_or("a connection that has no port")?;
            Ok(Act::Accept { port, peer: ip("remoteip") })
        }
        // A question to a name server; the name asked for is not the peer's.
        "udp_sendmsg" => {
            let address = data.get("daddr").and_then(|ip| ip.parse().ok());
            Ok(Act::Connect { protocol: Protocol::Udp, address, host: None, port: port("sin_port").unwrap_or(53) })
        }
        // With an address it is told again by the hook that knows the transport; one told here would be two.
        "connect" => match resource.get("sun_path").filter(|path| !path.is_empty()) {
            Some(path) => Ok(Act::ConnectUnix { path: path.to_owned() }),
            None => Err("a connection whose transport is not told; tcp_connect and udp_sendmsg tell it"),
        },
        // The enforcer knows the kind of socket, and no address.
        "socket" | "socket_create" | "socket_connect" | "socket_accept" => {
            let name = if call == "socket_create" { "socket" } else { call.strip_prefix("socket_").unwrap_or(call) };
            Ok(Act::Syscall { name: name.to_owned(), arguments: event.resource.owned() })
        }
        _ => Err(NOT_COMPARED),
    }
}

/// `key=value` between spaces, or between commas for a `kfunc`.
#[derive(Clone, Copy)]
struct Pairs<'a>(&'a str);

impl<'a> Pairs<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let separator = if self.0.starts_with("kfunc=") { ',' } else { ' ' };
        self.0.split(separator).filter_map(|pair| pair.trim().split_once('='))
    }

    fn get(self, key: &str) -> Option<&'a str> {
        self.pairs().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The system call, hook or kernel function, in the kernel's spelling: `openat`, `file_open`, `tcp_connect`.
    fn call(self) -> String {
        let name = ["syscall", "lsm", "kprobe", "kfunc"].into_iter().find_map(|key| self.get(key)).unwrap_or_default();
        let name = name.to_ascii_lowercase();
        ["sys_", "security_"].into_iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name).to_owned()
    }

    /// What stands behind the call.
    fn rest(self) -> Option<String> {
        self.0.split_once(' ').map(|(_, rest)| rest.trim().to_owned()).filter(|rest| !rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use dna::Change;

    use super::*;

    #[test]
    fn pairs_stand_between_spaces_or_commas() {
        let data = Pairs("syscall=SYS_OPENAT fd=-100 flags=O_RDWR|O_CREAT");
        assert_eq!(data.call(), "openat");
        assert_eq!(data.get("flags"), Some("O_RDWR|O_CREAT"));
        let data = Pairs("kfunc=UDP_SENDMSG,domain=example.com,daddr=10.0.0.10,qtype=A");
        assert_eq!((data.call().as_str(), data.get("daddr")), ("udp_sendmsg", Some("10.0.0.10")));
        assert_eq!(Pairs("lsm=FILE_OPEN").call(), "file_open");
        assert_eq!(Pairs("lsm=SECURITY_PATH_UNLINK").call(), "path_unlink");
    }

    #[test]
    fn a_hook_of_a_file_is_a_change() {
        let event = Event { resource: Text(Some("/x".into())), ..Event::default() };
        for (data, change) in [("lsm=FILE_UNLINK", Change::Remove), ("lsm=SECURITY_PATH_RENAME", Change::Rename)] {
            let data = Pairs(data);
            assert_eq!(file(&event, &data.call(), &data), Ok(Act::Write { path: "/x".to_owned(), change }));
        }
    }
}
