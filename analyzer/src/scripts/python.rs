//! Python: a process of the interpreter in, what its program and the modules of it do out.
//!
//! `sys.path` is put together as the interpreter does (site.py, getpath.py: `PYTHONPATH`, the standard library, `lib-dynload`, site
//! packages, `.pth` files, virtual environments). Imports at the top of a file are likely, those in functions and under conditions
//! that this platform does not decide are possible. Archives on `sys.path` are not opened.

use std::collections::HashMap;

use dna::{Confidence, Evidence, ImagePath};

use super::{
    Finder, Findings, Import, Language, Module, Origin, Place, Reading, SITES, Scripts, Summary, Walk,
    calls::{Grammar, Reader, Site, Value},
    effects::{self, Effect, Rule},
    known_env,
    tokens::{Hole, Kind, Rules, Tokens},
};
use crate::{
    InodeId, Resolved,
    closure::Process,
    shell::{DEFAULT_PATH, World},
};

pub(super) fn findings(scripts: &mut Scripts, process: &Process, world: World<'_>) -> Findings {
    let options = Options::parse(process);
    let mut finder = Modules::new(process, world, &options);
    let mut walk = Walk::new(scripts, process, world, &PYTHON, finder.version.clone());
    for (text, path) in std::mem::take(&mut finder.pth_code) {
        let file = world.rootfs.resolve(&path).ok();
        let Some(file) = file else { continue };
        let module = Module { file, name: String::new(), origin: Origin::Package, is_entry: false };
        let summary = walk.summarize(&text, false);
        walk.apply(&module, &summary, Confidence::Likely, &mut finder);
    }
    let started = Evidence::Config { key: "interpreter start".to_owned() };
    for name in AT_START {
        for module in finder.modules(name) {
            walk.push(module, Confidence::Likely, started.clone());
        }
    }
    let entry = match &options.entry {
        Entry::Text(text) => {
            walk.push_text(text, &mut finder);
            Vec::new()
        }
        Entry::Module(name) => {
            let mut found = finder.modules(name);
            if found.last().is_some_and(|module| module.file.path.file_name().starts_with(b"__init__.")) {
                found = finder.modules(&format!("{name}.__main__"));
            }
            found
        }
        Entry::File(path) => finder.script(path).into_iter().collect(),
        Entry::None => Vec::new(),
    };
    let last = entry.len().saturating_sub(1);
    for (index, module) in entry.into_iter().enumerate() {
        let is_entry = index == last;
        let origin = if is_entry && module.origin == Origin::Standard { Origin::Package } else { module.origin };
        walk.push(Module { is_entry, origin, ..module }, Confidence::Likely, started.clone());
    }
    // Servers are told the application's module: `app:app`, `--settings a.b`, FLASK_APP.
    for (word, confidence) in named(process, &options) {
        for module in finder.named(&word) {
            let evidence = Evidence::Config { key: "command line".to_owned() };
            walk.push(Module { origin: Origin::Application, ..module }, confidence, evidence);
        }
    }
    walk.run(&mut finder)
}

pub(super) static RULES: Rules = Rules {
    line_comments: &["#"],
    block_comment: false,
    lines: true,
    prefixed: true,
    backtick: Kind::Sign,
    hole: Hole::None,
    regex: false,
    sigils: &[],
    endings: &[],
    heredoc: "",
    quote_words: false,
    quote_percent: false,
    tagged: false,
    pod: false,
};

static PYTHON: Language = Language {
    rules: &RULES,
    grammar: &Grammar {
        join: &["+", ""],
        either: &["or"],
        keyword: &["="],
        bare_calls: false,
        environment: &["os.environ", "environ"],
    },
    effects: EFFECTS,
    endings: &["py"],
    read,
};

const NAMED: Effect = Effect::Program { program: 0, list: 1, named: true };
const SPAWN: Effect = Effect::Program { program: 1, list: 2, named: true };
const BIND: Effect = Effect::Listen { port: 0, host: usize::MAX, default: None };

/// Sources: the library reference, and each package's own.
const EFFECTS: &[Rule] = &[
    ("subprocess.run", Effect::Command),
    ("subprocess.Popen", Effect::Command),
    ("subprocess.call", Effect::Command),
    ("subprocess.check_call", Effect::Command),
    ("subprocess.check_output", Effect::Command),
    ("subprocess.getoutput", Effect::Line(0)),
    ("subprocess.getstatusoutput", Effect::Line(0)),
    ("os.system", Effect::Line(0)),
    ("os.popen", Effect::Line(0)),
    ("asyncio.create_subprocess_shell", Effect::Line(0)),
    ("asyncio.create_subprocess_exec", Effect::Words(0)),
    ("os.execl", Effect::Program { program: 0, list: usize::MAX, named: true }),
    ("os.execlp", Effect::Words(1)),
    ("os.execv", NAMED),
    ("os.execve", NAMED),
    ("os.execvp", NAMED),
    ("os.execvpe", NAMED),
    ("os.posix_spawn", NAMED),
    ("os.posix_spawnp", NAMED),
    ("os.spawnv", SPAWN),
    ("os.spawnve", SPAWN),
    ("os.spawnvp", SPAWN),
    ("os.spawnvpe", SPAWN),
    ("os.spawnl", Effect::Words(2)),
    ("os.spawnlp", Effect::Words(2)),
    ("pty.spawn", Effect::Command),
    ("http.server.HTTPServer", BIND),
    ("http.server.ThreadingHTTPServer", BIND),
    ("socketserver.TCPServer", BIND),
    ("socketserver.ThreadingTCPServer", BIND),
    ("socketserver.UDPServer", BIND),
    ("socket.create_server", BIND),
    (".bind", BIND),
    ("asyncio.start_server", Effect::Listen { port: 2, host: 1, default: None }),
    (".create_server", Effect::Listen { port: 2, host: 1, default: None }),
    ("wsgiref.simple_server.make_server", Effect::Listen { port: 1, host: 0, default: None }),
    ("werkzeug.serving.run_simple", Effect::Listen { port: 1, host: 0, default: None }),
    ("aiohttp.web.run_app", Effect::Listen { port: usize::MAX, host: usize::MAX, default: Some(8080) }),
    ("uvicorn.run", Effect::Listen { port: usize::MAX, host: usize::MAX, default: Some(8000) }),
    ("waitress.serve", Effect::Listen { port: usize::MAX, host: usize::MAX, default: Some(8080) }),
    ("flask.Flask().run", Effect::Listen { port: 1, host: 0, default: Some(5000) }),
    ("bottle.run", Effect::Listen { port: usize::MAX, host: usize::MAX, default: Some(8080) }),
    ("gevent.pywsgi.WSGIServer", BIND),
    ("prometheus_client.start_http_server", Effect::Listen { port: 0, host: 1, default: None }),
    (".listen", Effect::Listen { port: 0, host: 1, default: None }),
    (".add_insecure_port", BIND),
    (".add_secure_port", BIND),
    (".run", Effect::ListenNamed),
    (".run_app", Effect::ListenNamed),
    (".serve", Effect::ListenNamed),
    ("socket.create_connection", Effect::Connect),
    (".connect", Effect::Connect),
    ("redis.Redis", Effect::Connect),
    ("redis.StrictRedis", Effect::Connect),
    ("open", Effect::Open { path: 0, mode: 1 }),
    ("io.open", Effect::Open { path: 0, mode: 1 }),
    ("gzip.open", Effect::Open { path: 0, mode: 1 }),
    ("os.mkfifo", Effect::Write(0)),
    ("logging.FileHandler", Effect::Write(0)),
    ("logging.handlers.RotatingFileHandler", Effect::Write(0)),
    ("logging.handlers.TimedRotatingFileHandler", Effect::Write(0)),
    ("logging.handlers.WatchedFileHandler", Effect::Write(0)),
    ("sqlite3.connect", Effect::Write(0)),
    ("shelve.open", Effect::Write(0)),
    ("shutil.copy", Effect::Write(1)),
    ("shutil.copyfile", Effect::Write(1)),
    ("shutil.copy2", Effect::Write(1)),
    ("tempfile.mkstemp", Effect::Temporary),
    ("tempfile.mkdtemp", Effect::Temporary),
    ("tempfile.NamedTemporaryFile", Effect::Temporary),
    ("tempfile.TemporaryFile", Effect::Temporary),
    ("tempfile.SpooledTemporaryFile", Effect::Temporary),
    ("tempfile.TemporaryDirectory", Effect::Temporary),
];

/// Modules that the interpreter imports before the program. Source: Python/pylifecycle.c, Lib/site.py.
const AT_START: &[&str] = &[
    "encodings",
    "encodings.aliases",
    "encodings.utf_8",
    "codecs",
    "io",
    "abc",
    "os",
    "stat",
    "posixpath",
    "genericpath",
    "_collections_abc",
    "_sitebuiltins",
    "site",
    "sitecustomize",
    "usercustomize",
];

/// What the interpreter's own options say.
#[derive(Debug)]
struct Options {
    entry: Entry,
    /// The program's arguments.
    arguments: Vec<String>,
    ignore_environment: bool,
    no_site: bool,
}

#[derive(Debug, PartialEq)]
enum Entry {
    File(String),
    Module(String),
    Text(String),
    None,
}

impl Options {
    /// Source: python(1).
    fn parse(process: &Process) -> Self {
        let mut options = Self { entry: Entry::None, arguments: Vec::new(), ignore_environment: false, no_site: false };
        let mut words = process.argv.iter().skip(1);
        'words: while let Some(word) = words.next() {
            let Some(word) = word.as_deref() else { break };
            let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                options.entry = if word == "-" { Entry::None } else { Entry::File(word.to_owned()) };
                break;
            };
            if letters.starts_with('-') {
                if letters == "-check-hash-based-pycs" {
                    words.next();
                }
                continue;
            }
            for (at, letter) in letters.char_indices() {
                let rest = letters.get(at + letter.len_utf8()..).unwrap_or_default();
                let mut value = || match rest {
                    "" => words.next().cloned().flatten(),
                    rest => Some(rest.to_owned()),
                };
                match letter {
                    'm' => options.entry = value().map_or(Entry::None, Entry::Module),
                    'c' => options.entry = value().map_or(Entry::None, Entry::Text),
                    'W' | 'X' => {
                        value();
                        continue 'words;
                    }
                    'E' => options.ignore_environment = true,
                    'I' => options.ignore_environment = true,
                    'S' => options.no_site = true,
                    _ => continue,
                }
                if matches!(letter, 'm' | 'c') {
                    break 'words;
                }
            }
        }
        options.arguments = words.map(|word| word.clone().unwrap_or_default()).collect();
        options
    }
}

/// Words that may name the application's module.
fn named(process: &Process, options: &Options) -> Vec<(String, Confidence)> {
    let mut found = Vec::new();
    for word in &options.arguments {
        let word = word.split_once('=').filter(|_| word.starts_with('-')).map_or(word.as_str(), |(_, value)| value);
        if !word.starts_with('-') && word.len() < 200 {
            let confidence = if word.contains(':') { Confidence::Likely } else { Confidence::Possible };
            found.push((word.to_owned(), confidence));
        }
    }
    for (name, value) in &process.env {
        let Some(value) = value else { continue };
        let says = ["_APP", "_MODULE", "_SETTINGS"].iter().any(|ending| name.ends_with(ending));
        if says && value.len() < 200 {
            found.push((value.clone(), Confidence::Likely));
        }
    }
    found
}

/// Where modules are found.
struct Modules<'a> {
    world: World<'a>,
    cwd: ImagePath,
    version: Vec<u32>,
    /// Directories of `sys.path` with whose code is in them.
    path: Vec<(Resolved, Origin)>,
    /// Modules by dotted name.
    known: HashMap<String, Option<Located>>,
    /// Code in `.pth` files.
    pth_code: Vec<(String, ImagePath)>,
    libraries: Vec<ImagePath>,
}

#[derive(Debug, Clone)]
struct Located {
    /// The file; none for a package without one.
    file: Option<Resolved>,
    /// The directories of a package.
    folders: Vec<Resolved>,
    origin: Origin,
}

impl<'a> Modules<'a> {
    fn new(process: &Process, world: World<'a>, options: &Options) -> Self {
        let mut modules = Self {
            world,
            cwd: process.cwd.clone(),
            version: Vec::new(),
            path: Vec::new(),
            known: HashMap::new(),
            pth_code: Vec::new(),
            libraries: Vec::new(),
        };
        let env = if options.ignore_environment { Default::default() } else { known_env(process) };
        match &options.entry {
            Entry::File(script) => {
                let found = world.resolve(&process.cwd, script).ok();
                let folder = found.and_then(|found| match world.rootfs.file(found.inode) {
                    Some(_) => found.path.parent(),
                    None => Some(found.path),
                });
                if let Some(folder) = folder {
                    modules.add_folder(&folder, Origin::Application);
                }
            }
            Entry::Module(_) | Entry::Text(_) => {
                modules.add_folder(&process.cwd, Origin::Application);
            }
            Entry::None => {}
        }
        for folder in env.get("PYTHONPATH").into_iter().flat_map(|list| list.split(':')) {
            if let Ok(folder) = process.cwd.join(folder.as_bytes()) {
                modules.add_folder(&folder, Origin::Application);
            }
        }
        modules.add_prefix(process, &env, options.no_site);
        modules
    }

    fn add_folder(&mut self, folder: &ImagePath, origin: Origin) -> bool {
        let Ok(found) = self.world.rootfs.resolve(folder) else { return false };
        let is_folder = matches!(self.world.rootfs.inode(found.inode).kind, crate::InodeKind::Directory(_));
        if let Some((_, known)) = self.path.iter_mut().find(|(known, _)| known.inode == found.inode) {
            // A script that stands among installed modules does not make them the application's.
            if origin != Origin::Application {
                *known = origin;
            }
            return false;
        }
        if !is_folder {
            return false;
        }
        self.path.push((found, origin));
        true
    }

    /// The standard library and site packages of the interpreter: getpath.py, site.py.
    fn add_prefix(&mut self, process: &Process, env: &std::collections::BTreeMap<&str, &str>, no_site: bool) {
        let environment = self.virtual_environment(process, env);
        let home = environment.as_ref().and_then(|(_, config)| config_value(config, "home"));
        let home = home.and_then(|home| home.parse::<ImagePath>().ok());
        let given = env.get("PYTHONHOME").and_then(|home| home.parse::<ImagePath>().ok());
        let mut at = given.or_else(|| process.program.parent()).or(home.clone());
        let name = String::from_utf8_lossy(process.program.file_name()).into_owned();
        let minor = name.strip_prefix("python3.").and_then(|minor| minor.parse::<u32>().ok());
        let mut found = None;
        while let Some(folder) = at.take().filter(|_| found.is_none()) {
            found = self.standard_library(&folder, minor).map(|(library, minor)| (folder.clone(), library, minor));
            at = folder.parent();
        }
        let Some((prefix, library, minor)) = found else { return };
        self.version = vec![3, minor];
        self.libraries.push(library.clone());
        self.add_folder(&library, Origin::Standard);
        if let Ok(dynload) = library.join(b"lib-dynload") {
            self.add_folder(&dynload, Origin::Standard);
        }
        if no_site {
            return;
        }
        let mut sites = Vec::new();
        let mut is_isolated = false;
        if let Some((folder, config)) = &environment {
            sites.push(folder.join(format!("lib/python3.{minor}/site-packages").as_bytes()));
            is_isolated = config_value(config, "include-system-site-packages") != Some("true");
        }
        if !is_isolated {
            if let Some(home) = env.get("HOME").filter(|_| !env.contains_key("PYTHONNOUSERSITE")) {
                sites.push(ImagePath::normalize(format!("{home}/.local/lib/python3.{minor}/site-packages").as_bytes()));
            }
            sites.push(prefix.join(format!("lib/python3.{minor}/site-packages").as_bytes()));
            // Debian's: local packages, then the distribution's.
            sites.push(ImagePath::normalize(format!("/usr/local/lib/python3.{minor}/dist-packages").as_bytes()));
            sites.push(prefix.join(b"lib/python3/dist-packages"));
            sites.push(prefix.join(format!("lib64/python3.{minor}/site-packages").as_bytes()));
        }
        for site in sites.into_iter().flatten() {
            if self.add_folder(&site, Origin::Package) {
                self.add_pth(&site);
            }
        }
    }

    /// The folder with `pyvenv.cfg`, beside or above the interpreter as it is called, and that file's text.
    fn virtual_environment(
        &self,
        process: &Process,
        env: &std::collections::BTreeMap<&str, &str>,
    ) -> Option<(ImagePath, String)> {
        let invoked = process.argv.first().cloned().flatten()?;
        let called = if invoked.contains('/') {
            process.cwd.join(invoked.as_bytes()).ok()?
        } else {
            let path = env.get("PATH").copied().unwrap_or(DEFAULT_PATH);
            let found = path
                .split(':')
                .find(|folder| self.world.resolve(&process.cwd, &format!("{folder}/{invoked}")).is_ok())?;
            process.cwd.join(format!("{found}/{invoked}").as_bytes()).ok()?
        };
        let beside = called.parent()?;
        [beside.parent(), Some(beside)].into_iter().flatten().find_map(|folder| {
            let body = self.world.rootfs.read_path(&folder.join(b"pyvenv.cfg").ok()?, self.world.text_bytes).ok()?;
            Some((folder, String::from_utf8_lossy(&body).into_owned()))
        })
    }

    /// `lib/python3.X` with `os.py` in it below `folder`, and X; the highest where the interpreter's name does not tell.
    fn standard_library(&self, folder: &ImagePath, minor: Option<u32>) -> Option<(ImagePath, u32)> {
        let lib = self.world.rootfs.resolve(&folder.join(b"lib").ok()?).ok()?;
        let minors = self.world.rootfs.children(lib.inode).filter_map(|(name, _)| {
            let found = std::str::from_utf8(name).ok()?.strip_prefix("python3.")?.parse::<u32>().ok()?;
            (minor.is_none_or(|minor| minor == found)).then_some(found)
        });
        let mut minors: Vec<u32> = minors.collect();
        minors.sort_unstable_by(|a, b| b.cmp(a));
        minors.into_iter().find_map(|minor| {
            let library = folder.join(format!("lib/python3.{minor}").as_bytes()).ok()?;
            let has = |name: &[u8]| library.join(name).is_ok_and(|path| self.world.rootfs.resolve(&path).is_ok());
            (has(b"os.py") || has(b"os.pyc")).then_some((library, minor))
        })
    }

    /// `.pth` files: folders, and lines of code. Source: site.py, `addpackage`.
    fn add_pth(&mut self, site: &ImagePath) {
        let Ok(folder) = self.world.rootfs.resolve(site) else { return };
        let files: Vec<(Vec<u8>, InodeId)> = self
            .world
            .rootfs
            .children(folder.inode)
            .filter(|(name, _)| name.ends_with(b".pth") && !name.starts_with(b"."))
            .map(|(name, inode)| (name.to_vec(), inode))
            .collect();
        for (name, _) in files.into_iter().take(PTH_FILES) {
            let Ok(path) = folder.path.join(&name) else { continue };
            let Ok(body) = self.world.rootfs.read_path(&path, self.world.text_bytes) else { continue };
            for line in String::from_utf8_lossy(&body).lines().map(str::trim_end).take(PTH_LINES) {
                if line.is_empty() || line.starts_with('#') {
                } else if line.starts_with("import ") || line.starts_with("import\t") {
                    self.pth_code.push((line.to_owned(), path.clone()));
                } else if let Ok(folder) = folder.path.join(line.as_bytes()) {
                    // Development installs: the image's own code.
                    self.add_folder(&folder, Origin::Application);
                }
            }
        }
    }

    /// The program's file: a script, or a folder with `__main__.py`.
    fn script(&self, path: &str) -> Option<Module> {
        let found = self.world.resolve(&self.cwd, path).ok()?;
        let file = match self.world.rootfs.file(found.inode) {
            Some(_) => found,
            None => self.world.rootfs.resolve(&found.path.join(b"__main__.py").ok()?).ok()?,
        };
        let origin = if self.libraries.iter().any(|library| file.path.starts_with(library)) {
            Origin::Standard
        } else {
            Origin::Application
        };
        Some(Module { file, name: "__main__".to_owned(), origin, is_entry: true })
    }

    /// What a server's argument names: `pkg.mod:attribute`, a module, or a file.
    fn named(&mut self, word: &str) -> Vec<Module> {
        let module = word.split(':').next().unwrap_or_default().trim_end_matches("()");
        if module.ends_with(".py") {
            return self.script(module).into_iter().map(|module| Module { is_entry: false, ..module }).collect();
        }
        if !is_dotted(module) {
            return Vec::new();
        }
        let mut found = self.modules(module);
        if found.is_empty() {
            // Servers put the working directory first on `sys.path`.
            let before = self.path.len();
            if self.add_folder(&self.cwd.clone(), Origin::Application) && self.path.len() > before {
                self.path.rotate_right(1);
                self.known.clear();
                found = self.modules(module);
            }
        }
        found.into_iter().filter(|module| module.origin == Origin::Application).collect()
    }

    /// The modules read to import a dotted name: its packages, then itself; none where it is not there.
    fn modules(&mut self, name: &str) -> Vec<Module> {
        let mut found = Vec::new();
        for (end, _) in name.match_indices('.').chain([(name.len(), "")]) {
            let part = name.get(..end).unwrap_or_default();
            let Some(located) = self.locate(part) else { break };
            if let Some(file) = located.file {
                found.push(Module { file, name: part.to_owned(), origin: located.origin, is_entry: false });
            }
        }
        found
    }

    fn locate(&mut self, name: &str) -> Option<Located> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let (folders, last): (Vec<(Resolved, Origin)>, &str) = match name.rsplit_once('.') {
            None => (self.path.clone(), name),
            Some((parent, last)) => {
                let located = self.known.get(parent).cloned().flatten()?;
                (located.folders.into_iter().map(|folder| (folder, located.origin)).collect(), last)
            }
        };
        let found = self.search(&folders, last);
        if self.known.len() < KNOWN {
            self.known.insert(name.to_owned(), found.clone());
        }
        found
    }

    /// A module by its last name in folders: a package, an extension, a source file. Source: importlib's FileFinder.
    fn search(&self, folders: &[(Resolved, Origin)], name: &str) -> Option<Located> {
        let mut portions = Vec::new();
        let rootfs = self.world.rootfs;
        for (folder, origin) in folders {
            let child = |name: &str| rootfs.resolve_from(&folder.path, name.as_bytes()).ok();
            if rootfs.child(folder.inode, name.as_bytes()).is_some()
                && let Some(package) = child(name)
                && rootfs.file(package.inode).is_none()
            {
                let init = ["__init__.py", "__init__.pyc"]
                    .into_iter()
                    .find_map(|init| rootfs.resolve_from(&package.path, init.as_bytes()).ok())
                    .or_else(|| self.extension(&package, "__init__"));
                if let Some(init) = init {
                    return Some(Located { file: Some(init), folders: vec![package], origin: *origin });
                }
                portions.push((package, *origin));
            }
            let file = self.extension(folder, name).or_else(|| {
                let source = format!("{name}.py");
                rootfs.child(folder.inode, source.as_bytes())?;
                child(&source)
            });
            if let Some(file) = file.filter(|file| rootfs.file(file.inode).is_some()) {
                return Some(Located { file: Some(file), folders: Vec::new(), origin: *origin });
            }
        }
        let origin = portions.first()?.1;
        Some(Located { file: None, folders: portions.into_iter().map(|(folder, _)| folder).collect(), origin })
    }

    /// `name.cpython-311-….so`, `name.abi3.so`, `name.so`.
    fn extension(&self, folder: &Resolved, name: &str) -> Option<Resolved> {
        let prefix = format!("{name}.");
        let cpython = format!("cpython-3{}-", self.version.get(1).copied().unwrap_or_default());
        let file = self.world.rootfs.names_from(folder.inode, prefix.as_bytes()).find_map(|file| {
            let rest = std::str::from_utf8(file).ok()?.strip_prefix(&prefix)?.strip_suffix("so")?;
            let is_ours = rest.is_empty() || rest == "abi3." || rest.starts_with(&cpython);
            is_ours.then(|| file.to_vec())
        })?;
        self.world.rootfs.resolve_from(&folder.path, &file).ok()
    }

    /// `console_scripts` entry points that old wrappers look up: `load_entry_point("gunicorn==20.1", "console_scripts", "gunicorn")`.
    fn entry_point(&mut self, distribution: &str, group: &str, name: &str) -> Option<String> {
        let wanted = distribution.split(['=', '<', '>', '~', '[']).next()?.to_lowercase().replace(['-', '.'], "_");
        for (folder, _) in &self.path {
            for (entry, _) in self.world.rootfs.children(folder.inode) {
                let entry = String::from_utf8_lossy(entry);
                let known = entry.strip_suffix(".dist-info").or_else(|| entry.strip_suffix(".egg-info"));
                let Some(known) = known.and_then(|known| known.split('-').next()) else { continue };
                if known.to_lowercase().replace('.', "_") != wanted {
                    continue;
                }
                let path = folder.path.join(format!("{entry}/entry_points.txt").as_bytes()).ok()?;
                let Ok(body) = self.world.rootfs.read_path(&path, self.world.text_bytes) else { continue };
                let text = String::from_utf8_lossy(&body).into_owned();
                let mut in_group = false;
                for line in text.lines().map(str::trim) {
                    if line.starts_with('[') {
                        in_group = line.trim_matches(['[', ']']) == group;
                    } else if let Some((key, value)) = line.split_once('=')
                        && in_group
                        && key.trim() == name
                    {
                        return value.split([':', '[']).next().map(|module| module.trim().to_owned());
                    }
                }
            }
        }
        None
    }
}

impl Finder for Modules<'_> {
    fn find(&mut self, import: &Import, from: &Module) -> Vec<Module> {
        if let [group, name] = import.items.as_slice()
            && import.level == ENTRY_POINT
        {
            let module = self.entry_point(&import.name, group, name);
            return module.map_or_else(Vec::new, |module| self.modules(&module));
        }
        let base = match import.level {
            0 => import.name.clone(),
            level => {
                let is_package = from.file.path.file_name().starts_with(b"__init__.");
                let mut package = from.name.as_str();
                for _ in 0..level.saturating_sub(u32::from(is_package)) {
                    package = package.rsplit_once('.').map_or("", |(package, _)| package);
                }
                match (package, import.name.as_str()) {
                    ("", name) => name.to_owned(),
                    (package, "") => package.to_owned(),
                    (package, name) => format!("{package}.{name}"),
                }
            }
        };
        let mut found = self.modules(&base);
        let is_package = self
            .known
            .get(&base)
            .is_some_and(|located| located.as_ref().is_some_and(|located| !located.folders.is_empty()));
        if is_package {
            for item in &import.items {
                found.extend(
                    self.modules(&format!("{base}.{item}")).pop().filter(|module| module.name.ends_with(item.as_str())),
                );
            }
        }
        found
    }

    fn find_word(&mut self, word: &str) -> Vec<Module> {
        let word = word.split(':').next().unwrap_or_default();
        if !word.contains('.') || !is_dotted(word) {
            return Vec::new();
        }
        let found = self.modules(word);
        // `pkg.mod.Class` names `pkg.mod`; a package alone is no news.
        let depth = found.last().map_or(0, |module| module.name.matches('.').count() + 1);
        let parts = word.matches('.').count() + 1;
        if depth >= 2 && depth + 1 >= parts { found } else { Vec::new() }
    }
}

fn is_dotted(word: &str) -> bool {
    word.len() < 200
        && word.split('.').all(|part| {
            part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

fn config_value<'t>(config: &'t str, key: &str) -> Option<&'t str> {
    let pairs = config.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(known, value)| (known.trim(), value.trim())).find(|(known, _)| *known == key).map(|(_, value)| value)
}

/// A block of statements: its header's column, and where its statements stand.
struct Block {
    column: u32,
    place: Place,
}

/// Reads statements: imports, assignments and calls, each with the place its blocks give it.
fn read(tokens: &Tokens<'_>, reading: &Reading<'_>, summary: &mut Summary) {
    let mut blocks: Vec<Block> = Vec::new();
    // Outcome of the last condition at a column: what its `else` is.
    let mut branches: Vec<(u32, Option<bool>)> = Vec::new();
    let reader = Reader { tokens, grammar: reading.language.grammar };
    let mut at = 0;
    while at < tokens.len() {
        let end = (at..tokens.len())
            .find(|at| tokens.get(*at).is_some_and(|token| token.kind == Kind::Newline))
            .unwrap_or(tokens.len());
        let column = tokens.get(at).map_or(0, |token| token.column);
        while blocks.last().is_some_and(|block| column <= block.column) {
            blocks.pop();
        }
        branches.retain(|(known, _)| *known <= column);
        let place = blocks.last().map_or(Place::Top, |block| block.place);
        let mut first = tokens.name(at).unwrap_or_default();
        if first == "async" {
            first = tokens.name(at + 1).unwrap_or_default();
        }
        let inner = match first {
            "def" => Some(place.max(Place::Inner)),
            "class" | "with" | "for" | "while" | "try" | "finally" => Some(place),
            "except" => Some(place.max(Place::Inner)),
            "if" | "elif" | "else" => {
                let before =
                    branches.iter().rev().find(|(known, _)| *known == column).and_then(|(_, outcome)| *outcome);
                let own = if first == "else" { Some(true) } else { condition(tokens, at + 1, end, reading) };
                let (outcome, taken) = match (first, before) {
                    ("if", _) => (own, own),
                    // After a branch that is taken, nothing is.
                    (_, Some(true)) => (Some(true), Some(false)),
                    (_, Some(false)) => (own, own),
                    _ => (None, None),
                };
                branches.retain(|(known, _)| *known != column);
                branches.push((column, outcome));
                Some(match taken {
                    Some(true) => place,
                    Some(false) => Place::Never,
                    None => place.max(Place::Inner),
                })
            }
            _ => None,
        };
        match inner {
            Some(inner) => {
                let colon = header_end(tokens, at, end);
                scan(&reader, at, colon, place, reading, summary);
                statements(&reader, colon + 1, end, inner, reading, summary);
                blocks.push(Block { column, place: inner });
            }
            None => statements(&reader, at, end, place, reading, summary),
        }
        at = end + 1;
    }
}

/// Where the header of a compound statement ends: its colon outside brackets.
fn header_end(tokens: &Tokens<'_>, mut at: usize, end: usize) -> usize {
    while at < end {
        match tokens.text(at) {
            "(" | "[" | "{" if tokens.get(at).is_some_and(|token| token.kind == Kind::Sign) => at = tokens.closing(at),
            ":" if tokens.is_sign(at, ":") => return at,
            _ => {}
        }
        at += 1;
    }
    end
}

/// Statements separated by `;`.
fn statements(
    reader: &Reader<'_, '_>,
    mut at: usize,
    end: usize,
    place: Place,
    reading: &Reading<'_>,
    summary: &mut Summary,
) {
    let tokens = reader.tokens;
    while at < end {
        let stop = (at..end).find(|at| tokens.is_sign(*at, ";")).unwrap_or(end);
        match tokens.name(at) {
            Some("import") => import(tokens, at + 1, stop, place, summary),
            Some("from") => import_from(tokens, at + 1, stop, place, summary),
            _ => {
                // A string alone is documentation.
                if stop > at + 1 || tokens.string(at).is_none() {
                    assignment(reader, at, stop, summary);
                    scan(reader, at, stop, place, reading, summary);
                }
            }
        }
        at = stop + 1;
    }
}

fn dotted(tokens: &Tokens<'_>, mut at: usize) -> (String, usize) {
    let mut name = tokens.name(at).unwrap_or_default().to_owned();
    at += 1;
    while tokens.is_sign(at, ".") && tokens.name(at + 1).is_some() && name.len() < 200 {
        name.push('.');
        name.push_str(tokens.text(at + 1));
        at += 2;
    }
    (name, at)
}

/// `import a.b as c, d`.
fn import(tokens: &Tokens<'_>, mut at: usize, end: usize, place: Place, summary: &mut Summary) {
    while at < end && tokens.name(at).is_some() {
        let line = tokens.line(at);
        let (name, next) = dotted(tokens, at);
        at = next;
        if tokens.is_name(at, "as") {
            summary.scope.aliases.insert(tokens.text(at + 1).to_owned(), name.clone());
            at += 2;
        }
        summary.imports.push(Import { name, items: Vec::new(), level: 0, line, place });
        if !tokens.is_sign(at, ",") {
            break;
        }
        at += 1;
    }
}

/// `from ..a import (b as c, d)`.
fn import_from(tokens: &Tokens<'_>, mut at: usize, end: usize, place: Place, summary: &mut Summary) {
    let line = tokens.line(at);
    let mut level = 0u32;
    while at < end && (tokens.is_sign(at, ".") || tokens.is_sign(at, "...")) {
        level = level.saturating_add(if tokens.is_sign(at, ".") { 1 } else { 3 });
        at += 1;
    }
    let mut name = String::new();
    if !tokens.is_name(at, "import") {
        (name, at) = dotted(tokens, at);
    }
    if !tokens.is_name(at, "import") {
        return;
    }
    let mut items = Vec::new();
    for at in (at + 1..end).take(IMPORTED) {
        let Some(item) = tokens.name(at) else { continue };
        if tokens.is_name(at.saturating_sub(1), "as") || item == "as" {
            continue;
        }
        let local = if tokens.is_name(at + 1, "as") { tokens.text(at + 2) } else { item };
        let full = if name.is_empty() { item.to_owned() } else { format!("{name}.{item}") };
        summary.scope.aliases.insert(local.to_owned(), full);
        items.push(item.to_owned());
    }
    summary.imports.push(Import { name, items, level, line, place });
}

/// `name = value`, `self.name = value`.
fn assignment(reader: &Reader<'_, '_>, at: usize, end: usize, summary: &mut Summary) {
    let Some((name, mut next)) = reader.dotted(at) else { return };
    if reader.tokens.is_sign(next, ":") {
        next = (next..end).find(|at| reader.tokens.is_sign(*at, "=")).unwrap_or(end);
    }
    if reader.tokens.is_sign(next, "=") {
        let (value, _) = reader.expression(next + 1, end, 0);
        summary.scope.assign(&name, value);
    }
}

/// Calls and strings between `at` and `end`.
fn scan(reader: &Reader<'_, '_>, at: usize, end: usize, place: Place, reading: &Reading<'_>, summary: &mut Summary) {
    if place == Place::Never {
        return;
    }
    let tokens = reader.tokens;
    for at in at..end {
        match tokens.get(at).map(|token| token.kind) {
            Some(Kind::Text { .. }) => {
                let text = tokens.text(at);
                let is_word = text.len() < 200 && (text.contains("://") || (text.contains('.') && is_dotted(text)));
                if is_word && summary.words.len() < WORDS {
                    let text = tokens.string(at).unwrap_or_default();
                    summary.words.push((text, tokens.line(at), place));
                }
            }
            Some(Kind::Name) => {
                let is_member = at.checked_sub(1).is_some_and(|before| tokens.is_sign(before, "."));
                let opens = tokens.is_sign(at + 1, "(") || tokens.is_sign(at + 1, ".") || tokens.is_sign(at + 1, "[");
                // A method is read from the name it starts with, unless what it is called on is no name.
                let continues = is_member && at.checked_sub(2).is_some_and(|before| tokens.name(before).is_some());
                if !opens || continues {
                    continue;
                }
                let Some((callee, next)) = reader.dotted(at) else { continue };
                if matches!(callee.as_str(), "os.environ" | "environ") {
                    summary.reads.extend(tokens.string(next + 1));
                }
                let last = callee.rsplit('.').next().unwrap_or_default();
                if matches!(last, "import_module" | "__import__" | "load_entry_point") {
                    special(reader, at, last, place, summary);
                }
                if tokens.is_sign(next, "(")
                    && reading.may_matter(&callee, &summary.scope)
                    && summary.sites.len() < SITES
                    && let Some(call) = reader.call(at)
                {
                    if effects::is_getter(&summary.scope.full_name(&callee)) {
                        summary.reads.extend(call.args.first().and_then(Value::text));
                        continue;
                    }
                    summary.sites.push(Site { call, line: tokens.line(at), place });
                }
            }
            _ => {}
        }
    }
}

/// Calls that import: `import_module("a.b")`, `__import__("a")`, `load_entry_point(distribution, group, name)`.
fn special(reader: &Reader<'_, '_>, at: usize, last: &str, place: Place, summary: &mut Summary) {
    let Some(call) = reader.call(at) else { return };
    let line = reader.tokens.line(at);
    let texts: Vec<&str> =
        call.args.iter().map(|arg| if let Value::Text(text) = arg { text.as_str() } else { "" }).collect();
    match (last, texts.as_slice()) {
        ("load_entry_point", [distribution, group, name]) => {
            let items = vec![(*group).to_owned(), (*name).to_owned()];
            summary.imports.push(Import { name: (*distribution).to_owned(), items, level: ENTRY_POINT, line, place });
        }
        ("import_module" | "__import__", [name, ..]) if !name.is_empty() => {
            let level = u32::try_from(name.bytes().take_while(|byte| *byte == b'.').count()).unwrap_or_default();
            let name = name.trim_start_matches('.').to_owned();
            summary.imports.push(Import { name, items: Vec::new(), level, line, place });
        }
        _ => {}
    }
}

/// Whether a condition holds on this platform and version; none where that is not known.
fn condition(tokens: &Tokens<'_>, at: usize, end: usize, reading: &Reading<'_>) -> Option<bool> {
    let end = header_end(tokens, at, end);
    let words: Vec<&str> = (at..end.min(at + 24)).map(|at| tokens.text(at)).collect();
    let version = |parts: &[&str]| -> Vec<u32> { parts.iter().filter_map(|part| part.parse().ok()).collect() };
    match words.as_slice() {
        ["not", ..] => condition(tokens, at + 1, end, reading).map(|holds| !holds),
        ["__name__", "==", "__main__"] => Some(reading.is_entry),
        ["TYPE_CHECKING"] | [_, ".", "TYPE_CHECKING"] | ["False"] | ["0"] => Some(false),
        ["True"] | ["1"] => Some(true),
        ["sys", ".", "platform", "==", name] => Some(*name == "linux"),
        ["sys", ".", "platform", "!=", name] => Some(*name != "linux"),
        ["sys", ".", "platform", ".", "startswith", "(", name, ")"] => Some("linux".starts_with(name)),
        ["os", ".", "name", "==", name] => Some(*name == "posix"),
        ["os", ".", "name", "!=", name] => Some(*name != "posix"),
        ["sys", ".", "version_info", sign, "(", parts @ .., ")"] if !reading.version.is_empty() => {
            let (own, parts) = (reading.version, version(parts));
            let own = own.get(..parts.len().min(own.len())).unwrap_or_default();
            match *sign {
                ">=" | ">" => Some(own >= parts.as_slice()),
                "<" | "<=" => Some(own < parts.as_slice()),
                _ => None,
            }
        }
        ["sys", ".", "version_info", "[", "0", "]", sign, major]
        | ["sys", ".", "version_info", ".", "major", sign, major] => {
            let major = major.parse::<u32>().ok()?;
            match *sign {
                "==" => Some(major == 3),
                ">=" => Some(3 >= major),
                "<" => Some(3 < major),
                ">" => Some(3 > major),
                _ => None,
            }
        }
        _ => None,
    }
}

/// In place of a level: an entry point of a distribution.
const ENTRY_POINT: u32 = u32::MAX;
const PTH_FILES: usize = 200;
const PTH_LINES: usize = 200;
/// Names looked up in one process.
const KNOWN: usize = 200_000;
/// Tokens of one list of imported names.
const IMPORTED: usize = 5_000;
/// Calls and strings kept of one file.
const WORDS: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::super::fixture::found;
    use crate::Rootfs;

    const SO: &str = "\x7fELF";

    /// Python 3.11 as Debian lays it out, and an application.
    fn tree(app: &str) -> Rootfs {
        let mut root = Rootfs::default();
        root.put_file("/usr/bin/python3.11", 0o755, SO);
        root.put_link("/usr/bin/python3", "python3.11");
        let lib = "/usr/lib/python3.11";
        root.put_file(&format!("{lib}/os.py"), 0o644, "import abc\n");
        root.put_file(&format!("{lib}/json/__init__.py"), 0o644, "from .decoder import JSONDecoder\n");
        root.put_file(
            &format!("{lib}/json/decoder.py"),
            0o644,
            "try:\n    from _json import scanstring\nexcept ImportError:\n    import _slow\n",
        );
        for name in ["_json", "_ssl", "_slow", "_old", "_new", "_win", "_hints", "_lazy", "_main"] {
            root.put_file(&format!("{lib}/lib-dynload/{name}.cpython-311-x86_64-linux-gnu.so"), 0o644, SO);
        }
        root.put_file(&format!("{lib}/lib-dynload/_json.cpython-39-x86_64-linux-gnu.so"), 0o644, SO);
        root.put_file("/usr/lib/python3/dist-packages/pkg/__init__.py", 0o644, "from . import _speedups, nothing\n");
        root.put_file("/usr/lib/python3/dist-packages/pkg/_speedups.abi3.so", 0o644, SO);
        root.put_file("/app/app.py", 0o644, app);
        root
    }

    fn app(text: &str) -> Vec<String> {
        let (mut lines, _) = found(&tree(text), &["python3", "app.py"], &[("PORT", "9001")]);
        lines.retain(|line| !line.contains("_json") || text.contains("json"));
        lines
    }

    #[test]
    fn imports_lead_to_extensions() {
        assert_eq!(
            app("import json.decoder as d, pkg\n"),
            [
                "~load /usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so",
                "?load /usr/lib/python3.11/lib-dynload/_slow.cpython-311-x86_64-linux-gnu.so",
                "~load /usr/lib/python3/dist-packages/pkg/_speedups.abi3.so",
            ]
        );
    }

    #[test]
    fn a_place_says_how_sure_an_import_is() {
        let text = "import sys, os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import _hints\nif sys.platform == 'win32':\n    import _win\nelif sys.version_info >= (3, 12):\n    import _new\nelse:\n    import _old\ndef f():\n    import _lazy\nif __name__ == '__main__': import _main; import _ssl\n";
        let lines = app(text);
        let names: Vec<String> = lines
            .iter()
            .map(|line| {
                line.replace("load /usr/lib/python3.11/lib-dynload/", "")
                    .replace(".cpython-311-x86_64-linux-gnu.so", "")
            })
            .collect();
        assert_eq!(names, ["?_lazy", "~_main", "~_old", "~_ssl"]);
    }

    #[test]
    fn commands_ports_peers_and_files() {
        let text = "import subprocess as sp, os, socket\nfrom os import environ, system as sh\nBASE = '/var/lib/x'\nsp.run(['ls', '-l',\n  BASE])  # it's\nsp.check_output('date | wc', shell=True)\nsh(f'rm {BASE}')\nos.execvp('env', ['x', 'id'])\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('0.0.0.0', 5353))\nfrom http.server import HTTPServer\nHTTPServer(('', int(os.environ.get('PORT', 8000))), None)\nopen(os.path.join(BASE, 'a.log'), 'w'); open('/etc/hosts')\nlog = open('%s/%d.txt' % (BASE, 1), mode='ab')\nurl = 'postgres://u:hunter2@db/x'\nimport sqlite3, redis\nsqlite3.connect(f'{BASE}/my.db')\nredis.Redis(host='cache')\n";
        assert_eq!(
            app(text),
            [
                "~run ls -l /var/lib/x",
                "~run /bin/sh -c date | wc",
                "~run /bin/sh -c rm /var/lib/x",
                "~run env id",
                "~listen 9001",
                "~listen Udp 5353 0.0.0.0",
                "?connect cache None",
                "?connect db Some(5432)",
                "~write /var/lib/x/a.log",
                "~write /var/lib/x/my.db",
            ]
        );
    }

    #[test]
    fn servers_are_told_the_application() {
        let mut root = tree("import json\nfrom flask import Flask\napp = Flask(__name__)\napp.run()\n");
        root.put_file("/usr/bin/server", 0o755, "#!/usr/bin/python3\nimport sys\nfrom importlib.metadata import distribution\nsys.exit(load_entry_point('server==1', 'console_scripts', 'server')())\n");
        root.put_file(
            "/usr/lib/python3/dist-packages/server-1.egg-info/entry_points.txt",
            0o644,
            "[gui]\nserver = no:run\n[console_scripts]\nserver = srv.main:run\n",
        );
        root.put_file("/usr/lib/python3/dist-packages/srv/main.py", 0o644, "import _ssl\n");
        let (lines, modules) = found(&root, &["/usr/bin/python3", "/usr/bin/server", "-w", "2", "app:app"], &[]);
        assert_eq!(
            lines,
            [
                "~load /usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so",
                "?load /usr/lib/python3.11/lib-dynload/_slow.cpython-311-x86_64-linux-gnu.so",
                "~load /usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
                "~listen 5000",
            ]
        );
        assert!(modules.contains(&"/app/app.py".to_owned()), "{modules:?}");
    }

    #[test]
    fn modules_environments_and_pth_files() {
        let mut root = tree("");
        root.put_file("/venv/pyvenv.cfg", 0o644, "home = /usr/bin\ninclude-system-site-packages = false\n");
        root.put_link("/venv/bin/python", "/usr/bin/python3");
        root.put_file("/venv/lib/python3.11/site-packages/own.pth", 0o644, "/src\nimport _ssl\n# x\n");
        root.put_file("/src/mine/__init__.py", 0o644, "");
        root.put_file("/src/mine/__main__.py", 0o644, "import pkg, importlib\nimportlib.import_module('_lazy')\n");
        let (lines, modules) = found(&root, &["/venv/bin/python", "-um", "mine", "x"], &[]);
        let end = ".cpython-311-x86_64-linux-gnu.so";
        let lib = "~load /usr/lib/python3.11/lib-dynload/";
        // The system's packages are not the environment's.
        assert_eq!(lines, [format!("{lib}_lazy{end}"), format!("{lib}_ssl{end}")]);
        assert!(modules.contains(&"/src/mine/__main__.py".to_owned()), "{modules:?}");
        let (lines, _) = found(&root, &["python3", "-c", "import pkg"], &[]);
        assert_eq!(lines, ["~load /usr/lib/python3/dist-packages/pkg/_speedups.abi3.so"]);
    }

    #[test]
    fn broken_and_circular_files_end() {
        let mut root = tree("from . import app\nimport app, b\nx = [[[[(\n'''");
        root.put_file(
            "/app/b.py",
            0o644,
            b"import app\n\xff\xfe import\nfrom import\ndef (:\n  else:\n x = x\nopen(x, 'w')\n",
        );
        let (lines, modules) = found(&root, &["python3", "app.py"], &[]);
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!(modules, ["/app/app.py", "/app/b.py", "/usr/lib/python3.11/os.py"]);
        for text in ["if ", "f(", "x = a or ", "import a,", "from .", "{'a': ", "a.", "a = lambda: ", "@", "elif x:\n"]
        {
            found(&tree(&text.repeat(3_000)), &["python3", "app.py"], &[]);
        }
        // A constant made of itself many times over.
        let doubled: String = (0..40).map(|n| format!("a{} = [a{n}, a{n}, a{n}, a{n}]\n", n + 1)).collect();
        found(&tree(&format!("import subprocess\n{doubled}subprocess.run(a40)\n")), &["python3", "app.py"], &[]);
    }
}
