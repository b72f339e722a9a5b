//! Which bridge judges which part of a shared stream.

use lineage::{Checkpoint, Committed, Member, Part};

use super::{at, open};

fn checkpoint(part: &str, epoch: u64, offset: u64) -> Checkpoint {
    Checkpoint { bridge: part.into(), epoch, offset, judged: Vec::new(), at: at(100) }
}

pub(crate) async fn a_part_is_committed_by_who_took_it_last(url: &str) {
    let ledger = open(url).await;
    let taken = ledger.take_part("s/0", 0, "a", at(1)).await.expect("an answer").expect("it was nobody's");
    assert_eq!((taken.offset, taken.epoch), (0, 1));
    assert_eq!(ledger.take_part("s/0", 0, "b", at(1)).await.expect("an answer"), None, "another was faster");
    let done = ledger.commit(&checkpoint("s/0", 1, 10), &[], &[], &[]).await.expect("an answer");
    assert_eq!(done, Committed::Done(vec![]));

    let taken = ledger.take_part("s/0", 1, "b", at(2)).await.expect("an answer").expect("taken over");
    assert_eq!((taken.offset, taken.epoch), (10, 2));
    // The one before is not dead after all.
    let done = ledger.commit(&checkpoint("s/0", 1, 20), &[], &[], &[]).await.expect("an answer");
    assert_eq!(done, Committed::Overtaken { offset: 10 });
    ledger.give_part("s/0", 1).await.expect("an answer");
    let of = |holder: &str| vec![Part { name: "s/0".into(), holder: holder.into(), epoch: 2 }];
    assert_eq!(ledger.parts("s/").await.expect("listed"), of("b"), "what is another's is not given back");
    ledger.give_part("s/0", 2).await.expect("an answer");
    assert_eq!(ledger.parts("s/").await.expect("listed"), of(""));
    assert_eq!(ledger.parts("t/").await.expect("listed"), []);
    let done = ledger.commit(&checkpoint("t/0", 1, 1), &[], &[], &[]).await.expect("an answer");
    assert_eq!(done, Committed::Overtaken { offset: 0 }, "a part that nobody took");
}

pub(crate) async fn members_are_there_until_they_leave(url: &str) {
    let ledger = open(url).await;
    for (member, name) in [("a/1", "a"), ("b/1", "b")] {
        assert!(ledger.beat(member, name, true, at(1)).await.expect("an answer"));
    }
    assert!(ledger.beat("a/1", "a", false, at(2)).await.expect("an answer"));
    let member = |member: &str, beat| Member { member: member.into(), beat };
    assert_eq!(ledger.members().await.expect("listed"), [member("a/1", 2), member("b/1", 1)]);
    // The same bridge, started again: its earlier process is over at once, and hears so if it is not.
    assert!(ledger.beat("a/2", "a", true, at(3)).await.expect("an answer"));
    assert!(!ledger.beat("a/1", "a", false, at(4)).await.expect("an answer"));
    ledger.leave("b/1").await.expect("an answer");
    assert_eq!(ledger.members().await.expect("listed"), [member("a/2", 1)]);
}

pub(crate) async fn who_takes_a_part_sees_all_that_was_committed(url: &str) {
    let ledgers = [open(url).await, open(url).await];
    ledgers[0].take_part("s/0", 0, "a", at(1)).await.expect("an answer").expect("it was nobody's");
    for round in 1..=20_u64 {
        let writing = ledgers[0].clone();
        let writer = tokio::spawn(async move {
            let mut last = 0;
            for offset in round * 100..round * 100 + 50 {
                match writing.commit(&checkpoint("s/0", round, offset), &[], &[], &[]).await.expect("an answer") {
                    Committed::Done(_) => last = offset,
                    Committed::Overtaken { .. } => break,
                    stale @ Committed::Stale(_) => panic!("{stale:?}"),
                }
            }
            last
        });
        tokio::time::sleep(std::time::Duration::from_millis(round % 7 * 3)).await;
        let taken = ledgers[1].take_part("s/0", round, "b", at(2)).await.expect("an answer").expect("taken over");
        let last = writer.await.expect("no panic");
        assert!(last == 0 || last == taken.offset, "{last} was committed, {} was seen", taken.offset);
    }
}
