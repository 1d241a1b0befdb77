//! A web page that shows what the layer does, with a mock of Crossmint to try it against.
//!
//! ```sh
//! cargo run --example demo --features axum,testing
//! ```
//!
//! `PORT` sets the port; the default is 3000. With `SERVER_CROSSMINT_API_KEY` set, the demo uses the real Crossmint
//! instead of the mock. A `development` key expects Crossmint on port 3000: choose another port for the demo.

use std::{
    env,
    error::Error,
    iter,
    net::Ipv4Addr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header::SET_COOKIE},
    middleware::map_response,
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, signal, sync::oneshot, time::timeout};
use tower_crossmint_auth::{
    ApiKey, ConfigError, CookieOptions, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthConfigBuilder,
    CrossmintAuthLayer, OutagePolicy, Session,
    testing::{Endpoint, Fault, MockCrossmint},
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let listener = listen().await?;
    let crossmint = Crossmint::choose().await.map_err(|error| format!("SERVER_CROSSMINT_API_KEY: {error}"))?;
    let auth = CrossmintAuth::new(configure(crossmint.config.clone())?);
    if let Err(error) = auth.warm_up().await {
        eprintln!("warning: cannot load the key set from {}: {}", auth.jwks_uri(), with_causes(&error));
    }
    let app = app(auth, &crossmint);
    println!("open http://{} to try the layer with {}", listener.local_addr()?, crossmint.name());
    serve(listener, app).await
}

/// The demo's options.
fn configure(builder: CrossmintAuthConfigBuilder) -> Result<CrossmintAuthConfig, ConfigError> {
    builder
        // HttpOnly and `SameSite::Strict`, but not `Secure`: not every browser accepts `Secure` cookies over plain
        // HTTP, even on loopback.
        .cookies(CookieOptions::hardened().secure(false))
        .expose_refresh_secret(false)
        // `OutagePolicy::EndSession`, the default, would clear the cookies and answer 401 while Crossmint is down.
        .on_outage(OutagePolicy::KeepSession)
        .build()
}

fn app(auth: CrossmintAuth, crossmint: &Crossmint) -> Router {
    let protected = Router::new()
        .route("/me", get(me))
        // The layer answers the refresh and logout routes, but axum must route them through it.
        .route("/api/auth/{action}", any(StatusCode::NOT_FOUND))
        .layer(CrossmintAuthLayer::from(auth));
    let mut demo = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/demo/calls", get(calls))
        .with_state(crossmint.clone());
    if let Some(mock) = &crossmint.mock {
        demo = demo.merge(controls().with_state(mock.clone()));
    }
    // The demo's router is merged last, so that its fallback answers unknown paths, without the layer.
    protected.merge(demo).layer(map_response(report_cookies))
}

async fn me(session: Session) -> Json<Value> {
    Json(json!({ "userId": session.user_id(), "claims": session.claims() }))
}

/// Which Crossmint the layer talks to.
#[derive(Clone)]
struct Crossmint {
    config: CrossmintAuthConfigBuilder,
    project_id: String,
    mock: Option<Mock>,
}

impl Crossmint {
    async fn choose() -> Result<Self, ConfigError> {
        if let Some(key) = env::var_os("SERVER_CROSSMINT_API_KEY") {
            let key: ApiKey = key.to_string_lossy().parse()?;
            let project_id = key.project_id().to_owned();
            return Ok(Self { project_id, config: CrossmintAuthConfig::builder(key), mock: None });
        }
        let server = MockCrossmint::start().await;
        // The latency of the real service: on loopback, a refresh would end before a second request could join it.
        server.inject(Endpoint::Refresh, Fault::Delay(Duration::from_millis(150)));
        let (config, project_id) = (server.config(), server.project_id().to_owned());
        Ok(Self { config, project_id, mock: Some(Mock { server, is_down: Arc::default() }) })
    }

    fn name(&self) -> &'static str {
        if self.mock.is_some() { "a mock of Crossmint" } else { "the real Crossmint" }
    }
}

/// Returns the state that the page shows besides the responses.
async fn calls(State(crossmint): State<Crossmint>) -> Json<Value> {
    let mock = crossmint.mock.map(|Mock { server, is_down }| {
        json!({
            "down": is_down.load(Ordering::Relaxed),
            "keyId": server.key_id(),
            "keys": server.calls(Endpoint::Keys),
            "refresh": server.calls(Endpoint::Refresh),
            "logout": server.calls(Endpoint::Logout),
        })
    });
    Json(json!({ "jwtCookie": format!("crossmint-jwt-{}", crossmint.project_id), "mock": mock }))
}

/// The mock, and whether it has been taken down.
#[derive(Clone)]
struct Mock {
    server: MockCrossmint,
    is_down: Arc<AtomicBool>,
}

impl Mock {
    fn set_down(&self, down: bool) -> StatusCode {
        self.server.set_down(down);
        self.is_down.store(down, Ordering::Relaxed);
        StatusCode::NO_CONTENT
    }
}

/// The routes with which the page controls the mock.
fn controls() -> Router<Mock> {
    Router::new()
        .route("/demo/secret", post(|State(mock): State<Mock>| async move { mock.server.one_time_secret(USER) }))
        .route("/demo/expire", post(expire))
        .route("/demo/rotate", post(rotate))
        .route("/demo/down", post(|State(mock): State<Mock>| async move { mock.set_down(true) }))
        .route("/demo/up", post(|State(mock): State<Mock>| async move { mock.set_down(false) }))
}

/// Replaces the JWT in its cookie with an expired one of the same user, and leaves the refresh token unchanged.
async fn expire(State(Mock { server, .. }): State<Mock>) -> impl IntoResponse {
    let expired = server.session(USER).jwt_lifetime(-60).create();
    let cookie = format!("crossmint-jwt-{}={}; Path=/; SameSite=Strict", server.project_id(), expired.jwt());
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)])
}

async fn rotate(State(Mock { server, .. }): State<Mock>) -> StatusCode {
    server.rotate_keys();
    server.withdraw_old_keys();
    StatusCode::NO_CONTENT
}

/// Reports to the page which cookies a response sets or clears: scripts cannot read `Set-Cookie`.
async fn report_cookies(mut response: Response) -> Response {
    let fates = response.headers().get_all(SET_COOKIE).iter().filter_map(|field| {
        let (name, rest) = field.to_str().ok()?.split_once('=')?;
        Some(format!("{name}={}", if rest.starts_with(';') { "cleared" } else { "set" }))
    });
    let report = fates.collect::<Vec<_>>().join(", ");
    if let Ok(report) = HeaderValue::try_from(report) {
        response.headers_mut().insert("x-demo-cookies", report);
    }
    response
}

async fn listen() -> Result<TcpListener, String> {
    let port = match env::var_os("PORT") {
        Some(port) => port.to_str().and_then(|port| port.parse().ok()).ok_or_else(|| {
            format!("PORT is `{}`, which is not a port: set it to a number up to 65535, {EXAMPLE}", port.display())
        })?,
        None => 3000,
    };
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port} ({error}): set PORT to a free port, {EXAMPLE}"))
}

/// Serves until Ctrl-C. Requests in flight then have one second to complete; idle connections are closed at once.
async fn serve(listener: TcpListener, app: Router) -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { stopped.await.unwrap_or_default() });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => return Ok(ended??),
        interrupted = signal::ctrl_c() => interrupted?,
    }
    drop(stop);
    match timeout(Duration::from_secs(1), server).await {
        Ok(ended) => Ok(ended??),
        Err(_) => Ok(()),
    }
}

/// Joins an error's text with those of its sources.
fn with_causes(error: &dyn Error) -> String {
    iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

const USER: &str = "alice";
const EXAMPLE: &str = "as in `PORT=3001 cargo run --example demo --features axum,testing`";
