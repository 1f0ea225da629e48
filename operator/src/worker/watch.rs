//! The deadline, the idle watch and SIGTERM: what cuts a task short. Talks to the clock and to signals.

use std::time::Duration;

use holdfast_crds::Reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::process::Progress;
use crate::task::{Failure, PROBE_SECONDS, Task};

/// How long a task without limits of its own (retain, delete, catalogue) may take.
const HOUSEKEEPING_LIMIT: Duration = Duration::from_mins(15);

/// What a task may take.
pub(super) struct Limits {
    deadline: Duration,
    idle: Option<Idle>,
}

struct Idle {
    limit: Duration,
    /// A restore may rightly move nothing for long: while the database builds its indexes.
    only_while_moving: bool,
}

impl Limits {
    pub(super) fn of(task: &Task) -> Self {
        match task {
            Task::Backup(task) => Self {
                deadline: seconds(task.timeout_seconds),
                idle: Some(Idle { limit: seconds(task.idle_timeout_seconds), only_while_moving: false }),
            },
            Task::Restore(task) => Self {
                deadline: seconds(task.timeout_seconds),
                idle: Some(Idle { limit: seconds(task.idle_timeout_seconds), only_while_moving: true }),
            },
            Task::Verify(task) => Self {
                deadline: seconds(task.timeout_seconds),
                idle: Some(Idle { limit: seconds(task.idle_timeout_seconds), only_while_moving: true }),
            },
            Task::Probe(_) => Self { deadline: seconds(PROBE_SECONDS), idle: None },
            Task::Retain(_) | Task::Delete(_) | Task::Catalogue(_) | Task::Settle(_) => {
                Self { deadline: HOUSEKEEPING_LIMIT, idle: None }
            }
        }
    }
}

/// Returns when the task must be cut short, with the reason.
pub(super) async fn until_cut(limits: &Limits, progress: &Progress) -> Failure {
    tokio::select! {
        () = sleep(limits.deadline) => out_of_time(limits),
        failure = until_idle(limits.idle.as_ref(), progress) => failure,
        failure = until_told() => failure,
    }
}

fn out_of_time(limits: &Limits) -> Failure {
    let seconds = limits.deadline.as_secs();
    let message = match limits.idle {
        Some(_) => format!("not done after timeoutSeconds: {seconds}; raise it, or see in the log what takes so long"),
        None => format!(
            "not done after {seconds} s: the store is very slow, or holds very much; see in the log how far it came"
        ),
    };
    Failure::new(Reason::DeadlineExceeded, message)
}

async fn until_idle(idle: Option<&Idle>, progress: &Progress) -> Failure {
    let Some(idle) = idle else { return std::future::pending().await };
    let step = (idle.limit / 10).clamp(Duration::from_millis(50), Duration::from_secs(5));
    let (mut bytes, mut since) = (progress.bytes(), Instant::now());
    loop {
        sleep(step).await;
        let now = progress.bytes();
        if now != bytes || (idle.only_while_moving && !progress.is_moving()) {
            (bytes, since) = (now, Instant::now());
        } else if since.elapsed() >= idle.limit {
            return Failure::new(
                Reason::Stalled,
                format!(
                    "no byte moved for idleTimeoutSeconds: {}; look for a lock on the server that the dump waits for",
                    idle.limit.as_secs()
                ),
            );
        }
    }
}

async fn until_told() -> Failure {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
            Failure::new(
                Reason::PodLost,
                "the Pod was told to end before its work was done: it was deleted, or its node is drained or short of something",
            )
        }
        // Without the signal the process just ends, and the attempt's leftovers count for nothing.
        Err(_) => std::future::pending().await,
    }
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(deadline: u64, idle: u64, only_while_moving: bool) -> Limits {
        Limits {
            deadline: Duration::from_secs(deadline),
            idle: Some(Idle { limit: Duration::from_secs(idle), only_while_moving }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_moves_is_cut_by_its_deadline_only() {
        let progress = Progress::default();
        let (moving, limits) = (progress.clone(), limits(100, 10, false));
        let mover = async move {
            loop {
                sleep(Duration::from_secs(9)).await;
                moving.add(1);
            }
        };
        let failure =
            tokio::select! { failure = until_cut(&limits, &progress) => failure, () = mover => unreachable!() };
        assert_eq!(failure.reason, Reason::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stands_still_is_cut_within_the_idle_time_and_a_step() {
        let began = Instant::now();
        let failure = until_cut(&limits(1000, 10, false), &Progress::default()).await;
        assert_eq!(failure.reason, Reason::Stalled);
        assert!(began.elapsed() <= Duration::from_secs(12), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_restore_may_stand_still_when_its_stream_is_over() {
        let progress = Progress::default();
        let limits = limits(1000, 10, true);
        assert_eq!(until_cut(&limits, &progress).await.reason, Reason::DeadlineExceeded);
        let _moving = progress.moving();
        assert_eq!(until_cut(&limits, &progress).await.reason, Reason::Stalled);
    }
}
