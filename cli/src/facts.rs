//! Facts in words, for every report: DNA values in, short texts out. Nothing is cleaned or escaped here.

use dna::{
    Behavior, Capability, Completeness, Completenesses, Condition, Confidence, Evidence, Known, Phase, Program, Start,
    Subject,
};

/// What a program may do beyond its caller: setuid, setgid, file capabilities.
pub(crate) fn powers(program: &Program) -> Vec<String> {
    let setuid = (program.mode & 0o4000 != 0).then(|| format!("setuid {}", program.uid));
    let setgid = (program.mode & 0o2000 != 0).then(|| format!("setgid {}", program.gid));
    let capabilities = program.capabilities.iter().flat_map(|capabilities| capabilities.permitted.iter().cloned());
    setuid.into_iter().chain(setgid).chain(capabilities).collect()
}

/// As whom the start command runs.
pub(crate) fn whose(start: &Start) -> String {
    match (start.uid, start.user.as_str()) {
        (Some(0), _) => "root".to_owned(),
        (Some(uid), "") => format!("user {uid}"),
        (Some(uid), name) => format!("user {name} ({uid})"),
        (None, name) => format!("user {name}, not known"),
    }
}

/// The working directory.
pub(crate) fn folder(start: &Start) -> String {
    start.workdir.as_ref().map_or_else(|| "/".to_owned(), ToString::to_string)
}

/// Each dimension with how much of it was worked out.
pub(crate) fn dimensions(known: &Completenesses) -> [(&'static str, &Completeness); 8] {
    [
        ("exec", &known.exec),
        ("load", &known.load),
        ("syscalls", &known.syscalls),
        ("capabilities", &known.capabilities),
        ("listen", &known.listen),
        ("connect", &known.connect),
        ("write", &known.write),
        ("read", &known.read),
    ]
}

/// How many system calls are expected, and how many more cannot be ruled out; nothing where none were worked out.
pub(crate) fn syscalls(behavior: &Behavior) -> Option<String> {
    let all = behavior.syscalls.len();
    let expected = behavior.syscalls.iter().filter(|item| item.confidence < Confidence::Possible).count();
    let early = behavior.syscalls.iter().filter(|item| item.what.phase == Some(Phase::Startup)).count();
    let early = if early == 0 { String::new() } else { format!("; {early} of them not while it serves") };
    (all != 0).then(|| format!("{expected} system calls, and {} more that cannot be ruled out{early}", all - expected))
}

/// A capability needed, with where that shows and under which condition, for people.
#[derive(Debug)]
pub(crate) struct Need {
    /// As in capabilities(7).
    pub(crate) name: String,
    /// The condition, where there is one, and the first place it rests on.
    pub(crate) why: String,
}

/// The capabilities that are expected to be needed; and the names of those that cannot be ruled out.
pub(crate) fn capabilities(behavior: &Behavior) -> (Vec<Need>, Vec<String>) {
    let (expected, possible): (Vec<_>, Vec<_>) =
        behavior.capabilities.iter().partition(|item| item.confidence < Confidence::Possible);
    let need = |item: &&Known<Capability>| {
        let condition = item.when.first().map(|when| format!("when {}", condition(when)));
        let place = item.evidence.first().map(place);
        let why: Vec<String> = place.into_iter().chain(condition).collect();
        Need { name: item.what.name.clone(), why: why.join(", ") }
    };
    (expected.iter().map(need).collect(), possible.iter().map(|item| item.what.name.clone()).collect())
}

/// What is said where no capability is expected to be needed.
pub(crate) fn no_capability(behavior: &Behavior) -> &'static str {
    match behavior.completeness.capabilities {
        Completeness::Complete => "no capability: nothing is root's, and no file gives rights",
        Completeness::Partial { .. } => "no capability is expected to be needed",
        Completeness::None => "which capabilities are needed was not worked out",
    }
}

/// The dimensions that were not worked out, by name.
pub(crate) fn not_worked_out(known: &Completenesses) -> String {
    let none = dimensions(known).into_iter().filter(|(_, completeness)| **completeness == Completeness::None);
    none.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// The name of what an unknown bears on, as in the JSON.
pub(crate) fn subject(subject: Subject) -> String {
    serde_json::to_value(subject).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Where evidence stands, in short.
pub(crate) fn place(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Config { key } => key.clone(),
        Evidence::File { path, line: Some(line), .. } => format!("{path}:{line}"),
        Evidence::File { path, .. } | Evidence::Binary { path, .. } => path.to_string(),
        _ => String::new(),
    }
}

/// How sure, in the words of the JSON.
pub(crate) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    }
}

/// A condition, as it reads after "when".
pub(crate) fn condition(condition: &Condition) -> String {
    let not = |negated: bool| if negated { "not " } else { "" };
    match condition {
        Condition::Argv { index, matches, negated } => format!("argument {index} is {}`{matches}`", not(*negated)),
        Condition::Env { name, matches, negated } => format!("${name} is {}`{matches}`", not(*negated)),
        Condition::Uid { equals, negated } => format!("the user is {}{equals}", not(*negated)),
        Condition::Exists { path, negated } => {
            if *negated {
                format!("{path} does not exist")
            } else {
                format!("{path} exists")
            }
        }
        Condition::Sysctl { name, exceeds } => format!("{name} is above {exceeds}"),
        _ => "a condition holds that this version does not know".to_owned(),
    }
}
