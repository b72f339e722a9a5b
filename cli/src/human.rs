//! The report for a terminal: what was found in, text out. It says first what matters: what runs, what opens, what is needed,
//! what could not be known. Every text from the image is cleaned.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
};

use dna::{
    Completeness, Confidence, Dna, Evidence, ImagePath, Kind, Known, Linkage, Listen, Program, Protocol, Relro, Run,
    Tristate,
};

use crate::{
    analyze::Found,
    facts,
    output::Destination,
    text::{clean, fit, size},
};

/// How wide and how colorful.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) width: usize,
    pub(crate) color: bool,
}

impl Style {
    /// What the destination bears: the terminal's width up to 100 columns, 80 elsewhere; color by the usual variables
    /// (no-color.org, bixense.com/clicolors).
    pub(crate) fn of(destination: &Destination) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        let terminal = destination.is_terminal() && std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().filter(|_| terminal).map_or(80, |(width, _)| usize::from(width.0));
        Self { width: width.clamp(60, 100), color: set("CLICOLOR_FORCE") || (terminal && !set("NO_COLOR")) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }
}

/// The whole report.
pub(crate) fn render(found: &Found<'_>, style: &Style) -> String {
    let mut page = Page { out: String::new(), style: *style, found, programs: programs(&found.analysis.dna) };
    page.head();
    page.runs();
    page.opens();
    page.needs();
    page.not_known();
    page.layers();
    page.packages();
    page.hardening();
    page.out
}

fn programs(dna: &Dna) -> BTreeMap<&ImagePath, &Program> {
    dna.programs.iter().map(|program| (&program.path, program)).collect()
}

struct Page<'a> {
    out: String,
    style: Style,
    found: &'a Found<'a>,
    programs: BTreeMap<&'a ImagePath, &'a Program>,
}

/// Lines of one section, beyond which a count stands for the rest.
const MAX_LINES: usize = 40;

impl<'a> Page<'a> {
    fn dna(&self) -> &'a Dna {
        &self.found.analysis.dna
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn section(&mut self, title: &str) {
        let rule = "─".repeat(self.style.width.saturating_sub(title.chars().count() + 1));
        let title = self.style.bold(title);
        let rule = self.style.dim(&rule);
        self.line("");
        self.line(&format!("{title} {rule}"));
    }

    fn head(&mut self) {
        let (image, dna) = (self.found.image, self.dna());
        let name = fit(&image.name, self.style.width);
        let name = self.style.bold(&name);
        self.line(&name);
        let digest = image.digests.manifest.as_ref().or(image.digests.config.as_ref());
        let digest =
            digest.map_or_else(String::new, |digest| format!("  image {}:{}", digest.algorithm(), digest.short()));
        let named = dna.digest().map_or_else(|_| String::new(), |digest| format!("  DNA sha256:{}", digest.short()));
        let facts = format!("{}{digest}{named}", dna.image.platform);
        let facts = self.style.dim(&facts);
        self.line(&facts);
    }

    fn runs(&mut self) {
        self.section("RUNS");
        let start = &self.dna().start;
        let argv = self.found.asked.as_ref().map_or(&start.argv, |(command, _)| command);
        let command = if argv.is_empty() { "no command".to_owned() } else { shell_words(argv) };
        let line = fit(&command, self.style.width.saturating_sub(2));
        self.line(&format!("  {line}"));
        let line =
            fit(&format!("as {} in {}", facts::whose(start), facts::folder(start)), self.style.width.saturating_sub(2));
        let line = self.style.dim(&line);
        self.line(&format!("  {line}"));
        if self.found.asked.is_some() {
            return self.flat_runs();
        }
        let exec = &self.found.behavior().exec;
        let roots: Vec<_> = exec
            .iter()
            .filter(|item| matches!(item.evidence.first(), Some(Evidence::Config { key }) if key != "command line"))
            .collect();
        let mut tree = Tree { lines: Vec::new(), shown: BTreeSet::new(), left_out: 0 };
        for root in &roots {
            let why = match root.evidence.first() {
                Some(Evidence::Config { key }) => key.clone(),
                _ => String::new(),
            };
            let row = Row {
                lead: String::new(),
                path: &root.what.path,
                why,
                confidence: root.confidence,
                place: String::new(),
            };
            self.grow(&mut tree, row, "", 0);
        }
        for Line { lead, path, why, confidence } in std::mem::take(&mut tree.lines) {
            self.exec_line(&lead, &path, &why, confidence);
        }
        if tree.left_out > 0 {
            self.line(&format!("  … and {} more", tree.left_out));
        }
    }

    /// The programs of another command, as a list: its edges are not part of the DNA.
    fn flat_runs(&mut self) {
        for item in &self.found.behavior().exec {
            let why = item.evidence.first().map(facts::place).unwrap_or_default();
            self.exec_line("", &item.what.path, &why, item.confidence);
        }
    }

    fn exec_line(&mut self, lead: &str, path: &ImagePath, why: &str, confidence: Confidence) {
        let width = self.style.width.saturating_sub(2);
        let mark = match confidence {
            Confidence::Certain => "",
            Confidence::Likely => "likely",
            Confidence::Possible => "possible",
        };
        let room = (width / 2).max(lead.chars().count() + 12);
        let name = fit(&path.to_string(), room.saturating_sub(lead.chars().count()));
        let used = lead.chars().count() + name.chars().count();
        let why = fit(why, width.saturating_sub(used.max(room) + 2 + mark.len() + 2));
        let pad = " ".repeat(room.saturating_sub(used) + 2);
        let gap = if mark.is_empty() { "" } else { "  " };
        let name = if confidence == Confidence::Possible { self.style.dim(&name) } else { self.style.bold(&name) };
        let (lead, why, mark) = (self.style.dim(lead), self.style.dim(&why), self.style.warn(mark));
        self.line(&format!("  {lead}{name}{pad}{why}{gap}{mark}"));
    }

    fn grow(&self, tree: &mut Tree, row: Row<'_>, indent: &str, depth: usize) {
        if tree.lines.len() >= MAX_LINES {
            tree.left_out += 1;
            return;
        }
        let again = !tree.shown.insert(row.path.clone());
        let why = [row.why.as_str(), row.place.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(", ");
        let children: Vec<&Run> =
            self.programs.get(row.path).map(|program| program.runs.iter().collect()).unwrap_or_default();
        let why = if again && !children.is_empty() { format!("{why} (above)") } else { why };
        tree.lines.push(Line { lead: row.lead, path: row.path.clone(), why, confidence: row.confidence });
        if again || depth > 10 {
            return;
        }
        let mut children = children;
        children.sort_by(|a, b| (a.confidence, &a.program).cmp(&(b.confidence, &b.program)));
        for (index, run) in children.iter().enumerate() {
            let last = index + 1 == children.len();
            let lead = format!("{indent}{}", if last { "└─ " } else { "├─ " });
            let below = format!("{indent}{}", if last { "   " } else { "│  " });
            let place =
                run.evidence.first().filter(|_| run.reason.starts_with("calls")).map(facts::place).unwrap_or_default();
            let row = Row { lead, path: &run.program, why: run.reason.clone(), confidence: run.confidence, place };
            self.grow(tree, row, &below, depth + 1);
        }
    }

    fn opens(&mut self) {
        self.section("OPENS");
        let listen = &self.found.behavior().listen;
        if listen.is_empty() {
            self.line("  no port is claimed; whether one is opened is not known");
        }
        for Known { what: Listen { protocol, port, claimed, .. }, confidence, .. } in listen {
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            let note = match (claimed, confidence) {
                (true, _) => "claimed by EXPOSE, not proven",
                (false, Confidence::Possible) => "possible",
                (false, _) => "",
            };
            let note = self.style.dim(note);
            self.line(&format!("  {:<12}{note}", format!("{port}/{protocol}")));
        }
    }

    fn needs(&mut self) {
        self.section("NEEDS");
        let behavior = self.found.behavior();
        let libraries = behavior.load.iter().filter(|item| item.confidence < Confidence::Possible).count();
        let programs = behavior.exec.iter().filter(|item| item.confidence < Confidence::Possible).count();
        self.line(&format!("  {} and {} they load", count(programs, "program"), count(libraries, "library file")));
        if let Some(calls) = facts::syscalls(behavior) {
            self.line(&format!("  {calls}"));
        }
        let (expected, possible) = facts::capabilities(behavior);
        for need in &expected {
            let why = fit(&need.why, self.style.width.saturating_sub(28));
            let (name, why) = (self.style.warn(&format!("{:<24}", need.name)), self.style.dim(&why));
            self.line(&format!("  {name}  {why}"));
        }
        if expected.is_empty() {
            self.line(&format!("  {}", facts::no_capability(behavior)));
        }
        if !possible.is_empty() {
            let names: Vec<_> = possible.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name)).collect();
            let line = format!("capabilities that cannot be ruled out: {}", names.join(" "));
            let line = fit(&line, self.style.width.saturating_sub(2));
            let line = self.style.dim(&line);
            self.line(&format!("  {line}"));
        }
        let mut any = false;
        for item in &behavior.exec {
            let Some(program) = self.programs.get(&item.what.path).copied() else { continue };
            let powers = facts::powers(program);
            if !powers.is_empty() {
                any = true;
                let line =
                    fit(&format!("{} is {}", program.path, powers.join(", ")), self.style.width.saturating_sub(2));
                let line = self.style.warn(&line);
                self.line(&format!("  {line}"));
            }
        }
        if !any {
            self.line("  no executed program is setuid, setgid or has file capabilities");
        }
    }

    fn not_known(&mut self) {
        self.section("NOT KNOWN");
        let unknowns = self.found.unknowns();
        let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for unknown in unknowns {
            kinds.entry(unknown.subject).or_default().push(unknown);
        }
        for (subject, unknowns) in kinds {
            let title = format!("{}: {}", facts::subject(subject), unknowns.len());
            let title = self.style.warn(&title);
            self.line(&format!("  {title}"));
            for unknown in unknowns.iter().take(4) {
                let line = fit(&format!("{}: {}", unknown.place, unknown.why), self.style.width.saturating_sub(4));
                self.line(&format!("    {line}"));
            }
            if unknowns.len() > 4 {
                self.line(&format!("    … and {} more", unknowns.len() - 4));
            }
        }
        let known = &self.found.behavior().completeness;
        for (name, completeness) in facts::dimensions(known) {
            if let Completeness::Partial { reason } = completeness {
                let line = fit(&format!("{name}: {reason}"), self.style.width.saturating_sub(2));
                let line = self.style.dim(&line);
                self.line(&format!("  {line}"));
            }
        }
        let none = facts::not_worked_out(known);
        if !none.is_empty() {
            let line = fit(&format!("not worked out: {none}"), self.style.width.saturating_sub(2));
            let line = self.style.dim(&line);
            self.line(&format!("  {line}"));
        }
    }

    fn layers(&mut self) {
        let layers = &self.dna().layers;
        self.section(&format!("LAYERS {}", layers.len()));
        for (index, layer) in layers.iter().take(MAX_LINES).enumerate() {
            let bytes = layer.size.map_or_else(|| "-".to_owned(), size);
            let digest = layer.diff_id.as_ref().map_or("-", |digest| digest.short());
            let step = layer.created_by.as_deref().unwrap_or_default();
            let step = fit(step, self.style.width.saturating_sub(34));
            self.line(&format!("  {index:>3}  {bytes:>10}  {digest:<12}  {step}"));
        }
        if layers.len() > MAX_LINES {
            self.line(&format!("  … and {} more", layers.len() - MAX_LINES));
        }
    }

    fn packages(&mut self) {
        let kinds = self.found.packages();
        let all: usize = kinds.iter().map(|(_, count)| count).sum();
        self.section(&format!("PACKAGES {all}"));
        let list: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let distro = self.found.analysis.inventory.distro.as_ref().map(|distro| distro.label().to_string());
        let line = [list.join(", "), distro.unwrap_or_default()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("  on ");
        let line = fit(if line.is_empty() { "none found" } else { &line }, self.style.width.saturating_sub(2));
        self.line(&format!("  {line}"));
    }

    fn hardening(&mut self) {
        let mut weak = Vec::new();
        let mut binaries = 0;
        for item in &self.found.behavior().exec {
            let Some(Program { path, kind: Kind::Elf(elf), .. }) = self.programs.get(&item.what.path).copied() else {
                continue;
            };
            binaries += 1;
            let mut lacks = Vec::new();
            if elf.hardening.pie == Tristate::No && elf.linkage == Linkage::Dynamic {
                lacks.push("PIE");
            }
            if elf.hardening.nx == Tristate::No {
                lacks.push("NX");
            }
            if elf.hardening.canary == Tristate::No {
                lacks.push("canary");
            }
            match elf.hardening.relro {
                Relro::No => lacks.push("RELRO"),
                Relro::Partial => lacks.push("full RELRO"),
                _ => {}
            }
            if let Some(packing) = &elf.packing {
                lacks.push("an honest body: it looks packed");
                let _ = packing;
            }
            if !lacks.is_empty() {
                weak.push(format!("{} lacks {}", path, lacks.join(", ")));
            }
        }
        self.section(&format!("HARDENING of {}", count(binaries, "executed binary")));
        if weak.is_empty() {
            self.line("  nothing stands out");
        }
        for line in weak.iter().take(8) {
            let line = fit(line, self.style.width.saturating_sub(2));
            self.line(&format!("  {line}"));
        }
        if weak.len() > 8 {
            self.line(&format!("  … and {} more", weak.len() - 8));
        }
    }
}

struct Tree {
    lines: Vec<Line>,
    shown: BTreeSet<ImagePath>,
    left_out: usize,
}

struct Line {
    lead: String,
    path: ImagePath,
    why: String,
    confidence: Confidence,
}

struct Row<'a> {
    lead: String,
    path: &'a ImagePath,
    why: String,
    confidence: Confidence,
    place: String,
}

/// `1 program`, `2 programs`.
fn count(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// An argument vector as one could type it.
fn shell_words(argv: &[String]) -> String {
    let word = |word: &String| {
        let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=@%+,".contains(c));
        if plain { word.clone() } else { format!("'{}'", clean(word).replace('\'', "'\\''")) }
    };
    dna::redact_argv(argv).iter().map(word).collect::<Vec<_>>().join(" ")
}
