//! What has ended stays ended, whatever comes after it.

use super::*;

/// A small generator: a seed is a life that can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What is known of a run from outside.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// It was drawn on then.
    used_s: i64,
    ended: bool,
    /// What vendors billed for it.
    billed: u64,
}

/// Seeds of calls, rests, closings, restarts and deaths: who has ended stays ended, who has not and is
/// in use does not end, nobody has more open than may be, and no run has more than its one cap.
#[test]
fn what_has_ended_stays_ended() {
    const NAMES: u64 = 6;
    // Without it a seed may have nothing that ends.
    let (mut ends, mut refused) = (0, 0);
    for seed in 0..16 {
        let folder = TempDir::new().unwrap();
        let mut chance = Chance(seed);
        let (mut now_s, mut runs) = (1000, [Seen::default(); NAMES as usize]);
        let mut spending = open(folder.path(), now_s);
        for step in 0..60 {
            let said = format!("seed {seed}, step {step}");
            let place = chance.below(NAMES) as usize;
            let scope = format!("k/{place}");
            match chance.below(10) {
                0 => {
                    rests(&spending);
                    now_s += chance.below(2 * IDLE_S as u64) as i64;
                    spending.keep_clock(now_s);
                }
                1 if is_closed(close(folder.path(), &scope)) => {
                    spending.flush().unwrap();
                    (runs[place].ended, ends) = (true, ends + 1);
                }
                2 => {
                    match chance.below(2) {
                        0 => spending.close(),
                        _ => spending.abandon(),
                    }
                    spending = open(folder.path(), now_s);
                }
                _ => {
                    let (run, worst) = (runs[place], 1 + chance.below(CAP / 8));
                    match hold(&spending, &scope, worst) {
                        Ok(held) => {
                            assert!(!run.ended, "{said}: it has ended");
                            let rested_s = now_s - run.used_s;
                            assert!(
                                run.used_s == 0 || rested_s < IDLE_S,
                                "{said}: it has rested {rested_s} s"
                            );
                            let cost = chance.below(worst + 1);
                            held.settle(usd(cost), None);
                            runs[place] = Seen { used_s: now_s, ended: false, billed: run.billed + cost };
                        }
                        Err(NotHeld::Run(why)) => match *why {
                            RunRefused::Ended { by: EndedBy::Closed, .. } => assert!(run.ended, "{said}"),
                            RunRefused::Ended { by: EndedBy::Idle, .. } => {
                                let is_idle = now_s - run.used_s >= IDLE_S;
                                assert!(run.ended || is_idle, "{said}: used at {}, now {now_s}", run.used_s);
                                (runs[place].ended, ends) = (true, ends + 1);
                            }
                            RunRefused::TooMany { .. } => {
                                refused += 1;
                                assert_eq!((run.used_s, run.ended), (0, false), "{said}: it is no new one");
                            }
                        },
                        Err(NotHeld::Exhausted(_)) => runs[place].used_s = now_s,
                        Err(why @ (NotHeld::Held(_) | NotHeld::Store(_))) => panic!("{said}: {why:?}"),
                    }
                }
            }
            let open = store(folder.path()).runs(None, false, 100).unwrap().len();
            assert!(open <= RUNS_MAX as usize, "{said}: {open} are open");
        }
        spending.close();
        for (place, run) in runs.iter().enumerate() {
            let settled = settled(folder.path(), &format!("k/{place}"));
            assert!(run.billed <= settled && settled <= CAP, "seed {seed}: {} of {settled}", run.billed);
        }
    }
    assert!(ends > 20 && refused > 20, "{ends} ends, {refused} refusals");
}
