//! A mock of Crossmint's auth service, for the tests of an application that uses this crate.
//!
//! [`MockCrossmint`] listens on loopback, mints JWTs under real RSA keys, publishes these keys, and exchanges refresh
//! tokens as strictly as an identity provider may: each is good for one use, and a second use ends the session. It is no
//! stand-in that the layer knows of: the layer speaks HTTP to it, and verifies its signatures.
//!
//! ```
//! use axum::body::Body;
//! use axum::http::{Request, StatusCode};
//! use axum::{Router, routing::get};
//! use tower::ServiceExt as _;
//! use tower_crossmint_auth::CrossmintAuthLayer;
//! use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mock = MockCrossmint::start().await;
//! let config = mock.config().build()?;
//! let app = Router::new().route("/me", get(|| async { "hello" })).layer(CrossmintAuthLayer::new(config));
//!
//! // A user who has signed in is let through.
//! let alice = mock.sign_in("alice");
//! let request = Request::get("/me").header("cookie", alice.cookie_header()).body(Body::empty())?;
//! assert_eq!(app.clone().oneshot(request).await?.status(), StatusCode::OK);
//!
//! // One whose JWT has expired is let through as well, after one call to the refresh endpoint ...
//! let bob = mock.session("bob").jwt_lifetime(-3600).create();
//! let request = Request::get("/me").header("cookie", bob.cookie_header()).body(Body::empty())?;
//! let response = app.clone().oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! assert_eq!(mock.calls(Endpoint::Refresh), 1);
//!
//! // ... and one whose session was revoked is not.
//! let carol = mock.session("carol").jwt_lifetime(-3600).create();
//! mock.revoke(carol.refresh_token());
//! let request = Request::get("/me").header("cookie", carol.cookie_header()).body(Body::empty())?;
//! assert_eq!(app.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Faults, and the order of events
//!
//! [`MockCrossmint::inject`] makes an endpoint fail in one of the ways of [`Fault`], [`MockCrossmint::set_down`] takes the
//! whole service away, and [`MockCrossmint::hold`] stops calls until the test lets them go: a test needs no sleeps to
//! bring about an order of events. A call is
//!
//! 1. taken in, with its body; the faults and holds that are in force now are those that it will meet;
//! 2. held by [`MockCrossmint::hold`];
//! 3. carried out, unless its fault prevents that: a refresh token is spent, a session is ended;
//! 4. held by [`MockCrossmint::hold_answers`];
//! 5. answered.
//!
//! It is counted and recorded, which wakes [`MockCrossmint::called`], as soon as it is held or delayed, and where it is
//! neither, once it was carried out: a test that has waited for it sees what it did. A client that goes away does not
//! undo a call: one that is held or delayed goes its way without the client.

mod answer;
mod api;
mod calls;
mod door;
mod fault;
mod keys;
mod ledger;
mod server;
mod session;
mod switches;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::{ApiKey, CrossmintAuthConfig, CrossmintAuthConfigBuilder, Environment};

use self::api::Api;
use self::door::Door;
use self::server::Server;

pub use self::calls::{Endpoint, RecordedRequest};
pub use self::fault::Fault;
pub use self::session::{MockSession, SessionBuilder};
pub use self::switches::Hold;

/// A Crossmint on loopback.
///
/// A clone is another handle to the same server. The server stops, its listener and all of its connections closed, when
/// the last handle is dropped.
#[derive(Clone)]
pub struct MockCrossmint(Arc<Running>);

struct Running {
    server: Arc<Server>,
    base_url: String,
}

impl MockCrossmint {
    /// Starts a server on a free port of 127.0.0.1, in the Tokio runtime at hand.
    ///
    /// # Panics
    ///
    /// Panics where the loopback interface cannot be listened on, and outside of a Tokio runtime with I/O enabled.
    pub async fn start() -> Self {
        let door = Door::open().await.expect("127.0.0.1 can be listened on");
        let base_url = format!("http://{}", door.address());
        let api = Api::new(ApiKey::unverified(PROJECT_ID, Environment::Development).expose());
        Self(Arc::new(Running { server: Server::start(api, door), base_url }))
    }

    /// Returns the base URL, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// Returns the project ID, the `aud` of every JWT and the suffix of the scoped cookie names.
    #[must_use]
    pub fn project_id(&self) -> &str {
        PROJECT_ID
    }

    /// Returns the `iss` of every JWT.
    #[must_use]
    pub fn issuer(&self) -> &str {
        ISSUER
    }

    /// Returns the only API key that the refresh, logout and user endpoints accept; others get 401.
    #[must_use]
    pub fn api_key(&self) -> &str {
        self.api().api_key()
    }

    /// Starts a configuration with this server's API key and base URL.
    pub fn config(&self) -> CrossmintAuthConfigBuilder {
        let api_key = ApiKey::unverified(PROJECT_ID, Environment::Development);
        CrossmintAuthConfig::builder(api_key).base_url(self.base_url())
    }
}

/// Sessions, users and tokens.
impl MockCrossmint {
    /// Signs a user in: a JWT that is valid for one hour, and an unused refresh token.
    #[must_use]
    pub fn sign_in(&self, user_id: &str) -> MockSession {
        self.session(user_id).create()
    }

    /// Signs a user in with a JWT of the test's own making, such as an expired one.
    pub fn session(&self, user_id: &str) -> SessionBuilder<'_> {
        SessionBuilder::new(self, user_id)
    }

    /// Returns what the browser is handed at the end of a login, to be exchanged once at the refresh endpoint.
    ///
    /// The session counts as live from the exchange on.
    #[must_use]
    pub fn one_time_secret(&self, user_id: &str) -> String {
        self.api().one_time_secret(user_id)
    }

    /// Signs any header and claims under the current key.
    ///
    /// The header's `alg` and `kid` are filled in where they are absent, and left alone where they are not: a token that
    /// claims another algorithm, or a key that it was not signed with, is made by setting them.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "json! literals are what callers have")]
    pub fn sign(&self, header: Value, claims: Value) -> String {
        self.api().keyring().current().sign(header, &claims)
    }

    /// Sets what the user endpoint, and the refresh endpoint's `user`, say of a user.
    ///
    /// By default they say `{"id": "<user ID>"}` of everyone who has signed in. The service knows of `email`,
    /// `phoneNumber` and `twitter`, an object with `id` and `username`.
    ///
    /// # Panics
    ///
    /// Panics where `user` has no string `id`.
    #[track_caller]
    pub fn set_user(&self, user: Value) {
        let id = user["id"].as_str().expect("the user has a string `id`").to_owned();
        self.api().set_user(id, user);
    }

    /// Sets the seconds from the exchange to the `exp` of JWTs that the refresh endpoint hands out.
    ///
    /// One hour by default; zero or less, and each JWT has expired when it arrives.
    pub fn set_renewed_jwt_lifetime(&self, seconds: i64) {
        self.api().set_renewed_lifetime(seconds);
    }

    /// Sets a claim of JWTs that the refresh endpoint hands out, such as another `aud`; `null` leaves the claim out.
    pub fn set_renewed_claim(&self, name: &str, value: impl Into<Value>) {
        self.api().set_renewed_claim(name, value.into());
    }

    /// Sets a function that has the last word on the JSON of every 200 from the refresh endpoint.
    ///
    /// None by default. Set one to play a service that, say, leaves `user` out, or has another idea of `expiresAt`; the
    /// refresh token is spent and replaced all the same. A function that panics ends the connection.
    ///
    /// ```
    /// # async fn example(mock: &tower_crossmint_auth::testing::MockCrossmint) {
    /// mock.edit_refresh_answers(|answer| {
    ///     answer["refresh"]["expiresAt"] = 1_900_000_000.into();
    ///     answer.as_object_mut().map(|answer| answer.remove("user"));
    /// });
    /// # }
    /// ```
    pub fn edit_refresh_answers(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.api().edit_renewals(Arc::new(edit));
    }

    /// Sets whether the refresh endpoint replaces the refresh token.
    ///
    /// True by default. When false, it hands back the same token, which stays good; a one-time secret is still replaced.
    pub fn set_rotation(&self, rotate: bool) {
        self.api().ledger().set_rotation(rotate);
    }

    /// Sets a text at the end of every refresh secret that is handed out from now on.
    ///
    /// Empty by default. A semicolon makes secrets that no cookie can hold, thousands of letters make them too long.
    pub fn set_secret_suffix(&self, suffix: impl Into<String>) {
        self.api().ledger().set_secret_suffix(suffix.into());
    }

    /// Sets for how long a spent refresh token is met with the same successor again.
    ///
    /// Zero by default: every second use ends the session, is counted by [`reuse_detections`](Self::reuse_detections),
    /// and gets 401. Within the grace it does so only once the successor was used too.
    pub fn set_reuse_grace(&self, grace: Duration) {
        self.api().ledger().set_grace(grace);
    }

    /// Ends the session that a refresh token, current or spent, belongs to.
    pub fn revoke(&self, refresh_secret: &str) {
        self.api().ledger().revoke(refresh_secret);
    }
}

/// Signing keys.
impl MockCrossmint {
    /// Signs with a new key from now on, and publishes it beside the old ones.
    ///
    /// All mocks of a process draw on the same row of keys: two that were never rotated sign with the same one.
    pub fn rotate_keys(&self) {
        self.api().keyring().rotate();
    }

    /// Publishes nothing but the current signing key from now on.
    pub fn withdraw_old_keys(&self) {
        self.api().keyring().withdraw_old();
    }

    /// Adds an entry to the published key set, whatever it says.
    pub fn publish_jwk(&self, jwk: Value) {
        self.api().keyring().publish(jwk);
    }

    /// Returns the `kid` of the current signing key, its RFC 7638 thumbprint.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.api().keyring().current().kid().to_owned()
    }

    /// Returns the published key set.
    #[must_use]
    pub fn key_set(&self) -> Value {
        self.api().keyring().published()
    }
}

/// Faults and holds.
impl MockCrossmint {
    /// Makes every call to an endpoint fail, until [`clear_faults`](Self::clear_faults) or another fault takes its place.
    ///
    /// # Panics
    ///
    /// Panics where the fault has a status outside of 200 to 999, or a malformed header.
    #[track_caller]
    pub fn inject(&self, endpoint: Endpoint, fault: Fault) {
        self.0.server.switches.inject(endpoint, fault.checked());
    }

    /// Makes the next calls to an endpoint fail.
    ///
    /// They come before the fault of [`inject`](Self::inject), and one after the other where this is called repeatedly.
    ///
    /// # Panics
    ///
    /// Panics as [`inject`](Self::inject) does.
    #[track_caller]
    pub fn inject_times(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.0.server.switches.inject_times(endpoint, times, fault.checked());
    }

    /// Takes back all faults of all endpoints, for calls that arrive from now on.
    pub fn clear_faults(&self) {
        self.0.server.switches.clear_faults();
    }

    /// Holds back the calls to an endpoint before they are carried out: no token is spent meanwhile.
    pub fn hold(&self, endpoint: Endpoint) -> Hold {
        self.0.server.switches.hold(endpoint)
    }

    /// Holds back the answers of an endpoint after the calls were carried out: the token is spent meanwhile.
    pub fn hold_answers(&self, endpoint: Endpoint) -> Hold {
        self.0.server.switches.hold_answers(endpoint)
    }

    /// Takes the service down, or up again: meanwhile all connections, the open ones included, are reset.
    ///
    /// To have connections refused, call [`set_refusing`](Self::set_refusing).
    pub fn set_down(&self, down: bool) {
        self.0.server.set_down(down);
    }

    /// Stops listening, or listens again on the same port: meanwhile new connections are refused. Open ones are reset.
    ///
    /// # Panics
    ///
    /// Panics where another process has got hold of the port, and outside of a Tokio runtime with I/O enabled.
    pub fn set_refusing(&self, refusing: bool) {
        self.0.server.set_refusing(refusing).expect("the port is still free");
    }

    /// Leaves attempts to connect unanswered, as a network does that drops every packet, or answers them again. Open
    /// connections are closed.
    ///
    /// This is what a connect time-out is for. The attempts are those of a full accept queue: Linux drops them.
    ///
    /// # Panics
    ///
    /// Panics as [`set_refusing`](Self::set_refusing) does.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.0.server.set_unreachable(unreachable).expect("the port is still free");
    }

    /// Accepts connections and says nothing on them, not even to a TLS handshake. Open ones are closed.
    ///
    /// A connection that was accepted in silence stays silent, also after `set_silent(false)`. Its calls do not arrive:
    /// [`connections`](Self::connections) is what counts them.
    pub fn set_silent(&self, silent: bool) {
        self.0.server.set_silent(silent);
    }

    /// Closes all open connections, as a server does with those that were idle for long.
    ///
    /// To know that the clients have noticed, wait for [`disconnected`](Self::disconnected).
    pub fn close_connections(&self) {
        self.0.server.close_connections();
    }
}

/// Observation.
impl MockCrossmint {
    /// Counts the calls to an endpoint, whatever they were answered.
    #[must_use]
    pub fn calls(&self, endpoint: Endpoint) -> usize {
        self.0.server.calls.count(endpoint)
    }

    /// Returns the calls to an endpoint in the order of their arrival, the last 4096 of them.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        self.0.server.calls.recent(endpoint)
    }

    /// Waits until `count` calls to an endpoint have arrived since the start.
    pub async fn called(&self, endpoint: Endpoint, count: usize) {
        self.0.server.calls.reached(endpoint, count).await;
    }

    /// Counts the sessions that were ended because a spent refresh token came back.
    #[must_use]
    pub fn reuse_detections(&self) -> usize {
        self.api().ledger().detections()
    }

    /// Counts the sessions that were neither logged out nor revoked.
    #[must_use]
    pub fn live_sessions(&self) -> usize {
        self.api().ledger().live_sessions()
    }

    /// Says whether a refresh token is the current one of a session that was not ended.
    #[must_use]
    pub fn is_live(&self, refresh_secret: &str) -> bool {
        self.api().ledger().is_live(refresh_secret)
    }

    /// Counts the TCP connections that were accepted, the ones that were reset at once included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.server.accepted()
    }

    /// Waits until `count` connections have been accepted since the start.
    pub async fn connected(&self, count: usize) {
        self.0.server.connected(count).await;
    }

    /// Waits until no connection is open at either end.
    ///
    /// A connection that the mock closes counts as open until the client has closed it as well: a client with a pool of
    /// connections does not take it for a live one any more. A connection that the mock resets is gone at once.
    pub async fn disconnected(&self) {
        self.0.server.disconnected().await;
    }

    fn api(&self) -> &Api {
        &self.0.server.api
    }
}

impl fmt::Debug for MockCrossmint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockCrossmint").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.stop();
    }
}

const PROJECT_ID: &str = "mock-project";
const ISSUER: &str = "https://mock.crossmint.test";
