//! The bucket: keys, manifests, the catalogue of what is there, and the S3 client.

pub mod catalogue;
pub mod client;
pub mod encryption;
pub mod keys;
pub mod manifest;
