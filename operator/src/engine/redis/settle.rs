//! What comes after a restore: the keys are counted, and the server's own files hold them. Talks to the server.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_crds::Reason;

use super::facts::Facts;
use super::resp::Reply;
use super::server::Server;
use crate::task::Failure;

/// How often a server is asked whether it is done.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// So often in a row a server that is over its limit must have let go of nothing more until it is believed that it has settled.
const STRIKES: u32 = 10;

/// Waits until a server lets go of no more keys for want of memory; what it says then.
pub(super) async fn calm(server: &mut Server) -> Result<Facts, Failure> {
    let (mut facts, mut strikes) = (server.facts().await?, 0);
    while facts.is_evicting() && strikes < STRIKES {
        tokio::time::sleep(ASK_AGAIN).await;
        let next = server.facts().await?;
        strikes = if next.evicted() == facts.evicted() { strikes + 1 } else { 0 };
        facts = next;
    }
    Ok(facts)
}

/// Compares the keys of each database with what servers hold now, which have let go of so many for want of memory: then none of those that
/// are missing counts as expired.
pub(super) fn kept(
    place: &str,
    expected: &BTreeMap<u64, u64>,
    expiring: &BTreeMap<u64, u64>,
    found: &BTreeMap<u64, u64>,
    evicted: u64,
) -> Result<(), Failure> {
    let missing = |number: &u64| expected[number].saturating_sub(found.get(number).copied().unwrap_or(0));
    let missing: u64 = expected.keys().map(missing).sum();
    if evicted > 0 && missing > 0 {
        return Err(Failure::new(
            Reason::NoSpace,
            format!(
                "{place}: everything was restored, and then the server evicted {evicted} keys for want of memory, so that {missing} of those of \
                 the backup are missing: raise maxmemory and restore again"
            ),
        ));
    }
    compare(place, expected, expiring, found)
}

/// Compares the keys of each database. Those that expire may be gone already, and no others.
pub(super) fn compare(
    place: &str,
    expected: &BTreeMap<u64, u64>,
    expiring: &BTreeMap<u64, u64>,
    found: &BTreeMap<u64, u64>,
) -> Result<(), Failure> {
    for number in expected.keys().chain(found.keys()) {
        let count = |of: &BTreeMap<u64, u64>| of.get(number).copied().unwrap_or(0);
        let (wanted, there) = (count(expected), count(found));
        if there > wanted || wanted - there > count(expiring) {
            return Err(Failure::new(
                Reason::RestoreFailed,
                format!(
                    "{place}: database {number} holds {there} keys after the restore, and {wanted} were to be there: does something else write to it, or does maxmemory-policy evict keys?"
                ),
            ));
        }
    }
    Ok(())
}

/// Waits until what the server keeps on its disk holds what was restored. `save`: it has written no RDB of it yet.
pub(super) async fn persist(server: &mut Server, save: bool) -> Result<(), Failure> {
    let place = server.place();
    let failed = |what: &str| {
        Failure::new(
            Reason::RestoreFailed,
            format!(
                "{place}: everything is restored, but {what} failed, so that a restart may lose it: look in the server's log"
            ),
        )
    };
    let mut facts = server.facts().await?;
    if facts.is("aof_enabled") {
        while facts.is("aof_rewrite_in_progress") || facts.is("aof_rewrite_scheduled") {
            tokio::time::sleep(ASK_AGAIN).await;
            facts = server.facts().await?;
        }
        if facts.text("aof_last_bgrewrite_status") == "err" || facts.text("aof_last_write_status") == "err" {
            return Err(failed("writing its append-only file"));
        }
        return Ok(());
    }
    // Who may not ask for the setting has none of its files in hand either.
    if !save || server.setting("save").await?.is_none_or(|save| save.is_empty()) {
        return Ok(());
    }
    // One that began before the last key came does not hold it.
    loop {
        while server.facts().await?.is("rdb_bgsave_in_progress") {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        match server.with(|link| link.call(&["BGSAVE"])).await? {
            Reply::Error(words) if words.contains("in progress") => {}
            // It is not for us: the server saves by its own schedule.
            Reply::Error(_) => return Ok(()),
            _ => break,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    loop {
        let facts = server.facts().await?;
        if !facts.is("rdb_bgsave_in_progress") {
            return if facts.text("rdb_last_bgsave_status") == "err" { Err(failed("saving it")) } else { Ok(()) };
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_evicted_have_not_expired() {
        let of = |pairs: &[(u64, u64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let kept = |found, evicted| kept("r", &of(&[(0, 5), (1, 2)]), &of(&[(0, 5)]), &of(found), evicted);
        assert!(kept(&[(0, 3), (1, 2)], 0).is_ok());
        let failure = kept(&[(0, 3), (1, 2)], 7).unwrap_err();
        assert_eq!(failure.reason, Reason::NoSpace);
        assert!(failure.message.contains("evicted 7 keys") && failure.message.contains("2 of those"), "{failure:?}");
        // They were others.
        assert!(kept(&[(0, 5), (1, 2)], 7).is_ok());
    }

    #[test]
    fn only_keys_that_expire_may_be_missing() {
        let of = |pairs: &[(u64, u64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let compare = |expected, expiring, found| compare("r", &of(expected), &of(expiring), &of(found));
        assert!(compare(&[(0, 5)], &[], &[(0, 5)]).is_ok());
        assert!(compare(&[(0, 5)], &[(0, 2)], &[(0, 3)]).is_ok());
        assert!(compare(&[(0, 5)], &[(0, 1)], &[(0, 3)]).is_err());
        assert!(compare(&[(0, 5)], &[], &[]).is_err());
        assert!(compare(&[(0, 5)], &[], &[(0, 6)]).is_err());
        assert!(compare(&[(0, 5)], &[], &[(0, 5), (9, 1)]).is_err());
    }
}
