//! The functions that expressions may call: on what, what comes out, and at what cost. What stands here and what
//! [`functions`](super::functions) and the `cel` crate register must be the same; a test calls each.

use std::sync::Arc;

use super::{
    functions::regex,
    shape::{MAX_ITEMS, Shape},
};

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Signature {
    name: &'static str,
    member: bool,
    /// Of a member the value itself first.
    args: &'static [Kind],
    result: Gives,
    cost: Cost,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Any,
    Bool,
    Int,
    Number,
    Text,
    Bytes,
    List,
    Map,
    Time,
    Span,
    Optional,
    Of(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Gives {
    Bool,
    Int,
    Double,
    Bytes,
    Time,
    Span,
    Any,
    /// Text of at most so many bytes.
    Short(u64),
    /// Text no longer than the arguments together, so many times.
    Text(u64),
    /// The first argument's elements, with the second argument between them.
    Joined,
    /// The first argument's shape.
    Same,
    /// Its elements.
    Element,
    /// Parts of the first argument, a text.
    Parts,
    /// Its lists' elements.
    Flat,
    /// The elements of lists in it, however deep.
    Deep,
    Of(&'static str),
    /// An optional of the first argument.
    Wrapped,
    /// What is in the first argument, an optional, or else the second argument.
    Unwrapped,
    /// An optional list of texts.
    Complaints,
    /// An optional of anything.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Cost {
    /// One unit.
    One,
    /// A tenth for each byte or element of the arguments.
    Read,
    /// Each of the one against each of the other.
    Product,
    /// A regular expression of the second argument over the first.
    Pattern,
}

/// The kind of an argument that must be written out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern;

impl Pattern {
    /// Which argument of a call that is no member's.
    pub(crate) fn argument(self) -> usize {
        1
    }

    /// # Errors
    /// Why it is no pattern.
    pub(crate) fn compile(self, pattern: &str) -> Result<(), String> {
        regex::compile(pattern).map(drop)
    }
}

impl Signature {
    pub(crate) fn cost(&self, args: &[Shape]) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Shape::size);
        let all: u64 = args.iter().map(Shape::size).fold(0, u64::saturating_add);
        match self.cost {
            Cost::One => 1,
            Cost::Read => 1 + all / 10,
            Cost::Product if matches!(args.first(), Some(Shape::String(_))) => {
                1 + size(0).saturating_mul(size(1)) / 100
            }
            Cost::Product => 1 + size(0).saturating_mul(size(1)),
            Cost::Pattern => (1 + size(0) / 10).saturating_mul(1 + size(1) / 4),
        }
    }

    pub(crate) fn result(&self, args: &[Shape]) -> Shape {
        let first = args.first().cloned().unwrap_or(Shape::Any);
        let all: u64 = args.iter().map(Shape::size).fold(0, u64::saturating_add);
        match self.result {
            Gives::Bool => Shape::Bool,
            Gives::Int => Shape::Int,
            Gives::Double => Shape::Double,
            Gives::Bytes => Shape::Bytes(all),
            Gives::Time => Shape::Timestamp,
            Gives::Span => Shape::Duration,
            Gives::Any => Shape::Any,
            Gives::Short(most) => Shape::String(most),
            Gives::Text(times) => {
                let elements = args.iter().map(|arg| match arg {
                    Shape::List(of, most) => most.saturating_mul(of.size()),
                    other => other.size(),
                });
                Shape::String(elements.fold(0, u64::saturating_add).saturating_mul(times))
            }
            Gives::Joined => {
                let between = args.get(1).map_or(0, Shape::size);
                let element = first.elements().map_or(1, |of| of.size());
                Shape::String(first.size().saturating_mul(element.saturating_add(between)))
            }
            Gives::Same => first,
            Gives::Element => first.elements().unwrap_or(Shape::Any),
            Gives::Parts => Shape::list(Shape::String(first.size()), first.size()),
            Gives::Flat => match &first {
                Shape::List(of, most) => match &**of {
                    Shape::List(inner, each) => Shape::list((**inner).clone(), most.saturating_mul(*each)),
                    _ => Shape::list(Shape::Any, most.saturating_mul(MAX_ITEMS)),
                },
                _ => Shape::Any,
            },
            Gives::Deep => Shape::list(Shape::Any, first.size().saturating_mul(MAX_ITEMS)),
            Gives::Of(name) => Shape::Opaque(name),
            Gives::Wrapped => Shape::Optional(Arc::new(first)),
            Gives::Unwrapped => {
                let inner = match &first {
                    Shape::Optional(of) => (**of).clone(),
                    _ => Shape::Any,
                };
                args.get(1).map_or(inner.clone(), |other| inner.or(other))
            }
            Gives::Complaints => Shape::Optional(Arc::new(Shape::list(Shape::text(), 16))),
            Gives::Nothing => Shape::Optional(Arc::new(Shape::Any)),
        }
    }

    /// Whether an argument is a pattern that is compiled once.
    pub(crate) fn pattern(&self) -> Option<Pattern> {
        matches!(self.cost, Cost::Pattern).then_some(Pattern)
    }

    fn takes(&self, args: &[Shape]) -> bool {
        self.args.len() == args.len() && self.args.iter().zip(args).all(|(kind, arg)| kind.takes(arg))
    }
}

impl Kind {
    fn takes(self, shape: &Shape) -> bool {
        match (self, shape) {
            (Self::Any, _) => true,
            (_, open) if open.is_open() => true,
            (Self::Bool, Shape::Bool)
            | (Self::Int, Shape::Int)
            | (Self::Number, Shape::Int | Shape::Double)
            | (Self::Text, Shape::String(_))
            | (Self::Bytes, Shape::Bytes(_))
            | (Self::List, Shape::List(..))
            | (Self::Map, Shape::Map(..) | Shape::Object(_))
            | (Self::Time, Shape::Timestamp)
            | (Self::Span, Shape::Duration)
            | (Self::Optional, Shape::Optional(_)) => true,
            (Self::Of(name), Shape::Opaque(other)) => name == *other,
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Number => "number",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Map => "map",
            Self::Time => "timestamp",
            Self::Span => "duration",
            Self::Optional => "optional",
            Self::Of(name) => name,
        }
    }
}

/// The way to call a function that fits.
///
/// # Errors
/// The ways there are: empty where there is no such function.
pub(crate) fn find(name: &str, member: bool, args: &[Shape]) -> Result<&'static Signature, String> {
    let named = || SIGNATURES.iter().filter(|signature| signature.name == name && signature.member == member);
    named().find(|signature| signature.takes(args)).ok_or_else(|| {
        let ways = named().map(|signature| {
            let kinds = signature.args.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            format!("({kinds})")
        });
        ways.collect::<Vec<_>>().join(" or ")
    })
}

/// Names of functions that can be called on a value, or without one.
pub(crate) fn names(member: bool) -> impl Iterator<Item = &'static str> {
    let macros: &[&str] =
        if member { &["all", "exists", "exists_one", "filter", "map", "optMap", "sortBy"] } else { &["has"] };
    let functions = SIGNATURES.iter().filter(move |signature| signature.member == member);
    functions.map(|signature| signature.name).chain(macros.iter().copied())
}

const fn global(name: &'static str, args: &'static [Kind], result: Gives, cost: Cost) -> Signature {
    Signature { name, member: false, args, result, cost }
}

const fn member(name: &'static str, args: &'static [Kind], result: Gives, cost: Cost) -> Signature {
    Signature { name, member: true, args, result, cost }
}

/// First parts of functions' names.
pub(crate) const NAMESPACES: [&str; 8] = ["cidr", "format", "ip", "lists", "math", "optional", "sets", "strings"];
/// Types that expressions name: `type(x) == string`.
pub(crate) const TYPES: [&str; 11] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "optional_type", "string", "type", "uint"];
/// What a `matches` with a written pattern becomes: the pattern is compiled once.
pub(crate) const MATCHES: &str = "@matches";
/// What `timestamp` becomes: the time in UTC.
pub(crate) const TIMESTAMP: &str = "@timestamp";
/// Functions of the language in whose place ours are called.
pub(crate) const IN_PLACE: [(&str, &str); 2] = [("matches", MATCHES), ("timestamp", TIMESTAMP)];
/// The elements of a list, or the keys of a map in order.
pub(crate) const ORDERED: &str = "@ordered";

const IP: Kind = Kind::Of("ip");
const CIDR: Kind = Kind::Of("cidr");
const URL: Kind = Kind::Of("url");
const QUANTITY: Kind = Kind::Of("quantity");
const SEMVER: Kind = Kind::Of("semver");
const FORMAT: Kind = Kind::Of("format");

use Cost::{One, Product, Read};
use Kind::{Any, Bool, Bytes, Int, List, Map, Number, Optional, Span, Text, Time};

static SIGNATURES: &[Signature] = &[
    // The language. Source: cel-spec, "List of Standard Definitions".
    global("size", &[Text], Gives::Int, Read),
    global("size", &[Bytes], Gives::Int, One),
    global("size", &[List], Gives::Int, One),
    global("size", &[Map], Gives::Int, One),
    member("size", &[Text], Gives::Int, Read),
    member("size", &[Bytes], Gives::Int, One),
    member("size", &[List], Gives::Int, One),
    member("size", &[Map], Gives::Int, One),
    global("bool", &[Bool], Gives::Bool, One),
    global("bool", &[Text], Gives::Bool, One),
    global("bytes", &[Text], Gives::Bytes, Read),
    global("bytes", &[Bytes], Gives::Bytes, One),
    global("double", &[Number], Gives::Double, One),
    global("double", &[Text], Gives::Double, Read),
    global("dyn", &[Any], Gives::Any, One),
    global("int", &[Number], Gives::Int, One),
    global("int", &[Text], Gives::Int, Read),
    global("int", &[Time], Gives::Int, One),
    global("uint", &[Number], Gives::Int, One),
    global("uint", &[Text], Gives::Int, Read),
    global("string", &[Text], Gives::Same, One),
    global("string", &[Bool], Gives::Short(5), One),
    global("string", &[Number], Gives::Short(32), One),
    global("string", &[Bytes], Gives::Text(1), Read),
    global("string", &[Time], Gives::Short(64), One),
    global("string", &[Span], Gives::Short(64), One),
    global("string", &[IP], Gives::Short(64), One),
    global("string", &[CIDR], Gives::Short(64), One),
    global("type", &[Any], Gives::Any, One),
    global("duration", &[Text], Gives::Span, Read),
    global("duration", &[Span], Gives::Span, One),
    global("timestamp", &[Text], Gives::Time, Read),
    global("timestamp", &[Time], Gives::Time, One),
    global("timestamp", &[Int], Gives::Time, One),
    member("getDate", &[Time], Gives::Int, One),
    member("getDate", &[Time, Text], Gives::Int, One),
    member("getDayOfMonth", &[Time], Gives::Int, One),
    member("getDayOfMonth", &[Time, Text], Gives::Int, One),
    member("getDayOfWeek", &[Time], Gives::Int, One),
    member("getDayOfWeek", &[Time, Text], Gives::Int, One),
    member("getDayOfYear", &[Time], Gives::Int, One),
    member("getDayOfYear", &[Time, Text], Gives::Int, One),
    member("getFullYear", &[Time], Gives::Int, One),
    member("getFullYear", &[Time, Text], Gives::Int, One),
    member("getHours", &[Time], Gives::Int, One),
    member("getHours", &[Time, Text], Gives::Int, One),
    member("getHours", &[Span], Gives::Int, One),
    member("getMilliseconds", &[Time], Gives::Int, One),
    member("getMilliseconds", &[Time, Text], Gives::Int, One),
    member("getMilliseconds", &[Span], Gives::Int, One),
    member("getMinutes", &[Time], Gives::Int, One),
    member("getMinutes", &[Time, Text], Gives::Int, One),
    member("getMinutes", &[Span], Gives::Int, One),
    member("getMonth", &[Time], Gives::Int, One),
    member("getMonth", &[Time, Text], Gives::Int, One),
    member("getSeconds", &[Time], Gives::Int, One),
    member("getSeconds", &[Time, Text], Gives::Int, One),
    member("getSeconds", &[Span], Gives::Int, One),
    member("contains", &[Text, Text], Gives::Bool, Product),
    member("endsWith", &[Text, Text], Gives::Bool, Read),
    member("startsWith", &[Text, Text], Gives::Bool, Read),
    global("matches", &[Text, Text], Gives::Bool, Cost::Pattern),
    member("matches", &[Text, Text], Gives::Bool, Cost::Pattern),
    // Optional values. Source: cel-spec, proposal 246.
    global("optional.none", &[], Gives::Nothing, One),
    global("optional.of", &[Any], Gives::Wrapped, One),
    global("optional.ofNonZeroValue", &[Any], Gives::Wrapped, One),
    member("hasValue", &[Optional], Gives::Bool, One),
    member("or", &[Optional, Optional], Gives::Same, One),
    member("orValue", &[Optional, Any], Gives::Unwrapped, One),
    member("value", &[Optional], Gives::Unwrapped, One),
    // cel-go's extensions, as Kubernetes enables them: strings, lists, sets, math.
    member("charAt", &[Text, Int], Gives::Short(4), Read),
    member("indexOf", &[Text, Text], Gives::Int, Product),
    member("indexOf", &[Text, Text, Int], Gives::Int, Product),
    member("lastIndexOf", &[Text, Text], Gives::Int, Product),
    member("lastIndexOf", &[Text, Text, Int], Gives::Int, Product),
    member("join", &[List], Gives::Joined, Read),
    member("join", &[List, Text], Gives::Joined, Read),
    member("lowerAscii", &[Text], Gives::Same, Read),
    member("upperAscii", &[Text], Gives::Same, Read),
    member("trim", &[Text], Gives::Same, Read),
    member("replace", &[Text, Text, Text], Gives::Text(16), Product),
    member("replace", &[Text, Text, Text, Int], Gives::Text(16), Product),
    member("reverse", &[Text], Gives::Same, Read),
    member("split", &[Text, Text], Gives::Parts, Product),
    member("split", &[Text, Text, Int], Gives::Parts, Product),
    member("substring", &[Text, Int], Gives::Same, Read),
    member("substring", &[Text, Int, Int], Gives::Same, Read),
    member("format", &[Text, List], Gives::Text(4), Read),
    global("strings.quote", &[Text], Gives::Text(2), Read),
    member("distinct", &[List], Gives::Same, Product),
    member("flatten", &[List], Gives::Flat, Read),
    member("flatten", &[List, Int], Gives::Deep, Read),
    member("reverse", &[List], Gives::Same, Read),
    member("slice", &[List, Int, Int], Gives::Same, Read),
    member("sort", &[List], Gives::Same, Product),
    member("@sortByAssociatedKeys", &[List, List], Gives::Same, Product),
    global("sets.contains", &[List, List], Gives::Bool, Product),
    global("sets.equivalent", &[List, List], Gives::Bool, Product),
    global("sets.intersects", &[List, List], Gives::Bool, Product),
    global("math.@max", &[Number], Gives::Any, One),
    global("math.@max", &[Number, Number], Gives::Any, One),
    global("math.@max", &[List], Gives::Any, Read),
    global("math.@min", &[Number], Gives::Any, One),
    global("math.@min", &[Number, Number], Gives::Any, One),
    global("math.@min", &[List], Gives::Any, Read),
    global("math.abs", &[Number], Gives::Same, One),
    global("math.ceil", &[Number], Gives::Double, One),
    global("math.floor", &[Number], Gives::Double, One),
    global("math.round", &[Number], Gives::Double, One),
    // Kubernetes' libraries. Source: kubernetes.io, "Common Expression Language in Kubernetes".
    member("indexOf", &[List, Any], Gives::Int, Read),
    member("lastIndexOf", &[List, Any], Gives::Int, Read),
    member("isSorted", &[List], Gives::Bool, Read),
    member("max", &[List], Gives::Element, Read),
    member("min", &[List], Gives::Element, Read),
    member("sum", &[List], Gives::Element, Read),
    member("find", &[Text, Text], Gives::Same, Cost::Pattern),
    member("findAll", &[Text, Text], Gives::Parts, Cost::Pattern),
    member("findAll", &[Text, Text, Int], Gives::Parts, Cost::Pattern),
    global("url", &[Text], Gives::Of("url"), Read),
    global("isURL", &[Text], Gives::Bool, Read),
    member("getScheme", &[URL], Gives::Short(1 << 10), One),
    member("getHost", &[URL], Gives::Short(1 << 10), One),
    member("getHostname", &[URL], Gives::Short(1 << 10), One),
    member("getPort", &[URL], Gives::Short(8), One),
    member("getEscapedPath", &[URL], Gives::Short(4 << 10), One),
    member("getQuery", &[URL], Gives::Any, One),
    global("ip", &[Text], Gives::Of("ip"), Read),
    global("isIP", &[Text], Gives::Bool, Read),
    global("ip.isCanonical", &[Text], Gives::Bool, Read),
    member("family", &[IP], Gives::Int, One),
    member("isGlobalUnicast", &[IP], Gives::Bool, One),
    member("isLinkLocalMulticast", &[IP], Gives::Bool, One),
    member("isLinkLocalUnicast", &[IP], Gives::Bool, One),
    member("isLoopback", &[IP], Gives::Bool, One),
    member("isUnspecified", &[IP], Gives::Bool, One),
    global("cidr", &[Text], Gives::Of("cidr"), Read),
    global("isCIDR", &[Text], Gives::Bool, Read),
    member("containsIP", &[CIDR, IP], Gives::Bool, One),
    member("containsIP", &[CIDR, Text], Gives::Bool, Read),
    member("containsCIDR", &[CIDR, CIDR], Gives::Bool, One),
    member("containsCIDR", &[CIDR, Text], Gives::Bool, Read),
    member("ip", &[CIDR], Gives::Of("ip"), One),
    member("masked", &[CIDR], Gives::Of("cidr"), One),
    member("prefixLength", &[CIDR], Gives::Int, One),
    global("quantity", &[Text], Gives::Of("quantity"), Read),
    global("isQuantity", &[Text], Gives::Bool, Read),
    member("add", &[QUANTITY, QUANTITY], Gives::Of("quantity"), One),
    member("add", &[QUANTITY, Int], Gives::Of("quantity"), One),
    member("sub", &[QUANTITY, QUANTITY], Gives::Of("quantity"), One),
    member("sub", &[QUANTITY, Int], Gives::Of("quantity"), One),
    member("asApproximateFloat", &[QUANTITY], Gives::Double, One),
    member("asInteger", &[QUANTITY], Gives::Int, One),
    member("isInteger", &[QUANTITY], Gives::Bool, One),
    member("sign", &[QUANTITY], Gives::Int, One),
    global("sign", &[QUANTITY], Gives::Int, One),
    member("compareTo", &[QUANTITY, QUANTITY], Gives::Int, One),
    member("isGreaterThan", &[QUANTITY, QUANTITY], Gives::Bool, One),
    member("isLessThan", &[QUANTITY, QUANTITY], Gives::Bool, One),
    global("semver", &[Text], Gives::Of("semver"), Read),
    global("semver", &[Text, Bool], Gives::Of("semver"), Read),
    global("isSemver", &[Text], Gives::Bool, Read),
    global("isSemver", &[Text, Bool], Gives::Bool, Read),
    member("major", &[SEMVER], Gives::Int, One),
    member("minor", &[SEMVER], Gives::Int, One),
    member("patch", &[SEMVER], Gives::Int, One),
    member("compareTo", &[SEMVER, SEMVER], Gives::Int, One),
    member("isGreaterThan", &[SEMVER, SEMVER], Gives::Bool, One),
    member("isLessThan", &[SEMVER, SEMVER], Gives::Bool, One),
    global("format.dns1123Label", &[], Gives::Of("format"), One),
    global("format.dns1123LabelPrefix", &[], Gives::Of("format"), One),
    global("format.dns1123Subdomain", &[], Gives::Of("format"), One),
    global("format.dns1123SubdomainPrefix", &[], Gives::Of("format"), One),
    global("format.dns1035Label", &[], Gives::Of("format"), One),
    global("format.dns1035LabelPrefix", &[], Gives::Of("format"), One),
    global("format.qualifiedName", &[], Gives::Of("format"), One),
    global("format.labelValue", &[], Gives::Of("format"), One),
    global("format.named", &[Text], Gives::Nothing, One),
    global("format.uri", &[], Gives::Of("format"), One),
    global("format.byte", &[], Gives::Of("format"), One),
    global("format.uuid", &[], Gives::Of("format"), One),
    global("format.date", &[], Gives::Of("format"), One),
    global("format.datetime", &[], Gives::Of("format"), One),
    member("validate", &[FORMAT, Text], Gives::Complaints, Read),
    // Ours.
    global("glob", &[Text, Text], Gives::Bool, Product),
];
