//! Which server a process is: its arguments and program file in, names to look up in the table out, most telling first, each
//! with the arguments that count for it.

use crate::{closure::Process, shell::Arg};

/// Names of a process: `busybox httpd`, `caddy run`, `nginx`; for interpreters the module or class they are told to run.
pub(super) fn names(process: &Process) -> Vec<(String, Vec<Arg>)> {
    let argv = &process.argv;
    let called = argv.first().cloned().flatten().unwrap_or_default();
    let called = without_version(base_name(&called));
    let own = String::from_utf8_lossy(process.program.file_name()).into_owned();
    let own = without_version(&own);
    let mut names = Vec::new();
    if own.starts_with("python") || called.starts_with("python") {
        names.extend(python(argv));
    }
    if own == "java" || called == "java" {
        names.extend(java(argv));
    }
    for name in [called, own] {
        if matches!(own, "busybox" | "toybox") {
            names.push((format!("busybox {called}"), argv.clone()));
            if called != own {
                continue;
            }
        }
        // `caddy run`: the first word that is no option names a command.
        let command = (1..argv.len()).zip(argv.iter().skip(1)).find_map(|(at, word)| {
            let word = word.as_deref().filter(|word| !word.starts_with('-'))?;
            Some((format!("{name} {word}"), argv.get(at..)?.to_vec()))
        });
        names.extend(command);
        names.push((name.to_owned(), argv.clone()));
    }
    names
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `php-fpm8.2` and `redis-server-7` are called by what they are: `php-fpm`, `redis-server`; and so is `prometheus-alertmanager`, as Debian
/// calls what belongs to Prometheus.
fn without_version(name: &str) -> &str {
    let name = name.trim_start_matches('-');
    let is_known = |name: &str| super::table::find(name).is_some();
    let cut = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    let cut = if cut.is_empty() || is_known(name) { name } else { cut };
    let plain = cut.strip_prefix("prometheus-").filter(|plain| !is_known(cut) && is_known(plain));
    plain.unwrap_or(cut)
}

/// `python -m MODULE …` (Python's "Command line and environment").
fn python(argv: &[Arg]) -> Option<(String, Vec<Arg>)> {
    let at = argv.iter().position(|word| word.as_deref() == Some("-m"))?;
    let rest = argv.get(at.checked_add(1)?..)?;
    let module = rest.first()?.as_deref()?;
    let whole = format!("python {module}");
    let name = if super::table::find(&whole).is_some() { whole } else { module.to_owned() };
    Some((name, rest.to_vec()))
}

/// The class or the archive that java(1) runs, with all arguments: `-D` stands before it.
fn java(argv: &[Arg]) -> Option<(String, Vec<Arg>)> {
    const VALUED: [&str; 8] =
        ["-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens", "--add-exports"];
    let (mut before, mut words) = (Vec::new(), argv.iter().skip(1));
    while let Some(word) = words.next() {
        match word.as_deref() {
            Some("-jar" | "-m" | "--module") => {}
            Some(option) if VALUED.contains(&option) => {
                words.next();
            }
            Some(name) if !name.starts_with(['-', '@']) => {
                let name = match name.strip_suffix(".jar") {
                    Some(jar) => format!("java {}", without_version(base_name(jar))),
                    None => base_name(name).to_owned(),
                };
                // The class first, as a program's name would stand; then the options of both.
                let all = [Some(name.clone())].into_iter().chain(before).chain(words.cloned());
                return Some((name, all.collect()));
            }
            _ => before.push(word.clone()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn first_known(program: &str, line: &str) -> Option<String> {
        let process = Process {
            program: program.parse().expect("a path"),
            argv: line.split(' ').map(|word| Some(word.to_owned())).collect(),
            env: BTreeMap::new(),
            uid: None,
            cwd: dna::ImagePath::root(),
            confidence: dna::Confidence::Certain,
            told: None,
        };
        names(&process).into_iter().map(|(name, _)| name).find(|name| super::super::table::find(name).is_some())
    }

    #[test]
    fn processes_are_called_by_what_they_are() {
        for (program, line, expected) in [
            ("/usr/sbin/php-fpm8.2", "php-fpm8.2 -F", "php-fpm"),
            ("/bin/busybox", "httpd -f", "busybox httpd"),
            ("/usr/sbin/httpd", "httpd -DFOREGROUND", "httpd"),
            ("/usr/bin/python3.11", "python3 -m http.server 8000", "python http.server"),
            ("/usr/bin/python3.11", "python3 -m gunicorn app:app", "gunicorn"),
            ("/usr/bin/java", "java -Xmx1g -cp a:b -Dx=y kafka.Kafka c", "kafka.Kafka"),
            ("/opt/valkey", "/usr/bin/redis-server", "redis-server"),
        ] {
            assert_eq!(first_known(program, line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(first_known("/bin/ls", "ls -l"), None);
    }
}
