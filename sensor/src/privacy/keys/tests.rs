//! Keys across starts, key epochs and damage, on a real folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

const DAY_MS: u64 = 86_400_000;
/// 2026-11-22, noon.
const NOON_MS: u64 = 1_795_348_800_000;

fn settings(own: &str) -> KeySettings {
    KeySettings {
        own_prefixes: vec![own.parse().expect("a valid range")],
        public_servers: Vec::new(),
        epoch_ms: 30 * DAY_MS,
        kept_ms: 100 * DAY_MS,
    }
}

fn open(state: &TempDir, own: &str, now_ms: u64) -> Result<KeyStore, KeyError> {
    KeyStore::open(state.path(), settings(own), now_ms)
}

fn number(store: &KeyStore) -> u32 {
    store.epoch().expect("there is one").number
}

fn pseudonym(store: &KeyStore) -> u128 {
    store.cipher().pseudonym(0x0a01_0203 << 96, 8, 32)
}

fn told(result: Result<KeyStore, KeyError>) -> String {
    result.map(|store| number(&store)).expect_err("it cannot be used").to_string()
}

#[test]
fn a_key_lasts_across_starts_and_ends_with_its_time() {
    let state = TempDir::new().expect("a folder");
    let mut store = open(&state, "10.0.0.0/8", NOON_MS).expect("a new key");
    let (first, of_first) = (number(&store), pseudonym(&store));
    assert_eq!(first, 20_261_122);
    assert!(!store.advance(NOON_MS + 30 * DAY_MS - 1).expect("still the same"));
    drop(store);
    let path = state.path().join("pseudonyms/20261122.key");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);

    let mut store = open(&state, "10.0.0.0/8", NOON_MS + 29 * DAY_MS).expect("the same key");
    assert_eq!((number(&store), pseudonym(&store)), (first, of_first));
    assert!(store.advance(NOON_MS + 30 * DAY_MS).expect("another key"));
    assert_eq!(number(&store), 20_261_222);
    assert_ne!(pseudonym(&store), of_first);
    drop(store);

    // Its time passed while nothing ran.
    let store = open(&state, "10.0.0.0/8", NOON_MS + 75 * DAY_MS).expect("another key");
    assert_eq!(number(&store), 20_270_205);
    let epochs = key_epochs(state.path()).expect("a list");
    assert_eq!(epochs.len(), 3);
    assert_eq!(epochs[0].until_ms, Some(NOON_MS + 30 * DAY_MS));
    assert_eq!(epochs[2].until_ms, None);
    let first = cipher(state.path(), &epochs[0]).expect("it is kept");
    assert_eq!(first.pseudonym(0x0a01_0203 << 96, 8, 32), of_first);
}

#[test]
fn old_keys_are_removed_and_listed_as_removed() {
    let state = TempDir::new().expect("a folder");
    let mut store = open(&state, "10.0.0.0/8", NOON_MS).expect("a new key");
    for month in 1..=4 {
        store.advance(NOON_MS + month * 30 * DAY_MS).expect("another key");
    }
    assert_eq!((store.kept(), store.removed()), (5, 0));
    let now_ms = NOON_MS + 130 * DAY_MS;
    assert!(!store.advance(now_ms).expect("the same key"));
    assert_eq!((store.kept(), store.removed()), (4, 1));
    assert!(!state.path().join("pseudonyms/20261122.key").exists());
    let epochs = key_epochs(state.path()).expect("a list");
    assert_eq!(epochs[0].removed_ms, Some(now_ms));
    let error = cipher(state.path(), &epochs[0]).map(|_| ()).expect_err("it is gone");
    assert!(
        error.to_string().starts_with("the key of key epoch 20261122 was removed at 2027-04-01"),
        "{error}"
    );
}

#[test]
fn other_ranges_are_another_key_epoch() {
    let state = TempDir::new().expect("a folder");
    let first = number(&open(&state, "10.0.0.0/8", NOON_MS).expect("a new key"));
    let other = number(&open(&state, "192.0.2.0/24", NOON_MS + 1).expect("another key"));
    assert_eq!(other, first + 1);
    let again = number(&open(&state, "10.0.0.0/8", NOON_MS + 2).expect("another key"));
    assert_eq!(again, first + 2);
}

#[test]
fn a_clock_that_jumps_neither_keeps_a_key_for_ever_nor_repeats_a_number() {
    let state = TempDir::new().expect("a folder");
    let ahead = number(&open(&state, "10.0.0.0/8", NOON_MS + 20_000 * DAY_MS).expect("a key"));
    let now = number(&open(&state, "10.0.0.0/8", NOON_MS).expect("another key"));
    assert_eq!(now, ahead + 1);
    assert_eq!(number(&open(&state, "10.0.0.0/8", 0).expect("another key")), ahead + 2);
}

#[test]
fn without_its_key_a_sensor_does_not_go_on() {
    let state = TempDir::new().expect("a folder");
    let folder = state.path().join("pseudonyms");
    let key = folder.join("20261122.key");
    drop(open(&state, "10.0.0.0/8", NOON_MS).expect("a new key"));
    let whole = fs::read(&key).expect("the key");
    let again = || open(&state, "10.0.0.0/8", NOON_MS + 1);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("it is ours");
    assert!(told(again()).contains("has mode 0640, so that others may use it"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    assert!(told(again()).contains("has mode 0777"));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");

    fs::write(&key, &whole[..40]).expect("room");
    assert!(told(again()).contains("is damaged: not 64 hexadecimal digits"));
    let mut other = whole.clone();
    other[0] = if other[0] == b'0' { b'1' } else { b'0' };
    fs::write(&key, &other).expect("room");
    assert!(told(again()).contains("it is not the key that was drawn"));
    fs::remove_file(&key).expect("it is there");
    assert!(told(again()).contains("the key of key epoch 20261122 is missing: restore "));
    fs::write(&key, &whole).expect("room");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert_eq!(number(&again().expect("it is whole again")), 20_261_122);

    let ledger = folder.join(LEDGER);
    let list = fs::read(&ledger).expect("the list");
    fs::write(&ledger, &list[..list.len() / 2]).expect("room");
    assert!(told(again()).contains("key_epochs.json is damaged"));
    fs::remove_file(&ledger).expect("it is there");
    assert!(told(again()).contains("holds keys and no key_epochs.json"));
    assert!(matches!(key_epochs(state.path()), Err(KeyError::NoLedger { .. })));
}

#[test]
fn a_crash_between_key_and_list_leaves_a_folder_that_opens() {
    let state = TempDir::new().expect("a folder");
    drop(open(&state, "10.0.0.0/8", NOON_MS).expect("a new key"));
    // The next key was stored, and not yet listed.
    let folder = state.path().join("pseudonyms");
    fs::copy(folder.join("20261122.key"), folder.join("20261222.key")).expect("room");
    let store = open(&state, "10.0.0.0/8", NOON_MS + 30 * DAY_MS).expect("another key");
    assert_eq!(number(&store), 20_261_222);
    assert_ne!(
        fs::read(folder.join("20261122.key")).expect("there"),
        fs::read(folder.join("20261222.key")).expect("there"),
        "the orphan was never used, and never is"
    );
}
