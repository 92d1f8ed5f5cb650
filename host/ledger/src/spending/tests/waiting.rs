//! Those who wait for a lease, and leases that wait to go back.

use super::*;

/// The writer does nothing until the sender is dropped.
fn stopped(spending: &Spending) -> SyncSender<()> {
    let (go, waits) = sync_channel::<()>(0);
    let (stops, has_stopped) = sync_channel(0);
    let with = move |_: &Store| {
        stops.send(()).unwrap();
        assert!(waits.recv().is_err());
    };
    spending.messages.send(Message::With(Box::new(with))).unwrap();
    has_stopped.recv().unwrap();
    go
}

/// What is to go back, and the database does not take: it is promised still, and none of it leaks.
#[test]
fn leases_that_cannot_go_back_stay() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let all = [drawn("all", "", 1000)];
    let tell = |text: &'static str| {
        let with = move |store: &Store| store.connection().execute_batch(text).unwrap();
        spending.messages.send(Message::With(Box::new(with))).unwrap();
    };
    hold(&spending, &all, 100).unwrap().settle(usd(40), None);
    spending.flush().unwrap();
    tell("PRAGMA query_only = 1");
    spending.messages.send(Message::Rest).unwrap();
    assert_eq!(spending.flush(), Err("read_only"));
    hold(&spending, &all, 50).unwrap().settle(usd(50), None);
    tell("PRAGMA query_only = 0");
    hold(&spending, &all, 910).unwrap().settle(usd(10), None);
    // What the first one settles, the second one forgets.
    spending.rest_now();
    spending.rest_now();
    assert_eq!((spending.lock().known.len(), leased(folder.path())), (0, 0));
    spending.close();
    assert_eq!(spent(folder.path(), "all"), (100, 0));
}

/// Polls all of them once, then lets the writer go on, and waits for what they come to.
fn together(
    spending: &Spending,
    holds: Vec<impl Future<Output = Result<Hold, NotHeld>>>,
) -> Vec<Result<Hold, NotHeld>> {
    let mut go = Some(stopped(spending));
    let mut holds: Vec<_> = holds.into_iter().map(|hold| (Box::pin(hold), None)).collect();
    block_on(std::future::poll_fn(|context| {
        for (hold, held) in holds.iter_mut().filter(|(_, held)| held.is_none()) {
            if let Poll::Ready(ready) = hold.as_mut().poll(context) {
                *held = Some(ready);
            }
        }
        drop(go.take());
        if holds.iter().all(|(_, held)| held.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    }));
    holds.into_iter().filter_map(|(_, held)| held).collect()
}

/// Ten wait in one batch for what is enough for eight: two are refused, and no ninth could be let in.
#[test]
fn those_who_wait_together_all_get_what_is_there() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let accounts = [drawn("all", "", 44), drawn("key", "k", 1000)];
    hold(&spending, &accounts, 4).unwrap().settle(usd(0), None);
    let holds = (0..10).map(|_| spending.hold(&accounts, usd(5), Attempt::default())).collect();
    let held = together(&spending, holds);
    let refused: Vec<_> = held.iter().filter_map(|held| held.as_ref().err()).collect();
    assert_eq!((held.len(), refused.len(), spending.figures().holds), (10, 2, 8));
    assert!(refused.iter().all(|why| matches!(why, NotHeld::Held(refused) if refused.rest.left == usd(4))));
    drop(held);
    spending.close();
    assert_eq!((spent(folder.path(), "all"), leased(folder.path())), ((0, 0), 0));
}

/// Who leaves while the store is asked holds nothing, and is in nobody's way.
#[test]
fn who_leaves_while_it_waits_holds_nothing() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let account = [drawn("all", "", 100)];
    let go = stopped(&spending);
    block_on(async {
        let mut leaves = Box::pin(spending.hold(&account, usd(60), Attempt::default()));
        std::future::poll_fn(|context| {
            assert!(leaves.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    });
    drop(go);
    let stays = hold(&spending, &account, 60).unwrap();
    assert_eq!(spending.figures().holds, 1);
    drop(stays);
    spending.close();
    assert_eq!((spent(folder.path(), "all"), leased(folder.path())), ((0, 0), 0));
}

/// Each run asks the store for its own account; what all share is not leased for that.
#[test]
fn new_runs_do_not_lease_away_what_all_share() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let hold_of = |run: u32| {
        let accounts = [drawn("all", "", 1_000_000), drawn("run", &run.to_string(), 1000)];
        drop(hold(&spending, &accounts, 10).unwrap().settle(usd(1), None));
    };
    (0..50).for_each(hold_of);
    spending.flush().unwrap();
    let store = Store::open_to_read(&folder.path().join("sluice.db")).unwrap();
    let all = store.accounts(Some("all"), 1).unwrap()[0].vault;
    assert_eq!((all.settled, all.leased), (usd(50), usd(1_000_000 / 8 - 50)), "one block");
    assert_eq!(store.accounts(Some("run"), 100).unwrap().len(), 50, "each has asked");
    spending.close();
}
