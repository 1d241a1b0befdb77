//! See Cargo.toml.

#[cfg(test)]
mod tests {
    use tower_crossmint_auth::{AuthErrorKind, CrossmintAuth, testing::MockCrossmint};

    #[tokio::test]
    async fn tokens_verify_whatever_jsonwebtoken_is_built_with() {
        // The other backend is there, and in use by the application.
        let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &(), &key).unwrap();

        let mock = MockCrossmint::start().await;
        let auth = CrossmintAuth::new(mock.config().build().unwrap());
        let alice = mock.sign_in("alice");
        assert_eq!(auth.verify_jwt(alice.jwt()).await.unwrap()["sub"], "alice");
        let (bob, stolen) = (mock.sign_in("bob"), alice.jwt().rsplit_once('.').unwrap().1.to_owned());
        let forged = format!("{}.{stolen}", bob.jwt().rsplit_once('.').unwrap().0);
        assert_eq!(auth.verify_jwt(&forged).await.unwrap_err().kind(), AuthErrorKind::InvalidToken);
    }
}
