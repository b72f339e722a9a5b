//! Incidents as they are now, kept up with the alerts of the ledger, and told to sinks.
//!
//! ```text
//! alerts, by revision ─follow─► Book: stories, chapters ─► API
//!                                └─► Standing ─news─► notices, in one transaction with what was told
//! ```
//!
//! An incident is a view of alerts and is written nowhere: every bridge has the same, from the ledger, and a restart changes nothing. What
//! is written is what sinks were told, so that one bridge tells it, once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use lineage::{After, AlertQuery, AlertSort, Ledger, Told};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::{
    alert::{Alert, Change, State},
    incident::{APART, Chapter, Incident, Stories, Tactic},
    outbox,
    sinks::{Sink, Sinks, severity},
    stored,
};

/// Incidents that anybody may ask for. Clones share them.
#[derive(Debug, Clone)]
pub struct Incidents {
    book: Arc<RwLock<Book>>,
    reached: watch::Sender<u64>,
}

impl Default for Incidents {
    fn default() -> Self {
        Self { book: Arc::default(), reached: watch::Sender::new(0) }
    }
}

/// What is known of alerts.
#[derive(Debug, Default)]
struct Book {
    stories: Stories,
    chapters: HashMap<String, Chapter>,
    /// The last change to an alert that is in it.
    revision: u64,
}

impl Book {
    fn take(&mut self, read: &Changed) {
        // What rules ignore all of is a part of no story, until something of it is not ignored.
        for alert in read.alerts.iter().filter(|alert| alert.ruled.until(alert.count).is_none()) {
            self.stories.take(alert);
            self.chapters.insert(alert.id.clone(), Chapter::new(alert));
        }
        self.revision = read.until;
    }
}

impl Incidents {
    /// Those that are made of chapters which may be told, the likeliest first.
    #[must_use]
    pub fn all(&self, may: impl Fn(&Chapter) -> bool) -> Vec<Incident> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.stories.incidents(|id| book.chapters.get(id).filter(|chapter| may(chapter)))
    }

    /// The one that an alert is a part of, of chapters which may be told.
    #[must_use]
    pub fn of(&self, alert: &str, may: impl Fn(&Chapter) -> bool) -> Option<Incident> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.stories.incident(alert, |id| book.chapters.get(id).filter(|chapter| may(chapter)))
    }

    /// Those that alerts are a part of, each once, by name; of chapters which may be told.
    #[must_use]
    pub fn touched<'a>(
        &self,
        alerts: impl IntoIterator<Item = &'a str>,
        may: impl Fn(&Chapter) -> bool,
    ) -> Vec<Incident> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.stories.touched(alerts, |id| book.chapters.get(id).filter(|chapter| may(chapter)))
    }

    /// Until a change to an alert is in them, or for so long.
    pub async fn reached(&self, revision: u64, patience: Duration) {
        let mut reached = self.reached.subscribe();
        let _ = tokio::time::timeout(patience, reached.wait_for(|reached| *reached >= revision)).await;
    }

    /// Follows the ledger's alerts until `ended`, and tells sinks what is news. `changed` says that this process wrote some.
    pub async fn follow(
        self,
        ledger: Ledger,
        sinks: Sinks,
        mut changed: watch::Receiver<()>,
        ended: impl Future<Output = ()> + Send,
    ) {
        tokio::pin!(ended);
        let follow = async {
            loop {
                // Alerts that are removed, or too old, leave with the next day's book.
                let until = Instant::now() + DAY;
                match self.open(&ledger, &sinks).await {
                    Ok(()) => {}
                    Err(error) => {
                        warn!(%error, "incidents are not known yet; it is tried again");
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                }
                while Instant::now() < until {
                    tokio::select! {
                        _ = changed.changed() => {}
                        () = tokio::time::sleep(POLL) => {}
                    }
                    changed.mark_unchanged();
                    if let Err(error) = self.catch_up(&ledger, &sinks).await {
                        warn!(%error, "incidents are not those of this moment");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = &mut ended => {}
        }
    }

    /// Makes the book anew: of as many days as fit.
    async fn open(&self, ledger: &Ledger, sinks: &Sinks) -> Result<(), lineage::Error> {
        let mut window = WINDOW;
        let book = loop {
            let mut book = Book::default();
            let since = Timestamp::now() - window;
            while book.chapters.len() <= MOST
                && let Some(read) = read(ledger, book.revision, Some(since)).await?
            {
                book.take(&read);
            }
            if book.chapters.len() <= MOST {
                break book;
            }
            window /= 2;
            warn!(
                hours = window.as_hours(),
                "there are more alerts than incidents are made of: those of so many hours are"
            );
        };
        let revision = book.revision;
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = book;
        self.reached.send_replace(revision);
        let all = self.all(|_| true);
        self.tell(ledger, sinks, all).await
    }

    async fn catch_up(&self, ledger: &Ledger, sinks: &Sinks) -> Result<(), lineage::Error> {
        loop {
            let from = self.book.read().unwrap_or_else(PoisonError::into_inner).revision;
            let Some(read) = read(ledger, from, None).await? else { return Ok(()) };
            self.book.write().unwrap_or_else(PoisonError::into_inner).take(&read);
            self.reached.send_replace(read.until);
            let touched = self.touched(read.alerts.iter().map(|alert| alert.id.as_str()), |_| true);
            self.tell(ledger, sinks, touched).await?;
        }
    }

    /// Tells sinks what is news of incidents.
    async fn tell(&self, ledger: &Ledger, sinks: &Sinks, incidents: Vec<Incident>) -> Result<(), lineage::Error> {
        let notable: Vec<Incident> = incidents.into_iter().filter(is_notable).collect();
        if notable.is_empty() || sinks.iter().next().is_none() {
            return Ok(());
        }
        let told = ledger.incidents_told(&notable.iter().flat_map(names).cloned().collect()).await?;
        for incident in notable {
            let now = Timestamp::now();
            let (id, before) = known_as(&incident, &told);
            let standing = Standing::of(&incident);
            let was = before.and_then(|told| serde_json::from_str::<Standing>(&told.what).ok());
            let Some(change) = news(was.as_ref(), &standing) else { continue };
            let standing = standing.with(was);
            let Some(last) = incident.chapters.iter().max_by_key(|chapter| chapter.last_seen) else { continue };
            let Some(row) = ledger.alerts_by_id(&[last.alert.clone()].into(), now).await?.pop() else { continue };
            let mut alert = stored::alert(&row)?;
            alert.state = stored::shown(&row.head);
            let wants = |sink: &&Sink| sink.wants_incident(&incident, &alert, standing.risk);
            let names = sinks.iter().filter(wants).map(|sink| sink.name.clone());
            let incident = Incident { id: id.clone(), ..incident.clone() };
            let notices = outbox::incident_notices(&incident, &alert, change, names)?;
            let Ok(what) = serde_json::to_string(&standing) else { continue };
            let number = before.map_or(0, |told| told.number);
            if !ledger.tell_incident(&id, number, &what, &notices, now).await? {
                tracing::debug!(incident = id, "another bridge told of it");
            }
        }
        Ok(())
    }
}

/// What an incident may have been told by: its own name, and those of its alerts.
fn names(incident: &Incident) -> impl Iterator<Item = &String> {
    [&incident.id].into_iter().chain(incident.chapters.iter().map(|chapter| &chapter.alert))
}

/// What was told of an incident, and the id by which: it may have begun earlier than was known then, or be two that were told apart.
fn known_as<'a>(incident: &Incident, told: &'a BTreeMap<String, Told>) -> (String, Option<&'a Told>) {
    match names(incident).find_map(|id| told.get_key_value(id)) {
        Some((id, told)) => (id.clone(), Some(told)),
        None => (incident.id.clone(), None),
    }
}

/// Whether an incident says more than its alerts: who went further, or was in several places.
fn is_notable(incident: &Incident) -> bool {
    let tactics: BTreeSet<Tactic> = incident.chapters.iter().filter_map(|chapter| chapter.tactic).collect();
    tactics.len() > 1 || incident.is_campaign
}

/// How far an incident is, as sinks are told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Standing {
    risk: f64,
    tactics: BTreeSet<Tactic>,
    is_campaign: bool,
    is_resolved: bool,
}

impl Standing {
    fn of(incident: &Incident) -> Self {
        Self {
            risk: incident.risk,
            tactics: incident.stages.keys().copied().collect(),
            is_campaign: incident.is_campaign,
            is_resolved: incident.state == State::Resolved,
        }
    }

    /// With all that was ever told: what decays is not told again when it rises.
    fn with(mut self, was: Option<Self>) -> Self {
        if let Some(was) = was {
            self.risk = self.risk.max(was.risk);
            self.tactics.extend(was.tactics);
            self.is_campaign |= was.is_campaign;
        }
        self
    }
}

/// What there is to tell, if anything.
fn news(was: Option<&Standing>, now: &Standing) -> Option<Change> {
    let Some(was) = was else { return (!now.is_resolved).then_some(Change::New) };
    let is_further = severity(now.risk) > severity(was.risk)
        || !now.tactics.is_subset(&was.tactics)
        || now.is_campaign && !was.is_campaign;
    match (was.is_resolved, now.is_resolved) {
        (false, true) => Some(Change::Resolved),
        (true, false) => Some(Change::Reopened),
        (false, false) if is_further => Some(Change::Escalated),
        _ => None,
    }
}

/// Alerts that changed, in the order in which they did.
pub(crate) struct Changed {
    /// As they are now.
    pub(crate) alerts: Vec<Alert>,
    /// The number of the last change.
    pub(crate) until: u64,
}

/// The next alerts by their changes; none where there are no more.
pub(crate) async fn read(
    ledger: &Ledger,
    after: u64,
    since: Option<Timestamp>,
) -> Result<Option<Changed>, lineage::Error> {
    let now = Timestamp::now();
    let asked = AlertQuery {
        sort: AlertSort::Revision,
        is_ascending: true,
        after: Some(After::revision(after)),
        since,
        limit: PAGE,
        ..AlertQuery::default()
    };
    let heads = ledger.alerts(&asked, now).await?;
    let Some(until) = heads.last().map(|head| head.revision) else { return Ok(None) };
    let mut rows = ledger.alerts_by_id(&heads.into_iter().map(|head| head.id).collect(), now).await?;
    rows.sort_by_key(|row| row.head.revision);
    let mut alerts = Vec::new();
    for row in &rows {
        match stored::alert(row) {
            Ok(alert) => alerts.push(Alert { state: stored::shown(&row.head), ..alert }),
            Err(error) => error!(%error, "an alert is in no incident"),
        }
    }
    Ok(Some(Changed { alerts, until }))
}

/// A story may go on after this much of silence, and so much of it is looked at before.
const WINDOW: SignedDuration = SignedDuration::from_hours(APART.as_hours() * 2);
/// Alerts that incidents are made of, at most: about 1 KiB each.
const MOST: usize = 50_000;
/// Alerts read at once.
const PAGE: u32 = 500;
/// Until the ledger is looked at again for what other bridges wrote.
pub(crate) const POLL: Duration = Duration::from_secs(2);
/// Between tries where the ledger fails.
const AGAIN: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use dna::Activity;
    use lineage::{Checkpoint, Committed};

    use super::*;
    use crate::{
        Class, Deviation,
        alert::{Place, collate},
        outbox::LedgerOutbox,
        sinks::{Notice, Outbox as _},
    };

    const SINKS: &str = "[[sink]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://x\"\n\
                         [[sink]]\nname = \"pager\"\nkind = \"webhook\"\nurl = \"http://x\"\nmin_risk = 0.9\n\
                         [[sink]]\nname = \"west\"\nkind = \"webhook\"\nurl = \"http://x\"\ncluster = \"west\"\n";

    fn alert(subject: &str, technique: &str, risk: f64, minute: i64) -> Alert {
        let place = Place {
            cluster: "east".to_owned(),
            namespace: "shop".to_owned(),
            owner: "Deployment/web".to_owned(),
            ..Place::default()
        };
        let deviation = Deviation {
            class: Class::Write,
            subject: subject.to_owned(),
            message: format!("writes {subject}"),
            after: None,
            layer: None,
            package: None,
            risk,
            drivers: Vec::new(),
            technique: technique.to_owned(),
            blocked: false,
        };
        let at = Timestamp::now() - SignedDuration::from_mins(60 - minute);
        let json = serde_json::json!({"at": at, "sensor": "s", "container": {}, "process": {},
            "act": {"kind": "write", "path": subject, "change": "open"}});
        let activity: Activity = serde_json::from_value(json).expect("an activity");
        let mut alert = None;
        collate(&mut alert, &place, "web-0", &deviation, &activity, std::iter::empty());
        alert.expect("an alert")
    }

    struct Bench {
        ledger: Ledger,
        sinks: Sinks,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
            let ledger = Ledger::open(&url).await.expect("a ledger");
            Self { ledger, sinks: Sinks::parse(SINKS, "s").expect("sinks"), _folder: folder }
        }

        async fn commit(&self, alerts: &[Alert]) {
            let rows: Vec<_> = alerts.iter().map(|alert| stored::row(alert, 0).expect("packed")).collect();
            let at = Timestamp::now();
            let checkpoint = Checkpoint { bridge: "b".into(), epoch: 0, offset: 1, judged: Vec::new(), at };
            let done = self.ledger.commit(&checkpoint, &rows, &[], &[]).await.expect("committed");
            assert!(matches!(done, Committed::Done(_)));
        }

        async fn resolve(&self, alert: &Alert) {
            let now = Timestamp::now();
            self.ledger.act(&alert.id, lineage::Action::Resolve, ("bob", "done"), None, now).await.expect("done");
        }

        /// What a sink was told since the last time.
        async fn told(&self, sink: &str) -> Vec<Notice> {
            let outbox = LedgerOutbox(self.ledger.clone());
            let later = Timestamp::now() + SignedDuration::from_secs(5);
            let due = outbox.due(sink, Duration::from_secs(60), 100, later).await.expect("read");
            for notice in &due {
                outbox.done(notice).await.expect("done");
            }
            due
        }
    }

    fn changes(told: &[Notice]) -> Vec<(Change, String, usize)> {
        told.iter()
            .map(|notice| {
                let incident = notice.incident.as_ref().expect("an incident");
                (notice.change, incident.id.clone(), incident.stages.len())
            })
            .collect()
    }

    #[tokio::test]
    async fn a_story_is_told_once_and_again_when_it_goes_further() {
        let bench = Bench::new().await;
        let (one, other) = (Incidents::default(), Incidents::default());
        let catch_up = async || {
            for bridge in [&one, &other] {
                bridge.catch_up(&bench.ledger, &bench.sinks).await.expect("read");
            }
        };
        for bridge in [&one, &other] {
            bridge.open(&bench.ledger, &bench.sinks).await.expect("read");
        }
        let first = alert("/etc/cron.d/x", "T1053.003", 0.6, 5);
        bench.commit(std::slice::from_ref(&first)).await;
        catch_up().await;
        assert!(bench.told("chat").await.is_empty(), "one step is its alert's own news");

        let second = alert("/run/secrets/token", "T1528", 0.5, 7);
        bench.commit(std::slice::from_ref(&second)).await;
        catch_up().await;
        let told = bench.told("chat").await;
        assert_eq!(changes(&told), [(Change::New, first.id.clone(), 2)]);
        assert_eq!(
            (told[0].id.as_str(), told[0].alert.id.as_str()),
            (&*format!("incident-{}/1", first.id), &*second.id)
        );
        assert!(bench.told("pager").await.is_empty(), "0.8 is below its floor");
        assert!(bench.told("west").await.is_empty());

        // It turns out that it began earlier, went further, and is graver: the name it was told by stays.
        bench.commit(&[alert("/tmp/x", "T1105", 0.9, 1), alert("/tmp/y", "T1105", 0.4, 2)]).await;
        catch_up().await;
        assert_eq!(changes(&bench.told("chat").await), [(Change::Escalated, first.id.clone(), 3)]);
        assert_eq!(changes(&bench.told("pager").await), [(Change::Escalated, first.id.clone(), 3)]);
        catch_up().await;
        assert!(bench.told("chat").await.is_empty());

        // A process that starts anew has nothing new to tell.
        let again = Incidents::default();
        again.open(&bench.ledger, &bench.sinks).await.expect("read");
        assert!(bench.told("chat").await.is_empty());
        assert_eq!((again.all(|_| true), again.all(|_| true).len()), (one.all(|_| true), 1));

        for incident in one.all(|_| true) {
            for chapter in incident.chapters {
                let alert = Alert { id: chapter.alert, ..first.clone() };
                bench.resolve(&alert).await;
            }
        }
        catch_up().await;
        assert_eq!(changes(&bench.told("pager").await), [(Change::Resolved, first.id.clone(), 0)]);
    }

    #[test]
    fn news_is_what_goes_further() {
        let standing = |risk, tactics: &[Tactic], is_resolved| Standing {
            risk,
            tactics: tactics.iter().copied().collect(),
            is_campaign: false,
            is_resolved,
        };
        let two = [Tactic::Execution, Tactic::Impact];
        let was = standing(0.75, &two, false);
        for (was, now, wanted) in [
            (None, was.clone(), Some(Change::New)),
            (None, standing(0.0, &[], true), None),
            (Some(&was), was.clone(), None),
            (Some(&was), standing(0.72, &two[..1], false), None),
            (Some(&was), standing(0.95, &two, false), Some(Change::Escalated)),
            (Some(&was), standing(0.75, &[Tactic::Discovery], false), Some(Change::Escalated)),
            (Some(&was), Standing { is_campaign: true, ..was.clone() }, Some(Change::Escalated)),
            (Some(&was), standing(0.0, &[], true), Some(Change::Resolved)),
            (Some(&standing(0.75, &two, true)), was.clone(), Some(Change::Reopened)),
        ] {
            assert_eq!(news(was, &now), wanted, "{was:?} {now:?}");
        }
        // What decayed and came back is no news.
        let decayed = standing(0.3, &[], false).with(Some(was.clone()));
        assert_eq!(news(Some(&decayed), &was), None);
    }
}
