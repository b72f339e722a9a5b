//! `ip(…)` and `cidr(…)`. As in Kubernetes, an IPv4 address in IPv6 notation, and a zone, is no address.

use std::net::IpAddr;

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::types::{CelBool, CelInt, CelString},
};
use ipnet::IpNet;

use super::{error, value};

#[derive(Debug, Clone, Copy, PartialEq)]
struct Ip(IpAddr);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Cidr(IpNet);

value!(Ip, "ip", |a, b| a == b);
value!(Cidr, "cidr", |a, b| a == b);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn is_ip: (CelString) -> CelBool, name = "isIP")?;
    ::cel::add_overload!(env, fn ip: (CelString) -> Result<Ip>)?;
    ::cel::add_overload!(env, fn is_canonical: (CelString) -> Result<CelBool>, name = "ip.isCanonical")?;
    ::cel::add_overload!(env, fn ip_text: (Ip) -> CelString, name = "string")?;
    ::cel::add_member_overload!(env, fn family: (Ip) -> CelInt)?;
    ::cel::add_member_overload!(env, fn is_global_unicast: (Ip) -> CelBool)?;
    ::cel::add_member_overload!(env, fn is_link_local_multicast: (Ip) -> CelBool)?;
    ::cel::add_member_overload!(env, fn is_link_local_unicast: (Ip) -> CelBool)?;
    ::cel::add_member_overload!(env, fn is_loopback: (Ip) -> CelBool)?;
    ::cel::add_member_overload!(env, fn is_unspecified: (Ip) -> CelBool)?;
    ::cel::add_overload!(env, fn is_cidr: (CelString) -> CelBool, name = "isCIDR")?;
    ::cel::add_overload!(env, fn cidr: (CelString) -> Result<Cidr>)?;
    ::cel::add_overload!(env, fn cidr_text: (Cidr) -> CelString, name = "string")?;
    ::cel::add_member_overload!(env, fn contains_ip: (Cidr, Ip) -> CelBool, name = "containsIP")?;
    ::cel::add_member_overload!(env, fn contains_ip_text: (Cidr, CelString) -> Result<CelBool>, name = "containsIP")?;
    ::cel::add_member_overload!(env, fn contains_cidr: (Cidr, Cidr) -> CelBool, name = "containsCIDR")?;
    ::cel::add_member_overload!(env, fn contains_cidr_text: (Cidr, CelString) -> Result<CelBool>,
        name = "containsCIDR")?;
    ::cel::add_member_overload!(env, fn address: (Cidr) -> Ip, name = "ip")?;
    ::cel::add_member_overload!(env, fn masked: (Cidr) -> Cidr)?;
    ::cel::add_member_overload!(env, fn prefix_length: (Cidr) -> CelInt)
}

fn is_ip(text: &CelString<'_>) -> CelBool {
    parse_ip(text.inner()).is_some().into()
}

fn ip(text: &CelString<'_>) -> Result<Ip, ExecutionError> {
    parse_ip(text.inner()).ok_or_else(|| error("ip", "the text is no IP address"))
}

fn is_canonical(text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok((ip(text)?.0.to_string() == text.inner()).into())
}

fn ip_text(ip: &Ip) -> CelString<'static> {
    ip.0.to_string().into()
}

fn family(ip: &Ip) -> CelInt {
    if ip.0.is_ipv4() { 4 } else { 6 }.into()
}

fn is_global_unicast(Ip(ip): &Ip) -> CelBool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast;
    (!other && !link_local_unicast(ip)).into()
}

fn is_link_local_multicast(Ip(ip): &Ip) -> CelBool {
    match ip {
        IpAddr::V4(v4) => v4.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|first| first & 0xff0f == 0xff02),
    }
    .into()
}

fn is_link_local_unicast(Ip(ip): &Ip) -> CelBool {
    link_local_unicast(ip).into()
}

fn link_local_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_loopback(ip: &Ip) -> CelBool {
    ip.0.is_loopback().into()
}

fn is_unspecified(ip: &Ip) -> CelBool {
    ip.0.is_unspecified().into()
}

fn is_cidr(text: &CelString<'_>) -> CelBool {
    parse_cidr(text.inner()).is_some().into()
}

fn cidr(text: &CelString<'_>) -> Result<Cidr, ExecutionError> {
    parse_cidr(text.inner()).ok_or_else(|| error("cidr", "the text is no CIDR such as 10.0.0.0/8"))
}

fn cidr_text(cidr: &Cidr) -> CelString<'static> {
    cidr.0.to_string().into()
}

fn contains_ip(cidr: &Cidr, ip: &Ip) -> CelBool {
    cidr.0.contains(&ip.0).into()
}

fn contains_ip_text(cidr: &Cidr, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(contains_ip(cidr, &ip(text)?))
}

fn contains_cidr(outer: &Cidr, inner: &Cidr) -> CelBool {
    outer.0.contains(&inner.0).into()
}

fn contains_cidr_text(outer: &Cidr, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(contains_cidr(outer, &cidr(text)?))
}

fn address(cidr: &Cidr) -> Ip {
    Ip(cidr.0.addr())
}

fn masked(cidr: &Cidr) -> Cidr {
    Cidr(cidr.0.trunc())
}

fn prefix_length(cidr: &Cidr) -> CelInt {
    i64::from(cidr.0.prefix_len()).into()
}

fn parse_ip(text: &str) -> Option<Ip> {
    let ip: IpAddr = text.parse().ok()?;
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(Ip(ip))
}

fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    let canonical = prefix == "0" || !prefix.starts_with('0');
    if !canonical || !prefix.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let prefix = prefix.parse().ok()?;
    IpNet::new(parse_ip(address)?.0, prefix).ok().map(Cidr)
}
