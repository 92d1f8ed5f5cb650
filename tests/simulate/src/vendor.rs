//! What a vendor answers if nothing goes wrong: keys, models, completions.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::answer::{Answer, Stamp};
use crate::ask::{self, Delivery};
use crate::books::Entry;
use crate::lapse::Lapse;
use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::script::Script;
use crate::wire::Wire;

/// Models listed for a vendor whose script names none.
const MODELS_LISTED: [&str; 2] = ["gpt-4o", "gpt-4o-mini"];

/// A vendor, for one request.
pub(crate) struct Vendor<'a> {
    pub(crate) name: &'a str,
    pub(crate) wire: Wire,
    pub(crate) script: &'a Script,
}

// === impl Vendor ===

impl Vendor<'_> {
    pub(crate) fn models(&self, headers: &HeaderMap) -> Result<Plan, Refusal> {
        self.wire.let_in(headers, self.script)?;
        let ids = match &self.script.models {
            Some(models) => models.iter().map(String::as_str).collect(),
            None => MODELS_LISTED.to_vec(),
        };
        Ok(Plan::json(StatusCode::OK, &self.wire.models(&ids, self.name)))
    }

    /// Checks in the order of a real vendor: key, JSON, members, model.
    pub(crate) fn complete(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        lapse: &Lapse,
        entry: &Entry,
    ) -> Result<Plan, Refusal> {
        self.wire.let_in(headers, self.script)?;
        let members = ask::object(body)?;
        let model = members.get("model").and_then(Value::as_str);
        entry.asks(model, members.get("stream").and_then(Value::as_bool));
        let ask = self.wire.check(&members)?;
        if let Some(models) = &self.script.models
            && !models.contains(&ask.model)
        {
            return Err(Refusal::unknown_model(&ask.model));
        }
        let stamp = Stamp { vendor: self.name.to_owned(), sequence: entry.sequence(), created_s: now_s() };
        let answer = Answer::new(&ask, self.script, lapse, stamp);
        let delivery = if lapse.unstreamed { Delivery::Whole } else { ask.delivery };
        Ok(self.plan(&answer, delivery))
    }

    /// A whole answer is billed as it begins; a stream word by word.
    fn plan(&self, answer: &Answer, delivery: Delivery) -> Plan {
        match delivery {
            Delivery::Whole => {
                let plan = Plan::json(StatusCode::OK, &self.wire.whole(answer));
                Plan { billed_first: answer.billed(), ..plan }
            }
            Delivery::Stream { usage } => {
                let plan = Plan::stream(self.wire.events(answer, usage));
                Plan { billed_first: answer.billed_unseen(), ..plan }
            }
        }
    }
}

/// The only look at the calendar: ids and answers are the same whatever it says.
fn now_s() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO).as_secs()
}
