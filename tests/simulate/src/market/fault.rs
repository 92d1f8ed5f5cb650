//! What goes wrong with the market's own API, on order.

use http::StatusCode;
use serde::Deserialize;

/// One thing to go wrong, `times` in a row; 0 is for ever.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FaultTable")]
pub struct ApiFault {
    pub on: Target,
    pub kind: ApiFaultKind,
    /// The request is served first, and then its answer is lost to the fault.
    pub processed: bool,
    pub times: u32,
}

/// Which requests a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// `GET` of instances, of all or of one.
    Instances,
    /// `GET` of proposals.
    Proposals,
    /// The creation of a proposal.
    Create,
    Balance,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFaultKind {
    /// Answers this status with a detail.
    Status(StatusCode),
    /// Says nothing until the client leaves.
    Hang,
    /// Says 200 and half of some JSON.
    Garbage,
    /// Waits so many milliseconds, then answers normally.
    Delay(u32),
}

/// The faults that are left.
#[derive(Debug, Default)]
pub(crate) struct FaultsLeft(Vec<ApiFault>);

/// A fault as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultTable {
    on: Target,
    kind: KindName,
    #[serde(default, deserialize_with = "some_status")]
    status: Option<StatusCode>,
    ms: Option<u32>,
    #[serde(default)]
    processed: bool,
    #[serde(default = "once")]
    times: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Status,
    Hang,
    Garbage,
    Delay,
}

// === impl ApiFault ===

impl TryFrom<FaultTable> for ApiFault {
    type Error = &'static str;

    fn try_from(table: FaultTable) -> Result<ApiFault, &'static str> {
        let FaultTable { on, kind, status, ms, processed, times } = table;
        let kind = match (kind, status, ms) {
            (KindName::Status, Some(status), None) => ApiFaultKind::Status(status),
            (KindName::Hang, None, None) => ApiFaultKind::Hang,
            (KindName::Garbage, None, None) => ApiFaultKind::Garbage,
            (KindName::Delay, None, Some(ms)) => ApiFaultKind::Delay(ms),
            (KindName::Status, ..) => return Err("a fault `status` wants `status`, and no `ms`"),
            (KindName::Delay, ..) => return Err("a fault `delay` wants `ms`, and no `status`"),
            (KindName::Hang | KindName::Garbage, ..) => {
                return Err("a fault `hang` or `garbage` wants neither `status` nor `ms`");
            }
        };
        Ok(ApiFault { on, kind, processed, times })
    }
}

// === impl FaultsLeft ===

impl FaultsLeft {
    pub(crate) fn new(faults: Vec<ApiFault>) -> FaultsLeft {
        FaultsLeft(faults)
    }

    /// Takes one turn of the first fault that meets such a request. `target`
    /// is None for requests that only faults on any meet.
    pub(crate) fn take(&mut self, target: Option<Target>) -> Option<ApiFault> {
        let meets = |fault: &ApiFault| fault.on == Target::Any || Some(fault.on) == target;
        let index = self.0.iter().position(meets)?;
        let fault = self.0.get_mut(index)?;
        let taken = fault.clone();
        match fault.times {
            0 => (), // for ever
            1 => drop(self.0.remove(index)),
            times => fault.times = times - 1,
        }
        Some(taken)
    }
}

fn once() -> u32 {
    1
}

fn some_status<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<StatusCode>, D::Error> {
    crate::fault::status(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::{ApiFault, ApiFaultKind, FaultsLeft, Target};

    #[test]
    fn a_request_takes_the_first_fault_that_meets_it() {
        let fault = |on, kind, times| ApiFault { on, kind, processed: false, times };
        let mut left = FaultsLeft::new(vec![
            fault(Target::Create, ApiFaultKind::Hang, 2),
            fault(Target::Any, ApiFaultKind::Garbage, 1),
            fault(Target::Balance, ApiFaultKind::Delay(1), 0),
        ]);
        let mut take = |target| left.take(target).map(|fault| fault.kind);
        assert_eq!(take(Some(Target::Create)), Some(ApiFaultKind::Hang));
        assert_eq!(take(None), Some(ApiFaultKind::Garbage));
        assert_eq!(take(None), None);
        assert_eq!(take(Some(Target::Create)), Some(ApiFaultKind::Hang));
        assert_eq!(take(Some(Target::Create)), None);
        for _ in 0..3 {
            assert_eq!(take(Some(Target::Balance)), Some(ApiFaultKind::Delay(1)));
        }
    }
}
