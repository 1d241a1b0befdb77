//! The service that the layer creates.

use std::{
    error::Error,
    fmt,
    task::{self, Poll},
};

use http::{Method, Request, Response};
use http_body::Body;
use tower::ServiceExt as _;
use tower_service::Service;

use super::{
    body::ResponseBody,
    future::{Held, ResponseFuture, State},
    rejection::Rejector,
    routes::{Exchange, ReadBody},
};
use crate::{
    auth::CrossmintAuth,
    authorize::{Decision, Hold},
    config::Policies,
    csrf::RequestHead,
    per_thread::PerThreadArc,
};

/// The service that [`CrossmintAuthLayer`](crate::CrossmintAuthLayer) wraps around another one.
#[derive(Clone, Debug)]
pub struct CrossmintAuthService<S> {
    pub(super) inner: S,
    pub(super) context: PerThreadArc<Context>,
}

/// What all services of a layer share. Behind a pointer, because services are cloned for each request.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) auth: CrossmintAuth,
    pub(super) policies: Policies,
    pub(super) rejector: Rejector,
}

impl<S> CrossmintAuthService<S> {
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

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let head = RequestHead {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            // Only needed to recognize preflights.
            has_body: request.method() == Method::OPTIONS && !request.body().is_end_stream(),
        };
        let state = match self.context.auth.authorize(&head, &self.context.policies) {
            Decision::Forward(grant) => {
                let set_cookie = grant.insert_into(request.extensions_mut());
                State::Forwarding { response: self.inner.call(request), set_cookie }
            }
            Decision::Hold(hold) => self.hold(hold, request),
        };
        ResponseFuture { state }
    }
}

impl<S: Clone> CrossmintAuthService<S> {
    /// Answers a request, or waits for Crossmint before the inner service is called.
    // Out of line, because nearly all requests are forwarded at once.
    #[inline(never)]
    fn hold<ReqBody, ResBody>(&mut self, hold: Hold, request: Request<ReqBody>) -> State<S, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        ReqBody: Body,
        ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Drops the ready inner service, and with it any permit that it holds (of a concurrency limit, for instance):
        // nothing must hold one while Crossmint answers. If the request is granted, a clone is polled ready then.
        self.inner = self.inner.clone();
        let rejector = self.context.rejector.clone();
        match hold {
            Hold::Pending(outcome) => {
                let inner = self.inner.clone().ready_oneshot();
                State::Pending { outcome, held: Some(Box::new(Held { inner, request, rejector })) }
            }
            Hold::Route(route) => {
                let (head, body) = request.into_parts();
                let exchange = Exchange { route: *route, head, rejector };
                if exchange.reads_body() {
                    State::Reading { body: Box::pin(ReadBody::new(body)), exchange: Some(Box::new(exchange)) }
                } else {
                    State::Responding { response: Box::pin(exchange.answer(Ok(Vec::new()))) }
                }
            }
            Hold::Reject(rejection) => {
                let (request, _) = request.into_parts();
                State::Rejected { response: Some(Box::new(rejector.reject(*rejection, &request))) }
            }
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { auth, policies, rejector: _ } = self;
        f.debug_struct("CrossmintAuthLayer").field("auth", auth).field("policies", policies).finish_non_exhaustive()
    }
}
