//! Messages of Tetragon's stream, as far as its events are read; JSON of them has the names of its export.
//!
//! Source: cilium/tetragon `api/v1/tetragon/{events,tetragon}.proto` (1.6), `FineGuidanceSensors.GetEvents`. What is not read is skipped
//! on the wire. That one event has one kind is the sensor's promise; on the wire a kind is a field as any other.

use jiff::Timestamp;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The method that is asked. The question is empty: no filter.
pub const EVENTS: &str = "/tetragon.FineGuidanceSensors/GetEvents";

/// `GetEventsResponse`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// A program was executed.
    #[prost(message, optional, tag = "1")]
    pub process_exec: Option<Exec>,
    /// A process ended.
    #[prost(message, optional, tag = "5")]
    pub process_exit: Option<Exit>,
    /// A function of the kernel was called.
    #[prost(message, optional, tag = "9")]
    pub process_kprobe: Option<Kprobe>,
    /// A tracepoint was passed.
    #[prost(message, optional, tag = "10")]
    pub process_tracepoint: Option<Tracepoint>,
    /// A file was mapped to be executed.
    #[prost(message, optional, tag = "11")]
    pub process_loader: Option<Loader>,
    /// A function of a program was called.
    #[prost(message, optional, tag = "12")]
    pub process_uprobe: Option<Probe>,
    /// Events of a cgroup are held back.
    #[prost(message, optional, tag = "27")]
    pub process_throttle: Option<Throttle>,
    /// A hook of a security module was called.
    #[prost(message, optional, tag = "28")]
    pub process_lsm: Option<Lsm>,
    /// A static probe of a program was passed.
    #[prost(message, optional, tag = "29")]
    pub process_usdt: Option<Probe>,
    /// Events were left out.
    #[prost(message, optional, tag = "40001")]
    pub rate_limit_info: Option<RateLimit>,
    /// The node's name.
    #[prost(string, tag = "1000")]
    pub node_name: String,
    /// When it was seen.
    #[prost(message, optional, tag = "1001")]
    pub time: Option<Time>,
}

/// `google.protobuf.Timestamp`; in JSON a time of RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Time {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Beside them.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::new(self.seconds, self.nanos) {
            Ok(time) => serializer.collect_str(&time),
            Err(_) => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time: Timestamp = String::deserialize(deserializer)?.parse().map_err(D::Error::custom)?;
        Ok(Self { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
    }
}

/// `ProcessExec`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// The process, as it is now.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Its parent.
    #[prost(message, optional, tag = "2")]
    pub parent: Option<Process>,
    /// Those above the parent.
    #[prost(message, repeated, tag = "3")]
    pub ancestors: Vec<Process>,
}

/// `ProcessExit`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// The process that ended.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Its parent.
    #[prost(message, optional, tag = "2")]
    pub parent: Option<Process>,
    /// Those above the parent.
    #[prost(message, repeated, tag = "6")]
    pub ancestors: Vec<Process>,
}

/// `ProcessKprobe`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Kprobe {
    /// The process that called.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Its parent.
    #[prost(message, optional, tag = "2")]
    pub parent: Option<Process>,
    /// The function.
    #[prost(string, tag = "3")]
    pub function_name: String,
    /// What the policy asked for of its arguments.
    #[prost(message, repeated, tag = "4")]
    pub args: Vec<Argument>,
    /// What it returned.
    #[prost(message, optional, tag = "5")]
    #[serde(rename = "return")]
    pub returned: Option<Argument>,
    /// What the policy did.
    #[prost(int32, tag = "6")]
    #[serde(serialize_with = "action", deserialize_with = "number_of_action")]
    pub action: i32,
    /// The policy.
    #[prost(string, tag = "8")]
    pub policy_name: String,
    /// What it did when the function returned.
    #[prost(int32, tag = "9")]
    #[serde(serialize_with = "action", deserialize_with = "number_of_action")]
    pub return_action: i32,
    /// Those above the parent.
    #[prost(message, repeated, tag = "13")]
    pub ancestors: Vec<Process>,
}

/// `ProcessTracepoint`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracepoint {
    /// The process that passed it.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Its parent.
    #[prost(message, optional, tag = "2")]
    pub parent: Option<Process>,
    /// `syscalls`, `module` …
    #[prost(string, tag = "4")]
    pub subsys: String,
    /// The tracepoint.
    #[prost(string, tag = "5")]
    pub event: String,
    /// What the policy asked for.
    #[prost(message, repeated, tag = "6")]
    pub args: Vec<Argument>,
    /// The policy.
    #[prost(string, tag = "7")]
    pub policy_name: String,
    /// What the policy did.
    #[prost(int32, tag = "8")]
    #[serde(serialize_with = "action", deserialize_with = "number_of_action")]
    pub action: i32,
    /// Those above the parent.
    #[prost(message, repeated, tag = "11")]
    pub ancestors: Vec<Process>,
}

/// `ProcessLsm`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Lsm {
    /// The process that called.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Its parent.
    #[prost(message, optional, tag = "2")]
    pub parent: Option<Process>,
    /// The hook.
    #[prost(string, tag = "3")]
    pub function_name: String,
    /// The policy.
    #[prost(string, tag = "5")]
    pub policy_name: String,
    /// What the policy asked for.
    #[prost(message, repeated, tag = "7")]
    pub args: Vec<Argument>,
    /// What the policy did.
    #[prost(int32, tag = "8")]
    #[serde(serialize_with = "action", deserialize_with = "number_of_action")]
    pub action: i32,
    /// Those above the parent.
    #[prost(message, repeated, tag = "10")]
    pub ancestors: Vec<Process>,
}

/// `ProcessLoader`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Loader {
    /// The process that maps it.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// The file.
    #[prost(string, tag = "2")]
    pub path: String,
    /// The process' parent.
    #[prost(message, optional, tag = "4")]
    pub parent: Option<Process>,
    /// Those above the parent.
    #[prost(message, repeated, tag = "5")]
    pub ancestors: Vec<Process>,
}

/// `ProcessUprobe` and `ProcessUsdt`, as far as they are alike.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// The process that passed it.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Its parent.
    #[prost(message, optional, tag = "2")]
    pub parent: Option<Process>,
    /// The program's file.
    #[prost(string, tag = "3")]
    pub path: String,
}

/// `ProcessThrottle`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttle {
    /// Whether it begins or ends.
    #[prost(int32, tag = "1")]
    #[serde(rename = "type", serialize_with = "throttle", deserialize_with = "number_of_throttle")]
    pub kind: i32,
    /// The cgroup.
    #[prost(string, tag = "2")]
    pub cgroup: String,
}

/// `RateLimitInfo`.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    /// How many events were left out.
    #[prost(uint64, tag = "1")]
    #[serde(skip_serializing_if = "crate::is_default", deserialize_with = "number")]
    pub number_of_dropped_process_events: u64,
}

/// `Process`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Names it for good.
    #[prost(string, tag = "1")]
    pub exec_id: String,
    /// The node's number of it.
    #[prost(message, optional, tag = "2")]
    pub pid: Option<u32>,
    /// The user.
    #[prost(message, optional, tag = "3")]
    pub uid: Option<u32>,
    /// Its folder.
    #[prost(string, tag = "4")]
    pub cwd: String,
    /// Its program.
    #[prost(string, tag = "5")]
    pub binary: String,
    /// Its arguments.
    #[prost(string, tag = "6")]
    pub arguments: String,
    /// Its pod.
    #[prost(message, optional, tag = "10")]
    pub pod: Option<Pod>,
    /// The begin of its container's id.
    #[prost(string, tag = "11")]
    pub docker: String,
    /// What is special about its program.
    #[prost(message, optional, tag = "18")]
    pub binary_properties: Option<Properties>,
}

/// `Pod`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its uid; before 1.4 a list of labels was here.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// The container.
    #[prost(message, optional, tag = "4")]
    pub container: Option<Container>,
}

/// `Container`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its id, with the runtime's scheme.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name in the pod.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its image.
    #[prost(message, optional, tag = "3")]
    pub image: Option<Image>,
}

/// `Image`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// With its digest.
    #[prost(string, tag = "1")]
    pub id: String,
    /// With its tag.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// `BinaryProperties`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// The program's file, where it is in memory or deleted.
    #[prost(message, optional, tag = "4")]
    pub file: Option<PropertiesFile>,
}

/// `FileProperties`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct PropertiesFile {
    /// Its inode.
    #[prost(message, optional, tag = "1")]
    pub inode: Option<Inode>,
}

/// `InodeProperties`.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Inode {
    /// Names that it has; none: it is deleted.
    #[prost(message, optional, tag = "2")]
    pub links: Option<u32>,
}

/// `KprobeArgument`: one of these.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Argument {
    /// A text.
    #[prost(string, optional, tag = "1")]
    pub string_arg: Option<String>,
    /// A number.
    #[prost(int32, optional, tag = "2")]
    pub int_arg: Option<i32>,
    /// A packet.
    #[prost(message, optional, tag = "3")]
    pub skb_arg: Option<Skb>,
    /// A size.
    #[prost(uint64, optional, tag = "4")]
    #[serde(deserialize_with = "some_number")]
    pub size_arg: Option<u64>,
    /// A path.
    #[prost(message, optional, tag = "6")]
    pub path_arg: Option<File>,
    /// An open file.
    #[prost(message, optional, tag = "7")]
    pub file_arg: Option<File>,
    /// A socket.
    #[prost(message, optional, tag = "9")]
    pub sock_arg: Option<Sock>,
    /// A number.
    #[prost(int64, optional, tag = "11")]
    #[serde(deserialize_with = "some_number")]
    pub long_arg: Option<i64>,
    /// A number.
    #[prost(uint32, optional, tag = "15")]
    pub uint_arg: Option<u32>,
    /// A capability.
    #[prost(message, optional, tag = "17")]
    pub capability_arg: Option<Capability>,
    /// A module of the kernel.
    #[prost(message, optional, tag = "21")]
    pub module_arg: Option<Module>,
    /// What is to be executed.
    #[prost(message, optional, tag = "26")]
    pub linux_binprm_arg: Option<Binprm>,
    /// An address.
    #[prost(message, optional, tag = "30")]
    pub sockaddr_arg: Option<SockAddr>,
}

/// `KprobeSkb`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Skb {
    /// From where.
    #[prost(string, tag = "5")]
    pub saddr: String,
    /// To where.
    #[prost(string, tag = "6")]
    pub daddr: String,
    /// From which port.
    #[prost(uint32, tag = "7")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub sport: u32,
    /// To which port.
    #[prost(uint32, tag = "8")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub dport: u32,
    /// The protocol.
    #[prost(string, tag = "12")]
    pub protocol: String,
    /// The family.
    #[prost(string, tag = "13")]
    pub family: String,
}

/// `KprobeSock`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Sock {
    /// The family.
    #[prost(string, tag = "1")]
    pub family: String,
    /// The type.
    #[prost(string, tag = "2")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The protocol.
    #[prost(string, tag = "3")]
    pub protocol: String,
    /// Its own address.
    #[prost(string, tag = "6")]
    pub saddr: String,
    /// Its peer's.
    #[prost(string, tag = "7")]
    pub daddr: String,
    /// Its own port.
    #[prost(uint32, tag = "8")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub sport: u32,
    /// Its peer's.
    #[prost(uint32, tag = "9")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub dport: u32,
    /// Of the connection.
    #[prost(string, tag = "11")]
    pub state: String,
}

/// `KprobeSockaddr`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct SockAddr {
    /// The family.
    #[prost(string, tag = "1")]
    pub family: String,
    /// The address, or a path.
    #[prost(string, tag = "2")]
    pub addr: String,
    /// The port.
    #[prost(uint32, tag = "3")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub port: u32,
}

/// `KprobePath` and `KprobeFile`, which are alike.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// Its path.
    #[prost(string, tag = "2")]
    pub path: String,
}

/// `KprobeLinuxBinprm`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Binprm {
    /// Its path.
    #[prost(string, tag = "1")]
    pub path: String,
}

/// `KprobeCapability`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Capability {
    /// Its number.
    #[prost(message, optional, tag = "1")]
    pub value: Option<i32>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// `KernelModule`.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `KprobeAction`, by number.
const ACTIONS: [&str; 16] = [
    "KPROBE_ACTION_UNKNOWN",
    "KPROBE_ACTION_POST",
    "KPROBE_ACTION_FOLLOWFD",
    "KPROBE_ACTION_SIGKILL",
    "KPROBE_ACTION_UNFOLLOWFD",
    "KPROBE_ACTION_OVERRIDE",
    "KPROBE_ACTION_COPYFD",
    "KPROBE_ACTION_GETURL",
    "KPROBE_ACTION_DNSLOOKUP",
    "KPROBE_ACTION_NOPOST",
    "KPROBE_ACTION_SIGNAL",
    "KPROBE_ACTION_TRACKSOCK",
    "KPROBE_ACTION_UNTRACKSOCK",
    "KPROBE_ACTION_NOTIFYENFORCER",
    "KPROBE_ACTION_CLEANUPENFORCERNOTIFICATION",
    "KPROBE_ACTION_SET",
];
/// `ThrottleType`, by number.
const THROTTLES: [&str; 3] = ["THROTTLE_UNKNOWN", "THROTTLE_START", "THROTTLE_STOP"];

/// The name of a number, as JSON has it; 0 is left out there.
fn name<S: Serializer>(names: &[&'static str], number: i32, serializer: S) -> Result<S::Ok, S::Error> {
    match usize::try_from(number).ok().and_then(|number| names.get(number)) {
        _ if number == 0 => serializer.serialize_none(),
        Some(name) => serializer.serialize_str(name),
        None => serializer.serialize_i32(number),
    }
}

fn number_of<'de, D: Deserializer<'de>>(names: &[&'static str], deserializer: D) -> Result<i32, D::Error> {
    let name = String::deserialize(deserializer)?;
    let number = names.iter().position(|known| *known == name).and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| D::Error::custom(format!("{name} is not known")))
}

fn action<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    name(&ACTIONS, *number, serializer)
}

fn number_of_action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    number_of(&ACTIONS, deserializer)
}

fn throttle<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    name(&THROTTLES, *number, serializer)
}

fn number_of_throttle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    number_of(&THROTTLES, deserializer)
}

/// A number of 64 bits, which JSON has as a text.
fn number<'de, D: Deserializer<'de>, T: std::str::FromStr>(deserializer: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().map_err(|_| D::Error::custom(format!("{text} is no number")))
}

fn some_number<'de, D: Deserializer<'de>, T: std::str::FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
    number(deserializer).map(Some)
}
