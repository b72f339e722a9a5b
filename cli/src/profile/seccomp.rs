//! A seccomp profile: a behavior in, the document that Docker, Podman, containerd, CRI-O and Kubernetes (`localhostProfile`)
//! load out. Its shape is that of the OCI runtime specification, `linux.seccomp`, with the `comment` that Docker and
//! containers/common have beside each rule; runtimes ignore it.
//!
//! Every tier is allowed: what cannot be ruled out must not break the container. Of what Docker's default profile refuses by
//! its arguments nothing is allowed here either, and `clone3`, whose flags a filter cannot see, is answered as there: libraries
//! turn to `clone`.

use std::{collections::BTreeSet, sync::LazyLock};

use anyhow::bail;
use dna::{Behavior, Dna, Kind};
use serde::{Deserialize, Serialize};

use super::capabilities;
use crate::args::Runtime;

/// What the profile is for.
pub(crate) struct Options<'a> {
    /// The runtimes that will load it; none means the common ones.
    pub(crate) runtimes: &'a [Runtime],
    /// The process may gain no privileges, so that runtimes load the filter last.
    pub(crate) no_new_privileges: bool,
    /// Allow nothing that Docker's default profile refuses.
    pub(crate) within_docker: bool,
}

/// A profile, and what its reader should know.
pub(crate) struct Made {
    pub(crate) profile: Profile,
    pub(crate) remarks: Vec<String>,
}

/// A profile. Source: opencontainers/runtime-spec `config-linux.md`, section Seccomp.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    default_action: &'static str,
    /// ENOSYS: a library takes a refused call for one that the kernel does not know, and falls back to an older one.
    default_errno_ret: u32,
    architectures: Vec<&'static str>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg>,
    comment: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u32,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: &'static str,
}

/// The profile for a behavior.
pub(crate) fn profile(dna: &Dna, behavior: &Behavior, digest: &str, options: &Options<'_>) -> anyhow::Result<Made> {
    let (data, docker) = (&*DATA, DATA.docker.names.iter().map(String::as_str).collect::<BTreeSet<_>>());
    let architectures = architectures(dna, behavior)?;
    let granted = capabilities::needed(behavior);
    let predicted: BTreeSet<&str> = behavior.syscalls.iter().map(|item| item.what.name.as_str()).collect();
    let beyond: BTreeSet<&str> = predicted.difference(&docker).copied().filter(|name| *name != CLONE3).collect();
    let mut remarks = Vec::new();
    let mut taken = BTreeSet::<&str>::new();
    if !beyond.is_empty() {
        let names = beyond.iter().copied().collect::<Vec<_>>().join(", ");
        if options.within_docker {
            taken.extend(&beyond);
            remarks.push(format!("left out, because Docker's default profile refuses them: {names}"));
        } else {
            remarks.push(format!(
                "allowed, though Docker's default profile refuses them without more capabilities: {names}; \
                 --within-docker-default leaves them out"
            ));
        }
    }
    if !granted.contains("CAP_SYS_ADMIN") {
        taken.insert(CLONE3);
    }
    let mut rules = Rules { done: taken.clone(), list: Vec::new(), granted: &granted };
    rules.allow(predicted.iter().copied(), &format!("predicted from the image; DNA {digest}"));
    for around in data.around.iter().filter(|around| around.is_for(options.runtimes)) {
        let names = around.late.as_ref().filter(|_| options.no_new_privileges).unwrap_or(&around.names);
        rules.allow(names.iter().map(String::as_str), &format!("called by {}: {}", around.who, around.why));
    }
    let older = data.fallbacks.iter().filter(|fallback| predicted.contains(fallback.newer.as_str()));
    let older = older.flat_map(|fallback| fallback.older.iter().map(String::as_str));
    rules.allow(older, "what a library falls back to where the kernel does not know a newer call");
    if taken.contains(CLONE3) {
        let why = "a filter cannot see its flags; libraries turn to clone";
        rules.list.push(Rule::new([CLONE3], ERRNO, why).errno(ENOSYS));
    }
    let privileged = data.privileged.names.iter().map(String::as_str).filter(|name| !rules.allows(name));
    let privileged: Vec<&str> = privileged.collect();
    rules
        .list
        .push(Rule::new(privileged, ERRNO, "refused as the kernel refuses them to the unprivileged").errno(EPERM));
    let allowed: BTreeSet<&str> = rules.done.difference(&taken).copied().collect();
    remarks.push(summary(&allowed, predicted.len(), dna, &docker));
    let profile = Profile { default_action: ERRNO, default_errno_ret: ENOSYS, architectures, syscalls: rules.list };
    Ok(Made { profile, remarks })
}

/// What is allowed, beside the yardstick, which is known for one machine.
fn summary(allowed: &BTreeSet<&str>, predicted: usize, dna: &Dna, docker: &BTreeSet<&str>) -> String {
    let all = allowed.len();
    let mut told = format!(
        "{all} system calls are allowed: {predicted} were predicted, the others are for the kernel, the runtime and older kernels"
    );
    if dna.image.platform.architecture() == "amd64" {
        let kept = docker.intersection(allowed).count();
        let denied = docker.len().saturating_sub(kept);
        let share = denied * 100 / docker.len().max(1);
        told +=
            &format!("; of the {} that Docker's default profile allows, {denied} ({share} %) are denied", docker.len());
    }
    told
}

/// The architectures of the calls: the image's own, and its 32-bit one where a program of it is executed.
fn architectures(dna: &Dna, behavior: &Behavior) -> anyhow::Result<Vec<&'static str>> {
    let (own, small, elf) = match dna.image.platform.architecture() {
        "amd64" => ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "386"),
        "arm64" => ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "arm"),
        other => bail!("system calls are worked out for amd64 and arm64 only, and the image is for {other}"),
    };
    let executed: BTreeSet<_> = behavior.exec.iter().map(|item| &item.what.path).collect();
    let is_small = dna.programs.iter().any(|program| {
        matches!(&program.kind, Kind::Elf(facts) if facts.architecture == elf) && executed.contains(&program.path)
    });
    Ok([own].into_iter().chain(is_small.then_some(small)).collect())
}

/// Rules in the making, each name in one of them.
struct Rules<'a> {
    done: BTreeSet<&'a str>,
    list: Vec<Rule>,
    granted: &'a BTreeSet<String>,
}

impl<'a> Rules<'a> {
    /// Allows what no earlier rule is about.
    fn allow(&mut self, names: impl Iterator<Item = &'a str>, comment: &str) {
        let names: Vec<&str> = names.filter(|name| self.done.insert(name)).collect();
        let guard = |name: &str| DATA.guarded.iter().find(|guard| guard.name == name && !guard.is_lifted(self.granted));
        let (guarded, plain): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| guard(name).is_some());
        if !plain.is_empty() {
            self.list.push(Rule::new(plain, ALLOW, comment));
        }
        self.list.extend(guarded.into_iter().filter_map(guard).flat_map(Guarded::rules));
    }

    fn allows(&self, name: &str) -> bool {
        self.list.iter().any(|rule| rule.action == ALLOW && rule.names.iter().any(|known| known == name))
    }
}

impl Rule {
    fn new<'a>(names: impl IntoIterator<Item = &'a str>, action: &'static str, comment: &str) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        Self {
            names: names.into_iter().collect(),
            action,
            errno_ret: None,
            args: Vec::new(),
            comment: comment.to_owned(),
        }
    }

    fn errno(mut self, number: u32) -> Self {
        self.errno_ret = Some(number);
        self
    }

    fn arg(mut self, arg: Arg) -> Self {
        self.args.push(arg);
        self
    }
}

/// What stands in `seccomp.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    around: Vec<Around>,
    #[serde(rename = "fallback")]
    fallbacks: Vec<Fallback>,
    guarded: Vec<Guarded>,
    privileged: Names,
    docker: Names,
}

/// Calls around the image's program.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Around {
    who: String,
    why: String,
    #[serde(rename = "source")]
    _source: String,
    names: Vec<String>,
    late: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fallback {
    newer: String,
    older: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

/// A call of which some arguments are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guarded {
    name: String,
    index: u32,
    mask: Option<u64>,
    but: Option<u64>,
    #[serde(default)]
    values: Vec<u64>,
    unless: Option<String>,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    #[serde(rename = "source")]
    _source: String,
    names: Vec<String>,
}

impl Around {
    fn is_for(&self, runtimes: &[Runtime]) -> bool {
        let runtimes = if runtimes.is_empty() { &[Runtime::Runc, Runtime::Crun] } else { runtimes };
        self.who == KERNEL || runtimes.iter().any(|runtime| runtime.name() == self.who)
    }
}

impl Guarded {
    fn is_lifted(&self, granted: &BTreeSet<String>) -> bool {
        self.unless.as_ref().is_some_and(|capability| granted.contains(capability))
    }

    /// The rules: what is allowed, and EPERM for the rest where that can be said.
    fn rules(&self) -> Vec<Rule> {
        let arg = |value, value_two, op| Arg { index: self.index, value, value_two, op };
        let rule = |action, comment| Rule::new([self.name.as_str()], action, comment);
        let comment = "as in Docker's default profile";
        let mut rules: Vec<Rule> =
            self.values.iter().map(|value| rule(ALLOW, comment).arg(arg(*value, None, "SCMP_CMP_EQ"))).collect();
        if let Some(but) = self.but {
            rules.push(rule(ALLOW, comment).arg(arg(but, None, "SCMP_CMP_NE")));
            rules.push(rule(ERRNO, comment).errno(EPERM).arg(arg(but, None, "SCMP_CMP_EQ")));
        }
        if let Some(mask) = self.mask {
            rules.push(rule(ALLOW, comment).arg(arg(mask, Some(0), "SCMP_CMP_MASKED_EQ")));
            for bit in (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| mask & bit != 0) {
                rules.push(rule(ERRNO, comment).errno(EPERM).arg(arg(bit, Some(bit), "SCMP_CMP_MASKED_EQ")));
            }
        }
        rules
    }
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    toml::from_str(include_str!("seccomp.toml"))
        .unwrap_or_else(|why| unreachable!("seccomp.toml, checked by a test: {why}"))
});

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const CLONE3: &str = "clone3";
const KERNEL: &str = "the kernel";
/// errno(3)
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "JSON of a test: a missing key is null")]
mod tests {
    use dna::{Confidence, Known, Syscall};
    use serde_json::Value;

    use super::*;
    use crate::fixture;

    /// A profile for these calls, all merely possible.
    fn made(names: &[&str], options: &Options<'_>) -> (Value, Vec<String>) {
        let image = fixture::image(&serde_json::json!({ "Cmd": ["/a"] }), &[("/a", 0o755, b"\x7fELF")]);
        let dna = fixture::analysis(&image).dna;
        let item = |name: &&str| Known {
            what: Syscall { name: (*name).to_owned(), arguments: None, phase: None },
            confidence: Confidence::Possible,
            probability: None,
            when: Vec::new(),
            evidence: Vec::new(),
        };
        let behavior = Behavior { syscalls: names.iter().map(item).collect(), ..Behavior::default() };
        let made = profile(&dna, &behavior, "sha256:0", options).expect("a profile");
        (serde_json::to_value(&made.profile).expect("JSON"), made.remarks)
    }

    /// The rules about a call: action, error number, number of arguments.
    fn rules(profile: &Value, name: &str) -> Vec<(String, Option<u64>, usize)> {
        let rules = profile["syscalls"].as_array().expect("a list").iter();
        let about = rules.filter(|rule| rule["names"].as_array().expect("a list").contains(&name.into()));
        let told = about.map(|rule| {
            let action = rule["action"].as_str().expect("text").to_owned();
            (action, rule["errnoRet"].as_u64(), rule["args"].as_array().map_or(0, Vec::len))
        });
        told.collect()
    }

    const PLAIN: Options<'_> = Options { runtimes: &[], no_new_privileges: false, within_docker: false };

    #[test]
    fn the_table_reads_and_names_docker_s_295() {
        assert_eq!(DATA.docker.names.len(), 295);
        let runtimes = [Runtime::Runc, Runtime::Crun, Runtime::Youki];
        for runtime in runtimes {
            assert!(DATA.around.iter().any(|around| around.who == runtime.name()), "{runtime:?}");
        }
        let lists = DATA.around.iter().map(|around| (&around.names, &around.late));
        for (names, late) in lists {
            assert!(late.iter().flatten().all(|name| names.contains(name)), "{late:?}");
        }
    }

    #[test]
    fn what_is_possible_is_allowed_and_so_is_what_kernel_and_runtime_call() {
        let (profile, _) = made(&["accept4", "bpf"], &PLAIN);
        assert_eq!((&profile["defaultAction"], &profile["defaultErrnoRet"]), (&"SCMP_ACT_ERRNO".into(), &38.into()));
        assert_eq!(profile["architectures"], serde_json::json!(["SCMP_ARCH_X86_64"]));
        for name in ["accept4", "bpf", "execve", "exit_group", "rt_sigreturn", "restart_syscall", "capset", "setresuid"]
        {
            assert_eq!(rules(&profile, name), [(ALLOW.to_owned(), None, 0)], "{name}");
        }
        assert!(rules(&profile, "accept").is_empty());
    }

    #[test]
    fn a_refused_privilege_looks_as_it_does_from_the_kernel() {
        let (profile, _) = made(&["read"], &PLAIN);
        assert_eq!(rules(&profile, "mount"), [(ERRNO.to_owned(), Some(1), 0)]);
    }

    #[test]
    fn new_namespaces_are_refused_as_docker_refuses_them() {
        let (profile, _) = made(&["clone3", "socket", "personality"], &PLAIN);
        assert_eq!(rules(&profile, "clone3"), [(ERRNO.to_owned(), Some(38), 0)]);
        let clone = rules(&profile, "clone");
        assert_eq!(clone.first(), Some(&(ALLOW.to_owned(), None, 1)), "what clone3 falls back to");
        assert_eq!(clone.iter().filter(|rule| rule.1 == Some(1)).count(), 7);
        assert_eq!(rules(&profile, "socket").len(), 2);
        assert_eq!(rules(&profile, "personality").len(), 5);
    }

    #[test]
    fn an_older_call_is_allowed_beside_a_newer_one() {
        let (profile, _) = made(&["statx", "faccessat2", "openat2"], &PLAIN);
        for name in ["newfstatat", "faccessat", "openat"] {
            assert_eq!(rules(&profile, name), [(ALLOW.to_owned(), None, 0)], "{name}");
        }
    }

    #[test]
    fn what_docker_refuses_is_told_and_left_out_on_request() {
        let (_, remarks) = made(&["read", "bpf"], &PLAIN);
        assert!(remarks.iter().any(|remark| remark.contains("bpf; --within-docker-default")), "{remarks:?}");
        let (profile, remarks) = made(&["read", "bpf"], &Options { within_docker: true, ..PLAIN });
        assert_eq!(rules(&profile, "bpf"), [(ERRNO.to_owned(), Some(1), 0)]);
        assert!(remarks.iter().any(|remark| remark.starts_with("left out")), "{remarks:?}");
    }

    #[test]
    fn a_filter_that_is_loaded_last_allows_less() {
        let options = Options { runtimes: &[Runtime::Crun], no_new_privileges: true, within_docker: false };
        let (profile, _) = made(&["read"], &options);
        assert!(rules(&profile, "capset").is_empty() && !rules(&profile, "execve").is_empty());
    }

    #[test]
    fn a_name_stands_in_one_kind_of_rule() {
        let (profile, _) = made(&["read", "clone3", "mount", "execve", "socket"], &PLAIN);
        let mut plain = BTreeSet::new();
        for rule in profile["syscalls"].as_array().expect("a list").iter().filter(|rule| rule["args"].is_null()) {
            for name in rule["names"].as_array().expect("a list") {
                assert!(plain.insert(name.to_string()), "{name} twice");
            }
        }
    }
}
