//! `deploy/sensors/` and the adapters know the same things: what a pack asks for is understood, what is understood is asked for, or it
//! is said here why not. Each asked-for thing is made into an event as the sensor would write it, and read.
//!
//! Falco and Tetragon's CRD cannot be had as packages: what is checked of their grammars is written out below. An old version of Falco's parser
//! can, as Debian's `sysdig`.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use runtime_bridge::sensor::{
    Dialect, Told, decode,
    pack::{CURRENT, Pack, pack_version},
};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/sensors")
}

fn text(path: &str) -> String {
    let path = folder().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    use serde::Deserialize;
    serde_yaml_ng::Deserializer::from_str(&text(path))
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value}"))
}

fn source(module: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sensor").join(module);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words in quotes between two lines of an adapter.
fn names(module: &str, from: &str, to: &str) -> BTreeSet<String> {
    let source = source(module);
    let start = source.find(from).unwrap_or_else(|| panic!("{module} has no `{from}`"));
    let part = &source[start..];
    let part = &part[..part.find(to).unwrap_or_else(|| panic!("{module} has no `{to}`"))];
    let arms = part.lines().map(|line| line.split("=>").next().unwrap_or_default());
    let is_name = |word: &&str| {
        // `security_` is what a name begins with.
        !word.is_empty()
            && !word.ends_with('_')
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let names: BTreeSet<String> =
        arms.flat_map(|arm| arm.split('"').skip(1).step_by(2)).filter(is_name).map(str::to_owned).collect();
    assert!(names.len() > 5, "{module}: {names:?}");
    names
}

fn kind(dialect: Dialect, event: &Value) -> String {
    match decode(dialect, event.to_string().as_bytes()) {
        Ok(Told::Activity(activity)) => word(&json!(activity.act), "kind").to_owned(),
        other => panic!("{dialect} does not understand {event}: {other:?}"),
    }
}

// --- Falco

fn rules() -> Vec<Value> {
    let [document] = yaml("falco/mayfly_rules.yaml").try_into().expect("one document");
    document.as_array().expect("a list").clone()
}

fn extra_fields() -> BTreeSet<String> {
    let [document] = yaml("falco/falco.yaml").try_into().expect("one document");
    let fields = list(&document["append_output"][0], "extra_fields");
    fields.iter().map(|field| field.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn falco_sends_every_field_that_is_read_and_no_other() {
    let read: BTreeSet<String> = ["falco.rs", "key.rs"]
        .into_iter()
        .flat_map(|module| source(module).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.split_once("rename = \"")?.1.split_once('"')?.0.to_owned()))
        .filter(|name| {
            ["evt.", "fs.", "container.", "k8s.", "proc.", "user.", "fd."].iter().any(|class| name.starts_with(class))
        })
        .collect();
    assert!(read.len() > 40, "{read:?}");
    assert_eq!(read, extra_fields());
    // Of the drop alert, which no configuration adds to.
    assert!(source("falco.rs").contains("rename = \"n_drops\""));
}

#[test]
fn falcos_two_configurations_are_one() {
    let [mut file] = yaml("falco/falco.yaml").try_into().expect("one document");
    let [helm] = yaml("falco/values.yaml").try_into().expect("one document");
    file.as_object_mut().expect("an object").remove("rules_files");
    assert_eq!(helm["falco"], file);
}

/// Keys and priorities of `userspace/engine/rule_json_schema.h` of Falco.
#[test]
fn falcos_rules_have_the_keys_of_its_schema() {
    const KEYS: [&str; 12] = [
        "rule",
        "desc",
        "condition",
        "output",
        "priority",
        "tags",
        "macro",
        "list",
        "items",
        "enabled",
        "required_engine_version",
        "required_plugin_versions",
    ];
    let mut seen = BTreeSet::new();
    for item in rules() {
        let keys: BTreeSet<&str> = item.as_object().expect("an object").keys().map(String::as_str).collect();
        assert!(keys.iter().all(|key| KEYS.contains(key)), "{item}");
        if keys.contains("rule") {
            assert_eq!(keys, BTreeSet::from(["rule", "desc", "condition", "output", "priority", "tags"]), "{item}");
            assert_eq!(word(&item, "priority"), "DEBUG");
            let name = word(&item, "rule");
            assert!(seen.insert(name.to_owned()), "{name} twice");
            assert_eq!(Pack::of(name), Some(CURRENT), "{name}");
            let tags: Vec<&str> = list(&item, "tags").iter().filter_map(Value::as_str).collect();
            assert!(tags.contains(&"mayfly") && tags.contains(&format!("mayfly-pack-{CURRENT}").as_str()), "{tags:?}");
            assert!(word(&item, "condition").contains("mayfly_container"), "{name} is not of containers alone");
        }
    }
    assert!(seen.len() >= 12, "{seen:?}");
}

/// Words and signs of a condition; a text in quotes is one word.
fn tokens(condition: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = condition.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '!' | '>' | '<' if rest[1..].starts_with('=') => 2,
            '(' | ')' | ',' | '=' | '!' | '>' | '<' => 1,
            '"' | '\'' => rest[1..].find(first).expect("a closing quote") + 2,
            _ => rest.find(|sign: char| sign.is_whitespace() || "(),=!<>\"'".contains(sign)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// A condition is `term (and|or term)*`; a term is `not term`, one in parentheses, a macro, or a field, an operator and a value.
struct Condition<'a> {
    tokens: &'a [String],
    macros: &'a BTreeSet<String>,
    lists: &'a BTreeSet<String>,
    fields: BTreeSet<String>,
    types: Vec<String>,
}

impl<'a> Condition<'a> {
    fn next(&mut self) -> &'a str {
        let (first, rest) = self.tokens.split_first().expect("more of the condition");
        self.tokens = rest;
        first
    }

    fn any(&mut self) {
        self.term();
        let mut joined = None;
        while let Some(sign @ ("and" | "or")) = self.tokens.first().map(String::as_str) {
            // `a and b or c` reads otherwise than it is meant.
            assert!(joined.is_none_or(|before| before == sign), "`and` beside `or` without parentheses");
            joined = Some(sign);
            self.next();
            self.term();
        }
    }

    fn term(&mut self) {
        match self.next() {
            "not" => self.term(),
            "(" => {
                self.any();
                assert_eq!(self.next(), ")");
            }
            field if field.contains('.') => self.comparison(field),
            name => assert!(self.macros.contains(name), "no macro `{name}`"),
        }
    }

    fn comparison(&mut self, field: &str) {
        self.fields.insert(field.to_owned());
        let values = match self.next() {
            "in" => {
                assert_eq!(self.next(), "(");
                let mut values = vec![self.next().to_owned()];
                while let "," = self.tokens.first().expect("more").as_str() {
                    self.next();
                    values.push(self.next().to_owned());
                }
                assert_eq!(self.next(), ")");
                for name in values.iter().filter(|value| value.starts_with("mayfly_")) {
                    assert!(self.lists.contains(name), "no list `{name}`");
                }
                values
            }
            "=" | "!=" | "contains" | "startswith" | "endswith" | ">=" => vec![self.next().to_owned()],
            other => panic!("{field}: no operator `{other}`"),
        };
        if field == "evt.type" {
            self.types.extend(values);
        }
    }
}

#[test]
fn falcos_conditions_read_and_each_call_they_ask_for_is_understood() {
    // Of `sinsp_filtercheck_{event,fd,thread}.cpp` of libs, but for arguments of events.
    const FILTERS: [&str; 12] = [
        "evt.type",
        "evt.rawres",
        "evt.res",
        "evt.is_open_write",
        "evt.is_open_read",
        "fd.name",
        "fd.filename",
        "fd.type",
        "fd.typechar",
        "fd.l4proto",
        "fd.sport",
        "proc.name",
    ];
    let rules = rules();
    let named = |key: &str| -> BTreeSet<String> {
        rules.iter().filter_map(|item| item[key].as_str()).map(str::to_owned).collect()
    };
    let (macros, lists) = (named("macro"), named("list"));
    let mut asked: BTreeMap<String, String> = BTreeMap::new();
    for item in rules.iter().filter(|item| item["condition"].is_string()) {
        let tokens = tokens(word(item, "condition"));
        let mut condition =
            Condition { tokens: &tokens, macros: &macros, lists: &lists, fields: BTreeSet::new(), types: Vec::new() };
        condition.any();
        assert!(condition.tokens.is_empty(), "{item}: {:?} is left", condition.tokens);
        for field in &condition.fields {
            let others = ["proc.exepath", "container.id", "evt.arg.domain", "evt.arg.type"];
            assert!(FILTERS.contains(&field.as_str()) || others.contains(&field.as_str()), "no field `{field}`");
        }
        let Some(rule) = item["rule"].as_str() else { continue };
        assert!(!condition.types.is_empty(), "{rule} would see every event");
        for call in condition.types {
            let expected = expected_of(rule, &call);
            let event = falco_event(rule, &call);
            assert_eq!(kind(Dialect::Falco, &event), expected, "{rule} {call}");
            assert_eq!(pack_version(Dialect::Falco, event.to_string().as_bytes()), Some(CURRENT));
            if let Some(other) = asked.insert(format!("{call} {expected}"), rule.to_owned()) {
                // One for names, one for what is to be refused first: the same call of another family of sockets.
                assert!(other == rule || (call == "connect"), "{call} is told by {other} and {rule}");
            }
        }
    }
    let calls: BTreeSet<String> =
        asked.keys().map(|key| key.split(' ').next().unwrap_or_default().to_owned()).collect();
    let understood: BTreeSet<String> = names("falco.rs", "match kind {", "fn opened")
        .into_iter()
        .chain(names("kernel.rs", "fn change(", "#[cfg(test)]"))
        .chain(names("kernel.rs", "fn is_identity(", "CALLS.contains"))
        .collect();
    let left_out = LEFT_OUT_OF_FALCO.iter().flat_map(|(names, _)| names.iter()).map(|name| (*name).to_owned());
    let missing: Vec<String> = understood.difference(&calls.into_iter().chain(left_out).collect()).cloned().collect();
    assert!(missing.is_empty(), "understood and neither asked for nor left out: {missing:?}");
}

/// Functions of the kernel that change files, beside the calls that lead to them.
const FUNCTIONS_OF_CHANGES: [&str; 20] = [
    "path_unlink",
    "path_rmdir",
    "path_rename",
    "path_mkdir",
    "path_symlink",
    "path_link",
    "path_mknod",
    "path_truncate",
    "path_chmod",
    "path_chown",
    "inode_unlink",
    "inode_rmdir",
    "inode_rename",
    "inode_create",
    "inode_mkdir",
    "inode_symlink",
    "inode_link",
    "inode_mknod",
    "chmod_common",
    "chown_common",
];

const LEFT_OUT_OF_FALCO: [(&[&str], &str); 7] = [
    (&FUNCTIONS_OF_CHANGES, "functions of the kernel, of other sensors"),
    (&["file_truncate"], "a function of the kernel, of another sensor"),
    (&["procexit"], "an end adds nothing to what is compared"),
    (&["accept", "accept4"], "who connects is not predicted"),
    (&["sendto", "sendmsg", "sendmmsg"], "for each datagram; Falco leaves them out unless all calls are traced"),
    (&["truncate", "ftruncate", "fchmodat2"], "Falco has no arguments of these calls, so no path"),
    (&["clone", "clone3", "fork", "vfork", "close", "read", "write"], "told only with what they lead to"),
];

/// The fields and calls that Falco has gained since March 2022, of which its library in Debian is.
const NEWER_FIELDS: [&str; 9] = [
    "fs.path.name",
    "fs.path.source",
    "fs.path.target",
    "container.full_id",
    "k8s.pod.uid",
    "proc.pexepath",
    "proc.is_exe_upper_layer",
    "proc.is_exe_lower_layer",
    "proc.is_exe_from_memfd",
];
const NEWER_CALLS: [&str; 7] =
    ["open_by_handle_at", "move_mount", "fsopen", "fsmount", "open_tree", "kexec_file_load", "memfd_create"];

#[test]
#[ignore = "needs sysdig of Debian, or another one that SYSDIG names"]
fn falcos_own_parser_takes_the_conditions_and_knows_the_fields() {
    let sysdig = std::env::var("SYSDIG").unwrap_or_else(|_| "sysdig".to_owned());
    // What it says of a filter: there are no events to read, which it sees only once the filter is compiled.
    let said = |filter: &str| {
        let output =
            std::process::Command::new(&sysdig).args(["-r", "/dev/null", filter]).output().expect("sysdig runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let is_taken = |filter: &str| {
        let said = said(filter);
        assert!(said.contains("filter error") || said.contains("initialize reader"), "{said}");
        !said.contains("filter error")
    };
    assert!(!is_taken("evt.type = opne") && !is_taken("foo.bar = 1") && !is_taken("(evt.type = open"));
    let rules = rules();
    let texts = |key: &str, value: fn(&Value) -> String| -> BTreeMap<String, String> {
        rules.iter().filter_map(|item| Some((item[key].as_str()?.to_owned(), value(item)))).collect()
    };
    let items = |item: &Value| list(item, "items").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let mut named = texts("macro", |item| word(item, "condition").to_owned());
    named.extend(texts("list", items));
    for (rule, condition) in texts("rule", |item| word(item, "condition").to_owned()) {
        let mut tokens = tokens(&condition);
        while let Some(at) = tokens.iter().position(|token| named.contains_key(token)) {
            let mut meant = self::tokens(&named[&tokens[at]]);
            // A macro that is not in parentheses is meant as a whole.
            if tokens[..at].last().is_none_or(|before| before != "(") {
                meant.insert(0, "(".to_owned());
                meant.push(")".to_owned());
            }
            tokens.splice(at..=at, meant);
        }
        let known = NEWER_CALLS.iter().fold(tokens.join(" "), |filter, call| filter.replace(&format!(" , {call}"), ""));
        assert!(is_taken(&known), "{rule}: {known}: {}", said(&known));
    }
    for field in extra_fields() {
        assert_eq!(!is_taken(&format!("{field} exists")), NEWER_FIELDS.contains(&field.as_str()), "{field}");
    }
}

fn expected_of(rule: &str, call: &str) -> &'static str {
    match rule.trim_start_matches(|sign: char| !sign.is_ascii_digit()).split_once('-').expect("a name").1 {
        "exec" => "exec",
        "listen" | "bind-udp" => "listen",
        "connect" => "connect",
        "connect-unix" => "connect-unix",
        "write" | "change" => "write",
        "read" => "read",
        "identity" => "identity",
        "capset" | "special" | "raw-socket" => "syscall",
        other => panic!("{other} {call}"),
    }
}

/// As Falco fills the fields for this call: those of another kind of event are null.
fn falco_event(rule: &str, call: &str) -> Value {
    let mut fields: BTreeMap<String, Value> = extra_fields().into_iter().map(|field| (field, Value::Null)).collect();
    let mut set = |field: &str, value: Value| {
        assert!(fields.insert(field.to_owned(), value).is_some(), "{field} is not sent");
    };
    set("evt.time", json!(1_767_323_045_120_000_001_u64));
    set("evt.type", json!(call));
    set("evt.res", json!("SUCCESS"));
    set("evt.rawres", json!(0));
    set("container.id", json!("3ad7b26ded6d"));
    set("proc.name", json!("sh"));
    set("proc.exepath", json!("/bin/sh"));
    set("fd.name", json!(""));
    let unix = rule.ends_with("connect-unix");
    match call {
        "open" | "openat" | "openat2" | "open_by_handle_at" | "creat" => {
            set("fd.name", json!("/etc/shadow"));
            set("evt.is_open_write", json!(rule.ends_with("write") && call != "creat"));
            set("evt.is_open_read", json!(rule.ends_with("read")));
        }
        "connect" if unix => {
            set("fd.type", json!("unix"));
            set("fd.name", json!("ffff8a1b2c3d->ffff8a1b2c3e /run/docker.sock"));
        }
        "listen" | "bind" | "connect" => {
            set("fd.type", json!("ipv4"));
            set("fd.l4proto", json!(if call == "listen" { "tcp" } else { "udp" }));
            set("fd.sport", json!(53));
            set("fd.sip", json!("10.0.0.10"));
        }
        "rename" | "renameat" | "renameat2" => set("fs.path.target", json!("/x")),
        "link" | "linkat" | "symlink" | "symlinkat" => set("fs.path.source", json!("/x")),
        // No field of `fs.path` knows them.
        "mknod" | "mknodat" => set("evt.arg.path", json!("/x")),
        "fchmod" | "fchown" => set("fd.name", json!("/x")),
        _ if rule.ends_with("change") => set("fs.path.name", json!("/x")),
        _ => set("evt.args", json!("a=1")),
    }
    json!({
        "hostname": "node-1", "priority": "Debug", "rule": rule, "source": "syscall",
        "time": "2026-01-02T03:04:05.120000001Z", "output_fields": fields,
    })
}

#[test]
fn falcos_events_of_a_path_name_the_path_that_is_changed() {
    let path = |call: &str, fields: Value| {
        let mut event = falco_event("mayfly-1-change", call);
        let sent = event["output_fields"].as_object_mut().expect("fields");
        sent.retain(|field, _| !field.starts_with("fs."));
        sent.extend(fields.as_object().expect("fields").clone());
        match decode(Dialect::Falco, event.to_string().as_bytes()) {
            Ok(Told::Activity(activity)) => word(&json!(activity.act), "path").to_owned(),
            other => panic!("{call}: {other:?}"),
        }
    };
    // Resolved against the working folder, or where it failed as it was written.
    assert_eq!(path("unlinkat", json!({"fs.path.name": "/data/x", "evt.arg.name": "x"})), "/data/x");
    assert_eq!(path("unlinkat", json!({"evt.res": "EACCES", "evt.arg.name": "x"})), "x");
    assert_eq!(path("fchownat", json!({"evt.res": "EPERM", "evt.arg.pathname": "/x"})), "/x");
    // A link's new name, not what it leads to.
    assert_eq!(path("symlinkat", json!({"fs.path.source": "/new", "fs.path.target": "/etc/shadow"})), "/new");
    assert_eq!(path("symlink", json!({"evt.res": "EROFS", "evt.arg.linkpath": "/new"})), "/new");
    assert_eq!(path("link", json!({"fs.path.source": "/new", "evt.arg.newpath": "/new"})), "/new");
    assert_eq!(path("renameat2", json!({"fs.path.source": "/old", "fs.path.target": "/new"})), "/new");
    assert_eq!(path("creat", json!({"fd.name": "/x", "evt.is_open_write": false, "evt.is_open_read": false})), "/x");
}

// --- Tetragon

fn policies() -> Vec<Value> {
    let [index] = yaml("tetragon/kustomization.yaml").try_into().expect("one document");
    let listed: BTreeSet<String> =
        list(&index, "resources").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let there: BTreeSet<String> = fs::read_dir(folder().join("tetragon"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "kustomization.yaml" && name != "values.yaml")
        .collect();
    assert_eq!(listed, there);
    listed.iter().flat_map(|name| yaml(&format!("tetragon/{name}"))).collect()
}

/// Names of `install/kubernetes/tetragon/crds-yaml/cilium.io_tracingpolicies.yaml` of cilium/tetragon, those that are used.
#[test]
fn tetragons_policies_have_the_keys_of_its_schema() {
    const HOOK: [&str; 7] = ["call", "syscall", "ignore", "return", "args", "returnArg", "selectors"];
    const TYPES: [&str; 9] =
        ["int", "uint32", "string", "file", "sock", "socket", "sockaddr", "capability", "user_namespace"];
    const OPERATORS: [&str; 6] = ["Equal", "NotEqual", "Prefix", "NotPrefix", "Postfix", "Mask"];
    let keys = |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    let only = |value: &Value, known: &[&str]| {
        assert!(keys(value).iter().all(|key| known.contains(&key.as_str())), "{value} beside {known:?}");
    };
    let mut seen = BTreeSet::new();
    for policy in policies() {
        only(&policy, &["apiVersion", "kind", "metadata", "spec"]);
        only(&policy["spec"], &["kprobes"]);
        assert_eq!((word(&policy, "apiVersion"), word(&policy, "kind")), ("cilium.io/v1alpha1", "TracingPolicy"));
        let name = word(&policy["metadata"], "name");
        assert!(seen.insert(name.to_owned()), "{name} twice");
        assert_eq!(Pack::of(name), Some(CURRENT), "{name}");
        for hook in list(&policy["spec"], "kprobes") {
            only(hook, &HOOK);
            let call = word(hook, "call");
            assert_eq!(hook["syscall"], json!(call.starts_with("sys_")), "{call}");
            assert_eq!(hook["return"].as_bool().unwrap_or_default(), hook["returnArg"].is_object(), "{call}");
            let indexes: Vec<u64> = list(hook, "args").iter().filter_map(|arg| arg["index"].as_u64()).collect();
            for arg in list(hook, "args").iter().chain(hook["returnArg"].is_object().then_some(&hook["returnArg"])) {
                only(arg, &["index", "type"]);
                assert!(TYPES.contains(&word(arg, "type")), "{call}: {arg}");
            }
            let selectors = list(hook, "selectors");
            // At most five, by its documentation; without one, it would tell of the host too.
            assert!((1..=5).contains(&selectors.len()), "{call}");
            for selector in selectors {
                only(selector, &["matchNamespaces", "matchArgs", "matchActions"]);
                assert_eq!(
                    selector["matchNamespaces"],
                    json!([{"namespace": "Mnt", "operator": "NotIn", "values": ["host_ns"]}]),
                    "{call}"
                );
                for filter in list(selector, "matchArgs") {
                    only(filter, &["index", "operator", "values"]);
                    assert!(OPERATORS.contains(&word(filter, "operator")), "{filter}");
                    assert!(list(filter, "values").iter().all(Value::is_string), "{filter}");
                    assert!(indexes.contains(&filter["index"].as_u64().expect("a number")), "{call}: {filter}");
                }
                for action in list(selector, "matchActions") {
                    assert_eq!(action, &json!({"action": "Post", "rateLimit": "1m", "rateLimitScope": "process"}));
                }
            }
        }
    }
    assert!(seen.len() >= 9, "{seen:?}");
}

/// Where a kernel has no such function and it is not said to be ignored, a policy fails as a whole.
#[test]
fn tetragons_policies_load_on_every_kernel() {
    // Not on AArch64, or not before some version, or by configuration.
    const NOT_EVERYWHERE: [&str; 32] = [
        "sys_unlink",
        "sys_rmdir",
        "sys_rename",
        "sys_mkdir",
        "sys_symlink",
        "sys_link",
        "sys_mknod",
        "sys_chmod",
        "sys_chown",
        "sys_lchown",
        "security_file_truncate",
        "ip6_datagram_connect",
        "sys_process_vm_readv",
        "sys_process_vm_writev",
        "sys_move_mount",
        "sys_fsopen",
        "sys_open_tree",
        "sys_init_module",
        "sys_finit_module",
        "sys_delete_module",
        "sys_kexec_load",
        "sys_kexec_file_load",
        "sys_bpf",
        "sys_perf_event_open",
        "sys_userfaultfd",
        "sys_memfd_create",
        "sys_swapon",
        "sys_swapoff",
        "sys_acct",
        "sys_quotactl",
        "sys_open",
        "sys_creat",
    ];
    for policy in policies() {
        for hook in list(&policy["spec"], "kprobes") {
            let call = word(hook, "call");
            assert_ne!(call, "security_path_truncate");
            assert_eq!(hook["ignore"]["callNotFound"] == json!(true), NOT_EVERYWHERE.contains(&call), "{call}");
        }
    }
}

/// As Tetragon writes an argument of this type.
fn argument(call: &str, arg: &Value) -> Value {
    let udp = call.contains("datagram") || call == "security_socket_bind";
    let protocol = if udp { "IPPROTO_UDP" } else { "IPPROTO_TCP" };
    match word(arg, "type") {
        // MAY_READ and MAY_WRITE have no bit in common with any of these tests' numbers.
        "int" => json!({"int_arg": 4}),
        "uint32" => json!({"uint_arg": 0}),
        "string" => json!({"string_arg": "/x"}),
        "file" => json!({"file_arg": {"path": "/x", "permission": "-rw-r--r--"}}),
        "sock" | "socket" => json!({"sock_arg": {
            "family": "AF_INET", "type": "SOCK_STREAM", "protocol": protocol, "saddr": "10.0.0.5", "daddr": "10.0.0.10",
            "sport": 8080, "dport": 53,
        }}),
        "sockaddr" => json!({"sockaddr_arg": {"family": "AF_INET", "addr": "10.0.0.10", "port": 53}}),
        "capability" => json!({"capability_arg": {"value": 13, "name": "CAP_NET_RAW"}}),
        "user_namespace" => json!({"user_ns_arg": {"level": 0, "uid": 0, "gid": 0}}),
        other => panic!("{other}"),
    }
}

#[test]
fn each_function_that_tetragon_is_asked_for_is_understood_and_the_other_way_around() {
    let mut asked = BTreeSet::new();
    for policy in policies() {
        let name = word(&policy["metadata"], "name");
        let expected = match name.trim_start_matches("mayfly-1-") {
            "tcp-connect" => &["connect"][..],
            "tcp-listen" => &["listen"],
            "udp" => &["listen", "connect"],
            "file-write" | "file-change" => &["write"],
            "sensitive-read" => &["read"],
            "capability" => &["capability"],
            "identity" => &["identity"],
            "special" => &["syscall"],
            other => panic!("{other}"),
        };
        for hook in list(&policy["spec"], "kprobes") {
            let call = word(hook, "call");
            let mut args: Vec<Value> = list(hook, "args").iter().map(|arg| argument(call, arg)).collect();
            if name.ends_with("file-write") && call == "security_file_permission" {
                args[1] = json!({"int_arg": 2});
            }
            // System calls are told of by the name that the kernel has for them on the machine.
            let function = call.strip_prefix("sys_").map_or(call.to_owned(), |call| format!("__x64_sys_{call}"));
            let event = json!({
                "time": "2026-01-02T03:04:05.120000001Z", "node_name": "node-1",
                "process_kprobe": {
                    "process": {"exec_id": "a", "pid": 1, "binary": "/bin/sh", "cwd": "/",
                        "pod": {"namespace": "n", "name": "p", "container": {"id": "containerd://3ad7b26ded6d"}}},
                    "function_name": function, "args": args, "return": {"int_arg": 0},
                    "action": "KPROBE_ACTION_POST", "policy_name": name,
                },
            });
            let kind = kind(Dialect::Tetragon, &event);
            assert!(expected.contains(&kind.as_str()), "{name} {call}: {kind}");
            assert_eq!(pack_version(Dialect::Tetragon, event.to_string().as_bytes()), Some(CURRENT));
            let short = call.strip_prefix("sys_").or_else(|| call.strip_prefix("security_")).unwrap_or(call);
            asked.insert(short.to_owned());
        }
    }
    let understood = names("tetragon.rs", "fn hooked(", "fn call_of")
        .into_iter()
        .chain(names("tetragon.rs", "let act = match call {", "fn executed"))
        .chain(names("kernel.rs", "fn change(", "#[cfg(test)]"))
        .chain(names("kernel.rs", "fn is_identity(", "CALLS.contains"));
    let left_out: BTreeSet<&str> = LEFT_OUT_OF_TETRAGON.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let missing: BTreeSet<String> =
        understood.filter(|name| !asked.contains(name) && !left_out.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "understood and neither asked for nor left out: {missing:?}");
    let twice: Vec<&&str> = left_out.iter().filter(|name| asked.contains(**name)).collect();
    assert!(twice.is_empty(), "left out and asked for: {twice:?}");
}

const LEFT_OUT_OF_TETRAGON: [(&[&str], &str); 10] = [
    (
        &[
            "bprm_check",
            "bprm_check_security",
            "bprm_creds_for_exec",
            "bprm_creds_from_file",
            "bprm_committing_creds",
            "bprm_committed_creds",
            "execve",
            "execveat",
        ],
        "process_exec tells of what was executed",
    ),
    (
        &[
            "tcp_v4_connect",
            "tcp_v6_connect",
            "socket_connect",
            "__inet_stream_connect",
            "connect",
            "ip_output",
            "sctp_connect",
            "inet_listen",
            "socket_listen",
            "listen",
            "inet_bind",
            "inet6_bind",
            "bind",
        ],
        "tcp_connect, inet_csk_listen_start and socket_bind tell of the same once",
    ),
    (&["udp_sendmsg", "udpv6_sendmsg", "sendto", "sendmsg"], "for each datagram"),
    (
        &["inet_csk_accept", "socket_accept", "inet_accept", "accept", "accept4", "tcp_set_state"],
        "who connects is not predicted",
    ),
    (
        &[
            "file_open",
            "file_post_open",
            "mmap_file",
            "fd_install",
            "open",
            "openat",
            "openat2",
            "open_by_handle_at",
            "creat",
            "write",
            "pwrite64",
            "writev",
            "pwritev",
            "read",
            "pread64",
            "readv",
            "preadv",
            "readlink",
            "readlinkat",
        ],
        "file_permission tells of reading and writing by whatever call",
    ),
    (&["capable", "ns_capable"], "they come to cap_capable"),
    (
        &[
            "sb_mount",
            "do_mount",
            "path_mount",
            "ptrace_access_check",
            "ptrace_traceme",
            "bpf_prog_alloc",
            "bpf_prog_load",
            "bpf_map_alloc",
            "bpf_check",
            "do_init_module",
            "kernel_module_request",
            "kernel_read_file",
            "find_module_sections",
            "create_user_ns",
            "create_user_namespace",
        ],
        "the system call tells of it",
    ),
    (&["clone", "clone3", "fork", "vfork", "close", "exit", "exit_group"], "told only with what they lead to"),
    (&FUNCTIONS_OF_CHANGES, "the system call tells of it"),
    (&["ftruncate", "fchmod", "fchmodat2", "fchown"], "the system call tells of it; of a descriptor it has no path"),
];

// --- Tracee

#[test]
fn each_event_that_tracee_is_asked_for_is_understood_and_the_other_way_around() {
    let [policy] = yaml("tracee/policy.yaml").try_into().expect("one document");
    let name = word(&policy["metadata"], "name");
    assert_eq!(Pack::of(name), Some(CURRENT));
    assert_eq!((word(&policy, "apiVersion"), word(&policy, "kind")), ("tracee.aquasec.com/v1beta1", "Policy"));
    assert_eq!(policy["spec"]["scope"], json!(["container"]));
    let mut asked = BTreeSet::new();
    for rule in list(&policy["spec"], "rules") {
        let keys: Vec<&String> = rule.as_object().expect("an object").keys().collect();
        assert!(keys.iter().all(|key| ["event", "filters"].contains(&key.as_str())), "{rule}");
        let event_name = word(rule, "event");
        // Tracee takes one rule for an event in a policy.
        assert!(asked.insert(event_name.to_owned()), "{event_name} twice");
        let values = [
            ("pathname", json!("/x")),
            ("file_path", json!("/x")),
            ("path", json!("/x")),
            ("newpath", json!("/y")),
            ("new_path", json!("/y")),
            ("linkpath", json!("/y")),
            ("file_name", json!("/x")),
            ("flags", json!("O_RDONLY")),
            ("cap", json!("CAP_NET_RAW")),
            ("type", json!("SOCK_DGRAM")),
            ("uid", json!(0)),
            ("domain", json!("AF_PACKET")),
            ("remote_addr", json!({"sa_family": "AF_INET", "sin_addr": "10.0.0.10", "sin_port": "53"})),
            ("local_addr", json!({"sa_family": "AF_INET", "sin_addr": "0.0.0.0", "sin_port": "53"})),
        ];
        let args: Vec<Value> = values.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut event = json!({
            "timestamp": 1_767_323_045_120_000_001_u64, "eventName": event_name, "processName": "sh", "hostName": "n",
            "container": {"id": "3ad7b26ded6d8e7b23da7d48fe889434573036c27ae5a74837233de441c3601e"},
            "kubernetes": {"podName": "p", "podNamespace": "n"}, "contextFlags": {"containerStarted": true},
            "matchedPolicies": [name], "returnValue": 0, "args": args,
        });
        let is_signature = matches!(event_name, "dropped_executable" | "fileless_execution");
        if is_signature {
            event["metadata"] = json!({"Properties": {"signatureID": "TRC-1", "signatureName": event_name}});
        }
        let expected = match event_name {
            "sched_process_exec" | "fileless_execution" => "exec",
            "sched_process_exit" => "exit",
            "security_socket_listen" | "security_socket_bind" => "listen",
            "security_socket_connect" => "connect",
            "security_file_open" => "read",
            "cap_capable" => "capability",
            name if name.starts_with("set") && !matches!(name, "setns" | "settimeofday") => "identity",
            name if [
                "chmod",
                "chown",
                "mkdir",
                "link",
                "mknod",
                "rename",
                "rmdir",
                "truncate",
                "modification",
                "dropped",
            ]
            .iter()
            .any(|part| name.contains(part)) =>
            {
                "write"
            }
            _ => "syscall",
        };
        assert_eq!(kind(Dialect::Tracee, &event), expected, "{event_name}");
        assert_eq!(pack_version(Dialect::Tracee, event.to_string().as_bytes()), Some(CURRENT));
    }
    let understood = names("tracee.rs", "let hook = ", "/// The named values of an event.").into_iter().chain(names(
        "kernel.rs",
        "fn is_identity(",
        "CALLS.contains",
    ));
    let left_out: BTreeSet<&str> = LEFT_OUT_OF_TRACEE.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let is_asked = |name: &String| asked.contains(name) || asked.contains(&format!("security_{name}"));
    let missing: BTreeSet<String> =
        understood.filter(|name| !is_asked(name) && !left_out.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "understood and neither asked for nor left out: {missing:?}");
}

const LEFT_OUT_OF_TRACEE: [(&[&str], &str); 8] = [
    (&["execve", "execveat"], "sched_process_exec tells of it when it is done"),
    (&["listen", "bind", "connect", "net_tcp_connect"], "the security hooks tell of it with the address"),
    (&["socket_accept"], "who connects is not predicted"),
    (
        &["open", "openat", "openat2", "creat", "magic_write", "vfs_write", "vfs_writev"],
        "file_modification tells of what was written, security_file_open of secrets that are read",
    ),
    (
        &["mount", "umount", "umount2", "bpf", "bpf_prog", "bpf_map", "bpf_attach", "do_init_module", "module_load"],
        "security_sb_mount, security_bpf and the system call tell of it",
    ),
    (&["sys_enter", "sys_exit"], "of every call"),
    (&["keyctl", "add_key", "request_key", "io_uring_setup", "personality", "prctl", "sethostname"], "in many a start"),
    // Names of arguments, not of events.
    (
        &[
            "cmdpath",
            "pathname",
            "local_addr",
            "addr",
            "remote_addr",
            "dst_port",
            "dst",
            "dst_dns",
            "flags",
            "file_path",
            "cap",
            "syscall",
            "uid",
            "gid",
            "euid",
            "egid",
            "ruid",
            "rgid",
            "_event",
            "new_path",
            "newpath",
            "newname",
            "linkpath",
            "file_name",
            "path",
        ],
        "names of arguments",
    ),
];

// --- KubeArmor and Inspektor Gadget

#[test]
fn kubearmors_policies_block_nothing_and_carry_the_version() {
    for policy in yaml("kubearmor/policies.yaml") {
        assert_eq!(word(&policy, "apiVersion"), "security.kubearmor.com/v1");
        assert_eq!(word(&policy, "kind"), "KubeArmorClusterPolicy");
        assert_eq!(word(&policy["spec"], "action"), "Audit");
        let name = word(&policy["metadata"], "name");
        assert_eq!(Pack::of(name), Some(CURRENT));
        let event = json!({"Operation": "File", "PolicyName": name});
        assert_eq!(pack_version(Dialect::KubeArmor, event.to_string().as_bytes()), Some(CURRENT));
    }
    let [config] = yaml("kubearmor/config.yaml").try_into().expect("one document");
    assert_eq!(config["spec"]["alertThrottling"], json!(false));
}

#[test]
fn both_ways_of_running_the_gadgets_run_the_same() {
    let images: BTreeSet<String> =
        yaml("inspektor-gadget/gadgets.yaml").iter().map(|gadget| word(gadget, "image").to_owned()).collect();
    let script = text("inspektor-gadget/gadgets.sh");
    let words: BTreeSet<String> = script
        .split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_'))
        .filter(|word| word.starts_with("trace_") || word.starts_with("audit_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(words, images);
}
