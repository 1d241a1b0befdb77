//! The responses of the layer's own: rejections, redirects, and JSON.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use serde::Serialize;

use crate::{
    authorize::Rejection,
    cookies::{replace_in_response, vary_by_cookie},
    error::AuthError,
};

/// Builds the responses to requests that are rejected, with the application's changes.
#[derive(Clone, Default)]
pub(super) struct Rejector(Option<Arc<Map>>);

type Map = dyn Fn(&AuthError, &Parts, Response<Bytes>) -> Response<Bytes> + Send + Sync;

impl Rejector {
    pub(super) fn new<F, B>(map: F) -> Self
    where
        F: Fn(&AuthError, &Parts, Response<Bytes>) -> Response<B> + Send + Sync + 'static,
        B: Into<Bytes>,
    {
        Self(Some(Arc::new(move |error, request, response| map(error, request, response).map(Into::into))))
    }

    /// Builds the response to a request that is rejected.
    pub(super) fn reject(&self, rejection: Rejection, request: &Parts) -> Response<Bytes> {
        let Rejection { error, set_cookie, location } = rejection;
        if let Some(location) = location {
            let mut response = redirect(location, &set_cookie);
            response.extensions_mut().insert(error);
            return response;
        }
        let response = rejected(error.clone(), &set_cookie, &request.headers);
        let Some(map) = &self.0 else { return response };
        let mut response = map(&error, request, response);
        add_own_fields(&mut response, error, &set_cookie, &request.headers);
        response
    }
}

/// Builds the response to a request with these header fields.
pub(super) fn rejected(error: AuthError, set_cookie: &[HeaderValue], request: &HeaderMap) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Body {
        error: &'static str,
        message: &'static str,
    }
    let status = error.status();
    let mut response = json(&Body { error: status.canonical_reason().unwrap_or_default(), message: error.message() });
    *response.status_mut() = status;
    add_own_fields(&mut response, error, set_cookie, request);
    response
}

/// Adds what the application cannot change: the cookies, and the fields that clients and caches act on.
fn add_own_fields(response: &mut Response<Bytes>, error: AuthError, set_cookie: &[HeaderValue], request: &HeaderMap) {
    let headers = response.headers_mut();
    let challenge = error.challenge().and_then(|challenge| match challenge {
        Cow::Borrowed(challenge) => Some(HeaderValue::from_static(challenge)),
        Cow::Owned(challenge) => HeaderValue::try_from(challenge).ok(),
    });
    let challenge = challenge.map(|challenge| (WWW_AUTHENTICATE, challenge));
    let (field, grpc_status) = match error.status() {
        StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST => (None, Some("16")),
        StatusCode::SERVICE_UNAVAILABLE => (Some((RETRY_AFTER, error.retry_after().as_secs().into())), Some("14")),
        StatusCode::METHOD_NOT_ALLOWED => (Some((ALLOW, HeaderValue::from_static("POST"))), None),
        _ => (None, None),
    };
    for (name, value) in challenge.into_iter().chain(field) {
        headers.insert(name, value);
    }
    // Clients of gRPC and gRPC-Web take the status from the header fields of a response without messages.
    let is_grpc = request.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if let Some(status) = grpc_status.filter(|_| is_grpc) {
        headers.insert("grpc-status", HeaderValue::from_static(status));
        headers.insert("grpc-message", HeaderValue::from_static(error.message()));
    }
    set_cookies(headers, set_cookie);
    // Some clients derive the status from HTTP's instead, and take 400 for an internal error.
    if is_grpc && error.status() == StatusCode::BAD_REQUEST {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    response.extensions_mut().insert(error);
}

/// Builds a redirect, which a browser follows with GET whatever the method was (RFC 9110 section 15.4.4).
pub(super) fn redirect(location: HeaderValue, set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = empty(set_cookie);
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// Builds a response without a body.
pub(super) fn empty(set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = Response::default();
    set_cookies(response.headers_mut(), set_cookie);
    response
}

/// Builds a response that must not leave without [`set_cookies`].
pub(super) fn json(body: &impl Serialize) -> Response<Bytes> {
    let mut response = Response::new(serde_json::to_vec(body).unwrap_or_default().into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Sets the cookies of a response of the layer's own, which no cache may store.
pub(super) fn set_cookies(headers: &mut HeaderMap, set_cookie: &[HeaderValue]) {
    replace_in_response(headers, set_cookie);
    vary_by_cookie(headers);
}
