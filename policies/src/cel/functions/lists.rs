//! Functions of lists: Kubernetes' (`isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`), cel-go's sets, and the order in which
//! maps are gone through.

use std::cmp::Ordering;

use ::cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{
            CelBool, CelDouble, CelDuration, CelInt, CelList, CelMap, CelMapKey, CelString, CelUInt, DYN_TYPE,
            LIST_TYPE,
        },
        value::{CowVal, Val},
    },
};

use super::error;
use crate::cel::signatures::ORDERED;

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_member_overload!(env, fn is_sorted: (CelList) -> Result<CelBool>)?;
    env.add_member_overload("sum", "list_sum", LIST_TYPE, Vec::new(), sum)?;
    env.add_member_overload("min", "list_min", LIST_TYPE, Vec::new(), min)?;
    env.add_member_overload("max", "list_max", LIST_TYPE, Vec::new(), max)?;
    env.add_member_overload("indexOf", "list_index_of", LIST_TYPE, vec![DYN_TYPE], index_of)?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", LIST_TYPE, vec![DYN_TYPE], last_index_of)?;
    ::cel::add_overload!(env, fn contains: (CelList, CelList) -> CelBool, name = "sets.contains")?;
    ::cel::add_overload!(env, fn equivalent: (CelList, CelList) -> CelBool, name = "sets.equivalent")?;
    ::cel::add_overload!(env, fn intersects: (CelList, CelList) -> CelBool, name = "sets.intersects")?;
    env.add_overload(ORDERED, "ordered", vec![DYN_TYPE], ordered)
}

fn is_sorted(list: &CelList<'_>) -> Result<CelBool, ExecutionError> {
    for pair in list.inner().windows(2) {
        if let [a, b] = pair
            && compare("isSorted", &**a, &**b)? == Ordering::Greater
        {
            return Ok(false.into());
        }
    }
    Ok(true.into())
}

fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let elements = list("sum", &args)?.inner();
    let Some((first, rest)) = elements.split_first() else { return Ok(CowVal::owned(CelInt::from(0))) };
    let is_number = first.downcast_ref::<CelInt>().is_some()
        || first.downcast_ref::<CelUInt>().is_some()
        || first.downcast_ref::<CelDouble>().is_some()
        || first.downcast_ref::<CelDuration>().is_some();
    if !is_number {
        return Err(error("sum", "only numbers and durations have a sum"));
    }
    let mut total = first.clone();
    for element in rest {
        let adder = total.as_adder().ok_or_else(|| error("sum", "only numbers and durations have a sum"))?;
        total = adder.add(&**element)?.into_owned();
    }
    Ok(CowVal::Owned(total))
}

fn min<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    most("min", &args, Ordering::Less)
}

fn max<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    most("max", &args, Ordering::Greater)
}

fn most<'b, 'v>(function: &str, args: &[CowVal<'b, 'v>], wanted: Ordering) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut elements = list(function, args)?.inner().iter();
    let mut found = elements.next().ok_or_else(|| error(function, "the list is empty"))?;
    for element in elements {
        if compare(function, &**element, &**found)? == wanted {
            found = element;
        }
    }
    Ok(CowVal::Owned(found.clone()))
}

fn index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let element = args.get(1).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let found = list("indexOf", &args)?.inner().iter().position(|one| one.equals(&**element));
    Ok(CowVal::owned(index(found)))
}

fn last_index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let element = args.get(1).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let found = list("lastIndexOf", &args)?.inner().iter().rposition(|one| one.equals(&**element));
    Ok(CowVal::owned(index(found)))
}

fn index(found: Option<usize>) -> CelInt {
    found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1).into()
}

fn has(list: &CelList<'_>, element: &dyn Val) -> bool {
    list.inner().iter().any(|one| one.equals(element))
}

fn contains(list: &CelList<'_>, all: &CelList<'_>) -> CelBool {
    all.inner().iter().all(|element| has(list, &**element)).into()
}

fn equivalent(a: &CelList<'_>, b: &CelList<'_>) -> CelBool {
    (*contains(a, b).inner() && *contains(b, a).inner()).into()
}

fn intersects(a: &CelList<'_>, b: &CelList<'_>) -> CelBool {
    b.inner().iter().any(|element| has(a, &**element)).into()
}

/// The keys of a map in order; a list as it is.
fn ordered<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let Some(map) = value.downcast_ref::<CelMap<'_>>() else { return Ok(value) };
    let mut keys: Vec<CelMapKey<'v>> = map.inner().keys().cloned().collect();
    keys.sort();
    let keys = keys.into_iter().map(|key| -> Box<dyn Val + 'v> {
        match key {
            CelMapKey::Bool(key) => Box::new(key),
            CelMapKey::Int(key) => Box::new(key),
            CelMapKey::String(key) => Box::<CelString<'v>>::new(key),
            CelMapKey::UInt(key) => Box::new(key),
        }
    });
    Ok(CowVal::owned(CelList::from(keys.collect::<Vec<_>>())))
}

fn list<'a, 'b, 'v>(function: &str, args: &'a [CowVal<'b, 'v>]) -> Result<&'a CelList<'v>, ExecutionError> {
    let list = args.first().and_then(|list| list.downcast_ref::<CelList<'v>>());
    list.ok_or_else(|| error(function, "it is called on no list"))
}

fn compare(function: &str, a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    a.as_comparer().ok_or_else(|| error(function, "the elements have no order"))?.compare(b)
}
