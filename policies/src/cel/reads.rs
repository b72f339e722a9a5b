//! Which parts of a value an expression reads: what has to be converted for it, and what has to be equal for its result to be.

use std::collections::BTreeMap;

use serde_json::Value;

/// The parts of one value that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// All of it.
    pub whole: bool,
    /// Of its fields.
    pub fields: BTreeMap<String, Reads>,
    /// Of its elements; that they are there, and how many, is read too.
    pub items: Option<Box<Reads>>,
}

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A field.
    Field(String),
    /// Any element.
    Item,
}

impl Reads {
    /// All of a value.
    pub fn everything() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// The part at a path, made where it is not there yet.
    pub(crate) fn at(&mut self, path: &[Step]) -> &mut Self {
        path.iter().fold(self, |reads, step| match step {
            Step::Field(name) => reads.fields.entry(name.clone()).or_default(),
            Step::Item => reads.items.get_or_insert_default(),
        })
    }

    /// Adds what another expression reads.
    pub fn add(&mut self, other: &Self) {
        self.whole |= other.whole;
        for (name, reads) in &other.fields {
            self.fields.entry(name.clone()).or_default().add(reads);
        }
        if let Some(items) = &other.items {
            self.items.get_or_insert_default().add(items);
        }
    }

    /// Whether nothing of it is read.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.fields.is_empty() && self.items.is_none()
    }

    /// Whether two values are the same, as far as they are read.
    pub fn same(&self, a: Option<&Value>, b: Option<&Value>) -> bool {
        if self.whole {
            return a == b;
        }
        match (a, b) {
            (Some(Value::Object(a)), Some(Value::Object(b))) => {
                (self.items.is_none() || a == b)
                    && self.fields.iter().all(|(name, reads)| reads.same(a.get(name), b.get(name)))
            }
            (Some(Value::Array(a)), Some(Value::Array(b))) => match &self.items {
                Some(items) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| items.same(Some(a), Some(b))),
                None => a == b,
            },
            (a, b) => a == b,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_the_same_as_far_as_they_are_read() {
        let mut reads = Reads::default();
        let path = ["spec", "containers"].map(|name| Step::Field(name.to_owned()));
        reads.at(&path).at(&[Step::Item, Step::Field("image".to_owned())]).whole = true;
        let pod = |image: &str, label: &str, count: usize| json!({"metadata": {"labels": {"a": label}}, "spec": {"containers": vec![json!({"image": image}); count]}});
        assert!(reads.same(Some(&pod("a", "x", 1)), Some(&pod("a", "y", 1))), "labels are not read");
        assert!(!reads.same(Some(&pod("a", "x", 1)), Some(&pod("b", "x", 1))));
        assert!(!reads.same(Some(&pod("a", "x", 1)), Some(&pod("a", "x", 2))), "how many there are is read");
        assert!(!reads.same(Some(&pod("a", "x", 1)), None));
        assert!(Reads::default().same(Some(&json!({"a": 1})), Some(&json!({"a": 2}))));
        assert!(!Reads::everything().same(Some(&json!({"a": 1})), Some(&json!({"a": 2}))));
    }
}
