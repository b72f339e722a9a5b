//! Who judges which partition, and the loops of those that are this bridge's.
//!
//! ```text
//! ledger: members, parts ─look─► View ─plan─► take, stop ─► a loop for each partition that is held
//! ```
//!
//! A bridge says once a second that it is there. One that says nothing for some seconds, by the clock of who looks, is taken for dead, and
//! its partitions are anybody's. Being wrong about it costs nothing but work: what it still judges, it cannot commit (`Ledger::take_part`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use lineage::{BlindRow, Error, Ledger, Member, Part};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};

use super::{JetStream, Origin};
use crate::{
    api::SensorHealth,
    bridge::{self, BridgeError, Healths, Parts},
    desk::DeskError,
    identity::Pod,
    watch::Seen,
};

/// A bridge among others.
#[derive(Debug)]
pub struct Group {
    /// Where it is written who judges what.
    pub ledger: Ledger,
    /// The bridge's name.
    pub name: String,
    /// What is shared.
    pub stream: Arc<JetStream>,
    /// What the clusters tell of pods.
    pub pods: mpsc::Receiver<Seen>,
    /// What the door tells of events it refused.
    pub refused: mpsc::UnboundedReceiver<BlindRow>,
    /// How sensors do.
    pub healths: Healths,
}

/// What one loop is to do.
#[derive(Debug)]
pub struct Duty {
    /// What it reads.
    pub origin: Origin,
    /// The name of its checkpoint.
    pub checkpoint: String,
    /// Under which it commits.
    pub epoch: u64,
    /// What the clusters tell of pods: all there are, then what changes.
    pub pods: mpsc::Receiver<Seen>,
    /// What the door tells of events it refused.
    pub refused: mpsc::UnboundedReceiver<BlindRow>,
}

/// Judges a share of the partitions until `shutdown`, then gives it back. `make` gives a loop what it needs beside its duty.
///
/// # Errors
/// [`BridgeError`]: of this bridge as a whole. A loop that ends alone is begun again, here or elsewhere.
pub async fn share(
    group: Group,
    make: impl Fn(Duty) -> Parts + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), BridgeError> {
    let Group { ledger, name, stream, mut pods, mut refused, healths } = group;
    let mut sharing = Sharing {
        member: format!("{name}/{}", uuid::Uuid::now_v7().simple()),
        ledger,
        name,
        make,
        stream: Arc::clone(&stream),
        view: View::default(),
        is_known: false,
        running: BTreeMap::new(),
        ending: BTreeMap::new(),
        pods: BTreeMap::new(),
        refused: Vec::new(),
    };
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tell = tokio::time::interval(TELL);
    let mut heard = stream.heard().await;
    let gone = stream.watch();
    tokio::pin!(shutdown, gone);
    let ended = loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break Ok(()),
            error = &mut gone => break Err(BridgeError::Stream(error)),
            Some(seen) = pods.recv() => sharing.pod(seen),
            Some(row) = refused.recv() => sharing.refused(row),
            Some(message) = async { heard.as_mut()?.next().await } => learn(&healths, &message.payload),
            _ = tell.tick() => {
                stream.tell_heard(&last_heard(&healths)).await;
                bridge::silent(&healths).into_iter().for_each(|row| sharing.refused(row));
                if heard.is_none() {
                    heard = stream.heard().await;
                }
            }
            _ = beat.tick() => match sharing.look().await {
                Ok(true) => {}
                Ok(false) => break Err(BridgeError::Displaced { name: sharing.name.clone() }),
                Err(error) => warn!(%error, "the ledger does not say who judges what; it is asked again"),
            },
        }
    };
    sharing.end().await;
    ended
}

/// When a sensor was last heard of: by its bridge's clock, and how many milliseconds ago, as clocks need not agree.
type Heard = BTreeMap<String, (Timestamp, u64)>;

/// When each sensor was last heard of, by any bridge that this one knows of.
fn last_heard(healths: &Healths) -> Heard {
    let healths = healths.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = |health: &SensorHealth| {
        let ago = u64::try_from(health.heard?.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some((health.last_received?, ago))
    };
    healths.iter().filter_map(|(name, health)| Some((name.clone(), heard(health)?))).collect()
}

/// A sensor that another bridge hears is not silent.
fn learn(healths: &Healths, body: &[u8]) {
    let Ok(told) = serde_json::from_slice::<Heard>(body) else { return };
    let mut healths = healths.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, (at, ago)) in told {
        let heard = Instant::now().checked_sub(Duration::from_millis(ago));
        if let Some(health) = healths.get_mut(&name)
            && heard > health.heard
        {
            (health.heard, health.last_received) = (heard, Some(at));
        }
    }
}

struct Sharing<M> {
    ledger: Ledger,
    name: String,
    member: String,
    stream: Arc<JetStream>,
    make: M,
    view: View,
    /// Whether the others were told of this member.
    is_known: bool,
    running: BTreeMap<u16, Running>,
    /// Loops that were told to end, and their partitions to be given back.
    ending: BTreeMap<u16, JoinHandle<()>>,
    pods: BTreeMap<(String, String), (Arc<Pod>, Arc<v1::Pod>)>,
    /// What no loop was there for.
    refused: Vec<BlindRow>,
}

/// A loop that runs.
struct Running {
    epoch: u64,
    stop: oneshot::Sender<()>,
    judging: JoinHandle<Result<(), BridgeError>>,
    pods: mpsc::UnboundedSender<Seen>,
    refused: mpsc::UnboundedSender<BlindRow>,
}

impl<M: Fn(Duty) -> Parts + Send> Sharing<M> {
    fn pod(&mut self, seen: Seen) {
        match &seen {
            Seen::Pod(pod, whole) => {
                let name = (pod.cluster.clone(), pod.uid.clone());
                self.pods.insert(name, (Arc::clone(pod), Arc::clone(whole)));
            }
            Seen::Gone { cluster, uid } => _ = self.pods.remove(&(cluster.clone(), uid.clone())),
        }
        for running in self.running.values() {
            // One that ended needs it no more.
            let _ = running.pods.send(seen.clone());
        }
    }

    fn refused(&mut self, row: BlindRow) {
        let row = match self.running.values().next() {
            Some(running) => match running.refused.send(row) {
                Ok(()) => return,
                Err(mpsc::error::SendError(row)) => row,
            },
            None => row,
        };
        if self.refused.len() < MOST_REFUSED {
            self.refused.push(row);
        }
    }

    fn part(&self, number: u16) -> String {
        format!("{}{number}", self.stream.checkpoints())
    }

    /// Looks who is there and takes or gives what follows from it. False: another process has this bridge's name.
    async fn look(&mut self) -> Result<bool, Error> {
        let now = Timestamp::now();
        if !self.ledger.beat(&self.member, &self.name, !self.is_known, now).await? {
            return Ok(false);
        }
        self.is_known = true;
        self.view.see(self.ledger.members().await?, Instant::now());
        let start = self.stream.checkpoints();
        let of = |part: &Part| part.name.strip_prefix(&start).and_then(|number| number.parse().ok());
        let parts: Vec<Part> = self.ledger.parts(&start).await?;
        let parts: BTreeMap<u16, Part> = parts.into_iter().filter_map(|part| Some((of(&part)?, part))).collect();
        self.ending.retain(|_, ending| !ending.is_finished());
        for number in self.ended() {
            self.stop(number);
        }
        let held = self.running.iter().map(|(number, running)| (*number, running.epoch)).collect();
        let plan = plan(&self.member, &self.view.live(Instant::now()), &parts, &held, self.stream.partitions());
        for number in plan.stop {
            self.stop(number);
        }
        let is_ending = |number: &u16| self.ending.contains_key(number);
        let take: Vec<_> = plan.take.into_iter().filter(|(number, _)| !is_ending(number)).collect();
        for (number, epoch) in take {
            let name = self.part(number);
            if let Some(checkpoint) = self.ledger.take_part(&name, epoch, &self.member, now).await? {
                info!(partition = number, from = checkpoint.offset, epoch = checkpoint.epoch, "a partition is taken");
                self.start(number, name, checkpoint.epoch);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "up to 64")]
        metrics::gauge!("mayfly_bridge_partitions").set(self.running.len() as f64);
        Ok(true)
    }

    /// Loops that ended by themselves.
    fn ended(&self) -> Vec<u16> {
        let is_over = |running: &Running| running.judging.is_finished();
        self.running.iter().filter(|(_, running)| is_over(running)).map(|(number, _)| *number).collect()
    }

    fn start(&mut self, number: u16, checkpoint: String, epoch: u64) {
        let (told, mut known) = mpsc::unbounded_channel();
        let (pods, of_loop) = mpsc::channel(1024);
        for (pod, whole) in self.pods.values() {
            let _ = told.send(Seen::Pod(Arc::clone(pod), Arc::clone(whole)));
        }
        tokio::spawn(async move {
            while let Some(seen) = known.recv().await {
                if pods.send(seen).await.is_err() {
                    return;
                }
            }
        });
        let (refused, refusals) = mpsc::unbounded_channel();
        for row in self.refused.drain(..) {
            let _ = refused.send(row);
        }
        let origin = Origin::Partition(Arc::clone(&self.stream), number);
        let parts = (self.make)(Duty { origin, checkpoint, epoch, pods: of_loop, refused: refusals });
        let (stop, stopped) = oneshot::channel::<()>();
        let judging = tokio::spawn(bridge::judge(parts, async move { _ = stopped.await }));
        self.running.insert(number, Running { epoch, stop, judging, pods: told, refused });
    }

    /// Ends a loop, which writes what it found, and gives its partition back. Others have no time to wait for it.
    fn stop(&mut self, number: u16) {
        let Some(Running { epoch, stop, judging, .. }) = self.running.remove(&number) else { return };
        let _ = stop.send(());
        let (ledger, part) = (self.ledger.clone(), self.part(number));
        let ending = tokio::spawn(async move {
            match judging.await {
                Ok(Ok(())) => info!(partition = number, "a partition is given back"),
                Ok(Err(BridgeError::Desk(DeskError::Overtaken { .. }))) => {
                    warn!(partition = number, "a partition was taken over by another bridge");
                }
                Ok(Err(error)) => warn!(partition = number, %error, "the loop of a partition ended"),
                Err(error) => warn!(partition = number, %error, "the loop of a partition broke"),
            }
            if let Err(error) = ledger.give_part(&part, epoch).await {
                warn!(partition = number, %error, "a partition is not given back; others take it in some seconds");
            }
        });
        self.ending.insert(number, ending);
    }

    async fn end(&mut self) {
        let numbers: Vec<u16> = self.running.keys().copied().collect();
        for number in numbers {
            self.stop(number);
        }
        for (_, ending) in std::mem::take(&mut self.ending) {
            // It says itself what went wrong.
            let _ = ending.await;
        }
        if self.is_known
            && let Err(error) = self.ledger.leave(&self.member).await
        {
            warn!(%error, "others are not told that this bridge ends");
        }
    }
}

/// When each member was last seen to live, by this process' clock.
#[derive(Debug, Default)]
struct View {
    seen: BTreeMap<String, (u64, Instant)>,
    last: Option<Instant>,
}

impl View {
    /// Takes in what members said. Where this bridge itself could not look for a while, nobody is blamed for it.
    fn see(&mut self, members: Vec<Member>, now: Instant) {
        let was_away = self.last.is_none_or(|last| now.duration_since(last) > LIVE / 2);
        self.last = Some(now);
        let before = std::mem::take(&mut self.seen);
        let since = |member: &Member| match before.get(&member.member) {
            Some((beat, since)) if *beat == member.beat && !was_away => *since,
            _ => now,
        };
        self.seen = members
            .into_iter()
            .map(|member| {
                let since = since(&member);
                (member.member, (member.beat, since))
            })
            .collect();
    }

    fn live(&self, now: Instant) -> BTreeSet<String> {
        let is_live = |since: &Instant| now.duration_since(*since) < LIVE;
        self.seen.iter().filter(|(_, (_, since))| is_live(since)).map(|(member, _)| member.clone()).collect()
    }
}

/// What follows from who is there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Partitions to be judged no more.
    stop: Vec<u16>,
    /// Partitions to be taken, with the epoch that is known of each.
    take: Vec<(u16, u64)>,
}

/// An even share for each: what is too much is given back, what is nobody's is taken.
fn plan(
    me: &str,
    live: &BTreeSet<String>,
    parts: &BTreeMap<u16, Part>,
    held: &BTreeMap<u16, u64>,
    partitions: u16,
) -> Plan {
    let share = usize::from(partitions).div_ceil(live.len().max(1));
    let is_mine =
        |number: &u16| parts.get(number).is_some_and(|part| part.holder == me && held.get(number) == Some(&part.epoch));
    let (mine, lost): (Vec<u16>, Vec<u16>) = held.keys().copied().partition(is_mine);
    let too_many = mine.iter().copied().skip(share);
    let is_free = |number: &u16| match parts.get(number) {
        None => true,
        Some(part) => !live.contains(&part.holder) || (part.holder == me && !held.contains_key(number)),
    };
    // Each begins elsewhere, so that they seldom reach for the same.
    let start = u16::try_from(crc32fast::hash(me.as_bytes()) % u32::from(partitions.max(1))).unwrap_or(0);
    let free = (start..partitions).chain(0..start).filter(is_free);
    let take = free.take(share.saturating_sub(mine.len()));
    let epoch = |number: u16| (number, parts.get(&number).map_or(0, |part| part.epoch));
    Plan { stop: lost.into_iter().chain(too_many).collect(), take: take.map(epoch).collect() }
}

/// How often a bridge says that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// A bridge that says nothing for so long is taken for dead.
const LIVE: Duration = Duration::from_secs(6);
/// How often others are told which sensors are heard.
const TELL: Duration = Duration::from_secs(10);
/// Refusals kept until a loop is there.
const MOST_REFUSED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn live(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn parts(holders: &[&str]) -> BTreeMap<u16, Part> {
        let part = |(number, holder): (usize, &&str)| {
            let number = u16::try_from(number).expect("small");
            (number, Part { name: format!("s/m/{number}"), holder: (*holder).to_owned(), epoch: 7 })
        };
        holders.iter().enumerate().map(part).collect()
    }

    fn held(numbers: &[u16]) -> BTreeMap<u16, u64> {
        numbers.iter().map(|number| (*number, 7)).collect()
    }

    #[test]
    fn the_first_takes_all_and_gives_back_half_when_another_comes() {
        let first = plan("a", &live(&["a"]), &BTreeMap::new(), &held(&[]), 4);
        assert_eq!(first.take.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>(), (0..4).collect());
        assert!(first.take.iter().all(|(_, epoch)| *epoch == 0) && first.stop.is_empty());
        let second = plan("a", &live(&["a", "b"]), &parts(&["a", "a", "a", "a"]), &held(&[0, 1, 2, 3]), 4);
        assert_eq!(second, Plan { stop: vec![2, 3], take: vec![] });
        let other = plan("b", &live(&["a", "b"]), &parts(&["a", "a", "", ""]), &held(&[]), 4);
        assert_eq!(other.take.iter().copied().collect::<BTreeSet<_>>(), [(2, 7), (3, 7)].into());
    }

    #[test]
    fn what_the_dead_held_is_taken_and_what_the_living_hold_is_not() {
        let known = parts(&["a", "dead", "b", "dead"]);
        let mine = plan("a", &live(&["a", "b"]), &known, &held(&[0]), 4);
        assert_eq!(mine.take.len(), 1, "an even share, not all: {mine:?}");
        assert!(mine.take.iter().all(|(number, epoch)| [1, 3].contains(number) && *epoch == 7));
    }

    #[test]
    fn what_was_lost_is_stopped_and_what_ended_is_taken_again() {
        let lost = plan("a", &live(&["a", "b"]), &parts(&["b", "a"]), &held(&[0]), 2);
        assert_eq!(lost, Plan { stop: vec![0], take: vec![(1, 7)] });
        // Under another epoch it is another's work, though it bears this name.
        let again = plan("a", &live(&["a"]), &parts(&["a"]), &[(0, 6)].into(), 1);
        assert_eq!(again, Plan { stop: vec![0], take: vec![] });
    }

    #[test]
    fn a_member_is_dead_when_its_beat_stands_still_while_others_look() {
        let member = |beat| vec![Member { member: "b".to_owned(), beat }];
        let start = Instant::now();
        let mut view = View::default();
        for second in 0..10 {
            view.see(member(1), start + Duration::from_secs(second));
        }
        assert!(view.live(start + Duration::from_secs(5)).contains("b"));
        assert!(view.live(start + Duration::from_secs(7)).is_empty());
        view.see(member(2), start + Duration::from_secs(10));
        assert!(view.live(start + Duration::from_secs(11)).contains("b"), "it is back");
    }

    #[test]
    fn a_sensor_that_another_bridge_hears_is_not_silent() {
        let health = |ago: u64| {
            let mut health = SensorHealth::new("one", "falco", "falco");
            let at = Timestamp::UNIX_EPOCH - jiff::SignedDuration::from_secs(i64::try_from(ago).expect("small"));
            (health.heard, health.last_received) = (Instant::now().checked_sub(Duration::from_secs(ago)), Some(at));
            Healths::new(BTreeMap::from([("falco".to_owned(), health)]).into())
        };
        let (ours, theirs) = (health(1000), health(2));
        assert_eq!(bridge::silent(&ours).len(), 1);
        let told = |healths| serde_json::to_vec(&last_heard(healths)).expect("JSON");
        learn(&theirs, &told(&ours));
        assert!(bridge::silent(&theirs).is_empty(), "what was heard longer ago says nothing");
        learn(&ours, &told(&theirs));
        assert!(bridge::silent(&ours).is_empty());
        let at = |healths: &Healths| last_heard(healths).remove("falco").map(|(at, _)| at);
        assert_eq!(at(&ours), at(&theirs));
    }

    #[test]
    fn nobody_is_dead_because_the_ledger_was_away() {
        let member = |beat| vec![Member { member: "b".to_owned(), beat }];
        let start = Instant::now();
        let mut view = View::default();
        view.see(member(1), start);
        view.see(member(1), start + Duration::from_secs(60));
        assert!(view.live(start + Duration::from_secs(61)).contains("b"));
    }
}
