//! Sources of one request that surely go into one place, whatever their backups hold: refused before anything is stopped or saved for them. Pure.
//!
//! What else is one place is found by the worker, which knows the backups.

use holdfast_crds::Reason;

use crate::task::{Failure, RestoreTarget, Target, server_key};

/// No two targets are one place.
///
/// # Errors
/// [`Reason::InvalidConfiguration`], with both sources and the place.
pub(super) fn confirm_apart(targets: &[RestoreTarget], namespace: &str) -> Result<(), Failure> {
    for (at, one) in targets.iter().enumerate() {
        for other in &targets[at + 1..] {
            if let Some(place) = shared(&one.server, &other.server, namespace) {
                let message = format!(
                    "sources {} and {} both go into {place}, where each would replace what the other has brought; nothing was touched: name one of them in spec.sources, or another place for one in spec.into",
                    one.source, other.source
                );
                return Err(Failure::new(Reason::InvalidConfiguration, message));
            }
        }
    }
    Ok(())
}

fn shared(one: &Target, other: &Target, namespace: &str) -> Option<String> {
    match (one, other) {
        (Target::Postgres(a), Target::Postgres(b)) => {
            let database = a.database.as_ref().filter(|_| a.database == b.database)?;
            let same = server_key(&a.host, a.port, namespace) == server_key(&b.host, b.port, namespace);
            same.then(|| format!("database {database} at {}:{}", a.host, a.port))
        }
        (Target::Redis(a), Target::Redis(b)) => {
            let same = server_key(&a.host, a.port, namespace) == server_key(&b.host, b.port, namespace)
                && (a.database.is_none() || b.database.is_none() || a.database == b.database);
            same.then(|| format!("redis at {}:{}", a.host, a.port))
        }
        (Target::Config(_), _) | (_, Target::Config(_)) => {
            let claim = one.claim_name().filter(|_| one.claim_name() == other.claim_name())?;
            Some(format!("claim {claim}"))
        }
        _ => None,
    }
}
