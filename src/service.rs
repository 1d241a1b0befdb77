//! The service that the layer makes.

use std::{
    future::ready,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use tower_service::Service;

use crate::{
    auth::{Admission, CrossmintAuth, RefreshCall, RequestHead, Verdict},
    error::AuthErrorKind,
    future::ResponseFuture,
    refresh_body,
    response::{self, ResponseBody},
};

/// A service behind [`CrossmintAuthLayer`](crate::CrossmintAuthLayer).
#[derive(Clone, Debug)]
pub struct CrossmintAuthService<S> {
    inner: S,
    auth: CrossmintAuth,
}

impl<S> CrossmintAuthService<S> {
    pub(crate) fn new(inner: S, auth: CrossmintAuth) -> Self {
        Self { inner, auth }
    }

    /// Gets a reference to the underlying service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gets a mutable reference to the underlying service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Consumes `self`, returning the underlying service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CrossmintAuthService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ReqBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let head = RequestHead {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            // Only a preflight is told by it.
            has_body: request.method() == Method::OPTIONS && !request.body().is_end_stream(),
        };
        match self.auth.admit(&head) {
            Admission::Decided(Verdict::Forward(passage)) => {
                let set_cookie = passage.enter(request.extensions_mut());
                ResponseFuture::forwarding(self.inner.call(request), set_cookie)
            }
            Admission::Pending(verdict) => {
                self.release();
                ResponseFuture::deciding(verdict, self.inner.clone(), request)
            }
            Admission::Refresh(call) => {
                self.release();
                let (parts, body) = request.into_parts();
                ResponseFuture::reading(body, |body| answer_refresh(call, parts.headers, body).boxed())
            }
            Admission::Logout(done) => {
                self.release();
                ResponseFuture::answering(done.map(|cleared| response::logged_out(&cleared)).boxed())
            }
            Admission::Decided(Verdict::Rejected(rejection)) => {
                self.release();
                let response = response::rejected(rejection, is_grpc(request.headers()));
                ResponseFuture::answering(ready(response).boxed())
            }
        }
    }
}

impl<S: Clone> CrossmintAuthService<S> {
    /// Gives up the readiness of the inner service, and with it any permit that it holds.
    ///
    /// The usual swap would hand the ready service to the future. But this one is not called now, or only after
    /// Crossmint has answered, and must not keep others waiting so long: it is polled ready anew before it is called.
    fn release(&mut self) {
        self.inner = self.inner.clone();
    }
}

async fn answer_refresh(
    call: RefreshCall,
    headers: HeaderMap,
    body: Result<Vec<u8>, AuthErrorKind>,
) -> Response<Bytes> {
    let exposes_secret = call.exposes_secret();
    let token = body.and_then(|body| refresh_body::refresh_token(&headers, &body));
    match call.run(token).await {
        Ok(renewal) => response::refreshed(&renewal, exposes_secret),
        Err(rejection) => response::rejected(rejection, is_grpc(&headers)),
    }
}

/// Tells whether a request is gRPC (or gRPC-Web), whose clients look for `grpc-status`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
