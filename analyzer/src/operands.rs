//! What the file tools of a POSIX system write by their operands: a command's words in, the paths it makes, changes or removes out.
//!
//! Source: POSIX.1-2024, Utilities; the GNU coreutils manual. BusyBox's applets take the same operands.

use crate::shell::Arg;

/// A path that a command writes, relative to its working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) path: String,
    pub(crate) how: How,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// A folder is made, unless there is one.
    Folder,
    /// It is made or written.
    File,
    /// It is removed, if it is there.
    Removed,
    /// Its owner, mode or times change.
    Changed,
    /// It and all under it change.
    Tree,
}

/// What `name` writes, called with these words.
pub(crate) fn written(name: &str, argv: &[Arg]) -> Vec<Written> {
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else { return Vec::new() };
    let words = Words::read(argv.get(1..).unwrap_or_default(), tool.valued);
    let has = |short: char, long: &str| words.options.iter().any(|option| is_option(option, short, long));
    let written = |path: &str, how| Written { path: path.to_owned(), how };
    let known = |words: &[Arg], how| words.iter().flatten().map(|word| written(word, how)).collect::<Vec<_>>();
    let operands = words.operands.as_slice();
    match tool.rule {
        Rule::All(how) => known(operands, how),
        Rule::AfterFirst => {
            let is_tree = has('R', "--recursive");
            let skip = usize::from(!words.options.iter().any(|option| option.starts_with("--reference")));
            known(operands.get(skip..).unwrap_or_default(), if is_tree { How::Tree } else { How::Changed })
        }
        Rule::Last { moves } => {
            if has('d', "--directory") && name == "install" {
                return known(operands, How::Folder);
            }
            let (sources, target) = match (&words.target, operands) {
                (Some(target), sources) => (sources, Some(target.as_str())),
                (None, [sources @ .., target]) => (sources, target.as_deref()),
                (None, []) => return Vec::new(),
            };
            let mut out = if moves { known(sources, How::Removed) } else { Vec::new() };
            if let Some(target) = target {
                let under =
                    sources.iter().flatten().filter_map(|source| source.trim_end_matches('/').rsplit('/').next());
                let folder = target.trim_end_matches('/');
                out.extend(under.map(|file| written(&format!("{folder}/{file}"), How::File)));
                out.push(written(target, How::File));
            }
            out
        }
        Rule::Of => {
            let of = operands.iter().flatten().filter_map(|word| word.strip_prefix("of="));
            of.map(|path| written(path, How::File)).collect()
        }
        Rule::InPlace => {
            if !words.options.iter().any(|option| option.starts_with("--in-place") || in_place(option)) {
                return Vec::new();
            }
            let skip = usize::from(!has('e', "--expression") && !has('f', "--file"));
            known(operands.get(skip..).unwrap_or_default(), How::File)
        }
    }
}

struct Tool {
    name: &'static str,
    rule: Rule,
    /// Options that take the next word.
    valued: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Rule {
    All(How),
    /// The first operand is a mode or owner.
    AfterFirst,
    /// The last operand, or a file in it.
    Last {
        moves: bool,
    },
    /// `of=FILE`.
    Of,
    /// `sed -i`.
    InPlace,
}

const TOOLS: &[Tool] = &[
    Tool { name: "mkdir", rule: Rule::All(How::Folder), valued: &["-m", "--mode"] },
    Tool { name: "touch", rule: Rule::All(How::File), valued: &["-d", "-r", "-t", "--date", "--reference"] },
    Tool { name: "truncate", rule: Rule::All(How::File), valued: &["-s", "-r", "--size", "--reference"] },
    Tool { name: "tee", rule: Rule::All(How::File), valued: &[] },
    Tool { name: "mkfifo", rule: Rule::All(How::File), valued: &["-m", "--mode"] },
    Tool { name: "rm", rule: Rule::All(How::Removed), valued: &[] },
    Tool { name: "rmdir", rule: Rule::All(How::Removed), valued: &[] },
    Tool { name: "unlink", rule: Rule::All(How::Removed), valued: &[] },
    Tool { name: "shred", rule: Rule::All(How::Removed), valued: &["-n", "-s"] },
    Tool { name: "chown", rule: Rule::AfterFirst, valued: &["--from"] },
    Tool { name: "chgrp", rule: Rule::AfterFirst, valued: &[] },
    Tool { name: "chmod", rule: Rule::AfterFirst, valued: &[] },
    Tool { name: "cp", rule: Rule::Last { moves: false }, valued: &["-S", "--suffix"] },
    Tool { name: "ln", rule: Rule::Last { moves: false }, valued: &["-S", "--suffix"] },
    Tool {
        name: "install",
        rule: Rule::Last { moves: false },
        valued: &["-m", "-o", "-g", "-S", "--mode", "--owner", "--group", "--suffix"],
    },
    Tool { name: "mv", rule: Rule::Last { moves: true }, valued: &["-S", "--suffix"] },
    Tool { name: "dd", rule: Rule::Of, valued: &[] },
    Tool { name: "sed", rule: Rule::InPlace, valued: &["-e", "-f", "-l", "--expression", "--file"] },
];

/// The words of a command, told apart.
struct Words {
    options: Vec<String>,
    operands: Vec<Arg>,
    /// `-t FOLDER`.
    target: Option<String>,
}

impl Words {
    fn read(argv: &[Arg], valued: &[&str]) -> Self {
        let mut words = Self { options: Vec::new(), operands: Vec::new(), target: None };
        let mut rest = argv.iter();
        let mut is_over = false;
        while let Some(word) = rest.next() {
            match word.as_deref() {
                Some("--") if !is_over => is_over = true,
                Some("-t" | "--target-directory") if !is_over && !valued.contains(&"-t") => {
                    words.target = rest.next().cloned().flatten();
                }
                Some(option) if !is_over && option.len() > 1 && option.starts_with('-') => {
                    if let Some(target) = option.strip_prefix("--target-directory=") {
                        words.target = Some(target.to_owned());
                    }
                    words.options.push(option.to_owned());
                    if valued.contains(&option) {
                        rest.next();
                    }
                }
                _ => words.operands.push(word.clone()),
            }
        }
        words
    }
}

fn is_option(option: &str, short: char, long: &str) -> bool {
    option == long || (!option.starts_with("--") && option.contains(short))
}

/// `-i`, `-i.bak`, `-Ei`: letters before it are other options.
fn in_place(option: &str) -> bool {
    !option.starts_with("--")
        && option.strip_prefix('-').is_some_and(|letters| {
            letters
                .find('i')
                .is_some_and(|at| letters.get(..at).is_some_and(|before| !before.contains(['e', 'f', 's'])))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> Vec<String> {
        let argv: Vec<Arg> = line.split(' ').map(|word| (word != "?").then(|| word.to_owned())).collect();
        let name = argv.first().cloned().flatten().unwrap_or_default();
        written(&name, &argv).into_iter().map(|written| format!("{} {:?}", written.path, written.how)).collect()
    }

    #[test]
    fn operands_are_what_is_written() {
        assert_eq!(paths("mkdir -p -m 755 /a /b"), ["/a Folder", "/b Folder"]);
        assert_eq!(paths("chown -R app:app /srv"), ["/srv Tree"]);
        assert_eq!(paths("chown app /srv ?"), ["/srv Changed"]);
        assert_eq!(paths("cp /x/a /etc"), ["/etc/a File", "/etc File"]);
        assert_eq!(paths("install -d -m 755 /run/a"), ["/run/a Folder"]);
        assert_eq!(paths("mv /a /b"), ["/a Removed", "/b/a File", "/b File"]);
        assert_eq!(paths("dd if=/a of=/b"), ["/b File"]);
    }

    #[test]
    fn a_stream_editor_writes_only_in_place() {
        assert_eq!(paths("sed -Ei s/a/b/ /etc/x"), ["/etc/x File"]);
        assert_eq!(paths("sed -i.bak -e s/a/b/ /etc/x"), ["/etc/x File"]);
        assert!(paths("sed -e s/i/b/ /etc/x").is_empty());
        assert!(paths("cat /etc/x").is_empty());
    }
}
