//! Encryption of what is stored: age's recipients and identities, and the seal of a manifest. Pure.
//!
//! The format is age v1 (<https://age-encryption.org/v1>), with X25519 keys: what is stored decrypts with the stock `age`. A backup needs
//! public keys only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};

use age::x25519;
use holdfast_crds::Reason;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::hex::{hex, unhex};
use crate::task::Failure;

/// Bytes of a key ID, before they are written as hex.
const KEY_ID_BYTES: usize = 8;
/// The field of a manifest that holds its seal.
const SEAL: &str = "seal";

/// The public keys that backups are encrypted to; none: not encrypted.
#[derive(Clone, Default)]
pub struct Recipients {
    keys: Vec<x25519::Recipient>,
    ids: Vec<String>,
}

impl Recipients {
    /// Reads public keys (`age1…`).
    ///
    /// # Errors
    /// [`Reason::InvalidConfiguration`] where one of them is no X25519 recipient.
    pub fn parse(recipients: &[String]) -> Result<Self, Failure> {
        let mut keys = Vec::with_capacity(recipients.len());
        for (index, recipient) in recipients.iter().enumerate() {
            let key = recipient.parse::<x25519::Recipient>().map_err(|why| {
                let message = format!(
                    "spec.encryption.recipients[{index}] is no public key of age: {why}; write what `age-keygen -y` prints, age1…"
                );
                Failure::new(Reason::InvalidConfiguration, message)
            })?;
            keys.push(key);
        }
        let ids = recipients.iter().map(|recipient| key_id(recipient)).collect();
        Ok(Self { keys, ids })
    }

    /// Whether nothing is encrypted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// IDs of the keys, in their order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Encrypts what is written to it for every one of the keys. Call `finish` on it at the end.
    ///
    /// # Errors
    /// Where the header cannot be written.
    pub fn encrypt<W: Write>(&self, output: W) -> io::Result<age::stream::StreamWriter<W>> {
        let keys = self.keys.iter().map(|key| key as &dyn age::Recipient);
        age::Encryptor::with_recipients(keys).map_err(io::Error::other)?.wrap_output(output)
    }

    /// The seal of a manifest: the hash of what it says, encrypted. None where nothing is encrypted. Who does not know the public keys can
    /// neither make one nor change what is sealed.
    ///
    /// # Errors
    /// [`Reason::InvalidConfiguration`] where it cannot be made.
    pub fn seal(&self, manifest: &[u8]) -> Result<Option<String>, Failure> {
        if self.is_empty() {
            return Ok(None);
        }
        let broken =
            |why: &str| Failure::new(Reason::InvalidConfiguration, format!("the manifest cannot be sealed: {why}"));
        let digest = digest(manifest).map_err(|why| broken(&why))?;
        let mut writer = self.encrypt(Vec::new()).map_err(|e| broken(&e.to_string()))?;
        let sealed = writer.write_all(&digest).and_then(|()| writer.finish()).map_err(|e| broken(&e.to_string()))?;
        Ok(Some(hex(&sealed)))
    }
}

/// The private keys that backups are decrypted with. Never shown.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads an identity file as `age-keygen` writes it: one `AGE-SECRET-KEY-1…` a line, and comments.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`] where a line is no X25519 identity, or where there is none. The line itself is not told.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut identities = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity = line.parse::<x25519::Identity>().map_err(|why| {
                let why = if line.starts_with("age1") {
                    "it is a public key, which belongs into spec.encryption.recipients"
                } else {
                    why
                };
                let message = format!(
                    "line {} of the Secret in spec.encryption.identitySecret is no identity of age ({why}): it must be what age-keygen writes, AGE-SECRET-KEY-1…",
                    index + 1
                );
                Failure::new(Reason::KeyMissing, message)
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            let message =
                "the Secret in spec.encryption.identitySecret holds no identity: it must be what age-keygen writes";
            return Err(Failure::new(Reason::KeyMissing, message));
        }
        Ok(Self(identities))
    }

    /// Decrypts what it reads.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`] where none of the keys fits, [`Reason::ChecksumMismatch`] where it is no age file.
    pub fn decrypt<R: Read>(&self, input: R) -> Result<age::stream::StreamReader<R>, Failure> {
        let decryptor = age::Decryptor::new(input).map_err(|why| undecryptable(&why))?;
        decryptor.decrypt(self.0.iter().map(|key| key as &dyn age::Identity)).map_err(|why| undecryptable(&why))
    }

    /// Confirms that a manifest says what it said when it was sealed.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`] where none of the keys fits; [`Reason::ChecksumMismatch`] where the manifest or the seal was changed.
    pub fn confirm(&self, manifest: &[u8], seal: &str) -> Result<(), Failure> {
        let changed =
            |why: &str| Failure::new(Reason::ChecksumMismatch, format!("the manifest's seal does not fit: {why}"));
        let sealed = unhex(seal).ok_or_else(|| changed("it is not hex"))?;
        let mut said = Vec::new();
        self.decrypt(sealed.as_slice())?.take(64).read_to_end(&mut said).map_err(|e| changed(&e.to_string()))?;
        let digest = digest(manifest).map_err(|why| changed(&why))?;
        if said == digest {
            return Ok(());
        }
        Err(changed("somebody or something changed the manifest after it was stored; take another backup"))
    }
}

fn undecryptable(why: &age::DecryptError) -> Failure {
    match why {
        age::DecryptError::NoMatchingKeys => Failure::new(
            Reason::KeyMissing,
            "none of the identities of the Secret in spec.encryption.identitySecret can decrypt it",
        ),
        why => Failure::new(Reason::ChecksumMismatch, format!("it cannot be decrypted: {why}")),
    }
}

/// The ID of a public key: the first bytes of its SHA-256, hex. It tells keys apart and does not give them away.
pub fn key_id(recipient: &str) -> String {
    hex(&Sha256::digest(recipient.trim())[..KEY_ID_BYTES])
}

/// SHA-256 of what a manifest says, without its seal: of its JSON with sorted names and without spaces, so that it does not matter in
/// which order a later version writes its fields.
fn digest(manifest: &[u8]) -> Result<[u8; 32], String> {
    let mut value: Value = serde_json::from_slice(manifest).map_err(|e| e.to_string())?;
    if let Value::Object(fields) = &mut value {
        fields.remove(SEAL);
    }
    let mut text = String::new();
    canonical(&value, &mut text);
    Ok(Sha256::digest(text).into())
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            text.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::String(name.clone()));
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        plain => {
            let _ = write!(text, "{plain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;

    use super::*;

    fn key() -> (String, String) {
        let identity = x25519::Identity::generate();
        (identity.to_public().to_string(), identity.to_string().expose_secret().to_owned())
    }

    const MANIFEST: &[u8] =
        br#"{"runId": "a", "artifacts": [{"key": "k", "storedSha256": "00"}], "later": {"b": 1, "a": 2}}"#;

    #[test]
    fn every_key_opens_the_seal_and_no_other_does() {
        let ((one, one_secret), (two, two_secret), (_, stranger)) = (key(), key(), key());
        let recipients = Recipients::parse(&[one.clone(), two]).unwrap();
        let seal = recipients.seal(MANIFEST).unwrap().unwrap();
        for secret in [one_secret, format!("# kept from before\n{stranger}\n\n{two_secret}\n")] {
            Identities::parse(&secret).unwrap().confirm(MANIFEST, &seal).unwrap();
        }
        let refused = Identities::parse(&stranger).unwrap().confirm(MANIFEST, &seal).unwrap_err();
        assert_eq!(refused.reason, Reason::KeyMissing);
        assert_eq!(recipients.ids()[0], key_id(&one));
    }

    #[test]
    fn a_changed_manifest_is_found_and_another_order_of_fields_is_no_change() {
        let (public, secret) = key();
        let seal = Recipients::parse(&[public]).unwrap().seal(MANIFEST).unwrap().unwrap();
        let identities = Identities::parse(&secret).unwrap();
        let reordered = format!(
            r#"{{"later":{{"a":2,"b":1}},"artifacts":[{{"storedSha256":"00","key":"k"}}],"seal":"{seal}","runId":"a"}}"#
        );
        identities.confirm(reordered.as_bytes(), &seal).unwrap();
        let edited = String::from_utf8_lossy(MANIFEST).replace("\"00\"", "\"01\"");
        let found = identities.confirm(edited.as_bytes(), &seal).unwrap_err();
        assert_eq!(found.reason, Reason::ChecksumMismatch);
        let cut = &seal[..seal.len() - 2];
        assert_eq!(identities.confirm(MANIFEST, cut).unwrap_err().reason, Reason::ChecksumMismatch);
        assert_eq!(identities.confirm(MANIFEST, "zz").unwrap_err().reason, Reason::ChecksumMismatch);
    }

    #[test]
    fn what_is_no_key_is_told_without_showing_it() {
        let (public, secret) = key();
        let wrong = Recipients::parse(&[public, "age1nothing".into()]).err().unwrap();
        assert!(wrong.message.contains("recipients[1]"), "{}", wrong.message);
        let cut = &secret[..secret.len() - 4];
        let wrong = Identities::parse(cut).err().unwrap();
        assert!(wrong.reason == Reason::KeyMissing && !wrong.message.contains(&secret[10..30]), "{}", wrong.message);
        assert_eq!(Identities::parse("# nothing\n").err().unwrap().reason, Reason::KeyMissing);
    }
}
