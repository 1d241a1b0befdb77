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
    rejection::{is_grpc, rejected},
    routes::ReadBody,
};
use crate::{
    authorize::{Grant, Rejection, SetCookie},
    cookies::{add_to_response, vary_by_cookie},
    error::AuthErrorKind,
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
        state: State<S, ReqBody>,
    }
}

pin_project! {
    // All states but the first are boxed: it is nearly every request's, and should cost no memory on behalf of the others.
    #[project = StateProj]
    enum State<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        // The inner service is at work.
        Forwarding { #[pin] response: S::Future, set_cookie: SetCookie },
        // Crossmint is at work.
        Pending { outcome: BoxFuture<'static, Result<Grant, Rejection>>, held: Option<Box<Held<S, ReqBody>>> },
        // The inner service is not ready yet.
        Readying { held: Option<Box<Held<S, ReqBody>>>, set_cookie: SetCookie },
        // The body of the refresh route arrives.
        Reading { body: Pin<Box<ReadBody<ReqBody>>>, answer: Option<Box<Answer>> },
        Answering { response: BoxFuture<'static, Response<Bytes>> },
        Rejected { response: Option<Box<Response<Bytes>>> },
    }
}

/// What waits for Crossmint, and then for the inner service.
struct Held<S, ReqBody> {
    ready: ReadyOneshot<S, Request<ReqBody>>,
    request: Request<ReqBody>,
}

type Answer = dyn FnOnce(Result<Vec<u8>, AuthErrorKind>) -> BoxFuture<'static, Response<Bytes>> + Send;

impl<S, ReqBody> ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn forwarding(response: S::Future, set_cookie: SetCookie) -> Self {
        Self { state: State::Forwarding { response, set_cookie } }
    }

    pub(super) fn pending(
        outcome: BoxFuture<'static, Result<Grant, Rejection>>,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let held = Box::new(Held { ready: ReadyOneshot::new(inner), request });
        Self { state: State::Pending { outcome, held: Some(held) } }
    }

    pub(super) fn reading<F>(body: ReqBody, answer: F) -> Self
    where
        ReqBody: Body,
        F: FnOnce(Result<Vec<u8>, AuthErrorKind>) -> BoxFuture<'static, Response<Bytes>> + Send + 'static,
    {
        Self { state: State::Reading { body: Box::pin(ReadBody::new(body)), answer: Some(Box::new(answer)) } }
    }

    pub(super) fn answering(response: BoxFuture<'static, Response<Bytes>>) -> Self {
        Self { state: State::Answering { response } }
    }

    pub(super) fn rejected(response: Response<Bytes>) -> Self {
        Self { state: State::Rejected { response: Some(Box::new(response)) } }
    }
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
                    return Poll::Ready(ready!(response.poll(cx)).map(|response| deliver(response, set_cookie)));
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
                            let response = rejected(rejection, is_grpc(held.request.headers()));
                            return Poll::Ready(Ok(response.map(ResponseBody::own)));
                        }
                    }
                }
                StateProj::Readying { held, set_cookie } => {
                    let ready = &mut held.as_mut().expect(POLLED_AFTER_READY).ready;
                    let mut inner = ready!(Pin::new(ready).poll(cx))?;
                    let Held { request, .. } = *held.take().expect(POLLED_AFTER_READY);
                    State::Forwarding { response: inner.call(request), set_cookie: std::mem::take(set_cookie) }
                }
                StateProj::Reading { body, answer } => {
                    let body = ready!(body.as_mut().poll(cx));
                    let answer = answer.take().expect("this state ends with the body");
                    State::Answering { response: answer(body) }
                }
                StateProj::Answering { response } => {
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

fn deliver<B>(response: Response<B>, set_cookie: &mut SetCookie) -> Response<ResponseBody<B>> {
    // The response is on its way when its head is: taken, so that a future that is kept around holds nothing.
    let set_cookie = std::mem::take(set_cookie).into_fields();
    let mut response = response.map(ResponseBody::inner);
    if !set_cookie.is_empty() {
        add_to_response(response.headers_mut(), &set_cookie);
        vary_by_cookie(response.headers_mut());
    }
    response
}

const POLLED_AFTER_READY: &str = "a future is not polled after it is ready";
