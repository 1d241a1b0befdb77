//! The service that the layer makes.

use std::{
    error::Error,
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    body::ResponseBody,
    future::ResponseFuture,
    rejection::{is_grpc, rejected},
    routes,
};
use crate::{auth::CrossmintAuth, authorize::Decision, csrf::RequestHead};

/// The service that [`CrossmintAuthLayer`](crate::CrossmintAuthLayer) wraps around another one.
#[derive(Clone, Debug)]
pub struct CrossmintAuthService<S> {
    inner: S,
    auth: CrossmintAuth,
}

impl<S> CrossmintAuthService<S> {
    pub(super) fn new(inner: S, auth: CrossmintAuth) -> Self {
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
    ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
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
            // Only preflights are recognized by it.
            has_body: request.method() == Method::OPTIONS && !request.body().is_end_stream(),
        };
        match self.auth.authorize(&head) {
            Decision::Forward(grant) => {
                let set_cookie = grant.insert_into(request.extensions_mut());
                ResponseFuture::forwarding(self.inner.call(request), set_cookie)
            }
            Decision::Pending(outcome) => {
                self.release();
                ResponseFuture::pending(outcome, self.inner.clone(), request)
            }
            Decision::Refresh(refresh) => {
                self.release();
                let (parts, body) = request.into_parts();
                ResponseFuture::reading(body, |body| Box::pin(routes::refresh(refresh, parts.headers, body)))
            }
            Decision::Logout(logout) => {
                self.release();
                ResponseFuture::answering(Box::pin(async { routes::logged_out(&logout.await) }))
            }
            Decision::Reject(rejection) => {
                self.release();
                ResponseFuture::rejected(rejected(rejection, is_grpc(request.headers())))
            }
        }
    }
}

impl<S: Clone> CrossmintAuthService<S> {
    /// Gives up the readiness of the inner service, and with it any permit that it holds.
    ///
    /// The usual swap would hand the ready service to the future. But this one is not called now, or only after Crossmint
    /// has answered: it is polled ready anew before it is called.
    fn release(&mut self) {
        self.inner = self.inner.clone();
    }
}
