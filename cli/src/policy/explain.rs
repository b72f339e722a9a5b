//! `mayfly policy explain`: a decision in, of the ledger or of a file, and why it was so out.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use policies::{About, AdmittedUnknown, Decision, Reason, RuleVersion, UsedException, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhook::rulebook;

use crate::{args::policy as args, expect::told, output, remote, text::clean};

pub(super) fn run(args: &args::Explain) -> anyhow::Result<()> {
    let texts = Texts::read(&args.rules)?;
    let mut decisions = match (&args.ledger, args.decision.parse::<uuid::Uuid>()) {
        (Some(url), Ok(id)) => vec![of_ledger(url, id)?],
        (None, Ok(id)) => bail!("{id} is the id of a decision in a ledger: say which with --ledger"),
        (_, Err(_)) => of_file(&args.decision)?,
    };
    if let Some(wanted) = &args.object {
        let names: Vec<String> = decisions.iter().map(|one| one.object.clone()).collect();
        decisions.retain(|one| one.object.eq_ignore_ascii_case(wanted));
        if decisions.is_empty() {
            bail!("nothing was decided about {wanted}, but about {}", names.join(", "));
        }
    }
    let shown: Vec<_> = decisions.iter().map(|one| texts.beside(one)).collect();
    output::show(args.format, &shown, |shown| shown.iter().map(human).collect::<Vec<_>>().join("\n"))
}

/// A decision, and what it is about.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Decided {
    /// `Kind/name`.
    #[serde(default)]
    object: String,
    #[serde(default)]
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    /// Where images and pod do not fit, by container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    findings: BTreeMap<String, Vec<dna::Finding>>,
    /// When, who, what, where, in the words of the ledger.
    #[serde(skip)]
    about: Vec<(&'static str, String)>,
    /// Images with their digests, as the ledger has them.
    #[serde(skip)]
    images: Vec<String>,
}

/// Reasons as the webhook leaves them in the ledger.
#[derive(Debug, Deserialize)]
struct Details {
    #[serde(default)]
    reasons: Vec<Reason>,
    #[serde(default)]
    unknown: Vec<AdmittedUnknown>,
    #[serde(default)]
    exceptions: Vec<UsedException>,
    #[serde(default)]
    findings: BTreeMap<String, Vec<dna::Finding>>,
}

fn of_ledger(url: &str, id: uuid::Uuid) -> anyhow::Result<Decided> {
    // Opening an SQLite ledger would make it.
    if let Some(file) = url.strip_prefix("sqlite:").map(Path::new).filter(|file| !file.exists()) {
        bail!("there is no ledger at {}", file.display());
    }
    let found = remote::block_on(async {
        let ledger = lineage::Ledger::open(url).await?;
        let found = ledger.decision(id).await;
        ledger.close().await;
        Ok(found?)
    })?;
    let found = found.with_context(|| format!("the ledger has no decision {id}"))?;
    let details: Details = serde_json::from_slice(&found.details.unpack()?)
        .with_context(|| format!("the details of decision {id} cannot be read"))?;
    let mut rules = Vec::new();
    for rule in found.rules {
        let version =
            rule.version.parse().with_context(|| format!("the version of rule {} is no digest", rule.name))?;
        rules.push(RuleVersion { rule: rule.name, version });
    }
    let verdict = match found.verdict {
        lineage::Verdict::Allow => Verdict::Allow,
        lineage::Verdict::Warn => Verdict::Warn,
        lineage::Verdict::Deny => Verdict::Deny,
    };
    let Details { reasons, unknown, exceptions, findings } = details;
    let open = if found.has_unknowns { "it is to be decided again" } else { "" };
    let about = [
        ("decision", found.id.to_string()),
        ("made", found.at.to_string()),
        ("cluster", found.cluster),
        ("asked by", found.user),
        ("operation", found.operation),
        ("open", open.to_owned()),
    ];
    let images = found.images.iter().map(|image| {
        let digest = image.digest.as_ref().map_or_else(|| "not resolved".to_owned(), ToString::to_string);
        format!("{} ({}): {digest}", image.reference, image.name)
    });
    Ok(Decided {
        object: format!("{}/{}", found.kind, found.name),
        namespace: found.namespace,
        decision: Some(Decision { verdict, reasons, unknown, exceptions, rules, retry_seconds: None }),
        findings,
        about: about.into_iter().filter(|(_, text)| !text.is_empty()).collect(),
        images: images.collect(),
    })
}

/// Decisions as `check --format json` prints them, or one alone.
fn of_file(name: &str) -> anyhow::Result<Vec<Decided>> {
    let bytes = if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().take(MAX_BYTES).read_to_end(&mut bytes).context("cannot read standard input")?;
        bytes
    } else {
        output::read(Path::new(name))
            .context("name a decision's id with --ledger, or a file that `check --format json` printed")?
    };
    let value: Value = serde_json::from_slice(&bytes).with_context(|| format!("{name} is no JSON"))?;
    let read = |value: Value| -> anyhow::Result<Decided> {
        // A decision by itself says its verdict.
        let value = if value.get("verdict").is_some() { serde_json::json!({"decision": value}) } else { value };
        let one: Decided = serde_json::from_value(value).with_context(|| format!("{name} holds no decision"))?;
        if one.decision.is_none() && one.object.is_empty() {
            bail!("{name} holds no decision, as `mayfly policy check --format json` prints one");
        }
        Ok(one)
    };
    match value {
        Value::Array(values) if values.is_empty() => bail!("{name} holds no decision"),
        Value::Array(values) => values.into_iter().map(read).collect(),
        one => Ok(vec![read(one)?]),
    }
}

/// A decision beside what its rules say.
#[derive(Debug, Serialize)]
struct Shown<'d> {
    #[serde(flatten)]
    decided: &'d Decided,
    /// What the rules say, by the reason's place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rules: BTreeMap<usize, String>,
    /// Rules that are another version now, or not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differ: Vec<String>,
}

/// Rule files as they are written.
struct Texts {
    files: Vec<String>,
    versions: BTreeMap<String, String>,
    is_given: bool,
}

impl Texts {
    fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut texts = Self { files: Vec::new(), versions: BTreeMap::new(), is_given: !paths.is_empty() };
        if paths.is_empty() {
            return Ok(texts);
        }
        texts.versions = super::rules(paths)?.versions().map(|one| (one.rule, one.version.to_string())).collect();
        for file in rulebook::yaml_files(paths).map_err(anyhow::Error::msg)? {
            let text =
                String::from_utf8(output::read(&file)?).with_context(|| format!("{} is not UTF-8", file.display()))?;
            texts.files.push(text);
        }
        Ok(texts)
    }

    fn beside<'d>(&self, decided: &'d Decided) -> Shown<'d> {
        let mut shown = Shown { decided, rules: BTreeMap::new(), differ: Vec::new() };
        let Some(decision) = decided.decision.as_ref().filter(|_| self.is_given) else { return shown };
        for (at, reason) in decision.reasons.iter().enumerate() {
            shown.rules.extend(self.passage(reason).map(|passage| (at, passage)));
        }
        for asked in &decision.rules {
            match self.versions.get(&asked.rule) {
                None => shown.differ.push(format!("{} is not among the rules given", asked.rule)),
                Some(version) if *version != asked.version.to_string() => {
                    shown.differ.push(format!(
                        "{} is {version} in the rules given, and was {} then",
                        asked.rule, asked.version
                    ));
                }
                Some(_) => {}
            }
        }
        shown
    }

    /// The lines of a rule that a reason is about, with the comment above them.
    fn passage(&self, reason: &Reason) -> Option<String> {
        let name = reason.rule.rsplit('/').next()?;
        let field = match reason.code.as_str() {
            "IMG_UNSIGNED" | "SIGNER_MISMATCH" => "signatures:",
            "ATT_MISSING" | "ATT_STALE" => "attestations:",
            "DNA_MISSING" | "DNA_UNTRUSTED" => "dna:",
            "TAG_NOT_DIGEST" => "tags:",
            _ => "",
        };
        let documents = self.files.iter().flat_map(|file| file.split("\n---"));
        let mut of_rule = documents.filter(|document| {
            document.lines().any(|line| {
                let line = line.trim();
                line == format!("name: {name}")
                    || line.starts_with("metadata:") && line.contains(&format!("name: {name}"))
            })
        });
        of_rule.find_map(|document| passage(document, reason.check.as_deref(), field))
    }
}

/// The lines of an entry by its name, or of a field.
fn passage(document: &str, check: Option<&str>, field: &str) -> Option<String> {
    let lines: Vec<&str> = document.lines().collect();
    let named = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ").trim_start_matches('{');
        check.is_some_and(|check| {
            let rest = line.strip_prefix("name:").map(|rest| rest.trim_start().trim_matches(['"', '\'']));
            rest.is_some_and(|rest| {
                rest == check || rest.strip_prefix(check).is_some_and(|rest| rest.starts_with([',', '}', '"', ' ']))
            })
        })
    };
    let at = lines.iter().position(|line| named(line)).or_else(|| {
        let is_field = |line: &str| !field.is_empty() && line.trim_start().starts_with(field);
        lines.iter().position(|line| is_field(line))
    })?;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(lines.get(at)?);
    let comments = lines.get(..at)?.iter().rev().take_while(|line| line.trim_start().starts_with('#')).count();
    let after = lines.get(at + 1..)?.iter().take_while(|line| !line.trim().is_empty() && indent(line) > own).count();
    let shown = lines.get(at - comments..=at + after)?;
    let least = shown.iter().map(|line| indent(line)).min().unwrap_or_default();
    Some(shown.iter().map(|line| line.get(least..).unwrap_or_default()).collect::<Vec<_>>().join("\n"))
}

fn human(shown: &Shown<'_>) -> String {
    let one = shown.decided;
    let mut text = String::new();
    let namespace = if one.namespace.is_empty() { String::new() } else { format!(" in {}", one.namespace) };
    let object = if one.object.is_empty() { "the object" } else { one.object.as_str() };
    // Writing to a string cannot fail.
    let Some(decision) = &one.decision else {
        let _ = writeln!(text, "{}{}: not asked: no rule is about it", clean(object), clean(&namespace));
        return text;
    };
    let verdict = match decision.verdict {
        Verdict::Allow => "allowed",
        Verdict::Warn => "allowed with warnings",
        Verdict::Deny => "DENIED",
    };
    let _ = writeln!(text, "{}{}: {verdict}", clean(object), clean(&namespace));
    for (name, about) in &one.about {
        let _ = writeln!(text, "  {name:<10}{}", clean(about));
    }
    for image in &one.images {
        let _ = writeln!(text, "  {:<10}{}", "image", clean(image));
    }
    if let Some(seconds) = decision.retry_seconds {
        let _ = writeln!(text, "  try again in {seconds} s");
    }
    for (at, reason) in decision.reasons.iter().enumerate() {
        told_reason(reason, shown.rules.get(&at), &mut text);
    }
    if decision.reasons.is_empty() {
        let _ = writeln!(text, "\n  everything is as the rules say");
    }
    for unknown in &decision.unknown {
        let _ = write!(text, "\n  admitted without being known, by {}: {}", clean(&unknown.rule), clean(&unknown.what));
        let _ = writeln!(text, " ({})", clean(&unknown.cause));
        told_image(&unknown.image, &mut text);
        if let Some(as_of) = &unknown.as_of {
            let _ = writeln!(text, "    what was known at {} counts", clean(as_of));
        }
    }
    for exception in &decision.exceptions {
        let _ = writeln!(
            text,
            "\n  let pass by exception {}: {} of {}, until {}: {}",
            clean(&exception.exception),
            clean(&exception.code),
            clean(&exception.rule),
            clean(&exception.expires),
            clean(&exception.reason)
        );
        if let Some(image) = &exception.image {
            told_image(image, &mut text);
        }
    }
    for (container, findings) in one.findings.iter().filter(|(_, findings)| !findings.is_empty()) {
        let _ = writeln!(text, "\n  image and pod, container {}:", clean(container));
        for finding in findings {
            for line in told(finding).lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    let _ = writeln!(text, "\n  rules that were asked:");
    for rule in &decision.rules {
        let _ = writeln!(text, "    {} {}", clean(&rule.rule), rule.version);
    }
    for differ in &shown.differ {
        let _ = writeln!(text, "    note: {}", clean(differ));
    }
    text
}

fn told_reason(reason: &Reason, rule: Option<&String>, text: &mut String) {
    let effect = match reason.effect {
        policies::Effect::Deny => "denies",
        policies::Effect::Warn => "warns",
        policies::Effect::Audit => "only recorded",
    };
    let check = reason.check.as_ref().map_or_else(String::new, |check| format!("/{check}"));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n  {} [{}{}]: {effect}", clean(&reason.code), clean(&reason.rule), clean(&check));
    if let Some(image) = &reason.image {
        told_image(image, text);
    }
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "    {name:<10}{}", clean(value));
        }
    };
    line("expected", &reason.expected);
    line("found", &reason.found);
    for tried in &reason.tried {
        line("tried", tried);
    }
    line("unknown", reason.unknown.as_deref().unwrap_or_default());
    line("do", &reason.remedy);
    if let Some(rule) = rule {
        let _ = writeln!(text, "    the rule says:");
        for line in rule.lines() {
            let _ = writeln!(text, "      {}", clean(line));
        }
    }
}

fn told_image(image: &About, text: &mut String) {
    let platform = image.platform.as_ref().map_or_else(String::new, |platform| format!(", {platform}"));
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "    {:<10}{} ({}{})", "image", clean(&image.reference), clean(&image.name), clean(&platform));
    if let Some(digest) = &image.digest {
        let _ = writeln!(text, "    {:<10}{digest}", "digest");
    }
}

/// Of standard input.
const MAX_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "
# What ours must be.
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: ours}
spec:
  require:
    # Only what our build made.
    signatures: {anyOf: [ci]}
  validations:
    # Nobody needs root.
    # Ever.
    - name: no-root
      expression: \"image.config.user != ''\"
      message: it runs as root
    - name: other
      expression: 'true'
";

    #[test]
    fn a_rule_s_own_words_stand_beside_a_reason() {
        assert_eq!(
            passage(RULE, Some("no-root"), "").as_deref(),
            Some(
                "# Nobody needs root.\n# Ever.\n- name: no-root\n  expression: \"image.config.user != ''\"\n  message: it runs as root"
            )
        );
        let signatures = passage(RULE, None, "signatures:");
        assert_eq!(signatures.as_deref(), Some("# Only what our build made.\nsignatures: {anyOf: [ci]}"));
        assert_eq!(passage(RULE, Some("no"), ""), None, "a part of a name is no name");
        assert_eq!(passage(RULE, None, ""), None);
    }
}
