//! Values for expressions: of anything that serializes, the parts that are read, and no more of a list than costs were counted for.

use std::collections::{BTreeMap, HashMap};

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelUInt},
    value::{CowVal, Val},
};
use serde::{
    Serialize, Serializer,
    ser::{
        Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

use super::{
    functions,
    reads::Reads,
    shape::{MAX_ITEMS, Shape},
    shared::Shared,
};

macro_rules! no_name {
    ($($function:ident($kind:ty))*) => {
        $(fn $function(self, _: $kind) -> Result<Option<String>, TooMany> {
            Err(no_name())
        })*
    };
}
/// A value that owns all of it.
pub(crate) type Made = Box<dyn Val>;

/// The parts of `value` that are read.
///
/// # Errors
/// Where a list or map is longer than its shape says.
pub(crate) fn make<T: Serialize + ?Sized>(value: &T, reads: &Reads, shape: &Shape) -> Result<Made, TooMany> {
    value.serialize(Maker { reads, shape })
}

/// Text as a value.
pub(crate) fn text(text: &str) -> Made {
    Box::new(Shared::new(CelString::from(text.to_owned())))
}

/// A list of values.
pub(crate) fn list(values: Vec<Made>) -> Made {
    Box::new(Shared::new(CelList::from(values)))
}

fn map(entries: HashMap<CelMapKey<'static>, Made>) -> Made {
    Box::new(Shared::new(CelMap::from(entries)))
}

/// True or false.
pub(crate) fn truth(truth: bool) -> Made {
    Box::new(CelBool::from(truth))
}

/// An optional with a value.
pub(crate) fn some(value: Made) -> Made {
    Box::new(CelOptional::of(value))
}

/// An optional without one.
pub(crate) fn none() -> Made {
    Box::new(CelOptional::none())
}

/// A point in time, of its RFC 3339 text.
pub(crate) fn timestamp(time: &str) -> Option<Made> {
    let args = vec![CowVal::owned(CelString::from(time.to_owned()))];
    let timestamp = functions::environment().find_overload("timestamp", &args)?;
    timestamp(args).ok().map(CowVal::into_owned)
}

/// A map with a text in it.
pub(crate) fn with_text(map: Made, name: &str, value: &str) -> Made {
    let Some(known) = map.downcast_ref::<CelMap<'static>>() else { return map };
    let mut entries = known.clone().into_inner();
    entries.insert(CelMapKey::String(CelString::from(name.to_owned())), text(value));
    self::map(entries)
}

/// A value that is true or false.
pub(crate) fn as_bool(value: &dyn Val) -> Option<bool> {
    value.downcast_ref::<CelBool>().map(|value| *value.inner())
}

/// A value that is text.
pub(crate) fn as_text(value: &dyn Val) -> Option<String> {
    value.downcast_ref::<CelString<'_>>().map(|value| value.inner().to_owned())
}

/// More than an expression may be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TooMany(String);

impl serde::ser::Error for TooMany {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct Maker<'a> {
    reads: &'a Reads,
    shape: &'a Shape,
}

/// What is read where everything is.
static WHOLE: Reads = Reads { whole: true, fields: BTreeMap::new(), items: None };

impl<'a> Maker<'a> {
    /// Of a field; none where it is not read.
    fn field(self, name: &str) -> Option<Self> {
        let reads =
            if self.reads.whole || self.reads.items.is_some() { &WHOLE } else { self.reads.fields.get(name)? };
        let shape = match self.shape {
            Shape::Object(object) => object.fields.get(name).unwrap_or(&Shape::Any),
            Shape::Map(of, _) => of,
            Shape::Large => &Shape::Large,
            _ => &Shape::Any,
        };
        Some(Maker { reads, shape })
    }

    fn item(self) -> Maker<'a> {
        let reads = match &self.reads.items {
            Some(items) if !self.reads.whole => items,
            _ => &WHOLE,
        };
        let shape = match self.shape {
            Shape::List(of, _) => of,
            Shape::Large => &Shape::Large,
            _ => &Shape::Any,
        };
        Maker { reads, shape }
    }

    fn most(self) -> usize {
        let most = match self.shape {
            Shape::List(_, most) | Shape::Map(_, most) => *most,
            Shape::Large => self.shape.size(),
            // What is known to be an object has the fields it has.
            Shape::Object(_) => u64::MAX,
            _ => MAX_ITEMS,
        };
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

/// A list or a map that grows.
struct Elements<'a> {
    maker: Maker<'a>,
    list: Vec<Made>,
    map: HashMap<CelMapKey<'static>, Made>,
    key: Option<String>,
    /// A variant's name, around it.
    variant: Option<&'static str>,
}

impl<'a> Elements<'a> {
    fn new(maker: Maker<'a>) -> Self {
        Self { maker, list: Vec::new(), map: HashMap::new(), key: None, variant: None }
    }

    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TooMany> {
        let most = self.maker.most();
        if self.list.len() >= most {
            return Err(TooMany(format!("a list has more than the {most} elements that rules may read")));
        }
        self.list.push(value.serialize(self.maker.item())?);
        Ok(())
    }

    fn put<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), TooMany> {
        match self.maker.field(name) {
            Some(_) => self.put_owned(name.to_owned(), value),
            None => Ok(()),
        }
    }

    fn put_owned<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<(), TooMany> {
        let Some(maker) = self.maker.field(&name) else { return Ok(()) };
        let most = self.maker.most();
        if self.map.len() >= most {
            return Err(TooMany(format!("a map has more than the {most} entries that rules may read")));
        }
        let value = value.serialize(maker)?;
        self.map.insert(CelMapKey::String(CelString::from(name)), value);
        Ok(())
    }

    fn list(self) -> Made {
        tagged(self.variant, list(self.list))
    }

    fn map(self) -> Made {
        tagged(self.variant, map(self.map))
    }
}

fn tagged(variant: Option<&'static str>, value: Made) -> Made {
    match variant {
        None => value,
        Some(name) => {
            let key = CelMapKey::String(CelString::from(name.to_owned()));
            map(HashMap::from([(key, value)]))
        }
    }
}

impl<'a> Serializer for Maker<'a> {
    type Ok = Made;
    type Error = TooMany;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = Elements<'a>;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Elements<'a>;
    type SerializeStructVariant = Elements<'a>;

    fn serialize_bool(self, v: bool) -> Result<Made, TooMany> {
        Ok(Box::new(CelBool::from(v)))
    }

    fn serialize_i8(self, v: i8) -> Result<Made, TooMany> {
        self.serialize_i64(v.into())
    }

    fn serialize_i16(self, v: i16) -> Result<Made, TooMany> {
        self.serialize_i64(v.into())
    }

    fn serialize_i32(self, v: i32) -> Result<Made, TooMany> {
        self.serialize_i64(v.into())
    }

    fn serialize_i64(self, v: i64) -> Result<Made, TooMany> {
        Ok(Box::new(CelInt::from(v)))
    }

    fn serialize_u8(self, v: u8) -> Result<Made, TooMany> {
        self.serialize_i64(v.into())
    }

    fn serialize_u16(self, v: u16) -> Result<Made, TooMany> {
        self.serialize_i64(v.into())
    }

    fn serialize_u32(self, v: u32) -> Result<Made, TooMany> {
        self.serialize_i64(v.into())
    }

    fn serialize_u64(self, v: u64) -> Result<Made, TooMany> {
        Ok(match i64::try_from(v) {
            Ok(v) => Box::new(CelInt::from(v)),
            Err(_) => Box::new(CelUInt::from(v)),
        })
    }

    fn serialize_f32(self, v: f32) -> Result<Made, TooMany> {
        self.serialize_f64(v.into())
    }

    fn serialize_f64(self, v: f64) -> Result<Made, TooMany> {
        Ok(Box::new(CelDouble::from(v)))
    }

    fn serialize_char(self, v: char) -> Result<Made, TooMany> {
        Ok(text(v.encode_utf8(&mut [0; 4])))
    }

    fn serialize_str(self, v: &str) -> Result<Made, TooMany> {
        Ok(text(v))
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<Made, TooMany> {
        Ok(text(&String::from_utf8_lossy(v)))
    }

    fn serialize_none(self) -> Result<Made, TooMany> {
        Ok(Box::new(CelNull))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Made, TooMany> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Made, TooMany> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Made, TooMany> {
        self.serialize_none()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Made, TooMany> {
        Ok(text(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Made, TooMany> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Made, TooMany> {
        let mut elements = Elements::new(self);
        elements.put(variant, value)?;
        Ok(elements.map())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'a>, TooMany> {
        Ok(Elements::new(self))
    }

    fn serialize_tuple(self, _: usize) -> Result<Elements<'a>, TooMany> {
        Ok(Elements::new(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, TooMany> {
        Ok(Elements::new(self))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Elements<'a>, TooMany> {
        Ok(Elements { variant: Some(variant), ..Elements::new(self) })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Elements<'a>, TooMany> {
        Ok(Elements::new(self))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, TooMany> {
        Ok(Elements::new(self))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Elements<'a>, TooMany> {
        let inner = self.field(variant).unwrap_or(Maker { reads: &WHOLE, shape: &Shape::Any });
        Ok(Elements { variant: Some(variant), ..Elements::new(inner) })
    }
}

impl SerializeSeq for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TooMany> {
        self.push(value)
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.list())
    }
}

impl SerializeTuple for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TooMany> {
        self.push(value)
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.list())
    }
}

impl SerializeTupleStruct for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TooMany> {
        self.push(value)
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.list())
    }
}

impl SerializeTupleVariant for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TooMany> {
        self.push(value)
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.list())
    }
}

impl SerializeMap for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), TooMany> {
        self.key = key.serialize(Name(self.maker))?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TooMany> {
        match self.key.take() {
            Some(key) => self.put_owned(key, value),
            None => Ok(()),
        }
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.map())
    }
}

impl SerializeStruct for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), TooMany> {
        self.put(key, value)
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.map())
    }
}

impl SerializeStructVariant for Elements<'_> {
    type Ok = Made;
    type Error = TooMany;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), TooMany> {
        self.put(key, value)
    }

    fn end(self) -> Result<Made, TooMany> {
        Ok(self.map())
    }
}

/// The key of a map: its text, where what it names is read.
struct Name<'a>(Maker<'a>);

impl Serializer for Name<'_> {
    type Ok = Option<String>;
    type Error = TooMany;
    type SerializeSeq = Impossible<Option<String>, TooMany>;
    type SerializeTuple = Impossible<Option<String>, TooMany>;
    type SerializeTupleStruct = Impossible<Option<String>, TooMany>;
    type SerializeTupleVariant = Impossible<Option<String>, TooMany>;
    type SerializeMap = Impossible<Option<String>, TooMany>;
    type SerializeStruct = Impossible<Option<String>, TooMany>;
    type SerializeStructVariant = Impossible<Option<String>, TooMany>;

    fn serialize_str(self, name: &str) -> Result<Option<String>, TooMany> {
        Ok(self.0.field(name).map(|_| name.to_owned()))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Option<String>, TooMany> {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        name: &T,
    ) -> Result<Option<String>, TooMany> {
        name.serialize(self)
    }

    no_name! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_f32(f32) serialize_f64(f64)
        serialize_char(char) serialize_bytes(&[u8]) serialize_unit_struct(&'static str)
    }

    fn serialize_none(self) -> Result<Option<String>, TooMany> {
        Err(no_name())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Option<String>, TooMany> {
        Err(no_name())
    }

    fn serialize_unit(self) -> Result<Option<String>, TooMany> {
        Err(no_name())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Option<String>, TooMany> {
        Err(no_name())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, TooMany> {
        Err(no_name())
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, TooMany> {
        Err(no_name())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, TooMany> {
        Err(no_name())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, TooMany> {
        Err(no_name())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, TooMany> {
        Err(no_name())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, TooMany> {
        Err(no_name())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, TooMany> {
        Err(no_name())
    }
}

fn no_name() -> TooMany {
    TooMany("a map has keys that are no text".to_owned())
}
