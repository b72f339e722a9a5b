//! What harmless commands print, where the image alone decides that: words in, lines out. Anything else prints what is not
//! known.

use dna::ImagePath;

use super::{World, expand, matches, walk::State};
use crate::{InodeKind, Resolved};

/// Lines and files looked at for one command.
const MAX_LINES: usize = 4096;

/// The lines a command prints.
pub(super) fn lines(argv: &[String], state: &State, world: World<'_>) -> Option<Vec<String>> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let one = |line: String| Some(vec![line]);
    match words.as_slice() {
        // Filters that keep or reorder lines: which lines come does not change, or shrinks to what a later test decides.
        ["sort" | "uniq" | "tac", ..] => state.input.clone(),
        ["cat"] => state.input.clone(),
        ["cat", path] => file_lines(path, state, world),
        ["echo", "-n" | "-e", rest @ ..] | ["echo", rest @ ..] => one(rest.join(" ")),
        ["printf", "%s" | "%s\\n" | "%s\n", rest @ ..] => Some(rest.iter().map(|word| (*word).to_owned()).collect()),
        ["basename", path] => one(base(path).to_owned()),
        ["basename", path, suffix] => one(base(path).strip_suffix(suffix).unwrap_or(base(path)).to_owned()),
        ["dirname", path] => one(path
            .rsplit_once('/')
            .map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder })
            .to_owned()),
        ["pwd"] => one(state.cwd.to_str()?.to_owned()),
        ["id", "-u"] => one(state.uid?.to_string()),
        ["id", "-un"] | ["whoami"] => {
            let uid = state.uid?;
            world.accounts.users.iter().find(|user| user.uid == uid).map(|user| vec![user.name.clone()])
        }
        ["id", "-u", name] => {
            world.accounts.users.iter().find(|user| user.name == *name).map(|user| vec![user.uid.to_string()])
        }
        ["id", "-g", name] => {
            world.accounts.users.iter().find(|user| user.name == *name).map(|user| vec![user.gid.to_string()])
        }
        ["uname"] | ["uname", "-s"] => one("Linux".to_owned()),
        ["readlink", "-f" | "-e", path] | ["realpath", path] => {
            world.resolve(&state.cwd, path).ok()?.path.to_str().map(|path| vec![path.to_owned()])
        }
        ["command", "-v", name] | ["which", name] | ["type", "-p", name] => {
            if is_builtin(name) && words.first() == Some(&"command") {
                return one((*name).to_owned());
            }
            match world.find_program(&state.cwd, name, &state.path()) {
                Some(_) if name.contains('/') => one((*name).to_owned()),
                Some(_) => state.path().split(':').find_map(|folder| {
                    let path = format!("{folder}/{name}");
                    world.resolve(&state.cwd, &path).ok().map(|_| vec![path])
                }),
                None => Some(Vec::new()),
            }
        }
        ["ls", rest @ ..] => list(rest, state, world),
        ["find", rest @ ..] => find(rest, state, world),
        _ => None,
    }
}

/// The lines of a file, where it is a small text.
pub(super) fn file_lines(path: &str, state: &State, world: World<'_>) -> Option<Vec<String>> {
    let found = world.resolve(&state.cwd, path).ok()?;
    let text = String::from_utf8(world.rootfs.read(found.inode, 64 << 10).ok()?).ok()?;
    Some(text.lines().take(MAX_LINES).map(str::to_owned).collect())
}

/// Whether every shell has a builtin of this name.
pub(super) fn is_builtin(name: &str) -> bool {
    const NAMES: [&str; 31] = [
        ".", ":", "[", "alias", "bg", "break", "cd", "command", "continue", "echo", "eval", "exec", "exit", "export",
        "false", "fg", "getopts", "hash", "jobs", "kill", "printf", "pwd", "read", "return", "set", "shift", "test",
        "trap", "true", "type", "wait",
    ];
    NAMES.contains(&name)
}

fn base(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn list(words: &[&str], state: &State, world: World<'_>) -> Option<Vec<String>> {
    if words.iter().any(|word| word.starts_with('-') && word.contains('l')) {
        return None;
    }
    let paths: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    let mut lines = Vec::new();
    for path in if paths.is_empty() { vec!["."] } else { paths } {
        let Ok(found) = world.resolve(&state.cwd, path) else { continue };
        match world.rootfs.inode(found.inode).kind {
            InodeKind::Directory(_) => lines.extend(
                world
                    .rootfs
                    .children(found.inode)
                    .filter_map(|(name, _)| std::str::from_utf8(name).ok())
                    .map(str::to_owned),
            ),
            _ => lines.push(path.to_owned()),
        }
    }
    lines.truncate(MAX_LINES);
    Some(lines)
}

/// find(1) with the tests that scripts use to list files: `-type`, `-name`, `-maxdepth`, `-mindepth`, `-follow`, `-print`.
fn find(words: &[&str], state: &State, world: World<'_>) -> Option<Vec<String>> {
    let mut words = words.iter().copied().skip_while(|word| matches!(*word, "-L" | "-H" | "-P")).peekable();
    let mut starts = Vec::new();
    while let Some(word) = words.next_if(|word| !word.starts_with(['-', '(', '!'])) {
        starts.push(word);
    }
    let (mut kind, mut names, mut deepest, mut shallowest) = (None, Vec::new(), usize::MAX, 0);
    while let Some(word) = words.next() {
        match word {
            "-type" => kind = Some(words.next()?),
            "-name" => names.push(words.next()?),
            "-maxdepth" => deepest = words.next()?.parse().ok()?,
            "-mindepth" => shallowest = words.next()?.parse().ok()?,
            "-follow" | "-print" | "-print0" => {}
            _ => return None,
        }
    }
    let mut lines = Vec::new();
    for start in starts {
        let Ok(found) = world.resolve(&state.cwd, start) else { continue };
        let mut ahead = vec![(found, start.trim_end_matches('/').to_owned(), 0)];
        while let Some((found, shown, depth)) = ahead.pop() {
            if lines.len() >= MAX_LINES {
                break;
            }
            let inode = world.rootfs.inode(found.inode);
            let sort = match inode.kind {
                InodeKind::Directory(_) => "d",
                InodeKind::File(_) => "f",
                _ => "?",
            };
            if depth >= shallowest
                && kind.is_none_or(|kind| kind == sort)
                && names.iter().all(|name| matches(name, base(&shown)))
            {
                lines.push(shown.clone());
            }
            if depth < deepest {
                let children: Vec<_> = world.rootfs.children(found.inode).collect();
                for (name, _) in children.into_iter().rev() {
                    let Ok(path) = found.path.join(name) else { continue };
                    let Ok(Resolved { inode, path }) = world.rootfs.resolve(&path) else { continue };
                    // A link to a directory could lead in circles; find does not follow one unless told to.
                    if matches!(world.rootfs.inode(inode).kind, InodeKind::Directory(_))
                        && !path.starts_with(&found.path)
                    {
                        continue;
                    }
                    if let Ok(name) = std::str::from_utf8(name) {
                        ahead.push((Resolved { inode, path }, format!("{shown}/{name}"), depth + 1));
                    }
                }
            }
        }
    }
    Some(lines)
}

/// Files of a folder that run-parts(8) would run: names of letters, digits, `_` and `-` only.
pub(crate) fn run_parts(world: World<'_>, cwd: &ImagePath, folder: &str) -> Vec<String> {
    expand::glob(world.rootfs, cwd, &format!("{}/*", folder.trim_end_matches('/')))
        .into_iter()
        .filter(|path| base(path).chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
        .collect()
}
