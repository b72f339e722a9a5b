//! `semver("1.2.3")`. Source: semver.org 2.0.0; comparisons leave out build metadata.

use std::cmp::Ordering;

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::types::{CelBool, CelInt, CelString},
};

use super::{error, value};

#[derive(Debug, Clone)]
struct Version(semver::Version);

value!(Version, "semver", |a, b| a.0.cmp_precedence(&b.0) == Ordering::Equal);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn is_semver: (CelString) -> CelBool)?;
    ::cel::add_overload!(env, fn is_semver_normalized: (CelString, CelBool) -> CelBool, name = "isSemver")?;
    ::cel::add_overload!(env, fn version: (CelString) -> Result<Version>, name = "semver")?;
    ::cel::add_overload!(env, fn version_normalized: (CelString, CelBool) -> Result<Version>, name = "semver")?;
    ::cel::add_member_overload!(env, fn major: (Version) -> CelInt)?;
    ::cel::add_member_overload!(env, fn minor: (Version) -> CelInt)?;
    ::cel::add_member_overload!(env, fn patch: (Version) -> CelInt)?;
    ::cel::add_member_overload!(env, fn compare_to: (Version, Version) -> CelInt)?;
    ::cel::add_member_overload!(env, fn is_greater_than: (Version, Version) -> CelBool)?;
    ::cel::add_member_overload!(env, fn is_less_than: (Version, Version) -> CelBool)
}

fn is_semver(text: &CelString<'_>) -> CelBool {
    parse(text.inner(), false).is_some().into()
}

fn is_semver_normalized(text: &CelString<'_>, normalize: &CelBool) -> CelBool {
    parse(text.inner(), *normalize.inner()).is_some().into()
}

fn version(text: &CelString<'_>) -> Result<Version, ExecutionError> {
    version_normalized(text, &false.into())
}

fn version_normalized(text: &CelString<'_>, normalize: &CelBool) -> Result<Version, ExecutionError> {
    let parsed = parse(text.inner(), *normalize.inner());
    parsed.ok_or_else(|| error("semver", "the text is no version such as 1.2.3"))
}

fn major(version: &Version) -> CelInt {
    number(version.0.major)
}

fn minor(version: &Version) -> CelInt {
    number(version.0.minor)
}

fn patch(version: &Version) -> CelInt {
    number(version.0.patch)
}

fn number(part: u64) -> CelInt {
    i64::try_from(part).unwrap_or(i64::MAX).into()
}

fn compare_to(a: &Version, b: &Version) -> CelInt {
    (a.0.cmp_precedence(&b.0) as i64).into()
}

fn is_greater_than(a: &Version, b: &Version) -> CelBool {
    (a.0.cmp_precedence(&b.0) == Ordering::Greater).into()
}

fn is_less_than(a: &Version, b: &Version) -> CelBool {
    (a.0.cmp_precedence(&b.0) == Ordering::Less).into()
}

/// Normalized: without a leading `v`, with all three numbers, and without zeros before them.
fn parse(text: &str, normalize: bool) -> Option<Version> {
    if !normalize {
        return semver::Version::parse(text).ok().map(Version);
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
    // A short version cannot say more than its numbers.
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return None;
    }
    parts.resize(3, "0".to_owned());
    semver::Version::parse(&parts.join(".")).ok().map(Version)
}

/// A part that starts with a number, without the zeros before it.
fn without_zeros(part: &str) -> String {
    let trimmed = part.trim_start_matches('0');
    let is_number = trimmed.starts_with(|c: char| c.is_ascii_digit());
    if part.len() > 1 && !is_number {
        format!("0{trimmed}")
    } else if part.len() > 1 {
        trimmed.to_owned()
    } else {
        part.to_owned()
    }
}
