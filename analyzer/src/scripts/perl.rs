//! Perl: a process of the interpreter in, what its program and the modules of it do out.
//!
//! `@INC` is found by the folders that exist, as upstream and Debian lay them out; a module's native part is
//! `auto/Foo/Bar/Bar.so` beside it (perldoc DynaLoader, XSLoader).

use dna::{Confidence, Evidence, ImagePath};

use super::{
    BACKTICKS, Finder, Findings, Import, Language, LoadPath, Module, Origin, Place, Reading, Scripts, Summary, Walk,
    calls::{Call, Grammar, Reader, Site, Value},
    effects::{Effect, Rule},
    known_env,
    tokens::{Hole, Kind, Rules, Tokens},
};
use crate::{
    Resolved,
    closure::Process,
    shell::{World, glob},
};

pub(super) fn findings(scripts: &mut Scripts, process: &Process, world: World<'_>) -> Findings {
    let mut finder = Modules(LoadPath::new(world));
    let mut walk = Walk::new(scripts, process, world, &PERL, Vec::new());
    let started = Evidence::Config { key: "command line".to_owned() };
    let mut asked = Vec::new();
    let mut words = process.argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default());
    let (mut script, mut text) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "-e" | "-E" => text = words.next(),
            "-I" => finder.0.add(&process.cwd, words.next().unwrap_or_default(), Origin::Application),
            _ if word.starts_with("-I") => {
                finder.0.add(&process.cwd, word.get(2..).unwrap_or_default(), Origin::Application);
            }
            _ if word.starts_with("-M") || word.starts_with("-m") => {
                asked.extend(word.get(2..).and_then(|name| name.split('=').next()));
            }
            _ if word.starts_with('-') => {}
            _ => {
                script = Some(word);
                break;
            }
        }
    }
    let env = known_env(process);
    for folder in env.get("PERL5LIB").into_iter().flat_map(|list| list.split(':')) {
        finder.0.add(&process.cwd, folder, Origin::Application);
    }
    finder.add_defaults();
    for name in asked {
        for module in finder.module(name) {
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
    hole: Hole::Dollar,
    regex: true,
    sigils: b"$@%&",
    endings: &[],
    heredoc: "<<",
    quote_words: true,
    quote_percent: false,
    tagged: false,
    pod: true,
};

static PERL: Language = Language {
    rules: &RULES,
    grammar: &Grammar {
        join: &["."],
        either: &["||", "//"],
        keyword: &["=>"],
        bare_calls: true,
        environment: &["$ENV"],
    },
    effects: EFFECTS,
    endings: &["pl", "pm", "psgi"],
    read,
};

/// Sources: perldoc perlfunc, IO::Socket.
const EFFECTS: &[Rule] = &[
    ("system", Effect::LineOrWords),
    ("exec", Effect::LineOrWords),
    (BACKTICKS, Effect::Line(0)),
    (PIPE, Effect::LineOrWords),
    (OPEN, Effect::Open { path: 0, mode: 1 }),
    ("IO.Socket.INET.new", Effect::ListenNamed),
    ("File.Temp.new", Effect::Temporary),
    ("tempfile", Effect::Temporary),
    ("tempdir", Effect::Temporary),
];

const PIPE: &str = "open a pipe";
const OPEN: &str = "open a file";

struct Modules<'a>(LoadPath<'a>);

impl Modules<'_> {
    /// Debian's and upstream's folders: with the version, and the architecture below or above it.
    fn add_defaults(&mut self) {
        let root = ImagePath::root();
        for (pattern, origin) in INC {
            for folder in glob(self.0.world.rootfs, &root, pattern) {
                self.0.add(&root, &folder, *origin);
            }
        }
    }

    /// A module's file and its native part.
    fn module(&self, name: &str) -> Vec<Module> {
        if name.len() > 200 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:./".contains(&byte)) {
            return Vec::new();
        }
        let path = name.replace("::", "/");
        let stem = path.strip_suffix(".pm").or_else(|| path.strip_suffix(".pl")).unwrap_or(&path);
        let source = if stem == path { format!("{path}.pm") } else { path.clone() };
        let last = stem.rsplit('/').next().unwrap_or_default();
        let find = |path: &str| {
            self.0.folders.iter().find_map(|(folder, origin)| {
                let file: Resolved = self.0.world.resolve(folder, path).ok()?;
                self.0.world.rootfs.file(file.inode)?;
                Some(Module { file, name: name.to_owned(), origin: *origin, is_entry: false })
            })
        };
        let Some(module) = find(&source) else { return Vec::new() };
        [Some(module), find(&format!("auto/{stem}/{last}.so"))].into_iter().flatten().collect()
    }
}

impl Finder for Modules<'_> {
    fn find(&mut self, import: &Import, _from: &Module) -> Vec<Module> {
        let mut found = self.module(&import.name);
        for item in &import.items {
            found.extend(self.module(item));
        }
        found
    }
}

fn read(tokens: &Tokens<'_>, reading: &Reading<'_>, summary: &mut Summary) {
    let reader = Reader { tokens, grammar: reading.language.grammar };
    let mut depth = 0u32;
    for at in 0..tokens.len() {
        let place = if depth == 0 { Place::Top } else { Place::Inner };
        let line = tokens.line(at);
        match tokens.get(at).map(|token| token.kind) {
            Some(Kind::Sign) => match tokens.text(at) {
                "{" => depth = depth.saturating_add(1),
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            },
            Some(Kind::Shell) => {
                summary.add_shell(&reader, at, place);
            }
            Some(Kind::Text { .. }) => summary.add_address(tokens, at),
            Some(Kind::Name) => {
                let after = tokens.text(at.saturating_sub(1));
                if after == "->" || after == "sub" || tokens.is_sign(at + 1, "=>") {
                    continue;
                }
                match tokens.text(at) {
                    // `use` happens at compile time, wherever it stands.
                    "use" | "no" => require(tokens, at, Place::Top, summary),
                    "require" => require(tokens, at, place, summary),
                    "open" => summary.sites.extend(open(&reader, at).map(|call| Site { call, line, place })),
                    name if tokens.is_sign(at + 1, "=") && name.starts_with('$') => {
                        let end = (at..tokens.len()).take(MAX_STATEMENT).find(|at| tokens.is_sign(*at, ";"));
                        let (value, _) = reader.expression(at + 2, end.unwrap_or(at + 2), 0);
                        summary.scope.assign(name, value);
                    }
                    // perldoc -f glob: it is File::Glob's.
                    "glob" if !tokens.is_sign(at + 1, "=>") => {
                        let name = "File::Glob".to_owned();
                        summary.imports.push(Import { name, items: Vec::new(), level: 0, line, place });
                    }
                    _ => {
                        let Some((callee, _)) = reader.dotted(at) else { continue };
                        if reading.may_matter(&callee, &summary.scope)
                            && let Some(call) = reader.call(at)
                        {
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

/// `use Foo::Bar …`, `require Foo::Bar`, `require "foo.pl"`; `use base "A", "B"` names modules.
fn require(tokens: &Tokens<'_>, at: usize, place: Place, summary: &mut Summary) {
    let line = tokens.line(at);
    let mut next = at + 1;
    let mut name = tokens.string(next).unwrap_or_default();
    if let Some(first) = tokens.name(next) {
        name = first.to_owned();
        while tokens.is_sign(next + 1, "::") && tokens.name(next + 2).is_some() && name.len() < 200 {
            name = format!("{name}::{}", tokens.text(next + 2));
            next += 2;
        }
    }
    if name.is_empty() || name.starts_with('$') {
        return;
    }
    let mut items = Vec::new();
    if matches!(name.as_str(), "base" | "parent") {
        let stop = (next + 1..tokens.len()).take(64).find(|at| tokens.is_sign(*at, ";")).unwrap_or(next + 1);
        for at in next + 1..stop {
            match tokens.get(at).map(|token| token.kind) {
                Some(Kind::Words) => items.extend(tokens.text(at).split_whitespace().map(str::to_owned)),
                _ => items.extend(tokens.string(at)),
            }
        }
    }
    summary.imports.push(Import { name, items, level: 0, line, place });
}

/// `open(F, "cmd |")`, `open(F, "-|", "cmd", …)`, `open(F, ">", "file")`, `open(F, ">file")`.
fn open(reader: &Reader<'_, '_>, at: usize) -> Option<Call> {
    let call = if reader.tokens.is_sign(at + 1, "(") {
        reader.call(at)?
    } else {
        let end = (at..reader.tokens.len()).take(MAX_STATEMENT).find(|at| {
            reader.tokens.is_sign(*at, ";") || reader.tokens.is_name(*at, "or") || reader.tokens.is_sign(*at, "||")
        })?;
        let mut args = Vec::new();
        let mut next = at + 1;
        while next < end && args.len() < 16 {
            let (value, after) = reader.expression(next, end, 0);
            args.push(value);
            next = after + 1;
        }
        Call { callee: "open".to_owned(), args, named: Vec::new() }
    };
    let Some(Value::Text(mode)) = call.args.get(1) else { return None };
    let mode = mode.trim();
    let rest = call.args.get(2..).unwrap_or_default().to_vec();
    let new = |callee: &str, args: Vec<Value>| Some(Call { callee: callee.to_owned(), args, named: Vec::new() });
    match (mode, rest.is_empty()) {
        ("-|" | "|-", false) => new(PIPE, rest),
        (mode, false) => new(OPEN, vec![rest.first()?.clone(), Value::Text(mode.split(':').next()?.to_owned())]),
        (mode, true) => match (mode.strip_prefix('|'), mode.strip_suffix('|'), mode.strip_prefix('>')) {
            (Some(line), ..) | (_, Some(line), _) => new(PIPE, vec![Value::Text(line.trim().to_owned())]),
            (.., Some(path)) => {
                let path = path.trim_start_matches('>').trim().to_owned();
                new(OPEN, vec![Value::Text(path), Value::Text(">".to_owned())])
            }
            _ => None,
        },
    }
}

/// `@INC` in its order, by the folders that exist. Sources: perl -V of Debian, upstream (the official images) and Alpine.
const INC: &[(&str, Origin)] = &[
    ("/usr/local/lib/*-linux-gnu/perl/5.*", Origin::Package),
    ("/usr/local/share/perl/5.*", Origin::Package),
    ("/usr/lib/*-linux-gnu/perl5/5.*", Origin::Package),
    ("/usr/share/perl5", Origin::Package),
    ("/usr/lib/*-linux-gnu/perl-base", Origin::Standard),
    ("/usr/lib/*-linux-gnu/perl/5.*", Origin::Standard),
    ("/usr/share/perl/5.*", Origin::Standard),
    ("/usr/local/lib/perl5/site_perl/5.*/*-linux*", Origin::Package),
    ("/usr/local/lib/perl5/site_perl/5.*", Origin::Package),
    ("/usr/local/lib/perl5/5.*/*-linux*", Origin::Standard),
    ("/usr/local/lib/perl5/5.*", Origin::Standard),
    ("/usr/lib*/perl5/vendor_perl", Origin::Package),
    ("/usr/share/perl5/vendor_perl", Origin::Package),
    ("/usr/lib*/perl5/core_perl", Origin::Standard),
    ("/usr/share/perl5/core_perl", Origin::Standard),
    ("/usr/lib*/perl5", Origin::Standard),
];

/// Tokens of one statement that are looked at.
const MAX_STATEMENT: usize = 200;

#[cfg(test)]
mod tests {
    use super::super::fixture::found;
    use crate::Rootfs;

    fn tree(script: &str) -> Rootfs {
        let mut root = Rootfs::default();
        root.put_file("/usr/bin/perl", 0o755, "\x7fELF");
        let base = "/usr/lib/x86_64-linux-gnu";
        root.put_file(
            &format!("{base}/perl/5.36.0/POSIX.pm"),
            0o644,
            "package POSIX;\nuse Fcntl;\nXSLoader::load();\n",
        );
        root.put_file(&format!("{base}/perl/5.36.0/auto/POSIX/POSIX.so"), 0o644, "\x7fELF");
        root.put_file(&format!("{base}/perl-base/Fcntl.pm"), 0o644, "1;\n");
        // The copy that Debian's perl finds first.
        root.put_file(&format!("{base}/perl/5.36.0/auto/Fcntl/Fcntl.so"), 0o644, "\x7fELF");
        root.put_file(&format!("{base}/perl-base/auto/Fcntl/Fcntl.so"), 0o644, "\x7fELF");
        root.put_file("/usr/share/perl5/My/Sub.pm", 0o644, "sub f { system('id') }\n");
        root.put_file("/app/x.pl", 0o644, script);
        root
    }

    #[test]
    fn modules_bring_their_native_part() {
        let (lines, modules) = found(
            &tree("use strict;\nuse base qw(My::Sub);\nuse POSIX qw(:sys_wait_h);\n"),
            &["perl", "-w", "x.pl"],
            &[],
        );
        assert_eq!(
            lines,
            [
                "~load /usr/lib/x86_64-linux-gnu/perl-base/auto/Fcntl/Fcntl.so",
                "~load /usr/lib/x86_64-linux-gnu/perl/5.36.0/auto/POSIX/POSIX.so",
                "?run /bin/sh -c id",
            ]
        );
        assert!(modules.contains(&"/usr/share/perl5/My/Sub.pm".to_owned()), "{modules:?}");
    }

    #[test]
    fn commands_and_files() {
        let script = "my $dir = '/srv'; system 'ls', '-l', $dir;\nsystem(\"date | wc\") == 0 or die \"it's\";\nmy $x = `uname -a`; exec { 'no' } 'no';\nopen(my $f, '-|', 'ps', 'ax') or die;\nopen(LOG, \">>/var/log/x.log\");\nopen my $g, '>', \"$dir/out\" or die;\n# system('not');\n=pod\n\nsystem('nor');\n\n=cut\n$h{system} = q{system('nor')};\n";
        assert_eq!(
            found(&tree(script), &["perl", "x.pl"], &[]).0,
            [
                "~run ls -l /srv",
                "~run /bin/sh -c date | wc",
                "~run /bin/sh -c uname -a",
                "~run ps ax",
                "~write /srv/out",
                "~write /var/log/x.log",
            ]
        );
    }

    #[test]
    fn a_line_is_known_but_for_what_it_is_told() {
        let script = "system(\"tar -C $ARGV[0] -xf $file\");\nsystem(\"$program --now\");\n";
        let (lines, _) = found(&tree(script), &["perl", "x.pl"], &[]);
        assert!(lines.iter().any(|line| line.starts_with("?run /bin/sh -c tar -C \"$_not_known\"")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("--now")), "{lines:?}");
    }

    #[test]
    fn an_application_is_an_argument_of_its_server() {
        let mut root = tree("print 1;\n");
        root.put_file("/app/app.psgi", 0o644, "my $h = `hostname`;\n");
        root.put_file("/app/data.txt", 0o644, "`not`\n");
        assert_eq!(
            found(&root, &["perl", "x.pl", "--port", "80", "app.psgi", "data.txt"], &[]).0,
            ["~run /bin/sh -c hostname"]
        );
    }

    #[test]
    fn broken_files_end() {
        for text in ["s/", "open ", "use ", "system ", "<<X\n", "q(", "$", "->", "qw"] {
            found(&tree(&text.repeat(3_000)), &["perl", "x.pl"], &[]);
        }
    }
}
