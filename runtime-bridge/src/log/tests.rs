#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{segment::faults, *};

const SMALL: u64 = 4 << 10;

fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::default() }
}

fn open(folder: &Path, segment_bytes: u64) -> Log {
    let (log, recovery) = Log::open(folder, options(segment_bytes)).expect("opens");
    assert_eq!(recovery, Recovery::default());
    log
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

async fn append(log: &Log, items: &[&str]) -> Result<u64, Error> {
    let items: Vec<&[u8]> = items.iter().map(|item| item.as_bytes()).collect();
    let received = Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time");
    let batch = Batch { sensor: "falco", dialect: "falco", received, is_over_limit: false, items: &items };
    log.append(&batch).await.map(|offset| offset.0)
}

/// Everything a log has, and what it says is lost.
fn all(log: &Log) -> (BTreeMap<u64, String>, Vec<Damage>) {
    let mut reader = log.reader(Offset(0));
    let (mut records, mut damages) = (BTreeMap::new(), Vec::new());
    while let Some(read) = reader.read().expect("reads") {
        match read {
            Read::Records(read) => {
                for record in read {
                    let body = String::from_utf8(record.body.to_vec()).expect("text");
                    let newest = records.last_key_value().map(|(offset, _)| *offset);
                    assert!(newest.is_none_or(|newest| newest < record.offset.0), "in order, each once");
                    records.insert(record.offset.0, body);
                }
            }
            Read::Damaged(damage) => damages.push(damage),
        }
    }
    (records, damages)
}

fn texts(log: &Log) -> Vec<String> {
    let (records, damages) = all(log);
    assert_eq!(damages, []);
    records.into_values().collect()
}

#[test]
fn what_was_appended_is_read_from_any_offset_also_by_the_next_process() {
    let folder = TempDir::new().expect("a folder");
    runtime().block_on(async {
        let log = open(folder.path(), SMALL);
        let received = Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time");
        let batch = Batch { sensor: "a", dialect: "d", received, is_over_limit: true, items: &[b"x", b"", b"z"] };
        assert_eq!(log.append(&batch).await.expect("appended"), Offset(0));
        assert_eq!(append(&log, &["later"]).await.expect("appended"), 3);
        let mut reader = log.reader(Offset(1));
        let Some(Read::Records(records)) = reader.read().expect("reads") else { panic!("records") };
        let told: Vec<_> = records.iter().map(|record| (record.offset.0, &record.body[..])).collect();
        assert_eq!(told, [(1, &b""[..]), (2, b"z")]);
        let first = &records[0];
        assert_eq!((&*first.sensor, &*first.dialect, first.received, first.is_over_limit), ("a", "d", received, true));
        for number in 0..200 {
            append(&log, &[&format!("{number} {}", "-".repeat(200))]).await.expect("appended");
        }
        assert!(segment::all(folder.path()).expect("a folder").len() > 5, "several segments");
    });
    let log = open(folder.path(), SMALL);
    assert_eq!(log.end(), Offset(204));
    assert_eq!(texts(&log).len(), 204);
    let mut reader = log.reader(Offset(150));
    let Some(Read::Records(records)) = reader.read().expect("reads") else { panic!("records") };
    assert!(records[0].offset == Offset(150) && records[0].body.starts_with(b"146 "));
}

#[test]
fn a_reader_waits_for_more() {
    let folder = TempDir::new().expect("a folder");
    runtime().block_on(async {
        let log = open(folder.path(), SMALL);
        let mut reader = log.reader(Offset(0));
        assert_eq!(reader.read().expect("reads"), None);
        let appending = log.clone();
        let appended = tokio::spawn(async move { append(&appending, &["x"]).await });
        reader.wait().await;
        assert!(matches!(reader.read().expect("reads"), Some(Read::Records(_))));
        assert_eq!(appended.await.expect("runs").expect("appended"), 0);
    });
}

#[test]
fn a_reader_beside_the_writer_sees_whole_frames_only() {
    let folder = TempDir::new().expect("a folder");
    let log = open(folder.path(), SMALL);
    let mut reader = log.reader(Offset(0));
    let reading = std::thread::spawn(move || {
        let mut next = 0;
        while next < 2000 {
            match reader.read().expect("reads") {
                None => std::thread::yield_now(),
                Some(Read::Damaged(damage)) => panic!("{damage}"),
                Some(Read::Records(records)) => {
                    for record in records {
                        assert_eq!(record.offset.0, next);
                        next += 1;
                    }
                }
            }
        }
    });
    runtime().block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    for number in 0..125 {
                        let item = "-".repeat(number * 7);
                        append(&log, &[&item, "x"]).await.expect("appended");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("runs");
        }
    });
    reading.join().expect("all was read");
}

#[test]
fn many_who_wait_share_a_sync_and_keep_their_order() {
    let folder = TempDir::new().expect("a folder");
    runtime().block_on(async {
        let log = open(folder.path(), 64 << 20);
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut offsets = Vec::new();
                    for number in 0..20 {
                        offsets.push((append(&log, &[&format!("{task} {number}")]).await.expect("appended"), number));
                    }
                    (task, offsets)
                })
            })
            .collect();
        let mut promised = BTreeMap::new();
        for task in tasks {
            let (task, offsets) = task.await.expect("runs");
            promised.extend(offsets.into_iter().map(|(offset, number)| (offset, format!("{task} {number}"))));
        }
        assert_eq!(all(&log), (promised, Vec::new()));
    });
}

#[test]
fn a_cursor_goes_on_where_it_was_done() {
    let folder = TempDir::new().expect("a folder");
    runtime().block_on(async {
        let log = open(folder.path(), SMALL);
        let mut cursor = log.cursor("judge").expect("a cursor");
        assert!(log.cursor("judge").expect_err("in use").to_string().contains("in use"));
        for name in ["", "../x", "A", "a.new"] {
            assert!(matches!(log.cursor(name), Err(Error::Cursor { .. })), "{name}");
        }
        for item in ["a", "b", "c"] {
            append(&log, &[item]).await.expect("appended");
        }
        cursor.read().expect("reads").expect("records");
        cursor.commit(Offset(99)).expect("committed");
        assert_eq!(cursor.committed(), Offset(1), "no more than was read");
        cursor.read().expect("reads").expect("records");
    });
    let log = open(folder.path(), SMALL);
    let mut cursor = log.cursor("judge").expect("a cursor");
    let Some(Read::Records(records)) = cursor.read().expect("reads") else { panic!("records") };
    assert_eq!(&records[0].body[..], b"b", "read, but not done");
    drop((cursor, log));
    fs::write(folder.path().join("cursors/judge"), "00000000000000000002 00000000\n").expect("spoiled");
    let error = Log::open(folder.path(), options(SMALL)).expect_err("no cursor").to_string();
    assert!(error.contains("cursors/judge does not read; remove it"), "{error}");
}

#[test]
fn an_offset_that_was_done_is_not_given_again_though_its_record_is_gone() {
    let folder = TempDir::new().expect("a folder");
    runtime().block_on(async {
        let log = open(folder.path(), SMALL);
        let mut cursor = log.cursor("judge").expect("a cursor");
        for item in ["a", "b", "c"] {
            append(&log, &[item]).await.expect("appended");
        }
        while cursor.read().expect("reads").is_some() {}
        cursor.commit(log.end()).expect("committed");
        drop((cursor, log));
        let file = File::options().write(true).open(segment::path(folder.path(), 0)).expect("a segment");
        file.set_len(file.metadata().expect("a file").len() - 1).expect("cut");

        let (log, recovery) = Log::open(folder.path(), options(SMALL)).expect("opens");
        assert!(recovery.torn.is_some_and(|torn| torn.bytes > 32));
        let mut cursor = log.cursor("judge").expect("a cursor");
        assert_eq!(append(&log, &["d"]).await.expect("appended"), 3);
        let Some(Read::Records(records)) = cursor.read().expect("reads") else { panic!("records") };
        assert_eq!(&records[0].body[..], b"d");
        let (records, damages) = all(&log);
        assert_eq!(records.into_values().collect::<Vec<_>>(), ["a", "b", "d"]);
        let lost: Vec<_> = damages.iter().map(|damage| (damage.first.0, damage.records)).collect();
        assert_eq!(lost, [(2, 1)]);
    });
}

#[test]
fn only_what_all_have_passed_is_removed() {
    let folder = TempDir::new().expect("a folder");
    let kept = || segment::all(folder.path()).expect("a folder").first().expect("one").0;
    let body = "-".repeat(1000);
    runtime().block_on(async {
        let options = Options { keep: Duration::ZERO, ..options(SMALL) };
        let (log, _) = Log::open(folder.path(), options).expect("opens");
        let (mut one, two) = (log.cursor("one").expect("a cursor"), log.cursor("two").expect("a cursor"));
        for _ in 0..20 {
            append(&log, &[&body]).await.expect("appended");
        }
        while one.read().expect("reads").is_some() {}
        one.commit(Offset(20)).expect("committed");
        for _ in 0..5 {
            append(&log, &[&body]).await.expect("appended");
        }
        assert_eq!(kept(), 0, "the other has read nothing");
        drop(two);
        assert_eq!(kept(), 0, "nor is it gone for good");
        log.forget("two").expect("forgotten");
        for _ in 0..5 {
            append(&log, &[&body]).await.expect("appended");
        }
        drop((one, log));
        let first = kept();
        assert!((15..=20).contains(&first), "{first}");
        let log = open(folder.path(), SMALL);
        assert_eq!(all(&log).0.len() as u64, 30 - first);
    });
}

#[test]
fn the_limit_on_disk_loses_nothing_that_is_not_read() {
    let folder = TempDir::new().expect("a folder");
    let body = "-".repeat(1000);
    runtime().block_on(async {
        let options = Options { max_bytes: 20_000, ..options(SMALL) };
        let (log, _) = Log::open(folder.path(), options).expect("opens");
        let mut cursor = log.cursor("judge").expect("a cursor");
        let mut taken = 0;
        let error = loop {
            match append(&log, &[&body]).await {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Limit { limit_bytes: 20_000, .. }), "{error}");
        assert!(taken > 10 && log.unread_part() > 0.8 && texts(&log).len() == taken);
        while cursor.read().expect("reads").is_some() {}
        cursor.commit(log.end()).expect("committed");
        append(&log, &[&body]).await.expect("room again, though nothing is old");
        assert!(log.unread_part() < 0.4);
    });
}

#[test]
fn a_batch_that_is_too_large_is_refused() {
    let folder = TempDir::new().expect("a folder");
    runtime().block_on(async {
        let log = open(folder.path(), SMALL);
        let large = "x".repeat(MAX_BATCH_BYTES);
        assert!(matches!(append(&log, &[&large]).await, Err(Error::TooLarge { .. })));
        append(&log, &[&large[..1 << 20]]).await.expect("larger than a segment, alone");
        append(&log, &["y"]).await.expect("appended");
        assert_eq!(texts(&log).len(), 2);
    });
}

#[test]
fn a_write_or_sync_that_fails_promises_nothing_and_leaves_no_trace() {
    // Ends after a write, after a sync, and after one that succeeded.
    for rounds in [27, 29, 30] {
        let folder = TempDir::new().expect("a folder");
        let segments = || segment::all(folder.path()).expect("a folder").len();
        runtime().block_on(async {
            let log = open(folder.path(), 64 << 20);
            let faults = faults::of(folder.path());
            let mut expected = Vec::new();
            for round in 0..rounds {
                match round % 5 {
                    1 => faults.writes.store(1, Ordering::SeqCst),
                    3 => faults.syncs.store(1, Ordering::SeqCst),
                    _ => {}
                }
                let text = format!("{round} {}", "-".repeat(300));
                let before = segments();
                match (append(&log, &[&text]).await, round % 5) {
                    (Err(Error::Full { .. }), 1) | (Err(Error::Write { .. }), 3) => {}
                    (Ok(offset), 0 | 2 | 4) => {
                        assert_eq!(offset, expected.len() as u64);
                        expected.push(text);
                    }
                    (result, _) => panic!("round {round}: {result:?}"),
                }
                // What a file is worth after a failed sync, nobody knows.
                assert_eq!(segments() - before, usize::from(round % 5 == 4), "round {round}");
                assert_eq!(texts(&log), expected);
            }
            drop(log);
            assert_eq!(texts(&open(folder.path(), SMALL)), expected);
        });
    }
}

/// What a child of these tests is to do.
const FOLDER_OF_CHILD: &str = "MAYFLY_TEST_LOG";

fn child(folder: &Path, round: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "log::tests::child_that_appends", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER_OF_CHILD, folder)
        .env("MAYFLY_TEST_ROUND", round)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs")
}

#[test]
#[ignore = "a process of its own: others start it"]
fn child_that_appends() {
    let Some(folder) = std::env::var_os(FOLDER_OF_CHILD) else { return };
    let round = std::env::var("MAYFLY_TEST_ROUND").expect("a round");
    let say = |line: String| std::io::stdout().lock().write_all(line.as_bytes()).expect("a pipe");
    let log = match Log::open(Path::new(&folder), options(64 << 10)) {
        Ok((log, _)) => log,
        Err(error) => return say(format!("\nrefused {error}\n")),
    };
    runtime().block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let (log, round) = (log.clone(), round.clone());
                tokio::spawn(async move {
                    for number in 0.. {
                        let item = format!("{round} {task} {number} {}", "-".repeat(number % 1000));
                        let offset = append(&log, &[&item]).await.expect("appended");
                        say(format!("\nack {offset} {round} {task} {number}\n"));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("for ever");
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let folder = TempDir::new().expect("a folder");
    let mut promised: HashMap<u64, String> = HashMap::new();
    let mut acked: HashMap<(u64, u64), u64> = HashMap::new();
    for round in 0..10_u64 {
        let mut child = child(folder.path(), &round.to_string());
        let pipe = BufReader::new(child.stdout.take().expect("a pipe"));
        let listening = std::thread::spawn(move || {
            let lines = pipe.lines().map_while(Result::ok);
            lines.filter_map(|line| Some(line.strip_prefix("ack ")?.to_owned())).collect::<Vec<_>>()
        });
        // Any time at all, also while it opens.
        let nanos = u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs());
        std::thread::sleep(Duration::from_millis(20 + round * 40 + nanos / 1000 % 100));
        child.kill().expect("killed");
        child.wait().expect("ended");
        for ack in listening.join().expect("listened") {
            let (offset, item) = ack.split_once(' ').expect("an offset");
            let numbers: Vec<u64> = item.split(' ').filter_map(|number| number.parse().ok()).collect();
            // A line that the kill cut short promises nothing.
            let [round_of, task, number] = numbers[..] else { continue };
            promised.insert(offset.parse().expect("a number"), item.to_owned());
            let newest = acked.entry((round_of, task)).or_default();
            *newest = number.max(*newest);
        }
    }
    let (log, recovery) = Log::open(folder.path(), options(64 << 10)).expect("opens");
    assert_eq!(recovery.damaged, []);
    let (records, damages) = all(&log);
    assert_eq!(damages, []);
    assert!(promised.len() > 100, "{} promised: too few to show anything", promised.len());
    for (offset, item) in &promised {
        let record = records.get(offset).expect("what was promised");
        assert!(record.starts_with(&format!("{item} ")), "{offset}: {item}");
    }
    let mut counted: HashMap<(u64, u64), u64> = HashMap::new();
    for record in records.values() {
        let numbers: Vec<u64> = record.split(' ').filter_map(|number| number.parse().ok()).collect();
        let next = counted.entry((numbers[0], numbers[1])).or_default();
        assert_eq!(numbers[2], *next, "each once, in order");
        *next += 1;
    }
    for (of, newest) in acked {
        assert!((newest + 1..=newest + 2).contains(&counted[&of]), "at most the one under way besides");
    }
}

#[test]
fn a_second_process_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let log = open(folder.path(), SMALL);
    let output = child(folder.path(), "0").wait_with_output().expect("ends");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let place = folder.path().display();
    let expected = format!("refused the log in {place} is in use by process {}; end it", std::process::id());
    assert!(told.contains(&expected), "{told}");
    drop(log);
    open(folder.path(), SMALL);
}

/// A disk of one MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "mayfly-test"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_and_space_makes_it_work_again() {
    let Some(disk) = SmallDisk::mount() else {
        writeln!(std::io::stderr(), "SKIPPED: a full disk needs root, to mount a small one").expect("standard error");
        return;
    };
    runtime().block_on(async {
        let folder = disk.0.path().join("log");
        let log = open(&folder, 128 << 10);
        let mut cursor = log.cursor("judge").expect("a cursor");
        let body = "-".repeat(20_000);
        let mut taken = Vec::new();
        let fill = async |taken: &mut Vec<String>| loop {
            let text = format!("{} {body}", taken.len());
            match append(&log, &[&text]).await {
                Ok(offset) => {
                    assert_eq!(offset, taken.len() as u64);
                    taken.push(text);
                }
                Err(error) => break error,
            }
        };
        let filler = disk.0.path().join("filler");
        fs::write(&filler, vec![0; 300_000]).expect("written");
        let error = fill(&mut taken).await;
        assert!(matches!(error, Error::Full { .. }) && error.to_string().contains("is full"), "{error}");
        assert!(taken.len() > 10 && texts(&log) == taken, "all that was promised, and no more");

        fs::remove_file(filler).expect("removed");
        let before = taken.len();
        assert!(matches!(fill(&mut taken).await, Error::Full { .. }));
        assert!(taken.len() > before, "space came back");
        // Not a byte is left: a reader can say what it is done with all the same.
        let rest = File::create(disk.0.path().join("rest")).expect("a file");
        while rest.write_at(&[0; 4096], rest.metadata().expect("a file").len()).is_ok_and(|written| written > 0) {}
        while cursor.read().expect("reads").is_some() {}
        cursor.commit(log.end()).expect("committed");
        drop((cursor, log));
        let (log, recovery) = Log::open(&folder, options(128 << 10)).expect("opens on a full disk");
        assert_eq!(recovery.damaged, []);
        assert_eq!(log.cursor("judge").expect("a cursor").committed(), Offset(taken.len() as u64));
        assert_eq!(texts(&log), taken);
    });
}

/// Something that happens to a file.
#[derive(Debug, Clone)]
enum Spoil {
    Cut,
    Flip(u8),
    Zeros(usize),
    Remove,
}

fn spoils() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        Just(Spoil::Cut),
        (1..=255_u8).prop_map(Spoil::Flip),
        (1..2000_usize).prop_map(Spoil::Zeros),
        Just(Spoil::Remove)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_damaged_is_said_and_the_rest_is_read(
        batches in proptest::collection::vec(proptest::collection::vec(0..600_usize, 1..4), 1..40),
        spoiled in proptest::collection::vec((spoils(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..3),
    ) {
        let folder = TempDir::new().expect("a folder");
        let mut written = BTreeMap::new();
        runtime().block_on(async {
            let log = open(folder.path(), SMALL);
            for lengths in &batches {
                let items: Vec<String> = lengths.iter().map(|length| format!("{} {}", written.len(), "-".repeat(*length))).collect();
                let first = append(&log, &items.iter().map(String::as_str).collect::<Vec<_>>()).await.expect("appended");
                written.extend((first..).zip(items));
            }
        });
        let segments = segment::all(folder.path()).expect("a folder");
        let is_cut = spoiled.iter().any(|(spoil, ..)| matches!(spoil, Spoil::Cut | Spoil::Remove));
        for (spoil, segment, position) in spoiled {
            let (first, segment) = segment.get(&segments);
            let path = segment::path(folder.path(), *first);
            let position = position.index(usize::try_from(segment.bytes).expect("small"));
            let Ok(mut bytes) = fs::read(&path) else { continue };
            match spoil {
                Spoil::Cut => bytes.truncate(position),
                Spoil::Flip(with) => bytes.iter_mut().skip(position).take(1).for_each(|byte| *byte ^= with),
                Spoil::Zeros(length) => bytes.iter_mut().skip(position).take(length).for_each(|byte| *byte = 0),
                Spoil::Remove => {
                    fs::remove_file(&path).expect("removed");
                    continue;
                }
            }
            fs::write(&path, bytes).expect("written");
        }
        let (log, recovery) = Log::open(folder.path(), options(SMALL)).expect("opens, whatever happened");
        let (records, damages) = all(&log);
        let is_last_gone = is_cut || recovery.torn.is_some();
        let oldest = segment::all(folder.path()).expect("a folder").first().map_or(0, |(first, _)| *first);
        for (offset, text) in &written {
            match records.get(offset) {
                Some(read) => prop_assert_eq!(read, text),
                None => {
                    let is_told = recovery.damaged.iter().chain(&damages).any(|damage| {
                        (damage.first.0..damage.first.0 + damage.records).contains(offset)
                    });
                    // The end, cut off; or what somebody took away at either end, which nothing is left to tell of.
                    prop_assert!(is_told || is_last_gone && *offset >= log.end().0 || *offset < oldest, "{} is lost without a word", offset);
                }
            }
        }
        prop_assert!(records.keys().all(|offset| written.contains_key(offset)), "nothing is made up");
        runtime().block_on(async {
            let end = log.end().0;
            assert_eq!(append(&log, &["after"]).await.expect("appended"), end);
            assert_eq!(all(&log).0.get(&end).map(String::as_str), Some("after"));
        });
        drop(log);
        let (log, _) = Log::open(folder.path(), options(SMALL)).expect("opens again");
        prop_assert_eq!(all(&log).0.len(), records.len() + 1);
    }
}
