//! The responses: those of the inner service, passed on as they are, and the few that the layer gives itself.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use serde::Serialize;

use crate::{
    auth::{self, Rejection, Renewal},
    session::User,
};

pin_project! {
    /// The body of every response behind the layer: the inner service's, frame by frame, or the layer's own.
    ///
    /// It is an [`http_body::Body`] where the inner one has [`Bytes`] for data, as axum's and tonic's have.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Own { body: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    pub(crate) fn own(body: Bytes) -> Self {
        Self { kind: Kind::Own { body: (!body.is_empty()).then_some(body) } }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Own { body } => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { body } => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { body } => SizeHint::with_exact(body.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::inner(B::default())
    }
}

/// Adds cookies, if there are any, to a response.
pub(crate) fn add_cookies(headers: &mut HeaderMap, set_cookie: &[HeaderValue]) {
    if set_cookie.is_empty() {
        return;
    }
    auth::add_cookies(headers, set_cookie);
    vary_by_cookie(headers);
}

/// Refuses a request.
pub(crate) fn rejected(rejection: Rejection, is_grpc: bool) -> Response<Bytes> {
    let Rejection { error, disposition, set_cookie } = rejection;
    let message = error.kind().message();
    let body = ErrorBody { error: disposition.status.canonical_reason().unwrap_or_default(), message };
    let mut response = json(disposition.status, &body, &set_cookie);
    let headers = response.headers_mut();
    match disposition.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    if let Some(delay) = disposition.retry_after {
        headers.insert(RETRY_AFTER, delay.as_secs().into());
    }
    let grpc_status = match disposition.status {
        StatusCode::UNAUTHORIZED => Some("16"),
        StatusCode::SERVICE_UNAVAILABLE => Some("14"),
        _ => None,
    };
    if let Some(status) = grpc_status.filter(|_| is_grpc) {
        headers.insert("grpc-status", HeaderValue::from_static(status));
        headers.insert("grpc-message", HeaderValue::from_static(message));
    }
    response.extensions_mut().insert(error);
    response
}

/// Answers the refresh route, in the shape that the browser SDK reads.
pub(crate) fn refreshed(renewal: &Renewal, exposes_secret: bool) -> Response<Bytes> {
    let material = renewal.session.material();
    let body = RefreshedBody {
        jwt: material.jwt(),
        refresh_token: RefreshTokenBody {
            secret: exposes_secret.then(|| material.refresh_token().secret()),
            expires_at: material.refresh_token().expires_at().unwrap_or_default(),
        },
        user: material.user(),
    };
    json(StatusCode::OK, &body, &renewal.set_cookie)
}

/// Answers the logout route.
pub(crate) fn logged_out(set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    auth::add_cookies(response.headers_mut(), set_cookie);
    vary_by_cookie(response.headers_mut());
    response
}

#[derive(Serialize)]
struct ErrorBody {
    error: &'static str,
    message: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefreshedBody<'a> {
    jwt: &'a str,
    refresh_token: RefreshTokenBody<'a>,
    user: Option<&'a User>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefreshTokenBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    expires_at: &'a str,
}

fn json(status: StatusCode, body: &impl Serialize, set_cookie: &[HeaderValue]) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    auth::add_cookies(headers, set_cookie);
    vary_by_cookie(headers);
    response
}

fn vary_by_cookie(headers: &mut HeaderMap) {
    let covers_cookie = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"cookie")
        })
    };
    if !headers.get_all(VARY).iter().any(covers_cookie) {
        headers.append(VARY, HeaderValue::from_static("cookie"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{AuthMaterial, RefreshToken, Session, Verified};

    #[test]
    fn no_response_prints_what_it_carries() {
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        let session = Session::new(verified, AuthMaterial::new("the-jwt", RefreshToken::new("the-secret")));
        let mut field = HeaderValue::from_static("jwt=the-jwt");
        field.set_sensitive(true);
        let renewal = Renewal::new(session, [field.clone(), field], 0);
        let response: Response<ResponseBody<()>> = refreshed(&renewal, true).map(ResponseBody::own);
        let printed = format!("{response:?} {response:#?} {renewal:?}");
        assert!(!printed.contains("the-"), "{printed}");
    }
}
