//! Routing policies: in which order to try the targets that may be used now.
#![warn(missing_docs)]

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
        world: "routing-policy",
        pub_export_macro: true,
        export_macro_name: "export_bindings",
        default_bindings_module: "sluice_plugin_policy::bindings",
        generate_all,
    });
}

#[doc(hidden)]
pub use bindings::export_bindings;
pub use bindings::exports::sluice::plugin::lifecycle::{
    Interned, Manifest, NameKind, PluginError, Route, SecretSlot, Setup, Target,
};
pub use bindings::exports::sluice::plugin::policy::{Candidate, Ranking, View};
#[doc(hidden)]
pub use bindings::exports::sluice::plugin::{lifecycle as lifecycle_exports, policy as policy_exports};
pub use bindings::sluice::plugin::log::{Level, emit as log};

/// A routing policy. Instances are kept warm and reused: do not count on state between
/// calls, since an instance may be replaced at any time.
pub trait Policy: Sized + 'static {
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

    /// Orders `candidates`; there are at least two.
    ///
    /// # Errors
    ///
    /// Any error makes the host use its own order for this request.
    fn rank(&self, view: View, candidates: Vec<Candidate>) -> Result<Ranking, PluginError>;
}

/// A ranking of these candidates in this order, without hedging.
pub fn in_order(candidates: &[Candidate]) -> Ranking {
    Ranking {
        order: candidates.iter().map(|candidate| candidate.id).collect(),
        hedge_after_ms: 0,
        reason: 0,
        tag: 0,
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

/// Makes the component: `sluice_plugin::export_policy!(MyPolicy);`
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        const _: () = {
            use $crate as sdk;

            static CONFIGURED: ::std::sync::OnceLock<$policy> = ::std::sync::OnceLock::new();

            struct Exported;

            impl sdk::lifecycle_exports::Guest for Exported {
                fn describe() -> sdk::Manifest {
                    <$policy as sdk::Policy>::describe()
                }
                fn configure(setup: sdk::Setup) -> Result<(), sdk::PluginError> {
                    sdk::log_panics();
                    let configured = <$policy as sdk::Policy>::configure(setup)?;
                    CONFIGURED
                        .set(configured)
                        .map_err(|_| sdk::PluginError::Internal("configured twice".into()))
                }
                fn self_test() -> Result<(), String> {
                    <$policy as sdk::Policy>::self_test()
                }
            }

            impl sdk::policy_exports::Guest for Exported {
                fn rank(
                    view: sdk::View,
                    candidates: Vec<sdk::Candidate>,
                ) -> Result<sdk::Ranking, sdk::PluginError> {
                    let policy = CONFIGURED.get().expect("the host configures before it calls");
                    sdk::Policy::rank(policy, view, candidates)
                }
            }

    sdk::export_bindings!(Exported with_types_in $crate::bindings);
        };
    };
}
