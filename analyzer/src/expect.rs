//! What to expect of the calls that code can make: how code leads to them and what containers of other families do in, a
//! probability out.
//!
//! The model is `data/syscall-model.toml`; `cargo run -p accuracy -- train` makes it and docs/accuracy.md says how good it is. It is a
//! logistic regression over the traits below, each a fact that a person can check. Inference is plain arithmetic in a fixed order,
//! rounded to hundredths. Where the model has nothing to say the static rule of `syscalls` stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use dna::{Confidence, ImagePath, Known, Probability, Syscall};
use serde::{Deserialize, Serialize};

/// What the code of one program says of its calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// The program.
    pub path: ImagePath,
    /// How sure it is executed.
    pub confidence: Confidence,
    /// Go's runtime starts it.
    pub is_go: bool,
    /// It maps no library.
    pub is_alone: bool,
    /// It is x86-64 code.
    pub is_x86: bool,
    /// The container starts as root.
    pub is_root: bool,
    /// Its calls.
    pub calls: BTreeMap<&'static str, Traits>,
}

/// How code leads to a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// The shortest way from the program's entry: a call counts 1, a function whose address is taken 4, one in data 8.
    pub distance: u32,
    /// The same, with no way through a function that ends the program in despair.
    pub calm_distance: Option<u32>,
    /// The program's own file asks the C library for it.
    pub is_imported: bool,
    /// Files outside the C library that do.
    pub importers: u16,
    /// Places that make it.
    pub sites: u16,
    /// Those outside the C library.
    pub own_sites: u16,
    /// Steps inside the C library from what the program's own code asks it for.
    pub program_depth: Option<u16>,
    /// The same, from what any file's code asks it for.
    pub any_depth: Option<u16>,
    /// Programs expected to run that can make it.
    #[serde(default)]
    pub programs: u16,
}

/// A container: its programs as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// A program of Go's is expected to run.
    pub is_go: bool,
    /// A program expected to run starts threads by its own code.
    pub has_threads: bool,
    /// Several programs are expected to run.
    pub has_helpers: bool,
    /// It starts as root.
    pub is_root: bool,
    /// No program maps a library.
    pub is_alone: bool,
    /// Its code is x86-64.
    pub is_x86: bool,
    /// Programs expected to run.
    pub programs: u16,
    /// Its calls.
    pub calls: BTreeMap<String, Traits>,
}

/// A container of another family, as the kernel saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The image.
    pub image: String,
    /// `go`, `threads`, `helpers`, `root`, `alone`: which of these hold.
    pub kind: String,
    /// The calls it made.
    pub made: BTreeSet<String>,
    /// The calls that its code could make.
    pub calls: BTreeMap<String, Way>,
}

/// How code leads to a call, as containers are compared by it. As text `8 0 1 0 1`: distance, depth, and the three flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Way {
    /// The shortest way without despair, at most 24.
    distance: u8,
    /// Steps inside the C library from what any file's code asks it for, at most 8.
    depth: u8,
    /// A program's own file asks the C library for it.
    is_imported: bool,
    /// A place outside the C library makes it.
    is_own: bool,
    /// A program expected to run can make it.
    is_expected: bool,
}

/// The model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// What it is and what it was made from.
    pub about: String,
    /// How good it is, on families left out.
    pub metrics: BTreeMap<String, f64>,
    /// A call at least this probable is likely.
    pub threshold: f64,
    /// The regression's constant.
    pub constant: f64,
    /// The regression's weights, in the order of [`FEATURES`].
    pub weights: Vec<f64>,
    /// Containers of many families.
    pub seen: Vec<Seen>,
}

/// What the regression weighs.
pub const FEATURES: [&str; 12] = [
    "how often others make it, by how like they are and lead to it (log odds)",
    "distance without despair / 10",
    "depth below the program / 4",
    "depth below any file / 4",
    "the program asks for it",
    "files that ask for it (log)",
    "places (log)",
    "places outside the C library (log)",
    "programs that can make it (log)",
    "programs (log)",
    "possible calls / 100",
    "starts as root",
];

/// The shipped model.
static MODEL: LazyLock<Option<Model>> =
    LazyLock::new(|| toml::from_str(include_str!("../data/syscall-model.toml")).ok());

/// Sets the probability of each call of these programs, and whether it is likely.
pub(crate) fn judge(programs: &[Program], calls: &mut [Known<Syscall>]) {
    let Some(model) = MODEL.as_ref() else { return };
    let container = Container::new(programs);
    let seen: Vec<&Seen> = model.seen.iter().collect();
    let others = Others::new(&container, &seen);
    for call in calls.iter_mut().filter(|call| call.confidence != Confidence::Certain) {
        let Some(features) = others.features(&container, &call.what.name) else { continue };
        let probability = model.probability(&features);
        call.probability = Probability::new(probability);
        call.confidence = if probability >= model.threshold { Confidence::Likely } else { Confidence::Possible };
    }
}

impl Container {
    /// Programs as one: each call as near as the nearest that is expected to run.
    pub fn new(programs: &[Program]) -> Self {
        let expected = || programs.iter().filter(|program| program.confidence != Confidence::Possible);
        let starts_threads = |program: &Program| {
            program.calls.get("clone3").and_then(|call| call.program_depth).is_some_and(|depth| depth <= 3)
        };
        let count = u16::try_from(expected().count()).unwrap_or(u16::MAX);
        let mut container = Self {
            is_go: expected().any(|program| program.is_go),
            has_threads: expected().any(starts_threads),
            has_helpers: count > 1,
            is_root: programs.iter().any(|program| program.is_root),
            is_alone: expected().all(|program| program.is_alone),
            is_x86: programs.iter().any(|program| program.is_x86),
            programs: count,
            calls: BTreeMap::new(),
        };
        let possible = programs.iter().filter(|program| program.confidence == Confidence::Possible);
        for (program, is_expected) in expected().map(|it| (it, true)).chain(possible.map(|it| (it, false))) {
            for (name, traits) in &program.calls {
                match container.calls.get_mut(*name) {
                    // A program that may run adds nothing to a call of one that will.
                    Some(known) if !is_expected && known.programs > 0 => {}
                    Some(known) => known.join(traits, is_expected),
                    None => {
                        let programs = u16::from(is_expected);
                        container.calls.insert((*name).to_owned(), Traits { programs, ..*traits });
                    }
                }
            }
        }
        container
    }

    /// `go`, `threads` …: what of it others are compared by.
    pub fn kind(&self) -> String {
        let words = [
            (self.is_go, "go"),
            (self.has_threads, "threads"),
            (self.has_helpers, "helpers"),
            (self.is_root, "root"),
            (self.is_alone, "alone"),
        ];
        let words: Vec<&str> = words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect();
        words.join(" ")
    }

    /// How its code leads to each call.
    pub fn ways(&self) -> BTreeMap<String, Way> {
        self.calls.iter().map(|(name, traits)| (name.clone(), traits.way())).collect()
    }
}

impl Traits {
    fn join(&mut self, other: &Self, is_expected: bool) {
        let nearer = |one: Option<u16>, other: Option<u16>| one.into_iter().chain(other).min();
        self.distance = self.distance.min(other.distance);
        self.calm_distance = self.calm_distance.into_iter().chain(other.calm_distance).min();
        self.is_imported |= other.is_imported;
        self.importers = self.importers.max(other.importers);
        self.sites = self.sites.saturating_add(other.sites);
        self.own_sites = self.own_sites.saturating_add(other.own_sites);
        self.program_depth = nearer(self.program_depth, other.program_depth);
        self.any_depth = nearer(self.any_depth, other.any_depth);
        self.programs = self.programs.saturating_add(u16::from(is_expected));
    }

    fn way(&self) -> Way {
        let at_most = |value: u32, most: u8| u8::try_from(value).map_or(most, |value| value.min(most));
        Way {
            distance: at_most(self.calm_distance.unwrap_or(u32::MAX), 24),
            depth: at_most(self.any_depth.map_or(u32::MAX, u32::from), 8),
            is_imported: self.is_imported,
            is_own: self.own_sites > 0,
            is_expected: self.programs > 0,
        }
    }
}

impl Way {
    /// How much another differs: each trait by at most 1 for a flag, 2 for the depth and 3 for the distance.
    fn difference(self, other: Self) -> f64 {
        let flag = |one: bool, other: bool| if one == other { 0.0 } else { 1.0 };
        f64::from(self.distance.abs_diff(other.distance)) / 8.0
            + f64::from(self.depth.abs_diff(other.depth)) / 4.0
            + flag(self.is_imported, other.is_imported)
            + flag(self.is_own, other.is_own)
            + flag(self.is_expected, other.is_expected)
    }
}

impl From<Way> for String {
    fn from(way: Way) -> Self {
        let flags = [way.is_imported, way.is_own, way.is_expected].map(u8::from);
        format!("{} {} {} {} {}", way.distance, way.depth, flags[0], flags[1], flags[2])
    }
}

impl TryFrom<String> for Way {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let numbers: Result<Vec<u8>, _> = text.split(' ').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([distance, depth, imported, own, expected]) => Ok(Self {
                distance: *distance,
                depth: *depth,
                is_imported: *imported == 1,
                is_own: *own == 1,
                is_expected: *expected == 1,
            }),
            _ => Err(format!("`{text}` is no way to a call")),
        }
    }
}

/// Containers of other families, weighed by how like this one they are.
#[derive(Debug)]
pub struct Others<'a> {
    seen: Vec<(&'a Seen, f64)>,
    is_x86: bool,
}

impl<'a> Others<'a> {
    /// Weighs them: by what kind they are and by which calls they share.
    pub fn new(container: &Container, seen: &[&'a Seen]) -> Self {
        let is_x86 = container.is_x86;
        let words = |text: &str| -> BTreeSet<String> { text.split_whitespace().map(str::to_owned).collect() };
        let kind = words(&container.kind());
        let names: BTreeSet<&str> = container.calls.keys().map(String::as_str).collect();
        let weight = |other: &Seen| {
            let differences = kind.symmetric_difference(&words(&other.kind)).fold(0.0, |sum, word| {
                // Go's runtime makes its calls by itself.
                sum + if word == "go" { 2.0 } else { 1.0 }
            });
            let theirs: BTreeSet<&str> = other.calls.keys().flat_map(|name| names_on(is_x86, name)).collect();
            let common = names.intersection(&theirs).count();
            let all = names.union(&theirs).count();
            let likeness = if all == 0 { 0.0 } else { common as f64 / all as f64 };
            (LIKENESS * likeness - KIND * differences).exp()
        };
        let seen: Vec<(&Seen, f64)> = seen.iter().map(|other| (*other, weight(other))).collect();
        let total: f64 = seen.iter().map(|(_, weight)| weight).sum();
        let scale = if total > 0.0 { seen.len() as f64 / total } else { 0.0 };
        Self { seen: seen.into_iter().map(|(other, weight)| (other, weight * scale)).collect(), is_x86 }
    }

    /// What the regression weighs of a call; none where the code does not say.
    pub fn features(&self, container: &Container, name: &str) -> Option<[f64; FEATURES.len()]> {
        let traits = container.calls.get(name)?;
        let flag = |holds: bool| if holds { 1.0 } else { 0.0 };
        let depth = |depth: Option<u16>| f64::from(depth.map_or(12, |depth| depth.min(12))) / 4.0;
        Some([
            log_odds(self.share(name, traits.way())),
            f64::from(traits.calm_distance.map_or(60, |distance| distance.min(60))) / 10.0,
            depth(traits.program_depth),
            depth(traits.any_depth),
            flag(traits.is_imported),
            f64::from(traits.importers).ln_1p(),
            f64::from(traits.sites).ln_1p(),
            f64::from(traits.own_sites).ln_1p(),
            f64::from(traits.programs).ln_1p(),
            f64::from(container.programs).ln_1p(),
            container.calls.len() as f64 / 100.0,
            flag(container.is_root),
        ])
    }

    /// The share that makes a call, of those that can: each counts by how like it is and how alike its code leads there. Where few
    /// are, the share of all counts as one more.
    fn share(&self, name: &str, way: Way) -> f64 {
        let [mut all, mut all_made, mut like, mut like_made] = [0.0; 4];
        for (other, weight) in &self.seen {
            let Some(theirs) = self.find(name, |name| other.calls.get(name)) else { continue };
            let made = if self.find(name, |name| other.made.get(name)).is_some() { 1.0 } else { 0.0 };
            let weight = weight * (-way.difference(*theirs)).exp();
            all += 1.0;
            all_made += made;
            like += weight;
            like_made += weight * made;
        }
        let share = (all_made + 0.2) / (all + 0.5);
        (like_made + share) / (like + 1.0)
    }

    /// Looks up a call, or on another machine one of those that stand for it on x86-64, where the kernel's record is from.
    fn find<T>(&self, name: &str, get: impl Fn(&str) -> Option<T>) -> Option<T> {
        let older =
            || FAMILIES.iter().filter(|(newer, _)| !self.is_x86 && *newer == name).flat_map(|(_, older)| *older);
        get(name).or_else(|| older().find_map(|older| get(older)))
    }
}

/// What a call of x86-64 is named on this machine.
fn names_on(is_x86: bool, name: &str) -> Vec<&str> {
    let newer = FAMILIES.iter().filter(|(_, older)| !is_x86 && older.contains(&name)).map(|(newer, _)| *newer);
    let names: Vec<&str> = newer.collect();
    if names.is_empty() { vec![name] } else { names }
}

impl Model {
    /// The probability of a call with these features.
    pub fn probability(&self, features: &[f64]) -> f64 {
        let sum =
            self.weights.iter().zip(features).fold(self.constant, |sum, (weight, feature)| sum + weight * feature);
        1.0 / (1.0 + (-sum).exp())
    }
}

fn log_odds(probability: f64) -> f64 {
    let bounded = probability.clamp(0.01, 0.99);
    (bounded / (1.0 - bounded)).ln()
}

/// How much the calls that two containers share weigh in their comparison; chosen, as all here, by leaving families out.
const LIKENESS: f64 = 8.0;

/// How much each difference in kind does.
const KIND: f64 = 0.25;

/// Calls of machines without the older ones, and those. Source: Linux `include/uapi/asm-generic/unistd.h` beside
/// `arch/x86/entry/syscalls/syscall_64.tbl`.
const FAMILIES: &[(&str, &[&str])] = &[
    ("openat", &["open", "creat"]),
    ("newfstatat", &["stat", "lstat"]),
    ("faccessat", &["access"]),
    ("readlinkat", &["readlink"]),
    ("mkdirat", &["mkdir"]),
    ("mknodat", &["mknod"]),
    ("unlinkat", &["unlink", "rmdir"]),
    ("renameat", &["rename"]),
    ("renameat2", &["rename"]),
    ("linkat", &["link"]),
    ("symlinkat", &["symlink"]),
    ("fchmodat", &["chmod"]),
    ("fchownat", &["chown", "lchown"]),
    ("dup3", &["dup2"]),
    ("pipe2", &["pipe"]),
    ("ppoll", &["poll"]),
    ("pselect6", &["select"]),
    ("epoll_pwait", &["epoll_wait"]),
    ("epoll_create1", &["epoll_create"]),
    ("eventfd2", &["eventfd"]),
    ("signalfd4", &["signalfd"]),
    ("inotify_init1", &["inotify_init"]),
    ("clone", &["fork", "vfork"]),
    ("getdents64", &["getdents"]),
    ("utimensat", &["utime", "utimes", "futimesat"]),
    ("setitimer", &["alarm"]),
    ("rt_sigsuspend", &["pause"]),
    ("setpgid", &["getpgrp"]),
    ("getpgid", &["getpgrp"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn container(calls: &[(&str, Traits)]) -> Container {
        let calls = calls.iter().map(|(name, traits)| ((*name).to_owned(), *traits)).collect();
        Container { is_x86: true, is_root: true, programs: 1, calls, ..Container::default() }
    }

    #[test]
    fn the_shipped_model_reads_and_fits_the_features() {
        let model = MODEL.as_ref().expect("it reads");
        assert_eq!(model.weights.len(), FEATURES.len());
        assert!(model.seen.len() >= 19 && (0.2..0.8).contains(&model.threshold));
    }

    #[test]
    fn what_all_others_do_is_likelier_than_what_none_does() {
        let model = MODEL.as_ref().expect("it reads");
        let near = Traits { distance: 5, calm_distance: Some(5), is_imported: true, programs: 1, ..Traits::default() };
        let container = container(&[("openat", near), ("kexec_load", near)]);
        let seen: Vec<&Seen> = model.seen.iter().collect();
        let others = Others::new(&container, &seen);
        let of = |name| others.features(&container, name).map(|features| model.probability(&features));
        assert!(of("openat") > of("kexec_load"));
        assert_eq!(of("not_there"), None);
    }

    #[test]
    fn those_whose_code_leads_there_alike_count_most() {
        let near = Traits { calm_distance: Some(3), is_imported: true, programs: 1, ..Traits::default() };
        let far = Traits { calm_distance: Some(40), any_depth: Some(7), ..Traits::default() };
        let seen = |traits: Traits, made: &[&str]| Seen {
            image: String::new(),
            kind: String::new(),
            made: made.iter().map(|name| (*name).to_owned()).collect(),
            calls: BTreeMap::from([("poll".to_owned(), traits.way())]),
        };
        let (makes, does_not) = (seen(near, &["poll"]), seen(far, &[]));
        let container = container(&[("poll", near)]);
        let others = Others::new(&container, &[&makes, &does_not]);
        assert!(others.share("poll", near.way()) > 0.6 && others.share("poll", far.way()) < 0.4);
        // One whose code cannot make it says nothing.
        let cannot = Seen { calls: BTreeMap::new(), ..seen(near, &[]) };
        let share = |others: &[&Seen]| {
            let seen = others.iter().map(|it| (*it, 1.0)).collect();
            Others { seen, is_x86: true }.share("poll", near.way())
        };
        assert!((share(&[&makes, &cannot]) - share(&[&makes])).abs() < 1e-9);
    }

    #[test]
    fn a_way_reads_as_it_is_written() {
        let traits = Traits { calm_distance: Some(99), any_depth: Some(2), own_sites: 1, ..Traits::default() };
        let text = String::from(traits.way());
        assert_eq!(text, "24 2 0 1 0");
        assert_eq!(Way::try_from(text), Ok(traits.way()));
        assert!(Way::try_from("24 2".to_owned()).is_err());
    }

    #[test]
    fn an_older_call_stands_for_the_newer_one_on_another_machine_only() {
        let made = BTreeSet::from(["poll".to_owned()]);
        let find = |is_x86| Others { seen: Vec::new(), is_x86 }.find("ppoll", |name| made.get(name)).is_some();
        assert!(find(false) && !find(true));
        assert_eq!(names_on(false, "poll"), ["ppoll"]);
        assert_eq!(names_on(true, "poll"), ["poll"]);
    }
}
