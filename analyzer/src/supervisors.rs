//! Programs that start services from their configuration: supervisord, s6, runit, run-parts, cron, busybox's httpd. An argument vector in, the commands
//! they would start, with the place each is written, out.

use dna::{Evidence, ImagePath};

use crate::{
    cron::{self, Table},
    shell::{Arg, World, glob, run_parts},
    wrappers::Inner,
};

/// A command that a supervisor starts.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) inner: Inner,
    pub(crate) evidence: Evidence,
}

/// What the supervisor called `name` starts; nothing where it is none.
pub(crate) fn services(name: &str, argv: &[Arg], cwd: &ImagePath, world: World<'_>) -> Vec<Service> {
    let words: Vec<&str> = argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default()).collect();
    let folder = || words.iter().rev().find(|word| !word.is_empty() && !word.starts_with('-')).copied();
    match name {
        "supervisord" => supervisord(&words, cwd, world),
        "cron" | "crond" => crond(&words, cwd, world),
        // Its only operand is a table.
        "supercronic" => folder().map_or_else(Vec::new, |path| table(path, Table::Own, cwd, world)),
        "run-parts" => folder().map_or_else(Vec::new, |folder| files(&run_parts(world, cwd, folder), cwd, world)),
        // Each service has a process that watches over it; these scanners start that one (s6-svscan(8), runsvdir(8), svscan(8)).
        "s6-svscan" => {
            let scanned = folder().unwrap_or(".");
            let mut found = watched("s6-supervise", scanned, cwd, world);
            found.extend(files(&globs(world, cwd, &[scanned], &[".s6-svscan/*"]), cwd, world));
            found
        }
        "runsvdir" => folder().map_or_else(Vec::new, |folder| watched("runsv", folder, cwd, world)),
        "svscan" => watched("supervise", folder().unwrap_or("."), cwd, world),
        "s6-supervise" | "runsv" | "supervise" => folder().map_or_else(Vec::new, |service| {
            files(
                &globs(world, cwd, &[service], &["run", "finish", "check", "control/*", "log/run", "log/finish"]),
                cwd,
                world,
            )
        }),
        // busybox's server runs what stands in `cgi-bin` below its home (httpd.c, "CGI").
        "httpd" => {
            let found = globs(world, cwd, &[value(&words, &["-h"]).unwrap_or(".")], &["cgi-bin/*"]);
            let is_executable = |path: &String| {
                let found = world.resolve(cwd, path);
                found.is_ok_and(|found| world.rootfs.inode(found.inode).meta.mode & 0o111 != 0)
            };
            files(&found.into_iter().filter(is_executable).collect::<Vec<_>>(), cwd, world)
        }
        "runit" | "runit-init" => files(&globs(world, cwd, &["/etc/runit"], &["1", "2", "3"]), cwd, world),
        // s6-overlay's first process runs what these folders hold (its README, "Customizing s6-overlay behaviour").
        "init"
            if world.resolve(cwd, "/package/admin/s6-overlay").is_ok()
                || world.resolve(cwd, "/etc/s6-overlay").is_ok() =>
        {
            let found = globs(world, cwd, &["/etc/cont-init.d"], &["*"]);
            let services =
                globs(world, cwd, &["/etc/services.d", "/etc/s6-overlay/s6-rc.d"], &["*/run", "*/up", "*/finish"]);
            files(&[found, services].concat(), cwd, world)
        }
        _ => Vec::new(),
    }
}

/// The word behind the first of these options.
fn value<'a>(words: &[&'a str], options: &[&str]) -> Option<&'a str> {
    let at = words.iter().position(|word| options.contains(word))?;
    words.get(at + 1).copied()
}

fn globs(world: World<'_>, cwd: &ImagePath, folders: &[&str], patterns: &[&str]) -> Vec<String> {
    let all = folders.iter().flat_map(|folder| patterns.iter().map(move |pattern| format!("{folder}/{pattern}")));
    all.flat_map(|pattern| glob(world.rootfs, cwd, &pattern)).collect()
}

/// The process that watches over each service of a folder.
fn watched(by: &str, folder: &str, cwd: &ImagePath, world: World<'_>) -> Vec<Service> {
    let mut found = files(&globs(world, cwd, &[folder], &["*/run"]), cwd, world);
    for service in &mut found {
        let run = service.inner.argv.pop().flatten().unwrap_or_default();
        let folder = run.strip_suffix("/run").unwrap_or(&run).to_owned();
        service.inner.argv = vec![Some(by.to_owned()), Some(folder)];
    }
    found
}

fn files(paths: &[String], cwd: &ImagePath, world: World<'_>) -> Vec<Service> {
    let service = |path: &String| {
        let at = world.resolve(cwd, path).ok()?.path;
        let inner = Inner { argv: vec![Some(path.clone())], ..Inner::default() };
        Some(Service {
            inner,
            evidence: Evidence::File { path: at, line: None, layer: None, detail: Some("service".to_owned()) },
        })
    };
    paths.iter().filter_map(service).collect()
}

/// The tables that cron reads; busybox's takes another folder for users' tables.
fn crond(words: &[&str], cwd: &ImagePath, world: World<'_>) -> Vec<Service> {
    let given = value(words, &["-c"]);
    let system = cron::SYSTEM.into_iter().flat_map(|(folder, pattern)| globs(world, cwd, &[folder], &[pattern]));
    let mut found: Vec<Service> = system.flat_map(|path| table(&path, Table::System, cwd, world)).collect();
    for path in cron::USERS.into_iter().chain(given).flat_map(|folder| globs(world, cwd, &[folder], &["*"])) {
        let user = path.rsplit('/').next().unwrap_or_default();
        found.extend(table(&path, Table::Of(user), cwd, world));
    }
    found
}

fn table(path: &str, whose: Table<'_>, cwd: &ImagePath, world: World<'_>) -> Vec<Service> {
    let Ok(at) = world.resolve(cwd, path) else { return Vec::new() };
    let Ok(body) = world.rootfs.read(at.inode, world.text_bytes) else { return Vec::new() };
    let service = |(line, inner)| {
        let detail = Some("line of a crontab".to_owned());
        Service { inner, evidence: Evidence::File { path: at.path.clone(), line: Some(line), layer: None, detail } }
    };
    cron::commands(&String::from_utf8_lossy(&body), whose).into_iter().map(service).collect()
}

fn supervisord(words: &[&str], cwd: &ImagePath, world: World<'_>) -> Vec<Service> {
    const DEFAULTS: [&str; 5] = [
        "supervisord.conf",
        "etc/supervisord.conf",
        "/etc/supervisord.conf",
        "/etc/supervisor/supervisord.conf",
        "/etc/supervisor.conf",
    ];
    let given = value(words, &["-c", "--configuration"]);
    let joined = words.iter().find_map(|word| word.strip_prefix("--configuration="));
    let Some(main) = given.or(joined).or_else(|| DEFAULTS.into_iter().find(|path| world.resolve(cwd, path).is_ok()))
    else {
        return Vec::new();
    };
    let mut ahead = vec![main.to_owned()];
    let (mut found, mut read) = (Vec::new(), 0);
    while let Some(path) = ahead.pop() {
        read += 1;
        let Ok(at) = world.resolve(cwd, &path) else { continue };
        let Ok(body) = world.rootfs.read(at.inode, world.text_bytes) else { continue };
        let text = String::from_utf8_lossy(&body).into_owned();
        let (commands, includes) = supervisord_conf(&text, &at.path);
        found.extend(commands);
        // Includes do not nest in supervisord.
        if read == 1 {
            let folder = at.path.parent().unwrap_or_else(ImagePath::root);
            for pattern in includes {
                ahead.extend(glob(world.rootfs, &folder, &pattern).into_iter().filter_map(|path| {
                    folder.join(path.as_bytes()).ok().map(|path| path.to_string_lossy().into_owned())
                }));
            }
        }
    }
    found
}

/// `command=` of every `[program:…]`, and `files=` of `[include]`.
fn supervisord_conf(text: &str, path: &ImagePath) -> (Vec<Service>, Vec<String>) {
    let (mut services, mut includes) = (Vec::<Service>::new(), Vec::new());
    let mut section = "";
    for (number, line) in (1u32..).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        // A comment starts at a semicolon after white space.
        let value = value.split(" ;").next().unwrap_or_default().trim();
        match (section.split(':').next(), key.trim()) {
            (Some("program" | "eventlistener" | "fcgi-program"), "command") => {
                let inner = Inner { argv: split(value), ..Inner::default() };
                let evidence = Evidence::File {
                    path: path.clone(),
                    line: Some(number),
                    layer: None,
                    detail: Some(format!("[{section}] command")),
                };
                if !inner.argv.is_empty() {
                    services.push(Service { inner, evidence });
                }
            }
            (Some("program"), "user") => {
                if let Some(service) = services.last_mut() {
                    service.inner.user = Some(value.to_owned());
                }
            }
            (Some("include"), "files") => includes.extend(value.split_whitespace().map(str::to_owned)),
            _ => {}
        }
    }
    (services, includes)
}

/// Splits a command as Python's `shlex.split` does, without escapes inside quotes; a word with `%(…)s` is not known.
fn split(text: &str) -> Vec<Arg> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words.into_iter().map(|word| Some(word).filter(|word| !word.contains("%("))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rootfs, shell::World};

    fn commands(rootfs: &Rootfs, argv: &[&str]) -> Vec<String> {
        let accounts = dna::Accounts::default();
        let world = World { rootfs, accounts: &accounts, text_bytes: 1 << 20 };
        let argv: Vec<Arg> = argv.iter().map(|word| Some((*word).to_owned())).collect();
        let name = argv.first().cloned().flatten().expect("a name");
        let mut lines: Vec<String> = services(&name, &argv, &ImagePath::root(), world)
            .into_iter()
            .map(|service| service.inner.argv.into_iter().flatten().collect::<Vec<_>>().join(" "))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn supervisord_starts_its_programs_and_the_included_ones() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file(
            "/etc/supervisor/supervisord.conf",
            0o644,
            "[supervisord]\ncommand=no\n[program:web]\ncommand = /bin/web -g \"daemon off;\" ; note\n[include]\nfiles = conf.d/*.conf\n",
        );
        rootfs.put_file("/etc/supervisor/conf.d/a.conf", 0o644, "[program:a]\ncommand=/bin/a\nuser=web\n");
        rootfs.put_file("/etc/supervisor/conf.d/a.txt", 0o644, "[program:b]\ncommand=/bin/b\n");
        assert_eq!(commands(&rootfs, &["supervisord", "-n"]), ["/bin/a", "/bin/web -g daemon off;"]);
    }

    #[test]
    fn cron_runs_what_its_tables_say() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/etc/crontab", 0o644, "17 * * * * root cd / && run-parts /etc/cron.hourly\n");
        rootfs.put_file("/etc/cron.d/x", 0o644, "@daily web x\n");
        rootfs.put_file("/var/spool/cron/crontabs/web", 0o600, "* * * * * y\n");
        rootfs.put_file("/tabs/root", 0o600, "* * * * * z\n");
        let system = ["/bin/sh -c cd / && run-parts /etc/cron.hourly", "/bin/sh -c x", "/bin/sh -c y"];
        assert_eq!(commands(&rootfs, &["cron", "-f"]), system);
        assert_eq!(commands(&rootfs, &["crond", "-f", "-c", "/tabs"]), [&system[..], &["/bin/sh -c z"]].concat());
        assert_eq!(commands(&rootfs, &["supercronic", "/var/spool/cron/crontabs/web"]), ["/bin/sh -c y"]);
    }

    #[test]
    fn service_folders_are_read() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/etc/service/web/run", 0o755, "#!/bin/sh\n");
        rootfs.put_file("/etc/service/web/notes", 0o644, "");
        rootfs.put_file("/etc/parts/10-x", 0o755, "#!/bin/sh\n");
        rootfs.put_file("/etc/parts/10-x.bak", 0o755, "#!/bin/sh\n");
        rootfs.put_file("/etc/service/web/log/run", 0o755, "#!/bin/sh\n");
        rootfs.put_file("/etc/service/.s6-svscan/finish", 0o755, "#!/bin/sh\n");
        assert_eq!(commands(&rootfs, &["runsvdir", "-P", "/etc/service"]), ["runsv /etc/service/web"]);
        assert_eq!(commands(&rootfs, &["svscan", "/etc/service"]), ["supervise /etc/service/web"]);
        assert_eq!(
            commands(&rootfs, &["s6-svscan", "/etc/service"]),
            ["/etc/service/.s6-svscan/finish", "s6-supervise /etc/service/web"]
        );
        assert_eq!(
            commands(&rootfs, &["runsv", "/etc/service/web"]),
            ["/etc/service/web/log/run", "/etc/service/web/run"]
        );
        assert_eq!(commands(&rootfs, &["run-parts", "/etc/parts"]), ["/etc/parts/10-x"]);
        assert!(commands(&rootfs, &["supervisord"]).is_empty());
    }

    #[test]
    fn a_small_web_server_runs_the_programs_of_its_cgi_folder() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/www/cgi-bin/now", 0o755, "#!/bin/sh\n");
        rootfs.put_file("/www/cgi-bin/notes", 0o644, "");
        assert_eq!(commands(&rootfs, &["httpd", "-f", "-h", "/www"]), ["/www/cgi-bin/now"]);
        assert!(commands(&rootfs, &["httpd", "-f"]).is_empty());
    }
}
