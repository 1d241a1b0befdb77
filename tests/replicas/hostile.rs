//! Somebody who can write anything to the store. Records that are lost may cost coordination, and nothing else: Crossmint
//! gives a rotated token's successor once more here, so that each refusal is that of a replica.

mod forgery;
mod writer;

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth, CrossmintAuthConfigBuilder, RedisRenewals, RefreshToken, Session,
    WhenUnreachable,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use self::{
    forgery::{FAR, PAST, forgeries},
    writer::{Record, Writer, name_of},
};
use crate::{stage::expired, store::Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_made_up_record_refuses_or_ends_a_session_or_hands_out_another() {
    let Some(scene) = Scene::set().await else { return };
    let mock = &scene.mock;
    let [one, other] = [(); 2].map(|()| handle(mock, &scene.store));
    let waiting = scene.waiting();
    let own = scene.samples(&one).await;
    let mut writer = scene.writer().await;
    let mut problems = Vec::new();
    for forgery in forgeries(&own) {
        let (victim, key, genuine) = scene.failed(&one, &mut writer).await;
        for (replica, may_wait) in [(&waiting, true), (&other, false), (&one, false)] {
            writer.forge(&key, &forgery, &genuine).await;
            let (sent, scripts) = (mock.calls(Endpoint::Refresh), writer.scripts().await);
            let outcome = get(replica, &victim).await;
            // What cannot be recorded is tried again for as long as a claim holds, and not all the time.
            let _ = timeout(Duration::from_secs(1), replica.wait_idle()).await;
            let (sent, scripts) = (mock.calls(Endpoint::Refresh) - sent, writer.scripts().await - scripts);
            let problem = match outcome {
                _ if sent > 1 => Some(format!("sent {sent} times")),
                _ if scripts > 50 => Some(format!("{scripts} commands to the store")),
                Err(AuthErrorKind::Unavailable) if may_wait => None,
                outcome => problem_with(mock, outcome, "victim"),
            };
            problems.extend(problem.map(|problem| format!("{}: {problem}", forgery.name)));
            writer.delete(&key).await;
            let ends = timeout(Duration::from_secs(10), replica.wait_idle()).await;
            problems.extend(ends.err().map(|_| format!("{}: a refresh that never ends", forgery.name)));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!(mock.reuse_detections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_that_is_made_up_meanwhile_keeps_a_successor_from_its_claimer() {
    let Some(scene) = Scene::set().await else { return };
    let mock = &scene.mock;
    let [one, other] = [(); 2].map(|()| handle(mock, &scene.store));
    let own = scene.samples(&one).await;
    let mut writer = scene.writer().await;
    let mut problems = Vec::new();
    for forgery in forgeries(&own) {
        let victim = expired(mock, "victim");
        let hold = mock.hold(Endpoint::Refresh);
        let (request, key) = writer.key_of(scene.sending(&one, &victim)).await;
        let genuine = writer.read(&key).await;
        writer.forge(&key, &forgery, &genuine).await;
        hold.release();
        let outcome = request.await.unwrap();
        problems.extend(problem_with(mock, outcome, "victim").map(|problem| format!("{}: {problem}", forgery.name)));
        problems.extend(
            problem_with(mock, get(&other, &victim).await, "victim")
                .map(|problem| format!("{}, later: {problem}", forgery.name)),
        );
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_made_up_record_of_a_successor_ends_its_session() {
    let Some(scene) = Scene::set().await else { return };
    let mock = &scene.mock;
    let [one, other] = [(); 2].map(|()| handle(mock, &scene.store));
    let own = scene.samples(&one).await;
    let (mut writer, mut problems) = (scene.writer().await, Vec::new());
    for forgery in forgeries(&own) {
        let victim = expired(mock, "victim");
        let (first, key) = writer.key_of(get(&one, &victim)).await;
        first.unwrap();
        let done = writer.read(&key).await;
        let next = String::from_utf8(done["x"].clone()).unwrap();
        let successor = format!("{}{next}", key.strip_suffix(name_of(&key)).unwrap());
        writer.forge(&successor, &forgery, &done).await;
        // The first one remembers the successor.
        for (case, replica) in [("at the same replica", &one), ("at another one", &other)] {
            let problem = problem_with(mock, get(replica, &victim).await, "victim");
            problems.extend(problem.map(|problem| format!("{}, {case}: {problem}", forgery.name)));
        }
    }
    for next in ["", "junk", name_of(&own[0].key)] {
        let victim = expired(mock, "victim");
        let (first, key) = writer.key_of(get(&one, &victim)).await;
        first.unwrap();
        let mut done = writer.read(&key).await;
        for next in [next, name_of(&key)] {
            done.insert("x".into(), next.into());
            writer.write(&key, &done).await;
            let problem = problem_with(mock, get(&other, &victim).await, "victim");
            problems.extend(problem.map(|problem| format!("next to `{next}`: {problem}")));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!(mock.reuse_detections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_made_up_record_keeps_a_logout_from_crossmint() {
    let Some(scene) = Scene::set().await else { return };
    let mock = &scene.mock;
    let [one, other] = [(); 2].map(|()| handle(mock, &scene.store));
    let own = scene.samples(&one).await;
    let mut writer = scene.writer().await;
    let mut alive = Vec::new();
    for forgery in forgeries(&own) {
        let (victim, key, genuine) = scene.failed(&one, &mut writer).await;
        writer.forge(&key, &forgery, &genuine).await;
        other.logout(pair(&victim)).await.unwrap();
        if mock.is_live(victim.refresh_token()) {
            alive.push(forgery.name);
        }
    }
    assert!(alive.is_empty(), "{alive:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_swapped_between_tokens_hand_out_no_other_session() {
    let Some(scene) = Scene::set().await else { return };
    let mock = &scene.mock;
    let samples = scene.samples(&handle(mock, &scene.store)).await;
    let mut writer = scene.writer().await;
    let mut problems = Vec::new();
    for swapped in &samples {
        for sample in samples.iter().filter(|sample| sample.key != swapped.key) {
            writer.write(&sample.key, &swapped.record).await;
            let sent = mock.calls(Endpoint::Refresh);
            let outcome = get(&handle(mock, &scene.store), &sample.session).await;
            let sent = mock.calls(Endpoint::Refresh) - sent;
            let problem = match (sample.state, outcome) {
                _ if sent > 1 => Some(format!("sent {sent} times")),
                // By Crossmint itself.
                ("refused" | "ended", Err(AuthErrorKind::Refused)) => None,
                (_, outcome) => problem_with(mock, outcome, sample.session.user_id()),
            };
            let case = format!("the record that is {} for the one that is {}", swapped.state, sample.state);
            problems.extend(problem.map(|problem| format!("{case}: {problem}")));
            writer.write(&sample.key, &sample.record).await;
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_put_back_delay_a_session_and_do_not_end_it() {
    let Some(scene) = Scene::set().await else { return };
    let (mock, replica) = (&scene.mock, handle(&scene.mock, &scene.store));
    let mut writer = scene.writer().await;
    let (alice, key, failed) = scene.failed(&replica, &mut writer).await;
    writer.delete(&key).await;
    let hold = mock.hold(Endpoint::Refresh);
    let request = scene.sending(&replica, &alice).await;
    let claimed = writer.read(&key).await;
    hold.release();
    let first = request.await.unwrap().unwrap();
    let done = writer.read(&key).await;

    let with =
        |field: &str, value: &str| Record::from_iter(claimed.clone().into_iter().chain([(field.into(), value.into())]));
    let (longer, over, twice) = (with("u", FAR), with("u", PAST), with("n", "2"));
    for (case, record, delays) in [
        ("a failure", &failed, true),
        ("a claim", &claimed, true),
        ("a claim until the year 5138", &longer, true),
        ("a second claim", &twice, true),
        ("a claim that is over", &over, false),
        ("the answer", &done, false),
    ] {
        writer.write(&key, record).await;
        let asked_at = Instant::now();
        let outcome = get(&handle(mock, &scene.store), &alice).await;
        match outcome {
            Err(kind) if delays => assert_eq!(kind, AuthErrorKind::Unavailable, "{case}"),
            outcome => {
                assert_eq!(secret(&outcome.unwrap()), secret(&first), "{case}");
            }
        }
        assert!(asked_at.elapsed() < 2 * TIMEOUT, "{case}");
    }
    assert!(mock.is_live(secret(&first)) && mock.reuse_detections() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_in_the_log_and_on_the_channel_neither_ends_sessions_nor_hides_logouts() {
    let Some(scene) = Scene::set().await else { return };
    let mock = &scene.mock;
    let [one, other] = [(); 2].map(|()| handle(mock, &scene.store));
    let mut writer = scene.writer().await;
    let (bystander, alice, bob) = (mock.sign_in("bystander"), mock.sign_in("alice"), mock.sign_in("bob"));
    for replica in [&one, &other] {
        for session in [&bystander, &alice, &bob] {
            get(replica, session).await.unwrap();
        }
    }
    one.logout(pair(&alice)).await.unwrap();
    assert_refused(&other, &alice, "a logout elsewhere").await;

    let logs = writer.keys("stream").await;
    let log = logs.first().unwrap();
    let digest: &[u8] = &[7; 16];
    for fields in [
        &[b"d".as_slice(), b"too short", b"e", b"99999999999"] as &[&[u8]],
        &[b"d", digest, b"e", b"not a number"],
        &[b"d", digest, b"e", b"-1"],
        &[b"d", digest, b"e", b"99999999999999999999999"],
        &[b"d", digest],
        &[b"one", b"two", b"three", b"four", b"five", b"six"],
        &[b"d", &[0xff; 4096], b"e", &[0xff; 4096]],
        &[b"d", digest, b"e", b"99999999999"],
    ] {
        writer.run::<()>(redis::cmd("XADD").arg(log).arg("*").arg(fields)).await;
    }
    for channel in writer.run::<Vec<String>>(redis::cmd("PUBSUB").arg("CHANNELS")).await {
        for message in [b"".as_slice(), b"junk", &[0xff; 4096], "A".repeat(43).as_bytes()] {
            writer.run::<()>(redis::cmd("PUBLISH").arg(&channel).arg(message)).await;
        }
    }
    one.logout(pair(&bob)).await.unwrap();
    assert_refused(&other, &bob, "a logout elsewhere, behind junk").await;
    for replica in [&one, &other, &handle(mock, &scene.store)] {
        get(replica, &bystander).await.unwrap();
    }
    assert_eq!(problem_with(mock, get(&other, &expired(mock, "carol")).await, "carol"), None);
}

/// Waits until a replica refuses the JWT of a session that was signed out at another one: a second, says the manual.
async fn assert_refused(replica: &CrossmintAuth, session: &MockSession, case: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while replica.session_from_jwt(session.jwt()).await.is_ok() {
        assert!(Instant::now() < deadline, "{case}: the JWT is still accepted");
        // The only sign of it is that the replica refuses the JWT.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Makes a replica in this process.
pub(crate) fn handle(mock: &MockCrossmint, store: &Store) -> CrossmintAuth {
    built(mock, store, WhenUnreachable::GoOn)
}

fn built(mock: &MockCrossmint, store: &Store, behavior: WhenUnreachable) -> CrossmintAuth {
    let renewals = RedisRenewals::new(format!("redis://{}", store.address())).unwrap();
    // Two processors run the replicas, Crossmint and the store.
    let renewals = renewals.time_limit(Duration::from_secs(1)).when_unreachable(behavior);
    let config: CrossmintAuthConfigBuilder = mock.config().share_renewals(renewals);
    CrossmintAuth::new(config.refresh_timeout(TIMEOUT).connect_timeout(TIMEOUT).build().unwrap())
}

/// A session of the writer's own, and what the store has recorded of it.
struct Sample {
    state: &'static str,
    session: MockSession,
    key: String,
    record: Record,
}

struct Scene {
    mock: MockCrossmint,
    store: Store,
}

impl Scene {
    async fn set() -> Option<Self> {
        let store = Store::start().await?;
        let mock = MockCrossmint::start().await;
        mock.set_reuse_grace(Duration::from_secs(3600));
        Some(Self { mock, store })
    }

    fn waiting(&self) -> CrossmintAuth {
        built(&self.mock, &self.store, WhenUnreachable::Wait)
    }

    async fn writer(&self) -> Writer {
        Writer(self.store.connect().await)
    }

    /// Brings sessions of the writer's own into all states.
    async fn samples(&self, replica: &CrossmintAuth) -> Vec<Sample> {
        let (mock, mut writer) = (&self.mock, self.writer().await);
        let mut samples = Vec::new();
        for state in ["done", "done", "refused", "ended", "failed", "claimed"] {
            let session = expired(mock, state);
            let change = async {
                match state {
                    "done" => drop(get(replica, &session).await.unwrap()),
                    "ended" => replica.logout(Credentials::pair("", session.refresh_token())).await.unwrap(),
                    "refused" => {
                        mock.revoke(session.refresh_token());
                        assert_eq!(get(replica, &session).await.unwrap_err(), AuthErrorKind::Refused);
                    }
                    "failed" => {
                        mock.inject_times(Endpoint::Refresh, 1, Fault::Status(500));
                        assert_eq!(get(replica, &session).await.unwrap_err(), AuthErrorKind::Unavailable);
                    }
                    _ => {
                        mock.inject_times(Endpoint::Refresh, 1, Fault::Hang);
                        self.sending(replica, &session).await;
                    }
                }
            };
            let ((), key) = writer.key_of(change).await;
            let record = writer.read(&key).await;
            samples.push(Sample { state, session, key, record });
        }
        // The call that Crossmint does not answer is over, and changes nothing any more.
        replica.wait_idle().await;
        samples
    }

    /// Starts a refresh, and waits until Crossmint has got the token.
    async fn sending(
        &self,
        replica: &CrossmintAuth,
        session: &MockSession,
    ) -> JoinHandle<Result<Session, AuthErrorKind>> {
        let sent = self.mock.calls(Endpoint::Refresh) + 1;
        let (replica, session) = (replica.clone(), session.clone());
        let request = tokio::spawn(async move { get(&replica, &session).await });
        self.mock.called(Endpoint::Refresh, sent).await;
        request
    }

    /// Brings a session into the store whose token is not spent. Returns its record as well.
    async fn failed(&self, replica: &CrossmintAuth, writer: &mut Writer) -> (MockSession, String, Record) {
        let session = expired(&self.mock, "victim");
        self.mock.inject_times(Endpoint::Refresh, 1, Fault::Status(500));
        let (failure, key) = writer.key_of(get(replica, &session)).await;
        assert_eq!(failure.err(), Some(AuthErrorKind::Unavailable));
        let record = writer.read(&key).await;
        (session, key, record)
    }
}

/// Says what is wrong with an outcome, unless it is a user's session that is alive.
fn problem_with(mock: &MockCrossmint, outcome: Result<Session, AuthErrorKind>, user: &str) -> Option<String> {
    match outcome {
        Err(kind) => Some(format!("{kind:?}")),
        Ok(session) if session.user_id() != user => Some(format!("{}'s session", session.user_id())),
        Ok(session) => (!mock.is_live(secret(&session))).then(|| "a session that has ended".to_owned()),
    }
}

pub(crate) async fn get(replica: &CrossmintAuth, session: &MockSession) -> Result<Session, AuthErrorKind> {
    replica.get_session(pair(session)).await.map_err(|error| error.kind())
}

fn pair(session: &MockSession) -> Credentials<'_> {
    Credentials::pair(session.jwt(), session.refresh_token())
}

pub(crate) fn secret(session: &Session) -> &str {
    session.refresh_token().map(RefreshToken::secret).unwrap()
}

const TIMEOUT: Duration = Duration::from_secs(1);
