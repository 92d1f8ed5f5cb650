//! Which day or month of a budget an instant is in: windows that follow one another without a gap,
//! by the calendar of a named zone.
//!
//! A day begins when its date is first reached, and a month with its first day. Zones do odd things
//! at midnight: they leave it out (the day begins at 01:00), leave out a whole date (it has no
//! window), or go back behind it (the day before is not opened again). So windows are cut at
//! instants, not at what a clock on the wall shows.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Error, Timestamp};

use crate::clock::UnixSeconds;

/// What a budget's money is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// Each day of a zone.
    Day(Zone),
    /// Each month of a zone.
    Month(Zone),
    /// All time.
    Total,
}

/// A time zone of the IANA database, which is compiled in; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    /// UTC.
    fn default() -> Zone {
        Zone(TimeZone::UTC)
    }
}

/// One window in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Its first second.
    pub start: UnixSeconds,
    /// The first second that is not in it, and the start of the next; none: it does not end.
    pub end: Option<UnixSeconds>,
}

/// Why a text is no zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted the IANA name of a time zone, such as \"Europe/Helsinki\" or \"UTC\"")]
pub struct NotAZone;

/// Dates that make one window.
#[derive(Clone, Copy)]
enum Unit {
    Day,
    Month,
}

impl Window {
    /// The window that an instant is in.
    pub fn span(&self, at: UnixSeconds) -> Span {
        let span = match self {
            Window::Day(zone) => zone.span(at, Unit::Day),
            Window::Month(zone) => zone.span(at, Unit::Month),
            Window::Total => Ok(Span::ALL),
        };
        // Every instant is on the calendar. Were one not, money without a date is safest in a window
        // that never starts afresh.
        span.unwrap_or(Span::ALL)
    }
}

impl Span {
    /// All time.
    const ALL: Span = Span { start: UnixSeconds::EPOCH, end: None };

    /// Whether it is in this window.
    pub fn contains(&self, at: UnixSeconds) -> bool {
        self.start <= at && self.end.is_none_or(|end| at < end)
    }

    fn between(start: Timestamp, end: Option<Timestamp>) -> Span {
        let seconds = |instant: Timestamp| UnixSeconds::new(instant.as_second());
        Span { start: seconds(start), end: end.map(seconds) }
    }
}

impl Zone {
    fn span(&self, at: UnixSeconds, unit: Unit) -> Result<Span, Error> {
        let now = Timestamp::from_second(at.get())?;
        let first = unit.first(self.0.to_datetime(now).date());
        let next = unit.next(first);
        match next.and_then(|next| self.reached(next)) {
            // The next has begun before, and then the zone went back behind its midnight.
            Ok(start) if start <= now => {
                let after = unit.next(unit.next(first)?);
                Ok(Span::between(start, after.and_then(|after| self.reached(after)).ok()))
            }
            // Without an end where the calendar has none.
            end => Ok(Span::between(self.reached(first)?, end.ok())),
        }
    }

    /// When this date or a later one is on the calendar for the first time.
    fn reached(&self, date: Date) -> Result<Timestamp, Error> {
        let midnight = date.to_datetime(Time::midnight());
        match self.0.to_ambiguous_timestamp(midnight).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(midnight),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(midnight),
            // The change that leaves midnight out. By the clock that comes after it midnight would
            // be before it, and by the clock that goes it would be after it.
            AmbiguousOffset::Gap { before, after } => {
                let change = self.0.following(after.to_timestamp(midnight)?).next();
                change.map_or_else(|| before.to_timestamp(midnight), |change| Ok(change.timestamp()))
            }
        }
    }
}

impl Unit {
    /// The first date of the window with this one.
    fn first(self, date: Date) -> Date {
        match self {
            Unit::Day => date,
            Unit::Month => date.first_of_month(),
        }
    }

    /// The first date of the window after the one with this date.
    fn next(self, date: Date) -> Result<Date, Error> {
        match self {
            Unit::Day => date.tomorrow(),
            Unit::Month => date.last_of_month().tomorrow(),
        }
    }
}

impl FromStr for Zone {
    type Err = NotAZone;

    /// Reads an IANA name, in any case.
    fn from_str(name: &str) -> Result<Zone, NotAZone> {
        let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| NotAZone)?;
        // `Etc/Unknown` is a name too, for what has none.
        if zone.is_unknown() { Err(NotAZone) } else { Ok(Zone(zone)) }
    }
}

impl fmt::Display for Zone {
    /// The name as the database writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

#[cfg(test)]
mod tests;
