use std::collections::BTreeSet;

use super::order::Order;
use super::sizes::{Sizes, Spread};

#[test]
fn the_order_has_every_number_once_and_not_in_order() {
    for packets in [1, 2, 3, 7, 64, 1_000, 65_537] {
        let order: Vec<_> = Order::new(packets, 5).collect();
        let different: BTreeSet<_> = order.iter().copied().collect();
        assert_eq!(different.len(), packets as usize);
        assert_eq!(order.len(), packets as usize);
        assert_eq!(different.last().copied(), Some(packets - 1));
        assert!(packets < 64 || !order.is_sorted());
    }
    let halves = Order::new(100_000, 5).take(50_000).filter(|number| *number < 50_000).count();
    assert!((24_000..26_000).contains(&halves), "{halves} of the lower half come early");
}

#[test]
fn sizes_add_up_and_positions_find_their_flow() {
    for (packets, flows) in [(1, 1), (7, 7), (1_000, 7), (200_000, 1), (200_000, 50_000)] {
        for spread in [Spread::Zipf, Spread::Even] {
            let sizes = Sizes::new(spread, packets, flows);
            let mut position = 0;
            for flow in 0..flows {
                assert!(sizes.packets(flow) > 0);
                for _ in 0..sizes.packets(flow) {
                    assert_eq!(sizes.flow(position), flow);
                    position += 1;
                }
            }
            assert_eq!(position, packets);
        }
    }
    let zipf = Sizes::new(Spread::Zipf, 1_010_000, 10_000);
    let [first, tenth] = [0, 9].map(|flow| f64::from(zipf.packets(flow) - 1));
    assert!((9.9..10.1).contains(&(first / tenth)), "{first} and {tenth}");
}
