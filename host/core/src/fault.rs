//! Whose fault a failed attempt is, and what follows from it.

use crate::breaker::Weight;

/// Decides whether another candidate is asked, whether the breaker hears of it, and what an
/// operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The request is wrong: another candidate would say the same.
    Caller,
    /// Refused by the gateway's own rules.
    Policy,
    /// The vendor failed: an error of its own, silence, a break, an answer that makes no sense.
    Provider,
    /// The vendor asks for a pause; it is well otherwise.
    Throttled,
    /// The vendor does not take the operator's credential, or the account behind it has no money.
    Credential,
    /// A plugin failed.
    Plugin,
}

impl FaultClass {
    /// All classes, in order of their discriminants.
    pub const ALL: [FaultClass; 6] = [
        FaultClass::Caller,
        FaultClass::Policy,
        FaultClass::Provider,
        FaultClass::Throttled,
        FaultClass::Credential,
        FaultClass::Plugin,
    ];

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            FaultClass::Caller => "caller",
            FaultClass::Policy => "policy",
            FaultClass::Provider => "provider",
            FaultClass::Throttled => "throttled",
            FaultClass::Credential => "credential",
            FaultClass::Plugin => "plugin",
        }
    }

    /// What a status alone says; for answers that no adapter has judged. `classify_status` of the SDK
    /// says the same to adapters.
    pub fn of_status(status: u16) -> FaultClass {
        match status {
            401..=403 => FaultClass::Credential,
            429 => FaultClass::Throttled,
            // The vendor waited for itself or for its own upstream.
            408 | 425 => FaultClass::Provider,
            400..=499 => FaultClass::Caller,
            _ => FaultClass::Provider,
        }
    }

    /// Whether another candidate might not share it.
    pub fn fails_over(self) -> bool {
        match self {
            FaultClass::Provider | FaultClass::Throttled | FaultClass::Credential | FaultClass::Plugin => {
                true
            }
            FaultClass::Caller | FaultClass::Policy => false,
        }
    }

    /// What a breaker makes of it. A vendor that refuses a request by its rules is alive.
    pub fn weight(self) -> Weight {
        match self {
            FaultClass::Provider => Weight::Bad,
            FaultClass::Caller => Weight::Good,
            FaultClass::Policy | FaultClass::Throttled | FaultClass::Credential | FaultClass::Plugin => {
                Weight::Neither
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_plugin_adapter::{Failure, classify_status};

    use super::*;

    #[test]
    fn a_status_has_the_class_of_who_can_mend_it() {
        let of = FaultClass::of_status;
        assert_eq!([of(400), of(404), of(413), of(422)], [FaultClass::Caller; 4]);
        assert_eq!([of(401), of(402), of(403)], [FaultClass::Credential; 3]);
        assert_eq!([of(408), of(425), of(500), of(503), of(529)], [FaultClass::Provider; 5]);
        assert_eq!(of(429), FaultClass::Throttled);
    }

    /// An adapter that judges by the status changes nothing about it.
    #[test]
    fn the_sdk_says_the_same_of_every_status() {
        for status in 100..=599 {
            let of_sdk = match classify_status(status).kind {
                Failure::Transient => FaultClass::Provider,
                Failure::Throttled => FaultClass::Throttled,
                Failure::Credential => FaultClass::Credential,
                Failure::Caller | Failure::ContextLength | Failure::Filtered => FaultClass::Caller,
            };
            assert_eq!(of_sdk, FaultClass::of_status(status), "{status}");
        }
    }

    #[test]
    fn only_a_vendor_that_fails_counts_against_it() {
        let bad: Vec<_> = FaultClass::ALL.into_iter().filter(|class| class.weight() == Weight::Bad).collect();
        assert_eq!(bad, [FaultClass::Provider]);
    }
}
