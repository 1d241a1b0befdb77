//! Refresh tokens are looked up by their digest: no table holds one for longer than it is needed.

use aws_lc_rs::digest::{SHA256, digest};

/// The SHA-256 of a refresh token.
pub(crate) type Digest = [u8; 32];

pub(crate) fn digest_of(token: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}
