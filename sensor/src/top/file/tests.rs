//! Captures made here, read into pictures.

use std::fs;

use crossbeam_channel::bounded;
use tempfile::TempDir;

use super::super::feed::Picture;
use super::super::samples::all;
use super::*;

/// UDP datagrams to port 53, each at its second with its host as source.
fn capture(frames: &[(u32, u8)]) -> Vec<u8> {
    let words =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (time_s, host) in frames {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, *host, 192, 0, 2, 1, 0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
        bytes.extend(words(&[*time_s, 0, 42, 42]));
        bytes.extend(frame);
    }
    bytes
}

/// Files in a folder, and what becomes of them.
fn read(files: &[Vec<u8>], speed: Speed, stop: bool) -> (Outcome, Picture) {
    let folder = TempDir::new().expect("a temporary folder");
    let paths: Vec<PathBuf> =
        (0..files.len()).map(|number| folder.path().join(number.to_string())).collect();
    for (path, bytes) in paths.iter().zip(files) {
        fs::write(path, bytes).expect("the folder takes a file");
    }
    let config = Config::default();
    let (feed, pictures) = Feed::new(&config);
    let (tell, stopped) = bounded(1);
    if stop {
        tell.send(()).expect("there is room for one");
    }
    let control = Control { stop: Arc::new(Stop::new(stopped)), holds: Arc::default() };
    let outcome = Reader::new(&config, speed, control, feed).run(&paths);
    drop(tell);
    (outcome, *pictures.try_recv().expect("the last picture is always given"))
}

#[test]
fn every_frame_of_every_file_is_in_the_last_picture() {
    let first = capture(&[(1_000, 1), (1_001, 2), (1_010, 1)]);
    // Another capture, from years before: time goes on all the same.
    let second = capture(&[(10, 3), (11, 3)]);
    let (outcome, picture) = read(&[first, second], Speed::MAX, false);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(outcome.summary.balanced, "{:?}", outcome.summary);
    assert_eq!(picture.summary.frames_seen, 5);
    assert_eq!(all(&picture.tracked).packets, 5);
    assert_eq!(picture.tracked.flows.len(), 3);
    assert_eq!(picture.tracked.clock.elapsed_ms(), 11_000);
    let position = picture.position.expect("it is a file");
    assert_eq!((position.ended, position.file), (true, 2));
    assert_eq!(position.bytes, Some(position.bytes_read));
    // Both frames of the second file are of its last second or two.
    let latest = picture.tracked.flows.iter().map(|flow| flow.record.end_ms).max();
    assert_eq!(latest, Some(picture.tracked.clock.now_ms));
}

#[test]
fn a_damaged_file_is_named_and_the_next_one_is_read() {
    let mut cut = capture(&[(1_000, 1), (1_001, 2)]);
    cut.truncate(cut.len() - 1);
    let (outcome, picture) = read(&[cut, capture(&[(1_002, 3)])], Speed::MAX, false);
    assert_eq!(outcome.faults.len(), 1);
    assert!(outcome.faults[0].contains("0: the file ends inside the packet record"), "{outcome:?}");
    assert_eq!(picture.summary.frames_seen, 2);
    assert!(picture.summary.files[0].error.is_some() && picture.summary.files[1].error.is_none());
}

#[test]
fn a_reader_that_waits_for_the_wire_can_be_stopped() {
    let (outcome, picture) = read(&[capture(&[(1_000, 1), (90_000, 2)])], Speed::WIRE, true);
    assert_eq!(outcome.summary.frames_seen, 0, "it was stopped before the first frame");
    assert_eq!(picture.summary.files.len(), 1);
}
