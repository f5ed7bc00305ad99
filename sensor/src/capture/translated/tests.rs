//! Instructions made by hand.

use super::{Callee, called, name};

const SYMBOLS: &str = "ffffffff81000000 T _text\n\
                       ffffffff81200000 T __bpf_call_base\n\
                       ffffffff81200400 T bpf_xdp_get_buff_len\n";

#[test]
fn calls_are_told_from_the_halves_of_wide_loads() {
    let code = [
        [0x18, 0x10, 0, 0, 1, 0, 0, 0],
        [0x85, 0, 0, 0, 7, 0, 0, 0],
        [0x85, 0, 0, 0, 0, 4, 0, 0],
        [0x85, 0x10, 0, 0, 9, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(called(&code), [Callee::Kernel(0x400), Callee::Local]);
}

#[test]
fn a_callee_has_the_kernels_name_where_addresses_are_shown() {
    assert_eq!(name(0x400, SYMBOLS), "bpf_xdp_get_buff_len");
    assert_eq!(name(0x401, SYMBOLS), "the kernel at +1025");
    let hidden = "0000000000000000 T __bpf_call_base\n";
    assert_eq!(name(-1, hidden), "the kernel at -1");
    assert_eq!(Callee::Local.distance(), None);
}
