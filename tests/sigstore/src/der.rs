//! The little of DER (X.690) that time-stamp tokens and certificate extensions need, written by hand: what verifiers
//! decode shall not come from their own encoder.

/// One element: tag byte, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..0x80 => bytes.push(short as u8),
        long => {
            let length: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | length.len() as u8);
            bytes.extend(length);
        }
    }
    bytes.extend(content);
    bytes
}

/// SEQUENCE of elements.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// SET OF, sorted as DER demands.
pub(crate) fn set(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    element(0x31, &parts.concat())
}

/// Explicit tag `[number]` around an element, or implicit around the content of a constructed one.
pub(crate) fn tagged(number: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, content)
}

/// OBJECT IDENTIFIER.
pub(crate) fn oid(arcs: &[u64]) -> Vec<u8> {
    let (first, rest) = arcs.split_at(2);
    let mut content = vec![];
    for arc in std::iter::once(first[0] * 40 + first[1]).chain(rest.iter().copied()) {
        let groups = (1..10).find(|groups| arc >> (7 * groups) == 0).expect("64 bits are ten groups at most");
        content.extend((0..groups).rev().map(|group| {
            let more = if group == 0 { 0 } else { 0x80 };
            ((arc >> (7 * group)) & 0x7f) as u8 | more
        }));
    }
    element(0x06, &content)
}

/// Non-negative INTEGER from big-endian bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    element(0x02, &content)
}

/// OCTET STRING.
pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    element(0x04, content)
}

/// UTF8String.
pub(crate) fn utf8(text: &str) -> Vec<u8> {
    element(0x0c, text.as_bytes())
}

/// GeneralizedTime in whole seconds from Unix seconds.
pub(crate) fn generalized_time(seconds: i64) -> Vec<u8> {
    let digits: String = rfc3339(seconds).chars().filter(char::is_ascii_digit).collect();
    element(0x18, format!("{digits}Z").as_bytes())
}

/// UTCTime, which stands for the years up to 2049 in certificates and CMS.
pub(crate) fn utc_time(seconds: i64) -> Vec<u8> {
    element(0x17, &content(&generalized_time(seconds))[2..])
}

/// Unix seconds as `2026-06-01T12:00:00Z`.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (mut days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut month) = (1970, 1);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    for length in [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

/// The elements inside a constructed element, each with its header.
///
/// # Panics
/// On bytes that are no DER: all there is to read was made here.
pub(crate) fn children(constructed: &[u8]) -> Vec<&[u8]> {
    let (header, length) = header(constructed);
    let mut rest = &constructed[header..header + length];
    let mut found = vec![];
    while !rest.is_empty() {
        let (header, length) = self::header(rest);
        let (child, after) = rest.split_at(header + length);
        found.push(child);
        rest = after;
    }
    found
}

/// Content of a primitive element.
pub(crate) fn content(bytes: &[u8]) -> &[u8] {
    let (header, length) = header(bytes);
    &bytes[header..header + length]
}

/// Length of the header, and of the content.
fn header(bytes: &[u8]) -> (usize, usize) {
    match bytes[1] {
        short @ 0..0x80 => (2, short.into()),
        long => {
            let count = usize::from(long & 0x7f);
            (2 + count, bytes[2..2 + count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encodings() {
        assert_eq!(oid(&[1, 3, 6, 1, 4, 1, 57264, 1, 8]), b"\x06\x0a\x2b\x06\x01\x04\x01\x83\xbf\x30\x01\x08");
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(octets(&[7; 200])[..4], [4, 0x81, 200, 7]);
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(generalized_time(crate::TIME), b"\x18\x0f20260601120000Z");
        assert_eq!(utc_time(crate::TIME), b"\x17\x0d260601120000Z");
        assert_eq!(children(&sequence(&[&integer(&[1]), &octets(&[7; 300])])).len(), 2);
    }
}
