//! What facts mean: the facts of one server and its entry of the table in, claims out.

use std::{collections::BTreeSet, ops::RangeInclusive};

use dna::{Confidence, Connect, Evidence, ImagePath, Known, Listen, Load, Protocol, Read, Subject, Unknown, Write};

use super::{
    Claims, Fact, Origin,
    gather::{self, Gathered},
    table::{Condition, Kind, Meaning, Server, Word, is_of, normal},
    values::{self, Place},
};
use crate::{closure::Process, shell::World};

/// Ports of one setting: passive FTP has hundreds.
const MAX_PORTS: usize = 1000;

/// Claims about one process: the next step holds all of them.
const MAX_CLAIMS: usize = 5_000;

pub(super) fn judge(server: &Server, gathered: Gathered, process: &Process, world: World<'_>) -> Claims {
    let Gathered { mut facts, unknowns, assigned } = gathered;
    let expand = |text: &str| values::expand(text, &|name| gather::lookup(name, process, &assigned));
    let told = facts
        .iter()
        .any(|fact| meanings(server).any(|(key, m)| matches!(m.kind, Kind::Listen(_)) && is_of(key, &fact.path)));
    for line in server.fallback.iter().filter(|_| !told) {
        let mut words = line.split_whitespace().map(expand);
        facts.extend(words.next().map(|key| assumed(&key, words.collect(), process, world)));
    }
    let base = gather::base_of(server, &facts, process, &expand);
    let mut judge = Judge {
        server,
        process,
        world,
        facts: &facts,
        base,
        out: Claims { unknowns, is_early: server.early, ..Claims::default() },
    };
    let mut net = Net::default();
    for (key, meaning) in meanings(server) {
        for fact in judge.chosen(key, meaning, &expand) {
            if judge.claims().saturating_add(net.found.len()) > MAX_CLAIMS {
                judge.unknown(format!("more than {MAX_CLAIMS} ports and files; the rest was left out"));
                break;
            }
            judge.apply(meaning, &fact, &mut net);
        }
    }
    judge.listen(net);
    judge.out
}

fn meanings(server: &Server) -> impl Iterator<Item = (&String, &Meaning)> {
    server.keys.iter().flat_map(|(key, meanings)| meanings.iter().map(move |meaning| (key, meaning)))
}

/// A documented default.
fn assumed(key: &str, words: Vec<String>, process: &Process, world: World<'_>) -> Fact {
    let evidence = Evidence::Binary {
        path: process.program.clone(),
        offset: None,
        layer: world.rootfs.layer_of(&process.program),
        detail: Some(super::quote(&format!("default: {}", key.trim_start_matches('.')), &words)),
    };
    Fact { path: normal(key), words, origin: Origin::Default, evidence, depth: 0, opens: false }
}

/// What is listened on, before addresses and ports are put together.
#[derive(Default)]
struct Net {
    off: bool,
    addresses: Vec<String>,
    /// Ports without an address of their own.
    ports: Vec<(RangeInclusive<u16>, Vec<Protocol>, Source)>,
    /// Addresses came with their ports, and none without.
    complete: bool,
    low: Option<(u16, Source)>,
    high: Option<u16>,
    found: Vec<Known<Listen>>,
}

/// Where a fact stands and how sure it is.
#[derive(Clone)]
struct Source {
    evidence: Evidence,
    confidence: Confidence,
}

impl Source {
    fn claim<T>(&self, what: T) -> Known<T> {
        Known {
            what,
            confidence: self.confidence,
            probability: None,
            when: Vec::new(),
            evidence: vec![self.evidence.clone()],
        }
    }
}

struct Judge<'a> {
    server: &'a Server,
    process: &'a Process,
    world: World<'a>,
    facts: &'a [Fact],
    base: ImagePath,
    out: Claims,
}

impl Judge<'_> {
    fn claims(&self) -> usize {
        let Claims { listen, write, read, connect, load, users, chroot, gives, .. } = &self.out;
        let counts = [listen.len(), write.len(), read.len(), connect.len(), load.len()];
        counts.iter().chain(&[users.len(), chroot.len(), gives.len()]).sum()
    }

    fn unknown(&mut self, why: String) {
        if self.out.unknowns.len() < MAX_CLAIMS {
            let place = self.process.program.to_string();
            self.out.unknowns.push(Unknown { place, subject: Subject::Listen, why });
        }
    }

    /// The facts that hold for a key: those of the highest origin, or its default.
    fn chosen(&self, key: &str, meaning: &Meaning, expand: &dyn Fn(&str) -> String) -> Vec<Fact> {
        let condition = meaning.condition.as_ref();
        if condition.is_some_and(|condition| !condition.key.starts_with('#') && !self.holds(condition, &[])) {
            return Vec::new();
        }
        let of_key = || self.facts.iter().filter(|fact| is_of(key, &fact.path));
        let top = of_key().map(|fact| fact.origin.rank()).max();
        let mut chosen: Vec<Fact> = of_key().filter(|fact| Some(fact.origin.rank()) == top).cloned().collect();
        if self.server.last {
            let mut later = BTreeSet::new();
            chosen.reverse();
            chosen.retain(|fact| later.insert(fact.path.clone()));
            chosen.reverse();
        }
        if chosen.is_empty()
            && let Some(default) = &meaning.default
        {
            let words = expand(default).split_whitespace().map(str::to_owned).collect();
            chosen.push(assumed(key, words, self.process, self.world));
        }
        let own = condition.filter(|condition| condition.key.starts_with('#'));
        chosen.retain(|fact| own.is_none_or(|condition| self.holds(condition, &fact.words)));
        chosen
    }

    /// Whether a condition on another key, or on a setting's own words, holds.
    fn holds(&self, condition: &Condition, words: &[String]) -> bool {
        let value = match condition.key.strip_prefix('#').and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => number.checked_sub(1).and_then(|at| words.get(at)).cloned(),
            None => {
                let of_key = self.facts.iter().filter(|fact| is_of(&condition.key, &fact.path));
                let told = of_key.max_by_key(|fact| fact.origin.rank());
                told.map(|fact| fact.words.first().cloned().unwrap_or_default())
            }
        };
        let holds = match (&condition.value, value) {
            (None, value) => value.is_some(),
            (Some(wanted), Some(value)) => wanted.split('|').any(|wanted| wanted.eq_ignore_ascii_case(&value)),
            (Some(_), None) => false,
        };
        holds != condition.negated
    }

    fn apply(&mut self, meaning: &Meaning, fact: &Fact, net: &mut Net) {
        let source = Source {
            evidence: fact.evidence.clone(),
            confidence: fact.origin.confidence().max(self.process.confidence),
        };
        let words: Vec<&str> = match &meaning.word {
            Word::All => fact.words.iter().map(String::as_str).collect(),
            Word::At(at) => fact.words.get(*at).map(String::as_str).into_iter().collect(),
            Word::After(name) => {
                let at = fact.words.iter().position(|word| word == name);
                let after = at.and_then(|at| fact.words.get(at.checked_add(1)?));
                match (after, meaning.kind) {
                    (Some(word), _) => vec![word],
                    // `listen-on { any; }`, `inet 127.0.0.1 allow …`: the port is the usual one.
                    (None, Kind::Listen(_)) => {
                        let address = fact.words.first().filter(|word| word.contains(['.', ':']));
                        vec![address.map(String::as_str).unwrap_or_default()]
                    }
                    (None, _) => Vec::new(),
                }
            }
        };
        if meaning.kind == Kind::Off {
            let off = words
                .first()
                .is_none_or(|word| !matches!(word.to_ascii_lowercase().as_str(), "0" | "off" | "no" | "false"));
            net.off |= off;
        }
        for word in words {
            match meaning.kind {
                Kind::Listen(_) | Kind::Address(_) => {
                    let list = !word.starts_with('/') && !word.starts_with("unix");
                    // exim writes lists of ports with colons.
                    let numbers = word.starts_with(|c: char| c.is_ascii_digit())
                        && word.chars().all(|c| c.is_ascii_digit() || c == ':');
                    let split = |c: char| list && (c == ',' || c.is_whitespace() || (numbers && c == ':'));
                    if word.is_empty() && matches!(meaning.kind, Kind::Address(_)) {
                        net.off = true;
                    }
                    for word in word.split(split) {
                        self.bind(word, meaning, fact, &source, net);
                    }
                }
                Kind::Low => net.low = word.parse().ok().filter(|port| *port > 0).map(|port| (port, source.clone())),
                Kind::High => net.high = word.parse().ok(),
                Kind::User => {
                    let user = word.split(':').next().unwrap_or_default();
                    // Only root can become another.
                    if !user.is_empty() && !user.contains('$') && self.process.uid.unwrap_or(0) == 0 {
                        self.out.users.push((user.to_owned(), source.evidence.clone()));
                    }
                }
                Kind::Peer => {
                    if let Some(Place::Net { protocol, host: Some(host), ports }) = values::place(word)
                        && !host.contains('*')
                    {
                        let port = ports.map(|(low, _)| low).or(meaning.port);
                        let protocol = protocol.unwrap_or(Protocol::Tcp);
                        self.out.connect.push(source.claim(Connect { host, port, protocol }));
                    }
                }
                Kind::Chroot | Kind::Give | Kind::File | Kind::Folder | Kind::Spool | Kind::Read | Kind::Load => {
                    self.path(meaning.kind, word, &source);
                }
                Kind::Off | Kind::Include | Kind::Base => {}
            }
        }
    }

    fn path(&mut self, kind: Kind, word: &str, source: &Source) {
        let Some(path) = values::path(word, &self.base, self.world) else { return };
        if path.is_root() {
            return;
        }
        let known = self.world.rootfs.resolve(&path).is_ok();
        let fixed = !path.as_bytes().contains(&b'*');
        match kind {
            Kind::Chroot => self.out.chroot.push((path, source.evidence.clone())),
            Kind::Give => self.out.gives.push((path, source.evidence.clone())),
            Kind::File => self.out.write.push(source.claim(Write { path })),
            Kind::Read => self.out.read.push(source.claim(Read { path })),
            Kind::Load if known && fixed => self.out.load.push(source.claim(Load { path })),
            Kind::Folder | Kind::Spool => {
                let confidence = if kind == Kind::Spool { Confidence::Possible } else { source.confidence };
                if let Ok(below) = path.join(b"**") {
                    self.out.write.push(Known { confidence, ..source.claim(Write { path: below }) });
                }
                if !known {
                    self.out.write.push(source.claim(Write { path }));
                }
            }
            _ => {}
        }
    }

    /// One word of a listening key.
    fn bind(&mut self, word: &str, meaning: &Meaning, fact: &Fact, source: &Source, net: &mut Net) {
        let standard: &[Protocol] = match meaning.kind {
            Kind::Listen(protocols) | Kind::Address(protocols) => protocols,
            _ => &[],
        };
        let place = match (word, meaning.port) {
            ("", Some(port)) => Some(Place::Net { protocol: None, host: None, ports: Some((port, port)) }),
            ("", None) => return,
            (word, _) => values::place(word),
        };
        match place {
            Some(Place::Net { protocol, host, ports }) => {
                let named = fact.words.iter().find_map(|word| match word.as_str() {
                    "udp" | "quic" => Some(Protocol::Udp),
                    "sctp" => Some(Protocol::Sctp),
                    _ => None,
                });
                let protocols = protocol.or(named).map_or_else(|| standard.to_vec(), |protocol| vec![protocol]);
                // A word such as `PROXY` is no address.
                let address = |host: &String| host.contains(['.', ':']) || host == "localhost";
                let usual = meaning.port.filter(|_| host.as_ref().is_none_or(address));
                let ports = ports.or(usual.map(|port| (port, port)));
                match (ports, host, meaning.kind) {
                    (Some((low, high)), host, kind)
                        if host.is_some() || word.contains([':', '@']) || matches!(kind, Kind::Address(_)) =>
                    {
                        net.complete |= matches!(kind, Kind::Address(_));
                        self.found(low..=high, &protocols, host.as_deref(), source, net);
                    }
                    (Some((low, high)), _, _) => net.ports.push((low..=high, protocols, source.clone())),
                    (None, Some(host), Kind::Address(_)) => net.addresses.push(host),
                    (None, None, Kind::Address(_)) => net.addresses.push(String::new()),
                    _ => {}
                }
            }
            Some(Place::Socket(path)) => self.path(Kind::File, &path, source),
            Some(Place::Nothing) => {}
            // dovecot adds to a list by naming it: `protocols = $protocols imap`.
            None if word.contains(['$', '{', '%']) && word.strip_prefix('$') != Some(fact.path.as_str()) => {
                let why =
                    format!("what `{}` listens on is only known at run time", super::quote(&fact.path, &fact.words));
                self.unknown(why);
            }
            None => {}
        }
    }

    fn found(
        &mut self,
        ports: RangeInclusive<u16>,
        protocols: &[Protocol],
        host: Option<&str>,
        source: &Source,
        net: &mut Net,
    ) {
        if ports.len() > MAX_PORTS {
            let why = format!("{} ports from {}", ports.len(), ports.start());
            self.unknown(why);
            return;
        }
        for port in ports {
            for protocol in protocols {
                let address = host.map(str::to_owned);
                net.found.push(source.claim(Listen { protocol: *protocol, port, address, claimed: false }));
            }
        }
    }

    fn listen(&mut self, mut net: Net) {
        if net.off {
            return;
        }
        net.addresses.dedup();
        let address = match net.addresses.as_slice() {
            [one] if !one.is_empty() => Some(one.clone()),
            _ => None,
        };
        // `ListenAddress host:2222` leaves `Port` to the addresses without one.
        let (ports, apply) = (std::mem::take(&mut net.ports), !net.complete || !net.addresses.is_empty());
        for (ports, protocols, source) in ports.into_iter().filter(|_| apply) {
            if net.found.len() > MAX_CLAIMS {
                self.unknown(format!("more than {MAX_CLAIMS} ports; the rest was left out"));
                break;
            }
            self.found(ports, &protocols, address.as_deref(), &source, &mut net);
        }
        if let (Some((low, source)), Some(high)) = (net.low.take(), net.high) {
            self.found(low..=high, &[Protocol::Tcp], None, &source, &mut net);
        }
        self.out.listen = net.found;
    }
}
