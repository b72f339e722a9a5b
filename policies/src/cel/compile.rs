//! From text to an expression that may be evaluated.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use cel::common::ast::{IdedExpr, SourceInfo};

use super::{
    check::{self, Wrong},
    functions,
    names::{Names, needs_resolved},
    reads::Reads,
    shape::Shape,
    source::{self, Position},
};

/// An expression that is known to be well formed, and to end.
#[derive(Debug)]
pub struct Compiled {
    source: String,
    pub(super) tree: IdedExpr,
    shape: Shape,
    cost: u64,
    reads: BTreeMap<String, Reads>,
    /// More is read of an image than how the pod names it.
    pub(super) needs_resolved: bool,
}

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct Error {
    /// Where in the expression.
    pub at: Position,
    /// What is wrong, and what to do.
    pub why: String,
}

/// What an expression must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Bool,
    Text,
    Anything,
}

impl Compiled {
    /// # Errors
    /// [`Error`] where it is no expression, names what is not there, does not give what is expected, or may cost too much.
    pub(crate) fn new(source: &str, names: &Names, expected: Expected) -> Result<Self, Error> {
        source::check(source).map_err(|(at, why)| Error { at, why })?;
        let (mut tree, info) = parse(source)?;
        let checked = check::check(&mut tree, &info, names).map_err(|Wrong { at, why }| Error { at, why })?;
        let start = |why: String| Error { at: Position { line: 1, column: 1 }, why };
        let fits = match expected {
            Expected::Bool => checked.shape.is_open() || checked.shape == Shape::Bool,
            Expected::Text => checked.shape.is_open() || matches!(checked.shape, Shape::String(_)),
            Expected::Anything => true,
        };
        if !fits {
            let wanted = if expected == Expected::Bool { "true or false" } else { "text" };
            return Err(start(format!("it must give {wanted}, and gives a {}", checked.shape.name())));
        }
        if checked.cost > MAX_COST {
            return Err(start(format!(
                "it may cost {} units, more than {MAX_COST}: loops in loops multiply; compare with `in`, or ask less",
                checked.cost
            )));
        }
        let (shape, cost, reads) = (checked.shape, checked.cost, checked.reads);
        let needs_resolved = needs_resolved(&reads);
        Ok(Self { source: source.to_owned(), tree, shape, cost, reads, needs_resolved })
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The most that it may cost, in units of Kubernetes' estimator.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// What it reads, by the variable: `container` → `securityContext` → …
    pub fn names(&self) -> &BTreeMap<String, Reads> {
        &self.reads
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// The tree of a text. The parser is not ours: that it panics is an error like others.
fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), Error> {
    let environment = functions::environment();
    let parsed = catch_unwind(AssertUnwindSafe(|| environment.parser().parse_with_source_info(source)));
    let at = Position { line: 1, column: 1 };
    let parsed = parsed.map_err(|_| Error { at, why: "the parser cannot read it".to_owned() })?;
    parsed.map_err(|errors| {
        let first = errors.errors.first();
        let position = first.map_or((1, 1), |error| error.pos);
        let one = |number: isize| usize::try_from(number).unwrap_or_default().max(1);
        let at = Position { line: one(position.0), column: one(position.1) };
        let why = first.map_or("it cannot be read", |error| error.msg.lines().next().unwrap_or_default());
        Error { at, why: clean(why) }
    })
}

/// Outside text, fit for a message.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}

/// Units of one expression, as Kubernetes allows.
const MAX_COST: u64 = 1_000_000;
const MAX_MESSAGE_CHARS: usize = 300;
