use super::*;
use crate::config::{ApiKey, CrossmintAuthConfig, Environment};

const TOKEN: &str = "a refresh token of 32 bytes or more";
const KINDS: [Kind; 5] = [Kind::Answer, Kind::Claim, Kind::Failure, Kind::Refusal, Kind::Tombstone];
const LEASE: Duration = Duration::from_secs(17);

#[test]
fn an_answer_comes_back_as_it_was() {
    let seal = seal(TOKEN);
    let opened = seal.open_answer(&seal.seal_answer(&answer(700)).unwrap()).unwrap();
    assert_eq!((opened.jwt.as_deref(), &*opened.secret), (Some("j".repeat(700).as_str()), "successor"));
    assert_eq!(opened.expires_at.as_deref(), Some("2030-01-01T00:00:00.000Z"));
}

#[test]
fn notes_and_failures_come_back_as_they_were() {
    let seal = seal(TOKEN);
    for kind in KINDS {
        for text in ["", "text", "with spaces "] {
            let note = seal.seal_note(kind, text).unwrap();
            assert_eq!(seal.open_note(kind, &note).as_deref(), Some(text));
        }
    }
    for kind in AuthErrorKind::ALL.iter().copied() {
        let sealed = seal.seal_failure(&AuthError::of(kind)).unwrap();
        let opened = seal.open_failure(&sealed, Duration::from_secs(7));
        let is_shared =
            matches!(kind, AuthErrorKind::Unavailable | AuthErrorKind::RateLimited | AuthErrorKind::UnusableAnswer);
        assert_eq!(opened.as_ref().map(AuthError::kind), is_shared.then_some(kind));
        assert!(opened.is_none_or(|error| error.retry_after() == Duration::from_secs(7)), "{kind:?}");
    }
}

#[test]
fn no_kind_passes_for_another() {
    let seal = seal(TOKEN);
    for (number, kind) in KINDS.into_iter().enumerate() {
        let sealed = seal.seal(kind, b"0 ".to_vec()).unwrap();
        for (other_number, other) in KINDS.into_iter().enumerate() {
            assert_eq!(seal.open(other, &sealed).is_some(), number == other_number, "{number} as {other_number}");
        }
    }
}

#[test]
fn other_tokens_and_other_contexts_have_other_records_and_keys() {
    let pepper = || Some("a pepper of 16 bytes".into());
    let contexts = [
        ("the same", seals("project", Environment::Production, API, None)),
        ("a pepper", seals("project", Environment::Production, API, pepper())),
        ("another project", seals("another", Environment::Production, API, None)),
        ("another environment", seals("project", Environment::Staging, API, None)),
        ("another API", seals("project", Environment::Production, "https://other.example", None)),
    ];
    let mut all: Vec<_> = contexts.iter().map(|(name, seals)| (*name, seals.seal_of(&TOKEN.into()).unwrap())).collect();
    all.push(("another token", contexts[0].1.seal_of(&format!("{TOKEN}.").as_str().into()).unwrap()));
    // The boundary between the token and the pepper counts.
    let (token, rest) = TOKEN.split_at(MIN_TOKEN);
    let moved = seals("project", Environment::Production, API, Some(rest.into()));
    all.push(("a token with the rest as a pepper", moved.seal_of(&token.into()).unwrap()));
    for (number, (name, seal)) in all.iter().enumerate() {
        let sealed = KINDS.map(|kind| seal.seal(kind, b"0 ".to_vec()).unwrap());
        for (other_number, (other_name, other)) in all.iter().enumerate() {
            let is_same = number == other_number;
            assert_eq!(seal.id == other.id, is_same, "{name}, {other_name}");
            for (kind, sealed) in KINDS.into_iter().zip(&sealed) {
                assert_eq!(other.open(kind, sealed).is_some(), is_same, "{name}, {other_name}");
            }
        }
    }
}

#[test]
fn a_record_under_another_name_is_refused() {
    let one = seal(TOKEN);
    let sealed = one.seal_note(Kind::Tombstone, "").unwrap();
    let moved = Seal { id: [7; 32], ..one };
    assert!(moved.open_note(Kind::Tombstone, &sealed).is_none());
}

#[test]
fn a_value_that_was_cut_off_or_changed_is_refused() {
    let seal = seal(TOKEN);
    let sealed = seal.seal_answer(&answer(10)).unwrap();
    for length in 0..sealed.len() {
        assert!(seal.open_answer(&sealed[..length]).is_none(), "{length} bytes");
    }
    assert!(seal.open_answer(&[&*sealed, b"x"].concat()).is_none());
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(seal.open_answer(&changed).is_none(), "bit {bit}");
    }
    for junk in [vec![], vec![0; OVERHEAD - 1], vec![0; OVERHEAD], vec![u8::MAX; 4096]] {
        for kind in KINDS {
            assert!(seal.open_note(kind, &junk).is_none());
        }
    }
}

#[test]
fn the_size_of_an_answer_is_a_multiple_of_the_padding() {
    let seal = seal(TOKEN);
    for length in (0..1500).step_by(37) {
        let answer = answer(length);
        let padded = seal.seal_answer(&answer).unwrap().len() - OVERHEAD;
        assert_eq!(padded % PADDING, 0, "{length}");
        assert!((answer.body.len()..answer.body.len() + PADDING).contains(&padded), "{length}");
    }
}

#[test]
fn one_text_is_never_sealed_in_the_same_way() {
    let seal = seal(TOKEN);
    let [one, other] = [(); 2].map(|()| seal.seal_note(Kind::Refusal, "").unwrap());
    assert_ne!(one, other);
}

#[test]
fn a_short_token_has_no_seal() {
    let seals = seals("project", Environment::Production, API, None);
    for (length, has_seal) in [(0, false), (6, false), (MIN_TOKEN - 1, false), (MIN_TOKEN, true), (4096, true)] {
        assert_eq!(seals.seal_of(&"1".repeat(length).into()).is_some(), has_seal, "{length}");
    }
}

#[test]
fn old_notes_are_refused_except_tombstones() {
    let seal = seal(TOKEN);
    let now = clock::unix_seconds();
    let max = (LEASE + MAX_CLOCK_SKEW).as_secs();
    // The second may change meanwhile.
    for (age, is_recent) in [(0, true), (max - 2, true), (max + 2, false), (now, false)] {
        for kind in KINDS {
            for made_at in [now - age, now + age] {
                let note = seal.seal(kind, format!("{made_at} text").into_bytes()).unwrap();
                let is_good = is_recent || kind == Kind::Tombstone;
                assert_eq!(seal.open_note(kind, &note).as_deref(), is_good.then_some("text"), "{age} s");
            }
        }
    }
    for text in ["", "text", "-1 text", "1.5 text", "99999999999999999999 text"] {
        let note = seal.seal(Kind::Claim, text.into()).unwrap();
        assert!(seal.open_note(Kind::Claim, &note).is_none(), "{text}");
    }
}

#[test]
fn a_note_of_bytes_that_are_no_text_is_refused() {
    let seal = seal(TOKEN);
    let note = seal.seal(Kind::Refusal, vec![b'0', b' ', 0xff]).unwrap();
    assert!(seal.open_note(Kind::Refusal, &note).is_none());
}

fn seal(token: &str) -> Seal {
    seals("project", Environment::Production, API, None).seal_of(&token.into()).unwrap()
}

fn seals(project: &str, environment: Environment, base_url: &str, pepper: Option<Secret>) -> Seals {
    let key = ApiKey::unverified(project, environment);
    let config = CrossmintAuthConfig::builder(key).base_url(base_url).build().unwrap();
    Seals::new(&config.checked().settings, pepper, LEASE).0
}

fn answer(jwt_length: usize) -> RefreshAnswer {
    let jwt = "j".repeat(jwt_length);
    let refresh = r#"{"secret":"successor","expiresAt":"2030-01-01T00:00:00.000Z"}"#;
    RefreshAnswer::parse(format!(r#"{{"jwt":"{jwt}","refresh":{refresh}}}"#).into_bytes()).unwrap()
}

const API: &str = "https://crossmint.example";
