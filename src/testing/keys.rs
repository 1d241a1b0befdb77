//! The signing keys: a pool that all mocks of a process share, and the keys that one mock publishes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{self, SystemRandom},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The current signing key and the published key set.
#[derive(Debug)]
pub(crate) struct Keyring {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    position: usize,
    current: Arc<SigningKey>,
    published: Vec<Value>,
}

impl Keyring {
    pub(crate) fn new() -> Self {
        let current = SigningKey::from_pool(0);
        let published = vec![current.jwk.clone()];
        let state = Mutex::new(State { position: 0, current, published });
        Self { state }
    }

    pub(crate) fn current(&self) -> Arc<SigningKey> {
        Arc::clone(&self.lock().current)
    }

    pub(crate) fn rotate(&self) {
        let mut state = self.lock();
        state.position += 1;
        state.current = SigningKey::from_pool(state.position);
        let jwk = state.current.jwk.clone();
        state.published.push(jwk);
    }

    pub(crate) fn withdraw_old(&self) {
        let mut state = self.lock();
        state.published = vec![state.current.jwk.clone()];
    }

    pub(crate) fn publish(&self, jwk: Value) {
        self.lock().published.push(jwk);
    }

    pub(crate) fn published(&self) -> Value {
        json!({ "keys": self.lock().published })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An RSA-2048 key pair with its `kid` and its JWK.
pub(crate) struct SigningKey {
    kid: String,
    pair: KeyPair,
    jwk: Value,
}

impl SigningKey {
    /// Returns the `position`-th key of this process, and generates it if it does not exist yet.
    ///
    /// Keys are shared because generating one takes up to a second in a debug build.
    fn from_pool(position: usize) -> Arc<Self> {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        while pool.len() <= position {
            pool.push(Arc::new(Self::generate()));
        }
        Arc::clone(&pool[position])
    }

    fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("AWS-LC generates RSA-2048 keys");
        let modulus = URL_SAFE_NO_PAD.encode(modulus(pair.public_key().as_ref()));

        // RFC 7638, section 3, prescribes the order of the members and no whitespace.
        let thumbprint = format!(r#"{{"e":"{EXPONENT}","kty":"RSA","n":"{modulus}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, thumbprint.as_bytes()));

        let jwk = json!({
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": kid,
            "n": modulus,
            "e": EXPONENT,
        });
        Self { kid, pair, jwk }
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs a compact JWS (RFC 7515, section 7.1).
    pub(crate) fn sign(&self, mut header: Value, claims: &Value) -> String {
        if let Value::Object(members) = &mut header {
            members.entry("alg").or_insert_with(|| json!("RS256"));
            members.entry("kid").or_insert_with(|| json!(self.kid));
        }

        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);

        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .expect("a 2048-bit key is long enough for an RS256 signature");

        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Generates an opaque secret of 256 bits that consists of cookie-octets only.
pub(crate) fn random_secret() -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the system has a source of randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Extracts the modulus from a DER `RSAPublicKey` (RFC 8017, appendix A.1.1).
///
/// All lengths are fixed: the modulus has 2048 bits, the first of which is always set, and the exponent is 65537.
fn modulus(der: &[u8]) -> &[u8] {
    der.strip_prefix(&DER_BEFORE_MODULUS)
        .and_then(|rest| rest.strip_suffix(&DER_AFTER_MODULUS))
        .expect("the public key is RSA-2048 with the exponent 65537")
}

static POOL: Mutex<Vec<Arc<SigningKey>>> = Mutex::new(Vec::new());

const DER_BEFORE_MODULUS: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
const DER_AFTER_MODULUS: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
const EXPONENT: &str = "AQAB";
