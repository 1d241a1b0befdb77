//! Servers that others write to, that send what they like, or that know other certificates and users.

use std::time::Duration;

use futures_util::FutureExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use redis::Connection;
use tokio::time::timeout;

use super::{
    PATIENCE, TOKEN, at_once, claim, done,
    fake::{Fake, honest, log_in, log_in_with_pushes},
    runtime, text, until, until_reachable,
};
use crate::{
    session::RevokedJwt,
    store::{
        Chain, Claimed, Finished, Outcome, Previous, Store, Tail,
        redis::{RedisStore, name_of},
        test_server::{TestServer, free_port, options},
    },
    test_support::pem,
};

#[tokio::test]
async fn records_that_others_have_written_are_errors_or_read_as_they_are() {
    let Some(server) = TestServer::start(&[]) else { return };
    let (store, mut admin) = (server.store(), server.connection());
    let (key, itself) = (store.key(&name_of(&TOKEN)), name_of(&TOKEN));
    let (huge, large, far) = ("v".repeat((128 << 10) + 1), u64::MAX.to_string(), "9".repeat(400));
    for (case, fields, expected) in [
        ("no field that is known", &["?", "?"][..], "absent"),
        ("an empty state", &["s", "", "v", "v"], "absent"),
        ("no state that is known", &["s", "q", "v", "v"], "an error"),
        ("a state of replies", &["s", "granted", "v", "v"], "an error"),
        ("a claim without anything", &["s", "c"], "an error"),
        ("a claim without a number", &["s", "c", "u", "0"], "an error"),
        ("a claim without a proof", &["s", "c", "u", "99999999999999", "n", "1"], "claimed"),
        ("a claim until a word", &["s", "c", "u", "then", "n", "1"], "an error"),
        ("a claim until no number", &["s", "c", "u", "nan", "n", "1"], "stalled"),
        // What a server makes of a number that no integer holds depends on its machine.
        ("a claim for ever", &["s", "c", "u", "inf", "n", "1"], "anything"),
        ("a claim for very long", &["s", "c", "u", &far, "n", "1"], "anything"),
        ("a claim with a word as its number", &["s", "c", "u", "0", "n", "one"], "an error"),
        ("a claim with a large number", &["s", "c", "u", "0", "n", &large], "lost"),
        ("an ended claim without anything", &["s", "c", "t", "t"], "ended"),
        ("an answer without a successor", &["s", "d", "v", "v"], "absent"),
        ("a successor without an answer", &["s", "d", "x", "x"], "absent"),
        ("its own successor", &["s", "d", "v", "v", "x", &itself], "rotated"),
        ("a successor that is no name", &["s", "d", "v", "v", "x", "\0:{}"], "absent"),
        ("a failure for ever", &["s", "f", "v", "v"], "an error"),
        ("a refusal without anything", &["s", "r"], "refused"),
        ("a tombstone without anything", &["s", "e"], "ended"),
        ("a huge refusal", &["s", "r", "v", &huge], "an error"),
        ("a huge answer", &["s", "d", "v", &huge], "an error"),
    ] {
        let mut write = || {
            redis::cmd("DEL").arg(&key).exec(&mut admin).expect("an answer");
            redis::cmd("HSET").arg(&key).arg(fields).exec(&mut admin).expect("an answer");
        };
        write();
        let looked = store.look(TOKEN).await;
        assert!(state(looked.as_ref().ok()) == expected || expected == "anything", "{case}: {looked:?}");
        // The others return something, and leave the connection usable.
        let _ = store.claim(TOKEN, claim()).await;
        for outcome in outcomes() {
            write();
            let _ = store.finish(TOKEN, FENCE, outcome).await;
        }
        write();
        let _ = store.delivered(TOKEN, PATIENCE).await;
        let _ = store.end(TOKEN, b"t".to_vec(), PATIENCE).await;
        store.look([9; 32]).await.expect(case);
    }
    for command in ["SET", "RPUSH", "SADD"] {
        redis::cmd("DEL").arg(&key).exec(&mut admin).expect("an answer");
        redis::cmd(command).arg(&key).arg("v").exec(&mut admin).expect("an answer");
        text(store.look(TOKEN).await);
        text(store.claim(TOKEN, claim()).await);
        for outcome in outcomes() {
            text(store.finish(TOKEN, FENCE, outcome).await);
        }
        text(store.delivered(TOKEN, PATIENCE).await);
        text(store.end(TOKEN, b"t".to_vec(), PATIENCE).await);
    }
    redis::cmd("SET").arg(store.key("revoked")).arg("v").exec(&mut admin).expect("an answer");
    text(store.revoke(vec![JWT]).await);
    text(store.revoked_since(None).await);
}

#[tokio::test]
async fn projects_and_prefixes_share_nothing() {
    let Some(server) = TestServer::start(&[]) else { return };
    let ours = server.store();
    ours.finish(TOKEN, FENCE, done()).await.expect("an answer");
    ours.revoke(vec![JWT]).await.expect("an answer");
    for (prefix, project) in [("tca1", "another project"), ("tca2", "test")] {
        let theirs = RedisStore::new(&options(&server.url()).prefix(prefix), project);
        assert_eq!(theirs.look(TOKEN).await.expect("an answer").tail, Tail::Absent);
        assert_eq!(theirs.revoked_since(None).await.expect("an answer"), []);
        theirs.connect().await.expect("a connection");
        let mut watch = theirs.watch(TOKEN);
        ours.finish(TOKEN, FENCE, done()).await.expect("an answer");
        theirs.finish([6; 32], FENCE, done()).await.expect("an answer");
        let mut witness = theirs.watch([5; 32]);
        theirs.finish([5; 32], FENCE, done()).await.expect("an answer");
        timeout(PATIENCE, witness.changed()).await.expect("a push");
        assert!(watch.changed().now_or_never().is_none());
    }
    let keys: Vec<String> = redis::cmd("KEYS").arg("*tca1:test*").query(&mut server.connection()).expect("an answer");
    assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("{tca1:test}:")), "{keys:?}");
}

#[tokio::test]
async fn a_user_who_may_not_do_everything_does_what_remains() {
    let Some(server) = TestServer::start(&[]) else { return };
    let mut admin = server.connection();
    for (name, permissions, pushes) in [
        ("no-subscribe", &["&*", "+@all", "-subscribe"][..], false),
        ("neither", &["&*", "+@all", "-subscribe", "-publish"], false),
        ("no-hello", &["&*", "+@all", "-hello"], true),
        (
            "least",
            &[
                "&*",
                "-@all",
                "+subscribe",
                "+publish",
                "+evalsha",
                "+eval",
                "+time",
                "+exists",
                "+del",
                "+hmget",
                "+hset",
                "+pttl",
                "+pexpire",
                "+xadd",
                "+xrange",
            ],
            true,
        ),
    ] {
        let store = RedisStore::new(&options(&user(&server, &mut admin, name, permissions)), name);
        assert_eq!(store.claim(TOKEN, claim()).await.expect(name), GRANTED, "{name}");
        assert!(name == "no-hello" || store.pushes() == pushes, "{name}");
        assert_eq!(store.finish(TOKEN, FENCE, done()).await.expect(name), Finished::Recorded, "{name}");
        assert_eq!(
            store.end(TOKEN, b"t".to_vec(), PATIENCE).await.expect(name),
            Previous::Rotated(b"answer".to_vec()),
            "{name}"
        );
        assert_eq!(store.look(TOKEN).await.expect(name).tail, Tail::Ended(b"t".to_vec()), "{name}");
        store.delivered(TOKEN, PATIENCE).await.expect(name);
        store.revoke(vec![JWT]).await.expect(name);
        assert_eq!(store.revoked_since(None).await.expect(name).len(), 1, "{name}");
    }
    let store = RedisStore::new(&options(&user(&server, &mut admin, "useless", &["&*", "+@all", "-evalsha"])), "test");
    store.connect().await.expect("a connection");
    for _ in 0..3 {
        let why = text(store.look(TOKEN).await);
        assert!(why.contains("NOPERM"), "{why}");
    }
    assert!(store.pushes(), "another connection would not help");
}

#[tokio::test]
async fn no_password_is_shown() {
    let Some(server) = TestServer::start(&["--requirepass", "s3cret-1"]) else { return };
    for login in [":wr0ng-1@", "default:wr0ng-1@", "nobody:s3cret-1@", "nobody:@", ""] {
        let options = options(&format!("redis://{login}127.0.0.1:{}", server.port));
        let store = RedisStore::new(&options, "test");
        for outcome in [store.connect().await, store.look(TOKEN).await.map(drop)] {
            let error = outcome.expect_err(login);
            let shown = format!("{error:?} {} {options:?}", error.0);
            assert!(shown.contains("the store refused the user or password"), "{shown}");
            assert!(!shown.contains("wr0ng") && !shown.contains("s3cret"), "{shown}");
        }
    }
    for login in [":s3cret-1@", "default:s3cret%2D1@"] {
        let store = RedisStore::new(&options(&format!("redis://{login}127.0.0.1:{}/3", server.port)), "test");
        store.look(TOKEN).await.expect(login);
    }
    let store = RedisStore::new(&options(&format!("redis://:s3cret-1@127.0.0.1:{}/99", server.port)), "test");
    let why = text(store.connect().await);
    assert!(why.contains("database"), "{why}");
}

#[tokio::test]
async fn only_a_certificate_for_the_host_of_a_trusted_authority_is_accepted() {
    let [(ours, issuer), (theirs, _)] = [(); 2].map(|()| authority());
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let directory = std::env::temp_dir().join(format!("tower-crossmint-auth-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let [certificate, key, authority] = [
        ("certificate.pem", pem("CERTIFICATE", certificate.der())),
        ("key.pem", pem("PRIVATE KEY", key.serialized_der())),
        ("authority.pem", ours.clone()),
    ]
    .map(|(name, text)| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    });
    let port = free_port().to_string();
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &authority];
    let server = TestServer::start(&[&["--tls-port", &port, "--tls-auth-clients", "no"][..], &files].concat());
    let _ = std::fs::remove_dir_all(&directory);
    let Some(server) = server else { return };
    let both = theirs.clone() + &ours;
    for (case, url, authorities, expected) in [
        ("valid", format!("rediss://localhost:{port}"), Some(&ours), None),
        ("one of two authorities", format!("rediss://localhost:{port}/2"), Some(&both), None),
        ("another host", format!("rediss://127.0.0.1:{port}"), Some(&ours), Some("the TLS handshake failed")),
        ("another authority", format!("rediss://localhost:{port}"), Some(&theirs), Some("the TLS handshake failed")),
        ("the system's authorities", format!("rediss://localhost:{port}"), None, Some("the TLS handshake failed")),
        ("no TLS", format!("redis://localhost:{port}"), None, Some("the connection failed")),
        ("no TLS there", format!("rediss://localhost:{}", server.port), None, Some("")),
    ] {
        let mut options = options(&url);
        if let Some(authorities) = authorities {
            options = options.ca_certificates(authorities.as_bytes());
        }
        options.check().expect(case);
        let store = RedisStore::new(&options, "test");
        let connected = store.connect().await;
        match expected {
            None => {
                connected.expect(case);
                store.look(TOKEN).await.expect(case);
                assert!(store.pushes(), "{case}");
            }
            Some(expected) => {
                let why = text(connected);
                assert!(why.contains(expected), "{case}: {why}");
            }
        }
    }
}

#[tokio::test]
async fn no_attempt_is_made_within_the_pause() {
    let fake = Fake::start(|_| None);
    let store = fake.store();
    text(store.look(TOKEN).await);
    assert_eq!(fake.attempts(), 1);
    for _ in 0..50 {
        text(at_once(&store));
    }
    assert_eq!(fake.attempts(), 1);
    // Warming up does not wait for the pause.
    text(store.connect().await);
    assert_eq!(fake.attempts(), 2);

    fake.answer(honest);
    until_reachable(&store).await;
    assert!(!store.pushes());
}

#[tokio::test]
async fn warming_up_joins_an_attempt() {
    let fake = Fake::start(|_| Some(Vec::new()));
    let store = fake.store();
    assert!(store.look(TOKEN).now_or_never().is_none());
    assert_eq!(text(store.connect().await), "no connection within 1s");
    assert_eq!(fake.attempts(), 1);
}

#[tokio::test]
async fn replies_of_any_kind_are_survived() {
    let nested = "*1\r\n".repeat(200);
    for reply in [
        "",
        "\r\n",
        "garbage\r\n",
        "$-1\r\n",
        "$-2\r\n",
        "*-1\r\n",
        "*0\r\n",
        ":1\r\n",
        "+OK\r\n",
        "-\r\n",
        "-ERR \u{1b}[31mred\r\n",
        "-ERR a: -\r\n",
        "-NOSCRIPT no\r\n",
        "-READONLY no\r\n",
        "-NOAUTH no\r\n",
        "-MOVED 1 127.0.0.1:1\r\n",
        "*1\r\n$0\r\n\r\n",
        "*1\r\n-ERR inner\r\n",
        "*4\r\n$7\r\nclaimed\r\n$0\r\n\r\n:-1\r\n*0\r\n",
        "*4\r\n$7\r\nclaimed\r\n$-1\r\n:1\r\n*0\r\n",
        "*4\r\n$7\r\ngranted\r\n$0\r\n\r\n:1\r\n*0\r\n",
        "*9223372036854775807\r\n",
        "%9223372036854775807\r\n",
        "%-1\r\n",
        "|0\r\n:1\r\n",
        "|9223372036854775807\r\n",
        "~9223372036854775807\r\n",
        ">0\r\n",
        ">1\r\n:1\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
        "=1\r\nx\r\n",
        "=-1\r\n",
        "!-1\r\n",
        "(x\r\n",
        ",x\r\n",
        "#x\r\n",
        "$1\r\nxx\r\n",
        "$9223372036854775807\r\n",
        &nested,
    ] {
        for log_in in [log_in, log_in_with_pushes] {
            let bytes = reply.as_bytes().to_vec();
            let fake = Fake::start(move |request| Some(log_in(request).unwrap_or_else(|| bytes.clone())));
            let store = RedisStore::new(&options(&fake.url()).time_limit(Duration::from_millis(20)), "test");
            store.connect().await.expect(reply);
            let why = text(store.look(TOKEN).await);
            assert!(!why.chars().any(char::is_control), "{why}");
            text(store.claim(TOKEN, claim()).await);
            text(store.finish(TOKEN, FENCE, done()).await);
            text(store.end(TOKEN, b"t".to_vec(), PATIENCE).await);
            text(store.revoke(vec![JWT]).await);
            assert!(store.revoked_since(None).await.is_err() || reply == "*0\r\n", "{reply}");
            fake.answer(honest);
            until_reachable(&store).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_sends_without_being_asked_is_cut_off() {
    for (start, others) in [
        ("$9223372036854775807\r\n", "0"),
        ("*9223372036854775807\r\n", "*1\r\n"),
        ("*9223372036854775807\r\n", ":1\r\n"),
        ("+", "0"),
        (":1\r\n", ":1\r\n"),
    ] {
        for log_in in [log_in, log_in_with_pushes] {
            let fake = Fake::start(log_in);
            let store = fake.store();
            store.connect().await.expect("a connection");
            let mut watch = store.watch(TOKEN);
            fake.flood(start.as_bytes(), others.as_bytes());
            timeout(PATIENCE, watch.changed()).await.expect("the connection ends");
            until(|| fake.flooded() == 0).await;
        }
    }
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let Some(server) = TestServer::start(&[]) else { return };
    let store = server.store();
    text(at_once(&store));
    let runtime = runtime();
    runtime.block_on(store.look(TOKEN)).expect("an answer");
    text(at_once(&store));
    runtime.block_on(store.look(TOKEN)).expect("an answer");
}

/// Creates a user, and returns the URL to log in with.
fn user(server: &TestServer, admin: &mut Connection, name: &str, permissions: &[&str]) -> String {
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", name, "on", ">secret", "~*"]).arg(permissions).exec(admin).expect("an answer");
    format!("redis://{name}:secret@127.0.0.1:{}", server.port)
}

/// Returns a certificate authority, as a PEM file and to issue with.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (pem("CERTIFICATE", params.self_signed(&key).expect("a certificate").der()), Issuer::new(params, key))
}

fn state(chain: Option<&Chain>) -> &'static str {
    match chain.map(|chain| &chain.tail) {
        None => "an error",
        Some(Tail::Absent) => "absent",
        Some(Tail::Claimed { .. }) => "claimed",
        Some(Tail::Stalled) => "stalled",
        Some(Tail::Lost(_)) => "lost",
        Some(Tail::Rotated) => "rotated",
        Some(Tail::Failed(..)) => "failed",
        Some(Tail::Refused(_)) => "refused",
        Some(Tail::Ended(_)) => "ended",
    }
}

fn outcomes() -> [Outcome; 4] {
    [
        done(),
        Outcome::Refused { refusal: b"r".to_vec(), time_to_live: PATIENCE },
        Outcome::Failed { failure: b"f".to_vec(), time_to_live: PATIENCE },
        Outcome::Released,
    ]
}

const FENCE: [u8; 16] = [1; 16];
const GRANTED: Claimed = Claimed::Granted { is_takeover: false };
const JWT: RevokedJwt = RevokedJwt { digest: [1; 16], expires_at: 1 };
