//! Prints the programs of an image layout and what each loads, as JSON lines: for comparing with a real loader.
#![expect(clippy::print_stdout, clippy::print_stderr, clippy::indexing_slicing, reason = "a program for developers")]

use std::{collections::BTreeMap, path::Path, time::Instant};

use analyzer::{Progress, loader::Loader, programs, squash};
use dna::Limits;

#[expect(unreachable_pub, reason = "shared with the tests")]
#[path = "../tests/common/mod.rs"]
mod common;

fn main() {
    let layout = std::env::args().nth(1).expect("an image layout");
    let limits = Limits::default();
    let squashed = squash(&common::open(Path::new(&layout)), &limits, &Progress::start(&limits)).expect("an image");
    let start = Instant::now();
    let loader = Loader::new(&squashed.rootfs, &limits);
    let survey = programs::survey(&loader, &squashed.rootfs, &limits, &Default::default(), |_| None);
    eprintln!("{} programs in {:?}", survey.programs.len(), start.elapsed());
    for program in &survey.programs {
        let closure = loader.load(&program.path, &BTreeMap::new());
        println!("{}", serde_json::json!({ "program": program, "load": closure.items, "unknowns": closure.unknowns }));
    }
    for unknown in &survey.unknowns {
        eprintln!("{}: {}", unknown.place, unknown.why);
    }
}
