//! Node: a process of the interpreter in, what its program and the modules of it do out.
//!
//! Modules are found as `require` and `import` do (Node's documentation, "Modules: CommonJS modules", "Packages"): relative files,
//! `node_modules` upward, `main` and `exports` of `package.json`. Package managers hand on the lines of `scripts` to the shell.

use std::collections::HashMap;

use dna::{Confidence, Evidence, ImagePath};
use serde_json::Value as Json;

use super::{
    Command, Finder, Findings, Import, Language, Module, Origin, Place, Reading, SITES, Scripts, Summary, Walk,
    calls::{Grammar, Reader, Site, Value},
    effects::{Effect, Rule},
    known_env,
    tokens::{Hole, Kind, Rules, Tokens},
};
use crate::{Resolved, closure::Process, shell::World};

pub(super) fn findings(scripts: &mut Scripts, process: &Process, world: World<'_>) -> Findings {
    let words: Vec<&str> = process.argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default()).collect();
    let program = Program::parse(&words);
    if let Some((script, arguments)) = program.script
        && let Some(manager) = manager(script)
    {
        return managed(manager, arguments, process, world);
    }
    let mut finder = Modules { world, packages: HashMap::new(), node_path: node_path(process) };
    let mut walk = Walk::new(scripts, process, world, &NODE, Vec::new());
    let started = Evidence::Config { key: "command line".to_owned() };
    let env = known_env(process);
    let options: Vec<&str> = env.get("NODE_OPTIONS").map(|list| list.split_whitespace().collect()).unwrap_or_default();
    for name in program.required.iter().copied().chain(Program::parse(&options).required) {
        if let Some(module) = finder.resolve(&process.cwd, name) {
            walk.push(module, Confidence::Likely, started.clone());
        }
    }
    if let Some(text) = program.text {
        walk.push_text(text, &mut finder);
    }
    if let Some((script, _)) = program.script {
        let name = if script.starts_with(['/', '.']) { script.to_owned() } else { format!("./{script}") };
        let found = finder.resolve(&process.cwd, &name);
        if let Some(module) = found {
            let module = Module { is_entry: true, origin: Origin::Application, ..module };
            walk.push(module, Confidence::Likely, started.clone());
        }
    }
    walk.run(&mut finder)
}

pub(super) static RULES: Rules = Rules {
    line_comments: &["//"],
    block_comment: true,
    lines: false,
    prefixed: false,
    backtick: Kind::Text { raw: false, hole: Hole::DollarBraces },
    hole: Hole::None,
    regex: true,
    sigils: b"$#",
    endings: b"$",
    heredoc: "",
    quote_words: false,
    quote_percent: false,
    tagged: false,
    pod: false,
};

static NODE: Language = Language {
    rules: &RULES,
    grammar: &Grammar {
        join: &["+"],
        either: &["||", "??"],
        keyword: &[],
        bare_calls: false,
        environment: &["process.env", "Bun.env", "import.meta.env"],
    },
    effects: EFFECTS,
    endings: &["js", "mjs", "cjs"],
    read,
};

const SPAWN: Effect = Effect::Program { program: 0, list: 1, named: false };

/// Sources: Node's documentation, and each package's own.
const EFFECTS: &[Rule] = &[
    ("child_process.exec", Effect::Line(0)),
    ("child_process.execSync", Effect::Line(0)),
    ("child_process.spawn", SPAWN),
    ("child_process.spawnSync", SPAWN),
    ("child_process.execFile", SPAWN),
    ("child_process.execFileSync", SPAWN),
    ("child_process.fork", Effect::Fork),
    ("execa", SPAWN),
    ("execa.execa", SPAWN),
    ("cross-spawn", SPAWN),
    (".listen", Effect::Listen { port: 0, host: 1, default: None }),
    (".serve", Effect::ListenNamed),
    ("ws.WebSocketServer", Effect::ListenNamed),
    ("ws.Server", Effect::ListenNamed),
    ("@hono/node-server.serve", Effect::Listen { port: usize::MAX, host: usize::MAX, default: Some(3000) }),
    ("net.connect", Effect::Connect),
    ("net.createConnection", Effect::Connect),
    (".writeFile", Effect::Write(0)),
    (".writeFileSync", Effect::Write(0)),
    (".appendFile", Effect::Write(0)),
    (".appendFileSync", Effect::Write(0)),
    (".createWriteStream", Effect::Write(0)),
    (".mkdirSync", Effect::Write(0)),
    ("fs.open", Effect::Open { path: 0, mode: 1 }),
    ("fs.openSync", Effect::Open { path: 0, mode: 1 }),
    ("fs.copyFileSync", Effect::Write(1)),
    ("fs.mkdtempSync", Effect::Temporary),
];

/// Node's own command line.
#[derive(Debug, Default)]
struct Program<'a> {
    script: Option<(&'a str, &'a [&'a str])>,
    text: Option<&'a str>,
    required: Vec<&'a str>,
}

impl<'a> Program<'a> {
    /// Source: node(1).
    fn parse(words: &'a [&'a str]) -> Self {
        let mut program = Self::default();
        let mut at = 0;
        while let Some(word) = words.get(at).copied() {
            at += 1;
            let (option, joined) = word.split_once('=').map_or((word, None), |(option, value)| (option, Some(value)));
            let mut value = || {
                joined.or_else(|| {
                    at += 1;
                    words.get(at - 1).copied()
                })
            };
            match option {
                "-r" | "--require" | "--import" | "--loader" | "--experimental-loader" => {
                    program.required.extend(value())
                }
                "-C" | "--conditions" | "--title" | "--input-type" => {
                    value();
                }
                "-e" | "--eval" | "-p" | "--print" | "-pe" => program.text = value(),
                _ if option.starts_with('-') && option != "-" => {}
                _ => {
                    // `bun run FILE`.
                    if option == "run" && words.len() > at {
                        continue;
                    }
                    if program.text.is_none() {
                        program.script = Some((word, words.get(at..).unwrap_or_default()));
                    }
                    break;
                }
            }
        }
        program
    }
}

/// The package manager whose script this is.
fn manager(script: &str) -> Option<&'static str> {
    let name = script.rsplit('/').next().unwrap_or_default();
    let name = [".js", ".cjs", ".mjs"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    match name {
        "npm" | "npm-cli" => Some("npm"),
        "yarn" | "yarnpkg" => Some("yarn"),
        "pnpm" => Some("pnpm"),
        "npx" | "npx-cli" => Some("npx"),
        _ => None,
    }
}

/// `npm start`, `npm run NAME`, `yarn NAME`: the line of `package.json`, by the shell, `node_modules/.bin` first on `PATH`.
fn managed(manager: &str, arguments: &[&str], process: &Process, world: World<'_>) -> Findings {
    let mut findings = Findings::default();
    let mut words = arguments.iter().copied();
    let mut cwd = process.cwd.clone();
    let mut name = None;
    let mut rest: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "--prefix" | "--cwd" | "-C" | "--dir" => {
                cwd = words.next().and_then(|folder| process.cwd.join(folder.as_bytes()).ok()).unwrap_or(cwd);
            }
            _ if word.starts_with('-') => {}
            "run" | "run-script" | "exec" if name.is_none() && (manager != "npx") => {}
            _ => {
                name = Some(word);
                rest = words.skip_while(|word| *word == "--").collect();
                break;
            }
        }
    }
    let Some(name) = name else { return findings };
    let path = format!("{}/node_modules/.bin:{}", cwd.to_string_lossy().trim_end_matches('/'), process.path());
    let mut push = |line: String, evidence: Evidence| {
        let argv = ["/bin/sh".to_owned(), "-c".to_owned(), line].into_iter().map(Some).collect();
        let env = vec![("PATH".to_owned(), Some(path.clone()))];
        findings.runs.push(Command { argv, env, confidence: Confidence::Likely, evidence });
    };
    let found = cwd.join(b"package.json").ok().and_then(|path| world.rootfs.resolve(&path).ok());
    let Some(found) = found else { return findings };
    let body = world.rootfs.read(found.inode, world.text_bytes).unwrap_or_default();
    let json: Json = serde_json::from_slice(&body).unwrap_or_default();
    let layer = Some(world.rootfs.inode(found.inode).meta.layer);
    let line_of = |script: &str| {
        let key = format!("\"{script}\"");
        let at = memchr::memmem::find(&body, b"\"scripts\"").unwrap_or_default();
        let at = at.saturating_add(memchr::memmem::find(body.get(at..).unwrap_or_default(), key.as_bytes())?);
        u32::try_from(memchr::memchr_iter(b'\n', body.get(..at)?).count()).ok()?.checked_add(1)
    };
    let mut any = false;
    for script in [format!("pre{name}"), name.to_owned(), format!("post{name}")] {
        let line = json.get("scripts").and_then(|scripts| scripts.get(&script)).and_then(Json::as_str);
        let default = (script == "start" && name == "start").then_some("node server.js");
        let Some(line) = line.or(default) else { continue };
        let line = if script == name { [&[line], rest.as_slice()].concat().join(" ") } else { line.to_owned() };
        let detail = Some(format!("scripts.{script}"));
        push(line, Evidence::File { path: found.path.clone(), line: line_of(&script), layer, detail });
        any = true;
    }
    if !any {
        // `npx NAME`, `yarn NAME`: a program of a package.
        let line = [&[name], rest.as_slice()].concat().join(" ");
        push(line, Evidence::Config { key: "command line".to_owned() });
    }
    findings
}

fn node_path(process: &Process) -> Vec<ImagePath> {
    let env = known_env(process);
    let given = env.get("NODE_PATH").into_iter().flat_map(|list| list.split(':'));
    // Debian's Node looks into the distribution's packages last.
    given.chain(["/usr/lib/nodejs", "/usr/share/nodejs"]).filter_map(|folder| folder.parse().ok()).collect()
}

struct Modules<'a> {
    world: World<'a>,
    /// `package.json` by folder.
    packages: HashMap<ImagePath, Option<Json>>,
    node_path: Vec<ImagePath>,
}

impl Modules<'_> {
    /// The file that `name` means in a file of `folder`.
    fn resolve(&mut self, folder: &ImagePath, name: &str) -> Option<Module> {
        let file = self.resolve_file(folder, name)?;
        let is_package = file.path.components().any(|part| part == b"node_modules")
            || self.node_path.iter().any(|folder| file.path.starts_with(folder));
        let origin = if is_package { Origin::Package } else { Origin::Application };
        Some(Module { file, name: String::new(), origin, is_entry: false })
    }

    fn resolve_file(&mut self, folder: &ImagePath, name: &str) -> Option<Resolved> {
        if name.starts_with(['/', '.']) {
            let path = folder.join(name.as_bytes()).ok()?;
            return self.file(&path).or_else(|| self.directory(&path));
        }
        if is_core(name) {
            return None;
        }
        let split = if name.starts_with('@') { name.match_indices('/').nth(1) } else { name.match_indices('/').next() };
        let (package, rest) = split.map_or((name, ""), |(at, _)| name.split_at(at));
        let mut above = Some(folder.clone());
        let mut holders = Vec::new();
        while let Some(folder) = above.take() {
            if folder.file_name() != b"node_modules" {
                holders.extend(folder.join(b"node_modules").ok());
            }
            above = folder.parent();
        }
        holders.extend(self.node_path.iter().cloned());
        holders.into_iter().find_map(|holder| {
            let root = self.world.rootfs.resolve(&holder.join(package.as_bytes()).ok()?).ok()?.path;
            let exports =
                self.package(&root).and_then(|json| json.get("exports")).and_then(|exports| exported(exports, rest));
            if let Some(target) = exports
                && let Some(found) = root.join(target.as_bytes()).ok().and_then(|path| self.file(&path))
            {
                return Some(found);
            }
            match rest.trim_start_matches('/') {
                "" => self.directory(&root).or_else(|| self.file(&root)),
                rest => {
                    let path = root.join(rest.as_bytes()).ok()?;
                    self.file(&path).or_else(|| self.directory(&path))
                }
            }
        })
    }

    fn file(&self, path: &ImagePath) -> Option<Resolved> {
        ["", ".js", ".json", ".node", ".mjs", ".cjs", ".ts"].into_iter().find_map(|ending| {
            let path = ImagePath::normalize(&[path.as_bytes(), ending.as_bytes()].concat()).ok()?;
            self.world.rootfs.resolve(&path).ok().filter(|found| self.world.rootfs.file(found.inode).is_some())
        })
    }

    fn directory(&mut self, path: &ImagePath) -> Option<Resolved> {
        let main = self.package(path).and_then(|json| json.get("main")).and_then(Json::as_str).map(str::to_owned);
        if let Some(main) = main.and_then(|main| path.join(main.as_bytes()).ok())
            && let Some(found) = self.file(&main).or_else(|| self.file(&main.join(b"index").ok()?))
        {
            return Some(found);
        }
        self.file(&path.join(b"index").ok()?)
    }

    fn package(&mut self, folder: &ImagePath) -> Option<&Json> {
        if !self.packages.contains_key(folder) {
            let body = folder.join(b"package.json").ok();
            let body =
                body.and_then(|path| self.world.rootfs.read_path(&path, PACKAGE_BYTES.min(self.world.text_bytes)).ok());
            let json = body.and_then(|body| serde_json::from_slice(&body).ok());
            if self.packages.len() >= PACKAGES {
                self.packages.clear();
            }
            self.packages.insert(folder.clone(), json);
        }
        self.packages.get(folder)?.as_ref()
    }

    /// The native addons of the package that `from` is in, for a platform loader such as `bindings`.
    fn addons(&self, from: &ImagePath) -> Vec<Module> {
        let mut root = from.parent();
        while let Some(folder) = &root {
            if folder.join(b"package.json").is_ok_and(|path| self.world.rootfs.resolve(&path).is_ok()) {
                break;
            }
            root = folder.parent();
        }
        let Some(root) = root else { return Vec::new() };
        let mut found = Vec::new();
        for folder in ADDON_FOLDERS {
            let Ok(folder) = root.join(folder.as_bytes()) else { continue };
            let Ok(folder) = self.world.rootfs.resolve(&folder) else { continue };
            for (name, _) in self.world.rootfs.children(folder.inode) {
                // A prebuilt one for another C library is not this image's.
                let is_musl = memchr::memmem::find(name, b"musl").is_some();
                if name.ends_with(b".node")
                    && is_musl == self.is_musl()
                    && let Ok(file) = self.world.rootfs.resolve_from(&folder.path, name)
                {
                    found.push(Module { file, name: String::new(), origin: Origin::Package, is_entry: false });
                }
            }
        }
        if found.len() > 1 && self.is_musl() {
            found.truncate(ADDONS)
        }
        found
    }

    fn is_musl(&self) -> bool {
        let lib = "/lib".parse().ok().and_then(|path| self.world.rootfs.resolve(&path).ok());
        lib.is_some_and(|lib| self.world.rootfs.children(lib.inode).any(|(name, _)| name.starts_with(b"ld-musl-")))
    }
}

impl Finder for Modules<'_> {
    fn find(&mut self, import: &Import, from: &Module) -> Vec<Module> {
        let folder = from.file.path.parent().unwrap_or_else(ImagePath::root);
        // Code given on the command line stands in the working directory itself.
        let folder = if from.file.inode == crate::InodeId::ROOT { from.file.path.clone() } else { folder };
        let mut found: Vec<Module> = self.resolve(&folder, &import.name).into_iter().collect();
        if ADDON_LOADERS.contains(&import.name.as_str()) {
            found.extend(self.addons(&from.file.path));
        }
        found
    }
}

/// The target of a subpath in `exports`, by the conditions that a server has.
fn exported(exports: &Json, rest: &str) -> Option<String> {
    let wanted = format!(".{rest}");
    match exports {
        Json::String(target) if rest.is_empty() => Some(target.clone()),
        Json::Object(map) if map.keys().any(|key| key.starts_with('.')) => {
            if let Some(target) = map.get(&wanted) {
                return conditional(target, 0);
            }
            map.iter().find_map(|(key, target)| {
                let (before, after) = key.split_once('*')?;
                let middle = wanted.strip_prefix(before)?.strip_suffix(after)?;
                Some(conditional(target, 0)?.replace('*', middle))
            })
        }
        target if rest.is_empty() => conditional(target, 0),
        _ => None,
    }
}

fn conditional(target: &Json, depth: u32) -> Option<String> {
    match target {
        Json::String(target) => Some(target.clone()),
        Json::Array(targets) => targets.iter().find_map(|target| conditional(target, depth + 1)),
        Json::Object(map) if depth < 8 => {
            let chosen = ["node", "require", "import", "default"];
            chosen.iter().find_map(|key| conditional(map.get(*key)?, depth + 1))
        }
        _ => None,
    }
}

/// Whether a name is a module of Node itself. Source: Node's documentation.
fn is_core(name: &str) -> bool {
    name.starts_with("node:") || CORE.contains(&name.split('/').next().unwrap_or_default())
}

fn read(tokens: &Tokens<'_>, reading: &Reading<'_>, summary: &mut Summary) {
    let reader = Reader { tokens, grammar: reading.language.grammar };
    let mut depth = 0u32;
    for at in 0..tokens.len() {
        match tokens.get(at).map(|token| token.kind) {
            Some(Kind::Sign) => match tokens.text(at) {
                "{" => depth = depth.saturating_add(1),
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            },
            Some(Kind::Text { .. }) => {
                let text = tokens.text(at);
                if text.len() < 200 && text.contains("://") && summary.words.len() < WORDS {
                    let text = tokens.string(at).unwrap_or_default();
                    summary.words.push((text, tokens.line(at), Place::Top));
                }
            }
            Some(Kind::Name) => {
                let place = if depth == 0 { Place::Top } else { Place::Inner };
                name(&reader, at, place, reading, summary);
            }
            _ => {}
        }
    }
}

fn name(reader: &Reader<'_, '_>, at: usize, place: Place, reading: &Reading<'_>, summary: &mut Summary) {
    let tokens = reader.tokens;
    let line = tokens.line(at);
    let is_member = at.checked_sub(1).is_some_and(|before| tokens.is_sign(before, ".") || tokens.is_sign(before, "?."));
    let word = tokens.text(at);
    let import = |name: String| Import { name, items: Vec::new(), level: 0, line, place };
    match word {
        "require" | "import" if !is_member && tokens.is_sign(at + 1, "(") => {
            let Some(name) = tokens.string(at + 2) else { return };
            if !tokens.is_sign(at + 3, ")") {
                return;
            }
            summary.imports.push(import(name.clone()));
            // `require("child_process").exec(…)`.
            let mut next = at + 4;
            let mut callee = plain(&name).to_owned();
            while tokens.is_sign(next, ".") && tokens.name(next + 1).is_some() && callee.len() < 200 {
                callee = format!("{callee}.{}", tokens.text(next + 1));
                next += 2;
            }
            if next > at + 4
                && reading.may_matter(&callee, &summary.scope)
                && let Some((call, _)) = reader.call_of(callee, next, 0)
            {
                summary.sites.push(Site { call, line, place });
            }
        }
        "import" | "export" if !is_member => import_from(tokens, at, place, summary),
        "const" | "let" | "var" => declaration(reader, at + 1, summary),
        _ => {
            if tokens.is_sign(at + 1, "=") && !is_member {
                assign(reader, word, at + 2, summary);
            }
            let continues = is_member && at.checked_sub(2).is_some_and(|before| tokens.name(before).is_some());
            let opens = tokens.is_sign(at + 1, "(") || tokens.is_sign(at + 1, ".") || tokens.is_sign(at + 1, "?.");
            if continues || !opens {
                return;
            }
            let Some((callee, next)) = reader.dotted(at) else { return };
            if let Some(variable) = callee.strip_prefix("process.env.") {
                summary.reads.insert(variable.split('.').next().unwrap_or_default().to_owned());
            }
            if !tokens.is_sign(next, "(") || summary.sites.len() >= SITES {
                return;
            }
            if reading.may_matter(&callee, &summary.scope)
                && let Some(call) = reader.call(at)
            {
                summary.sites.push(Site { call, line, place });
            }
        }
    }
}

fn plain(name: &str) -> &str {
    name.strip_prefix("node:").unwrap_or(name)
}

/// `import a, {b as c} from "m"`, `import * as a from "m"`, `import "m"`, `export … from "m"`.
fn import_from(tokens: &Tokens<'_>, at: usize, place: Place, summary: &mut Summary) {
    let line = tokens.line(at);
    let mut locals: Vec<(String, String)> = Vec::new();
    let mut next = at + 1;
    let mut in_braces = false;
    let limit = at + IMPORT_TOKENS;
    while next < limit {
        if let Some(name) = tokens.string(next) {
            let before = tokens.text(next - 1);
            if before != "from" && next != at + 1 {
                return;
            }
            let module = plain(&name).to_owned();
            if tokens.is_name(at, "import") {
                for (local, item) in locals {
                    let full = if item.is_empty() { module.clone() } else { format!("{module}.{item}") };
                    summary.scope.aliases.insert(local, full);
                }
            }
            summary.imports.push(Import { name, items: Vec::new(), level: 0, line, place });
            return;
        }
        match tokens.text(next) {
            "{" => in_braces = true,
            "}" => in_braces = false,
            "," | "*" | "from" | "type" => {}
            "as" => {
                if let (Some(local), Some(last)) = (tokens.name(next + 1), locals.last_mut()) {
                    last.0 = local.to_owned();
                } else if let Some(local) = tokens.name(next + 1) {
                    locals.push((local.to_owned(), String::new()));
                }
                next += 1;
            }
            _ => match tokens.name(next) {
                Some(item) => locals.push((item.to_owned(), if in_braces { item.to_owned() } else { String::new() })),
                None => return,
            },
        }
        next += 1;
    }
}

/// `const a = …`, `const {a, b: c} = require("m")`, `const a = …, b = …`.
fn declaration(reader: &Reader<'_, '_>, mut at: usize, summary: &mut Summary) {
    let tokens = reader.tokens;
    for _ in 0..DECLARATIONS {
        if tokens.is_sign(at, "{") {
            let close = tokens.closing(at);
            if let Some(module) = required(tokens, close + 2).filter(|_| tokens.is_sign(close + 1, "=")) {
                for item in at + 1..close {
                    let is_key = tokens.is_sign(item + 1, ",") || item + 1 == close;
                    let Some(local) = tokens.name(item).filter(|_| is_key) else { continue };
                    let renamed = tokens.is_sign(item.saturating_sub(1), ":");
                    let key = if renamed { tokens.text(item.saturating_sub(2)) } else { local };
                    summary.scope.aliases.insert(local.to_owned(), format!("{module}.{key}"));
                }
            }
            return;
        }
        let Some(name) = tokens.name(at) else { return };
        if !tokens.is_sign(at + 1, "=") {
            return;
        }
        let next = assign(reader, name, at + 2, summary);
        if !tokens.is_sign(next, ",") {
            return;
        }
        at = next + 1;
    }
}

/// Notes what a name stands for; gives the place after the value.
fn assign(reader: &Reader<'_, '_>, name: &str, at: usize, summary: &mut Summary) -> usize {
    let tokens = reader.tokens;
    if let Some(module) = required(tokens, at) {
        let mut next = at + 4;
        let mut full = module;
        while tokens.is_sign(next, ".") && tokens.name(next + 1).is_some() && full.len() < 200 {
            full = format!("{full}.{}", tokens.text(next + 1));
            next += 2;
        }
        if !tokens.is_sign(next, "(") {
            summary.scope.aliases.insert(name.to_owned(), full);
        }
        return next;
    }
    let (value, next) = reader.expression(at, tokens.len(), 0);
    if let Value::Call(call) = &value
        && call.callee.ends_with("promisify")
        && let Some(Value::Name(function)) = call.args.first()
    {
        let full = summary.scope.full_name(function);
        summary.scope.aliases.insert(name.to_owned(), full);
    }
    summary.scope.assign(name, value);
    next
}

/// The module of a `require("…")` that stands at `at`.
fn required(tokens: &Tokens<'_>, at: usize) -> Option<String> {
    let is = tokens.is_name(at, "require") && tokens.is_sign(at + 1, "(") && tokens.is_sign(at + 3, ")");
    tokens.string(at + 2).filter(|_| is).map(|name| plain(&name).to_owned())
}

/// Modules that load the native addon of the package asking. Source: their documentation.
const ADDON_LOADERS: &[&str] = &["bindings", "node-gyp-build", "@mapbox/node-pre-gyp", "node-pre-gyp", "pkg-prebuilds"];
/// Where addons are: node-gyp's and prebuildify's folders.
const ADDON_FOLDERS: &[&str] = &["build/Release", "build", "prebuilds/linux-x64", "lib/binding", "binding"];
const ADDONS: usize = 16;
const CORE: &[&str] = &[
    "assert",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "domain",
    "events",
    "fs",
    "http",
    "http2",
    "https",
    "inspector",
    "module",
    "net",
    "os",
    "path",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "repl",
    "stream",
    "string_decoder",
    "sys",
    "timers",
    "tls",
    "trace_events",
    "tty",
    "url",
    "util",
    "v8",
    "vm",
    "wasi",
    "worker_threads",
    "zlib",
];
const PACKAGE_BYTES: u64 = 1 << 20;
const PACKAGES: usize = 5_000;
const IMPORT_TOKENS: usize = 400;
const DECLARATIONS: usize = 64;
const WORDS: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::super::fixture::found;
    use crate::Rootfs;

    fn tree(app: &str) -> Rootfs {
        let mut root = Rootfs::default();
        root.put_file("/usr/bin/node", 0o755, "\x7fELF");
        root.put_file("/app/server.js", 0o644, app);
        root
    }

    fn app(text: &str) -> Vec<String> {
        found(&tree(text), &["node", "--max-old-space-size=100", "server.js"], &[("HOST", "::")]).0
    }

    #[test]
    fn ports_are_constants_or_the_environment() {
        assert_eq!(
            app("require('http').createServer((q, r) => { r.end('}') }).listen(3000, '0.0.0.0')"),
            ["~listen 3000 0.0.0.0"]
        );
        assert_eq!(app("const port = process.env.PORT || 8080; app.listen(port, () => {})"), ["~listen 8080"]);
        assert_eq!(
            app("app.listen({ host: process.env.HOST, port: Number(process.env.PORT ?? '8081') })"),
            ["~listen 8081 ::"]
        );
        assert_eq!(app("app.listen(config.port)"), ["! /app/server.js: listens on a port that is no constant"]);
        assert_eq!(
            app("// app.listen(1)\n/* app.listen(2) */ `app.listen(3)`; /app.listen(4)/.test('app.listen(5)')"),
            [""; 0]
        );
    }

    #[test]
    fn commands_by_every_way_of_importing() {
        assert_eq!(
            app("const cp = require('node:child_process'); cp.exec('ls | wc'); cp.spawn('ls', ['-l', dir])"),
            ["~run /bin/sh -c ls | wc", "?run ls -l …"]
        );
        assert_eq!(
            app("const { execFile: run, fork } = require('child_process'); run('id', []); fork('./w.js')"),
            ["~run id", "~run /usr/bin/node ./w.js"]
        );
        assert_eq!(
            app("import { execSync as x } from 'child_process'\nx(`rm -rf ${a}`)"),
            ["?run /bin/sh -c rm -rf \"$_not_known\""]
        );
        assert_eq!(app("const e = require('util').promisify(require('child_process').exec); /x/.exec('ls')"), [""; 0]);
        assert_eq!(
            app("import * as cp from 'child_process'; const e = promisify(cp.exec); e('date')"),
            ["~run /bin/sh -c date"]
        );
    }

    #[test]
    fn modules_are_resolved_as_node_does() {
        let mut root =
            tree("import a from 'esm/sub'; import './lib'; require('native'); require('fs'); import('./lib/late.mjs')");
        root.put_file(
            "/app/lib/index.js",
            0o644,
            "const db = 'redis://u:p@cache:6380/0'; fs.writeFileSync('/data/' + name + '.json', x)",
        );
        root.put_file("/app/lib/late.mjs", 0o644, "require('../server')");
        root.put_file(
            "/node_modules/esm/package.json",
            0o644,
            r#"{"exports": {".": "./no.js", "./*": {"import": "./dist/*.js"}}}"#,
        );
        root.put_file("/node_modules/esm/dist/sub.js", 0o644, "app.listen(1)");
        root.put_file("/app/node_modules/native/package.json", 0o644, r#"{"main": "lib/x"}"#);
        root.put_file("/app/node_modules/native/lib/x.js", 0o644, "module.exports = require('bindings')('n.node')");
        root.put_file("/app/node_modules/native/build/Release/n.node", 0o755, "\x7fELF");
        root.put_file("/app/node_modules/bindings/index.js", 0o644, "");
        let (lines, modules) = found(&root, &["node", "/app/server.js"], &[]);
        assert_eq!(
            lines,
            [
                "~load /app/node_modules/native/build/Release/n.node",
                "~listen 1",
                "?connect cache Some(6380)",
                "~write /data/*.json"
            ]
        );
        assert!(modules.contains(&"/node_modules/esm/dist/sub.js".to_owned()), "{modules:?}");
        assert!(modules.contains(&"/app/lib/late.mjs".to_owned()), "{modules:?}");
    }

    #[test]
    fn package_managers_hand_on_the_line() {
        let mut root = tree("");
        root.put_file("/usr/bin/npm", 0o755, "#!/usr/bin/env node\n");
        root.put_file(
            "/app/package.json",
            0o644,
            "{\n \"scripts\": {\n  \"prestart\": \"echo x\",\n  \"start\": \"node server.js\"}}",
        );
        let (lines, _) = found(&root, &["node", "/usr/bin/npm", "--silent", "start", "--", "-v"], &[]);
        assert_eq!(lines, ["~run /bin/sh -c echo x", "~run /bin/sh -c node server.js -v"]);
        let (lines, _) = found(&root, &["node", "/usr/bin/npm", "run", "nothing"], &[]);
        assert_eq!(lines, ["~run /bin/sh -c nothing"]);
    }

    #[test]
    fn broken_files_end() {
        for text in ["`${", "import {", "/[", "require(", "{", "a?b:", "const {", "x => ", "\\", "a.listen(", "new "] {
            app(&text.repeat(3_000));
        }
        let mut root = tree("require('./a')");
        root.put_file(
            "/app/a.js",
            0o644,
            "require('./server'); require('./a'); require('a\\0b'); require('.'.repeat(9))",
        );
        assert_eq!(found(&root, &["node", "server.js"], &[]).0, [""; 0]);
    }
}
