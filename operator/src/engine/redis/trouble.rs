//! What servers say when something goes wrong, as a reason and a line a person can act on. Pure.

use holdfast_crds::Reason;

use super::facts::Facts;
use crate::archive::rdb::{NEWEST_VALKEY, VALKEY};
use crate::task::Failure;

/// Beginnings of a server's words, with what they mean. The first that fits counts.
const WORDS: &[(&str, Reason, &str)] = &[
    ("NOAUTH", Reason::SourceRefused, "the server wants a password: name its Secret in credentialsSecret"),
    ("WRONGPASS", Reason::SourceRefused, "check user name and password in the Secret"),
    ("ERR invalid password", Reason::SourceRefused, "check the password in the Secret"),
    ("NOPERM", Reason::SourceRefused, "grant it to the user; docs/redis.md tells which rights are needed"),
    (
        "DENIED",
        Reason::SourceRefused,
        "the server is in protected mode and lets only its own host in: give it a password, or bind it to an address",
    ),
    ("LOADING", Reason::SourceUnreachable, "wait until the server has loaded its data"),
    (
        "MASTERDOWN",
        Reason::SourceUnreachable,
        "this is a replica without its primary: mend the replication, or name the primary",
    ),
    (
        "NOMASTERLINK",
        Reason::SourceUnreachable,
        "this is a replica without its primary: mend the replication, or name the primary",
    ),
    ("CLUSTERDOWN", Reason::SourceUnreachable, "wait until all slots of the cluster are served"),
    ("BUSY ", Reason::SourceUnreachable, "a script blocks the server: wait for it, or end it with SCRIPT KILL"),
    ("ERR max number of clients", Reason::SourceUnreachable, "raise maxclients or free connections"),
    ("OOM", Reason::NoSpace, "raise the server's maxmemory"),
    ("MISCONF", Reason::NoSpace, "the server cannot save to its disk: make room there"),
    ("READONLY", Reason::InvalidConfiguration, "this is a replica: name the primary"),
    ("BUSYKEY", Reason::TargetNotEmpty, "somebody wrote this key meanwhile: stop what writes, and restore again"),
    ("MOVED", Reason::RestoreFailed, "slots of the cluster moved meanwhile: restore again when it is at rest"),
    ("ASK ", Reason::RestoreFailed, "slots of the cluster are moving: restore again when it is at rest"),
    ("TRYAGAIN", Reason::RestoreFailed, "slots of the cluster are moving: restore again when it is at rest"),
    ("ERR unknown command", Reason::SourceRefused, "the server has this command renamed or switched off"),
];

/// What a server said to a command, as a failure of the one who asked; `otherwise` where its words do not tell.
pub(super) fn refused(place: &str, command: &str, words: &str, otherwise: Reason) -> Failure {
    let known = WORDS.iter().find(|(beginning, ..)| words.starts_with(beginning));
    let (reason, advice) = known.map_or((otherwise, ""), |(_, reason, advice)| (*reason, *advice));
    let words = words.trim_end_matches('.').trim();
    // Protected mode explains itself over a page.
    let words = words.split_once(". ").map_or(words, |(first, _)| first);
    let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
    Failure::new(reason, format!("{place}: {command}: {words}{advice}"))
}

/// Whether these words mean that a command is not for us: forbidden, renamed, switched off.
pub(super) fn is_forbidden(words: &str) -> bool {
    ["NOPERM", "ERR unknown command", "ERR Unknown command", "ERR command not allowed", "ERR REPLICAOF not allowed"]
        .iter()
        .any(|beginning| words.starts_with(beginning))
}

/// What is said of a server that does not answer when encryption is begun.
pub(super) const NO_HANDSHAKE: &str = "the TLS handshake got no answer";

const CLOSED: &str = "the connection was closed: check that the server runs and speaks Redis on this port, its log, and tls.mode (a port \
                      for TLS closes what is not encrypted)";

/// What to do about a certificate, by what is wrong with it.
fn of_certificate(words: &str) -> &'static str {
    if words.contains("not valid for name") || words.contains("NotValidForName") {
        "the server's certificate is for another host name: check host, or set tls.mode to VerifyCa"
    } else if words.contains("xpired") {
        "the server's certificate has expired: renew it there"
    } else {
        "the server's certificate is not from an authority in tls.caBundle: put the authority's there"
    }
}

/// A connection that broke or never came about.
pub(super) fn unreachable(place: &str, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind;
    let (reason, advice) = match error.kind() {
        ErrorKind::ConnectionRefused => (Reason::SourceUnreachable, "check host and port and that the server runs"),
        ErrorKind::TimedOut if error.to_string().starts_with(NO_HANDSHAKE) => (
            Reason::SourceUnreachable,
            "the server does not speak TLS on this port (set tls.mode to Disable, or name the port that does), or it is too busy",
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            (Reason::SourceUnreachable, "check host and port and that no NetworkPolicy or firewall is in the way")
        }
        ErrorKind::InvalidData if error.to_string().contains("invalid peer certificate") => {
            (Reason::SourceRefused, of_certificate(&error.to_string()))
        }
        ErrorKind::InvalidData if error.to_string().contains("InvalidContentType") => (
            Reason::SourceUnreachable,
            "the server does not speak TLS on this port: set tls.mode to Disable, or name the port that does",
        ),
        ErrorKind::InvalidData => {
            (Reason::SourceUnreachable, "check that the server speaks Redis on this port, and tls.mode")
        }
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted => (Reason::SourceUnreachable, CLOSED),
        _ if error.to_string().contains("lookup address") => {
            (Reason::SourceUnreachable, "check host: the name does not resolve")
        }
        _ => (Reason::SourceUnreachable, "check host and the network"),
    };
    Failure::new(reason, format!("{place}: {error}: {advice}"))
}

/// A transfer that the server broke off without a word, as a failure that says why: as the server itself knows it, or else what is likely.
/// `facts` are what it says of itself now; none where it does not answer.
pub(super) fn broke_off(failure: &Failure, facts: Option<&Facts>) -> Failure {
    let told = |reason, why: &str| Failure::new(reason, format!("{}; {why}", failure.message));
    let Some(facts) = facts else {
        let why = "it does not answer any more: it was restarted, or the kernel ended it (has it the memory to fork while it saves?)";
        return told(Reason::SourceUnreachable, why);
    };
    let failed = facts.text("rdb_last_bgsave_status") == "err";
    let (reason, what, likely) = if failed {
        let likely = "its disk is full, or it had no memory to fork";
        (Reason::DumpFailed, "the server's last background save failed: look in its log", likely)
    } else {
        let likely = "it had no memory to fork, its client-output-buffer-limit for replicas was reached, or somebody ended the \
                      connections of its replicas";
        (failure.reason, "look in the server's log", likely)
    };
    // Since 9 it writes the version that was asked for, and breaks off at a value that this version cannot hold.
    if facts.is_valkey() && facts.rdb_version() >= VALKEY {
        let why = format!(
            "{what}: where that says \"Can't store key\", the server ({}) holds a value that RDB {VALKEY}, which was asked for, cannot \
             hold: use a release of Holdfast that reads more than Valkey {NEWEST_VALKEY} writes; otherwise {likely}",
            facts.server()
        );
        return told(reason, &why);
    }
    told(reason, &format!("{what} ({}): {likely}", facts.server()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_breaks_off_is_told_with_its_likely_cause() {
        let broke = || Failure::new(Reason::DumpFailed, "redis at cache:6379: unexpected end of file");
        let table = [
            (None, Reason::SourceUnreachable, "does not answer any more"),
            (Some("redis_version:8.6.3\nrdb_last_bgsave_status:err\n"), Reason::DumpFailed, "its disk is full, or"),
            (
                Some("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:9.2.0\n"),
                Reason::DumpFailed,
                "the server (Valkey 9.2.0) holds a value that RDB 80",
            ),
            (
                Some("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.1.1\n"),
                Reason::DumpFailed,
                "(Valkey 8.1.1)",
            ),
            (
                Some("redis_version:8.6.3\n"),
                Reason::DumpFailed,
                "look in the server's log (Redis 8.6.3): it had no memory",
            ),
        ];
        for (info, reason, expected) in table {
            let failure = broke_off(&broke(), info.map(Facts::parse).as_ref());
            assert_eq!(failure.reason, reason, "{failure:?}");
            assert!(failure.message.contains(expected), "{}", failure.message);
        }
    }

    #[test]
    fn words_of_servers_tell_who_is_to_act() {
        let table = [
            ("NOAUTH Authentication required.", Reason::SourceRefused, "name its Secret"),
            ("WRONGPASS invalid username-password pair or user is disabled.", Reason::SourceRefused, "check user name"),
            ("NOPERM this user has no permissions to run the 'psync' command", Reason::SourceRefused, "docs/redis.md"),
            ("LOADING Redis is loading the dataset in memory", Reason::SourceUnreachable, "wait until"),
            (
                "DENIED Redis is running in protected mode because protected mode is enabled. Much more follows",
                Reason::SourceRefused,
                "protected mode is enabled: the server is in protected mode",
            ),
            ("OOM command not allowed when used memory > 'maxmemory'.", Reason::NoSpace, "maxmemory"),
            ("ERR something new", Reason::DumpFailed, "cache:6379: PSYNC: ERR something new"),
        ];
        for (words, reason, expected) in table {
            let failure = refused("cache:6379", "PSYNC", words, Reason::DumpFailed);
            assert_eq!(failure.reason, reason, "{words}");
            assert!(failure.message.contains(expected), "{}", failure.message);
        }
        assert!(is_forbidden("NOPERM this user") && is_forbidden("ERR unknown command 'REPLICAOF'"));
        assert!(!is_forbidden("ERR value is not an integer or out of range"));
    }
}
