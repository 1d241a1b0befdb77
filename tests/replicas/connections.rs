//! How a replica gets to the store: names, passwords, TLS, and what it must not take for its own.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::time::sleep;
use tower_crossmint_auth::testing::Endpoint;

use crate::{
    replica::Options,
    stage::Stage,
    store::{Store, free_port},
};

#[tokio::test]
async fn replicas_with_another_prefix_or_pepper_do_not_share_and_misread_nothing() {
    let differing = |_: &Stage, number, options| match number {
        0 => options,
        1 => Options { prefix: Some("next".to_owned()), ..options },
        _ => Options { pepper: Some("a pepper of enough bytes".to_owned()), ..options },
    };
    let Some(stage) = Stage::configured(3, differing).await else { return };
    let mut cookies = stage.expired("alice").cookie_header();
    for turn in 0..6 {
        // Each rotates the session that the others have recorded.
        let received = stage.replicas[turn % 3].get(cookies).await.session("alice");
        assert!(stage.mock.is_live(&received.refresh_token), "{turn}");
        cookies = received.without_jwt();
    }
    assert_eq!((stage.mock.calls(Endpoint::Refresh), stage.mock.reuse_detections()), (3 + 6, 0));
    for replica in &stage.replicas {
        assert_eq!((replica.stat("shared_hits").await, replica.stat("shared_unreachable").await), (0, 0));
    }
}

#[tokio::test]
async fn a_replica_with_the_password_shares_and_one_with_another_goes_on_alone_or_waits() {
    let Some(mut store) = Store::with(&["--requirepass", PASSWORD]).await else { return };
    store.set_password(PASSWORD);
    let configure = |stage: &Stage, number, options| {
        let login = match number {
            0 | 1 => format!(":{PASSWORD}@"),
            2 | 3 => ":wrong@".to_owned(),
            _ => String::new(),
        };
        Options { store: Some(format!("redis://{login}{}", stage.store.address())), waits: number > 2, ..options }
    };
    let stage = Stage::at(store, 5, configure).await;
    shares(&stage).await;
    for replica in [3, 4] {
        keeps_sessions(&stage, replica).await;
    }
    let bob = stage.expired("bob");
    let received = stage.get(2, &bob).await.session("bob");
    stage.assert_alive(&bob, &received, 1);
    assert!(stage.replicas[2].stat("shared_unreachable").await > 0);
}

#[tokio::test]
async fn a_store_without_memory_counts_as_unreachable_and_records_what_was_claimed_before() {
    let configure = |_: &Stage, number, options| Options { waits: number > 0, ..options };
    let Some(stage) = Stage::configured(2, configure).await else { return };
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| stage.expired(user));
    let sending = stage.mock.hold(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let scene = async {
        sent.await;
        for command in ["CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1"] {
            stage.store.command::<()>(command).await;
        }
        stage.get_while(1, &carol, async { drop(sending) }).await
    };
    let (leader, follower) = tokio::join!(stage.get(0, &carol), scene);
    let received = leader.session("carol");
    assert_eq!(follower.session("carol"), received);
    stage.assert_alive(&carol, &received, 1);

    let received = stage.get(0, &alice).await.session("alice");
    stage.assert_alive(&alice, &received, 1);
    stage.get(1, &bob).await.assert_try_later();
    assert_eq!(stage.sent(&bob), 0);
    for replica in &stage.replicas {
        assert!(replica.stat("shared_unreachable").await > 0);
    }

    stage.store.command::<()>("CONFIG SET maxmemory 0").await;
    let received = stage.get(1, &bob).await.session("bob");
    assert_eq!(stage.get(0, &bob).await.session("bob"), received);
    stage.assert_alive(&bob, &received, 1);
}

#[tokio::test]
async fn replicas_poll_where_the_server_does_not_tell_them_of_changes() {
    for (case, permissions) in [("no push", "-subscribe"), ("an old protocol", "-hello")] {
        let Some(store) = Store::start().await else { return };
        store.command::<()>(&format!("ACL SETUSER poller on >{PASSWORD} ~* &* +@all {permissions}")).await;
        let configure = |stage: &Stage, _, options| {
            let url = format!("redis://poller:{PASSWORD}@127.0.0.1:{}", stage.proxies.last().unwrap().port);
            Options { store: Some(url), ..options }
        };
        let stage = Stage::at(store, 2, configure).await;
        let alice = stage.expired("alice");
        let sending = stage.mock.hold(Endpoint::Refresh);
        let sent = stage.next_refresh();
        let following = async {
            sent.await;
            stage.get_while(1, &alice, async { drop(sending) }).await
        };
        let (leader, follower) = tokio::join!(stage.get(0, &alice), following);
        let received = leader.session("alice");
        assert_eq!(follower.session("alice"), received, "{case}");
        stage.assert_alive(&alice, &received, 1);
        stage.replicas[0].log_out(received.cookies.clone()).await;
        sleep(Duration::from_secs(1)).await;
        stage.replicas[1].get(received.cookies).await.assert_ended();
        assert_eq!(stage.replicas[1].stat("shared_unreachable").await, 0, "{case}");
    }
}

#[tokio::test]
async fn a_server_with_tls_must_have_the_name_in_the_url_and_a_certificate_of_a_trusted_authority() {
    let [ours, another] = ["ours", "another"].map(Authority::named);
    let (certificate, key) = ours.certify("localhost");
    let port = free_port();
    let options = format!(
        "--tls-port {port} --tls-cert-file server.pem --tls-key-file key.pem --tls-ca-cert-file ca.pem --tls-auth-clients no"
    );
    let options: Vec<_> = options.split(' ').collect();
    let files = [("server.pem", certificate), ("key.pem", key), ("ca.pem", ours.pem.clone())];
    let Some(store) = Store::with_files(&options, &files).await else { return };
    let configure = |_: &Stage, number, options| {
        let (host, authority) = match number {
            0 | 1 => ("localhost", Some(&ours)),
            2 => ("127.0.0.1", Some(&ours)),
            3 => ("localhost", Some(&another)),
            // The authorities of the system.
            _ => ("localhost", None),
        };
        let ca_certificates = authority.map(|authority| authority.pem.clone());
        Options { store: Some(format!("rediss://{host}:{port}")), ca_certificates, waits: true, ..options }
    };
    let stage = Stage::at(store, 5, configure).await;
    shares(&stage).await;
    for replica in [2, 3, 4] {
        keeps_sessions(&stage, replica).await;
    }
}

/// Asserts that the first two replicas share a session.
async fn shares(stage: &Stage) {
    let alice = stage.expired("alice");
    let received = stage.get(0, &alice).await.session("alice");
    assert_eq!(stage.get(1, &alice).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
    assert_eq!(stage.replicas[1].stat("shared_hits").await, 1);
}

/// Asserts that a replica that waits for the store does not reach it.
async fn keeps_sessions(stage: &Stage, replica: usize) {
    let alice = stage.expired("alice");
    stage.get(replica, &alice).await.assert_try_later();
    assert_eq!(stage.sent(&alice), 0, "{replica}");
    assert!(stage.mock.is_live(alice.refresh_token()), "{replica}");
    assert!(stage.replicas[replica].stat("shared_unreachable").await > 0, "{replica}");
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Makes a certificate and its key, in PEM.
    fn certify(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    // 64 characters a line, which are 48 bytes (RFC 7468, section 2).
    let lines: String = der.chunks(48).map(|line| STANDARD.encode(line) + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

const PASSWORD: &str = "correct-horse";
