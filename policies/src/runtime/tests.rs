use std::fmt::Write as _;

use crate::{cases, load};

/// Rules of these names (`NAMESPACE/NAME`, or `NAME` of the cluster) and specs.
fn rules(all: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, spec) in all {
        let (kind, metadata) = match name.split_once('/') {
            Some((namespace, name)) => ("RuntimeRule", format!("{{name: {name}, namespace: {namespace}}}")),
            None => ("ClusterRuntimeRule", format!("{{name: {name}}}")),
        };
        let _ = write!(
            text,
            "---\napiVersion: mayfly.dev/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {{{spec}}}\n"
        );
    }
    text
}

/// What is not as expected of a case, by these rules.
fn failures(all: &[(&str, &str)], case: &str) -> Vec<String> {
    let text = rules(all);
    let rules = load([("rules.yaml", text.as_str())]).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"));
    let case = format!("runtime: [{{name: x, {case}}}]");
    let mut results = cases::run(&rules, &case).unwrap_or_else(|error| panic!("{case}: {error}"));
    results.remove(0).failures
}

fn errors(spec: &str) -> Vec<String> {
    let text = rules(&[("x", spec)]);
    load([("rules.yaml", text.as_str())]).map(|_| ()).expect_err(spec).iter().map(ToString::to_string).collect()
}

#[test]
fn what_does_not_load_says_what_where_and_what_to_do() {
    let ignore = "ignore: {until: '2026-06-01T00:00:00Z', reason: r}";
    for (spec, expected) in [
        ("then: {}", "ClusterRuntimeRule x: spec.then: nothing comes of it: write `severity`"),
        ("then: {severity: Hgih}", "rules.yaml:5: spec.then.severity: unknown variant `Hgih`, expected one of `Low`"),
        ("then: {severity: High}, classes: [lisen]", "unknown variant `lisen`, expected one of"),
        ("then: {severity: High}, whne: []", "unknown field `whne`"),
        ("then: {ignore: {until: '2026-06-01T00:00:00Z'}}, classes: [listen]", "missing field `reason`"),
        ("then: {ignore: {reason: r}}, classes: [listen]", "missing field `until`"),
        (&format!("then: {{{ignore}}}"), "spec.then.ignore: it would ignore everything: say what"),
        (&format!("classes: [listen], then: {{severity: Low, {ignore}}}"), "write two rules"),
        (
            "classes: [listen], then: {ignore: {until: soon, reason: r}}",
            "spec.then.ignore.until: it must be a time such as",
        ),
        ("then: {response: [{action: Shoot}]}", "unknown variant `Shoot`, expected one of `Isolate`"),
        ("then: {response: [{action: Isolate}, {action: Isolate}]}", "spec.then.response[1].action: it is there twice"),
        (
            "then: {severity: High}, when: [{name: a, expression: 'deviation.clas == \"listen\"'}]",
            "rules.yaml:5: ClusterRuntimeRule x: spec.when[0].expression: 1:10: `deviation` has no field `clas`: did you mean `class`?",
        ),
        ("then: {severity: High}, when: [{name: a, expression: 'deviation.risk'}]", "it must give true or false"),
        ("then: {severity: High}, when: [{name: a, expression: 'image.pinned'}]", "`image` is not known here"),
        ("then: {severity: High}, when: [{name: a, expression: 'dna.programs.size() > 0'}]", "has no field `programs`"),
        (
            "then: {severity: High}, when: [{name: a, expression: 'true'}, {name: a, expression: 'true'}]",
            "there are two conditions `a`",
        ),
        (
            "then: {severity: High}, when: [{name: a, expression: 'expectation.writable.all(a, expectation.writable.all(b, expectation.writable.all(c, a != c)))'}]",
            "units, more than",
        ),
    ] {
        let told = errors(spec);
        assert!(told.iter().any(|error| error.contains(expected)), "expected {expected}\nfound {told:#?}");
    }
    let nowhere =
        "apiVersion: mayfly.dev/v1alpha1\nkind: RuntimeRule\nmetadata: {name: x}\nspec: {then: {severity: Low}}\n";
    let told = load([("rules.yaml", nowhere)]).map(|_| ()).expect_err("no namespace");
    assert!(told[0].to_string().contains("a RuntimeRule is for one namespace"), "{told:?}");
    let twice = rules(&[("x", "then: {severity: Low}"), ("x", "then: {severity: High}")]);
    assert!(load([("rules.yaml", twice.as_str())]).is_err());
}

#[test]
fn a_rule_is_about_what_it_names() {
    let is_about = |spec: &str, case: &str| {
        let rule = format!("{spec}, then: {{severity: Critical}}");
        let found = failures(&[("x", &rule)], &format!("{case}, expect: {{rules: [x]}}"));
        if found.is_empty() {
            return true;
        }
        // It is either about it, or not, or says why that cannot be told.
        assert_eq!(failures(&[("x", &rule)], &format!("{case}, expect: {{rules: []}}")), Vec::<String>::new());
        false
    };
    let listen = "deviation: {class: listen, subject: tcp/9000}";
    assert!(is_about("classes: [listen, connect]", listen));
    assert!(!is_about("classes: [connect]", listen));
    assert!(is_about(
        "match: {namespaces: {names: ['sh*'], exclude: [shed]}}",
        &format!("{listen}, place: {{namespace: shop}}")
    ));
    assert!(!is_about(
        "match: {namespaces: {names: ['sh*'], exclude: [shed]}}",
        &format!("{listen}, place: {{namespace: shed}}")
    ));
    assert!(is_about("match: {workloads: ['Deployment/*']}", listen));
    assert!(!is_about("match: {workloads: ['CronJob/*']}", listen));
    assert!(!is_about("match: {containers: [sidecar]}", listen));
    assert!(is_about("match: {images: {include: ['registry.example.com/**'], exclude: ['**/debug']}}", listen));
    assert!(!is_about("match: {images: {include: ['docker.io/library/nginx:*']}}", listen));
    assert!(is_about(
        "match: {images: {include: ['docker.io/library/nginx:1.*']}}",
        &format!("{listen}, place: {{image: 'nginx:1.27'}}")
    ));
    let labelled = format!("{listen}, pod: {{metadata: {{labels: {{app: web}}}}}}");
    assert!(is_about("match: {podLabels: {app: web}}", &labelled));
    assert!(!is_about("match: {podLabels: {app: db}}", &labelled));
    for (expression, is) in [
        ("deviation.subject == 'tcp/9000' && deviation.risk >= 0.5", true),
        ("activity.process.exe == '/usr/bin/nc' && activity.act.kind == 'listen'", true),
        ("activity.process.argv.exists(word, word == '-l')", true),
        ("has(activity.process.uid) && activity.process.uid == 0", false),
        ("place.owner.startsWith('Deployment/')", true),
        ("pod.containers.exists(c, c.name == place.container)", true),
        ("container.image.endsWith(':1')", true),
        ("object.metadata.name == 'web-0'", true),
        ("dna.behavior.listen.size() == 0", true),
        ("expectation.privileged", false),
    ] {
        let spec = format!("when: [{{name: a, expression: \"{expression}\"}}]");
        let case = format!(
            "{listen}, activity: {{process: {{exe: /usr/bin/nc, argv: [nc, -l]}}, act: {{kind: listen, protocol: tcp, port: 9000}}}}"
        );
        assert_eq!(is_about(&spec, &case), is, "{expression}");
    }
    let variables =
        "variables: [{name: a, expression: 'deviation.subject'}, {name: b, expression: 'variables.a + \"!\"'}],
        when: [{name: c, expression: 'variables.b == \"tcp/9000!\"'}]";
    assert!(is_about(variables, listen));
}

#[test]
fn rules_come_to_one_verdict() {
    let ignore = "classes: [listen], then: {ignore: {until: '2026-06-01T00:00:00Z', reason: INC-1}}";
    let low = "then: {severity: Low}";
    let high = "then: {severity: High}";
    let isolate = "then: {response: [{action: Isolate}]}";
    let delete = "then: {response: [{action: DeletePod, dryRun: false}, {action: Isolate}]}";
    let real = "then: {response: [{action: Isolate, dryRun: false}]}";
    let (one, other) = ("then: {notify: [one]}", "then: {notify: [other, one]}");
    let broken = "when: [{name: a, expression: 'activity.process.uid == 0'}], then: {severity: Critical}";
    let case = "deviation: {class: listen}, place: {namespace: shop}";
    for (all, expect) in [
        (&[][..], "rules: [], notify: [], response: []"),
        (&[("low", low)], "severity: Low, rules: [low]"),
        (&[("low", low), ("high", high)], "severity: High, rules: [high, low]"),
        (&[("shop/high", high), ("low", low)], "severity: High, rules: [low, shop/high]"),
        (&[("bank/high", high)], "rules: []"),
        (&[("a", one), ("b", other)], "notify: [one, other]"),
        (&[("a", "then: {notify: []}")], "notify: []"),
        (&[("a", "then: {notify: []}"), ("b", one)], "notify: [one]"),
        (&[("a", isolate)], "response: [{action: Isolate}]"),
        (&[("a", isolate), ("b", delete)], "response: [{action: DeletePod, dryRun: false}, {action: Isolate}]"),
        (&[("a", isolate), ("b", real)], "response: [{action: Isolate, dryRun: false}]"),
        // Ignored is ignored, whatever rules of the same rank say.
        (&[("ignore", ignore)], "ignored: true"),
        (&[("ignore", ignore), ("high", high), ("is", real)], "ignored: true, response: [], notify: []"),
        (&[("shop/ignore", ignore)], "ignored: true"),
        (&[("shop/ignore", ignore), ("shop/high", high)], "ignored: true"),
        // A namespace ignores nothing that the cluster cares for, or might.
        (&[("shop/ignore", ignore), ("high", high)], "ignored: false, severity: High"),
        (&[("shop/ignore", ignore), ("one", one)], "ignored: false, notify: [one]"),
        (&[("shop/ignore", ignore), ("broken", broken)], "ignored: false, failed: [broken]"),
        (&[("shop/ignore", ignore), ("other", ignore), ("high", high)], "ignored: true"),
        (&[("broken", broken), ("high", high)], "severity: High, failed: [broken], rules: [high]"),
    ] {
        let case = format!("{case}, expect: {{{expect}}}");
        assert_eq!(failures(all, &case), Vec::<String>::new(), "{all:?}");
        let backwards: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(failures(&backwards, &case), Vec::<String>::new(), "in whatever order: {all:?}");
    }
}

#[test]
fn what_is_ignored_is_so_until_then() {
    let ignore = [("x", "classes: [listen], then: {ignore: {until: '2026-06-01T00:00:00Z', reason: INC-1}}")];
    for (now, is) in [("2026-05-31T23:59:59Z", true), ("2026-06-01T00:00:00Z", false), ("2027-01-01T00:00:00Z", false)]
    {
        let case = format!("deviation: {{class: listen}}, now: '{now}', expect: {{ignored: {is}, rules: [x]}}");
        assert_eq!(failures(&ignore, &case), Vec::<String>::new(), "{now}");
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_hides_nothing_and_says_so() {
    let ignore = |what: &str| format!("{what}, then: {{ignore: {{until: '2026-06-01T00:00:00Z', reason: r}}}}");
    let when = |expression: &str| ignore(&format!("when: [{{name: a, expression: \"{expression}\"}}]"));
    let case = "deviation: {class: listen}";
    for (spec, around) in [
        (when("activity.process.uid == 1000"), ""),
        (when("deviation.message.substring(9) == 'x'"), ""),
        (when("pod.hostNetwork || true"), "unknown: [pod]"),
        (when("dna.behavior.exec.size() == 0"), "unknown: [dna]"),
        (when("!expectation.privileged"), "unknown: [expectation]"),
        (ignore("match: {podLabels: {app: web}}"), "unknown: [pod]"),
        (ignore("match: {namespaces: {exclude: [kube-system]}}"), "place: {namespace: ''}"),
        (ignore("match: {workloads: ['**']}"), "place: {owner: ''}"),
        (ignore("match: {images: {exclude: ['**/bad']}}"), "place: {image: ''}"),
    ] {
        let separator = if around.is_empty() { "" } else { ", " };
        // `true || x` is true whatever x is; all others fail.
        let is = spec.contains("|| true");
        let expect = if is { "ignored: true, rules: [x]" } else { "ignored: false, failed: [x], rules: []" };
        let case = format!("{case}{separator}{around}, expect: {{{expect}}}");
        assert_eq!(failures(&[("x", &spec)], &case), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn a_severity_moves_the_risk_no_further_than_needed() {
    use crate::{kinds::Severity, runtime::Verdict};
    let risk = |severity, found| Verdict { severity, ..Verdict::default() }.risk(found);
    assert_eq!(risk(None, 0.42), 0.42);
    assert_eq!(risk(Some(Severity::High), 0.8), 0.8);
    assert_eq!(risk(Some(Severity::High), 0.2), 0.7);
    assert_eq!(risk(Some(Severity::Low), 0.95), 0.49);
    assert_eq!(risk(Some(Severity::Critical), 0.1), 0.9);
}

#[test]
fn the_examples_come_to_what_their_cases_say() {
    let rules = load([("runtime.yaml", include_str!("../../examples/runtime.yaml"))]).expect("rules");
    assert_eq!(rules.runtime().len(), 4);
    let results = cases::run(&rules, include_str!("../../examples/runtime.cases.yaml")).expect("cases");
    let failed: Vec<_> = results.iter().filter(|result| !result.failures.is_empty()).collect();
    assert!(results.len() > 8 && failed.is_empty(), "{failed:#?}");
}
