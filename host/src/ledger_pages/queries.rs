//! What the queries of these pages mean.

use sluice_ledger::usage::Query;
use url::form_urlencoded;

use super::{ROWS, wrong};
use crate::refusal::Refusal;

/// What is asked of usage, by the query of a path: `by=day,key&from=2026-01-01&key=ID`.
pub(crate) fn usage_query(query: &str) -> Result<Query, Refusal> {
    let mut asked = Query { by: Vec::new(), which: Default::default(), limit: ROWS };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let which = &mut asked.which;
        let day = || value.parse().map_err(|error| wrong(format!("{name}: {error}")));
        match &*name {
            "by" => {
                let columns = value.split(',').map(|text| text.trim().parse());
                asked.by =
                    columns.collect::<Result<_, _>>().map_err(|error| wrong(format!("by: {error}")))?;
            }
            "from" => which.from = Some(day()?),
            "to" => which.to = Some(day()?),
            "key" => which.key = Some(value.into_owned()),
            "team" => which.team = Some(value.into_owned()),
            "run" => which.run = Some(value.into_owned()),
            "model" => which.model = Some(value.into_owned()),
            "upstream" => which.upstream = Some(value.into_owned()),
            "limit" => {
                asked.limit = value.parse().map_err(|_| wrong("limit: wanted a number of rows"))?;
            }
            other => {
                return Err(wrong(format!(
                    "{other}: wanted by, from, to, key, team, run, model, upstream or limit"
                )));
            }
        }
    }
    Ok(asked)
}

/// Which runs are asked for: `key=ID&state=all`.
pub(super) fn runs_query(query: &str) -> Result<(Option<String>, bool), Refusal> {
    let (mut key, mut ended_too) = (None, false);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("key", _) => key = Some(value.into_owned()),
            ("state", "open") => ended_too = false,
            ("state", "all") => ended_too = true,
            ("state", _) => return Err(wrong("state: wanted open or all")),
            (other, _) => return Err(wrong(format!("{other}: wanted key or state"))),
        }
    }
    Ok((key, ended_too))
}
