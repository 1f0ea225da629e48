//! Which of the installed PostgreSQL clients fits a server. Pure, but for the listing of the folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_crds::Reason;

use crate::task::Failure;

/// Environment variable with the folder that holds one folder a major version, where it is not Debian's.
pub const BASE_ENV: &str = "HOLDFAST_POSTGRES_BIN";
/// Where Debian puts them: `/usr/lib/postgresql/<major>/bin`.
const DEBIAN_BASE: &str = "/usr/lib/postgresql";
/// The major version since which tools write a setting into every dump and restore that older servers refuse.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// The clients at hand, by major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clients {
    majors: BTreeMap<u32, PathBuf>,
}

/// One major version's tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Major version.
    pub major: u32,
    folder: PathBuf,
}

impl Client {
    /// Path of one of its tools.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether what it writes for a server of this major version holds a setting that the server does not know.
    pub fn sets_unknown_timeout(&self, server_major: u32) -> bool {
        self.major >= TRANSACTION_TIMEOUT_SINCE && server_major < TRANSACTION_TIMEOUT_SINCE
    }
}

impl Clients {
    /// The clients installed here.
    pub fn installed() -> Result<Self, Failure> {
        let base = std::env::var_os(BASE_ENV).map_or_else(|| PathBuf::from(DEBIAN_BASE), PathBuf::from);
        Self::under(&base)
    }

    /// The clients below a folder.
    pub fn under(base: &Path) -> Result<Self, Failure> {
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
        let majors: BTreeMap<u32, PathBuf> = entries
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .filter(|(_, folder)| folder.join("pg_dump").is_file() && folder.join("psql").is_file())
            .collect();
        if majors.is_empty() {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!("there is no PostgreSQL client under {}: the image of this worker lacks it", base.display()),
            ));
        }
        Ok(Self { majors })
    }

    /// The newest one: its psql speaks to every server.
    pub fn newest(&self) -> Result<Client, Failure> {
        self.majors
            .last_key_value()
            .map(client)
            .ok_or_else(|| Failure::new(Reason::InvalidConfiguration, "there is no PostgreSQL client here"))
    }

    /// The one to dump a server with: of its own major version, or the nearest newer one; never an older one.
    pub fn to_dump(&self, server_major: u32, server_version: &str) -> Result<Client, Failure> {
        self.majors.range(server_major..).next().map(client).ok_or_else(|| {
            Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "the server is PostgreSQL {server_version} and the newest client here is {}: pg_dump must not be older than the \
                     server; use a release of Holdfast whose image has client {server_major} or newer",
                    self.list()
                ),
            )
        })
    }

    /// The one to restore with into a server: not older than the tool that wrote the archive, and near the server.
    pub fn to_restore(&self, server_major: u32, archive_major: u32) -> Result<Client, Failure> {
        let oldest = archive_major.max(server_major);
        let near = self.majors.range(oldest..).next();
        // An archive of an older tool is read by every newer one: where the image has none as new as the server, the newest will do.
        let any = self.majors.range(archive_major..).next_back();
        near.or(any).map(client).ok_or_else(|| {
            Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "the backup was written by pg_dump {archive_major} and the newest client here is {}: use a release of Holdfast whose \
                     image has client {archive_major} or newer",
                    self.list()
                ),
            )
        })
    }

    fn list(&self) -> String {
        let majors: Vec<String> = self.majors.keys().rev().map(ToString::to_string).collect();
        match majors.split_first() {
            Some((newest, [])) => newest.clone(),
            Some((newest, older)) => format!("{newest} (of {newest}, {})", older.join(", ")),
            None => "none".to_owned(),
        }
    }
}

fn client((major, folder): (&u32, &PathBuf)) -> Client {
    Client { major: *major, folder: folder.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(majors: &[u32]) -> Clients {
        Clients { majors: majors.iter().map(|major| (*major, PathBuf::from(format!("/pg/{major}/bin")))).collect() }
    }

    #[test]
    fn a_dump_takes_the_servers_own_major_or_the_nearest_newer_one() {
        let table: &[(&[u32], u32, Option<u32>)] = &[
            (&[15], 15, Some(15)),
            (&[13, 15, 18], 13, Some(13)),
            (&[13, 15, 18], 14, Some(15)),
            (&[13, 15, 18], 16, Some(18)),
            (&[13, 15, 18], 18, Some(18)),
            (&[13, 15, 18], 19, None),
            (&[15], 16, None),
            (&[18], 9, Some(18)),
        ];
        for (majors, server, expected) in table {
            let found = clients(majors).to_dump(*server, &format!("{server}.1"));
            assert_eq!(found.as_ref().ok().map(|client| client.major), *expected, "{majors:?} {server}");
        }
        let failure = clients(&[13, 15]).to_dump(17, "17.2 (Debian)").unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfiguration);
        assert!(failure.message.contains("PostgreSQL 17.2 (Debian)"), "{failure}");
        assert!(failure.message.contains("15 (of 15, 13)"), "{failure}");
    }

    #[test]
    fn a_restore_takes_a_client_that_can_read_the_archive() {
        let table: &[(&[u32], u32, u32, Option<u32>)] = &[
            (&[15], 15, 15, Some(15)),
            (&[13, 15, 18], 13, 13, Some(13)),
            (&[13, 15, 18], 15, 13, Some(15)),
            (&[13, 15, 18], 13, 15, Some(15)),
            (&[13, 15, 18], 14, 14, Some(15)),
            (&[13, 15], 17, 13, Some(15)),
            (&[13, 15], 15, 16, None),
        ];
        for (majors, server, archive, expected) in table {
            let found = clients(majors).to_restore(*server, *archive);
            assert_eq!(found.ok().map(|client| client.major), *expected, "{majors:?} {server} {archive}");
        }
    }

    #[test]
    fn only_folders_with_tools_count() {
        let base = tempfile::tempdir().unwrap();
        for (name, whole) in [("15", true), ("18", true), ("16", false), ("common", true), ("9.6", true)] {
            let bin = base.path().join(name).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            if whole {
                std::fs::write(bin.join("pg_dump"), "").unwrap();
                std::fs::write(bin.join("psql"), "").unwrap();
            }
        }
        let found = Clients::under(base.path()).unwrap();
        assert_eq!(found.majors.keys().copied().collect::<Vec<_>>(), [15, 18]);
        assert_eq!(found.newest().unwrap().tool("psql"), base.path().join("18/bin/psql"));
        assert_eq!(Clients::under(&base.path().join("none")).unwrap_err().reason, Reason::InvalidConfiguration);
    }

    #[test]
    fn newer_tools_write_a_setting_that_older_servers_refuse() {
        let all = clients(&[16, 18]);
        assert!(all.to_dump(17, "17").unwrap().sets_unknown_timeout(16));
        assert!(!all.to_dump(17, "17").unwrap().sets_unknown_timeout(17));
        assert!(!all.to_dump(16, "16").unwrap().sets_unknown_timeout(15));
    }
}
