//! Operations: events, spans, metrics, counters, limits, shutdown and replicas.
//!
//! # Events
//!
//! Events are emitted through [`tracing`] with the target `tower_crossmint_auth`. Install a subscriber to see them.
//! Fields with few values, such as `kind` and `reason`, are suitable as labels; `error` is text for people. No event
//! contains a token, a user's ID or text from Crossmint.
//!
//! | event | level | fields, action |
//! | --- | --- | --- |
//! | `could not refresh a session` | `ERROR`, at most once a minute; otherwise `DEBUG` | `kind`, `error` |
//! | `the layer is not installed on this route ...` | `ERROR`, at most once a minute; otherwise `DEBUG` | a handler extracts `Session` there: see [`placement`](super::placement) |
//! | `two handles with separate caches are in use for one project ...` | `WARN`, once per project | `project_id`; build one configuration and clone it |
//! | `a production API key with weak cookies ...`, `a client API key ... is in use ...` | `WARN`, at start-up | use [`CookieOptions::hardened`](crate::CookieOptions::hardened), use a server key |
//! | `a trusted origin seems to be on another site ...` | `WARN`, at start-up | `origin`, `same_site`; see [`spa`](super::spa#a-page-on-another-origin) |
//! | `could not load the key set` | `WARN`, at most once a minute | `kind`, `error` |
//! | `rotated tokens are evicted before their grace period ends ...` | `WARN`, at most once a minute | raise [`rotation_grace_bytes`](crate::CrossmintAuthConfigBuilder::rotation_grace_bytes) |
//! | `Crossmint refuses all refresh tokens ...` | `WARN`, at most once a minute | `refusals`; check the API key |
//! | `could not revoke a session at Crossmint` | `INFO`, at most once a minute; otherwise `DEBUG` | `error` |
//! | `a session has ended` | `DEBUG`, because anonymous clients can cause it | `reason`: `logout` or `refused` |
//! | `loaded the key set` | `DEBUG` | `keys`: how many |
//! | `refreshed a session` | `DEBUG` | |
//! | `joined a refresh` | `TRACE` | |
//!
//! The field `error` holds the error and all its causes in one text. `kind` is
//! [`AuthErrorKind::as_str`](crate::AuthErrorKind::as_str).
//!
//! # Spans
//!
//! Each call to Crossmint has a span at level `INFO` with the name `crossmint_call` and the fields of OpenTelemetry's
//! conventions for HTTP clients: `otel.kind`, `http.request.method`, `url.template`, `server.address`, `server.port`,
//! `http.response.status_code` and, if the call failed, `error.type` (the status, `timeout`, `transport` or
//! `unusable_answer`) and `otel.status_code`. The template stands for the URL, which may contain a user's ID, so there
//! is no `url.full`. The span of a refresh or logout is a child of the request that started it.
//!
//! # Metrics
//!
//! With the feature `metrics`, the crate emits these metrics through the [`metrics`](https://docs.rs/metrics) facade,
//! to the recorder that is installed when the handle is created. Install it first. `examples/metrics.rs` has an
//! endpoint for Prometheus.
//!
//! | metric | type | labels |
//! | --- | --- | --- |
//! | `crossmint_auth_refresh_seconds` | histogram | `outcome`: `success` or the kind of the error |
//! | `crossmint_auth_refreshes_in_flight` | gauge | |
//! | `crossmint_auth_key_set_loaded_timestamp_seconds` | gauge; the age is `time()` minus its value | |
//! | `crossmint_auth_rejections_total` | counter | `kind` |
//! | `crossmint_auth_<counter>_total` for each field of [`Stats`](crate::Stats) | counter | |
//!
//! All have the label `project`. The gauge of the key set is zero until the first one is loaded. Configure buckets for
//! the histogram, as the example does: by default, many exporters compute quantiles, which cannot be aggregated over
//! replicas.
//!
//! # Counters
//!
//! [`CrossmintAuth::stats`](crate::CrossmintAuth::stats) returns the same counters without the feature. This handler
//! exports them in the text format of Prometheus; with OpenTelemetry, read them in the callback of an observable
//! counter:
//!
//! ```
//! use std::fmt::Write as _;
//!
//! use axum::extract::State;
//! use tower_crossmint_auth::CrossmintAuth;
//!
//! async fn metrics(State(auth): State<CrossmintAuth>) -> String {
//!     let (stats, mut text) = (auth.stats(), String::new());
//!     for (name, value) in stats.counters() {
//!         let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
//!     }
//!     let _ = writeln!(text, "# TYPE crossmint_auth_rejections_total counter");
//!     for (kind, count) in stats.rejections() {
//!         let _ = writeln!(text, "crossmint_auth_rejections_total{{kind=\"{}\"}} {count}", kind.as_str());
//!     }
//!     text
//! }
//! # use tower_crossmint_auth::{Credentials, testing::MockCrossmint};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().build()?);
//! # let alice = mock.session("alice").jwt_lifetime(-60).create();
//! # auth.get_session(Credentials::pair(alice.jwt(), alice.refresh_token())).await?;
//! # let text = metrics(State(auth)).await;
//! # assert!(text.contains("crossmint_auth_refreshes_total 1\n"), "{text}");
//! # assert!(text.contains("crossmint_auth_rejections_total{kind=\"refused\"} 0\n"), "{text}");
//! # Ok(())
//! # }
//! ```
//!
//! | counter | watch for |
//! | --- | --- |
//! | `cache_hits`, `verifications` | Many verifications for each hit: the cache is too small, see [`token_cache_bytes`]. |
//! | `failed_reloads` | Growth that does not stop: the key set cannot be loaded. The last one is used for an hour. |
//! | `refreshes`, `joined`, `grace_hits` | The ratio shows how many requests share one refresh. |
//! | `grace_evictions` | Anything but zero: sessions end. Raise [`rotation_grace_bytes`]. |
//! | `revocation_evictions` | Anything but zero: JWTs of signed-out sessions are accepted again. |
//! | `refusal_runs` | Anything but zero: the API key may have been revoked. |
//! | rejections of the kinds `unavailable`, `rate_limited`, `unusable_answer` | An outage at Crossmint, or too few permits. |
//!
//! # Outages
//!
//! A valid session needs no call to Crossmint. While Crossmint is unavailable,
//!
//! - the last key set is used until it is an hour old, and attempts to reload it back off, up to 30 s apart;
//! - no refresh token is sent while no key set can be loaded, because the answer could not be verified;
//! - sessions that need a refresh are rejected according to [`on_outage`]: by default with 401, which signs the user
//!   out, and under [`KeepSession`](crate::OutagePolicy::KeepSession) with 503 and `Retry-After`;
//! - a circuit breaker opens when all permits are taken and none has been returned for a tenth of [`refresh_timeout`]
//!   (1 s at least): requests that need a refresh then fail at once, and single refreshes probe whether Crossmint has
//!   recovered;
//! - after a 429, a token is sent again only after the time that `Retry-After` names; after ten in a row, no refresh is
//!   sent for that time;
//! - a failed refresh is not retried, because the token may be spent. The exception is an HTTP/2 stream that Crossmint
//!   reports as not processed.
//!
//! # Limits
//!
//! | what | limit |
//! | --- | --- |
//! | refreshes in flight | [`max_concurrent_refreshes`], 128 by default; eight times as many in the queue |
//! | logouts in flight | the same numbers, with permits and a queue of their own |
//! | verified JWTs | [`token_cache_bytes`], 16 MiB by default, about 14 000 sessions |
//! | rotated tokens and their successors | [`rotation_grace_bytes`], 16 MiB by default; about 6 KiB per refresh during the grace period |
//! | JWTs of signed-out sessions, refused until they expire | 100 000, about 8 MiB |
//! | refused tokens, remembered for 30 s, and tokens that must pause | 10 000 entries |
//! | Crossmint's answers | 256 KiB for the key set, 64 KiB for others |
//! | the refresh route's body | 16 KiB, within 5 s |
//! | a JWT in a cookie | 8 190 bytes |
//!
//! A client that disconnects does not cancel its refresh or logout: the call completes in a task of its own.
//!
//! To choose `max_concurrent_refreshes`, multiply the expected refreshes a second by Crossmint's latency. At 0.1 s, 128
//! permits serve 1 280 refreshes a second. To choose `rotation_grace_bytes`, multiply the refreshes a second by the
//! grace period and by 6 KiB; where memory runs short, a late request first costs one more refresh, and only then are
//! tokens evicted.
//!
//! # Start-up and shutdown
//!
//! [`warm_up`](crate::CrossmintAuth::warm_up) loads the key set before the first request. If it fails, the layer works
//! all the same, and tries again when a request needs a key.
//!
//! [`wait_idle`](crate::CrossmintAuth::wait_idle) waits for the calls in flight. Await it after the server has stopped
//! and before the runtime ends: a runtime that is dropped during a refresh loses the only copy of a new refresh token.
//! It takes no longer than the calls' time limits. [`handle`](super::handle) has an example.
//!
//! # Replicas
//!
//! Caches, the single flight and the grace period are local to a process. If two replicas send one refresh token,
//! Crossmint may take the second request for reuse and end the session. Route each browser to the same replica, for
//! instance by a hash of the refresh token's cookie or by the load balancer's own cookie. Deployments that replace all
//! replicas at once should drain the old ones, and await `wait_idle`.
//!
//! [`token_cache_bytes`]: crate::CrossmintAuthConfigBuilder::token_cache_bytes
//! [`rotation_grace_bytes`]: crate::CrossmintAuthConfigBuilder::rotation_grace_bytes
//! [`max_concurrent_refreshes`]: crate::CrossmintAuthConfigBuilder::max_concurrent_refreshes
//! [`refresh_timeout`]: crate::CrossmintAuthConfigBuilder::refresh_timeout
//! [`on_outage`]: crate::CrossmintAuthConfigBuilder::on_outage
