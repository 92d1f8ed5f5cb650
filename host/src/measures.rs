//! What is counted of requests and attempts. Labels are configured names and closed sets.
//!
//! Names and labels of attempts are those of OpenTelemetry's semantic conventions for generative
//! AI, where they have one, in the spelling of Prometheus.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sluice_core::fault::FaultClass;

/// Seconds; those that the conventions advise for the whole call.
const TOTAL_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Seconds; those that they advise for the first token.
const FIRST_BUCKETS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The families; cheap to clone.
#[derive(Clone)]
pub(crate) struct Measures {
    requests: Family<OfRequest, Counter>,
    refusals: Family<OfRefusal, Counter>,
    attempts: Family<OfAttempt, Counter>,
    total: Family<OfCall, Histogram>,
    first_content: Family<OfCall, Histogram>,
}

/// The handles of one lane: found once, not at each request.
pub(crate) struct LaneMeasures {
    good: Counter,
    faults: [Counter; FaultClass::ALL.len()],
    left: Counter,
    total: Histogram,
    first_content: Histogram,
}

/// The handles of one model.
#[derive(Clone)]
pub(crate) struct ModelMeasures(Arc<[Counter; RequestEnd::ALL.len()]>);

/// A request that will be counted, once; dropped before its answer began, its client has left.
pub(crate) struct RequestMeasure {
    of: ModelMeasures,
    end: RequestEnd,
}

/// The label of requests that name no model that there is.
const NO_MODEL: &str = "_none";

/// How a request ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// An answer from a vendor or an adapter, an error that it gave the caller among them.
    Answered,
    /// A refusal or an error of the gateway's own.
    Refused,
    /// The client did not wait for either.
    ClientLeft,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    gen_ai_request_model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRefusal {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAttempt {
    upstream: String,
    gen_ai_request_model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCall {
    gen_ai_operation_name: &'static str,
    upstream: String,
    gen_ai_request_model: String,
}

impl Default for Measures {
    fn default() -> Measures {
        Measures {
            requests: Family::default(),
            refusals: Family::default(),
            attempts: Family::default(),
            total: Family::new_with_constructor(|| Histogram::new(TOTAL_BUCKETS)),
            first_content: Family::new_with_constructor(|| Histogram::new(FIRST_BUCKETS)),
        }
    }
}

impl Measures {
    pub(crate) fn of_lane(&self, upstream: &str, model: &str) -> LaneMeasures {
        let counter = |outcome| {
            let labels = OfAttempt { upstream: upstream.into(), gen_ai_request_model: model.into(), outcome };
            self.attempts.get_or_create(&labels).clone()
        };
        let call = OfCall {
            gen_ai_operation_name: "chat",
            upstream: upstream.into(),
            gen_ai_request_model: model.into(),
        };
        LaneMeasures {
            good: counter("good"),
            faults: FaultClass::ALL.map(|class| counter(class.name())),
            left: counter("client_left"),
            total: self.total.get_or_create(&call).clone(),
            first_content: self.first_content.get_or_create(&call).clone(),
        }
    }

    /// `model`: as it is configured, a glob as it is written.
    pub(crate) fn of_model(&self, model: &str) -> ModelMeasures {
        ModelMeasures(Arc::new(RequestEnd::ALL.map(|end| {
            let labels = OfRequest { gen_ai_request_model: model.into(), outcome: end.name() };
            self.requests.get_or_create(&labels).clone()
        })))
    }

    /// For requests that name no model that there is.
    pub(crate) fn of_no_model(&self) -> ModelMeasures {
        self.of_model(NO_MODEL)
    }

    /// A completion was refused; `reason` is the code that the client is told.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&OfRefusal { reason }).inc();
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let ours = registry.sub_registry_with_prefix("sluice");
        ours.register("requests", "Requests for a model, by how they ended", self.requests.clone());
        let help = "Completions that were refused, by the error code that the client is told";
        ours.register("refusals", help, self.refusals.clone());
        ours.register("attempts", "Calls of upstreams, by fault class", self.attempts.clone());
        let help = "Seconds from sending to the end of the answer";
        registry.register("gen_ai_client_operation_duration_seconds", help, self.total.clone());
        let help = "Seconds from sending to the first content of a stream";
        let name = "gen_ai_client_operation_time_to_first_chunk_seconds";
        registry.register(name, help, self.first_content.clone());
    }
}

impl LaneMeasures {
    pub(crate) fn good(&self, took: Duration) {
        self.good.inc();
        self.total.observe(took.as_secs_f64());
    }

    pub(crate) fn fault(&self, class: FaultClass) {
        self.faults[class as usize].inc();
    }

    pub(crate) fn left(&self) {
        self.left.inc();
    }

    pub(crate) fn first_content(&self, took: Duration) {
        self.first_content.observe(took.as_secs_f64());
    }
}

impl RequestMeasure {
    pub(crate) fn new(of: &ModelMeasures) -> RequestMeasure {
        RequestMeasure { of: of.clone(), end: RequestEnd::ClientLeft }
    }

    pub(crate) fn is_for(&mut self, model: &ModelMeasures) {
        self.of = model.clone();
    }

    pub(crate) fn ended(mut self, end: RequestEnd) {
        self.end = end;
    }
}

impl Drop for RequestMeasure {
    fn drop(&mut self) {
        self.of.0[self.end as usize].inc();
    }
}

impl RequestEnd {
    const ALL: [RequestEnd; 3] = [RequestEnd::Answered, RequestEnd::Refused, RequestEnd::ClientLeft];

    fn name(self) -> &'static str {
        match self {
            RequestEnd::Answered => "answered",
            RequestEnd::Refused => "refused",
            RequestEnd::ClientLeft => "client_left",
        }
    }
}
