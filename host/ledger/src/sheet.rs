//! Usage and calls as CSV that a spreadsheet opens without running any of it.
//!
//! Quotes are those of RFC 4180. Spreadsheets take a field that begins with `=`, `+`, `-` or `@` for a
//! formula, in quotes or not, and some look behind a tab or a line break: such a field gets an
//! apostrophe in front, which spreadsheets take for "this is text". A field that begins with an
//! apostrophe gets one more, so who reads the file takes away one apostrophe in front of any field that
//! has one, and has what was written.
//!
//! Amounts are dollars with a decimal point, exact. Times are UTC.

use std::borrow::Cow;
use std::io;

use csv::Writer;
use jiff::Timestamp;
use sluice_core::money::NanoUsd;

use crate::rows::Row;
use crate::usage::{Answer, By};

/// A field that begins with one of these is read as a formula; an apostrophe would be taken for ours.
const MARKED: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// The columns of calls.
const CALLS: [&str; 20] = [
    "at",
    "request",
    "key",
    "team",
    "run",
    "model",
    "upstream",
    "target_model",
    "tried",
    "input",
    "cached_input",
    "cache_write",
    "output",
    "reasoning",
    "tool_calls",
    "cost_usd",
    "first_ms",
    "total_ms",
    "outcome",
    "basis",
];

/// Writes sums, under the names of their columns.
///
/// # Errors
///
/// Where `out` does not take it.
pub fn write_usage(answer: &Answer, out: impl io::Write) -> io::Result<()> {
    let mut sheet = Writer::from_writer(out);
    let names = answer.by.iter().copied().map(By::name);
    sheet.write_record(names.chain(["calls", "input", "output", "cost_usd"]))?;
    for sum in &answer.rows {
        let names = sum.names.iter().map(|name| text(name));
        let numbers = [sum.calls, sum.input, sum.output].map(|number| Cow::from(number.to_string()));
        let cost = Cow::from(sum.cost.to_string());
        write(&mut sheet, names.chain(numbers).chain([cost]))?;
    }
    sheet.flush()
}

/// Writes calls, under the names of their columns.
///
/// # Errors
///
/// Where `out` does not take it.
pub fn write_calls(rows: &[Row], out: impl io::Write) -> io::Result<()> {
    let mut sheet = Writer::from_writer(out);
    sheet.write_record(CALLS)?;
    for row in rows {
        let texts = [
            &row.request,
            &row.key,
            &row.team,
            &row.run,
            &row.model,
            &row.upstream,
            &row.target_model,
            &row.tried,
        ];
        let tokens = [row.input, row.cached_input, row.cache_write, row.output, row.reasoning, row.calls];
        let times = [row.first_ms, row.total_ms].map(|time| Cow::from(time.to_string()));
        let fields = [Cow::from(time(row.at_ms))].into_iter();
        let fields = fields.chain(texts.into_iter().map(|name| text(name)));
        let fields = fields.chain(tokens.map(|number| Cow::from(number.to_string())));
        let fields = fields.chain([Cow::from(NanoUsd::from_nanos(row.cost).to_string())]);
        write(&mut sheet, fields.chain(times).chain([text(&row.outcome), text(&row.basis)]))?;
    }
    sheet.flush()
}

fn write<'f>(
    sheet: &mut Writer<impl io::Write>,
    fields: impl Iterator<Item = Cow<'f, str>>,
) -> io::Result<()> {
    for field in fields {
        sheet.write_field(field.as_bytes())?;
    }
    Ok(sheet.write_record(None::<&[u8]>)?)
}

/// A text that nothing takes for a formula.
fn text(field: &str) -> Cow<'_, str> {
    if field.starts_with(MARKED) { format!("'{field}").into() } else { field.into() }
}

/// As `2026-01-31T12:00:00.5Z`; what is beyond the calendar stays a number.
fn time(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    time.map_or_else(|| at_ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::Sum;

    fn sheet(answer: &Answer) -> String {
        let mut out = Vec::new();
        write_usage(answer, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn fields(text: &str) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        reader.records().map(|record| record.unwrap().iter().map(String::from).collect()).collect()
    }

    fn of(name: &str) -> Answer {
        let cost = NanoUsd::from_nanos(1_500_000_001);
        let sum = Sum { names: vec![name.into()], calls: 1, input: 2, output: 3, cost };
        Answer { by: vec![By::Run], rows: vec![sum], cut: false }
    }

    #[test]
    fn sums_are_a_table_with_exact_amounts() {
        assert_eq!(sheet(&of("r")), "run,calls,input,output,cost_usd\nr,1,2,3,1.500000001\n");
        assert_eq!(sheet(&of("a,\"b\"\nc")).lines().nth(1), Some("\"a,\"\"b\"\""));
        let none = Answer { by: vec![By::Day, By::Key], ..Answer::default() };
        assert_eq!(sheet(&none), "day,key,calls,input,output,cost_usd\n");
    }

    #[test]
    fn calls_have_a_field_for_each_column() {
        let row = Row {
            at_ms: 1_769_860_800_500,
            request: "=1+1".into(),
            tried: "a,b".into(),
            cost: 7,
            basis: "usage".into(),
            ..Row::default()
        };
        let mut out = Vec::new();
        write_calls(&[row, Row { at_ms: u64::MAX, ..Row::default() }], &mut out).unwrap();
        let records = fields(std::str::from_utf8(&out).unwrap());
        assert_eq!(records[0], CALLS);
        let of = |column: &str| &records[1][CALLS.iter().position(|name| *name == column).unwrap()];
        assert_eq!(of("at"), "2026-01-31T12:00:00.5Z");
        assert_eq!((of("request").as_str(), of("tried").as_str()), ("'=1+1", "a,b"));
        assert_eq!((of("cost_usd").as_str(), of("basis").as_str()), ("0.000000007", "usage"));
        assert_eq!(records[2][0], u64::MAX.to_string());
    }

    #[test]
    fn each_beginning_of_a_formula_is_marked() {
        for first in ["=", "+", "-", "@", "\t", "\r", "'"] {
            let name = format!("{first}1+1");
            assert_eq!(fields(&sheet(&of(&name)))[1][0], format!("'{name}"));
        }
        for name in ["", "1-1", "a=b", "run-1", " x"] {
            assert_eq!(fields(&sheet(&of(name)))[1][0], name);
        }
    }

    proptest! {
        /// Whatever a client calls its run: no field is a formula, and what was written can be had back.
        #[test]
        fn no_name_is_a_formula_and_none_is_lost(name in "[=+@'\",\t\r\n -~-]{0,6}|\\PC{0,6}") {
            let text = sheet(&of(&name));
            let read = &fields(&text)[1][0];
            prop_assert!(!read.starts_with(['=', '+', '-', '@', '\t', '\r']), "{read:?}");
            prop_assert_eq!(read.strip_prefix('\'').unwrap_or(read), name);
        }
    }
}
