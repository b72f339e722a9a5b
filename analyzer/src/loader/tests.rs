//! Tests of the search: one rule each, and where it does not apply.

use std::collections::BTreeMap;

use dna::{Confidence, Limits};

use super::{LoadClosure, Loader, cache, search};
use crate::{Rootfs, elf::fixture::Build};

const GLIBC: &str = "/lib64/ld-linux-x86-64.so.2";
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";

fn library() -> Build {
    Build::default()
}

fn asks(needed: &[&'static str]) -> Build {
    Build { needed: needed.to_vec(), ..Build::default() }
}

fn tree(interpreter: &'static str, program: Build, files: &[(&str, Build)]) -> Rootfs {
    let mut root = Rootfs::default();
    root.put_file(interpreter, 0o755, library().bytes());
    root.put_file("/app/bin/main", 0o755, Build { interpreter: Some(interpreter), ..program }.bytes());
    for (path, build) in files {
        root.put_file(path, 0o644, build.bytes());
    }
    root
}

fn load(root: &Rootfs, env: &[(&str, &str)]) -> LoadClosure {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let limits = Limits::default();
    Loader::new(root, &limits).load(&"/app/bin/main".parse().expect("no NUL"), &env)
}

fn paths(closure: &LoadClosure) -> Vec<String> {
    closure.items.iter().map(|item| item.what.path.to_string()).filter(|path| !path.contains("/ld-")).collect()
}

fn loaded(root: &Rootfs) -> Vec<String> {
    paths(&load(root, &[]))
}

#[test]
fn interpreter_and_default_folder_are_certain_with_evidence() {
    let root = tree(GLIBC, asks(&["liba.so"]), &[("/usr/lib64/liba.so", library())]);
    let closure = load(&root, &[]);
    let items: Vec<_> = closure.items.iter().map(|i| (i.what.path.to_string(), i.confidence)).collect();
    let sure = Confidence::Certain;
    assert_eq!(items, [(GLIBC.to_owned(), sure), ("/usr/lib64/liba.so".to_owned(), sure)]);
    assert!(closure.unknowns.is_empty());
    assert_eq!(closure.needed[0].path.as_ref().expect("found").to_string(), "/usr/lib64/liba.so");
}

#[test]
fn a_missing_library_is_unknown_and_has_no_path() {
    let closure = load(&tree(GLIBC, asks(&["libno.so"]), &[]), &[]);
    assert_eq!((closure.needed[0].path.as_ref(), closure.unknowns.len()), (None, 1));
    assert!(closure.unknowns[0].why.starts_with("libno.so"));
}

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    let files = [("/app/lib/liba.so", asks(&["libb.so"])), ("/app/lib/libb.so", library())];
    let rpath = Build { rpath: Some("$ORIGIN/../lib"), ..asks(&["liba.so"]) };
    assert_eq!(loaded(&tree(GLIBC, rpath, &files)), ["/app/lib/liba.so", "/app/lib/libb.so"]);
    let runpath = Build { runpath: Some("${ORIGIN}/../lib"), ..asks(&["liba.so"]) };
    assert_eq!(loaded(&tree(GLIBC, runpath, &files)), ["/app/lib/liba.so"]);
}

#[test]
fn runpath_switches_rpath_off() {
    let both = Build { rpath: Some("/r"), runpath: Some("/empty"), ..asks(&["liba.so"]) };
    assert!(loaded(&tree(GLIBC, both, &[("/r/liba.so", library())])).is_empty());
    let own = [("/r/liba.so", Build { runpath: Some("/empty"), ..asks(&["libb.so"]) }), ("/r/libb.so", library())];
    let above = Build { rpath: Some("/r"), ..asks(&["liba.so"]) };
    assert_eq!(loaded(&tree(GLIBC, above, &own)), ["/r/liba.so"]);
}

#[test]
fn library_path_comes_after_rpath_and_before_runpath() {
    let files = [("/env/liba.so", library()), ("/own/liba.so", library())];
    let env = [("LD_LIBRARY_PATH", "/env")];
    let runpath = tree(GLIBC, Build { runpath: Some("/own"), ..asks(&["liba.so"]) }, &files);
    assert_eq!(paths(&load(&runpath, &env)), ["/env/liba.so"]);
    let rpath = tree(GLIBC, Build { rpath: Some("/own"), ..asks(&["liba.so"]) }, &files);
    assert_eq!(paths(&load(&rpath, &env)), ["/own/liba.so"]);
}

#[test]
fn a_setuid_program_ignores_library_path_and_origin() {
    let files = [("/env/liba.so", library()), ("/app/bin/liba.so", library())];
    let program = Build { runpath: Some("$ORIGIN"), ..asks(&["liba.so"]) };
    let mut root = tree(GLIBC, program.clone(), &files);
    assert_eq!(loaded(&root), ["/app/bin/liba.so"]);
    let bytes = Build { interpreter: Some(GLIBC), ..program }.bytes();
    root.put_file("/app/bin/main", 0o4755, bytes);
    assert!(paths(&load(&root, &[("LD_LIBRARY_PATH", "/env")])).is_empty());
}

#[test]
fn another_architecture_is_passed_over() {
    let other = Build { machine: Some(183), ..library() };
    let program = || Build { runpath: Some("/a:/b"), ..asks(&["liba.so"]) };
    let root = tree(GLIBC, program(), &[("/a/liba.so", other.clone()), ("/b/liba.so", library())]);
    assert_eq!(loaded(&root), ["/b/liba.so"]);
    assert!(loaded(&tree(GLIBC, program(), &[("/a/liba.so", other)])).is_empty());
}

#[test]
fn a_file_that_is_no_elf_stops_the_loader() {
    let mut root = tree(GLIBC, Build { runpath: Some("/a:/b"), ..asks(&["liba.so"]) }, &[("/b/liba.so", library())]);
    root.put_file("/a/liba.so", 0o644, "GROUP ( libc.so.6 )");
    let closure = load(&root, &[]);
    assert!(paths(&closure).is_empty() && closure.unknowns[0].why.contains("stops the loader"));
}

#[test]
fn soname_answers_for_a_loaded_object() {
    let named = Build { soname: Some("libb.so"), ..library() };
    let files = [("/usr/lib64/liba.so", named), ("/usr/lib64/libb.so", library())];
    assert_eq!(loaded(&tree(GLIBC, asks(&["liba.so", "libb.so"]), &files)), ["/usr/lib64/liba.so"]);
}

#[test]
fn the_cache_comes_before_the_default_folders_and_by_its_flags() {
    let files = [("/c/liba.so", library()), ("/usr/lib64/liba.so", library())];
    let mut root = tree(GLIBC, asks(&["liba.so"]), &files);
    root.put_file("/etc/ld.so.cache", 0o644, cache::tests::new_format(&[(0x303, 0, "liba.so", "/c/liba.so")]));
    assert_eq!(loaded(&root), ["/c/liba.so"]);
    root.put_file("/etc/ld.so.cache", 0o644, cache::tests::new_format(&[(0xa03, 0, "liba.so", "/c/liba.so")]));
    assert_eq!(loaded(&root), ["/usr/lib64/liba.so"]);
}

#[test]
fn a_program_outside_the_default_folders_does_not_look_there() {
    let nodeflib = Build { flags_1: 0x800, ..asks(&["liba.so"]) };
    assert!(loaded(&tree(GLIBC, nodeflib, &[("/usr/lib64/liba.so", library())])).is_empty());
}

#[test]
fn a_variant_for_some_processors_is_possible_only() {
    let files = [("/usr/lib64/liba.so", library()), ("/usr/lib64/glibc-hwcaps/x86-64-v3/liba.so", library())];
    let closure = load(&tree(GLIBC, asks(&["liba.so"]), &files), &[]);
    let sure: Vec<_> = closure.items.iter().map(|item| item.confidence).collect();
    assert_eq!(sure, [Confidence::Certain, Confidence::Possible, Confidence::Likely]);
}

#[test]
fn ld_so_conf_counts_only_as_what_ldconfig_would_do() {
    let mut root = tree(GLIBC, asks(&["liba.so"]), &[("/opt/l/liba.so", library())]);
    root.put_file("/etc/ld.so.conf", 0o644, "include ld.so.conf.d/*.conf\n");
    root.put_file("/etc/ld.so.conf.d/x.conf", 0o644, "# mine\n/opt/l\n");
    let closure = load(&root, &[]);
    let item = closure.items.iter().find(|item| item.what.path.to_string() == "/opt/l/liba.so").expect("possible");
    assert_eq!(
        (item.confidence, closure.needed[0].path.as_ref(), closure.unknowns.len()),
        (Confidence::Possible, None, 1)
    );
    root.put_file("/etc/ld.so.cache", 0o644, cache::tests::new_format(&[]));
    assert!(loaded(&root).is_empty());
}

#[test]
fn preloaded_files_come_first_and_links_are_resolved() {
    let mut root = tree(GLIBC, asks(&[]), &[("/p/libp.so.1", library())]);
    root.put_link("/p/libp.so", "libp.so.1");
    root.put_file("/etc/ld.so.preload", 0o644, "/p/libp.so # why\n");
    assert_eq!(loaded(&root), ["/p/libp.so.1"]);
    assert!(loaded(&tree(GLIBC, asks(&[]), &[("/p/libp.so", library())])).is_empty());
}

#[test]
fn musl_takes_its_own_names_itself_and_inherits_runpath() {
    let files = [("/own/liba.so", asks(&["libb.so"])), ("/own/libb.so", library()), ("/usr/lib/libm.so.6", library())];
    let program = Build { runpath: Some("/own"), ..asks(&["liba.so", "libc.musl-x86_64.so.1", "libm.so.6"]) };
    let closure = load(&tree(MUSL, program, &files), &[]);
    assert_eq!(paths(&closure), ["/own/liba.so", "/own/libb.so"]);
    assert_eq!(closure.needed[1].path.as_ref().expect("itself").to_string(), MUSL);
}

#[test]
fn musl_path_file_replaces_the_default_folders() {
    let mut root = tree(MUSL, asks(&["liba.so"]), &[("/usr/local/lib/liba.so", library())]);
    assert_eq!(loaded(&root), ["/usr/local/lib/liba.so"]);
    root.put_file("/etc/ld-musl-x86_64.path", 0o644, "/elsewhere\n");
    assert!(loaded(&root).is_empty());
}

#[test]
fn default_folders_are_the_loaders_own_constants() {
    let bytes = b"x\0/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0other\0";
    let folders = search::default_folders(bytes);
    let folders: Vec<_> = folders.iter().map(|folder| String::from_utf8_lossy(folder)).collect();
    assert_eq!(folders, ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"]);
    assert_eq!(search::default_folders(b"nothing").len(), 4);
}

#[test]
fn a_search_of_too_many_places_ends_as_an_unknown() {
    let folders: &'static str = Box::leak("/a:".repeat(1_300).into_boxed_str());
    let names = (0..100).map(|i| &*Box::leak(format!("lib{i}.so").into_boxed_str())).collect::<Vec<&'static str>>();
    let closure = load(&tree(GLIBC, Build { runpath: Some(folders), ..asks(&names) }, &[]), &[]);
    assert_eq!((closure.needed.len(), closure.unknowns.len()), (100, 100));
    assert!(closure.unknowns.iter().any(|unknown| unknown.why.contains("more places than are searched")));
}
