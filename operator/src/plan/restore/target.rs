//! Where each source goes: where it came from, as the policy says, overlaid by what the request says. Pure.

use holdfast_crds::{BackupPolicy, PostgresInto, PostgresSource, Reason, RestoreRequest};

use super::Choice;
use crate::plan::job::SourceMount;
use crate::task::{Failure, PostgresTarget, RestoreTarget, Target};

type Targets = (Option<Vec<String>>, Vec<RestoreTarget>, Vec<SourceMount>);

/// The sources to restore (none: all of the run, whichever they are), their targets, and what these need mounted.
///
/// # Errors
/// [`Reason::InvalidConfiguration`], with what to write.
pub(super) fn targets(
    request: &RestoreRequest,
    choice: &Choice,
    policy: Option<&BackupPolicy>,
) -> Result<Targets, Failure> {
    let wanted = request.spec.sources.clone().or_else(|| choice.sources.clone());
    if let (Some(wanted), Some(held)) = (&wanted, &choice.sources)
        && let Some(unknown) = wanted.iter().find(|w| !held.contains(w))
    {
        return Err(invalid(format!("the backup holds no source {unknown}; it holds {}", held.join(", "))));
    }
    let names: Vec<String> = wanted.clone().unwrap_or_else(|| known(request, policy));
    if names.is_empty() {
        return Err(invalid(format!(
            "BackupPolicy {} is not there, so into must say where each source goes: {}",
            choice.policy,
            example("db")
        )));
    }
    if let Some(stray) = request.spec.into.iter().find(|i| !names.contains(&i.source)) {
        let message = format!("into names source {}, which is not restored: {}", stray.source, names.join(", "));
        return Err(invalid(message));
    }
    let mut targets = Vec::new();
    let mut mounts = Vec::new();
    for name in &names {
        let into = request.spec.into.iter().find(|i| i.source == *name).and_then(|i| i.postgres.clone());
        let from =
            policy.and_then(|p| p.spec.sources.iter().find(|s| s.name == *name)).and_then(|s| s.postgres.as_ref());
        let (server, mount) = target(name, from, into.unwrap_or_default(), &choice.policy, policy.is_some())?;
        targets.push(RestoreTarget { source: name.clone(), mounts: mount.paths(), server: Target::Postgres(server) });
        mounts.push(mount);
    }
    Ok((wanted, targets, mounts))
}

/// The sources that there may be, where only the bucket knows which there are.
fn known(request: &RestoreRequest, policy: Option<&BackupPolicy>) -> Vec<String> {
    let of_policy = policy.into_iter().flat_map(|p| p.spec.sources.iter().map(|s| s.name.clone()));
    let mut names: Vec<String> = of_policy.collect();
    for into in &request.spec.into {
        if !names.contains(&into.source) {
            names.push(into.source.clone());
        }
    }
    names
}

fn target(
    name: &str,
    from: Option<&PostgresSource>,
    into: PostgresInto,
    policy: &str,
    policy_is_there: bool,
) -> Result<(PostgresTarget, SourceMount), Failure> {
    let host = into.host.or_else(|| from.map(|f| f.host.clone()));
    let credentials = into.credentials_secret.or_else(|| from.map(|f| f.credentials_secret.clone()));
    let (Some(host), Some(credentials)) = (host, credentials) else {
        let why = if policy_is_there {
            format!("BackupPolicy {policy} has no source {name} any more")
        } else {
            format!("BackupPolicy {policy} is not there")
        };
        return Err(invalid(format!("{why}, so into must say where source {name} goes: {}", example(name))));
    };
    let tls = into.tls.or_else(|| from.map(|f| f.tls.clone())).unwrap_or_default();
    let mount = SourceMount { source: name.to_owned(), credentials, ca: tls.ca_bundle.clone() };
    let port = into.port.or(from.map(|f| f.port)).unwrap_or(5432);
    Ok((PostgresTarget { host, port, database: into.database, tls }, mount))
}

fn example(source: &str) -> String {
    format!("into: [{{source: {source}, postgres: {{host: …, credentialsSecret: {{name: …}}}}}}]")
}

fn invalid(message: String) -> Failure {
    Failure::new(Reason::InvalidConfiguration, message)
}
