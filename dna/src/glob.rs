//! Globs over paths, as a DNA writes them: `*` within a component, `**` across them, `?` one character of a component.

/// Whether a glob stands for a path.
///
/// Of each kind of star only the last is tried anew, which is enough: what an earlier one of its kind could take, the last can. A `**`
/// is gone back to where the `*` behind it fails. Paths are short; for a hostile pair it takes the glob's length times the path's squared.
#[must_use]
pub fn path_matches(glob: &[u8], path: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind a star, and how far it has taken.
    let mut within: Option<(usize, usize)> = None;
    let mut across: Option<(usize, usize)> = None;
    loop {
        match (glob.get(at), path.get(seen)) {
            (Some(b'*'), _) => {
                if glob.get(at + 1) == Some(&b'*') {
                    at += 2;
                    (within, across) = (None, Some((at, seen)));
                } else {
                    at += 1;
                    within = Some((at, seen));
                }
                continue;
            }
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found || (*wanted == b'?' && *found != b'/') => {
                at += 1;
                seen += 1;
                continue;
            }
            _ => {}
        }
        // The nearest star takes one byte more.
        let star = match (&mut within, &mut across) {
            (Some(star), _) if path.get(star.1).is_some_and(|byte| *byte != b'/') => star,
            (_, Some(star)) if star.1 < path.len() => {
                within = None;
                star
            }
            _ => return false,
        };
        star.1 += 1;
        (at, seen) = *star;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_stand_for_paths() {
        for (glob, path, yes) in [
            ("/var/log/*.log", "/var/log/a.log", true),
            ("/var/log/*.log", "/var/log/a/b.log", false),
            ("/var/lib/**", "/var/lib/a/b", true),
            ("/var/**/b", "/var/lib/a/b", true),
            ("/run/x.?", "/run/x.1", true),
            ("/run/x", "/run/xy", false),
            ("/tmp/*/*", "/tmp/a/b", true),
            ("/a/**/c/*.log", "/a/c/b/c/x.log", true),
            ("/a/**/c/*.log", "/a/c/x/c/b/y.log", false),
        ] {
            assert_eq!(path_matches(glob.as_bytes(), path.as_bytes()), yes, "{glob} {path}");
        }
    }

    /// By trying everything.
    fn naive(glob: &[u8], path: &[u8]) -> bool {
        match (glob, path) {
            ([], []) => true,
            ([b'*', b'*', rest @ ..], _) => {
                (0..=path.len()).any(|taken| naive(rest, path.get(taken..).expect("within it")))
            }
            ([b'*', rest @ ..], _) => {
                let component = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
                (0..=component).any(|taken| naive(rest, path.get(taken..).expect("within it")))
            }
            ([b'?', rest @ ..], [found, more @ ..]) if *found != b'/' => naive(rest, more),
            ([wanted, rest @ ..], [found, more @ ..]) if wanted == found => naive(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_a_naive_search_does(glob in "[ab/*?]{0,8}", path in "[ab/]{0,8}") {
            prop_assert_eq!(path_matches(glob.as_bytes(), path.as_bytes()), naive(glob.as_bytes(), path.as_bytes()));
        }
    }
}
