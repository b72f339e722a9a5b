//! The cases of a ledger, on SQLite.

mod cases;

use std::os::unix::fs::PermissionsExt as _;

use lineage::{Error, Ledger};

fn fresh() -> (String, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (format!("sqlite:{}", folder.path().join("deep/ledger.db").display()), folder)
}

crate::suite!(fresh);

#[test]
fn only_its_user_reads_the_file() {
    let (url, folder) = fresh();
    cases::run(async {
        let ledger = Ledger::open(&url).await.expect("a ledger");
        ledger.write(&[cases::binding("p", 1).into()], cases::at(1)).await.expect("written");
        for entry in std::fs::read_dir(folder.path().join("deep")).expect("a folder") {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
        }
    });
}

#[test]
fn a_place_that_cannot_be_made_is_named() {
    cases::run(async {
        let error = Ledger::open("sqlite:/proc/nowhere/ledger.db").await.expect_err("a refusal");
        assert!(matches!(&error, Error::Place { .. }) && error.to_string().contains("/proc/nowhere"), "{error}");
    });
}

#[test]
fn another_file_is_no_ledger() {
    let (_, folder) = fresh();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "not a database at all, but long enough to be looked at ".repeat(100)).expect("written");
    cases::run(async {
        let error = Ledger::open(&format!("sqlite:{}", path.display())).await.expect_err("a refusal");
        assert!(matches!(&error, Error::Migrate { .. }) && error.to_string().contains("notes.txt"), "{error}");
    });
}
