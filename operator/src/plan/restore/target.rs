//! Where each source goes: where it came from, as the policy says, overlaid by what the request says. Pure.

use holdfast_crds::{
    BackupPolicy, MongodbInto, MongodbSource, PostgresInto, PostgresSource, Reason, RedisInto, RedisSource,
    RestoreInto, RestoreRequest, Source,
};

use super::{Choice, overlap};
use crate::plan::job::{Data, SourceMount};
use crate::task::{
    ConfigTarget, Failure, Globs, MongodbTarget, PathFilter, PostgresTarget, RedisTarget, RestoreTarget, Target,
    VolumeTarget,
};

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
            show("db", "postgres: {host: …, credentialsSecret: {name: …}}")
        )));
    }
    if let Some(stray) = request.spec.into.iter().find(|i| !names.contains(&i.source)) {
        let message = format!("into names source {}, which is not restored: {}", stray.source, names.join(", "));
        return Err(invalid(message));
    }
    let mut targets = Vec::new();
    let mut mounts = Vec::new();
    for name in &names {
        let into = request.spec.into.iter().find(|i| i.source == *name);
        let from = policy.and_then(|p| p.spec.sources.iter().find(|s| s.name == *name));
        let why = if let Some(policy) = policy {
            let there: Vec<&str> = policy.spec.sources.iter().map(|s| s.name.as_str()).collect();
            format!("BackupPolicy {} has no source {name} any more (it has {})", choice.policy, there.join(", "))
        } else {
            format!("BackupPolicy {} is not there", choice.policy)
        };
        let (server, mount) = overlay(name, from, into, &why)?;
        targets.push(RestoreTarget { source: name.clone(), mounts: mount.paths(), server });
        mounts.push(mount);
    }
    if wanted.is_some() {
        overlap::confirm_apart(&targets, request.metadata.namespace.as_deref().unwrap_or_default())?;
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

/// One source's target. `why` says why the policy does not tell where it goes.
fn overlay(
    name: &str,
    from: Option<&Source>,
    into: Option<&RestoreInto>,
    why: &str,
) -> Result<(Target, SourceMount), Failure> {
    let missing =
        |fields: &str| invalid(format!("{why}, so into must say where source {name} goes: {}", show(name, fields)));
    let said = into.map(kind_of).filter(|kind| !kind.is_empty());
    let saved = from.and_then(Source::engine).map(|e| e.kind());
    if let (Some(said), Some(saved)) = (said, saved)
        && said != saved
    {
        return Err(invalid(format!("source {name} is {saved}, and into names {said}: write {saved}: {{…}}")));
    }
    let mount = SourceMount { source: name.to_owned(), ..SourceMount::default() };
    match said.or(saved).unwrap_or("postgres") {
        "mongodb" => {
            let from = from.and_then(|s| s.mongodb.as_ref());
            let into = into.and_then(|i| i.mongodb.clone()).unwrap_or_default();
            mongodb(mount, from, into).ok_or_else(|| missing("mongodb: {uriSecret: {name: …, key: …}}"))
        }
        "redis" => {
            let from = from.and_then(|s| s.redis.as_ref());
            let into = into.and_then(|i| i.redis.clone()).unwrap_or_default();
            redis(mount, from, into).ok_or_else(|| missing("redis: {host: …}"))
        }
        "volume" => {
            let claim = into.and_then(|i| i.volume.as_ref()?.claim_name.clone());
            let claim_name = claim.or_else(|| Some(from?.volume.as_ref()?.claim_name.clone()));
            let claim_name = claim_name.ok_or_else(|| missing("volume: {claimName: …}"))?;
            let volume = into.and_then(|i| i.volume.as_ref());
            let paths = volume.map(|v| v.paths.clone()).unwrap_or_default();
            Globs::check("paths", &paths)
                .map_err(|f| Failure::new(f.reason, format!("source {name}: into.volume.{}", f.message)))?;
            let keep_privileges = volume.is_some_and(|v| v.keep_privileges);
            let mount = SourceMount { data: Some(Data::Claim { name: claim_name.clone(), read_only: false }), ..mount };
            let filter = from
                .and_then(|s| s.volume.as_ref())
                .map(|source| PathFilter { include: source.include.clone(), exclude: source.exclude.clone() });
            let target = VolumeTarget { claim_name, paths, keep_privileges, saves: filter, safety: None };
            Ok((Target::Volume(target), mount))
        }
        "config" => {
            // Where it came from is no place to write to: Holdfast has no right to write ConfigMaps and Secrets.
            let claim_name = into.and_then(|i| i.config.as_ref()).map(|c| c.claim_name.clone()).ok_or_else(|| {
                let example = show(name, "config: {claimName: …}");
                invalid(format!("source {name} is restored as files into a volume: say which, {example}"))
            })?;
            let mount = SourceMount { data: Some(Data::Claim { name: claim_name.clone(), read_only: false }), ..mount };
            Ok((Target::Config(ConfigTarget { claim_name }), mount))
        }
        _ => {
            let from = from.and_then(|s| s.postgres.as_ref());
            let into = into.and_then(|i| i.postgres.clone()).unwrap_or_default();
            postgres(mount, from, into).ok_or_else(|| missing("postgres: {host: …, credentialsSecret: {name: …}}"))
        }
    }
}

fn kind_of(into: &RestoreInto) -> &'static str {
    let kinds = [
        (into.postgres.is_some(), "postgres"),
        (into.mongodb.is_some(), "mongodb"),
        (into.redis.is_some(), "redis"),
        (into.volume.is_some(), "volume"),
        (into.config.is_some(), "config"),
    ];
    kinds.into_iter().find(|(set, _)| *set).map_or("", |(_, kind)| kind)
}

fn postgres(mount: SourceMount, from: Option<&PostgresSource>, into: PostgresInto) -> Option<(Target, SourceMount)> {
    let host = into.host.or_else(|| Some(from?.host.clone()))?;
    let credentials = into.credentials_secret.or_else(|| Some(from?.credentials_secret.clone()))?;
    let port = into.port.or(from.map(|f| f.port)).unwrap_or(5432);
    let tls = into.tls.or_else(|| Some(from?.tls.clone())).unwrap_or_default();
    let mount = SourceMount { credentials: Some((&credentials).into()), ca: tls.ca_bundle.clone(), ..mount };
    let on_unrestorable = into.on_unrestorable;
    Some((Target::Postgres(PostgresTarget { host, port, database: into.database, tls, on_unrestorable }), mount))
}

fn mongodb(mount: SourceMount, from: Option<&MongodbSource>, into: MongodbInto) -> Option<(Target, SourceMount)> {
    // A connection string and a host exclude each other: whichever the request says wins over both of the source's.
    let (host, uri) = match (into.host, into.uri_secret) {
        (None, None) => (from.and_then(|f| f.host.clone()), from.and_then(|f| f.uri_secret.clone())),
        said => said,
    };
    if host.is_none() && uri.is_none() {
        return None;
    }
    let credentials = into.credentials_secret.or_else(|| from?.credentials_secret.clone()).filter(|_| uri.is_none());
    let port = into.port.or_else(|| from?.port);
    let tls = into.tls.or_else(|| from?.tls.clone());
    let ca = tls.as_ref().and_then(|tls| tls.ca_bundle.clone());
    let mount = SourceMount { credentials: credentials.as_ref().map(Into::into), uri, ca, ..mount };
    let target = MongodbTarget {
        host,
        port,
        database: into.database,
        include_collections: into.include_collections,
        exclude_collections: into.exclude_collections,
        exclude_indexes: into.exclude_indexes,
        bypass_validation: into.bypass_validation,
        include_users_and_roles: into.include_users_and_roles,
        safety: None,
        tls,
    };
    Some((Target::Mongodb(target), mount))
}

fn redis(mount: SourceMount, from: Option<&RedisSource>, into: RedisInto) -> Option<(Target, SourceMount)> {
    let host = into.host.or_else(|| Some(from?.host.clone()))?;
    let port = into.port.or(from.map(|f| f.port)).unwrap_or(6379);
    let credentials = into.credentials_secret.or_else(|| from?.credentials_secret.clone());
    let tls = into.tls.or_else(|| Some(from?.tls.clone())).unwrap_or_default();
    let mount = SourceMount { credentials: credentials.as_ref().map(Into::into), ca: tls.ca_bundle.clone(), ..mount };
    Some((Target::Redis(RedisTarget { host, port, database: into.database, tls }), mount))
}

fn show(source: &str, fields: &str) -> String {
    format!("into: [{{source: {source}, {fields}}}]")
}

fn invalid(message: String) -> Failure {
    Failure::new(Reason::InvalidConfiguration, message)
}
