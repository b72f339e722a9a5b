//! One replica works at a time: who holds a Lease does. Source: Kubernetes API, `coordination.k8s.io/v1`; the rules are those of
//! client-go's `leaderelection`.
//!
//! Clocks of replicas are never compared: a lease has run out when this replica has seen no change of it for as long as it says.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tracing::{debug, warn};

/// What a replica does about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is ours: renew it.
    Hold,
    /// It is nobody's: try to get it.
    Take,
    /// It is another's.
    Wait,
}

/// A lease as this replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who holds it; empty where it was given back.
    holder: String,
    /// For how long a renewal is good.
    lasts: SignedDuration,
    renewed: Option<Timestamp>,
    /// When it last changed, by this replica's own clock.
    changed: Timestamp,
}

impl Seen {
    /// Looks at a lease again.
    fn look(lease: &LeaseSpec, before: Option<&Self>, now: Timestamp) -> Self {
        let holder = lease.holder_identity.clone().unwrap_or_default();
        let renewed = lease.renew_time.as_ref().map(|MicroTime(time)| *time);
        let same = before.filter(|before| before.holder == holder && before.renewed == renewed);
        // A lease of a year by a replica that is gone would stop everyone.
        let seconds = i64::from(lease.lease_duration_seconds.unwrap_or_default()).clamp(1, MAX_SECONDS);
        let lasts = SignedDuration::from_secs(seconds);
        Self { holder, lasts, renewed, changed: same.map_or(now, |before| before.changed) }
    }
}

/// What `me` does about a lease; none: there is none yet.
pub(super) fn state(lease: Option<&Seen>, now: Timestamp, me: &str) -> State {
    match lease {
        None => State::Take,
        Some(seen) if seen.holder.is_empty() => State::Take,
        Some(seen) if now.duration_since(seen.changed) >= seen.lasts => State::Take,
        Some(seen) if seen.holder == me => State::Hold,
        Some(_) => State::Wait,
    }
}

/// Takes part in the election. Without a cluster there is nobody else.
pub(super) struct Election {
    leases: Option<Api<Lease>>,
    me: String,
}

impl Election {
    pub(super) fn new(client: Option<&Client>, namespace: &str, me: String) -> Self {
        Self { leases: client.map(|client| Api::namespaced(client.clone(), namespace)), me }
    }

    /// Returns once this replica is elected.
    pub(super) async fn win(&self) {
        let Some(leases) = &self.leases else { return };
        let (mut seen, mut told) = (None, String::new());
        loop {
            match self.attempt(leases, &mut seen).await {
                Ok(true) => return,
                Ok(false) => told.clear(),
                Err(error) => {
                    let error = error.to_string();
                    if told != error {
                        warn!(error, lease = LEASE, "nobody can be elected to look after what runs");
                    }
                    told = error;
                }
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Returns once this replica is no longer elected, well before another may be.
    pub(super) async fn hold(&self) {
        let Some(leases) = &self.leases else { return std::future::pending().await };
        let (mut seen, mut renewed) = (None, tokio::time::Instant::now());
        loop {
            tokio::time::sleep(RENEW).await;
            let until = renewed + GIVE_UP;
            let asked = tokio::time::Instant::now();
            match tokio::time::timeout_at(until, self.attempt(leases, &mut seen)).await {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    debug!(%error, "the lease was not renewed");
                    if asked >= until {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub(super) async fn release(&self) {
        let Some(leases) = &self.leases else { return };
        let released = async {
            let Some(mut lease) = leases.get_opt(LEASE).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
                return Ok(());
            }
            spec.holder_identity = None;
            leases.replace(LEASE, &PostParams::default(), &lease).await.map(|_| ())
        };
        match tokio::time::timeout(LAST, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the lease runs out by itself"),
            Err(late) => debug!(%late, "the lease runs out by itself"),
        }
    }

    /// Takes or renews the lease where that is ours to do; whether we hold it.
    async fn attempt(&self, leases: &Api<Lease>, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        let found = leases.get_opt(LEASE).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        *seen = spec.map(|spec| Seen::look(spec, seen.as_ref(), now));
        let is_change = match state(seen.as_ref(), now, &self.me) {
            State::Wait => return Ok(false),
            State::Hold => false,
            State::Take => true,
        };
        let written = match found {
            None => {
                let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(None, now, true)) };
                leases.create(&PostParams::default(), &lease).await
            }
            // With the version it was read in: of two who take it at once, one is refused.
            Some(mut lease) => {
                lease.spec = Some(self.spec(lease.spec.as_ref(), now, is_change));
                leases.replace(LEASE, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: Timestamp, is_change: bool) -> LeaseSpec {
        let before = before.cloned().unwrap_or_default();
        let acquired = before.acquire_time.clone().filter(|_| !is_change).unwrap_or(MicroTime(now));
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            acquire_time: Some(acquired),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default().saturating_add(is_change.into())),
            ..before
        }
    }
}

/// The Lease's name, in the webhook's own namespace.
pub(super) const LEASE: &str = "mayfly-worker";

const LASTS: Duration = Duration::from_secs(30);
const RENEW: Duration = Duration::from_secs(10);
/// A holder that cannot renew ends its work so long after the last renewal: before [`LASTS`], as requests are under way.
const GIVE_UP: Duration = Duration::from_secs(20);
const LAST: Duration = Duration::from_secs(3);
const MAX_SECONDS: i64 = 300;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::worker::fake::Fake;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(30),
            renew_time: Some(MicroTime(at(renewed))),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_anothers_until_nothing_was_seen_of_him_for_as_long_as_it_lasts() {
        assert_eq!(state(None, at(0), "me"), State::Take);
        // The holder's clock is an hour behind ours, which is no matter.
        let seen = Seen::look(&lease("other", 1_000), None, at(4_600));
        assert_eq!(state(Some(&seen), at(4_600), "me"), State::Wait);
        assert_eq!(state(Some(&seen), at(4_629), "me"), State::Wait);
        let unchanged = Seen::look(&lease("other", 1_000), Some(&seen), at(4_630));
        assert_eq!(state(Some(&unchanged), at(4_630), "me"), State::Take);
        let renewed = Seen::look(&lease("other", 1_010), Some(&seen), at(4_630));
        assert_eq!(state(Some(&renewed), at(4_640), "me"), State::Wait);
    }

    #[test]
    fn our_own_lease_is_held_while_it_lasts_and_one_given_back_is_taken() {
        let seen = Seen::look(&lease("me", 0), None, at(0));
        assert_eq!(state(Some(&seen), at(29), "me"), State::Hold);
        assert_eq!(state(Some(&seen), at(30), "me"), State::Take, "it ran out: another may have had it");
        assert_eq!(state(Some(&Seen::look(&lease("", 0), None, at(0))), at(0), "me"), State::Take);
        let endless = LeaseSpec { lease_duration_seconds: Some(i32::MAX), ..lease("other", 0) };
        assert_eq!(state(Some(&Seen::look(&endless, None, at(0))), at(300), "me"), State::Take);
    }

    #[tokio::test]
    async fn of_two_who_want_it_one_gets_it_until_he_gives_it_back() {
        let fake = Fake::default();
        let one = Arc::new(Election::new(Some(&fake.client()), "mayfly-system", "one".to_owned()));
        let two = Election::new(Some(&fake.client()), "mayfly-system", "two".to_owned());
        one.win().await;
        let leases = two.leases.clone().expect("a cluster");
        let mut seen = None;
        assert!(!two.attempt(&leases, &mut seen).await.expect("an answer"));
        assert!(one.attempt(&leases, &mut None).await.expect("an answer"), "the holder renews");
        // Between our reading and our writing somebody else writes.
        fake.state().races = 1;
        assert!(!one.attempt(&leases, &mut None).await.expect("a conflict is an answer"));
        two.release().await;
        assert!(!two.attempt(&leases, &mut seen).await.expect("an answer"), "only the holder gives it back");
        one.release().await;
        assert!(two.attempt(&leases, &mut seen).await.expect("an answer"));
        let lease = leases.get(LEASE).await.expect("a lease").spec.expect("a spec");
        assert_eq!((lease.holder_identity.as_deref(), lease.lease_transitions), (Some("two"), Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_stops_before_another_begins() {
        let fake = Fake::default();
        let one = Election::new(Some(&fake.client()), "mayfly-system", "one".to_owned());
        one.win().await;
        fake.state().is_down = true;
        let started = tokio::time::Instant::now();
        one.hold().await;
        assert!(started.elapsed() < LASTS, "{:?}", started.elapsed());
    }
}
