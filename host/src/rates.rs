//! Rates: how much callers, models and upstreams may take a minute, and at once.
//!
//! A request takes in two steps, each from all that limit it or from none: itself and its place from
//! key and team before its body is read, tokens, and what its model counts, when it has been. Tokens
//! are taken by estimate and made true when the answer has ended; what was too little stays as debt.

mod permit;

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_core::rate::{Bucket, Limit, Slots, Together, View, take_all};
use smallvec::SmallVec;

use crate::config::Limits;
pub(crate) use permit::Permit;
use permit::Taken;

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

/// What is taken of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A request and a place.
    Entry,
    Tokens,
    All,
}

/// All meters; they outlive a reload.
#[derive(Default)]
pub(crate) struct Rates {
    meters: Mutex<Meters>,
}

#[derive(Default)]
struct Meters {
    by_who: HashMap<Who, Shared>,
    /// As many were left when those that are full were forgotten.
    swept_to: usize,
}

/// Locked one after the other in the order of [`Who`], so that nobody waits in a circle.
type Shared = Arc<Mutex<Meter>>;

/// What one of the limited has taken.
struct Meter {
    limits: Limits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// Counted wherever there is a meter: a limit for them may come while they are out.
    slots: Slots,
}

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

/// Who is limited to what, and what is taken.
pub(crate) struct Wanted {
    pub(crate) who: Who,
    pub(crate) limits: Limits,
    pub(crate) part: Part,
}

/// All that limit one request.
pub(crate) type AllWanted = SmallVec<[Wanted; 4]>;

impl Part {
    fn has_entry(self) -> bool {
        matches!(self, Part::Entry | Part::All)
    }

    fn has_tokens(self) -> bool {
        matches!(self, Part::Tokens | Part::All)
    }
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
    /// Takes this part of all of these, or nothing; tokens by the estimate.
    ///
    /// # Errors
    ///
    /// [`OverRate`]: the limit with the longest wait.
    pub(crate) fn take(
        &self,
        mut wanted: AllWanted,
        estimate: u64,
        now: Instant,
    ) -> Result<Permit, OverRate> {
        wanted.sort_unstable_by(|one, other| one.who.cmp(&other.who));
        wanted.dedup_by(|one, other| one.who == other.who);
        let meters = self.meters(&wanted, now);
        let mut locked: SmallVec<[MutexGuard<'_, Meter>; 4]> =
            meters.iter().map(|meter| lock(meter)).collect();
        for (meter, wanted) in locked.iter_mut().zip(&wanted) {
            meter.set(wanted.limits, now);
        }
        if let Err(Over { place, counted, limit, wait }) = take(&mut locked, &wanted, estimate, now) {
            let told = Box::new(Told::of(&locked, now));
            return Err(OverRate { who: wanted.swap_remove(place).who, counted, limit, wait, told });
        }
        let told = Told::of(&locked, now);
        drop(locked);
        let taken = |(meter, Wanted { who, limits, part }): (Shared, Wanted)| Taken {
            meter,
            part,
            tokens: part.has_tokens() && limits.tokens_per_minute.is_some(),
            shared: matches!(who, Who::Model(_) | Who::Upstream(_)),
        };
        Ok(Permit::new(meters.into_iter().zip(wanted).map(taken).collect(), estimate, told))
    }

    fn meters(&self, wanted: &AllWanted, now: Instant) -> SmallVec<[Shared; 4]> {
        let mut meters = lock(&self.meters);
        let Meters { by_who, swept_to } = &mut *meters;
        // All are looked at, so not before there are twice as many as the last time left.
        if by_who.len() > METERS_MAX.max(swept_to.saturating_mul(2)) {
            // Who has a permit keeps its meter.
            by_who.retain(|_, meter| Arc::strong_count(meter) > 1 || !lock(meter).is_full(now));
            *swept_to = by_who.len();
        }
        let of = |wanted: &Wanted| match by_who.get(&wanted.who) {
            Some(meter) => Arc::clone(meter),
            None => Arc::clone(by_who.entry(wanted.who.clone()).or_default()),
        };
        wanted.iter().map(of).collect()
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
fn take(
    meters: &mut [MutexGuard<'_, Meter>],
    wanted: &[Wanted],
    estimate: u64,
    now: Instant,
) -> Result<(), Over> {
    let enters = |place: usize| wanted[place].part.has_entry();
    for (place, meter) in meters.iter().enumerate().filter(|(place, _)| enters(*place)) {
        if let Some(limit) = meter.limits.concurrent
            && meter.slots.out() >= limit.get()
        {
            // When a place is free is up to those who have one.
            let (limit, wait) = (limit.get().into(), Some(Duration::from_secs(1)));
            return Err(Over { place, counted: Counted::Concurrent, limit, wait });
        }
    }
    take_amounts(meters, wanted, estimate, now)?;
    for (_, meter) in meters.iter_mut().enumerate().filter(|(place, _)| enters(*place)) {
        // There is room: it was looked at above, under the same locks.
        let _ = meter.slots.take();
    }
    Ok(())
}

/// Takes from all buckets, or says which refuses.
fn take_amounts(
    meters: &mut [MutexGuard<'_, Meter>],
    parts: &[Wanted],
    estimate: u64,
    now: Instant,
) -> Result<(), Over> {
    let mut asked: SmallVec<[(usize, Counted); 8]> = SmallVec::new();
    let mut wanted: SmallVec<[(&mut Bucket, u64); 8]> = SmallVec::new();
    for (place, (meter, Wanted { part, .. })) in meters.iter_mut().zip(parts).enumerate() {
        let Meter { requests, tokens, .. } = &mut **meter;
        let requests = requests.as_mut().filter(|_| part.has_entry());
        let tokens = tokens.as_mut().filter(|_| part.has_tokens());
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

    fn and(self, later: Told) -> Told {
        let tightest = |one: Option<View>, other: Option<View>| {
            one.into_iter().chain(other).min_by_key(|view| view.remaining)
        };
        Told {
            requests: tightest(self.requests, later.requests),
            tokens: tightest(later.tokens, self.tokens),
        }
    }
}

impl Default for Meter {
    fn default() -> Meter {
        Meter { limits: Limits::default(), requests: None, tokens: None, slots: Slots::new(u32::MAX) }
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
        self.slots.set_max(limits.concurrent.map_or(u32::MAX, NonZeroU32::get));
    }

    /// Nothing would be lost with it.
    fn is_full(&self, now: Instant) -> bool {
        let full =
            |bucket: &Option<Bucket>| bucket.as_ref().is_none_or(|bucket| bucket.view(now).full_in.is_zero());
        full(&self.requests) && full(&self.tokens) && self.slots.out() == 0
    }
}

/// What a panic leaves behind is a count that is one too high.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u64, tokens: u64, concurrent: u32) -> Limits {
        Limits {
            requests_per_minute: NonZeroU64::new(requests),
            tokens_per_minute: NonZeroU64::new(tokens),
            concurrent: NonZeroU32::new(concurrent),
        }
    }

    fn all(who: Who, limits: Limits) -> Wanted {
        Wanted { who, limits, part: Part::All }
    }

    fn key(name: &str, limits: Limits) -> Wanted {
        all(Who::Key(name.into()), limits)
    }

    #[test]
    fn all_of_them_or_none() {
        let rates = Rates::default();
        let now = Instant::now();
        let both = || {
            AllWanted::from_iter([key("a", limits(10, 0, 0)), all(Who::Team("t".into()), limits(1, 0, 0))])
        };
        let first = rates.take(both(), 0, now).unwrap();
        let over = rates.take(both(), 0, now).err().unwrap();
        assert_eq!(over.told.requests.map(|view| (view.limit, view.remaining)), Some((1, 0)));
        assert_eq!((over.who, over.counted, over.limit), (Who::Team("t".into()), Counted::Requests, 1));
        assert_eq!(over.wait, Some(Duration::from_secs(60)));
        assert_eq!(first.told().requests.map(|view| view.remaining), Some(0), "the tightest");
        let alone = rates.take(AllWanted::from_iter([key("a", limits(10, 0, 0))]), 0, now).unwrap();
        assert_eq!(alone.told().requests.map(|view| view.remaining), Some(8), "the refused one took nothing");
    }

    #[test]
    fn an_estimate_becomes_the_truth_and_a_debt_stays() {
        let rates = Rates::default();
        let now = Instant::now();
        let one = || AllWanted::from_iter([key("a", limits(0, 600, 0))]);
        let unsent = rates.take(one(), 600, now).unwrap();
        drop(unsent);
        let permit = rates.take(one(), 100, now).unwrap();
        for tokens in [400, 500] {
            permit.sent();
            permit.ended(tokens);
        }
        drop(permit);
        let over = rates.take(one(), 100, now).err().unwrap();
        assert_eq!(over.counted, Counted::Tokens);
        // 300 of debt and 100 that are wanted, ten a second.
        let wait = over.wait.unwrap();
        assert!((39..=40).contains(&wait.as_secs()), "{wait:?}");
        let never = rates.take(one(), 601, now + Duration::from_secs(600)).err().unwrap();
        assert_eq!(never.wait, None);
    }

    /// Each attempt counts: by what was said of it, by what was seen, or as it was expected.
    #[test]
    fn what_an_attempt_used_is_said_seen_or_expected() {
        let used = |attempts: &dyn Fn(&Permit)| {
            let (rates, now) = (Rates::default(), Instant::now());
            let one = || AllWanted::from_iter([key("a", limits(0, 1_200, 0))]);
            let permit = rates.take(one(), 100, now).unwrap();
            attempts(&permit);
            drop(permit);
            let left = rates.take(one(), 0, now).unwrap().told().tokens.unwrap().remaining;
            1_200 - left
        };
        let attempt = |ends: &dyn Fn(&Permit)| {
            used(&|permit| {
                permit.sent();
                ends(permit);
            })
        };
        // Twenty come back each second, and a permit is dropped by the clock.
        let about = |wanted: u64, is: u64| assert!(is <= wanted && is + 50 > wanted, "{is} for {wanted}");
        assert_eq!(used(&|_| ()), 0);
        about(300, attempt(&|permit| permit.ended(300)));
        assert_eq!(attempt(&|permit| permit.ended(0)), 0, "refused");
        about(100, attempt(&|permit| permit.ended_unsaid(7)));
        about(900, attempt(&|permit| permit.ended_unsaid(900)));
        about(100, attempt(&|_| ()));
        let then = |first: &dyn Fn(&Permit), second: &dyn Fn(&Permit)| {
            attempt(&|permit| {
                first(permit);
                permit.sent();
                second(permit);
            })
        };
        about(400, then(&|permit| permit.ended_unsaid(0), &|permit| permit.ended(300)));
        about(600, then(&|permit| permit.ended(500), &|permit| permit.ended_unsaid(0)));
        about(300, then(&|permit| permit.ended(0), &|permit| permit.ended(300)));
    }

    #[test]
    fn a_place_is_taken_before_tokens_are_known() {
        let (rates, now) = (Rates::default(), Instant::now());
        let part = |part| AllWanted::from_iter([Wanted { part, ..key("a", limits(9, 600, 1)) }]);
        let entry = rates.take(part(Part::Entry), 0, now).unwrap();
        assert!(!entry.counts_tokens());
        assert_eq!(
            rates.take(part(Part::Entry), 0, now).err().map(|over| over.counted),
            Some(Counted::Concurrent)
        );
        assert_eq!(rates.take(part(Part::Tokens), 601, now).err().map(|over| over.wait), Some(None));
        let permit = entry.and(rates.take(part(Part::Tokens), 100, now).unwrap());
        assert!(permit.counts_tokens());
        let told = permit.told();
        assert_eq!(told.requests.map(|view| view.remaining), Some(8), "once");
        assert_eq!(told.tokens.map(|view| view.remaining), Some(500));
        drop(permit);
        let again = rates.take(part(Part::All), 0, now).unwrap().told();
        assert_eq!(again.requests.map(|view| view.remaining), Some(7), "who asks has asked");
        assert_eq!(again.tokens.map(|view| view.remaining), Some(600), "nothing was sent");
    }

    #[test]
    fn who_is_out_before_there_is_a_limit_counts_for_it() {
        let (rates, now) = (Rates::default(), Instant::now());
        let with = |concurrent| AllWanted::from_iter([key("a", limits(100, 0, concurrent))]);
        let before = rates.take(with(0), 0, now).unwrap();
        let full = |max| rates.take(with(max), 0, now).err().map(|over| over.counted);
        assert_eq!(full(1), Some(Counted::Concurrent));
        let second = rates.take(with(2), 0, now).unwrap();
        drop(before);
        assert_eq!(full(1), Some(Counted::Concurrent), "the second is out");
        drop(second);
        assert_eq!(full(1), None);
    }

    #[test]
    fn who_is_refused_later_takes_nothing_of_what_others_share() {
        let rates = Rates::default();
        let now = Instant::now();
        let both = || {
            AllWanted::from_iter([key("a", limits(9, 0, 0)), all(Who::Model("m".into()), limits(9, 0, 0))])
        };
        let left = |permit: &Permit| permit.told().requests.map(|view| view.remaining);
        drop(rates.take(both(), 0, now).unwrap());
        let model = || AllWanted::from_iter([all(Who::Model("m".into()), limits(9, 0, 0))]);
        let permit = rates.take(model(), 0, now).unwrap();
        assert_eq!(left(&permit), Some(8), "it was given back");
        permit.sent();
        drop(permit);
        assert_eq!(left(&rates.take(model(), 0, now).unwrap()), Some(7), "it was used");
        let own = AllWanted::from_iter([key("a", limits(9, 0, 0))]);
        assert_eq!(left(&rates.take(own, 0, now).unwrap()), Some(7), "who asks has asked");
    }

    #[test]
    fn a_place_comes_back() {
        let rates = Rates::default();
        let now = Instant::now();
        let one = || AllWanted::from_iter([key("a", limits(0, 0, 1))]);
        let first = rates.take(one(), 0, now).unwrap();
        assert_eq!(rates.take(one(), 0, now).err().map(|over| over.counted), Some(Counted::Concurrent));
        drop(first);
        assert!(rates.take(one(), 0, now).is_ok());
    }

    /// Each look is at all of them: where none can go, the next one comes when there are twice as many.
    #[test]
    fn meters_that_stay_are_not_looked_at_by_each_request() {
        let (rates, now) = (Rates::default(), Instant::now());
        let one = |number: usize| AllWanted::from_iter([key(&number.to_string(), limits(1, 0, 0))]);
        for number in 0..METERS_MAX + 2 {
            drop(rates.take(one(number), 0, now));
        }
        assert_eq!(lock(&rates.meters).swept_to, METERS_MAX + 1);
        // All are full again, and nobody looks yet.
        let later = now + Duration::from_secs(60);
        drop(rates.take(one(METERS_MAX + 2), 0, later));
        assert_eq!(lock(&rates.meters).by_who.len(), METERS_MAX + 3);
    }

    #[test]
    fn what_says_nothing_is_forgotten() {
        let rates = Rates::default();
        let now = Instant::now();
        for number in 0..=METERS_MAX {
            drop(rates.take(AllWanted::from_iter([key(&number.to_string(), limits(60, 0, 0))]), 0, now));
        }
        let later = now + Duration::from_secs(2);
        drop(rates.take(AllWanted::from_iter([key("new", limits(60, 0, 0))]), 0, later));
        assert_eq!(lock(&rates.meters).by_who.len(), 1);
    }
}
