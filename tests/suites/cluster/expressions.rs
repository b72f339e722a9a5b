//! Expressions of rules, held against the API server's own CEL: each is evaluated by both, and where they differ
//! `docs/policies.md` says so. The API server tells what they give in
//! warnings of ValidatingAdmissionPolicies.

use std::collections::{BTreeMap, BTreeSet};

use policies::{Review, Rules, decide};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use crate::world::{World, wait};

/// What an expression gives, as text; none where it is refused or fails.
type Given = Option<String>;

pub(crate) fn expressions_give_what_they_give_in_the_api_server(world: &World) {
    let published = published(&read("../docs/policies.md"));
    let mut expressions: Vec<String> = read("suites/cluster/expressions.txt")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(Into::into)
        .collect();
    expressions.extend(published.keys().cloned());
    expressions.extend(generated(GENERATED));
    let mut seen = BTreeSet::new();
    expressions.retain(|expression| seen.insert(expression.clone()));
    let theirs = of_the_api_server(world, &expressions);
    let mut differ = BTreeMap::new();
    for (expression, theirs) in expressions.iter().zip(&theirs) {
        let ours = ours(expression);
        if ours != *theirs {
            differ.insert(expression.clone(), (theirs.clone(), ours));
        }
    }
    let with_value = theirs.iter().flatten().count();
    println!("{} expressions, {with_value} with a value, {} differ", expressions.len(), differ.len());
    assert!(with_value > expressions.len() / 2, "most of them are good");
    let row = |(expression, (theirs, ours)): (&String, &(Given, Given))| {
        format!("| `{}` | {} | {} |", expression.replace('|', "\\|"), cell(theirs), cell(ours))
    };
    let only = |a: &BTreeMap<String, (Given, Given)>, b: &BTreeMap<String, (Given, Given)>| {
        a.iter()
            .filter(|(expression, given)| b.get(*expression) != Some(*given))
            .map(row)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let (missing, stale) = (only(&differ, &published), only(&published, &differ));
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in docs/policies.md:\n{missing}\nno longer so there:\n{stale}"
    );
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("a file of this project")
}

fn cell(given: &Given) -> String {
    given.as_ref().map_or_else(|| NOTHING.to_owned(), |text| format!("`{}`", text.replace('|', "\\|")))
}

/// The rows of the page's table: expressions, what the API server gives, and what rules give.
fn published(page: &str) -> BTreeMap<String, (Given, Given)> {
    let (_, section) = page.split_once(HEADING).expect("the page says where they differ");
    let rows = section.lines().skip(1).take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    let given = |cell: &str| (cell != NOTHING).then(|| cell.trim_matches('`').to_owned());
    let read = rows.map(|row| {
        let row = row.replace("\\|", "\u{0}");
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
        let [_, expression, theirs, ours, _] = cells.as_slice() else { panic!("a row of three: {row}") };
        (expression.trim_matches('`').to_owned(), (given(theirs), given(ours)))
    });
    read.collect()
}

/// An expression that gives a text which names it.
fn told(number: usize, expression: &str) -> String {
    format!("'{OPEN}{number}=%s{CLOSE}'.format([{expression}])")
}

/// What stands behind the numbers of a text.
fn numbered(text: &str) -> BTreeMap<usize, String> {
    let parts = text.split(OPEN).skip(1).filter_map(|part| part.split_once(CLOSE)?.0.split_once('='));
    parts.map(|(number, value)| (number.parse().expect("a number"), value.to_owned())).collect()
}

fn ours(expression: &str) -> Given {
    let rule = json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": "x"},
        "spec": {"enforcement": "Always", "validations": [
            {"name": "x", "scope": "Pod", "expression": "false", "message": "none", "messageExpression": told(0, expression)}]}});
    let (rules, problems) = Rules::from_objects([&rule]);
    if !problems.is_empty() {
        return None;
    }
    let review = Review {
        object: json!({"spec": {"containers": [{"name": "web", "image": "nginx"}]}}),
        request: serde_json::from_value(json!({"kind": {"version": "v1", "kind": "Pod"}})).expect("a request"),
        ..Review::default()
    };
    let decision = decide(&review, &rules, jiff::Timestamp::UNIX_EPOCH);
    let reason = decision.reasons.iter().find(|reason| reason.check.as_deref() == Some("x")).expect("it is refused");
    numbered(&reason.found).remove(&0)
}

fn of_the_api_server(world: &World, expressions: &[String]) -> Vec<Given> {
    let all: Vec<usize> = (0..expressions.len()).collect();
    // What it refuses to compile is left out.
    let tried = world.cluster.kubectl_with(&["create", "--dry-run=server"], &policies(expressions, &all));
    let refused = refused(&tried.stderr);
    let asked: Vec<usize> = all.into_iter().filter(|number| !refused.contains(number)).collect();
    world.cluster.kubectl_with(&["create"], &policies(expressions, &asked)).ok();
    let mut given: Vec<Given> = vec![None; expressions.len()];
    for (group, asked) in asked.chunks(GROUP).enumerate() {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(group), "namespace": "default"}});
        let answer = wait(60, "a policy is in force", || {
            let tried = world.cluster.kubectl_with(&["create", "--dry-run=server"], &object).ok();
            // Of one that fails only its number is told.
            let seen = tried.stderr.matches(FAILED).count() + numbered(&tried.stderr).len();
            if seen == asked.len() {
                Ok(tried.stderr)
            } else {
                Err(format!("{seen} of {}: {}", asked.len(), tried.stderr))
            }
        });
        for (number, value) in numbered(&answer) {
            given[number] = Some(value);
        }
    }
    world
        .cluster
        .kubectl(["delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-l", "mayfly.dev/test"])
        .ok();
    given
}

/// Which expressions the API server refused: where they stand in which policy.
fn refused(said: &str) -> BTreeSet<usize> {
    let number = |rest: &str, end: char| rest.split_once(end)?.0.parse::<usize>().ok();
    let of_policy = said.split(" \"p").skip(1).filter_map(|rest| Some((number(rest, '"')?, rest)));
    let of_policy = of_policy.flat_map(|(group, rest)| {
        rest.split("spec.validations[").skip(1).filter_map(move |rest| Some(group * GROUP + number(rest, ']')?))
    });
    of_policy.collect()
}

/// Policies that warn of what the expressions with these numbers give, each about a ConfigMap of its name.
fn policies(expressions: &[String], asked: &[usize]) -> Value {
    let validation = |number: &usize| json!({"expression": "false", "message": format!("{FAILED}{number}"), "messageExpression": told(*number, &expressions[*number])});
    let items = asked.chunks(GROUP).enumerate().flat_map(|(group, asked)| {
        let name = name(group);
        let object = |kind: &str, spec: Value| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": {"name": name, "labels": {"mayfly.dev/test": "expressions"}}, "spec": spec})
        };
        let policy = json!({
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
            "matchConditions": [{"name": "name", "expression": format!("object.metadata.name == '{name}'")}],
            "validations": asked.iter().map(validation).collect::<Vec<_>>(),
        });
        let binding = json!({"policyName": name, "validationActions": ["Warn"]});
        [object("ValidatingAdmissionPolicy", policy), object("ValidatingAdmissionPolicyBinding", binding)]
    });
    json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()})
}

fn name(group: usize) -> String {
    format!("p{group}")
}

/// Expressions by chance, the same each time.
fn generated(count: usize) -> Vec<String> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let any = prop_oneof![boolean(3), integer(3).prop_map(|e| format!("string({e})")), text(3), list(2)];
    (0..count).map(|_| any.new_tree(&mut runner).expect("an expression").current()).collect()
}

fn integer(depth: u32) -> BoxedStrategy<String> {
    let plain =
        prop_oneof![(-9_i64..100).prop_map(|n| format!("({n})")), Just(i64::MAX.to_string()), Just("0".to_owned())];
    if depth == 0 {
        return plain.boxed();
    }
    let operator = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
    let counted = prop::sample::select(vec!["size", "getHours"]);
    prop_oneof![
        2 => plain,
        3 => (integer(depth - 1), operator, integer(depth - 1)).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        1 => text(depth - 1).prop_map(|t| format!("size({t})")),
        1 => (text(depth - 1), text(0)).prop_map(|(a, b)| format!("{a}.indexOf({b})")),
        1 => (text(depth - 1), text(0)).prop_map(|(a, b)| format!("{a}.lastIndexOf({b})")),
        1 => list(depth - 1).prop_map(|l| format!("{l}.sum()")),
        1 => list(depth - 1).prop_map(|l| format!("{l}.max()")),
        1 => (list(depth - 1), integer(0)).prop_map(|(l, i)| format!("{l}[{i}]")),
        1 => (list(depth - 1), integer(0)).prop_map(|(l, i)| format!("{l}.indexOf({i})")),
        1 => (boolean(depth - 1), integer(depth - 1), integer(depth - 1)).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
        1 => (quantity(), quantity()).prop_map(|(a, b)| format!("{a}.compareTo({b})")),
        1 => (version(), version()).prop_map(|(a, b)| format!("{a}.compareTo({b})")),
        1 => counted.prop_flat_map(move |f| match f {
            "size" => list(depth - 1).prop_map(|l| format!("{l}.size()")).boxed(),
            _ => (0_u32..4000).prop_map(|m| format!("duration('{m}m').getHours()")).boxed(),
        }),
    ]
    .boxed()
}

fn text(depth: u32) -> BoxedStrategy<String> {
    let plain = prop::sample::select(vec![
        "''",
        "'a'",
        "'ab'",
        "'aBc'",
        "'1.5'",
        "'é😀'",
        "'a,b,,c'",
        "' x '",
        "'10.0.0.1'",
        "'abcabc'",
    ]);
    let plain = plain.prop_map(str::to_owned);
    if depth == 0 {
        return plain.boxed();
    }
    let change = prop::sample::select(vec!["lowerAscii", "upperAscii", "trim"]);
    prop_oneof![
        2 => plain,
        2 => (text(depth - 1), text(depth - 1)).prop_map(|(a, b)| format!("({a} + {b})")),
        2 => (text(depth - 1), change).prop_map(|(t, f)| format!("{t}.{f}()")),
        1 => (text(depth - 1), text(0), text(0)).prop_map(|(t, a, b)| format!("{t}.replace({a}, {b})")),
        1 => (text(depth - 1), -1_i64..5).prop_map(|(t, at)| format!("{t}.substring({at})")),
        1 => (text(depth - 1), 0_i64..4, 0_i64..5).prop_map(|(t, a, b)| format!("{t}.substring({a}, {b})")),
        1 => (text(depth - 1), -1_i64..5).prop_map(|(t, at)| format!("{t}.charAt({at})")),
        1 => (text(depth - 1), text(0)).prop_map(|(t, s)| format!("{t}.split({s}).join('-')")),
        1 => (text(depth - 1), pattern()).prop_map(|(t, p)| format!("{t}.find({p})")),
        1 => integer(depth - 1).prop_map(|i| format!("string({i})")),
        1 => boolean(depth - 1).prop_map(|b| format!("string({b})")),
    ]
    .boxed()
}

fn list(depth: u32) -> BoxedStrategy<String> {
    let plain = prop::collection::vec(-3_i64..9, 1..5).prop_map(|numbers| format!("{numbers:?}"));
    if depth == 0 {
        return plain.boxed();
    }
    prop_oneof![
        2 => plain,
        1 => (list(depth - 1), list(depth - 1)).prop_map(|(a, b)| format!("({a} + {b})")),
        1 => (list(depth - 1), integer(0)).prop_map(|(l, i)| format!("{l}.map(x, x * {i})")),
        1 => (list(depth - 1), integer(0)).prop_map(|(l, i)| format!("{l}.filter(x, x > {i})")),
        1 => (list(depth - 1), 0_i64..3, 0_i64..4).prop_map(|(l, a, b)| format!("{l}.slice({a}, {b})")),
        1 => (list(depth - 1), prop::sample::select(vec!["sort", "distinct", "reverse"])).prop_map(|(l, f)| format!("{l}.{f}()")),
    ]
    .boxed()
}

fn boolean(depth: u32) -> BoxedStrategy<String> {
    let plain = any::<bool>().prop_map(|b| b.to_string());
    if depth == 0 {
        return plain.boxed();
    }
    let compare = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    prop_oneof![
        1 => plain,
        2 => (integer(depth - 1), compare(), integer(depth - 1)).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        2 => (text(depth - 1), compare(), text(depth - 1)).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        1 => (boolean(depth - 1), prop::sample::select(vec!["&&", "||"]), boolean(depth - 1)).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        1 => boolean(depth - 1).prop_map(|a| format!("!{a}")),
        1 => (list(depth - 1), integer(0)).prop_map(|(l, i)| format!("({i} in {l})")),
        1 => (list(depth - 1), integer(0), prop::sample::select(vec!["all", "exists", "exists_one"])).prop_map(|(l, i, f)| format!("{l}.{f}(x, 6 / x > {i})")),
        1 => list(depth - 1).prop_map(|l| format!("{l}.isSorted()")),
        1 => (list(depth - 1), list(0), prop::sample::select(vec!["contains", "equivalent", "intersects"])).prop_map(|(a, b, f)| format!("sets.{f}({a}, {b})")),
        1 => (text(depth - 1), text(0), prop::sample::select(vec!["contains", "startsWith", "endsWith"])).prop_map(|(a, b, f)| format!("{a}.{f}({b})")),
        1 => (text(depth - 1), pattern()).prop_map(|(t, p)| format!("{t}.matches({p})")),
        1 => (text(depth - 1), prop::sample::select(vec!["isQuantity", "isIP", "isCIDR", "isURL", "isSemver"])).prop_map(|(t, f)| format!("{f}({t})")),
        1 => (quantity(), quantity(), prop::sample::select(vec!["isLessThan", "isGreaterThan"])).prop_map(|(a, b, f)| format!("{a}.{f}({b})")),
    ]
    .boxed()
}

fn quantity() -> BoxedStrategy<String> {
    let suffix = prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e2", "E-3"]);
    (-20_i32..2000, prop::option::of(0_u32..1000), suffix)
        .prop_map(|(whole, fraction, suffix)| match fraction {
            Some(fraction) => format!("quantity('{whole}.{fraction}{suffix}')"),
            None => format!("quantity('{whole}{suffix}')"),
        })
        .boxed()
}

fn version() -> BoxedStrategy<String> {
    let more = prop::sample::select(vec!["", "-1", "-a", "-a.1", "-1.a", "-rc.2", "-rc.10", "+b", "-a+c"]);
    (0_u32..3, 0_u32..3, 0_u32..12, more).prop_map(|(a, b, c, more)| format!("semver('{a}.{b}.{c}{more}')")).boxed()
}

fn pattern() -> BoxedStrategy<String> {
    prop::sample::select(vec!["'[a-z]+'", "'^a'", "'c$'", "'.'", "'(a|b)*'", r"r'\d+\.\d'", r"r'\bx\b'", "'(?i)B'"])
        .prop_map(str::to_owned)
        .boxed()
}

const OPEN: &str = "⟦";
const CLOSE: &str = "⟧";
const HEADING: &str = "### Where it differs from the API server's";
const NOTHING: &str = "no value";
/// Expressions by chance.
const GENERATED: usize = 400;
/// Of one policy: all warnings of an answer have room for 4,096 characters.
const GROUP: usize = 20;
const FAILED: &str = "no value of ";
