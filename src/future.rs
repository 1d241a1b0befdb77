//! The future of one request.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, ready};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_service::Service;

use crate::{
    auth::{SetCookie, Verdict},
    error::AuthErrorKind,
    refresh_body::ReadBody,
    response::{self, ResponseBody},
    service::is_grpc,
};

pin_project! {
    /// The response future of [`CrossmintAuthService`](crate::CrossmintAuthService).
    ///
    /// Dropping it gives up the response, and nothing else: a renewal that it waits for goes on.
    pub struct ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, ReqBody>,
    }
}

pin_project! {
    // All but the first are boxed: it is nearly every request's, and should cost no memory on behalf of the others.
    #[project = StateProj]
    enum State<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        Forwarding { #[pin] response: S::Future, set_cookie: SetCookie },
        Deciding { verdict: BoxFuture<'static, Verdict>, held: Option<Box<Held<S, ReqBody>>> },
        Resuming { response: Pin<Box<Oneshot<S, Request<ReqBody>>>>, set_cookie: SetCookie },
        Reading { body: Pin<Box<ReadBody<ReqBody>>>, answer: Option<Box<Answer>> },
        Answering { response: BoxFuture<'static, Response<Bytes>> },
    }
}

/// What waits for a verdict.
struct Held<S, ReqBody> {
    inner: S,
    request: Request<ReqBody>,
}

type Answer = dyn FnOnce(Result<Vec<u8>, AuthErrorKind>) -> BoxFuture<'static, Response<Bytes>> + Send;

impl<S, ReqBody> ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(crate) fn forwarding(response: S::Future, set_cookie: SetCookie) -> Self {
        Self { state: State::Forwarding { response, set_cookie } }
    }

    pub(crate) fn deciding(verdict: BoxFuture<'static, Verdict>, inner: S, request: Request<ReqBody>) -> Self {
        Self { state: State::Deciding { verdict, held: Some(Box::new(Held { inner, request })) } }
    }

    pub(crate) fn reading<F>(body: ReqBody, answer: F) -> Self
    where
        ReqBody: Body,
        F: FnOnce(Result<Vec<u8>, AuthErrorKind>) -> BoxFuture<'static, Response<Bytes>> + Send + 'static,
    {
        Self { state: State::Reading { body: Box::pin(ReadBody::new(body)), answer: Some(Box::new(answer)) } }
    }

    pub(crate) fn answering(response: BoxFuture<'static, Response<Bytes>>) -> Self {
        Self { state: State::Answering { response } }
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Forwarding { response, set_cookie } => {
                    return Poll::Ready(ready!(response.poll(cx)).map(|response| pass_on(response, set_cookie)));
                }
                StateProj::Resuming { response, set_cookie } => {
                    return Poll::Ready(
                        ready!(response.as_mut().poll(cx)).map(|response| pass_on(response, set_cookie)),
                    );
                }
                StateProj::Answering { response } => {
                    return Poll::Ready(Ok(ready!(response.as_mut().poll(cx)).map(ResponseBody::own)));
                }
                StateProj::Deciding { verdict, held } => {
                    let verdict = ready!(verdict.as_mut().poll(cx));
                    let Held { inner, mut request } = *held.take().expect("a future is not polled after it is ready");
                    match verdict {
                        Verdict::Forward(passage) => {
                            let set_cookie = passage.enter(request.extensions_mut());
                            State::Resuming { response: Box::pin(Oneshot::new(inner, request)), set_cookie }
                        }
                        Verdict::Rejected(rejection) => {
                            let response = response::rejected(rejection, is_grpc(request.headers()));
                            return Poll::Ready(Ok(response.map(ResponseBody::own)));
                        }
                    }
                }
                StateProj::Reading { body, answer } => {
                    let body = ready!(body.as_mut().poll(cx));
                    let answer = answer.take().expect("this state ends with the body");
                    State::Answering { response: answer(body) }
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

fn pass_on<B>(response: Response<B>, set_cookie: &mut SetCookie) -> Response<ResponseBody<B>> {
    // The response is on its way when its head is: taken, so that a future that is kept around holds nothing.
    let set_cookie = std::mem::take(set_cookie);
    let mut response = response.map(ResponseBody::inner);
    response::add_cookies(response.headers_mut(), &set_cookie.into_fields());
    response
}
