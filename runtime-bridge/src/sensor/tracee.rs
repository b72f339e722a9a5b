//! Tracee's JSON, as its webhook, its file output and its log lines have it. Three dialects, told apart by what is in the object:
//!
//! - since 0.11: `eventName`, `args`, and `containerId`, `podName` … at the top;
//! - to 0.24: the same with `container`, `kubernetes`, `executable` and the ids of entities;
//! - main since 2025-11: `name`, `data`, `workload`. Values stand under `value`, or under the name of their type.
//!
//! Source: aquasecurity/tracee `types/trace/trace.go` (0.24.1) and `api/v1beta1/event_json.go`; the samples of its documentation show
//! other names for the third than are written.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use dna::{Act, Activity, Change, Origin, Outcome, Process, Protocol, SeenContainer};
use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    Malformed, NOT_COMPARED, OF_THE_HOST, RUNTIMES_OWN, Told, container_id, image_digest, image_name, kernel,
    lenient::{Flag, Nested, Number, Text},
    pack::Pack,
};
use crate::limits::{ANCESTORS, FIELDS, WORDS};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    timestamp: Text<'a>,
    // To 0.24.
    #[serde(borrow, rename = "eventName")]
    event_name: Text<'a>,
    #[serde(borrow, rename = "processName")]
    process_name: Text<'a>,
    #[serde(borrow, rename = "hostName")]
    host_name: Text<'a>,
    #[serde(rename = "hostProcessId")]
    host_pid: Number,
    #[serde(rename = "hostParentProcessId")]
    host_parent_pid: Number,
    #[serde(rename = "userId")]
    uid: Number,
    #[serde(borrow, rename = "processEntityId")]
    entity: Text<'a>,
    #[serde(borrow, rename = "parentEntityId")]
    parent_entity: Text<'a>,
    #[serde(borrow)]
    executable: Nested<Executable<'a>>,
    #[serde(borrow, rename = "containerId")]
    container_id: Text<'a>,
    #[serde(borrow, rename = "containerImage")]
    container_image: Text<'a>,
    #[serde(borrow, rename = "containerName")]
    container_name: Text<'a>,
    #[serde(borrow, rename = "podName")]
    pod_name: Text<'a>,
    #[serde(borrow, rename = "podNamespace")]
    pod_namespace: Text<'a>,
    #[serde(borrow, rename = "podUID")]
    pod_uid: Text<'a>,
    #[serde(borrow)]
    container: Nested<FlatContainer<'a>>,
    #[serde(borrow)]
    kubernetes: Nested<Kubernetes<'a>>,
    #[serde(rename = "contextFlags")]
    context: Nested<Context>,
    #[serde(borrow, rename = "matchedPolicies")]
    matched: Nested<Vec<Text<'a>>>,
    #[serde(rename = "returnValue")]
    returned: Number,
    #[serde(borrow)]
    args: Nested<Vec<Nested<Field<'a>>>>,
    #[serde(borrow)]
    metadata: Nested<Metadata<'a>>,
    // Main.
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    policies: Nested<Policies<'a>>,
    #[serde(borrow)]
    workload: Nested<Workload<'a>>,
    #[serde(borrow)]
    data: Nested<Vec<Nested<Field<'a>>>>,
    #[serde(borrow)]
    threat: Nested<Threat<'a>>,
    #[serde(borrow)]
    detected_from: Nested<Trigger<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Executable<'a> {
    #[serde(borrow)]
    path: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FlatContainer<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    image: Text<'a>,
    #[serde(borrow, rename = "imageDigest")]
    digest: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kubernetes<'a> {
    #[serde(borrow, rename = "podName")]
    pod: Text<'a>,
    #[serde(borrow, rename = "podNamespace")]
    namespace: Text<'a>,
    #[serde(borrow, rename = "podUID")]
    uid: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    #[serde(rename = "containerStarted")]
    started: Flag,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow, rename = "Properties")]
    properties: Nested<Properties<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Properties<'a> {
    #[serde(borrow, rename = "signatureID")]
    id: Text<'a>,
    #[serde(borrow, rename = "signatureName")]
    name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Policies<'a> {
    #[serde(borrow)]
    matched: Nested<Vec<Text<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Workload<'a> {
    #[serde(borrow)]
    process: Nested<Proc<'a>>,
    #[serde(borrow)]
    container: Nested<Container<'a>>,
    #[serde(borrow)]
    k8s: Nested<K8s<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Proc<'a> {
    #[serde(borrow)]
    executable: Nested<Executable<'a>>,
    #[serde(borrow)]
    unique_id: Text<'a>,
    host_pid: Number,
    real_user: Nested<User>,
    #[serde(borrow)]
    thread: Nested<Thread<'a>>,
    #[serde(borrow)]
    ancestors: Nested<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    id: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Thread<'a> {
    #[serde(borrow)]
    name: Text<'a>,
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
    started: Flag,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Image<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    repo_digests: Nested<Vec<Text<'a>>>,
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct K8s<'a> {
    #[serde(borrow)]
    pod: Nested<Pod<'a>>,
    #[serde(borrow)]
    namespace: Nested<Named<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pod<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Threat<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

/// The event a signature was raised by.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Trigger<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, alias = "args")]
    data: Nested<Vec<Nested<Field<'a>>>>,
}

/// A named value.
#[derive(Deserialize)]
struct Field<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(
        borrow,
        default,
        alias = "str",
        alias = "bool",
        alias = "int32",
        alias = "int64",
        alias = "u_int32",
        alias = "u_int64",
        alias = "uInt32",
        alias = "uInt64",
        alias = "pointer",
        alias = "str_array",
        alias = "strArray",
        alias = "sockaddr",
        alias = "sockAddr"
    )]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SockAddr<'a> {
    #[serde(borrow)]
    sin_addr: Text<'a>,
    sin_port: Number,
    #[serde(borrow)]
    sin6_addr: Text<'a>,
    sin6_port: Number,
    #[serde(borrow)]
    sun_path: Text<'a>,
}

/// Reads one event.
///
/// # Errors
/// [`Malformed`] where it is not JSON, has no name or no time.
pub(crate) fn decode(item: &[u8]) -> Result<Told, Malformed> {
    let event: Event<'_> = serde_json::from_slice(item)
        .map_err(|error| Malformed::new(format!("not an event of Tracee, one JSON object: {error}")))?;
    let Some(name) = event.event_name.owned().or_else(|| event.name.owned()) else {
        return Err(Malformed::new("neither `eventName` nor `name`: set the output to `json`, without a template"));
    };
    let Some(at) = time(&event.timestamp) else {
        return Err(Malformed::new("no time: `timestamp` is neither a number of nanoseconds nor an RFC 3339 time"));
    };
    let Some(container) = container(&event) else { return Ok(Told::Nothing(OF_THE_HOST)) };
    let fields = Fields::new(if event.name.as_deref().is_some() { &event.data } else { &event.args });
    let Some(act) = signature(&event, &name, &fields).unwrap_or_else(|| act(&name, &fields)) else {
        return Ok(Told::Nothing(if is_signature(&event) { "a signature that names no act" } else { NOT_COMPARED }));
    };
    if is_before_start(&event) && !matches!(act, Act::Exec { .. }) {
        return Ok(Told::Nothing(RUNTIMES_OWN));
    }
    // What a signature returns, and the flags of the file it is about, is no result.
    let outcome = if is_signature(&event) { Outcome::Done } else { kernel::returned(event.returned.0) };
    let mut process = process(&event);
    if matches!(act, Act::Exec { .. }) && outcome.is_done() {
        becomes(&mut process, &name, &fields);
    }
    Ok(Told::Activity(Arc::new(Activity {
        at,
        sensor: "tracee".to_owned(),
        node: event.host_name.owned().filter(|_| is_node(&event)),
        container,
        process,
        ancestors: ancestors(&event),
        act,
        outcome,
        rule: rule(&event),
    })))
}

/// Nanoseconds since 1970, or RFC 3339.
fn time(text: &Text<'_>) -> Option<Timestamp> {
    let text = text.as_deref()?;
    match text.parse::<i128>() {
        Ok(nanoseconds) => Timestamp::from_nanosecond(nanoseconds).ok(),
        Err(_) => text.parse().ok(),
    }
}

/// `hostName` is the name in the process' own namespace: of a container, the pod's. It is the node's where that is the
/// container's doing (`hostNetwork`), which cannot be seen; so it counts only where it is not the beginning of the pod's name.
fn is_node(event: &Event<'_>) -> bool {
    let pod = event.kubernetes.as_ref().and_then(|pod| pod.pod.as_deref()).or_else(|| event.pod_name.as_deref());
    let host = event.host_name.as_deref().unwrap_or_default();
    pod.is_some_and(|pod| !pod.starts_with(host))
}

fn container(event: &Event<'_>) -> Option<SeenContainer> {
    let seen = match event.workload.as_ref() {
        Some(workload) => {
            let container = workload.container.as_ref();
            let image = container.and_then(|container| container.image.as_ref());
            let pod = workload.k8s.as_ref().and_then(|k8s| k8s.pod.as_ref());
            let repo = image.and_then(|image| image.repo_digests.as_ref()).map(Vec::as_slice).unwrap_or_default();
            let digests = repo.iter().chain(image.map(|image| &image.id));
            SeenContainer {
                id: container.and_then(|container| container_id(container.id.as_deref()?)),
                name: container.and_then(|container| container.name.owned()),
                image: image.and_then(|image| image_name(image.name.as_deref()?)),
                digest: digests.filter_map(Text::as_deref).find_map(image_digest),
                namespace: workload.k8s.as_ref().and_then(|k8s| k8s.namespace.as_ref()?.name.owned()),
                pod: pod.and_then(|pod| pod.name.owned()),
                pod_uid: pod.and_then(|pod| pod.uid.owned()),
            }
        }
        None => {
            let container = event.container.as_ref();
            let pod = event.kubernetes.as_ref();
            let id = [container.and_then(|container| container.id.as_deref()), event.container_id.as_deref()];
            let image = [container.and_then(|container| container.image.as_deref()), event.container_image.as_deref()];
            SeenContainer {
                id: id.into_iter().flatten().find_map(container_id),
                name: container.and_then(|container| container.name.owned()).or_else(|| event.container_name.owned()),
                image: image.into_iter().flatten().find_map(image_name),
                // Some versions write the name of the image here.
                digest: container.and_then(|container| image_digest(container.digest.as_deref()?)),
                namespace: pod.and_then(|pod| pod.namespace.owned()).or_else(|| event.pod_namespace.owned()),
                pod: pod.and_then(|pod| pod.pod.owned()).or_else(|| event.pod_name.owned()),
                pod_uid: pod.and_then(|pod| pod.uid.owned()).or_else(|| event.pod_uid.owned()),
            }
        }
    };
    (seen.id.is_some() || seen.pod.is_some()).then_some(seen)
}

/// Tracee knows when the container's program is executed; before that it is the runtime.
fn is_before_start(event: &Event<'_>) -> bool {
    let started = match event.workload.as_ref() {
        Some(workload) => workload.container.as_ref().and_then(|container| container.started.0),
        None => event.context.as_ref().and_then(|context| context.started.0),
    };
    started == Some(false)
}

fn process(event: &Event<'_>) -> Process {
    if let Some(process) = event.workload.as_ref().and_then(|workload| workload.process.as_ref()) {
        return plain(process);
    }
    Process {
        pid: event.host_pid.fit(),
        id: event.entity.owned().filter(|id| id != "0"),
        name: event.process_name.owned(),
        exe: event.executable.as_ref().and_then(|executable| executable.path.owned()),
        uid: event.uid.fit(),
        ..Process::default()
    }
}

fn plain(process: &Proc<'_>) -> Process {
    Process {
        pid: process.host_pid.fit(),
        id: process.unique_id.owned(),
        name: process.thread.as_ref().and_then(|thread| thread.name.owned()),
        exe: process.executable.as_ref().and_then(|executable| executable.path.owned()),
        uid: process.real_user.as_ref().and_then(|user| user.id.fit()),
        ..Process::default()
    }
}

/// The process as it is after the execution.
fn becomes(process: &mut Process, event: &str, fields: &Fields<'_, '_>) {
    process.exe = fields.text("pathname").or(process.exe.take());
    process.argv = dna::redact_argv(&fields.words("argv"));
    // The system call is told of before it is done, so the name is the one before.
    if matches!(event, "execve" | "execveat") {
        process.name = None;
    }
    if process.exe.as_deref().is_some_and(|exe| exe.starts_with("memfd:") || exe.starts_with("/memfd:")) {
        process.origin = Some(Origin::Memory);
    }
}

fn ancestors(event: &Event<'_>) -> Vec<Process> {
    let process = event.workload.as_ref().and_then(|workload| workload.process.as_ref());
    if let Some(process) = process {
        let above = process.ancestors.as_ref().map(Vec::as_slice).unwrap_or_default();
        let known = above.iter().filter_map(|raw| serde_json::from_str::<Proc<'_>>(raw.get()).ok());
        return known.take(ANCESTORS).map(|process| plain(&process)).collect();
    }
    let id = event.parent_entity.owned().filter(|id| id != "0");
    let parent = Process { pid: event.host_parent_pid.fit(), id, ..Process::default() };
    if parent == Process::default() { Vec::new() } else { vec![parent] }
}

fn rule(event: &Event<'_>) -> Option<String> {
    let properties = event.metadata.as_ref().and_then(|metadata| metadata.properties.as_ref());
    let signature = properties.and_then(|properties| properties.name.owned());
    let threat = event.threat.as_ref().and_then(|threat| threat.name.owned());
    let flat = event.matched.as_ref();
    let matched = flat.or_else(|| event.policies.as_ref()?.matched.as_ref());
    // Of several policies that of the sensor pack, which tells its version.
    let names = || matched.into_iter().flat_map(|matched| matched.iter().filter_map(Text::owned));
    signature.or(threat).or_else(|| names().find(|name| Pack::of(name).is_some()).or_else(|| names().next()))
}

fn is_signature(event: &Event<'_>) -> bool {
    let properties = event.metadata.as_ref().and_then(|metadata| metadata.properties.as_ref());
    let named = properties.is_some_and(|properties| properties.id.as_deref().is_some());
    named || event.threat.as_ref().is_some() || event.detected_from.as_ref().is_some()
}

/// What a signature is about: the event that raised it, or the file it names. `None` for what is no signature.
fn signature(event: &Event<'_>, name: &str, fields: &Fields<'_, '_>) -> Option<Option<Act>> {
    if !is_signature(event) {
        return None;
    }
    let inner: Option<Trigger<'_>> = fields.nested("triggeredBy").or_else(|| fields.nested("triggered_by"));
    let raised = [event.detected_from.as_ref(), inner.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|trigger| act(trigger.name.as_deref()?, &Fields::new(&trigger.data)));
    let path = || fields.text("path").or_else(|| fields.text("pathname")).or_else(|| fields.text("file_path"));
    Some(raised.or_else(|| match name {
        "dropped_executable" | "New executable dropped" => path().map(|path| Act::Write { path, change: Change::Open }),
        "fileless_execution" | "Fileless execution detected" => Some(Act::Exec { file: path() }),
        _ => None,
    }))
}

fn act(name: &str, fields: &Fields<'_, '_>) -> Option<Act> {
    // `security_socket_bind` tells of what `bind` tells of, and of how it is named in the kernel.
    let hook = name.strip_prefix("security_").unwrap_or(name);
    match hook {
        "sched_process_exec" => Some(Act::Exec { file: fields.text("cmdpath").or_else(|| fields.text("pathname")) }),
        "execve" | "execveat" => Some(Act::Exec { file: fields.text("pathname") }),
        "sched_process_exit" => Some(Act::Exit),
        "socket_listen" | "listen" => {
            let (address, port) = fields.address("local_addr").or_else(|| fields.address("addr"))?;
            Some(Act::Listen { protocol: fields.protocol().unwrap_or(Protocol::Tcp), address, port })
        }
        // A stream socket that is bound does not listen yet.
        "socket_bind" | "bind" => {
            let protocol = fields.protocol().filter(|protocol| *protocol == Protocol::Udp)?;
            let (address, port) = fields.address("local_addr").or_else(|| fields.address("addr"))?;
            Some(Act::Listen { protocol, address, port })
        }
        "socket_accept" => {
            let (_, port) = fields.address("local_addr")?;
            Some(Act::Accept { port, peer: fields.address("remote_addr").and_then(|(peer, _)| peer) })
        }
        "socket_connect" | "connect" => {
            let key = ["remote_addr", "addr"].into_iter().find(|key| fields.has(key))?;
            if let Some(path) = fields.nested::<SockAddr<'_>>(key)?.sun_path.owned() {
                return Some(Act::ConnectUnix { path });
            }
            let (address, port) = fields.address(key)?;
            Some(Act::Connect { protocol: fields.protocol()?, address, host: None, port })
        }
        "net_tcp_connect" => {
            let port = fields.number("dst_port").and_then(|port| u16::try_from(port).ok())?;
            let address = fields.text("dst").and_then(|address| address.parse().ok());
            let host = fields.words("dst_dns").into_iter().next();
            Some(Act::Connect { protocol: Protocol::Tcp, address, host, port })
        }
        "file_open" | "open" | "openat" | "openat2" | "creat" => {
            let path = fields.text("pathname")?;
            match fields.number("flags") {
                Some(flags) => Some(kernel::opened_by_number(path, flags)),
                None if hook == "creat" => Some(Act::Write { path, change: Change::Open }),
                None => kernel::opened(path, &fields.text("flags")?),
            }
        }
        "magic_write" | "vfs_write" | "vfs_writev" | "file_modification" => {
            let path = fields.text("pathname").or_else(|| fields.text("file_path"))?;
            Some(Act::Write { path, change: Change::Open })
        }
        "cap_capable" => kernel::capability(&fields.text("cap")?).map(|name| Act::Capability { name }),
        "sb_mount" => Some(Act::Syscall { name: "mount".to_owned(), arguments: fields.all() }),
        "sb_umount" => Some(Act::Syscall { name: "umount2".to_owned(), arguments: fields.all() }),
        "bpf_prog" | "bpf_map" | "bpf" | "bpf_attach" => {
            Some(Act::Syscall { name: "bpf".to_owned(), arguments: fields.all() })
        }
        "do_init_module" | "init_module" | "finit_module" | "module_load" => {
            let name = if hook == "finit_module" { hook } else { "init_module" };
            Some(Act::Syscall { name: name.to_owned(), arguments: fields.all() })
        }
        "sys_enter" | "sys_exit" => Some(Act::Syscall {
            name: fields.text("syscall").filter(|call| call.parse::<i64>().is_err())?,
            arguments: None,
        }),
        "ptrace" | "mount" | "umount" | "umount2" | "pivot_root" | "chroot" | "unshare" | "setns" | "memfd_create"
        | "process_vm_readv" | "process_vm_writev" | "keyctl" | "add_key" | "request_key" | "userfaultfd"
        | "perf_event_open" | "io_uring_setup" | "personality" | "prctl" | "reboot" | "kexec_load" | "swapon"
        | "delete_module" | "sethostname" | "settimeofday" | "move_mount" | "open_tree" | "fsopen" | "socket" => {
            Some(Act::Syscall { name: hook.to_owned(), arguments: fields.all() })
        }
        _ if kernel::is_identity(hook) => {
            let id = ["uid", "gid", "euid", "egid", "ruid", "rgid"].into_iter().find_map(|key| fields.number(key));
            Some(Act::Identity { call: hook.to_owned(), id: id.and_then(|id| u32::try_from(id).ok()) })
        }
        _ => {
            let change = kernel::change(hook.strip_suffix("_event").unwrap_or(hook))?;
            let names: &[&str] = match change {
                Change::Rename => &["new_path", "newpath", "newname"],
                _ => &["linkpath", "newpath", "file_name", "pathname", "path"],
            };
            let path = names.iter().find_map(|name| fields.text(name))?;
            Some(Act::Write { path, change })
        }
    }
}

/// The named values of an event.
struct Fields<'e, 'a>(&'e [Nested<Field<'a>>]);

impl<'e, 'a> Fields<'e, 'a> {
    fn new(fields: &'e Nested<Vec<Nested<Field<'a>>>>) -> Self {
        let fields = fields.as_ref().map(Vec::as_slice).unwrap_or_default();
        Self(fields.get(..FIELDS).unwrap_or(fields))
    }

    fn raw(&self, name: &str) -> Option<&'a str> {
        let field = self.0.iter().filter_map(Nested::as_ref).find(|field| field.name.as_deref() == Some(name))?;
        field.value.map(RawValue::get)
    }

    fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    fn nested<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.nested::<Text<'_>>(name)?.owned()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.nested::<Number>(name)?.0
    }

    /// A list of texts, or an object that holds it.
    fn words(&self, name: &str) -> Vec<String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Words<'a> {
            #[serde(borrow)]
            Plain(Vec<Cow<'a, str>>),
            Held {
                #[serde(borrow)]
                value: Vec<Cow<'a, str>>,
            },
            Other(IgnoredAny),
        }
        let words = match self.nested(name) {
            Some(Words::Plain(words) | Words::Held { value: words }) => words,
            Some(Words::Other(_)) | None => Vec::new(),
        };
        words.into_iter().take(WORDS + 1).map(Cow::into_owned).collect()
    }

    fn address(&self, name: &str) -> Option<(Option<IpAddr>, u16)> {
        let address: SockAddr<'_> = self.nested(name)?;
        let ip = [&address.sin_addr, &address.sin6_addr].into_iter().find_map(|ip| ip.as_deref()?.parse().ok());
        let port = [address.sin_port, address.sin6_port].into_iter().find_map(Number::fit)?;
        (port != 0).then_some((ip, port))
    }

    /// The type of a socket: a name, or SOCK_STREAM as 1 and SOCK_DGRAM as 2, flags aside.
    fn protocol(&self) -> Option<Protocol> {
        match self.number("type") {
            Some(number) => match number & 0xf {
                1 => Some(Protocol::Tcp),
                2 => Some(Protocol::Udp),
                _ => None,
            },
            None => self.text("type")?.split('|').find_map(kernel::protocol),
        }
    }

    /// All values that are texts or numbers, by name.
    fn all(&self) -> Option<String> {
        let texts: Vec<String> = self
            .0
            .iter()
            .filter_map(Nested::as_ref)
            .filter_map(|field| {
                let value: Text<'_> = serde_json::from_str(field.value?.get()).ok()?;
                Some(format!("{}={}", field.name.as_deref()?, value.as_deref()?))
            })
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}
