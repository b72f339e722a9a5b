//! One walk over an expression's tree before it ever runs: are all names, fields and functions known, do kinds fit, what does it
//! read, and what can it cost at most.
//!
//! Costs are counted as Kubernetes' estimator does (k8s.io/apiserver, `pkg/cel`): about one unit an operation, a tenth a byte or
//! element that a function goes over, and a loop's body as often as its list may be long.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, SelectExpr, SourceInfo, operators,
};

use super::{
    reads::{Reads, Step},
    shape::{MAX_ITEMS, Shape},
    signatures::{self, NAMESPACES},
    source::Position,
};

/// What an expression may name.
pub(crate) type Names = BTreeMap<String, Shape>;

/// What the walk found out.
#[derive(Debug)]
pub(crate) struct Checked {
    pub shape: Shape,
    pub cost: u64,
    pub reads: BTreeMap<String, Reads>,
}

/// Something wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub at: Position,
    pub why: String,
}

/// Walks a tree, and replaces in it what is evaluated by our own functions: patterns, which are compiled once, and loops over
/// maps, which go in the order of their keys.
pub(crate) fn check(expr: &mut IdedExpr, info: &SourceInfo, names: &Names) -> Result<Checked, Wrong> {
    let mut walk = Walk { info, names, scopes: Vec::new(), reads: BTreeMap::new(), nodes: 0, bare: false };
    let mut cost = 0;
    let shape = walk.value(expr, &mut cost)?;
    if walk.bare {
        return walk.wrong(expr, format!("name one of them: `{ATTESTATIONS}.NAME`, `{VARIABLES}.NAME`"));
    }
    Ok(Checked { shape, cost, reads: walk.reads })
}

struct Walk<'a> {
    info: &'a SourceInfo,
    names: &'a Names,
    /// Names of loops, innermost last.
    scopes: Vec<(String, Place)>,
    reads: BTreeMap<String, Reads>,
    nodes: usize,
    /// All attestations or variables are used at once.
    bare: bool,
}

/// A value, and where it stands in what was given, if it does.
#[derive(Debug, Clone)]
struct Place {
    shape: Shape,
    path: Option<(String, Vec<Step>)>,
}

impl Place {
    fn made(shape: Shape) -> Self {
        Self { shape, path: None }
    }

    fn into(self, step: Step, shape: Shape) -> Self {
        let path = self.path.map(|(root, mut steps)| {
            steps.push(step);
            (root, steps)
        });
        Self { shape, path }
    }
}

impl Walk<'_> {
    fn wrong<T>(&self, expr: &IdedExpr, why: impl Into<String>) -> Result<T, Wrong> {
        let start = self.info.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
        Err(Wrong { at: Position::of(&self.info.source, start), why: why.into() })
    }

    /// A value that is used as a whole.
    fn value(&mut self, expr: &mut IdedExpr, cost: &mut u64) -> Result<Shape, Wrong> {
        let place = self.place(expr, cost)?;
        self.read(&place);
        Ok(place.shape)
    }

    fn read(&mut self, place: &Place) {
        if let Some((root, steps)) = &place.path {
            if steps.is_empty() && (root == ATTESTATIONS || root == VARIABLES) {
                self.bare = true;
            }
            self.reads.entry(root.clone()).or_default().at(steps).whole = true;
        }
    }

    /// A value of which perhaps only a part is used.
    fn place(&mut self, expr: &mut IdedExpr, cost: &mut u64) -> Result<Place, Wrong> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.wrong(expr, format!("the expression has more than {MAX_NODES} operations: use variables"));
        }
        let at = IdedExpr { id: expr.id, expr: Expr::Unspecified };
        match &mut expr.expr {
            Expr::Literal(literal) => Ok(Place::made(literal_shape(literal))),
            Expr::Ident(name) => {
                add(cost, 1);
                self.ident(&at, name)
            }
            Expr::Select(select) => {
                let named = named(&select.operand, &select.field, if select.test { Way::Has } else { Way::Plain });
                let place = self.select(&at, select, cost)?;
                if let Some(name) = named {
                    expr.expr = Expr::Ident(name);
                }
                Ok(place)
            }
            Expr::Call(call) => {
                let named = call_named(call);
                let place = self.call(&at, call, cost)?;
                if let Some(name) = named {
                    expr.expr = Expr::Ident(name);
                }
                Ok(place)
            }
            Expr::List(list) => self.list(list, cost),
            Expr::Map(map) => {
                add(cost, 30);
                let mut of = None;
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                        return self.wrong(&at, "it is no map");
                    };
                    self.value(&mut entry.key, cost)?;
                    let shape = self.value(&mut entry.value, cost)?;
                    of = Some(of.map_or(shape.clone(), |of: Shape| of.or(&shape)));
                }
                Ok(Place::made(Shape::map(of.unwrap_or(Shape::Any), map.entries.len() as u64)))
            }
            Expr::Comprehension(comprehension) => self.comprehension(&at, comprehension, cost),
            Expr::Struct(_) => self.wrong(&at, "there are no message types to make"),
            Expr::Unspecified => self.wrong(&at, "something is missing"),
        }
    }

    fn ident(&self, at: &IdedExpr, name: &str) -> Result<Place, Wrong> {
        if let Some((_, place)) = self.scopes.iter().rev().find(|(scope, _)| scope == name) {
            return Ok(place.clone());
        }
        if let Some(shape) = self.names.get(name) {
            return Ok(Place { shape: shape.clone(), path: Some((name.to_owned(), Vec::new())) });
        }
        if signatures::TYPES.contains(&name) {
            return Ok(Place::made(Shape::Any));
        }
        let known = self.scopes.iter().map(|(name, _)| name.as_str()).chain(self.names.keys().map(String::as_str));
        self.wrong(at, format!("`{name}` is not known here{}", meant(name, known)))
    }

    fn select(&mut self, at: &IdedExpr, select: &mut SelectExpr, cost: &mut u64) -> Result<Place, Wrong> {
        let operand = self.place(&mut select.operand, cost)?;
        add(cost, 1);
        let place = self.field(at, operand, &select.field)?;
        if select.test {
            self.read(&place);
            return Ok(Place::made(Shape::Bool));
        }
        Ok(place)
    }

    /// A field of a value.
    fn field(&self, at: &IdedExpr, operand: Place, name: &str) -> Result<Place, Wrong> {
        let shape = match &operand.shape {
            Shape::Any => Shape::Any,
            Shape::Large => Shape::Large,
            Shape::Map(of, _) => (**of).clone(),
            Shape::Object(object) => match object.fields.get(name) {
                Some(shape) => shape.clone(),
                None if object.open => Shape::Any,
                None => {
                    let meant = meant(name, object.fields.keys().map(String::as_str));
                    return self.wrong(at, format!("`{}` has no field `{name}`{meant}", object.name));
                }
            },
            Shape::Optional(of) => {
                let inner = self.field(at, Place { shape: (**of).clone(), path: operand.path.clone() }, name)?;
                return Ok(Place { shape: optional(inner.shape), path: inner.path });
            }
            other => return self.wrong(at, format!("a {} has no fields: `{name}`", other.name())),
        };
        Ok(operand.into(Step::Field(name.to_owned()), shape))
    }

    fn list(&mut self, list: &mut ListExpr, cost: &mut u64) -> Result<Place, Wrong> {
        add(cost, 10);
        let mut of = None;
        for (at, element) in list.elements.iter_mut().enumerate() {
            let shape = match (self.value(element, cost)?, list.optional_indices.contains(&at)) {
                (Shape::Optional(of), true) => (*of).clone(),
                (shape, _) => shape,
            };
            of = Some(of.map_or(shape.clone(), |of: Shape| of.or(&shape)));
        }
        Ok(Place::made(Shape::list(of.unwrap_or(Shape::Any), list.elements.len() as u64)))
    }

    fn call(&mut self, at: &IdedExpr, call: &mut CallExpr, cost: &mut u64) -> Result<Place, Wrong> {
        match (call.func_name.as_str(), call.args.as_mut_slice()) {
            (operators::OPT_SELECT, [operand, field]) => {
                let Expr::Literal(LiteralValue::String(name)) = &field.expr else {
                    return self.wrong(at, "a field's name is missing");
                };
                let name = name.inner().to_owned();
                let operand = self.place(operand, cost)?;
                add(cost, 1);
                let place = self.field(at, operand, &name)?;
                return Ok(Place { shape: optional(place.shape), path: place.path });
            }
            (name @ (operators::INDEX | operators::OPT_INDEX), [operand, index]) => {
                let is_optional = name == operators::OPT_INDEX;
                let operand = self.place(operand, cost)?;
                add(cost, 1);
                let place = self.index(at, operand, index, cost)?;
                let shape = if is_optional { optional(place.shape) } else { place.shape };
                return Ok(Place { shape, path: place.path });
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.boolean(condition, cost)?;
                let (mut a, mut b) = (0, 0);
                let shape = self.value(yes, &mut a)?.or(&self.value(no, &mut b)?);
                add(cost, a.max(b));
                return Ok(Place::made(shape));
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, args) => {
                for arg in args {
                    self.boolean(arg, cost)?;
                }
                return Ok(Place::made(Shape::Bool));
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [arg]) => {
                self.boolean(arg, cost)?;
                add(cost, 1);
                return Ok(Place::made(Shape::Bool));
            }
            _ => {}
        }
        if let Some(shape) = self.operator(at, call, cost)? {
            return Ok(Place::made(shape));
        }
        self.function(at, call, cost)
    }

    fn boolean(&mut self, expr: &mut IdedExpr, cost: &mut u64) -> Result<(), Wrong> {
        match self.value(expr, cost)? {
            Shape::Bool | Shape::Any | Shape::Large => Ok(()),
            other => self.wrong(expr, format!("a bool is needed here, this is a {}", other.name())),
        }
    }

    fn index(&mut self, at: &IdedExpr, operand: Place, index: &mut IdedExpr, cost: &mut u64) -> Result<Place, Wrong> {
        if let Expr::Literal(LiteralValue::String(name)) = &index.expr
            && !matches!(operand.shape, Shape::List(..))
        {
            return self.field(at, operand, name.inner());
        }
        let found = self.value(index, cost)?;
        match operand.shape.clone() {
            Shape::List(of, _) if found.may_be(&Shape::Int) => Ok(operand.into(Step::Item, (*of).clone())),
            Shape::List(..) => self.wrong(index, format!("a list is indexed by an int, not by a {}", found.name())),
            shape => {
                // Which part it is shows only later.
                self.read(&operand);
                let of = match shape {
                    Shape::Map(of, _) => (*of).clone(),
                    Shape::Any | Shape::Object(_) | Shape::Optional(_) => Shape::Any,
                    Shape::Large => Shape::Large,
                    other => return self.wrong(at, format!("a {} cannot be indexed", other.name())),
                };
                Ok(Place::made(of))
            }
        }
    }

    /// An operator on two values or one; none where the call is no operator.
    fn operator(&mut self, at: &IdedExpr, call: &mut CallExpr, cost: &mut u64) -> Result<Option<Shape>, Wrong> {
        let name = call.func_name.clone();
        let [left, rest @ ..] = call.args.as_mut_slice() else { return Ok(None) };
        let is_operator = name.starts_with('_') || name == operators::IN || name == operators::NEGATE;
        if !is_operator || call.target.is_some() {
            return Ok(None);
        }
        let a = self.value(left, cost)?;
        let Some(right) = rest.first_mut() else {
            add(cost, 1);
            return match a {
                Shape::Int | Shape::Double | Shape::Any | Shape::Large => Ok(Some(a)),
                other => self.wrong(at, format!("a {} has no negative", other.name())),
            };
        };
        let b = self.value(right, cost)?;
        let sign = name.trim_matches(['_', '@']);
        let fits = a.may_be(&b);
        let unfit = |walk: &Self| {
            let (a, b) = (a.name(), b.name());
            walk.wrong(at, format!("`{sign}` does not apply to a {a} and a {b}{}", hint(a, b)))
        };
        let shape = match name.as_str() {
            operators::EQUALS | operators::NOT_EQUALS => {
                add(cost, 1 + a.size().min(b.size()) / 10);
                if !fits { return unfit(self) } else { Shape::Bool }
            }
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
                add(cost, 1 + a.size().min(b.size()) / 10);
                let ordered = |shape: &Shape| {
                    use Shape::{Any, Bool, Bytes, Double, Duration, Int, Large, String, Timestamp};
                    matches!(shape, Any | Large | Bool | Bytes(_) | Double | Duration | Int | String(_) | Timestamp)
                };
                if !fits || !ordered(&a) || !ordered(&b) { return unfit(self) } else { Shape::Bool }
            }
            operators::IN => {
                let within = match &b {
                    Shape::List(of, most) => {
                        add(cost, 1 + most.saturating_mul(1 + a.size().min(of.size()) / 10));
                        of.may_be(&a)
                    }
                    Shape::Map(..) | Shape::Object(_) | Shape::Any | Shape::Large => {
                        add(cost, 1 + b.size());
                        true
                    }
                    _ => false,
                };
                if !within { return unfit(self) } else { Shape::Bool }
            }
            _ => {
                add(cost, 1 + (a.size() + b.size()) / 10);
                match arithmetic(&name, &a, &b) {
                    Some(shape) if shape.size() <= MAX_MADE => shape,
                    Some(_) => return self.wrong(at, "the result may grow too large"),
                    None => return unfit(self),
                }
            }
        };
        Ok(Some(shape))
    }

    fn function(&mut self, at: &IdedExpr, call: &mut CallExpr, cost: &mut u64) -> Result<Place, Wrong> {
        let mut name = call.func_name.clone();
        // `sets.contains(…)`: the target is a part of the name.
        let namespace = match call.target.as_ref().map(|target| &target.expr) {
            Some(Expr::Ident(namespace)) if NAMESPACES.contains(&namespace.as_str()) => Some(namespace.clone()),
            _ => None,
        };
        let is_member = call.target.is_some() && namespace.is_none();
        if let Some(namespace) = namespace {
            name = format!("{namespace}.{name}");
        }
        let mut places = Vec::new();
        if let (true, Some(target)) = (is_member, &mut call.target) {
            places.push(self.place(target, cost)?);
        }
        for arg in &mut call.args {
            places.push(self.place(arg, cost)?);
        }
        let shapes: Vec<_> = places.iter().map(|place| place.shape.clone()).collect();
        let signature = match signatures::find(&name, is_member, &shapes) {
            Ok(signature) => signature,
            Err(candidates) if candidates.is_empty() => {
                let known = signatures::names(is_member);
                let what = if is_member { "no value has a function" } else { "there is no function" };
                return self.wrong(at, format!("{what} `{name}`{}", meant(&name, known)));
            }
            Err(candidates) => {
                let found = shapes.iter().map(Shape::name).collect::<Vec<_>>().join(", ");
                return self.wrong(at, format!("`{name}` does not apply to ({found}), but to {candidates}"));
            }
        };
        add(cost, signature.cost(&shapes));
        // The value inside an optional stays where it is.
        if let ("value", [place]) = (name.as_str(), places.as_slice())
            && let Shape::Optional(of) = &place.shape
        {
            return Ok(Place { shape: (**of).clone(), path: place.path.clone() });
        }
        places.iter().for_each(|place| self.read(place));
        if let Some(kind) = signature.pattern() {
            let pattern = call.args.get(if is_member { 0 } else { kind.argument() });
            match pattern.map(|pattern| &pattern.expr) {
                Some(Expr::Literal(LiteralValue::String(pattern))) => {
                    if let Err(error) = kind.compile(pattern.inner()) {
                        return self.wrong(at, error);
                    }
                }
                _ => return self.wrong(at, format!("the pattern of `{name}` must be written out")),
            }
        }
        if let Some((_, ours)) = signatures::IN_PLACE.iter().find(|(usual, _)| *usual == name) {
            call.func_name = (*ours).to_owned();
        }
        let shape = signature.result(&shapes);
        if shape.size() > MAX_MADE {
            return self.wrong(at, "the result may grow too large");
        }
        Ok(Place::made(shape))
    }

    fn comprehension(&mut self, at: &IdedExpr, loop_: &mut ComprehensionExpr, cost: &mut u64) -> Result<Place, Wrong> {
        for name in [&loop_.iter_var, &loop_.accu_var] {
            if self.names.contains_key(name) || NAMESPACES.contains(&name.as_str()) {
                return self.wrong(at, format!("`{name}` already means something else: choose another name"));
            }
        }
        if self.scopes.len() >= 2 * MAX_LOOPS {
            return self.wrong(at, format!("loops nest deeper than {MAX_LOOPS}: use variables"));
        }
        let range = self.place(&mut loop_.iter_range, cost)?;
        let Some(elements) = range.shape.elements() else {
            return self.wrong(at, format!("a {} has no elements{}", range.shape.name(), hint(range.shape.name(), "")));
        };
        let count = range.shape.size();
        let element = match &range.shape {
            Shape::List(..) | Shape::Any | Shape::Large => {
                // That they are there, and how many, is read whatever is read of each.
                if let Some((root, steps)) = &range.path {
                    self.reads.entry(root.clone()).or_default().at(steps).items.get_or_insert_default();
                }
                range.clone().into(Step::Item, elements)
            }
            _ => {
                self.read(&range);
                Place::made(elements)
            }
        };
        if !matches!(range.shape, Shape::List(..)) {
            order(&mut loop_.iter_range);
            add(cost, count);
        }
        let init = self.value(&mut loop_.accu_init, cost)?;
        let gathers = matches!(&loop_.accu_init.expr, Expr::List(list) if list.elements.is_empty());
        let accumulator = if gathers { Shape::list(Shape::Any, count) } else { init };
        let outer = self.scopes.len();
        self.scopes.push((loop_.accu_var.clone(), Place::made(accumulator.clone())));
        self.scopes.push((loop_.iter_var.clone(), element));
        let mut each = 1;
        self.value(&mut loop_.loop_cond, &mut each)?;
        let step = self.step(&mut loop_.loop_step, &loop_.accu_var, &mut each)?;
        add(cost, count.saturating_mul(each));
        self.scopes.truncate(outer);
        let result = match (gathers, step) {
            (true, Some(of)) if count.saturating_mul(of.size().max(1)) > MAX_MADE => {
                return self.wrong(at, "the result may grow too large");
            }
            (true, Some(of)) => Shape::list(of, count),
            _ => accumulator,
        };
        self.scopes.push((loop_.accu_var.clone(), Place::made(result)));
        let result = self.place(&mut loop_.result, cost)?;
        self.scopes.truncate(outer);
        Ok(result)
    }

    /// A loop's step; the shape of what it appends, where it does.
    fn step(&mut self, step: &mut IdedExpr, accumulator: &str, cost: &mut u64) -> Result<Option<Shape>, Wrong> {
        if let Expr::Call(call) = &mut step.expr {
            match (call.func_name.as_str(), call.args.as_mut_slice()) {
                (operators::CONDITIONAL, [condition, append, _]) if appends(append, accumulator) => {
                    self.boolean(condition, cost)?;
                    return self.step(append, accumulator, cost);
                }
                (operators::ADD, [_, list]) if matches!(list.expr, Expr::List(_)) => {
                    let added = self.value(list, cost)?;
                    return Ok(match added {
                        Shape::List(of, _) => Some((*of).clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        self.value(step, cost)?;
        Ok(None)
    }
}

/// How a part of [`ATTESTATIONS`] or [`VARIABLES`] is asked for. Each is a name of its own to the evaluation, which can so tell
/// an attestation that is not there from one that is not known, and from an empty list.
#[derive(Clone, Copy)]
enum Way {
    /// `attestations.a`, `attestations["a"]`.
    Plain,
    /// `attestations.?a`.
    Optional,
    /// `has(attestations.a)`.
    Has,
}

fn named(operand: &IdedExpr, field: &str, way: Way) -> Option<String> {
    let Expr::Ident(root) = &operand.expr else { return None };
    match way {
        _ if root != ATTESTATIONS && root != VARIABLES => None,
        Way::Plain => Some(format!("{root}.{field}")),
        Way::Optional => Some(format!("{root}.?{field}")),
        Way::Has => Some(format!("{root}.{field}?")),
    }
}

fn call_named(call: &CallExpr) -> Option<String> {
    let (operand, Expr::Literal(LiteralValue::String(field))) = (call.args.first()?, &call.args.get(1)?.expr) else {
        return None;
    };
    let way = match call.func_name.as_str() {
        operators::INDEX => Way::Plain,
        operators::OPT_SELECT | operators::OPT_INDEX => Way::Optional,
        _ => return None,
    };
    named(operand, field.inner(), way)
}

fn appends(expr: &IdedExpr, accumulator: &str) -> bool {
    let Expr::Call(call) = &expr.expr else { return false };
    let first = call.args.first().map(|arg| &arg.expr);
    call.func_name == operators::ADD && matches!(first, Some(Expr::Ident(name)) if name == accumulator)
}

/// Wraps what may be a map, so that its keys come in order: a hash map's come in none, and equal input shall give equal output.
fn order(range: &mut IdedExpr) {
    let inner = std::mem::take(range);
    let (id, args) = (inner.id, vec![inner]);
    *range =
        IdedExpr { id, expr: Expr::Call(CallExpr { func_name: signatures::ORDERED.to_owned(), target: None, args }) };
}

fn arithmetic(operator: &str, a: &Shape, b: &Shape) -> Option<Shape> {
    use Shape::{Any, Bytes, Double, Duration, Int, Large, List, String, Timestamp};
    Some(match (operator, a, b) {
        (_, Int, Int) => Int,
        (operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE, Double, Double) => Double,
        (operators::ADD, String(m), String(n)) => String(m + n),
        (operators::ADD, Bytes(m), Bytes(n)) => Bytes(m + n),
        (operators::ADD, List(a, m), List(b, n)) => Shape::list(if *m == 0 { (**b).clone() } else { a.or(b) }, m + n),
        (operators::ADD, Timestamp, Duration) | (operators::ADD, Duration, Timestamp) => Timestamp,
        (operators::SUBSTRACT, Timestamp, Duration) => Timestamp,
        (operators::SUBSTRACT, Timestamp, Timestamp) => Duration,
        (operators::ADD | operators::SUBSTRACT, Duration, Duration) => Duration,
        (_, Any | Large, other) | (_, other, Any | Large) => match other {
            String(n) => String(n + super::shape::MAX_TEXT),
            List(_, n) => Shape::list(Any, n + MAX_ITEMS),
            Any | Large | Int | Double | Timestamp | Duration | Bytes(_) => Any,
            _ => return None,
        },
        _ => return None,
    })
}

fn optional(shape: Shape) -> Shape {
    match shape {
        Shape::Optional(_) => shape,
        other => Shape::Optional(Arc::new(other)),
    }
}

fn literal_shape(literal: &LiteralValue) -> Shape {
    match literal {
        LiteralValue::Boolean(_) => Shape::Bool,
        LiteralValue::Bytes(bytes) => Shape::Bytes(bytes.inner().len() as u64),
        LiteralValue::Double(_) => Shape::Double,
        LiteralValue::Int(_) | LiteralValue::UInt(_) => Shape::Int,
        LiteralValue::Null => Shape::Null,
        LiteralValue::String(text) => Shape::String(text.inner().len() as u64),
    }
}

fn add(cost: &mut u64, more: u64) {
    *cost = cost.saturating_add(more);
}

fn hint(a: &str, b: &str) -> &'static str {
    if a == "optional" || b == "optional" { ": `.orValue(…)` gives what to take where there is nothing" } else { "" }
}

/// "did you mean …?", where a name that is known is much like it.
pub(crate) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: BTreeSet<_> = known.filter(|known| !known.starts_with('@')).collect();
    let near = known.iter().map(|known| (distance(name, known), *known)).min();
    match near {
        Some((distance, near)) if distance <= 1 + name.len().min(24) / 4 => format!(": did you mean `{near}`?"),
        _ if known.len() <= MAX_LISTED && !known.is_empty() => {
            format!(": there is {}", known.into_iter().collect::<Vec<_>>().join(", "))
        }
        _ => String::new(),
    }
}

/// Levenshtein's distance, letters of both cases alike.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let changed = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The object whose fields are a rule's attestations.
pub(crate) const ATTESTATIONS: &str = "attestations";
/// The object whose fields are a rule's variables.
pub(crate) const VARIABLES: &str = "variables";
/// Operations of one expression, macros expanded.
const MAX_NODES: usize = 1_500;
/// Loops in loops.
const MAX_LOOPS: usize = 4;
/// Elements or bytes of a value that an expression makes.
const MAX_MADE: u64 = 16 << 20;
const MAX_LISTED: usize = 12;
