//! The bridge's long tests, a row of a table each: `cargo run --workspace --release --bin soak [NAME…]`, as root, with Debian's `postgresql` and
//! `libfaketime`. Without names, all of them; `--help` says which there are.

use std::{process::ExitCode, time::Duration};

use tests::{judgement, soak};

type Run = fn() -> String;

const ALL: [(&str, &str, Run); 9] = [
    ("kills", "killed 100 times under load", || soak::kills(number("KILLS", 100))),
    ("full-disk", "the log's disk is full, and has room again", soak::full_disk),
    ("postgres", "PostgreSQL is restarted under load, away for 10 s each time", || {
        soak::postgres_restarts(5, Duration::from_secs(10))
    }),
    ("clock", "the nodes' clocks jump", soak::clock_jumps),
    ("own-clock", "its own clock jumps", soak::own_clock_jumps),
    ("containers", "a day of 1,000 services and 3,000 containers", || {
        soak::containers(count("SERVICES", 1_000), count("CONTAINERS", 3_000))
    }),
    ("month", "30 days of 33,000 events, and an intruder who takes a step a week", || judgement::month(30, 33_000)),
    ("fleet", "10,000 containers a day, and an intruder who hops between them", || judgement::fleet(10_000, 20, 24)),
    ("steady", "a steady load of 500 events/s", || soak::steady(Duration::from_secs(number("SECONDS", 3600)), 500)),
];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let is_known = |name: &&String| ALL.iter().any(|(known, ..)| known == *name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        eprintln!("`{name}` is none of these:");
        ALL.iter().for_each(|(name, what, _)| eprintln!("  {name:<12} {what}"));
        eprintln!("KILLS, SECONDS, SERVICES and CONTAINERS say how often, how long and how many");
        return ExitCode::from(2);
    }
    for (name, what, run) in ALL {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            println!("| {what} | {} |", run());
        }
    }
    ExitCode::SUCCESS
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn count(name: &str, otherwise: usize) -> usize {
    usize::try_from(number(name, otherwise as u64)).unwrap_or(otherwise)
}
