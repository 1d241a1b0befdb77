//! The refresh and logout routes, in the shapes that the browser SDK sends and reads.

use std::{
    collections::HashMap,
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use futures_util::ready;
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE, request::Parts};
use http_body::Body;
use http_body_util::{Full, LengthLimitError, Limited};
use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Sleep, sleep};

use super::rejection::{Rejector, empty, json, redirect, set_cookies};
use crate::{
    auth::CrossmintAuth,
    authorize::{Route, RouteRequest},
    csrf::RequestHead,
    error::AuthErrorKind,
    json::{media_type, object, trim},
    refresh::Refreshed,
    session::User,
    task_tracker::runtime,
};

impl CrossmintAuth {
    /// Answers a request for the refresh route, for an application that routes such requests itself.
    ///
    /// It is the counterpart of `handleCustomRefresh` in `@crossmint/server-sdk`, with all rules that the layer
    /// applies: only `POST` is allowed, pages of other sites are refused, the token in the body takes precedence over
    /// the cookie's, and the response sets or clears the cookies. The path is not looked at, and the policies are the
    /// configuration's. With axum, [`routes`](Self::routes) is shorter.
    ///
    /// ```
    /// use axum::{Router, extract::Request, routing::post};
    /// use tower_crossmint_auth::CrossmintAuth;
    ///
    /// fn app(auth: CrossmintAuth) -> Router {
    ///     Router::new().route("/session", post(|request: Request| async move { auth.handle_refresh(request).await }))
    /// }
    /// ```
    pub async fn handle_refresh<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.handle(Route::Refresh, request).await
    }

    /// Answers a request for the logout route, for an application that routes such requests itself.
    ///
    /// It is the counterpart of `logout` in `@crossmint/server-sdk`, with all rules that the layer applies, as
    /// [`handle_refresh`](Self::handle_refresh) does.
    pub async fn handle_logout<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.handle(Route::Logout, request).await
    }

    async fn handle<B>(&self, route: Route, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let view = RequestHead { method: &head.method, uri: &head.uri, headers: &head.headers, has_body: false };
        let rejector = Rejector::default();
        let response = match self.authorize_route(route, &view) {
            Ok(route) => {
                let exchange = Exchange { route, head, rejector };
                let body = if exchange.reads_body() { ReadBody::new(body).await } else { Ok(Vec::new()) };
                exchange.answer(body).await
            }
            Err(rejection) => rejector.reject(rejection, &head),
        };
        response.map(Full::new)
    }
}

/// A request for one of the two routes, without its body.
pub(super) struct Exchange {
    pub(super) route: RouteRequest,
    pub(super) head: Parts,
    pub(super) rejector: Rejector,
}

impl Exchange {
    /// Returns whether the body may contain a refresh token.
    ///
    /// A logout with a cookie needs none. Without one, a form is not taken for a token.
    pub(super) fn reads_body(&self) -> bool {
        match &self.route {
            RouteRequest::Refresh(_) => true,
            RouteRequest::Logout(logout) => logout.expects_token && is_json(&self.head.headers),
        }
    }

    /// Answers once Crossmint has answered or the time limit has passed.
    pub(super) async fn answer(self, body: Result<Vec<u8>, AuthErrorKind>) -> Response<Bytes> {
        let Self { route, head, rejector } = self;
        let token = body.and_then(|body| refresh_token(&head.headers, &body));
        let response = match route {
            RouteRequest::Refresh(refresh) => {
                let exposes_secret = refresh.exposes_secret();
                refresh.run(token).await.map(|refreshed| answer(&refreshed, exposes_secret))
            }
            RouteRequest::Logout(logout) => logout.run(token).await.map(|(set_cookie, location)| match location {
                Some(location) => redirect(location, &set_cookie),
                None => empty(&set_cookie),
            }),
        };
        response.unwrap_or_else(|rejection| rejector.reject(rejection, &head))
    }
}

fn answer(refreshed: &Refreshed, exposes_secret: bool) -> Response<Bytes> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        jwt: &'a str,
        refresh_token: Token<'a>,
        user: Option<&'a User>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Token<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        secret: Option<&'a str>,
        expires_at: &'a str,
    }
    let material = refreshed.material();
    let token = material.refresh_token();
    let (secret, expires_at) = (exposes_secret.then(|| token.secret()), token.expires_at().unwrap_or_default());
    let body = Body { jwt: material.jwt(), refresh_token: Token { secret, expires_at }, user: material.user() };
    let mut response = json(&body);
    set_cookies(response.headers_mut(), &refreshed.set_cookie);
    response
}

/// Finds the refresh token in a body. Returns `None` if the cookie's is to be used.
///
/// # Errors
///
/// Returns an error for a token in another content type than `application/json`, because a form on any site can send it
/// without a preflight, and for a body that is neither empty nor a JSON object with a string, null or no `refresh`.
pub(crate) fn refresh_token(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, AuthErrorKind> {
    #[derive(Deserialize)]
    struct Fields {
        refresh: Option<String>,
        /// Kept because serde_json limits the depth only of values that it does not skip.
        #[serde(flatten)]
        _rest: HashMap<String, Value>,
    }
    if std::str::from_utf8(body).is_ok_and(|text| trim(text).is_empty()) {
        return Ok(None);
    }
    match object(body) {
        Some(Fields { refresh: None, .. }) => Ok(None),
        _ if !is_json(headers) => Err(AuthErrorKind::UnsupportedMediaType),
        Some(Fields { refresh, .. }) => Ok(refresh),
        None => Err(AuthErrorKind::InvalidBody),
    }
}

/// Returns whether there is exactly one content type: which one of two counts is ambiguous.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (only, None) = (types.next(), types.next()) else { return false };
    only.and_then(media_type).as_deref() == Some("application/json")
}

pin_project! {
    /// Reads a body of at most [`MAX_BODY`] bytes within [`BODY_TIMEOUT`].
    ///
    /// Copies the frames into one buffer: a list of many small frames would take far more memory than their bytes.
    pub(super) struct ReadBody<B> {
        #[pin]
        body: Limited<B>,
        // Set by the first poll, because a service may be called outside of the runtime that polls its future.
        #[pin]
        deadline: Option<Sleep>,
        buffer: Vec<u8>,
        // Declared by the client, in `Content-Length` for instance: there is no need to wait for the bytes.
        is_too_large: bool,
    }
}

impl<B: Body> ReadBody<B> {
    pub(super) fn new(body: B) -> Self {
        let is_too_large = body.size_hint().lower() > MAX_BODY as u64;
        Self { body: Limited::new(body, MAX_BODY), deadline: None, buffer: Vec::new(), is_too_large }
    }
}

impl<B> Future for ReadBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Result<Vec<u8>, AuthErrorKind>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if *this.is_too_large {
            return Poll::Ready(Err(AuthErrorKind::BodyTooLarge));
        }
        if this.deadline.is_none() {
            // `sleep` panics outside of a runtime.
            runtime().map_err(|error| error.kind())?;
            this.deadline.set(Some(sleep(BODY_TIMEOUT)));
        }
        if this.deadline.as_pin_mut().is_some_and(|deadline| deadline.poll(cx).is_ready()) {
            return Poll::Ready(Err(AuthErrorKind::BodyTimeout));
        }
        while let Some(frame) = ready!(this.body.as_mut().poll_frame(cx)) {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() { AuthErrorKind::BodyTooLarge } else { AuthErrorKind::InvalidBody }
            })?;
            // Trailers are ignored.
            if let Ok(data) = frame.into_data() {
                this.buffer.put(data);
            }
        }
        Poll::Ready(Ok(std::mem::take(this.buffer)))
    }
}

const MAX_BODY: usize = 16 << 10;

/// Long enough for slow networks. It limits how long a client that sends nothing occupies a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{super::body::ResponseBody, *};
    use crate::{
        session::{AuthMaterial, RefreshToken, Session, Verified},
        test_support::deep,
    };

    fn parse(content_type: Option<&'static str>, body: &[u8]) -> Result<Option<String>, AuthErrorKind> {
        let value = content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_str(value).unwrap()));
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
            ("a type behind a space of Unicode", Some("\u{a0}application/json"), b"x", Err(UnsupportedMediaType)),
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

    #[test]
    fn no_response_prints_what_it_carries() {
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        let session = Session::new(verified, AuthMaterial::new("the-jwt", RefreshToken::new("the-secret")));
        let mut field = HeaderValue::from_static("jwt=the-jwt");
        field.set_sensitive(true);
        let refreshed = Refreshed::new(session, [field.clone(), field], 0);
        let response: Response<ResponseBody<()>> = answer(&refreshed, true).map(ResponseBody::own);
        let printed = format!("{response:?} {response:#?} {refreshed:?}");
        assert!(!printed.contains("the-"), "{printed}");
    }
}
