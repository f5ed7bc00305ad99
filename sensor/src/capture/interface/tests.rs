//! Answers of the kernel, made by hand.

use super::{
    Attributes, Interface, NicStatistics, is_address_of, is_stacked_on, parse_link, read_messages,
};

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short value");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn link(index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0];
    body.extend_from_slice(&index.to_le_bytes());
    body.resize(16, 0);
    body.extend(attributes.concat());
    body
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("a short message");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.resize(16, 0);
    bytes.extend_from_slice(body);
    bytes
}

fn statistics(received: u64, dropped: u64, missed: u64) -> Vec<u8> {
    let mut words = [0_u64; 24];
    words[0] = received;
    words[6] = dropped;
    words[15] = missed;
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_link_has_its_name_its_stack_and_its_counters() {
    let info = attribute(1, b"vlan\0");
    let body = link(
        7,
        &[
            attribute(3, b"span0.10\0"),
            attribute(5, &6_u32.to_le_bytes()),
            attribute(10, &3_u32.to_le_bytes()),
            attribute(0x8012, &info),
            attribute(23, &statistics(1000, 3, 4)),
        ],
    );
    let parsed = parse_link(&body).expect("a whole message");
    let expected = Interface {
        index: 7,
        name: "span0.10".to_owned(),
        statistics: NicStatistics { received: Some(1000), missed: Some(7) },
        is_up: false,
        master: Some(3),
        link: Some(6),
        kind: "vlan".to_owned(),
    };
    assert_eq!(parsed, expected);
    assert!(is_stacked_on(&parsed, 6));
    assert!(!is_stacked_on(&parsed, 7));
}

#[test]
fn the_other_end_of_a_veth_pair_is_not_stacked() {
    let body = link(
        7,
        &[
            attribute(3, b"a\0"),
            attribute(5, &6_u32.to_le_bytes()),
            attribute(18, &attribute(1, b"veth\0")),
        ],
    );
    let near = parse_link(&body).expect("a whole message");
    assert!(!is_stacked_on(&near, 6));
    let far = link(7, &[attribute(5, &6_u32.to_le_bytes()), attribute(37, &0_u32.to_le_bytes())]);
    assert_eq!(
        parse_link(&far).expect("a whole message").link,
        None,
        "number 6 of another namespace"
    );
}

#[test]
fn counters_that_the_driver_does_not_give_are_unknown() {
    let parsed = parse_link(&link(7, &[attribute(3, b"a\0")])).expect("a whole message");
    assert_eq!(parsed.statistics, NicStatistics::default());
    let known = NicStatistics { received: Some(5), missed: Some(0) };
    assert_eq!(parsed.statistics.plus(known).received, None);
    assert_eq!(known.since(parsed.statistics).received, None);
    assert_eq!(known.since(NicStatistics { received: Some(2), missed: Some(0) }).received, Some(3));
}

#[test]
fn only_an_ipv6_link_local_address_does_not_count() {
    let address = |family: u8, scope: u8, index: u32| {
        let mut body = vec![family, 64, 0, scope];
        body.extend_from_slice(&index.to_le_bytes());
        body
    };
    assert!(is_address_of(&address(2, 0, 7), 7));
    assert!(is_address_of(&address(2, 253, 7), 7), "IPv4 link-local is somebody's choice");
    assert!(is_address_of(&address(10, 0, 7), 7));
    assert!(!is_address_of(&address(10, 253, 7), 7));
    assert!(!is_address_of(&address(2, 0, 8), 7));
    assert!(!is_address_of(&[2], 7));
}

#[test]
fn an_answer_ends_with_done_or_with_an_error() {
    let mut answer = message(16, &link(1, &[]));
    answer.extend(message(16, &link(2, &[])));
    let mut seen = 0;
    assert!(!read_messages(&answer, &mut |_, _| seen += 1).expect("no error in it"));
    answer.extend(message(3, &[]));
    assert!(read_messages(&answer, &mut |_, _| seen += 1).expect("no error in it"));
    assert_eq!(seen, 4);
    let refused = message(2, &(-1_i32).to_le_bytes());
    let error = read_messages(&refused, &mut |_, _| {}).expect_err("an error in it");
    assert_eq!(error.raw_os_error(), Some(1));
}

#[test]
fn cut_and_contradictory_messages_end_the_reading() {
    let whole = message(16, &link(1, &[attribute(3, b"name\0")]));
    for end in 0..whole.len() {
        let cut = whole.get(..end).expect("inside");
        assert!(
            !read_messages(cut, &mut |_, body| {
                let _: Option<Interface> = parse_link(body);
            })
            .expect("no error in it")
        );
    }
    assert_eq!(Attributes(&[0, 0, 3, 0, 1]).count(), 0, "a length of 0 would never end");
    assert_eq!(Attributes(&[200, 0, 3, 0, 1]).count(), 0);
}
