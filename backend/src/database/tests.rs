//! What a disk and a person can do to the database.

use super::audit::{Event, Note, note};
use super::{Database, DatabaseError};

async fn empty() -> (tempfile::TempDir, Database) {
    let root = tempfile::tempdir().expect("a temporary folder can be made");
    let database = Database::create(&root.path().join("backend.sqlite")).await;
    (root, database.expect("the database can be made"))
}

#[tokio::test]
async fn a_transaction_that_sqlite_ends_by_itself_costs_no_later_one() {
    let (_root, database) = empty().await;
    // As a full disk does: the whole transaction is rolled back behind the driver.
    sqlx::query(
        "CREATE TRIGGER full BEFORE INSERT ON applied BEGIN SELECT RAISE(ROLLBACK, 'full'); END",
    )
    .execute(&database.pool)
    .await
    .expect("a trigger can be made");
    for _connection in 0..=super::CONNECTIONS_MAX {
        let refused = database.apply(1, &[]).await.expect_err("the trigger refuses");
        assert!(refused.to_string().contains("full"), "{refused}");
    }
    sqlx::query("DROP TRIGGER full").execute(&database.pool).await.expect("it is there");
    for version in 1..=8 {
        database.apply(version, &[]).await.expect("the disk has room again");
    }
    assert_eq!(database.applied_version().await.expect("it was written"), 8);
}

#[tokio::test]
async fn strangers_cannot_push_anything_but_refusals_out_of_the_audit() {
    let (_root, database) = empty().await;
    let line = |event| Note {
        event,
        member: None,
        sensor: None,
        remote: Some("192.0.2.1:5".to_owned()),
        detail: String::new(),
    };
    let mut transaction = database.pool.begin().await.expect("open");
    note(&mut transaction, 1, &line(Event::Enrolled)).await.expect("room");
    for at_ms in 2..10_100 {
        note(&mut transaction, at_ms, &line(Event::EnrolmentRefused)).await.expect("room");
    }
    transaction.commit().await.expect("room");
    let lines = database.audit(u32::MAX).await.expect("open");
    assert_eq!(lines.len(), 1 + 10_000);
    assert_eq!((lines[0].at_ms, lines[0].event.as_str()), (1, "enrolled"));
    assert_eq!((lines[1].at_ms, lines[10_000].at_ms), (100, 10_099));
}

#[tokio::test]
async fn names_can_be_printed_and_any_script_has_an_identifier() {
    let (_root, database) = empty().await;
    let long = "a".repeat(201);
    for bad in ["", "  ", "--", &long, "a\u{1b}[31m", "a\nb", "a\u{202e}b", "a\u{200b}b"] {
        let error = database.add_member(bad, &[], 1).await.expect_err(bad);
        assert!(matches!(error, DatabaseError::MemberName { .. }), "{bad:?}: {error}");
        assert!(error.to_string().len() < 400, "{error}");
    }
    for (name, id) in [
        ("Gemeente Brûlé", "gemeente-br-l"),
        ("日本", "member"),
        ("Δήμος", "member-2"),
        (" <b>&'\" ", "b"),
        ("Town", "town"),
        ("Town", "town-2"),
    ] {
        let member = database.add_member(name, &[], 1).await.expect(name);
        assert_eq!((member.id.as_str(), member.name.as_str()), (id, name.trim()));
    }
    for all in ["0.0.0.0/0", "::/0"] {
        let error = database.add_member("Town", &[all.to_owned()], 1).await.expect_err(all);
        assert!(error.to_string().contains(all), "{error}");
    }
}

#[tokio::test]
async fn a_missing_or_damaged_file_is_named() {
    let root = tempfile::tempdir().expect("a temporary folder can be made");
    let path = root.path().join("backend.sqlite");
    let missing = Database::open(&path).await.expect_err("there is no file");
    assert!(missing.to_string().contains("backend.sqlite cannot be opened"), "{missing}");
    std::fs::write(&path, "anything but a database, and long enough to have a header".repeat(40))
        .expect("a file can be written");
    let damaged = Database::open(&path).await.expect_err("it is no database");
    assert!(damaged.to_string().contains("backend.sqlite cannot be opened"), "{damaged}");
}
