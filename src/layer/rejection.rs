//! An [`AuthError`](crate::AuthError) becomes a response.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;

use crate::{
    authorize::Rejection,
    cookies::{add_to_response, vary_by_cookie},
};

/// Answers a request that is rejected.
pub(super) fn rejected(Rejection { error, set_cookie }: Rejection, is_grpc: bool) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Body {
        error: &'static str,
        message: &'static str,
    }
    let (status, message) = (error.status(), error.message());
    let body = Body { error: status.canonical_reason().unwrap_or_default(), message };
    let mut response = json(status, &body, &set_cookie);
    let headers = response.headers_mut();
    let grpc_status = match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Some("16")
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, error.retry_after().as_secs().into());
            Some("14")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
            None
        }
        _ => None,
    };
    if let Some(status) = grpc_status.filter(|_| is_grpc) {
        headers.insert("grpc-status", HeaderValue::from_static(status));
        headers.insert("grpc-message", HeaderValue::from_static(message));
    }
    response.extensions_mut().insert(error);
    response
}

/// Returns whether a request is gRPC (or gRPC-Web), whose clients look for `grpc-status`.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

pub(super) fn json(status: StatusCode, body: &impl Serialize, set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    add_to_response(headers, set_cookie);
    vary_by_cookie(headers);
    response
}
