//! The body of the refresh route: read within limits, taken for a token only where a script of ours can have sent it.

use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use futures_util::ready;
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::Body;
use pin_project_lite::pin_project;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep},
};

use crate::error::AuthErrorKind;

pin_project! {
    /// Reads a body of at most [`MAX_BODY`] bytes within [`TIME_LIMIT`].
    ///
    /// One buffer grows with what has arrived, whatever the size of the frames it arrives in.
    pub(crate) struct ReadBody<B> {
        #[pin]
        body: B,
        // Set by the first poll: a service may be called outside of the runtime that polls its future.
        #[pin]
        deadline: Option<Sleep>,
        buffer: Vec<u8>,
    }
}

impl<B: Body> ReadBody<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, deadline: None, buffer: Vec::new() }
    }
}

impl<B: Body> Future for ReadBody<B> {
    type Output = Result<Vec<u8>, AuthErrorKind>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.body.size_hint().lower() > MAX_BODY as u64 {
            return Poll::Ready(Err(AuthErrorKind::BodyTooLarge));
        }
        if this.deadline.is_none() {
            // Tokio panics where it has no runtime.
            if Handle::try_current().is_err() {
                return Poll::Ready(Err(AuthErrorKind::Unavailable));
            }
            this.deadline.set(Some(sleep(TIME_LIMIT)));
        }
        if this.deadline.as_pin_mut().is_some_and(|deadline| deadline.poll(cx).is_ready()) {
            return Poll::Ready(Err(AuthErrorKind::BodyTimeout));
        }
        loop {
            let mut data = match ready!(this.body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Ok(std::mem::take(this.buffer))),
                Some(Err(_)) => return Poll::Ready(Err(AuthErrorKind::InvalidBody)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            while data.has_remaining() {
                let chunk = data.chunk();
                if this.buffer.len() + chunk.len() > MAX_BODY {
                    return Poll::Ready(Err(AuthErrorKind::BodyTooLarge));
                }
                this.buffer.extend_from_slice(chunk);
                let read = chunk.len();
                data.advance(read);
            }
        }
    }
}

/// Finds the token in a body; `None` means that the cookie's counts.
///
/// # Errors
///
/// A token in another content type than `application/json` could come from a form on any site, without a preflight. What
/// is neither empty nor a JSON object with a string (or no) `refresh` is refused, instead of falling back to the cookie.
pub(crate) fn refresh_token(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, AuthErrorKind> {
    let text = std::str::from_utf8(body).map(|text| text.trim_matches([' ', '\t', '\r', '\n'])).ok();
    if text == Some("") {
        return Ok(None);
    }
    let fields: Option<Fields> =
        text.filter(|text| text.starts_with('{')).and_then(|text| serde_json::from_str(text).ok());
    match fields {
        Some(Fields { refresh: None, .. }) => Ok(None),
        _ if !is_json(headers) => Err(AuthErrorKind::UnsupportedMediaType),
        Some(Fields { refresh, .. }) => Ok(refresh),
        None => Err(AuthErrorKind::InvalidBody),
    }
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    refresh: Option<String>,
    /// Looked at only for its depth: serde_json limits that of what it keeps, not of what it skips.
    #[serde(flatten)]
    _rest: HashMap<String, Value>,
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = only.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

const MAX_BODY: usize = 16 << 10;
const TIME_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::deep;

    fn parse(content_type: Option<&'static str>, body: &[u8]) -> Result<Option<String>, AuthErrorKind> {
        let value = content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)));
        refresh_token(&value.into_iter().collect(), body)
    }

    #[test]
    fn a_body_is_a_token_or_nothing_or_refused() {
        use AuthErrorKind::{InvalidBody, UnsupportedMediaType};
        let json = Some("application/json");
        type Case = (&'static str, Option<&'static str>, &'static [u8], Result<Option<String>, AuthErrorKind>);
        let token = || Ok(Some("t".to_owned()));
        let cases: &[Case] = &[
            ("a token", json, br#"{"refresh":"t"}"#, token()),
            ("a charset", Some("Application/JSON; charset=utf-8"), br#"{"refresh":"t"}"#, token()),
            ("unknown members", json, br#" {"x":[{}],"refresh":"t"} "#, token()),
            ("an empty object", json, b"{}", Ok(None)),
            ("null", json, br#"{"refresh":null}"#, Ok(None)),
            ("nothing", None, b"", Ok(None)),
            ("white space", json, b" \r\n", Ok(None)),
            ("an empty object of any type", Some("text/plain"), b"{}", Ok(None)),
            ("a form", Some("text/plain"), br#"{"refresh":"t"}"#, Err(UnsupportedMediaType)),
            ("no type", None, br#"{"refresh":"t"}"#, Err(UnsupportedMediaType)),
            ("a trick", Some("text/plain; application/json"), br#"{"refresh":"t"}"#, Err(UnsupportedMediaType)),
            ("a longer type", Some("application/jsonx"), br#"{"refresh":"t"}"#, Err(UnsupportedMediaType)),
            ("an encoded form", Some("application/x-www-form-urlencoded"), b"refresh=t", Err(UnsupportedMediaType)),
            ("a number", json, br#"{"refresh":5}"#, Err(InvalidBody)),
            ("twice", json, br#"{"refresh":"t","refresh":"t"}"#, Err(InvalidBody)),
            ("an array", json, br#"["t"]"#, Err(InvalidBody)),
            ("a string", json, br#""t""#, Err(InvalidBody)),
            ("cut off", json, br#"{"refresh":"t"#, Err(InvalidBody)),
            ("more behind it", json, br#"{"refresh":"t"}x"#, Err(InvalidBody)),
            ("white space that JSON does not know", json, "\u{3000}{\"refresh\":\"t\"}".as_bytes(), Err(InvalidBody)),
            ("nothing but such", json, b"\x0b", Err(InvalidBody)),
            ("bad UTF-8", json, b"{\"refresh\":\"\xff\"}", Err(InvalidBody)),
        ];
        for (name, content_type, body, expected) in cases {
            assert_eq!(parse(*content_type, body), *expected, "{name}");
        }
    }

    #[test]
    fn deep_nesting_in_a_body_does_not_exhaust_the_stack() {
        deep::on_a_small_stack(|| {
            let deep = deep::arrays(8_000);
            for body in [format!(r#"{{"x":{deep}}}"#), format!(r#"{{"refresh":{deep}}}"#), deep] {
                assert_eq!(parse(Some("application/json"), body.as_bytes()), Err(AuthErrorKind::InvalidBody));
            }
        });
    }
}
