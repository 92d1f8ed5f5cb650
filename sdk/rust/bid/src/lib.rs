//! Bid strategies: what to ask for which job of a market.
#![warn(missing_docs)]

mod laws;

#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::too_many_lines,
    reason = "generated; the documentation is in wit/"
)]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "bid-strategy",
        pub_export_macro: true,
        export_macro_name: "export_bindings",
        default_bindings_module: "sluice_plugin_bid::bindings",
        additional_derives: [PartialEq],
        generate_all,
    });
}

#[doc(hidden)]
pub use bindings::export_bindings;
pub use bindings::exports::sluice::plugin::bidding::{Book, ClosedBid, Decision, Job, OptionCost, Outcome};
pub use bindings::exports::sluice::plugin::lifecycle::{
    Interned, Manifest, NameKind, PluginError, Route, SecretSlot, Setup, Target,
};
#[doc(hidden)]
pub use bindings::exports::sluice::plugin::{bidding as bidding_exports, lifecycle as lifecycle_exports};
pub use bindings::sluice::plugin::log::{Level, emit as log};
pub use laws::{AMOUNT_MAX, cheapest, empty_book, most, per_hundred, sample_job};

/// A bid strategy: a pure function. Each call gets a fresh instance, so there is nothing to
/// remember; what there is to learn from is in the book.
pub trait Strategy: Sized + 'static {
    /// Who this is. Must answer the same each time.
    fn describe() -> Manifest;

    /// # Errors
    ///
    /// [`PluginError::InvalidConfig`], naming the member and what was wanted.
    fn configure(setup: Setup) -> Result<Self, PluginError>;

    /// Run before the plugin is admitted.
    ///
    /// # Errors
    ///
    /// What is wrong, for the operator.
    fn self_test() -> Result<(), String> {
        Ok(())
    }

    /// One decision for each job, by id; a job without one is skipped. There may be no job at all.
    /// A bid under `floor`, over `ceiling` or over `credit` is not made, and counts as a fault.
    ///
    /// # Errors
    ///
    /// Any error makes the host bid nothing this time.
    fn decide(
        &self,
        book: &Book,
        jobs: &[Job],
        texts: &dyn Texts,
    ) -> Result<Vec<(u32, Decision)>, PluginError>;
}

/// The texts of the jobs, which stay in the host until they are asked for.
pub trait Texts {
    /// The text of the job with this id from its beginning, `max_bytes` at most, cut at a
    /// character's end. Empty for a job that was not shown; of all that one call reads, what is
    /// over 8 MiB is cut too.
    fn read(&self, job: u32, max_bytes: u32) -> String;
}

/// Texts by the jobs' places, for tests without a gateway.
impl Texts for [&str] {
    fn read(&self, job: u32, max_bytes: u32) -> String {
        let text = self.get(job as usize).copied().unwrap_or_default();
        text[..text.floor_char_boundary(max_bytes as usize)].to_owned()
    }
}

impl<const COUNT: usize> Texts for [&str; COUNT] {
    fn read(&self, job: u32, max_bytes: u32) -> String {
        self[..].read(job, max_bytes)
    }
}

/// The texts that the host holds.
#[doc(hidden)]
#[derive(Debug)]
pub struct HostTexts;

impl Texts for HostTexts {
    fn read(&self, job: u32, max_bytes: u32) -> String {
        bindings::sluice::plugin::job_text::read(job, max_bytes)
    }
}

/// A manifest that declares nothing but who this is; for the rest: `..manifest(…)`.
pub fn manifest(id: &str, version: &str, doc: &str) -> Manifest {
    Manifest {
        id: id.into(),
        version: version.into(),
        doc: doc.into(),
        surfaces: Vec::new(),
        secrets: Vec::new(),
        routes: Vec::new(),
        headers: Vec::new(),
        config_schema: String::new(),
        extra: Vec::new(),
    }
}

/// Lets a panic's text and place reach the host's log before the instance ends.
#[doc(hidden)]
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}

/// Makes the component: `sluice_plugin::export_strategy!(MyStrategy);`
#[macro_export]
macro_rules! export_strategy {
    ($strategy:ty) => {
        const _: () = {
            use $crate as sdk;

            static CONFIGURED: ::std::sync::OnceLock<$strategy> = ::std::sync::OnceLock::new();

            struct Exported;

            impl sdk::lifecycle_exports::Guest for Exported {
                fn describe() -> sdk::Manifest {
                    <$strategy as sdk::Strategy>::describe()
                }
                fn configure(setup: sdk::Setup) -> Result<(), sdk::PluginError> {
                    sdk::log_panics();
                    let configured = <$strategy as sdk::Strategy>::configure(setup)?;
                    CONFIGURED
                        .set(configured)
                        .map_err(|_| sdk::PluginError::Internal("configured twice".into()))
                }
                fn self_test() -> Result<(), String> {
                    <$strategy as sdk::Strategy>::self_test()
                }
            }

            impl sdk::bidding_exports::Guest for Exported {
                fn decide(
                    book: sdk::Book,
                    jobs: Vec<sdk::Job>,
                ) -> Result<Vec<(u32, sdk::Decision)>, sdk::PluginError> {
                    let strategy = CONFIGURED.get().expect("the host configures before it calls");
                    sdk::Strategy::decide(strategy, &book, &jobs, &sdk::HostTexts)
                }
            }

    sdk::export_bindings!(Exported with_types_in $crate::bindings);
        };
    };
}
