//! Several replicas on one ledger: what is lost when one of them is killed, who looks after what runs, and what is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Postgres, run};

use crate::{
    failures::{install_pods, pods, rolled, told},
    live::install::runs_as_shipped,
    load::{NO_ANSWER, create_many},
    world::{ADDRESS, OWN, World, kill_of_pod, pod, push, sleeping, wait},
};

pub(crate) fn replicas_share_a_ledger_and_one_is_killed_under_load(world: &World) {
    let postgres = Postgres::start_inside(&world.cluster, ADDRESS);
    let url = format!("{}?sslmode=disable", postgres.database("ledger"));
    let url = format!("--from-literal=url={url}");
    world.cluster.kubectl(["create", "secret", "generic", "-n", OWN, "mayfly-ledger", &url]).ok();
    install_pods(world);
    world.cluster.kubectl(["scale", "-n", OWN, "deployment/mayfly", &format!("--replicas={REPLICAS}")]).ok();
    // Those that were there before the Secret begin anew with it.
    world.cluster.kubectl(["rollout", "restart", "-n", OWN, "deployment/mayfly"]).ok();
    rolled(world);
    wait(120, "the replicas are there, and no others", || {
        let count = pods(world).len();
        if count == REPLICAS && leader(world).is_ok() { Ok(()) } else { Err(format!("{count} pods {}", told(world))) }
    });

    world.namespace("replicated", true);
    push(&world.cluster, "replicated", "127.0.0.1:5000/replicated:1");
    let image = format!("{ADDRESS}:5000/replicated:1");
    // Nowhere to run: what is tried is what becomes of reviews.
    let mut object =
        pod("replicated", "", &json!({"nodeSelector": {"nowhere": "yes"}, "containers": [sleeping(&image)]}));
    object["metadata"] = json!({"generateName": "p-", "namespace": "replicated"});
    world.until_decided(&object, None);

    let watched = Watched::default();
    let (mut answers, mut reviewed) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
    thread::scope(|scope| {
        scope.spawn(|| watched.keep(world));
        let loading = scope.spawn(|| {
            let mut answers: BTreeMap<String, usize> = BTreeMap::new();
            while !watched.is_over.load(Ordering::Relaxed) {
                for (end, count) in create_many(&world.cluster, &object, "", BATCH, 8) {
                    *answers.entry(end).or_default() += count;
                }
            }
            answers
        });
        let _over = Over(&watched.is_over);
        // The one that is asked: the API server keeps its connection as long as it lasts.
        wait(60, "one is asked", || {
            reviewed.extend(asked(world));
            if reviewed.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        });
        let first = reviewed.iter().next().cloned().expect("one is asked");
        killed(world, &first);
        wait(60, "another is asked", || {
            reviewed.extend(asked(world));
            if reviewed.len() > 1 { Ok(()) } else { Err(format!("{reviewed:?}")) }
        });
        // And the one that looks after what runs.
        let holder = leader(world).expect("one is elected");
        let at = Instant::now();
        killed(world, &holder.0);
        wait(60, "another is elected", || {
            let now = leader(world)?;
            if now == holder { Err(format!("{now:?}")) } else { Ok(()) }
        });
        println!("another was elected {:.0} s after the elected one was killed", at.elapsed().as_secs_f32());
        // A lease lasts 30 s, and is asked for every 10 s.
        assert!(at.elapsed() < Duration::from_secs(45), "{:?}", at.elapsed());
        watched.is_over.store(true, Ordering::Relaxed);
        answers = loading.join().expect("curl runs");
    });
    let created = answers.get("201").copied().unwrap_or_default();
    println!("{answers:?} while two of {REPLICAS} replicas were killed");
    assert!(answers.keys().all(|end| end == "201" || end == NO_ANSWER), "{answers:?}");
    assert!(created >= 200, "{answers:?}");
    assert_eq!(watched.most.into_inner().expect("no panic"), 1, "how many said at once that they are elected");
    rolled(world);
    let after = create_many(&world.cluster, &object, "", BATCH, 8);
    assert_eq!(after.get("201"), Some(&BATCH), "{after:?}");

    // Every pod is bound, once, to what it may do.
    let list = world.cluster.kubectl(["get", "pods", "-n", "replicated", "-o", "json"]).ok().json();
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let made: BTreeSet<String> = list["items"].as_array().expect("pods").iter().map(uid).collect();
    assert_eq!(made.len(), created + BATCH);
    wait(180, "every pod is bound once", || {
        let rows = postgres
            .query("ledger", "SELECT pod_uid FROM bindings WHERE namespace = 'replicated' AND expectation IS NOT NULL");
        let rows: Vec<&str> = rows.lines().collect();
        let bound: BTreeSet<String> = rows.iter().map(|&row| row.to_owned()).collect();
        let is_all = made.is_subset(&bound) && rows.len() == bound.len();
        if is_all {
            Ok(())
        } else {
            Err(format!("{} rows of {} pods, {} were made", rows.len(), bound.len(), made.len()))
        }
    });
    // What was decided of them, by whichever replica: all but what one that was killed had in memory.
    let without = "SELECT count(*) FROM bindings b WHERE namespace = 'replicated' AND NOT EXISTS \
         (SELECT 1 FROM decisions d WHERE d.id = b.decision AND d.verdict = 'allow')";
    let without: usize = postgres.query("ledger", without).parse().expect("a number");
    println!("{without} of {} pods have no decision in the ledger", made.len());
    assert!(without <= 2 * AT_ONCE, "{without}");
    // An image that one of them knows is not worked out by another.
    let analyses: f64 = pods(world)
        .iter()
        .map(|(_, address)| metric(world, address, "mayfly_analysis_seconds_count"))
        .sum::<f64>()
        .abs();
    println!("{analyses:.0} analyses of one image by those that live");
    assert!(analyses <= 1.0, "{analyses}");
    let lost: f64 = pods(world).iter().map(|(_, address)| metric(world, address, "mayfly_ledger_records_lost")).sum();
    assert_eq!(lost, 0.0);
    world.cluster.kubectl(["delete", "namespace", "replicated", "--wait=false"]).ok();
    // The same ledger, and the bridge beside.
    runs_as_shipped(world);
}

/// Ends what goes on beside, whatever happens here.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many replicas said at once that they are elected, at most.
#[derive(Default)]
struct Watched {
    is_over: AtomicBool,
    most: Mutex<usize>,
}

impl Watched {
    fn keep(&self, world: &World) {
        while !self.is_over.load(Ordering::Relaxed) {
            let elected = pods(world)
                .iter()
                .filter(|(_, address)| metric(world, address, "mayfly_worker_is_leader") > 0.0)
                .count();
            let mut most = self.most.lock().expect("no panic");
            *most = elected.max(*most);
            drop(most);
            thread::sleep(Duration::from_millis(500));
        }
    }
}

/// Kills a replica's process, and waits until the kubelet has started it again.
fn killed(world: &World, name: &str) {
    let object = world.cluster.get(OWN, "pod", name);
    let uid = object["metadata"]["uid"].as_str().expect("a uid");
    let restarts = |object: &Value| object["status"]["containerStatuses"][0]["restartCount"].as_u64().expect("a count");
    let before = restarts(&object);
    assert_eq!(kill_of_pod(uid, "mayfly webhook"), 1);
    let began = Instant::now();
    world.cluster.until(OWN, "pod", name, 90, |object| {
        restarts(object) > before && object["status"]["containerStatuses"][0]["ready"] == true
    });
    println!("{name} was killed, and was ready again after {:.0} s", began.elapsed().as_secs_f32());
}

/// Who is elected: the pod, and its process.
fn leader(world: &World) -> Result<(String, String), String> {
    let lease =
        world.cluster.kubectl(["get", "lease", "-n", OWN, "mayfly-worker", "-o", "jsonpath={.spec.holderIdentity}"]);
    let holder = lease.text();
    let (name, process) = holder.split_once('_').ok_or_else(|| format!("nobody: {holder} {}", lease.stderr))?;
    let is_there = pods(world).iter().any(|(pod, _)| pod == name);
    if is_there { Ok((name.to_owned(), process.to_owned())) } else { Err(format!("{name} is gone")) }
}

/// Replicas that answered more reviews than those of their readiness, by name.
fn asked(world: &World) -> BTreeSet<String> {
    let all = pods(world).into_iter();
    all.filter(|(_, address)| metric(world, address, "mayfly_review_seconds_count") >= 20.0)
        .map(|(name, _)| name)
        .collect()
}

/// A metric of a replica, all its labels together; 0 where it says nothing.
fn metric(world: &World, address: &str, name: &str) -> f64 {
    let url = format!("http://{address}:8081/metrics");
    let all = run(world.cluster.inside("curl").args(["-s", "-m", "3", &url])).text();
    let lines = all.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

const REPLICAS: usize = 3;
const BATCH: usize = 50;
/// Requests under way.
const AT_ONCE: usize = 8;
