//! Reads numbers that others wrote as decimals, such as JSON's: by their digits, never through a float.

/// Decimal places that are kept.
const PLACES: i64 = 9;

/// Digits of the largest number that fits.
const DIGITS_MAX: usize = 20;

/// A number in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billionths {
    /// What it is, without what is below a billionth: an amount that somebody offers is never
    /// overstated. (Programs that reckon with floats write `0.30000000000000004`.)
    Of(u64),
    /// It is less than nothing.
    Negative,
}

/// Why a text is no number that can be counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADecimal {
    /// It has another form.
    #[error("wanted a decimal number such as 0.05 or 5e-2")]
    Form,
    /// It does not fit 64 bits.
    #[error("the number does not fit")]
    TooLarge,
}

/// Reads a number as JSON has it: digits, at most one point, an exponent perhaps.
///
/// # Errors
///
/// [`NotADecimal`].
pub fn billionths(text: &str) -> Result<Billionths, NotADecimal> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (text, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    if !is_digits(whole) || !is_digits(decimals) {
        return Err(NotADecimal::Form);
    }
    let digits = [whole, decimals].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Billionths::Of(0));
    }
    if negative {
        return Ok(Billionths::Negative);
    }
    let places = i64::try_from(decimals.len()).map_err(|_| NotADecimal::TooLarge)?;
    let shift = exponent.saturating_sub(places).saturating_add(PLACES);
    shifted(digits, shift).map(Billionths::Of)
}

/// The number of these digits, times ten to the power of `shift`, rounded down.
fn shifted(digits: &str, shift: i64) -> Result<u64, NotADecimal> {
    let length = i64::try_from(digits.len()).map_err(|_| NotADecimal::TooLarge)?;
    let kept = length.saturating_add(shift);
    let Ok(kept) = usize::try_from(kept) else { return Ok(0) };
    if kept > DIGITS_MAX {
        return Err(NotADecimal::TooLarge);
    }
    if kept == 0 {
        return Ok(0);
    }
    let head = &digits[..kept.min(digits.len())];
    format!("{head:0<kept$}").parse().map_err(|_| NotADecimal::TooLarge)
}

/// One that is beyond all bounds is as good as the largest.
fn exponent_of(text: &str) -> Result<i64, NotADecimal> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if !is_digits(digits) {
        return Err(NotADecimal::Form);
    }
    let size = digits
        .bytes()
        .fold(0_i64, |size, digit| size.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Ok(sign * size)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::NanoUsd;

    #[test]
    fn numbers_are_read_by_their_digits() {
        let table = [
            ("0", 0),
            ("-0", 0),
            ("-0.000", 0),
            ("0.05", 50_000_000),
            ("5e-2", 50_000_000),
            ("0.5E-1", 50_000_000),
            ("500e-4", 50_000_000),
            ("1", 1_000_000_000),
            ("1.0", 1_000_000_000),
            ("1e0", 1_000_000_000),
            ("12.5e+1", 125_000_000_000),
            ("0.000000001", 1),
            ("1e-9", 1),
            // What a float's printing leaves behind.
            ("0.30000000000000004", 300_000_000),
            ("0.010000000000000000208", 10_000_000),
            // Rounded down, whatever follows.
            ("0.0199999999999", 19_999_999),
            ("0.0000000019", 1),
            ("9e-10", 0),
            ("1e-400", 0),
            ("1e-99999999999999999999999", 0),
            ("0e99999999999999999999999", 0),
            ("18446744073.709551615", u64::MAX),
        ];
        for (text, number) in table {
            assert_eq!(billionths(text), Ok(Billionths::Of(number)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "", "-", "+1", ".5", "1.", "1.2.3", "1e", "1e+", "e1", "0x1", " 1", "1 ", "1_0", "NaN",
            "Infinity", "٣", "1e1.5", "--1",
        ] {
            assert_eq!(billionths(text), Err(NotADecimal::Form), "{text}");
        }
        for text in ["18446744073.709551616", "1e11", "1e99999999999999999999999", "99999999999999999999"] {
            assert_eq!(billionths(text), Err(NotADecimal::TooLarge), "{text}");
        }
        for text in ["-1", "-0.0000000001", "-1e99999999999999999999"] {
            assert_eq!(billionths(text), Ok(Billionths::Negative), "{text}");
        }
    }

    /// What we write ourselves reads back, also with its point moved.
    #[test]
    fn shown_amounts_read_back() {
        let mut nanos = 1_u64;
        for step in 0..500_u64 {
            nanos = nanos.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            let amount = NanoUsd::from_nanos(nanos >> (step % 60));
            assert_eq!(billionths(&amount.to_string()), Ok(Billionths::Of(amount.nanos())), "{amount}");
            let moved = format!("{}e-9", amount.nanos());
            assert_eq!(billionths(&moved), Ok(Billionths::Of(amount.nanos())), "{moved}");
        }
    }
}
