//! Tables of cron(8): a table's text in, the commands it has cron run, with the lines they stand on, out.
//!
//! Sources: crontab(5) of Debian's cron and of cronie; busybox's `crond.c`.

use crate::{shell::Arg, wrappers::Inner};

/// Tables whose lines name the user that a command is run as.
pub(crate) const SYSTEM: [(&str, &str); 2] = [("/etc", "crontab"), ("/etc/cron.d", "*")];
/// Folders of users' tables, each named by its user.
pub(crate) const USERS: [&str; 3] = ["/var/spool/cron/crontabs", "/var/spool/cron", "/etc/crontabs"];

/// Whose table it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table<'a> {
    /// The system's: each line names a user.
    System,
    /// This user's.
    Of(&'a str),
    /// Of whoever runs the program that reads it.
    Own,
}

/// The commands of a table.
pub(crate) fn commands(text: &str, table: Table<'_>) -> Vec<(u32, Inner)> {
    let mut env: Vec<(String, Arg)> = Vec::new();
    let mut shell = "/bin/sh".to_owned();
    let mut found = Vec::new();
    for (number, line) in (1u32..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = setting(line) {
            if name == "SHELL" {
                value.clone_into(&mut shell);
            }
            env.push((name.to_owned(), Some(value.to_owned())));
            continue;
        }
        let fields = if line.starts_with('@') { 1 } else { 5 };
        let Some(rest) = skip(line, fields) else { continue };
        let (user, command) = match table {
            Table::System => match rest.split_once(char::is_whitespace) {
                Some((user, command)) => (Some(user.to_owned()), command.trim_start()),
                None => continue,
            },
            Table::Of(user) => (Some(user.to_owned()), rest),
            Table::Own => (None, rest),
        };
        // What follows a bare `%` is the command's input.
        let argv = [shell.as_str(), "-c", until_percent(command).as_str()].map(|word| Some(word.to_owned())).to_vec();
        found.push((number, Inner { argv, user, env: env.clone(), ..Inner::default() }));
    }
    found
}

/// `NAME = value`, perhaps in quotes.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (name, value.trim().trim_matches(['"', '\''])))
}

/// What follows so many words.
fn skip(line: &str, words: usize) -> Option<&str> {
    let mut rest = line;
    for _ in 0..words {
        let (_, after) = rest.split_once(char::is_whitespace)?;
        rest = after.trim_start();
    }
    (!rest.is_empty()).then_some(rest)
}

fn until_percent(command: &str) -> String {
    let mut text = String::with_capacity(command.len());
    let mut letters = command.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&'%') => text.extend(letters.next()),
            '%' => break,
            _ => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, table: Table<'_>) -> Vec<String> {
        let show = |(line, inner): (u32, Inner)| {
            let words: Vec<String> = inner.argv.into_iter().flatten().collect();
            format!("{line} {} {}", inner.user.unwrap_or_default(), words.join(" "))
        };
        commands(text, table).into_iter().map(show).collect()
    }

    #[test]
    fn lines_of_a_table() {
        let system = "# all\nSHELL=/bin/bash\nPATH = /bin\n\n*/5 * * * *\troot\tapp --x >> /log 2>&1\n@daily web date +\\%s%input\n* * * * root\n";
        assert_eq!(
            shown(system, Table::System),
            ["5 root /bin/bash -c app --x >> /log 2>&1", "6 web /bin/bash -c date +%s"]
        );
        assert_eq!(shown("0 0 1 * * env A=1 app\n", Table::Of("web")), ["1 web /bin/sh -c env A=1 app"]);
        assert_eq!(shown("@reboot app", Table::Own), ["1  /bin/sh -c app"]);
    }

    #[test]
    fn broken_tables_end() {
        for text in ["", "*", "* * * * *", "@", "@x", "=", "A=", "\u{0}\u{0}", "* * * * * \\"] {
            for table in [Table::System, Table::Own] {
                let _ = commands(text, table);
            }
        }
    }
}
