//! Ports: declared, probed and permitted against served.

use std::collections::BTreeSet;

use super::{Bound, failure, is_expected};
use crate::{Action, Completeness, Confidence, Effect, Evidence, Finding, FindingCode, Protocol};

pub(super) fn check(bound: &Bound<'_>) -> Vec<Finding> {
    let served = &bound.behavior.listen;
    let is_served = |port: u16, protocol: Protocol| {
        served.iter().any(|item| item.what.port == port && item.what.protocol == protocol && !item.what.claimed)
    };
    let is_declared = |port: u16, protocol: Protocol| {
        bound.spec.ports.iter().any(|declared| declared.port == port && declared.protocol == protocol)
    };
    let subject = |port: u16, protocol: Protocol| {
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        format!("{port}/{name}")
    };
    let finding =
        |code, subject: String, effect, certainty, message: String, remedy: Option<String>, evidence: Vec<Evidence>| {
            Finding { code, subject, effect, certainty, message, remedy, evidence }
        };
    let mut found = Vec::new();
    // With nothing known to be served, an absence says nothing.
    let is_known = !matches!(bound.behavior.completeness.listen, Completeness::None)
        && served.iter().any(|item| is_expected(&item) && !item.what.claimed);
    if is_known {
        for declared in &bound.spec.ports {
            if !is_served(declared.port, declared.protocol) {
                let name = subject(declared.port, declared.protocol);
                let message = format!("port {name} is declared, and nothing is predicted to open it");
                let remedy = Some("remove it, or configure the server for it".to_owned());
                found.push(finding(
                    FindingCode::PortNotServed,
                    name,
                    Effect::None,
                    Confidence::Likely,
                    message,
                    remedy,
                    Vec::new(),
                ));
            }
        }
        for probe in &bound.spec.probes {
            if let Action::Connect(port) = probe.action
                && !is_served(port, Protocol::Tcp)
            {
                let name = subject(port, Protocol::Tcp);
                let message = format!("{} asks port {name}, and nothing is predicted to open it", probe.name);
                let remedy = Some("probe a port that is served".to_owned());
                found.push(finding(
                    FindingCode::ProbePortNotServed,
                    name,
                    Effect::MayFail,
                    Confidence::Likely,
                    message,
                    remedy,
                    Vec::new(),
                ));
            }
        }
    }
    let mut told = BTreeSet::new();
    for item in served.iter().filter(is_expected).filter(|item| !item.what.claimed) {
        let (port, protocol) = (item.what.port, item.what.protocol);
        if !told.insert((port, protocol)) {
            continue;
        }
        let name = subject(port, protocol);
        let is_local = item
            .what
            .address
            .as_deref()
            .is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()));
        if !is_local && !is_declared(port, protocol) && !bound.spec.ports.is_empty() {
            let message = format!("port {name} is predicted to be opened, and the pod does not declare it");
            let remedy = Some("declare it, or switch it off".to_owned());
            found.push(finding(
                FindingCode::PortNotDeclared,
                name.clone(),
                Effect::None,
                item.confidence,
                message,
                remedy,
                item.evidence.clone(),
            ));
        }
        if port < bound.port_start && bound.identity.uid.is_some_and(|uid| uid != 0) {
            let message =
                format!("only root with CAP_NET_BIND_SERVICE may open port {name} here: bind(2) will fail with EACCES");
            let remedy =
                Some("serve a port from 1024, or set the sysctl net.ipv4.ip_unprivileged_port_start".to_owned());
            found.push(finding(
                FindingCode::PortNotPermitted,
                name,
                failure(item.confidence),
                item.confidence,
                message,
                remedy,
                item.evidence.clone(),
            ));
        }
    }
    found
}
