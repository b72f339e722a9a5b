//! An expression: compiled as a rule's, and evaluated about a pod, any text. It ends, in an error or in a decision.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use policies::{Review, Rules, cases, decide};
use serde_json::json;

static REVIEW: LazyLock<Review> = LazyLock::new(|| {
    let case = json!({"name": "fuzz", "expect": {"verdict": "Allow"},
        "images": {"a": {"findings": [{"code": "port-not-served", "effect": "none", "subject": "80/tcp"}]}},
        "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {
            "containers": [{"name": "a", "image": "nginx", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"]}]}}});
    cases::review(&Rules::default(), &serde_json::from_value(case).expect("a case")).expect("a review")
});

fuzz_target!(|text: &str| {
    let rule = json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": "a"}, "spec": {
        "enforcement": "Always", "variables": [{"name": "v", "expression": "[1, 2, 3]"}],
        "validations": [{"name": "a", "expression": text}]}});
    let (rules, errors) = Rules::from_objects([&rule]);
    assert_eq!(rules.is_empty(), !errors.is_empty());
    let once = decide(&REVIEW, &rules, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(once, decide(&REVIEW, &rules, jiff::Timestamp::UNIX_EPOCH), "the same input gives the same decision");
});
