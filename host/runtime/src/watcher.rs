//! Says when to look: file events as hints, never as truth.

use std::path::{Path, PathBuf};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Watches folders that may come and go.
pub struct Watcher {
    notify: Option<RecommendedWatcher>,
    watched: Vec<(PathBuf, Option<Identity>)>,
}

/// Which folder a path leads to: a watch stays with the folder, not with its path.
type Identity = (u64, u64);

impl Watcher {
    /// `hint` is called from another thread, with a path in one of the folders; it must not block.
    /// Where the system has no events, or where they are not `wanted`, it is never called, and
    /// scans alone find changes.
    pub fn new(folders: &[PathBuf], wanted: bool, hint: impl Fn(&Path) + Send + 'static) -> Watcher {
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) if changes(event.kind) => event.paths.iter().for_each(|path| hint(path)),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "file events are lost; the next scan finds what changed"),
        };
        let notify = match wanted.then(|| notify::recommended_watcher(handler)).transpose() {
            Ok(notify) => notify,
            Err(error) => {
                tracing::warn!(%error, "no file events; changes are found by scans alone");
                None
            }
        };
        let watched = folders.iter().map(|folder| (folder.clone(), None)).collect();
        let mut watcher = Watcher { notify, watched };
        watcher.renew();
        watcher
    }

    /// Watches folders that have appeared, or were replaced, since the last call.
    pub fn renew(&mut self) {
        let Some(notify) = &mut self.notify else { return };
        for (folder, watched) in &mut self.watched {
            let identity = identity(folder);
            if *watched == identity {
                continue;
            }
            if watched.take().is_some() {
                // The watch may have ended with its folder.
                let _ = notify.unwatch(folder);
            }
            *watched = identity;
            if identity.is_some()
                && let Err(error) = notify.watch(folder, RecursiveMode::NonRecursive)
            {
                tracing::warn!(folder = %folder.display(), %error, "not watched; scans alone find changes");
            }
        }
    }
}

fn identity(folder: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Reading a file is no change: without this, each scan would hint at the next.
fn changes(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(_))
}
