//! Caps and modes that change while money is held.

use super::*;

/// What is leased and what requests have read before goes by the new cap, at once.
#[test]
fn a_cap_that_is_lowered_holds_at_once() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let before = [drawn("all", "", 1000)];
    let held = hold(&spending, &before, 100).unwrap();
    assert_eq!(leased(folder.path()), 400);
    spending.go_by(caps("all", 50, Mode::Enforce));
    assert!(matches!(hold(&spending, &before, 1), Err(NotHeld::Held(_))), "100 are held");
    held.settle(usd(30), None);
    let Err(NotHeld::Exhausted(refused)) = hold(&spending, &before, 21) else { panic!("20 are left") };
    assert_eq!((refused.rest.cap, refused.rest.left), (usd(50), usd(20)));
    hold(&spending, &before, 20).unwrap().settle(usd(20), None);
    // A scope that nobody has drawn on goes by it too.
    assert!(matches!(hold(&spending, &[drawn("all", "other", 1000)], 51), Err(NotHeld::Exhausted(_))));
    let deadline = Instant::now() + Duration::from_secs(60);
    while leased(folder.path()) > 0 {
        assert!(Instant::now() < deadline, "what was leased by the old cap goes back");
        spending.flush().unwrap();
    }
    spending.go_by(caps("all", 1000, Mode::Enforce));
    hold(&spending, &before, 950).unwrap().settle(usd(950), None);
    spending.close();
    assert_eq!(spent(folder.path(), "all"), (1000, 0));
}

#[test]
fn a_shadow_that_becomes_real_refuses_at_once() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let account = [drawn("all", "", 100)];
    spending.go_by(caps("all", 100, Mode::Shadow));
    for _ in 0..3 {
        hold(&spending, &account, 90).unwrap().settle(usd(90), None);
    }
    spending.go_by(caps("all", 300, Mode::Enforce));
    assert!(matches!(hold(&spending, &account, 31), Err(NotHeld::Exhausted(_))));
    hold(&spending, &account, 30).unwrap().settle(usd(30), None);
    spending.go_by(caps("all", 300, Mode::Shadow));
    hold(&spending, &account, 30).unwrap().settle(usd(30), None);
    spending.close();
    assert_eq!((spent(folder.path(), "all"), leased(folder.path())), ((330, 0), 0));
}

/// Threads that hold by the configuration of before, and one that lowers the cap under them: from then
/// on they get what the new one has left, and not a nano more.
#[test]
fn no_race_passes_a_cap_that_is_lowered() {
    const MORE: u64 = 20 * CALL;
    const THREADS: u64 = 3;
    for seed in 0..20 {
        let folder = TempDir::new().unwrap();
        let (spending, _) = open(folder.path());
        let accounts = [drawn("key", "k", 5000 * CALL), drawn("run", "r", 5000 * CALL)];
        let (lowered, late) = (AtomicBool::new(false), AtomicU64::new(0));
        let settled = || spending.totals.settled.load(Ordering::SeqCst);
        let allowed = thread::scope(|scope| {
            for thread in 0..THREADS {
                let (spending, accounts, lowered, late) = (&spending, &accounts, &lowered, &late);
                scope.spawn(move || {
                    let mut chance = Chance(seed ^ (thread << 32));
                    loop {
                        let is_late = lowered.load(Ordering::SeqCst);
                        match hold(spending, accounts, CALL + chance.below(CALL)) {
                            Ok(held) => {
                                let charge = held.amount();
                                late.fetch_add(if is_late { charge.nanos() } else { 0 }, Ordering::SeqCst);
                                held.settle(charge, None);
                            }
                            Err(NotHeld::Held(_)) => thread::yield_now(),
                            Err(NotHeld::Exhausted(_)) => return,
                            Err(NotHeld::Store(_) | NotHeld::Run(_)) => panic!("the store is well"),
                        }
                    }
                });
            }
            while settled() < MORE {
                thread::yield_now();
            }
            let cap = settled() + MORE;
            spending.go_by(caps("key", cap, Mode::Enforce));
            lowered.store(true, Ordering::SeqCst);
            // Those who were faster than this thread, and what they held.
            cap.max(settled() + THREADS * 2 * CALL)
        });
        spending.close();
        let charged = spent(folder.path(), "key").0;
        assert!(charged <= allowed, "seed {seed}: {charged} of {allowed}");
        assert!(late.into_inner() <= MORE, "seed {seed}: what was left is less");
        assert_eq!((spent(folder.path(), "run").0, leased(folder.path())), (charged, 0), "seed {seed}");
    }
}
