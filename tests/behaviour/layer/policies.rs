//! Layers with policies of their own on one handle.

use axum::{Router, routing::get};
use http::{HeaderValue, Method, StatusCode, header};
use tower_crossmint_auth::{
    Bearer, Claims, CorsPreflights, CrossmintAuthLayer, LoginPage, OutagePolicy, Unauthenticated,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, SIGN_IN, TRY_LATER},
    app::who,
    direct::{auth, get as get_from, post, request, send},
    mock::{calls, expired},
};

#[tokio::test]
async fn a_site_pages_and_an_api_share_one_handle() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let layer = CrossmintAuthLayer::from(auth.clone());
    let route = |path, layer| Router::new().route(path, get(who)).route_layer(layer);
    let login = Unauthenticated::Redirect(LoginPage::new("/login").unwrap());
    let app = Router::new()
        .merge(route("/", layer.clone().unauthenticated(Unauthenticated::Allow)))
        .merge(route("/orders", layer.clone().unauthenticated(login)))
        .merge(route("/api/orders", layer.clone().bearer(Bearer::Accept).on_outage(OutagePolicy::KeepSession)))
        .merge(auth.routes());

    let navigation = |path| {
        let mut request = request(Method::GET, path, "");
        request.headers_mut().insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
        request
    };
    assert_eq!(send(&app, navigation("/")).await.user(), None, "the site is public");
    assert_eq!(send(&app, navigation("/orders")).await.status, 303, "pages redirect");
    send(&app, navigation("/api/orders")).await.assert_ended(SIGN_IN, "the API rejects");

    // One refresh serves all three, and one cache.
    let alice = expired(&mock, "alice");
    for path in ["/", "/orders", "/api/orders"] {
        get_from(&app, path, &alice.cookie_header()).await.assert_refreshed("alice", path);
    }
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 1, 0));

    let bob = mock.sign_in("bob");
    let mut bearer = request(Method::GET, "/api/orders", "");
    bearer.headers_mut().insert("authorization", format!("Bearer {}", bob.jwt()).parse().unwrap());
    send(&app, bearer).await.assert_passed("bob", "the API takes bearer tokens");

    mock.inject_times(Endpoint::Refresh, 3, Fault::json(500, serde_json::json!({})));
    let outage = |path: &'static str| {
        let (app, cookie) = (app.clone(), expired(&mock, "carol").cookie_header());
        async move { get_from(&app, path, &cookie).await }
    };
    let site = outage("/").await;
    assert!(site.status == 200 && site.clears(&[JWT, REFRESH]), "the configuration ends sessions: {site:?}");
    outage("/orders").await.assert_rejected(503, TRY_LATER, "no login is possible");
    outage("/api/orders").await.assert_rejected(503, TRY_LATER, "this layer keeps sessions");
}

#[tokio::test]
async fn preflights_pass_one_layer_and_not_the_other() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    for (policy, status) in [(CorsPreflights::Pass, 200), (CorsPreflights::Reject, 401)] {
        let app = Router::new().fallback(|| async {}).layer(layer.clone().cors_preflights(policy));
        let mut preflight = request(Method::OPTIONS, "/", "");
        preflight.headers_mut().insert(header::ORIGIN, HeaderValue::from_static("https://app.test"));
        preflight.headers_mut().insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
        assert_eq!(send(&app, preflight).await.status, status, "{policy:?}");
    }
}

#[tokio::test]
async fn changing_a_layer_does_not_change_its_clones() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let open = layer.clone().unauthenticated(Unauthenticated::Allow);
    let app = |layer| Router::new().fallback(who).layer(layer);
    assert_eq!(get_from(&app(open), "/", "").await.status, 200);
    assert_eq!(get_from(&app(layer), "/", "").await.status, 401);
}

#[tokio::test]
async fn routes_answer_as_the_layer_does() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let behind: Router = Router::new().layer(CrossmintAuthLayer::from(auth.clone()));
    for (case, app) in [("routes", auth.routes()), ("the layer", behind)] {
        let alice = mock.sign_in("alice");
        let refreshed = post(&app, REFRESH_ROUTE, &alice.cookie_header()).await;
        assert!(refreshed.status == 200 && refreshed.stores_a_session(), "{case}: {refreshed:?}");
        let out = post(&app, LOGOUT_ROUTE, &refreshed.cookie_header()).await;
        assert!(out.status == 200 && out.clears(&[JWT, REFRESH]), "{case}: {out:?}");
        assert!(!mock.is_live(&refreshed.refresh_token()), "{case}");
        for path in [REFRESH_ROUTE, LOGOUT_ROUTE] {
            let answer = get_from(&app, path, "").await;
            assert_eq!((answer.status, answer.header("allow")), (405, "POST"), "{case}");
            let mut foreign = request(Method::POST, path, &alice.cookie_header());
            foreign.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
            let before = calls(&mock);
            send(&app, foreign).await.assert_rejected(403, "Cross-site requests are not allowed here", case);
            assert_eq!(calls(&mock), before, "{case}");
        }
        let answer = post(&app, REFRESH_ROUTE, "").await;
        assert!(answer.status == 401 && answer.clears(&[JWT, REFRESH]), "{case}: {answer:?}");
    }
}

#[tokio::test]
async fn the_handle_answers_wherever_the_application_routes_to() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let (refreshes, logouts) = (auth.clone(), auth.clone());
    let app = Router::new()
        .route(
            "/in",
            axum::routing::any(async move |request| refreshes.handle_refresh::<axum::body::Body>(request).await),
        )
        .route(
            "/out",
            axum::routing::any(async move |request| logouts.handle_logout::<axum::body::Body>(request).await),
        );
    let mut sign_in = request(Method::POST, "/in", "");
    sign_in.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    *sign_in.body_mut() = format!(r#"{{"refresh":"{}"}}"#, mock.one_time_secret("alice")).into();
    let answer = send(&app, sign_in).await;
    assert!(answer.status == 200 && answer.stores_a_session(), "{answer:?}");
    let out = post(&app, "/out", &answer.cookie_header()).await;
    assert!(out.status == 200 && out.clears(&[JWT, REFRESH]) && mock.live_sessions() == 0, "{out:?}");
}

#[tokio::test]
async fn an_application_words_rejections_and_cannot_lose_what_is_the_layers() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock)).on_outage(OutagePolicy::KeepSession);
    // Builds a new response: the worst that an application can do.
    let layer = layer.map_rejection(|error, request, mut response| {
        // Returned as it is by some applications: nothing may be there twice.
        if request.uri.path() == "/same" {
            *response.body_mut() = "same".into();
            return response.map(|body| String::from_utf8(body.to_vec()).unwrap());
        }
        let body = format!("{} {:?} {}", request.uri.path(), error.kind(), response.status().as_u16());
        let mut mapped = http::Response::new(body);
        *mapped.status_mut() = response.status();
        mapped.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        mapped.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        mapped.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_static("theme=dark"));
        mapped
    });
    let app = Router::new().fallback(who).layer(layer);
    let answer = get_from(&app, "/orders", "").await;
    assert_eq!((answer.status, &*answer.body), (401, "/orders MissingCredentials 401"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "cookie"));
    assert_eq!(answer.header("www-authenticate"), "Cookie");
    let cookies: Vec<_> = answer.set_cookie().iter().map(|cookie| cookie.stripped().to_string()).collect();
    assert_eq!(cookies, ["theme=dark".to_owned(), format!("{JWT}="), format!("{REFRESH}=")]);

    let same = get_from(&app, "/same", "").await;
    let names: Vec<_> = same.headers.keys().filter(|name| *name != "set-cookie").collect();
    assert!(names.iter().all(|name| same.headers.get_all(*name).iter().count() == 1), "{same:?}");
    assert!(same.clears(&[JWT, REFRESH]) && same.body == "same", "{same:?}");

    mock.inject_times(Endpoint::Refresh, 3, Fault::json(500, serde_json::json!({})));
    let mut call = request(Method::POST, "/", &expired(&mock, "alice").cookie_header());
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let answer = send(&app, call).await;
    assert_eq!((answer.status, &*answer.body), (503, "/ Unavailable 503"), "{answer:?}");
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!((answer.header("grpc-status"), answer.header("grpc-message")), ("14", TRY_LATER));

    let answer = post(&app, REFRESH_ROUTE, "").await;
    assert_eq!(
        (answer.status, &*answer.body),
        (401, &*format!("{REFRESH_ROUTE} MissingRefreshToken 401")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_redirect_is_not_worded_by_the_application() {
    let mock = MockCrossmint::start().await;
    let login = Unauthenticated::Redirect(LoginPage::new("/login").unwrap());
    let layer = CrossmintAuthLayer::from(auth(&mock)).unauthenticated(login);
    let layer = layer.map_rejection(|_, _, response| {
        let mut response = response.map(|_| "mapped");
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response
    });
    let app = Router::new().fallback(who).layer(layer);
    let mut navigation = request(Method::GET, "/orders", "");
    navigation.headers_mut().insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
    assert_eq!(send(&app, navigation).await.status, 303);
    let answer = get_from(&app, "/orders", "").await;
    assert_eq!((answer.status, &*answer.body), (418, "mapped"));
}

#[tokio::test]
async fn a_missing_role_is_403_and_a_missing_session_401() {
    #[derive(serde::Deserialize)]
    struct Admin {
        role: String,
    }
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock)).unauthenticated(Unauthenticated::Allow).bearer(Bearer::Accept);
    let app = Router::new().route("/", get(async |Claims(admin): Claims<Admin>| admin.role)).layer(layer);
    let admin = mock.session("alice").claim("role", "admin").create();
    let answer = get_from(&app, "/", &admin.cookie_header()).await;
    assert_eq!((answer.status, &*answer.body), (200, "admin"));
    let answer = get_from(&app, "/", &mock.sign_in("bob").cookie_header()).await;
    answer.assert_rejected(403, "You are not allowed to do this", "no role");
    assert_eq!(answer.header("www-authenticate"), "");
    let odd = mock.session("carol").claim("role", serde_json::json!({ "email": "carol@example.com" })).create();
    let odd = request::<axum::body::Body>(Method::GET, "/", &odd.cookie_header());
    let response = tower::ServiceExt::oneshot(app.clone(), odd).await.unwrap();
    let error = response.extensions().get::<tower_crossmint_auth::AuthError>().unwrap();
    let texts = format!("{error} {error:?} {}", std::error::Error::source(error).unwrap());
    assert!(texts.contains("Admin") && !texts.contains("carol"), "{texts}");
    assert_eq!(get_from(&app, "/", "").await.status, 401);
    let mut bearer = request(Method::GET, "/", "");
    bearer.headers_mut().insert("authorization", format!("Bearer {}", mock.sign_in("bob").jwt()).parse().unwrap());
    let answer = send(&app, bearer).await;
    assert!(answer.status == 403 && answer.header("www-authenticate").contains("insufficient_scope"), "{answer:?}");
}
