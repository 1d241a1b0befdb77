//! The wall clock jumps while Crossmint fails. Crossmint's own clock is right.
//!
//! These rows of the fault matrix (tests/behaviour/matrix) are here because only unit tests can shift the clock.

use std::{
    cell::Cell,
    collections::BTreeMap,
    convert::Infallible,
    time::{Duration, SystemTime},
};

use cookie::{Cookie, time::OffsetDateTime};
use http::{HeaderMap, Request, Response, StatusCode, header};
use tokio::time::advance;
use tower::{ServiceExt as _, service_fn};
use tower_layer::Layer as _;

use super::{Clock, unix_seconds};
use crate::{
    Credentials, CrossmintAuth, CrossmintAuthLayer, OutagePolicy, Session,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

thread_local! {
    /// How many seconds the clock of this thread, which is a test's own, is ahead.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

pub(super) fn shifted(now: SystemTime) -> SystemTime {
    let ahead = AHEAD.get();
    let distance = Duration::from_secs(ahead.unsigned_abs());
    if ahead < 0 { now - distance } else { now + distance }
}

/// A jump of the clock, in seconds, and whether every JWT has expired by the new time.
#[derive(Clone, Copy)]
struct Jump(&'static str, i64, bool);

const JUMPS: [Jump; 4] = [
    Jump("a day ahead", DAY, true),
    Jump("a day back", -DAY, false),
    Jump("to before 1970", -100 * 365 * DAY, true),
    Jump("ten years ahead", 10 * 365 * DAY, true),
];

#[tokio::test(start_paused = true)]
async fn a_step_of_the_wall_clock_is_noticed_within_a_second() {
    AHEAD.set(0);
    let clock = Clock::new();
    let unix = |clock: &Clock| clock.unix_seconds(clock.elapsed());
    let start = unix(&clock);
    let is_near = |time: u64, expected: u64| time.abs_diff(expected) <= 2;
    assert!(is_near(start, unix_seconds()));
    advance(Duration::from_millis(999)).await;
    for ahead in [DAY, -DAY, 0] {
        let before = unix(&clock);
        AHEAD.set(ahead);
        assert!(is_near(unix(&clock), before), "{ahead}");
        advance(Duration::from_secs(1)).await;
        assert!(is_near(unix(&clock), start.wrapping_add_signed(ahead)), "{ahead}");
    }
    AHEAD.set(-100 * 365 * DAY);
    advance(Duration::from_secs(1)).await;
    assert_eq!([unix(&clock), unix(&clock)], [u64::MAX; 2], "before 1970");
    // A runtime whose clock is behind.
    AHEAD.set(0);
    assert!(is_near(clock.unix_seconds(clock.elapsed()), start));
    assert!(is_near(clock.unix_seconds(0), start));
}

#[tokio::test]
async fn a_clock_that_jumps_while_a_refresh_hangs_loses_nobody_once_it_is_right() {
    for (Jump(name, ahead, all_expired), grace) in JUMPS.into_iter().flat_map(|jump| GRACES.map(|grace| (jump, grace)))
    {
        let case = &format!("{name}, {grace:?}");
        let (mock, auth) = stage(grace).await;
        auth.warm_up().await.unwrap();
        let mut alice = Browser::of(&mock.session("alice").jwt_lifetime(-60).create());
        let hold = mock.hold_answers(Endpoint::Refresh);
        let during = async {
            mock.called(Endpoint::Refresh, 1).await;
            jump(ahead).await;
            hold.release();
        };
        let (status, ()) = tokio::join!(alice.get(&auth), during);
        assert_eq!(status, if all_expired { UNAVAILABLE } else { StatusCode::OK }, "{case}");
        for _ in 0..10 {
            assert_eq!(alice.get(&auth).await, status, "{case}");
        }
        assert_eq!(calls(&mock), [1, 1], "{case}");

        right_again().await;
        // What came with a JWT that was of no use then is sent now.
        let refreshes = if all_expired { 2 } else { 1 };
        for _ in 0..2 {
            assert_eq!(alice.get(&auth).await, StatusCode::OK, "{case}");
            assert_eq!((calls(&mock), mock.reuse_detections()), ([1, refreshes], 0), "{case}");
        }
        assert!(alice.is_signed_in(), "{case}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_while_the_key_set_cannot_be_loaded_renews_nothing() {
    for Jump(case, ahead, _) in JUMPS {
        let (mock, auth) = stage(STRICT).await;
        let mut alice = Browser::of(&mock.sign_in("alice"));
        let mut bob = Browser::of(&mock.session("bob").jwt_lifetime(-60).create());
        mock.inject(Endpoint::Keys, Fault::Status(500));
        let hold = mock.hold(Endpoint::Keys);
        let during = async {
            mock.called(Endpoint::Keys, 1).await;
            // It has not been read yet.
            AHEAD.set(ahead);
            hold.release();
        };
        let (one, other, ()) = tokio::join!(alice.get(&auth), bob.get(&auth), during);
        assert_eq!([one, other], [UNAVAILABLE; 2], "{case}");
        // One attempt after one second, and the next after two more.
        for loads in [1, 2] {
            for browser in [&mut alice, &mut bob] {
                assert_eq!(browser.get(&auth).await, UNAVAILABLE, "{case}");
                assert_eq!(calls(&mock), [loads, 0], "{case}");
            }
            pass(Duration::from_secs(1)).await;
        }

        mock.clear_faults();
        right_again().await;
        assert_eq!((alice.get(&auth).await, calls(&mock)), (StatusCode::OK, [3, 0]), "{case}");
        assert_eq!((bob.get(&auth).await, calls(&mock)), (StatusCode::OK, [3, 1]), "{case}");
        assert_eq!(mock.reuse_detections(), 0, "{case}");
    }
}

#[tokio::test]
async fn a_key_set_that_was_loaded_by_a_wrong_clock_loses_nobody_with_a_new_key() {
    for Jump(case, ahead, _) in JUMPS {
        let (mock, auth) = stage(STRICT).await;
        jump(ahead).await;
        auth.warm_up().await.unwrap();
        jump(0).await;
        mock.rotate_keys();
        let mut alice = Browser::of(&mock.sign_in("alice"));
        let status = alice.get(&auth).await;
        // By a clock that was ahead, the set is the newer one, and does not have the key. The renewed JWT reloads it.
        let renewed = usize::from(ahead > 0);
        assert_eq!(status, if renewed == 1 { StatusCode::OK } else { UNAVAILABLE }, "{case}");
        assert_eq!(calls(&mock), [1 + renewed, renewed], "{case}");
        pass(Duration::from_secs(30)).await;
        assert_eq!((alice.get(&auth).await, calls(&mock)), (StatusCode::OK, [2, renewed]), "{case}");
        assert_eq!(mock.reuse_detections(), 0, "{case}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_within_the_grace_period_loses_nobody_once_it_is_right() {
    for (Jump(name, ahead, all_expired), grace) in JUMPS.into_iter().flat_map(|jump| GRACES.map(|grace| (jump, grace)))
    {
        let case = &format!("{name}, {grace:?}");
        let (mock, auth) = stage(grace).await;
        let carol = mock.session("carol").jwt_lifetime(-60).create();
        let [mut early, mut late] = [Browser::of(&carol), Browser::of(&carol)];
        assert_eq!(early.get(&auth).await, StatusCode::OK, "{case}");
        jump(ahead).await;
        let status = if all_expired { UNAVAILABLE } else { StatusCode::OK };
        for _ in 0..5 {
            assert_eq!([late.get(&auth).await, early.get(&auth).await], [status; 2], "{case}");
        }
        let refreshes = if all_expired { 2 } else { 1 };
        assert_eq!((calls(&mock), mock.reuse_detections()), ([1, refreshes], 0), "{case}");

        right_again().await;
        assert_eq!((early.get(&auth).await, calls(&mock)), (StatusCode::OK, [1, refreshes]), "{case}");
        assert_eq!(late.get(&auth).await, StatusCode::OK, "{case}");
        // The next renewal of the session.
        early.cookies.remove(JWT);
        assert_eq!((early.get(&auth).await, mock.reuse_detections()), (StatusCode::OK, 0), "{case}");
    }
}

#[tokio::test]
async fn a_logout_while_the_clock_is_ahead_counts_when_it_is_right() {
    let (mock, auth) = stage(STRICT).await;
    let session = mock.sign_in("alice");
    let mut alice = Browser::of(&session);
    assert_eq!(alice.get(&auth).await, StatusCode::OK);
    jump(DAY).await;
    auth.logout(Credentials::pair(session.jwt(), session.refresh_token())).await.unwrap();
    jump(0).await;
    assert_eq!(alice.get(&auth).await, StatusCode::UNAUTHORIZED);
    assert_eq!(mock.live_sessions(), 0);
}

#[tokio::test]
async fn a_clock_that_is_ahead_shortens_a_cookie_to_the_browsers_session_and_does_not_delete_it() {
    let (mock, auth) = stage(STRICT).await;
    let material = auth.refresh(mock.sign_in("alice").refresh_token()).await.unwrap();
    for (Jump(case, ahead, _), has_date) in JUMPS.into_iter().zip([true, true, true, false]) {
        jump(ahead).await;
        let mut headers = HeaderMap::new();
        auth.store_auth_material(&mut headers, &material).unwrap();
        let fields = headers.get_all(header::SET_COOKIE).iter().map(|field| field.to_str().unwrap());
        let cookies: Vec<_> = fields.map(|field| Cookie::parse(field).unwrap()).collect();
        let dated = cookies.iter().any(|cookie| cookie.expires_datetime().is_some());
        assert_eq!((cookies.len(), dated), (2, has_date), "{case}");
        assert!(cookies.iter().all(|cookie| !cookie.value().is_empty()), "{case}");
    }
}

async fn stage(grace: Duration) -> (MockCrossmint, CrossmintAuth) {
    AHEAD.set(0);
    let mock = MockCrossmint::start().await;
    mock.set_reuse_grace(grace);
    let config = mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap();
    (mock, CrossmintAuth::new(config))
}

/// A browser, whose clock is right.
struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn of(session: &MockSession) -> Self {
        let header = session.cookie_header();
        let pairs = header.split("; ").filter_map(|pair| pair.split_once('='));
        Self { cookies: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// Sends a request to an application behind the layer, and keeps the cookies of the response.
    async fn get(&mut self, auth: &CrossmintAuth) -> StatusCode {
        let handler = service_fn(async |request: Request<String>| {
            assert!(request.extensions().get::<Session>().is_some());
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::get("/").header(header::COOKIE, pairs.join("; ")).body(String::new()).unwrap();
        let response = CrossmintAuthLayer::from(auth.clone()).layer(handler).oneshot(request).await.unwrap();
        for field in response.headers().get_all(header::SET_COOKIE) {
            let cookie = Cookie::parse(field.to_str().unwrap()).unwrap();
            if cookie.expires_datetime().is_some_and(|date| date <= OffsetDateTime::now_utc()) {
                self.cookies.remove(cookie.name());
            } else {
                self.cookies.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
        response.status()
    }

    fn is_signed_in(&self) -> bool {
        self.cookies.len() == 2
    }
}

/// Counts the calls for keys and refreshes.
fn calls(mock: &MockCrossmint) -> [usize; 2] {
    [Endpoint::Keys, Endpoint::Refresh].map(|endpoint| mock.calls(endpoint))
}

/// Sets the clock ahead, and waits until it is read again.
async fn jump(ahead: i64) {
    AHEAD.set(ahead);
    pass(Duration::from_secs(1)).await;
}

/// Sets the clock right, and waits for as long as a token is not sent again whose answer could not be used.
async fn right_again() {
    jump(0).await;
    pass(Duration::from_secs(5)).await;
}

/// Lets time pass for everything that tokio measures.
async fn pass(time: Duration) {
    tokio::time::pause();
    advance(time).await;
    tokio::time::resume();
}

const STRICT: Duration = Duration::ZERO;
const FORGIVING: Duration = Duration::from_secs(300);
const GRACES: [Duration; 2] = [STRICT, FORGIVING];
const DAY: i64 = 24 * 3600;
const JWT: &str = "crossmint-jwt-mock-project";
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
