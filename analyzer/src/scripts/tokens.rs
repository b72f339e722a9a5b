//! A script's text in, its tokens out: names, strings, numbers, signs, each with its line. One lexer for all languages; what they
//! differ in is a table ([`Rules`]). Nothing is understood here, but strings, comments and brackets are never confused.
//!
//! Longer than most modules: it is one state machine.

use std::ops::Range;

/// How a language writes its tokens.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) line_comments: &'static [&'static str],
    pub(super) block_comment: bool,
    /// Lines end statements: Python.
    pub(super) lines: bool,
    /// `'''` and `"""`, and letters before a quote: Python.
    pub(super) prefixed: bool,
    /// What a backtick quotes.
    pub(super) backtick: Kind,
    /// How a `"…"` holds code.
    pub(super) hole: Hole,
    /// A slash may start a regular expression.
    pub(super) regex: bool,
    /// Sigils that start a name.
    pub(super) sigils: &'static [u8],
    /// Signs that may end a name.
    pub(super) endings: &'static [u8],
    /// What announces a here-document.
    pub(super) heredoc: &'static str,
    /// `q(…)`, `s/…/…/`: Perl; `%w(…)`: Ruby.
    pub(super) quote_words: bool,
    pub(super) quote_percent: bool,
    /// Code stands between `<?php` and `?>`.
    pub(super) tagged: bool,
    /// Lines starting with `=word` up to `=cut` or `=end` are documentation, `__END__` ends the program.
    pub(super) pod: bool,
}

/// How a string holds code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hole {
    /// Not at all.
    None,
    /// `{x}`.
    Braces,
    /// `${x}`.
    DollarBraces,
    /// `$x`, `{$x}`, `@x`.
    Dollar,
    /// `#{x}`.
    HashBraces,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Number,
    Sign,
    /// A string; its span is what is between the quotes.
    Text {
        raw: bool,
        hole: Hole,
    },
    /// A list of words in quotes.
    Words,
    /// A command for the shell in quotes.
    Shell,
    /// A regular expression, whose text means nothing here.
    Regex,
    /// The end of a logical line.
    Newline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    start: u32,
    end: u32,
    pub(super) line: u32,
    /// Column of the token's first byte.
    pub(super) column: u32,
}

/// A text with its tokens.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    rules: &'static Rules,
    all: Vec<Token>,
    /// For an opening bracket, the place of the closing one.
    closing: Vec<u32>,
}

/// What stands where a string holds code.
pub(super) const HOLE: char = '\u{fffc}';

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str, rules: &'static Rules) -> Self {
        let mut lexer = Lexer {
            text,
            bytes: text.as_bytes(),
            at: 0,
            line: 1,
            line_start: 0,
            depth: 0,
            rules,
            all: Vec::with_capacity(text.len() / 6),
            heredocs: Vec::new(),
            no_regex_before: 0,
        };
        lexer.run();
        let all = lexer.all;
        let mut closing = vec![u32::MAX; all.len()];
        let mut open: Vec<usize> = Vec::new();
        for (index, token) in all.iter().enumerate() {
            if token.kind != Kind::Sign {
                continue;
            }
            match text.as_bytes().get(token.start as usize) {
                Some(b'(' | b'[' | b'{') => open.push(index),
                Some(b')' | b']' | b'}') => {
                    if let Some(slot) = open.pop().and_then(|at| closing.get_mut(at)) {
                        *slot = u32::try_from(index).unwrap_or(u32::MAX);
                    }
                }
                _ => {}
            }
        }
        Self { text, rules, all, closing }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Token> {
        self.all.get(at)
    }

    /// The token's own text; of a string, what is between its quotes.
    pub(super) fn text(&self, at: usize) -> &'a str {
        self.all.get(at).and_then(|token| self.text.get(token.start as usize..token.end as usize)).unwrap_or_default()
    }

    pub(super) fn is_sign(&self, at: usize, sign: &str) -> bool {
        self.all.get(at).is_some_and(|token| token.kind == Kind::Sign) && self.text(at) == sign
    }

    pub(super) fn is_name(&self, at: usize, name: &str) -> bool {
        self.all.get(at).is_some_and(|token| token.kind == Kind::Name) && self.text(at) == name
    }

    pub(super) fn name(&self, at: usize) -> Option<&'a str> {
        self.all.get(at).filter(|token| token.kind == Kind::Name).map(|_| self.text(at))
    }

    pub(super) fn line(&self, at: usize) -> u32 {
        self.all.get(at).map_or(0, |token| token.line)
    }

    /// The place of the bracket that closes the one at `at`; the end where none does.
    pub(super) fn closing(&self, at: usize) -> usize {
        let found = self.closing.get(at).copied().filter(|found| *found != u32::MAX);
        found.map_or(self.all.len(), |found| found as usize)
    }

    /// A string's value: escapes undone, a [`HOLE`] where it holds code. None for another token.
    pub(super) fn string(&self, at: usize) -> Option<String> {
        matches!(self.all.get(at)?.kind, Kind::Text { .. } | Kind::Shell).then(|| {
            let pieces = self.pieces(at).into_iter().map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Code(_) => HOLE.to_string(),
            });
            pieces.collect()
        })
    }

    /// A string's text and the code in it, in turn.
    pub(super) fn pieces(&self, at: usize) -> Vec<Piece> {
        match self.all.get(at).map(|token| token.kind) {
            Some(Kind::Text { raw, hole }) => decode(self.text(at), raw, hole),
            // Backticks hold code as double quotes do.
            Some(Kind::Shell) => decode(self.text(at), false, self.rules.hole),
            _ => Vec::new(),
        }
    }
}

/// A part of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Code(String),
}

fn decode(text: &str, raw: bool, hole: Hole) -> Vec<Piece> {
    if (raw || !text.contains('\\')) && hole == Hole::None {
        return vec![Piece::Text(text.to_owned())];
    }
    let mut pieces = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(skipped) = hole_at(rest, hole) {
            if !out.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut out)));
            }
            // `{$x}`, `${x}` and `#{x}` without their braces; `$x` is its own name.
            let code = rest.get(..skipped).unwrap_or_default();
            let bare = code.trim_start_matches(['#', '{']).trim_end_matches('}');
            let bare = if code.starts_with("${") && hole == Hole::DollarBraces { bare.get(2..) } else { Some(bare) };
            pieces.push(Piece::Code(bare.unwrap_or_default().trim().to_owned()));
            rest = rest.get(skipped..).unwrap_or_default();
            continue;
        }
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
        if next != '\\' || raw {
            // `{{` is a brace.
            if hole == Hole::Braces && matches!(next, '{' | '}') && rest.starts_with(next) {
                rest = rest.get(1..).unwrap_or_default();
            }
            out.push(next);
            continue;
        }
        let Some(escaped) = rest.chars().next() else { break };
        rest = rest.get(escaped.len_utf8()..).unwrap_or_default();
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '0' => out.push('\0'),
            '\n' => {}
            other => out.push(other),
        }
    }
    if !out.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(out));
    }
    pieces
}

/// The length of the code that a string holds at its start.
fn hole_at(text: &str, hole: Hole) -> Option<usize> {
    let bytes = text.as_bytes();
    let braced = |from: usize| {
        let (mut depth, mut quote) = (0usize, None);
        let mut at = from;
        while let Some(byte) = bytes.get(at).copied() {
            match (byte, quote) {
                (b'\\', _) => at = at.saturating_add(1),
                (byte, Some(open)) => quote = quote.filter(|_| byte != open),
                (b'\'' | b'"' | b'`', None) => quote = Some(byte),
                (b'{', None) => depth = depth.saturating_add(1),
                (b'}', None) if depth <= 1 => return at.saturating_add(1),
                (b'}', None) => depth -= 1,
                _ => {}
            }
            at = at.saturating_add(1);
        }
        bytes.len()
    };
    match (hole, bytes) {
        (Hole::Braces, [b'{', next, ..]) if *next != b'{' => Some(braced(0)),
        (Hole::DollarBraces, [b'$', b'{', ..]) | (Hole::HashBraces, [b'#', b'{', ..]) => Some(braced(1)),
        (Hole::Dollar, [b'{', b'$', ..]) => Some(braced(0)),
        (Hole::Dollar, [b'$', b'{', ..]) => Some(braced(1)),
        (Hole::Dollar, [b'$', next, ..]) if is_name_start(*next) => {
            let end = bytes.iter().skip(1).position(|byte| !is_name_part(*byte));
            Some(end.map_or(bytes.len(), |end| end.saturating_add(1)))
        }
        _ => None,
    }
}

/// Of a here-document: its end word, whether it may be indented, what its text is, and the token that stands for it.
struct Heredoc {
    word: Vec<u8>,
    kind: Kind,
    token: usize,
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    line_start: usize,
    depth: u32,
    rules: &'static Rules,
    all: Vec<Token>,
    heredocs: Vec<Heredoc>,
    /// No regular expression starts before this place: one that did not end was tried, and trying again would be quadratic.
    no_regex_before: usize,
}

impl Lexer<'_> {
    fn run(&mut self) {
        if self.bytes.starts_with(b"#!") {
            self.skip_line();
        }
        if self.rules.tagged {
            self.skip_markup();
        }
        while let Some(byte) = self.peek(0) {
            if self.all.len() >= TOKENS {
                break;
            }
            match byte {
                b'\n' => self.newline(),
                b' ' | b'\t' | b'\r' | b'\x0c' => self.at += 1,
                b'\\' if self.peek(1) == Some(b'\n') => {
                    self.at += 1;
                    self.next_line();
                }
                _ if self.skip_comment() => {}
                _ => self.token(byte),
            }
        }
        if self.rules.lines && self.all.last().is_some_and(|token| token.kind != Kind::Newline) {
            self.push(Kind::Newline, self.at..self.at);
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at.saturating_add(ahead)).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind, span: Range<usize>) {
        self.push_at(kind, span, self.line, self.at);
    }

    fn push_at(&mut self, kind: Kind, span: Range<usize>, line: u32, start: usize) {
        let column = u32::try_from(start.saturating_sub(self.line_start)).unwrap_or(u32::MAX);
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.all.push(Token { kind, start: number(span.start), end: number(span.end), line, column });
    }

    /// Goes over a line's end.
    fn next_line(&mut self) {
        self.at += 1;
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
    }

    fn newline(&mut self) {
        if self.rules.lines && self.depth == 0 && self.all.last().is_some_and(|token| token.kind != Kind::Newline) {
            self.push(Kind::Newline, self.at..self.at);
        }
        self.next_line();
        for heredoc in std::mem::take(&mut self.heredocs) {
            self.heredoc_body(&heredoc);
        }
        if self.rules.pod && self.peek(0) == Some(b'=') && self.peek(1).is_some_and(|byte| byte.is_ascii_alphabetic()) {
            while self.at < self.bytes.len() {
                let is_end = self.rest().starts_with(b"=cut") || self.rest().starts_with(b"=end");
                self.skip_line();
                if self.at < self.bytes.len() {
                    self.next_line();
                }
                if is_end {
                    break;
                }
            }
        }
        if self.rules.pod && (self.rest().starts_with(b"__END__") || self.rest().starts_with(b"__DATA__")) {
            self.at = self.bytes.len();
        }
    }

    fn skip_line(&mut self) {
        self.at = memchr::memchr(b'\n', self.rest()).map_or(self.bytes.len(), |end| self.at + end);
    }

    /// Goes to `to`, counting lines.
    fn skip_to(&mut self, to: usize) {
        let to = to.min(self.bytes.len());
        let between = self.bytes.get(self.at..to).unwrap_or_default();
        let mut count = 0u32;
        for end in memchr::memchr_iter(b'\n', between) {
            count = count.saturating_add(1);
            self.line_start = self.at + end + 1;
        }
        self.line = self.line.saturating_add(count);
        self.at = to;
    }

    /// Markup up to the next `<?php` or `<?=`.
    fn skip_markup(&mut self) {
        let end = memchr::memmem::find(self.rest(), b"<?").map_or(self.bytes.len(), |end| self.at + end);
        self.skip_to(end);
        for tag in ["<?php", "<?=", "<?"] {
            if self.rest().starts_with(tag.as_bytes()) {
                self.at += tag.len();
                return;
            }
        }
    }

    fn skip_comment(&mut self) -> bool {
        if self.rules.block_comment && self.rest().starts_with(b"/*") {
            let body = self.bytes.get(self.at + 2..).unwrap_or_default();
            let end = memchr::memmem::find(body, b"*/").map_or(self.bytes.len(), |end| self.at + end + 4);
            self.skip_to(end);
            return true;
        }
        let starts = self.rules.line_comments.iter().any(|sign| self.rest().starts_with(sign.as_bytes()));
        // PHP's `#[` is an attribute.
        if !starts || (self.rules.tagged && self.rest().starts_with(b"#[")) {
            return false;
        }
        let start = self.at;
        self.skip_line();
        if self.rules.tagged {
            let comment = self.bytes.get(start..self.at).unwrap_or_default();
            if let Some(end) = memchr::memmem::find(comment, b"?>") {
                self.at = start + end;
            }
        }
        true
    }

    fn token(&mut self, byte: u8) {
        if self.rules.tagged && self.rest().starts_with(b"?>") {
            self.push(Kind::Sign, self.at..self.at);
            self.at += 2;
            self.skip_markup();
        } else if self.rules.prefixed && self.prefixed_string() {
        } else if byte == b'\'' || byte == b'"' {
            let hole = if byte == b'"' { self.rules.hole } else { Hole::None };
            // A `'…'` of these languages undoes only `\\` and `\'`.
            let raw = byte == b'\'' && matches!(self.rules.hole, Hole::Dollar | Hole::HashBraces);
            self.quoted(byte, Kind::Text { raw, hole });
        } else if byte == b'`' {
            self.quoted(byte, self.rules.backtick);
        } else if self.rules.sigils.contains(&byte) && self.sigil_name() {
        } else if is_name_start(byte) {
            self.name();
        } else if byte.is_ascii_digit() {
            let end = self.rest().iter().position(|byte| !is_name_part(*byte)).unwrap_or(self.rest().len());
            self.push(Kind::Number, self.at..self.at + end);
            self.at += end;
        } else {
            let taken = (!self.rules.heredoc.is_empty() && self.heredoc_start())
                || (byte == b'%' && self.rules.quote_percent && self.percent_quote())
                || (byte == b'/' && self.rules.regex && self.may_start_regex() && self.regex());
            if !taken {
                self.sign(byte);
            }
        }
    }

    fn sign(&mut self, byte: u8) {
        match byte {
            b'(' | b'[' | b'{' => self.depth = self.depth.saturating_add(1),
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        let may_be_long = self.peek(1).is_some_and(|next| b"=>.:?|&~".contains(&next));
        let sign = SIGNS.iter().find(|sign| may_be_long && self.rest().starts_with(sign.as_bytes()));
        let len = sign.map_or_else(
            || self.text.get(self.at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8),
            |sign| sign.len(),
        );
        self.push(Kind::Sign, self.at..self.at + len);
        self.at += len;
    }

    fn name(&mut self) {
        let mut end = self.rest().iter().position(|byte| !is_name_part(*byte)).unwrap_or(self.rest().len());
        let ending = self.rest().get(end).copied();
        if ending.is_some_and(|byte| self.rules.endings.contains(&byte)) && self.rest().get(end + 1) != Some(&b'=') {
            end += 1;
        }
        if self.rules.quote_words && self.quote_word(end) {
            return;
        }
        self.push(Kind::Name, self.at..self.at + end);
        self.at += end;
    }

    /// `$name`, `@name`, and Perl's variables of one sign such as `$'`.
    fn sigil_name(&mut self) -> bool {
        let body = self.bytes.get(self.at + 1..).unwrap_or_default();
        let mut len = body.iter().position(|byte| !is_name_part(*byte)).unwrap_or(body.len());
        if len == 0 {
            let special = self.rules.quote_words
                && self.peek(0) == Some(b'$')
                && body.first().is_some_and(|byte| b"'\"`/\\!@&;.,0#$".contains(byte));
            if !special {
                return false;
            }
            len = 1;
        }
        self.push(Kind::Name, self.at..self.at + 1 + len);
        self.at += 1 + len;
        true
    }

    /// Python's strings: letters, then one or three quotes.
    fn prefixed_string(&mut self) -> bool {
        let letters = self.rest().iter().take(3).position(|byte| !b"rRbBuUfFtT".contains(byte)).unwrap_or(3);
        let Some(quote @ (b'\'' | b'"')) = self.peek(letters) else { return false };
        let prefix = self.rest().get(..letters).unwrap_or_default();
        let has = |letter: u8| prefix.iter().any(|byte| byte.eq_ignore_ascii_case(&letter));
        let hole = if has(b'f') || has(b't') { Hole::Braces } else { Hole::None };
        let kind = Kind::Text { raw: has(b'r'), hole };
        let start = self.at;
        self.at += letters;
        let triple = [quote, quote, quote];
        if !self.rest().starts_with(&triple) {
            self.quoted_from(quote, kind, start);
            return true;
        }
        let (line, body) = (self.line, self.at + 3);
        let mut at = body;
        loop {
            let tail = self.bytes.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\\', quote, tail) else {
                at = self.bytes.len();
                break;
            };
            at += found;
            if self.bytes.get(at) == Some(&b'\\') {
                at += 2;
            } else if self.bytes.get(at..).is_some_and(|tail| tail.starts_with(&triple)) {
                break;
            } else {
                at += 1;
            }
        }
        let end = at.min(self.bytes.len());
        self.push_at(kind, body..end, line, start);
        self.skip_to(end + 3);
        true
    }

    fn quoted(&mut self, quote: u8, kind: Kind) {
        self.quoted_from(quote, kind, self.at);
    }

    fn quoted_from(&mut self, quote: u8, kind: Kind, start: usize) {
        let (line, body) = (self.line, self.at + 1);
        let hole = match kind {
            Kind::Text { hole, .. } => hole,
            _ => Hole::None,
        };
        let one_line = quote != b'`' && matches!(self.rules.hole, Hole::None);
        let end = self.string_end(body, quote, hole, one_line, 0);
        self.push_at(kind, body..end, line, start);
        let closed = self.bytes.get(end) == Some(&quote);
        self.skip_to(if closed { end + 1 } else { end });
    }

    /// Where a string that starts at `at` ends: its closing quote, or its line's end where it must not go beyond.
    fn string_end(&self, mut at: usize, quote: u8, hole: Hole, one_line: bool, depth: u32) -> usize {
        while let Some(byte) = self.bytes.get(at).copied() {
            let next = self.bytes.get(at + 1).copied();
            match byte {
                b'\\' => at += 1,
                b'\n' if one_line => return at,
                byte if byte == quote => return at,
                b'{' if hole == Hole::Braces && next == Some(b'{') => at += 1,
                b'{' if hole == Hole::Braces => at = self.code_end(at + 1, one_line, depth),
                b'$' if hole == Hole::DollarBraces && next == Some(b'{') => {
                    at = self.code_end(at + 2, one_line, depth);
                }
                b'#' if hole == Hole::HashBraces && next == Some(b'{') => at = self.code_end(at + 2, one_line, depth),
                b'{' if hole == Hole::Dollar && next == Some(b'$') => at = self.code_end(at + 2, one_line, depth),
                _ => {}
            }
            at += 1;
        }
        self.bytes.len()
    }

    /// Where code inside a string ends: at its closing brace, strings in it skipped.
    fn code_end(&self, mut at: usize, one_line: bool, depth: u32) -> usize {
        let mut open = 0u32;
        while let Some(byte) = self.bytes.get(at).copied() {
            match byte {
                b'{' => open = open.saturating_add(1),
                b'}' if open == 0 => return at,
                b'}' => open -= 1,
                b'\n' if one_line => return at.saturating_sub(1),
                b'\'' | b'"' | b'`' if depth < NESTING => {
                    let hole = if byte == b'`' { Hole::DollarBraces } else { self.rules.hole };
                    at = self.string_end(at + 1, byte, hole, byte != b'`', depth + 1);
                }
                _ => {}
            }
            at += 1;
        }
        self.bytes.len()
    }

    /// Whether a slash here starts a regular expression and divides nothing.
    fn may_start_regex(&self) -> bool {
        let Some(last) = self.all.last() else { return true };
        let text = self.text.get(last.start as usize..last.end as usize).unwrap_or_default();
        match last.kind {
            Kind::Name => BEFORE_VALUE.contains(&text),
            // Perl's `$a{b} / 2` is common, a block before an expression is not.
            Kind::Sign => text != ")" && text != "]" && (text != "}" || !self.rules.quote_words),
            Kind::Newline => true,
            _ => false,
        }
    }

    fn regex(&mut self) -> bool {
        if self.at < self.no_regex_before {
            return false;
        }
        let (mut at, mut in_class) = (self.at + 1, false);
        loop {
            match self.bytes.get(at) {
                None | Some(b'\n') => {
                    self.no_regex_before = at;
                    return false;
                }
                Some(b'\\') => at += 1,
                Some(b'[') => in_class = true,
                Some(b']') => in_class = false,
                Some(b'/') if !in_class => break,
                _ => {}
            }
            at += 1;
        }
        self.push(Kind::Regex, self.at + 1..at);
        self.at = at + 1;
        self.skip_letters();
        true
    }

    fn skip_letters(&mut self) {
        self.at += self.rest().iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(self.rest().len());
    }

    /// Perl's `q`, `qq`, `qw`, `qx`, `qr`, `m`, `s`, `tr`, `y`.
    fn quote_word(&mut self, len: usize) -> bool {
        let word = self.rest().get(..len).unwrap_or_default();
        let (kind, parts) = match word {
            b"q" => (Kind::Text { raw: true, hole: Hole::None }, 1),
            b"qq" => (Kind::Text { raw: false, hole: Hole::Dollar }, 1),
            b"qw" => (Kind::Words, 1),
            b"qx" => (Kind::Shell, 1),
            b"qr" | b"m" => (Kind::Regex, 1),
            b"s" | b"tr" | b"y" => (Kind::Regex, 2),
            _ => return false,
        };
        if self.all.last().is_some_and(|token| {
            let text = self.text.get(token.start as usize..token.end as usize);
            text == Some("->") || text == Some("sub") || (text == Some("{") && self.peek(len) == Some(b'}'))
        }) {
            return false;
        }
        let mut at = self.at + len;
        while self.bytes.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n')) {
            at += 1;
        }
        let Some(open) = self.bytes.get(at).copied() else { return false };
        let spaced = at > self.at + len;
        let is_key = self.bytes.get(at..).is_some_and(|rest| rest.starts_with(b"=>") || rest.starts_with(b"= "));
        if is_name_part(open) || matches!(open, b',' | b';' | b')' | b'>') || is_key || (open == b'#' && spaced) {
            return false;
        }
        let (line, start) = (self.line, self.at);
        let end = self.delimited(at + 1, open);
        self.push_at(kind, at + 1..end, line, start);
        let mut last = end;
        if parts == 2 {
            let mut second = end;
            if closer(open) != open {
                second += 1;
                while self.bytes.get(second).is_some_and(u8::is_ascii_whitespace) {
                    second += 1;
                }
            }
            last = self.delimited(second + 1, self.bytes.get(second).copied().unwrap_or(open));
        }
        self.skip_to(last + 1);
        if kind == Kind::Regex {
            self.skip_letters();
        }
        true
    }

    /// Ruby's `%w(…)`, `%q(…)`, `%(…)`.
    fn percent_quote(&mut self) -> bool {
        let letter = self.peek(1).unwrap_or_default();
        let plain = matches!(letter, b'(' | b'[' | b'{' | b'<') && self.may_start_regex();
        let (kind, open) = match letter {
            b'w' | b'W' | b'i' | b'I' => (Kind::Words, self.at + 2),
            b'q' => (Kind::Text { raw: true, hole: Hole::None }, self.at + 2),
            b'Q' => (Kind::Text { raw: false, hole: Hole::HashBraces }, self.at + 2),
            b'x' => (Kind::Shell, self.at + 2),
            b'r' => (Kind::Regex, self.at + 2),
            _ if plain => (Kind::Text { raw: false, hole: Hole::HashBraces }, self.at + 1),
            _ => return false,
        };
        let Some(sign @ (b'(' | b'[' | b'{' | b'<' | b'|' | b'!' | b'/')) = self.bytes.get(open).copied() else {
            return false;
        };
        let (line, start) = (self.line, self.at);
        let end = self.delimited(open + 1, sign);
        self.push_at(kind, open + 1..end, line, start);
        self.skip_to(end + 1);
        true
    }

    /// Where a quote opened by `open` ends; brackets nest.
    fn delimited(&self, mut at: usize, open: u8) -> usize {
        let close = closer(open);
        let mut depth = 0u32;
        while let Some(byte) = self.bytes.get(at).copied() {
            if byte == b'\\' {
                at += 1;
            } else if byte == close {
                if depth == 0 {
                    return at;
                }
                depth -= 1;
            } else if byte == open {
                depth = depth.saturating_add(1);
            }
            at += 1;
        }
        self.bytes.len()
    }

    /// `<<~"WORD"`: the text begins with the next line.
    fn heredoc_start(&mut self) -> bool {
        let Some(mut rest) = self.rest().strip_prefix(self.rules.heredoc.as_bytes()) else { return false };
        let before = rest.len();
        let loose = self.rules.tagged;
        if let [b'~' | b'-', tail @ ..] = rest {
            rest = tail;
        }
        while loose && rest.first() == Some(&b' ') {
            rest = rest.get(1..).unwrap_or_default();
        }
        let quote = rest.first().copied().filter(|byte| matches!(byte, b'\'' | b'"'));
        if quote.is_some() {
            rest = rest.get(1..).unwrap_or_default();
        }
        let len = rest.iter().position(|byte| !is_name_part(*byte)).unwrap_or(rest.len());
        let starts = rest.first().is_some_and(|byte| byte.is_ascii_uppercase() || *byte == b'_' || quote.is_some());
        if len == 0 || !starts || (quote.is_some() && rest.get(len) != quote.as_ref()) {
            return false;
        }
        let word = rest.get(..len).unwrap_or_default().to_vec();
        let taken = before - rest.len() + len + usize::from(quote.is_some()) + self.rules.heredoc.len();
        let raw = quote == Some(b'\'');
        let kind = Kind::Text { raw, hole: if raw { Hole::None } else { self.rules.hole } };
        self.push(kind, self.at..self.at);
        self.heredocs.push(Heredoc { word, kind, token: self.all.len().saturating_sub(1) });
        self.at += taken;
        true
    }

    fn heredoc_body(&mut self, heredoc: &Heredoc) {
        let start = self.at;
        while self.at < self.bytes.len() {
            let line_at = self.at;
            self.skip_line();
            let line = self.bytes.get(line_at..self.at).unwrap_or_default().trim_ascii_start();
            let tail = line.strip_prefix(heredoc.word.as_slice());
            if tail.is_some_and(|tail| tail.first().is_none_or(|byte| !is_name_part(*byte))) {
                if let Some(token) = self.all.get_mut(heredoc.token) {
                    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                    *token = Token { kind: heredoc.kind, start: number(start), end: number(line_at), ..*token };
                }
                self.at = line_at + (self.at - line_at) - tail.map_or(0, <[u8]>::len);
                return;
            }
            if self.at < self.bytes.len() {
                self.next_line();
            }
        }
    }
}

fn closer(open: u8) -> u8 {
    match open {
        b'(' => b')',
        b'[' => b']',
        b'{' => b'}',
        b'<' => b'>',
        other => other,
    }
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit()
}

/// Signs of more than one byte that matter; longer ones first.
const SIGNS: &[&str] = &[
    "===", "!==", "**=", "...", "||=", "??=", "->", "=>", "::", "?.", "?:", "||", "&&", "??", "==", "!=", "<=", ">=",
    ":=", "=~", "+=", "-=", ".=", "|=",
];
/// Words after which a value follows, so that a slash starts a regular expression.
const BEFORE_VALUE: &[&str] = &[
    "return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else", "do", "and", "or", "not", "if",
    "unless", "while", "until", "when", "split", "grep", "x", "yield", "await",
];
/// Strings in code in strings.
const NESTING: u32 = 8;
/// Tokens of one file: text of 4 MiB has less.
const TOKENS: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::super::{node, perl, php, python, ruby};
    use super::*;

    /// Tokens on one line, strings in `'…'`, newlines as `;`.
    fn shown(text: &str, rules: &'static Rules) -> String {
        let tokens = Tokens::new(text, rules);
        let all = (0..tokens.len()).map(|at| match tokens.get(at).map(|token| token.kind) {
            Some(Kind::Text { .. }) => format!("'{}'", tokens.string(at).unwrap_or_default().replace(HOLE, "*")),
            Some(Kind::Regex) => "/…/".to_owned(),
            Some(Kind::Words) => format!("[{}]", tokens.text(at)),
            Some(Kind::Shell) => format!("`{}`", tokens.text(at)),
            Some(Kind::Newline) => "¶".to_owned(),
            _ => tokens.text(at).to_owned(),
        });
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn python_strings_lines_and_brackets() {
        let text = "#!/usr/bin/python3\nx = f'a{b[\"c\"]}{{d}}' # it's\ny = (1,\n  '''q'\n''', r'\\n')\nz = \\\n  1\n";
        assert_eq!(shown(text, &python::RULES), "x = 'a*{d}' ¶ y = ( 1 , 'q'\n' , '\\n' ) ¶ z = 1 ¶");
        let tokens = Tokens::new(text, &python::RULES);
        let last = (0..tokens.len()).find(|at| tokens.is_name(*at, "z")).map(|at| tokens.line(at));
        assert_eq!(last, Some(6));
    }

    #[test]
    fn javascript_templates_and_regular_expressions() {
        let text =
            "a = `x${f(`y${\"}\"}`)}z`; b = /['\"/]/g; c = d / e / 'f'; /* ' */ return /\\//.test(\"g\\\"h\") // '\n";
        assert_eq!(shown(text, &node::RULES), "a = 'x*z' ; b = /…/ ; c = d / e / 'f' ; return /…/ . test ( 'g\"h' )");
    }

    #[test]
    fn php_markup_heredocs_and_attributes() {
        let text = "<b>it's</b><?php // x ?>'<?php\n#[A]\n$a = <<<EOT\nhi $name 'x'\n  EOT . 'b'; `ls -l`;";
        assert_eq!(shown(text, &php::RULES), " # [ A ] $a = 'hi * 'x'\n' . 'b' ; `ls -l` ;");
    }

    #[test]
    fn perl_quotes_and_pod() {
        let text = "my @a = qw(a b);\n=pod\n\nit's\n\n=cut\ns{a'}{b'}g; $x =~ m/'/; $h{s}; y => 1; print <<'E', 1;\n$'\nE\nq{c{d}e}; $' . $\"\n__END__\n'";
        assert_eq!(
            shown(text, &perl::RULES),
            "my @a = [a b] ; /…/ ; $x =~ /…/ ; $h { s } ; y => 1 ; print '$'\n' , 1 ; 'c{d}e' ; $' . $\""
        );
    }

    #[test]
    fn ruby_quotes() {
        let text =
            "a = %w[x y]; b = \"q#{c[\"}\"]}\"; d = 4 % e; empty? && f = <<~T\n  it's\n  T\n=begin\n'\n=end\ng!\n";
        assert_eq!(shown(text, &ruby::RULES), "a = [x y] ; b = 'q*' ; d = 4 % e ; empty? && f = '  it's\n' g!");
    }

    #[test]
    fn what_never_ends_ends_with_the_text() {
        let openers =
            ["'", "\"", "`", "'''", "f'{", "`${", "/*", "<<<X\n", "<<X\n", "q(", "%w(", "s/", "s{a}", "=pod\n", "<?"];
        for opener in openers {
            for rules in [&python::RULES, &node::RULES, &perl::RULES, &php::RULES, &ruby::RULES] {
                for count in [1, 3, 2_000] {
                    let text = format!("<?php\n{}", opener.repeat(count));
                    assert!(Tokens::new(&text, rules).len() <= text.len() + 1);
                }
            }
        }
    }

    #[test]
    fn closing_brackets_are_known() {
        let tokens = Tokens::new("f(a[1], {b: (2)}) + ]", &node::RULES);
        assert_eq!(tokens.text(tokens.closing(1)), ")");
        assert_eq!(tokens.closing(1), 16 - 2);
        assert_eq!(Tokens::new("f(", &node::RULES).closing(1), 2);
    }
}
