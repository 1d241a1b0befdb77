//! The layers of tower-http around this one, and inside of it: each row of the table in `docs::placement`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use http::{HeaderValue, Method, StatusCode, header};
use tower::ServiceBuilder;
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthLayer,
    testing::{Endpoint, MockCrossmint},
};
use tower_http::{
    compression::CompressionLayer,
    cors::CorsLayer,
    csrf::CsrfLayer,
    timeout::TimeoutLayer,
    trace::{OnResponse, TraceLayer},
};

use crate::support::{
    answer::REFRESH_ROUTE,
    app::who,
    clock::pass,
    direct::{auth, get, request, send},
    mock::expired,
};

const ORIGIN: &str = "https://app.example.com";

fn inner() -> Router {
    Router::new().fallback(who)
}

fn auth_layer(mock: &MockCrossmint) -> CrossmintAuthLayer {
    let config = mock.config().trusted_origins([ORIGIN]).build().unwrap();
    CrossmintAuthLayer::from(CrossmintAuth::new(config))
}

fn from_script(method: Method, path: &str, cookie: &str) -> Request {
    let mut request = request(method, path, cookie);
    request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(ORIGIN));
    request
}

#[tokio::test]
async fn cors_belongs_outside() {
    let mock = MockCrossmint::start().await;
    let cors = CorsLayer::new().allow_origin(HeaderValue::from_static(ORIGIN)).allow_credentials(true);
    let outside = inner().layer(ServiceBuilder::new().layer(cors.clone()).layer(auth_layer(&mock)));
    let inside = inner().layer(ServiceBuilder::new().layer(auth_layer(&mock)).layer(cors));
    for (case, app, allowed) in [("outside", outside, ORIGIN), ("inside", inside, "")] {
        let rejected = send(&app, from_script(Method::GET, "/", "")).await;
        let cookie = mock.sign_in("alice").cookie_header();
        let refreshed = send(&app, from_script(Method::POST, REFRESH_ROUTE, &cookie)).await;
        assert_eq!((rejected.status, refreshed.status), (401, 200), "{case}");
        for answer in [rejected, refreshed] {
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{case}");
        }
        let forwarded = send(&app, from_script(Method::GET, "/", &mock.sign_in("alice").cookie_header())).await;
        assert_eq!(forwarded.header("access-control-allow-origin"), ORIGIN, "{case}");
        let mut preflight = from_script(Method::OPTIONS, REFRESH_ROUTE, "");
        preflight.headers_mut().insert("access-control-request-method", HeaderValue::from_static("POST"));
        assert_eq!(send(&app, preflight).await.status, 200, "{case}");
    }
}

#[tokio::test]
async fn csrf_belongs_outside() {
    let mock = MockCrossmint::start().await;
    let outside = inner().layer(ServiceBuilder::new().layer(CsrfLayer::new()).layer(auth_layer(&mock)));
    let inside = inner().layer(ServiceBuilder::new().layer(auth_layer(&mock)).layer(CsrfLayer::new()));
    for (case, app, refreshes) in [("outside", outside, 0), ("inside", inside, 1)] {
        let mut forged = request(Method::POST, "/transfer", &expired(&mock, "alice").cookie_header());
        forged.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        let before = mock.calls(Endpoint::Refresh);
        assert_eq!(send(&app, forged).await.status, 403, "{case}");
        assert_eq!(mock.calls(Endpoint::Refresh) - before, refreshes, "{case}");
    }
}

#[tokio::test]
async fn trace_belongs_outside() {
    let mock = MockCrossmint::start().await;
    #[derive(Clone, Default)]
    struct Seen(Arc<AtomicUsize>);
    impl<B> OnResponse<B> for Seen {
        fn on_response(self, _: &Response<B>, _: Duration, _: &tracing::Span) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let [outside, inside] = [Seen::default(), Seen::default()];
    let trace = |seen: &Seen| TraceLayer::new_for_http().on_response(seen.clone());
    let layers = ServiceBuilder::new().layer(trace(&outside)).layer(auth_layer(&mock)).layer(trace(&inside));
    let app = inner().layer(layers);
    get(&app, "/", "").await;
    get(&app, REFRESH_ROUTE, "").await;
    get(&app, "/", &mock.sign_in("alice").cookie_header()).await;
    assert_eq!([outside, inside].map(|seen| seen.0.load(Ordering::Relaxed)), [3, 1]);
}

#[tokio::test]
async fn a_timeout_outside_covers_the_refresh_and_loses_nothing() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let timeout = || TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(3));
    let layer = CrossmintAuthLayer::from(auth.clone());
    let outside = inner().layer(ServiceBuilder::new().layer(timeout()).layer(layer.clone()));
    let inside = inner().layer(ServiceBuilder::new().layer(layer).layer(timeout()));
    for (case, app, status) in [("outside", outside, 504), ("inside", inside, 200)] {
        let alice = expired(&mock, "alice");
        let cookie = alice.cookie_header();
        let hold = mock.hold_answers(Endpoint::Refresh);
        let calls = mock.calls(Endpoint::Refresh) + 1;
        let late = async {
            mock.called(Endpoint::Refresh, calls).await;
            pass(Duration::from_secs(4)).await;
            hold.release();
        };
        let (answer, ()) = tokio::join!(get(&app, "/", &cookie), late);
        assert_eq!(answer.status, status, "{case}");
        auth.wait_idle().await;
        // The rotated token still resolves to the successor.
        get(&app, "/", &cookie).await.assert_refreshed("alice", case);
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (calls, 0), "{case}");
    }
}

#[tokio::test]
async fn compression_belongs_inside() {
    let mock = MockCrossmint::start().await;
    let outside = inner().layer(ServiceBuilder::new().layer(CompressionLayer::new()).layer(auth_layer(&mock)));
    let inside = inner().layer(ServiceBuilder::new().layer(auth_layer(&mock)).layer(CompressionLayer::new()));
    for (case, app, encoding) in [("outside", outside, "gzip"), ("inside", inside, "")] {
        let compressed = async |method, path| {
            let mut request = request::<Body>(method, path, &mock.sign_in("alice").cookie_header());
            request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
            assert_eq!(response.status(), 200, "{case}");
            response.headers().get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        assert_eq!(compressed(Method::POST, REFRESH_ROUTE).await, encoding, "{case}: the tokens");
        assert_eq!(compressed(Method::GET, "/").await, "gzip", "{case}: the application's");
    }
}
