//! `timestamp("2026-01-01T00:00:00Z")` as the API server has it: RFC 3339 to the letter, and in UTC, by which its parts are told.

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelString, CelTimestamp, DYN_TYPE},
        value::CowVal,
    },
};

use super::{environment, error};
use crate::cel::signatures::TIMESTAMP;

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(TIMESTAMP, "timestamp_in_utc", vec![DYN_TYPE], timestamp)
}

fn timestamp<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    if let Some(text) = args.first().and_then(|arg| arg.downcast_ref::<CelString<'_>>()) {
        let wrong = || error("timestamp", "the text is no time such as 2026-01-01T00:00:00Z");
        args = vec![CowVal::owned(CelString::from(plain(text.inner()).ok_or_else(wrong)?))];
    }
    let made = environment().find_overload("timestamp", &args);
    let made = made.ok_or_else(ExecutionError::missing_argument_or_target)?(args)?;
    let in_utc = made.downcast_ref::<CelTimestamp>().map(|time| time.inner().to_utc().fixed_offset());
    Ok(in_utc.map_or(made, |time| CowVal::owned(CelTimestamp::from(time))))
}

/// A text of date, `T`, time and zone as they must be written, to the billionth of a second.
fn plain(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = |(byte, wanted): (&u8, &u8)| if *wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
    let head = bytes.get(..shape.len()).is_some_and(|head| head.iter().zip(shape).all(fits));
    let tail = bytes.get(shape.len()..).unwrap_or_default();
    let digits = |after: &[u8]| after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let fraction = tail.strip_prefix(b".").map_or(0, digits);
    let zone = if fraction > 0 { tail.get(1 + fraction..).unwrap_or_default() } else { tail };
    let is_zone = |zone: &[u8]| match zone.split_first() {
        Some((b'Z', [])) => true,
        Some((b'+' | b'-', offset)) => offset.len() == 5 && offset.iter().zip(b"dd:dd").all(fits),
        _ => false,
    };
    // No second is longer than a minute has.
    let is_good = head && is_zone(zone) && text.get(17..19).is_some_and(|seconds| seconds < "60");
    let (whole, zone) = (text.get(..shape.len() + fraction_kept(fraction))?, text.get(text.len() - zone.len()..)?);
    is_good.then(|| format!("{whole}{zone}"))
}

/// Bytes that are kept of a point and so many digits behind it.
fn fraction_kept(digits: usize) -> usize {
    if digits == 0 { 0 } else { 1 + digits.min(9) }
}
