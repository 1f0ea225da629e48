//! Looks at a backup without a server: an archive is whole, or each collection of the summary has its file with as many lines. Pure.

use holdfast_crds::Reason;

use super::json::{LinesInspector, SummaryInspector, read_summary};
use super::restore::Kept;
use super::target::{Backup, Stored};
use crate::archive::mongodump::ArchiveInspector;
use crate::engine::ArtifactSource;
use crate::store::manifest::Manifest;
use crate::task::{Failure, MongodbTarget};

/// Reads all of a backup to its end.
pub(super) async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    let nowhere = MongodbTarget::default();
    let (summary, files) = match Backup::of(manifest, &nowhere)?.stored {
        Stored::Archive(entry) => {
            let inspect = Box::new(ArchiveInspector::new(format!("backup {}", entry.name)));
            return source.fetch(entry, Box::new(std::io::sink()), inspect).await.map(drop);
        }
        Stored::Json { summary, files } => (summary, files),
    };
    let incomplete = |why: String| Failure::new(Reason::SourceIncomplete, why);
    let kept = Kept::default();
    source.fetch(summary, Box::new(kept.clone()), Box::new(SummaryInspector::default())).await?;
    for collection in read_summary(&kept.take())?.collections {
        let Some(file) = &collection.file else { continue };
        let name = format!("{}.{}", collection.database, collection.collection);
        let entry = files.get(file.as_str());
        let entry = entry.ok_or_else(|| incomplete(format!("the backup's {file} is not in its manifest")))?;
        let inspect = Box::new(LinesInspector::new(format!("backup of {name}"), name.clone()));
        let (_, inspection) = source.fetch(entry, Box::new(std::io::sink()), inspect).await?;
        let lines = inspection.total.and_then(|lines| u64::try_from(lines).ok()).unwrap_or_default();
        if lines != collection.documents {
            let summed = collection.documents;
            return Err(incomplete(format!("{name} has {lines} documents, and the summary says {summed}")));
        }
    }
    Ok(())
}
