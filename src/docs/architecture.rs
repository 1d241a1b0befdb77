//! How the crate is built, for contributors.
//!
//! Every state has one owner, whose fields are private; `authorize` holds the owners. The engine, which is everything
//! but `layer/`, knows neither Tower, nor bodies, nor `Request` and `Response`: it takes a request's method, path and
//! headers, and returns a decision.
//!
//! # A request's path
//!
//! ```text
//! call(request) ── authorize(method, uri, headers) -> Decision      synchronous, borrows, no allocation of its own
//!   ├ Forward            insert the session, call the inner service                                   the fast path
//!   └ Hold
//!     ├ Pending          the JWT is expired, missing or invalid, or the key set is not loaded:
//!     │                  ├ granted   poll the inner service ready, call it, set the cookies on its response
//!     │                  └ rejected  respond
//!     ├ Route            read the body, respond; the inner service is not called
//!     └ Reject           respond
//! ```
//!
//! On the fast path, a JWT that was verified before costs a scan of the cookies, a hash, a comparison of the whole
//! token, one clock reading and an insertion into the extensions. There is no signature check, no lock, and no boxed
//! future. The only shared memory that it writes to is the session's reference count: the table of the token cache is
//! read without a lock, and hits and the clones of a service are counted per thread. (With the feature `metrics`, each
//! hit also increments the application's counter.)
//!
//! Where it holds a request, the layer gives up the readiness of the inner service at once, and polls a clone ready
//! before it calls it: a permit must not be held while Crossmint answers.
//!
//! # Modules
//!
//! | module | owns |
//! | --- | --- |
//! | `config/` | Every option with its default and its check: the builder, the API key, cookie options and names, the policies of a layer, paths of this site. |
//! | `error.rs` | `AuthError`, and one table of what each kind means: status, message, cookies. `ConfigError`. |
//! | `session.rs` | `Session`, `AuthMaterial`, `RefreshToken`, `User`. |
//! | `layer/` | The shell, the only place that knows Tower, bodies, requests and responses: the layer, the service, its future and body, the two routes, rejections as responses, what is for axum. |
//! | `auth.rs` | `CrossmintAuth`, the public handle: a façade without logic of its own. |
//! | `authorize.rs` | The decision about a request, composed of what the owners below know. |
//! | `csrf.rs`, `bearer.rs` | Whether another site can have caused a request, and whether it loads a page; the token in `Authorization`. |
//! | `cookies/` | Reading and writing cookies, clearing them, and merging them with the application's own. The only place that writes `Set-Cookie`, `Cache-Control` and `Vary`. |
//! | `jwks/` | `JwksCache`: the key set, and the policy of its reloads. |
//! | `verify/` | `Verifier`: the grammar and the claims of JWTs, `TokenCache`, the cache of verified tokens, and `RevokedTokens`, those of sessions that have signed out. |
//! | `refresh/` | `Refresher`: the single flight, the limit on upstream calls with its circuit breaker, and the grace period of rotated tokens. |
//! | `refresh/shared/` | What replicas do together, behind the feature `redis`: `Course` is the way of one token, `seal.rs` what the store may see of it, `log.rs` the logouts at other replicas. |
//! | `store/` | `Store`, what replicas share, as a private trait: in Redis, with its scripts and its connection, and in memory for tests. |
//! | `upstream.rs` | The HTTP calls to Crossmint. |
//! | `stats/`, `task_tracker.rs`, `handle_registry.rs` | Counters and metrics, tasks that outlive a client, and the warning about a second handle. |
//! | `secret.rs`, `clock.rs`, `per_thread.rs`, `json.rs`, `host.rs`, `log_throttle.rs` | Text that is never printed, the clocks, counts for each thread, strict JSON, hosts, and rate-limited log events. |
//! | `testing/` | The mock and its browser, behind the feature `testing`. |
//!
//! Imports point one way: `jwks` and `cookies` know no other owner, `verify` knows `jwks`, `refresh` knows `verify`,
//! `cookies`, `store` and `upstream`, `authorize` composes them, and `layer` knows `auth` and `authorize`. The package
//! in `tests/rooms` parses the source and checks what privacy cannot enforce: the table of allowed imports, the absence
//! of circles, and that only `cookies` names the header fields that it writes.
//!
//! # Invariants
//!
//! 1. Only verified tokens are cached, and no revoked one. An entry is bound to the whole token, the generation of the
//!    key set, and `exp`.
//! 2. A JWT with a known key never waits for the key set. An unknown key triggers at most one reload per 30 s, counted
//!    from the last attempt. A failed reload keeps the last good set, for an hour.
//! 3. A refresh token is sent once, however many requests carry it. The call runs in a task of its own, and its result
//!    stays available for the grace period.
//! 4. A successor is never discarded: once Crossmint has rotated a token, the new token is kept until it has been
//!    delivered, whatever is wrong with the JWT beside it. (Under `EndSession`, an outage clears the browser's cookies
//!    nevertheless.)
//! 5. The JWT of a refresh is verified like any other.
//! 6. A request that another site can have caused clears no cookies that it did not carry.
//! 7. Every response that sets cookies, and every response of the layer's own, carries `Cache-Control: no-store`.
//! 8. No secret appears in `Debug`, `Display`, an event, a span, an error or a panic.
//! 9. Nothing depends on `jsonwebtoken`'s process-wide crypto provider, which panics if another crate enables a second
//!    one. The crate uses its JWK types only.
//!
//! # Evidence
//!
//! `tests/behaviour` tests the public API against the mock, and `tests/browser` in Chromium, with Crossmint's browser
//! SDK. `src/refresh/single_flight/model.rs` tries the interleavings of the single flight, and `src/verify/model.rs`
//! those of a logout and the cache of verified tokens. `src/refresh/shared/tests` tries the orders of events between
//! three replicas that share a store, and `tests/replicas` kills, pauses and cuts off real ones, and forges what is in
//! the store. `fuzz/` compares the parsers with a second implementation, and `examples/soak` runs the crate under load.
//! `SECURITY.md` maps every threat to its tests. `.ci/run` runs all of it.
