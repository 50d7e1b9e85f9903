use std::os::unix::fs::PermissionsExt;

use super::*;

/// Schema of the first version.
const ONE: &[&str] = &[STEPS[0]];

const TWO: &[&str] = &[
    STEPS[0],
    "ALTER TABLE reservations ADD COLUMN note TEXT; INSERT INTO tag_settings (tag, outlive) VALUES ('new', 1)",
];

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it exists").mode() & 0o777
}

fn count(store: &Store, sql: &str) -> i64 {
    store.db.query_row(sql, [], |row| row.get(0)).expect("a number")
}

#[test]
fn files_are_their_owners_only() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("state/team");
    let path = folder.join("controller.db");
    let store = Store::open(&path).expect("a new file");
    store.write::<_, StoreError>(|write| write.log(1, "a", "b", "c")).expect("room");
    assert_eq!(mode(&folder), 0o700);
    for name in ["controller.db", "controller.db-wal", "controller.db-shm", "controller.db.lock"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    store.backup(&folder.join("copy")).expect("a new file");
    assert_eq!(mode(&folder.join("copy")), 0o600);
    assert!(matches!(store.backup(&folder.join("copy")), Err(StoreError::File { .. })), "it exists");
    drop(store);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("ours");
    assert_eq!(Store::open(&path).err(), Some(StoreError::Exposed(path.clone())));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o750)).expect("ours");
    assert_eq!(Store::open(&path).err(), Some(StoreError::Exposed(folder.clone())));
}

#[test]
fn commits_are_synchronous_and_foreign_keys_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store/controller.db")).expect("a new file");
    let text: String = store.db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a text");
    assert_eq!(text, "wal");
    assert_eq!(count(&store, "PRAGMA synchronous"), 2);
    assert_eq!(count(&store, "PRAGMA foreign_keys"), 1);
    let orphan = "INSERT INTO token_uses (token, node, at) VALUES (x'00', x'00', 1)";
    assert_eq!(store.write::<_, StoreError>(|write| write.try_run(orphan, [])), Ok(false));
}

#[test]
fn an_older_store_is_migrated_and_a_copy_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store/controller.db");
    let old = Store::open_with(&path, ONE).expect("a new file");
    old.write::<_, StoreError>(|write| write.log(1, "a", "b", "c")).expect("room");
    // Another process still has it open.
    assert_eq!(Store::open_with(&path, TWO).err(), Some(StoreError::Busy));
    drop(old);
    // An earlier migration was killed.
    std::fs::write(beside(&path, ".migrating"), "rest").expect("room");
    let new = Store::open_with(&path, TWO).expect("it is migrated");
    assert_eq!(count(&new, "SELECT count(*) FROM log"), 1);
    assert_eq!(count(&new, "SELECT count(*) FROM tag_settings"), 1);
    assert_eq!(count(&new, "PRAGMA user_version"), 2);
    let new_mark = new.is_backup();
    drop(new);
    assert_eq!(Store::open_with(&path, ONE).err(), Some(StoreError::Newer { found: 2, supported: 1 }));
    let text = StoreError::Newer { found: 2, supported: 1 }.to_string();
    assert!(text.contains("version 2") && text.contains("up to 1"));
    let backup = beside(&path, ".before-1");
    assert_eq!(mode(&backup), 0o600);
    let back = Store::open_with(&backup, ONE).expect("the earlier store");
    assert_eq!((back.is_backup(), new_mark), (Ok(true), Ok(false)));
    assert_eq!(count(&back, "SELECT count(*) FROM log"), 1);
    drop(back);
    // The mark outlives a migration.
    assert_eq!(Store::open_with(&backup, TWO).map(|store| store.is_backup()).ok(), Some(Ok(true)));
    assert!(!beside(&path, ".migrating").exists());
    // A store of the first version gets what this version needs.
    let other = folder.path().join("store/other.db");
    drop(Store::open_with(&other, ONE).expect("a new file"));
    let now = Store::open(&other).expect("it is migrated");
    assert_eq!(count(&now, "SELECT count(*) FROM issuers"), 0);
}

#[test]
fn a_migration_that_fails_leaves_the_store_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store/controller.db");
    let old = Store::open_with(&path, ONE).expect("a new file");
    old.write::<_, StoreError>(|write| write.log(1, "a", "b", "c")).expect("room");
    drop(old);
    let wrong = [STEPS[0], "DROP TABLE tag_settings; INSERT INTO nothing VALUES (1)"];
    assert!(Store::open_with(&path, &wrong).is_err());
    let store = Store::open_with(&path, ONE).expect("it is as before");
    assert_eq!(count(&store, "SELECT count(*) FROM log"), 1);
    assert_eq!(count(&store, "SELECT count(*) FROM tag_settings"), 0);
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    let store = Store::in_memory().expect("memory");
    let failed = store.write(|write| {
        write.log(1, "a", "b", "c")?;
        Err::<(), _>(StoreError::Busy)
    });
    assert_eq!(failed, Err(StoreError::Busy));
    assert_eq!(count(&store, "SELECT count(*) FROM log"), 0);
    store
        .write::<_, StoreError>(|write| {
            let inner = write.attempt(|| write.log(1, "a", "b", "c").and(Err::<(), _>(StoreError::Busy)));
            assert_eq!(inner, Err(StoreError::Busy));
            write.log(1, "d", "e", "f")
        })
        .expect("the rest counts");
    assert_eq!(count(&store, "SELECT count(*) FROM log WHERE who = 'd'"), 1);
    assert_eq!(count(&store, "SELECT count(*) FROM log"), 1);
}
