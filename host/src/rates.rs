//! Rates: how much callers, models and upstreams may take a minute, and at once.
//!
//! What a request takes is taken from all that limit it, or from none. Tokens are taken by estimate
//! and made true when the answer has ended; what was too little stays as debt.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_core::rate::{Bucket, Limit, Slots, Together, View, take_all};
use smallvec::SmallVec;

use crate::config::Limits;

/// Meters beyond which those that are full again are forgotten: a full one says nothing.
const METERS_MAX: usize = 16_384;

/// Who is limited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    Key(Arc<str>),
    Team(Arc<str>),
    Model(Arc<str>),
    Upstream(Arc<str>),
}

/// Who is limited, and to what.
pub(crate) type Limited = SmallVec<[(Who, Limits); 4]>;

/// All meters; they outlive a reload.
#[derive(Default)]
pub(crate) struct Rates {
    meters: Mutex<HashMap<Who, Shared>>,
}

/// Locked one after the other in the order of [`Who`], so that nobody waits in a circle.
type Shared = Arc<Mutex<Meter>>;

/// What one of the limited has taken.
#[derive(Default)]
struct Meter {
    limits: Limits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    slots: Option<Slots>,
}

/// What a request has taken: it gives its place back when dropped, and its estimate becomes the truth.
pub(crate) struct Permit {
    meters: SmallVec<[Shared; 4]>,
    estimate: u64,
    /// Nothing while nothing was sent, then [`UNKNOWN`] until it is known.
    used: AtomicU64,
    counts_tokens: bool,
    told: Told,
    /// Somebody works on the request, or has answered it.
    served: AtomicBool,
    /// From this one on, meters that others draw on too.
    shared_from: usize,
}

/// Where nobody says what was used, the estimate stays.
const UNKNOWN: u64 = u64::MAX;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Requests,
    Tokens,
    Concurrent,
}

/// A limit that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverRate {
    pub(crate) who: Who,
    pub(crate) counted: Counted,
    pub(crate) limit: u64,
    /// Until it would pass; none: it never would.
    pub(crate) wait: Option<Duration>,
    /// What there is of all that limit the request.
    pub(crate) told: Box<Told>,
}

/// What a caller is told: of several limits, the tightest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) requests: Option<View>,
    pub(crate) tokens: Option<View>,
}

impl Who {
    /// For messages.
    pub(crate) fn named(&self) -> String {
        match self {
            Who::Key(_) => "this key".into(),
            Who::Team(name) => format!("the team {name:?}"),
            Who::Model(name) => format!("the model {name:?}"),
            Who::Upstream(name) => format!("the upstream {name:?}"),
        }
    }
}

impl OverRate {
    pub(crate) fn message(&self) -> String {
        let OverRate { who, counted, limit, wait, told: _ } = self;
        let who = who.named();
        let what = match counted {
            Counted::Requests => format!("{limit} requests a minute"),
            Counted::Tokens => format!("{limit} tokens a minute"),
            Counted::Concurrent => format!("{limit} requests at once"),
        };
        match wait {
            Some(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                format!("The limit of {who} is {what}, and they are used up; ask again in {seconds} s.")
            }
            None => format!("The limit of {who} is {what}, and this request alone is more."),
        }
    }
}

impl Rates {
    /// Takes one request, `estimate` tokens and a place from all of these, or nothing.
    ///
    /// # Errors
    ///
    /// [`OverRate`]: the limit with the longest wait.
    pub(crate) fn take(&self, mut limited: Limited, estimate: u64, now: Instant) -> Result<Permit, OverRate> {
        limited.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        limited.dedup_by(|(one, _), (other, _)| one == other);
        let meters = self.meters(&limited, now);
        let mut taken: SmallVec<[MutexGuard<'_, Meter>; 4]> =
            meters.iter().map(|meter| lock(meter)).collect();
        for (meter, (_, limits)) in taken.iter_mut().zip(&limited) {
            meter.set(*limits, now);
        }
        if let Err(Over { place, counted, limit, wait }) = take(&mut taken, estimate, now) {
            let told = Box::new(Told::of(&taken, now));
            return Err(OverRate { who: limited.swap_remove(place).0, counted, limit, wait, told });
        }
        let told = Told::of(&taken, now);
        drop(taken);
        let is_callers = |(who, _): &(Who, Limits)| matches!(who, Who::Key(_) | Who::Team(_));
        let shared_from = limited.iter().take_while(|limit| is_callers(limit)).count();
        let counts_tokens = told.tokens.is_some();
        let (used, served) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Permit { meters, estimate, used, counts_tokens, told, served, shared_from })
    }

    fn meters(&self, limited: &Limited, now: Instant) -> SmallVec<[Shared; 4]> {
        let mut meters = lock(&self.meters);
        if meters.len() > METERS_MAX {
            // Who has a permit keeps its meter.
            meters.retain(|_, meter| Arc::strong_count(meter) > 1 || !lock(meter).is_full(now));
        }
        let of = |(who, _): &(Who, Limits)| match meters.get(who) {
            Some(meter) => Arc::clone(meter),
            None => Arc::clone(meters.entry(who.clone()).or_default()),
        };
        limited.iter().map(of).collect()
    }
}

/// A limit that refuses, by its place among those that were asked.
struct Over {
    place: usize,
    counted: Counted,
    limit: u64,
    wait: Option<Duration>,
}

/// Takes from all, or says what refuses.
fn take(meters: &mut [MutexGuard<'_, Meter>], estimate: u64, now: Instant) -> Result<(), Over> {
    for (place, meter) in meters.iter().enumerate() {
        if let (Some(slots), Some(limit)) = (&meter.slots, meter.limits.concurrent)
            && slots.out() >= limit.get()
        {
            // When a place is free is up to those who have one.
            let (limit, wait) = (limit.get().into(), Some(Duration::from_secs(1)));
            return Err(Over { place, counted: Counted::Concurrent, limit, wait });
        }
    }
    take_amounts(meters, estimate, now)?;
    for slots in meters.iter_mut().filter_map(|meter| meter.slots.as_mut()) {
        // There is room: it was looked at above, under the same locks.
        let _ = slots.take();
    }
    Ok(())
}

/// Takes from all buckets, or says which refuses.
fn take_amounts(meters: &mut [MutexGuard<'_, Meter>], estimate: u64, now: Instant) -> Result<(), Over> {
    let mut asked: SmallVec<[(usize, Counted); 8]> = SmallVec::new();
    let mut wanted: SmallVec<[(&mut Bucket, u64); 8]> = SmallVec::new();
    for (place, meter) in meters.iter_mut().enumerate() {
        let Meter { requests, tokens, .. } = &mut **meter;
        for (counted, bucket, amount) in
            [(Counted::Requests, requests, 1), (Counted::Tokens, tokens, estimate)]
        {
            if let Some(bucket) = bucket {
                asked.push((place, counted));
                wanted.push((bucket, amount));
            }
        }
    }
    let (index, wait) = match take_all(&mut wanted, now) {
        Together::Now => return Ok(()),
        Together::In { index, wait } => (index, Some(wait)),
        Together::Never { index } => (index, None),
    };
    let ((place, counted), limit) = (asked[index], wanted[index].0.view(now).limit);
    Err(Over { place, counted, limit, wait })
}

impl Permit {
    /// Somebody works on the request, or has answered it.
    pub(crate) fn serves(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// From here on tokens may be used.
    pub(crate) fn sent(&self) {
        self.serves();
        // Of several attempts, what an earlier one has used is known already.
        let _ = self.used.compare_exchange(0, UNKNOWN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// So many tokens were used, after what was said before.
    pub(crate) fn uses(&self, tokens: u64) {
        let sum = |used: u64| if used == UNKNOWN { tokens } else { used.saturating_add(tokens) };
        let add = |used| Some(sum(used).min(UNKNOWN - 1));
        // The closure always has an answer.
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Some of its limits count tokens.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }

    /// What was left when it was given: of several limits, the tightest.
    pub(crate) fn told(&self) -> Told {
        self.told
    }
}

impl Told {
    fn of(meters: &[MutexGuard<'_, Meter>], now: Instant) -> Told {
        let tightest = |bucket: fn(&Meter) -> Option<&Bucket>| {
            let views = meters.iter().filter_map(|meter| Some(bucket(meter)?.view(now)));
            views.min_by_key(|view| view.remaining)
        };
        Told {
            requests: tightest(|meter| meter.requests.as_ref()),
            tokens: tightest(|meter| meter.tokens.as_ref()),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let used = match *self.used.get_mut() {
            UNKNOWN => self.estimate,
            used => used,
        };
        let served = *self.served.get_mut();
        for (place, meter) in self.meters.iter().enumerate() {
            let mut meter = lock(meter);
            // Who is refused has asked; but not of the model and the upstream, which others need.
            if let Some(requests) = meter.requests.as_mut().filter(|_| !served && place >= self.shared_from) {
                requests.amend(1, 0, now);
            }
            if let Some(tokens) = &mut meter.tokens {
                tokens.amend(self.estimate, used, now);
            }
            if let Some(slots) = &mut meter.slots {
                slots.give_back();
            }
        }
    }
}

impl Meter {
    /// A reload may have changed them.
    fn set(&mut self, limits: Limits, now: Instant) {
        if self.limits == limits {
            return;
        }
        self.limits = limits;
        let set =
            |bucket: &mut Option<Bucket>, per_minute: Option<NonZeroU64>| match (bucket.as_mut(), per_minute)
            {
                (Some(bucket), Some(per_minute)) => bucket.set_limit(Limit { per_minute }, now),
                (None, Some(per_minute)) => *bucket = Some(Bucket::new(Limit { per_minute }, now)),
                (_, None) => *bucket = None,
            };
        set(&mut self.requests, limits.requests_per_minute);
        set(&mut self.tokens, limits.tokens_per_minute);
        match (&mut self.slots, limits.concurrent) {
            (Some(slots), Some(max)) => slots.set_max(max.get()),
            (slots, max) => *slots = max.map(|max| Slots::new(max.get())),
        }
    }

    /// Nothing would be lost with it.
    fn is_full(&self, now: Instant) -> bool {
        let full =
            |bucket: &Option<Bucket>| bucket.as_ref().is_none_or(|bucket| bucket.view(now).full_in.is_zero());
        full(&self.requests) && full(&self.tokens) && self.slots.as_ref().is_none_or(|slots| slots.out() == 0)
    }
}

/// What a panic leaves behind is a count that is one too high.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::*;

    fn limits(requests: u64, tokens: u64, concurrent: u32) -> Limits {
        Limits {
            requests_per_minute: NonZeroU64::new(requests),
            tokens_per_minute: NonZeroU64::new(tokens),
            concurrent: NonZeroU32::new(concurrent),
        }
    }

    fn key(name: &str, limits: Limits) -> (Who, Limits) {
        (Who::Key(name.into()), limits)
    }

    #[test]
    fn all_of_them_or_none() {
        let rates = Rates::default();
        let now = Instant::now();
        let both =
            || Limited::from_iter([key("a", limits(10, 0, 0)), (Who::Team("t".into()), limits(1, 0, 0))]);
        let first = rates.take(both(), 0, now).unwrap();
        let over = rates.take(both(), 0, now).err().unwrap();
        assert_eq!(over.told.requests.map(|view| (view.limit, view.remaining)), Some((1, 0)));
        assert_eq!((over.who, over.counted, over.limit), (Who::Team("t".into()), Counted::Requests, 1));
        assert_eq!(over.wait, Some(Duration::from_secs(60)));
        assert_eq!(first.told().requests.map(|view| view.remaining), Some(0), "the tightest");
        let alone = rates.take(Limited::from_iter([key("a", limits(10, 0, 0))]), 0, now).unwrap();
        assert_eq!(alone.told().requests.map(|view| view.remaining), Some(8), "the refused one took nothing");
    }

    #[test]
    fn an_estimate_becomes_the_truth_and_a_debt_stays() {
        let rates = Rates::default();
        let now = Instant::now();
        let one = || Limited::from_iter([key("a", limits(0, 600, 0))]);
        let unsent = rates.take(one(), 600, now).unwrap();
        drop(unsent);
        let permit = rates.take(one(), 100, now).unwrap();
        permit.sent();
        permit.uses(400);
        permit.uses(500);
        drop(permit);
        let over = rates.take(one(), 100, now).err().unwrap();
        assert_eq!(over.counted, Counted::Tokens);
        // 300 of debt and 100 that are wanted, ten a second.
        let wait = over.wait.unwrap();
        assert!((39..=40).contains(&wait.as_secs()), "{wait:?}");
        let never = rates.take(one(), 601, now + Duration::from_secs(600)).err().unwrap();
        assert_eq!(never.wait, None);
    }

    #[test]
    fn who_is_refused_later_takes_nothing_of_what_others_share() {
        let rates = Rates::default();
        let now = Instant::now();
        let both =
            || Limited::from_iter([key("a", limits(9, 0, 0)), (Who::Model("m".into()), limits(9, 0, 0))]);
        let left = |permit: &Permit| permit.told().requests.map(|view| view.remaining);
        drop(rates.take(both(), 0, now).unwrap());
        let model = || Limited::from_iter([(Who::Model("m".into()), limits(9, 0, 0))]);
        let permit = rates.take(model(), 0, now).unwrap();
        assert_eq!(left(&permit), Some(8), "it was given back");
        permit.sent();
        drop(permit);
        assert_eq!(left(&rates.take(model(), 0, now).unwrap()), Some(7), "it was used");
        let own = Limited::from_iter([key("a", limits(9, 0, 0))]);
        assert_eq!(left(&rates.take(own, 0, now).unwrap()), Some(7), "who asks has asked");
    }

    #[test]
    fn a_place_comes_back() {
        let rates = Rates::default();
        let now = Instant::now();
        let one = || Limited::from_iter([key("a", limits(0, 0, 1))]);
        let first = rates.take(one(), 0, now).unwrap();
        assert_eq!(rates.take(one(), 0, now).err().map(|over| over.counted), Some(Counted::Concurrent));
        drop(first);
        assert!(rates.take(one(), 0, now).is_ok());
    }

    #[test]
    fn what_says_nothing_is_forgotten() {
        let rates = Rates::default();
        let now = Instant::now();
        for number in 0..METERS_MAX + 2 {
            drop(rates.take(Limited::from_iter([key(&number.to_string(), limits(60, 0, 0))]), 0, now));
        }
        let later = now + Duration::from_secs(2);
        drop(rates.take(Limited::from_iter([key("new", limits(60, 0, 0))]), 0, later));
        assert_eq!(lock(&rates.meters).len(), 1);
    }
}
