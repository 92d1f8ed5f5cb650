//! Provider adapters: what a request becomes on a vendor's wire, and back.
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
        world: "provider-adapter",
        pub_export_macro: true,
        export_macro_name: "export_bindings",
        default_bindings_module: "sluice_plugin_adapter::bindings",
        generate_all,
    });
}

#[doc(hidden)]
pub use bindings::export_bindings;
pub use bindings::exports::sluice::plugin::adapter::{
    BodyPlan, CallPlan, Context, Credential, Decision, Edit, Failure, Finish, Framing, Header, Inbound,
    Mapped, Moved, Phase, Placed, PluginError, ResponsePlan, Usage, Verdict,
};
pub use bindings::exports::sluice::plugin::lifecycle::{
    Interned, Manifest, NameKind, Route, SecretSlot, Setup,
};
#[doc(hidden)]
pub use bindings::exports::sluice::plugin::{adapter as adapter_exports, lifecycle as lifecycle_exports};
pub use bindings::sluice::plugin::log::{Level, emit as log};
pub use bindings::sluice::plugin::request::{Identity, Shape, Sizes};
pub use bindings::sluice::plugin::types::Slotted;

/// A provider adapter. The host makes one per request, so that requests share nothing.
pub trait Adapter: Sized + 'static {
    /// Decodes one streamed answer; [`SameWire`] where the vendor speaks the client's wire.
    type Mapper: Mapper;

    /// Who this is and what it may ask for. Must answer the same each time.
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

    /// # Errors
    ///
    /// [`PluginError::InvalidRequest`] reaches the client as a 400.
    fn plan(&self, request: &Inbound, target_model: &str) -> Result<Decision, PluginError>;

    /// Maps an answer that is not a stream.
    ///
    /// # Errors
    ///
    /// [`PluginError::BadUpstream`] where the vendor's answer makes no sense.
    fn whole(
        &self,
        _context: Context,
        _status: u16,
        _headers: Vec<Header>,
        _body: Vec<u8>,
    ) -> Result<Mapped, PluginError> {
        Err(PluginError::Internal("this adapter maps nothing".into()))
    }

    /// What a vendor's error means; by default the status alone decides.
    fn classify(&self, _context: Context, status: u16, _headers: Vec<Header>, _body: Vec<u8>) -> Verdict {
        classify_status(status)
    }
}

/// Decodes one streamed answer.
pub trait Mapper: Sized + 'static {
    /// Before the first frame.
    fn new(context: Context) -> Self;

    /// Takes whole frames.
    ///
    /// # Errors
    ///
    /// [`PluginError::BadUpstream`] where a frame makes no sense.
    fn push(&self, frames: Vec<Vec<u8>>) -> Result<Mapped, PluginError>;

    /// After the last frame.
    ///
    /// # Errors
    ///
    /// [`PluginError::BadUpstream`] where the answer ended too early.
    fn close(&self) -> Result<Mapped, PluginError>;
}

/// The mapper of an adapter whose plans all say [`ResponsePlan::SameWire`].
pub struct SameWire;

impl Mapper for SameWire {
    fn new(_context: Context) -> SameWire {
        SameWire
    }

    fn push(&self, _frames: Vec<Vec<u8>>) -> Result<Mapped, PluginError> {
        Err(PluginError::Internal("this adapter maps nothing".into()))
    }

    fn close(&self) -> Result<Mapped, PluginError> {
        Err(PluginError::Internal("this adapter maps nothing".into()))
    }
}

/// The verdict that a status has without a look at the body; the host's own, where an adapter gives
/// none, is the same.
pub fn classify_status(status: u16) -> Verdict {
    let kind = match status {
        // With 402 the account behind the credential has no money.
        401..=403 => Failure::Credential,
        429 => Failure::Throttled,
        // The vendor waited for itself or for its own upstream.
        408 | 425 => Failure::Transient,
        400..=499 => Failure::Caller,
        _ => Failure::Transient,
    };
    Verdict { kind, retry_after_ms: None, message: format!("the vendor answered {status}") }
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

/// Makes the component: `sluice_plugin::export_adapter!(MyAdapter);`
#[macro_export]
macro_rules! export_adapter {
    ($adapter:ty) => {
        const _: () = {
            use $crate as sdk;

            static CONFIGURED: ::std::sync::OnceLock<$adapter> = ::std::sync::OnceLock::new();

            struct Exported;

            fn configured() -> &'static $adapter {
                CONFIGURED.get().expect("the host configures before it calls")
            }

            impl sdk::lifecycle_exports::Guest for Exported {
                fn describe() -> sdk::Manifest {
                    <$adapter as sdk::Adapter>::describe()
                }
                fn configure(setup: sdk::Setup) -> Result<(), sdk::PluginError> {
                    sdk::log_panics();
                    let configured = <$adapter as sdk::Adapter>::configure(setup)?;
                    CONFIGURED
                        .set(configured)
                        .map_err(|_| sdk::PluginError::Internal("configured twice".into()))
                }
                fn self_test() -> Result<(), String> {
                    <$adapter as sdk::Adapter>::self_test()
                }
            }

            struct ExportedMapper(<$adapter as sdk::Adapter>::Mapper);

            impl sdk::adapter_exports::GuestMapper for ExportedMapper {
                fn new(context: sdk::Context) -> Self {
                    ExportedMapper(sdk::Mapper::new(context))
                }
                fn push(&self, frames: Vec<Vec<u8>>) -> Result<sdk::Mapped, sdk::PluginError> {
                    sdk::Mapper::push(&self.0, frames)
                }
                fn close(&self) -> Result<sdk::Mapped, sdk::PluginError> {
                    sdk::Mapper::close(&self.0)
                }
            }

            impl sdk::adapter_exports::Guest for Exported {
                type Mapper = ExportedMapper;

                fn plan(
                    request: &sdk::Inbound,
                    target_model: String,
                ) -> Result<sdk::Decision, sdk::PluginError> {
                    sdk::Adapter::plan(configured(), request, &target_model)
                }
                fn whole(
                    context: sdk::Context,
                    status: u16,
                    headers: Vec<sdk::Header>,
                    body: Vec<u8>,
                ) -> Result<sdk::Mapped, sdk::PluginError> {
                    sdk::Adapter::whole(configured(), context, status, headers, body)
                }
                fn classify(
                    context: sdk::Context,
                    status: u16,
                    headers: Vec<sdk::Header>,
                    body: Vec<u8>,
                ) -> sdk::Verdict {
                    sdk::Adapter::classify(configured(), context, status, headers, body)
                }
            }

    sdk::export_bindings!(Exported with_types_in $crate::bindings);
        };
    };
}
