//! Names, turns and ends of files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::{Files, Rotation};

/// 2026-05-28T20:26:40Z.
const NOW_MS: u64 = 1_780_000_000_000;

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().expect("the folder is there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn series(folder: &TempDir, rotation: Rotation) -> Files {
    let path = folder.path().join("flows.json");
    Files::open(Some(&path), rotation, false, NOW_MS).expect("the folder takes a file")
}

#[test]
fn a_single_file_keeps_its_name_and_is_not_for_everybody() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut files = series(&folder, Rotation::default());
    files.write_all(b"one").expect("room");
    assert!(!files.is_due(1 << 40, u64::MAX), "there is no second one");
    files.complete().expect("nothing to rename");
    assert_eq!(names(folder.path()), ["flows.json"]);
    let mode = fs::metadata(folder.path().join("flows.json")).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o137, 0, "neither for others, nor for the group to write");
}

#[test]
fn what_is_useless_in_half_gets_its_name_at_the_end() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("flows.parquet");
    fs::write(&path, "an earlier one").expect("the folder takes a file");
    let mut files = Files::open(Some(&path), Rotation::default(), true, NOW_MS).expect("room");
    files.write_all(b"whole").expect("room");
    assert_eq!(fs::read(&path).expect("it is there"), b"an earlier one");
    assert_eq!(names(folder.path()), ["flows.parquet", "flows.parquet.partial"]);
    assert!(files.to_string().ends_with("flows.parquet.partial"), "errors name what is written");
    files.complete().expect("it can be renamed");
    assert_eq!(fs::read(&path).expect("it is there"), b"whole");
    assert_eq!(names(folder.path()), ["flows.parquet"]);
}

#[test]
fn a_series_turns_by_size_and_by_the_clock() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation =
        Rotation { file_bytes_max: Some(100), file_period_ms: Some(60_000), files_max: None };
    let mut files = series(&folder, rotation);
    assert!(!files.is_due(0, NOW_MS + 3_600_000), "an empty file is not ended");
    assert!(!files.is_due(99, NOW_MS) && files.is_due(100, NOW_MS));
    files.write_all(&[b'x'; 60]).expect("room");
    assert!(files.is_due(40, NOW_MS), "what was written counts");
    // 20:26:40: the minute ends 20 s later.
    assert!(!files.is_due(0, NOW_MS + 19_999) && files.is_due(0, NOW_MS + 20_000));
    assert!(!files.is_due(0, NOW_MS - 3_600_000), "a clock that is set back ends nothing");
    files.next(NOW_MS + 20_000).expect("the folder takes a file");
    assert_eq!(
        names(folder.path()),
        ["flows.20260528T202640Z.000001.json", "flows.20260528T202700Z.000002.json.partial"]
    );
    files.complete().expect("it can be renamed");
    assert_eq!(names(folder.path())[1], "flows.20260528T202700Z.000002.json");
}

#[test]
fn nothing_is_written_over() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation = Rotation { file_bytes_max: Some(1), ..Rotation::default() };
    let mut first = series(&folder, rotation);
    let mut second = series(&folder, rotation);
    first.write_all(b"first").expect("room");
    second.write_all(b"second").expect("room");
    // Somebody else takes the name before the file is complete.
    fs::write(folder.path().join("flows.20260528T202640Z.000002.json"), "other").expect("room");
    first.complete().expect("its name is free");
    second.complete().expect_err("its name is taken");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it is there");
    assert_eq!(read("flows.20260528T202640Z.000001.json"), "first");
    assert_eq!(read("flows.20260528T202640Z.000002.json"), "other");
    assert_eq!(read("flows.20260528T202640Z.000002.json.partial"), "second");
    let mut third = series(&folder, rotation);
    third.write_all(b"third").expect("room");
    third.complete().expect("it found a free name");
    assert_eq!(read("flows.20260528T202640Z.000003.json"), "third");
}

#[test]
fn the_oldest_files_are_deleted_and_counted_and_others_left_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let others = [
        "flows.json",
        "flows.20200101T000000Z.000001.csv",
        "flows.20200101T000000Z.000001.json.partial",
        "flows.20200101T000000Z.one.json",
        "other.20200101T000000Z.000001.json",
    ];
    let old = ["flows.20200101T000000Z.000001.json", "flows.20200101T000000Z.000002.json"];
    for name in others.iter().chain(&old) {
        fs::write(folder.path().join(name), name).expect("room");
    }
    let rotation = Rotation { file_bytes_max: Some(1), files_max: Some(2), ..Rotation::default() };
    let mut files = series(&folder, rotation);
    for step in 1..4 {
        files.write_all(b"some").expect("room");
        files.next(NOW_MS + step * 1_000).expect("the folder takes a file");
    }
    files.complete().expect("it can be renamed");
    assert_eq!(files.deleted(), 4);
    let left = names(folder.path());
    let ours: Vec<&str> =
        left.iter().map(String::as_str).filter(|name| !others.contains(name)).collect();
    assert_eq!(ours, ["flows.20260528T202642Z.000003.json", "flows.20260528T202643Z.000004.json"]);
    assert_eq!(left.len(), 7, "{left:?}");
}

#[test]
fn a_path_that_is_no_file_is_an_error() {
    let rotation = Rotation { file_bytes_max: Some(1), ..Rotation::default() };
    let error = Files::open(Some(Path::new("/")), rotation, false, NOW_MS).err();
    assert_eq!(error.map(|error| error.to_string()).as_deref(), Some("the path names no file"));
    assert!(Files::open(Some(Path::new("/nowhere/flows")), rotation, false, NOW_MS).is_err());
}
