//! Money of the market: whole billionths of a dollar, read from and written as JSON numbers.
//!
//! A number is read by its digits and never as a float, so that what a wallet
//! says can be compared with what was bid to the last billionth.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

/// Billionths in a whole.
const NANOS: u64 = 1_000_000_000;

/// Decimals of a billionth.
const DECIMALS: usize = 9;

/// Most dollars of one amount: a million, so that no sum of a season overflows.
const DOLLARS_MAX: u64 = 1_000_000;

/// US dollars, in billionths. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NanoUsd(u64);

/// A part of a whole, in billionths: from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u64);

/// Why a JSON value is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotMoney {
    NotANumber,
    Negative,
    /// It has more than nine decimals.
    TooFine,
    /// It is more than a million.
    TooLarge,
}

// === impl NanoUsd ===

impl NanoUsd {
    pub const ZERO: NanoUsd = NanoUsd(0);

    /// So many billionths of a dollar.
    pub const fn from_nanos(nanos: u64) -> NanoUsd {
        NanoUsd(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Reads a JSON number by its digits.
    pub(crate) fn read(json: &str) -> Result<NanoUsd, NotMoney> {
        let nanos = read_nanos(json)?;
        if nanos > DOLLARS_MAX * NANOS {
            return Err(NotMoney::TooLarge);
        }
        Ok(NanoUsd(nanos))
    }

    pub(crate) fn plus(self, other: NanoUsd) -> Option<NanoUsd> {
        self.0.checked_add(other.0).map(NanoUsd)
    }

    pub(crate) fn minus(self, other: NanoUsd) -> Option<NanoUsd> {
        self.0.checked_sub(other.0).map(NanoUsd)
    }

    /// So many thousandths of it, rounded up; None if that is too large.
    pub(crate) fn permille(self, permille: u64) -> Option<NanoUsd> {
        self.parts(permille, 1_000)
    }

    /// `count / of` of it, rounded up; None if that is too large.
    pub(crate) fn parts(self, count: u64, of: u64) -> Option<NanoUsd> {
        let product = u128::from(self.0) * u128::from(count);
        u64::try_from(product.div_ceil(u128::from(of.max(1)))).ok().map(NanoUsd)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(self.0, formatter)
    }
}

impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NanoUsd, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        NanoUsd::read(json.get()).map_err(|error| D::Error::custom(format!("{json}: {}", error.message())))
    }
}

// === impl Share ===

impl Share {
    pub(crate) const WHOLE: Share = Share(NANOS);

    /// Reads a JSON number by its digits; None if it is more than 1.
    pub(crate) fn read(json: &str) -> Result<Option<Share>, NotMoney> {
        let nanos = read_nanos(json)?;
        Ok((nanos <= NANOS).then_some(Share(nanos)))
    }

    /// This part of an amount, rounded down.
    pub(crate) fn of(self, amount: NanoUsd) -> NanoUsd {
        let product = u128::from(amount.0) * u128::from(self.0) / u128::from(NANOS);
        NanoUsd(u64::try_from(product).unwrap_or(amount.0)) // it is never more than the amount
    }

    /// The least amount of which this is the part; None if that is too large.
    pub(crate) fn whole_for(self, part: NanoUsd) -> Option<NanoUsd> {
        if self.0 == 0 {
            return Some(NanoUsd::ZERO);
        }
        part.parts(NANOS, self.0)
    }

    /// Whether the whole for any amount is exact: 1, 0.5, 0.25, 0.2, 0.1 and so on.
    pub(crate) fn divides_one(self) -> bool {
        self.0 != 0 && NANOS.is_multiple_of(self.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NanoUsd(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        match Share::read(json.get()) {
            Ok(Some(share)) => Ok(share),
            Ok(None) => Err(D::Error::custom(format!("{json} is more than 1"))),
            Err(error) => Err(D::Error::custom(format!("{json}: {}", error.message()))),
        }
    }
}

// === impl NotMoney ===

impl NotMoney {
    pub(crate) fn message(self) -> &'static str {
        match self {
            NotMoney::NotANumber => "want a number",
            NotMoney::Negative => "want a number that is not negative",
            NotMoney::TooFine => "want no more than 9 decimal places",
            NotMoney::TooLarge => "want no more than 1000000",
        }
    }
}

/// The billionths of a JSON number.
fn read_nanos(json: &str) -> Result<u64, NotMoney> {
    let (negative, number) = json.strip_prefix('-').map_or((false, json), |number| (true, number));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(NotMoney::NotANumber);
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let kept = significant.trim_end_matches('0');
    if kept.is_empty() {
        return Ok(0);
    }
    if negative {
        return Err(NotMoney::Negative);
    }
    let exponent: i64 = exponent.parse().map_err(|_| NotMoney::NotANumber)?;
    let zeros = (significant.len() - kept.len()) as i64;
    // Decimal places that `kept` has to be moved by to be billionths.
    let places = exponent.saturating_add(zeros + DECIMALS as i64 - fraction.len() as i64);
    if places < 0 {
        return Err(NotMoney::TooFine);
    }
    let scale = u32::try_from(places).ok().and_then(|places| 10_u64.checked_pow(places));
    let nanos = kept.parse::<u64>().ok().zip(scale).and_then(|(kept, scale)| kept.checked_mul(scale));
    nanos.ok_or(NotMoney::TooLarge)
}

fn write_decimal(nanos: u64, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (whole, fraction) = (nanos / NANOS, nanos % NANOS);
    if fraction == 0 {
        return write!(formatter, "{whole}");
    }
    let digits = format!("{fraction:09}");
    write!(formatter, "{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{NanoUsd, NotMoney, Share};

    #[test]
    fn numbers_are_read_by_their_digits_and_written_back() {
        let cases = [
            ("0", 0, "0"),
            ("-0.0", 0, "0"),
            ("0e99", 0, "0"),
            ("0.01", 10_000_000, "0.01"),
            ("1e-2", 10_000_000, "0.01"),
            ("0.1e-8", 1, "0.000000001"),
            ("1.50", 1_500_000_000, "1.5"),
            ("100", 100_000_000_000, "100"),
            ("1.2E+1", 12_000_000_000, "12"),
            ("0.0000000010000", 1, "0.000000001"),
            // No double is near enough to this one.
            ("999999.123456789", 999_999_123_456_789, "999999.123456789"),
        ];
        for (json, nanos, written) in cases {
            let amount = NanoUsd::read(json).unwrap();
            assert_eq!((amount.nanos(), amount.to_string().as_str()), (nanos, written), "{json}");
            assert_eq!(serde_json::to_string(&amount).unwrap(), written);
            assert_eq!(serde_json::from_str::<NanoUsd>(json).unwrap(), amount);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_for_its_reason() {
        let cases = [
            ("-0.01", NotMoney::Negative),
            ("0.0000000001", NotMoney::TooFine),
            ("1e-10", NotMoney::TooFine),
            ("1000000.01", NotMoney::TooLarge),
            ("1e99", NotMoney::TooLarge),
            ("99999999999999999999999", NotMoney::TooLarge),
            ("\"1\"", NotMoney::NotANumber),
            ("null", NotMoney::NotANumber),
            ("", NotMoney::NotANumber),
            ("1e", NotMoney::NotANumber),
        ];
        for (json, reason) in cases {
            assert_eq!(NanoUsd::read(json), Err(reason), "{json}");
        }
    }

    #[test]
    fn the_part_of_the_whole_for_an_amount_is_that_amount() {
        for share in ["1", "0.5", "0.3", "0.07", "0.000000001"] {
            let share = Share::read(share).unwrap().unwrap();
            for nanos in [0, 1, 7, 12_345_678, 1_000_000_001] {
                let amount = NanoUsd::from_nanos(nanos);
                assert_eq!(share.of(share.whole_for(amount).unwrap()), amount, "{share:?}");
            }
        }
        assert_eq!(Share::read("1.1"), Ok(None));
        let inexact: Vec<_> = ["1", "0.5", "0.3", "0.8", "0"]
            .into_iter()
            .filter(|share| !Share::read(share).unwrap().unwrap().divides_one())
            .collect();
        assert_eq!(inexact, ["0.3", "0.8", "0"]);
    }
}
