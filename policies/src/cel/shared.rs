//! Text, lists and maps that are handed over by reference count. The evaluation clones a value whenever it binds it: an element to
//! a loop's variable, a field to an optional. Of the `cel` crate's own types such a clone is a deep one.
//!
//! To everything else these are the crate's own types: each names the one within as what it is.

use std::sync::Arc;

use cel::{
    ExecutionError,
    common::{
        traits::{Adder, Comparer, Container, Indexer, Iterable, Sizer, Zeroer},
        types::{CelList, CelMap, CelString, Type},
        value::{Builtin, BuiltinRef, CowVal, Val},
    },
};

/// A value that many hold.
#[derive(Debug, Clone)]
pub(super) struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

macro_rules! shared {
    ($inner:ident, $variant:ident) => {
        impl Val for Shared<$inner<'static>> {
            fn get_type(&self) -> &Type {
                self.0.get_type()
            }

            fn cel_type() -> &'static Type {
                <$inner<'static> as Val>::cel_type()
            }

            fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
            where
                Self: 'v,
            {
                self.0.as_adder()
            }

            fn as_comparer(&self) -> Option<&dyn Comparer> {
                self.0.as_comparer()
            }

            fn as_container(&self) -> Option<&dyn Container> {
                self.0.as_container()
            }

            fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
            where
                Self: 'v,
            {
                self.0.as_indexer()
            }

            fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
            where
                Self: 'v,
            {
                self.0.as_indexer().is_some().then(|| self as Box<dyn Indexer + 'v>)
            }

            fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
            where
                Self: 'v,
            {
                self.0.as_iterable()
            }

            fn as_sizer(&self) -> Option<&dyn Sizer> {
                self.0.as_sizer()
            }

            fn as_zeroer(&self) -> Option<&dyn Zeroer> {
                self.0.as_zeroer()
            }

            fn equals(&self, other: &dyn Val) -> bool {
                self.0.equals(other)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                Box::new(self.clone())
            }

            fn as_builtin<'b, 'v>(&'b self) -> BuiltinRef<'b, 'v>
            where
                Self: 'v,
            {
                BuiltinRef::$variant(&self.0)
            }

            fn into_builtin<'v>(self: Box<Self>) -> Option<Builtin<'v>>
            where
                Self: 'v,
            {
                Some(Builtin::$variant(Arc::unwrap_or_clone(self.0)))
            }
        }

        impl Indexer for Shared<$inner<'static>> {
            fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
            where
                Self: 'v,
            {
                let indexer = self.0.as_indexer().ok_or_else(|| ExecutionError::no_such_key("index"))?;
                indexer.get(index)
            }

            fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
            where
                Self: 'v,
            {
                self.get(index).map(CowVal::into_owned)
            }
        }
    };
}

shared!(CelString, String);
shared!(CelList, List);
shared!(CelMap, Map);
