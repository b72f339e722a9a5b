//! Functions beyond the language's: Kubernetes' libraries, as its API server has them, and `glob`. Source: kubernetes.io, "Common
//! Expression Language in Kubernetes"; k8s.io/apiserver, `pkg/cel/library`.

mod format;
mod glob;
mod lists;
mod net;
mod quantity;
mod re2;
pub(super) mod regex;
mod time;
mod url;
mod version;

use std::sync::{Arc, LazyLock};

use ::cel::{DeclarationError, Env, ExecutionError, extensions};

pub use glob::glob;

/// The environment of all expressions, made once.
pub(crate) fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        let declared = declare(&mut env);
        debug_assert!(declared.is_ok(), "{declared:?}");
        Arc::new(env)
    });
    ENVIRONMENT.clone()
}

fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    for extension in [extensions::strings, extensions::lists, extensions::math] {
        env.add_extension(extension)?;
    }
    format::declare(env)?;
    glob::declare(env)?;
    lists::declare(env)?;
    net::declare(env)?;
    quantity::declare(env)?;
    regex::declare(env)?;
    time::declare(env)?;
    url::declare(env)?;
    version::declare(env)
}

/// Whether a function is one of these, whose errors quote no argument.
pub(crate) fn is_ours(function: &str) -> bool {
    OURS.contains(&function)
}

const OURS: [&str; 16] = [
    "asInteger",
    "cidr",
    "find",
    "findAll",
    "indexOf",
    "ip",
    "isSorted",
    "lastIndexOf",
    "matches",
    "max",
    "min",
    "quantity",
    "semver",
    "sum",
    "timestamp",
    "url",
];

/// An error of a function. The argument is not in it: it may be a secret.
fn error(function: &str, message: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, message.to_string())
}

/// Implements a value of a library: of a type of its own, equal to others of it by `same`.
macro_rules! value {
    ($kind:ident, $name:literal, $same:expr) => {
        impl ::cel::common::value::Val for $kind {
            fn get_type(&self) -> &::cel::common::types::Type {
                <Self as ::cel::common::value::Val>::cel_type()
            }

            fn cel_type() -> &'static ::cel::common::types::Type {
                static TYPE: ::cel::common::types::Type = ::cel::common::types::Type::new_unspecified_type($name);
                &TYPE
            }

            fn equals(&self, other: &dyn ::cel::common::value::Val) -> bool {
                let same: fn(&Self, &Self) -> bool = $same;
                other.downcast_ref::<Self>().is_some_and(|other| same(self, other))
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn ::cel::common::value::Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn ::std::any::Any> {
                Some(self)
            }
        }

        impl ::cel::common::value::StaticVal for $kind {}
    };
}
use value;
