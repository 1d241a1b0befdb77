//! HTTP/2: streams that are reset, and connections that end with GOAWAY.
//!
//! RFC 9113 section 8.7 names what has certainly not been processed: a stream that was refused, and one above the last
//! stream that a GOAWAY names. reqwest retries these, and nothing else.

use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use h2::{PingPong, Reason, RecvStream, server::SendResponse};
use http::{Request, Response};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tower_crossmint_auth::{
    OutagePolicy,
    testing::{Endpoint, MockSession},
};

use crate::{
    matrix::stage::{CROWD, Scene, Stage, assert_inconclusive, keeping},
    support::{
        answer::{ENDED, JWT, LOGOUT_ROUTE, REFRESH},
        clock::pass,
        events::JsonLog,
        mock::{Calls, NO_CALLS, expired},
    },
};

/// How a call is interrupted.
#[derive(Clone, Copy)]
struct Interruption {
    name: &'static str,
    /// How much of the response the client has got; `None` if the call has not been processed.
    answered: Option<Answered>,
    ending: Ending,
    /// Tells whether the client learns that the call was not processed.
    is_unsent: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Answered {
    Nothing,
    Head,
    HalfTheBody,
}

#[derive(Clone, Copy)]
enum Ending {
    Reset(Reason),
    /// GOAWAY that names no stream as processed.
    GoAwayBefore(Reason),
    /// GOAWAY that names the call's stream as processed.
    GoAwayAfter(Reason),
}

fn interruptions() -> impl Iterator<Item = Interruption> {
    use Answered::*;
    use Ending::*;
    let unsent = [
        ("a refused stream", Reset(Reason::REFUSED_STREAM)),
        ("GOAWAY before the call", GoAwayBefore(Reason::NO_ERROR)),
    ];
    let others = [
        ("GOAWAY before the call, for an error", None, GoAwayBefore(Reason::INTERNAL_ERROR)),
        ("GOAWAY instead of the call", None, GoAwayAfter(Reason::NO_ERROR)),
        ("GOAWAY after the call", Some(Nothing), GoAwayAfter(Reason::NO_ERROR)),
        ("GOAWAY after the call, for an error", Some(Nothing), GoAwayAfter(Reason::INTERNAL_ERROR)),
        ("GOAWAY after the head", Some(Head), GoAwayAfter(Reason::NO_ERROR)),
        ("GOAWAY within the body", Some(HalfTheBody), GoAwayAfter(Reason::NO_ERROR)),
        ("GOAWAY within the body, for an error", Some(HalfTheBody), GoAwayAfter(Reason::ENHANCE_YOUR_CALM)),
        ("an error before the call", None, Reset(Reason::INTERNAL_ERROR)),
        ("an error after the call", Some(Nothing), Reset(Reason::INTERNAL_ERROR)),
        ("an error after the head", Some(Head), Reset(Reason::INTERNAL_ERROR)),
        ("an error within the body", Some(HalfTheBody), Reset(Reason::INTERNAL_ERROR)),
        ("cancelled before the call", None, Reset(Reason::CANCEL)),
        ("cancelled after the call", Some(Nothing), Reset(Reason::CANCEL)),
        ("cancelled after the head", Some(Head), Reset(Reason::CANCEL)),
        ("cancelled within the body", Some(HalfTheBody), Reset(Reason::CANCEL)),
    ];
    let unsent = unsent.map(|(name, ending)| Interruption { name, answered: None, ending, is_unsent: true });
    let others = others.map(|(name, answered, ending)| Interruption { name, answered, ending, is_unsent: false });
    unsent.into_iter().chain(others)
}

#[tokio::test]
async fn a_refresh_is_retried_only_if_http_2_says_that_it_was_not_processed() {
    let (log, _guard) = JsonLog::capture();
    let stage = Stage::new(keeping).await;
    for (row, grace) in interruptions().flat_map(|row| [(row, STRICT), (row, FORGIVING)]) {
        let case = &format!("{}, {grace:?}", row.name);
        let (front, scene) = Front::scene(&stage).await;
        stage.mock.set_reuse_grace(grace);
        scene.auth.warm_up().await.unwrap();
        let alice = expired(&stage.mock, "alice");
        front.interrupt_calls(Endpoint::Refresh, 1, row);
        let crowd = scene.crowd(&alice, CROWD).await;
        let committed = usize::from(row.is_unsent || row.answered.is_some());
        assert_eq!((front.sent(&alice), scene.sent(&alice)), (1 + usize::from(row.is_unsent), committed), "{case}");
        if row.is_unsent {
            crowd.iter().for_each(|answer| answer.assert_refreshed("alice", case));
            scene.get(&alice).await.assert_refreshed("alice", case);
            assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, ..NO_CALLS }, "{case}");
            continue;
        }
        crowd.iter().for_each(|answer| assert_inconclusive(answer, OutagePolicy::KeepSession, case));
        let next = scene.get(&alice).await;
        let is_lost = row.answered.is_some() && grace == STRICT;
        if is_lost {
            next.assert_ended(ENDED, case);
        } else {
            next.assert_refreshed("alice", case);
        }
        assert_eq!(
            scene.calls(),
            Calls { keys: 1, refreshes: 1 + committed, reuses: is_lost.into(), ..NO_CALLS },
            "{case}"
        );
        assert_eq!(front.sent(&alice), 2, "{case}");
    }
    let errors = log.errors();
    assert!(errors.iter().any(|error| error.contains("connection error received")), "{errors:?}");
    assert!(!errors.concat().contains(DEBUG_DATA), "{errors:?}");
}

#[tokio::test]
async fn a_refresh_that_http_2_refuses_every_time_fails_after_two_retries() {
    let stage = Stage::new(keeping).await;
    for row in interruptions().filter(|row| row.is_unsent) {
        let (front, scene) = Front::scene(&stage).await;
        scene.auth.warm_up().await.unwrap();
        let alice = expired(&stage.mock, "alice");
        front.interrupt_calls(Endpoint::Refresh, usize::MAX, row);
        for answer in scene.crowd(&alice, CROWD).await {
            assert_inconclusive(&answer, OutagePolicy::KeepSession, row.name);
        }
        assert_eq!((front.sent(&alice), scene.calls()), (1 + RETRIES, Calls { keys: 1, ..NO_CALLS }), "{}", row.name);
        front.interrupt_calls(Endpoint::Refresh, 0, row);
        scene.get(&alice).await.assert_refreshed("alice", row.name);
        assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, ..NO_CALLS }, "{}", row.name);
    }
}

#[tokio::test]
async fn an_interrupted_key_set_causes_no_refresh() {
    let stage = Stage::new(keeping).await;
    for row in interruptions() {
        let case = row.name;
        let (front, scene) = Front::scene(&stage).await;
        let (valid, lapsed) = (stage.mock.sign_in("alice"), expired(&stage.mock, "bob"));
        front.interrupt_calls(Endpoint::Keys, 1, row);
        let (crowd, other) = tokio::join!(scene.crowd(&valid, CROWD), scene.get(&lapsed));
        if row.is_unsent {
            crowd.iter().for_each(|answer| answer.assert_passed("alice", case));
            other.assert_refreshed("bob", case);
            assert_eq!(
                (scene.calls(), scene.auth.stats().failed_reloads),
                (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 0),
                "{case}"
            );
            continue;
        }
        crowd.iter().chain([&other]).for_each(|answer| assert_inconclusive(answer, OutagePolicy::KeepSession, case));
        let loads = usize::from(row.answered.is_some());
        assert_eq!(
            (scene.calls(), scene.auth.stats().failed_reloads),
            (Calls { keys: loads, ..NO_CALLS }, 1),
            "{case}"
        );
        pass(Duration::from_secs(1)).await;
        scene.get(&valid).await.assert_passed("alice", case);
        scene.get(&lapsed).await.assert_refreshed("bob", case);
        assert_eq!(
            (scene.calls(), front.sent(&lapsed)),
            (Calls { keys: loads + 1, refreshes: 1, ..NO_CALLS }, 1),
            "{case}"
        );
    }
}

#[tokio::test]
async fn an_interrupted_logout_still_logs_out() {
    let stage = Stage::new(keeping).await;
    for row in interruptions() {
        let case = row.name;
        let (front, scene) = Front::scene(&stage).await;
        let alice = stage.mock.sign_in("alice");
        front.interrupt_calls(Endpoint::Logout, 1, row);
        let answer = scene.post(LOGOUT_ROUTE, &alice.cookie_header()).await;
        assert_eq!(answer.status, 200, "{case}");
        assert!(answer.clears(&[JWT, REFRESH]), "{case}: {answer:?}");
        let committed = row.is_unsent || row.answered.is_some();
        assert_eq!(stage.mock.is_live(alice.refresh_token()), !committed, "{case}");
        assert_eq!(
            (front.sent(&alice), scene.calls()),
            (1 + usize::from(row.is_unsent), Calls { logouts: committed.into(), ..NO_CALLS })
        );
    }
}

/// A server that speaks HTTP/2 in front of the mock.
#[derive(Clone)]
struct Front(Arc<State>);

struct State {
    mock: String,
    client: reqwest::Client,
    /// The path of an endpoint, and how many of its next calls to interrupt.
    orders: Mutex<Option<(&'static str, usize, Interruption)>>,
    bodies: Mutex<Vec<serde_json::Value>>,
}

impl Front {
    /// Starts a server, and makes a handle that calls Crossmint through it.
    async fn scene(stage: &Stage) -> (Self, Scene) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (mock, client) = (stage.mock.base_url().to_owned(), stage.client.clone());
        let front = Self(Arc::new(State { mock, client, orders: Mutex::default(), bodies: Mutex::default() }));
        let server = front.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let config = stage.config().base_url(format!("http://{address}")).http_client(client);
        (front, Scene::with(stage, config))
    }

    /// Interrupts the next calls to an endpoint.
    fn interrupt_calls(&self, endpoint: Endpoint, times: usize, row: Interruption) {
        let path = match endpoint {
            Endpoint::Keys => "/.well-known/jwks.json",
            Endpoint::Refresh => "/api/2024-09-26/session/sdk/auth/refresh",
            _ => "/api/2024-09-26/session/sdk/auth/logout",
        };
        *self.0.orders.lock().unwrap() = Some((path, times, row));
    }

    /// Counts how often a refresh token has arrived.
    fn sent(&self, session: &MockSession) -> usize {
        let body = json!({ "refresh": session.refresh_token() });
        self.0.bodies.lock().unwrap().iter().filter(|sent| **sent == body).count()
    }

    async fn serve(self, stream: TcpStream) {
        let socket = Arc::new(stream.into_std().unwrap());
        let stream = TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let pings = Arc::new(tokio::sync::Mutex::new(connection.ping_pong().unwrap()));
        // An error means that the client has disconnected, or that the connection was interrupted.
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(self.clone().answer(request, respond, Arc::clone(&socket), Arc::clone(&pings)));
        }
    }

    async fn answer(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        socket: Arc<std::net::TcpStream>,
        pings: Arc<tokio::sync::Mutex<PingPong>>,
    ) {
        let (head, mut body) = request.into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        self.0.bodies.lock().unwrap().extend(serde_json::from_slice::<serde_json::Value>(&bytes));
        let row = self.order(head.uri.path());
        let stream = respond.stream_id().into();
        let mut send = None;
        if row.is_none_or(|row| row.answered.is_some()) {
            let url = format!("{}{}", self.0.mock, head.uri.path());
            let call = self.0.client.request(head.method, url).headers(head.headers).body(bytes);
            let answer = call.send().await.unwrap();
            let mut response = Response::new(());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            let body = answer.bytes().await.unwrap();
            let answered = row.and_then(|row| row.answered);
            if answered != Some(Answered::Nothing) {
                let stream = send.insert(respond.send_response(response, false).unwrap());
                match answered {
                    None => stream.send_data(body, true).unwrap(),
                    Some(Answered::HalfTheBody) => stream.send_data(body.slice(..body.len() / 2), false).unwrap(),
                    _ => {}
                }
            }
        }
        let Some(row) = row else { return };
        // Once a ping is answered, everything before it has been written.
        pings.lock().await.ping(h2::Ping::opaque()).await.unwrap();
        match (row.ending, send) {
            (Ending::Reset(reason), Some(mut send)) => send.send_reset(reason),
            (Ending::Reset(reason), None) => respond.send_reset(reason),
            (Ending::GoAwayBefore(reason), _) => go_away(&socket, 0, reason),
            (Ending::GoAwayAfter(reason), _) => go_away(&socket, stream, reason),
        }
    }

    fn order(&self, path: &str) -> Option<Interruption> {
        let mut orders = self.0.orders.lock().unwrap();
        let (_, times, row) = orders.as_mut().filter(|(endpoint, times, _)| *endpoint == path && *times > 0)?;
        *times -= 1;
        Some(*row)
    }
}

/// Writes a GOAWAY frame (RFC 9113 section 6.8), and nothing more. h2's own names the last stream that has arrived.
fn go_away(mut socket: &std::net::TcpStream, last_stream: u32, reason: Reason) {
    let mut frame = vec![0, 0, 8 + DEBUG_DATA.len() as u8, 7, 0, 0, 0, 0, 0];
    frame.extend(last_stream.to_be_bytes());
    frame.extend(u32::from(reason).to_be_bytes());
    frame.extend(DEBUG_DATA.as_bytes());
    socket.write_all(&frame).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
}

/// No event may repeat what Crossmint sends.
const DEBUG_DATA: &str = "debug data";
const STRICT: Duration = Duration::ZERO;
const FORGIVING: Duration = Duration::from_secs(30);
/// How often reqwest retries a call at most.
const RETRIES: usize = 2;
