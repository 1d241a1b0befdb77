//! The calls to Crossmint: one place where answers become errors.
//!
//! An answer is read up to a size limit and within a time limit, since a proxy or an impostor may have sent it. 400 and
//! 401 with a JSON body are the API's verdict on a token; every other failure says nothing about it.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use tracing::{Instrument as _, Span, field::Empty};
use zeroize::Zeroizing;

use crate::{
    config::{Checked, CrossmintAuthConfig},
    error::{AuthError, AuthErrorKind},
    json,
    secret::Secret,
    session::User,
};

/// Crossmint's API, as one project sees it.
#[derive(Debug)]
pub(crate) struct Upstream {
    config: CrossmintAuthConfig,
    jwks_uri: String,
    headers: HeaderMap,
    /// For spans.
    address: String,
    port: Option<u16>,
}

/// What a refresh brings.
#[derive(Debug)]
pub(crate) struct RefreshAnswer {
    /// Absent if it is no string: the old token is spent all the same, and the new one the only good one.
    pub(crate) jwt: Option<Secret>,
    pub(crate) secret: Secret,
    pub(crate) expires_at: Option<String>,
    pub(crate) user: Option<User>,
    /// The whole answer.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl RefreshAnswer {
    /// Reads an answer. The refresh token is all that it must have: the old one is spent.
    pub(crate) fn parse(body: impl Into<Zeroizing<Vec<u8>>>) -> Result<Self, AuthError> {
        let body = body.into();
        let answer: RefreshBody<'_> = object(&body)?;
        let refresh: RefreshField<'_> = object(answer.refresh.get().as_bytes())?;
        if refresh.secret.is_empty() {
            return Err(AuthError::new(UNUSABLE, "the refresh token in Crossmint's answer is empty"));
        }
        Ok(Self {
            jwt: text(answer.jwt).map(Into::into),
            secret: refresh.secret.into(),
            expires_at: text(refresh.expires_at).filter(|date| date.len() <= MAX_EXPIRES_AT),
            user: answer.user.and_then(lenient_user),
            body,
        })
    }
}

impl Upstream {
    pub(crate) fn new(config: CrossmintAuthConfig) -> Self {
        let settings = &config.checked().settings;
        let jwks_uri = format!("{}/.well-known/jwks.json", settings.base_url);
        let mut headers = HeaderMap::new();
        // Keys are printable ASCII: `ApiKey` and `build` have checked that.
        if let Ok(mut key) = HeaderValue::from_str(settings.api_key.expose()) {
            key.set_sensitive(true);
            headers.insert("x-api-key", key);
        }
        headers.insert("x-client-name", HeaderValue::from_static(env!("CARGO_PKG_NAME")));
        headers.insert("x-client-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let url = Url::parse(&settings.base_url).ok();
        let port = url.as_ref().and_then(Url::port_or_known_default);
        let address = url.and_then(|url| url.host_str().map(ToOwned::to_owned)).unwrap_or_default();
        Self { config, jwks_uri, headers, address, port }
    }

    /// Creates the span of a call, by OpenTelemetry's conventions for HTTP clients.
    ///
    /// `template` stands for the URL, which may contain a user's ID.
    fn span(&self, method: &'static str, template: &'static str) -> Span {
        tracing::info_span!(
            "crossmint_call",
            otel.name = %format_args!("{method} {template}"),
            otel.kind = "client",
            http.request.method = method,
            url.template = template,
            server.address = self.address,
            server.port = self.port,
            http.response.status_code = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
        )
    }

    pub(crate) fn jwks_uri(&self) -> &str {
        &self.jwks_uri
    }

    /// Loads the key set's document. The API key stays out of it.
    pub(crate) async fn keys(self: Arc<Self>) -> Result<Vec<u8>, AuthError> {
        let Checked { client, settings, .. } = self.config.checked();
        let span = self.span("GET", "/.well-known/jwks.json");
        let call = async {
            let answer = send(client.get(&self.jwks_uri), settings.keys_timeout, &span).await?;
            match answer.status() {
                StatusCode::OK => read(answer, MAX_KEYS_BYTES).await,
                _ => Err(unexpected(&answer)),
            }
        };
        in_span(&span, call).await
    }

    /// Exchanges a refresh token, or a one-time secret, for new material. Never tries twice: the token may be spent.
    /// Takes an answer that comes a little late.
    pub(crate) async fn refresh(&self, token: &Secret) -> Result<RefreshAnswer, AuthError> {
        let limit = self.config.checked().settings.refresh_timeout;
        let span = self.span("POST", REFRESH_PATH);
        let call = async {
            let answer = send(self.post(REFRESH_PATH, token), limit.saturating_add(limit / 4), &span).await?;
            match answer.status() {
                status if status.is_success() => RefreshAnswer::parse(read(answer, MAX_ANSWER_BYTES).await?),
                status @ (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) if is_json(answer.headers()) => {
                    Err(AuthError::new(AuthErrorKind::Refused, format!("Crossmint answered {status}")))
                }
                _ => Err(unexpected(&answer)),
            }
        };
        in_span(&span, call).await
    }

    /// Revokes a session. It is no failure if Crossmint does not know the session, whatever the body.
    pub(crate) async fn logout(&self, token: &Secret, limit: Duration) -> Result<(), AuthError> {
        let span = self.span("POST", LOGOUT_PATH);
        let call = async {
            let answer = send(self.post(LOGOUT_PATH, token), limit, &span).await?;
            match answer.status() {
                status if status.is_success() => Ok(()),
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => Ok(()),
                _ => Err(unexpected(&answer)),
            }
        };
        in_span(&span, call).await
    }

    /// Fetches a user by ID.
    pub(crate) async fn user(&self, id: &str) -> Result<User, AuthError> {
        let Checked { client, settings, .. } = self.config.checked();
        let mut url = Url::parse(&settings.base_url).map_err(|error| AuthError::new(UNUSABLE, error))?;
        // URLs drop control characters, and dot segments name another resource.
        if let Ok(mut segments) = url.path_segments_mut()
            && !matches!(id, "" | "." | "..")
            && !id.contains(char::is_control)
        {
            let path = USER_PATH.split('/').skip(1);
            segments.pop_if_empty().extend(path.map(|segment| if segment == "{user}" { id } else { segment }));
        } else {
            return Err(AuthError::new(AuthErrorKind::UserUnavailable, "no user has this ID"));
        }
        let span = self.span("GET", USER_PATH);
        let call = async {
            let answer = send(client.get(url).headers(self.headers.clone()), settings.refresh_timeout, &span).await?;
            match answer.status() {
                status if status.is_success() => object(&read(answer, MAX_ANSWER_BYTES).await?),
                status if status.is_client_error() && is_json(answer.headers()) => {
                    let why =
                        format!("Crossmint answered {status}: the user must exist, and the API key needs `users.read`");
                    Err(AuthError::new(AuthErrorKind::UserUnavailable, why))
                }
                _ => Err(unexpected(&answer)),
            }
        };
        in_span(&span, call).await
    }

    fn post(&self, path: &str, refresh: &Secret) -> RequestBuilder {
        let Checked { client, settings, .. } = self.config.checked();
        let url = format!("{}{path}", settings.base_url);
        let body = serde_json::to_vec(&BTreeMap::from([("refresh", &**refresh)])).unwrap_or_default();
        client.post(url).headers(self.headers.clone()).body(body)
    }
}

/// Optional members are parsed leniently: an unexpected value must not cost the refresh token beside it.
#[derive(Deserialize)]
struct RefreshBody<'a> {
    #[serde(borrow, default)]
    jwt: Option<&'a RawValue>,
    /// A [`RefreshField`]. Serde alone would take an array for it as well.
    #[serde(borrow)]
    refresh: &'a RawValue,
    #[serde(borrow, default)]
    user: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefreshField<'a> {
    secret: String,
    #[serde(borrow, default)]
    expires_at: Option<&'a RawValue>,
}

fn text(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

/// Reads a user of whom only the ID has to be as expected. One without an ID is none: the JWT says whose it is.
fn lenient_user(user: &RawValue) -> Option<User> {
    serde_json::from_str(user.get()).ok().or_else(|| {
        let members: Map<String, Value> = serde_json::from_str(user.get()).ok()?;
        let mut user = User::with_id(members.get("id")?.as_str()?);
        user.other = members.into_iter().filter(|(name, _)| name != "id").collect();
        Some(user)
    })
}

async fn in_span<T>(span: &Span, call: impl Future<Output = Result<T, AuthError>>) -> Result<T, AuthError> {
    let outcome = call.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        match error.source().and_then(|source| source.downcast_ref::<reqwest::Error>()) {
            Some(error) => record_failure(span, if error.is_timeout() { "timeout" } else { "transport" }),
            None if error.kind() == UNUSABLE => record_failure(span, UNUSABLE.as_str()),
            // The status has been recorded.
            None => {}
        }
    }
    outcome
}

fn record_failure(span: &Span, error_type: &str) {
    span.record("error.type", error_type).record("otel.status_code", "ERROR");
}

async fn send(request: RequestBuilder, limit: Duration, span: &Span) -> Result<Response, AuthError> {
    let answer = request.timeout(limit).send().await.map_err(transport)?;
    let status = answer.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_client_error() || status.is_server_error() {
        record_failure(span, status.as_str());
    }
    Ok(answer)
}

async fn read(mut answer: Response, limit: usize) -> Result<Vec<u8>, AuthError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > limit {
            return Err(AuthError::new(UNUSABLE, format!("Crossmint's answer is larger than {} KiB", limit >> 10)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A connection that failed, or an answer that did not arrive in time.
fn transport(error: reqwest::Error) -> AuthError {
    AuthError::new(UNAVAILABLE, error.without_url())
}

fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, AuthError> {
    let why = "Crossmint's answer is not JSON with the expected members";
    json::object(body).ok_or_else(|| AuthError::new(UNUSABLE, why))
}

fn unexpected(answer: &Response) -> AuthError {
    let status = answer.status();
    let kind = if status == StatusCode::TOO_MANY_REQUESTS { AuthErrorKind::RateLimited } else { UNAVAILABLE };
    // A load balancer or a geo block has answered.
    let page = if is_json(answer.headers()) { "" } else { " with something other than JSON" };
    AuthError::new(kind, format!("Crossmint answered {status}{page}")).with_retry_after(retry_after(answer.headers()))
}

/// Reads a delay in seconds. Dates (RFC 9110 section 10.2.3) are left to the default.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    // Rust's numbers may have a sign.
    let seconds = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()?;
    Some(Duration::from_secs(seconds))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(json::media_type);
    media_type.is_some_and(|media_type| media_type == "application/json" || media_type.ends_with("+json"))
}

const REFRESH_PATH: &str = "/api/2024-09-26/session/sdk/auth/refresh";
const LOGOUT_PATH: &str = "/api/2024-09-26/session/sdk/auth/logout";
const USER_PATH: &str = "/api/2024-09-26/sdk/auth/user/{user}";
const MAX_KEYS_BYTES: usize = 256 << 10;
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_EXPIRES_AT: usize = 64;
const UNAVAILABLE: AuthErrorKind = AuthErrorKind::Unavailable;
const UNUSABLE: AuthErrorKind = AuthErrorKind::UnusableAnswer;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::deep;

    #[test]
    fn an_answer_is_made_of_objects() {
        let good = br#" {"jwt":"j","refresh":{"secret":"s","expiresAt":"d"}}"#;
        let answer = RefreshAnswer::parse(good.to_vec()).unwrap();
        assert_eq!((answer.jwt.as_deref(), &*answer.secret, answer.expires_at.as_deref()), (Some("j"), "s", Some("d")));
        for bad in [r#"["j",{"secret":"s"}]"#, r#"{"jwt":"j","refresh":["s","d"]}"#, r#"{"jwt":"j","refresh":"s"}"#] {
            assert!(RefreshAnswer::parse(bad.as_bytes().to_vec()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_delay_is_made_of_digits() {
        for (text, seconds) in [("7", Some(7)), ("007", Some(7)), ("+7", None), ("-7", None), ("", None), ("7.5", None)]
        {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn deep_nesting_in_an_answer_does_not_exhaust_the_stack() {
        deep::on_a_small_stack(|| {
            let deep = deep::arrays(30_000);
            let answer = |refresh: &str, rest: &str| format!(r#"{{"jwt":"j","refresh":{refresh}{rest}}}"#);
            let refresh = r#"{"secret":"s"}"#;
            let cases = [
                ("an unknown member", answer(refresh, &format!(r#","x":{deep}"#)), true),
                ("a member of the refresh token", answer(&format!(r#"{{"secret":"s","x":{deep}}}"#), ""), true),
                ("the refresh token", answer(&deep, ""), false),
                ("the expiry", answer(&format!(r#"{{"secret":"s","expiresAt":{deep}}}"#), ""), true),
                ("the user", answer(refresh, &format!(r#","user":{deep}"#)), true),
                ("a member of the user", answer(refresh, &format!(r#","user":{{"id":"alice","x":{deep}}}"#)), true),
                ("the JWT", format!(r#"{{"jwt":{deep},"refresh":{refresh}}}"#), true),
            ];
            for (name, answer, is_good) in cases {
                let kind = RefreshAnswer::parse(answer.into_bytes()).err().map(|error| error.kind());
                assert_eq!(kind, (!is_good).then_some(UNUSABLE), "{name}");
            }
        });
    }
}
