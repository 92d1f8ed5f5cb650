//! `sluice market report`: profit and loss, from the ledger, whether or not a gateway runs.

use std::io::{self, Write};

use serde_json::{Value, json};
use sluice_core::money::NanoUsd;
use sluice_ledger::market::report::{By, Line, Which};
use sluice_ledger::store::Store;

use super::account::AccountError;
use super::pages::row;
use crate::cli::MarketReportArgs;
use crate::commands::table;

/// Prints it.
///
/// # Errors
///
/// [`AccountError`] where the ledger cannot be read, or nobody takes the answer.
pub(super) fn report(store: &Store, args: &MarketReportArgs) -> Result<(), AccountError> {
    let which = Which { from: args.from, to: args.to };
    let lines = store.market_report(args.by, which)?;
    let mut out = io::stdout().lock();
    if args.json {
        let rows: Vec<Value> = lines.iter().map(row).collect();
        writeln!(out, "{:#}", json!({ "by": args.by.name(), "report": rows }))?;
        return Ok(());
    }
    let heads = [
        args.by.name(),
        "bids",
        "open",
        "refused",
        "lost",
        "paid",
        "unpaid",
        "failed",
        "bid USD",
        "cost USD",
        "earned USD",
        "profit USD",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    rows.extend(lines.iter().map(|line| cells(line, &name(line))));
    // Of all, however many are listed.
    rows.push(cells(&sum(&store.market_report(By::Strategy, which)?), "all"));
    Ok(table(out, &rows)?)
}

/// Of what a row is, in the order of its columns.
fn name(line: &Line) -> String {
    let day = if line.day.is_empty() && line.under_way > 0 { "under way" } else { &line.day };
    let parts = [day, &line.strategy, &line.job, &line.state];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn cells(line: &Line, name: &str) -> Vec<String> {
    let Line { bids, under_way, refused, lost, paid, unpaid, failed, bid, cost, earned, .. } = line;
    let counts = [bids, under_way, refused, lost, paid, unpaid, failed].map(u64::to_string);
    let amounts = [bid, cost, earned].map(NanoUsd::to_string);
    let (name, profit) = ([name.to_owned()], [line.profit()]);
    name.into_iter().chain(counts).chain(amounts).chain(profit).collect()
}

fn sum(lines: &[Line]) -> Line {
    lines.iter().fold(Line::default(), |sum, line| Line {
        bids: sum.bids + line.bids,
        under_way: sum.under_way + line.under_way,
        refused: sum.refused + line.refused,
        lost: sum.lost + line.lost,
        paid: sum.paid + line.paid,
        unpaid: sum.unpaid + line.unpaid,
        failed: sum.failed + line.failed,
        bid: sum.bid.saturating_add(line.bid),
        cost: sum.cost.saturating_add(line.cost),
        earned: sum.earned.saturating_add(line.earned),
        ..Line::default()
    })
}
