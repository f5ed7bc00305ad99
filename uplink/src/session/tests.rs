//! The session's waits and time limits. What it does to batches is shown in `crate::simulation`.

use super::{Action, Cause, Session, SessionSettings};
use crate::spool::{Key, Size, SpoolIndex};
use crate::wire::Outcome;

const SMALL: Size = Size { bytes: 1, disk_bytes: 1 };

fn session(seed: u64, now_ms: u64) -> Session {
    let settings = SessionSettings {
        in_flight_max: 5,
        backoff_min_ms: 10,
        backoff_max_ms: 2_000,
        connect_timeout_ms: 1_000,
        answer_timeout_ms: 1_000,
        seed,
    };
    Session::new(settings, now_ms)
}

#[test]
fn the_wait_doubles_up_to_its_bound_and_is_reset_by_an_ack() {
    let spool = {
        let mut spool = SpoolIndex::default();
        spool.insert(Key { boot_epoch: 1, sequence: 1 }, SMALL, 1);
        spool
    };
    let mut session = session(7, 0);
    let mut now_ms = 0;
    let mut wait = |session: &mut Session| {
        assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Connect));
        let wait = session.handle_disconnected(now_ms, Cause::Refused);
        assert_eq!(session.poll_action(now_ms, &spool), None);
        now_ms += wait;
        wait
    };
    for most in [10, 20, 40, 80, 160, 320, 640, 1280, 2000, 2000] {
        let waited = wait(&mut session);
        assert!((most / 2..=most).contains(&waited), "{waited} of {most}");
    }
    let key = Key { boot_epoch: 1, sequence: 1 };
    assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Connect));
    session.handle_connected(now_ms, &spool);
    let hello = Action::Hello { boot_epochs: vec![1] };
    assert_eq!(session.poll_action(now_ms, &spool), Some(hello));
    session.handle_held(now_ms, &[0]);
    assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Send(key)));
    session.handle_ack(now_ms, key, Outcome::Stored);
    assert!(session.handle_disconnected(now_ms, Cause::Refused) <= 10);
}

#[test]
fn a_backend_that_never_answers_is_given_up_and_tried_again() {
    let mut spool = SpoolIndex::default();
    spool.insert(Key { boot_epoch: 1, sequence: 1 }, SMALL, 1);
    let mut session = session(7, 0);
    let timed_out = |session: &mut Session, spool: &SpoolIndex, now_ms: u64| {
        session.handle_timeout(now_ms - 1);
        assert_eq!(session.poll_action(now_ms - 1, spool), None);
        session.handle_timeout(now_ms);
        let Some(Action::Disconnect { reason }) = session.poll_action(now_ms, spool) else {
            unreachable!("a wait that is over is a failure")
        };
        let next = session.poll_timeout().expect("it waits");
        assert_eq!(session.poll_action(next, spool), Some(Action::Connect));
        (reason, next)
    };
    assert_eq!(session.poll_action(0, &spool), Some(Action::Connect));
    let (reason, now_ms) = timed_out(&mut session, &spool, 1000);
    assert_eq!(reason, "no connection within 1000 ms");
    session.handle_connected(now_ms, &spool);
    assert!(matches!(session.poll_action(now_ms, &spool), Some(Action::Hello { .. })));
    let (reason, now_ms) = timed_out(&mut session, &spool, now_ms + 1000);
    assert_eq!(reason, "no answer to the hello within 1000 ms");
    session.handle_connected(now_ms, &spool);
    assert!(matches!(session.poll_action(now_ms, &spool), Some(Action::Hello { .. })));
    session.handle_held(now_ms, &[0]);
    assert!(matches!(session.poll_action(now_ms, &spool), Some(Action::Send(_))));
    let (reason, _) = timed_out(&mut session, &spool, now_ms + 1000);
    assert_eq!(reason, "no ack within 1000 ms");
}

/// The times at which attempts begin, until `until_ms`, while nobody answers.
fn attempts(session: &mut Session, from_ms: u64, until_ms: u64) -> Vec<u64> {
    let spool = SpoolIndex::default();
    let mut begun = Vec::new();
    let mut now_ms = from_ms;
    while now_ms < until_ms {
        match session.poll_action(now_ms, &spool) {
            Some(Action::Connect) => begun.push(now_ms),
            Some(_) => {}
            None => {
                now_ms = session.poll_timeout().expect("it waits for something");
                session.handle_timeout(now_ms);
            }
        }
    }
    begun
}

#[test]
fn a_backend_that_comes_back_after_any_outage_is_tried_within_two_seconds() {
    let spool = SpoolIndex::default();
    for seed in 0..20 {
        let settings = SessionSettings {
            in_flight_max: 1,
            backoff_min_ms: 500,
            backoff_max_ms: 60_000,
            connect_timeout_ms: 1_000,
            answer_timeout_ms: 60_000,
            seed,
        };
        let mut session = Session::new(settings, 0);
        // Before the first connection nobody knows how long one takes.
        let begun = attempts(&mut session, 0, 20_000);
        let gaps: Vec<u64> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (gap, attempt_ms) in gaps.iter().zip([1_000, 2_000, 4_000, 8_000, 1_000]) {
            assert!((attempt_ms + 250..=attempt_ms + 500).contains(gap), "{gaps:?}");
        }
        let now_ms = session.poll_timeout().expect("it waits for something");
        session.handle_timeout(now_ms);
        let mut at_ms = now_ms;
        while session.poll_action(at_ms, &spool) != Some(Action::Connect) {
            at_ms = session.poll_timeout().expect("it waits for something");
            session.handle_timeout(at_ms);
        }
        session.handle_connected(at_ms + 80, &spool);
        session.handle_disconnected(at_ms + 100, Cause::Unreachable);
        // A day without a backend; a connection took 80 ms, so none is waited for longer than a second.
        let begun = attempts(&mut session, at_ms + 100, 86_400_000);
        let longest = begun.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(longest.is_some_and(|longest| longest <= 1_500), "{longest:?}");
        assert!(begun.len() > 50_000 && begun.len() < 75_000, "{} attempts a day", begun.len());
    }
}

#[test]
fn a_slow_line_is_given_the_time_that_a_connection_took() {
    let spool = SpoolIndex::default();
    let mut session = session(7, 0);
    session.settings.answer_timeout_ms = 60_000;
    assert_eq!(session.poll_action(0, &spool), Some(Action::Connect));
    session.handle_connected(900, &spool);
    session.handle_disconnected(1_000, Cause::Unreachable);
    let begun = attempts(&mut session, 1_000, 20_000);
    assert!(begun.windows(2).all(|pair| pair[1] - pair[0] >= 3_600), "{begun:?}");
}

#[test]
fn a_batch_that_goes_out_slowly_is_no_reason_to_give_up() {
    let mut spool = SpoolIndex::default();
    spool.insert(Key { boot_epoch: 1, sequence: 1 }, SMALL, 1);
    let mut session = session(7, 0);
    assert_eq!(session.poll_action(0, &spool), Some(Action::Connect));
    session.handle_connected(0, &spool);
    assert!(matches!(session.poll_action(0, &spool), Some(Action::Hello { .. })));
    session.handle_held(0, &[0]);
    assert!(matches!(session.poll_action(0, &spool), Some(Action::Send(_))));
    for now_ms in [900, 1_800, 2_700] {
        session.handle_progress(now_ms);
        session.handle_timeout(now_ms + 50);
        assert_eq!(session.poll_action(now_ms + 50, &spool), None);
    }
    assert_eq!(session.poll_timeout(), Some(3_700));
}

#[test]
fn what_the_backend_holds_is_removed_one_by_one_before_anything_is_sent() {
    let mut spool = SpoolIndex::default();
    let key = |boot_epoch, sequence| Key { boot_epoch, sequence };
    for (boot_epoch, sequence) in [(1, 1), (1, 300), (2, 1), (2, 2), (3, 1)] {
        spool.insert(key(boot_epoch, sequence), SMALL, 1);
    }
    let mut session = session(7, 0);
    assert_eq!(session.poll_action(0, &spool), Some(Action::Connect));
    session.handle_connected(0, &spool);
    let hello = Action::Hello { boot_epochs: vec![1, 2, 3] };
    assert_eq!(session.poll_action(0, &spool), Some(hello));
    session.handle_held(0, &[300, 1, 0]);
    for held in [key(1, 1), key(1, 300), key(2, 1)] {
        let remove = Action::Remove { key: held, duplicate: false };
        assert_eq!(session.poll_action(0, &spool), Some(remove));
        // One that cannot be removed now is passed over, too; the next greeting names it again.
        if held.sequence != 300 {
            spool.remove(held);
        }
    }
    assert_eq!(session.poll_action(0, &spool), Some(Action::Send(key(1, 300))));
    assert_eq!(session.poll_action(0, &spool), Some(Action::Send(key(2, 2))));
    assert_eq!(session.poll_action(0, &spool), Some(Action::Send(key(3, 1))));
}

#[test]
fn what_the_disk_does_not_let_go_of_is_offered_again_without_a_new_connection() {
    let mut spool = SpoolIndex::default();
    let key = Key { boot_epoch: 1, sequence: 1 };
    spool.insert(key, SMALL, 1);
    let mut session = session(7, 0);
    assert_eq!(session.poll_action(0, &spool), Some(Action::Connect));
    session.handle_connected(0, &spool);
    assert!(matches!(session.poll_action(0, &spool), Some(Action::Hello { .. })));
    session.handle_held(0, &[0]);
    for at_ms in [0, 1_000, 2_000] {
        session.handle_timeout(at_ms);
        assert_eq!(session.poll_action(at_ms, &spool), Some(Action::Send(key)));
        session.handle_ack(at_ms, key, Outcome::Duplicate);
        let remove = Action::Remove { key, duplicate: true };
        assert_eq!(session.poll_action(at_ms, &spool), Some(remove));
        assert_eq!(session.poll_action(at_ms, &spool), None);
        assert_eq!(session.poll_timeout(), Some(at_ms + 1_000));
    }
    spool.remove(key);
    session.handle_timeout(3_000);
    assert_eq!((session.poll_action(3_000, &spool), session.poll_timeout()), (None, None));
}
