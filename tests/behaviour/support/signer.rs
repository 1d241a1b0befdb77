//! Keys of the tests, for tokens that the mock does not sign.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaSignatureEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use tower_crossmint_auth::testing::{Endpoint, Fault, MockCrossmint};

use crate::support::clock::at;

/// A key of the tests, for tokens that the mock does not sign.
pub(crate) struct Signer {
    kid: &'static str,
    pair: KeyPair,
}

impl Signer {
    pub(crate) fn new(kid: &'static str) -> Self {
        Self { kid, pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    pub(crate) fn n(&self) -> String {
        // RFC 8017 appendix A.1.1: the lengths are fixed for 2048 bits and the exponent 65537.
        BASE64URL.encode(&self.pair.public_key().as_ref()[9..265])
    }

    pub(crate) fn jwk(&self) -> Value {
        json!({"kty": "RSA", "kid": self.kid, "n": self.n(), "e": "AQAB"})
    }

    /// Signs valid claims.
    pub(crate) fn sign(&self, kid: Option<&str>) -> String {
        self.sign_with("RS256", &kid.map_or_else(|| json!({"alg": "RS256"}), |kid| json!({"alg": "RS256", "kid": kid})))
    }

    /// Signs valid claims with an algorithm, whatever the header says.
    pub(crate) fn sign_with(&self, alg: &str, header: &Value) -> String {
        let claims = json!({"sub": "alice", "aud": "mock-project", "exp": at(600)});
        let message = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
        let encoding: &'static RsaSignatureEncoding = match alg {
            "RS256" => &RSA_PKCS1_SHA256,
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            // The public key as a shared secret.
            "HS256" => {
                let der = AsDer::<PublicKeyX509Der<'_>>::as_der(self.pair.public_key()).unwrap();
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, der.as_ref()), message.as_bytes());
                return format!("{message}.{}", BASE64URL.encode(tag));
            }
            other => panic!("{other} is not implemented"),
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", BASE64URL.encode(signature))
    }
}

pub(crate) static FIRST: LazyLock<Signer> = LazyLock::new(|| Signer::new("first"));
pub(crate) static SECOND: LazyLock<Signer> = LazyLock::new(|| Signer::new("second"));

/// A mock that publishes these keys and no others.
pub(crate) async fn publishing(keys: &[Value]) -> MockCrossmint {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Keys, Fault::json(200, json!({ "keys": keys })));
    mock
}
