//! The case data in `../shared/corpora` that needs a whole layer, where it is present: a user's clone does not have it.

use std::{fs, path::Path};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, Request, Uri};
use serde_json::{Value, json};
use tower_crossmint_auth::{
    CrossmintAuth, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::{
    direct::{app, get, send},
    support::{JWT, REFRESH, calls, expired},
};

fn cases(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora").join(file);
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: {file} is not beside the project");
        return Vec::new();
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    document["cases"].as_array().unwrap().clone()
}

fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_default()
}

#[tokio::test]
async fn targets_near_the_two_routes_are_other_targets() {
    for case in cases("intercept_targets.json") {
        let mock = MockCrossmint::start().await;
        let config = mock.config().refresh_route("/api/refresh").logout_route("/api/logout");
        let app = app(&CrossmintAuth::new(config.build().unwrap()));
        let id = text(&case, "id");
        let Ok(uri) = text(&case, "target").parse::<Uri>() else {
            println!("{id}: no server lets this target pass");
            continue;
        };
        let method = Method::from_bytes(text(&case, "method").as_bytes()).unwrap();
        let mut request =
            Request::builder().method(method).uri(uri).header("cookie", mock.sign_in("alice").cookie_header());
        if id.contains("preflight") {
            request = request.header("origin", "https://x.example").header("access-control-request-method", "POST");
        }
        if id.contains("override") {
            request = request.header("x-http-method-override", "POST");
        }
        let answer = send(&app, request.body(Body::empty()).unwrap()).await;
        let [_, refreshes, logouts] = calls(&mock);
        let seen = (answer.status, answer.set_cookie().len(), refreshes, logouts);
        match text(&case, "expect") {
            "refresh" => assert_eq!(seen, (200, 2, 1, 0), "{id}"),
            "logout" => assert_eq!(seen, (200, 2, 0, 1), "{id}"),
            // The inner service says which path it saw; axum answers CONNECT without a body.
            "pass" => assert_eq!(
                (seen, answer.body.contains("path") || id.contains("connect")),
                ((200, 0, 0, 0), true),
                "{id}"
            ),
            "no_action" => assert_eq!(seen, (405, 0, 0, 0), "{id}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn answers_of_crossmint_are_what_they_are_said_to_be() {
    for case in cases("refresh_upstream_responses.json") {
        let (id, class) = (text(&case, "id"), text(&case, "class"));
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        if status < 200 {
            println!("{id}: no final answer");
            continue;
        }
        let mock = MockCrossmint::start().await;
        let auth = CrossmintAuth::new(mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap());
        auth.warm_up().await.unwrap();
        let session = expired(&mock, "user-1");
        let claims = |sub: &str, aud: &str, exp: u64| json!({"sub": sub, "aud": aud, "exp": exp});
        let sign = |aud: &str, exp| mock.sign(json!({}), claims("user-1", aud, exp));
        let forged = sign("mock-project", 4_102_444_800).replace('.', ".e");
        let tokens = [
            ("<VALID>", sign("mock-project", 4_102_444_800)),
            ("<EXPIRED>", sign("mock-project", 1)),
            ("<WRONG_AUD>", sign("another", 4_102_444_800)),
            ("<FORGED>", forged),
            ("<ALG_NONE>", mock.sign(json!({"alg": "none"}), claims("user-1", "mock-project", 4_102_444_800))),
            ("<OLD>", session.refresh_token().to_owned()),
        ];
        let (mut body, mut headers) = (STANDARD.decode(text(&case, "body_b64")).unwrap(), Vec::new());
        if !case["body"].is_null() {
            let filled = tokens.iter().fold(case["body"].to_string(), |body, (name, token)| body.replace(name, token));
            (body, headers) = (filled.into_bytes(), vec![("content-type", "application/json")]);
        }
        let given = case["headers"].as_object().unwrap();
        headers.retain(|(name, _)| !given.contains_key(*name));
        headers.extend(given.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        mock.inject(Endpoint::Refresh, Fault::response(status, &headers, body));

        let answer = get(&app(&auth), "/", &session.cookie_header()).await;
        let outcome = match answer.status {
            200 if answer.stores_a_session() => "rotated",
            401 if answer.clears(&[JWT, REFRESH]) => "definitive",
            503 if answer.set_cookie().is_empty() => "transient, or broken",
            other => panic!("{id}: {other}, {answer:?}"),
        };
        assert!(class.split("_or_").any(|class| outcome.contains(class)), "{id}: {outcome} instead of {class}");
        assert_eq!(calls(&mock)[1..], [1, 0], "{id}");
        assert!(outcome == "rotated" || !answer.body.contains("rt-new"), "{id}");
    }
}
