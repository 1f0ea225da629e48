//! Credentials from the files of a mounted Secret, read anew for each request. Talks to the file system.
//!
//! The kubelet swaps the files of a rotated Secret by one symbolic link; reading three small files costs nothing beside a request.

use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};

/// How often the files are read again when they changed under the reader.
const MAX_READS: usize = 5;

/// The files `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where there is one, `AWS_SESSION_TOKEN` in a folder.
#[derive(Debug)]
pub(super) struct CredentialFiles {
    folder: PathBuf,
}

impl CredentialFiles {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Why there are no credentials, in words that name the key of the Secret; none where there are.
    pub(super) fn problem(&self) -> Option<String> {
        self.read()
            .err()
            .map(|error| std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
    }

    fn read(&self) -> provider::Result {
        // Twice the same: not a key of before a rotation with a secret of after it.
        let mut before = self.read_once()?;
        for _ in 0..MAX_READS {
            let again = self.read_once()?;
            if again == before {
                let (id, secret, token) = again;
                return Ok(Credentials::new(id, secret, token, None, "mounted secret"));
            }
            before = again;
        }
        Err(CredentialsError::provider_error(format!("{} keeps changing", self.folder.display())))
    }

    fn read_once(&self) -> Result<(String, String, Option<String>), CredentialsError> {
        let token = self.folder.join("AWS_SESSION_TOKEN");
        Ok((
            read(&self.folder.join("AWS_ACCESS_KEY_ID"))?,
            read(&self.folder.join("AWS_SECRET_ACCESS_KEY"))?,
            if token.exists() { Some(read(&token)?).filter(|token| !token.is_empty()) } else { None },
        ))
    }
}

fn read(file: &Path) -> Result<String, CredentialsError> {
    let content = std::fs::read_to_string(file)
        .map_err(|e| CredentialsError::provider_error(format!("key {} cannot be read: {e}", name(file))))?;
    // Secrets made from a file often end in a line feed, and some editors begin one with a byte-order mark.
    let content = content.trim_start_matches('\u{feff}').trim();
    if content.is_empty() && !file.ends_with("AWS_SESSION_TOKEN") {
        return Err(CredentialsError::provider_error(format!("key {} is empty", name(file))));
    }
    if content.chars().any(char::is_control) {
        return Err(CredentialsError::provider_error(format!(
            "key {} holds a control character: write it as one line",
            name(file)
        )));
    }
    Ok(content.to_owned())
}

/// A file is named as the Secret's key is.
fn name(file: &Path) -> std::borrow::Cow<'_, str> {
    file.file_name().unwrap_or_default().to_string_lossy()
}

impl ProvideCredentials for CredentialFiles {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_anew_and_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let files = CredentialFiles::new(folder.path());
        assert!(files.read().is_err());
        write("AWS_ACCESS_KEY_ID", "\u{feff}one\n");
        write("AWS_SECRET_ACCESS_KEY", "two\n");
        let first = files.read().unwrap();
        assert_eq!((first.access_key_id(), first.secret_access_key(), first.session_token()), ("one", "two", None));
        write("AWS_SECRET_ACCESS_KEY", "three");
        write("AWS_SESSION_TOKEN", "four");
        let second = files.read().unwrap();
        assert_eq!((second.secret_access_key(), second.session_token()), ("three", Some("four")));
        write("AWS_ACCESS_KEY_ID", "\n");
        assert!(files.problem().unwrap().contains("AWS_ACCESS_KEY_ID is empty"), "{:?}", files.problem());
        write("AWS_ACCESS_KEY_ID", "a\nb");
        assert!(files.problem().unwrap().contains("control character"));
    }
}
