//! Evaluation: an expression and what is known in, an outcome out. What is not known, or not there, is no value: to touch it fails
//! the evaluation, and the reason is kept beside, where no `?.` or `||` of the expression can lose it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cel::{
    Context, ExecutionError, Value,
    common::value::{CowVal, Val},
    context::VariableResolver,
};
use dna::Cause;

use super::{
    check::{ATTESTATIONS, VARIABLES},
    compile::{Compiled, clean},
    functions,
    value::Made,
};

/// What an evaluation came to.
#[derive(Debug)]
pub(crate) enum Outcome<'v> {
    /// A value.
    Value(Box<dyn Val + 'v>),
    /// It turned on something that there is no value of.
    Lacks(Vec<Lack>),
    /// It failed.
    Error(String),
}

/// Why there is no value of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Nobody can say.
    Unknown {
        /// What.
        what: String,
        cause: Cause,
        detail: String,
    },
    /// It is not there.
    Absent {
        /// What.
        what: String,
        tried: Vec<String>,
    },
    /// It could not be handed over.
    Error(String),
}

/// Where the values of names are.
pub(crate) trait Lookup: Send + Sync {
    /// The value of a name, if it is one. `resolved`: what a reference leads to is read of it.
    fn value(&self, name: &str, resolved: bool) -> Option<Result<&Made, Lack>>;
}

/// Everything given to the expressions of one rule about one image.
pub(crate) struct Given<'g> {
    lookup: &'g dyn Lookup,
    /// Names of this rule that have no value.
    lacks: Mutex<Vec<(String, Lack)>>,
    has_lacks: AtomicBool,
    touched: Mutex<Vec<Lack>>,
    resolved: AtomicBool,
}

impl<'g> Given<'g> {
    pub(crate) fn new(lookup: &'g dyn Lookup) -> Self {
        let (lacks, touched) = (Mutex::default(), Mutex::default());
        Self { lookup, lacks, has_lacks: AtomicBool::new(false), touched, resolved: AtomicBool::new(false) }
    }

    fn touch(&self, lack: Lack) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if !touched.contains(&lack) {
            touched.push(lack);
        }
    }
}

impl VariableResolver for Given<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        // Names of paths are tried as a whole first: none is one but these.
        if variable.contains('.') && !variable.starts_with(ATTESTATIONS) && !variable.starts_with(VARIABLES) {
            return None;
        }
        if self.has_lacks.load(Ordering::Relaxed) {
            let lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
            let mut named = lacks.iter().filter(|(name, _)| name == variable).peekable();
            if named.peek().is_some() {
                named.for_each(|(_, lack)| self.touch(lack.clone()));
                return None;
            }
        }
        match self.lookup.value(variable, self.resolved.load(Ordering::Relaxed))? {
            Ok(value) => Some(CowVal::Borrowed(&**value)),
            Err(lack) => {
                self.touch(lack);
                None
            }
        }
    }
}

/// The evaluation of one rule's expressions.
pub(crate) struct Frame<'g> {
    given: &'g Given<'g>,
    context: Context<'g, 'g>,
}

impl<'g> Frame<'g> {
    pub(crate) fn new(given: &'g Given<'g>) -> Self {
        let mut context = Context::with_env(functions::environment());
        context.set_variable_resolver(given);
        Self { given, context }
    }

    /// Gives a name a value, for all that follows.
    pub(crate) fn bind(&mut self, name: impl Into<String>, value: Box<dyn Val + 'g>) {
        self.context.add_variable_as_val(name, value);
    }

    /// Says that a name has no value, and why.
    pub(crate) fn lack(&mut self, name: impl Into<String>, lack: Lack) {
        self.given.has_lacks.store(true, Ordering::Relaxed);
        self.given.lacks.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), lack));
    }

    pub(crate) fn evaluate(&self, compiled: &Compiled) -> Outcome<'g> {
        self.given.resolved.store(compiled.needs_resolved, Ordering::Relaxed);
        self.given.touched.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            Value::resolve_val(&compiled.tree, &self.context).map(CowVal::into_owned)
        }));
        let evaluated = match evaluated {
            Ok(evaluated) => evaluated,
            Err(_) => return Outcome::Error("the evaluation broke off".to_owned()),
        };
        match evaluated {
            // Whatever was touched, the result does not turn on it: `false && x` is false for any x.
            Ok(value) => Outcome::Value(value),
            Err(error) => {
                let mut touched = self.given.touched.lock().unwrap_or_else(PoisonError::into_inner);
                if touched.is_empty() { Outcome::Error(describe(&error)) } else { Outcome::Lacks(touched.split_off(0)) }
            }
        }
    }
}

/// Lacks, for a message.
pub(crate) fn told(lacks: &[Lack]) -> String {
    let told = lacks.iter().map(|lack| match lack {
        Lack::Unknown { what, cause, detail } => format!("{what} cannot be told ({cause}: {detail})"),
        Lack::Absent { what, .. } => format!("{what} is not there"),
        Lack::Error(why) => why.clone(),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// An error without the values it is about, which may be secrets.
fn describe(error: &ExecutionError) -> String {
    clean(&match error {
        ExecutionError::NoSuchKey(name) => format!("there is no `{name}`: ask `has(…)`, or use `.?{name}`"),
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UndeclaredReference(name) => format!("`{name}` has no value"),
        ExecutionError::FunctionError { function, message } if functions::is_ours(function) => {
            format!("{function}: {message}")
        }
        ExecutionError::FunctionError { function, .. } => format!("`{function}` does not apply to this value"),
        ExecutionError::UnexpectedType { got, want } => format!("it is a {got}, and should be a {want}"),
        ExecutionError::IndexOutOfBounds(_) => "the list has no such element".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number grows too large".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has a key twice".to_owned(),
        _ => "an operation does not apply to the kinds of its values".to_owned(),
    })
}
