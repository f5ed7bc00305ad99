//! Answers of the kernel, made by hand.

use super::facts::{kibibytes, read_link};
use super::{
    Attributes, Generic, Interface, InterfaceFacts, NicStatistics, XdpAttached, is_address_of,
    is_stacked_on, parse_link, read_messages,
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
        generic: Generic { received: Some(1000), missed: Some(4), dropped: Some(3) },
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

fn own(counters: &[(&str, u64)]) -> Vec<(String, u64)> {
    counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn counters_that_nobody_gives_are_unknown() {
    let parsed = parse_link(&link(7, &[attribute(3, b"a\0")])).expect("a whole message");
    let nothing = NicStatistics::new(parsed.generic, Some("veth"), &[]);
    assert_eq!(nothing, NicStatistics::default());
    let known = NicStatistics { received: Some(5), missed: Some(0), unclear: Some(0) };
    assert_eq!(nothing.plus(known).received, None);
    assert_eq!(known.since(nothing).received, None);
    assert_eq!(known.since(known), NicStatistics { received: Some(0), ..known });
}

#[test]
fn drops_at_a_place_that_nobody_names_make_the_loss_unknown() {
    let before = NicStatistics { received: Some(10), missed: Some(2), unclear: Some(4) };
    let after = NicStatistics { received: Some(20), missed: Some(5), unclear: Some(4) };
    assert_eq!(after.since(before).missed, Some(3), "nothing unclear happened meanwhile");
    let unclear = NicStatistics { unclear: Some(5), ..after };
    assert_eq!(unclear.since(before).missed, None);
    assert_eq!(unclear.since(before).unclear, Some(1));
}

#[test]
fn a_known_driver_says_where_frames_were_lost() {
    let generic = Generic { received: Some(100), missed: Some(1), dropped: Some(30) };
    // What the program dropped is no loss, although this driver counts it as drops.
    let counters =
        own(&[("rx0_drops", 20), ("rx1_drops", 8), ("rx0_xdp_drops", 25), ("rx_drops", 9)]);
    let virtio = NicStatistics::new(generic, Some("virtio_net"), &counters);
    assert_eq!((virtio.missed, virtio.unclear), (Some(1 + 28 - 25), Some(2)));
    let mlx5 = NicStatistics::new(generic, Some("mlx5_core"), &own(&[("rx_discards_phy", 7)]));
    assert_eq!((mlx5.missed, mlx5.unclear), (Some(8), Some(30)));
    let other = NicStatistics::new(generic, Some("other"), &own(&[("rx_discards_phy", 7)]));
    assert_eq!((other.missed, other.unclear), (Some(1), Some(30)));
}

#[test]
fn a_link_tells_what_it_is_set_to() {
    let xdp = [attribute(2, &[1]), attribute(4, &99_u32.to_le_bytes())].concat();
    let mut body = link(
        7,
        &[
            attribute(1, &[2, 0, 0, 0, 0, 0x1f]),
            attribute(4, &9000_u32.to_le_bytes()),
            attribute(30, &1_u32.to_le_bytes()),
            attribute(33, &[0]),
            attribute(43, &xdp),
        ],
    );
    body[8] = 1;
    let mut facts = InterfaceFacts::default();
    read_link(&body, &mut facts);
    assert_eq!((facts.up, facts.mtu, facts.carrier), (true, Some(9000), Some(false)));
    assert_eq!(facts.promiscuous, Some(true), "somebody asked for it, if not by the flag");
    assert_eq!(facts.xdp, Some(XdpAttached { mode: "native", program: Some(99) }));
    assert_eq!(facts.hardware_address.as_deref(), Some("02:00:00:00:00:1f"));
    assert_eq!(facts.address_number(), 0x0200_0000_001f);
    read_link(&link(7, &[attribute(43, &attribute(2, &[0]))]), &mut facts);
    assert_eq!((facts.up, facts.xdp), (false, None));
}

#[test]
fn a_cache_has_a_size_in_kibibytes() {
    assert_eq!(kibibytes("32768K"), Some(33_554_432));
    assert_eq!((kibibytes("32"), kibibytes("K"), kibibytes("")), (None, None, None));
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
