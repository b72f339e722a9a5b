//! PHP: a process of the interpreter in, what its script and the files it includes do out; and the extensions that any PHP loads
//! by its configuration.

use dna::{Confidence, Evidence, ImagePath, Known, Listen, Load, Protocol};

use super::{
    BACKTICKS, Finder, Findings, Import, Language, Module, Origin, Place, Reading, Scripts, Summary, Walk,
    calls::{Grammar, Reader, Site, Value},
    effects::{self, Effect, Rule},
    known_env,
    tokens::{HOLE, Hole, Kind, Rules, Tokens},
};
use crate::{Resolved, closure::Process, shell::World};

pub(super) fn findings(scripts: &mut Scripts, process: &Process, world: World<'_>) -> Findings {
    let name = String::from_utf8_lossy(process.program.file_name()).into_owned();
    let sapi = match name.as_str() {
        name if name.starts_with("php-fpm") => "fpm",
        name if name.starts_with("php-cgi") => "cgi",
        _ => "cli",
    };
    let mut finder = Files { world };
    let mut walk = Walk::new(scripts, process, world, &PHP, Vec::new());
    walk.findings.load = extensions(sapi, known_env(process).get("PHP_INI_SCAN_DIR").copied(), world);
    if sapi != "cli" {
        return walk.run(&mut finder);
    }
    let started = Evidence::Config { key: "command line".to_owned() };
    let mut words = process.argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default());
    while let Some(word) = words.next() {
        match word {
            "-S" => {
                // The built-in server: `php -S host:port`.
                if let Some((host, port)) = words.next().and_then(|address| address.rsplit_once(':'))
                    && let Some(port) = port.parse::<u16>().ok().filter(|port| *port != 0)
                {
                    let what = Listen { protocol: Protocol::Tcp, port, address: Some(host.to_owned()), claimed: false };
                    let evidence = vec![started.clone()];
                    walk.findings.listen.push(Known {
                        what,
                        confidence: Confidence::Certain,
                        probability: None,
                        when: Vec::new(),
                        evidence,
                    });
                }
            }
            "-r" => {
                walk.start(Some(&format!("<?php {}", words.next().unwrap_or_default())), None, &mut finder);
                break;
            }
            "-c" | "-d" | "-t" | "-z" => {
                words.next();
            }
            "-f" => {}
            _ if word.starts_with('-') => {}
            _ => {
                walk.start(None, Some(word), &mut finder);
                break;
            }
        }
    }
    walk.run(&mut finder)
}

/// The extensions that PHP loads when it starts: `extension=` and `zend_extension=` lines of its configuration, for a server
/// interface such as `cli`, `fpm` or `apache2`. Sources: PHP's manual, "The configuration file"; Debian's and the official
/// images' folders.
pub(crate) fn extensions(sapi: &str, scan_folders: Option<&str>, world: World<'_>) -> Vec<Known<Load>> {
    let root = ImagePath::root();
    let children = |folder: &str| -> Vec<Resolved> {
        let Ok(found) = world.resolve(&root, folder) else { return Vec::new() };
        let names = world.rootfs.children(found.inode);
        names.filter_map(|(name, _)| world.rootfs.resolve_from(&found.path, name).ok()).collect()
    };
    let mut files: Vec<Resolved> = Vec::new();
    let mut scan = |folder: &str| {
        // In the order of their names as they are read, not as links lead.
        let Ok(found) = world.resolve(&root, folder) else { return };
        for (name, _) in world.rootfs.children(found.inode).filter(|(name, _)| name.ends_with(b".ini")) {
            files.extend(world.rootfs.resolve_from(&found.path, name).ok());
        }
    };
    match scan_folders {
        Some(folders) => folders.split(':').filter(|folder| !folder.is_empty()).for_each(&mut scan),
        None => {
            scan("/usr/local/etc/php/conf.d");
            for version in children("/etc/php") {
                scan(&format!("{}/{sapi}/conf.d", version.path));
            }
            // Alpine's, Fedora's.
            for folder in children("/etc") {
                let name = String::from_utf8_lossy(folder.path.file_name()).into_owned();
                if name
                    .strip_prefix("php")
                    .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty())
                {
                    scan(&format!("{}/conf.d", folder.path));
                }
            }
            scan("/etc/php.d");
        }
    }
    for main in ["/usr/local/etc/php/php.ini", "/etc/php.ini"] {
        files.extend(world.resolve(&root, main).ok());
    }
    for version in children("/etc/php") {
        files.extend(world.resolve(&version.path, &format!("{sapi}/php.ini")).ok());
    }
    let mut lines: Vec<(String, u32, Resolved)> = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    for file in files {
        let Ok(body) = world.rootfs.read(file.inode, world.text_bytes) else { continue };
        for (line, number) in String::from_utf8_lossy(&body).lines().zip(1u32..) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.split(';').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned();
            match key.trim() {
                "extension" | "zend_extension" if lines.len() < EXTENSIONS => lines.push((value, number, file.clone())),
                "extension_dir" => folders.push(value),
                _ => {}
            }
        }
    }
    for base in ["/usr/lib/php", "/usr/local/lib/php/extensions", "/usr/lib64/php", "/usr/lib"] {
        let found = children(base).into_iter().filter(|folder| {
            let name = folder.path.file_name();
            // API dates, `20220829`; `no-debug-non-zts-20220829`; Alpine's `php82`.
            name.starts_with(b"2") || name.starts_with(b"no-debug") || name == b"modules" || name.starts_with(b"php")
        });
        for folder in found {
            folders.push(format!("{}/modules", folder.path));
            folders.push(folder.path.to_string_lossy().into_owned());
        }
    }
    let load = |(value, line, file): (String, u32, Resolved)| {
        let names = if value.contains('/') {
            vec![value]
        } else {
            let name = if value.ends_with(".so") { value } else { format!("{value}.so") };
            folders.iter().map(|folder| format!("{folder}/{name}")).collect()
        };
        let path = names.into_iter().find_map(|name| world.resolve(&root, &name).ok())?.path;
        let layer = Some(world.rootfs.inode(file.inode).meta.layer);
        let evidence =
            vec![Evidence::File { path: file.path, line: Some(line), layer, detail: Some("extension".to_owned()) }];
        Some(Known {
            what: Load { path },
            confidence: Confidence::Likely,
            probability: None,
            when: Vec::new(),
            evidence,
        })
    };
    let mut loads: Vec<Known<Load>> = lines.into_iter().filter_map(load).collect();
    loads.sort();
    loads.dedup_by(|next, kept| next.what == kept.what);
    loads
}

pub(super) static RULES: Rules = Rules {
    line_comments: &["//", "#"],
    block_comment: true,
    lines: false,
    prefixed: false,
    backtick: Kind::Shell,
    hole: Hole::Dollar,
    regex: false,
    sigils: b"$",
    endings: &[],
    heredoc: "<<<",
    quote_words: false,
    quote_percent: false,
    tagged: true,
    pod: false,
};

static PHP: Language = Language {
    rules: &RULES,
    grammar: &Grammar {
        join: &["."],
        either: &["||", "??", "?:"],
        keyword: &[":"],
        bare_calls: false,
        environment: &["$_ENV", "$_SERVER"],
    },
    effects: EFFECTS,
    endings: &["php"],
    read,
};

/// Sources: PHP's manual, and each package's own.
const EFFECTS: &[Rule] = &[
    ("exec", Effect::Line(0)),
    ("shell_exec", Effect::Line(0)),
    ("system", Effect::Line(0)),
    ("passthru", Effect::Line(0)),
    ("popen", Effect::Line(0)),
    ("proc_open", Effect::LineOrWords),
    ("pcntl_exec", Effect::Program { program: 0, list: 1, named: false }),
    (BACKTICKS, Effect::Line(0)),
    ("stream_socket_server", Effect::Listen { port: 0, host: usize::MAX, default: None }),
    ("socket_bind", Effect::Listen { port: 2, host: 1, default: None }),
    ("Swoole.Http.Server", Effect::Listen { port: 1, host: 0, default: None }),
    ("Server", Effect::Listen { port: 1, host: 0, default: None }),
    ("Worker", Effect::Listen { port: 0, host: usize::MAX, default: None }),
    ("fopen", Effect::Open { path: 0, mode: 1 }),
    ("file_put_contents", Effect::Write(0)),
    ("move_uploaded_file", Effect::Write(1)),
    ("mkdir", Effect::Write(0)),
    ("touch", Effect::Write(0)),
    ("tempnam", Effect::Temporary),
    ("tmpfile", Effect::Temporary),
];

struct Files<'a> {
    world: World<'a>,
}

impl Finder for Files<'_> {
    fn find(&mut self, import: &Import, from: &Module) -> Vec<Module> {
        let folder = from.file.path.parent().unwrap_or_else(ImagePath::root);
        let Ok(file) = self.world.resolve(&folder, import.name.trim_start_matches("./")) else { return Vec::new() };
        if self.world.rootfs.file(file.inode).is_none() {
            return Vec::new();
        }
        let is_package = file.path.components().any(|part| part == b"vendor");
        let origin = if is_package { Origin::Package } else { from.origin };
        vec![Module { file, name: String::new(), origin, is_entry: false }]
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
                let before = tokens.text(at.saturating_sub(1));
                if matches!(before, "->" | "::" | "function") && at > 0 {
                    continue;
                }
                match tokens.text(at) {
                    "include" | "include_once" | "require" | "require_once" => {
                        summary.imports.extend(included(&reader, at + 1).map(|name| Import {
                            name,
                            items: Vec::new(),
                            level: 0,
                            line,
                            place,
                        }));
                    }
                    name if name.starts_with('$') && tokens.is_sign(at + 1, "=") => {
                        let (value, _) = reader.expression(at + 2, tokens.len(), 0);
                        summary.scope.assign(name, value);
                    }
                    _ => {
                        let Some((callee, next)) = reader.dotted(at) else { continue };
                        if reading.may_matter(&callee, &summary.scope)
                            && tokens.is_sign(next, "(")
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

/// `include "a.php"`, `require(__DIR__ . "/a.php")`: the path below the file's own folder.
fn included(reader: &Reader<'_, '_>, at: usize) -> Option<String> {
    let (value, _) = reader.expression(at, reader.tokens.len(), 0);
    match value {
        Value::Text(path) if !path.contains(HOLE) => Some(path),
        Value::Join(parts) => match parts.as_slice() {
            [Value::Name(folder), Value::Text(path)] if folder == "__DIR__" => Some(format!(".{path}")),
            [Value::Call(call), Value::Text(path)] if call.callee == "dirname" => {
                Some(if call.args.len() > 1 { format!("./..{path}") } else { format!(".{path}") })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Extensions of one configuration: distributions package some eighty.
const EXTENSIONS: usize = 500;

#[cfg(test)]
mod tests {
    use super::super::fixture::found;
    use crate::Rootfs;

    fn tree(script: &str) -> Rootfs {
        let mut root = Rootfs::default();
        root.put_file("/usr/bin/php8.2", 0o755, "\x7fELF");
        root.put_file("/usr/bin/php-fpm8.2", 0o755, "\x7fELF");
        root.put_file("/etc/php/8.2/mods-available/pdo.ini", 0o644, "; extension=no.so\nextension=pdo.so\n");
        root.put_link("/etc/php/8.2/cli/conf.d/10-pdo.ini", "/etc/php/8.2/mods-available/pdo.ini");
        root.put_file("/etc/php/8.2/fpm/conf.d/10-opcache.ini", 0o644, "zend_extension = opcache ; fast\n");
        root.put_file("/usr/lib/php/20220829/pdo.so", 0o644, "\x7fELF");
        root.put_file("/usr/lib/php/20220829/opcache.so", 0o644, "\x7fELF");
        root.put_file("/app/x.php", 0o644, script);
        root
    }

    #[test]
    fn extensions_are_those_of_the_interface() {
        let root = tree("");
        assert_eq!(found(&root, &["php8.2", "-v"], &[]).0, ["~load /usr/lib/php/20220829/pdo.so"]);
        assert_eq!(found(&root, &["php-fpm8.2", "-F"], &[]).0, ["~load /usr/lib/php/20220829/opcache.so"]);
        assert_eq!(found(&root, &["php8.2"], &[("PHP_INI_SCAN_DIR", "/none")]).0, [""; 0]);
    }

    #[test]
    fn commands_includes_and_files() {
        let mut root = tree(
            "<p>it's exec('no')</p>\n<?php // exec('no')\n# exec('nor')\nrequire_once __DIR__ . '/lib/a.php';\n$cmd = 'ls';\nexec($cmd . ' -l');\n$x = `id`; shell_exec(\"rm {$y}\");\n$this->exec('no'); function exec2() {}\nfile_put_contents('/var/x/' . $n, $d);\nfopen('/var/y', 'r'); ?>\nsystem('no')",
        );
        root.put_file("/app/lib/a.php", 0o644, "<?php include dirname(__FILE__) . '/b.php';");
        root.put_file("/app/lib/b.php", 0o644, "<?php $port = getenv('PORT') ?: 9501; $s = stream_socket_server('tcp://0.0.0.0:9100'); new Swoole\\Http\\Server('0.0.0.0', $port);");
        let (lines, modules) = found(&root, &["php8.2", "x.php"], &[]);
        assert_eq!(
            lines,
            [
                "~load /usr/lib/php/20220829/pdo.so",
                "~run /bin/sh -c ls -l",
                "~run /bin/sh -c id",
                "?run /bin/sh -c rm \"$_not_known\"",
                "~listen 9100",
                "~listen 9501 0.0.0.0",
                "~write /var/x/*",
            ]
        );
        assert_eq!(modules, ["/app/lib/a.php", "/app/lib/b.php", "/app/x.php"]);
        let (lines, _) = found(&root, &["php8.2", "-S", "0.0.0.0:8000"], &[]);
        assert_eq!(lines.last().map(String::as_str), Some("listen 8000 0.0.0.0"));
    }

    #[test]
    fn broken_files_end() {
        for text in ["<?php ", "include ", "exec(", "<<<X\n", "\"{$", "`", "<?"] {
            found(&tree(&text.repeat(3_000)), &["php8.2", "x.php"], &[]);
        }
    }
}
