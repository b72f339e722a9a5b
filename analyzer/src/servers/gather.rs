//! Collects what a server is told: its entry of the table, its arguments, environment and files in; facts out, each with its
//! origin. Includes are followed, at most a thousand files, ten deep; what cannot be read is an unknown.

use std::collections::BTreeMap;

use dna::{Evidence, ImagePath, Subject, Unknown};

use super::{
    Fact, Origin, quote,
    syntax::{self, Setting, Syntax},
    table::{Kind, Server, Word, is_of, normal},
    values,
};
use crate::{
    InodeKind,
    closure::Process,
    shell::{Arg, World, glob},
};

/// What a server is told.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) facts: Vec<Fact>,
    pub(super) unknowns: Vec<Unknown>,
    /// Variables that its files set, beside the environment.
    pub(super) assigned: BTreeMap<String, String>,
}

/// Configuration files of one server: real ones have tens.
const MAX_FILES: u32 = 1000;

/// Bytes of all configuration files of one server: real ones together have some hundred thousand.
const MAX_BYTES: usize = 32 << 20;

/// Settings of one server.
const MAX_FACTS: usize = 100_000;

/// Unknowns of one server: after so many, more say nothing new.
const MAX_UNKNOWNS: usize = 100;

/// Includes within includes: apache itself refuses more than 128, real ones nest thrice.
const MAX_DEPTH: u32 = 10;

/// Bytes of a program searched for the options it was configured with: nginx has 2 MB, with modules 8.
const MAX_PROGRAM_BYTES: u64 = 32 << 20;

pub(super) fn gather(server: &Server, process: &Process, argv: &[Arg], world: World<'_>) -> Gathered {
    let mut gather = Gather {
        server,
        process,
        world,
        out: Gathered { facts: Vec::new(), unknowns: Vec::new(), assigned: BTreeMap::new() },
        files: 0,
        bytes: 0,
        folder: None,
        set: BTreeMap::new(),
        base: None,
    };
    gather.env_files();
    gather.environment();
    let mut configs = gather.configure();
    let (given, texts) = gather.options(argv, Origin::CommandLine);
    let explicit = !given.is_empty();
    if explicit {
        configs = given;
    }
    configs.extend(server.files.iter().filter(|_| !explicit).cloned());
    for config in configs {
        let config = gather.expand(&config);
        if gather.main_file(&config, explicit) && !explicit && !server.all_files {
            break;
        }
    }
    for template in &server.templates {
        for path in glob(world.rootfs, &process.cwd, &template.files) {
            gather.file(&path, &template.section, Origin::Template, 0);
        }
    }
    for text in texts {
        let settings = syntax::read(&text, server.syntax).unwrap_or_default();
        gather.settings(settings, None, "", Origin::CommandLine, 0);
    }
    gather.out
}

struct Gather<'a> {
    server: &'a Server,
    process: &'a Process,
    world: World<'a>,
    out: Gathered,
    files: u32,
    bytes: usize,
    /// The folder of the main configuration file.
    folder: Option<ImagePath>,
    /// What the command line and the environment set, by key.
    set: BTreeMap<String, String>,
    /// Where relative includes start, until a setting may change that.
    base: Option<ImagePath>,
}

impl Gather<'_> {
    /// Expands variables; keys that the command line or a variable sets count as such: `${data_directory}/postgresql.conf`.
    fn expand(&self, text: &str) -> String {
        let set = |name: &str| self.set.get(&normal(name)).cloned();
        values::expand(text, &|name| lookup(name, self.process, &self.out.assigned).or_else(|| set(name)))
    }

    fn unknown(&mut self, place: String, why: String) {
        let unknown = Unknown { place, subject: Subject::Listen, why };
        if self.out.unknowns.len() < MAX_UNKNOWNS && !self.out.unknowns.contains(&unknown) {
            self.out.unknowns.push(unknown);
        }
    }

    fn push(&mut self, fact: Fact) {
        if is_kind(self.server, Kind::Base, &fact.path) {
            self.base = None;
        }
        self.out.facts.push(fact);
    }

    fn fact(&mut self, key: &str, words: Vec<String>, origin: Origin, evidence: Evidence) {
        let path = normal(key);
        if let Some(word) = words.first().filter(|_| origin >= Origin::Environment) {
            self.set.insert(path.clone(), word.clone());
        }
        self.push(Fact { path, words, origin, evidence, depth: 0, opens: false });
    }

    /// `export NAME=value` of shell files, without running them: a value with a command in it is not known.
    fn env_files(&mut self) {
        for path in &self.server.env_files {
            let path = self.expand(path);
            let Some((text, _)) = self.text(&path) else { continue };
            for line in text.lines() {
                let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
                let Some((name, value)) = line.split_once('=') else { continue };
                let value = value.trim_matches(['"', '\'']);
                if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !value.contains(['`', '(']) {
                    // A shell takes what is not set as empty: `/var/run/apache2$SUFFIX/apache2.pid`.
                    let value = values::expand(value, &|name| {
                        Some(lookup(name, self.process, &self.out.assigned).unwrap_or_default())
                    });
                    self.out.assigned.insert(name.to_owned(), value);
                }
            }
        }
    }

    /// Defaults that the program was built with, where its file tells them: nginx keeps the words of `configure` for `nginx -V`.
    fn configure(&mut self) -> Vec<String> {
        let mut configs = Vec::new();
        if self.server.configure.is_empty() {
            return configs;
        }
        let Ok(found) = self.world.rootfs.resolve(&self.process.program) else { return configs };
        let Ok(body) = self.world.rootfs.read_range(found.inode, 0, MAX_PROGRAM_BYTES) else { return configs };
        for (option, key) in &self.server.configure {
            let marker = format!("{option}=");
            let Some(at) = memchr::memmem::find(&body, marker.as_bytes()) else { continue };
            let value = body.get(at.saturating_add(marker.len())..).unwrap_or_default();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value: Vec<u8> =
                value.iter().copied().take_while(|b| b.is_ascii_graphic() && !b"'\"".contains(b)).take(4096).collect();
            let value = String::from_utf8_lossy(&value).into_owned();
            if key == "@config" {
                configs.push(value);
                continue;
            }
            let evidence = Evidence::Binary {
                path: found.path.clone(),
                offset: u64::try_from(at).ok(),
                layer: self.world.rootfs.layer_of(&found.path),
                detail: Some(quote(&format!("configured with {marker}{value}"), &[])),
            };
            self.fact(key, vec![value], Origin::BuiltIn, evidence);
        }
        configs
    }

    /// The command line: facts; the configuration files and the texts it names are given back.
    fn options(&mut self, argv: &[Arg], origin: Origin) -> (Vec<String>, Vec<String>) {
        let (mut configs, mut texts, mut position) = (Vec::new(), Vec::new(), 0u32);
        let mut rest = argv.get(1..).unwrap_or_default();
        while let [word, after @ ..] = rest {
            rest = after;
            let Some(word) = word else {
                position = position.saturating_add(1);
                if self.server.options.get(&position.to_string()).is_some_and(|target| target == "@config") {
                    self.unknown(self.place(), format!("argument {position} of the server is not known"));
                }
                continue;
            };
            let (target, value) = if word.starts_with('-') && word.len() > 1 {
                let Some((target, joined)) = self.option(word) else { continue };
                let value = if let Some(flag) = target.strip_prefix('!') {
                    let evidence = command_line();
                    self.fact(flag, vec!["yes".to_owned()], origin, evidence);
                    continue;
                } else if let Some(joined) = joined {
                    vec![joined]
                } else {
                    let many = self.server.keys.iter().any(|(key, meanings)| {
                        is_of(key, &normal(&target)) && meanings.iter().any(|meaning| meaning.word == Word::All)
                    });
                    let mut value = Vec::new();
                    let listed = self.server.options.contains_key(word.as_str());
                    while let [next, after @ ..] = rest {
                        let Some(next) = next else {
                            rest = after;
                            self.unknown(self.place(), format!("the value of `{}` is not known", quote(word, &[])));
                            break;
                        };
                        // An option without value: the next word is one of its own.
                        if (next.starts_with('-') && next.len() > 1 && !(listed && value.is_empty()))
                            || (!many && !value.is_empty())
                        {
                            break;
                        }
                        value.push(next.clone());
                        rest = after;
                    }
                    if value.is_empty() && !listed {
                        value.push("yes".to_owned());
                    }
                    value
                };
                (target, value)
            } else {
                position = position.saturating_add(1);
                match self.server.options.get(&position.to_string()) {
                    Some(target) => (target.clone(), vec![word.clone()]),
                    None => continue,
                }
            };
            let Some(first) = value.first() else { continue };
            match target.as_str() {
                "@config" => configs.push(first.clone()),
                "@text" => texts.push(first.clone()),
                "@set" => {
                    let (key, value) = first.split_once(['=', ' ']).unwrap_or((first, ""));
                    let value = vec![self.expand(value.trim())];
                    self.fact(key.trim(), value, origin, command_line());
                }
                key => {
                    let words = value.iter().map(|word| self.expand(word)).collect();
                    self.fact(key, words, origin, command_line());
                }
            }
        }
        (configs, texts)
    }

    /// The key an option sets, and the value joined to it: `--port=1`, `-p1`, `-Dname=value`.
    fn option(&self, word: &str) -> Option<(String, Option<String>)> {
        let (name, joined) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
        if let Some(target) = self.server.options.get(name) {
            return Some((target.clone(), joined));
        }
        // Go's flags take one dash or two.
        if let Some(target) = self.server.options.get(&format!("-{name}")) {
            return Some((target.clone(), joined));
        }
        let (short, value) = word.split_at_checked(2)?;
        if let Some(target) = self.server.options.get(short).filter(|_| !short.starts_with("--") && !value.is_empty()) {
            return Some((target.clone(), Some(value.to_owned())));
        }
        let long = self.server.long_options && name.len() > 2;
        long.then(|| (name.trim_start_matches('-').to_owned(), joined))
    }

    fn environment(&mut self) {
        for (name, key) in &self.server.env {
            let named = self.process.env.iter().filter_map(|(known, value)| {
                let key = match name.strip_suffix('*') {
                    Some(prefix) => known.strip_prefix(prefix).map(|rest| key.replace('*', rest))?,
                    None => (known == name).then(|| key.clone())?,
                };
                Some((known.clone(), key, value.clone()))
            });
            for (known, key, value) in named.collect::<Vec<_>>() {
                match value {
                    // GUNICORN_CMD_ARGS: options as they would stand on the command line.
                    Some(value) if key == "@options" => {
                        let argv: Vec<Arg> =
                            [String::new()].into_iter().chain(syntax::split(&value)).map(Some).collect();
                        self.options(&argv, Origin::Environment);
                    }
                    Some(value) => {
                        self.fact(
                            &key,
                            vec![value],
                            Origin::Environment,
                            Evidence::Config { key: format!("Env {known}") },
                        );
                    }
                    None => {
                        self.unknown(self.place(), format!("the variable {known} is set to a value that is not known"))
                    }
                }
            }
        }
    }

    fn place(&self) -> String {
        self.process.program.to_string()
    }

    /// A configuration file that the server starts with; whether there is one.
    fn main_file(&mut self, pattern: &str, explicit: bool) -> bool {
        let found = glob(self.world.rootfs, &self.process.cwd, pattern);
        for path in &found {
            if let Ok(at) = self.world.resolve(&self.process.cwd, path) {
                self.folder = at.path.parent();
            }
            self.file(path, "", Origin::File, 0);
        }
        if found.is_empty() && explicit {
            let why = format!("the configuration `{}` is not in the image", quote(pattern, &[]));
            self.unknown(self.place(), why);
        }
        !found.is_empty()
    }

    fn text(&self, path: &str) -> Option<(String, ImagePath)> {
        let at = self.world.resolve(&self.process.cwd, path).ok()?;
        let body = self.world.rootfs.read(at.inode, self.world.text_bytes).ok()?;
        Some((String::from_utf8_lossy(&body).into_owned(), at.path))
    }

    fn is_full(&self) -> bool {
        self.files >= MAX_FILES || self.bytes > MAX_BYTES || self.out.facts.len() > MAX_FACTS
    }

    /// A file, or every file of a folder.
    fn file(&mut self, path: &str, section: &str, origin: Origin, depth: u32) {
        if depth > MAX_DEPTH || self.is_full() {
            self.unknown(path.to_owned(), "too much configuration, or nested too deep".to_owned());
            return;
        }
        self.files = self.files.saturating_add(1);
        let Ok(at) = self.world.resolve(&self.process.cwd, path) else { return };
        if matches!(self.world.rootfs.inode(at.inode).kind, InodeKind::Directory(_)) {
            let folder = at.path.to_string_lossy().into_owned();
            for path in glob(self.world.rootfs, &at.path, &format!("{folder}/*")) {
                if !path.ends_with('~') {
                    self.file(&path, section, origin, depth.saturating_add(1));
                }
            }
            return;
        }
        let Some((text, at)) = self.text(path) else {
            self.unknown(at.path.to_string(), "the configuration cannot be read".to_owned());
            return;
        };
        self.bytes = self.bytes.saturating_add(text.len());
        let Some(settings) = syntax::read(&text, by_extension(&at, self.server.syntax)) else {
            self.unknown(at.to_string(), "the configuration does not parse".to_owned());
            return;
        };
        self.settings(settings, Some(&at), section, origin, depth);
    }

    fn settings(
        &mut self,
        settings: Vec<Setting>,
        file: Option<&ImagePath>,
        section: &str,
        origin: Origin,
        depth: u32,
    ) {
        let layer = file.and_then(|file| self.world.rootfs.layer_of(file));
        for setting in settings {
            let mut path = self.expand(&setting.path);
            let mut known = true;
            if !self.server.sections.is_empty() {
                let (within, key) = path.split_once('.').unwrap_or(("", path.as_str()));
                known =
                    within.is_empty() || self.server.sections.iter().any(|known| crate::shell::matches(known, within));
                path = key.to_owned();
            }
            if !section.is_empty() {
                path = format!("{section}.{path}");
            }
            let path = normal(&path);
            let words: Vec<String> = setting.words.iter().map(|word| self.expand(word)).collect();
            let includes = is_kind(self.server, Kind::Include, &path);
            if includes {
                // Inside the section that the include stands in.
                let section = path.rsplit_once('.').map_or("", |(section, _)| section).to_owned();
                self.include(&words, &section, origin, depth);
            }
            if includes || !known {
                continue;
            }
            let evidence = match file {
                Some(file) => Evidence::File {
                    path: file.clone(),
                    line: Some(setting.line).filter(|line| *line > 0),
                    layer,
                    detail: Some(quote(setting.path.rsplit('.').next().unwrap_or_default(), &setting.words)),
                },
                None => command_line(),
            };
            let depth = setting.depth.saturating_add(usize::from(!section.is_empty()));
            self.push(Fact { path, words, origin, evidence, depth, opens: setting.opens });
        }
    }

    fn include(&mut self, words: &[String], section: &str, origin: Origin, depth: u32) {
        let base = self.base();
        for word in words {
            // dnsmasq writes suffixes after the folder: `/etc/dnsmasq.d,*.conf`.
            let (folder, suffix) = word.split_once(',').unwrap_or((word, ""));
            let pattern = if suffix.starts_with('*') { format!("{folder}/{suffix}") } else { folder.to_owned() };
            if self.is_full() {
                self.unknown(self.place(), "too much configuration".to_owned());
                return;
            }
            for path in glob(self.world.rootfs, &base, &pattern) {
                let Ok(path) = base.join(path.as_bytes()) else { continue };
                self.file(&path.to_string_lossy(), section, origin, depth.saturating_add(1));
            }
        }
    }

    /// Where relative includes start.
    fn base(&mut self) -> ImagePath {
        if let Some(folder) = self.folder.clone().filter(|_| self.server.beside_config) {
            return folder;
        }
        let base = self.base.take();
        let base =
            base.unwrap_or_else(|| base_of(self.server, &self.out.facts, self.process, &|text| self.expand(text)));
        self.base.insert(base).clone()
    }
}

/// The folder that a server's relative paths start at.
pub(super) fn base_of(
    server: &Server,
    facts: &[Fact],
    process: &Process,
    expand: &dyn Fn(&str) -> String,
) -> ImagePath {
    let bases = server.keys.iter().flat_map(|(key, meanings)| meanings.iter().map(move |meaning| (key, meaning)));
    let bases = bases.filter(|(_, meaning)| meaning.kind == Kind::Base);
    let told = bases.filter_map(|(key, meaning)| {
        let fact = facts.iter().filter(|fact| is_of(key, &fact.path)).max_by_key(|fact| fact.origin.rank());
        fact.and_then(|fact| fact.words.first().cloned()).or_else(|| meaning.default.as_deref().map(expand))
    });
    let told: Option<String> = told.into_iter().next().filter(|text| !text.contains('$'));
    told.and_then(|text| process.cwd.join(text.as_bytes()).ok()).unwrap_or_else(|| process.cwd.clone())
}

/// Whether a setting of this path has a meaning of this kind.
fn is_kind(server: &Server, kind: Kind, path: &str) -> bool {
    server.keys.iter().any(|(key, meanings)| meanings.iter().any(|meaning| meaning.kind == kind) && is_of(key, path))
}

/// A variable of the process, or one that its files set.
pub(super) fn lookup(name: &str, process: &Process, assigned: &BTreeMap<String, String>) -> Option<String> {
    process.env.get(name).cloned().flatten().or_else(|| assigned.get(name).cloned())
}

fn command_line() -> Evidence {
    Evidence::Config { key: "command line".to_owned() }
}

/// Some servers take several formats, told by the file's name.
fn by_extension(path: &ImagePath, syntax: Syntax) -> Syntax {
    let name = path.file_name();
    if name.ends_with(b".json") || name.ends_with(b".yaml") || name.ends_with(b".yml") {
        Syntax::Yaml
    } else if name.ends_with(b".toml") {
        Syntax::Toml
    } else if name.ends_with(b".properties") {
        Syntax::Equals
    } else {
        syntax
    }
}
