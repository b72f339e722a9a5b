//! What is known of a value before there is one: its kind, its fields, and how large it may be. Shapes of our own types come from
//! their JSON Schemas; Kubernetes' from [`kubernetes`](super::kubernetes).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// Anything, with long lists in it: what others attest.
    Large,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// An integer.
    Int,
    /// A number with a fraction.
    Double,
    /// Text of at most so many bytes.
    String(u64),
    /// Bytes.
    Bytes(u64),
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// A list of at most so many.
    List(Arc<Shape>, u64),
    /// Values by text, at most so many.
    Map(Arc<Shape>, u64),
    /// Known fields.
    Object(Arc<Object>),
    /// It, or nothing.
    Optional(Arc<Shape>),
    /// A type of a library: `quantity`, `ip` …
    Opaque(&'static str),
}

/// An object with known fields.
#[derive(Debug, PartialEq)]
pub(crate) struct Object {
    /// What messages call it.
    pub name: String,
    /// Its fields.
    pub fields: BTreeMap<String, Shape>,
    /// It may have others.
    pub open: bool,
}

impl Shape {
    pub(crate) fn object(name: &str, open: bool, fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect();
        Self::Object(Arc::new(Object { name: name.to_owned(), fields, open }))
    }

    pub(crate) fn list(of: Self, most: u64) -> Self {
        Self::List(Arc::new(of), most)
    }

    pub(crate) fn map(of: Self, most: u64) -> Self {
        Self::Map(Arc::new(of), most)
    }

    pub(crate) fn text() -> Self {
        Self::String(MAX_TEXT)
    }

    /// How many elements, entries or bytes it may have.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::List(_, most) | Self::Map(_, most) | Self::String(most) | Self::Bytes(most) => *most,
            Self::Object(object) => object.fields.len() as u64,
            Self::Optional(of) => of.size(),
            Self::Any => MAX_ITEMS,
            Self::Large => MAX_LARGE,
            _ => 1,
        }
    }

    /// What the elements are that a comprehension goes over: of a map its keys. None where there are none.
    pub(crate) fn elements(&self) -> Option<Self> {
        match self {
            Self::Any => Some(Self::Any),
            Self::Large => Some(Self::Large),
            Self::List(of, _) => Some((**of).clone()),
            Self::Map(..) | Self::Object(_) => Some(Self::text()),
            _ => None,
        }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Any | Self::Large => "any",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::List(..) => "list",
            Self::Map(..) => "map",
            Self::Object(object) => &object.name,
            Self::Optional(_) => "optional",
            Self::Opaque(name) => name,
        }
    }

    /// Whether a value of the one can be a value of the other: numbers are one kind, as CEL compares them.
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        use Shape::{Any, Double, Int, Large, List, Map, Null, Object, Optional};
        match (self, other) {
            (Any | Large | Null, _) | (_, Any | Large | Null) | (Int | Double, Int | Double) => true,
            (List(a, _), List(b, _)) | (Map(a, _), Map(b, _)) | (Optional(a), Optional(b)) => a.may_be(b),
            (Map(..) | Object(_), Map(..) | Object(_)) => true,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// The one shape of values of both.
    pub(crate) fn or(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Self::String(*a.max(b)),
            (Self::List(..), Self::List(_, 0)) => self.clone(),
            (Self::List(_, 0), Self::List(..)) => other.clone(),
            (Self::List(a, m), Self::List(b, n)) => Self::list(a.or(b), *m.max(n)),
            (Self::Map(a, m), Self::Map(b, n)) => Self::map(a.or(b), *m.max(n)),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(Arc::new(a.or(b))),
            (a, b) if a == b => a.clone(),
            (Self::Large, _) | (_, Self::Large) => Self::Large,
            _ => Self::Any,
        }
    }

    /// Whether nothing is known of it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Any | Self::Large)
    }

    /// The shape of a JSON Schema's values. `limits` bounds lists, by the name of the type and field; what has none may have
    /// [`MAX_ITEMS`].
    pub(crate) fn of_schema(schema: &Value, name: &str, limits: &[(&str, u64)]) -> Self {
        Reader { root: schema, limits }.read(schema, name, 0)
    }
}

struct Reader<'a> {
    root: &'a Value,
    limits: &'a [(&'a str, u64)],
}

impl Reader<'_> {
    fn read(&self, schema: &Value, name: &str, depth: usize) -> Shape {
        if depth > MAX_SCHEMA_DEPTH {
            return Shape::Any;
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let pointer = reference.trim_start_matches('#');
            let referred = self.root.pointer(pointer).map(|it| self.read(it, last(pointer), depth + 1));
            return match (referred, schema.get("properties")) {
                (Some(referred), None) => referred,
                // A flattened struct with fields of its own.
                (Some(referred), Some(_)) => self.merge(name, vec![referred, self.own(schema, name, depth)]),
                (None, _) => Shape::Any,
            };
        }
        let mut parts = vec![self.own(schema, name, depth)];
        for keyword in ["allOf", "oneOf", "anyOf"] {
            let Some(variants) = schema.get(keyword).and_then(Value::as_array) else { continue };
            let variants: Vec<_> = variants.iter().map(|variant| self.read(variant, name, depth + 1)).collect();
            parts.extend(variants.into_iter().filter(|variant| *variant != Shape::Null));
        }
        self.merge(name, parts)
    }

    /// What the schema itself says, its variants apart. [`Shape::Any`] where it says nothing.
    fn own(&self, schema: &Value, name: &str, depth: usize) -> Shape {
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // `["string", "null"]`.
            Some(Value::Array(kinds)) => {
                let mut kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
                kinds.next().unwrap_or_default()
            }
            _ if schema.get("properties").is_some() => "object",
            _ if schema.get("const").is_some_and(Value::is_string) => "string",
            _ => "",
        };
        match kind {
            "boolean" => Shape::Bool,
            "integer" => Shape::Int,
            "number" => Shape::Double,
            "string" => Shape::text(),
            "null" => Shape::Null,
            "array" => {
                let of = schema.get("items").map_or(Shape::Any, |items| self.read(items, name, depth + 1));
                Shape::list(of, self.limit(name))
            }
            "object" => self.fields(schema, name, depth),
            _ => Shape::Any,
        }
    }

    fn fields(&self, schema: &Value, name: &str, depth: usize) -> Shape {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            let of = schema.get("additionalProperties").filter(|it| it.is_object());
            return Shape::map(of.map_or(Shape::Any, |of| self.read(of, name, depth + 1)), self.limit(name));
        };
        let owner = last(name);
        let fields = properties.iter().map(|(field, schema)| {
            let path = format!("{owner}.{field}");
            (field.clone(), self.read(schema, &path, depth + 1))
        });
        Shape::Object(Arc::new(Object { name: owner.to_owned(), fields: fields.collect(), open: false }))
    }

    /// A value that is of all the parts, or of one of them: of objects all fields.
    fn merge(&self, name: &str, parts: Vec<Shape>) -> Shape {
        let mut parts: Vec<_> = parts.into_iter().filter(|part| *part != Shape::Any).collect();
        if parts.len() <= 1 {
            return parts.pop().unwrap_or(Shape::Any);
        }
        let mut fields = BTreeMap::<String, Shape>::new();
        for part in &parts {
            let Shape::Object(object) = part else {
                let first = parts.first().cloned().unwrap_or(Shape::Any);
                return parts.iter().skip(1).fold(first, |all, part| all.or(part));
            };
            for (field, shape) in &object.fields {
                let merged = fields.get(field).map_or_else(|| shape.clone(), |known| known.or(shape));
                fields.insert(field.clone(), merged);
            }
        }
        Shape::Object(Arc::new(Object { name: last(name).to_owned(), fields, open: false }))
    }

    fn limit(&self, name: &str) -> u64 {
        let found = self.limits.iter().find(|(field, _)| *field == name);
        found.map_or(MAX_ITEMS, |(_, most)| *most)
    }
}

fn last(path: &str) -> &str {
    path.rsplit(['/', '.']).next().unwrap_or(path)
}

/// Elements of a list, or entries of a map, that no limit is stated for.
pub(crate) const MAX_ITEMS: u64 = 256;
/// As many in what others attest, such as a scan's results.
pub(crate) const MAX_LARGE: u64 = 10_000;
/// Bytes of a text.
pub(crate) const MAX_TEXT: u64 = 4 << 10;
const MAX_SCHEMA_DEPTH: usize = 24;
