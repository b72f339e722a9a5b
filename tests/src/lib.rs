//! What the end-to-end suites share: the program under test, servers on free loopback ports, images built by code.
//!
//! A tool that is missing ends a suite aloud, naming the Debian package: a suite that cannot run never counts as passed.

mod bridge;
mod cluster;
mod image;
pub mod judgement;
mod nats;
mod openapi;
mod parsing;
mod postgres;
mod process;
mod proxy;
mod registry;
mod sigstore;
pub mod soak;

pub use bridge::{
    Bridge, BridgeOptions, SECRET, Sensor, TAKEN, counted, event, knows, sensors, served, serves, sqlite, starts,
    subject, writes,
};
pub use cluster::{Cluster, Inside};
pub use image::{ImageBuilder, Layer};
pub use nats::Nats;
pub use openapi::{Carrier, carriers};
pub use parsing::parse;
pub use postgres::Postgres;
pub use process::{Output, mayfly, mayfly_path, run, tool};
pub use proxy::{Fault, Matches, Proxy};
pub use registry::{Access, Registry};
pub use sigstore::{ReferrersRegistry, Sigstore, copy, free_port, sigstore_tool, written};
