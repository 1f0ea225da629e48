//! Looks at artifacts as they pass, whatever becomes of them: each is a whole dump of its format. Pure.

use holdfast_crds::Reason;

use super::dump::{CUSTOM, GLOBALS, SQL};
use crate::archive::pgdump::PgDumpReader;
use crate::archive::sqldump::{SqlDump, SqlDumpReader};
use crate::engine::{ArtifactSource, Inspect};
use crate::store::manifest::{ArtifactEntry, Manifest};
use crate::task::Failure;

/// Reads all of a backup to its end.
pub(super) async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    for entry in &manifest.artifacts {
        source.fetch(entry, Box::new(std::io::sink()), inspector(entry)?).await?;
    }
    Ok(())
}

/// What looks at an artifact of this format.
///
/// # Errors
/// [`Reason::InvalidConfiguration`] for a format of a later version.
pub(super) fn inspector(entry: &ArtifactEntry) -> Result<Box<dyn Inspect>, Failure> {
    let what = || format!("backup of database {}", entry.database.as_deref().unwrap_or(&entry.name));
    Ok(match entry.format.as_str() {
        CUSTOM => Box::new(PgDumpReader::new(what())),
        SQL => Box::new(SqlDumpReader::new(what(), SqlDump::Database)),
        GLOBALS => Box::new(SqlDumpReader::new("backup of the roles", SqlDump::Cluster)),
        format => {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "the backup's artifact {} has the format {format}, which this version of Holdfast does not restore",
                    entry.name
                ),
            ));
        }
    })
}
