//! `format.dns1123Label().validate(text)`: what is wrong with a text, or nothing. Source: k8s.io/apimachinery,
//! `pkg/util/validation`.

use ::cel::{
    DeclarationError, Env,
    common::{
        types::{CelList, CelOptional, CelString},
        value::{CowVal, Val},
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::value;

macro_rules! formats {
    ($($name:literal $format:ident),+) => {
        #[derive(Debug, Clone, Copy, PartialEq)]
        enum Format {
            $($format),+
        }

        /// By name.
        const FORMATS: &[(&str, Format)] = &[$(($name, Format::$format)),+];

        fn declare_each(env: &mut Env) -> Result<(), DeclarationError> {
            $(env.add_overload(concat!("format.", $name), concat!("format_", $name), Vec::new(), |_| {
                Ok(CowVal::owned(Format::$format))
            })?;)+
            Ok(())
        }
    };
}

formats! {
    "dns1123Label" Label,
    "dns1123LabelPrefix" LabelPrefix,
    "dns1123Subdomain" Subdomain,
    "dns1123SubdomainPrefix" SubdomainPrefix,
    "dns1035Label" Dns1035,
    "dns1035LabelPrefix" Dns1035Prefix,
    "qualifiedName" QualifiedName,
    "labelValue" LabelValue,
    "uri" Uri,
    "uuid" Uuid,
    "byte" Byte,
    "date" Date,
    "datetime" DateTime
}

value!(Format, "format", |a, b| a == b);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    declare_each(env)?;
    ::cel::add_overload!(env, fn named: (CelString) -> CelOptional, name = "format.named")?;
    ::cel::add_member_overload!(env, fn validate: (Format, CelString) -> CelOptional)
}

fn named(name: &CelString<'_>) -> CelOptional<'static> {
    let found = FORMATS.iter().find(|(known, _)| *known == name.inner());
    found.map_or_else(CelOptional::none, |(_, format)| CelOptional::of(Box::new(*format)))
}

fn validate(format: &Format, text: &CelString<'_>) -> CelOptional<'static> {
    let Some(complaint) = complaint(*format, text.inner()) else { return CelOptional::none() };
    let complaint: Box<dyn Val> = Box::new(CelString::from(complaint.to_owned()));
    CelOptional::of(Box::new(CelList::from(vec![complaint])))
}

fn complaint(format: Format, text: &str) -> Option<&'static str> {
    let (good, complaint) = match format {
        Format::Label => {
            (is_label(text), "a label is 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends")
        }
        Format::Subdomain => {
            let good = text.len() <= 253 && text.split('.').all(|part| !part.is_empty() && is_name(part, ""));
            (good, "a subdomain is labels of a-z, 0-9 and `-` joined by dots, at most 253 characters")
        }
        Format::Dns1035 => {
            let good = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
            (good, "a DNS-1035 label is a label that starts with a letter")
        }
        Format::QualifiedName => {
            let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
            let good = prefix.is_none_or(|prefix| complaint(Format::Subdomain, prefix).is_none());
            (good && !name.is_empty() && is_value(name), "a qualified name is NAME or SUBDOMAIN/NAME")
        }
        Format::LabelValue => (is_value(text), "a label's value is at most 63 letters, digits, `-`, `_` and `.`"),
        Format::LabelPrefix => return complaint(Format::Label, &whole(text)),
        Format::SubdomainPrefix => return complaint(Format::Subdomain, &whole(text)),
        Format::Dns1035Prefix => return complaint(Format::Dns1035, &whole(text)),
        Format::Uri => (super::url::is_good(text), "it is no absolute URL or path"),
        // Each hyphen may be left out.
        Format::Uuid => (is_uuid(text), "it is no UUID"),
        Format::Byte => (!text.is_empty() && BASE64_STANDARD.decode(text).is_ok(), "it is no base64"),
        Format::Date => {
            (text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10, "it is no date as RFC 3339 has it")
        }
        Format::DateTime => {
            (!text.contains(' ') && text.parse::<jiff::Timestamp>().is_ok(), "it is no time as RFC 3339 has it")
        }
    };
    (!good).then_some(complaint)
}

/// A name of which this is the start: what is generated behind a hyphen ends it.
fn whole(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(start) if !start.is_empty() => format!("{}a", start.get(..start.len() - 1).unwrap_or(start)),
        _ => prefix.to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (number, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        rest = rest.strip_prefix('-').filter(|_| number > 0).unwrap_or(rest);
        match rest.split_at_checked(digits) {
            Some((part, after)) if part.bytes().all(|b| b.is_ascii_hexdigit()) => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len()) && is_name(text, "")
}

fn is_value(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.is_empty() || (text.len() <= 63 && is_name(&lower, "_."))
}

/// Lower-case letters, digits, `-` and `more` inside, letters and digits at the ends.
fn is_name(text: &str, more: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(end) && text.ends_with(end) && text.chars().all(|c| end(c) || c == '-' || more.contains(c))
}
