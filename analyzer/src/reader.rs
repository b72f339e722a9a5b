//! Reads the code of programs as the closure comes to them: a program and its environment in, what its code does by constants out.
//!
//! A program's libraries are those it needs; what their code opens by name is loaded in turn, the modules of PAM and of the name
//! service switch, OpenSSL's providers and converters of character sets among them, and their code read too. Of modules that a
//! configuration names, what they execute is read here.

use std::{collections::BTreeMap, sync::Arc};

use dna::{Confidence, Evidence, ImagePath, Known, Limits, Load};

use crate::{
    Progress,
    acts::{self, Acts, Opened},
    closure::{Oracle, Process},
    code::Code,
    kept::Kept,
    loader::Loader,
    plugins, servers,
    shell::World,
};

/// The programs read so far.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) code: Code<'a>,
    loader: &'a Loader<'a>,
    world: World<'a>,
    progress: &'a Progress,
    /// By program and the name it is called by.
    programs: BTreeMap<(ImagePath, String), Arc<Acts>>,
    opened: BTreeMap<ImagePath, Vec<Known<Load>>>,
}

impl Oracle for Reader<'_> {
    fn acts(&mut self, process: &Process) -> Arc<Acts> {
        let key = (process.program.clone(), process.called().unwrap_or_default().to_owned());
        if let Some(known) = self.programs.get(&key) {
            return known.clone();
        }
        let env = process.env.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        let acts = Arc::new(self.read(process, &key.1, &env));
        self.programs.insert(key, acts.clone());
        acts
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        loader: &'a Loader<'a>,
        world: World<'a>,
        limits: &'a Limits,
        kept: &'a Kept,
        progress: &'a Progress,
    ) -> Self {
        let code = Code::new(world.rootfs, limits, kept);
        let (programs, opened) = (BTreeMap::new(), BTreeMap::new());
        Self { code, loader, world, progress, programs, opened }
    }

    /// The libraries that a program's code was found to open.
    pub(crate) fn opened(&self, program: &ImagePath) -> &[Known<Load>] {
        self.opened.get(program).map(Vec::as_slice).unwrap_or_default()
    }

    fn read(&mut self, process: &Process, called: &str, env: &BTreeMap<String, String>) -> Acts {
        let program = &process.program;
        let loads = self.loader.load(program, env).items;
        let mut acts = self.reach(program, called, &loads);
        let mut opened: Vec<Known<Load>> = Vec::new();
        // What is opened may open more.
        for _ in 0..OPENING_ROUNDS {
            let before = opened.len();
            for library in self.libraries(program, env, &acts, &loads) {
                if !opened.iter().any(|known| known.what == library.what) && opened.len() < MAX_OPENED {
                    opened.push(library);
                }
            }
            if opened.len() == before {
                break;
            }
            acts = self.reach(program, called, &self.loader.load_opening(program, env, &opened).items);
        }
        // A module that a configuration names runs in the server's process: what it executes, the server does. No more is taken of it: that some
        // module asks PAM makes no login service of a server.
        let told = servers::claims(process, self.world).load;
        if !told.is_empty() {
            let loads = self.loader.load_opening(program, env, &[told.as_slice(), &opened].concat()).items;
            let told = self.reach(program, called, &loads);
            (acts.commands, acts.lines) = (told.commands, told.lines);
        }
        let known = self.opened.entry(program.clone()).or_default();
        known.extend(opened);
        known.sort();
        known.dedup();
        acts
    }

    fn reach(&mut self, program: &ImagePath, called: &str, loads: &[Known<Load>]) -> Acts {
        let files = [program.clone()].into_iter().chain(loads.iter().map(|load| load.what.path.clone()));
        let files: Vec<ImagePath> = files.collect();
        self.code.prepare(files.iter(), self.progress);
        let called = Some(called.to_owned()).filter(|called| !called.is_empty());
        let (reach, _) = self.code.reach(files, called.into_iter().collect());
        if reach.is_empty() { Acts::default() } else { acts::of_reach(&reach, self.world.rootfs) }
    }

    /// What a program opens at run time, as far as the image has it.
    fn libraries(
        &self,
        program: &ImagePath,
        env: &BTreeMap<String, String>,
        acts: &Acts,
        loads: &[Known<Load>],
    ) -> Vec<Known<Load>> {
        let mut names = acts.opened.clone();
        names.extend(self.modules(program, acts, loads));
        names.extend(acts.looks_up.iter().flat_map(|evidence| self.name_services(evidence)));
        names.extend(self.extensions(acts));
        let library =
            |name: &[u8]| loads.iter().map(|load| &load.what.path).find(|path| path.file_name().starts_with(name));
        if let Some(libcrypto) = library(b"libcrypto.so.3") {
            names.extend(plugins::providers(libcrypto, env, &acts.providers, self.world.rootfs, self.world.text_bytes));
        }
        if let Some(libc) = library(b"libc.so.6") {
            names.extend(plugins::charsets(libc, &acts.charsets, self.world.rootfs, self.world.text_bytes));
        }
        let found = self.loader.search(program, env, names.iter().map(|opened| opened.name.as_str()));
        let item = |(opened, path): (Opened, Option<ImagePath>)| {
            let (confidence, evidence) = (opened.confidence, vec![opened.evidence]);
            Some(Known { what: Load { path: path? }, confidence, probability: None, when: Vec::new(), evidence })
        };
        names.into_iter().zip(found).filter_map(item).collect()
    }

    /// The modules of the PAM services that a program starts, by path. Linux-PAM reads `other` beside the service itself.
    fn modules(&self, program: &ImagePath, acts: &Acts, loads: &[Known<Load>]) -> Vec<Opened> {
        let is_pam = |load: &&Known<Load>| load.what.path.file_name().starts_with(b"libpam.so");
        let Some(folder) = loads.iter().find(is_pam).and_then(|load| load.what.path.parent()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for service in acts.pam_services(program) {
            let mut ahead = vec![service.name.clone()];
            let mut read = Vec::new();
            while let Some(name) = ahead.pop() {
                if read.contains(&name) || read.len() >= MAX_SERVICES {
                    continue;
                }
                let place = FOLDERS.iter().find_map(|folder| {
                    let path = ImagePath::root().join(format!("{folder}/{name}").as_bytes()).ok()?;
                    Some((self.world.rootfs.read_path(&path, self.world.text_bytes).ok()?, path))
                });
                read.push(name);
                let Some((text, path)) = place else { continue };
                let layer = self.world.rootfs.layer_of(&path);
                for (line, text) in String::from_utf8_lossy(&text).lines().enumerate() {
                    match rule(text) {
                        Some(Rule::Module(module)) => {
                            let name = if module.starts_with('/') {
                                module.to_owned()
                            } else {
                                format!("{folder}/security/{module}")
                            };
                            let line = u32::try_from(line.saturating_add(1)).ok();
                            let detail = Some(format!("module of the service {}", service.name));
                            let evidence = Evidence::File { path: path.clone(), line, layer, detail };
                            // A service is read when it is started, though who starts it may be far.
                            found.push(Opened {
                                name,
                                confidence: service.confidence.min(Confidence::Likely),
                                evidence,
                            });
                        }
                        Some(Rule::Include(name)) => ahead.push(name.to_owned()),
                        None => {}
                    }
                }
            }
        }
        found
    }

    /// Libraries that SQL scripts name as `$libdir/NAME`, which a database server replaces by its own folder (PostgreSQL manual,
    /// `dynamic_library_path`): those in the folders that the program names. What scripts beside each other say runs when a
    /// database is made; an extension's only where somebody asks for it.
    fn extensions(&self, acts: &Acts) -> Vec<Opened> {
        let mut found = Vec::new();
        let mut left = MAX_SCRIPTS;
        for (folder, _) in &acts.folders {
            for (below, endings, confidence) in [
                (b".".as_slice(), &[".sql", ".bki"][..], Confidence::Likely),
                (b"extension".as_slice(), &[".control"][..], Confidence::Possible),
            ] {
                let Ok(place) = self.world.rootfs.resolve_from(folder, below) else { continue };
                for (name, inode) in self.world.rootfs.children(place.inode) {
                    let text = String::from_utf8_lossy(name);
                    if left == 0 || !endings.iter().any(|ending| text.ends_with(ending)) {
                        continue;
                    }
                    left = left.saturating_sub(1);
                    let (Ok(path), Ok(body)) =
                        (place.path.join(name), self.world.rootfs.read(inode, self.world.text_bytes))
                    else {
                        continue;
                    };
                    let mut seen = Vec::new();
                    for at in memchr::memmem::find_iter(&body, LIBDIR) {
                        let rest = body.get(at.saturating_add(LIBDIR.len())..).unwrap_or_default();
                        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
                        let stem: Vec<u8> = rest.iter().copied().take_while(is_part).take(MAX_NAME).collect();
                        let stem = String::from_utf8_lossy(&stem).into_owned();
                        if stem.is_empty() || seen.contains(&stem) {
                            continue;
                        }
                        for (folder, _) in &acts.folders {
                            let layer = self.world.rootfs.layer_of(&path);
                            let detail = Some(format!("$libdir/{stem}"));
                            let evidence = Evidence::File { path: path.clone(), line: None, layer, detail };
                            let name = format!("{folder}/{stem}.so");
                            if self.world.rootfs.resolve_from(&ImagePath::root(), name.as_bytes()).is_ok() {
                                found.push(Opened { name, confidence, evidence });
                            }
                        }
                        seen.push(stem);
                    }
                }
            }
        }
        found
    }

    /// The modules that nsswitch.conf(5) names.
    fn name_services(&self, evidence: &Evidence) -> Vec<Opened> {
        let Ok(path) = "/etc/nsswitch.conf".parse::<ImagePath>() else { return Vec::new() };
        let Ok(text) = self.world.rootfs.read_path(&path, self.world.text_bytes) else { return Vec::new() };
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
        let asked = lines.filter(|(database, _)| matches!(database.trim(), "passwd" | "group" | "shadow" | "hosts"));
        let services =
            asked.flat_map(|(_, services)| services.split_whitespace()).filter(|word| !word.starts_with('['));
        let open = |service: &str| Opened {
            name: format!("libnss_{service}.so.2"),
            confidence: Confidence::Possible,
            evidence: evidence.clone(),
        };
        services.take(MAX_SERVICES).map(open).collect()
    }
}

/// A line of a PAM service's file (pam.d(5)).
enum Rule<'a> {
    Module(&'a str),
    Include(&'a str),
}

fn rule(line: &str) -> Option<Rule<'_>> {
    let line = line.split('#').next()?.trim();
    if let Some(name) = line.strip_prefix("@include") {
        return Some(Rule::Include(name.trim())).filter(|_| !name.trim().contains('/'));
    }
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    if !matches!(kind.trim_start_matches('-'), "auth" | "account" | "session" | "password") {
        return None;
    }
    let rest = rest.trim_start();
    let (control, rest) = match rest.strip_prefix('[') {
        Some(list) => list.split_once(']')?,
        None => rest.split_once(char::is_whitespace)?,
    };
    let module = rest.split_whitespace().next()?;
    Some(if matches!(control, "include" | "substack") { Rule::Include(module) } else { Rule::Module(module) })
}

/// Where services are described (pam.d(5)), the administrator's first.
const FOLDERS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
/// Services included in one another, and name services: distributions have some five.
const MAX_SERVICES: usize = 50;
const LIBDIR: &[u8] = b"$libdir/";
/// SQL scripts and control files read for one program: PostgreSQL has some hundred.
const MAX_SCRIPTS: usize = 1_000;
/// Bytes of a library's name (NAME_MAX).
const MAX_NAME: usize = 255;
/// Libraries that one program opens.
const MAX_OPENED: usize = 200;
/// Opened libraries that open libraries.
const OPENING_ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        match rule(line) {
            Some(Rule::Module(name)) => format!("module {name}"),
            Some(Rule::Include(name)) => format!("include {name}"),
            None => "-".to_owned(),
        }
    }

    #[test]
    fn lines_of_a_pam_service_are_read() {
        assert_eq!(shown("auth required pam_unix.so nullok"), "module pam_unix.so");
        assert_eq!(shown("session [success=ok default=bad] pam_selinux.so close"), "module pam_selinux.so");
        assert_eq!(shown("-session optional pam_systemd.so"), "module pam_systemd.so");
        assert_eq!(shown("@include common-auth"), "include common-auth");
        assert_eq!(shown("auth substack password-auth"), "include password-auth");
        assert_eq!(shown("# auth required x.so"), "-");
        assert_eq!(shown("@include ../shadow"), "-");
        assert_eq!(shown("auth"), "-");
    }
}
