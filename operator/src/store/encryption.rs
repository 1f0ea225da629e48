//! Encryption of what is stored: age's recipients and identities, and the seal of a manifest. Pure.
//!
//! The format is age v1 (<https://age-encryption.org/v1>), with X25519 keys: what is stored decrypts with the stock `age`. A backup needs
//! public keys only.

use std::borrow::Cow;
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
/// Where private keys come from.
const IDENTITIES: &str = "the Secret in spec.encryption.identitySecret";

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
pub struct Identities {
    keys: Vec<x25519::Identity>,
    passed_over: PassedOver,
}

impl Identities {
    /// Reads an identity file as `age-keygen` writes it: one `AGE-SECRET-KEY-1…` a line, and comments. What is of another kind does not
    /// stand in the way of those that can be used: it is counted.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`] where there is no X25519 identity. No line is told.
    pub fn parse(file: &[u8]) -> Result<Self, Failure> {
        let missing = |why: String| {
            let message = format!("{IDENTITIES} holds no identity: it must be what age-keygen writes{why}");
            Failure::new(Reason::KeyMissing, message)
        };
        let mut passed_over = PassedOver::default();
        let text = passed_over.decode(file).ok_or_else(|| missing("; it is neither UTF-8 nor UTF-16".to_owned()))?;
        let mut keys = Vec::new();
        let mut in_pem = false;
        for (index, line) in text.lines().map(str::trim).enumerate() {
            let begins_pem = line.starts_with("-----BEGIN ");
            if in_pem || begins_pem {
                if begins_pem {
                    passed_over.add("keys in PEM, as SSH has them", index);
                }
                in_pem = !line.starts_with("-----END ");
            } else if !line.is_empty() && !line.starts_with('#') {
                match line.parse::<x25519::Identity>() {
                    Ok(key) => keys.push(key),
                    Err(_) => passed_over.add(kind_of(line), index),
                }
            }
        }
        if keys.is_empty() {
            return Err(missing(passed_over.after("; ")));
        }
        Ok(Self { keys, passed_over })
    }

    /// What of the file is no key that can be used, in words; empty where nothing is.
    pub fn passed_over(&self) -> String {
        self.passed_over.after("")
    }

    /// Decrypts what it reads.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`] where none of the keys fits, [`Reason::ChecksumMismatch`] where it is no age file.
    pub fn decrypt<R: Read>(&self, input: R) -> Result<age::stream::StreamReader<R>, Failure> {
        let failed = |why| undecryptable(&why, &self.passed_over);
        let decryptor = age::Decryptor::new(input).map_err(failed)?;
        decryptor.decrypt(self.keys.iter().map(|key| key as &dyn age::Identity)).map_err(failed)
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

/// What an identity file holds beside keys that can be used.
#[derive(Clone, Default)]
struct PassedOver {
    /// Of each kind how many, and the number of the first line.
    kinds: BTreeMap<&'static str, (usize, usize)>,
    /// The file's encoding, where it is not the one that age reads.
    encoding: Option<&'static str>,
}

impl PassedOver {
    fn add(&mut self, kind: &'static str, index: usize) {
        self.kinds.entry(kind).or_insert((0, index + 1)).0 += 1;
    }

    /// The text of a file as editors leave it: with a byte-order mark, or in UTF-16, which Windows' shell writes.
    fn decode<'a>(&mut self, file: &'a [u8]) -> Option<Cow<'a, str>> {
        let units: fn([u8; 2]) -> u16 = match file {
            [0xff, 0xfe, ..] | [1..=0xff, 0, ..] => u16::from_le_bytes,
            [0xfe, 0xff, ..] | [0, 1..=0xff, ..] => u16::from_be_bytes,
            _ => {
                let text = std::str::from_utf8(file).ok()?;
                return Some(Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)));
            }
        };
        self.encoding = Some("UTF-16");
        let (pairs, []) = file.as_chunks() else { return None };
        let text = String::from_utf16(&pairs.iter().map(|pair| units(*pair)).collect::<Vec<_>>()).ok()?;
        Some(Cow::Owned(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()))
    }

    /// In words, after `begin`; empty where there is nothing to say.
    fn after(&self, begin: &str) -> String {
        let kinds = self.kinds.iter().map(|(kind, (count, line))| format!("{count} {kind} (from line {line} on)"));
        let mut parts: Vec<String> = self
            .encoding
            .map(|name| format!("it is in {name}, which age itself does not read: write it in UTF-8"))
            .into_iter()
            .collect();
        if !self.kinds.is_empty() {
            parts.push(format!(
                "passed over, because nothing here can use them: {}",
                kinds.collect::<Vec<_>>().join(", ")
            ));
        }
        if parts.is_empty() { String::new() } else { format!("{begin}{}", parts.join("; ")) }
    }
}

/// What a line is that is no X25519 identity.
fn kind_of(line: &str) -> &'static str {
    if line.starts_with("AGE-SECRET-KEY-PQ-") {
        "post-quantum identities"
    } else if line.starts_with("AGE-PLUGIN-") {
        "identities of a plugin"
    } else if line.starts_with("AGE-SECRET-KEY-1") {
        "identities that were cut or mistyped"
    } else if line.starts_with("age1") {
        "public keys, which belong into spec.encryption.recipients"
    } else {
        "lines that are no identities of age"
    }
}

fn undecryptable(why: &age::DecryptError, passed_over: &PassedOver) -> Failure {
    match why {
        age::DecryptError::NoMatchingKeys => {
            let message = format!("none of the identities of {IDENTITIES} can decrypt it{}", passed_over.after("; "));
            Failure::new(Reason::KeyMissing, message)
        }
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
            Identities::parse(secret.as_bytes()).unwrap().confirm(MANIFEST, &seal).unwrap();
        }
        let refused = Identities::parse(stranger.as_bytes()).unwrap().confirm(MANIFEST, &seal).unwrap_err();
        assert_eq!(refused.reason, Reason::KeyMissing);
        assert_eq!(recipients.ids()[0], key_id(&one));
    }

    #[test]
    fn a_changed_manifest_is_found_and_another_order_of_fields_is_no_change() {
        let (public, secret) = key();
        let seal = Recipients::parse(&[public]).unwrap().seal(MANIFEST).unwrap().unwrap();
        let identities = Identities::parse(secret.as_bytes()).unwrap();
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
        let wrong = Recipients::parse(&[public.clone(), "age1nothing".into()]).err().unwrap();
        assert!(wrong.message.contains("recipients[1]"), "{}", wrong.message);
        let cut = &secret[..secret.len() - 4];
        let wrong = Identities::parse(format!("{cut}\n{public}").as_bytes()).err().unwrap();
        assert!(wrong.reason == Reason::KeyMissing && !wrong.message.contains(&secret[20..30]), "{}", wrong.message);
        assert!(wrong.message.contains("1 identities that were cut or mistyped (from line 1 on)"), "{}", wrong.message);
        assert!(wrong.message.contains("belong into spec.encryption.recipients"), "{}", wrong.message);
        assert_eq!(Identities::parse(b"# nothing\n").err().unwrap().reason, Reason::KeyMissing);
    }

    #[test]
    fn lines_that_nothing_here_can_use_are_passed_over_and_counted() {
        let ((public, secret), (_, stranger)) = (key(), key());
        let seal = Recipients::parse(&[public]).unwrap().seal(MANIFEST).unwrap().unwrap();
        let others = "AGE-SECRET-KEY-PQ-1QQQ\n# yubikey\nAGE-PLUGIN-YUBIKEY-1QQQ\nAGE-PLUGIN-SE-1QQQ\n\
            -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n";
        let identities = Identities::parse(format!("{others}{secret}\n").as_bytes()).unwrap();
        identities.confirm(MANIFEST, &seal).unwrap();
        let told = identities.passed_over();
        let counts = [
            "1 post-quantum identities (from line 1 on)",
            "2 identities of a plugin (from line 3 on)",
            "1 keys in PEM",
        ];
        assert!(counts.iter().all(|count| told.contains(count)) && !told.contains("QQQ"), "{told}");
        assert_eq!(Identities::parse(secret.as_bytes()).unwrap().passed_over(), "");
        // Where no key fits, one of these may have been the one that does.
        for file in [others.to_owned(), format!("{others}{stranger}")] {
            let missing =
                Identities::parse(file.as_bytes()).and_then(|keys| keys.confirm(MANIFEST, &seal)).unwrap_err();
            assert_eq!(missing.reason, Reason::KeyMissing);
            assert!(counts.iter().all(|count| missing.message.contains(count)), "{}", missing.message);
        }
    }

    #[test]
    fn a_byte_order_mark_and_utf_16_are_read_and_an_encoding_is_named() {
        let (public, secret) = key();
        let seal = Recipients::parse(&[public]).unwrap().seal(MANIFEST).unwrap().unwrap();
        let text = format!("# created\r\n{secret}\r\n");
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let marked = format!("\u{feff}{text}");
        let parsed = Identities::parse(marked.as_bytes()).unwrap();
        parsed.confirm(MANIFEST, &seal).unwrap();
        assert_eq!(parsed.passed_over(), "");
        for text in [&text, &marked] {
            for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                let parsed = Identities::parse(&utf_16(text, bytes)).unwrap();
                parsed.confirm(MANIFEST, &seal).unwrap();
                assert!(parsed.passed_over().contains("UTF-16"), "{}", parsed.passed_over());
            }
        }
        for (file, named) in [
            (utf_16("\u{feff}# nothing", u16::to_le_bytes), "UTF-16"),
            (b"\xff\xfea".to_vec(), "UTF-8"),
            (b"caf\xe9".to_vec(), "UTF-8"),
        ] {
            let failure = Identities::parse(&file).err().unwrap();
            assert!(failure.reason == Reason::KeyMissing && failure.message.contains(named), "{}", failure.message);
        }
    }
}
