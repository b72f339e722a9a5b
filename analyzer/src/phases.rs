//! When system calls are made: how code leads to them in, which of them only start-up makes out.
//!
//! Inside a program, a call is one of start-up where neither a loop that waits for events leads to it nor a function whose address is
//! taken, which such a loop may call: loader, C library and the straight way of `main` make it, on to the end. In a container that
//! holds where each program is started once. So nothing is said as soon as a program that stays may execute others; programs without
//! a loop that waits, and shells, are taken to be over before the server serves, unless compiled code runs them.
//!
//! What is not marked may be made at any time: the mark holds as far as the code can be followed, and is no estimate. Not seen is a
//! function of another file that is handed over by its name, as a call of it looks the same.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Confidence, Evidence, ImagePath, Known, Phase, Run, Syscall};

use crate::{closure, code::Call, merge};

/// The phase of a call of one program: none where it has no loop that waits. What only despair leads to has no time.
pub(crate) fn of_call(call: &Call) -> Option<Phase> {
    (call.calm_distance.is_some() && call.is_served == Some(false)).then_some(Phase::Startup)
}

/// The phase of what starts a program.
pub(crate) fn of_start(found: &BTreeMap<&'static str, Call>) -> Option<Phase> {
    found.values().any(|call| call.is_served.is_some()).then_some(Phase::Startup)
}

/// The calls of all programs together, each as sure as itself and its program are; one is of start-up where it is in every program
/// that makes it and stays. `runs` are the edges of these programs.
pub(crate) fn union<'a>(
    programs: &BTreeMap<ImagePath, Vec<Known<Syscall>>>,
    runs: impl Iterator<Item = &'a Run>,
    sureness: impl Fn(&ImagePath) -> Confidence,
) -> Vec<Known<Syscall>> {
    let early = early(programs, runs);
    let mut all = merge::union_of_calls(programs, sureness);
    for item in &mut all {
        item.what.phase = early.contains(item.what.name.as_str()).then_some(Phase::Startup);
    }
    all
}

/// The calls that only start-up makes.
fn early<'a, 'p>(
    programs: &'p BTreeMap<ImagePath, Vec<Known<Syscall>>>,
    runs: impl Iterator<Item = &'a Run>,
) -> BTreeSet<&'p str> {
    let is_code = |evidence: &Evidence| matches!(evidence, Evidence::Binary { .. });
    // What compiled code runs, it may run while it serves.
    let late: BTreeSet<&ImagePath> =
        runs.filter(|run| run.evidence.iter().any(is_code)).map(|run| &run.program).collect();
    let is_early = |item: &Known<Syscall>| item.what.phase == Some(Phase::Startup);
    let stays = |path: &ImagePath, calls: &[Known<Syscall>]| {
        let is_shell = std::str::from_utf8(path.file_name()).is_ok_and(closure::is_shell);
        late.contains(path) || (!is_shell && calls.iter().any(is_early))
    };
    let staying = programs.iter().filter(|(path, calls)| stays(path, calls)).flat_map(|(_, calls)| calls);
    let (early, open): (Vec<_>, Vec<_>) = staying.partition(|item| is_early(item));
    let names = |items: Vec<&'p Known<Syscall>>| items.into_iter().map(|item| item.what.name.as_str()).collect();
    let (early, open): (BTreeSet<&str>, BTreeSet<&str>) = (names(early), names(open));
    if ["execve", "execveat"].iter().any(|name| open.contains(name)) {
        return BTreeSet::new();
    }
    early.difference(&open).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().expect("a path")
    }

    fn calls(list: &[(&str, bool)]) -> Vec<Known<Syscall>> {
        let item = |(name, is_early): &(&str, bool)| Known {
            what: Syscall { name: (*name).to_owned(), arguments: None, phase: is_early.then_some(Phase::Startup) },
            confidence: Confidence::Likely,
            probability: None,
            when: Vec::new(),
            evidence: Vec::new(),
        };
        list.iter().map(item).collect()
    }

    fn run(program: &str, evidence: Evidence) -> Run {
        let (confidence, reason) = (Confidence::Likely, "executes".to_owned());
        Run {
            program: path(program),
            called: BTreeSet::new(),
            reason,
            confidence,
            when: Vec::new(),
            evidence: vec![evidence],
        }
    }

    fn marked(programs: &[(&str, &[(&str, bool)])], runs: &[Run]) -> Vec<String> {
        let programs = programs.iter().map(|(name, list)| (path(name), calls(list))).collect();
        let all = union(&programs, runs.iter(), |_| Confidence::Certain);
        let early = all.into_iter().filter(|item| item.what.phase.is_some());
        early.map(|item| item.what.name).collect()
    }

    const SERVER: (&str, &[(&str, bool)]) = ("/server", &[("bind", true), ("execve", true), ("read", false)]);

    #[test]
    fn what_a_start_script_runs_is_over_when_the_server_serves() {
        let helper: (&str, &[(&str, bool)]) =
            ("/bin/chown", &[("bind", false), ("execve", false), ("fchownat", false)]);
        let shell: (&str, &[(&str, bool)]) = ("/bin/dash", &[("bind", false), ("execve", false), ("fork", true)]);
        assert_eq!(marked(&[SERVER, helper, shell], &[]), ["bind", "execve"]);
    }

    #[test]
    fn what_compiled_code_runs_may_run_at_any_time() {
        let helper: (&str, &[(&str, bool)]) = ("/helper", &[("bind", false)]);
        let code = Evidence::Binary { path: path("/server"), offset: None, layer: None, detail: None };
        let script = Evidence::File { path: path("/start.sh"), line: Some(1), layer: None, detail: None };
        assert_eq!(marked(&[SERVER, helper], &[run("/helper", code)]), ["execve"]);
        assert_eq!(marked(&[SERVER, helper], &[run("/helper", script)]), ["bind", "execve"]);
    }

    #[test]
    fn nothing_is_over_where_a_server_may_execute_programs() {
        let server: (&str, &[(&str, bool)]) = ("/server", &[("bind", true), ("execve", false)]);
        assert_eq!(marked(&[server], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_call_is_of_start_up_where_no_loop_leads_to_it() {
        let call = |is_served, calm_distance| {
            let mut call = Call::default();
            (call.is_served, call.calm_distance) = (is_served, calm_distance);
            call
        };
        let found = BTreeMap::from([("accept", call(Some(true), Some(3))), ("bind", call(Some(false), Some(3)))]);
        assert_eq!(found.values().map(of_call).collect::<Vec<_>>(), [None, Some(Phase::Startup)]);
        assert_eq!(of_start(&found), Some(Phase::Startup));
        assert_eq!(of_call(&call(Some(false), None)), None);
        // Without a loop that waits nothing tells start-up from what follows.
        let found = BTreeMap::from([("bind", call(None, Some(3)))]);
        assert_eq!((of_call(&call(None, Some(3))), of_start(&found)), (None, None));
    }
}
