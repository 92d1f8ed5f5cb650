//! Boundaries, one by one.

use super::*;

/// Asks at once, and hears what came of it.
fn held(world: &mut World, accounts: &[AccountId], amount: u64) -> Result<(), Short> {
    let refused = world.refused.len();
    world.ask(Ask { node: 0, accounts: accounts.to_vec(), amount: usd(amount) });
    world.begin(0);
    world.done(0);
    assert!(world.nodes[0].waiting.is_empty());
    world.refused.get(refused).map_or(Ok(()), |(_, short)| Err(*short))
}

const ONE: [AccountId; 1] = [AccountId(0)];

#[test]
fn an_overrun_is_debt_of_the_account() {
    let mut world = World::new(&[1000], 1);
    held(&mut world, &ONE, 100).unwrap();
    assert_eq!(world.settle(0, |_| usd(950)), [Overrun { account: AccountId(0), beyond: usd(850) }]);
    assert_eq!(held(&mut world, &ONE, 51), Err(Short::Exhausted(AccountId(0))));
    assert_eq!(world.rows[0].vault.spent(), usd(950));
    held(&mut world, &ONE, 50).unwrap();
}

/// The store has leased before it hears of the debt; the books know of both.
#[test]
fn an_overrun_that_comes_while_the_store_is_asked_is_debt_too() {
    let mut world = World::new(&[300], 1);
    held(&mut world, &ONE, 10).unwrap();
    held(&mut world, &ONE, 30).unwrap();
    world.ask(Ask { node: 0, accounts: ONE.to_vec(), amount: usd(215) });
    world.begin(0);
    assert_eq!(world.rows[0].vault.leased, usd(300));
    world.settle(0, |_| usd(60));
    world.done(0);
    assert_eq!(world.refused.len(), 1, "60, 30 and 215 are more than 300");
    held(&mut world, &ONE, 210).unwrap();
}

#[test]
fn what_is_held_may_come_back_what_is_spent_does_not() {
    let mut world = World::new(&[100], 1);
    held(&mut world, &ONE, 60).unwrap();
    assert_eq!(held(&mut world, &ONE, 60), Err(Short::Held(AccountId(0))));
    world.settle(0, |_| usd(50));
    assert_eq!(held(&mut world, &ONE, 60), Err(Short::Exhausted(AccountId(0))));
    held(&mut world, &ONE, 50).unwrap();
}

#[test]
fn a_shadow_account_refuses_nobody_and_leases_nothing() {
    let mut world = World::new(&[1, 1000], 1);
    world.set_cap(0, Cap { mode: Mode::Shadow, ..cap(1) });
    held(&mut world, &[AccountId(0), AccountId(1)], 100).unwrap();
    assert_eq!((world.rows[0].vault.leased, world.again), (NanoUsd::ZERO, 0));
    world.settle(0, |held| held);
    held(&mut world, &ONE, 100).unwrap();
    // From now on it refuses, and what is under way counts.
    world.set_cap(0, cap(250));
    assert_eq!(held(&mut world, &ONE, 51), Err(Short::Held(AccountId(0))));
    held(&mut world, &ONE, 50).unwrap();
}

/// A run that is new asks for its own account; of the others it leases nothing, as long as they have
/// enough.
#[test]
fn many_new_accounts_do_not_lease_the_old_one_away() {
    let caps: Vec<u64> = [100_000].into_iter().chain([200; 200]).collect();
    let mut world = World::new(&caps, 1);
    for run in 1..200 {
        held(&mut world, &[AccountId(0), AccountId(run)], 10).unwrap();
        world.settle(0, |_| usd(1));
    }
    assert_eq!(
        world.rows[0].vault.leased.nanos(),
        100_000 / 8 - 198,
        "one block, and what was settled of it"
    );
}

#[test]
fn those_who_wait_together_all_get_what_is_there() {
    let mut world = World::new(&[44], 1);
    held(&mut world, &ONE, 4).unwrap();
    world.settle(0, |_| usd(0));
    for _ in 0..10 {
        world.ask(Ask { node: 0, accounts: ONE.to_vec(), amount: usd(5) });
    }
    world.begin(0);
    world.done(0);
    assert_eq!((world.open.len(), world.refused.len(), world.again), (8, 2, 0), "eight times five are 40");
}

#[test]
fn a_cap_that_is_lowered_holds_for_what_is_leased() {
    let mut world = World::new(&[1000], 1);
    held(&mut world, &ONE, 100).unwrap();
    world.set_cap(0, cap(50));
    assert_eq!(held(&mut world, &ONE, 1), Err(Short::Held(AccountId(0))));
    world.settle(0, |_| usd(30));
    // Of the lease by the old cap 370 are left here.
    world.ask(Ask { node: 0, accounts: ONE.to_vec(), amount: usd(21) });
    assert_eq!(world.nodes[0].waiting.len(), 1, "it is not held of that");
    world.begin(0);
    world.done(0);
    assert_eq!(world.refused.last().map(|(_, short)| *short), Some(Short::Exhausted(AccountId(0))));
    held(&mut world, &ONE, 20).unwrap();
    assert!(world.rows[0].vault.leased <= usd(20), "what was leased by the old cap is back");
}

#[test]
fn a_lease_that_rests_goes_back_and_one_in_use_stays() {
    let mut world = World::new(&[1000, 1000], 1);
    held(&mut world, &[AccountId(0)], 10).unwrap();
    held(&mut world, &[AccountId(1)], 10).unwrap();
    world.settle(1, |_| usd(4));
    let later = world.now + IDLE_MAX;
    let books = &mut world.nodes[0].books;
    assert_eq!(books.idle(later - Duration::from_millis(1)), []);
    let back = books.idle(later);
    assert_eq!(back, [(AccountId(0), usd(115)), (AccountId(1), usd(121))]);
    // The store fails: they are here, and go back at the next look.
    back.iter().for_each(|(id, free)| books.kept(*id, *free));
    books.stored(AccountId(1), usd(4));
    assert_eq!(books.idle(later), back);
    back.iter().for_each(|(id, free)| books.returned(*id, *free));
    assert!(books.rest(AccountId(0)).is_some(), "something is held on it");
    assert!(books.rest(AccountId(1)).is_none());
}
