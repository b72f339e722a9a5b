//! A reader that forgets nothing: fields are taken out of an object, and what is left at the end is told.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Effect, Note};

/// What is told of one object.
#[derive(Debug)]
pub(super) struct Notes {
    file: String,
    object: String,
    pub(super) all: Vec<Note>,
}

impl Notes {
    pub(super) fn new(file: &str, object: &str) -> Self {
        Self { file: file.to_owned(), object: object.to_owned(), all: Vec::new() }
    }

    fn add(&mut self, effect: Effect, path: impl Into<String>, why: impl Into<String>, instead: impl Into<String>) {
        let (file, object) = (self.file.clone(), self.object.clone());
        let (path, why, instead) = (path.into(), why.into(), instead.into());
        self.all.push(Note { file, object, effect, path, why, instead });
    }

    /// It decides the same without it.
    pub(super) fn same(&mut self, path: impl Into<String>, why: impl Into<String>) {
        self.add(Effect::Same, path, why, "");
    }

    /// The same, and something is to be done beside the rule.
    pub(super) fn beside(&mut self, path: impl Into<String>, why: impl Into<String>, instead: impl Into<String>) {
        self.add(Effect::Same, path, why, instead);
    }

    pub(super) fn stricter(&mut self, path: impl Into<String>, why: impl Into<String>, instead: impl Into<String>) {
        self.add(Effect::Stricter, path, why, instead);
    }

    pub(super) fn weaker(&mut self, path: impl Into<String>, why: impl Into<String>, instead: impl Into<String>) {
        self.add(Effect::Weaker, path, why, instead);
    }

    /// Of the notes from `start` on, those that were told before already go.
    pub(super) fn forget_same(&mut self, start: usize) {
        let new = self.all.split_off(start.min(self.all.len()));
        for note in new {
            // What is missing is missing in each rule that is made.
            if note.effect == Effect::Weaker || !self.all.contains(&note) {
                self.all.push(note);
            }
        }
    }

    /// Paths of what is missing, of the notes from `start` on.
    pub(super) fn missing(&self, start: usize) -> Vec<String> {
        let new = self.all.get(start..).unwrap_or_default().iter();
        new.filter(|note| note.effect == Effect::Weaker).map(|note| note.path.clone()).collect()
    }
}

/// An object whose fields are taken one by one.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(path: String, map: Map<String, Value>) -> Self {
        Self { path, map }
    }

    /// The same fields once more.
    pub(super) fn again(&self) -> Self {
        Self { path: self.path.clone(), map: self.map.clone() }
    }

    /// A text that is not taken yet.
    pub(super) fn peek(&self, name: &str) -> Option<&str> {
        self.map.get(name).and_then(Value::as_str)
    }

    /// Where it is.
    pub(super) fn here(&self) -> &str {
        &self.path
    }

    /// Where a field of it is.
    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field, whatever it is; null is none.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str, notes: &mut Notes) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text),
            other => self.wrong(name, "text", &other, notes),
        }
    }

    pub(super) fn flag(&mut self, name: &str, notes: &mut Notes) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(name, "true or false", &other, notes),
        }
    }

    pub(super) fn number(&mut self, name: &str, notes: &mut Notes) -> Option<u64> {
        let value = self.take(name)?;
        let number = value.as_u64();
        number.or_else(|| self.wrong(name, "a whole number", &value, notes))
    }

    pub(super) fn part(&mut self, name: &str, notes: &mut Notes) -> Option<Self> {
        match self.take(name)? {
            Value::Object(map) => Some(Self { path: self.at(name), map }),
            other => self.wrong(name, "an object", &other, notes),
        }
    }

    /// Values of a list, each with its path.
    pub(super) fn list(&mut self, name: &str, notes: &mut Notes) -> Vec<(String, Value)> {
        let values = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(other) => self.wrong(name, "a list", &other, notes).unwrap_or_default(),
        };
        values.into_iter().enumerate().map(|(at, value)| (format!("{}[{at}]", self.at(name)), value)).collect()
    }

    /// Objects of a list.
    pub(super) fn parts(&mut self, name: &str, notes: &mut Notes) -> Vec<Self> {
        let mut parts = Vec::new();
        for (path, value) in self.list(name, notes) {
            match value {
                Value::Object(map) => parts.push(Self { path, map }),
                other => unreadable(&path, "an object", &other, notes),
            }
        }
        parts
    }

    /// Texts of a list.
    pub(super) fn texts(&mut self, name: &str, notes: &mut Notes) -> Vec<String> {
        let mut texts = Vec::new();
        for (path, value) in self.list(name, notes) {
            match value {
                Value::String(text) => texts.push(text),
                other => unreadable(&path, "text", &other, notes),
            }
        }
        texts
    }

    /// Texts by name.
    pub(super) fn pairs(&mut self, name: &str, notes: &mut Notes) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        if let Some(part) = self.part(name, notes) {
            for (key, value) in part.map {
                match value {
                    Value::String(text) => {
                        pairs.insert(key, text);
                    }
                    other => unreadable(&format!("{}.{key}", part.path), "text", &other, notes),
                }
            }
        }
        pairs
    }

    /// Every field that was not taken is told.
    pub(super) fn end(self, notes: &mut Notes) {
        for name in self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name) {
            let path = self.at(name);
            notes.weaker(path, "this field is not known to the converter", "look up what it does, and write that");
        }
    }

    fn wrong<T>(&self, name: &str, expected: &str, found: &Value, notes: &mut Notes) -> Option<T> {
        unreadable(&self.at(name), expected, found, notes);
        None
    }
}

fn unreadable(path: &str, expected: &str, found: &Value, notes: &mut Notes) {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    notes.weaker(path, format!("it should be {expected}, and is {kind}"), "correct it, and convert again");
}
