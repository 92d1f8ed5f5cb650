//! When bidding goes on after a market has failed or refused: the waits double, and one success ends
//! them.

use std::time::{Duration, Instant};

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// After many.
const MOST: Duration = Duration::from_secs(60);

/// While nothing but the operator's money or key can help.
const FOR_THE_OPERATOR: Duration = Duration::from_secs(30);

/// Why nothing is bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The account has no money that the market takes.
    Balance,
    /// The market does not know the key.
    Credential,
    /// The market cannot be reached, is silent, fails, or talks nonsense.
    Trouble,
    /// The market wants us to wait.
    Throttled,
    /// Our own endpoint does not answer as the market would have to find it.
    Endpoint,
    /// The ledger takes no bid.
    Ledger,
    /// No strategy can be asked.
    Strategies,
}

impl Reason {
    /// One word for it, for labels.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Balance => "balance",
            Reason::Credential => "credential",
            Reason::Trouble => "trouble",
            Reason::Throttled => "throttled",
            Reason::Endpoint => "endpoint",
            Reason::Ledger => "ledger",
            Reason::Strategies => "strategies",
        }
    }
}

/// Whether bidding pauses.
#[derive(Clone, Debug, Default)]
pub struct Pause(Option<Paused>);

#[derive(Clone, Copy, Debug)]
struct Paused {
    reason: Reason,
    times: u32,
    until: Instant,
}

impl Pause {
    /// Something was in the way. True where that is news: nothing was, or something else. `at_least`: as
    /// the market wishes.
    pub fn fails(&mut self, reason: Reason, at_least: Duration, now: Instant) -> bool {
        let before = self.0.filter(|paused| paused.reason == reason);
        let times = before.map_or(0, |paused| paused.times.saturating_add(1));
        let wait = match reason {
            Reason::Balance | Reason::Credential => FOR_THE_OPERATOR,
            Reason::Trouble | Reason::Throttled | Reason::Endpoint | Reason::Ledger | Reason::Strategies => {
                FIRST.saturating_mul(1 << times.min(16)).min(MOST)
            }
        };
        self.0 = Some(Paused { reason, times, until: now + wait.max(at_least.min(MOST)) });
        before.is_none()
    }

    /// All went well. True where that is news.
    pub fn ends(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Why nothing is bid, if that is so.
    pub fn reason(&self) -> Option<Reason> {
        self.0.map(|paused| paused.reason)
    }

    /// How long it is not worth trying.
    pub fn wait(&self, now: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |paused| paused.until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_one_success_ends_them() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        assert_eq!(pause.wait(now), Duration::ZERO);
        let mut waits = Vec::new();
        for turn in 0..9 {
            assert_eq!(pause.fails(Reason::Trouble, Duration::ZERO, now), turn == 0, "told once");
            waits.push(pause.wait(now).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(pause.fails(Reason::Balance, Duration::ZERO, now), "another reason is news");
        assert_eq!((pause.reason(), pause.wait(now).as_secs()), (Some(Reason::Balance), 30));
        assert!(pause.ends() && !pause.ends());
        assert_eq!(pause.wait(now), Duration::ZERO);
    }

    #[test]
    fn a_market_that_names_a_time_gets_it_within_reason() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        pause.fails(Reason::Throttled, Duration::from_secs(7), now);
        assert_eq!(pause.wait(now).as_secs(), 7);
        pause.fails(Reason::Throttled, Duration::from_secs(86_400), now);
        assert_eq!(pause.wait(now), MOST);
        assert_eq!(pause.wait(now + MOST), Duration::ZERO);
    }
}
