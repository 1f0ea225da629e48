//! What a source or a target needs mounted, by engine. Pure.

use std::path::PathBuf;

use holdfast_crds::{ConfigMapKey, Engine, PasswordSecret, RedisSecret, SecretKey, Source};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, ProjectedVolumeSource,
    SecretProjection, Volume, VolumeMount, VolumeProjection,
};

use super::CA_FILE;
use crate::task::Mounts;

/// Where sources' folders are.
const FOLDER: &str = "/holdfast/sources";
/// Where the connection string is, below `uri`.
const URI_FILE: &str = "uri";

/// What a source or a target needs mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMount {
    /// Name of the source.
    pub source: String,
    /// Its user's name and password.
    pub credentials: Option<Credentials>,
    /// Its connection string.
    pub uri: Option<SecretKey>,
    /// Certificates to trust.
    pub ca: Option<ConfigMapKey>,
    /// Its files.
    pub data: Option<Data>,
}

/// A Secret with a password and maybe a user's name, and the keys they have there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the Secret.
    pub secret: String,
    /// Key of the user's name.
    pub username_key: Option<String>,
    /// Key of the password.
    pub password_key: String,
}

/// Where files come from or go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// A claim.
    Claim {
        /// Its name.
        name: String,
        /// Whether it is only read.
        read_only: bool,
    },
    /// ConfigMaps and Secrets, by name.
    Objects {
        /// The ConfigMaps.
        config_maps: Vec<String>,
        /// The Secrets.
        secrets: Vec<String>,
    },
}

impl From<&PasswordSecret> for Credentials {
    fn from(secret: &PasswordSecret) -> Self {
        Self {
            secret: secret.name.clone(),
            username_key: Some(secret.username_key.clone()),
            password_key: secret.password_key.clone(),
        }
    }
}

impl From<&RedisSecret> for Credentials {
    fn from(secret: &RedisSecret) -> Self {
        Self {
            secret: secret.name.clone(),
            username_key: secret.username_key.clone(),
            password_key: secret.password_key.clone(),
        }
    }
}

impl SourceMount {
    /// What a source needs to be saved.
    pub fn of(source: &Source) -> Self {
        let mount = Self { source: source.name.clone(), ..Self::default() };
        match source.engine() {
            None => mount,
            Some(Engine::Postgres(postgres)) => Self {
                credentials: Some((&postgres.credentials_secret).into()),
                ca: postgres.tls.ca_bundle.clone(),
                ..mount
            },
            Some(Engine::Mongodb(mongodb)) => Self {
                credentials: mongodb.credentials_secret.as_ref().map(Into::into),
                uri: mongodb.uri_secret.clone(),
                ca: mongodb.tls.as_ref().and_then(|tls| tls.ca_bundle.clone()),
                ..mount
            },
            Some(Engine::Redis(redis)) => Self {
                credentials: redis.credentials_secret.as_ref().map(Into::into),
                ca: redis.tls.ca_bundle.clone(),
                ..mount
            },
            Some(Engine::Volume(volume)) => {
                Self { data: Some(Data::Claim { name: volume.claim_name.clone(), read_only: true }), ..mount }
            }
            Some(Engine::Config(config)) => {
                let (config_maps, secrets) = (config.config_maps.clone(), config.secrets.clone());
                Self { data: Some(Data::Objects { config_maps, secrets }), ..mount }
            }
        }
    }

    /// Where the worker finds it.
    pub fn paths(&self) -> Mounts {
        let below = |name: &str| PathBuf::from(self.folder(name));
        Mounts {
            credentials: self.credentials.as_ref().map(|_| below("credentials")),
            uri: self.uri.as_ref().map(|_| below("uri").join(URI_FILE)),
            ca: self.ca.as_ref().map(|_| below("ca").join(CA_FILE)),
            data: self.data.as_ref().map(|_| below("data")),
            secret: self.secret_in_words(),
            authorities: self.ca.as_ref().map(|ca| format!("ConfigMap {} (key {})", ca.config_map, ca.key)),
        }
    }

    fn secret_in_words(&self) -> Option<String> {
        let uri = self.uri.as_ref().map(|uri| format!("Secret {} (key {})", uri.name, uri.key));
        uri.or_else(|| {
            let Credentials { secret, username_key, password_key } = self.credentials.as_ref()?;
            Some(match username_key {
                Some(username) => format!("Secret {secret} (keys {username} and {password_key})"),
                None => format!("Secret {secret} (key {password_key})"),
            })
        })
    }

    fn folder(&self, name: &str) -> String {
        format!("{FOLDER}/{}/{name}", self.source)
    }

    /// The Pod's volumes, and where the container has them. `index` tells this source's volumes from those of others.
    pub(super) fn volumes(&self, index: usize) -> Vec<(Volume, VolumeMount)> {
        let name = |what: &str| format!("source-{index}-{what}");
        let mut volumes = Vec::new();
        if let Some(credentials) = &self.credentials {
            let username = credentials.username_key.as_deref().map(|key| (key, "username"));
            let keys: Vec<_> = username.into_iter().chain([(credentials.password_key.as_str(), "password")]).collect();
            let keys = keys_of_secret(&credentials.secret, &keys, false);
            volumes.push(secret_volume(name("credentials"), vec![keys], self.folder("credentials")));
        }
        if let Some(uri) = &self.uri {
            let keys = keys_of_secret(&uri.name, &[(&uri.key, URI_FILE)], false);
            volumes.push(secret_volume(name("uri"), vec![keys], self.folder("uri")));
        }
        if let Some(ca) = &self.ca {
            volumes.push(ca_volume(name("ca"), ca, self.folder("ca")));
        }
        match &self.data {
            None => {}
            Some(Data::Claim { name: claim, read_only }) => {
                volumes.push(claim_volume(name("data"), claim, *read_only, self.folder("data")));
            }
            Some(Data::Objects { config_maps, secrets }) => {
                for (kind, index, object) in config_maps
                    .iter()
                    .enumerate()
                    .map(|(i, o)| ("configmaps", i, o))
                    .chain(secrets.iter().enumerate().map(|(i, o)| ("secrets", i, o)))
                {
                    let path = self.folder(&format!("data/{kind}/{object}"));
                    volumes.push(whole_object(name(&format!("{kind}-{index}")), kind == "secrets", object, path));
                }
            }
        }
        volumes
    }
}

/// The source that a folder of a worker's Pod is for.
pub fn source_of(path: &str) -> Option<&str> {
    path.strip_prefix(FOLDER)?.strip_prefix('/')?.split('/').next()
}

/// Some keys of a Secret, as files.
pub(super) fn keys_of_secret(secret: &str, keys: &[(&str, &str)], optional: bool) -> VolumeProjection {
    let items =
        keys.iter().map(|(key, path)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), mode: None });
    VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.to_owned(),
            items: Some(items.collect()),
            optional: optional.then_some(true),
        }),
        ..VolumeProjection::default()
    }
}

/// A volume of Secrets' keys.
pub(super) fn secret_volume(name: String, sources: Vec<VolumeProjection>, path: String) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.clone(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) }),
        ..Volume::default()
    };
    (volume, read_only(name, path))
}

/// A volume with certificates to trust, in the file [`CA_FILE`].
pub(super) fn ca_volume(name: String, ca: &ConfigMapKey, path: String) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.clone(),
        config_map: Some(ConfigMapVolumeSource {
            name: ca.config_map.clone(),
            items: Some(vec![KeyToPath { key: ca.key.clone(), path: CA_FILE.to_owned(), mode: None }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    (volume, read_only(name, path))
}

/// All keys of a ConfigMap or a Secret.
fn whole_object(name: String, secret: bool, object: &str, path: String) -> (Volume, VolumeMount) {
    let mut projection = VolumeProjection::default();
    if secret {
        projection.secret = Some(SecretProjection { name: object.to_owned(), ..SecretProjection::default() });
    } else {
        projection.config_map = Some(ConfigMapProjection { name: object.to_owned(), ..ConfigMapProjection::default() });
    }
    secret_volume(name, vec![projection], path)
}

fn claim_volume(name: String, claim: &str, only_read: bool, path: String) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            // Said of the mount alone: a claim that another Pod writes to cannot be attached twice, once for reading only.
            read_only: None,
        }),
        ..Volume::default()
    };
    let mount = VolumeMount { name, mount_path: path, read_only: only_read.then_some(true), ..VolumeMount::default() };
    (volume, mount)
}

fn read_only(name: String, mount_path: String) -> VolumeMount {
    VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
}
