//! Security notes: what the layer protects, and what is left to the application.
//!
//! The threat model, with the tests that cover each threat, is in `SECURITY.md`.
//!
//! # Checklist for production
//!
//! 1. Use [`CookieOptions::hardened`]: `HttpOnly`, `Secure`, `SameSite=Strict`.
//! 2. Set [`expose_refresh_secret(false)`] unless scripts need the refresh token. Scripts can read the JWT's cookie in
//!    any case, because the browser SDK needs it.
//! 3. Set [`on_outage(OutagePolicy::KeepSession)`], so that neither an outage nor a flood of requests signs users out.
//!    The browser SDK signs them out nevertheless if it knows the logout route: see [`spa`](super::spa#outages).
//! 4. Limit the rate of requests in front of the layer.
//! 5. Add a CSRF layer for your own handlers: see [below](#requests-from-other-sites).
//! 6. Use names that begin with `__Host-` ([`CookieNames::Custom`]) if a sibling subdomain is not trusted and the
//!    browser SDK need not find the cookies.
//! 7. In a gRPC server, set [`cors_preflights(CorsPreflights::Reject)`].
//!
//! # JWTs
//!
//! Only RS256 is accepted, with exactly the key that `kid` names, or with the only key of the set if there is no `kid`.
//! `alg: none`, HMAC, `crit`, and compressed or nested tokens are rejected before any key is used. Keys and URLs in a
//! token's header are ignored. `aud` must contain the project's ID: Crossmint's projects may share signing keys.
//!
//! A JWT is valid until it expires, even if it was stolen: keep its lifetime short. After a logout, the process that
//! handled it refuses the session's JWTs until they expire: the one that the request carried, and those that refreshes
//! have issued during the grace period. It remembers up to 100 000 of them, and another 256 that are logged out before
//! their key is loaded, which [`warm_up`] avoids; [`Stats::revocation_evictions`] counts those that did not fit. Other
//! processes accept them, and so does this one after a restart, unless they [share a store](#replicas).
//! [`revoke_session`] does the same for an application's own reasons.
//!
//! # Refresh tokens
//!
//! A rotated token resolves to its successor, no matter who sends it: for [`rotation_grace`] (30 s by default) after
//! the last response with the successor, for 300 s at most, and for an hour if no response has delivered the successor.
//! A grace period of zero makes each token usable once, and parallel requests then end sessions.
//!
//! Anonymous clients can trigger upstream calls with made-up refresh tokens. At most [`max_concurrent_refreshes`] are
//! in flight, a refused token is not sent again for 30 s, and requests with a valid JWT are not affected.
//!
//! Behind the layer, the request's `Cookie` header still contains what the browser sent. Read the session from the
//! extensions.
//!
//! # Requests from other sites
//!
//! The layer protects the refresh route, the logout route and WebSocket handshakes. It does not protect your handlers.
//!
//! - **The two routes** accept a request whose `Sec-Fetch-Site` is `same-origin` or `none`, and one whose `Origin` is
//!   in [`trusted_origins`]. Without `Sec-Fetch-Site`, `Origin` must match `Host`; if a proxy rewrites `Host`, add the
//!   public origin to `trusted_origins`. The scheme is not compared, because a proxy may terminate TLS and
//!   `X-Forwarded-Proto` is not trusted; but with `Secure` cookies an `http` origin counts as another site's, except on
//!   loopback. Requests with neither header do not come from a current browser, and pass.
//! - **WebSocket handshakes** and extended CONNECT requests from other origins are answered with 403, under the same
//!   rules: CORS does not cover them. Native clients, which send no `Origin`, pass.
//! - **Sign-outs.** Browsers withhold SameSite cookies from a request that another site causes, but accept cookie
//!   deletions from its response. The response to such a request therefore clears only the cookies that the request
//!   carried, so that no link or form on another site signs the user out. Two cases remain, in which a link on another
//!   site ends a session with `Strict` cookies: browsers older than Chrome 76, Firefox 90 and Safari 16.4, which do not
//!   send `Sec-Fetch-Site`, and sites on plain HTTP (except on loopback), to which no browser sends it.
//! - **Your handlers.** `SameSite=Strict` and `Lax` withhold the cookies from `POST`s that other sites forge, but not
//!   from those of sibling subdomains; `SameSite=None` withholds them from none. The `csrf` layer of tower-http 0.7
//!   rejects both kinds. Put it outside this layer and give it the same trusted origins:
//!
//! ```ignore
//! let app = Router::new()
//!     .route("/transfer", post(transfer))
//!     .layer(CrossmintAuthLayer::new(config))
//!     .layer(tower_http::csrf::CsrfLayer::new().add_trusted_origin("https://admin.example.com")?);
//! ```
//!
//! # CORS preflights
//!
//! Preflights carry no cookies. By default they reach every handler without a session, so that a CORS layer or handler
//! can answer them. A handler for any method must expect `OPTIONS` with an empty body. tonic ignores the method, and
//! calls a method with a client stream: a gRPC server should set [`cors_preflights(CorsPreflights::Reject)`]. An
//! `OPTIONS` request with a body, `Content-Type`, `Cookie` or `Authorization` is not a preflight, and needs a session.
//!
//! # Planted cookies
//!
//! A sibling subdomain can set cookies for the shared parent domain. Where cookies of one name differ, the request is
//! rejected, and its response deletes them for every domain and path that the request's host and path allow. With
//! `Secure` cookies, the refresh token's cookie is overwritten instead, so that requests with a planted cookie that the
//! deletions miss stay rejected. Cookies that are planted where the user has none are accepted, unless their names
//! begin with `__Host-`.
//!
//! # WebSockets
//!
//! A handshake with an expired session refreshes it. If the browser ignores the cookies of the 101 response, its next
//! request within the grace period gets them again.
//!
//! # Responses
//!
//! Responses that set cookies carry `Cache-Control: no-store`, and lose header fields that instruct one kind of cache,
//! such as `CDN-Cache-Control`.
//!
//! # Replicas
//!
//! One refresh per session is guaranteed within a process, and among replicas that share a store: see
//! [`operations`](super::operations#replicas). With neither, a session that two replicas refresh at once ends.
//!
//! The store need not be trusted with sessions:
//!
//! - **It cannot read them.** A record's name and its encryption key (AES-256-GCM) are derived from the refresh token
//!   by HKDF, together with the project, its environment, the base URL, and the [`pepper`], if there is one. The store
//!   gets neither the token nor the key. Answers are padded, so that their size says little about the user. What
//!   remains visible is when a session is refreshed and signed out, and which records belong to one session.
//! - **It cannot forge them.** Answers, claims, failures, refusals and logouts are encrypted and authenticated for
//!   exactly one token and one meaning. An answer is parsed, and its JWT verified, like one that Crossmint has sent. A
//!   record that cannot be opened counts as an unreachable store.
//! - **The log of logouts** contains a hash of the end of each JWT's signature, and its expiry. An entry that is made
//!   up matches no JWT.
//!
//! A store that is hostile, or that others can write to, can do what its loss can do: delete records, so that a token
//! is sent twice; withhold logouts from other replicas; put back older records of a session, which delays its
//! refreshes; and refuse to answer. Those who have a refresh token of a session, even a rotated one, and a copy of the
//! store can decrypt the successors that are recorded there. A pepper prevents that.
//!
//! One-time secrets and other tokens of less than 32 bytes are not shared, because their records could be found by
//! trying all of them. Use TLS and a user with [few permissions](super::operations#setting-up-the-server).
//!
//! # The implementation
//!
//! No `unsafe` code and no `rsa` crate. Cryptography comes from AWS-LC through `aws-lc-rs`, independently of the
//! provider that `jsonwebtoken` is built with elsewhere in the application. The API key, JWTs and refresh tokens appear
//! in no `Debug` output, event or error.
//!
//! [`CookieOptions::hardened`]: crate::CookieOptions::hardened
//! [`expose_refresh_secret(false)`]: crate::CrossmintAuthConfigBuilder::expose_refresh_secret
//! [`on_outage(OutagePolicy::KeepSession)`]: crate::CrossmintAuthConfigBuilder::on_outage
//! [`CookieNames::Custom`]: crate::CookieNames::Custom
//! [`cors_preflights(CorsPreflights::Reject)`]: crate::CrossmintAuthConfigBuilder::cors_preflights
//! [`Stats::revocation_evictions`]: crate::Stats::revocation_evictions
//! [`revoke_session`]: crate::CrossmintAuth::revoke_session
//! [`warm_up`]: crate::CrossmintAuth::warm_up
//! [`rotation_grace`]: crate::CrossmintAuthConfigBuilder::rotation_grace
//! [`max_concurrent_refreshes`]: crate::CrossmintAuthConfigBuilder::max_concurrent_refreshes
//! [`trusted_origins`]: crate::CrossmintAuthConfigBuilder::trusted_origins
//! [`pepper`]: crate::RedisRenewals::pepper
