use serde_json::json;

use super::*;
use crate::{
    jwks::KeySet,
    test_support::corpus::{cases, document, text},
    test_support::deep,
};

const NOW: u64 = 1_800_000_000;
const HEADER: &str = r#"{"alg":"RS256","kid":"k1"}"#;
const CLAIMS: &str = r#"{"sub":"alice","exp":1800000060,"aud":"project","iss":"crossmint"}"#;

fn token(header: &str, claims: &str) -> String {
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn read(token: &str) -> Result<Unverified<'_>, &'static str> {
    let expected = Expectations {
        audience: Some("project".into()),
        issuer: Some("crossmint".into()),
        leeway: Duration::from_secs(5),
    };
    Unverified::read(token.as_bytes(), buffer(), &expected, NOW)
}

/// Returns a buffer that is never freed, so that what is read from it can be returned.
fn buffer() -> &'static mut Vec<u8> {
    Box::leak(Box::default())
}

#[test]
fn a_good_token_is_read() {
    let text = token(HEADER, CLAIMS);
    let token = read(&text).unwrap();
    assert_eq!((&*token.user_id, token.signed.key_id.as_deref(), token.expires_at), ("alice", Some("k1"), NOW + 60));
    assert_eq!((token.signed.message, token.signed.signature), (&text.as_bytes()[..text.len() - 5], b"sig".as_slice()));
}

#[test]
fn headers_are_held_to_their_rules() {
    let cases = [
        ("a type", r#"{"alg":"RS256","typ":"jwt"}"#, true),
        ("a media type", r#"{"alg":"RS256","typ":"application/JWT"}"#, true),
        ("an access token", r#"{"alg":"RS256","typ":"at+jwt"}"#, true),
        ("unknown members", r#"{"alg":"RS256","v":1,"jku":"https://x","jwk":{}}"#, true),
        ("an unknown extension", r#"{"alg":"RS256","extension":true}"#, true),
        ("an escaped name", r#"{"\u0061lg":"RS256"}"#, true),
        ("none", r#"{"alg":"none"}"#, false),
        ("hmac", r#"{"alg":"HS256"}"#, false),
        ("lower case", r#"{"alg":"rs256"}"#, false),
        ("a longer hash", r#"{"alg":"RS512"}"#, false),
        ("no algorithm", r#"{"kid":"k1"}"#, false),
        ("two algorithms", r#"{"alg":"none","alg":"RS256"}"#, false),
        ("two keys", r#"{"alg":"RS256","kid":"a","kid":"a"}"#, false),
        ("a numeric key", r#"{"alg":"RS256","kid":1}"#, false),
        ("a null key", r#"{"alg":"RS256","kid":null}"#, false),
        ("an extension", r#"{"alg":"RS256","crit":["exp"]}"#, false),
        ("a null extension", r#"{"alg":"RS256","crit":null}"#, false),
        ("an unencoded payload", r#"{"alg":"RS256","b64":false}"#, false),
        ("compression", r#"{"alg":"RS256","zip":"DEF"}"#, false),
        ("two extensions", r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, false),
        ("nesting", r#"{"alg":"RS256","cty":"JWT"}"#, false),
        ("another type", r#"{"alg":"RS256","typ":"logout+jwt"}"#, false),
        ("an array", r#"["RS256","k1"]"#, false),
        ("a byte order mark", "\u{feff}{\"alg\":\"RS256\"}", false),
    ];
    for (name, header, good) in cases {
        assert_eq!(read(&token(header, CLAIMS)).is_ok(), good, "{name}");
    }
}

#[test]
fn claims_are_held_to_their_rules() {
    let cases = [
        ("several audiences", r#"{"sub":"a","exp":1800000060,"aud":["x","project"],"iss":"crossmint"}"#, true),
        ("a fraction", r#"{"sub":"a","exp":1800000060.5,"aud":"project","iss":"crossmint"}"#, true),
        ("within the leeway", r#"{"sub":"a","exp":1799999996,"aud":"project","iss":"crossmint"}"#, true),
        (
            "early within the leeway",
            r#"{"sub":"a","exp":1800000060,"nbf":1800000005,"aud":"project","iss":"crossmint"}"#,
            true,
        ),
        ("expired at the leeway's end", r#"{"sub":"a","exp":1799999995,"aud":"project","iss":"crossmint"}"#, false),
        ("too early", r#"{"sub":"a","exp":1800000060,"nbf":1800000006,"aud":"project","iss":"crossmint"}"#, false),
        ("no expiry", r#"{"sub":"a","aud":"project","iss":"crossmint"}"#, false),
        ("a text for a date", r#"{"sub":"a","exp":"1800000060","aud":"project","iss":"crossmint"}"#, false),
        ("no date in sight", r#"{"sub":"a","exp":1e300,"aud":"project","iss":"crossmint"}"#, false),
        ("a null date", r#"{"sub":"a","exp":1800000060,"nbf":null,"aud":"project","iss":"crossmint"}"#, false),
        ("no user", r#"{"exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
        ("an empty user", r#"{"sub":"","exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
        ("a numeric user", r#"{"sub":5,"exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
        ("two users", r#"{"sub":"a","sub":"b","exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
        ("no audience", r#"{"sub":"a","exp":1800000060,"iss":"crossmint"}"#, false),
        ("another audience", r#"{"sub":"a","exp":1800000060,"aud":"project2","iss":"crossmint"}"#, false),
        ("an object for an audience", r#"{"sub":"a","exp":1800000060,"aud":{"project":1},"iss":"crossmint"}"#, false),
        ("another issuer", r#"{"sub":"a","exp":1800000060,"aud":"project","iss":"crossmint/"}"#, false),
        ("several issuers", r#"{"sub":"a","exp":1800000060,"aud":"project","iss":["crossmint"]}"#, false),
        ("an array", r#"["a",1800000060]"#, false),
        ("two objects", r#"{"sub":"a","exp":1800000060,"aud":"project","iss":"crossmint"}{}"#, false),
    ];
    for (name, claims, good) in cases {
        assert_eq!(read(&token(HEADER, claims)).is_ok(), good, "{name}");
    }
}

#[test]
fn only_the_compact_form_is_a_token() {
    let good = token(HEADER, CLAIMS);
    let unsigned = good.rsplit_once('.').unwrap().0;
    let cases = [
        ("nothing", String::new()),
        ("dots", "..".into()),
        ("two parts", unsigned.into()),
        ("four parts", format!("{good}.c2ln")),
        ("a scheme", format!("Bearer {good}")),
        ("padding", format!("{good}=")),
        ("stray bits", format!("{unsigned}.c2l")),
        ("a space", format!("{good} ")),
        ("the standard alphabet", format!("{unsigned}.+/+/")),
        ("too long", format!("{unsigned}.{}", "A".repeat(MAX_TOKEN))),
    ];
    for (name, text) in cases {
        assert!(read(&text).is_err(), "{name}");
    }
}

#[test]
fn no_clock_makes_it_panic() {
    let expected = Expectations { audience: None, issuer: None, leeway: Duration::from_secs(300) };
    for now in [0, 30, NOW, u64::MAX] {
        let _ = Unverified::read(token(HEADER, CLAIMS).as_bytes(), buffer(), &expected, now);
    }
}

#[test]
fn deep_nesting_in_a_token_does_not_exhaust_the_stack() {
    deep::on_a_small_stack(|| {
        let deep = deep::arrays(2_500);
        let header = |member: &str| format!(r#"{{"alg":"RS256","{member}":{deep}}}"#);
        let claims = |rest: &str| format!(r#"{{"exp":1800000060,{rest}}}"#);
        let [user, audience, issuer] = [r#""sub":"alice""#, r#""aud":"project""#, r#""iss":"crossmint""#];
        let cases = [
            ("an unknown header member", header("x"), CLAIMS.into(), None),
            ("a key ID", header("kid"), CLAIMS.into(), Some("the header is not acceptable JSON")),
            ("an extension", header("crit"), CLAIMS.into(), Some("the header asks for an extension")),
            ("an unknown claim", HEADER.into(), claims(&format!(r#"{user},{audience},{issuer},"x":{deep}"#)), None),
            (
                "a user",
                HEADER.into(),
                claims(&format!(r#""sub":{deep},{audience},{issuer}"#)),
                Some("the claims are not acceptable JSON"),
            ),
            (
                "an audience",
                HEADER.into(),
                claims(&format!(r#"{user},"aud":{deep},{issuer}"#)),
                Some("the token is for another audience"),
            ),
            (
                "an issuer",
                HEADER.into(),
                claims(&format!(r#"{user},{audience},"iss":{deep}"#)),
                Some("the token is from another issuer"),
            ),
        ];
        for (name, header, claims, refused) in cases {
            assert_eq!(read(&token(&header, &claims)).err(), refused, "{name}");
        }
    });
}

#[test]
fn hostile_tokens_are_refused() {
    let sets = document("jwks_sets.json");
    for case in cases("hostile_jwt.json", 323, &[]) {
        let id = text(&case, "id");
        let mut expected = Expectations { audience: None, issuer: None, leeway: Duration::ZERO };
        let mut set = "good";
        for (option, value) in case["config"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            match option.as_str() {
                "aud" => expected.audience = Some(value.into()),
                "iss" => expected.issuer = Some(value.into()),
                "jwks" => set = value,
                unknown => panic!("{id}: the option {unknown} is not known"),
            }
        }
        assert!(sets[set].is_object(), "{id}: there is no key set {set}");
        let keys = KeySet::parse(sets[set].to_string().as_bytes());
        let accepted = Unverified::read(text(&case, "token").as_bytes(), buffer(), &expected, NOW).is_ok_and(|token| {
            keys.as_ref()
                .ok()
                .and_then(|keys| keys.find(token.signed.key_id.as_deref()))
                .is_some_and(|key| key.verifies(token.signed.message, token.signed.signature))
        });
        match text(&case, "expect") {
            "accept" => assert!(accepted, "{id}"),
            "reject" => assert!(!accepted, "{id}"),
            // Both are correct, as long as nothing panics.
            "either" => {}
            unknown => panic!("{id}: the expectation {unknown} is not known"),
        }
    }
}

#[test]
fn clocks_are_read_with_the_leeway() {
    // A clock that jumps or stops does so between two requests, and Unix time has no leap seconds.
    let left_out = ["clock-jump-back-1h", "clock-jump-forward-1d", "clock-suspend", "clock-leap"];
    for case in cases("relative_time.json", 28, &left_out) {
        let id = text(&case, "id");
        let (now, offsets, leeway) = match case["clock"].as_str() {
            None => (NOW, case["claims_offset_s"].clone(), case["leeway_s"].as_u64().unwrap()),
            Some("30 s") => (30, json!({ "exp": 60 }), 300),
            Some("2^32 s") => (1 << 32, json!({ "exp": 60 }), 0),
            Some(unknown) => panic!("{id}: the clock {unknown} is not known"),
        };
        let mut claims = json!({ "sub": "alice" });
        for (name, offset) in offsets.as_object().unwrap() {
            claims[name] = now.checked_add_signed(offset.as_i64().unwrap()).into();
        }
        let expected = Expectations { audience: None, issuer: None, leeway: Duration::from_secs(leeway) };
        let token = token(HEADER, &claims.to_string());
        let refused = match text(&case, "expect") {
            "accept" | "works" | "no panic" => None,
            "expired" => Some("the token is expired"),
            "reject" => Some("the token is not valid yet"),
            unknown => panic!("{id}: the expectation {unknown} is not known"),
        };
        assert_eq!(Unverified::read(token.as_bytes(), buffer(), &expected, now).err(), refused, "{id}");
    }
}
