//! The threads that serve, each with a runtime of its own. A connection stays with the one that it was
//! given to: nothing of its requests is woken by another core, which costs more than what is done.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Shorter than what requests wait for.
const TICK: Duration = Duration::from_millis(250);

/// Who takes tasks; cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers(Arc<[Worker]>);

/// The threads behind them; dropped, they end, and with them what they do.
pub(crate) struct Threads {
    threads: Vec<JoinHandle<()>>,
    end: watch::Sender<bool>,
}

struct Worker {
    runtime: Handle,
    load: Load,
}

/// Tasks that a worker was given and that have not ended.
#[derive(Clone, Default)]
struct Load(Arc<AtomicUsize>);

/// One of them; it ends when this is dropped.
struct Counted(Load);

/// Starts as many as this, or as the machine has cores.
///
/// # Errors
///
/// Where threads, or what they wait by, are not to be had.
pub(crate) fn start(count: Option<usize>) -> std::io::Result<(Workers, Threads)> {
    let count = match count {
        Some(count) => count,
        None => std::thread::available_parallelism()?.get(),
    };
    let mut threads = Threads { threads: Vec::new(), end: watch::Sender::new(false) };
    let workers = (0..count).map(|number| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let worker = Worker { runtime: runtime.handle().clone(), load: Load::default() };
        threads.add(format!("serve-{number}"), runtime)?;
        Ok(worker)
    });
    let workers = workers.collect::<std::io::Result<_>>()?;
    Ok((Workers(workers), threads))
}

/// Never ends. A runtime writes to a file of its own for each timer that is to go off before all
/// others that it has, be it for a wait of minutes: with one that always goes off sooner it does not.
async fn ticks() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

impl Workers {
    /// Gives a task to the worker that has the fewest; it is one of these `tasks` then.
    pub(crate) fn spawn<F>(&self, tasks: &mut JoinSet<()>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.load.count()) else { return };
        let counted = worker.load.one_more();
        let task = async move {
            task.await;
            drop(counted);
        };
        tasks.spawn_on(task, &worker.runtime);
    }

    /// Tasks that they have: those that they were given, and those that these have made.
    pub(crate) fn tasks(&self) -> usize {
        self.0.iter().map(|worker| worker.runtime.metrics().num_alive_tasks()).sum()
    }
}

impl Threads {
    fn add(&mut self, name: String, runtime: Runtime) -> std::io::Result<()> {
        let mut end = self.end.subscribe();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    // Who would say that it is the end may be gone.
                    _ended = end.wait_for(|end| *end) => {}
                    () = ticks() => {}
                }
            });
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        self.threads.push(std::thread::Builder::new().name(name).spawn(serve)?);
        Ok(())
    }
}

impl Drop for Threads {
    /// When this returns, all that they did has ended.
    fn drop(&mut self) {
        self.end.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that served has died");
            }
        }
    }
}

impl Load {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::thread::ThreadId;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn tasks_are_spread_evenly_and_their_ends_make_room() {
        let (workers, _threads) = start(Some(3)).unwrap();
        let seen: Arc<Mutex<HashMap<ThreadId, usize>>> = Arc::default();
        let gate = Arc::new(Semaphore::new(0));
        let mut tasks = JoinSet::new();
        for round in 1..=2 {
            for _ in 0..6 {
                let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
                workers.spawn(&mut tasks, async move {
                    *seen.lock().unwrap().entry(std::thread::current().id()).or_default() += 1;
                    let _ = gate.acquire().await;
                });
            }
            gate.add_permits(6);
            while tasks.join_next().await.is_some() {}
            let seen: Vec<usize> = seen.lock().unwrap().values().copied().collect();
            assert_eq!(seen, [2 * round; 3]);
            gate.forget_permits(usize::MAX);
        }
    }

    #[tokio::test]
    async fn what_runs_has_ended_when_they_have() {
        struct Told(Arc<AtomicUsize>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (workers, threads) = start(Some(2)).unwrap();
        let (ended, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for _ in 0..4 {
            let told = Told(Arc::clone(&ended));
            workers.spawn(&mut tasks, async move {
                let _told = told;
                std::future::pending::<()>().await;
            });
        }
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        drop(threads);
        assert_eq!(ended.load(Ordering::Relaxed), 4);
    }
}
