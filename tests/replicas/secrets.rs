//! What those who read the store, or its traffic, learn.

use std::fs;

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{StreamExt as _, future::join_all, stream};
use hashbrown::HashSet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, Session,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::{
    hostile::{get, handle, secret},
    stage::{Stage, expired},
    store::Store,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_dump_nor_the_traffic_contains_eight_bytes_of_a_secret() {
    let Some(store) = Store::with(&["--rdbcompression", "no"]).await else { return };
    let mock = MockCrossmint::start().await;
    let traffic = monitor(&store).await;
    let replicas = [(); 3].map(|()| handle(&mock, &store));
    let sessions: Vec<_> = (0..SESSIONS).map(|_| expired(&mock, &random_name())).collect();
    sessions.iter().step_by(REFUSED).for_each(|session| mock.revoke(session.refresh_token()));

    let refreshed = stream::iter(sessions.iter().enumerate()).map(|(number, session)| {
        let [first, second, third] = [0, 1, 2].map(|offset| &replicas[(number + offset) % 3]);
        async move {
            let (one, other) = tokio::join!(get(first, session), get(second, session));
            if number % REFUSED == 0 {
                assert_eq!(one.unwrap_err(), AuthErrorKind::Refused, "session {number}");
                return Vec::new();
            }
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(secret(&one), secret(&other), "session {number}");
            let next = Credentials::pair("", secret(&one));
            if number % LOGGED_OUT == 1 {
                third.logout(next).await.unwrap();
                return vec![one];
            }
            // Rotated once more, by a browser that has lost the JWT.
            vec![third.get_session(next).await.unwrap(), one]
        }
    });
    let refreshed: Vec<Session> = refreshed.buffer_unordered(16).flat_map(stream::iter).collect().await;
    let failed: Vec<_> = (0..20).map(|_| expired(&mock, &random_name())).collect();
    for status in [500, 429] {
        mock.inject(Endpoint::Refresh, Fault::Status(status));
        let outcomes = join_all(failed.iter().map(|session| get(&replicas[0], session))).await;
        assert!(outcomes.iter().all(Result::is_err), "{status}");
    }

    store.command::<()>("SAVE").await;
    let dump = fs::read(store.file("dump.rdb")).unwrap();
    store.command::<()>(&format!("ECHO {END}")).await;
    let traffic = traffic.await.unwrap();
    let mut needles = Needles::default();
    needles.add(mock.api_key());
    for session in sessions.iter().chain(&failed) {
        [session.user_id(), session.jwt(), session.refresh_token()].into_iter().for_each(|secret| needles.add(secret));
    }
    for session in &refreshed {
        [session.jwt(), secret(session)].into_iter().for_each(|secret| needles.add(secret));
    }
    for (name, bytes, least) in [("the dump", dump, 500), ("the traffic", traffic, 3000)] {
        let records = bytes.windows(5).filter(|part| part == b"tca1:").count();
        assert!(records > least, "{name} has only {records} records");
        for (form, bytes) in forms(&bytes) {
            assert_eq!(needles.found_in(&bytes), None, "{name}, {form}");
        }
        let [session, ..] = &sessions[..] else { unreachable!() };
        for (form, planted) in disguises(session) {
            let bytes = [&bytes[..1000], planted.as_bytes(), &bytes[1000..2000]].concat();
            let is_found = forms(&bytes).any(|(_, bytes)| needles.found_in(&bytes).is_some());
            assert!(is_found, "{name}: a planted secret, {form}");
        }
    }
}

#[tokio::test]
async fn a_token_that_can_be_guessed_is_not_named_in_the_store() {
    let Some(stage) = Stage::new(1).await else { return };
    for (length, records) in [(1, 0), (31, 0), (32, 1)] {
        let before: u64 = stage.store.command("DBSIZE").await;
        let cookie = format!("crossmint-refresh-token-{}={}", stage.mock.project_id(), "1".repeat(length));
        stage.replicas[0].get(cookie).await.assert_ended();
        assert_eq!(stage.store.command::<u64>("DBSIZE").await - before, records, "{length} bytes");
    }
    // One is the rehearsal's.
    assert_eq!(stage.mock.calls(Endpoint::Refresh), 4);
}

/// All parts of secrets that are long enough to be told from chance.
#[derive(Default)]
struct Needles(HashSet<[u8; 8]>);

impl Needles {
    fn add(&mut self, secret: &str) {
        self.0.extend(secret.as_bytes().windows(8).map(|part| <[u8; 8]>::try_from(part).unwrap()));
    }

    fn found_in(&self, bytes: &[u8]) -> Option<String> {
        let found = bytes.windows(8).find(|part| self.0.contains(*part))?;
        Some(String::from_utf8_lossy(found).into_owned())
    }
}

/// Returns bytes as they are, and all that they may be encodings of.
fn forms(bytes: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let plain = unescaped(bytes);
    let digits = |text: &[u8], base, offset| decoded(text, base, offset);
    let mut forms = vec![("as it is", bytes.to_owned())];
    for offset in 0..4 {
        forms.push(("from base64", digits(&plain, 64, offset)));
    }
    for offset in 0..2 {
        forms.push(("from base16", digits(&plain, 16, offset)));
    }
    forms.push(("unescaped", plain));
    forms.into_iter()
}

/// Decodes each run of digits from this digit on, one after the other.
fn decoded(text: &[u8], base: u32, offset: usize) -> Vec<u8> {
    let bits = base.ilog2();
    let value = |byte: u8| match base {
        16 => char::from(byte).to_digit(16),
        _ => match byte {
            b'A'..=b'Z' => Some(u32::from(byte - b'A')),
            b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
            b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
            b'+' | b'-' => Some(62),
            b'/' | b'_' => Some(63),
            _ => None,
        },
    };
    let mut bytes = Vec::new();
    for run in text.split(|byte| value(*byte).is_none()).filter(|run| run.len() > 10) {
        let (mut buffer, mut filled) = (0, 0);
        for digit in run[offset..].iter().filter_map(|byte| value(*byte)) {
            buffer = (buffer << bits | digit) & 0xffff;
            filled += bits;
            if filled >= 8 {
                filled -= 8;
                bytes.push(u8::try_from(buffer >> filled & 0xff).unwrap());
            }
        }
        bytes.push(b' ');
    }
    bytes
}

/// Resolves the escapes with which the server prints commands.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, others @ ..] = rest {
        rest = others;
        let byte = match (first, others) {
            (b'\\', [b'x', high, low, others @ ..]) => {
                rest = others;
                let digits = [*high, *low];
                std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(b'?')
            }
            (b'\\', [escaped, others @ ..]) => {
                rest = others;
                match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    other => *other,
                }
            }
            _ => *first,
        };
        plain.push(byte);
    }
    plain
}

/// Hides parts of secrets, to see that they are found.
fn disguises(session: &MockSession) -> [(&'static str, String); 4] {
    let part = &session.refresh_token()[3..14];
    let hex: String = session.jwt()[20..31].bytes().map(|byte| format!("{byte:02x}")).collect();
    let escaped: String = session.user_id()[..8].bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    [
        ("as it is", part.to_owned()),
        ("in base64", format!("AB{}", URL_SAFE_NO_PAD.encode(part))),
        ("in base16", format!("{{{hex}}}")),
        ("escaped", escaped),
    ]
}

/// Records all commands that the server gets.
async fn monitor(store: &Store) -> JoinHandle<Vec<u8>> {
    let mut connection = TcpStream::connect(store.address()).await.unwrap();
    connection.write_all(b"MONITOR\r\n").await.unwrap();
    let mut traffic = Vec::new();
    while !traffic.ends_with(b"+OK\r\n") {
        connection.read_buf(&mut traffic).await.unwrap();
    }
    tokio::spawn(async move {
        let mut searched = 0;
        while !traffic[searched..].windows(END.len()).any(|part| part == END.as_bytes()) {
            searched = traffic.len().saturating_sub(END.len());
            assert_ne!(connection.read_buf(&mut traffic).await.unwrap(), 0);
        }
        traffic
    })
}

fn random_name() -> String {
    let mut name = [0; 48];
    rand::fill(&mut name).unwrap();
    URL_SAFE_NO_PAD.encode(name)
}

const SESSIONS: usize = 1000;
/// One session in as many is refused, or signed out.
const REFUSED: usize = 10;
const LOGGED_OUT: usize = 10;
const END: &str = "the-end-of-the-traffic";
