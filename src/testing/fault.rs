//! The faults that an endpoint can be made to show.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{Answer, Delivery, Ending, json_response};

/// A way in which an endpoint fails.
///
/// A refresh token is spent, and a session ended, only where the call is carried out: [`Fault::commits`] says for which
/// faults it is. Where the connection is reset or closed over HTTP/2, all of its streams are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A status, 200 to 999, with the JSON body `{"message": "…"}`: the API's own verdict, or its failure.
    Status(u16),
    /// A status, 200 to 999, with an HTML page: what a load balancer or a geo block answers.
    StatusHtml(u16),
    /// An answer of the test's own making, sent as it is; see also [`Fault::json`] and [`Fault::response`].
    Response {
        /// The status, 200 to 999.
        status: u16,
        /// The headers, none of which is added to save `content-length` and `date`.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// A redirect with this status and `location`.
    Redirect(u16, String),
    /// A wait, and then the true answer. The call is carried out after the wait, even when the client is gone by then.
    Delay(Duration),
    /// No answer ever. The call is not carried out.
    Hang,
    /// The call is carried out, then no answer ever: the time-out of which the client cannot tell what it did.
    HangAfterCommit,
    /// The connection is reset before the status line. The call is not carried out.
    Reset,
    /// The call is carried out, then the connection is reset before the status line: the answer is lost.
    LoseAnswer,
    /// The call is carried out, then the connection is reset in the middle of the answer's body.
    ResetMidBody,
    /// The call is carried out and answered in full, but `content-length` announces more, and the connection closes.
    EarlyEof,
    /// The call is carried out and answered one byte per second; spaces follow the answer without end.
    SlowBody,
    /// Status 200 and `application/json`, with a body that is not JSON.
    Garbage,
    /// Status 200 and `application/json`, with an empty body.
    Empty,
    /// Status 200 and `application/json`, with spaces without end, as fast as they are read.
    Endless,
    /// Status 200 and `application/json`, with this many spaces, in bytes.
    Huge(usize),
    /// Status 200 and `content-encoding: gzip`, with 31 KiB that inflate to 31 MiB of spaces.
    CompressedBomb,
}

impl Fault {
    /// Makes an answer with a JSON body.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a json! literal is what callers have")]
    pub fn json(status: u16, body: Value) -> Self {
        Self::response(status, &[("content-type", JSON)], body.to_string())
    }

    /// Makes an answer with any headers and any body.
    #[must_use]
    pub fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Self::Response { status, headers: headers.collect(), body: body.into() }
    }

    /// Says whether the call is carried out all the same: a refresh token is spent, a session is ended.
    #[must_use]
    pub const fn commits(&self) -> bool {
        match self {
            Self::Delay(_)
            | Self::HangAfterCommit
            | Self::LoseAnswer
            | Self::ResetMidBody
            | Self::EarlyEof
            | Self::SlowBody => true,
            Self::Status(_)
            | Self::StatusHtml(_)
            | Self::Response { .. }
            | Self::Redirect(..)
            | Self::Hang
            | Self::Reset
            | Self::Garbage
            | Self::Empty
            | Self::Endless
            | Self::Huge(_)
            | Self::CompressedBomb => false,
        }
    }

    /// Refuses, in the test that made it, a fault that HTTP cannot carry.
    #[track_caller]
    pub(super) fn checked(self) -> Self {
        match &self {
            Self::Status(code) | Self::StatusHtml(code) => {
                final_status(*code);
            }
            Self::Response { status, headers, .. } => {
                final_status(*status);
                for (name, value) in headers {
                    header(name, value);
                }
            }
            Self::Redirect(code, location) => {
                final_status(*code);
                header("location", location);
            }
            _ => {}
        }
        self
    }

    /// Answers a call; `carry_out` gives the true answer, and is called for the faults that commit.
    pub(super) fn answer(self, carry_out: impl FnOnce() -> Response<Bytes>) -> Answer {
        match self {
            Self::Status(code) => {
                Answer::whole(json_response(final_status(code), &json!({ "message": "an injected fault" })))
            }
            Self::StatusHtml(code) => {
                Answer::whole(filled(final_status(code), HTML, "<!doctype html><title>an injected fault</title>"))
            }
            Self::Response { status, headers, body } => {
                let mut response = Response::new(body);
                *response.status_mut() = final_status(status);
                response.headers_mut().extend(headers.iter().map(|(name, value)| header(name, value)));
                Answer::whole(response)
            }
            Self::Redirect(code, location) => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = final_status(code);
                response.headers_mut().extend([header(LOCATION.as_str(), &location)]);
                Answer::whole(response)
            }
            Self::Delay(_) => Answer::whole(carry_out()),
            Self::Hang => Answer::none(Delivery::Never),
            Self::HangAfterCommit => {
                carry_out();
                Answer::none(Delivery::Never)
            }
            Self::Reset => Answer::none(Delivery::Ended(Ending::Reset)),
            Self::LoseAnswer => {
                carry_out();
                Answer::none(Delivery::Ended(Ending::Reset))
            }
            Self::ResetMidBody => Answer { response: carry_out(), delivery: Delivery::ResetHalfway },
            Self::EarlyEof => Answer { response: carry_out(), delivery: Delivery::ClosedEarly },
            Self::SlowBody => Answer { response: carry_out(), delivery: Delivery::Trickling },
            Self::Garbage => Answer::whole(filled(StatusCode::OK, JSON, "this is \0 not { JSON")),
            Self::Empty => Answer::whole(filled(StatusCode::OK, JSON, "")),
            Self::Endless => Answer { response: filled(StatusCode::OK, JSON, ""), delivery: Delivery::Endless },
            Self::Huge(size) => {
                Answer { response: filled(StatusCode::OK, JSON, ""), delivery: Delivery::Padding(size) }
            }
            Self::CompressedBomb => {
                let mut response = filled(StatusCode::OK, JSON, bomb());
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                Answer::whole(response)
            }
        }
    }
}

fn filled(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[track_caller]
fn final_status(code: u16) -> StatusCode {
    assert!((200..=999).contains(&code), "{code} is not the status of a final answer (200 to 999)");
    StatusCode::from_u16(code).expect("every number from 200 to 999 is a status")
}

#[track_caller]
fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let (Ok(name), Ok(value)) = (name.parse(), value.parse()) else {
        panic!("{name:?}: {value:?} is not a header");
    };
    (name, value)
}

/// Makes a gzip file of a single block whose only symbols are a space and its repetition, 1032 times per zero byte.
fn bomb() -> Bytes {
    let mut file = Vec::with_capacity(BOMB_HEAD.len() + BOMB_ZEROS + BOMB_TAIL.len());
    file.extend_from_slice(&BOMB_HEAD);
    file.resize(BOMB_HEAD.len() + BOMB_ZEROS, 0);
    file.extend_from_slice(&BOMB_TAIL);
    file.into()
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// The gzip header (RFC 1952), the block's code tables (RFC 1951, section 3.2.7) and the first space.
const BOMB_HEAD: [u8; 27] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xed, 0xc1, 0x31, 0x01, 0x00, 0x00, 0x00, 0xc2, 0xa0,
    0x2a, 0xeb, 0x9f, 0xd2, 0x10, 0xbe, 0x40, 0x01,
];
/// The end of the block, the CRC-32 and the length of exactly `BOMB_ZEROS` zero bytes inflated.
const BOMB_TAIL: [u8; 10] = [0x7c, 0x06, 0x8d, 0xda, 0x4e, 0x4c, 0x48, 0xe4, 0xf3, 0x01];
const BOMB_ZEROS: usize = 31 * 1024;
