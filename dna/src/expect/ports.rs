//! Ports: declared, probed and permitted against served.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Bound, failure, is_expected};
use crate::{Action, Completeness, Confidence, Effect, Finding, FindingCode, Known, Listen, Protocol};

pub(super) fn check(bound: &Bound<'_>) -> Vec<Finding> {
    let mut found = unserved(bound);
    let mut told = BTreeSet::new();
    for item in bound.behavior.listen.iter().filter(is_expected).filter(|item| !item.what.claimed) {
        if told.insert((item.what.port, item.what.protocol)) {
            found.extend(not_declared(bound, item));
            found.extend(not_permitted(bound, item));
        }
    }
    found
}

/// What the pod declares or probes, and nothing opens.
fn unserved(bound: &Bound<'_>) -> Vec<Finding> {
    let served = &bound.behavior.listen;
    // With nothing known to be served, an absence says nothing.
    let is_known = !matches!(bound.behavior.completeness.listen, Completeness::None)
        && served.iter().any(|item| is_expected(&item) && !item.what.claimed);
    if !is_known {
        return Vec::new();
    }
    let is_served = |port: u16, protocol: Protocol| {
        served.iter().any(|item| item.what.port == port && item.what.protocol == protocol && !item.what.claimed)
    };
    let finding = |code, subject, effect, message, remedy: &str| Finding {
        code,
        subject,
        effect,
        certainty: Confidence::Likely,
        message,
        remedy: Some(remedy.to_owned()),
        evidence: Vec::new(),
    };
    let mut found = Vec::new();
    for declared in bound.spec.ports.iter().filter(|declared| !is_served(declared.port, declared.protocol)) {
        let name = subject(declared.port, declared.protocol);
        let message = format!("port {name} is declared, and nothing is predicted to open it");
        let remedy = "remove it, or configure the server for it";
        found.push(finding(FindingCode::PortNotServed, name, Effect::None, message, remedy));
    }
    for probe in &bound.spec.probes {
        if let Action::Connect(port) = probe.action
            && !is_served(port, Protocol::Tcp)
        {
            let name = subject(port, Protocol::Tcp);
            let message = format!("{} asks port {name}, and nothing is predicted to open it", probe.name);
            let remedy = "probe a port that is served";
            found.push(finding(FindingCode::ProbePortNotServed, name, Effect::MayFail, message, remedy));
        }
    }
    found
}

fn not_declared(bound: &Bound<'_>, item: &Known<Listen>) -> Option<Finding> {
    let (port, protocol) = (item.what.port, item.what.protocol);
    let address = item.what.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
    let declared = &bound.spec.ports;
    let is_declared = declared.iter().any(|declared| declared.port == port && declared.protocol == protocol);
    if is_declared || declared.is_empty() || address.is_some_and(|address| address.is_loopback()) {
        return None;
    }
    let name = subject(port, protocol);
    Some(Finding {
        code: FindingCode::PortNotDeclared,
        message: format!("port {name} is predicted to be opened, and the pod does not declare it"),
        subject: name,
        effect: Effect::None,
        certainty: item.confidence,
        remedy: Some("declare it, or switch it off".to_owned()),
        evidence: item.evidence.clone(),
    })
}

fn not_permitted(bound: &Bound<'_>, item: &Known<Listen>) -> Option<Finding> {
    let is_open = item.what.port >= bound.port_start || bound.identity.uid.is_none_or(|uid| uid == 0);
    let name = subject(item.what.port, item.what.protocol);
    (!is_open).then(|| Finding {
        code: FindingCode::PortNotPermitted,
        message: format!(
            "only root with CAP_NET_BIND_SERVICE may open port {name} here: bind(2) will fail with EACCES"
        ),
        subject: name,
        effect: failure(item.confidence),
        certainty: item.confidence,
        remedy: Some("serve a port from 1024, or set the sysctl net.ipv4.ip_unprivileged_port_start".to_owned()),
        evidence: item.evidence.clone(),
    })
}

/// `80/tcp`.
fn subject(port: u16, protocol: Protocol) -> String {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    format!("{port}/{name}")
}
