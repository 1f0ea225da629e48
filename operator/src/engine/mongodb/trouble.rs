//! What the driver and the server say when something goes wrong, as a reason and a line a person can act on. Pure.

use holdfast_crds::Reason;
use mongodb::error::{Error, ErrorKind};

use crate::task::Failure;

/// Codes of the server, with what they mean.
const CODES: &[(i32, Reason, &str)] = &[
    (13, Reason::SourceRefused, "give the user the role backup (to restore: restore), or readWrite on the database"),
    (18, Reason::SourceRefused, "check user name, password and authSource in the Secret"),
    (8000, Reason::SourceRefused, "check user name, password and authSource in the Secret"),
    (10107, Reason::SourceRefused, "connect to the primary, or name the replica set in the connection string"),
    (13435, Reason::SourceRefused, "connect to the primary, or name the replica set in the connection string"),
    (14031, Reason::NoSpace, NO_SPACE_ADVICE),
];

/// What servers with another storage below say of a full disk, under whatever code.
const NO_SPACE: [&str; 4] = ["No space left on device", "could not extend file", "disk full", "OutOfDiskSpace"];
const NO_SPACE_ADVICE: &str = "make room on the server's disk";

/// A snapshot that the server no longer has.
const SNAPSHOT_LOST: [i32; 3] = [239, 246, 137];

/// The failure that an error is. `otherwise` is the reason where neither kind nor code tells one.
pub(super) fn failure(place: &str, otherwise: Reason, error: &Error) -> Failure {
    let (reason, words) = match error.kind.as_ref() {
        ErrorKind::Authentication { .. } => (
            Reason::SourceRefused,
            "the server refused the login: check user name, password and authSource in the Secret".to_owned(),
        ),
        ErrorKind::Command(command) => {
            let words = if command.message.is_empty() { &command.code_name } else { &command.message };
            let known = known(command.code, words);
            let advice = known.map(|(_, advice)| format!(": {advice}")).unwrap_or_default();
            let reason = known.map_or(otherwise, |(reason, _)| reason);
            (reason, format!("{} ({}){advice}", one_line(words), command.code))
        }
        ErrorKind::ServerSelection { message, .. } => {
            let words = of_selection(message);
            let advice = of_connection(&words);
            (Reason::SourceUnreachable, format!("it does not answer: {words}: {advice}"))
        }
        ErrorKind::Io(error) => {
            let words = error.to_string();
            (Reason::SourceUnreachable, format!("the connection broke: {words}: {}", of_connection(&words)))
        }
        ErrorKind::ConnectionPoolCleared { message, .. } => {
            (Reason::SourceUnreachable, format!("the connection broke: {}", one_line(message)))
        }
        ErrorKind::DnsResolve { message, .. } => {
            (Reason::SourceUnreachable, format!("its name cannot be resolved: {}", one_line(message)))
        }
        ErrorKind::InvalidTlsConfig { message, .. } => (
            Reason::InvalidConfiguration,
            format!("the certificates to trust cannot be used: {}; set tls.caBundle", one_line(message)),
        ),
        ErrorKind::IncompatibleServer { message, .. } => (Reason::InvalidConfiguration, one_line(message)),
        other => (otherwise, one_line(&other.to_string())),
    };
    Failure::new(reason, format!("{place}: {words}"))
}

/// The failure of whoever may not do something and has not said who they are; none where it is another one.
pub(super) fn of_nobody(place: &str, error: &Error) -> Option<Failure> {
    const UNAUTHORIZED: i32 = 13;
    let ErrorKind::Command(command) = error.kind.as_ref() else { return None };
    (command.code == UNAUTHORIZED).then(|| {
        let message = format!(
            "{place}: {} ({UNAUTHORIZED}): the server wants a user and a password: name their Secret in credentialsSecret, or write them \
             into the connection string",
            one_line(&command.message)
        );
        Failure::new(Reason::SourceRefused, message)
    })
}

/// Words of the network and of TLS, with what to do about them. The first that fits counts.
const CONNECTION: &[(&str, &str)] = &[
    (
        "InvalidContentType",
        "the server does not speak TLS on this port: set tls.mode to Disable, or take tls=true out of the connection string",
    ),
    ("not valid for name", "the server's certificate is for another host name: check host"),
    ("NotValidForName", "the server's certificate is for another host name: check host"),
    ("xpired", "the server's certificate has expired: renew it there"),
    (
        "invalid peer certificate",
        "the server's certificate is not from an authority in tls.caBundle: put the authority's there",
    ),
    ("efused", "check host and port and that the server runs"),
    ("lookup address", "check host: the name does not resolve"),
    (
        "timed out",
        "check host and port, tls.mode (a server without TLS may not answer at all), and that no NetworkPolicy or firewall is in the way",
    ),
];

fn of_connection(words: &str) -> &'static str {
    let known = CONNECTION.iter().find(|(known, _)| words.contains(known));
    known.map_or("check that the server runs and speaks MongoDB on this port, and tls.mode", |(_, advice)| advice)
}

/// What a code or words of the server's mean, and what to do.
fn known(code: i32, words: &str) -> Option<(Reason, &'static str)> {
    let by_code = CODES.iter().find(|(known, _, _)| *known == code).map(|(_, reason, advice)| (*reason, *advice));
    by_code.or_else(|| is_no_space(code, words).then_some((Reason::NoSpace, NO_SPACE_ADVICE)))
}

/// Whether a server says that its disk is full.
pub(super) fn is_no_space(code: i32, words: &str) -> bool {
    const OUT_OF_DISK_SPACE: i32 = 14031;
    code == OUT_OF_DISK_SPACE || NO_SPACE.iter().any(|known| words.contains(known))
}

/// The failure of a full disk that was met while documents were stored.
pub(super) fn no_space(place: &str, words: &str) -> Failure {
    Failure::new(Reason::NoSpace, format!("{place}: documents were not stored: {}: {NO_SPACE_ADVICE}", one_line(words)))
}

/// The failure of a connection string. The driver's own words may hold parts of it, so they are not told.
pub(super) fn of_uri(error: &Error) -> Failure {
    match error.kind.as_ref() {
        ErrorKind::DnsResolve { .. } => Failure::new(
            Reason::SourceUnreachable,
            "mongodb: the hosts of the connection string (mongodb+srv) cannot be looked up: check its name, and that the cluster's DNS answers SRV and TXT",
        ),
        _ => Failure::new(
            Reason::InvalidConfiguration,
            "mongodb: the connection string in the Secret cannot be read: it begins with mongodb:// or mongodb+srv://, and special \
             characters of user and password are percent-encoded",
        ),
    }
}

/// The failure of options that do not fit together.
pub(super) fn of_options(address: &str, error: &Error) -> Failure {
    match error.kind.as_ref() {
        ErrorKind::InvalidTlsConfig { .. } => {
            failure(&format!("mongodb at {address}"), Reason::InvalidConfiguration, error)
        }
        _ => Failure::new(
            Reason::InvalidConfiguration,
            format!("mongodb at {address}: the options of the connection string do not fit together"),
        ),
    }
}

/// Whether a snapshot is gone, or cannot be had.
pub(super) fn is_about_snapshot(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if SNAPSHOT_LOST.contains(&command.code))
}

/// Of `Server selection timeout: No available servers. Topology: { …, Error: Kind: I/O error: Connection refused …, labels: {} }` what the
/// servers said.
fn of_selection(message: &str) -> String {
    let mut said: Vec<&str> = Vec::new();
    for part in message.split("Error: Kind: ").skip(1) {
        let words = part.split(", labels").next().unwrap_or_default().trim();
        if !words.is_empty() && !said.contains(&words) {
            said.push(words);
        }
    }
    if said.is_empty() {
        "no server of the deployment can be used for this".to_owned()
    } else {
        one_line(&said.join("; "))
    }
}

fn one_line(text: &str) -> String {
    const LIMIT: usize = 400;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LIMIT).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_search_for_servers_their_own_words_are_told() {
        let message = "Server selection timeout: No available servers. Topology: { Type: Unknown, Set Name: None, Servers: [ { Address: h:1, \
                       Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} }, { Address: h:2, Type: \
                       Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} } ] }";
        assert_eq!(of_selection(message), "I/O error: Connection refused (os error 111)");
        assert_eq!(of_selection("nothing"), "no server of the deployment can be used for this");
    }

    #[test]
    fn a_full_disk_is_told_by_code_or_by_words() {
        let pg = "could not extend file \"base/5/16500\": No space left on device";
        assert_eq!(known(1, pg), Some((Reason::NoSpace, NO_SPACE_ADVICE)));
        assert_eq!(known(14031, "").unwrap().0, Reason::NoSpace);
        assert_eq!(known(1, "Internal error"), None);
        let failure = no_space("database d on h:1", "available disk space of 1 bytes is less than required");
        assert_eq!(failure.reason, Reason::NoSpace);
        assert!(failure.message.ends_with("is less than required: make room on the server's disk"), "{failure}");
    }

    #[test]
    fn control_characters_and_length_are_kept_out_of_messages() {
        assert_eq!(one_line("a\nb\u{7}"), "a b");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 400);
    }
}
