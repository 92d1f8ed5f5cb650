//! Lets a paid attempt go on when its client has gone: the vendor's answer says what it cost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For the rest of an answer that nobody waits for.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Answers that nobody waits for, at once; beyond, they are cut and cost what was held.
const PLACES: usize = 256;

/// Places for answers that nobody waits for; cheap to clone.
#[derive(Clone)]
pub(crate) struct Drains(Arc<Semaphore>);

/// A future that goes on by itself when it is dropped.
pub(crate) struct Drained<T: Send + 'static> {
    attempt: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    drains: Drains,
}

impl Default for Drains {
    fn default() -> Drains {
        Drains(Arc::new(Semaphore::new(PLACES)))
    }
}

impl Drains {
    /// None where there are too many already.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    /// Waits for an attempt; where nobody waits any more, it still ends.
    pub(crate) fn drained<T: Send + 'static>(
        &self,
        attempt: impl Future<Output = T> + Send + 'static,
    ) -> Drained<T> {
        Drained { attempt: Some(Box::pin(attempt)), drains: self.clone() }
    }
}

impl<T: Send + 'static> Future for Drained<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(attempt) = &mut self.attempt else { return Poll::Pending };
        let done = attempt.as_mut().poll(context);
        if done.is_ready() {
            self.attempt = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Drained<T> {
    fn drop(&mut self) {
        let (Some(attempt), Ok(runtime)) = (self.attempt.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        if let Some(place) = self.drains.place() {
            runtime.spawn(async move {
                // An answer in time has been settled; one that is not, is by its end here.
                let _ = tokio::time::timeout(WITHIN, attempt).await;
                drop(place);
            });
        }
    }
}
