//! What is kept, what is sent, and what it looks like, record by record.

use flow::{Direction, EndReason, Handshake, Outer, RoleEvidence};
use tempfile::TempDir;

use super::*;

const NOON_MS: u64 = 1_795_348_800_000;
const DAY_MS: u64 = 86_400_000;

fn record(initiator: &str, responder: &str) -> Record {
    let address = |text: &str| text.parse().expect("a valid address");
    Record {
        start_ms: 5,
        end_ms: 9,
        initiator: address(initiator),
        responder: address(responder),
        initiator_port: 40_000,
        responder_port: 443,
        protocol: flow::protocol::TCP,
        ports_known: true,
        outer: Outer::default(),
        from_initiator: Direction { packets: 3, bytes: 300, ..Direction::default() },
        from_responder: Direction { packets: 2, bytes: 2_000, ..Direction::default() },
        handshake: Handshake::Established,
        handshake_rtt_us: None,
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        pseudonyms: AS_SEEN,
    }
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().expect("a valid range")).collect()
}

fn config() -> PrivacyConfig {
    let mut own_prefixes = Prefix::private();
    own_prefixes.extend(prefixes(&["203.0.113.0/24", "2001:db8:7::/48"]));
    PrivacyConfig {
        own_prefixes,
        public_servers: prefixes(&["203.0.113.80", "10.0.0.25"]),
        trusted_prefixes: prefixes(&["198.51.100.0/24", "52.0.0.0/8"]),
        ..PrivacyConfig::default()
    }
}

fn open(config: &PrivacyConfig, state: &TempDir) -> Privacy {
    Privacy::open(config, state.path(), NOON_MS).expect("a key can be drawn")
}

#[test]
fn what_is_internal_or_trusted_stays_and_is_counted() {
    let state = TempDir::new().expect("a folder");
    let mut privacy = open(&config(), &state);
    for (initiator, responder, stays) in [
        ("10.1.1.1", "10.2.2.2", true),
        ("10.1.1.1", "203.0.113.80", true),
        ("10.1.1.1", "224.0.0.251", true),
        ("10.1.1.1", "255.255.255.255", true),
        ("fe80::1", "ff02::fb", true),
        ("0.0.0.0", "10.1.1.1", true),
        ("10.1.1.1", "192.0.2.1", false),
        ("192.0.2.1", "203.0.113.80", false),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "239.1.2.3", false),
        ("::", "::", false),
        ("0.0.0.0", "255.255.255.255", false),
    ] {
        assert_eq!(privacy.keeps(&record(initiator, responder)), stays, "{initiator} {responder}");
    }
    assert_eq!(privacy.totals().internal, Kept { records: 6, packets: 30, bytes: 13_800 });
    assert!(privacy.keeps(&record("10.1.1.1", "198.51.100.7")));
    assert!(privacy.keeps(&record("198.51.100.7", "192.0.2.1")));
    assert_eq!(privacy.totals().trusted, Kept { records: 2, packets: 10, bytes: 4_600 });
    let books = privacy.totals().books(Books { records_out: 20, ..Books::default() });
    assert_eq!(
        (books.records_out, books.records_kept_internal, books.packets_kept_trusted),
        (20, 6, 10)
    );

    let state = TempDir::new().expect("a folder");
    let sends = PrivacyConfig { internal_traffic: InternalTraffic::Send, ..config() };
    assert!(!open(&sends, &state).keeps(&record("10.1.1.1", "10.2.2.2")));
}

#[test]
fn of_folded_totals_only_what_is_certain_counts() {
    let state = TempDir::new().expect("a folder");
    let mut privacy = open(&config(), &state);
    let folded = |initiator, responder| Record { folded: true, ..record(initiator, responder) };
    for (initiator, responder, stays) in [
        // All of 10.0.0.0/8 is own, of 172.0.0.0/8 and 203.0.0.0/8 only a part.
        ("10.0.0.0", "10.2.2.2", true),
        ("172.0.0.0", "10.2.2.2", false),
        ("203.0.0.0", "203.0.113.9", false),
        ("0.0.0.0", "203.0.113.9", false),
        ("52.0.0.0", "203.0.113.9", true),
        ("198.0.0.0", "203.0.113.9", false),
        ("192.0.0.0", "198.51.100.9", true),
        ("::", "::", false),
    ] {
        assert_eq!(privacy.keeps(&folded(initiator, responder)), stays, "{initiator} {responder}");
    }
    let mut records = [folded("203.0.0.0", "203.0.113.9"), folded("fd12::", "2001:db8:9::1")];
    privacy.prepare(&mut records, NOON_MS).expect("a key");
    assert_eq!(records[0].initiator.to_string(), "203.0.0.0");
    assert!(!records[0].pseudonyms.initiator && records[0].pseudonyms.responder);
    assert!(records[1].pseudonyms.initiator && !records[1].pseudonyms.responder);
    let mut again = records[1];
    let mut revealer = Revealer::open(state.path()).expect("keys");
    revealer.reveal(revealer.epochs()[0].number, &mut again).expect("the key is kept");
    assert_eq!(again, folded("fd12::", "2001:db8:9::1"));
}

#[test]
fn clients_get_pseudonyms_and_nobody_else_does() {
    let state = TempDir::new().expect("a folder");
    let mut privacy = open(&config(), &state);
    let seen = [
        record("10.1.1.1", "192.0.2.1"),
        record("192.0.2.1", "203.0.113.80"),
        record("192.0.2.1", "203.0.113.81"),
        record("2001:db8:7:1::5", "2001:db8:9::1"),
        record("10.0.0.25", "192.0.2.1"),
    ];
    let mut sent = seen;
    let epoch = privacy.prepare(&mut sent, NOON_MS).expect("a key").expect("pseudonyms");
    let flags: Vec<(bool, bool)> =
        sent.iter().map(|it| (it.pseudonyms.initiator, it.pseudonyms.responder)).collect();
    assert_eq!(
        flags,
        [(true, false), (false, false), (false, true), (true, false), (false, false)]
    );
    assert_eq!(sent[1], seen[1]);
    assert_eq!(sent[4], seen[4]);
    for (sent, range) in [
        (sent[0].initiator, "10.0.0.0/8"),
        (sent[2].responder, "203.0.113.0/24"),
        (sent[3].initiator, "2001:db8:7::/48"),
    ] {
        let range: Prefix = range.parse().expect("valid");
        assert!(range.get().contains(&sent), "{sent} is not in {range}");
    }
    assert_eq!((sent[0].responder, sent[3].responder), (seen[0].responder, seen[3].responder));

    // Again the same, from memory; and back.
    let mut again = seen;
    privacy.prepare(&mut again, NOON_MS + 1).expect("a key");
    assert_eq!(again, sent);
    let totals = privacy.totals();
    assert_eq!((totals.pseudonyms_given, totals.pseudonyms_cached), (6, 3));
    let mut revealer = Revealer::open(state.path()).expect("keys");
    for record in &mut again {
        revealer.reveal(epoch, record).expect("the key is kept");
    }
    assert_eq!(again, seen);
}

#[test]
fn another_key_epoch_is_another_pseudonym_and_both_can_be_revealed() {
    let state = TempDir::new().expect("a folder");
    let mut privacy = open(&config(), &state);
    let seen = record("10.1.1.1", "192.0.2.1");
    let (mut one, mut two) = ([seen], [seen]);
    let first = privacy.prepare(&mut one, NOON_MS).expect("a key").expect("pseudonyms");
    let second =
        privacy.prepare(&mut two, NOON_MS + 30 * DAY_MS).expect("a key").expect("pseudonyms");
    assert!(first < second);
    assert_ne!(one[0].initiator, two[0].initiator);

    let shown = |options: RevealOptions, address: IpAddr| {
        let mut out = Vec::new();
        let hidden = reveal(state.path(), &[address], &options, &mut out).expect("keys");
        (hidden, String::from_utf8(out).expect("text"))
    };
    let all = shown(RevealOptions::default(), one[0].initiator);
    assert_eq!(all.1.lines().count(), 3, "{}", all.1);
    let of_first = RevealOptions { epoch: Some(first), ..RevealOptions::default() };
    let (hidden, text) = shown(of_first, one[0].initiator);
    assert!(hidden == 0 && text.trim_end().ends_with(" 10.1.1.1"), "{text}");
    let at = RevealOptions {
        at_ms: Some(NOON_MS + DAY_MS * 31),
        json: true,
        ..RevealOptions::default()
    };
    let (_, text) = shown(at, two[0].initiator);
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (line["address"].as_str(), line["key_epoch"].as_u64()),
        (Some("10.1.1.1"), Some(u64::from(second)))
    );
    let forward =
        RevealOptions { pseudonyms: true, epoch: Some(second), ..RevealOptions::default() };
    let (_, text) = shown(forward, seen.initiator);
    assert!(text.trim_end().ends_with(&format!(" {}", two[0].initiator)), "{text}");

    for (address, why) in [
        ("192.0.2.1", "is in no own prefix of key epoch"),
        ("203.0.113.80", "is a public server in key epoch"),
    ] {
        let (hidden, text) = shown(RevealOptions::default(), address.parse().expect("valid"));
        assert!(hidden == 1 && text.contains(why), "{text}");
    }
    let wrong = |options: RevealOptions| {
        let error = reveal(state.path(), &[seen.initiator], &options, &mut Vec::new());
        error.expect_err("it cannot be shown").to_string()
    };
    let none = wrong(RevealOptions { epoch: Some(7), ..RevealOptions::default() });
    assert_eq!(none, format!("there is no key epoch 7 here; there are: {first}, {second}"));
    let early = wrong(RevealOptions { at_ms: Some(NOON_MS - DAY_MS), ..RevealOptions::default() });
    assert_eq!(early, "no key was in use at 2026-11-21 12:00:00 (UTC)");
    let empty = TempDir::new().expect("a folder");
    assert!(matches!(Revealer::open(empty.path()), Err(RevealError::NoKeys(_))));
}

#[test]
fn what_is_switched_off_needs_no_key() {
    for config in [
        PrivacyConfig { own_prefixes: Vec::new(), public_servers: Vec::new(), ..config() },
        PrivacyConfig { pseudonymise: false, ..config() },
    ] {
        let state = TempDir::new().expect("a folder");
        let mut privacy = open(&config, &state);
        let seen = record("10.1.1.1", "192.0.2.1");
        let mut sent = [seen];
        assert_eq!(privacy.prepare(&mut sent, NOON_MS).expect("nothing to do"), None);
        assert_eq!(sent[0], seen);
        assert_eq!(privacy.keeps(&record("10.1.1.1", "10.2.2.2")), !config.own_prefixes.is_empty());
        assert!(!state.path().join("pseudonyms").exists());
        assert!(announcement(&config).iter().any(|(_, is_warning)| *is_warning));
    }
    let told = announcement(&PrivacyConfig::default());
    assert!(told.len() == 1 && !told[0].1 && told[0].0.contains("private ranges only"), "{told:?}");
    let narrow =
        PrivacyConfig { own_prefixes: prefixes(&["203.0.113.7"]), ..PrivacyConfig::default() };
    let told: Vec<String> = announcement(&narrow).into_iter().map(|(told, _)| told).collect();
    assert!(told.iter().any(|told| told.contains("leaves out 10.0.0.0/8")), "{told:?}");
    assert!(told.iter().any(|told| told.contains("203.0.113.7/32 is one address")), "{told:?}");
}

#[test]
fn a_range_of_one_address_is_sent_as_it_is_and_says_so() {
    let state = TempDir::new().expect("a folder");
    let config =
        PrivacyConfig { own_prefixes: prefixes(&["203.0.113.7"]), ..PrivacyConfig::default() };
    let mut sent = [record("203.0.113.7", "192.0.2.1")];
    open(&config, &state).prepare(&mut sent, NOON_MS).expect("a key");
    assert_eq!(sent[0], record("203.0.113.7", "192.0.2.1"));
}
