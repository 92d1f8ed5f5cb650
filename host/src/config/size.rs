//! Sizes: a number with its unit.

use std::ops::RangeInclusive;

use super::reader::Found;

/// What may follow a number.
const UNITS: [(&str, u64); 3] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)];

/// Bytes, said as in "512MiB".
pub(super) fn bytes(found: &Found<'_>, range: RangeInclusive<u64>) -> Option<u64> {
    let text = found.text()?;
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?.trim_end(), bytes)));
    let bytes = unit.and_then(|(count, bytes)| count.parse::<u64>().ok()?.checked_mul(*bytes));
    match bytes.filter(|bytes| range.contains(bytes)) {
        Some(bytes) => Some(bytes),
        None => found.refuse(format!(
            "wanted a size from {} to {}, such as \"512MiB\" or \"4GiB\"",
            said(*range.start()),
            said(*range.end())
        )),
    }
}

/// In the largest unit without a fraction.
fn said(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}
