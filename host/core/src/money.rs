//! Money in nano-dollars. No floats; overflow is an answer.

use std::fmt;
use std::str::FromStr;

/// Nano-dollars in a dollar.
const PER_DOLLAR: u64 = 1_000_000_000;

/// Decimal places of a dollar amount at most: a nano-dollar is the smallest amount.
const DECIMALS_MAX: usize = 9;

/// US dollars, in billionths. Never negative, never a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(u64);

/// The amount does not fit 64 bits; the caller refuses (a clamped amount would be a wrong one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the amount does not fit")]
pub struct Overflow;

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a dollar amount such as \"0.05\": digits, and at most {DECIMALS_MAX} after the point")]
pub struct NotAnAmount;

impl NanoUsd {
    /// Nothing.
    pub const ZERO: NanoUsd = NanoUsd(0);

    /// The most that one attempt is taken to cost: a hundred thousand dollars. No vendor has such a
    /// price; who reports more usage than that has made a mistake.
    pub const ATTEMPT_MAX: NanoUsd = NanoUsd(100_000 * PER_DOLLAR);

    /// The largest cap, and the largest sum that is written down of a call: a billion dollars. So sums
    /// fit what stores count in, which is less than this type does.
    pub const CAP_MAX: NanoUsd = NanoUsd(1_000_000_000 * PER_DOLLAR);

    /// An amount given in nano-dollars.
    pub const fn from_nanos(nanos: u64) -> NanoUsd {
        NanoUsd(nanos)
    }

    /// The amount in nano-dollars.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// # Errors
    ///
    /// [`Overflow`] when the sum does not fit.
    pub fn checked_add(self, other: NanoUsd) -> Result<NanoUsd, Overflow> {
        self.0.checked_add(other.0).map(NanoUsd).ok_or(Overflow)
    }

    /// The sum, or the largest amount: for what is compared with a cap, where too much is safe.
    pub fn saturating_add(self, other: NanoUsd) -> NanoUsd {
        NanoUsd(self.0.saturating_add(other.0))
    }

    /// What is left without `other`; nothing where that is more.
    pub fn saturating_sub(self, other: NanoUsd) -> NanoUsd {
        NanoUsd(self.0.saturating_sub(other.0))
    }
}

impl FromStr for NanoUsd {
    type Err = NotAnAmount;

    /// Reads dollars: `"2"`, `"0.05"`. No sign, no exponent, no more than nine decimals.
    fn from_str(text: &str) -> Result<NanoUsd, NotAnAmount> {
        let (dollars, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(dollars) || !digits(decimals) || decimals.len() > DECIMALS_MAX {
            return Err(NotAnAmount);
        }
        let whole: u64 = dollars.parse().map_err(|_| NotAnAmount)?;
        let nanos: u64 = format!("{decimals:0<DECIMALS_MAX$}").parse().map_err(|_| NotAnAmount)?;
        let total = whole.checked_mul(PER_DOLLAR).and_then(|whole| whole.checked_add(nanos));
        total.map(NanoUsd).ok_or(NotAnAmount)
    }
}

impl fmt::Display for NanoUsd {
    /// Dollars with as many decimals as it takes, two at least.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:09}", self.0 % PER_DOLLAR);
        let shown = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", self.0 / PER_DOLLAR, &decimals[..shown])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        let good = [
            ("0", 0),
            ("0.05", 50_000_000),
            ("2.00", 2_000_000_000),
            ("0.000000001", 1),
            ("18446744073.709551615", u64::MAX),
        ];
        for (text, nanos) in good {
            assert_eq!(text.parse(), Ok(NanoUsd(nanos)), "{text}");
        }
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000001", "18446744073.709551616", " 1", "1,5"]
        {
            assert_eq!(text.parse::<NanoUsd>(), Err(NotAnAmount), "{text}");
        }
    }

    #[test]
    fn shown_amounts_read_back() {
        for nanos in [0, 1, 10, 50_000_000, 1_500_000_000, u64::MAX] {
            let shown = NanoUsd(nanos).to_string();
            assert_eq!(shown.parse(), Ok(NanoUsd(nanos)), "{shown}");
        }
    }
}
