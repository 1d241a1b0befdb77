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
//! | `refreshes are not shared: the store is unreachable` | `WARN`, at most once a minute; otherwise `DEBUG` | `error`, `when_unreachable`; see [below](#while-the-store-is-unreachable) |
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
//! | `shared_hits`, `shared_claims` | The ratio shows how often other replicas have done the work. No hits at all: the replicas differ in prefix, pepper or server. |
//! | `shared_takeovers`, `shared_lost` | Replicas that die, or are paused, during refreshes. |
//! | `shared_unreachable` | Anything but zero: refreshes are not shared. It counts commands, not sessions. |
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
//! Crossmint may take the second request for reuse and end the session. There are two ways to run several replicas:
//!
//! - **Share refreshes through a store** (feature `redis`): any replica can serve any request. The replicas agree
//!   through a Redis or Valkey server on which of them sends a refresh token, pass each other the answer, and learn of
//!   each other's logouts.
//! - **Route each browser to the same replica**, for instance by a hash of the refresh token's cookie or by the load
//!   balancer's own cookie. Sessions that are refreshed while a browser changes replicas may end, for instance when a
//!   replica is added, and a logout is known to one replica only.
//!
//! Deployments that replace replicas should drain the old ones, and await `wait_idle`.
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthConfig, OutagePolicy, RedisRenewals};
//!
//! let renewals = RedisRenewals::new(std::env::var("REDIS_URL")?)?; // rediss://user:password@redis.internal:6379/0
//! let config = CrossmintAuthConfig::builder(std::env::var("SERVER_CROSSMINT_API_KEY")?)
//!     .share_renewals(renewals)
//!     .on_outage(OutagePolicy::KeepSession)
//!     .build()?;
//! let auth = CrossmintAuth::new(config);
//! auth.warm_up().await?; // connects to the store as well
//! # Ok(())
//! # }
//! ```
//!
//! `examples/replicas` runs three replicas behind a round-robin proxy, with and without a store, and stops the store.
//!
//! ## What is promised
//!
//! The store is used by refreshes and logouts only. A request with a valid JWT does not need it: it is not delayed by a
//! slow store, and is served while there is none.
//!
//! While the store is reachable and keeps what it has acknowledged, and no replica is paused for longer than its claim
//! holds:
//!
//! 1. A refresh token is never in flight twice, and is not sent again once its outcome is known, until the grace period
//!    is over.
//! 2. If a replica dies during a refresh, its token is sent at most once more.
//! 3. A new refresh token is recorded before anyone gets it. It survives unless both its replica and the store are
//!    lost.
//! 4. After a logout, no replica hands out a successor of the session's tokens. Within a second, all replicas refuse
//!    the JWTs that the handling replica would refuse on its own.
//! 5. The store learns sizes, times, and which records follow each other. It can neither read nor forge a session, a
//!    refusal or a logout: see [`security`](super::security#replicas).
//!
//! A replica claims a token before it sends it. The claim holds for a quarter more than [`refresh_timeout`], and 5 s:
//! 17.5 s by default. Other replicas that need the session meanwhile wait for up to `refresh_timeout`, and are woken by
//! the answer.
//!
//! ## What is not promised
//!
//! Redis acknowledges writes before they are replicated, and Crossmint does not check which replica holds a claim. In
//! these cases a token may be sent a second time, and its session may end:
//!
//! | what happens | effect |
//! | --- | --- |
//! | the store restarts empty, or is flushed | Replicas that have seen a claim wait until it is over. Others do not know of it, nor of tokens that were rotated within the grace period. A replica that starts later does not know of earlier logouts. |
//! | a failover loses the last writes | The same, for those writes. |
//! | a network partition separates some replicas from the store | They behave as [described below](#while-the-store-is-unreachable); the others do not notice. |
//! | a replica is paused (`SIGSTOP`, a virtual machine that migrates) for longer than its claim holds | Another one takes the claim over. Whichever answer arrives is kept. |
//! | a replica is killed after Crossmint has rotated the token, and before the answer is recorded | The answer is lost. Another replica sends the token when the claim is over, is refused, and the user signs in again. |
//!
//! A replica that is killed before Crossmint has processed its call, or after it has recorded the answer, loses no
//! session. If two replicas in a row die while they refresh the same session, the token is not sent a third time for a
//! minute, and requests are answered as in an outage (`shared_lost`).
//!
//! `WAIT` and Redlock would not change this: Crossmint would have to check the claim.
//!
//! ## While the store is unreachable
//!
//! The store counts as unreachable if it cannot be connected to within a second, answers with an error, or does not
//! answer a command within [`time_limit`] (50 ms). After three commands in a row without an answer, the connection is
//! replaced. Once an attempt to connect has failed, commands fail at once, and further attempts are made in the
//! background, up to half a second apart. [`when_unreachable`] decides what happens to sessions that need a refresh:
//!
//! - [`GoOn`], the default: the replica refreshes them on its own. Two replicas that refresh one session meanwhile end
//!   it, as without a store. Choose it if browsers mostly return to the same replica, or if requests must not fail
//!   because of the store.
//! - [`Wait`]: they are treated as in an outage of Crossmint. Combine it with [`KeepSession`], so that they are
//!   answered with 503 and no session ends. With the default of [`on_outage`], they end at once.
//!
//! Under both, a replica that has seen another one's claim waits until it is over. Answers and logouts that cannot be
//! recorded are retried in the background for as long as a claim holds, which `wait_idle` waits for. A logout succeeds
//! without the store, but other replicas may then accept its JWT until it expires, unless the store is back in time.
//!
//! While the store is unreachable, `shared_unreachable` grows, and a warning is logged once a minute.
//!
//! ## Setting up the server
//!
//! One primary of Redis 6 or newer, or of Valkey, is needed. It may serve other applications as well.
//!
//! - **No eviction**: set `maxmemory-policy noeviction`, and alert on memory. Other policies may drop claims and the
//!   only copies of new refresh tokens. When memory is full, the store counts as unreachable.
//! - **No persistence** is needed: most records live for less than a minute. With AOF (`appendfsync everysec`), a restart
//!   loses at most the last second instead of everything.
//! - **Output buffers**: each replica has one connection, which is subscribed, so that `client-output-buffer-limit
//!   pubsub` applies to it. The default (32 MB, or 8 MB for a minute) is enough for thousands of replies at once.
//! - **A user of its own**, which can use only the crate's keys and channel:
//!
//!   ```text
//!   ACL SETUSER app on >PASSWORD ~{tca1:* &{tca1:* -@all +eval +evalsha +subscribe +publish +time +hmget
//!       +hset +del +pexpire +pttl +xadd +xrange +ping
//!   ```
//!
//!   `tca1` is the [`prefix`]. For another database than 0, add `+select`.
//! - **TLS**, wherever the network is not trusted: `rediss://`, with the authorities of the operating system or with
//!   [`ca_certificates`]. Without it, the password and encrypted records cross the network.
//! - **A [`pepper`]** is an additional secret. With it, those who have both a copy of the store and an old refresh
//!   token cannot decrypt the token's successors. It must be the same on all replicas.
//!
//! Server and replicas should be in one region: a refresh takes three round trips more than without a store. The clocks
//! of the replicas must agree within two minutes. The server's clock may differ from theirs, but should not jump.
//!
//! ## Sizing
//!
//! The load on the store depends on the number of refreshes, not of requests. With JWTs that live for 15 min, an active
//! session is refreshed four times an hour. If a browser sends three requests at once whenever its JWT has expired, and
//! they arrive at three replicas, a refresh takes twelve commands: four by the replica that sends the token, four by
//! each of the others. Each change of a record is published to all replicas.
//!
//! | active sessions, replicas | refreshes | commands | of one core | memory | network |
//! | --- | --- | --- | --- | --- | --- |
//! | 10 000, 3 | 11/s | 100/s | 0.2 % | 4 MiB | < 1 Mbit/s |
//! | 100 000, 10 | 111/s | 1 200/s | 2 % | 30 MiB | 11 Mbit/s |
//! | 1 000 000, 50 | 1 111/s | 13 400/s | 27 % | 280 MiB | 170 Mbit/s |
//!
//! A record takes 4 KB until the grace period is over, or for an hour if no response has delivered the new token. Set
//! `maxmemory` to several times the figure above, and plan for peaks, such as the start of a working day. Redis
//! executes commands on one core: it is half busy with 1.9 million active sessions on 50 replicas, or with 7 million if
//! JWTs live for an hour. More would have to be spread over the servers of a Cluster, which is not supported.
//!
//! `cargo run --example capacity` computes this, and compares it with a simulation. Its parameters can be changed.
//!
//! ## Rolling out
//!
//! Replicas do not coordinate with replicas that do not share, or that have another server, prefix, pepper, project or
//! base URL. Nothing is misread, but each group refreshes on its own. So:
//!
//! 1. Keep the routing of browsers to replicas as it is, and deploy the option.
//! 2. Once all replicas have it, and the old ones have stopped, route freely.
//! 3. To switch it off, or to change the server, prefix or pepper, restore the routing first.
//!
//! A version of the crate with another format of the records says so in the change log, and is rolled out in the same
//! way. [`refresh_timeout`] and [`rotation_grace`] should be the same on all replicas; sharing requires a
//! `rotation_grace` above zero.
//!
//! Several projects and environments can use one server, user and prefix: the names of keys contain a hash of the
//! project, its environment and the base URL. Different prefixes allow for different ACL users.
//!
//! ## Failover and managed services
//!
//! The URL must lead to the primary. Give it a name that follows the primary, such as the primary endpoint of a managed
//! service or the address of a proxy: Sentinel is not asked, and redirections of Cluster are not followed. A connection
//! to a server that has become read-only is replaced, so that a failover takes as long as the name takes to change.
//!
//! Replicas that wait for an answer are woken by a push message on the same connection (RESP3, Redis 6), and look again
//! every 100 to 250 ms in case a message is lost. Where a service or a proxy refuses `HELLO 3`, they look every 5
//! to 50 ms instead: all promises hold, with more commands and, on average, 25 ms more for those who wait. `EVALSHA`
//! with `EVAL` as fallback must be allowed; `SCRIPT FLUSH` does no harm.
//!
//! ## Limits
//!
//! - One primary: neither Cluster nor Sentinel. [Sizing](#sizing) says where that ends.
//! - Tokens under 32 bytes, such as the one-time secret of a login, are never shared: the name of their record could be
//!   found by trying all of them. A browser posts such a secret once.
//! - Each replica refuses the JWTs of up to 100 000 logouts at other replicas until they expire.
//!   [`Stats::revocation_evictions`](crate::Stats::revocation_evictions) counts those that did not fit.
//! - The log of logouts keeps about 65 000 JWTs, for a day after the last one. A replica that starts reads all of it.
//! - Only refreshes and logouts are shared. Each replica has its own key set, cache of verified JWTs, permits and
//!   circuit breaker.
//!
//! [`token_cache_bytes`]: crate::CrossmintAuthConfigBuilder::token_cache_bytes
//! [`rotation_grace_bytes`]: crate::CrossmintAuthConfigBuilder::rotation_grace_bytes
//! [`max_concurrent_refreshes`]: crate::CrossmintAuthConfigBuilder::max_concurrent_refreshes
//! [`refresh_timeout`]: crate::CrossmintAuthConfigBuilder::refresh_timeout
//! [`on_outage`]: crate::CrossmintAuthConfigBuilder::on_outage
//! [`rotation_grace`]: crate::CrossmintAuthConfigBuilder::rotation_grace
//! [`KeepSession`]: crate::OutagePolicy::KeepSession
//! [`time_limit`]: crate::RedisRenewals::time_limit
//! [`when_unreachable`]: crate::RedisRenewals::when_unreachable
//! [`prefix`]: crate::RedisRenewals::prefix
//! [`ca_certificates`]: crate::RedisRenewals::ca_certificates
//! [`pepper`]: crate::RedisRenewals::pepper
//! [`GoOn`]: crate::WhenUnreachable::GoOn
//! [`Wait`]: crate::WhenUnreachable::Wait
