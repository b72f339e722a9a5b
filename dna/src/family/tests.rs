//! Held against the traits of real images in `data/`, which `tests/suites/families/build.py` builds; its `README.md` says how they are made.

use std::collections::BTreeMap;

use super::*;
use crate::{Confidence, Dna};

/// The traits of real images, by name.
fn real() -> BTreeMap<String, Traits> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/family/data");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("traits"))
    };
    files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).map(read).collect()
}

fn is_trojan(name: &str) -> bool {
    name.starts_with("trojan")
}

/// One of the real images against all others that are sound.
fn judged(name: &str, all: &BTreeMap<String, Traits>) -> Kinship {
    let known = all.iter().filter(|(other, _)| *other != name && !is_trojan(other));
    let known: Vec<Relative> =
        known.map(|(name, traits)| Relative { name: name.clone(), traits: traits.clone() }).collect();
    kinship(&all[name], &known)
}

#[test]
fn images_with_a_trojan_are_unlike_their_family() {
    let all = real();
    let found: BTreeMap<&str, (bool, String)> = all
        .keys()
        .filter(|name| is_trojan(name))
        .map(|name| {
            let kinship = judged(name, &all);
            (name.as_str(), (kinship.is_unlike, kinship.unlike.first().map(|one| one.what.clone()).unwrap_or_default()))
        })
        .collect();
    let wanted = BTreeMap::from([
        ("trojan-entry", (true, "executes a program that fetches files before it serves".to_owned())),
        ("trojan-module", (true, "executes a shell in ngx_http_cache_geo_module".to_owned())),
        ("trojan-preload", (true, "executes a shell in libnss-cache".to_owned())),
        ("trojan-wrapper", (true, "executes a shell in nginx".to_owned())),
    ]);
    assert_eq!(found, wanted);
}

#[test]
fn other_builds_versions_and_bases_are_not() {
    let all = real();
    let mut families: BTreeMap<String, usize> = BTreeMap::new();
    for name in all.keys().filter(|name| !is_trojan(name)) {
        let kinship = judged(name, &all);
        assert!(!kinship.is_unlike, "{name}: {} {:?}", kinship.summary, kinship.unlike);
        if kinship.is_known {
            *families.entry(kinship.says.expect("a software")).or_default() += 1;
        }
    }
    let told: Vec<(&str, bool)> = families.iter().map(|(name, count)| (name.as_str(), *count >= 4)).collect();
    assert_eq!(told, [("haproxy", true), ("nginx", true), ("redis-server", true)]);
    assert!(families["nginx"] >= 11, "{families:?}");
}

#[test]
fn a_trojan_is_found_by_the_smallest_family_too() {
    let all = real();
    let few = ["nginx-bullseye-light", "nginx-noble", "nginx-trixie"];
    let known = few.map(|name| Relative { name: name.to_owned(), traits: all[name].clone() });
    assert!(kinship(&all["trojan-wrapper"], &known).is_unlike);
    assert!(!kinship(&all["nginx-bookworm-light"], &known).is_unlike);
    let two = kinship(&all["trojan-wrapper"], &known[..2]);
    assert!(!two.is_known && !two.is_unlike && two.unlike.is_empty(), "{}", two.summary);
}

#[test]
fn a_build_counts_once_and_is_no_witness_of_itself() {
    let all = real();
    let copies: Vec<Relative> = (0..5)
        .map(|copy| Relative {
            name: copy.to_string(),
            traits: all["nginx-trixie"].in_repository(&format!("r/{copy}")),
        })
        .collect();
    assert_eq!(kinship(&all["trojan-wrapper"], &copies).members.len(), 1);
    assert_eq!(kinship(&all["nginx-trixie"], &copies).members.len(), 0);
}

#[test]
fn a_repository_called_as_a_software_has_it() {
    let all = real();
    let known: Vec<Relative> = all
        .iter()
        .filter(|(name, _)| name.starts_with("nginx"))
        .map(|(name, traits)| Relative { name: name.clone(), traits: traits.clone() })
        .collect();
    let named = |repository: &str| kinship(&all["redis-trixie"].in_repository(repository), &known);
    let false_name = named("registry.example:5000/shop/nginx:1.27");
    assert!(false_name.is_unlike, "{:?}", false_name.unlike);
    assert_eq!(false_name.summary, "It is called nginx and executes no program of that name.");
    assert!(!named("registry.example/shop/redis").is_unlike);
    assert!(!kinship(&all["nginx-trixie"].in_repository("docker.io/library/nginx"), &known).is_unlike);
}

#[test]
fn what_bytes_do_not_tell_is_borrowed_and_marked() {
    let all = real();
    let mut unknown = all["nginx-trixie"].clone();
    unknown.unknown.insert("listen".to_owned());
    unknown.does.remove("listen");
    unknown.traits.clear();
    let known = all.iter().filter(|(name, _)| name.starts_with("nginx"));
    let known: Vec<Relative> =
        known.map(|(name, traits)| Relative { name: name.clone(), traits: traits.clone() }).collect();
    let borrowed = kinship(&unknown, &known).borrowed;
    assert!(borrowed.iter().any(|one| one.dimension == "listen" && one.item == "tcp/80"), "{borrowed:?}");
    assert!(borrowed.iter().all(|one| one.dimension == "listen"), "{borrowed:?}");
    assert_eq!(kinship(&all["nginx-trixie"], &known).borrowed, []);
}

/// Which of the nearest is of the same software.
#[test]
fn the_nearest_are_of_the_same_software() {
    let all = real();
    let sound: Vec<&String> = all.keys().filter(|name| !is_trojan(name)).collect();
    let right = sound.iter().filter(|name| {
        let nearest = judged(name, &all).nearest;
        nearest.first().is_some_and(|near| near.says == all[**name].says)
    });
    let right = right.count();
    assert!(right * 10 >= sound.len() * 8, "{right} of {}", sound.len());
}

fn dna(argv: &[&str], start: &str, programs: &serde_json::Value) -> Dna {
    let document = serde_json::json!({
        "schema": crate::SCHEMA, "analyzer": {"name": "mayfly", "version": "0", "rules": crate::Digest::sha256(b"")},
        "image": {"platform": "linux/amd64"}, "layers": [], "start": {"argv": argv, "program": start}, "programs": programs,
        "accounts": {"users": [], "groups": []}, "folders": [], "behavior": {}, "unknowns": [],
    });
    serde_json::from_value(document).expect("a DNA")
}

fn program(path: &str, kind: &str, runs: &[(&str, &str)]) -> serde_json::Value {
    let run = |(program, reason): &(&str, &str)| {
        serde_json::json!({"program": program, "reason": reason, "confidence": "certain",
            "evidence": [{"kind": "file", "path": path, "line": 1}]})
    };
    let mut program = serde_json::json!({"path": path, "sha256": crate::Digest::sha256(path.as_bytes()), "size": 1, "layer": 0,
        "uid": 0, "gid": 0, "mode": 0o755, "kind": kind, "runs": runs.iter().map(run).collect::<Vec<_>>()});
    if kind == "script" {
        program["facts"] = serde_json::json!({"shebang": ["/bin/sh"]});
    }
    program
}

#[test]
fn the_start_command_says_what_the_image_is() {
    let says =
        |argv: &[&str], start: &str, programs: serde_json::Value| Traits::of(&dna(argv, start, &programs), None).says;
    let server = || program("/usr/sbin/webd2.4", "other", &[]);
    let shell = || program("/bin/dash", "other", &[("/usr/sbin/webd2.4", "calls")]);
    let entry = || program("/entry.sh", "script", &[("/bin/dash", "#! interpreter"), ("/usr/sbin/webd2.4", "calls")]);
    let tini = || program("/usr/bin/tini", "other", &[("/usr/sbin/webd2.4", "argument of tini")]);
    let webd = Some("webd".to_owned());
    assert_eq!(says(&["webd2.4"], "/usr/sbin/webd2.4", serde_json::json!([server()])), webd);
    assert_eq!(says(&["/bin/sh", "-c", "exec webd2.4 -f"], "/bin/dash", serde_json::json!([shell(), server()])), webd);
    assert_eq!(says(&["/entry.sh", "webd2.4"], "/entry.sh", serde_json::json!([entry(), shell(), server()])), webd);
    assert_eq!(says(&["tini", "--", "webd2.4"], "/usr/bin/tini", serde_json::json!([tini(), server()])), webd);
    // What people call their own programs names no software.
    assert_eq!(says(&["/app/server"], "/app/server", serde_json::json!([program("/app/server", "other", &[])])), None);
}

#[test]
fn addresses_and_names_are_sorted() {
    use kinds::{Place, place, stem};
    let places = ["203.0.113.9", "10.1.2.3", "127.0.0.1", "100.64.0.1", "fd31::1", "2001:db8::1", "::1", "backend"];
    let found = places.map(place);
    let (own, private, public) = (Some(Place::Own), Some(Place::Private), Some(Place::Public));
    assert_eq!(found, [public, private, own, private, private, public, own, None]);
    let stems = ["/usr/bin/python3.11", "libluajit-5.1.so.2.1.0", "php-fpm8.2", "run-webd.sh", "7"].map(stem);
    assert_eq!(stems, ["python", "libluajit", "php-fpm", "run-webd", "7"]);
    assert!(Confidence::Certain < Confidence::Possible, "the surest comes first");
}
