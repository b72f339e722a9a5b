//! `url("https://…")`: absolute URLs and absolute paths, as Go's `url.ParseRequestURI` reads them.

use std::collections::BTreeMap;

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelBool, CelList, CelMap, CelMapKey, CelString},
        value::Val,
    },
};

use super::{error, value};

#[derive(Debug, Clone, PartialEq)]
struct Url {
    scheme: String,
    /// With the port, brackets of IPv6 included.
    host: String,
    /// As it was written.
    path: String,
    query: String,
}

value!(Url, "url", |a, b| a == b);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn is_url: (CelString) -> CelBool, name = "isURL")?;
    ::cel::add_overload!(env, fn url: (CelString) -> Result<Url>)?;
    ::cel::add_member_overload!(env, fn get_scheme: (Url) -> CelString)?;
    ::cel::add_member_overload!(env, fn get_host: (Url) -> CelString)?;
    ::cel::add_member_overload!(env, fn get_hostname: (Url) -> CelString)?;
    ::cel::add_member_overload!(env, fn get_port: (Url) -> CelString)?;
    ::cel::add_member_overload!(env, fn get_escaped_path: (Url) -> CelString)?;
    ::cel::add_member_overload!(env, fn get_query: (Url) -> CelMap)
}

fn is_url(text: &CelString<'_>) -> CelBool {
    parse(text.inner()).is_some().into()
}

fn url(text: &CelString<'_>) -> Result<Url, ExecutionError> {
    parse(text.inner()).ok_or_else(|| error("url", "the text is no absolute URL or path"))
}

fn get_scheme(url: &Url) -> CelString<'static> {
    url.scheme.clone().into()
}

fn get_host(url: &Url) -> CelString<'static> {
    url.host.clone().into()
}

fn get_hostname(url: &Url) -> CelString<'static> {
    let name = host_and_port(&url.host).map_or("", |(name, _)| name);
    name.trim_start_matches('[').trim_end_matches(']').to_owned().into()
}

fn get_port(url: &Url) -> CelString<'static> {
    host_and_port(&url.host).map_or("", |(_, port)| port).to_owned().into()
}

fn get_escaped_path(url: &Url) -> CelString<'static> {
    escaped(&url.path).into()
}

fn get_query(url: &Url) -> CelMap<'static> {
    let mut values: BTreeMap<String, Vec<Box<dyn Val>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(name), Some(value)) = (unescaped(name, true), unescaped(value, true)) {
            values.entry(name).or_default().push(Box::new(CelString::from(value)));
        }
    }
    let entries = values.into_iter().map(|(name, values)| {
        let values: Box<dyn Val> = Box::new(CelList::from(values));
        (CelMapKey::String(CelString::from(name)), values)
    });
    CelMap::from(entries.collect::<std::collections::HashMap<_, _>>())
}

/// Whether it is a URL.
pub(super) fn is_good(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(text: &str) -> Option<Url> {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return None;
    }
    // What a request may ask for, whose fragment is a part of its path or query: it must hold with it, and counts without.
    parts(text)?;
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    unescaped(fragment, false)?;
    parts(text)
}

fn parts(text: &str) -> Option<Url> {
    let made = |scheme: &str, host: &str, path: &str, query: &str| Url {
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    };
    if text == "*" {
        return Some(made("", "", "*", ""));
    }
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end)?;
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            let in_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
            if !user.chars().all(in_user) {
                return None;
            }
            unescaped(user, false)?;
            (host_of(host)?, path)
        }
        _ if rest.starts_with('/') => (String::new(), rest),
        // `mailto:x`: a scheme, and something that is no path.
        _ if !scheme.is_empty() => return Some(made(scheme, "", "", query)),
        _ => return None,
    };
    unescaped(path, false)?;
    Some(made(scheme, &host, path, query))
}

/// A host with its port; the zone of an address in brackets may be escaped.
fn host_of(host: &str) -> Option<String> {
    host_and_port(host)?;
    if let Some((address, zone)) = host.strip_prefix('[').and_then(|inner| inner.split_once("%25")) {
        let (zone, port) = zone.split_once(']')?;
        return Some(format!("[{address}%{}]{port}", unescaped(zone, false)?));
    }
    (!host.contains([' ', '%', '\\', '^', '`', '{', '|', '}'])).then(|| host.to_owned())
}

/// The scheme, which may be empty, and what follows its colon.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.')).unwrap_or(text.len());
    match (text.get(..end)?, text.get(end..)?.strip_prefix(':')) {
        ("", Some(_)) => None,
        (scheme, Some(rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => Some((scheme, rest)),
        _ => Some(("", text)),
    }
}

/// None where the port is no number, or the brackets are not closed.
fn host_and_port(host: &str) -> Option<(&str, &str)> {
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => {
            let (_, after) = inner.split_once(']')?;
            let name = host.get(..host.len() - after.len())?;
            (name, if after.is_empty() { "" } else { after.strip_prefix(':')? })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, port),
            None => (host, ""),
        },
    };
    port.bytes().all(|b| b.is_ascii_digit()).then_some((name, port))
}

fn unescaped(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex = |b: Option<u8>| char::from(b?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                hex(rest.next())? * 16 + hex(rest.next())?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of a path: as it is written, where that is an escape of what it means; else as Go writes it. Source: Go, `net/url`, `EscapedPath`,
/// `validEncoded`, `shouldEscape`.
fn escaped(path: &str) -> String {
    use std::fmt::Write as _;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/$&+,:;=@!'()*[]".contains(&byte);
    if path.bytes().all(|byte| plain(byte) || byte == b'%') {
        return path.to_owned();
    }
    let meant = unescaped(path, false).unwrap_or_default();
    meant.bytes().fold(String::with_capacity(path.len()), |mut text, byte| {
        match byte {
            // What brackets and the like stand for in a path is not agreed on.
            b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' => _ = write!(text, "%{byte:02X}"),
            _ if plain(byte) => text.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            _ => _ = write!(text, "%{byte:02X}"),
        }
        text
    })
}
