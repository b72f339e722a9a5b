//! Directives with braces: a text in, a setting for each directive out, blocks as sections. Words may be quoted; `${NAME}` and
//! `{$NAME}` are parts of words, `=` between two words is dropped.

use std::{iter::Peekable, str::Chars};

use super::{MAX_DEPTH, MAX_SETTINGS, Setting, join, name_of};

/// What ends a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Semicolon,
    Line,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Reads a text; none where its blocks nest too deep.
pub(super) fn read(text: &str, end: End) -> Option<Vec<Setting>> {
    let mut lexer = Lexer { chars: text.chars().peekable(), line: 1, end };
    let (mut settings, mut sections, mut words, mut start) = (Vec::new(), Vec::<String>::new(), Vec::new(), 1);
    while let Some(token) = lexer.next_token() {
        if settings.len() >= MAX_SETTINGS {
            break;
        }
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    start = lexer.line;
                }
                if words.len() != 1 || !matches!(word.as_str(), "=" | "+=" | ":=") {
                    words.push(word);
                }
            }
            Token::Open => {
                if sections.len() >= MAX_DEPTH {
                    return None;
                }
                let name = words.first().cloned().unwrap_or_default();
                flush(&mut settings, &sections, &mut words, start);
                if let Some(last) = settings.last_mut().filter(|_| !name.is_empty()) {
                    last.opens = true;
                }
                sections.push(name_of(&name));
            }
            Token::Close => {
                flush(&mut settings, &sections, &mut words, start);
                sections.pop();
            }
            Token::End => flush(&mut settings, &sections, &mut words, start),
        }
    }
    flush(&mut settings, &sections, &mut words, start);
    Some(settings)
}

fn flush(settings: &mut Vec<Setting>, sections: &[String], words: &mut Vec<String>, line: u32) {
    let mut words = std::mem::take(words).into_iter();
    if let Some(key) = words.next() {
        // nats writes `port: 4222` beside `port = 4222`.
        let key = key.strip_suffix(':').filter(|key| !key.is_empty()).unwrap_or(&key);
        let (path, depth) = (join(sections, key), sections.len());
        settings.push(Setting { path, words: words.collect(), line, depth, opens: false });
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    line: u32,
    end: End,
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(c)
    }

    fn next_token(&mut self) -> Option<Token> {
        loop {
            match self.chars.peek().copied()? {
                '\n' if self.end == End::Line => {
                    // The directive stands on the line that ends here.
                    self.chars.next();
                    self.line = self.line.saturating_add(1);
                    return Some(Token::End);
                }
                c if c.is_whitespace() => {
                    self.bump();
                }
                '#' => {
                    while self.chars.peek().is_some_and(|c| *c != '\n') {
                        self.bump();
                    }
                }
                ';' => {
                    self.bump();
                    return Some(Token::End);
                }
                '}' => {
                    self.bump();
                    return Some(Token::Close);
                }
                '{' if self.opens_block() => {
                    self.bump();
                    return Some(Token::Open);
                }
                '/' if self.comment() => {}
                _ => return Some(Token::Word(self.word())),
            }
        }
    }

    /// Where lines end directives, a brace with text right after it is a placeholder: `{$PORT}`, `{env.PORT}`.
    fn opens_block(&self) -> bool {
        let mut ahead = self.chars.clone();
        ahead.next();
        self.end == End::Semicolon || ahead.peek().is_none_or(|c| c.is_whitespace() || *c == '}')
    }

    /// Passes over `// …` and `/* … */`.
    fn comment(&mut self) -> bool {
        let mut ahead = self.chars.clone();
        ahead.next();
        match ahead.next() {
            Some('/') => {
                while self.chars.peek().is_some_and(|c| *c != '\n') {
                    self.bump();
                }
                true
            }
            Some('*') => {
                let mut star = false;
                self.bump();
                self.bump();
                while let Some(c) = self.bump() {
                    if star && c == '/' {
                        break;
                    }
                    star = c == '*';
                }
                true
            }
            _ => false,
        }
    }

    fn word(&mut self) -> String {
        let (mut word, mut quote, mut placeholder) = (String::new(), None, false);
        while let Some(&c) = self.chars.peek() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), '\\') => {
                    self.bump();
                    word.extend(self.chars.peek());
                }
                (Some(_), c) => word.push(c),
                (None, '"' | '\'' | '`') => quote = Some(c),
                (None, '{') if word.ends_with('$') || self.end == End::Line => {
                    placeholder = true;
                    word.push(c);
                }
                (None, '}') if placeholder => {
                    placeholder = false;
                    word.push(c);
                }
                (None, c) if c.is_whitespace() || matches!(c, ';' | '{' | '}') => break,
                (None, c) => word.push(c),
            }
            self.bump();
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, lines_of};

    #[test]
    fn nginx_directives() {
        assert_eq!(
            lines_of(
                "user www; # x\nhttp{ server {\n listen 80 default_server;\nlog_format a 'x;\n}';listen ${PORT};\n}}",
                Syntax::Semicolons
            ),
            [
                "1 user www",
                "2 http",
                "2 http.server",
                "3 http.server.listen 80|default_server",
                "4 http.server.log_format a|x;\n}",
                "5 http.server.listen ${PORT}"
            ]
        );
    }

    #[test]
    fn named_options_and_comments() {
        assert_eq!(
            lines_of("// a\noptions { /* b */ directory \"/var\"; listen-on port 53 { any; }; };", Syntax::Semicolons),
            ["2 options", "2 options.directory /var", "2 options.listen-on port|53", "2 options.listen-on.any"]
        );
    }

    #[test]
    fn blocks_end_with_their_line() {
        assert_eq!(
            lines_of(
                "{\n\tadmin off\n}\nhttp://:{$PORT:80}, localhost {\n\troot * /srv\n}\nlistener \"tcp\" {\n a = \"b\"\n}",
                Syntax::Blocks
            ),
            [
                "2 .admin off",
                "4 http://:{$PORT:80}, localhost",
                "5 http://:{$PORT:80},.root *|/srv",
                "7 listener tcp",
                "8 listener.a b"
            ]
        );
        assert_eq!(
            lines_of("$SERVER[\"socket\"] == \":81\" {\n}\nserver.port = 80\nserver.x += ( \"a\" )", Syntax::Blocks),
            ["1 $SERVER[socket] ==|:81", "3 server.port 80", "4 server.x (|a|)"]
        );
    }
}
