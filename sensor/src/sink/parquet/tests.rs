//! Files read back by the library's reader; other engines are asked in the end-to-end tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::{Field, Row};
use expect_test::expect;
use flow::{Books, Record};
use tempfile::TempDir;

use super::super::records::{all, web};
use super::super::text::CSV_HEADER;
use super::super::{Files, Rotation, Sink};
use super::ParquetSink;
use super::columns::columns;

/// 2026-05-28T20:26:40Z.
const NOW_MS: u64 = 1_780_000_000_000;

fn sink(folder: &TempDir, rotation: Rotation, group_records_max: usize) -> ParquetSink {
    let path = folder.path().join("flows.parquet");
    let files = Files::open(Some(&path), rotation, true, NOW_MS).expect("room");
    ParquetSink::new(files, group_records_max).expect("room")
}

fn files(folder: &TempDir) -> Vec<PathBuf> {
    let entries = folder.path().read_dir().expect("the folder is there");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files
}

fn reader(path: &Path) -> SerializedFileReader<File> {
    let file = File::open(path).expect("it is there");
    SerializedFileReader::new(file).expect("it is a whole Parquet file")
}

fn rows(path: &Path) -> Vec<Row> {
    reader(path)
        .get_row_iter(None)
        .expect("it can be read")
        .map(|row| row.expect("a row"))
        .collect()
}

fn field(row: &Row, name: &str) -> Field {
    let found = row.get_column_iter().find(|(column, _)| *column == name);
    found.map(|(_, field)| field.clone()).expect("a column")
}

fn write(sink: &mut ParquetSink, records: &[Record], now_ms: u64) {
    sink.handle_records(records, &Books::default(), now_ms).expect("room");
}

#[test]
fn the_columns_are_those_of_csv() {
    let names: Vec<&str> = columns().map(|column| column.name).collect();
    assert_eq!(names, CSV_HEADER);
}

#[test]
fn every_record_is_read_back_and_what_is_not_known_is_null() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut sink = sink(&folder, Rotation::default(), 4);
    write(&mut sink, &all(), NOW_MS);
    let unfinished = folder.path().join("flows.parquet.partial");
    assert_eq!(files(&folder), [unfinished]);
    sink.finish(&Books::default(), NOW_MS).expect("room");
    let path = folder.path().join("flows.parquet");
    assert_eq!(files(&folder), std::slice::from_ref(&path));
    assert_eq!(reader(&path).metadata().num_row_groups(), 3, "groups of four, and the rest");
    let rows = rows(&path);
    let text: Vec<String> = rows
        .iter()
        .map(|row| {
            [
                "start_time",
                "protocol",
                "initiator",
                "initiator_port",
                "tunnels",
                "initiator_bytes",
                "initiator_tcp_flags",
                "handshake",
                "folded",
                "initiator_prefix_bits",
            ]
            .map(|name| field(row, name).to_string())
            .join(" ")
        })
        .collect();
    expect![[r#"
        2026-05-28 20:26:40.007 +00:00 6 "192.0.2.1" 40000 null 500 27 "established" false null
        2026-05-28 20:26:40.007 +00:00 17 "192.0.2.1" null null 500 null null false null
        2026-05-28 20:26:40.007 +00:00 17 "2001:db8::1" 5353 "gre,vxlan:5001" 100 null null false null
        2026-05-28 20:26:40.007 +00:00 1 "192.0.2.1" 8 null 500 null null false null
        2026-05-28 20:26:40.007 +00:00 58 "2001:db8::1" 1 null 500 null null false null
        2026-05-28 20:26:40.007 +00:00 6 "192.0.2.1" 40000 null 0 null "syn_ack" false null
        2026-05-28 20:26:40.007 +00:00 50 "192.0.2.1" null null 500 null null false null
        2026-05-28 20:26:40.007 +00:00 6 "203.0.0.0" null null 60000 2 null true 8
        2026-05-28 20:26:40.007 +00:00 null "::" null null 60000 null null true 0
        null 17 "192.0.2.1" null null 500 null null false null"#]].assert_eq(&text.join("\n"));
}

#[test]
fn an_empty_file_is_a_whole_one() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut sink = sink(&folder, Rotation::default(), 1_024);
    sink.advance(&Books::default(), NOW_MS).expect("nothing to do");
    sink.finish(&Books::default(), NOW_MS).expect("room");
    assert_eq!(rows(&folder.path().join("flows.parquet")).len(), 0);
}

#[test]
fn a_series_loses_no_record() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation =
        Rotation { file_bytes_max: Some(8_192), file_period_ms: Some(60_000), files_max: None };
    let mut sink = sink(&folder, rotation, 1_024);
    for minute in 0..4_u64 {
        let records: Vec<Record> = (0..1_500)
            .map(|at| Record { start_ms: NOW_MS + at * 7_919 % 1_000_003, ..web() })
            .collect();
        write(&mut sink, &records, NOW_MS + minute * 60_000);
    }
    sink.advance(&Books::default(), NOW_MS + 500_000).expect("room");
    sink.finish(&Books::default(), NOW_MS + 500_001).expect("room");
    let files = files(&folder);
    assert!(files.len() > 4, "{files:?}");
    assert!(files.iter().all(|file| file.extension().is_some_and(|kind| kind == "parquet")));
    let read: usize = files.iter().map(|file| rows(file).len()).sum();
    assert_eq!(read, 6_000);
}

#[test]
fn when_the_disk_is_full_all_of_the_file_counts_as_not_written() {
    let files = Files::open(Some(Path::new("/dev/full")), Rotation::default(), true, NOW_MS);
    let mut sink = ParquetSink::new(files.expect("it is there"), 1_024).expect("it is buffered");
    write(&mut sink, &[web(), web()], NOW_MS);
    let error = sink.finish(&Books::default(), NOW_MS).expect_err("nothing fits");
    assert_eq!(error.to_string(), "cannot write /dev/full");
    assert_eq!(sink.totals().records_unwritten, 2);
    assert!(fs::metadata("/dev/full").is_ok_and(|device| !device.is_file()), "it is left alone");
}
