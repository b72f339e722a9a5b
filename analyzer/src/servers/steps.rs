//! Steps of servers whose settings depend on each other: facts in, facts with what follows from them out.

use std::collections::BTreeSet;

use super::{
    Fact, Origin,
    values::{Place, place},
};
use crate::shell::Arg;

/// nginx: a server block without `listen` has `*:80` as root, `*:8000` as another user; a `proxy_pass` may name an upstream
/// block, whose servers are called then (ngx_http_core_module, `listen`; ngx_http_proxy_module, `proxy_pass`).
pub(super) fn nginx(facts: &mut Vec<Fact>, uid: Option<u32>) {
    let port = if uid.unwrap_or(0) == 0 { "80" } else { "8000" };
    let mut added = Vec::new();
    let mut open: Option<&Fact> = None;
    let is_server = |fact: &Fact| fact.opens && fact.path == "http.server";
    for fact in facts.iter() {
        if is_server(fact) {
            added.extend(open.replace(fact));
        } else if fact.path == "http.server.listen" {
            open = None;
        }
    }
    added.extend(open);
    let added: Vec<Fact> = added
        .into_iter()
        .map(|server| Fact {
            path: "http.server.listen".to_owned(),
            words: vec![port.to_owned()],
            opens: false,
            ..server.clone()
        })
        .collect();
    let upstreams: BTreeSet<String> = facts
        .iter()
        .filter(|fact| fact.opens && fact.path.ends_with("upstream"))
        .filter_map(|f| f.words.first().cloned())
        .collect();
    facts.extend(added);
    facts.retain(|fact| {
        let host = fact.words.first().filter(|_| fact.path.ends_with("-pass")).and_then(|word| place(word));
        !matches!(host, Some(Place::Net { host: Some(host), .. }) if upstreams.contains(&host))
    });
}

/// apache: what stands in `<IfModule>` and `<IfDefine>` holds if the module was loaded before, or the word given with `-D`
/// (httpd.apache.org/docs/2.4/mod/core.html). Modules are asked for as `ssl_module` or `mod_ssl.c`.
pub(super) fn apache(facts: &mut Vec<Fact>, argv: &[Arg]) {
    // Linked into every build that can load modules, and into Debian's.
    let mut loaded: BTreeSet<String> = ["core", "so", "http", "log_config", "logio", "version", "unixd", "watchdog"]
        .map(|name| format!("{name}_module"))
        .into();
    let words: Vec<&str> = argv.iter().flatten().map(String::as_str).collect();
    let joined = words.iter().filter_map(|word| word.strip_prefix("-D"));
    let apart = words.iter().zip(words.iter().skip(1)).filter(|(option, _)| **option == "-D").map(|(_, word)| *word);
    let defined: BTreeSet<&str> = joined.chain(apart).collect();
    let mut holds: Vec<bool> = Vec::new();
    facts.retain(|fact| {
        let word = fact.words.first().map(String::as_str).unwrap_or_default();
        let (wanted, name) = word.strip_prefix('!').map_or((true, word), |name| (false, name));
        let module = || match name.strip_prefix("mod_").and_then(|name| name.strip_suffix(".c")) {
            Some(name) => format!("{name}_module"),
            None => name.to_owned(),
        };
        match fact.path.rsplit('.').next().unwrap_or_default() {
            "ifmodule" => holds.push(loaded.contains(&module()) == wanted),
            "ifdefine" => holds.push(defined.contains(name) == wanted),
            "ifversion" | "ifclass" | "else" | "if" => holds.push(true),
            end if end.starts_with('/') => {
                holds.pop();
            }
            key if holds.iter().all(|holds| *holds) => {
                if key == "loadmodule" {
                    loaded.insert(word.to_owned());
                }
                return true;
            }
            _ => {}
        }
        false
    });
}

/// caddy: sites are the headers of the outermost blocks. One with a name has HTTPS on 443 and HTTP/3 beside it, and a redirect
/// on 80; one with `http://` or only a port has plain HTTP ("Caddyfile Concepts: Addresses", "Automatic HTTPS").
pub(super) fn caddy(facts: &mut Vec<Fact>) {
    let global =
        |key: &str| facts.iter().rev().find(|fact| fact.path == key).and_then(|fact| fact.words.first().cloned());
    let plain = global(".http-port").unwrap_or_else(|| "80".to_owned());
    let secure = global(".https-port").unwrap_or_else(|| "443".to_owned());
    let automatic = global(".auto-https");
    let is_site = |fact: &&Fact| fact.origin == Origin::File && fact.depth == 0 && fact.opens;
    let mut sites: Vec<&Fact> = facts.iter().filter(is_site).collect();
    if sites.is_empty() {
        // A file of one site needs no braces: its first line is the address.
        sites.extend(
            facts.iter().find(|fact| fact.origin == Origin::File && fact.depth == 0 && !fact.path.starts_with('.')),
        );
    }
    let mut added = Vec::new();
    for site in sites {
        let header = format!("{} {}", site.path, site.words.join(" "));
        if header.starts_with(['(', '&', '{']) || site.path == "import" {
            continue;
        }
        for address in header.split([',', ' ']).filter(|address| !address.is_empty()) {
            let mut add = |key: &str, value: String| {
                added.push(Fact { path: key.to_owned(), words: vec![value], opens: false, depth: 0, ..site.clone() });
            };
            let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
            let rest = rest.split('/').next().unwrap_or_default();
            let (host, port) = rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((rest, ""));
            let clear = scheme == "http" || port == plain || (scheme.is_empty() && host.is_empty() && port != secure);
            if clear {
                let port = if port.is_empty() { &plain } else { port };
                add("site.tcp", format!(":{port}"));
                continue;
            }
            let port = if port.is_empty() { &secure } else { port };
            add("site.tcp", format!(":{port}"));
            add("site.udp", format!(":{port}"));
            if !host.is_empty() && !matches!(automatic.as_deref(), Some("off" | "disable_redirects")) {
                add("site.tcp", format!(":{plain}"));
            }
        }
    }
    facts.extend(added);
}

/// coredns: server blocks are headed by zones, each with a port or the usual one (coredns.io/manual, "Server Blocks").
pub(super) fn coredns(facts: &mut Vec<Fact>) {
    let usual = facts.iter().find(|fact| fact.path == "port").and_then(|fact| fact.words.first().cloned());
    let usual = usual.unwrap_or_else(|| "53".to_owned());
    let mut added = Vec::new();
    for block in facts.iter().filter(|fact| fact.depth == 0 && fact.opens && !fact.path.starts_with('(')) {
        for zone in [&block.path].into_iter().chain(&block.words) {
            let zone = zone.trim_end_matches(',').rsplit("://").next().unwrap_or_default();
            let port = zone.rsplit_once(':').map_or(usual.as_str(), |(_, port)| port);
            added.push(Fact {
                path: "site.dns".to_owned(),
                words: vec![port.to_owned()],
                opens: false,
                ..block.clone()
            });
        }
    }
    facts.extend(added);
}
