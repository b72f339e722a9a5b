//! What a program was written in: an ELF file's marks or a script's interpreter in, a language out.
//!
//! Only what the bytes say: a stripped program in C and one in another language that calls the C library alike are told apart
//! by the marks of the other language only.

use dna::Language;

use crate::elf::ElfFile;

/// The language of an ELF program.
pub(crate) fn of_elf(elf: &ElfFile) -> Option<Language> {
    if let Some(go) = &elf.go {
        let module = go.main.as_ref().map(|main| match main.version.as_str() {
            "" => main.path.clone(),
            version => format!("{}@{version}", main.path),
        });
        let version = go.toolchain.split(' ').next().map(|version| version.trim_start_matches("go").to_owned());
        return Some(Language { name: "go".to_owned(), version, module });
    }
    let of = |name: &str, version| Some(Language { name: name.to_owned(), version, module: None });
    let comment = |start: &str| elf.comment.iter().find_map(|line| line.strip_prefix(start));
    if let Some(rustc) = comment("rustc version ") {
        return of("rust", rustc.split(' ').next().map(str::to_owned));
    }
    if elf.marks.rust {
        return of("rust", None);
    }
    let gcc = comment("GCC: ").map(|line| format!("GCC {}", line.rsplit(' ').next().unwrap_or_default()));
    let clang = elf
        .comment
        .iter()
        .find_map(|line| line.split_once("clang version "))
        .map(|(_, version)| format!("clang {}", version.split(' ').next().unwrap_or_default()));
    let version = gcc.or(clang);
    let needs = |name: &str| elf.facts.needed.iter().any(|needed| needed.name.starts_with(name));
    if elf.marks.cplusplus || needs("libstdc++.so") || needs("libc++.so") {
        return of("c++", version);
    }
    if version.is_some() || elf.marks.c_start { of("c", version) } else { None }
}

/// The language of a script, by the words of its `#!` line.
pub(crate) fn of_shebang(shebang: &[String]) -> Option<Language> {
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let first = base(shebang.first()?);
    let interpreter = match first.as_str() {
        // env(1): options, assignments, then the program.
        "env" => {
            let words = shebang.get(1)?.split_whitespace();
            base(words.into_iter().find(|word| !word.starts_with('-') && !word.contains('='))?)
        }
        _ => first,
    };
    let name = interpreter.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let version = interpreter.get(name.len()..).filter(|version| !version.is_empty()).map(str::to_owned);
    let language = match name {
        "sh" | "bash" | "dash" | "ash" | "ksh" | "mksh" | "zsh" | "fish" | "csh" | "tcsh" => "shell",
        "python" | "pypy" => "python",
        "node" | "nodejs" => "node",
        "perl" | "ruby" | "php" | "lua" | "awk" | "tclsh" | "java" => name,
        "gawk" | "mawk" => "awk",
        "dotnet" => "dotnet",
        _ => return None,
    };
    Some(Language { name: language.to_owned(), version, module: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<(String, Option<String>)> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        of_shebang(&words).map(|language| (language.name, language.version))
    }

    #[test]
    fn scripts_are_told_by_their_interpreter() {
        assert_eq!(of(&["/bin/sh", "-e"]), Some(("shell".to_owned(), None)));
        assert_eq!(of(&["/usr/bin/env", "python3.11"]), Some(("python".to_owned(), Some("3.11".to_owned()))));
        assert_eq!(of(&["/usr/bin/env", "-S A=1 node --x"]), Some(("node".to_owned(), None)));
    }

    #[test]
    fn an_unknown_interpreter_is_no_language() {
        assert_eq!(of(&["/usr/bin/make", "-f"]), None);
        assert_eq!(of(&["/usr/bin/env"]), None);
        assert_eq!(of(&[]), None);
    }
}
