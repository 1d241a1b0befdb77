//! Answers, and the ways in which their bytes reach the client.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio::time::{Interval, interval};

use super::server::Line;

/// What a call is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Bytes>,
    pub(super) delivery: Delivery,
}

/// How an answer is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As it is.
    Whole,
    /// Half of the body, then a reset.
    ResetHalfway,
    /// The whole body under a `content-length` that promises more, then the connection closes.
    ClosedEarly,
    /// One byte per second, then spaces.
    Trickling,
    /// Spaces without end.
    Endless,
    /// This many spaces.
    Padding(usize),
    /// Nothing, and the connection ends.
    Ended(Ending),
    /// Nothing, and the connection stays.
    Never,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// TCP FIN.
    Close,
    /// TCP RST.
    Reset,
}

impl Answer {
    pub(super) fn whole(response: Response<Bytes>) -> Self {
        Self { response, delivery: Delivery::Whole }
    }

    pub(super) fn none(delivery: Delivery) -> Self {
        Self { response: Response::default(), delivery }
    }

    /// Makes the response that hyper sends over a line, or `None` where the client is to get none.
    pub(super) fn over(self, line: &Arc<Line>) -> Option<Response<AnswerBody>> {
        let (mut head, mut bytes) = self.response.into_parts();
        let rest = match self.delivery {
            Delivery::Whole => match head.headers.get(CONTENT_LENGTH) {
                Some(length) if length != HeaderValue::from(bytes.len()) => Rest::End(Arc::clone(line), Ending::Close),
                _ => Rest::Nothing,
            },
            Delivery::ResetHalfway => {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                bytes.truncate(bytes.len() / 2);
                Rest::End(Arc::clone(line), Ending::Reset)
            }
            Delivery::ClosedEarly => {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len() + MISSING));
                Rest::End(Arc::clone(line), Ending::Close)
            }
            Delivery::Trickling => Rest::Trickle(interval(TRICKLE)),
            Delivery::Endless => Rest::Endless,
            Delivery::Padding(size) => Rest::Padding(size),
            Delivery::Ended(ending) => {
                line.end(ending);
                return None;
            }
            Delivery::Never => return None,
        };
        Some(Response::from_parts(head, AnswerBody { bytes, rest }))
    }
}

/// The body of an answer: its bytes, and what becomes of it afterwards.
#[derive(Debug)]
pub(super) struct AnswerBody {
    bytes: Bytes,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Nothing,
    End(Arc<Line>, Ending),
    Trickle(Interval),
    Endless,
    Padding(usize),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { bytes, rest } = &mut *self;
        let data = match rest {
            Rest::Trickle(ticks) => {
                std::task::ready!(ticks.poll_tick(cx));
                if bytes.is_empty() { Bytes::from_static(b" ") } else { bytes.split_to(1) }
            }
            _ if bytes.has_remaining() => std::mem::take(bytes),
            Rest::Nothing | Rest::Padding(0) => return Poll::Ready(None),
            // Both protocols of hyper write out what they have before the connection's own poll returns, which is
            // before the line looks at whether it has ended.
            Rest::End(line, ending) => {
                line.end(*ending);
                return Poll::Pending;
            }
            Rest::Endless => Bytes::from_static(&SPACES),
            Rest::Padding(left) => {
                let chunk = SPACES.len().min(*left);
                *left -= chunk;
                Bytes::from_static(&SPACES[..chunk])
            }
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Nothing => SizeHint::with_exact(self.bytes.len() as u64),
            Rest::Padding(left) => SizeHint::with_exact(left as u64),
            Rest::End(..) | Rest::Trickle(_) | Rest::Endless => SizeHint::new(),
        }
    }
}

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

const TRICKLE: Duration = Duration::from_secs(1);
const MISSING: usize = 64;
static SPACES: [u8; 16 * 1024] = [b' '; 16 * 1024];
