//! Parsing alone: the least that has to be done with an event, which benchmarks hold all else against.

use std::{borrow::Cow, hint::black_box};

use serde::Deserialize;

/// Reads an event of Falco, its fields borrowed from the line.
///
/// # Errors
/// It is none.
pub fn parse(event: &str) -> serde_json::Result<()> {
    black_box(serde_json::from_str::<Event<'_>>(event)?);
    Ok(())
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing is what is measured")]
struct Event<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    rule: Cow<'a, str>,
    #[serde(borrow)]
    hostname: Cow<'a, str>,
    #[serde(borrow)]
    output_fields: Fields<'a>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing is what is measured")]
struct Fields<'a> {
    #[serde(borrow, rename = "container.id")]
    container: Cow<'a, str>,
    #[serde(borrow, rename = "container.image.digest")]
    digest: Cow<'a, str>,
    #[serde(borrow, rename = "k8s.pod.uid")]
    pod: Cow<'a, str>,
    #[serde(borrow, rename = "evt.type")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "fd.name")]
    file: Option<Cow<'a, str>>,
    #[serde(rename = "evt.is_open_write")]
    is_write: Option<bool>,
    #[serde(borrow, rename = "proc.exepath")]
    exe: Cow<'a, str>,
    #[serde(borrow, rename = "proc.cmdline")]
    command: Cow<'a, str>,
    #[serde(rename = "proc.pid")]
    pid: i64,
    #[serde(rename = "evt.time")]
    at: i64,
}
