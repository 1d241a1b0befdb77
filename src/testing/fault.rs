//! The faults that a test can inject into an endpoint.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    answer::{Answer, Delivery},
    connection::Ending,
};

/// A way in which an endpoint fails.
///
/// A refresh token is spent, or a session revoked, only if the call is executed; [`Fault::commits`] returns whether it
/// is. A fault that resets or closes an HTTP/2 connection affects all of its streams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Responds with a status, 200 to 999, and the JSON body `{"message": "…"}`, as the API itself does.
    Status(u16),
    /// Responds with a status, 200 to 999, and an HTML page, as a load balancer or a geo block does.
    StatusHtml(u16),
    /// Responds with exactly this response; see also [`Fault::json`] and [`Fault::response`].
    Response {
        /// The status, 200 to 999.
        status: u16,
        /// The headers. Only `content-length` and `date` are added to them.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// Redirects with this status and `location`.
    Redirect(u16, String),
    /// Waits, then executes the call and responds as usual. The call is executed even if the client has disconnected.
    Delay(Duration),
    /// Never responds, and does not execute the call.
    Hang,
    /// Executes the call, but never responds: the client times out, and cannot know whether the call took effect.
    HangAfterCommit,
    /// Resets the connection before the status line, and does not execute the call.
    Reset,
    /// Executes the call, then resets the connection before the status line: the response is lost.
    LoseAnswer,
    /// Executes the call, then resets the connection in the middle of the response body.
    ResetMidBody,
    /// Executes the call and sends the whole response, but announces a longer body, and closes the connection.
    EarlyEof,
    /// Executes the call and sends the response body at one byte per second, followed by endless spaces.
    SlowBody,
    /// Responds with status 200, `application/json` and a body that is not JSON.
    Garbage,
    /// Responds with status 200, `application/json` and an empty body.
    Empty,
    /// Responds with status 200, `application/json` and endless spaces, as fast as the client reads them.
    Endless,
    /// Responds with status 200, `application/json` and this many bytes of spaces.
    Huge(usize),
    /// Responds with status 200, `content-encoding: gzip` and 31 KiB that decompress to 31 MiB of spaces.
    CompressedBomb,
}

impl Fault {
    /// Creates a response with a JSON body.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers pass json! literals")]
    pub fn json(status: u16, body: Value) -> Self {
        Self::response(status, &[("content-type", JSON)], body.to_string())
    }

    /// Creates a response with any headers and any body.
    #[must_use]
    pub fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Self::Response { status, headers: headers.collect(), body: body.into() }
    }

    /// Returns whether the call is executed despite the fault: a refresh token is spent, a session is revoked.
    #[must_use]
    pub const fn commits(&self) -> bool {
        matches!(
            self,
            Self::Delay(_)
                | Self::HangAfterCommit
                | Self::LoseAnswer
                | Self::ResetMidBody
                | Self::EarlyEof
                | Self::SlowBody
        )
    }

    /// Returns the fault itself.
    ///
    /// # Panics
    ///
    /// Panics, at the location of the caller, if the fault has an invalid status or header.
    #[track_caller]
    pub(crate) fn checked(self) -> Self {
        self.fixed_response();
        self
    }

    /// Answers a call, which `execute` executes if the fault commits.
    pub(crate) fn answer(&self, execute: impl FnOnce() -> Response<Bytes>) -> Answer {
        let response = if self.commits() { execute() } else { self.fixed_response() };
        let delivery = match self {
            Self::Hang | Self::HangAfterCommit => Delivery::Never,
            Self::Reset | Self::LoseAnswer => Delivery::Ended(Ending::Reset),
            Self::ResetMidBody => Delivery::ResetHalfway,
            Self::EarlyEof => Delivery::ClosedEarly,
            Self::SlowBody => Delivery::Trickling,
            Self::Endless => Delivery::Endless,
            Self::Huge(size) => Delivery::Padding(*size),
            _ => Delivery::Whole,
        };
        Answer { response, delivery }
    }

    /// Builds the response of a fault that does not commit; for the others, it is empty.
    #[track_caller]
    fn fixed_response(&self) -> Response<Bytes> {
        let fixed = match self {
            Self::Response { status, headers, body } => {
                let mut response = Response::new(body.clone());
                *response.status_mut() = final_status(*status);
                for (name, value) in headers {
                    let (name, value) = header(name, value);
                    response.headers_mut().append(name, value);
                }
                return response;
            }
            Self::Status(code) => Self::json(*code, json!({ "message": "an injected fault" })),
            Self::StatusHtml(code) => {
                Self::response(*code, &[("content-type", HTML)], "<!doctype html><title>an injected fault</title>")
            }
            Self::Redirect(code, location) => Self::response(*code, &[("location", location)], ""),
            Self::Garbage => Self::response(200, &[("content-type", JSON)], "this is \0 not { JSON"),
            Self::Empty | Self::Endless | Self::Huge(_) => Self::response(200, &[("content-type", JSON)], ""),
            Self::CompressedBomb => {
                Self::response(200, &[("content-type", JSON), ("content-encoding", "gzip")], bomb())
            }
            _ => return Response::default(),
        };
        fixed.fixed_response()
    }
}

#[track_caller]
fn final_status(code: u16) -> StatusCode {
    assert!((200..=999).contains(&code), "{code} is not the status of a final response (200 to 999)");
    StatusCode::from_u16(code).expect("every number from 200 to 999 is a status")
}

#[track_caller]
fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let (Ok(name), Ok(value)) = (name.parse(), value.parse()) else {
        panic!("{name:?}: {value:?} is not a valid header");
    };
    (name, value)
}

/// Builds a gzip file of a single block whose only symbols are a space and its repetition, 1032 times per zero byte.
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
