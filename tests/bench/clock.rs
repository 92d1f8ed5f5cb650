//! Times candidates side by side: every round runs one batch of each, so that noise hits all alike.

use std::fmt::Debug;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Wall time that one batch aims at: long beside a context switch, short beside a noisy spell.
const BATCH: Duration = Duration::from_millis(10);

/// Batches before those that count: caches, pools and warm instances fill.
const WARM_UP_BATCHES: usize = 3;

/// One operation to be timed.
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    operation: Box<dyn FnMut()>,
    gate: Option<Duration>,
}

/// What was seen of one operation: nanoseconds per run, one mean for each round's batch.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Runs per batch.
    pub(crate) batch: u32,
    pub(crate) wall_ns: Vec<f64>,
    /// Of the thread that ran it; less than the wall time where something else ran.
    pub(crate) cpu_ns: Vec<f64>,
    /// What the median wall time may be.
    pub(crate) gate_ns: Option<f64>,
}

// === impl Candidate ===

impl Candidate {
    /// Dropping the result counts. An operation that fails ends the program: its time would mean nothing.
    pub(crate) fn new<T, E: Debug>(
        name: &'static str,
        mut operation: impl FnMut() -> Result<T, E> + 'static,
    ) -> Candidate {
        let operation = Box::new(move || drop(black_box(operation().expect(name))));
        Candidate { name, operation, gate: None }
    }

    pub(crate) fn at_most(self, gate: Duration) -> Candidate {
        Candidate { gate: Some(gate), ..self }
    }

    /// Wall and CPU time of one batch.
    fn run(&mut self, batch: u32) -> (Duration, Duration) {
        let (wall, cpu) = (Instant::now(), thread_cpu_time());
        for _ in 0..batch {
            (self.operation)();
        }
        (wall.elapsed(), thread_cpu_time().saturating_sub(cpu))
    }

    /// Runs it warm, and finds how many runs make a batch.
    fn warm_up(&mut self) -> u32 {
        let mut batch = 1;
        while self.run(batch).0 < BATCH {
            batch *= 2;
        }
        for _ in 0..WARM_UP_BATCHES {
            self.run(batch);
        }
        batch
    }
}

/// Runs all candidates in interleaved rounds; each round begins with the next one.
pub(crate) fn measure(mut candidates: Vec<Candidate>, rounds: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = candidates.iter_mut().map(Row::warmed_up).collect();
    let mut turns: Vec<usize> = (0..candidates.len()).collect();
    for _ in 0..rounds {
        for &turn in &turns {
            let (candidate, row) = (&mut candidates[turn], &mut rows[turn]);
            row.add(candidate.run(row.batch));
        }
        turns.rotate_left(1);
    }
    rows
}

// === impl Row ===

impl Row {
    fn warmed_up(candidate: &mut Candidate) -> Row {
        let batch = candidate.warm_up();
        let gate_ns = candidate.gate.map(|gate| gate.as_secs_f64() * 1e9);
        Row { name: candidate.name, batch, wall_ns: Vec::new(), cpu_ns: Vec::new(), gate_ns }
    }

    fn add(&mut self, (wall, cpu): (Duration, Duration)) {
        let each = |time: Duration| (time.as_secs_f64() * 1e10 / f64::from(self.batch)).round() / 10.0;
        let (wall, cpu) = (each(wall), each(cpu));
        self.wall_ns.push(wall);
        self.cpu_ns.push(cpu);
    }
}

/// The sample that so many of a hundred do not exceed; `samples` must not be empty.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
