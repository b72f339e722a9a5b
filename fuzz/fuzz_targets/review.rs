//! A body that asks for a review: read, its pod found, and decided under the shipped rules with nothing known of its images. Any bytes end
//! in an answer, and no image is admitted of which nothing is known.
#![no_main]

use std::sync::LazyLock;

use dna::PodSpec;
use libfuzzer_sys::fuzz_target;
use policies::{Rules, Verdict, admission, decide};

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let restricted = include_str!("../../policies/rules/restricted.yaml");
    policies::load([("restricted.yaml", format!("{restricted}  enforcement: Always\n").as_str())])
        .expect("the shipped rule")
});

fuzz_target!(|bytes: &[u8]| {
    let review = match admission::read(bytes) {
        Ok(review) => review,
        Err(malformed) => return assert_eq!(malformed.uid.is_empty(), admission::uid(bytes).is_empty()),
    };
    assert_eq!(review.request.uid, admission::uid(bytes));
    let pod = RULES.pod_spec(&review.request.kind, &review.object).map(PodSpec::read);
    let decision = decide(&review, &RULES, jiff::Timestamp::UNIX_EPOCH);
    let has_images = pod.and_then(Result::ok).is_some_and(|pod| pod.images().next().is_some());
    if has_images && review.is_pod() && !RULES.matching(&review).is_empty() {
        assert_eq!(decision.verdict, Verdict::Deny, "{decision:?}");
    }
});
