//! Times as token services write and read them: RFC 3339 text in, seconds since 1970 out, and those to ISO 8601's basic
//! form. Leap seconds count as the second before.

/// Seconds since 1970 of `2026-02-28T12:00:00[.123](Z|+01:00)`; none for what is no such text or lies before 1970.
pub(super) fn seconds_of(text: &str) -> Option<u64> {
    let number = |at: std::ops::Range<usize>| {
        let digits = text.get(at)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let is = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|byte| any.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?.min(59));
    if !((1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60) {
        return None;
    }
    let zone = text.get(19..)?;
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => zone,
    };
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), time) => {
            let (hours, minutes) = time.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?;
            minutes.checked_mul(if sign == "+" { 60 } else { -60 })?
        }
        _ => return None,
    };
    // Days since 1970-01-01 with March as the first month, so that the leap day comes last in its year.
    let years = year - i64::from(month < 3);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * years + years / 4 - years / 100 + years / 400 + day_of_year - 719_468;
    u64::try_from((((days * 24 + hour) * 60 + minute) * 60 + second).checked_sub(offset)?).ok()
}

/// `20260228T120000Z`.
pub(super) fn basic_of(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    // Eras of 400 years and years that begin in March, as above.
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_agree_for_centuries() {
        for seconds in (0..16_000_000_000).step_by(86_399 * 7) {
            let text = basic_of(seconds);
            let part = |range: std::ops::Range<usize>| text.get(range).expect("digits").to_owned();
            let (date, time) =
                ([part(0..4), part(4..6), part(6..8)].join("-"), [part(9..11), part(11..13), part(13..15)].join(":"));
            assert_eq!(seconds_of(&format!("{date}T{time}Z")), Some(seconds), "{text}");
        }
        assert_eq!(basic_of(1_791_981_296), "20261014T123456Z");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59Z", Some(951_868_799)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2026-10-14T12:34:56.789012345Z", Some(1_791_981_296)),
            ("2026-10-14T14:34:56+02:00", Some(1_791_981_296)),
            ("2026-10-14T07:04:56-05:30", Some(1_791_981_296)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-10-14T12:34:56", None),
            ("2026-10-14T12:34:56+99999999999999999999:00", None),
            ("2026-1-14T12:34:56Z", None),
            ("ä026-10-14T12:34:56Z", None),
            ("", None),
        ] {
            assert_eq!(seconds_of(text), want, "{text}");
        }
    }
}
