//! Shells, by the names of their files.

/// Whether a program of this name reads text as commands: POSIX `sh` and its kin, those of other syntax, and programs of many names that are one
/// of them too. Source: `/etc/shells` of distributions.
#[must_use]
pub fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name)
}

const SHELLS: [&str; 13] =
    ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "csh", "tcsh", "fish", "rbash", "busybox", "toybox"];
