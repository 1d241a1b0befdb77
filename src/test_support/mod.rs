//! What several unit tests need.

pub(crate) mod corpus;
pub(crate) mod deep;

/// Writes a certificate or a key as the text of a PEM file.
#[cfg(feature = "redis")]
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let lines: String = der.chunks(48).map(|chunk| STANDARD.encode(chunk) + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}
