//! The committed object passes; the same object with one thing too much does not.

use super::{GET_SMP_PROCESSOR_ID, OBJECT, ObjectError, check, sha256};

/// Replaces every place where `from` stands.
fn changed(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut object = OBJECT.to_vec();
    let windows = OBJECT.windows(from.len()).enumerate();
    let places: Vec<_> = windows.filter(|(_, bytes)| *bytes == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "it stands there");
    for at in places {
        object.get_mut(at..at + to.len()).expect("inside").copy_from_slice(to);
    }
    object
}

fn call(helper: i32) -> [u8; 8] {
    let [a, b, c, d] = helper.to_le_bytes();
    [0x85, 0, 0, 0, a, b, c, d]
}

#[test]
fn the_committed_object_passes() {
    check(OBJECT).expect("it only does what it may");
    assert_ne!(sha256(), [0; 32]);
}

#[test]
fn a_helper_that_could_move_packet_bytes_is_refused() {
    /// `BPF_FUNC_perf_event_output`, `BPF_FUNC_ringbuf_output`, `BPF_FUNC_xdp_load_bytes`.
    const MOVERS: [i32; 3] = [25, 130, 189];
    for mover in MOVERS {
        let object = changed(&call(GET_SMP_PROCESSOR_ID), &call(mover));
        let refused = check(&object).expect_err("not on the list");
        assert!(
            matches!(&refused, ObjectError::Helper { helper, .. } if *helper == mover),
            "{refused}"
        );
    }
}

#[test]
fn a_kernel_function_is_refused() {
    let mut kernel_function = call(1);
    kernel_function[1] = 2 << 4;
    let object = changed(&call(GET_SMP_PROCESSOR_ID), &kernel_function);
    assert!(matches!(check(&object), Err(ObjectError::KernelFunction { .. })));
}

#[test]
fn another_kind_of_table_is_refused() {
    /// An array with 4-byte keys, as a map definition begins; `BPF_MAP_TYPE_RINGBUF` instead.
    const ARRAY: [u8; 8] = [2, 0, 0, 0, 4, 0, 0, 0];
    const RING: [u8; 8] = [27, 0, 0, 0, 4, 0, 0, 0];
    let refused = check(&changed(&ARRAY, &RING)).expect_err("not on the list");
    assert!(matches!(&refused, ObjectError::Table { kind: 27, .. }), "{refused}");
}

#[test]
fn a_table_of_another_name_or_entry_size_is_refused() {
    let renamed = changed(b"CONTROL\0", b"CONTENT\0");
    assert!(matches!(check(&renamed), Err(ObjectError::Table { table, .. }) if table == "CONTENT"));
}

#[test]
fn what_is_no_object_is_an_error() {
    assert!(matches!(check(b"\x7fELF"), Err(ObjectError::Unreadable(_))));
    assert!(matches!(check(&[]), Err(ObjectError::Unreadable(_))));
    let cut = OBJECT.get(..OBJECT.len() / 2).expect("inside");
    assert!(check(cut).is_err());
}
