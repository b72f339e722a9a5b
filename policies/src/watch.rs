//! The backstop for an expression that, against all bounds, does not end. A thread cannot be killed: the rule it hangs in is taken out of
//! evaluation, which denies where that rule is in force, and the thread is given up. A rule of run time that is taken out does nothing.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    decide::decide_observed,
    decision::{Decision, RuleVersion},
    review::Review,
    rules::Rules,
    runtime::{Seen, Verdict},
};

/// How often rules are looked for that take too long.
const LOOK: Duration = Duration::from_secs(1);

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
    rule: Option<At>,
    since: Instant,
}

#[derive(Debug, Clone)]
enum At {
    /// A rule of admission, by its id.
    Admission(String),
    /// A rule of run time.
    RunTime(RuleVersion),
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
        decide_observed(review, rules, now, &mut |rule| watched.at(At::Admission(rule.id())))
    }

    /// As [`RuntimeRules::decide`](crate::runtime::RuntimeRules::decide), under watch.
    #[must_use]
    pub fn decide_at_run_time(&self, seen: &Seen<'_>, rules: &Arc<Rules>) -> Verdict {
        let watched = Watched { watch: self, id: self.begin(rules) };
        rules.runtime().decide_observed(seen, &mut |rule| watched.at(At::RunTime(rule.version())))
    }

    /// Takes rules out of evaluation that have been asked for too long, and names them: tell it loudly. To be called from time to time, by
    /// a thread that decides nothing.
    pub fn look(&self) -> Vec<String> {
        let under_way = self.lock();
        let late = under_way.asked.values().filter(|asked| asked.since.elapsed() >= self.limit);
        let taken_out = |asked: &Asked| match asked.rule.as_ref()? {
            At::Admission(rule) => asked.rules.disable(rule).then(|| rule.clone()),
            At::RunTime(rule) => asked.rules.runtime().disable(rule).then(|| rule.rule.clone()),
        };
        late.filter_map(taken_out).collect()
    }

    /// Looks once a second, from a thread that nothing can hang, and tells each rule that is taken out, until the watch is dropped.
    ///
    /// # Errors
    /// There is no thread: bounds at load still stand before a rule that hangs.
    pub fn over(watch: &Arc<Self>, tell: impl Fn(&str) + Send + 'static) -> io::Result<()> {
        let weak = Arc::downgrade(watch);
        let look = move || {
            while let Some(watch) = weak.upgrade() {
                watch.look().iter().for_each(|rule| tell(rule));
                drop(watch);
                thread::sleep(LOOK);
            }
        };
        thread::Builder::new().name("rules".to_owned()).spawn(look).map(drop)
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
    fn at(&self, rule: At) {
        if let Some(asked) = self.watch.lock().asked.get_mut(&self.id) {
            (asked.rule, asked.since) = (Some(rule), Instant::now());
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
            asked.rule = ids.first().cloned().map(At::Admission);
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

    #[test]
    fn a_rule_of_run_time_that_takes_too_long_is_taken_out_and_ignores_nothing() {
        let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterRuntimeRule\nmetadata: {name: a}\nspec: {when: [{name: w, expression: 'true'}], \
                    then: {ignore: {until: '2030-01-01T00:00:00Z', reason: x}}}\n";
        let rules = Arc::new(load([("x", rule)]).expect("a rule"));
        let deviation = serde_json::from_value(
            json!({"class": "listen", "subject": "tcp/1", "message": "m", "risk": 0.5, "technique": ""}),
        );
        let activity = serde_json::from_value(
            json!({"at": "2026-01-01T00:00:00Z", "sensor": "s", "container": {}, "process": {}, "act": {"kind": "exit"}}),
        );
        let (deviation, activity) = (deviation.expect("a deviation"), activity.expect("an activity"));
        let nothing = (&|| None, &|| None, &|| None);
        let place = crate::runtime::Where::default();
        let seen = Seen {
            deviation: &deviation,
            activity: &activity,
            place,
            pod: nothing.0,
            dna: nothing.1,
            expectation: nothing.2,
        };
        let watch = Watch::new(Duration::from_millis(20));
        let verdict = watch.decide_at_run_time(&seen, &rules);
        assert!(verdict.ignored.is_some() && verdict == rules.runtime().decide(&seen), "{verdict:?}");
        let stuck = Watched { watch: &watch, id: watch.begin(&rules) };
        for version in rules.runtime().versions() {
            stuck.at(At::RunTime(version));
        }
        assert!(watch.look().is_empty(), "it has time");
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!((watch.look(), watch.look()), (vec!["a".to_owned()], Vec::new()));
        let verdict = watch.decide_at_run_time(&seen, &rules);
        assert_eq!(
            (verdict.ignored, verdict.rules.iter().map(|rule| rule.failed).collect::<Vec<_>>()),
            (None, vec![true])
        );
        assert_eq!(rules.runtime().disabled().collect::<Vec<_>>(), rules.runtime().versions().collect::<Vec<_>>());
    }
}
