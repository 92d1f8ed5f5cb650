//! Writes a moment as the market does: ISO 8601 in UTC, without an offset.

use std::time::{Duration, SystemTime};

const DAY_SECONDS: u64 = 86_400;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;

/// `2026-11-21T19:59:13.000000`, with microseconds.
pub(crate) fn iso(moment: SystemTime) -> String {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / DAY_SECONDS, since.as_secs() % DAY_SECONDS);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Year, month and day of a day since 1970. Counts from March, so that the
/// leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days from the first of March of the year 0
    let (era, day_of_era) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::iso;

    #[test]
    fn known_moments_are_written() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000"),
            (951_782_400, "2000-02-29T00:00:00.000000"),
            (951_868_799, "2000-02-29T23:59:59.000000"),
            (1_795_000_000, "2026-11-18T11:06:40.000000"),
            (4_107_542_400, "2100-03-01T00:00:00.000000"),
        ];
        for (seconds, written) in cases {
            assert_eq!(iso(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), written);
        }
        assert!(iso(SystemTime::UNIX_EPOCH + Duration::from_micros(1_500)).ends_with(":00.001500"));
    }
}
