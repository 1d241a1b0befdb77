//! The rows of the matrix.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;
use tower_crossmint_auth::{
    OutagePolicy,
    testing::{Endpoint, Fault},
};

use crate::{
    matrix::stage::{CONNECT_LIMIT, Scene, Stage, assert_inconclusive, time_limit},
    support::{
        answer::{Answer, ENDED},
        clock::pass,
    },
};

/// A way in which Crossmint can fail.
pub(super) struct Failure {
    pub(super) name: &'static str,
    pub(super) mode: Mode,
    pub(super) conclusion: Conclusion,
}

pub(super) enum Mode {
    Answers(Fault),
    /// These members replace those of the answers to refreshes.
    Edits(serde_json::Value),
    /// New refresh tokens end in this.
    Suffixes(String),
    Refuses,
    Resets,
    /// Accepts connections and never answers.
    IsSilent,
    /// Does not answer attempts to connect.
    IsUnreachable,
    /// Its host name does not resolve while this is set.
    HasNoAddress(Arc<AtomicBool>),
}

/// What can be concluded of a refresh token from a failure.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Conclusion {
    Nothing,
    Refused,
    /// It may have been rotated, and its successor be lost.
    Unusable,
    /// It may be sent again after this many seconds.
    Later(u64),
}

impl Failure {
    /// Makes a new handle for this failure.
    pub(super) fn scene(&self, stage: &Stage) -> Scene {
        let is_lost = match &self.mode {
            Mode::HasNoAddress(is_lost) => is_lost,
            // These depend on the settings of the built-in client.
            Mode::Answers(Fault::Redirect(..) | Fault::CompressedBomb) | Mode::IsUnreachable => {
                return Scene::with(stage, stage.config());
            }
            _ => return Scene::of(stage),
        };
        let address: SocketAddr = stage.mock.base_url().strip_prefix("http://").unwrap().parse().unwrap();
        let names = Arc::new(Names { address, is_lost: Arc::clone(is_lost) });
        let client = reqwest::Client::builder().no_proxy().dns_resolver(names).build().unwrap();
        let config = stage.config().base_url(format!("http://localhost:{}", address.port()));
        Scene::with(stage, config.http_client(client))
    }

    pub(super) async fn begin(&self, Scene { mock, .. }: &Scene, endpoint: Endpoint) {
        if self.arrivals() == 0 {
            // The failure is one of new connections.
            mock.close_connections();
            mock.disconnected().await;
        }
        match &self.mode {
            Mode::Answers(fault) => mock.inject(endpoint, fault.clone()),
            Mode::Edits(edits) => {
                let edits = edits.as_object().unwrap().clone();
                mock.edit_refresh_answers(move |answer| answer.as_object_mut().unwrap().extend(edits.clone()));
            }
            Mode::Suffixes(suffix) => mock.set_secret_suffix(suffix),
            Mode::Refuses => mock.set_refusing(true),
            Mode::Resets => mock.set_down(true),
            Mode::IsSilent => mock.set_silent(true),
            Mode::IsUnreachable => mock.set_unreachable(true),
            Mode::HasNoAddress(is_lost) => is_lost.store(true, Ordering::Relaxed),
        }
    }

    pub(super) fn end(&self, Scene { mock, .. }: &Scene) {
        match &self.mode {
            Mode::Answers(_) => mock.clear_faults(),
            Mode::Edits(_) => mock.edit_refresh_answers(|_| ()),
            Mode::Suffixes(_) => mock.set_secret_suffix(""),
            Mode::Refuses => mock.set_refusing(false),
            Mode::Resets => mock.set_down(false),
            Mode::IsSilent => mock.set_silent(false),
            Mode::IsUnreachable => mock.set_unreachable(false),
            Mode::HasNoAddress(is_lost) => is_lost.store(false, Ordering::Relaxed),
        }
    }

    /// Counts the calls that arrive at Crossmint for each one that is made.
    pub(super) fn arrivals(&self) -> usize {
        usize::from(matches!(self.mode, Mode::Answers(_)) || self.hands_out_a_successor())
    }

    /// Tells whether it ends only with a time limit.
    pub(super) fn lasts(&self) -> bool {
        matches!(
            self.mode,
            Mode::IsSilent
                | Mode::IsUnreachable
                | Mode::Answers(Fault::Hang | Fault::HangAfterCommit | Fault::SlowBody)
        )
    }

    /// Tells whether Crossmint carries out the call all the same.
    pub(super) fn commits(&self) -> bool {
        match &self.mode {
            Mode::Answers(fault) => fault.commits(),
            Mode::Edits(_) | Mode::Suffixes(_) => true,
            Mode::Refuses | Mode::Resets | Mode::IsSilent | Mode::IsUnreachable | Mode::HasNoAddress(_) => false,
        }
    }

    /// Tells whether the answer contains a new refresh token, whatever is wrong with the rest.
    pub(super) fn hands_out_a_successor(&self) -> bool {
        matches!(self.mode, Mode::Edits(_) | Mode::Suffixes(_))
    }

    /// Returns the seconds of `Retry-After`, within the layer's limits.
    pub(super) fn requested_pause(&self) -> u64 {
        let Mode::Answers(Fault::Response { headers, .. }) = &self.mode else { return 0 };
        let pause = headers.iter().find(|(name, _)| name == "retry-after").and_then(|(_, value)| value.parse().ok());
        pause.map_or(0, |pause: u64| pause.clamp(1, 60))
    }

    /// Waits for answers that need `calls` calls, which fail in this way. If they hang, runs `meanwhile` once they are
    /// under way, and then lets the time limit pass.
    pub(super) async fn wait_through<T>(
        &self,
        Scene { mock, .. }: &Scene,
        endpoint: Endpoint,
        calls: usize,
        answers: impl Future<Output = T>,
        meanwhile: impl AsyncFnOnce(),
    ) -> T {
        if matches!(self.mode, Mode::IsUnreachable) {
            // The attempts cannot be observed. The paused clock advances once every task waits for them.
            tokio::time::pause();
            let start = Instant::now();
            let (answers, ()) = tokio::join!(answers, meanwhile());
            assert_eq!(start.elapsed().as_secs(), CONNECT_LIMIT.as_secs(), "{}", self.name);
            tokio::time::resume();
            return answers;
        }
        let (arrived, connected) = (mock.calls(endpoint) + calls, mock.connections() + calls);
        let clock = async {
            if !self.lasts() {
                return;
            }
            if self.arrivals() == 0 {
                mock.connected(connected).await;
            } else {
                mock.called(endpoint, arrived).await;
            }
            meanwhile().await;
            pass(time_limit(endpoint)).await;
        };
        tokio::join!(answers, clock).0
    }
}

impl Conclusion {
    /// Asserts the response to a request with this conclusion.
    #[track_caller]
    pub(super) fn assert_response(self, answer: &Answer, policy: OutagePolicy, case: &str) {
        if self == Self::Refused {
            answer.assert_ended(ENDED, case);
        } else {
            assert_inconclusive(answer, policy, case);
        }
    }

    /// Returns for how many seconds the token is not sent again.
    pub(super) fn pause(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Unusable => UNUSABLE_PAUSE,
            Self::Later(pause) => pause,
            Self::Refused => 30,
        }
    }
}

/// The first pause of a token after an unusable answer, in seconds.
const UNUSABLE_PAUSE: u64 = 1;

/// All failures of a call to any endpoint.
pub(super) fn failures() -> Vec<Failure> {
    use Conclusion::*;
    use Mode::*;
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
        ("unreachable", IsUnreachable, Nothing),
        ("a hang", Answers(Fault::Hang), Nothing),
        ("a hang after processing", Answers(Fault::HangAfterCommit), Nothing),
        ("a byte a second", Answers(Fault::SlowBody), Nothing),
        ("a reset before the status", Answers(Fault::Reset), Nothing),
        ("a reset after processing", Answers(Fault::LoseAnswer), Nothing),
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
        ("a compressed bomb", Answers(Fault::CompressedBomb), Unusable),
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
    rows.into_iter().map(|(name, mode, conclusion)| Failure { name, mode, conclusion }).collect()
}

/// Returns one row of each kind.
pub(super) fn typical(failures: Vec<Failure>) -> impl Iterator<Item = Failure> {
    let names = [
        "refused",
        "accepted, then silence",
        "unreachable",
        "a hang after processing",
        "a body cut off",
        "401",
        "429",
        "500",
        "garbage",
    ];
    failures.into_iter().filter(move |failure| names.contains(&failure.name))
}

/// A resolver of one address, or of none.
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
