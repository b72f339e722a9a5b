//! `quantity("1.5Gi")`: amounts as Kubernetes writes them. Source: k8s.io/apimachinery, `pkg/api/resource`.

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::types::{CelBool, CelDouble, CelInt, CelString},
};

use super::{error, value};

/// An amount in billionths. Like Kubernetes, more precise ones are rounded up; larger ones than 10²⁹ are that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantity {
    nano: i128,
    /// It was larger.
    capped: bool,
}

value!(Quantity, "quantity", |a, b| a.nano == b.nano);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn is_quantity: (CelString) -> CelBool)?;
    ::cel::add_overload!(env, fn quantity: (CelString) -> Result<Quantity>)?;
    ::cel::add_member_overload!(env, fn add: (Quantity, Quantity) -> Quantity)?;
    ::cel::add_member_overload!(env, fn add_int: (Quantity, CelInt) -> Quantity, name = "add")?;
    ::cel::add_member_overload!(env, fn sub: (Quantity, Quantity) -> Quantity)?;
    ::cel::add_member_overload!(env, fn sub_int: (Quantity, CelInt) -> Quantity, name = "sub")?;
    ::cel::add_member_overload!(env, fn as_approximate_float: (Quantity) -> CelDouble)?;
    ::cel::add_member_overload!(env, fn as_integer: (Quantity) -> Result<CelInt>)?;
    ::cel::add_member_overload!(env, fn is_integer: (Quantity) -> CelBool)?;
    ::cel::add_member_overload!(env, fn sign: (Quantity) -> CelInt)?;
    // Documented as above, and in the API server only so.
    ::cel::add_overload!(env, fn sign: (Quantity) -> CelInt)?;
    ::cel::add_member_overload!(env, fn compare_to: (Quantity, Quantity) -> CelInt)?;
    ::cel::add_member_overload!(env, fn is_greater_than: (Quantity, Quantity) -> CelBool)?;
    ::cel::add_member_overload!(env, fn is_less_than: (Quantity, Quantity) -> CelBool)
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    parse(text.inner()).is_some().into()
}

fn quantity(text: &CelString<'_>) -> Result<Quantity, ExecutionError> {
    parse(text.inner()).ok_or_else(|| error("quantity", "the text is no quantity such as 1.5Gi"))
}

fn add(a: &Quantity, b: &Quantity) -> Quantity {
    Quantity::new(a.nano.saturating_add(b.nano), a.capped || b.capped)
}

fn add_int(a: &Quantity, b: &CelInt) -> Quantity {
    Quantity::new(a.nano.saturating_add(i128::from(*b.inner()) * ONE), a.capped)
}

fn sub(a: &Quantity, b: &Quantity) -> Quantity {
    Quantity::new(a.nano.saturating_sub(b.nano), a.capped || b.capped)
}

fn sub_int(a: &Quantity, b: &CelInt) -> Quantity {
    Quantity::new(a.nano.saturating_sub(i128::from(*b.inner()) * ONE), a.capped)
}

#[expect(clippy::cast_precision_loss, reason = "it is approximate by name")]
fn as_approximate_float(a: &Quantity) -> CelDouble {
    (a.nano as f64 / 1e9).into()
}

fn as_integer(a: &Quantity) -> Result<CelInt, ExecutionError> {
    let whole = a.integer().ok_or_else(|| error("asInteger", "the quantity is no integer of 64 bits"))?;
    Ok(whole.into())
}

fn is_integer(a: &Quantity) -> CelBool {
    a.integer().is_some().into()
}

fn sign(a: &Quantity) -> CelInt {
    i64::try_from(a.nano.signum()).unwrap_or_default().into()
}

fn compare_to(a: &Quantity, b: &Quantity) -> CelInt {
    (a.nano.cmp(&b.nano) as i64).into()
}

fn is_greater_than(a: &Quantity, b: &Quantity) -> CelBool {
    (a.nano > b.nano).into()
}

fn is_less_than(a: &Quantity, b: &Quantity) -> CelBool {
    (a.nano < b.nano).into()
}

impl Quantity {
    fn new(nano: i128, capped: bool) -> Self {
        let most = MOST * ONE;
        Self { nano: nano.clamp(-most, most), capped: capped || nano.abs() > most }
    }

    fn integer(self) -> Option<i64> {
        (!self.capped && self.nano % ONE == 0).then(|| i64::try_from(self.nano / ONE).ok()).flatten()
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at_checked(number)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || text.len() > MAX_BYTES {
        return None;
    }
    let (binary, ten) = scale(suffix)?;
    // In billionths: digits, moved by the powers of the suffix, rounded away from zero.
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let shift = 9 + ten - i32::try_from(fraction.len()).ok()?;
    let mut capped = false;
    let mut nano: i128 = if digits.len() > 36 {
        capped = true;
        i128::MAX
    } else {
        digits.parse().or_else(|error| if digits.is_empty() { Ok(0) } else { Err(error) }).ok()?
    };
    let times = |nano: i128, factor: i128| nano.checked_mul(factor);
    for _ in 0..binary {
        nano = times(nano, 1024).unwrap_or_else(|| {
            capped = true;
            i128::MAX
        });
    }
    for _ in 0..shift.max(0) {
        nano = times(nano, 10).unwrap_or_else(|| {
            capped = true;
            i128::MAX
        });
    }
    if shift < 0 && !capped {
        let by = u32::try_from(-shift).ok().and_then(|power| 10_i128.checked_pow(power));
        nano = by.map_or_else(|| i128::from(nano > 0), |by| (nano / by) + i128::from(nano % by != 0));
    }
    Some(Quantity::new(if negative { -nano } else { nano }, capped))
}

/// Powers of 1024 and of ten.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "Ki" => (1, 0),
        "Mi" => (2, 0),
        "Gi" => (3, 0),
        "Ti" => (4, 0),
        "Pi" => (5, 0),
        "Ei" => (6, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (0, exponent.strip_prefix('+').unwrap_or(exponent).parse::<i32>().ok()?.clamp(-60, 60))
        }
    })
}

const ONE: i128 = 1_000_000_000;
const MOST: i128 = 100_000_000_000_000_000_000_000_000_000;
const MAX_BYTES: usize = 256;
