//! The connection: what goes wrong with it, and what the operations see of that.

mod fake;
mod hostile;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use rcgen::{CertificateParams, KeyPair};
use redis::Value;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider, pki_types::ServerName};

use super::{RedisStore, reply};
use crate::{
    config::RedisRenewals,
    session::RevokedJwt,
    store::{
        Claim, Claimed, Finished, Id, Outcome, Store, Tail, Unreachable,
        test_server::{TestServer, free_port, options},
    },
    test_support::pem,
};

#[tokio::test]
async fn a_refused_connection_fails_at_once_the_second_time() {
    let store = RedisStore::new(&options(&format!("redis://127.0.0.1:{}", free_port())), "test");
    assert!(text(store.look(TOKEN).await).contains("the connection failed"));
    assert!(text(at_once(&store)).contains("the connection failed"));
    assert!(text(store.connect().await).contains("the connection failed"));
    assert!(!store.pushes());
}

#[tokio::test]
async fn a_server_that_hangs_costs_three_time_outs() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = RedisStore::new(&options(&server.url()).time_limit(Duration::from_millis(50)), "test");
    until_reachable(&store).await;
    server.freeze();
    for _ in 0..3 {
        assert_eq!(text(store.look(TOKEN).await), "no answer within 50ms");
    }
    assert_eq!(text(at_once(&store)), "no answer within 50ms");
    // The attempt fails as well, at its own limit.
    assert_eq!(text(store.connect().await), "no connection within 1s");
    assert_eq!(text(at_once(&store)), "no connection within 1s");
    server.thaw();
    until_reachable(&store).await;
    // Nothing is left of the connections before, once the server has noticed.
    until(|| clients(&server) == 2).await;
}

#[tokio::test]
async fn a_restart_is_not_noticed() {
    let Some(mut server) = TestServer::start(&[]) else { return };
    let store = server.store();
    store.connect().await.expect("a connection");
    server.restart();
    store.look(TOKEN).await.expect("a new connection");
    server.kill();
    store.look(TOKEN).await.expect_err("no server");
    at_once(&store).expect_err("no server");
    server.restart();
    until_reachable(&store).await;
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_replaced() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = server.store();
    store.connect().await.expect("a connection");
    let mut watch = store.watch(TOKEN);
    kill_clients(&server);
    timeout(PATIENCE, watch.changed()).await.expect("changes may have been missed");
    store.look(TOKEN).await.expect("a new connection");
    timeout(PATIENCE, watch.changed()).await.expect("changes may have been missed before the connection");
    assert!(store.pushes());
}

#[tokio::test]
async fn callers_share_one_attempt() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = server.store();
    let before = count(&server, "total_connections_received:");
    for reply in join_all((0..50).map(|_| store.look(TOKEN))).await {
        reply.expect("an answer");
    }
    // And the one that counts.
    assert_eq!(count(&server, "total_connections_received:") - before, 2);
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = server.store();
    for _ in 0..2 {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.connection()).expect("an answer");
        store.look(TOKEN).await.expect("an answer");
        store.revoke(vec![RevokedJwt { digest: [0; 16], expires_at: 1 }]).await.expect("an answer");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_is_explained_without_the_password() {
    let no_hello = ["--rename-command", "HELLO", ""];
    let no_auth = ["--rename-command", "AUTH", ""];
    let cases: [(&str, Vec<&str>, &str, &str); 7] = [
        ("right", vec![], ":hunter2@", ""),
        ("wrong", vec![], ":hunter3@", "the store refused the user or password (WRONGPASS)"),
        ("none", vec![], "", "the store refused the user or password (NOAUTH)"),
        ("RESP2, right", no_hello.to_vec(), ":hunter2@", ""),
        ("RESP2, wrong", no_hello.to_vec(), "user:hunter3@", "the store refused the user or password (AUTH)"),
        ("RESP2, none", no_hello.to_vec(), "", "the store refused the user or password (NOAUTH)"),
        // The server's error repeats the password.
        ("no AUTH", [no_hello, no_auth].concat(), ":hunter2@", "the store refused the user or password (AUTH)"),
    ];
    for (name, mut server_options, login, expected) in cases {
        server_options.extend(["--requirepass", "hunter2"]);
        let Some(server) = TestServer::start(&server_options) else { return };
        let url = format!("redis://{login}127.0.0.1:{}", server.port);
        let store = RedisStore::new(&options(&url), "test");
        let connected = store.connect().await;
        if expected.is_empty() {
            connected.expect(name);
            store.look(TOKEN).await.expect(name);
        } else {
            let shown = format!("{:?}", connected.as_ref().expect_err(name));
            assert!(!shown.contains("hunter"), "{name}: {shown}");
            assert_eq!(text(connected), expected, "{name}");
        }
    }
}

#[tokio::test]
async fn a_replica_is_not_written_to_and_is_left() {
    let (Some(primary), Some(replica)) = (TestServer::start(&[]), TestServer::start(&[])) else { return };
    let mut admin = replica.connection();
    let follow = |host: &str, port: &str| redis::cmd("REPLICAOF").arg(host).arg(port).to_owned();
    follow("127.0.0.1", &primary.port.to_string()).exec(&mut admin).expect("an answer");
    let store = replica.store();
    until_reachable(&store).await;
    let why = text(store.claim(TOKEN, claim()).await);
    assert!(why.starts_with("the store refused a command (READONLY "), "{why}");
    assert_eq!(text(at_once(&store)), why);
    follow("NO", "ONE").exec(&mut admin).expect("an answer");
    until_reachable(&store).await;
    assert_eq!(store.claim(TOKEN, claim()).await.expect("an answer"), Claimed::Granted { is_takeover: false });
}

#[tokio::test]
async fn without_hello_or_the_channel_the_store_works_but_does_not_push() {
    let Some(server) = TestServer::start(&["--rename-command", "HELLO", ""]) else { return };
    let old = RedisStore::new(&options(&format!("{}/3", server.url())), "test");
    let Some(server) = TestServer::start(&[]) else { return };
    for (user, permission) in [("no-channel", "resetchannels"), ("no-publish", "-publish")] {
        let mut command = redis::cmd("ACL");
        command.arg(&["SETUSER", user, "on", ">secret", "~*", "&*", "+@all", permission]);
        command.exec(&mut server.connection()).expect("an answer");
    }
    let as_user = |user: &str| {
        let url = format!("redis://{user}:secret@127.0.0.1:{}/3", server.port);
        RedisStore::new(&options(&url), "test")
    };
    for (name, store, pushes) in
        [("old", old, false), ("no-channel", as_user("no-channel"), false), ("no-publish", as_user("no-publish"), true)]
    {
        store.claim(TOKEN, claim()).await.expect(name);
        assert_eq!(store.pushes(), pushes, "{name}");
        let outcome = Outcome::Failed { failure: b"no".to_vec(), time_to_live: LONG };
        assert_eq!(store.finish(TOKEN, [1; 16], outcome).await.expect(name), Finished::Recorded, "{name}");
        assert!(matches!(store.look(TOKEN).await.expect(name).tail, Tail::Failed(..)), "{name}");
        store.finish(TOKEN, [1; 16], done()).await.expect(name);
        store.delivered(TOKEN, Duration::from_millis(1)).await.expect(name);
        store.revoke(vec![RevokedJwt { digest: [9; 16], expires_at: 1 }]).await.expect(name);
        let until_gone = async || while !store.look(TOKEN).await.expect(name).answers.is_empty() {};
        timeout(PATIENCE, until_gone()).await.expect(name);
    }
}

#[tokio::test]
async fn a_server_without_memory_grants_no_claim_and_records_what_has_become_of_one() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = server.store();
    store.claim(TOKEN, claim()).await.expect("an answer");
    let set = |value: u64| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(value).exec(&mut server.connection()).expect("an answer");
    };
    set(1);
    let connections = count(&server, "total_connections_received:");
    let why = text(store.claim([8; 32], claim()).await);
    assert!(why.starts_with("the store refused a command (OOM "), "{why}");
    let finished = store.finish(TOKEN, [1; 16], done()).await;
    assert_eq!(finished.expect("an answer"), Finished::Recorded);
    set(0);
    assert_eq!(store.look(TOKEN).await.expect("an answer").answers.len(), 1);
    assert_eq!(store.look([8; 32]).await.expect("an answer").tail, Tail::Absent);
    // Only those of this test's own.
    assert_eq!(count(&server, "total_connections_received:") - connections, 2);
}

#[tokio::test]
async fn everything_expires() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = RedisStore::new(&options(&format!("{}/5", server.url())).prefix("p"), "test");
    store.claim([1; 32], claim()).await.expect("an answer");
    store.claim([2; 32], claim()).await.expect("an answer");
    store.end([2; 32], b"over".to_vec(), 10 * LONG).await.expect("an answer");
    store.finish([3; 32], [1; 16], done()).await.expect("an answer");
    store.end([4; 32], b"over".to_vec(), LONG).await.expect("an answer");
    store.revoke(vec![RevokedJwt { digest: [0; 16], expires_at: 1 }]).await.expect("an answer");
    let mut admin = server.connection();
    redis::cmd("SELECT").arg(5).exec(&mut admin).expect("an answer");
    let seconds = |name: &str| -> u64 {
        let key = format!("{{p:test}}:{name}");
        redis::cmd("PTTL").arg(key).query::<u64>(&mut server_in(&server, 5)).expect("a time to live") / 1000
    };
    let name = |n: u8| super::name_of(&[n; 32]);
    for (name, expected) in [(name(1), 120), (name(2), 600), (name(3), 60), (name(4), 60), ("revoked".into(), 86_400)] {
        let actual = seconds(&name);
        assert!((expected - 30..=expected).contains(&actual), "{name}: {actual}");
    }
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut admin).expect("an answer"), 5);
}

#[test]
fn runtimes_come_and_go() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = server.store();
    for _ in 0..2 {
        // The connection's task ends with its runtime.
        runtime().block_on(store.look(TOKEN)).expect("an answer");
    }
    let store = server.store();
    server.freeze();
    let interrupted = runtime();
    interrupted.block_on(async { assert!(store.look(TOKEN).now_or_never().is_none()) });
    // This one no longer runs, but has not ended either.
    let waiting = runtime();
    assert_eq!(text(waiting.block_on(store.look(TOKEN))), "no connection within 1s");
    drop(interrupted);
    server.thaw();
    waiting.block_on(store.look(TOKEN)).expect("an answer");
}

#[tokio::test]
async fn large_replies_to_many_callers_are_no_flood() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = RedisStore::new(&options(&server.url()).time_limit(PATIENCE), "test");
    for n in 0..16 {
        // In sum less than the 32 MB at which a server closes a connection that is subscribed.
        let answer = vec![n; 5 << 10];
        let outcome = Outcome::Done { answer, next: [n + 1; 32], time_to_live: LONG };
        store.finish([n; 32], [1; 16], outcome).await.expect("an answer");
    }
    let connections = count(&server, "total_connections_received:");
    for reply in join_all((0..300).map(|_| store.look([0; 32]))).await {
        assert_eq!(reply.expect("an answer").answers.len(), 16);
    }
    // Only the one that counts.
    assert_eq!(count(&server, "total_connections_received:") - connections, 1);
}

#[tokio::test]
async fn a_flood_is_cut_off() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let flood = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut answer = |reply: &[u8]| {
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).expect("a request") > 0);
            stream.write_all(reply).expect("a client");
        };
        answer(b"%0\r\n");
        answer(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
        answer(b"$999999999\r\n");
        let (chunk, mut sent) = (vec![b'x'; 1 << 16], 0);
        while stream.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        sent
    });
    let store = RedisStore::new(&options(&format!("redis://127.0.0.1:{port}")), "test");
    let why = text(store.look(TOKEN).await);
    assert!(why.contains("the connection failed"), "{why}");
    let sent = flood.join().expect("no panic");
    // What the system's buffers hold comes on top.
    assert!(sent < 24 << 20, "{sent}");
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_an_error() {
    for (name, reply) in [("HTTP", &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]), ("nothing", b""), ("a number", b":1\r\n")]
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(reply);
            }
        });
        let store = RedisStore::new(&options(&format!("redis://127.0.0.1:{port}")), "test");
        let why = text(store.connect().await);
        assert!(why.contains("the connection failed"), "{name}: {why}");
        text(at_once(&store));
    }
}

#[tokio::test]
async fn tls_is_used_and_checks_the_certificate() {
    let [trusted, other] = ["localhost", "localhost"].map(|host| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        (params.self_signed(&key).expect("a certificate"), key)
    });
    let directory = std::env::temp_dir().join(format!("tower-crossmint-auth-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| directory.join(name).display().to_string());
    std::fs::write(&certificate, pem("CERTIFICATE", trusted.0.der())).expect("a file");
    std::fs::write(&key, pem("PRIVATE KEY", trusted.1.serialized_der())).expect("a file");
    let tls_port = free_port().to_string();
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
    let server = TestServer::start(&[&["--tls-port", &tls_port, "--tls-auth-clients", "no"][..], &files].concat());
    let _ = std::fs::remove_dir_all(&directory);
    let Some(_server) = server else { return };
    for (authority, is_trusted) in [(&trusted.0, true), (&other.0, false)] {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut options: RedisRenewals = options(&format!("rediss://127.0.0.1:{tls_port}"));
        options.endpoint.tls = Some((Arc::new(config), ServerName::try_from("localhost").expect("a name")));
        let store = RedisStore::new(&options, "test");
        if is_trusted {
            store.look(TOKEN).await.expect("an answer");
            assert!(store.pushes());
        } else {
            let why = text(store.look(TOKEN).await);
            assert!(why.starts_with("the TLS handshake failed"), "{why}");
        }
    }
}

#[test]
fn replies_are_not_trusted() {
    let bytes = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let chain = |word: &[u8], value: Value, life: Value, answers: Vec<Value>| {
        Value::Array(vec![bytes(word), value, life, Value::Array(answers)])
    };
    let (short, long) = (bytes(&[0; 128 * 1024]), bytes(&[0; 128 * 1024 + 1]));
    let good = chain(b"claimed", short.clone(), Value::Int(5), vec![short.clone(); 16]);
    assert!(reply::chain(good).is_ok());
    for (name, bad) in [
        ("nil", Value::Nil),
        ("a word", bytes(b"absent")),
        ("too short", Value::Array(vec![bytes(b"absent")])),
        ("an unknown word", chain(b"granted", bytes(b""), Value::Int(0), vec![])),
        ("a long value", chain(b"claimed", long.clone(), Value::Int(5), vec![])),
        ("a long answer", chain(b"absent", bytes(b""), Value::Int(0), vec![long.clone()])),
        ("many answers", chain(b"absent", bytes(b""), Value::Int(0), vec![short; 17])),
        ("no time", chain(b"claimed", bytes(b""), bytes(b"5"), vec![])),
        ("a negative time", chain(b"failed", bytes(b""), Value::Int(-1), vec![])),
        ("a nested answer", chain(b"absent", bytes(b""), Value::Int(0), vec![Value::Array(vec![])])),
    ] {
        assert!(reply::chain(bad.clone()).is_err(), "{name}");
        assert!(reply::claimed(bad.clone()).is_err(), "{name}");
        assert!(reply::finished(bad.clone()).is_err(), "{name}");
        assert!(reply::previous(bad.clone()).is_err(), "{name}");
        assert!(reply::recorded(bad.clone()).is_err(), "{name}");
        assert!(reply::log_page(bad).is_err(), "{name}");
    }
    assert!(reply::previous(Value::Array(vec![bytes(b"rotated"), long])).is_err());
    let entry = |id: &[u8], digest: &[u8], expires_at: &[u8]| {
        let fields = vec![bytes(b"d"), bytes(digest), bytes(b"e"), bytes(expires_at)];
        Value::Array(vec![Value::Array(vec![bytes(id), Value::Array(fields)])])
    };
    assert!(reply::log_page(entry(b"1-2", &[0; 16], b"3")).is_ok());
    for id in [&b"1"[..], b"-", b"1-x", b""] {
        assert!(reply::log_page(entry(id, &[0; 16], b"3")).is_err(), "{id:?}");
    }
    // Junk has a position, and does not hide what is behind it.
    for (digest, expires_at) in [(&[0; 17][..], &b"3"[..]), (&[0; 16], b"-3"), (&[0; 16], b""), (&[], b"3")] {
        let page = reply::log_page(entry(b"1-2", digest, expires_at));
        assert!(matches!(page.as_deref(), Ok([(_, None)])), "{digest:?} {expires_at:?}");
    }
    let Value::Array(entries) = entry(b"1-2", &[0; 16], b"3") else { unreachable!() };
    assert!(reply::log_page(Value::Array(vec![entries[0].clone(); 1001])).is_err());
}

/// Expects that the next operation fails without waiting for anything.
fn at_once(store: &dyn Store) -> Result<(), Unreachable> {
    store.look(TOKEN).now_or_never().expect("no waiting").map(drop)
}

fn text<T: std::fmt::Debug>(reply: Result<T, Unreachable>) -> String {
    reply.expect_err("no answer").0.to_string()
}

async fn until_reachable(store: &dyn Store) {
    let give_up = Instant::now() + PATIENCE;
    while let Err(error) = store.look(TOKEN).await {
        assert!(Instant::now() < give_up, "{error:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up);
        sleep(Duration::from_millis(10)).await;
    }
}

/// Reads a number from the server's statistics.
fn count(server: &TestServer, name: &str) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query(&mut server.connection()).expect("an answer");
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |number| number.parse().expect("a number"))
}

fn clients(server: &TestServer) -> usize {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connection()).expect("an answer");
    list.lines().count()
}

fn kill_clients(server: &TestServer) {
    let mut admin = server.connection();
    let types: [&str; 2] = ["normal", "pubsub"];
    for kind in types {
        let command = ["KILL", "TYPE", kind, "SKIPME", "yes"];
        redis::cmd("CLIENT").arg(&command).exec(&mut admin).expect("an answer");
    }
}

fn server_in(server: &TestServer, database: i64) -> redis::Connection {
    let mut connection = server.connection();
    redis::cmd("SELECT").arg(database).exec(&mut connection).expect("an answer");
    connection
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn claim() -> Claim {
    Claim { fence: [1; 16], proof: b"proof".to_vec(), lease: LONG }
}

fn done() -> Outcome {
    Outcome::Done { answer: b"answer".to_vec(), next: [8; 32], time_to_live: LONG }
}

const TOKEN: Id = [7; 32];
const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(15);
