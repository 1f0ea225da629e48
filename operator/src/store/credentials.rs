//! Credentials from the files of a mounted Secret, read anew when the Secret rotates. Talks to the file system.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::{Credentials, ProvideCredentials};
use aws_sdk_s3::error::BoxError;

/// How long credentials that were read are used before the files are read again. The kubelet itself takes up to a minute or two to
/// bring a changed Secret into a Pod.
const FRESH: Duration = Duration::from_secs(60);

/// Reads `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is there, `AWS_SESSION_TOKEN` from a folder.
#[derive(Debug)]
pub(super) struct MountedCredentials {
    folder: PathBuf,
}

impl MountedCredentials {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Why the credentials cannot be had, in words that name the key; none when they can.
    pub(super) fn problem(&self) -> Option<String> {
        self.read().err().map(|e| e.to_string())
    }

    fn read(&self) -> Result<Credentials, BoxError> {
        let token = self.folder.join("AWS_SESSION_TOKEN");
        let token = if token.exists() { Some(read(&token)?) } else { None };
        Ok(Credentials::new(
            read(&self.folder.join("AWS_ACCESS_KEY_ID"))?,
            read(&self.folder.join("AWS_SECRET_ACCESS_KEY"))?,
            token.filter(|t| !t.is_empty()),
            Some(SystemTime::now() + FRESH),
            "mounted Secret",
        ))
    }
}

impl ProvideCredentials for MountedCredentials {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        use aws_credential_types::provider::error::CredentialsError;
        aws_credential_types::provider::future::ProvideCredentials::ready(
            self.read().map_err(CredentialsError::provider_error),
        )
    }
}

/// People make Secrets with a newline at the end; it is never part of a key.
fn read(path: &Path) -> Result<String, BoxError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).map_err(|e| format!("key {name} of the credentials Secret: {e}"))?;
    let text = text.trim_end_matches(['\n', '\r']).to_owned();
    if text.chars().any(char::is_control) {
        return Err(format!("key {name} of the credentials Secret holds a control character").into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_read_anew_and_a_trailing_newline_is_no_part_of_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = MountedCredentials::new(folder.path());
        assert!(credentials.problem().unwrap().contains("AWS_ACCESS_KEY_ID"));
        for id in ["first", "second"] {
            std::fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), format!("{id}\n")).unwrap();
            std::fs::write(folder.path().join("AWS_SECRET_ACCESS_KEY"), "s\n").unwrap();
            let read = credentials.read().unwrap();
            assert_eq!((read.access_key_id(), read.secret_access_key(), read.session_token()), (id, "s", None));
        }
        std::fs::write(folder.path().join("AWS_SECRET_ACCESS_KEY"), "a\nb").unwrap();
        assert!(credentials.problem().unwrap().contains("AWS_SECRET_ACCESS_KEY"));
    }
}
