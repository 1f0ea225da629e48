//! Whether two sources of one request are restored into one place, where each would replace what the other has brought. Asks no target.

use std::collections::BTreeSet;

use holdfast_crds::Reason;

use super::{ArtifactSource, config, mongodb, postgres, volume};
use crate::store::manifest::Manifest;
use crate::task::{Failure, RestoreTarget, Target, server_key};

/// A source that is restored: where it goes, and what it is.
pub type Chosen<'a> = (&'a RestoreTarget, &'a Manifest);

/// Confirms that none of the others goes where the one goes.
///
/// # Errors
/// [`Reason::InvalidConfiguration`] where one does, with the names of both and of the place.
pub async fn confirm_apart(
    one: Chosen<'_>,
    others: &[Chosen<'_>],
    namespace: &str,
    source: &mut impl ArtifactSource,
) -> Result<(), Failure> {
    for other in others {
        let shared = shared(one, *other, namespace).await.map_err(|failure| failure.about(&one.0.source))?;
        if let Some(place) = shared {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "sources {} and {} both go into {place}, where each would replace what the other has brought; nothing was touched: name one of them in spec.sources, or another place for one in spec.into",
                    one.0.source, other.0.source
                ),
            ));
        }
        if let Some((ours, theirs)) = one_claim(one, *other) {
            for (going, rival) in [(&ours, &theirs), (&theirs, &ours)] {
                volume::confirm_apart((&going.0, going.1), (&rival.0, rival.1), source).await?;
            }
        }
    }
    Ok(())
}

/// The others that go into the same claim.
pub(super) fn beside<'a>(one: &RestoreTarget, others: &[Chosen<'a>]) -> Vec<volume::Going<'a>> {
    let claim = one.server.claim_name();
    let same = others.iter().filter(|(other, _)| other.source != one.source && other.server.claim_name() == claim);
    let volumes = same.filter_map(|(other, manifest)| match &other.server {
        Target::Volume(volume) => Some((volume, *manifest)),
        _ => None,
    });
    volumes.collect()
}

/// The server's place that both would replace, in words.
async fn shared(one: Chosen<'_>, other: Chosen<'_>, namespace: &str) -> Result<Option<String>, Failure> {
    let ((a, of_a), (b, of_b)) = (one, other);
    match (&a.server, &b.server) {
        (Target::Postgres(x), Target::Postgres(y)) => {
            if server_key(&x.host, x.port, namespace) != server_key(&y.host, y.port, namespace) {
                return Ok(None);
            }
            let (ours, theirs) = (postgres::databases(x, of_a)?, postgres::databases(y, of_b)?);
            let same = ours.intersection(&theirs).next();
            Ok(same.map(|database| format!("database {database} at {}:{}", x.host, x.port)))
        }
        (Target::Redis(x), Target::Redis(y)) => {
            let same = server_key(&x.host, x.port, namespace) == server_key(&y.host, y.port, namespace)
                && (x.database.is_none() || y.database.is_none() || x.database == y.database);
            let database = x.database.or(y.database).map(|number| format!("database {number} of ")).unwrap_or_default();
            Ok(same.then(|| format!("{database}redis at {}:{}", x.host, x.port)))
        }
        (Target::Mongodb(x), Target::Mongodb(y)) => {
            let (ours, theirs) = (mongodb::hosts(x, &a.mounts).await?, mongodb::hosts(y, &b.mounts).await?);
            let keys = |hosts: &[(String, i32)]| -> BTreeSet<String> {
                hosts.iter().map(|(host, port)| server_key(host, *port, namespace)).collect()
            };
            let (of_x, of_y) = (keys(&ours), keys(&theirs));
            if of_x.is_disjoint(&of_y) {
                return Ok(None);
            }
            let same = mongodb::common(x, of_a, y, of_b)?;
            Ok(same.map(|what| {
                let at: Vec<String> = ours.iter().map(|(host, port)| format!("{host}:{port}")).collect();
                format!("{what} on {}", at.join(","))
            }))
        }
        _ => Ok(None),
    }
}

type Files<'a> = (crate::task::VolumeTarget, &'a Manifest);

/// Both as files, where they go into one claim.
fn one_claim<'a>(one: Chosen<'a>, other: Chosen<'a>) -> Option<(Files<'a>, Files<'a>)> {
    let files = |(target, manifest): Chosen<'a>| match &target.server {
        Target::Volume(volume) => Some((volume.clone(), manifest)),
        Target::Config(claim) => Some((config::files(claim), manifest)),
        _ => None,
    };
    let (one, other) = (files(one)?, files(other)?);
    (one.0.claim_name == other.0.claim_name).then_some((one, other))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{Inspect, Inspection};
    use super::*;
    use crate::store::manifest::{ArtifactEntry, ItemCount};
    use crate::task::{MongodbTarget, Mounts, PostgresTarget, RedisTarget};

    /// Nothing is fetched for servers.
    struct Nothing;

    impl ArtifactSource for Nothing {
        async fn fetch(
            &mut self,
            artifact: &ArtifactEntry,
            _sink: Box<dyn Write + Send>,
            _inspect: Box<dyn Inspect>,
        ) -> Result<(u64, Inspection), Failure> {
            panic!("{} was fetched", artifact.name)
        }
    }

    fn manifest(artifacts: Vec<ArtifactEntry>) -> Manifest {
        let json = serde_json::json!({
            "formatVersion": 1, "runId": "r", "clusterUid": "c", "namespace": "shop", "policy": "p", "policyUid": "u", "source": "s",
            "engine": "e", "runSources": [], "slot": "2026-11-21T02:00:00Z", "startTime": "2026-11-21T02:00:00Z",
            "endTime": "2026-11-21T02:00:00Z", "artifacts": [], "items": 0, "consistency": "", "serverVersion": "", "toolVersion": "",
            "holdfastVersion": "",
        });
        Manifest { artifacts, ..serde_json::from_value(json).unwrap() }
    }

    fn artifact(format: &str, database: &str, collections: &[&str]) -> ArtifactEntry {
        let item_counts = collections.iter().map(|name| ItemCount { name: (*name).to_owned(), count: 1 }).collect();
        ArtifactEntry {
            format: format.into(),
            database: Some(database.into()),
            item_counts,
            ..ArtifactEntry::default()
        }
    }

    fn postgres(host: &str, database: Option<&str>) -> Target {
        let database = database.map(str::to_owned);
        Target::Postgres(PostgresTarget { host: host.into(), port: 5432, database, ..PostgresTarget::default() })
    }

    fn redis(host: &str, database: Option<i32>) -> Target {
        Target::Redis(RedisTarget { host: host.into(), port: 6379, database, ..RedisTarget::default() })
    }

    fn mongodb(host: &str, database: Option<&str>, include: &[&str]) -> Target {
        Target::Mongodb(MongodbTarget {
            host: Some(host.into()),
            database: database.map(str::to_owned),
            include_collections: include.iter().map(|c| (*c).to_owned()).collect(),
            ..MongodbTarget::default()
        })
    }

    async fn told(one: (Target, &Manifest), other: (Target, &Manifest)) -> Option<String> {
        let target = |source: &str, server| RestoreTarget { source: source.into(), mounts: Mounts::default(), server };
        let (a, b) = (target("one", one.0), target("other", other.0));
        let apart = confirm_apart((&a, one.1), &[(&b, other.1)], "shop", &mut Nothing).await;
        apart.err().map(|failure| {
            assert_eq!(failure.reason, Reason::InvalidConfiguration);
            assert!(failure.message.starts_with("sources one and other both go into "), "{failure}");
            failure.message
        })
    }

    #[tokio::test]
    async fn two_sources_into_one_place_of_a_server_are_told_and_two_places_of_it_are_not() {
        let (shop, audit) =
            (manifest(vec![artifact("sql", "shop", &[])]), manifest(vec![artifact("sql", "audit", &[])]));
        let place = told((postgres("db", None), &shop), (postgres("DB.shop.svc", Some("shop")), &audit)).await;
        assert!(place.unwrap().contains("database shop at db:5432"));
        assert_eq!(told((postgres("db", None), &shop), (postgres("db", None), &audit)).await, None);
        assert_eq!(told((postgres("db", None), &shop), (postgres("db2", None), &shop)).await, None);

        let keys = manifest(vec![]);
        for (one, other, same) in
            [(None, None, true), (None, Some(1), true), (Some(1), Some(1), true), (Some(1), Some(2), false)]
        {
            let told = told((redis("cache", one), &keys), (redis("cache", other), &keys)).await;
            assert_eq!(told.is_some(), same, "{one:?} {other:?} {told:?}");
        }
        assert_eq!(told((redis("cache", None), &keys), (redis("cache2", None), &keys)).await, None);

        let users = manifest(vec![artifact("mongodump-archive", "chat", &["chat.users", "chat.rooms"])]);
        let posts = manifest(vec![artifact("mongodump-archive", "chat", &["chat.posts", "chat.rooms"])]);
        let place = told((mongodb("m", None, &[]), &users), (mongodb("m", None, &[]), &posts)).await;
        assert!(place.unwrap().contains("collection rooms of database chat on m:27017"));
        assert_eq!(told((mongodb("m", None, &["users"]), &users), (mongodb("m", None, &[]), &posts)).await, None);
        assert_eq!(told((mongodb("m", None, &[]), &users), (mongodb("m", Some("copy"), &[]), &posts)).await, None);
        assert_eq!(told((mongodb("m", None, &[]), &users), (mongodb("m2", None, &[]), &posts)).await, None);
    }
}
