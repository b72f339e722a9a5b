//! `format.dns1123Label().validate(text)`: what is wrong with a text, or nothing. Source: k8s.io/apimachinery,
//! `pkg/util/validation`.

use ::cel::{
    DeclarationError, Env,
    common::{
        types::{CelList, CelOptional, CelString},
        value::Val,
    },
};

use super::value;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Label,
    Subdomain,
    Dns1035,
    QualifiedName,
    LabelValue,
    Uuid,
    Date,
    DateTime,
}

value!(Format, "format", |a, b| a == b);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn label: () -> Format, name = "format.dns1123Label")?;
    ::cel::add_overload!(env, fn subdomain: () -> Format, name = "format.dns1123Subdomain")?;
    ::cel::add_overload!(env, fn dns1035: () -> Format, name = "format.dns1035Label")?;
    ::cel::add_overload!(env, fn qualified_name: () -> Format, name = "format.qualifiedName")?;
    ::cel::add_overload!(env, fn label_value: () -> Format, name = "format.labelValue")?;
    ::cel::add_overload!(env, fn uuid: () -> Format, name = "format.uuid")?;
    ::cel::add_overload!(env, fn date: () -> Format, name = "format.date")?;
    ::cel::add_overload!(env, fn datetime: () -> Format, name = "format.datetime")?;
    ::cel::add_member_overload!(env, fn validate: (Format, CelString) -> CelOptional)
}

fn label() -> Format {
    Format::Label
}

fn subdomain() -> Format {
    Format::Subdomain
}

fn dns1035() -> Format {
    Format::Dns1035
}

fn qualified_name() -> Format {
    Format::QualifiedName
}

fn label_value() -> Format {
    Format::LabelValue
}

fn uuid() -> Format {
    Format::Uuid
}

fn date() -> Format {
    Format::Date
}

fn datetime() -> Format {
    Format::DateTime
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
        Format::Uuid => {
            let parts: Vec<usize> = text.split('-').map(str::len).collect();
            let hex = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
            (parts == [8, 4, 4, 4, 12] && hex, "it is no UUID")
        }
        Format::Date => {
            (text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10, "it is no date as RFC 3339 has it")
        }
        Format::DateTime => (text.parse::<jiff::Timestamp>().is_ok(), "it is no time as RFC 3339 has it"),
    };
    (!good).then_some(complaint)
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
