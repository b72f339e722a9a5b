//! Lines of words: a text in, a setting for each line out. One reader for five styles, because they differ only in what ends a
//! key and what opens a section.

use super::{MAX_SETTINGS, Setting, Syntax, join, name_of, split};

pub(super) fn read(text: &str, syntax: Syntax) -> Vec<Setting> {
    let (mut settings, mut sections) = (Vec::new(), Vec::<String>::new());
    for (line, text) in logical_lines(text, syntax) {
        let indented = text.starts_with([' ', '\t']);
        let text = text.trim();
        if settings.len() >= MAX_SETTINGS {
            break;
        }
        if text.is_empty() || text.starts_with('#') || (text.starts_with(';') && syntax == Syntax::Equals) {
            continue;
        }
        let mut add = |sections: &[String], key: &str, words: Vec<String>| {
            let depth = sections.len();
            settings.push(Setting { path: join(sections, key), words, line, depth, opens: false });
        };
        if let Some(name) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            sections = vec![name_of(name.0.trim())];
            continue;
        }
        if let Some(tag) = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')) {
            // <VirtualHost *:80>, <IfModule ssl_module>, </VirtualHost>; the end of a condition is told too.
            if let Some(name) = tag.strip_prefix('/') {
                if is_condition(name.trim()) {
                    add(&[], &format!("/{}", name.trim()), Vec::new());
                }
                sections.pop();
            } else if sections.len() < super::MAX_DEPTH {
                let mut words = split(tag).into_iter();
                let name = words.next().unwrap_or_default();
                let words = words.collect();
                add(&[], &name, words);
                sections.push(name_of(&name));
            }
            continue;
        }
        match syntax {
            Syntax::Columns => add(&[], "service", split(text)),
            Syntax::Indented => {
                let mut words = split(without_comment(text)).into_iter();
                let key = words.next().unwrap_or_default();
                let words: Vec<String> = words.collect();
                if indented || !SECTIONS.contains(&key.as_str()) {
                    add(&sections, &key, words);
                } else {
                    add(&[], &key, words);
                    sections = vec![name_of(&key)];
                }
            }
            Syntax::Colons => {
                let Some((key, value)) = without_comment(text).split_once(':') else { continue };
                let words = split(value);
                if words.is_empty() {
                    sections = vec![name_of(key.trim())];
                } else {
                    add(&sections, key.trim(), words);
                }
            }
            Syntax::Equals => {
                let text = without_comment(text);
                // postgres allows white space in place of `=`; `!include file` and `skip-networking` have none.
                let (key, value) =
                    text.split_once('=').or_else(|| text.split_once(char::is_whitespace)).unwrap_or((text, ""));
                add(&sections, key.trim().trim_end_matches('+').trim(), values(value.trim()));
            }
            _ => {
                let mut words = split(without_comment(text)).into_iter();
                let Some(key) = words.next() else { continue };
                let words: Vec<String> = words.collect();
                if key.eq_ignore_ascii_case("match") {
                    // sshd: the rest of the file holds for some only.
                    sections = vec![key];
                    continue;
                }
                // Apache and proftpd: settings in a section that is only a condition are settings of the server.
                let within = sections.iter().filter(|name| !is_condition(name));
                let within: Vec<String> = within.cloned().collect();
                add(&within, &key, words);
            }
        }
    }
    settings
}

/// Sections of haproxy's configuration (its Configuration Manual, 4 and on).
const SECTIONS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "fcgi-app",
    "crt-store",
    "traces",
];

/// Sections of apache and proftpd that only ask whether a module or define is there.
const CONDITIONS: &[&str] = &["ifmodule", "ifdefine", "ifversion", "ifclass", "else", "if"];

fn is_condition(name: &str) -> bool {
    CONDITIONS.contains(&name.to_ascii_lowercase().as_str())
}

/// One word for the whole value, its quotes and brackets removed, and each element of a list.
fn values(value: &str) -> Vec<String> {
    let quoted = |text: &str| {
        let text = text.trim();
        let inner = ['"', '\''].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q));
        inner.unwrap_or(text).to_owned()
    };
    match ['[', '('].into_iter().zip([']', ')']).find_map(|(open, end)| value.strip_prefix(open)?.strip_suffix(end)) {
        Some(list) => list.split(',').map(quoted).filter(|text| !text.is_empty()).collect(),
        None => vec![quoted(value)],
    }
}

/// A comment starts at a `#` (or ` ;`) after white space, outside quotes.
fn without_comment(text: &str) -> &str {
    let (mut quote, mut blank) = (None, true);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#' | ';') if blank => return text.get(..at).unwrap_or(text),
            _ => {}
        }
        blank = c.is_whitespace();
    }
    text
}

/// Lines with their numbers; a backslash at the end joins the next one, and so does indentation in columns.
fn logical_lines(text: &str, syntax: Syntax) -> Vec<(u32, String)> {
    let mut lines: Vec<(u32, String)> = Vec::new();
    let mut open = false;
    for (number, line) in (1u32..).zip(text.lines()) {
        let continued = open || (syntax == Syntax::Columns && line.starts_with([' ', '\t']));
        let body = line.trim_end();
        open = body.ends_with('\\') && !body.trim_start().starts_with('#');
        let body = body.strip_suffix('\\').filter(|_| open).unwrap_or(body);
        match lines.last_mut() {
            Some((_, last)) if continued => {
                last.push(' ');
                last.push_str(body.trim_start());
            }
            _ => lines.push((number, body.to_owned())),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, lines_of};

    #[test]
    fn words_and_their_sections() {
        assert_eq!(
            lines_of("# no\nPort 22\n  bind 127.0.0.1 \"::1\" # note\nMatch User x\nPort 23\n", Syntax::Words),
            ["2 Port 22", "3 bind 127.0.0.1|::1", "5 Match.Port 23"]
        );
        assert_eq!(
            lines_of(
                "<IfModule ssl>\nListen 443\n</IfModule>\n<VirtualHost *:80>\nErrorLog a\\\nb\n</VirtualHost>\nX y",
                Syntax::Words
            ),
            [
                "1 IfModule ssl",
                "2 Listen 443",
                "3 /IfModule",
                "4 VirtualHost *:80",
                "5 VirtualHost.ErrorLog a|b",
                "8 X y"
            ]
        );
    }

    #[test]
    fn equals_with_sections_lists_and_comments() {
        assert_eq!(
            lines_of(
                "port=1 ; x\n[mysqld]\nskip-networking\n!includedir /etc/x\nb = ['a:1', \"b:2\"] # c\n;d=1\ns = 'a b'",
                Syntax::Equals
            ),
            [
                "1 port 1",
                "3 mysqld.skip-networking",
                "4 mysqld.!includedir /etc/x",
                "5 mysqld.b a:1|b:2",
                "7 mysqld.s a b"
            ]
        );
    }

    #[test]
    fn colons_open_sections() {
        assert_eq!(
            lines_of("server:\n  interface: ::1@54\n  chroot: \"\"\nremote-control:\n  port: 1 # x", Syntax::Colons),
            ["2 server.interface ::1@54", "3 server.chroot", "5 remote-control.port 1"]
        );
    }

    #[test]
    fn indented_sections_and_columns() {
        assert_eq!(
            lines_of("global\n  user haproxy\nfrontend web\n  bind :80", Syntax::Indented),
            ["1 global", "2 global.user haproxy", "3 frontend web", "4 frontend.bind :80"]
        );
        assert_eq!(
            lines_of("smtp inet n - y - - smtpd\n  -o a=b\n#x\n", Syntax::Columns),
            ["1 service smtp|inet|n|-|y|-|-|smtpd|-o|a=b"]
        );
    }
}
