//! The claims of the JWTs that the mock mints.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

/// The claims of a JWT apart from its user ID.
#[derive(Clone, Debug)]
pub(crate) struct JwtTemplate {
    /// The seconds from now to `exp`.
    pub(crate) lifetime: i64,
    /// Claims that override the default ones; `null` removes a claim.
    pub(crate) claims: Map<String, Value>,
}

impl JwtTemplate {
    pub(crate) fn claims_for(&self, user_id: &str, project_id: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
        let expiry = now.saturating_add(self.lifetime);
        let mut claims = Map::from_iter([
            ("iss".to_owned(), json!(ISSUER)),
            ("sub".to_owned(), json!(user_id)),
            ("aud".to_owned(), json!(project_id)),
            ("iat".to_owned(), json!(now.min(expiry))),
            ("exp".to_owned(), json!(expiry)),
            // Without it, two JWTs minted for the same user in the same second would be identical.
            ("jti".to_owned(), json!(NEXT_ID.fetch_add(1, Ordering::Relaxed).to_string())),
        ]);
        claims.extend(self.claims.clone());
        claims.retain(|_, value| !value.is_null());
        Value::Object(claims)
    }
}

impl Default for JwtTemplate {
    fn default() -> Self {
        Self { lifetime: 3600, claims: Map::new() }
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) const PROJECT_ID: &str = "mock-project";
pub(crate) const ISSUER: &str = "https://mock.crossmint.test";
