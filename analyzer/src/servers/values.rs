//! Values of settings: a word in, the network place or path it names out; variables are expanded with what the process's
//! environment holds.

use std::borrow::Cow;

use dna::{ImagePath, Protocol};

use crate::{InodeKind, shell::World};

/// Where a socket is bound or a peer is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Net {
        /// What the word itself says of the transport.
        protocol: Option<Protocol>,
        /// Name or address; none where it is any address.
        host: Option<String>,
        /// First and last port.
        ports: Option<(u16, u16)>,
    },
    /// A Unix socket's path.
    Socket(String),
    /// Not a place of its own: an inherited descriptor, `none`, port 0.
    Nothing,
}

/// Reads `8080`, `host:80`, `[::1]:80`, `*:80-90`, `::1@53`, `tcp://host:80/x`, `unix:/run/x`, `imaps`, each with a name of its own before
/// it or not (`http=:80`); none where it is nothing of the kind.
pub(super) fn place(word: &str) -> Option<Place> {
    let word = word.trim();
    let word = match word.split_once('=') {
        Some((name, place)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => place,
        _ => word,
    };
    for prefix in ["unix://", "unix:", "unix@", "ipc://", "uxst@"] {
        if let Some(path) = word.strip_prefix(prefix) {
            return Some(Place::Socket(path.to_owned()));
        }
    }
    if word.starts_with('/') {
        return Some(Place::Socket(word.to_owned()));
    }
    if ["fd@", "fd:", "sockpair@", "abns@", "ldapi:"].iter().any(|prefix| word.starts_with(prefix))
        || matches!(word, "none" | "off" | "no" | "0" | "")
    {
        return Some(Place::Nothing);
    }
    let (scheme, rest) = word.split_once("://").map_or((None, word), |(scheme, rest)| (Some(scheme), rest));
    let rest = rest.split(['/', '?']).next().unwrap_or_default();
    // haproxy writes families as `ipv4@`, `quic4@`; unbound and nsd write ports as `address@port`; URLs have user info.
    let (family, rest) = match rest.rsplit_once('@') {
        Some((family @ ("ipv4" | "ipv6" | "udp" | "udp4" | "udp6" | "quic4" | "quic6" | "stream+ipv4"), rest)) => {
            (Some(family), Cow::Borrowed(rest))
        }
        Some((_, host)) if scheme.is_some() => (None, Cow::Borrowed(host)),
        Some((host, port)) if host.contains(':') => (None, Cow::Owned(format!("[{host}]:{port}"))),
        Some((host, port)) => (None, Cow::Owned(format!("{host}:{port}"))),
        None => (None, Cow::Borrowed(rest)),
    };
    let udp = [scheme, family].into_iter().flatten().any(|name| name.starts_with("udp") || name.starts_with("quic"));
    let protocol = udp.then_some(Protocol::Udp);
    let known = scheme.and_then(service);
    let net = |host: &str, ports| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let any = matches!(host, "" | "*" | "0.0.0.0" | "::" | "0" | "any" | "::0" | "0:0:0:0:0:0:0:0");
        Some(Place::Net { protocol, host: (!any).then(|| host.to_owned()), ports })
    };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None if rest.matches(':').count() > 1
            && rest.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '%')) =>
        {
            // `:::80`, as some write any address and a port.
            match rest.strip_prefix(":::") {
                Some(port) => ("::", Some(port)),
                None => (&*rest, None),
            }
        }
        None => match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None if scheme.is_none() && number_or_name(&rest).is_some() => ("", Some(&*rest)),
            None => (&*rest, None),
        },
    };
    if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '*' | '%')) {
        return None;
    }
    match port {
        None | Some("") => net(host, known.map(|port| (port, port))),
        Some("0") => Some(Place::Nothing),
        Some(port) => net(host, Some(range(port)?)),
    }
}

/// `80`, `80-90` or a name of a service.
pub(super) fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port(low), port(high)) {
        (Some(low), Some(high)) if low <= high => Some((low, high)),
        _ => service(text).map(|port| (port, port)),
    }
}

fn number_or_name(text: &str) -> Option<(u16, u16)> {
    if text.contains('.') { None } else { range(text) }
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port > 0)
}

/// Ports by name, as IANA registers them and services(5) lists them.
fn service(name: &str) -> Option<u16> {
    const SERVICES: &[(&str, u16)] = &[
        ("ftp", 21),
        ("ssh", 22),
        ("telnet", 23),
        ("smtp", 25),
        ("domain", 53),
        ("http", 80),
        ("pop3", 110),
        ("imap", 143),
        ("ldap", 389),
        ("https", 443),
        ("smtps", 465),
        ("submissions", 465),
        ("submission", 587),
        ("ldaps", 636),
        ("rsync", 873),
        ("imaps", 993),
        ("pop3s", 995),
        ("sieve", 4190),
    ];
    SERVICES.iter().find(|(known, _)| *known == name).map(|(_, port)| *port)
}

/// Expands `$NAME`, `${NAME}`, `${NAME:-word}`, and caddy's `{$NAME:word}` and `{env.NAME}`; what `env` does not know stays.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    expand_to(text, env, 0)
}

fn expand_to(text: &str, env: &dyn Fn(&str) -> Option<String>, depth: u32) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['$', '{']) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let (name, default, after) = variable(from);
        let value = name.and_then(env).filter(|value| default.is_none() || !value.is_empty());
        match value
            .or_else(|| default.filter(|_| depth < 8).map(|default| expand_to(default, env, depth.saturating_add(1))))
        {
            Some(value) => {
                out.push_str(&value);
                rest = after;
            }
            None => {
                let first = from.chars().next().map_or(1, char::len_utf8);
                out.push_str(from.get(..first).unwrap_or_default());
                rest = from.get(first..).unwrap_or_default();
            }
        }
        if out.len() > MAX_VALUE_BYTES {
            break;
        }
    }
    out.push_str(rest);
    out.truncate(out.floor_char_boundary(MAX_VALUE_BYTES));
    out
}

/// PATH_MAX.
const MAX_VALUE_BYTES: usize = 4096;

/// The variable a text starts with: name, default, what follows.
fn variable(text: &str) -> (Option<&str>, Option<&str>, &str) {
    let braced = ["${env.", "${env:", "{env.", "${", "{$"].into_iter().find_map(|open| text.strip_prefix(open));
    if let Some(body) = braced {
        let mut depth = 1u32;
        let end = body.find(|c| {
            depth = match c {
                '{' => depth.saturating_add(1),
                '}' => depth.saturating_sub(1),
                _ => depth,
            };
            depth == 0
        });
        let Some((body, after)) = end.and_then(|end| body.split_at_checked(end)) else { return (None, None, "") };
        let (name, default) = body.split_once(':').map_or((body, None), |(name, default)| (name, Some(default)));
        let default = default.map(|default| default.strip_prefix(['-', '=']).unwrap_or(default));
        return (Some(name), default, after.get(1..).unwrap_or_default());
    }
    let Some(body) = text.strip_prefix('$') else { return (None, None, "") };
    let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, after) = body.split_at_checked(end).unwrap_or((body, ""));
    ((!name.is_empty()).then_some(name), None, after)
}

/// The file that `text` names from `base`, with the links on its way followed, as a glob: what is only known at run time is `*`.
/// None where it names no file of the image: a device, standard output, a pipe, or nothing fixed to start from.
pub(super) fn path(text: &str, base: &ImagePath, world: World<'_>) -> Option<ImagePath> {
    let text = text.trim();
    let no_file = matches!(
        text,
        "" | "-" | "stdout" | "stderr" | "none" | "NONE" | "AUTO" | "off" | "no" | "syslog" | "null" | ":memory:"
    );
    if no_file
        || text.starts_with(['|', '@'])
        || text.contains("://")
        || text.starts_with("syslog:")
        || text.contains('\n')
    {
        return None;
    }
    let open = masked(text);
    let joined = base.join(open.as_bytes()).ok()?;
    let path = follow(&joined, world, 0);
    let first = path.components().next()?;
    let device = matches!(first, b"dev" | b"proc" | b"sys");
    (!device && !first.contains(&b'*')).then_some(path)
}

/// Variables, `%` formats and glob characters as `*`.
fn masked(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        let masked = match c {
            '$' | '%' => {
                let braced = chars.next_if(|c| matches!(c, '{' | '(')).is_some();
                let in_name =
                    |c: &char| if braced { !matches!(c, '}' | ')') } else { c.is_ascii_alphanumeric() || *c == '_' };
                // A `%` format is one letter; a variable's name may be longer.
                while (c == '$' || braced) && chars.next_if(in_name).is_some() {}
                if braced || c == '%' {
                    chars.next();
                }
                true
            }
            '{' => {
                while chars.next_if(|c| *c != '}').is_some() {}
                chars.next();
                true
            }
            '*' | '?' | '[' | ']' => true,
            _ => false,
        };
        match (masked, out.ends_with('*')) {
            (true, false) => out.push('*'),
            (true, true) => {}
            (false, _) => out.push(c),
        }
    }
    out
}

/// Follows symbolic links as far as the image has the path; what it lacks is joined as written.
fn follow(path: &ImagePath, world: World<'_>, depth: u32) -> ImagePath {
    if let Ok(found) = world.rootfs.resolve(path) {
        return found.path;
    }
    let Some(parent) = path.parent() else { return path.clone() };
    if depth > MAX_COMPONENTS {
        return path.clone();
    }
    if let Ok(found) = world.rootfs.lookup(path)
        && let InodeKind::Symlink(target) = &world.rootfs.inode(found.inode).kind
        && let Ok(target) = parent.join(target)
    {
        // A link to what the image lacks: /var/log/access.log -> /dev/stdout.
        return follow(&target, world, depth.saturating_add(1));
    }
    follow(&parent, world, depth.saturating_add(1)).join(path.file_name()).unwrap_or_else(|_| path.clone())
}

/// Components and links of one path; deeper ones are taken as written.
const MAX_COMPONENTS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rootfs;

    #[test]
    fn places() {
        let show = |word: &str| match place(word) {
            None => "?".to_owned(),
            Some(Place::Nothing) => "-".to_owned(),
            Some(Place::Socket(path)) => path,
            Some(Place::Net { protocol, host, ports }) => {
                let udp = if protocol.is_some() { "udp " } else { "" };
                let ports =
                    ports.map_or(String::new(), |(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
                format!("{udp}{},{ports}", host.unwrap_or_default())
            }
        };
        for (word, expected) in [
            ("80", ",80"),
            ("*:80", ",80"),
            (":8080-8090", ",8080-8090"),
            ("127.0.0.1:6379", "127.0.0.1,6379"),
            ("[::1]:80", "::1,80"),
            ("[::]:80", ",80"),
            ("::1", "::1,"),
            (":::80", ",80"),
            ("::1@5353", "::1,5353"),
            ("0.0.0.0@53", ",53"),
            ("localhost", "localhost,"),
            ("tcp://10.0.0.1:80/x", "10.0.0.1,80"),
            ("PLAINTEXT://:9092", ",9092"),
            ("ldaps:///", ",636"),
            ("http://user@app/x", "app,80"),
            ("quic4@:443", "udp ,443"),
            ("unix:/run/x", "/run/x"),
            ("/run/x.sock", "/run/x.sock"),
            ("smtp", ",25"),
            ("127.0.0.1:smtp", "127.0.0.1,25"),
            ("fd@3", "-"),
            ("0", "-"),
            ("127.0.0.1:0", "-"),
            ("65536", "65536,"),
            ("a:b:x", "?"),
            ("${PORT}", "?"),
            ("x:70000", "?"),
        ] {
            assert_eq!(show(word), expected, "{word}");
        }
    }

    #[test]
    fn variables_are_expanded_and_unknown_ones_stay() {
        let env = |name: &str| (name == "PORT").then(|| "81".to_owned());
        for (text, expected) in [
            ("${PORT}", "81"),
            (":$PORT/", ":81/"),
            ("{$PORT:80}", "81"),
            ("{$NO:80}", "80"),
            ("{env.PORT}", "81"),
            ("${NO:-/a/${PORT}}/b", "/a/81/b"),
            ("$host ${NO} {x}", "$host ${NO} {x}"),
            ("${", "${"),
            ("é$", "é$"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn paths_follow_links_and_open_parts_are_globs() {
        let mut rootfs = Rootfs::default();
        rootfs.put_link("/var/run", "/run");
        rootfs.put_link("/var/log/access.log", "/dev/stdout");
        rootfs.put_file("/run/keep", 0o644, "");
        let accounts = dna::Accounts::default();
        let world = World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 };
        let base: ImagePath = "/srv".parse().expect("a path");
        let show = |text| path(text, &base, world).map(|path| path.to_string());
        assert_eq!(show("/var/run/x.pid").as_deref(), Some("/run/x.pid"));
        assert_eq!(show("log/a.log").as_deref(), Some("/srv/log/a.log"));
        assert_eq!(show("/var/log/x/$host-%Y.log").as_deref(), Some("/var/log/x/*-*.log"));
        for text in
            ["/var/log/access.log", "/dev/null", "-", "|/bin/logger", "${DIR}/x/../../../$y", "/$a/b", "syslog:x", ""]
        {
            assert_eq!(show(text), None, "{text}");
        }
    }
}
