//! Programs that are in no table: options that name a port or an address to listen on, and variables that do; URLs among their words, which
//! name peers, whatever the program, or the applet that a multi-call one is called by. A process in, claims out; an option is expected, a
//! variable only possible, because nobody says that the program reads it.

use std::net::IpAddr;

use dna::{Confidence, Connect, Evidence, Known, Listen, Protocol};

use super::{
    Claims,
    values::{Place, place},
};
use crate::{closure::Process, scripts, shell::World};

/// Words of a name that say a program listens there.
const LISTENING: [&str; 4] = ["listen", "listener", "bind", "listeners"];

/// Words of a name that say a port or address follows.
const NAMING: [&str; 7] = ["port", "addr", "address", "endpoint", "url", "urls", "hostport"];

/// Words of a name that say it is someone else's.
const FOREIGN: [&str; 33] = [
    "advertise",
    "advertised",
    "agent",
    "amqp",
    "api",
    "backend",
    "broker",
    "client",
    "cluster",
    "connect",
    "consul",
    "database",
    "db",
    "debug",
    "debugger",
    "dest",
    "elasticsearch",
    "join",
    "kafka",
    "mail",
    "mongo",
    "mysql",
    "peer",
    "pg",
    "postgres",
    "proxy",
    "public",
    "redis",
    "remote",
    "smtp",
    "target",
    "upstream",
    "external",
];

/// Programs whose options name someone else's port: clients, and what shells are written with.
const CLIENTS: [&str; 24] = [
    "curl",
    "wget",
    "ssh",
    "scp",
    "sftp",
    "psql",
    "pg_isready",
    "pg_dump",
    "pg_restore",
    "pg_basebackup",
    "createdb",
    "createuser",
    "mysql",
    "mysqladmin",
    "mysqldump",
    "mariadb",
    "mariadb-admin",
    "mongo",
    "mongosh",
    "nmap",
    "ldapsearch",
    "etcdctl",
    "openssl",
    "nginx-debug",
];

pub(super) fn claims(process: &Process, world: World<'_>) -> Claims {
    let mut claims = Claims { connect: peers(process), ..Claims::default() };
    let name = process.argv.first().cloned().flatten().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    if CLIENTS.contains(&name) || name.ends_with("-cli") || name.ends_with("-client") || name.ends_with("ctl") {
        return claims;
    }
    let mut add = |port: (u16, u16), host: Option<String>, confidence: Confidence, key: String| {
        let confidence = confidence.max(process.confidence);
        let what = Listen { protocol: Protocol::Tcp, port: port.0, address: host, claimed: false };
        let evidence = vec![Evidence::Config { key }];
        claims.listen.push(Known { what, confidence, probability: None, when: Vec::new(), evidence });
    };
    let mut words = process.argv.iter().skip(1).peekable();
    while let Some(word) = words.next() {
        let Some(option) = word.as_deref().filter(|word| word.starts_with('-')) else { continue };
        let (key, joined) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        let next = || words.peek().and_then(|next| next.as_deref());
        let Some(value) = joined.or_else(next) else { continue };
        if let (Some(confidence), Some((host, port))) = (role(key.trim_start_matches("-D")), port(value)) {
            add(port, host, confidence, "command line".to_owned());
        }
    }
    for (key, value) in &process.env {
        let Some(value) = value.as_deref() else { continue };
        if role(key).is_some()
            && let Some((host, port)) = port(value)
            && reads(process, key, world)
        {
            add(port, host, Confidence::Possible, format!("Env {key}"));
        }
    }
    claims
}

/// The peers that URLs of a command line name. An option that says where to listen names the program's own address.
fn peers(process: &Process) -> Vec<Known<Connect>> {
    let evidence = Evidence::Config { key: "command line".to_owned() };
    let mut own = false;
    let mut peers = Vec::new();
    for word in process.argv.iter().skip(1) {
        let Some(word) = word.as_deref() else {
            own = false;
            continue;
        };
        let (key, value) = if word.starts_with('-') { word.split_once('=').unwrap_or((word, "")) } else { ("", word) };
        let is_own = if key.is_empty() { std::mem::take(&mut own) } else { role(key).is_some() };
        if value.is_empty() {
            own = is_own;
        } else if !is_own {
            peers.extend(scripts::peer(value, &evidence));
        }
    }
    peers.retain(|peer| !peer.what.host.parse().is_ok_and(|address: IpAddr| address.is_unspecified()));
    peers.iter_mut().for_each(|peer| peer.confidence = Confidence::Likely.max(process.confidence));
    peers
}

/// How surely an option or variable of this name says where its program listens.
fn role(name: &str) -> Option<Confidence> {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    let words: Vec<&str> = name.split(['-', '_', '.']).collect();
    let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
    let last = words.last().copied().unwrap_or_default();
    if has(&FOREIGN) || !(NAMING.contains(&last) || has(&LISTENING)) {
        return None;
    }
    let sure = has(&LISTENING)
        || name == "port"
        || matches!(name.as_str(), "http-port" | "server.port" | "http-addr" | "addr");
    Some(if sure { Confidence::Likely } else { Confidence::Possible })
}

/// The port that a value names.
fn port(value: &str) -> Option<(Option<String>, (u16, u16))> {
    match place(value)? {
        Place::Net { host, ports: Some(ports), .. } if value.chars().any(|c| c.is_ascii_digit()) => Some((host, ports)),
        _ => None,
    }
}

/// Whether the program or the script it is told to run has the variable's name in it.
fn reads(process: &Process, name: &str, world: World<'_>) -> bool {
    let script = process.argv.iter().skip(1).flatten().find(|word| !word.starts_with('-'));
    let script = script.and_then(|path| world.resolve(&process.cwd, path).ok());
    let program = world.rootfs.resolve(&process.program).ok();
    script.into_iter().chain(program).any(|found| {
        let body = world.rootfs.read_range(found.inode, 0, MAX_PROGRAM_BYTES).unwrap_or_default();
        let is_name = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        memchr::memmem::find_iter(&body, name.as_bytes()).any(|at| {
            !is_name(at.checked_sub(1).and_then(|at| body.get(at))) && !is_name(body.get(at.saturating_add(name.len())))
        })
    })
}

/// Bytes of a program searched for a variable's name.
const MAX_PROGRAM_BYTES: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Rootfs;

    fn ports(line: &str, env: &[(&str, &str)]) -> Vec<String> {
        let show = |item: Known<Listen>| {
            format!(
                "{} {:?}{}",
                item.what.port,
                item.confidence,
                item.what.address.map(|a| format!(" {a}")).unwrap_or_default()
            )
        };
        said(line, env).listen.into_iter().map(show).collect()
    }

    fn called(line: &str) -> Vec<String> {
        let show = |item: Known<Connect>| {
            let port = item.what.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port} {:?}", item.what.host, item.confidence)
        };
        said(line, &[]).connect.into_iter().map(show).collect()
    }

    fn said(line: &str, env: &[(&str, &str)]) -> Claims {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/app", 0o755, "\0HTTP_PORT\0MY_PORT2\0DB_PORT\0");
        let accounts = dna::Accounts::default();
        let world = World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 };
        let process = Process {
            program: "/app".parse().expect("a path"),
            argv: line.split(' ').map(|word| Some(word.to_owned())).collect(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect::<BTreeMap<_, _>>(),
            uid: None,
            cwd: dna::ImagePath::root(),
            confidence: Confidence::Certain,
            told: None,
        };
        claims(&process, world)
    }

    #[test]
    fn urls_among_the_words_name_peers() {
        assert_eq!(called("wget -q -O- http://example.com:8080/x"), ["example.com:8080 Likely"]);
        assert_eq!(called("curl -s https://user:word@example.com/x"), ["example.com:443 Likely"]);
        assert_eq!(
            called("app --origin=http://10.0.0.1 --other http://b.test"),
            ["10.0.0.1:80 Likely", "b.test:80 Likely"]
        );
        assert_eq!(called("ftpget ftp://c.test/f"), ["c.test:21 Likely"]);
        for line in [
            "app --listen-url http://0.0.0.0:80",
            "app --listen=http://a.test",
            "app --listen http://a.test",
            "wget --help",
            "app file:///etc/x",
            "app text",
        ] {
            assert!(called(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn options_that_name_a_port() {
        assert_eq!(ports("app --port 8080", &[]), ["8080 Likely"]);
        assert_eq!(ports("app -port=8080 --verbose", &[]), ["8080 Likely"]);
        assert_eq!(ports("app --web.listen-address=127.0.0.1:9100", &[]), ["9100 Likely 127.0.0.1"]);
        assert_eq!(ports("app --metrics-addr :9090", &[]), ["9090 Possible"]);
        assert_eq!(ports("java -Dserver.port=81 -jar x", &[]), ["81 Likely"]);
    }

    #[test]
    fn others_ports_and_other_values_are_none() {
        for line in [
            "app --db-port 5432",
            "app --peer-addr h:1",
            "app --port",
            "app --port x",
            "app --listen",
            "app 8080",
            "redis-cli --port 1",
            "psql --port 2",
        ] {
            assert!(ports(line, &[]).is_empty(), "{line}");
        }
    }

    #[test]
    fn variables_count_where_the_program_names_them() {
        assert_eq!(
            ports("app", &[("HTTP_PORT", "8000"), ("MY_PORT", "1"), ("DB_PORT", "2"), ("OTHER_PORT", "3")]),
            ["8000 Possible"]
        );
    }
}
