//! The responses of the layer's own: rejections, and JSON.

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

/// Builds the response to a request that is rejected. `request` is its header fields.
pub(super) fn rejected(Rejection { error, set_cookie }: Rejection, request: &HeaderMap) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Body {
        error: &'static str,
        message: &'static str,
    }
    let (status, message) = (error.status(), error.message());
    let body = Body { error: status.canonical_reason().unwrap_or_default(), message };
    let (field, grpc_status) = match status {
        // A 401 must have a challenge (RFC 9110 section 15.5.2), and there is no scheme for cookies.
        StatusCode::UNAUTHORIZED => (Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))), Some("16")),
        StatusCode::SERVICE_UNAVAILABLE => (Some((RETRY_AFTER, error.retry_after().as_secs().into())), Some("14")),
        StatusCode::METHOD_NOT_ALLOWED => (Some((ALLOW, HeaderValue::from_static("POST"))), None),
        _ => (None, None),
    };
    let mut response = json(status, &body, &set_cookie);
    let headers = response.headers_mut();
    headers.extend(field);
    // Clients of gRPC and gRPC-Web take the status from the header fields of a response without messages.
    let is_grpc = request.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if let Some(status) = grpc_status.filter(|_| is_grpc) {
        headers.insert("grpc-status", HeaderValue::from_static(status));
        headers.insert("grpc-message", HeaderValue::from_static(message));
    }
    response.extensions_mut().insert(error);
    response
}

pub(super) fn json(status: StatusCode, body: &impl Serialize, set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = respond(status, serde_json::to_vec(body).unwrap_or_default().into(), set_cookie);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Builds a response of the layer's own.
pub(super) fn respond(status: StatusCode, body: Bytes, set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    add_to_response(response.headers_mut(), set_cookie);
    vary_by_cookie(response.headers_mut());
    response
}
