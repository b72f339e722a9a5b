//! Puts claims about processes into behaviors: items that name the same thing become one, with the best confidence and the
//! evidence of all, so that order and number of claims change nothing.

use std::collections::{BTreeMap, BTreeSet};

use dna::{
    Arguments, Behavior, Completeness, Completenesses, Confidence, Evidence, ImagePath, Known, Listen, Load, Subject,
    Syscall, Unknown, Write,
};

use crate::{
    InodeKind,
    acts::Acts,
    closure::Closure,
    scripts::php,
    servers::{self, Claims},
    shell::World,
    start,
};

/// Pieces of evidence that one item keeps.
const MAX_EVIDENCE: usize = 4;

/// Folders given to users: an image has some ten.
const MAX_GIVEN: usize = 200;

/// Processes of one program whose configuration is read: a start script starts its server in a few ways.
const MAX_PROCESSES: u32 = 100;

/// What the executed programs are configured to do, by program.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    programs: BTreeMap<ImagePath, Claims>,
    /// Of processes that may be root's, by their place in the closure: the user counts there.
    of_root: BTreeMap<usize, Claims>,
}

/// Reads the configuration of every process, and takes what its scripts were found to do.
pub(crate) fn configured(closure: &Closure, world: World<'_>) -> (Configured, Vec<Unknown>) {
    let (mut configured, mut unknowns) = (Configured::default(), BTreeSet::new());
    let mut read: BTreeMap<&ImagePath, u32> = BTreeMap::new();
    let mut users: BTreeMap<u32, &ImagePath> = BTreeMap::new();
    for (index, process) in closure.processes.iter().enumerate() {
        let times = read.entry(&process.program).or_default();
        *times = times.saturating_add(1);
        if *times > MAX_PROCESSES {
            let why =
                format!("started in more than {MAX_PROCESSES} ways; the configuration of the others was not read");
            unknowns.insert(Unknown { place: process.program.to_string(), subject: Subject::Listen, why });
            continue;
        }
        let mut claims = servers::claims(process, world);
        unknowns.extend(std::mem::take(&mut claims.unknowns));
        if process.uid.unwrap_or(0) == 0 {
            let (connect, load) = (Vec::new(), Vec::new());
            configured.of_root.insert(index, Claims { connect, load, ..claims.clone() });
        }
        let named = claims.users.iter().filter_map(|(user, _)| start::uid_of(user, world.accounts));
        for uid in named.chain(process.uid).filter(|uid| *uid != 0) {
            users.entry(uid).or_insert(&process.program);
        }
        let known = configured.programs.entry(process.program.clone()).or_default();
        known.listen.append(&mut claims.listen);
        known.write.append(&mut claims.write);
        known.read.append(&mut claims.read);
        known.connect.append(&mut claims.connect);
        // A server with PHP in it loads what PHP's configuration says for it.
        if claims.load.iter().any(|library| library.what.path.file_name().starts_with(b"libphp")) {
            let folders = process.env.get("PHP_INI_SCAN_DIR").cloned().flatten();
            known.load.append(&mut php::extensions("apache2", folders.as_deref(), world));
        }
        known.load.append(&mut claims.load);
    }
    for (program, findings) in &closure.findings {
        let known = configured.programs.entry(program.clone()).or_default();
        known.listen.extend(findings.listen.iter().cloned());
        known.connect.extend(findings.connect.iter().cloned());
        known.write.extend(findings.write.iter().cloned());
        known.load.extend(findings.load.iter().cloned());
    }
    for (program, write) in given(&users, world) {
        configured.programs.entry(program.clone()).or_default().write.push(write);
    }
    (configured, unknowns.into_iter().collect())
}

/// Folders that belong to a user other than root, whom a process becomes: who built the image gave them to be written in. Of
/// folders in one another the outermost stands for all.
fn given<'a>(users: &BTreeMap<u32, &'a ImagePath>, world: World<'_>) -> Vec<(&'a ImagePath, Known<Write>)> {
    let mut found: Vec<(&ImagePath, Known<Write>)> = Vec::new();
    let mut last: Option<ImagePath> = None;
    if users.is_empty() {
        return found;
    }
    for place in world.rootfs.walk() {
        let inode = world.rootfs.inode(place.inode);
        let Some(program) = users.get(&inode.meta.uid).filter(|_| matches!(inode.kind, InodeKind::Directory(_))) else {
            continue;
        };
        if last.as_ref().is_some_and(|last| place.path.starts_with(last)) || found.len() >= MAX_GIVEN {
            continue;
        }
        let Ok(path) = place.path.join(b"**") else { continue };
        let detail = Some(format!("belongs to user {}", inode.meta.uid));
        let evidence = Evidence::File { path: place.path.clone(), line: None, layer: Some(inode.meta.layer), detail };
        let (what, confidence) = (Write { path }, Confidence::Possible);
        found
            .push((program, Known { what, confidence, probability: None, when: Vec::new(), evidence: vec![evidence] }));
        last = Some(place.path);
    }
    found
}

impl Configured {
    /// What a program is configured to do.
    pub(crate) fn program(&self, path: &ImagePath) -> Option<&Claims> {
        self.programs.get(path)
    }

    /// Takes what the code of the executed programs writes and reads by constants, and what tools write on their behalf; no claim is
    /// surer than its program.
    pub(crate) fn add_acts(&mut self, closure: &Closure, acts: &BTreeMap<ImagePath, Acts>) {
        for (program, acts) in acts {
            let sureness = closure.exec.get(program).map_or(Confidence::Possible, |exec| exec.confidence);
            let known = self.programs.entry(program.clone()).or_default();
            let write = |item: &Known<_>| Known { confidence: item.confidence.max(sureness), ..item.clone() };
            known.write.extend(acts.writes.iter().map(write));
            let read = |item: &Known<_>| Known { confidence: item.confidence.max(sureness), ..item.clone() };
            known.read.extend(acts.reads.iter().map(read));
        }
        self.add_outputs(closure);
    }

    /// Tools write what they are told to where those who tell them have files: in the folders that are theirs to write in.
    fn add_outputs(&mut self, closure: &Closure) {
        for (tool, programs) in &closure.outputs {
            let claims = programs.iter().filter_map(|program| self.programs.get(program));
            let is_folder = |item: &&Known<Write>| item.what.path.file_name() == b"**";
            let folders = claims.flat_map(|claims| claims.write.iter()).filter(is_folder).cloned();
            let folders: Vec<_> = folders.map(|item| Known { confidence: Confidence::Possible, ..item }).collect();
            self.programs.entry(tool.clone()).or_default().write.extend(folders);
        }
    }

    /// The libraries that a program is told to open.
    pub(crate) fn opened(&self, program: &ImagePath) -> &[Known<Load>] {
        self.programs.get(program).map(|claims| claims.load.as_slice()).unwrap_or_default()
    }

    /// What a process that may be root's is configured to do, by its place in the closure.
    pub(crate) fn of_root(&self, index: usize) -> Option<&Claims> {
        self.of_root.get(&index)
    }

    /// Adds what one program is configured to do.
    pub(crate) fn add_of(&self, program: &ImagePath, behavior: &mut Behavior) {
        if let Some(claims) = self.programs.get(program) {
            add(claims, behavior);
        }
    }

    /// Adds what all programs are configured to do, and the ports that the image claims and nobody was seen to open.
    pub(crate) fn add_all(&self, exposed: Vec<Known<Listen>>, behavior: &mut Behavior) {
        for claims in self.programs.values() {
            add(claims, behavior);
        }
        let open: BTreeSet<_> = behavior.listen.iter().map(|known| (known.what.protocol, known.what.port)).collect();
        let claimed = exposed.into_iter().filter(|known| !open.contains(&(known.what.protocol, known.what.port)));
        behavior.listen.extend(claimed);
        behavior.listen.sort();
    }
}

fn add(claims: &Claims, behavior: &mut Behavior) {
    join(&mut behavior.listen, &claims.listen);
    join(&mut behavior.write, &claims.write);
    join(&mut behavior.read, &claims.read);
    join(&mut behavior.connect, &claims.connect);
    join(&mut behavior.load, &claims.load);
}

/// The items of all programs together, each as sure as itself and its program are; the surest stays.
pub(crate) fn union<T: Ord + Clone>(programs: &BTreeMap<ImagePath, Vec<Known<T>>>, closure: &Closure) -> Vec<Known<T>> {
    union_by(programs, |path| closure.exec.get(path).map_or(Confidence::Possible, |exec| exec.confidence))
}

/// The same, where `sureness` tells how sure it is that a program runs.
pub(crate) fn union_by<T: Ord + Clone>(
    programs: &BTreeMap<ImagePath, Vec<Known<T>>>,
    sureness: impl Fn(&ImagePath) -> Confidence,
) -> Vec<Known<T>> {
    let mut all: BTreeMap<T, Known<T>> = BTreeMap::new();
    for (path, items) in programs {
        let sureness = sureness(path);
        for item in items {
            let item = Known { confidence: item.confidence.max(sureness), ..item.clone() };
            match all.get(&item.what) {
                Some(known) if known.confidence <= item.confidence => {}
                _ => {
                    all.insert(item.what.clone(), item);
                }
            }
        }
    }
    all.into_values().collect()
}

/// The same of system calls, without phases: what is known of their arguments is put together.
pub(crate) fn union_of_calls(
    programs: &BTreeMap<ImagePath, Vec<Known<Syscall>>>,
    sureness: impl Fn(&ImagePath) -> Confidence,
) -> Vec<Known<Syscall>> {
    let mut arguments = BTreeMap::<&str, Vec<Option<&Arguments>>>::new();
    let mut bare = BTreeMap::new();
    for (path, items) in programs {
        let mut list = items.clone();
        for item in &mut list {
            (item.what.arguments, item.what.phase) = (None, None);
        }
        bare.insert(path.clone(), list);
        for item in items {
            arguments.entry(&item.what.name).or_default().push(item.what.arguments.as_ref());
        }
    }
    let mut all = union_by(&bare, sureness);
    for item in &mut all {
        let told = arguments.get(item.what.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let Some(mut whole) = told.iter().flatten().next().map(|arguments| (*arguments).clone()) else { continue };
        whole.values = told.iter().flatten().flat_map(|arguments| arguments.values.clone()).collect();
        whole.values.sort();
        whole.values.dedup();
        whole.all_known = told.iter().all(|arguments| arguments.is_some_and(|arguments| arguments.all_known));
        item.what.arguments = Some(whole);
    }
    all
}

/// Joins items by what they name.
pub(crate) fn join<T: Ord + Clone>(items: &mut Vec<Known<T>>, more: &[Known<T>]) {
    let mut known: BTreeMap<T, Known<T>> = BTreeMap::new();
    for item in std::mem::take(items).into_iter().chain(more.iter().cloned()) {
        match known.get_mut(&item.what) {
            Some(known) => {
                // The better one's evidence stands first.
                let (mut first, second) =
                    if item.confidence < known.confidence { (item, known.clone()) } else { (known.clone(), item) };
                first.when.retain(|condition| second.when.contains(condition));
                for evidence in second.evidence {
                    if first.evidence.len() < MAX_EVIDENCE && !first.evidence.contains(&evidence) {
                        first.evidence.push(evidence);
                    }
                }
                *known = first;
            }
            None => {
                known.insert(item.what.clone(), item);
            }
        }
    }
    *items = known.into_values().collect();
}

/// How far configuration tells the dimensions it is read for.
pub(crate) fn completeness(others: Completenesses) -> Completenesses {
    let partial = |what: &str| Completeness::Partial {
        reason: format!("{what}; of what a program does by its code, only constants are followed"),
    };
    Completenesses {
        listen: partial("ports are those of command lines, known servers' configuration and EXPOSE"),
        connect: partial("peers are those in known servers' configuration"),
        write: partial("files are those of known servers' configuration and documented defaults"),
        read: partial("sensitive files are those named in known servers' configuration"),
        ..others
    }
}

#[cfg(test)]
mod tests {
    use dna::Protocol;

    use super::*;

    fn port(port: u16, confidence: Confidence, key: &str) -> Known<Listen> {
        let what = Listen { protocol: Protocol::Tcp, port, address: None, claimed: false };
        Known {
            what,
            confidence,
            probability: None,
            when: Vec::new(),
            evidence: vec![Evidence::Config { key: key.to_owned() }],
        }
    }

    #[test]
    fn equal_items_join_with_the_best_confidence() {
        let mut items = vec![port(80, Confidence::Likely, "a")];
        join(
            &mut items,
            &[
                port(80, Confidence::Certain, "b"),
                port(80, Confidence::Possible, "a"),
                port(1, Confidence::Likely, "c"),
            ],
        );
        let shown: Vec<_> = items.iter().map(|item| (item.what.port, item.confidence, item.evidence.len())).collect();
        assert_eq!(shown, [(1, Confidence::Likely, 1), (80, Confidence::Certain, 2)]);
        assert_eq!(
            items.get(1).and_then(|item| item.evidence.first()),
            Some(&Evidence::Config { key: "b".to_owned() })
        );
    }

    #[test]
    fn a_tool_writes_in_the_folders_of_whoever_tells_it_where() {
        let path = |path: &str| path.parse::<ImagePath>().expect("a path");
        let write = |to: &str| Known {
            what: Write { path: path(to) },
            confidence: Confidence::Likely,
            probability: None,
            when: Vec::new(),
            evidence: vec![Evidence::Config { key: "a".to_owned() }],
        };
        let mut configured = Configured::default();
        let claims = Claims { write: vec![write("/var/lib/app/**"), write("/run/app.pid")], ..Claims::default() };
        configured.programs.insert(path("/bin/app"), claims);
        let outputs = BTreeMap::from([(path("/bin/ld"), BTreeSet::from([path("/bin/app")]))]);
        configured.add_acts(&Closure { outputs, ..Closure::default() }, &BTreeMap::new());
        let found = configured.program(&path("/bin/ld")).expect("claims").write.clone();
        assert_eq!(found, [Known { confidence: Confidence::Possible, ..write("/var/lib/app/**") }]);
    }

    #[test]
    fn arguments_of_all_programs_are_put_together() {
        let call = |domain: Option<&str>| {
            let arguments = domain.map(|domain| Arguments {
                parameters: vec!["domain".to_owned()],
                values: vec![vec![Some(domain.to_owned())]],
                all_known: true,
            });
            let what = Syscall { name: "socket".to_owned(), arguments, phase: None };
            vec![Known {
                what,
                confidence: Confidence::Likely,
                probability: None,
                when: Vec::new(),
                evidence: Vec::new(),
            }]
        };
        let union = |domains: [Option<&str>; 2]| {
            let path = |name: &str| name.parse::<ImagePath>().expect("a path");
            let [one, other] = domains.map(call);
            let all = union_of_calls(&[(path("/a"), one), (path("/b"), other)].into(), |_| Confidence::Certain);
            let arguments = all.first().and_then(|item| item.what.arguments.clone()).expect("known");
            (all.len(), arguments.values.len(), arguments.all_known)
        };
        assert_eq!(union([Some("AF_UNIX"), Some("AF_INET")]), (1, 2, true));
        assert_eq!(union([Some("AF_UNIX"), None]), (1, 1, false), "of the other program nothing is known");
    }

    #[test]
    fn a_claimed_port_gives_way_to_one_that_is_opened() {
        let mut configured = Configured::default();
        let claims = Claims { listen: vec![port(80, Confidence::Certain, "file")], ..Claims::default() };
        configured.programs.insert(ImagePath::root(), claims);
        let mut behavior = Behavior::default();
        let claimed = |number| {
            let mut item = port(number, Confidence::Possible, "ExposedPorts");
            item.what.claimed = true;
            item
        };
        configured.add_all(vec![claimed(80), claimed(81)], &mut behavior);
        let shown: Vec<_> = behavior.listen.iter().map(|item| (item.what.port, item.what.claimed)).collect();
        assert_eq!(shown, [(80, false), (81, true)]);
    }
}
