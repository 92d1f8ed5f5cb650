//! What time it is for budgets: a time that follows the wall clock, but never goes back and cannot
//! be set.
//!
//! Windows end by this time. Were it the wall clock itself, whoever sets that a day ahead would have
//! the next day's money today, and whoever sets it back would spend a closed day's again. So the
//! wall clock is read at the start, and from then on monotonic time decides:
//!
//! - a wall clock that is a little off ([`STEP_SECONDS_MAX`]) is followed by running a tenth faster
//!   or slower, so that whatever it shows, a day lasts a day give or take a tenth;
//! - one that is further off has been set: that is reported once and not followed, until it is set
//!   right or the gateway starts again;
//! - at a start, time goes on at the stored anchor or at the wall clock, whichever is later. What the
//!   gateway slept cannot be told from a clock that was set ahead meanwhile: both are taken as time
//!   that has passed, and [`Start::Onward`] says how much. One that was set back is never believed:
//!   whoever wants that removes the anchor.

use std::fmt;
use std::time::Duration;

/// A wall clock that is further off than this has been set: 5 minutes. Time servers correct
/// seconds; a machine that is minutes off has other trouble with certificates already.
pub const STEP_SECONDS_MAX: u64 = 300;

/// One that was set is followed again when it comes this near. Half of the above, so that a clock
/// just at the bound is not reported again and again.
const AGREED_SECONDS_MAX: u64 = STEP_SECONDS_MAX / 2;

/// A tenth of the time that passes is gained or lost at most.
const SLEW: i128 = 10;

/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;

/// An instant in whole seconds of UTC since 1970, up to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(i64);

/// The time of budgets. It has no clock: whoever has one asks [`Clock::read`] at least every few
/// minutes.
#[derive(Debug)]
pub struct Clock {
    /// The time itself since 1970, in nanoseconds: a tenth of a short while is not lost.
    nanos: i128,
    /// Monotonic time of the last reading.
    mono: Duration,
    course: Course,
}

/// What the wall clock is to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// It is right, and is followed.
    Following,
    /// It has been set, and shows so many seconds more.
    Apart { seconds: i64 },
}

/// How time went on at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There was no anchor: by the wall clock.
    First,
    /// By the wall clock.
    Onward {
        /// That have passed since the anchor, if the wall clock is right.
        away_seconds: u64,
    },
    /// At the anchor, which the wall clock has not reached.
    Behind {
        /// That the wall clock is behind it.
        by_seconds: u64,
    },
}

/// An answer of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Reading {
    /// Never before that of an earlier reading.
    pub now: UnixSeconds,
    /// The wall clock has been set since the last reading. Each step is told once.
    pub step: Option<Step>,
}

/// The wall clock has been set, and time does not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// By so much; ahead is positive.
    pub by_seconds: i64,
}

impl UnixSeconds {
    /// The beginning of 1970.
    pub const EPOCH: UnixSeconds = UnixSeconds(0);

    /// The last second that is on a calendar in every zone.
    pub const MAX: UnixSeconds = UnixSeconds(253_402_207_200);

    /// An instant by its seconds since 1970. What is before or after all calendars is the first or
    /// last instant: only a broken clock shows it.
    pub const fn new(seconds: i64) -> UnixSeconds {
        if seconds < UnixSeconds::EPOCH.0 {
            UnixSeconds::EPOCH
        } else if seconds > UnixSeconds::MAX.0 {
            UnixSeconds::MAX
        } else {
            UnixSeconds(seconds)
        }
    }

    /// Seconds since 1970; not negative.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Cannot overflow: both are within the range.
    fn seconds_since(self, other: UnixSeconds) -> i64 {
        self.0 - other.0
    }
}

impl Clock {
    /// Goes on at `anchor`, the latest time that was stored, or at `wall`, whichever is later.
    ///
    /// `mono` is monotonic time since any origin. It should count the time that the machine is
    /// suspended (`CLOCK_BOOTTIME`; an `Instant` does not): else waking up is a step.
    pub fn start(anchor: Option<UnixSeconds>, wall: UnixSeconds, mono: Duration) -> (Clock, Start) {
        let now = anchor.map_or(wall, |anchor| anchor.max(wall));
        let behind_seconds = now.seconds_since(wall).unsigned_abs();
        let start = match anchor {
            None => Start::First,
            Some(anchor) if anchor > wall => Start::Behind { by_seconds: behind_seconds },
            Some(anchor) => Start::Onward { away_seconds: wall.seconds_since(anchor).unsigned_abs() },
        };
        let course = if behind_seconds > STEP_SECONDS_MAX {
            Course::Apart { seconds: wall.seconds_since(now) }
        } else {
            Course::Following
        };
        (Clock { nanos: i128::from(now.0) * NANOS, mono, course }, start)
    }

    /// The time, from what both clocks show at the moment.
    pub fn read(&mut self, wall: UnixSeconds, mono: Duration) -> Reading {
        // One that was taken before the last one and comes late says nothing new.
        let Some(elapsed) = mono.checked_sub(self.mono) else {
            return Reading { now: self.now(), step: None };
        };
        self.mono = mono;
        let elapsed = nanos(elapsed);
        self.nanos += elapsed;
        let apart = wall.seconds_since(self.now());
        let step = self.steer(apart);
        if self.course == Course::Following {
            // That the seconds differ tells which clock is ahead, and to a second how far.
            let most = elapsed / SLEW;
            self.nanos += (i128::from(apart) * NANOS).clamp(-most, most);
        }
        Reading { now: self.now(), step }
    }

    /// The time of the last reading: what to store as the next start's anchor. Whatever was told to
    /// anyone must have been stored, or time can go back.
    pub fn now(&self) -> UnixSeconds {
        let seconds = self.nanos.div_euclid(NANOS);
        UnixSeconds::new(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// The one place where the course changes; `apart` are the seconds that the wall clock shows more.
    fn steer(&mut self, apart: i64) -> Option<Step> {
        let known = match self.course {
            Course::Following => 0,
            Course::Apart { seconds } => seconds,
        };
        let by_seconds = apart - known;
        let stepped = by_seconds.unsigned_abs() > STEP_SECONDS_MAX;
        self.course = match self.course {
            // Following -> Apart
            Course::Following if stepped => Course::Apart { seconds: apart },
            // Apart -> Following
            Course::Apart { .. } if apart.unsigned_abs() <= AGREED_SECONDS_MAX => Course::Following,
            // Apart -> Apart
            Course::Apart { .. } if stepped => Course::Apart { seconds: apart },
            unchanged @ (Course::Following | Course::Apart { .. }) => unchanged,
        };
        stepped.then_some(Step { by_seconds })
    }
}

/// Without a limit: a [`Duration`] has fewer than 95 bits of them.
fn nanos(duration: Duration) -> i128 {
    i128::from(duration.as_secs()) * NANOS + i128::from(duration.subsec_nanos())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.by_seconds < 0 { "back" } else { "ahead" };
        write!(f, "the wall clock was set {way} by {} s", self.by_seconds.unsigned_abs())
    }
}

#[cfg(test)]
mod tests;
