//! The fault matrix: every way for Crossmint to fail, in every state of the layer.
//!
//! Each cell asserts the outcome, and which calls were made for it: of the key set, of refreshes, of logouts.

mod clients;
mod keys;
mod logout;
mod process;
mod refresh;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use futures_util::future::join_all;
use http::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::json;
use tokio::task::yield_now;
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthConfig, CrossmintAuthConfigBuilder, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::{
    direct::{self, app, pass, request},
    support::{Answer, ENDED, TRY_LATER, calls},
};

/// A way for Crossmint to fail.
struct Trouble {
    name: &'static str,
    how: How,
    verdict: Verdict,
}

enum How {
    Answers(Fault),
    /// The answers to refreshes are edited: members take the place of its own.
    Edits(serde_json::Value),
    Refuses,
    Resets,
    /// Accepts connections and says nothing.
    IsSilent,
    /// Its name is not resolved while this is set.
    HasNoAddress(Arc<AtomicBool>),
}

/// What a failure says of a refresh token.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Nothing,
    Refused,
    /// It may have been spent for nothing.
    Unusable,
    /// Not before these seconds have passed.
    Later(u64),
}

impl Trouble {
    /// Makes a new handle that knows nothing yet, ready for this trouble.
    fn scene(&self, stage: &Stage) -> Scene {
        let How::HasNoAddress(is_lost) = &self.how else { return Scene::of(stage, stage.config.clone()) };
        let address: SocketAddr = stage.mock.base_url().strip_prefix("http://").unwrap().parse().unwrap();
        let names = Arc::new(Names { address, is_lost: Arc::clone(is_lost) });
        let client = reqwest::Client::builder().no_proxy().dns_resolver(names).build().unwrap();
        let config = (stage.configure)(stage.mock.config());
        let config = config.base_url(format!("http://localhost:{}", address.port())).http_client(client);
        Scene::of(stage, config.build().unwrap())
    }

    async fn begin(&self, Scene { mock, .. }: &Scene, endpoint: Endpoint) {
        match &self.how {
            How::Answers(fault) => mock.inject(endpoint, fault.clone()),
            How::Edits(edits) => {
                let edits = edits.as_object().unwrap().clone();
                mock.edit_refresh_answers(move |answer| answer.as_object_mut().unwrap().extend(edits.clone()));
            }
            How::Refuses => mock.set_refusing(true),
            How::Resets => mock.set_down(true),
            How::IsSilent => mock.set_silent(true),
            How::HasNoAddress(is_lost) => {
                is_lost.store(true, Ordering::Relaxed);
                mock.close_connections();
            }
        }
        settled().await;
    }

    fn end(&self, Scene { mock, .. }: &Scene) {
        match &self.how {
            How::Answers(_) => mock.clear_faults(),
            How::Edits(_) => mock.edit_refresh_answers(|_| ()),
            How::Refuses => mock.set_refusing(false),
            How::Resets => mock.set_down(false),
            How::IsSilent => mock.set_silent(false),
            How::HasNoAddress(is_lost) => is_lost.store(false, Ordering::Relaxed),
        }
    }

    /// Counts the calls that arrive of each one that is made.
    fn arrivals(&self) -> usize {
        usize::from(matches!(self.how, How::Answers(_) | How::Edits(_)))
    }

    /// Tells whether it lasts until a time limit.
    fn lasts(&self) -> bool {
        matches!(self.how, How::IsSilent | How::Answers(Fault::Hang | Fault::HangAfterCommit | Fault::SlowBody))
    }

    /// Tells whether calls have their effect all the same.
    fn commits(&self) -> bool {
        match &self.how {
            How::Answers(fault) => fault.commits(),
            How::Edits(_) => true,
            How::Refuses | How::Resets | How::IsSilent | How::HasNoAddress(_) => false,
        }
    }

    /// Returns the seconds that Crossmint asks for.
    fn requested_pause(&self) -> u64 {
        let How::Answers(Fault::Response { headers, .. }) = &self.how else { return 0 };
        let pause = headers.iter().find(|(name, _)| name == "retry-after").and_then(|(_, value)| value.parse().ok());
        pause.map_or(0, |pause: u64| pause.clamp(1, 60))
    }

    /// Waits for answers to `calls` calls that get into this trouble. If it lasts, does something else when the calls
    /// are under way, and then lets the time limit pass.
    async fn endured<T>(
        &self,
        Scene { mock, .. }: &Scene,
        (endpoint, calls, limit): (Endpoint, usize, Duration),
        answers: impl Future<Output = T>,
        meanwhile: impl AsyncFnOnce(),
    ) -> T {
        let (arrived, connected) = (mock.calls(endpoint) + calls, mock.connections() + calls);
        let clock = async {
            if !self.lasts() {
                return;
            }
            if self.arrivals() == 0 {
                until(|| mock.connections() >= connected).await;
            } else {
                mock.called(endpoint, arrived).await;
            }
            meanwhile().await;
            pass(limit).await;
        };
        tokio::join!(answers, clock).0
    }
}

/// A mock, and how to ask it. HTTP clients are slow to make: all handles share one.
struct Stage {
    mock: MockCrossmint,
    configure: fn(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
    config: CrossmintAuthConfig,
}

impl Stage {
    async fn new(configure: fn(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder) -> Self {
        let mock = MockCrossmint::start().await;
        let config = configure(mock.config()).build().unwrap();
        Self { mock, configure, config }
    }
}

/// A handle and an application that have had no calls yet.
struct Scene {
    mock: MockCrossmint,
    auth: CrossmintAuth,
    app: Router,
    before: ([usize; 3], usize),
}

impl Scene {
    fn of(Stage { mock, .. }: &Stage, config: CrossmintAuthConfig) -> Self {
        let auth = CrossmintAuth::new(config);
        Self { app: app(&auth), auth, mock: mock.clone(), before: (calls(mock), mock.reuse_detections()) }
    }

    /// Counts the calls for keys, refreshes and logouts since the beginning.
    fn calls(&self) -> [usize; 3] {
        let now = calls(&self.mock);
        std::array::from_fn(|endpoint| now[endpoint] - self.before.0[endpoint])
    }

    /// Counts the sessions that the mock has ended because a spent token came back.
    fn reused(&self) -> usize {
        self.mock.reuse_detections() - self.before.1
    }

    async fn get(&self, session: &MockSession) -> Answer {
        direct::get(&self.app, "/me", &session.cookie_header()).await
    }

    /// Sends as many requests at once.
    async fn crowd(&self, session: &MockSession, requests: usize) -> Vec<Answer> {
        join_all((0..requests).map(|_| self.get(session))).await
    }

    async fn post(&self, path: &str, cookie: &str) -> Answer {
        direct::send(&self.app, request(Method::POST, path, cookie)).await
    }

    /// Counts how often the session's refresh token was sent to Crossmint.
    fn sent(&self, session: &MockSession) -> usize {
        let body = json!({ "refresh": session.refresh_token() });
        self.mock.requests(Endpoint::Refresh).iter().filter(|request| request.json().as_ref() == Some(&body)).count()
    }
}

/// Asserts that no verdict was given, and that the policy says what becomes of the session.
#[track_caller]
fn assert_no_verdict(answer: &Answer, policy: OutagePolicy, case: &str) {
    match policy {
        OutagePolicy::KeepSession => {
            answer.assert_refused_gently(503, TRY_LATER, case);
            let pause: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&pause), "{case}: {pause}");
        }
        _ => answer.assert_ended(TRY_LATER, case),
    }
}

impl Verdict {
    /// Asserts what a request gets whose session this was said of.
    #[track_caller]
    fn assert_given(self, answer: &Answer, policy: OutagePolicy, case: &str) {
        if self == Self::Refused {
            answer.assert_ended(ENDED, case);
        } else {
            assert_no_verdict(answer, policy, case);
        }
    }

    /// Returns for how many seconds the token is not sent again.
    fn memory(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Unusable => 5,
            Self::Later(pause) => pause,
            Self::Refused => 30,
        }
    }
}

/// Everything that can go wrong with a call to any endpoint.
fn troubles() -> Vec<Trouble> {
    use How::*;
    use Verdict::*;
    let body =
        |status, body: &'static [u8]| Answers(Fault::response(status, &[("content-type", "application/json")], body));
    let later = |status, pause| Answers(Fault::response(status, &[("retry-after", pause)], ""));
    let status = |status| Answers(Fault::Status(status));
    let redirect = |status| Answers(Fault::Redirect(status, "/elsewhere".to_owned()));
    let mut rows = vec![
        ("no address", HasNoAddress(Arc::default()), Nothing),
        ("refused", Refuses, Nothing),
        ("reset as soon as it is accepted", Resets, Nothing),
        ("accepted, then silence", IsSilent, Nothing),
        ("a hang", Answers(Fault::Hang), Nothing),
        ("a hang after the fact", Answers(Fault::HangAfterCommit), Nothing),
        ("a byte a second", Answers(Fault::SlowBody), Nothing),
        ("a reset before the status", Answers(Fault::Reset), Nothing),
        ("a reset after the fact", Answers(Fault::LoseAnswer), Nothing),
        ("a reset within the body", Answers(Fault::ResetMidBody), Nothing),
        ("a body cut off", Answers(Fault::EarlyEof), Nothing),
        ("204", body(204, b""), Unusable),
        ("304", body(304, b""), Nothing),
        ("429", status(429), Later(5)),
        ("429 for 7 s", later(429, "7"), Later(7)),
        ("429 for no time", later(429, "0"), Later(1)),
        ("429 for a day", later(429, "86400"), Later(60)),
        ("429 until a date", later(429, "Fri, 02 Jan 2099 03:04:05 GMT"), Later(5)),
        ("429 for a negative time", later(429, "-3"), Later(5)),
        ("503 for 7 s", later(503, "7"), Nothing),
        ("a page with 200", Answers(Fault::StatusHtml(200)), Unusable),
        ("a page with 401", Answers(Fault::StatusHtml(401)), Nothing),
        ("a page with 403", Answers(Fault::StatusHtml(403)), Nothing),
        ("a page with 502", Answers(Fault::StatusHtml(502)), Nothing),
        ("400", status(400), Refused),
        ("401", status(401), Refused),
        ("garbage", Answers(Fault::Garbage), Unusable),
        ("no body", Answers(Fault::Empty), Unusable),
        ("JSON cut off", body(200, br#"{"jwt":"x","keys":[{"kty":"RSA""#), Unusable),
        ("bad UTF-8", body(200, b"{\"jwt\":\"\xff\",\"keys\":[{\"kid\":\"\xff\"}]}"), Unusable),
        ("wrong types", body(200, br#"{"jwt":5,"refresh":[],"keys":{}}"#), Unusable),
        ("an array", body(200, br#"[{"jwt":"x"}]"#), Unusable),
        ("null", body(200, b"null"), Unusable),
        ("an endless body", Answers(Fault::Endless), Unusable),
        ("a huge body", Answers(Fault::Huge(10 << 20)), Unusable),
        ("a bomb", Answers(Fault::CompressedBomb), Unusable),
    ];
    rows.extend(
        [("302", 302), ("303", 303), ("307", 307), ("308", 308)].map(|(name, code)| (name, redirect(code), Nothing)),
    );
    rows.extend(
        [
            ("403", 403),
            ("404", 404),
            ("408", 408),
            ("409", 409),
            ("425", 425),
            ("500", 500),
            ("502", 502),
            ("503", 503),
            ("504", 504),
        ]
        .map(|(name, code)| (name, status(code), Nothing)),
    );
    rows.into_iter().map(|(name, how, verdict)| Trouble { name, how, verdict }).collect()
}

/// Waits for what the mock's and the client's tasks bring about without any more time.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}

/// Lets every task see that a connection or a time limit has ended.
async fn settled() {
    for _ in 0..32 {
        yield_now().await;
    }
}

/// A resolver that knows one address, or none.
struct Names {
    address: SocketAddr,
    is_lost: Arc<AtomicBool>,
}

impl Resolve for Names {
    fn resolve(&self, _: Name) -> Resolving {
        let found = if self.is_lost.load(Ordering::Relaxed) {
            Err("no such name".into())
        } else {
            Ok(Box::new([self.address].into_iter()) as Addrs)
        };
        Box::pin(async { found })
    }
}

fn keeping(config: CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder {
    config.on_outage(OutagePolicy::KeepSession)
}

const KEYS_LIMIT: Duration = Duration::from_secs(5);
const REFRESH_LIMIT: Duration = Duration::from_secs(10);
const LOGOUT_LIMIT: Duration = Duration::from_secs(2);
const CROWD: usize = 20;
