//! Messages of KubeArmor's streams, as far as they are read; JSON of them has the names of `karmor logs --json`.
//!
//! Source: kubearmor/KubeArmor `protobuf/kubearmor.proto` (1.6), `LogService.WatchAlerts` and `WatchLogs`. What is not read is skipped on
//! the wire. A number that is not known is 0, but that of a user.

use prost::Message;
use serde::{Deserialize, Serialize};

/// The method that tells which policy said what.
pub const ALERTS: &str = "/feeder.LogService/WatchAlerts";
/// The method that tells what was done.
pub const LOGS: &str = "/feeder.LogService/WatchLogs";

/// `RequestMessage`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    /// `all`: of policies and of the system.
    #[prost(string, tag = "1")]
    pub filter: String,
}

/// `Alert`.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Alert {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub timestamp: i64,
    /// The same, with microseconds.
    #[prost(string, tag = "2")]
    pub updated_time: String,
    /// The node.
    #[prost(string, tag = "4")]
    pub host_name: String,
    /// The pod's namespace.
    #[prost(string, tag = "5")]
    pub namespace_name: String,
    /// The pod's name.
    #[prost(string, tag = "6")]
    pub pod_name: String,
    /// The container's id.
    #[prost(string, tag = "7")]
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The container's name.
    #[prost(string, tag = "8")]
    pub container_name: String,
    /// The process' number.
    #[prost(int32, tag = "9")]
    #[serde(rename = "HostPID", skip_serializing_if = "crate::is_default")]
    pub host_pid: i32,
    /// The user.
    #[prost(int32, tag = "12")]
    #[serde(rename = "UID")]
    pub uid: i32,
    /// The policy.
    #[prost(string, tag = "13")]
    pub policy_name: String,
    /// `MatchedPolicy`, `MatchedHostPolicy`.
    #[prost(string, tag = "17")]
    pub r#type: String,
    /// The process' command line.
    #[prost(string, tag = "18")]
    pub source: String,
    /// `Process`, `File`, `Network` …
    #[prost(string, tag = "19")]
    pub operation: String,
    /// What it is about.
    #[prost(string, tag = "20")]
    pub resource: String,
    /// The system call, with its arguments.
    #[prost(string, tag = "21")]
    pub data: String,
    /// `Allow`, `Audit`, `Block`.
    #[prost(string, tag = "22")]
    pub action: String,
    /// How it ended.
    #[prost(string, tag = "23")]
    pub result: String,
    /// The container's image.
    #[prost(string, tag = "24")]
    pub container_image: String,
    /// The parent's program.
    #[prost(string, tag = "25")]
    pub parent_process_name: String,
    /// The process' program.
    #[prost(string, tag = "26")]
    pub process_name: String,
    /// The parent's number.
    #[prost(int32, tag = "27")]
    #[serde(rename = "HostPPID", skip_serializing_if = "crate::is_default")]
    pub host_parent_pid: i32,
    /// The process' folder.
    #[prost(string, tag = "32")]
    pub cwd: String,
    /// Alerts of a second, above which none are told.
    #[prost(int32, tag = "34")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub max_alerts_per_sec: i32,
    /// For how many seconds.
    #[prost(int32, tag = "35")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub dropping_alerts_interval: i32,
}

/// `Log`.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Log {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "crate::is_default")]
    pub timestamp: i64,
    /// The same, with microseconds.
    #[prost(string, tag = "2")]
    pub updated_time: String,
    /// The node.
    #[prost(string, tag = "4")]
    pub host_name: String,
    /// The pod's namespace.
    #[prost(string, tag = "5")]
    pub namespace_name: String,
    /// The pod's name.
    #[prost(string, tag = "6")]
    pub pod_name: String,
    /// The container's id.
    #[prost(string, tag = "7")]
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The container's name.
    #[prost(string, tag = "8")]
    pub container_name: String,
    /// The process' number.
    #[prost(int32, tag = "9")]
    #[serde(rename = "HostPID", skip_serializing_if = "crate::is_default")]
    pub host_pid: i32,
    /// The user.
    #[prost(int32, tag = "12")]
    #[serde(rename = "UID")]
    pub uid: i32,
    /// `ContainerLog`, `HostLog`.
    #[prost(string, tag = "13")]
    pub r#type: String,
    /// The process' command line.
    #[prost(string, tag = "14")]
    pub source: String,
    /// `Process`, `File`, `Network` …
    #[prost(string, tag = "15")]
    pub operation: String,
    /// What it is about.
    #[prost(string, tag = "16")]
    pub resource: String,
    /// The system call, with its arguments.
    #[prost(string, tag = "17")]
    pub data: String,
    /// How it ended.
    #[prost(string, tag = "18")]
    pub result: String,
    /// The container's image.
    #[prost(string, tag = "19")]
    pub container_image: String,
    /// The parent's program.
    #[prost(string, tag = "20")]
    pub parent_process_name: String,
    /// The process' program.
    #[prost(string, tag = "21")]
    pub process_name: String,
    /// The parent's number.
    #[prost(int32, tag = "22")]
    #[serde(rename = "HostPPID", skip_serializing_if = "crate::is_default")]
    pub host_parent_pid: i32,
    /// The process' folder.
    #[prost(string, tag = "25")]
    pub cwd: String,
}
