//! YAML (and JSON, which is a part of it) and TOML: a text in, a setting for each scalar out. Elements of a list share their
//! list's path; lines are found by searching, because the readers do not tell them.

use serde_json::Value;

use super::{MAX_DEPTH, MAX_SETTINGS, Setting, join, name_of};

/// Reads every document of a YAML text; none where one does not parse.
pub(super) fn yaml(text: &str) -> Option<Vec<Setting>> {
    // The reader recurses: bound what it sees. Indentation cannot nest deeper than a line is long.
    let nested = text.matches(['[', '{']).count();
    if nested > MAX_NESTED_BRACKETS {
        return None;
    }
    let mut flat = Flat::new(text);
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = serde::Deserialize::deserialize(document).ok()?;
        flat.add(&mut Vec::new(), &value);
    }
    Some(flat.settings)
}

/// Reads a TOML text; none where it does not parse.
pub(super) fn toml(text: &str) -> Option<Vec<Setting>> {
    let mut flat = Flat::new(text);
    flat.add(&mut Vec::new(), &toml::from_str(text).ok()?);
    Some(flat.settings)
}

/// Brackets of one YAML text: a configuration in JSON has some thousands.
const MAX_NESTED_BRACKETS: usize = 5_000;

struct Flat<'a> {
    lines: Vec<&'a str>,
    settings: Vec<Setting>,
}

impl<'a> Flat<'a> {
    fn new(text: &'a str) -> Self {
        Self { lines: text.lines().collect(), settings: Vec::new() }
    }

    fn add(&mut self, sections: &mut Vec<String>, value: &Value) {
        if sections.len() > MAX_DEPTH || self.settings.len() >= MAX_SETTINGS {
            return;
        }
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    sections.push(name_of(key));
                    self.add(sections, value);
                    sections.pop();
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(sections, item)),
            Value::Null => self.push(sections, String::new()),
            Value::String(text) => self.push(sections, text.clone()),
            scalar => self.push(sections, scalar.to_string()),
        }
    }

    fn push(&mut self, sections: &[String], word: String) {
        let key = sections.last().map(String::as_str).unwrap_or_default();
        let key = key.rsplit('.').next().unwrap_or(key);
        let searched = if self.settings.len() < MAX_SEARCHES { MAX_SEARCHED_LINES } else { 0 };
        let numbered = || (1u32..).zip(&self.lines).take(searched);
        let line = numbered().find(|(_, line)| line.contains(key) && line.contains(&word));
        let line = line.or_else(|| numbered().find(|(_, line)| line.contains(&word))).map_or(0, |(number, _)| number);
        let (path, depth) = (join(&[], &sections.join(".")), sections.len().saturating_sub(1));
        self.settings.push(Setting { path, words: vec![word], line, depth, opens: false });
    }
}

/// Settings whose line is searched for.
const MAX_SEARCHES: usize = 1_000;

/// Lines searched for one setting.
const MAX_SEARCHED_LINES: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::super::{Syntax, lines_of};

    #[test]
    fn scalars_have_the_path_of_their_keys() {
        assert_eq!(
            lines_of("net:\n  port: 27018\n  bindIp: a,b\nlist:\n- x: 1\n- x: 2\nhttp.port: 9\n", Syntax::Yaml),
            ["7 http.port 9", "5 list.x 1", "6 list.x 2", "3 net.bindIp a,b", "2 net.port 27018"]
        );
        assert_eq!(lines_of("{\"a\": {\"b\": [\"c\", true]}}", Syntax::Yaml), ["1 a.b c", "1 a.b true"]);
        assert_eq!(lines_of("[a.b]\nc = ':80'\n", Syntax::Toml), ["2 a.b.c :80"]);
    }
}
