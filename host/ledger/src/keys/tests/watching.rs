//! Several processes, each of which notices what the others have done.

use super::*;

#[test]
fn two_processes_notice_each_others_acts_and_their_own() {
    let mut keys = Keys::new();
    let mut gateway = keys.other();
    assert!(gateway.changed().unwrap().unwrap().is_empty(), "the first time");
    assert!(gateway.changed().unwrap().is_none());
    let (id, token) = keys.create("a");
    let ring = gateway.changed().unwrap().unwrap();
    assert_eq!(ring.identify(&token, NOW_MS).unwrap().id(), id);
    assert_eq!(ring.generation(), 1);
    assert!(gateway.changed().unwrap().is_none());
    assert_eq!(keys.store.changed().unwrap().unwrap().len(), 1, "the one who acted has not asked yet");
    assert!(matches!(gateway.revoke("admin", id, NOW_MS).unwrap(), Revoked::Done { generation: 2 }));
    for store in [&mut gateway, &mut keys.store] {
        let ring = store.changed().unwrap().unwrap();
        assert_eq!(ring.identify(&token, NOW_MS), Err(Stranger::Revoked));
        assert!(store.changed().unwrap().is_none());
    }
}

#[test]
fn what_changes_no_key_is_no_change() {
    let mut keys = Keys::new();
    let mut gateway = keys.other();
    assert!(gateway.changed().unwrap().is_some());
    let (id, _) = stranger();
    assert_eq!(keys.revoke(id), Revoked::Unknown);
    assert_eq!(gateway.revoke("admin", id, NOW_MS).unwrap(), Revoked::Unknown);
    keys.store.seen(7).unwrap();
    gateway.seen(8).unwrap();
    assert!(gateway.changed().unwrap().is_none());
}

/// Acts that come while a ring is made are in the next one at the latest.
#[test]
fn no_act_is_missed_however_they_fall_together() {
    const ROUNDS: usize = 500;
    let mut keys = Keys::new();
    let mut gateway = keys.other();
    let (id, _) = keys.create("a");
    let mut ring = gateway.changed().unwrap().unwrap();
    // Acts are as close together as they can be.
    keys.store.store().connection().pragma_update(None, "synchronous", "off").unwrap();
    for round in 0..ROUNDS {
        let token = thread::scope(|scope| {
            let acting = scope.spawn(|| {
                keys.rotate(id, MINUTE, NOW_MS);
                keys.rotate(id, MINUTE, NOW_MS).0
            });
            while !acting.is_finished() {
                ring = gateway.changed().unwrap().unwrap_or(std::mem::take(&mut ring));
            }
            acting.join().unwrap()
        });
        ring = gateway.changed().unwrap().unwrap_or(ring);
        assert!(ring.identify(&token, u64::MAX).is_ok(), "round {round}");
    }
    assert_eq!(ring.generation(), 1 + 2 * ROUNDS as u64);
}

#[test]
fn who_acts_hears_that_the_gateway_has_taken_it() {
    let keys = Keys::new();
    let (mut gateway, mut cli) = (keys.other(), keys.other());
    let wait = |cli: &KeyStore, generation, within| cli.wait_until_seen(generation, within).unwrap();
    assert_eq!(wait(&cli, 1, MINUTE), Seen::NobodyRuns);
    let lock = DataLock::take(keys.folder.path()).unwrap();
    let Created::Done { generation, .. } = cli.create("cli", &named("a"), NOW_MS).unwrap() else {
        panic!("a is taken");
    };
    assert_eq!(wait(&cli, generation, Duration::ZERO), Seen::NotInTime);
    assert_eq!(wait(&cli, generation, Duration::from_millis(30)), Seen::NotInTime);
    let ring = gateway.changed().unwrap().unwrap();
    thread::scope(|scope| {
        let other = keys.other();
        let waiting = scope.spawn(move || wait(&other, generation, MINUTE));
        gateway.seen(ring.generation()).unwrap();
        assert_eq!(waiting.join().unwrap(), Seen::Taken);
    });
    assert_eq!(wait(&cli, generation, Duration::ZERO), Seen::Taken);
    gateway.seen(generation - 1).unwrap();
    assert_eq!(wait(&cli, generation, Duration::ZERO), Seen::Taken, "a late word takes nothing back");
    assert_eq!(wait(&cli, generation + 1, Duration::ZERO), Seen::NotInTime);
    // Ten is more than nine, as a number.
    gateway.seen(9).unwrap();
    gateway.seen(10).unwrap();
    assert_eq!(wait(&cli, 10, Duration::ZERO), Seen::Taken);
    thread::scope(|scope| {
        let other = keys.other();
        let waiting = scope.spawn(move || wait(&other, 11, MINUTE));
        drop(lock);
        assert_eq!(waiting.join().unwrap(), Seen::NobodyRuns, "it ended without a word");
    });
}
