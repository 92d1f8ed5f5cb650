//! What holds of any order of events.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Hold { node: usize, accounts: Vec<i64>, amount: u64 },
    Settle { place: usize, permille: u64 },
    Begin { node: usize },
    Done { node: usize },
    Fail { node: usize },
    Wait { seconds: u64 },
    Crash { node: usize },
    Cap { account: usize, cap: Cap },
}

/// `fixed`: caps stay, and no attempt costs more than was held.
fn step(nodes: usize, fixed: bool) -> BoxedStrategy<Step> {
    let accounts = prop::collection::btree_set(0_i64..3, 1..4).prop_map(|ids| ids.into_iter().collect());
    let permille = if fixed { 0_u64..=1000 } else { 0..=1300 };
    let mode = prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)];
    let caps = (0_usize..3, 0_u64..5000, mode)
        .prop_map(|(account, amount, mode)| Step::Cap { account, cap: Cap { amount: usd(amount), mode } });
    prop_oneof![
        10 => (0..nodes, accounts, 1_u64..400).prop_map(|(node, accounts, amount)| Step::Hold { node, accounts, amount }),
        8 => (any::<usize>(), permille).prop_map(|(place, permille)| Step::Settle { place, permille }),
        5 => (0..nodes).prop_map(|node| Step::Begin { node }),
        5 => (0..nodes).prop_map(|node| Step::Done { node }),
        1 => (0_u64..7).prop_map(|seconds| Step::Wait { seconds }),
        1 => (0..nodes).prop_map(|node| Step::Crash { node }),
        u32::from(nodes == 1) => (0..nodes).prop_map(|node| Step::Fail { node }),
        u32::from(!fixed) => caps,
    ]
    .boxed()
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Hold { node, accounts, amount } => {
            let accounts = accounts.into_iter().map(AccountId).collect();
            world.ask(Ask { node, accounts, amount: usd(amount) });
        }
        Step::Settle { place, permille } if !world.open.is_empty() => {
            world.settle(place % world.open.len(), |held| usd(held.nanos() * permille / 1000));
        }
        Step::Settle { .. } => {}
        Step::Begin { node } => world.begin(node),
        Step::Done { node } => world.done(node),
        Step::Fail { node } => world.fail(node),
        Step::Wait { seconds } => world.now += Duration::from_secs(seconds),
        Step::Crash { node } => world.crash(node),
        Step::Cap { account, cap } => world.set_cap(account, cap),
    }
}

/// At rest nothing is held, nobody waits, and what was leased has all gone back.
fn comes_to_rest(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..4 {
        for node in 0..world.nodes.len() {
            world.done(node);
            world.begin(node);
            let again = world.again;
            world.done(node);
            prop_assert_eq!(world.again, again, "whom nobody disturbs asks once");
        }
        while !world.open.is_empty() {
            world.settle(0, |held| held);
        }
        world.now += IDLE_MAX;
    }
    world.check()?;
    prop_assert!(world.nodes.iter().all(|node| node.waiting.is_empty() && node.books.len() == 0));
    prop_assert!(world.rows.iter().all(|row| row.vault.leased == NanoUsd::ZERO));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens on two nodes, no account has promised more than its cap, and the parts add up.
    #[test]
    fn no_account_promises_more_than_its_cap(steps in prop::collection::vec(step(2, true), 0..150)) {
        let mut world = World::new(&[1000, 700, 5000], 2);
        for step in steps {
            take(&mut world, step);
            world.check()?;
            for Row { cap, vault, .. } in &world.rows {
                let promised = vault.spent().saturating_add(vault.leased);
                prop_assert!(promised <= cap.amount, "{:?} of {:?}", vault, cap);
            }
            for (node, id) in (0..2).flat_map(|node| (0..3).map(move |id| (node, AccountId(id)))) {
                prop_assert!(world.spent(node, id) <= world.rows[place(id)].cap.amount.nanos());
            }
        }
        comes_to_rest(&mut world)?;
    }

    /// With caps that change and attempts that cost more than was held: from then on nobody gets what is
    /// not there, and who is refused is refused with reason.
    #[test]
    fn nobody_gets_what_is_not_there_and_nobody_is_refused_what_is(
        steps in prop::collection::vec(step(1, false), 0..150),
    ) {
        let mut world = World::new(&[1000, 700, 5000], 1);
        for step in steps {
            let (open, refused) = (world.open.len(), world.refused.len());
            let adds = matches!(step, Step::Hold { .. } | Step::Done { .. });
            take(&mut world, step);
            world.check()?;
            for ask in world.open.iter().skip(open).filter(|_| adds) {
                for id in world.enforced(ask) {
                    let (spent, cap) = (world.spent(0, id), world.rows[place(id)].cap.amount.nanos());
                    prop_assert!(spent <= cap, "{:?}: {} of {}", ask, spent, cap);
                }
            }
            for (ask, short) in world.refused.iter().skip(refused) {
                let (Short::Held(id) | Short::Exhausted(id) | Short::Lease(id)) = *short;
                let (held, _) = world.promised(0, id);
                let (spent, cap) = (world.spent(0, id), world.rows[place(id)].cap.amount.nanos());
                // Others who have waited may have come first: what they hold is counted.
                prop_assert!(spent + ask.amount.nanos() > cap, "{:?}: {} of {}", ask, spent, cap);
                match short {
                    Short::Lease(_) => prop_assert!(false, "the store was asked"),
                    Short::Held(_) => prop_assert!(spent - held + ask.amount.nanos() <= cap),
                    Short::Exhausted(_) => prop_assert!(spent - held + ask.amount.nanos() > cap),
                }
            }
        }
        comes_to_rest(&mut world)?;
    }
}
