//! Amounts beyond all measure.

use super::*;

/// What a vendor says, and what is done with it.
#[derive(Clone, Debug)]
struct Said {
    amount: u64,
    charge: u64,
    row: Row,
    ends: bool,
}

fn said() -> impl Strategy<Value = Said> {
    let number = || prop_oneof![any::<u64>(), 0_u64..1000, Just(u64::MAX), Just(1 << 63)];
    (number(), number(), number(), number(), any::<bool>()).prop_map(|(amount, charge, cost, count, ends)| {
        let [input, cached_input, cache_write, output, reasoning, calls] = [count; 6];
        let row = Row { cost, input, cached_input, cache_write, output, reasoning, calls, ..Row::default() };
        Said { amount, charge, row, ends }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// Whatever is said, the store takes it, and the next start does: it is never tried for ever.
    #[test]
    fn no_amount_stops_the_ledger(
        said in prop::collection::vec(said(), 1..8), cap: u64, is_shadow: bool, is_written: bool,
    ) {
        let folder = TempDir::new().unwrap();
        let (spending, _) = open(folder.path());
        let accounts = [drawn("all", "", cap), drawn("seen", "", 1000)];
        let of_all = if is_shadow { Mode::Shadow } else { Mode::Enforce };
        let cap_of = |amount, mode| Cap { amount: usd(amount), mode };
        let caps = [("all".into(), cap_of(cap, of_all)), ("seen".into(), cap_of(1000, Mode::Shadow))];
        spending.go_by(caps.into());
        let mut least = 0_u64;
        for Said { amount, charge, row, ends } in said {
            let row = Box::new(row);
            spending.passed(row.clone());
            let Ok(held) = hold(&spending, &accounts, amount) else { continue };
            if ends {
                held.settle(usd(charge), Some(row));
                least = least.saturating_add(charge.min(NanoUsd::ATTEMPT_MAX.nanos()));
            } else {
                // As a journal may have it that was written before charges were bounded.
                let record = Record::Settled { id: held.id, charge, row: Some(row) };
                spending.lock().journal.append(&record).unwrap();
                std::mem::forget(held);
            }
            if is_written {
                prop_assert_eq!(spending.flush(), Ok(()));
            }
        }
        prop_assert_eq!(spending.figures().settled.nanos(), least, "no attempt costs more than the most");
        std::mem::forget(hold(&spending, &accounts, cap));
        spending.abandon();
        let (spending, _) = open(folder.path());
        prop_assert!(hold(&spending, &[drawn("new", "", 5)], 5).is_ok());
        prop_assert_eq!(spending.flush(), Ok(()));
        prop_assert_eq!(spending.figures().trouble, None);
        spending.close();
        let store = Store::open_to_read(&folder.path().join("sluice.db")).unwrap();
        let seen = store.accounts(Some("seen"), 1).unwrap();
        prop_assert!(seen.first().map_or(0, |seen| seen.vault.spent().nanos()) >= least);
        let query = Query { by: Vec::new(), which: Which::default(), limit: 1 };
        prop_assert!(store.usage(&query).is_ok());
    }
}
