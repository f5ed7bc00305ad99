//! Interfaces that go and come, as the kernel would list them.

use super::super::interface::Interface;
use super::{PortStates, Watch};

fn interface(index: u32, name: &str, is_up: bool) -> Interface {
    let mut interface = Interface::default();
    (interface.index, interface.is_up) = (index, is_up);
    name.clone_into(&mut interface.name);
    interface
}

fn states(up: u64, down: u64, gone: u64, losses: u64) -> PortStates {
    PortStates { up, down, gone, losses }
}

#[test]
fn each_change_is_counted_once() {
    let mut watch = Watch::default();
    let [a, b] = [interface(3, "a", true), interface(4, "b", true)];
    watch.add(&a);
    watch.add(&b);
    assert_eq!(watch.handle(&[a.clone(), b.clone()]), states(2, 0, 0, 0));
    let b_down = interface(4, "b", false);
    for _ in 0..2 {
        assert_eq!(watch.handle(&[a.clone(), b_down.clone()]), states(1, 1, 0, 1));
    }
    assert_eq!(watch.handle(&[a.clone(), b.clone()]), states(2, 0, 0, 1));
    assert_eq!(watch.handle(std::slice::from_ref(&a)), states(1, 0, 1, 2));
    // The same name is another interface: no program is on it.
    assert_eq!(watch.handle(&[a, interface(9, "b", true)]), states(1, 0, 1, 2));
    assert_eq!(watch.handle(&[]), states(0, 0, 2, 3));
}

#[test]
fn an_interface_renamed_is_still_the_same() {
    let mut watch = Watch::default();
    watch.add(&interface(3, "a", true));
    assert_eq!(watch.handle(&[interface(3, "mirror", true)]), states(1, 0, 0, 0));
}
