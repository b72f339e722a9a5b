//! The backstop for an expression that, against all bounds, does not end. A thread cannot be killed: the rule it hangs in is taken out of
//! evaluation, which denies where that rule is in force, and the thread is given up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    decide::decide_observed,
    decision::Decision,
    review::Review,
    rules::{Rule, Rules},
};

/// Decisions that are being made.
#[derive(Debug)]
pub struct Watch {
    under_way: Mutex<UnderWay>,
    limit: Duration,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    asked: BTreeMap<u64, Asked>,
}

/// The rule that a decision is at.
#[derive(Debug)]
struct Asked {
    rules: Arc<Rules>,
    rule: Option<String>,
    since: Instant,
}

impl Watch {
    /// How long one rule may take: some seconds, as a busy machine must not disable a rule.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { under_way: Mutex::default(), limit }
    }

    /// As [`decide`](crate::decide), under watch.
    #[must_use]
    pub fn decide(&self, review: &Review, rules: &Arc<Rules>, now: Timestamp) -> Decision {
        let watched = Watched { watch: self, id: self.begin(rules) };
        decide_observed(review, rules, now, &mut |rule| watched.at(rule))
    }

    /// Takes rules out of evaluation that have been asked for too long, and names them: tell it loudly. To be called from time to time, by
    /// a thread that decides nothing.
    pub fn look(&self) -> Vec<String> {
        let under_way = self.lock();
        let late = under_way.asked.values().filter(|asked| asked.since.elapsed() >= self.limit);
        let late = late.filter_map(|asked| Some((asked, asked.rule.as_deref()?)));
        late.filter(|(asked, rule)| asked.rules.disable(rule)).map(|(_, rule)| rule.to_owned()).collect()
    }

    fn begin(&self, rules: &Arc<Rules>) -> u64 {
        let mut under_way = self.lock();
        let id = under_way.next;
        under_way.next += 1;
        under_way.asked.insert(id, Asked { rules: Arc::clone(rules), rule: None, since: Instant::now() });
        id
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One decision under watch, until it is made or panics.
struct Watched<'a> {
    watch: &'a Watch,
    id: u64,
}

impl Watched<'_> {
    fn at(&self, rule: &Rule) {
        if let Some(asked) = self.watch.lock().asked.get_mut(&self.id) {
            (asked.rule, asked.since) = (Some(rule.id()), Instant::now());
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watch.lock().asked.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Verdict, decide, load};

    fn parts() -> (Review, Arc<Rules>) {
        let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: a}\nspec: {enforcement: Always, validations: [{name: v, expression: 'true'}]}\n";
        let mut review: Review =
            serde_json::from_value(json!({"request": {"kind": {"version": "v1", "kind": "Pod"}}})).expect("a review");
        review.object = json!({"spec": {"containers": []}});
        (review, Arc::new(load([("x", rule)]).expect("a rule")))
    }

    #[test]
    fn what_is_watched_decides_as_everybody_does_and_leaves_nothing() {
        let (review, rules) = parts();
        let watch = Watch::new(Duration::ZERO);
        for _ in 0..3 {
            let decision = watch.decide(&review, &rules, Timestamp::UNIX_EPOCH);
            assert_eq!(decision, decide(&review, &rules, Timestamp::UNIX_EPOCH));
            assert_eq!(decision.verdict, Verdict::Allow);
        }
        assert!(watch.look().is_empty() && watch.lock().asked.is_empty());
    }

    #[test]
    fn a_rule_that_hangs_is_taken_out_and_what_it_would_decide_denies() {
        let (review, rules) = parts();
        let watch = Watch::new(Duration::from_millis(20));
        // No rule can be written that hangs: a decision that never gets past its rule is one.
        let stuck = Watched { watch: &watch, id: watch.begin(&rules) };
        let ids: Vec<String> = rules.versions().map(|version| version.rule).collect();
        if let Some(asked) = watch.lock().asked.get_mut(&stuck.id) {
            asked.rule = ids.first().cloned();
        }
        assert!(watch.look().is_empty(), "it has time");
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(watch.look(), ids);
        assert!(watch.look().is_empty(), "it is told once");
        let decision = watch.decide(&review, &rules, Timestamp::UNIX_EPOCH);
        assert_eq!(decision.verdict, Verdict::Deny);
        assert_eq!(decision.reasons.first().map(|reason| reason.code.as_str()), Some("RULE_DISABLED"));
        drop(stuck);
        assert!(watch.lock().asked.is_empty());
    }
}
