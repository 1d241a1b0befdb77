//! What two threads may do with the session of one JWT at once: shuttle tries all interleavings.

use shuttle::{Config, Runner, scheduler::DfsScheduler, thread};

use super::*;
use crate::{
    config::{ApiKey, CrossmintAuthConfig, Environment},
    jwks::tests::loaded,
    session::AuthMaterial,
};

/// A logout, and a request that has verified the JWT before it, and caches it whenever it gets to that.
#[test]
fn a_logout_meets_a_request_that_caches_its_session() {
    let key = ApiKey::unverified("project", Environment::Development);
    let config = CrossmintAuthConfig::builder(key).build().unwrap();
    let jwks = loaded();
    let verified = Verified { user_id: "alice".into(), expires_at: u64::MAX, generation: jwks.generation().unwrap() };
    let cache = move |verifier: &Verifier| drop(verifier.cache(verified.clone(), AuthMaterial::pair(JWT, "r")));
    let run = move || {
        let verifier = Arc::new(Verifier::new(config.checked(), Arc::clone(&jwks), Arc::default()));
        cache(&verifier);
        let request = {
            let (verifier, cache) = (Arc::clone(&verifier), cache.clone());
            thread::spawn(move || cache(&verifier))
        };
        verifier.revoke(JWT);
        // Whatever the request is doing: a third one must not find the session even for a moment.
        assert!(verifier.cached(JWT.as_bytes()).is_none(), "the session is found after the logout");
        request.join().unwrap();
        assert!(verifier.cached(JWT.as_bytes()).is_none(), "the session has come back");
    };
    let runs = Runner::new(DfsScheduler::new(None, false), Config::new()).run(run);
    println!("{runs} runs in depth");
}

const JWT: &str = "the JWT of a session";
