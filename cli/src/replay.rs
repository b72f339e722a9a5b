//! `mayfly replay`: a recorded stream of a sensor in, what of it was not expected out. Offline, by the code that compares live.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use dna::{Dna, SeenContainer};
use policies::runtime::Verdict;
use runtime_bridge::{
    Expected, Wanted,
    incident::Incident,
    replay::{Found, Replay, Summary},
    rules::{Ruled, wanted},
    sensor::Dialect,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    args::{self, ReplayFormat},
    incident,
    lines::{self, Ended},
    text::clean,
};

/// An event of a sensor is some kilobytes; a batch of an audit log some megabytes.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Damaged lines that are told one by one.
const MAX_DAMAGED: u64 = 20;
/// Alerts of an incident that are told one by one.
const MAX_CHAPTERS: usize = 20;

/// Compares a stream and prints what was not expected.
pub(crate) fn run(args: &args::Replay) -> anyhow::Result<()> {
    let rules = crate::policy::rules(&args.rules)?;
    let shelf = Shelf::open(&args.dna, wanted(&rules))?;
    let find = |seen: &SeenContainer| shelf.find(seen);
    let model = crate::bridge::risk_model(args.risk_model.as_deref())?;
    let mut replay = Replay::new(&find).by(Arc::new(rules)).ranked_by(model);
    let mut events = lines::open(&args.events)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut line, mut number, mut damaged) = (Vec::new(), 0_u64, 0_u64);
    loop {
        let ended = lines::next(&mut *events, &mut line, MAX_LINE_BYTES)
            .with_context(|| format!("cannot read {}", args.events.display()))?;
        if ended == Ended::File {
            break;
        }
        number += 1;
        let item = line.trim_ascii();
        if item.is_empty() && ended == Ended::Line {
            continue;
        }
        let found = match ended {
            Ended::TooLong => Err(format!("it is longer than {MAX_LINE_BYTES} bytes")),
            _ => push(&mut replay, item),
        };
        match found {
            Ok(found) if args.format == ReplayFormat::Ndjson => write(&mut out, &found, item)?,
            Ok(_) => {}
            Err(why) => {
                damaged += 1;
                if damaged <= MAX_DAMAGED {
                    eprint(&format!("line {number}: {}", clean(&why)));
                }
            }
        }
    }
    shelf.told()?;
    let summaries: Vec<&Summary> = replay.summaries().collect();
    if summaries.is_empty() && damaged > 0 {
        bail!("{} holds no event that can be read: {damaged} lines are damaged", args.events.display());
    }
    let ruled = |id: &str| replay.alert(id).map(|alert| &alert.ruled);
    let report = stories(&replay.incidents()) + &report(&summaries, &ruled, damaged, replay.left_out().1);
    match args.format {
        ReplayFormat::Human => out.write_all(report.as_bytes())?,
        ReplayFormat::Ndjson => eprint(report.trim_end()),
    }
    Ok(out.flush()?)
}

/// Whose event it is shows in its keys.
fn push(replay: &mut Replay<'_>, item: &[u8]) -> Result<Vec<Found>, String> {
    let dialect = Dialect::guess(item).ok_or("it is no event of a sensor that is known")?;
    replay.push(dialect, item).map_err(|error| error.to_string())
}

fn eprint(text: &str) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A line of `--format ndjson`.
#[derive(Serialize)]
struct Line<'a> {
    deviation: &'a runtime_bridge::Deviation,
    risk: f64,
    alert: &'a str,
    /// The incident it is a part of, by the name of the alert that it began with.
    incident: &'a str,
    /// What rules say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a Verdict>,
    event: &'a RawValue,
}

fn write(out: &mut impl io::Write, found: &[Found], item: &[u8]) -> anyhow::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let event: &RawValue = serde_json::from_slice(item)?;
    for Found { deviation, alert, incident, verdict } in found {
        let verdict = Some(verdict).filter(|verdict| **verdict != Verdict::default());
        let line = Line { deviation, risk: deviation.risk, alert, incident, verdict, event };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// What the alerts tell together.
fn stories(incidents: &[Incident]) -> String {
    let mut text = String::new();
    for incident in incidents {
        text += &format!("{}\n", incident::head(incident));
        for chapter in incident.chapters.iter().take(MAX_CHAPTERS) {
            text += &format!("  {} {} {}\n", chapter.first_seen, chapter.alert, clean(&chapter.message));
        }
        let more = incident.chapters.len().saturating_sub(MAX_CHAPTERS);
        if more > 0 {
            text += &format!("  and {more} more alerts\n");
        }
    }
    text
}

/// What was seen of each container.
fn report<'a>(summaries: &[&Summary], ruled: &dyn Fn(&str) -> Option<&'a Ruled>, damaged: u64, ignored: u64) -> String {
    let mut text = String::new();
    for summary in summaries {
        let deviations: u64 = summary.alerts.values().map(|(_, count)| count).sum();
        text += &format!(
            "{}: {} activities, {deviations} deviations in {} alerts\n",
            clean(&summary.name),
            summary.activities,
            summary.alerts.len()
        );
        if summary.has_no_dna {
            text += "  no DNA of its image: nothing was compared\n";
        }
        if !summary.unknown.is_empty() {
            text += &format!("  not compared, as the DNA does not tell: {}\n", summary.unknown.join(", "));
        }
        for (alert, (what, count)) in &summary.alerts {
            text += &format!("  {alert} {count:>6} x {}\n", clean(what));
            let Some(ruled) = ruled(alert) else { continue };
            if ruled.ignored > 0 {
                text += &format!("    {} of them are ignored\n", ruled.ignored);
            }
            for told in ruled.told() {
                text += &format!("    rule {}\n", clean(&told));
            }
        }
    }
    if damaged > 0 {
        text += &format!("{damaged} lines are damaged\n");
    }
    if ignored > 0 {
        text += &format!("{ignored} events bear on no container, or are of a kind that is not compared\n");
    }
    text
}

/// The DNAs at hand.
struct Shelf {
    /// One for all containers.
    all: Option<Arc<Expected>>,
    /// What rules read of a DNA.
    wanted: Wanted,
    /// Files of a folder, by their name without `.json`.
    files: HashMap<String, PathBuf>,
    /// The same files by the configuration digest of their image; worked out when a digest is first asked for.
    by_config: RefCell<Option<HashMap<String, PathBuf>>>,
    read: RefCell<HashMap<PathBuf, Option<Arc<Expected>>>>,
    /// What could not be read.
    errors: RefCell<Vec<anyhow::Error>>,
}

impl Shelf {
    fn open(path: &Path, wanted: Wanted) -> anyhow::Result<Self> {
        let mut shelf = Self {
            wanted,
            all: None,
            files: HashMap::new(),
            by_config: RefCell::default(),
            read: RefCell::default(),
            errors: RefCell::default(),
        };
        if !path.is_dir() {
            shelf.all = Some(Arc::new(expected(path, wanted)?));
            return Ok(shelf);
        }
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let file = entry.with_context(|| format!("cannot read {}", path.display()))?.path();
            if file.extension().is_some_and(|ending| ending == "json")
                && let Some(name) = file.file_stem().and_then(|name| name.to_str())
            {
                shelf.files.insert(name.to_owned(), file);
            }
        }
        if shelf.files.is_empty() {
            bail!(
                "{} holds no DNA: `mayfly analyze IMAGE --format json -o {}/NAME.json` puts one there",
                path.display(),
                path.display()
            );
        }
        Ok(shelf)
    }

    /// By digest, of a file's name or of the image's configuration; else by the repository's last name.
    fn find(&self, seen: &SeenContainer) -> Option<Arc<Expected>> {
        if let Some(all) = &self.all {
            return Some(Arc::clone(all));
        }
        let by_digest = seen.digest.as_deref().and_then(|digest| {
            let bare = digest.trim_start_matches("sha256:");
            let names = [digest.to_owned(), digest.replace(':', "-"), bare.to_owned()];
            names.iter().find_map(|name| self.files.get(name)).cloned().or_else(|| self.by_config(digest))
        });
        let by_name = || {
            let image = seen.image.as_deref()?;
            let last = image.rsplit('/').next()?;
            self.files.get(last.split([':', '@']).next()?).cloned()
        };
        self.read(by_digest.or_else(by_name)?)
    }

    fn by_config(&self, digest: &str) -> Option<PathBuf> {
        #[derive(Deserialize)]
        struct OfImage {
            image: Config,
        }
        #[derive(Deserialize)]
        struct Config {
            config: Option<String>,
        }
        let mut by_config = self.by_config.borrow_mut();
        let by_config = by_config.get_or_insert_with(|| {
            let config = |file: &PathBuf| serde_json::from_slice::<OfImage>(&fs::read(file).ok()?).ok()?.image.config;
            self.files.values().filter_map(|file| Some((config(file)?, file.clone()))).collect()
        });
        by_config.get(digest).cloned()
    }

    fn read(&self, file: PathBuf) -> Option<Arc<Expected>> {
        let mut read = self.read.borrow_mut();
        let read = read.entry(file).or_insert_with_key(|file| match expected(file, self.wanted) {
            Ok(expected) => Some(Arc::new(expected)),
            Err(error) => {
                self.errors.borrow_mut().push(error);
                None
            }
        });
        read.clone()
    }

    /// The first file that could not be read, as an error.
    fn told(&self) -> anyhow::Result<()> {
        self.errors.borrow_mut().pop().map_or(Ok(()), Err)
    }
}

fn expected(path: &Path, wanted: Wanted) -> anyhow::Result<Expected> {
    let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let dna = Dna::from_json(&json).with_context(|| format!("{} is no DNA", path.display()))?;
    let expected = Expected::of_image(&dna);
    expected.keep(wanted, &dna, None);
    Ok(expected)
}
