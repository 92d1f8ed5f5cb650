//! Which jobs are not tried for a while, because a bid on them was refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// After the first refusal of a job; each further one doubles it.
const FIRST: Duration = Duration::from_secs(10);

/// After many: longer than jobs are usually open.
const MOST: Duration = Duration::from_secs(600);

/// Jobs that are remembered. Beyond, those go first that may be tried again soonest.
const REMEMBERED_MAX: usize = 4096;

/// Refused jobs, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Refusals(HashMap<String, Refused>);

#[derive(Clone, Copy, Debug)]
struct Refused {
    times: u32,
    until: Instant,
}

impl Refusals {
    /// The market has refused a bid on this job.
    pub fn refused(&mut self, job: &str, now: Instant) {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(job) {
            self.forget(now);
        }
        let times = self.0.get(job).map_or(0, |refused| refused.times.saturating_add(1));
        let wait = FIRST.saturating_mul(1 << times.min(16)).min(MOST);
        self.0.insert(job.to_owned(), Refused { times, until: now + wait });
    }

    /// Whether a bid on it would come too early.
    pub fn bars(&self, job: &str, now: Instant) -> bool {
        self.0.get(job).is_some_and(|refused| now < refused.until)
    }

    /// How many are remembered.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes room: half of them, those first that are barred the shortest.
    fn forget(&mut self, now: Instant) {
        let mut left: Vec<Duration> =
            self.0.values().map(|refused| refused.until.saturating_duration_since(now)).collect();
        left.sort_unstable();
        let median = left[left.len() / 2];
        let mut goes = REMEMBERED_MAX / 2;
        self.0.retain(|_, refused| {
            let stays = refused.until.saturating_duration_since(now) > median || goes == 0;
            goes -= usize::from(!stays);
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_job_rests_longer_each_time() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(!refusals.bars("a", now));
        refusals.refused("a", now);
        assert!(refusals.bars("a", now + Duration::from_secs(9)) && !refusals.bars("b", now));
        let again = now + FIRST;
        assert!(!refusals.bars("a", again));
        refusals.refused("a", again);
        assert!(refusals.bars("a", again + Duration::from_secs(19)));
        assert!(!refusals.bars("a", again + Duration::from_secs(20)));
        for _ in 0..40 {
            refusals.refused("a", again);
        }
        assert!(!refusals.bars("a", again + MOST));
    }

    #[test]
    fn there_is_room_for_so_many_and_the_longest_stay() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for _ in 0..5 {
            refusals.refused("long", now);
        }
        for job in 0..3 * REMEMBERED_MAX {
            refusals.refused(&job.to_string(), now);
            assert!(refusals.len() <= REMEMBERED_MAX);
        }
        assert!(refusals.bars("long", now + Duration::from_secs(100)));
        assert!(refusals.bars(&(3 * REMEMBERED_MAX - 1).to_string(), now));
    }
}
