//! What a shell script runs: text and the circumstances it starts in, in; the commands it calls, out.
//!
//! `brush-parser` gives the syntax tree; the walk over it is an abstract run: variables, arguments and the file system are
//! those of the image, tests are decided where they can be, and where they cannot both ways are followed. A way that this start
//! does not take is still walked, with less confidence. Nothing is executed. Where a command's name stays open, that is an
//! unknown, never silence.

mod builtin;
mod expand;
mod output;
mod pattern;
mod syntax;
mod walk;

use std::collections::BTreeMap;

use dna::{Condition, Confidence, ImagePath};

use crate::{InodeKind, ResolveError, Resolved, Rootfs};

pub(crate) use expand::glob;
pub(crate) use output::run_parts;
pub(crate) use pattern::matches;
pub(crate) use syntax::with_stack;

/// The circumstances a shell starts in.
#[derive(Debug, Clone)]
pub(crate) struct Circumstances {
    /// `$0`.
    pub(crate) name: String,
    /// `$1` and on; none where an argument is not known.
    pub(crate) arguments: Vec<Arg>,
    /// Environment variables; none where a value is not known.
    pub(crate) env: BTreeMap<String, Arg>,
    /// Effective user.
    pub(crate) uid: Option<u32>,
    /// Working directory.
    pub(crate) cwd: ImagePath,
}

/// A word after expansion; `None` where its value is not known.
pub(crate) type Arg = Option<String>;

/// A script's text and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    /// The script's file; none for a command line given to `sh -c`.
    pub(crate) path: Option<&'a ImagePath>,
}

/// A command that a script calls and that is no function or builtin of the shell.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Its words; the first is the command's name.
    pub(crate) argv: Vec<Arg>,
    /// Environment at that point: exported variables and those set for this command alone.
    pub(crate) env: BTreeMap<String, Arg>,
    /// Working directory at that point.
    pub(crate) cwd: ImagePath,
    /// The file the call stands in; none for `sh -c`.
    pub(crate) file: Option<ImagePath>,
    /// Line, from 1.
    pub(crate) line: Option<u32>,
    /// How sure it is that the script gets there.
    pub(crate) confidence: Confidence,
    /// Conditions on the way there.
    pub(crate) when: Vec<Condition>,
}

/// A file that a redirection writes.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// The path, `*` in place of what is not known.
    pub(crate) path: ImagePath,
    /// The file the redirection stands in; none for `sh -c`.
    pub(crate) file: Option<ImagePath>,
    pub(crate) line: Option<u32>,
    pub(crate) confidence: Confidence,
    pub(crate) when: Vec<Condition>,
}

/// What a script does, as far as it can be told.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) calls: Vec<Call>,
    /// Files that its redirections write.
    pub(crate) writes: Vec<Written>,
    /// Files it reads commands from.
    pub(crate) sourced: Vec<ImagePath>,
    /// Names of environment variables that it reads.
    pub(crate) reads: std::collections::BTreeSet<String>,
    /// What stays open: file, line, why.
    pub(crate) open: Vec<(Option<ImagePath>, Option<u32>, String)>,
}

/// Looks things up in the image for the walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) accounts: &'a dna::Accounts,
    pub(crate) text_bytes: u64,
}

impl World<'_> {
    /// The file a path leads to, as a process in `cwd` would see it.
    pub(crate) fn resolve(&self, cwd: &ImagePath, path: &str) -> Result<Resolved, ResolveError> {
        self.rootfs.resolve_from(cwd, path.as_bytes())
    }

    /// The executable file that `name` means to execvp(3): with a slash a path, else the first one in `path` (`PATH`).
    pub(crate) fn find_program(&self, cwd: &ImagePath, name: &str, path: &str) -> Option<Resolved> {
        let executable = |found: &Resolved| {
            let inode = self.rootfs.inode(found.inode);
            matches!(inode.kind, InodeKind::File(_)) && inode.meta.mode & 0o111 != 0
        };
        if name.is_empty() {
            return None;
        }
        if name.contains('/') {
            return self.resolve(cwd, name).ok().filter(executable);
        }
        path.split(':').find_map(|folder| {
            let folder = if folder.is_empty() { "." } else { folder };
            self.resolve(cwd, &format!("{folder}/{name}")).ok().filter(executable)
        })
    }
}

/// Stands in a line for what is not known of it: a variable whose value is not known.
pub(crate) const NOT_KNOWN: &str = "_not_known";

/// `PATH` where nothing sets it, as runc and the shells have it.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Walks a script.
pub(crate) fn run(source: Source<'_>, circumstances: &Circumstances, world: World<'_>) -> Outcome {
    walk::Walk::new(world).run(source, circumstances)
}

/// The commands that a script calls in an image without files, none where a word is not known: the whole way of a script's text,
/// for tests and fuzzing.
pub fn commands(script: &str) -> Vec<Vec<Option<String>>> {
    let (rootfs, accounts) = (Rootfs::default(), dna::Accounts::default());
    let world = World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 };
    let circumstances = Circumstances {
        name: "sh".to_owned(),
        arguments: vec![Some("run".to_owned())],
        env: BTreeMap::new(),
        uid: Some(0),
        cwd: ImagePath::root(),
    };
    let outcome = with_stack(|| run(Source { text: script, path: None }, &circumstances, world));
    outcome.calls.into_iter().map(|call| call.argv).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_beyond_the_bound_is_no_crash_and_no_hang() {
        for open in [
            "(",
            "{ ",
            "$(",
            "if ",
            "[[ (",
            "${a:-",
            "\"$(",
            "`",
            "((",
            "case a in a) ",
            "f() { ",
            "<<",
            "$((",
            "!",
            "&& ",
            "while ",
        ] {
            commands(&open.repeat(2_000));
            commands(&open.repeat(12));
            commands(&open.repeat(8));
            commands(&format!("{}x", open.repeat(6)));
        }
    }

    #[test]
    fn a_script_may_end_in_any_letter() {
        assert_eq!(commands("app grüß ʺ\nübung").len(), 2);
        assert_eq!(commands("caf\u{e9}").len(), 1);
    }

    #[test]
    fn the_words_of_a_command_are_expanded() {
        let words = |script: &str| {
            commands(script)
                .into_iter()
                .flatten()
                .map(|word| word.unwrap_or_else(|| "?".to_owned()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(words("a=b; app \"$a\"c '$a' ${a}d \"$1\" $(date)"), "date app bc $a bd run ?");
        assert_eq!(words("x=/a/b.sh; app ${x##*/} ${x%.sh} ${#x} ${y:-z} ${x/a/c}"), "app b.sh /a/b 7 z /c/b.sh");
        assert_eq!(words("set -- a 'b c'; app \"$@\" $# \"$*\""), "app a b c 2 a b c");
    }
}
