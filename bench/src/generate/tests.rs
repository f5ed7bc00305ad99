use std::collections::BTreeSet;

use clap::ValueEnum as _;

use super::{Options, START_UNIX_S, Traffic, run};

fn generated(with: &[Traffic], seed: u64) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("generated.pcap");
    run(&Options { with: with.to_vec(), seed, start_unix_s: START_UNIX_S, out: out.clone() })
        .expect("writing to a temporary folder");
    std::fs::read(out).expect("reading what was just written")
}

#[test]
fn equal_seeds_give_equal_bytes_and_others_do_not() {
    let all = Traffic::value_variants();
    assert_eq!(generated(all, 7), generated(all, 7));
    assert_ne!(generated(all, 7), generated(all, 8));
}

#[test]
fn every_kind_adds_frames_of_its_own() {
    let sizes: BTreeSet<usize> =
        Traffic::value_variants().iter().map(|kind| generated(&[*kind], 1).len()).collect();
    assert_eq!(sizes.len(), Traffic::value_variants().len());
    assert!(sizes.iter().all(|size| *size > 1_000), "a kind that adds next to nothing: {sizes:?}");
}
