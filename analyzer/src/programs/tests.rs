//! Tests of the survey.

use dna::{Kind, Limits};

use super::{Survey, split_shebang, survey};
use std::collections::BTreeSet;

use crate::{Rootfs, elf::fixture::Build, loader::Loader};

fn of(root: &Rootfs) -> Survey {
    let limits = Limits::default();
    survey(&Loader::new(root, &limits), root, &limits, &BTreeSet::new(), |path| {
        (path.file_name() == b"tool").then(|| "pkg:deb/x".to_owned())
    })
}

fn tool() -> Vec<u8> {
    Build { is_fixed: true, ..Build::default() }.bytes()
}

#[test]
fn a_program_has_its_links_owner_mode_and_digest() {
    let mut root = Rootfs::default();
    let id = root.put_file("/usr/bin/tool", 0o4755, tool());
    root.put_link("/bin", "usr/bin");
    root.put_link("/usr/bin/t", "tool");
    root.put_link("/usr/bin/broken", "gone");
    let folder = root.resolve(&"/bin".parse().expect("no NUL")).expect("a folder").inode;
    root.name(folder, b"tool2", id);
    let survey = of(&root);
    let [program] = survey.programs.as_slice() else { panic!("one program") };
    let aliases: Vec<_> = program.aliases.iter().map(ToString::to_string).collect();
    assert_eq!(
        (program.path.to_string().as_str(), aliases),
        ("/usr/bin/tool", vec!["/usr/bin/t".into(), "/usr/bin/tool2".into()])
    );
    assert_eq!((program.mode, program.package.as_deref()), (0o4755, Some("pkg:deb/x")));
    assert_eq!(program.sha256, dna::Digest::sha256(&tool()));
}

#[test]
fn only_what_can_be_executed_is_a_program() {
    let mut root = Rootfs::default();
    root.put_file("/a/no-x-bit", 0o644, tool());
    root.put_file("/a/library.so", 0o755, Build { needed: vec!["libc.so.6"], ..Build::default() }.bytes());
    root.put_file("/a/data", 0o755, b"\x00\x01\x02");
    root.put_file("/a/script", 0o755, "#! /bin/sh -e\n");
    root.put_file("/a/text", 0o755, "echo\n");
    let survey = of(&root);
    let kinds: Vec<_> = survey.programs.iter().map(|p| (p.path.to_string(), p.kind == Kind::Other)).collect();
    assert_eq!(kinds, [("/a/script".to_owned(), false), ("/a/text".to_owned(), true)]);
    assert!(survey.unknowns.is_empty());
}

#[test]
fn a_damaged_program_is_unknown_and_stays_a_node() {
    let mut root = Rootfs::default();
    root.put_file("/a/bad", 0o755, b"\x7fELF\x02\x01\x01");
    let survey = of(&root);
    assert_eq!((survey.programs.len(), survey.unknowns.len()), (1, 1));
    assert_eq!(survey.unknowns[0].place, "/a/bad");
}

#[test]
fn a_shebang_has_at_most_one_argument() {
    assert_eq!(split_shebang(b" /usr/bin/env  -S a b \nrest"), ["/usr/bin/env", "-S a b"]);
    assert_eq!(split_shebang(b"/bin/sh"), ["/bin/sh"]);
    assert!(split_shebang(b"  \n").is_empty());
}
