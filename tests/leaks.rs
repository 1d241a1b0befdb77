//! No token and no API key is printed: in no event or span of the process at TRACE, in no `Debug` or `Display` of the
//! public types, and in no chain of errors.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::HashSet,
    error::Error,
    fmt::{Debug, Write as _},
    iter,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::any};
use http::{HeaderMap, Method, Request, header::SET_COOKIE};
use tower::ServiceExt as _;
use tower_crossmint_auth::{
    AuthError, AuthMaterial, Credentials, CrossmintAuth, CrossmintAuthLayer, OutagePolicy, Session,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

#[tokio::test]
async fn no_printed_text_contains_a_secret() {
    tracing::subscriber::set_global_default(Capture).unwrap();
    log::set_logger(&Capture).unwrap();
    log::set_max_level(log::LevelFilter::Trace);

    let mock = MockCrossmint::start().await;
    let config = mock.config().on_outage(OutagePolicy::KeepSession).refresh_timeout(Duration::from_millis(300));
    let auth = CrossmintAuth::new(config.build().unwrap());
    let app = Router::new().fallback(any(show)).layer(CrossmintAuthLayer::from(auth.clone()));
    let mut secrets = Vec::new();
    let send = async |method: Method, path: &str, cookie: &str, body: String| -> Vec<String> {
        let request = Request::builder().method(method).uri(path).header("cookie", cookie);
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        print(&response);
        if let Some(error) = response.extensions().get::<AuthError>() {
            print_error(error);
        }
        let fields = response.headers().get_all(SET_COOKIE);
        assert!(fields.iter().all(http::HeaderValue::is_sensitive));
        fields
            .iter()
            .filter_map(|field| Some(field.to_str().ok()?.split_once('=')?.1.split(';').next()?.to_owned()))
            .collect()
    };

    let faults = [
        None,
        Some(Fault::Status(401)),
        Some(Fault::Status(500)),
        Some(Fault::Garbage),
        Some(Fault::Reset),
        Some(Fault::ResetMidBody),
        Some(Fault::EarlyEof),
        Some(Fault::Hang),
        Some(Fault::Redirect(307, format!("{}/elsewhere", mock.base_url()))),
    ];
    for fault in faults {
        mock.clear_faults();
        if let Some(fault) = fault {
            mock.inject(Endpoint::Refresh, fault.clone());
            mock.inject(Endpoint::Logout, fault.clone());
            mock.inject(Endpoint::User, fault);
        }
        for session in [mock.sign_in("alice"), mock.session("alice").jwt_lifetime(-60).create()] {
            secrets.extend([session.jwt().to_owned(), session.refresh_token().to_owned()]);
            print(&session);
            secrets.extend(send(Method::GET, "/", &session.cookie_header(), String::new()).await);
            let token = mock.one_time_secret("alice");
            secrets.push(token.clone());
            let body = format!(r#"{{"refresh":"{token}"}}"#);
            secrets.extend(send(Method::POST, "/api/auth/refresh", &session.cookie_header(), body).await);
            send(Method::POST, "/api/auth/refresh", "", format!(r#"{{"refresh":{token}}}"#)).await;
            send(Method::POST, "/api/auth/logout", &session.cookie_header(), String::new()).await;
            let forged = session.jwt().replace('.', ".e");
            send(Method::GET, "/", &session.cookie_header().replace(session.jwt(), &forged), String::new()).await;
            for outcome in [
                auth.get_session(Credentials::pair(session.jwt(), session.refresh_token())).await.map(|session| {
                    print(&session);
                    session.is_refreshed().then(|| session.material()).inspect(print);
                    let mut response = HeaderMap::new();
                    auth.store_auth_material(&mut response, &material(&session)).unwrap();
                    print(&response);
                }),
                auth.verify_jwt(&forged).await.map(drop),
                auth.get_user("alice").await.map(|user| print(&user)),
                auth.refresh(session.refresh_token()).await.map(|material| {
                    secrets.extend([material.jwt().to_owned(), material.refresh_token().secret().to_owned()]);
                    print(&material);
                }),
            ] {
                outcome.unwrap_or_else(|error| print_error(&error));
            }
        }
    }
    print(&auth);
    print(&auth.stats());
    print(&mock);
    print(&mock.config());

    let printed = PRINTED.lock().unwrap();
    assert!(printed.len() > 100_000 && printed.contains("refreshed a session"), "{} bytes are captured", printed.len());
    secrets.sort();
    secrets.dedup();
    secrets.retain(|secret| secret.len() >= 8);
    assert!(secrets.len() > 50, "{} secrets", secrets.len());
    let parts: HashSet<&[u8]> = printed.as_bytes().windows(8).collect();
    for secret in &secrets {
        let leak = secret.as_bytes().windows(8).find(|part| parts.contains(part));
        assert!(leak.is_none(), "of {secret}, {} is printed", leak.unwrap().escape_ascii());
    }
    // The parts of the mock's key may be printed, but not the whole key.
    assert!(!printed.contains(mock.api_key()));
}

async fn show(session: Session) -> &'static str {
    print(&session);
    "shown"
}

fn material(session: &Session) -> AuthMaterial {
    session.material().unwrap().clone()
}

fn print(value: &impl Debug) {
    writeln!(PRINTED.lock().unwrap(), "{value:?} {value:#?}").unwrap();
}

fn print_error(error: &AuthError) {
    print(error);
    for error in iter::successors(Some(error as &dyn Error), |&error| error.source()) {
        writeln!(PRINTED.lock().unwrap(), "{error} {error:?} {error:#?}").unwrap();
    }
}

static PRINTED: Mutex<String> = Mutex::new(String::new());

/// Records the events, spans and log lines of the whole process.
struct Capture;

impl Visit for Capture {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(PRINTED.lock().unwrap(), "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        attributes.record(&mut Self);
        span::Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Self);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Self);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        write!(PRINTED.lock().unwrap(), "{} ", record.args()).unwrap();
    }

    fn flush(&self) {}
}
