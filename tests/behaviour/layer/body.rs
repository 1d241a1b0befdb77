//! The response body.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_crossmint_auth::{CrossmintAuthLayer, testing::MockCrossmint};

use crate::{
    layer::service::{Inner, Strict},
    support::direct::{auth, request},
};

#[tokio::test]
async fn a_body_passes_frame_by_frame() {
    use Piece::{Data, Error, Trailers};
    let mut range = SizeHint::new();
    range.set_lower(1);
    range.set_upper(9);
    let cases: [(&str, &[Piece], SizeHint); 6] = [
        ("empty", &[], SizeHint::with_exact(0)),
        ("two frames", &[Data("abc"), Data("def")], SizeHint::with_exact(6)),
        ("trailers", &[Data("abc"), Trailers("x")], SizeHint::default()),
        ("only trailers", &[Trailers("x")], SizeHint::default()),
        ("a range", &[Data("abc")], range),
        ("an error", &[Data("abc"), Error("broken")], SizeHint::default()),
    ];
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    for (name, script, hint) in cases {
        for lifetime in [60, -60] {
            let body = Scripted { script: script.to_vec().into(), hint };
            let service = layer
                .layer(service_fn(move |_: Request<Inner>| ready(Ok::<_, Infallible>(Response::new(body.clone())))));
            let cookie = mock.session("alice").jwt_lifetime(lifetime).create().cookie_header();
            let mut body = service.oneshot(request(Method::GET, "/", &cookie)).await.unwrap().into_body();
            for piece in script {
                assert!(!body.is_end_stream(), "{name}");
                assert_eq!(
                    (body.size_hint().lower(), body.size_hint().upper()),
                    (hint.lower(), hint.upper()),
                    "{name}"
                );
                assert_eq!(Piece::of(body.frame().await.unwrap()), *piece, "{name}");
            }
            assert!(body.is_end_stream(), "{name}");
            assert!(body.frame().await.is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn the_layers_own_body_reports_its_size_and_its_end() {
    let mock = MockCrossmint::start().await;
    let service = CrossmintAuthLayer::from(auth(&mock)).layer(Strict::default());
    let mut refused = service.clone().oneshot(request(Method::GET, "/", "")).await.unwrap().into_body();
    let size = refused.size_hint().exact().unwrap();
    assert!(!refused.is_end_stream());
    assert_eq!(refused.frame().await.unwrap().unwrap().into_data().unwrap().len() as u64, size);
    assert_eq!((refused.is_end_stream(), refused.size_hint().exact()), (true, Some(0)));
    assert!(refused.frame().await.is_none());
    let logged_out = service.oneshot(request(Method::POST, "/api/auth/logout", "")).await.unwrap().into_body();
    assert!(logged_out.is_end_stream());
}

/// A body that follows a script.
#[derive(Clone)]
struct Scripted {
    script: VecDeque<Piece>,
    hint: SizeHint,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece {
    Data(&'static str),
    Trailers(&'static str),
    Error(&'static str),
}

impl Piece {
    fn of(frame: Result<Frame<Bytes>, &'static str>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().leak();
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => Self::Data(text(&data)),
            Ok(Err(trailers)) => Self::Trailers(text(trailers.into_trailers().unwrap()["x-script"].as_bytes())),
            Err(error) => Self::Error(error),
        }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.script.pop_front().map(|piece| match piece {
            Piece::Data(text) => Ok(Frame::data(Bytes::from(text))),
            Piece::Trailers(text) => {
                let field = (HeaderName::from_static("x-script"), HeaderValue::from_static(text));
                Ok(Frame::trailers(HeaderMap::from_iter([field])))
            }
            Piece::Error(error) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.script.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
