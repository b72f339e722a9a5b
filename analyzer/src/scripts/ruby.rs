//! Ruby: a process of the interpreter in, what its program and the files it requires do out.
//!
//! The load path is found by the folders that exist: `-I`, `RUBYLIB`, the standard library with its folder for the architecture, and
//! the `lib` folders and extensions of installed gems (RubyGems' layout).

use dna::{Confidence, Evidence, ImagePath};

use super::{
    BACKTICKS, Finder, Findings, Import, Language, LoadPath, Module, Origin, Place, Reading, Scripts, Summary, Walk,
    calls::{Call, Grammar, Reader, Site, Value},
    effects::{self, Effect, Rule},
    known_env,
    tokens::{HOLE, Hole, Kind, Rules, Tokens},
};
use crate::{InodeId, closure::Process, shell::World};

pub(super) fn findings(scripts: &mut Scripts, process: &Process, world: World<'_>) -> Findings {
    let mut finder = Files(LoadPath::new(world));
    let mut walk = Walk::new(scripts, process, world, &RUBY, Vec::new());
    let started = Evidence::Config { key: "command line".to_owned() };
    let mut words = process.argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default());
    let (mut script, mut text, mut asked) = (None, None, Vec::new());
    while let Some(word) = words.next() {
        match word {
            "-e" => text = words.next(),
            "-I" => finder.0.add(&process.cwd, words.next().unwrap_or_default(), Origin::Application),
            "-r" => asked.extend(words.next()),
            "-C" | "-E" | "-W" => {
                words.next();
            }
            _ if word.starts_with("-I") => {
                finder.0.add(&process.cwd, word.get(2..).unwrap_or_default(), Origin::Application);
            }
            _ if word.starts_with("-r") => asked.extend(word.get(2..)),
            _ if word.starts_with('-') => {}
            _ => {
                script = Some(word);
                break;
            }
        }
    }
    let env = known_env(process);
    for folder in env.get("RUBYLIB").into_iter().flat_map(|list| list.split(':')) {
        finder.0.add(&process.cwd, folder, Origin::Application);
    }
    finder.add_defaults(env.get("GEM_HOME").into_iter().chain(env.get("GEM_PATH")).flat_map(|list| list.split(':')));
    for name in ["enc/encdb", "enc/trans/transdb", "rubygems"].into_iter().chain(asked) {
        if let Some(module) = finder.file(name) {
            walk.push(module, Confidence::Likely, started.clone());
        }
    }
    walk.start(text, script, &mut finder);
    walk.run(&mut finder)
}

pub(super) static RULES: Rules = Rules {
    line_comments: &["#"],
    block_comment: false,
    lines: false,
    prefixed: false,
    backtick: Kind::Shell,
    hole: Hole::HashBraces,
    regex: true,
    sigils: b"$@",
    endings: b"?!",
    heredoc: "<<",
    quote_words: false,
    quote_percent: true,
    tagged: false,
    pod: true,
};

static RUBY: Language = Language {
    rules: &RULES,
    grammar: &Grammar {
        join: &["+", ""],
        either: &["||"],
        keyword: &[":", "=>"],
        bare_calls: true,
        environment: &["ENV"],
    },
    effects: EFFECTS,
    endings: &["rb", "ru"],
    read,
};

/// Sources: Ruby's documentation of Kernel, Process, Open3, Socket.
const EFFECTS: &[Rule] = &[
    ("system", Effect::LineOrWords),
    ("exec", Effect::LineOrWords),
    ("spawn", Effect::LineOrWords),
    ("Process.spawn", Effect::LineOrWords),
    ("Kernel.system", Effect::LineOrWords),
    ("Kernel.exec", Effect::LineOrWords),
    ("IO.popen", Effect::LineOrWords),
    ("Open3.capture2", Effect::LineOrWords),
    ("Open3.capture2e", Effect::LineOrWords),
    ("Open3.capture3", Effect::LineOrWords),
    ("Open3.popen3", Effect::LineOrWords),
    (BACKTICKS, Effect::Line(0)),
    ("TCPServer.new", Effect::Listen { port: 1, host: 0, default: None }),
    ("TCPServer.open", Effect::Listen { port: 1, host: 0, default: None }),
    ("set_port", Effect::Listen { port: 0, host: usize::MAX, default: None }),
    ("File.write", Effect::Write(0)),
    ("File.open", Effect::Open { path: 0, mode: 1 }),
    ("Tempfile.new", Effect::Temporary),
    ("Tempfile.create", Effect::Temporary),
    ("Dir.mktmpdir", Effect::Temporary),
];

struct Files<'a>(LoadPath<'a>);

impl Files<'_> {
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(found) = self.0.world.resolve(&ImagePath::root(), folder) else { return Vec::new() };
        self.0.world.rootfs.children(found.inode).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn add_defaults<'t>(&mut self, gems: impl Iterator<Item = &'t str>) {
        let root = ImagePath::root();
        let is_version = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let mut gem_folders: Vec<String> = gems.filter(|folder| !folder.is_empty()).map(str::to_owned).collect();
        for base in ["/usr/local/lib/ruby", "/usr/lib/ruby"] {
            for version in self.names(base).into_iter().filter(is_version) {
                let folder = format!("{base}/{version}");
                for kind in ["site_ruby", "vendor_ruby"] {
                    self.0.add(&root, &format!("{base}/{kind}/{version}"), Origin::Package);
                }
                self.0.add(&root, &folder, Origin::Standard);
                for name in self.names(&folder).into_iter().filter(|name| name.contains("-linux")) {
                    self.0.add(&root, &format!("{folder}/{name}"), Origin::Standard);
                }
                gem_folders.push(format!("{base}/gems/{version}"));
                gem_folders.push(format!("/var/lib/gems/{version}"));
                gem_folders.push(format!("/usr/local/bundle/ruby/{version}"));
            }
            self.0.add(&root, &format!("{base}/vendor_ruby"), Origin::Package);
        }
        for triplet in self.names("/usr/lib").into_iter().filter(|name| name.ends_with("-linux-gnu")) {
            for kind in ["ruby", "ruby/vendor_ruby"] {
                for version in self.names(&format!("/usr/lib/{triplet}/{kind}")).into_iter().filter(is_version) {
                    self.0.add(&root, &format!("/usr/lib/{triplet}/{kind}/{version}"), Origin::Standard);
                }
            }
        }
        gem_folders.extend(["/usr/share/rubygems-integration/all", "/usr/local/bundle"].map(str::to_owned));
        for folder in gem_folders {
            for gem in self.names(&format!("{folder}/gems")) {
                self.0.add(&root, &format!("{folder}/gems/{gem}/lib"), Origin::Package);
            }
            for platform in self.names(&format!("{folder}/extensions")) {
                for version in self.names(&format!("{folder}/extensions/{platform}")) {
                    for gem in self.names(&format!("{folder}/extensions/{platform}/{version}")) {
                        let path = format!("{folder}/extensions/{platform}/{version}/{gem}");
                        self.0.add(&root, &path, Origin::Package);
                    }
                }
            }
        }
    }

    fn at(&self, folder: &ImagePath, name: &str, origin: Origin) -> Option<Module> {
        ["", ".rb", ".so"].into_iter().find_map(|ending| {
            let ends = name.ends_with(".rb") || name.ends_with(".so");
            let file = self.0.world.resolve(folder, &format!("{name}{ending}")).ok()?;
            self.0.world.rootfs.file(file.inode).filter(|_| ending.is_empty() == ends)?;
            Some(Module { file, name: String::new(), origin, is_entry: false })
        })
    }

    fn file(&self, name: &str) -> Option<Module> {
        self.0.folders.iter().find_map(|(folder, origin)| self.at(folder, name, *origin))
    }
}

impl Finder for Files<'_> {
    fn find(&mut self, import: &Import, from: &Module) -> Vec<Module> {
        if import.name.len() > 200 || import.name.contains(HOLE) {
            return Vec::new();
        }
        if import.level == 0 && !import.name.starts_with(['/', '.']) {
            return self.file(&import.name).into_iter().collect();
        }
        let own = from.file.path.parent().filter(|_| from.file.inode != InodeId::ROOT);
        let folder = own.unwrap_or_else(|| from.file.path.clone());
        self.at(&folder, &import.name, from.origin).into_iter().collect()
    }
}

fn read(tokens: &Tokens<'_>, reading: &Reading<'_>, summary: &mut Summary) {
    let reader = Reader { tokens, grammar: reading.language.grammar };
    // Blocks end by words; what is indented stands in one.
    let mut place = Place::Top;
    let mut line = 0;
    for at in 0..tokens.len() {
        let Some(token) = tokens.get(at) else { break };
        if token.line != line {
            line = token.line;
            place = if token.column == 0 { Place::Top } else { Place::Inner };
        }
        match token.kind {
            Kind::Shell => {
                summary.add_shell(&reader, at, place);
            }
            Kind::Text { .. } => summary.add_address(tokens, at),
            Kind::Name => {
                let is_member =
                    at.checked_sub(1).is_some_and(|before| matches!(tokens.text(before), "." | "::" | "def"));
                let name = tokens.text(at);
                if is_member {
                    continue;
                }
                match name {
                    "require" | "require_relative" | "load" | "autoload" => {
                        let open = at + 1 + usize::from(tokens.is_sign(at + 1, "("));
                        // `autoload :Name, "file"`.
                        let text =
                            (open..open + 4).take_while(|at| tokens.line(*at) == line).find_map(|at| tokens.string(at));
                        if let Some(name) = text.filter(|name| !name.is_empty()) {
                            let level = u32::from(tokens.text(at) == "require_relative");
                            let place = if tokens.text(at) == "autoload" { Place::Inner } else { place };
                            summary.imports.push(Import { name, items: Vec::new(), level, line, place });
                        }
                    }
                    _ if tokens.is_sign(at + 1, "=") => {
                        let end = (at + 2..tokens.len()).take(64).find(|at| tokens.line(*at) != line);
                        let (value, _) = reader.expression(at + 2, end.unwrap_or(tokens.len()), 0);
                        summary.scope.assign(name, value);
                    }
                    // Sinatra's `set :port, 4567`.
                    "set" if tokens.is_name(at + 2, "port") && tokens.is_sign(at + 3, ",") => {
                        let end = (at + 4..tokens.len()).take(64).find(|at| tokens.line(*at) != line);
                        let (value, _) = reader.expression(at + 4, end.unwrap_or(tokens.len()), 0);
                        let call = Call { callee: "set_port".to_owned(), args: vec![value], named: Vec::new() };
                        summary.sites.push(Site { call, line, place });
                    }
                    _ => {
                        let Some((callee, _)) = reader.dotted(at) else { continue };
                        if reading.may_matter(&callee, &summary.scope)
                            && let Some(call) = reader.call(at)
                        {
                            if let (true, Some(Value::Text(name))) = (effects::is_getter(&callee), call.args.first()) {
                                summary.reads.insert(name.clone());
                            }
                            summary.sites.push(Site { call, line, place });
                        }
                    }
                }
            }
            _ => {}
        }
        if summary.is_full() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::found;
    use crate::Rootfs;

    fn tree(script: &str) -> Rootfs {
        let mut root = Rootfs::default();
        root.put_file("/usr/bin/ruby3.1", 0o755, "\x7fELF");
        root.put_file("/usr/lib/ruby/3.1.0/socket.rb", 0o644, "require 'socket.so'\n");
        root.put_file("/usr/lib/x86_64-linux-gnu/ruby/3.1.0/socket.so", 0o644, "\x7fELF");
        root.put_file("/var/lib/gems/3.1.0/gems/puma-6/lib/puma.rb", 0o644, "require 'puma/puma_http11'\n");
        root.put_file("/var/lib/gems/3.1.0/extensions/x86_64-linux/3.1.0/puma-6/puma/puma_http11.so", 0o644, "\x7fELF");
        root.put_file("/app/app.rb", 0o644, script);
        root
    }

    #[test]
    fn files_and_extensions_are_found_on_the_load_path() {
        let mut root = tree("require 'socket'\nrequire_relative 'lib/a'\n");
        root.put_file("/app/lib/a.rb", 0o644, "def f\n  require \"puma\"\nend\n");
        assert_eq!(
            found(&root, &["ruby3.1", "app.rb"], &[]).0,
            [
                "~load /usr/lib/x86_64-linux-gnu/ruby/3.1.0/socket.so",
                "?load /var/lib/gems/3.1.0/extensions/x86_64-linux/3.1.0/puma-6/puma/puma_http11.so",
            ]
        );
    }

    #[test]
    fn commands_ports_and_files() {
        let script = "system('ls', '-l')\nout = `date`\nsystem \"id | wc\"\nOpen3.capture2e('ps', 'ax')\nTCPServer.new('0.0.0.0', ENV.fetch('PORT', 9292).to_i)\nset :port, 4567\nFile.write(\"/var/x/#{name}.txt\", 'it')\nx = %w[system no]\n=begin\nsystem('no')\n=end\nputs \"#{system('inner')}\"\n";
        assert_eq!(
            found(&tree(script), &["ruby3.1", "-W0", "app.rb"], &[]).0,
            [
                "~run ls -l",
                "~run /bin/sh -c date",
                "~run /bin/sh -c id | wc",
                "~run ps ax",
                "~listen 4567",
                "~listen 9292 0.0.0.0",
                "~write /var/x/*.txt",
            ]
        );
    }

    #[test]
    fn broken_files_end() {
        for text in ["%w(", "require ", "<<~X\n", "\"#{", "system ", "def ", "`"] {
            found(&tree(&text.repeat(3_000)), &["ruby3.1", "app.rb"], &[]);
        }
    }
}
