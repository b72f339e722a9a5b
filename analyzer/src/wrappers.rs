//! Programs that run their argument: an argument vector in, the inner ones out. A table of their documented options; nothing is
//! looked up here.

use std::collections::BTreeSet;

use crate::shell::Arg;

/// What a wrapper runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Inner {
    /// The inner argument vector.
    pub(crate) argv: Vec<Arg>,
    /// A line for a shell instead of an argument vector.
    pub(crate) line: Option<String>,
    /// The user it switches to: a name or number, perhaps with `:group`.
    pub(crate) user: Option<String>,
    /// Environment variables it sets.
    pub(crate) env: Vec<(String, Arg)>,
    /// Arguments of unknown number follow: names that xargs(1) or find(1) fill in.
    pub(crate) open_ended: bool,
}

/// How a wrapper's command line reads.
struct Wrapper {
    names: &'static [&'static str],
    /// Options that take the next word as their value, unless written with `=`.
    valued: &'static [&'static str],
    /// Words between the options and the command.
    positional: usize,
    /// Which of those words, or the value of which option, names the user.
    user: User,
}

enum User {
    Same,
    Positional(usize),
    Option(&'static [&'static str]),
}

const fn plain(names: &'static [&'static str], valued: &'static [&'static str]) -> Wrapper {
    Wrapper { names, valued, positional: 0, user: User::Same }
}

/// Sources: each program's manual page or usage text.
const WRAPPERS: &[Wrapper] = &[
    plain(&["tini", "tini-static", "docker-init"], &["-p", "-e"]),
    plain(&["dumb-init"], &["-r", "--rewrite"]),
    plain(
        &[
            "catatonit",
            "with-contenv",
            "nohup",
            "setsid",
            "eatmydata",
            "faketime",
            "setarch",
            "linux64",
            "pid1",
            "init-wrapper",
        ],
        &[],
    ),
    Wrapper {
        names: &["gosu", "su-exec", "s6-setuidgid", "setuidgid"],
        valued: &[],
        positional: 1,
        user: User::Positional(0),
    },
    Wrapper {
        names: &["s6-envdir", "envdir", "s6-applyuidgid"],
        valued: &["-u", "-g", "-G"],
        positional: 1,
        user: User::Same,
    },
    Wrapper {
        names: &["setpriv"],
        valued: &[
            "--reuid",
            "--regid",
            "--ruid",
            "--euid",
            "--rgid",
            "--egid",
            "--groups",
            "--inh-caps",
            "--ambient-caps",
            "--bounding-set",
            "--securebits",
            "--pdeathsig",
            "--selinux-label",
            "--apparmor-profile",
        ],
        positional: 0,
        user: User::Option(&["--reuid", "--euid"]),
    },
    Wrapper {
        names: &["chpst"],
        valued: &["-u", "-U", "-b", "-e", "-/", "-C", "-n", "-l", "-L", "-m", "-d", "-o", "-p", "-f", "-c", "-r", "-t"],
        positional: 0,
        user: User::Option(&["-u"]),
    },
    Wrapper {
        names: &["sudo", "doas"],
        valued: &[
            "-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T", "-U", "--user", "--group", "--host", "--prompt", "--chdir",
            "--chroot",
        ],
        positional: 0,
        user: User::Option(&["-u", "--user"]),
    },
    Wrapper {
        names: &["chroot"],
        valued: &["--userspec", "--groups"],
        positional: 1,
        user: User::Option(&["--userspec"]),
    },
    plain(&["nice"], &["-n", "--adjustment"]),
    plain(&["ionice"], &["-c", "-n", "-t", "--class", "--classdata"]),
    plain(&["chrt"], &["-T", "-P", "-D"]),
    Wrapper { names: &["taskset"], valued: &[], positional: 1, user: User::Same },
    Wrapper { names: &["timeout"], valued: &["-k", "-s", "--kill-after", "--signal"], positional: 1, user: User::Same },
    plain(&["stdbuf"], &["-i", "-o", "-e", "--input", "--output", "--error"]),
    plain(&["time"], &["-f", "-o", "--format", "--output"]),
    plain(&["unshare"], &["--map-user", "--map-group", "--root", "-R", "--wd", "-w", "-S", "-G", "--propagation"]),
    plain(&["nsenter"], &["-t", "-S", "-G", "-r", "-w", "--target"]),
    Wrapper {
        names: &["flock"],
        valued: &["-w", "-E", "--timeout", "--wait", "--conflict-exit-code"],
        positional: 1,
        user: User::Same,
    },
    plain(&["prlimit", "numactl", "softlimit"], &["-N", "-m", "-i", "-C"]),
    plain(&["strace", "ltrace", "valgrind"], &["-e", "-o", "-p", "-s", "-u"]),
];

/// What `argv`, whose program is called `name`, runs; nothing where it is no wrapper, or no command follows.
pub(crate) fn unwrap(name: &str, argv: &[Arg]) -> Vec<Inner> {
    let words = argv.get(1..).unwrap_or_default();
    match name {
        "env" => env(words).into_iter().collect(),
        "xargs" => xargs(words).into_iter().collect(),
        "find" => find(words),
        "su" | "runuser" => su(name, words).into_iter().collect(),
        "start-stop-daemon" => daemon(words).into_iter().collect(),
        "tar" | "bsdtar" => tar(words),
        _ => WRAPPERS
            .iter()
            .find(|wrapper| wrapper.names.contains(&name))
            .and_then(|wrapper| table(wrapper, words))
            .into_iter()
            .collect(),
    }
}

/// The compressor of an archive: named by an option, or by the archive's ending; GNU tar has a shell run it when it writes.
fn tar(words: &[Arg]) -> Vec<Inner> {
    const BY_LETTER: [(char, &str); 4] = [('z', "gzip"), ('j', "bzip2"), ('J', "xz"), ('Z', "compress")];
    const BY_ENDING: [(&str, &str); 9] = [
        (".gz", "gzip"),
        (".tgz", "gzip"),
        (".bz2", "bzip2"),
        (".tbz2", "bzip2"),
        (".xz", "xz"),
        (".txz", "xz"),
        (".zst", "zstd"),
        (".lz4", "lz4"),
        (".lzma", "lzma"),
    ];
    const BY_NAME: [(&str, &str); 6] = [
        ("--gzip", "gzip"),
        ("--bzip2", "bzip2"),
        ("--xz", "xz"),
        ("--zstd", "zstd"),
        ("--lzma", "lzma"),
        ("--compress", "compress"),
    ];
    let mut found = BTreeSet::new();
    for (at, word) in words.iter().enumerate().filter_map(|(at, word)| Some((at, word.as_deref()?))) {
        // The first word's letters are options with or without a dash.
        let letters = word
            .strip_prefix('-')
            .filter(|rest| !rest.starts_with('-'))
            .or((at == 0 && !word.starts_with('-')).then_some(word));
        let by_letter = BY_LETTER.iter().filter(|(letter, _)| letters.is_some_and(|letters| letters.contains(*letter)));
        found.extend(by_letter.map(|(_, program)| *program));
        found.extend(BY_NAME.iter().filter(|(name, _)| *name == word).map(|(_, program)| *program));
        let by_ending = BY_ENDING.iter().filter(|(ending, _)| letters.is_none() && word.ends_with(ending));
        found.extend(by_ending.map(|(_, program)| *program));
    }
    let both = |program: &str| {
        let argv = vec![Some(program.to_owned()), Some("-d".to_owned())];
        [Inner { argv, ..Inner::default() }, Inner { line: Some(program.to_owned()), ..Inner::default() }]
    };
    found.into_iter().flat_map(both).collect()
}

fn table(wrapper: &Wrapper, words: &[Arg]) -> Option<Inner> {
    let mut inner = Inner::default();
    let mut rest = words;
    while let [Some(word), after @ ..] = rest {
        if word == "--" {
            rest = after;
            break;
        }
        if !word.starts_with('-') || word == "-" {
            break;
        }
        let (option, value) =
            word.split_once('=').map_or((word.as_str(), None), |(option, value)| (option, Some(value.to_owned())));
        let names_user = matches!(wrapper.user, User::Option(options) if options.contains(&option));
        if wrapper.valued.contains(&option) && value.is_none() {
            if names_user {
                inner.user = after.first().cloned().flatten();
            }
            rest = after.get(1..).unwrap_or_default();
        } else {
            if names_user {
                inner.user = value;
            }
            rest = after;
        }
    }
    // sudo and friends take assignments in front of the command.
    while let [Some(word), after @ ..] = rest
        && matches!(wrapper.user, User::Option(_))
        && let Some((name, value)) = assignment(word)
    {
        inner.env.push((name, Some(value)));
        rest = after;
    }
    if let User::Positional(index) = wrapper.user {
        inner.user = rest.get(index).cloned().flatten();
    }
    inner.argv = rest.get(wrapper.positional..)?.to_vec();
    (!inner.argv.is_empty()).then_some(inner)
}

fn assignment(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let well_formed = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    well_formed.then(|| (name.to_owned(), value.to_owned()))
}

fn env(words: &[Arg]) -> Option<Inner> {
    let mut inner = Inner::default();
    let mut rest = words;
    while let [Some(word), after @ ..] = rest {
        match word.as_str() {
            "-u" | "--unset" | "-C" | "--chdir" => rest = after.get(1..).unwrap_or_default(),
            "-S" | "--split-string" => {
                let [Some(text), after @ ..] = after else { return None };
                inner.argv.extend(text.split_whitespace().map(|word| Some(word.to_owned())));
                rest = after;
                break;
            }
            "--" => {
                rest = after;
                break;
            }
            word if word.starts_with("-S") => {
                inner.argv.extend(word.get(2..)?.split_whitespace().map(|word| Some(word.to_owned())));
                rest = after;
                break;
            }
            word if word.starts_with('-') => rest = after,
            word => match assignment(word) {
                Some((name, value)) => {
                    inner.env.push((name, Some(value)));
                    rest = after;
                }
                None => break,
            },
        }
    }
    inner.argv.extend_from_slice(rest);
    // `-S` may itself begin with assignments.
    while let Some((name, value)) = inner.argv.first().and_then(|word| assignment(word.as_deref()?)) {
        inner.env.push((name, Some(value)));
        inner.argv.remove(0);
    }
    (!inner.argv.is_empty()).then_some(inner)
}

fn xargs(words: &[Arg]) -> Option<Inner> {
    const VALUED: [&str; 9] = ["-I", "-n", "-P", "-L", "-d", "-a", "-s", "-E", "--max-procs"];
    let mut rest = words;
    while let [Some(word), after @ ..] = rest
        && word.starts_with('-')
    {
        rest = if VALUED.contains(&word.as_str()) { after.get(1..).unwrap_or_default() } else { after };
    }
    let argv = if rest.is_empty() { vec![Some("echo".to_owned())] } else { rest.to_vec() };
    Some(Inner { argv, open_ended: true, ..Inner::default() })
}

/// Each `-exec COMMAND ;` or `+` of find(1).
fn find(words: &[Arg]) -> Vec<Inner> {
    let mut found = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if matches!(word.as_deref(), Some("-exec" | "-execdir" | "-ok" | "-okdir")) {
            let argv: Vec<Arg> = rest
                .by_ref()
                .take_while(|word| !matches!(word.as_deref(), Some(";" | "+")))
                .map(|word| word.clone().filter(|word| word != "{}"))
                .collect();
            if !argv.is_empty() {
                found.push(Inner { argv, open_ended: true, ..Inner::default() });
            }
        }
    }
    found
}

fn su(name: &str, words: &[Arg]) -> Option<Inner> {
    let mut inner = Inner::default();
    let mut rest = words;
    let mut by_option = false;
    while let [Some(word), after @ ..] = rest {
        match word.as_str() {
            "-c" | "--command" | "--session-command" => {
                inner.line = after.first().cloned().flatten();
                rest = after.get(1..).unwrap_or_default();
            }
            "-u" | "--user" if name == "runuser" => {
                inner.user = after.first().cloned().flatten();
                by_option = true;
                rest = after.get(1..).unwrap_or_default();
            }
            "-s" | "--shell" | "-g" | "--group" | "-G" | "--supp-group" | "-w" => {
                rest = after.get(1..).unwrap_or_default()
            }
            "--" => {
                rest = after;
                break;
            }
            word if word.starts_with('-') => rest = after,
            word if !by_option && inner.user.is_none() => {
                inner.user = Some(word.to_owned());
                rest = after;
            }
            _ => break,
        }
    }
    if inner.line.is_none() {
        // `runuser -u USER -- COMMAND` runs the command itself, `su USER SCRIPT ARGUMENT…` gives them to the shell.
        inner.argv = if by_option { rest.to_vec() } else { Vec::new() };
    }
    inner.user.get_or_insert_with(|| "root".to_owned());
    (inner.line.is_some() || !inner.argv.is_empty()).then_some(inner)
}

fn daemon(words: &[Arg]) -> Option<Inner> {
    let mut inner = Inner::default();
    let (mut program, mut rest) = (None, words.iter());
    while let Some(word) = rest.next() {
        match word.as_deref() {
            Some("-x" | "--exec" | "-a" | "--startas") => program = rest.next().cloned(),
            Some("-c" | "--chuid" | "-u" | "--user") => inner.user = rest.next().cloned().flatten(),
            Some("--") => break,
            _ => {}
        }
    }
    inner.argv.push(program?);
    inner.argv.extend(rest.cloned());
    Some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Arg> {
        line.split(' ').map(|word| Some(word.to_owned())).collect()
    }

    fn inner(line: &str) -> Option<(String, Option<String>)> {
        let argv = words(line);
        let name = argv.first().cloned().flatten().expect("a name");
        let found = unwrap(&name, &argv).into_iter().next()?;
        let text: Vec<String> = found.argv.into_iter().map(|word| word.unwrap_or_else(|| "?".to_owned())).collect();
        Some((found.line.unwrap_or_else(|| text.join(" ")), found.user))
    }

    #[test]
    fn wrappers_give_their_command() {
        for (line, command, user) in [
            ("tini -g -- nginx -g x", "nginx -g x", None),
            ("tini -p SIGTERM nginx", "nginx", None),
            ("dumb-init --rewrite 15:3 -- app --x", "app --x", None),
            ("gosu redis redis-server --port 1", "redis-server --port 1", Some("redis")),
            ("setpriv --reuid=99 --clear-groups app -x", "app -x", Some("99")),
            ("setpriv --reuid 99 app", "app", Some("99")),
            ("env -i A=b C=d app y", "app y", None),
            ("env -S app y", "app y", None),
            ("timeout -s KILL 5 app", "app", None),
            ("xargs -0 -n 1 rm -f", "rm -f", None),
            ("sudo -u web FOO=1 app", "app", Some("web")),
            ("su -c run postgres", "run", Some("postgres")),
            ("runuser -u web -- app x", "app x", Some("web")),
            ("chroot --userspec=1:1 /x app", "app", Some("1:1")),
            ("start-stop-daemon --start --exec /bin/app -- -x", "/bin/app -x", None),
            ("find . -name x -exec chown redis {} +", "chown redis ?", None),
        ] {
            assert_eq!(inner(line), Some((command.to_owned(), user.map(str::to_owned))), "{line}");
        }
    }

    #[test]
    fn tar_runs_what_compresses() {
        let all = |line: &str| {
            let found = unwrap("tar", &words(line)).into_iter();
            let show = |inner: Inner| {
                inner.line.or_else(|| Some(inner.argv.into_iter().flatten().collect::<Vec<_>>().join(" ")))
            };
            found.filter_map(show).collect::<Vec<_>>()
        };
        assert_eq!(all("tar czf /backup/x /data"), ["gzip -d", "gzip"]);
        assert_eq!(all("tar -C /x --xz -cf -"), ["xz -d", "xz"]);
        assert_eq!(all("tar -xf a.tar.bz2"), ["bzip2 -d", "bzip2"]);
        assert_eq!(all("tar --exclude=j -cf a.tar /data"), Vec::<String>::new());
    }

    #[test]
    fn no_command_is_no_inner() {
        for line in ["tini --", "gosu redis", "env A=b", "timeout 5", "nginx -g x", "su postgres", "find . -name x"] {
            assert_eq!(inner(line), None, "{line}");
        }
    }
}
