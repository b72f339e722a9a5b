//! The report as one page: what was found in, self-contained HTML out. No script, nothing fetched; every text from the image is
//! escaped, and a content security policy holds that even if one were not.

mod graph;

use std::{collections::BTreeMap, fmt::Write as _};

use dna::{
    Behavior, Completeness, Confidence, Dna, Evidence, Hardening, Kind, Linkage, Program, Protocol, Relro, Tristate,
    Unknown,
};

use crate::{
    facts,
    text::{clean, size},
};

/// What the page shows.
pub(crate) struct Report<'a> {
    /// The image, as asked for.
    pub(crate) name: &'a str,
    pub(crate) dna: &'a Dna,
    /// Of the image's own command, or of the one asked about.
    pub(crate) behavior: &'a Behavior,
    pub(crate) unknowns: &'a [Unknown],
    /// The other command that was asked about.
    pub(crate) command: Option<Vec<String>>,
    pub(crate) dna_digest: String,
    pub(crate) manifest: Option<String>,
    /// How many packages of each kind.
    pub(crate) packages: Vec<(String, usize)>,
}

/// The page.
pub(crate) fn render(report: &Report<'_>) -> String {
    let title = escape(report.name);
    let mut page = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=viewport content=\"width=device-width,initial-scale=1\"><title>{title} · Mayfly</title>\
         <style>{STYLE}</style></head><body><header><h1>{title}</h1><p class=facts>{} · {} packages<br>",
        escape(&report.dna.image.platform.to_string()),
        report.packages.iter().map(|(_, count)| count).sum::<usize>()
    );
    if let Some(manifest) = &report.manifest {
        let _ = write!(page, "image <code>{}</code><br>", escape(manifest));
    }
    let _ = write!(page, "DNA <code>{}</code></p></header><main>", escape(&report.dna_digest));
    runs(&mut page, report);
    page.push_str("<div class=columns>");
    opens(&mut page, report);
    needs(&mut page, report);
    page.push_str("</div>");
    not_known(&mut page, report);
    programs(&mut page, report);
    origin(&mut page, report);
    let _ = write!(
        page,
        "</main><footer>Predicted from the image's bytes by Mayfly {}; nothing of it was executed.</footer></body></html>",
        escape(&report.dna.analyzer.version)
    );
    page
}

fn runs(page: &mut String, report: &Report<'_>) {
    let start = &report.dna.start;
    let argv = report.command.as_ref().unwrap_or(&start.argv);
    let command = if argv.is_empty() { "no command".to_owned() } else { argv.join(" ") };
    let (user, folder) = (facts::whose(start), facts::folder(start));
    let _ = write!(
        page,
        "<section><h2>Runs</h2><p class=command><code>{}</code></p><p class=facts>as {} in <code>{}</code></p>",
        escape(&command),
        escape(&user),
        escape(&folder)
    );
    if report.command.is_none() {
        let drawing = graph::draw(report.dna);
        if drawing.is_empty() {
            page.push_str("<p>Nothing is executed that could be told.</p>");
        } else {
            let _ = write!(
                page,
                "<div class=scroll>{drawing}</div><p class=legend><span class=certain>certain</span><span class=likely>likely</span>\
                 <span class=possible>possible: not by this start</span><span class=read>read, not executed</span></p>"
            );
        }
    }
    let _ = write!(
        page,
        "<details{}><summary>{} programs with their evidence</summary><table><tr><th>program<th>how sure<th>why",
        if report.command.is_some() { " open" } else { "" },
        report.behavior.exec.len()
    );
    for item in &report.behavior.exec {
        let evidence: Vec<String> = item.evidence.iter().map(facts::place).collect();
        let _ = write!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{}",
            escape(&item.what.path.to_string()),
            sureness(item.confidence),
            escape(&evidence.join(", "))
        );
    }
    page.push_str("</table></details></section>");
}

fn opens(page: &mut String, report: &Report<'_>) {
    page.push_str("<section><h2>Opens</h2>");
    if report.behavior.listen.is_empty() {
        page.push_str("<p>No port is claimed; whether one is opened is not known.</p>");
    }
    page.push_str("<ul class=plain>");
    for item in &report.behavior.listen {
        let protocol = match item.what.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let note = if item.what.claimed { " <span class=note>claimed by EXPOSE, not proven</span>" } else { "" };
        let _ = write!(page, "<li><b>{}/{protocol}</b>{note}", item.what.port);
    }
    page.push_str("</ul></section>");
}

fn needs(page: &mut String, report: &Report<'_>) {
    let _ = write!(
        page,
        "<section><h2>Needs</h2><p><b>{}</b> programs and <b>{}</b> library files they load.</p><ul class=plain>",
        report.behavior.exec.len(),
        report.behavior.load.len()
    );
    if let Some(calls) = facts::syscalls(report.behavior) {
        let _ = write!(page, "<li>{}", escape(&calls));
    }
    let (expected, possible) = facts::capabilities(report.behavior);
    for need in &expected {
        let _ =
            write!(page, "<li class=warn><b>{}</b> <span class=note>{}</span>", escape(&need.name), escape(&need.why));
    }
    if expected.is_empty() {
        let _ = write!(page, "<li>{}", escape(facts::no_capability(report.behavior)));
    }
    if !possible.is_empty() {
        let _ = write!(page, "<li class=note>capabilities that cannot be ruled out: {}", escape(&possible.join(", ")));
    }
    let mut any = false;
    for program in executed(report) {
        let powers = facts::powers(program);
        if !powers.is_empty() {
            any = true;
            let _ = write!(
                page,
                "<li class=warn><code>{}</code> is {}",
                escape(&program.path.to_string()),
                escape(&powers.join(", "))
            );
        }
    }
    if !any {
        page.push_str("<li>No executed program is setuid, setgid or has file capabilities.");
    }
    let _ = write!(page, "</ul><details><summary>Library files</summary><table><tr><th>file<th>why");
    for item in &report.behavior.load {
        let why: Vec<String> = item
            .evidence
            .iter()
            .map(|evidence| match evidence {
                Evidence::Binary { path, detail: Some(detail), .. } => format!("{detail} of {path}"),
                other => facts::place(other),
            })
            .collect();
        let _ =
            write!(page, "<tr><td><code>{}</code><td>{}", escape(&item.what.path.to_string()), escape(&why.join(", ")));
    }
    page.push_str("</table></details></section>");
}

fn not_known(page: &mut String, report: &Report<'_>) {
    page.push_str("<section><h2>Not known</h2><ul class=plain>");
    let mut kinds: BTreeMap<_, Vec<&Unknown>> = BTreeMap::new();
    for unknown in report.unknowns {
        kinds.entry(unknown.subject).or_default().push(unknown);
    }
    for (subject, unknowns) in kinds {
        let name = facts::subject(subject);
        let _ = write!(page, "<li><details><summary class=warn>{}: {}</summary><table>", escape(&name), unknowns.len());
        for unknown in unknowns {
            let _ = write!(page, "<tr><td><code>{}</code><td>{}", escape(&unknown.place), escape(&unknown.why));
        }
        page.push_str("</table></details>");
    }
    let known = &report.behavior.completeness;
    for (name, completeness) in facts::dimensions(known) {
        if let Completeness::Partial { reason } = completeness {
            let _ = write!(page, "<li><b>{name}</b> <span class=note>{}</span>", escape(reason));
        }
    }
    let none = facts::not_worked_out(known);
    if !none.is_empty() {
        let _ = write!(page, "<li class=note>not worked out: {none}");
    }
    page.push_str("</ul></section>");
}

fn programs(page: &mut String, report: &Report<'_>) {
    page.push_str("<section><h2>Executed programs</h2><div class=scroll><table><tr><th>program<th>language<th>linkage<th>hardening<th>package<th>layer<th>SHA-256");
    for program in executed(report) {
        let language = program.language.as_ref().map_or_else(String::new, |language| {
            [Some(language.name.clone()), language.version.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ")
        });
        let (linkage, hardening) = match &program.kind {
            Kind::Elf(elf) => (
                match elf.linkage {
                    Linkage::Dynamic => "dynamic",
                    Linkage::Static => "static",
                    Linkage::StaticPie => "static PIE",
                },
                chips(&elf.hardening),
            ),
            Kind::Script(_) => ("script", String::new()),
            Kind::Jar { .. } => ("jar", String::new()),
            _ => ("", String::new()),
        };
        let package = program.package.as_deref().unwrap_or_default().split('?').next().unwrap_or_default();
        let _ = write!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{linkage}<td class=chips>{hardening}<td>{}<td>{}<td><code>{}</code>",
            escape(&program.path.to_string()),
            escape(&language),
            escape(package),
            program.layer,
            program.sha256.short()
        );
    }
    let _ = write!(
        page,
        "</table></div><p class=note>The image holds {} programs in all.</p></section>",
        report.dna.programs.len()
    );
}

fn chips(hardening: &Hardening) -> String {
    let mut out = String::new();
    let relro = match hardening.relro {
        Relro::Full => Tristate::Yes,
        Relro::No => Tristate::No,
        _ => Tristate::Unknown,
    };
    let relro_name = if hardening.relro == Relro::Partial { "RELRO partial" } else { "RELRO" };
    for (name, state) in [
        ("PIE", hardening.pie),
        (relro_name, relro),
        ("NX", hardening.nx),
        ("canary", hardening.canary),
        ("FORTIFY", hardening.fortify),
    ] {
        let class = match state {
            Tristate::Yes => "yes",
            Tristate::No => "no",
            Tristate::Unknown => "maybe",
        };
        let _ = write!(out, "<span class={class}>{name}</span>");
    }
    out
}

fn origin(page: &mut String, report: &Report<'_>) {
    page.push_str("<section><h2>Layers</h2><table><tr><th>#<th>size<th>diff id<th>build step");
    for (index, layer) in report.dna.layers.iter().enumerate() {
        let _ = write!(
            page,
            "<tr><td>{index}<td class=right>{}<td><code>{}</code><td>{}",
            layer.size.map_or_else(|| "-".to_owned(), size),
            layer.diff_id.as_ref().map_or("-", |digest| digest.short()),
            escape(layer.created_by.as_deref().unwrap_or_default())
        );
    }
    let kinds: Vec<String> = report.packages.iter().map(|(kind, count)| format!("{count} {}", escape(kind))).collect();
    let kinds = if kinds.is_empty() { "none found".to_owned() } else { kinds.join(", ") };
    let _ = write!(page, "</table></section><section><h2>Packages</h2><p>{kinds}</p></section>");
}

/// Executed programs that are nodes of the graph.
fn executed<'a>(report: &'a Report<'a>) -> impl Iterator<Item = &'a Program> {
    let programs: BTreeMap<_, _> = report.dna.programs.iter().map(|program| (&program.path, program)).collect();
    report.behavior.exec.iter().filter_map(move |item| programs.get(&item.what.path).copied())
}

fn sureness(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    }
}

/// Text as HTML: markup and control characters made harmless.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--dim:#667085;--line:#d9dee7;--page:#f6f7f9;--card:#fff;--accent:#3457d5;--warn:#a15c00;--good:#1f7a4d;--bad:#b42318}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#98a2b3;--line:#2d3440;--page:#12151b;--card:#1a1f27;--accent:#8ea8ff;--warn:#f0b35a;--good:#63c796;--bad:#ff8d80}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}header{padding-top:28px}\
h1{font-size:24px;margin:0;overflow-wrap:anywhere}h2{font-size:13px;letter-spacing:.08em;text-transform:uppercase;color:var(--dim);margin:0 0 10px}\
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:14px 0}\
.columns{display:grid;grid-template-columns:1fr 1fr;gap:14px}.columns section{margin:0}@media(max-width:760px){.columns{grid-template-columns:1fr}}\
code{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere}.facts,.note,.legend,footer{color:var(--dim)}.facts{margin:6px 0 0}\
.command{margin:0;font-size:17px}.command code{font-size:16px}.plain{list-style:none;margin:0;padding:0}.plain li{margin:4px 0}\
table{border-collapse:collapse;width:100%;font-size:13.5px}th{text-align:left;color:var(--dim);font-weight:500}td,th{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}\
tr:last-child td{border-bottom:0}.right{text-align:right;white-space:nowrap}summary{cursor:pointer;margin:8px 0}.warn{color:var(--warn)}.scroll{overflow-x:auto}\
.chips span{display:inline-block;border-radius:5px;padding:0 6px;margin:1px 4px 1px 0;font-size:12px;border:1px solid var(--line);color:var(--dim)}\
.chips .yes{color:var(--good);border-color:var(--good)}.chips .no{color:var(--bad);border-color:var(--bad)}\
.graph{display:block;margin:14px 0 6px}.graph text{font:13px system-ui,sans-serif;text-anchor:middle;fill:var(--ink)}\
.graph rect{fill:var(--card);stroke:var(--accent);stroke-width:1.5}.graph .start rect{fill:var(--accent);}.graph .start text{fill:var(--card);font-weight:600}\
.graph .likely rect{stroke-dasharray:6 3}.graph .possible rect{stroke:var(--dim);stroke-dasharray:2 3}.graph .possible text{fill:var(--dim)}.graph .read rect{stroke:var(--line)}\
.graph .edge{fill:none;stroke:var(--dim);stroke-width:1.4}.graph .edge.likely{stroke-dasharray:6 3}.graph .edge.possible{stroke-dasharray:2 3;opacity:.7}.graph marker path{fill:var(--dim)}\
.legend span{margin-right:16px;padding-left:22px;position:relative;font-size:13px}.legend span:before{content:'';position:absolute;left:0;top:.55em;width:16px;border-top:2px solid var(--accent)}\
.legend .likely:before{border-top-style:dashed}.legend .possible:before{border-top:2px dotted var(--dim)}.legend .read:before{border-color:var(--line)}\
footer{padding:10px 20px 30px;font-size:13px}@media print{body{background:#fff}section{break-inside:avoid}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_image_is_escaped() {
        assert_eq!(escape("<script>alert('1')&\"\u{1b}"), "&lt;script&gt;alert(&#39;1&#39;)&amp;&quot;\\u{1b}");
    }

    #[test]
    fn the_style_fetches_nothing() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
