//! Responses, and how they are delivered to the client.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio::time::{Interval, interval};

use super::connection::{Connection, Ending};

/// A response and the way in which it is delivered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Bytes>,
    pub(crate) delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As it is.
    Whole,
    /// Half of the body, then a reset.
    ResetHalfway,
    /// The whole body under a `content-length` that announces more, then the connection closes.
    ClosedEarly,
    /// One byte per second, then endless spaces at the same rate.
    Trickling,
    /// The body, then endless spaces.
    Endless,
    /// The body, then this many spaces.
    Padding(usize),
    /// No response; the connection ends.
    Ended(Ending),
    /// No response; the connection stays open.
    Never,
}

impl Answer {
    pub(crate) fn whole(response: Response<Bytes>) -> Self {
        Self { response, delivery: Delivery::Whole }
    }

    /// Builds the response that hyper sends over a connection, or returns `None` if the client gets none.
    pub(crate) fn into_response(self, connection: &Arc<Connection>) -> Option<Response<AnswerBody>> {
        let (mut head, mut bytes) = self.response.into_parts();
        let end = |ending| Tail::End(Arc::clone(connection), ending);
        let tail = match self.delivery {
            Delivery::Whole => match head.headers.get(CONTENT_LENGTH) {
                Some(length) if length != HeaderValue::from(bytes.len()) => end(Ending::Close),
                _ => Tail::Padding(0),
            },
            Delivery::ResetHalfway => {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                bytes.truncate(bytes.len() / 2);
                end(Ending::Reset)
            }
            Delivery::ClosedEarly => {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len() + MISSING));
                end(Ending::Close)
            }
            Delivery::Trickling => Tail::Trickle(interval(TRICKLE)),
            Delivery::Endless => Tail::Endless,
            Delivery::Padding(size) => Tail::Padding(size),
            Delivery::Ended(ending) => {
                connection.end(ending);
                return None;
            }
            Delivery::Never => return None,
        };
        Some(Response::from_parts(head, AnswerBody { bytes, tail }))
    }
}

/// The body of a response: its bytes, and what follows them.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    bytes: Bytes,
    tail: Tail,
}

#[derive(Debug)]
enum Tail {
    End(Arc<Connection>, Ending),
    Trickle(Interval),
    Endless,
    Padding(usize),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { bytes, tail } = &mut *self;
        let data = match tail {
            Tail::Trickle(ticks) => {
                ready!(ticks.poll_tick(cx));
                if bytes.is_empty() { Bytes::from_static(b" ") } else { bytes.split_to(1) }
            }
            _ if !bytes.is_empty() => mem::take(bytes),
            // For both protocols, hyper flushes its buffers before its connection future returns `Pending`, and only
            // then is the connection's ending observed.
            Tail::End(connection, ending) => {
                connection.end(*ending);
                return Poll::Pending;
            }
            Tail::Endless => Bytes::from_static(&SPACES),
            Tail::Padding(0) => return Poll::Ready(None),
            Tail::Padding(left) => {
                let chunk = SPACES.len().min(*left);
                *left -= chunk;
                Bytes::from_static(&SPACES[..chunk])
            }
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.tail {
            Tail::Padding(left) => SizeHint::with_exact((self.bytes.len() + left) as u64),
            Tail::End(..) | Tail::Trickle(_) | Tail::Endless => SizeHint::new(),
        }
    }
}

pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

const TRICKLE: Duration = Duration::from_secs(1);
const MISSING: usize = 64;
static SPACES: [u8; 16 * 1024] = [b' '; 16 * 1024];
