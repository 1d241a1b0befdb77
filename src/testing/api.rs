//! The endpoints and their state.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use http::{HeaderValue, Method, Response, StatusCode, header::ALLOW};
use serde_json::{Map, Value, json};

use super::{
    answer::json_response,
    calls::{Endpoint, RecordedRequest},
    jwt::JwtTemplate,
    keys::Keyring,
    ledger::{Ledger, Redeemed},
};

/// The state of the service.
pub(crate) struct Api {
    project_id: String,
    api_key: String,
    keyring: Keyring,
    ledger: Mutex<Ledger>,
    users: Mutex<HashMap<String, Value>>,
    refresh_options: Mutex<RefreshOptions>,
}

/// Determines the responses of the refresh endpoint.
#[derive(Clone)]
struct RefreshOptions {
    jwt: JwtTemplate,
    edit: Arc<dyn Fn(&mut Value) + Send + Sync>,
}

impl Api {
    pub(crate) fn new(project_id: &str, api_key: &str) -> Self {
        Self {
            project_id: project_id.to_owned(),
            api_key: api_key.to_owned(),
            keyring: Keyring::new(),
            ledger: Mutex::new(Ledger::new()),
            users: Mutex::default(),
            refresh_options: Mutex::new(RefreshOptions { jwt: JwtTemplate::default(), edit: Arc::new(|_| ()) }),
        }
    }

    pub(crate) fn project_id(&self) -> &str {
        &self.project_id
    }

    pub(crate) fn api_key(&self) -> &str {
        &self.api_key
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open_session(&self, user_id: &str) -> String {
        self.add_user(user_id);
        self.ledger().open(user_id)
    }

    pub(crate) fn one_time_secret(&self, user_id: &str) -> String {
        self.add_user(user_id);
        self.ledger().one_time_secret(user_id)
    }

    pub(crate) fn mint(&self, user_id: &str, template: &JwtTemplate) -> String {
        self.keyring.current().sign(json!({ "typ": "JWT" }), &template.claims_for(user_id, &self.project_id))
    }

    pub(crate) fn set_user(&self, id: String, user: Value) {
        self.users().insert(id, user);
    }

    pub(crate) fn set_refreshed_jwt_lifetime(&self, seconds: i64) {
        self.refresh_options().jwt.lifetime = seconds;
    }

    pub(crate) fn set_refreshed_claim(&self, name: &str, value: Value) {
        self.refresh_options().jwt.claims.insert(name.to_owned(), value);
    }

    pub(crate) fn edit_refresh_answers(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.refresh_options().edit = Arc::new(edit);
    }

    /// Executes a call.
    pub(crate) fn respond(&self, endpoint: Endpoint, request: &RecordedRequest) -> Response<Bytes> {
        let method = match endpoint {
            Endpoint::Keys | Endpoint::User => Method::GET,
            Endpoint::Refresh | Endpoint::Logout => Method::POST,
            Endpoint::Elsewhere => return failure(StatusCode::NOT_FOUND, "no such endpoint"),
        };
        if request.method != method {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "the endpoint does not support this method");
            let allowed = if method == Method::GET { "GET" } else { "POST" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        if endpoint != Endpoint::Keys && request.header("x-api-key") != Some(&self.api_key) {
            return failure(StatusCode::UNAUTHORIZED, "the API key is missing or invalid");
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
            Ok(redeemed) => json_response(StatusCode::OK, &self.refreshed(&redeemed)),
            Err(error) => failure(StatusCode::UNAUTHORIZED, error.message()),
        }
    }

    fn refreshed(&self, redeemed: &Redeemed) -> Value {
        let options = self.refresh_options().clone();
        let expiry = OffsetDateTime::now_utc() + REFRESH_TOKEN_LIFETIME;
        let expiry = expiry.replace_nanosecond(0).unwrap_or(expiry);
        let mut answer = json!({
            "jwt": self.mint(&redeemed.user_id, &options.jwt),
            "refresh": {
                "secret": redeemed.secret,
                "expiresAt": expiry.format(&Rfc3339).expect("RFC 3339 can represent dates of this century"),
            },
            "user": self.users().get(&redeemed.user_id),
        });
        (options.edit)(&mut answer);
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

    fn add_user(&self, id: &str) {
        self.users().entry(id.to_owned()).or_insert_with(|| json!({ "id": id }));
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, Value>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh_options(&self) -> MutexGuard<'_, RefreshOptions> {
        self.refresh_options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn at(path: &str) -> Self {
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

fn failure(status: StatusCode, message: &str) -> Response<Bytes> {
    let error = status.canonical_reason().unwrap_or_default();
    json_response(status, &json!({ "error": error, "message": message }))
}

fn refresh_secret(body: &[u8]) -> Option<String> {
    let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
    Some(members.get("refresh")?.as_str()?.to_owned())
}

/// Decodes a percent-encoded path segment (RFC 3986, section 2.1); `None` if it is malformed.
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
