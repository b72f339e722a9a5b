//! Decisions on threads of their own: the backstop for an expression that, against all bounds, does not end. A thread cannot be
//! killed; the rule it hangs in is taken out of evaluation, which denies where that rule is in force, and the thread is given up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    decide::{decide, decide_observed},
    decision::Decision,
    review::Review,
    rules::Rules,
};

/// Threads that decide.
#[derive(Debug)]
pub struct Worker {
    jobs: Sender<Job>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    limit: Duration,
}

#[derive(Debug)]
struct Job {
    review: Arc<Review>,
    rules: Arc<Rules>,
    now: Timestamp,
    asked: Arc<Mutex<Option<(String, Instant)>>>,
    answer: Sender<Decision>,
}

impl Worker {
    /// So many threads, and how long one rule may take: some seconds, as a busy machine must not disable a rule.
    #[must_use]
    pub fn new(threads: usize, limit: Duration) -> Self {
        let (jobs, waiting) = mpsc::channel();
        let worker = Self { jobs, waiting: Arc::new(Mutex::new(waiting)), limit };
        (0..threads.max(1)).for_each(|_| worker.start());
        worker
    }

    /// As [`decide`](crate::decide). Of [`Rules::disabled`] there may be more afterwards: tell it loudly.
    #[must_use]
    pub fn decide(&self, review: &Arc<Review>, rules: &Arc<Rules>, now: Timestamp) -> Decision {
        // Each time round one rule fewer is evaluated.
        for _ in 0..=rules.len() {
            let (answer, answered) = mpsc::channel();
            let asked = Arc::new(Mutex::new(None));
            let job = Job { review: review.clone(), rules: rules.clone(), now, asked: asked.clone(), answer };
            if self.jobs.send(job).is_err() {
                break;
            }
            let hung = loop {
                match answered.recv_timeout(self.limit / 4) {
                    Ok(decision) => return decision,
                    Err(RecvTimeoutError::Disconnected) => break taken(&asked),
                    Err(RecvTimeoutError::Timeout) => {
                        if let Some((rule, since)) = taken(&asked)
                            && since.elapsed() >= self.limit
                        {
                            break Some((rule, since));
                        }
                    }
                }
            };
            // The thread is lost, to the rule or to a panic.
            self.start();
            if !hung.is_some_and(|(rule, _)| rules.disable(&rule)) {
                break;
            }
        }
        decide(review, rules, now)
    }

    fn start(&self) {
        let waiting = self.waiting.clone();
        let started = thread::Builder::new().name("decide".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { review, rules, now, asked, answer }) = next else { return };
                let decision = decide_observed(&review, &rules, now, &mut |rule| {
                    *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some((rule.id(), Instant::now()));
                });
                // Nobody waits any more for what took too long.
                if answer.send(decision).is_err() {
                    return;
                }
            }
        });
        // Without a thread nothing is decided: callers run out of time, and that denies.
        debug_assert!(started.is_ok());
    }
}

fn taken(asked: &Mutex<Option<(String, Instant)>>) -> Option<(String, Instant)> {
    asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Evaluation recurses by an expression's nesting, which is bounded.
const STACK_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Verdict, load};

    #[test]
    fn a_worker_decides_as_everybody_does() {
        let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: a}\nspec: {enforcement: Always}\n";
        let rules = Arc::new(load([("x", rule)]).expect("a rule"));
        let mut review: Review =
            serde_json::from_value(json!({"request": {"kind": {"version": "v1", "kind": "Pod"}}})).expect("a review");
        review.object = json!({"spec": {"containers": [{"name": "a"}]}});
        let (review, now) = (Arc::new(review), Timestamp::UNIX_EPOCH);
        let worker = Worker::new(2, Duration::from_secs(5));
        for _ in 0..10 {
            let decision = worker.decide(&review, &rules, now);
            assert_eq!(decision, decide(&review, &rules, now));
            assert_eq!(decision.verdict, Verdict::Deny);
        }
        assert_eq!(rules.disabled().count(), 0);
    }

    #[test]
    fn a_rule_that_hangs_is_taken_out_and_what_it_would_decide_denies() {
        let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: a}\nspec: {enforcement: Always, validations: [{name: v, expression: 'true'}]}\n";
        let rules = Arc::new(load([("x", rule)]).expect("a rule"));
        let mut review: Review =
            serde_json::from_value(json!({"request": {"kind": {"version": "v1", "kind": "Pod"}}})).expect("a review");
        review.object = json!({"spec": {"containers": []}});
        let review = Arc::new(review);
        // No rule can be written that hangs: a worker without threads is one whose threads all do.
        let (jobs, waiting) = mpsc::channel();
        let worker = Worker { jobs, waiting: Arc::new(Mutex::new(waiting)), limit: Duration::from_millis(40) };
        let stuck = thread::spawn({
            let waiting = worker.waiting.clone();
            move || {
                let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().expect("a job");
                *job.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(("a".to_owned(), Instant::now()));
                thread::sleep(Duration::from_millis(400));
            }
        });
        thread::sleep(Duration::from_millis(20));
        let decision = worker.decide(&review, &rules, Timestamp::UNIX_EPOCH);
        assert_eq!(decision.verdict, Verdict::Deny);
        assert_eq!(decision.reasons.first().map(|reason| reason.code.as_str()), Some("RULE_DISABLED"));
        assert_eq!(rules.disabled().collect::<Vec<_>>(), ["a"]);
        stuck.join().expect("it ends");
    }
}
