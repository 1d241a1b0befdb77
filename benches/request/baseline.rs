//! What the layer is compared with.

use std::{hint::black_box, sync::Arc};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use axum::{
    Router,
    extract::{Request, State},
    middleware::Next,
    response::Response,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header::COOKIE};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::stage::Stage;

pub(crate) fn bare() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// A bare verification: the key has been parsed, the signature decoded.
pub(crate) fn limit(stage: &Stage) -> impl Fn() + use<> {
    let session = stage.session();
    let (message, signature) = session.jwt().rsplit_once('.').unwrap();
    let (message, signature) = (message.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap());
    let [n, e] = key(stage).map(|integer| URL_SAFE_NO_PAD.decode(integer).unwrap());
    let key: ParsedPublicKey =
        RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap();
    move || key.verify_sig(black_box(message.as_bytes()), black_box(&signature)).unwrap()
}

fn key(stage: &Stage) -> [String; 2] {
    let key = &stage.mock.key_set()["keys"][0];
    ["n", "e"].map(|name| key[name].as_str().unwrap().to_owned())
}

/// What one writes without this crate, as the state of [`check`].
pub(crate) struct ByHand {
    key: DecodingKey,
    validation: Validation,
    cookie: String,
}

impl ByHand {
    pub(crate) fn new(stage: &Stage) -> Arc<Self> {
        let [n, e] = key(stage);
        let key = DecodingKey::from_rsa_components(&n, &e).unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[stage.mock.project_id()]);
        Arc::new(Self { key, validation, cookie: format!("crossmint-jwt-{}", stage.mock.project_id()) })
    }
}

pub(crate) async fn check(
    State(by_hand): State<Arc<ByHand>>,
    mut request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let ByHand { key, validation, cookie } = &*by_hand;
    let header = request.headers().get(COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let jwt = header.split("; ").find_map(|pair| pair.strip_prefix(cookie)?.strip_prefix('=')).unwrap_or_default();
    let Ok(token) = jsonwebtoken::decode::<Value>(jwt, key, validation) else {
        return Err(StatusCode::UNAUTHORIZED);
    };
    request.extensions_mut().insert(Arc::new(token.claims));
    Ok(next.run(request).await)
}
