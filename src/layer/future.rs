//! The future of one request.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, ready};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::util::ReadyOneshot;
use tower_service::Service;

use super::{
    body::ResponseBody,
    rejection::Rejector,
    routes::{Exchange, ReadBody},
};
use crate::{
    authorize::{Grant, Rejection, SetCookie},
    cookies::{add_to_response, vary_by_cookie},
};

pin_project! {
    /// The response future of [`CrossmintAuthService`](crate::CrossmintAuthService).
    ///
    /// Dropping it does not cancel a refresh in flight.
    pub struct ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        pub(super) state: State<S, ReqBody>,
    }
}

pin_project! {
    // All states but the first are boxed: nearly every request is forwarded at once, and its future should be small.
    #[project = StateProj]
    pub(super) enum State<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        // The inner service has been called.
        Forwarding { #[pin] response: S::Future, set_cookie: SetCookie },
        // Crossmint has been called. `held` is what to call if the request is granted.
        Pending { outcome: BoxFuture<'static, Result<Grant, Rejection>>, held: Option<Box<Held<S, ReqBody>>> },
        // The inner service is being polled ready.
        Readying { held: Option<Box<Held<S, ReqBody>>>, set_cookie: SetCookie },
        // The body of a request for one of the two routes is being read.
        Reading { body: Pin<Box<ReadBody<ReqBody>>>, exchange: Option<Box<Exchange>> },
        // The layer responds itself.
        Responding { response: BoxFuture<'static, Response<Bytes>> },
        Rejected { response: Option<Box<Response<Bytes>>> },
    }
}

/// What a pending request needs once Crossmint has answered.
pub(super) struct Held<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    /// Has to be polled ready before it is called.
    pub(super) inner: ReadyOneshot<S, Request<ReqBody>>,
    pub(super) request: Request<ReqBody>,
    pub(super) rejector: Rejector,
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body,
    ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Forwarding { response, set_cookie } => {
                    let mut response = ready!(response.poll(cx))?.map(ResponseBody::inner);
                    // Taken, so that the grace period starts now, even if the future is dropped later.
                    std::mem::take(set_cookie).deliver(|fields| {
                        add_to_response(response.headers_mut(), fields);
                        vary_by_cookie(response.headers_mut());
                    });
                    return Poll::Ready(Ok(response));
                }
                StateProj::Pending { outcome, held } => {
                    let outcome = ready!(outcome.as_mut().poll(cx));
                    let mut held = held.take().expect(POLLED_AFTER_READY);
                    match outcome {
                        Ok(grant) => {
                            let set_cookie = grant.insert_into(held.request.extensions_mut());
                            State::Readying { held: Some(held), set_cookie }
                        }
                        Err(rejection) => {
                            let (request, _) = held.request.into_parts();
                            let response = held.rejector.reject(rejection, &request);
                            return Poll::Ready(Ok(response.map(ResponseBody::own)));
                        }
                    }
                }
                StateProj::Readying { held, set_cookie } => {
                    let inner = &mut held.as_deref_mut().expect(POLLED_AFTER_READY).inner;
                    let mut inner = ready!(Pin::new(inner).poll(cx))?;
                    let Held { request, .. } = *held.take().expect(POLLED_AFTER_READY);
                    State::Forwarding { response: inner.call(request), set_cookie: std::mem::take(set_cookie) }
                }
                StateProj::Reading { body, exchange } => {
                    let body = ready!(body.as_mut().poll(cx));
                    let exchange = *exchange.take().expect(POLLED_AFTER_READY);
                    State::Responding { response: Box::pin(exchange.answer(body)) }
                }
                StateProj::Responding { response } => {
                    return Poll::Ready(Ok(ready!(response.as_mut().poll(cx)).map(ResponseBody::own)));
                }
                StateProj::Rejected { response } => {
                    let response = response.take().expect(POLLED_AFTER_READY);
                    return Poll::Ready(Ok(response.map(ResponseBody::own)));
                }
            };
            state.set(next);
        }
    }
}

impl<S, ReqBody> fmt::Debug for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

const POLLED_AFTER_READY: &str = "a future is not polled after it is ready";
