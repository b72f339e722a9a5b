//! `mayfly analyze` and `mayfly pull`: opens the image, analyzes it, hands the result to the format asked for.

use std::{
    fs,
    io::{IsTerminal as _, Read as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use analyzer::{
    Analysis, Answer, Laid, Mounted,
    sbom::{SbomSubject, Timestamp},
};
use anyhow::{Context as _, bail};
use dna::{Behavior, Dna, ImagePath, Limits, Unknown};
use indicatif::{ProgressBar, ProgressStyle};
use oci::{Contents, Image, LayerBody, Source};

use crate::{
    args::{Analyze, Format, Open, Pull},
    html, human,
    output::{self, Destination},
    question, remote,
};

/// One image and what was worked out of it: what every format is made from.
pub(crate) struct Found<'a> {
    pub(crate) image: &'a Image,
    pub(crate) analysis: &'a Analysis,
    /// The other command that was asked about, with the answer.
    pub(crate) asked: Option<(Vec<String>, Answer)>,
}

impl Found<'_> {
    /// The behavior to show: of the command asked about, else of the image's own.
    pub(crate) fn behavior(&self) -> &Behavior {
        self.asked.as_ref().map_or(&self.analysis.dna.behavior, |(_, answer)| &answer.behavior)
    }

    /// What could not be known.
    pub(crate) fn unknowns(&self) -> &[Unknown] {
        self.asked.as_ref().map_or(&self.analysis.dna.unknowns, |(_, answer)| &answer.unknowns)
    }

    /// How many packages of each kind there are.
    pub(crate) fn packages(&self) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for package in &self.analysis.inventory.packages {
            *counts.entry(package.kind.purl_type()).or_default() += 1;
        }
        counts.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect()
    }
}

/// Analyzes what the arguments name and prints it.
pub(crate) fn run(args: &Analyze) -> anyhow::Result<()> {
    let limits = limits(&args.open)?;
    let command = args.command.as_deref().map(split).transpose()?;
    let mounted = mounted(&args.mounts, &args.env, &limits)?;
    if let Some(file) = args.source.strip_prefix("dna:") {
        return of_dna(args, file, command.as_deref(), &mounted, &limits);
    }
    let source = source(&args.source)?;
    let options = options(&args.open, &limits)?;
    let images = open(&source, &options)?;
    let destination = Destination(args.output.clone());
    let mut text = Vec::new();
    for image in &images {
        let analysis = analyze_with(image, &mounted, options.registry.cache.as_ref(), &limits)?;
        let asked = match &command {
            Some(command) => Some((command.clone(), analysis.answer(command)?)),
            None => None,
        };
        let found = Found { image, analysis: &analysis, asked };
        if images.len() > 1 && args.format == Format::Human && !text.is_empty() {
            text.push(b'\n');
        }
        text.extend(render(&found, args.format, &destination)?);
        // Several documents in one stream: a line each.
        if images.len() > 1 && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    destination.write(&text)
}

/// What a DNA answers by itself: without the image, as JSON.
fn of_dna(
    args: &Analyze,
    file: &str,
    command: Option<&[String]>,
    mounted: &Mounted,
    limits: &Limits,
) -> anyhow::Result<()> {
    if args.format != Format::Json {
        bail!("what a DNA says by itself is printed as JSON: add --format json, or name the image");
    }
    let dna = question::read(file).with_context(|| format!("cannot read the DNA {file}"))?;
    let destination = Destination(args.output.clone());
    let text = match command {
        Some(command) => answered(&dna, command, &analyzer::answer(&dna, command, mounted, limits), &destination)?,
        None => document(&analyzer::refine(&dna, mounted, limits), &destination)?,
    };
    destination.write(&text)
}

/// Copies an image.
pub(crate) fn pull(args: &Pull) -> anyhow::Result<()> {
    let limits = limits(&args.open)?;
    let (from, to) = (source(&args.source)?, source(&args.to)?);
    let options = options(&args.open, &limits)?;
    let pulled =
        with_bar(&options, || oci::pull(&from, &to, &options)).with_context(|| format!("cannot pull {from}"))?;
    let images = if pulled.images == 1 { "1 image".to_owned() } else { format!("{} images", pulled.images) };
    output::say(&format!("{images} in {to}"));
    Destination::default().write(format!("{}\n", pulled.digest).as_bytes())
}

/// Analyzes one image, with a bar on a terminal, and with what earlier runs kept in a cache.
pub(crate) fn analyze(image: &Image, limits: &Limits, cache: Option<&oci::Cache>) -> anyhow::Result<Analysis> {
    analyze_with(image, &Mounted::default(), cache, limits)
}

/// The same, with what a deployment lays over it.
fn analyze_with(
    image: &Image,
    mounted: &Mounted,
    cache: Option<&oci::Cache>,
    limits: &Limits,
) -> anyhow::Result<Analysis> {
    let progress = analyzer::Progress::start(limits);
    let total = match &image.contents {
        Contents::Layers(layers) => layers
            .iter()
            .map(|layer| match &layer.body {
                LayerBody::Present(blob) => blob.len(),
                LayerBody::Unreadable(_) => 0,
            })
            .sum(),
        Contents::Directory(_) => 0,
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(bar) = bar("analyze", total) {
            let (progress, done) = (&progress, &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    bar.set_position(progress.bytes());
                    std::thread::park_timeout(Duration::from_millis(100));
                }
                bar.finish_and_clear();
            });
        }
        let analysis = analyzer::analyze_with(image, mounted, cache, limits, &progress);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        analysis.with_context(|| format!("cannot analyze {}", image.name))
    })
}

/// What was found, in a format.
pub(crate) fn render(found: &Found<'_>, format: Format, destination: &Destination) -> anyhow::Result<Vec<u8>> {
    let inventory = &found.analysis.inventory;
    match format {
        Format::Human => Ok(human::render(found, &human::Style::of(destination)).into_bytes()),
        Format::Json => json(found, destination),
        Format::Html => Ok(html::render(&report(found)?).into_bytes()),
        Format::Cyclonedx => output::pretty(&analyzer::sbom::cyclonedx(inventory, &subject(found.image))),
        Format::Spdx => output::pretty(&analyzer::sbom::spdx(inventory, &subject(found.image))),
    }
}

/// The page's view of what was found.
pub(crate) fn report<'a>(found: &'a Found<'a>) -> anyhow::Result<html::Report<'a>> {
    Ok(html::Report {
        name: &found.image.name,
        dna: &found.analysis.dna,
        behavior: found.behavior(),
        unknowns: found.unknowns(),
        command: found.asked.as_ref().map(|(command, _)| dna::redact_argv(command)),
        dna_digest: found.analysis.dna.digest()?.to_string(),
        manifest: found.image.digests.manifest.as_ref().map(ToString::to_string),
        packages: found.packages(),
    })
}

/// The DNA; for another command, the answer.
fn json(found: &Found<'_>, destination: &Destination) -> anyhow::Result<Vec<u8>> {
    let dna = &found.analysis.dna;
    match &found.asked {
        Some((command, answer)) => answered(dna, command, answer, destination),
        None => document(dna, destination),
    }
}

/// A DNA, canonical where a program reads it.
fn document(dna: &Dna, destination: &Destination) -> anyhow::Result<Vec<u8>> {
    if destination.is_terminal() { output::pretty(dna) } else { Ok(dna.to_canonical_json()?) }
}

/// The answer for another command.
fn answered(dna: &Dna, command: &[String], answer: &Answer, destination: &Destination) -> anyhow::Result<Vec<u8>> {
    let command = dna::redact_argv(command);
    let document = serde_json::json!({
        "schema": dna::SCHEMA, "dna": dna.digest()?, "command": command,
        "behavior": answer.behavior, "unknowns": answer.unknowns,
    });
    if destination.is_terminal() { output::pretty(&document) } else { Ok(dna::canonical_json(&document)?) }
}

/// What `--mount` and `--env` lay over the image.
fn mounted(mounts: &[String], env: &[String], limits: &Limits) -> anyhow::Result<Mounted> {
    let mut mounted = Mounted::default();
    for mount in mounts {
        let (place, file) = mount.split_once('=').map_or((mount.as_str(), None), |(place, file)| (place, Some(file)));
        if !place.starts_with('/') {
            bail!("--mount {mount}: expected PATH=FILE with an absolute PATH in the container, or PATH alone");
        }
        let place: ImagePath = place.parse().with_context(|| format!("--mount {mount}"))?;
        let Some(file) = file else {
            mounted.files.insert(place, Laid::Unreadable);
            continue;
        };
        let reading = || format!("--mount {mount}: cannot read {file}");
        if !fs::metadata(file).with_context(reading)?.is_dir() {
            mounted.files.insert(place, Laid::File(read(file.as_ref(), limits).with_context(reading)?));
            continue;
        }
        // A ConfigMap is a folder of files; what begins with a dot is the kubelet's own.
        for entry in fs::read_dir(file).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            let name = entry.file_name();
            let is_own = name.as_encoded_bytes().starts_with(b".");
            if !is_own && fs::metadata(entry.path()).with_context(reading)?.is_file() {
                let body = read(&entry.path(), limits).with_context(reading)?;
                mounted.files.insert(place.join(name.as_encoded_bytes())?, Laid::File(body));
            }
        }
    }
    for variable in env {
        let Some((name, value)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            bail!("--env expects NAME=VALUE, not `{}`", dna::redact(variable));
        };
        mounted.env.insert(name.to_owned(), value.to_owned());
    }
    Ok(mounted)
}

/// A file to lay over the image, as large as a text may be.
fn read(file: &Path, limits: &Limits) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    fs::File::open(file)?.take(limits.text_bytes.saturating_add(1)).read_to_end(&mut body)?;
    if body.len() as u64 > limits.text_bytes {
        bail!("it has more than {} bytes (limit text_bytes)", limits.text_bytes);
    }
    Ok(body)
}

fn subject(image: &Image) -> SbomSubject {
    let layers = match &image.contents {
        Contents::Layers(layers) => layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        Contents::Directory(_) => Vec::new(),
    };
    // https://reproducible-builds.org/specs/source-date-epoch/
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<i64>().ok());
    let created = epoch.and_then(Timestamp::from_seconds).or_else(|| image.config.created.as_deref()?.parse().ok());
    SbomSubject {
        name: image.name.clone(),
        digest: image.digests.manifest.clone().or_else(|| image.digests.config.clone()),
        platform: Some(image.platform.clone()),
        layers,
        created,
    }
}

pub(crate) fn limits(open: &Open) -> anyhow::Result<Limits> {
    let mut limits = Limits::default();
    for assignment in &open.limits {
        limits.set(assignment).context("--limit")?;
    }
    Ok(limits)
}

pub(crate) fn source(text: &str) -> anyhow::Result<Source> {
    let source: Result<Source, _> = text.parse();
    let hint = Source::meant(text);
    match (source, hint) {
        (Ok(source), None) => Ok(source),
        // A name that is also a file here: the registry is still what was asked for, but say what may have been meant.
        (Ok(source), Some(hint)) => {
            output::say(&format!("mayfly: note: {}", crate::text::clean(&hint)));
            Ok(source)
        }
        (Err(error), Some(hint)) => Err(anyhow::Error::new(error).context(hint)),
        (Err(error), None) => Err(error.into()),
    }
}

pub(crate) fn options(open: &Open, limits: &Limits) -> anyhow::Result<oci::Options> {
    let mut options = oci::Options {
        platform: open.platform.clone(),
        all_platforms: open.all_platforms,
        config: open.config.clone(),
        limits: limits.clone(),
        registry: remote::settings(&open.registry)?,
        ..oci::Options::default()
    };
    let folder = open.cache_dir.clone().or_else(oci::Cache::default_folder).filter(|_| !open.no_cache);
    let bytes = open.cache_size.unwrap_or(oci::Cache::DEFAULT_BYTES);
    options.registry.cache = folder.map(|folder| oci::Cache::new(folder, bytes));
    Ok(options)
}

/// Opens a source, with a bar on a terminal.
pub(crate) fn open(source: &Source, options: &oci::Options) -> anyhow::Result<Vec<Image>> {
    with_bar(options, || oci::open(source, options)).with_context(|| format!("cannot open {source}"))
}

fn with_bar<T>(options: &oci::Options, work: impl FnOnce() -> T) -> T {
    let progress = Arc::clone(&options.progress);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(bar) = bar("pull", 0) {
            let done = &done;
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    bar.set_length(progress.total());
                    bar.set_position(progress.done());
                    std::thread::park_timeout(Duration::from_millis(100));
                }
                bar.finish_and_clear();
            });
        }
        let result = work();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        result
    })
}

/// A bar where a person watches standard error.
fn bar(what: &'static str, total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template(
        "{prefix:>8} {bar:40.cyan/dim} {bytes:>10} of {total_bytes} {binary_bytes_per_sec}",
    );
    Some(ProgressBar::new(total).with_prefix(what).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// A command line as a shell splits it, quotes and backslashes taken out; nothing is expanded.
pub(crate) fn split(line: &str) -> anyhow::Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let next = characters.next().context("--command ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    anyhow::ensure!(quote.is_none(), "--command has a quote that is not closed");
    words.extend(word);
    anyhow::ensure!(!words.is_empty(), "--command is empty");
    Ok(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture;

    const FORMATS: [Format; 5] = [Format::Human, Format::Json, Format::Html, Format::Cyclonedx, Format::Spdx];

    /// Everything that can be printed of an image, for its own command and for another.
    fn everything(image: &Image) -> Vec<(Format, String)> {
        let analysis = fixture::analysis(image);
        let command = vec!["/entry.sh".to_owned(), "--password".to_owned(), "swordfish-09".to_owned()];
        let mut printed = Vec::new();
        for asked in [None, Some((command.clone(), analysis.answer(&command).expect("an answer")))] {
            let found = Found { image, analysis: &analysis, asked };
            for format in FORMATS {
                let text = render(&found, format, &Destination::default()).expect("renders");
                printed.push((format, String::from_utf8(text).expect("UTF-8")));
            }
        }
        printed
    }

    #[test]
    fn no_planted_secret_is_printed() {
        let secrets = [
            "swordfish-01",
            "swordfish-02",
            "swordfish-03",
            "swordfish-04",
            "swordfish-05",
            "swordfish-06",
            "swordfish-07",
            "swordfish-08",
            "swordfish-09",
            "ghp_swordfish0123456789abcd",
            "swordfish-10",
            "swordfish-11",
            "swordfish-12",
        ];
        let script = "#!/bin/sh\nexport TOKEN=swordfish-10\napp --password swordfish-11 \"$DB_PASSWORD\"\n\
            curl https://u:swordfish-12@host/x\nnosuch-$DB_PASSWORD x\nexec \"$@\"\n";
        let key = "-----BEGIN PRIVATE KEY-----\nswordfish-08\n-----END PRIVATE KEY-----\n";
        let config = json!({
            "Entrypoint": ["/entry.sh", "--token", "swordfish-01", "--url=https://x:swordfish-02@host/"],
            "Cmd": ["--api-key=swordfish-03"],
            "Env": ["DB_PASSWORD=swordfish-04", "GITHUB=ghp_swordfish0123456789abcd", "DB_PORT=https://a:swordfish-05@db:1"],
            "Labels": {"secret": "swordfish-06"},
            "Healthcheck": {"Test": ["CMD-SHELL", "check --password swordfish-07"]},
            "history": "RUN |1 NPM_TOKEN=swordfish-06 /bin/sh -c npm i",
        });
        let image = fixture::image(
            &config,
            &[
                ("/entry.sh", 0o755, script.as_bytes()),
                ("/bin/sh", 0o755, b"\x7fELF"),
                ("/bin/app", 0o755, b"\x7fELF"),
                ("/root/.ssh/id_rsa", 0o600, key.as_bytes()),
                ("/etc/passwd", 0o644, b"root:swordfish-08:0:0::/:/bin/sh\n"),
            ],
        );
        for (format, text) in everything(&image) {
            for secret in secrets {
                assert!(!text.contains(secret), "{format:?} shows {secret}:\n{text}");
            }
        }
    }

    #[test]
    fn no_text_of_the_image_steers_a_terminal_or_a_page() {
        let name = "/bin/\u{1b}[31m<script>x";
        let config = json!({ "Cmd": ["/entry.sh", "\u{1b}]0;x\u{7}<script>x"], "User": "\u{1b}<script>x", "history": "\u{1b}[2J<script>x" });
        let script = format!("#!/bin/sh\n'{name}'\n");
        let image = fixture::image(
            &config,
            &[("/entry.sh", 0o755, script.as_bytes()), ("/bin/sh", 0o755, b"\x7fELF"), (name, 0o755, b"\x7fELF")],
        );
        for (format, text) in everything(&image) {
            if matches!(format, Format::Human | Format::Html) {
                assert!(!text.contains(['\u{1b}', '\u{7}']), "{format:?}: {}", text.escape_debug());
            }
            assert!(format != Format::Html || !text.contains("<script>"), "{text}");
        }
    }

    #[test]
    fn the_digest_of_the_json_is_the_dna_s() {
        let image = fixture::image(&json!({ "Cmd": ["/a"] }), &[("/a", 0o755, b"\x7fELF")]);
        let analysis = fixture::analysis(&image);
        let found = Found { image: &image, analysis: &analysis, asked: None };
        let printed = render(&found, Format::Json, &Destination::default()).expect("renders");
        assert_eq!(dna::Digest::sha256(&printed), analysis.dna.digest().expect("canonical"));
        assert_eq!(dna::Dna::from_json(&printed).expect("reads"), analysis.dna);
        assert_eq!(fixture::analysis(&image).dna, analysis.dna);
    }

    #[test]
    fn the_report_says_first_what_matters() {
        let config = json!({ "Entrypoint": ["/entry.sh"], "Cmd": ["app"], "ExposedPorts": {"80/tcp": {}}, "history": "COPY . /" });
        let files: [(&str, u32, &[u8]); 3] = [
            ("/entry.sh", 0o755, b"#!/bin/sh\nset -e\nif [ \"$1\" = x ]; then other; fi\nexec \"$@\"\n"),
            ("/bin/sh", 0o755, b"\x7fELF"),
            ("/bin/app", 0o4755, b"\x7fELF"),
        ];
        let image = fixture::image(&config, &files);
        let analysis = fixture::analysis(&image);
        let found = Found { image: &image, analysis: &analysis, asked: None };
        // The digest is left out: it changes with every release.
        let text = human::render(&found, &human::Style { width: 80, color: false });
        let text: Vec<&str> = text.lines().filter(|line| !line.contains("DNA sha256:")).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn command_lines_are_split_as_a_shell_does() {
        let words = |line: &str| split(line).expect("well formed").join("|");
        assert_eq!(words("nginx -g 'daemon off;'"), "nginx|-g|daemon off;");
        assert_eq!(words(r#"sh -c "a \"b\" c" '' d\ e"#), "sh|-c|a \"b\" c||d e");
    }

    #[test]
    fn broken_command_lines_are_refused() {
        for line in ["", "  ", "a 'b", "a \\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
