//! The laws of windows in every zone that there is, and the days that have broken others.

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3600;

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn every_zone() -> Vec<Zone> {
    let names = TimeZoneDatabase::bundled();
    names.available().filter_map(|name| name.to_string().parse().ok()).collect()
}

fn at(text: &str) -> UnixSeconds {
    UnixSeconds::new(text.parse::<Timestamp>().unwrap().as_second())
}

fn after(at: UnixSeconds, seconds: i64) -> UnixSeconds {
    UnixSeconds::new(at.get() + seconds)
}

fn shown(at: UnixSeconds) -> String {
    Timestamp::from_second(at.get()).unwrap().to_string()
}

fn days_and_months(zone: &Zone) -> [Window; 2] {
    [Window::Day(zone.clone()), Window::Month(zone.clone())]
}

/// The date by which a window is named, as the zone's own clocks show it.
fn date(window: &Window, at: UnixSeconds) -> Date {
    let local = |zone: &Zone| zone.0.to_datetime(Timestamp::from_second(at.get()).unwrap()).date();
    match window {
        Window::Day(zone) => local(zone),
        Window::Month(zone) => local(zone).first_of_month(),
        Window::Total => Date::MIN,
    }
}

/// All that is true of an instant and its window. Together they leave one answer.
fn holds(window: &Window, at: UnixSeconds) -> Result<(), String> {
    let span = window.span(at);
    let end = span.end.ok_or("it does not end")?;
    let said =
        |law: &str| format!("{law}: {window:?} at {}: {} to {}", shown(at), shown(span.start), shown(end));
    let law = |holds: bool, text: &str| if holds { Ok(()) } else { Err(said(text)) };
    law(span.start <= at && at < end && span.contains(at), "the instant is within")?;
    law(!span.contains(after(span.start, -1)) && !span.contains(end), "nothing else is")?;
    law(window.span(end).start == end, "the next one follows")?;
    law(window.span(after(span.start, -1)).end == Some(span.start), "the one before ends here")?;
    law(window.span(span.start) == span && window.span(after(end, -1)) == span, "all of it is one")?;
    law(date(window, after(span.start, -1)) < date(window, span.start), "its date begins with it")?;
    law(date(window, at) <= date(window, span.start), "no later date is reached in it")?;
    let hours = (end.get() - span.start.get()) / HOUR;
    let usual = match window {
        // Stations in the Antarctic have moved their clocks by three hours, and Vostok in 1994 by seven.
        Window::Day(_) => 17..=31,
        Window::Month(_) => 27 * 24..=32 * 24,
        Window::Total => 0..=0,
    };
    law(usual.contains(&hours), "it is as long as it should be")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn every_instant_has_one_window(
        zone in prop::sample::select(every_zone()),
        at in 631_152_000_i64..2_840_140_800,
    ) {
        for window in days_and_months(&zone) {
            let at = UnixSeconds::new(at);
            prop_assert_eq!(holds(&window, at), Ok(()));
            let span = window.span(at);
            for part in 1..8 {
                let length = span.end.unwrap().get() - span.start.get();
                prop_assert_eq!(window.span(after(span.start, length * part / 8)), span);
            }
        }
    }

    /// Time that goes on never comes back to a window that it left.
    #[test]
    fn windows_never_go_back(
        zone in prop::sample::select(every_zone()),
        at in 631_152_000_i64..2_840_140_800,
        by in 0_i64..4_000_000,
    ) {
        for window in days_and_months(&zone) {
            let (one, other) = (window.span(UnixSeconds::new(at)), window.span(UnixSeconds::new(at + by)));
            prop_assert!(one == other || one.end.unwrap() <= other.start);
        }
    }
}

/// Chance hardly ever meets the hours at which a zone changes; here is each of them.
#[test]
fn every_change_of_every_zone_from_1990_to_2060_keeps_the_laws() {
    let (first, last) = (at("1990-01-01T00:00:00Z"), at("2060-01-01T00:00:00Z"));
    let mut changes = 0;
    for zone in every_zone() {
        let following = zone.0.following(Timestamp::from_second(first.get()).unwrap());
        for change in following.take_while(|change| change.timestamp().as_second() < last.get()) {
            changes += 1;
            let change = UnixSeconds::new(change.timestamp().as_second());
            for window in days_and_months(&zone) {
                for seconds in [-HOUR, -60, -1, 0, 1, 59, 60, HOUR - 1, HOUR, 2 * HOUR] {
                    assert_eq!(holds(&window, after(change, seconds)), Ok(()));
                }
            }
        }
    }
    assert!(changes > 20_000, "{changes}");
}

#[test]
fn days_that_are_not_of_24_hours() {
    let rows = [
        // zone, an instant, start, end, hours; a plain day is the control.
        ("UTC", "2026-06-01T12:00:00Z", "2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z", 24),
        ("Europe/Helsinki", "2026-06-01T12:00:00Z", "2026-05-31T21:00:00Z", "2026-06-01T21:00:00Z", 24),
        // Spring forward, fall back.
        ("Europe/Helsinki", "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z", 23),
        ("Europe/Helsinki", "2026-10-25T12:00:00Z", "2026-10-24T21:00:00Z", "2026-10-25T22:00:00Z", 25),
        ("America/New_York", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", 23),
        ("America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
        // Midnight is left out: the day begins at 01:00.
        ("America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", 23),
        ("Asia/Beirut", "2022-03-27T12:00:00Z", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z", 23),
        // The clocks go back at midnight: 23:00 to 24:00 come twice, and are the old day's.
        ("America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z", 25),
        // They go back at 01:00: 00:00 to 01:00 come twice, and are the new day's.
        ("America/Havana", "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
        // They go back at 00:01: the new day has begun, and 23:01 to 24:00 come again as a part of it.
        ("America/St_Johns", "2010-11-07T02:00:00Z", "2010-11-06T02:30:00Z", "2010-11-07T02:30:00Z", 24),
        ("America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z", 25),
        ("America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z", 25),
        // There was no 30 December 2011 on Samoa.
        ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", 24),
        ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z", 24),
    ];
    for (name, instant, start, end, hours) in rows {
        let window = Window::Day(zone(name));
        assert_eq!(
            window.span(at(instant)),
            Span { start: at(start), end: Some(at(end)) },
            "{name} {instant}"
        );
        assert_eq!(at(end).get() - at(start).get(), hours * HOUR, "{name} {instant}");
        assert_eq!(holds(&window, at(instant)), Ok(()));
    }
    // Half an hour, on Lord Howe Island.
    let span = Window::Day(zone("Australia/Lord_Howe")).span(at("2026-04-05T00:00:00Z"));
    assert_eq!((span.end.unwrap().get() - span.start.get()) * 2, 49 * HOUR);
}

/// No zone has done so since Toronto in 1919, but any may decree it.
#[test]
fn a_change_across_midnight_begins_the_day() {
    // From 23:30 on the second Sunday of March to 00:30, and back on the first of November.
    let zone = Zone(TimeZone::posix("AAA0BBB,M3.2.0/23:30,M11.1.0/0:30").unwrap());
    let window = Window::Day(zone.clone());
    let change = at("2026-03-08T23:30:00Z");
    let span = window.span(change);
    assert_eq!((span.start, span.end), (change, Some(at("2026-03-09T23:00:00Z"))));
    for change in [change, at("2026-10-31T23:30:00Z")] {
        for minutes in -120..120 {
            for window in days_and_months(&zone) {
                assert_eq!(holds(&window, after(change, minutes * 60)), Ok(()));
            }
        }
    }
}

#[test]
fn months_begin_on_the_first() {
    let rows = [
        ("UTC", "2026-01-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("UTC", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("UTC", "2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("UTC", "2000-02-29T12:00:00Z", "2000-02-01T00:00:00Z", "2000-03-01T00:00:00Z"),
        ("UTC", "2026-04-30T23:59:59Z", "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        // Clocks change within the month.
        ("Europe/Helsinki", "2026-02-28T22:00:00Z", "2026-02-28T22:00:00Z", "2026-03-31T21:00:00Z"),
        ("America/New_York", "2026-11-01T03:59:59Z", "2026-10-01T04:00:00Z", "2026-11-01T04:00:00Z"),
        ("Pacific/Apia", "2011-12-31T09:59:59Z", "2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z"),
        // And on its first day: it is not undone where they go back behind midnight.
        ("America/Havana", "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z"),
        ("America/St_Johns", "2009-11-01T03:00:00Z", "2009-11-01T02:30:00Z", "2009-12-01T03:30:00Z"),
    ];
    for (name, instant, start, end) in rows {
        let window = Window::Month(zone(name));
        assert_eq!(
            window.span(at(instant)),
            Span { start: at(start), end: Some(at(end)) },
            "{name} {instant}"
        );
    }
}

#[test]
fn all_time_is_one_window() {
    for instant in [UnixSeconds::EPOCH, at("2026-06-01T12:00:00Z"), UnixSeconds::MAX] {
        assert_eq!(Window::Total.span(instant), Span { start: UnixSeconds::EPOCH, end: None });
        assert!(Window::Total.span(instant).contains(instant));
    }
}

#[test]
fn the_first_and_the_last_instant_have_windows_too() {
    assert_eq!(UnixSeconds::MAX.get(), Timestamp::MAX.as_second());
    for zone in every_zone() {
        for window in days_and_months(&zone) {
            let first = window.span(UnixSeconds::EPOCH);
            assert_eq!(first.start, UnixSeconds::EPOCH);
            assert_eq!(window.span(first.end.unwrap()).start, first.end.unwrap());
            let last = window.span(UnixSeconds::MAX);
            assert!(last.contains(UnixSeconds::MAX) && last != Span::ALL, "{window:?}");
            assert_eq!(window.span(after(last.start, -1)).end, Some(last.start));
        }
    }
}

#[test]
fn zones_are_read_by_their_names_and_nothing_else() {
    for name in ["UTC", "Etc/UTC", "Europe/Helsinki", "America/Argentina/Buenos_Aires"] {
        assert_eq!(zone(name).to_string(), name);
    }
    assert_eq!(zone("europe/HELSINKI"), zone("Europe/Helsinki"));
    for name in ["", "Helsinki", "Europe/Helsinkii", "+02:00", "EET-2EEST", "Etc/Unknown", " UTC", "../UTC"] {
        assert_eq!(name.parse::<Zone>(), Err(NotAZone), "{name}");
    }
    assert!(every_zone().len() > 500);
    for zone in every_zone() {
        assert_eq!(zone.to_string().parse(), Ok(zone));
    }
    let wanted = "wanted the IANA name of a time zone, such as \"Europe/Helsinki\" or \"UTC\"";
    assert_eq!(NotAZone.to_string(), wanted);
}
