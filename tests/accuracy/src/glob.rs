//! Path globs as the scoring reads them: `*` and `?` stay inside one component, `**` does not.

/// A glob, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    InComponent,
    One,
    Is(char),
}

impl Glob {
    /// Reads a glob; a name that ends in `/` also covers what is under it.
    pub(crate) fn new(text: &str) -> Self {
        let below = if text.ends_with('/') { "**" } else { "" };
        let mut parts = Vec::new();
        let mut rest = text.chars().chain(below.chars()).peekable();
        while let Some(c) = rest.next() {
            match c {
                '*' if rest.next_if_eq(&'*').is_some() => {
                    let follows_slash = parts.last() == Some(&Part::Is('/'));
                    parts.push(Part::Any);
                    // `/**/` also stands for one slash.
                    if follows_slash {
                        rest.next_if_eq(&'/');
                    }
                }
                '*' => parts.push(Part::InComponent),
                '?' => parts.push(Part::One),
                c => parts.push(Part::Is(c)),
            }
        }
        Self(parts)
    }

    /// The whole path matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        // Positions in the glob that the path so far can be at.
        let mut at = vec![false; self.0.len() + 1];
        if let Some(first) = at.first_mut() {
            *first = true;
        }
        self.skip(&mut at);
        for c in path.chars() {
            let mut next = vec![false; at.len()];
            for (index, part) in self.0.iter().enumerate().filter(|(index, _)| at.get(*index) == Some(&true)) {
                let (fits, stays) = match part {
                    Part::Any => (true, true),
                    Part::InComponent => (c != '/', true),
                    Part::One => (c != '/', false),
                    Part::Is(wanted) => (c == *wanted, false),
                };
                if let Some(slot) = next.get_mut(if stays { index } else { index + 1 }).filter(|_| fits) {
                    *slot = true;
                }
            }
            self.skip(&mut next);
            at = next;
        }
        at.last() == Some(&true)
    }

    /// Stars may stand for nothing.
    fn skip(&self, at: &mut [bool]) {
        for (index, part) in self.0.iter().enumerate() {
            let is_star = matches!(part, Part::Any | Part::InComponent);
            if is_star
                && at.get(index) == Some(&true)
                && let Some(next) = at.get_mut(index + 1)
            {
                *next = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_as_far_as_they_may() {
        let cases = [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a/b/c", true),
            ("/a/**/c", "/a/c", true),
            ("/a/**/c", "/a/x/y/c", true),
            ("/a/", "/a/b/c", true),
            ("/a/?", "/a/bc", false),
            ("/a.b", "/axb", false),
            ("/var/run/*.pid", "/var/run/x.pid", true),
        ];
        for (glob, path, wanted) in cases {
            assert_eq!(Glob::new(glob).matches(path), wanted, "{glob} {path}");
        }
    }
}
