//! Falco's JSON, as `http_output`, `file_output` and Falcosidekick's webhook send it.
//!
//! Source: falcosecurity/falco `userspace/engine/formats.cpp` (0.44) for the frame, `userspace/libsinsp/sinsp_filtercheck_*.cpp` for the
//! fields. What an event is follows from `evt.type`, never from a rule's name, so that anybody's rules are understood.

use std::{net::IpAddr, sync::Arc};

use dna::{Act, Activity, Change, Origin, Outcome, Process, Protocol, SeenContainer};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Dialect, Key, Loss, Malformed, NOT_COMPARED, OF_THE_HOST, Told, container_id, image_digest, kernel, key,
    lenient::{Flag, Number, Text},
    words,
};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    time: Text<'a>,
    #[serde(borrow, default)]
    rule: Text<'a>,
    #[serde(borrow, default)]
    source: Text<'a>,
    #[serde(borrow, default)]
    hostname: Text<'a>,
    #[serde(borrow)]
    output_fields: Option<Fields<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow, rename = "container.id")]
    container_id: Text<'a>,
    #[serde(borrow, rename = "container.full_id")]
    container_full_id: Text<'a>,
    #[serde(borrow, rename = "container.name")]
    container_name: Text<'a>,
    #[serde(borrow, rename = "container.image.repository")]
    repository: Text<'a>,
    #[serde(borrow, rename = "container.image.tag")]
    tag: Text<'a>,
    #[serde(borrow, rename = "container.image.digest")]
    digest: Text<'a>,
    #[serde(borrow, rename = "k8s.ns.name")]
    namespace: Text<'a>,
    #[serde(borrow, rename = "k8s.pod.name")]
    pod: Text<'a>,
    #[serde(borrow, rename = "k8s.pod.uid")]
    pod_uid: Text<'a>,
    #[serde(rename = "evt.time")]
    time: Number,
    #[serde(borrow, rename = "evt.num")]
    number: Text<'a>,
    #[serde(borrow, rename = "evt.type")]
    kind: Text<'a>,
    #[serde(borrow, rename = "evt.res")]
    result: Text<'a>,
    #[serde(rename = "evt.rawres")]
    raw_result: Number,
    #[serde(rename = "evt.is_open_write")]
    is_write: Flag,
    #[serde(rename = "evt.is_open_read")]
    is_read: Flag,
    #[serde(borrow, rename = "evt.arg.flags")]
    flags: Text<'a>,
    #[serde(borrow, rename = "evt.arg.filename")]
    filename: Text<'a>,
    #[serde(borrow, rename = "evt.arg.path")]
    path: Text<'a>,
    #[serde(borrow, rename = "evt.arg.newpath")]
    new_path: Text<'a>,
    #[serde(borrow, rename = "evt.arg.name")]
    path_by_name: Text<'a>,
    #[serde(borrow, rename = "evt.arg.pathname")]
    pathname: Text<'a>,
    #[serde(borrow, rename = "evt.arg.linkpath")]
    new_link: Text<'a>,
    #[serde(borrow, rename = "fs.path.name")]
    resolved_path: Text<'a>,
    #[serde(borrow, rename = "fs.path.source")]
    link_path: Text<'a>,
    #[serde(borrow, rename = "fs.path.target")]
    target_path: Text<'a>,
    #[serde(borrow, rename = "evt.arg.uid")]
    set_uid: Text<'a>,
    #[serde(borrow, rename = "evt.arg.id")]
    set_id: Text<'a>,
    #[serde(borrow, rename = "evt.args")]
    arguments: Text<'a>,
    #[serde(rename = "proc.pid")]
    pid: Number,
    #[serde(borrow, rename = "proc.name")]
    name: Text<'a>,
    #[serde(borrow, rename = "proc.exepath")]
    exe_path: Text<'a>,
    #[serde(borrow, rename = "proc.exe")]
    exe: Text<'a>,
    #[serde(borrow, rename = "proc.cmdline")]
    command_line: Text<'a>,
    #[serde(borrow, rename = "proc.args")]
    args: Text<'a>,
    #[serde(borrow, rename = "proc.cwd")]
    cwd: Text<'a>,
    #[serde(rename = "proc.ppid")]
    parent_pid: Number,
    #[serde(borrow, rename = "proc.pname")]
    parent_name: Text<'a>,
    #[serde(borrow, rename = "proc.pexepath")]
    parent_exe_path: Text<'a>,
    #[serde(borrow, rename = "proc.pcmdline")]
    parent_command_line: Text<'a>,
    #[serde(borrow, rename = "proc.aname[2]")]
    grandparent: Text<'a>,
    #[serde(rename = "proc.is_exe_upper_layer")]
    is_upper_layer: Flag,
    #[serde(rename = "proc.is_exe_lower_layer")]
    is_lower_layer: Flag,
    #[serde(rename = "proc.is_exe_from_memfd")]
    is_memfd: Flag,
    #[serde(rename = "user.uid")]
    uid: Number,
    #[serde(borrow, rename = "fd.name")]
    fd_name: Text<'a>,
    #[serde(borrow, rename = "fd.type")]
    fd_type: Text<'a>,
    #[serde(borrow, rename = "fd.l4proto")]
    l4_protocol: Text<'a>,
    #[serde(borrow, rename = "fd.lip")]
    local_address: Text<'a>,
    #[serde(rename = "fd.lport")]
    local_port: Number,
    #[serde(borrow, rename = "fd.rip")]
    remote_address: Text<'a>,
    #[serde(rename = "fd.rport")]
    remote_port: Number,
    #[serde(borrow, rename = "fd.sip")]
    server_address: Text<'a>,
    #[serde(rename = "fd.sport")]
    server_port: Number,
    #[serde(borrow, rename = "fd.sip.name")]
    server_name: Text<'a>,
    #[serde(rename = "n_drops")]
    drops: Number,
}

/// Reads one event, and its key where what names it is there.
///
/// # Errors
/// [`Malformed`] where it is not JSON, or has no `output_fields`.
pub(crate) fn decode(item: &[u8]) -> Result<(Option<Key>, Told), Malformed> {
    let event =
        parse(item).map_err(|error| Malformed::new(format!("not an event of Falco, one JSON object: {error}")))?;
    Ok((named(&event), read(&event)?))
}

/// The key of an event; none where it is none, or what names it is missing.
pub(crate) fn identity(item: &[u8]) -> Option<Key> {
    named(&parse(item).ok()?)
}

/// All of it is looked at for being UTF-8 at once, which takes less time than one string after the other.
fn parse(item: &[u8]) -> serde_json::Result<Event<'_>> {
    match std::str::from_utf8(item) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(item),
    }
}

fn named(event: &Event<'_>) -> Option<Key> {
    // As the frame has it: Falcosidekick changes how it is written, and not what it is.
    let time: Timestamp = event.time.as_deref()?.parse().ok()?;
    let rule = event.rule.as_deref()?;
    let fields = event.output_fields.as_ref();
    let parts: [&[u8]; 5] = [
        &time.as_nanosecond().to_le_bytes(),
        rule.as_bytes(),
        event.hostname.as_deref().unwrap_or_default().as_bytes(),
        fields.and_then(|fields| fields.container_id.as_deref()).unwrap_or_default().as_bytes(),
        fields.and_then(|fields| fields.number.as_deref()).unwrap_or_default().as_bytes(),
    ];
    Some(key::of_parts(Dialect::Falco, &parts))
}

fn read(event: &Event<'_>) -> Result<Told, Malformed> {
    let Some(fields) = &event.output_fields else {
        return Err(Malformed::new(
            "no `output_fields`: set `json_output: true` and `json_include_output_fields_property: true` in falco.yaml",
        ));
    };
    let Some(at) = time(&event.time, fields.time) else {
        return Err(Malformed::new("no time: `time` is no RFC 3339 time and `evt.time` no number of nanoseconds"));
    };
    let node = event.hostname.owned();
    if event.source.as_deref() == Some("internal") {
        let count = fields.drops.fit();
        return Ok(Told::Loss(Loss { at, node, count, reason: event.rule.owned().unwrap_or_default() }));
    }
    if fields.container_id.as_deref().is_none_or(|id| id == "host") {
        return Ok(Told::Nothing(OF_THE_HOST));
    }
    let Some(act) = act(fields) else { return Ok(Told::Nothing(NOT_COMPARED)) };
    Ok(Told::Activity(Arc::new(Activity {
        at,
        sensor: "falco".to_owned(),
        node,
        container: container(fields),
        process: process(fields),
        ancestors: ancestors(fields),
        act,
        outcome: outcome(fields),
        rule: event.rule.owned(),
    })))
}

fn time(text: &Text<'_>, nanoseconds: Number) -> Option<Timestamp> {
    let exact = nanoseconds.0.and_then(|number| Timestamp::from_nanosecond(i128::from(number)).ok());
    exact.or_else(|| text.as_deref().and_then(|text| text.parse().ok()))
}

fn container(fields: &Fields<'_>) -> SeenContainer {
    let id = [&fields.container_full_id, &fields.container_id].into_iter().find_map(|id| container_id(id.as_deref()?));
    let image = fields.repository.as_deref().map(|repository| match fields.tag.as_deref() {
        Some(tag) => [repository, ":", tag].concat(),
        None => repository.to_owned(),
    });
    SeenContainer {
        id,
        name: fields.container_name.owned(),
        image,
        digest: fields.digest.as_deref().and_then(image_digest),
        namespace: fields.namespace.owned(),
        pod: fields.pod.owned(),
        pod_uid: fields.pod_uid.owned(),
    }
}

fn process(fields: &Fields<'_>) -> Process {
    let argv = match (fields.exe.as_deref(), fields.args.as_deref()) {
        // `proc.cmdline` begins with the name of the process; `proc.exe` is its first argument.
        (Some(exe), Some(args)) => words(&[exe, " ", args].concat()),
        (Some(exe), None) if fields.command_line.as_deref().is_none_or(|line| !line.contains(' ')) => words(exe),
        _ => fields.command_line.as_deref().map(words).unwrap_or_default(),
    };
    let origin = if fields.is_memfd.is_set() {
        Some(Origin::Memory)
    } else if fields.is_upper_layer.is_set()
        || fields.flags.as_deref().is_some_and(|flags| flags.contains("EXE_UPPER_LAYER"))
    {
        Some(Origin::Written)
    } else if fields.is_lower_layer.is_set() {
        Some(Origin::Image)
    } else {
        None
    };
    Process {
        pid: fields.pid.fit(),
        id: None,
        name: fields.name.owned(),
        exe: fields.exe_path.owned(),
        argv,
        cwd: fields.cwd.owned(),
        uid: fields.uid.fit(),
        origin,
    }
}

fn ancestors(fields: &Fields<'_>) -> Vec<Process> {
    let parent = Process {
        pid: fields.parent_pid.fit(),
        name: fields.parent_name.owned(),
        exe: fields.parent_exe_path.owned(),
        argv: fields.parent_command_line.as_deref().map(words).unwrap_or_default(),
        ..Process::default()
    };
    if parent == Process::default() {
        return Vec::new();
    }
    let grandparent = fields.grandparent.owned().map(|name| Process { name: Some(name), ..Process::default() });
    [parent].into_iter().chain(grandparent).collect()
}

fn act(fields: &Fields<'_>) -> Option<Act> {
    let kind = fields.kind.as_deref()?;
    // What is done to a path has it resolved where it succeeded, and always as it was written, under a name for each call.
    let first = |paths: &[&Text<'_>]| paths.iter().find_map(|path| path.owned());
    let file = || {
        let Fields { fd_name, resolved_path, path, filename, pathname, path_by_name, .. } = fields;
        first(&[fd_name, resolved_path, path, filename, pathname, path_by_name])
    };
    // `fs.path` calls the name that is made the source, and what it leads to the target.
    let link = || first(&[&fields.link_path, &fields.new_link, &fields.new_path]);
    match kind {
        "execve" | "execveat" => Some(Act::Exec { file: fields.filename.owned() }),
        "procexit" => Some(Act::Exit),
        "open" | "openat" | "openat2" | "open_by_handle_at" => opened(fields, file()?),
        // It has no flags: it is open(2) for writing.
        "creat" => file().map(|path| Act::Write { path, change: Change::Open }),
        "listen" | "bind" => {
            let protocol = protocol(fields)?;
            // A stream socket that is bound does not listen yet.
            if kind == "bind" && protocol != Protocol::Udp {
                return None;
            }
            let port = fields.local_port.fit().or_else(|| fields.server_port.fit()).filter(|port| *port != 0)?;
            let address = address(&fields.local_address).or_else(|| address(&fields.server_address));
            Some(Act::Listen { protocol, address, port })
        }
        "accept" | "accept4" => {
            let port = fields.local_port.fit().or_else(|| fields.server_port.fit())?;
            Some(Act::Accept { port, peer: address(&fields.remote_address) })
        }
        "connect" | "sendto" | "sendmsg" | "sendmmsg" => connected(fields),
        // Made by every process, and told only with what it leads to.
        "clone" | "clone3" | "fork" | "vfork" | "close" | "read" | "write" => None,
        _ if kernel::is_identity(kind) => {
            let id = fields.set_id.as_deref().or(fields.set_uid.as_deref()).and_then(|id| id.parse().ok());
            Some(Act::Identity { call: kind.to_owned(), id })
        }
        _ => match kernel::change(kind) {
            Some(Change::Rename) => {
                let path = first(&[&fields.target_path, &fields.new_path]).or_else(file)?;
                Some(Act::Write { path, change: Change::Rename })
            }
            Some(change) => link().or_else(file).map(|path| Act::Write { path, change }),
            None => Some(Act::Syscall { name: kind.to_owned(), arguments: fields.arguments.owned() }),
        },
    }
}

fn opened(fields: &Fields<'_>, path: String) -> Option<Act> {
    match (fields.is_write.0, fields.is_read.0) {
        (Some(true), _) => Some(Act::Write { path, change: Change::Open }),
        (_, Some(true)) => Some(Act::Read { path }),
        (Some(false), Some(false)) => None,
        _ => kernel::opened(path, fields.flags.as_deref().unwrap_or_default()),
    }
}

fn connected(fields: &Fields<'_>) -> Option<Act> {
    if fields.fd_type.as_deref() == Some("unix") {
        // `a->b path` where both ends are shown.
        let path = fields.fd_name.as_deref()?.rsplit(' ').next()?.rsplit("->").next()?.to_owned();
        return Some(Act::ConnectUnix { path });
    }
    let protocol = protocol(fields)?;
    let port = fields.remote_port.fit().or_else(|| fields.server_port.fit())?;
    let address = address(&fields.remote_address).or_else(|| address(&fields.server_address));
    Some(Act::Connect { protocol, address, host: fields.server_name.owned(), port })
}

fn protocol(fields: &Fields<'_>) -> Option<Protocol> {
    fields.l4_protocol.as_deref().and_then(kernel::protocol)
}

fn address(text: &Text<'_>) -> Option<IpAddr> {
    text.as_deref().and_then(|text| text.parse().ok())
}

fn outcome(fields: &Fields<'_>) -> Outcome {
    match fields.result.as_deref() {
        Some("SUCCESS") => Outcome::Done,
        Some(error) => kernel::failed(Some(error)),
        None => kernel::returned(fields.raw_result.0),
    }
}
