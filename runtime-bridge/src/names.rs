//! Texts that many images have: paths, packages, globs. Each is in memory once, for as long as somebody has it.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// Below so many, those that nobody has are not looked for.
const FEW: usize = 4096;

/// The one copy of a text.
#[must_use]
pub(crate) fn shared(text: &str) -> Arc<str> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).shared(text)
}

#[derive(Debug, Default)]
struct Names {
    known: HashSet<Arc<str>>,
    /// How many there were after the last look for those that nobody has.
    kept: usize,
}

impl Names {
    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= 2 * self.kept.max(FEW) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.known.shrink_to_fit();
            self.kept = self.known.len();
        }
        let name: Arc<str> = text.into();
        self.known.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_only_while_somebody_has_it() {
        let mut names = Names::default();
        let one = names.shared("/usr/bin/one");
        assert!(Arc::ptr_eq(&one, &names.shared("/usr/bin/one")));
        for n in 0..100 * FEW {
            drop(names.shared(&n.to_string()));
        }
        assert!(names.known.len() <= 2 * FEW, "{}", names.known.len());
        assert!(Arc::ptr_eq(&one, &names.shared("/usr/bin/one")));
    }
}
