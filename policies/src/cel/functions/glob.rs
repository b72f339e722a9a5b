//! `glob(pattern, text)`: `*` stands for any characters but `/`, `**` for any at all, `?` for one that is no `/`.

use ::cel::{
    DeclarationError, Env,
    common::types::{CelBool, CelString},
};

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    ::cel::add_overload!(env, fn matches: (CelString, CelString) -> CelBool, name = "glob")
}

fn matches(pattern: &CelString<'_>, text: &CelString<'_>) -> CelBool {
    glob(pattern.inner(), text.inner()).into()
}

/// Whether a pattern stands for all of a text. Takes time in proportion to the product of their lengths at worst.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit: of `*`, and of `**`, which may take more.
    let mut star: Option<(usize, usize)> = None;
    let mut stars: Option<(usize, usize)> = None;
    loop {
        let rest = pattern.get(p..).unwrap_or_default();
        match (rest, text.get(t)) {
            ([b'*', b'*', ..], _) => {
                p += 2;
                // `**/` stands for no folder too.
                (stars, star) = (Some((p, t)), None);
                if let (Some(b'/'), true) = (pattern.get(p), t == 0 || text.get(t - 1) == Some(&b'/')) {
                    let folder = pattern.get(p + 1..).unwrap_or_default();
                    if matches_here(folder, text.get(t..).unwrap_or_default()) {
                        return true;
                    }
                }
                continue;
            }
            ([b'*', ..], _) => {
                p += 1;
                star = Some((p, t));
                continue;
            }
            ([], None) => return true,
            ([b'?', ..], Some(b)) if *b != b'/' => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            ([a, ..], Some(b)) if a == b => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            _ => {}
        }
        // A star takes one more.
        match (star, stars) {
            (Some((after, at)), _) if text.get(at).is_some_and(|b| *b != b'/') => {
                star = Some((after, at + 1));
                (p, t) = (after, at + 1);
            }
            (_, Some((after, at))) if at < text.len() => {
                (star, stars) = (None, Some((after, at + 1)));
                (p, t) = (after, at + 1);
            }
            _ => return false,
        }
    }
}

/// `**/x` where the folders are none. Only the first level of it is tried this way, so that time stays bounded.
fn matches_here(pattern: &[u8], text: &[u8]) -> bool {
    match (std::str::from_utf8(pattern), std::str::from_utf8(text)) {
        (Ok(pattern), Ok(text)) if !pattern.starts_with("**") => glob(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn stars_stop_at_slashes_and_double_stars_do_not() {
        for (pattern, text, expected) in [
            ("registry.example.com/**", "registry.example.com/a/b", true),
            ("registry.example.com/**", "registry.example.com.evil.com/a", false),
            ("registry.example.com/*", "registry.example.com/a/b", false),
            ("registry.example.com/*", "registry.example.com/a", true),
            ("*/nginx", "docker.io/nginx", true),
            ("*/nginx", "docker.io/library/nginx", false),
            ("**/nginx", "docker.io/library/nginx", true),
            ("**/nginx", "nginx", true),
            ("/var/log/**/*.log", "/var/log/a.log", true),
            ("/var/log/**/*.log", "/var/log/x/y/a.log", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**", "a/b/c", true),
            ("a**c", "a/b/c", true),
            ("docker.io/**:v*", "docker.io/library/nginx:v1.2", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_end() {
        let text = "a".repeat(4_000);
        assert!(!glob(&"*a".repeat(2_000).replace("*a*a*a", "*a**b"), &text));
        assert!(!glob(&format!("{}b", "**/".repeat(1_000)), &text));
        assert!(!glob(&format!("{}b", "*".repeat(4_001)), &text));
    }
}
