//! Decisions that need no kernel.

use super::{After, Use, drops};

#[test]
fn an_interface_that_the_machine_uses_is_passed_on_unless_told_otherwise() {
    assert!(drops("span0", After::Auto, None));
    for used in [Use::Address, Use::Port, Use::Stacked] {
        assert!(!drops("eth0", After::Auto, Some(used)));
        assert!(drops("eth0", After::Drop, Some(used)));
        assert!(!drops("eth0", After::Pass, Some(used)));
    }
    assert!(!drops("span0", After::Pass, None));
    assert!(drops("span0", After::Drop, None));
}
