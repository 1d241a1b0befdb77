//! TLS: invalid certificates.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use reqwest::{Certificate, tls::Version};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, SupportedProtocolVersion,
        crypto::aws_lc_rs::default_provider,
        pki_types::CertificateDer,
        version::{TLS12, TLS13},
    },
};
use tower_crossmint_auth::{CrossmintAuthConfigBuilder, OutagePolicy, testing::MockCrossmint};

use crate::{
    matrix::stage::{CROWD, Scene, Stage, assert_inconclusive, keeping},
    support::{
        answer::{JWT, LOGOUT_ROUTE, REFRESH},
        clock::pass,
        mock::{Calls, NO_CALLS, expired},
    },
};

#[tokio::test]
async fn nothing_is_sent_to_a_server_with_an_invalid_certificate() {
    let stage = Stage::new(keeping).await;
    let mock = &stage.mock;
    let [ours, another] = ["ours", "another"].map(Authority::named);
    let key = KeyPair::generate().unwrap();
    let self_signed = params(HOST).self_signed(&key).unwrap();
    let valid = ours.presents(&params(HOST), &TLS13);
    let [mut expired_params, mut early_params] = [params(HOST), params(HOST)];
    expired_params.not_after = date_time_ymd(2020, 1, 1);
    early_params.not_before = date_time_ymd(4000, 1, 1);
    for (case, invalid) in [
        ("expired", ours.presents(&expired_params, &TLS13)),
        ("early", ours.presents(&early_params, &TLS13)),
        ("for another address", ours.presents(&params("127.0.0.2"), &TLS13)),
        ("for a name", ours.presents(&params("localhost"), &TLS13)),
        ("of another authority", another.presents(&params(HOST), &TLS13)),
        ("self-signed", server(self_signed.der(), &key, &TLS13)),
        ("valid, in a version that is too old", ours.presents(&params(HOST), &TLS12)),
    ] {
        let front = Front::presenting(&invalid, mock).await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_der(&ours.certificate).unwrap()])
            .tls_version_min(Version::TLS_1_3);
        let scene = front.scene(&stage, |config| config.http_client(client.build().unwrap()));
        front.assert_gets_nothing(&scene, case).await;

        let (alice, bob) = (mock.sign_in("alice"), expired(mock, "bob"));
        front.present(&valid);
        pass(Duration::from_secs(1)).await;
        scene.get(&alice).await.assert_passed("alice", case);
        assert_eq!(scene.calls(), Calls { keys: 1, ..NO_CALLS }, "{case}");

        // The keys are loaded: from here on, the refresh fails.
        front.present(&invalid);
        mock.close_connections();
        mock.disconnected().await;
        let attempts = front.attempts();
        for answer in scene.crowd(&bob, CROWD).await {
            assert_inconclusive(&answer, OutagePolicy::KeepSession, case);
        }
        scene.get(&alice).await.assert_passed("alice", case);
        assert_eq!((scene.calls(), front.attempts() - attempts), (Calls { keys: 1, ..NO_CALLS }, 1), "{case}");
        front.present(&valid);
        scene.get(&bob).await.assert_refreshed("bob", case);
        assert_eq!((scene.calls(), scene.sent(&bob)), (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 1), "{case}");
    }
}

#[tokio::test]
async fn the_built_in_client_trusts_only_the_systems_authorities() {
    let stage = Stage::new(keeping).await;
    let front = Front::presenting(&Authority::named("ours").presents(&params(HOST), &TLS13), &stage.mock).await;
    front.assert_gets_nothing(&front.scene(&stage, |config| config), "").await;
}

/// A server that speaks TLS in front of the mock.
struct Front {
    base_url: String,
    presented: Arc<Mutex<Arc<ServerConfig>>>,
    attempts: Arc<AtomicUsize>,
}

impl Front {
    async fn presenting(certificate: &Arc<ServerConfig>, mock: &MockCrossmint) -> Self {
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let front = Self {
            base_url: format!("https://{}", listener.local_addr().unwrap()),
            presented: Arc::new(Mutex::new(Arc::clone(certificate))),
            attempts: Arc::default(),
        };
        let (presented, attempts) = (Arc::clone(&front.presented), Arc::clone(&front.attempts));
        let mock = mock.base_url().strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                attempts.fetch_add(1, Ordering::Relaxed);
                let (acceptor, mock) = (TlsAcceptor::from(Arc::clone(&presented.lock().unwrap())), mock.clone());
                tokio::spawn(async move {
                    // An error means that the client has rejected the certificate.
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(mock).await.unwrap();
                    // An error means that one of the two has disconnected.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        front
    }

    fn present(&self, certificate: &Arc<ServerConfig>) {
        *self.presented.lock().unwrap() = Arc::clone(certificate);
    }

    /// Counts the connections that clients have opened.
    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Makes a handle that calls Crossmint through this server.
    fn scene(
        &self,
        stage: &Stage,
        configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
    ) -> Scene {
        Scene::with(stage, configure(stage.config().base_url(&self.base_url)))
    }

    /// Asserts that no call of a handle without keys reaches the mock, and that none is retried.
    async fn assert_gets_nothing(&self, scene: &Scene, case: &str) {
        let mock = &scene.mock;
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| expired(mock, user));
        let valid = mock.sign_in("dave");
        let connections = mock.connections();
        let (crowd, one, other) = tokio::join!(scene.crowd(&valid, CROWD), scene.get(&alice), scene.get(&bob));
        for answer in crowd.iter().chain([&one, &other]) {
            assert_inconclusive(answer, OutagePolicy::KeepSession, case);
        }
        assert_inconclusive(&scene.get(&valid).await, OutagePolicy::KeepSession, case);
        assert_eq!((self.attempts(), scene.auth.stats().failed_reloads), (1, 1), "{case}");

        let logout = scene.post(LOGOUT_ROUTE, &carol.cookie_header()).await;
        assert_eq!((logout.status, logout.clears(&[JWT, REFRESH])), (200, true), "{case}");
        assert_eq!(self.attempts(), 2, "{case}");
        assert_eq!((scene.calls(), mock.connections()), (NO_CALLS, connections), "{case}");
        assert!([&alice, &bob, &carol].iter().all(|session| mock.is_live(session.refresh_token())), "{case}");
    }
}

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Makes a server with a certificate of this authority.
    fn presents(&self, params: &CertificateParams, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        server(params.signed_by(&key, &self.issuer).unwrap().der(), &key, version)
    }
}

fn params(host: &str) -> CertificateParams {
    CertificateParams::new([host.to_owned()]).unwrap()
}

fn server(
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let key = key.serialize_der().try_into().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap())
}

const HOST: &str = "127.0.0.1";
