//! What the endpoints answer when nothing is wrong with them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cookie::time::OffsetDateTime;
use cookie::time::format_description::well_known::Rfc3339;
use http::header::ALLOW;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::json_response;
use super::calls::{Endpoint, RecordedRequest};
use super::keys::{Keyring, SigningKey};
use super::ledger::{Ledger, Redeemed, Refusal};
use super::session::JwtShape;

/// The state of the service.
#[derive(Debug)]
pub(super) struct Api {
    api_key: String,
    keyring: Keyring,
    ledger: Mutex<Ledger>,
    users: Mutex<HashMap<String, Value>>,
    renewal: Mutex<Renewal>,
}

/// How the answers of the refresh endpoint look.
#[derive(Clone)]
struct Renewal {
    shape: JwtShape,
    edit: Arc<dyn Fn(&mut Value) + Send + Sync>,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Api {
    pub(super) fn new(api_key: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
            keyring: Keyring::new(),
            ledger: Mutex::new(Ledger::new()),
            users: Mutex::default(),
            renewal: Mutex::new(Renewal { shape: JwtShape::default(), edit: Arc::new(|_| ()) }),
        }
    }

    pub(super) fn api_key(&self) -> &str {
        &self.api_key
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_session(&self, user_id: &str) -> String {
        self.admit_user(user_id);
        self.ledger().open(user_id)
    }

    pub(super) fn one_time_secret(&self, user_id: &str) -> String {
        self.admit_user(user_id);
        self.ledger().one_time_secret(user_id)
    }

    pub(super) fn mint(&self, user_id: &str, shape: &JwtShape) -> String {
        let key: Arc<SigningKey> = self.keyring.current();
        key.sign(json!({ "typ": "JWT" }), &shape.claims_for(user_id))
    }

    pub(super) fn set_user(&self, id: String, user: Value) {
        self.users().insert(id, user);
    }

    pub(super) fn set_renewed_lifetime(&self, seconds: i64) {
        self.renewal().shape.lifetime = seconds;
    }

    pub(super) fn set_renewed_claim(&self, name: &str, value: Value) {
        self.renewal().shape.claims.insert(name.to_owned(), value);
    }

    pub(super) fn edit_renewals(&self, edit: Arc<dyn Fn(&mut Value) + Send + Sync>) {
        self.renewal().edit = edit;
    }

    /// Carries a call out.
    pub(super) fn answer(&self, endpoint: Endpoint, request: &RecordedRequest) -> Response<Bytes> {
        let method = match endpoint {
            Endpoint::Keys | Endpoint::User => Method::GET,
            Endpoint::Refresh | Endpoint::Logout => Method::POST,
            Endpoint::Elsewhere => return failure(StatusCode::NOT_FOUND, "no such endpoint"),
        };
        if request.method != method {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "this endpoint has another method");
            let allowed = if method == Method::GET { "GET" } else { "POST" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        if endpoint != Endpoint::Keys && request.header("x-api-key") != Some(&self.api_key) {
            return failure(StatusCode::UNAUTHORIZED, "the API key is missing or not valid");
        }

        match endpoint {
            Endpoint::Refresh => self.refresh(&request.body),
            Endpoint::Logout => self.logout(&request.body),
            Endpoint::User => self.user(&request.path),
            Endpoint::Keys | Endpoint::Elsewhere => json_response(StatusCode::OK, &self.keyring.published()),
        }
    }

    fn refresh(&self, body: &[u8]) -> Response<Bytes> {
        let Some(secret) = refresh_secret(body) else {
            return failure(StatusCode::BAD_REQUEST, NO_SECRET);
        };
        let redeemed = self.ledger().redeem(&secret);
        match redeemed {
            Ok(redeemed) => json_response(StatusCode::OK, &self.renewed(&redeemed)),
            Err(refusal) => failure(StatusCode::UNAUTHORIZED, refusal.message()),
        }
    }

    fn renewed(&self, redeemed: &Redeemed) -> Value {
        let renewal = self.renewal().clone();
        let expiry = OffsetDateTime::now_utc() + REFRESH_TOKEN_LIFETIME;
        let expiry = expiry.replace_nanosecond(0).unwrap_or(expiry);
        let mut answer = json!({
            "jwt": self.mint(&redeemed.user_id, &renewal.shape),
            "refresh": {
                "secret": redeemed.secret,
                "expiresAt": expiry.format(&Rfc3339).expect("this century's dates have an RFC 3339 form"),
            },
            "user": self.users().get(&redeemed.user_id),
        });
        (renewal.edit)(&mut answer);
        answer
    }

    fn logout(&self, body: &[u8]) -> Response<Bytes> {
        let Some(secret) = refresh_secret(body) else {
            return failure(StatusCode::BAD_REQUEST, NO_SECRET);
        };
        self.ledger().revoke(&secret);
        json_response(StatusCode::OK, &json!({}))
    }

    fn user(&self, path: &str) -> Response<Bytes> {
        let id = path.strip_prefix(USER_PATH).and_then(percent_decoded);
        match id.and_then(|id| self.users().get(&id).cloned()) {
            Some(user) => json_response(StatusCode::OK, &user),
            None => failure(StatusCode::NOT_FOUND, "no such user"),
        }
    }

    fn admit_user(&self, id: &str) {
        self.users().entry(id.to_owned()).or_insert_with(|| json!({ "id": id }));
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, Value>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    pub(super) fn at(path: &str) -> Self {
        match path {
            "/.well-known/jwks.json" => Self::Keys,
            "/api/2024-09-26/session/sdk/auth/refresh" => Self::Refresh,
            "/api/2024-09-26/session/sdk/auth/logout" => Self::Logout,
            _ => match path.strip_prefix(USER_PATH) {
                Some(id) if !id.is_empty() && !id.contains('/') => Self::User,
                _ => Self::Elsewhere,
            },
        }
    }
}

impl Refusal {
    fn message(self) -> &'static str {
        match self {
            Self::Unknown => "Refresh token is not known",
            Self::Revoked => "Refresh token has been revoked",
            Self::Reused => "Refresh token has been used",
        }
    }
}

fn failure(status: StatusCode, message: &str) -> Response<Bytes> {
    let error = status.canonical_reason().unwrap_or_default();
    json_response(status, &json!({ "error": error, "message": message }))
}

fn refresh_secret(body: &[u8]) -> Option<String> {
    let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
    Some(members.get("refresh")?.as_str()?.to_owned())
}

/// Decodes a path segment (RFC 3986, section 2.1), or says that it is none.
fn percent_decoded(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

const USER_PATH: &str = "/api/2024-09-26/sdk/auth/user/";
const NO_SECRET: &str = "a refresh secret is required";
const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
