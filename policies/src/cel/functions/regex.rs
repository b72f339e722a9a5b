//! `find`, `findAll`, and `matches` with a pattern that is compiled once. The syntax is RE2's, which takes linear time.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, RwLock},
};

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelBool, CelInt, CelList, CelString},
        value::Val,
    },
};
use regex::{Regex, RegexBuilder};

use super::{error, re2};
use crate::cel::signatures::MATCHES;

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>, name = MATCHES)?;
    ::cel::add_member_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>, name = MATCHES)?;
    ::cel::add_member_overload!(env, fn find: (CelString, CelString) -> Result<CelString>)?;
    ::cel::add_member_overload!(env, fn find_all: (CelString, CelString) -> Result<CelList>)?;
    ::cel::add_member_overload!(env, fn find_all_of: (CelString, CelString, CelInt) -> Result<CelList>,
        name = "findAll")
}

fn matches(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(compiled(pattern, "matches")?.is_match(text.inner()).into())
}

fn find(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelString<'static>, ExecutionError> {
    let found = compiled(pattern, "find")?.find(text.inner()).map_or("", |found| found.as_str()).to_owned();
    Ok(found.into())
}

fn find_all(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelList<'static>, ExecutionError> {
    find_all_of(text, pattern, &(-1).into())
}

fn find_all_of(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    most: &CelInt,
) -> Result<CelList<'static>, ExecutionError> {
    let most = usize::try_from(*most.inner()).unwrap_or(usize::MAX);
    let pattern = compiled(pattern, "findAll")?;
    let found = pattern.find_iter(text.inner()).take(most);
    let found = found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as Box<dyn Val>);
    Ok(CelList::from(found.collect::<Vec<_>>()))
}

/// Patterns are written out in rules, so there are few.
fn compiled(pattern: &CelString<'_>, function: &str) -> Result<Arc<Regex>, ExecutionError> {
    static COMPILED: LazyLock<RwLock<HashMap<String, Arc<Regex>>>> = LazyLock::new(RwLock::default);
    let text = pattern.inner();
    if let Ok(compiled) = COMPILED.read()
        && let Some(regex) = compiled.get(text)
    {
        return Ok(regex.clone());
    }
    let regex = Arc::new(compile(text).map_err(|why| error(function, why))?);
    if let Ok(mut compiled) = COMPILED.write() {
        if compiled.len() >= MAX_KEPT {
            compiled.clear();
        }
        compiled.insert(text.to_owned(), regex.clone());
    }
    Ok(regex)
}

/// # Errors
/// Why it is no pattern.
pub(in crate::cel) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = re2::translate(pattern).map_err(|why| format!("`{pattern}` is no regular expression: {why}"))?;
    let built = RegexBuilder::new(&translated).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).build();
    built.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{pattern}` is no regular expression: {reason}")
    })
}

/// Bytes of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;
const MAX_KEPT: usize = 4_096;
