//! The mock itself.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    api::Api,
    calls::{Endpoint, RecordedRequest},
    connection::Ending,
    fault::Fault,
    jwt::{ISSUER, PROJECT_ID},
    listener::Listener,
    script::Hold,
    server::Server,
    session::{MockSession, SessionBuilder},
};
use crate::config::{ApiKey, CrossmintAuthConfig, CrossmintAuthConfigBuilder, Environment};

/// A mock Crossmint that listens on loopback.
///
/// Clones are handles to the same server. The server stops, and closes its listener and all connections, when the last
/// handle is dropped.
#[derive(Clone)]
pub struct MockCrossmint(Arc<ServerGuard>);

/// Stops the server when it is dropped.
struct ServerGuard {
    server: Arc<Server>,
    base_url: String,
}

impl MockCrossmint {
    /// Starts a server on a free port of 127.0.0.1, in the current Tokio runtime.
    ///
    /// # Panics
    ///
    /// Panics if the loopback interface is unavailable, and outside of a Tokio runtime with I/O enabled.
    pub async fn start() -> Self {
        Self::start_as(PROJECT_ID).await
    }

    /// Starts a server for another project than [`start`](Self::start), whose project is `mock-project`.
    ///
    /// Two of them stand for two projects, with users and refresh tokens of their own. They sign with the same keys, as
    /// Crossmint's projects do: only the audience of a JWT tells its project.
    ///
    /// # Panics
    ///
    /// Panics as [`start`](Self::start) does.
    pub async fn start_as(project_id: &str) -> Self {
        let listener = Listener::bind().await.expect("127.0.0.1 has a free port");
        let base_url = format!("http://{}", listener.address());
        let api = Api::new(project_id, ApiKey::unverified(project_id, Environment::Development).expose());
        Self(Arc::new(ServerGuard { server: Server::start(api, listener), base_url }))
    }

    /// Returns the base URL, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// Returns the project ID, which is the `aud` of every JWT and the suffix of the scoped cookie names.
    #[must_use]
    pub fn project_id(&self) -> &str {
        self.api().project_id()
    }

    /// Returns the `iss` of every JWT.
    #[must_use]
    pub fn issuer(&self) -> &str {
        ISSUER
    }

    /// Returns the only API key that the refresh, logout and user endpoints accept; they reject others with 401.
    #[must_use]
    pub fn api_key(&self) -> &str {
        self.api().api_key()
    }

    /// Creates a configuration builder with this server's API key and base URL.
    pub fn config(&self) -> CrossmintAuthConfigBuilder {
        let api_key = ApiKey::unverified(self.project_id(), Environment::Development);
        CrossmintAuthConfig::builder(api_key).base_url(self.base_url())
    }
}

/// Sessions, users and tokens.
impl MockCrossmint {
    /// Signs a user in, and returns a session with a JWT that is valid for one hour and an unused refresh token.
    #[must_use]
    pub fn sign_in(&self, user_id: &str) -> MockSession {
        self.session(user_id).create()
    }

    /// Builds a session with a customized JWT, such as an expired one.
    pub fn session(&self, user_id: &str) -> SessionBuilder<'_> {
        SessionBuilder::new(self.api(), user_id)
    }

    /// Returns a one-time secret, which a browser gets from a login and exchanges at the refresh endpoint.
    ///
    /// The session counts as live from the exchange on.
    #[must_use]
    pub fn one_time_secret(&self, user_id: &str) -> String {
        self.api().one_time_secret(user_id)
    }

    /// Signs any header and claims with the current key.
    ///
    /// The header's `alg` and `kid` are added if they are absent. Set them to make a token that names another algorithm
    /// or key than the one that signs it.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers pass json! literals")]
    pub fn sign(&self, header: Value, claims: Value) -> String {
        self.api().keyring().current().sign(header, &claims)
    }

    /// Sets the profile of a user, which the user endpoint returns, and the refresh endpoint as `user`.
    ///
    /// By default, the profile of a user who has signed in is `{"id": "<user ID>"}`. Crossmint's profiles also have
    /// `email`, `phoneNumber` and `twitter`, an object with `id` and `username`.
    ///
    /// # Panics
    ///
    /// Panics if `user` has no string `id`.
    #[track_caller]
    pub fn set_user(&self, user: Value) {
        let id = user["id"].as_str().expect("the user has a string `id`").to_owned();
        self.api().set_user(id, user);
    }

    /// Sets the lifetime, in seconds, of the JWTs that the refresh endpoint issues.
    ///
    /// One hour by default. With zero or less, they have expired already when they are issued.
    pub fn set_refreshed_jwt_lifetime(&self, seconds: i64) {
        self.api().set_refreshed_jwt_lifetime(seconds);
    }

    /// Sets a claim of the JWTs that the refresh endpoint issues, such as another `aud`; `null` removes the claim.
    pub fn set_refreshed_claim(&self, name: &str, value: impl Into<Value>) {
        self.api().set_refreshed_claim(name, value.into());
    }

    /// Sets a function that edits the JSON of every 200 response from the refresh endpoint.
    ///
    /// None by default. Set one to simulate a service that, for example, omits `user`, or encodes `expiresAt`
    /// differently; the refresh token is rotated regardless. If the function panics, the connection ends.
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
        self.api().edit_refresh_answers(edit);
    }

    /// Sets whether the refresh endpoint rotates the refresh token.
    ///
    /// True by default. When false, it returns the same token, which stays valid; a one-time secret is still replaced.
    pub fn set_rotation(&self, rotate: bool) {
        self.api().ledger().set_rotation(rotate);
    }

    /// Sets a suffix for every refresh secret that is issued from now on.
    ///
    /// Empty by default. With a semicolon, the secrets cannot be stored in a cookie; with thousands of characters, they
    /// are too long for one.
    pub fn set_secret_suffix(&self, suffix: impl Into<String>) {
        self.api().ledger().set_secret_suffix(suffix.into());
    }

    /// Sets for how long a spent refresh token yields the same successor again.
    ///
    /// Zero by default: every second use is rejected with 401, revokes the session, and is counted by
    /// [`reuse_detections`](Self::reuse_detections). Within the grace period, this happens only after the successor was
    /// used as well.
    pub fn set_reuse_grace(&self, grace: Duration) {
        self.api().ledger().set_grace(grace);
    }

    /// Revokes the session that a refresh token, current or spent, belongs to.
    pub fn revoke(&self, refresh_secret: &str) {
        self.api().ledger().revoke(refresh_secret);
    }
}

/// Signing keys.
impl MockCrossmint {
    /// Signs with a new key from now on, and publishes it along with the old ones.
    ///
    /// All mocks of a process use the same sequence of keys: two mocks that have rotated equally often share their
    /// current key.
    pub fn rotate_keys(&self) {
        self.api().keyring().rotate();
    }

    /// Removes everything but the current signing key from the published key set.
    pub fn withdraw_old_keys(&self) {
        self.api().keyring().withdraw_old();
    }

    /// Adds any entry, valid or not, to the published key set.
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
    /// Makes every call to an endpoint fail, until [`clear_faults`](Self::clear_faults) or another fault replaces it.
    ///
    /// # Panics
    ///
    /// Panics if the fault has a status outside of 200 to 999, or a malformed header.
    #[track_caller]
    pub fn inject(&self, endpoint: Endpoint, fault: Fault) {
        self.0.server.script.inject(endpoint, fault.checked());
    }

    /// Makes the next `times` calls to an endpoint fail.
    ///
    /// This takes precedence over [`inject`](Self::inject). The faults of repeated calls apply one after the other.
    ///
    /// # Panics
    ///
    /// Panics if the fault has a status outside of 200 to 999, or a malformed header.
    #[track_caller]
    pub fn inject_times(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.0.server.script.inject_times(endpoint, times, fault.checked());
    }

    /// Removes the faults of all endpoints, for calls that arrive from now on.
    pub fn clear_faults(&self) {
        self.0.server.script.clear_faults();
    }

    /// Holds the calls to an endpoint before they are executed: no token is spent yet.
    pub fn hold(&self, endpoint: Endpoint) -> Hold {
        self.0.server.script.hold(endpoint)
    }

    /// Holds the responses of an endpoint after the calls were executed: the token is spent already.
    pub fn hold_answers(&self, endpoint: Endpoint) -> Hold {
        self.0.server.script.hold_answers(endpoint)
    }

    /// Sets whether the service is down. While it is, all connections, including the open ones, are reset.
    ///
    /// To have connections refused instead, call [`set_refusing`](Self::set_refusing).
    pub fn set_down(&self, down: bool) {
        self.0.server.connections.set_down(down);
    }

    /// Sets whether new connections are refused; the port stays the same. Setting it resets the open connections.
    ///
    /// # Panics
    ///
    /// Panics if another process has taken the port, and outside of a Tokio runtime with I/O enabled.
    pub fn set_refusing(&self, refusing: bool) {
        self.0.server.set_refusing(refusing).expect("the port is still free");
    }

    /// Sets whether attempts to connect get no response, as in a network that drops every packet. Setting it closes the
    /// open connections.
    ///
    /// Use it to test connect timeouts. It requires Linux, which drops attempts to connect while the accept queue is
    /// full.
    ///
    /// # Panics
    ///
    /// Panics if another process has taken the port, and outside of a Tokio runtime with I/O enabled.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.0.server.set_unreachable(unreachable).expect("the port is still free");
    }

    /// Sets whether new connections are accepted but never written to, not even in a TLS handshake. Setting it closes
    /// the open connections.
    ///
    /// A connection that was accepted while this was set stays silent after `set_silent(false)`. Calls on it are not
    /// recorded; [`connections`](Self::connections) counts the connection.
    pub fn set_silent(&self, silent: bool) {
        self.0.server.connections.set_silent(silent);
    }

    /// Closes all open connections, as a server does with idle ones.
    ///
    /// To know that the clients have noticed, wait for [`disconnected`](Self::disconnected).
    pub fn close_connections(&self) {
        self.0.server.connections.end_all(Ending::Close);
    }
}

/// Observation.
impl MockCrossmint {
    /// Returns the number of calls to an endpoint since the start, including those that failed.
    #[must_use]
    pub fn calls(&self, endpoint: Endpoint) -> usize {
        self.0.server.calls.count(endpoint)
    }

    /// Returns the last 4096 calls to an endpoint, in the order of their arrival.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        self.0.server.calls.recent(endpoint)
    }

    /// Waits until at least `count` calls to an endpoint have arrived since the start.
    pub async fn called(&self, endpoint: Endpoint, count: usize) {
        self.0.server.calls.reached(endpoint, count).await;
    }

    /// Returns the number of sessions that were revoked because a spent refresh token was used again.
    #[must_use]
    pub fn reuse_detections(&self) -> usize {
        self.api().ledger().reuse_detections()
    }

    /// Returns the number of sessions that were neither logged out nor revoked.
    #[must_use]
    pub fn live_sessions(&self) -> usize {
        self.api().ledger().live_sessions()
    }

    /// Returns whether a refresh token is the current one of a session that was not revoked.
    #[must_use]
    pub fn is_live(&self, refresh_secret: &str) -> bool {
        self.api().ledger().is_live(refresh_secret)
    }

    /// Returns the number of accepted TCP connections since the start, including those that were reset at once.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.server.connections.accepted()
    }

    /// Waits until at least `count` connections have been accepted since the start.
    pub async fn connected(&self, count: usize) {
        self.0.server.connections.connected(count).await;
    }

    /// Waits until no connection is open at either end.
    ///
    /// A connection that the mock closes counts as open until the client has closed it as well: from then on, the
    /// client's pool does not reuse it. A connection that the mock resets stops counting immediately.
    pub async fn disconnected(&self) {
        self.0.server.connections.disconnected().await;
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

impl Drop for ServerGuard {
    fn drop(&mut self) {
        self.server.stop();
    }
}

#[cfg(test)]
impl MockCrossmint {
    /// Returns a reference to the server that does not keep it alive.
    pub(crate) fn server(&self) -> std::sync::Weak<Server> {
        Arc::downgrade(&self.0.server)
    }
}
