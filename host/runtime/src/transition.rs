//! What happens to plugins and the configuration while the gateway serves: each an event in the
//! log and a count.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plugin::Plugin;

/// Defines the transitions once: the enum, the list of all, and the names that operators see.
macro_rules! transitions {
    ($($(#[$doc:meta])* $transition:ident = $name:literal,)+) => {
        /// One kind of transition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Transition {
            $($(#[$doc])* $transition,)+
        }

        impl Transition {
            /// All of them, in order of their discriminants.
            pub const ALL: &'static [Transition] = &[$(Transition::$transition,)+];

            /// The name in the log and in metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Transition::$transition => $name,)+
                }
            }
        }
    };
}

transitions! {
    /// A file's plugin serves.
    Activated = "activated",
    /// A file's plugin serves no more: the file is gone.
    Removed = "removed",
    /// A file changes nothing.
    Refused = "refused",
    /// A file waits for another one of its id to go.
    Standby = "standby",
    /// A version got through its probation.
    Proven = "proven",
    /// A version was taken back and shut out.
    RolledBack = "rolled_back",
    /// A file holds a version that was shut out.
    Quarantined = "quarantined",
    /// An operator let a version in again.
    Released = "released",
    /// The configuration was read anew and serves.
    ConfigReloaded = "config_reloaded",
    /// A changed configuration changes nothing.
    ConfigRefused = "config_refused",
}

/// How often each happened.
#[derive(Debug)]
pub struct Transitions([AtomicU64; Transition::ALL.len()]);

impl Default for Transitions {
    fn default() -> Transitions {
        Transitions([const { AtomicU64::new(0) }; Transition::ALL.len()])
    }
}

/// One transition, as it is logged. What is empty does not apply.
#[derive(Clone, Debug)]
pub struct Event {
    pub transition: Transition,
    /// Of the plugin.
    pub id: String,
    pub version: String,
    pub digest: String,
    pub file: Option<PathBuf>,
    /// Of the snapshot that it led to; 0 where it led to none.
    pub generation: u64,
    pub reason: String,
}

impl Event {
    /// Nothing but the transition, to be added to.
    pub fn of(transition: Transition) -> Event {
        let empty = String::new;
        Event {
            transition,
            id: empty(),
            version: empty(),
            digest: empty(),
            file: None,
            generation: 0,
            reason: empty(),
        }
    }

    pub(crate) fn about(transition: Transition, plugin: &Plugin) -> Event {
        let manifest = plugin.manifest();
        let (id, version, digest) =
            (manifest.id.clone(), manifest.version.clone(), plugin.digest().to_owned());
        Event { id, version, digest, ..Event::of(transition) }
    }
}

impl Transition {
    /// Whether the operator got what was asked for.
    fn is_as_wanted(self) -> bool {
        match self {
            Transition::Activated
            | Transition::Removed
            | Transition::Proven
            | Transition::Released
            | Transition::ConfigReloaded => true,
            Transition::Refused
            | Transition::Standby
            | Transition::RolledBack
            | Transition::Quarantined
            | Transition::ConfigRefused => false,
        }
    }
}

impl Transitions {
    /// Logs and counts.
    pub fn tell(&self, event: Event) {
        let Event { transition, id, version, digest, file, generation, reason } = event;
        self.0[transition as usize].fetch_add(1, Ordering::Relaxed);
        let (name, file) = (transition.name(), file.map(|file| file.display().to_string()));
        if transition.is_as_wanted() {
            tracing::info!(transition = name, plugin = id, version, digest, file, generation, reason);
        } else {
            tracing::warn!(transition = name, plugin = id, version, digest, file, generation, ?reason);
        }
    }

    pub fn counted(&self, transition: Transition) -> u64 {
        self.0[transition as usize].load(Ordering::Relaxed)
    }
}
