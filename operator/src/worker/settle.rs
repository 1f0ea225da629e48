//! Undoes what a restore that was cut off has left half done in volumes, before anything uses them again. Talks to the file system.

use holdfast_crds::Reason;
use tracing::info;

use crate::engine::volume;
use crate::task::{Failure, Report, SettleTask};

pub(super) async fn run(task: &SettleTask) -> Result<Report, Failure> {
    let mut told: Vec<String> = Vec::new();
    for target in &task.targets {
        let Some(claim) = target.server.claim_name() else {
            let message = format!("source {} is restored into no claim, so there is nothing to undo", target.source);
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        };
        let undone = volume::settle(&target.mounts).await.map_err(|failure| {
            let message = format!("claim {claim}: {}", failure.message);
            Failure::new(failure.reason, message).about(&target.source)
        })?;
        let outcome = if undone { "a swap that was cut off is undone" } else { "no swap was cut off" };
        info!("claim {claim}: {outcome}");
        told.push(format!("claim {claim}: {outcome}"));
    }
    Ok(Report::completed(told.join("; "), None))
}
