use http::HeaderValue;

use super::*;
use crate::session::{AuthMaterial, RefreshToken, Session, Verified};

const PERIOD: Duration = Duration::from_secs(30);

impl Grace {
    /// Asserts that all that is kept track of adds up, and returns how many families there are.
    #[track_caller]
    pub(crate) fn check(&self) -> usize {
        let mut bytes = 0_usize;
        for (id, family) in &self.families {
            let jwts = family.rotated.iter().filter_map(|rotated| rotated.jwt.as_ref());
            assert_eq!(family.jwt_bytes, jwts.map(|jwt| jwt.len()).sum::<usize>());
            assert!(self.deadlines.contains(&(family.deadline(self.period), *id)));
            assert!(self.evictions.contains(&family.eviction(*id)));
            assert!((1..=MAX_ROTATED).contains(&family.rotated.len()));
            for (number, rotated) in (family.first..).zip(&family.rotated) {
                let member = self.members.get(&rotated.digest);
                // Where tokens come back, another family may have had it, and expired.
                assert!(member.is_none_or(|member| member.family != *id || member.number >= number));
            }
            bytes += family.size();
        }
        let sets = [self.deadlines.len(), self.evictions.len()];
        assert_eq!((self.bytes, sets), (bytes, [self.families.len(); 2]));
        for (digest, member) in &self.members {
            let family = &self.families[&member.family];
            let rotated = family.rotated.get(member.number - family.first);
            assert_eq!(rotated.map_or(family.current, |rotated| rotated.digest), *digest);
        }
        assert!(self.bytes <= self.max_bytes);
        self.families.len()
    }
}

fn digest(number: usize) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest
}

fn refreshed(token: &str) -> Option<Arc<Refreshed>> {
    let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
    let session = Session::new(verified, AuthMaterial::new("j".repeat(700), RefreshToken::new(token)));
    let set_cookie = [HeaderValue::from_static("c"), HeaderValue::from_static("c")];
    Some(Arc::new(Refreshed::new(session, set_cookie, 1000)))
}

/// Rotates `from`, and returns how many families were evicted for it.
fn rotate(grace: &mut Grace, from: usize, to: usize, now: Instant) -> usize {
    let evicted = grace.rotate(digest(from), (digest(to), "token".into()), refreshed("token"), now).1;
    assert!(matches!(grace.deliver(&digest(to), now), Ok(None) | Err(AuthErrorKind::Unavailable)));
    evicted
}

/// Says what a token resolves to: its successor, and whether there is a session.
fn find(grace: &Grace, token: usize, now: Instant) -> Option<(Digest, bool)> {
    grace.find(&digest(token), now).map(|known| (known.current, known.refreshed.is_some()))
}

#[test]
fn under_pressure_sessions_go_before_families_and_the_oldest_first() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    let mut evicted = 0;
    for number in 0..1000 {
        evicted += rotate(&mut grace, 2 * number, 2 * number + 1, now);
        let families = grace.check();
        assert_eq!(evicted, number + 1 - families, "each that is missing was counted");
    }
    let kept: Vec<_> = (0..1000).filter(|number| find(&grace, 2 * number, now).is_some()).collect();
    assert!(kept.len() > 60, "{} families of less than 1 KiB", kept.len());
    assert!(kept.iter().copied().eq(1000 - kept.len()..1000), "the youngest");
}

#[test]
fn a_family_that_has_lost_its_session_keeps_its_successor() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 8 << 10);
    rotate(&mut grace, 1, 2, now);
    rotate(&mut grace, 3, 4, now);
    rotate(&mut grace, 5, 6, now);
    assert_eq!(find(&grace, 1, now), Some((digest(2), false)), "the oldest");
    assert_eq!(find(&grace, 5, now), Some((digest(6), true)));
    assert_eq!(find(&grace, 1, now + PERIOD), None, "it expires as others do");
}

#[test]
fn an_expired_family_that_makes_room_is_no_eviction() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    let rotations = |grace: &mut Grace, offset: usize, now| -> usize {
        (offset..offset + 60).map(|number| rotate(grace, 2 * number, 2 * number + 1, now)).sum()
    };
    assert_eq!(rotations(&mut grace, 0, now), 0);
    assert_eq!(rotations(&mut grace, 1000, now + PERIOD), 0);
}

#[test]
fn delivered_successors_are_evicted_before_the_only_copies() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    grace.rotate(digest(1), (digest(2), "token".into()), None, now);
    for number in 10..1000 {
        rotate(&mut grace, 2 * number, 2 * number + 1, now);
    }
    assert_eq!(find(&grace, 1, now), Some((digest(2), false)));
    grace.check();
}

#[test]
fn a_family_has_a_bounded_number_of_rotated_tokens() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 16 << 20);
    for number in 0..2 * MAX_ROTATED {
        rotate(&mut grace, number, number + 1, now);
    }
    assert_eq!((grace.check(), grace.members.len()), (1, MAX_ROTATED + 1));
    assert_eq!(find(&grace, 2 * MAX_ROTATED - 1, now), Some((digest(2 * MAX_ROTATED), true)));
}

#[test]
fn a_backlog_of_expired_families_is_cleared_in_steps() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 1 << 20);
    for number in 0..100 {
        rotate(&mut grace, 2 * number, 2 * number + 1, now);
    }
    let later = now + PERIOD;
    assert!((0..100).all(|number| find(&grace, 2 * number, later).is_none()), "they are no longer known");
    for left in [84, 68, 52, 36, 20, 4, 0] {
        grace.sweep(later);
        assert_eq!(grace.check(), left);
    }
    assert!(grace.members.is_empty() && grace.bytes == 0);
}

#[test]
fn a_family_of_any_length_takes_one_look_up() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 1 << 20);
    for number in 0..300 {
        rotate(&mut grace, number, number + 1, now);
    }
    assert_eq!(grace.check(), 1);
    assert!((0..300).all(|number| find(&grace, number, now) == Some((digest(300), true))));
    assert_eq!(find(&grace, 300, now), Some((digest(300), false)), "the current token has replaced nothing");
    let (current, _, jwts) = grace.revoke(&digest(7), now + PERIOD, now).unwrap();
    assert_eq!((current, jwts.len()), (digest(300), 300));
    assert!(grace.find(&digest(299), now).unwrap().is_revoked);
    grace.sweep(now + PERIOD);
    assert_eq!(grace.check(), 0);
}

#[test]
fn a_hold_does_not_revive_expired_tokens() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    let (id, _) = grace.rotate(digest(1), (digest(2), "token".into()), refreshed("token"), now);
    assert!(grace.deliver(&digest(2), now).is_ok());
    // Not swept yet, as in a backlog.
    assert!(grace.hold(id, now + PERIOD).is_none());
    assert_eq!(find(&grace, 1, now + PERIOD), None);
}

#[test]
fn a_revoked_family_that_makes_room_is_no_eviction() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    for number in 0..40 {
        rotate(&mut grace, 2 * number, 2 * number + 1, now);
        assert!(grace.revoke(&digest(2 * number), now + PERIOD, now).is_some());
    }
    let evicted: usize = (100..160).map(|number| rotate(&mut grace, 2 * number, 2 * number + 1, now)).sum();
    assert_eq!(evicted, 0);
    assert!(grace.check() < 100, "there was no room for all");
}

#[test]
fn a_token_that_came_back_outlives_its_first_rotation() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    rotate(&mut grace, 1, 2, now);
    let later = now + PERIOD / 2;
    let (id, _) = grace.rotate(digest(2), (digest(1), "token".into()), refreshed("token"), later);
    grace.hold(id, later);
    grace.release(id, later);
    // Undelivered, so that only the first rotation is over.
    grace.sweep(now + PERIOD + PERIOD / 2);
    assert_eq!(find(&grace, 1, now + PERIOD + PERIOD / 2), Some((digest(1), false)), "it is the current one");
    grace.check();
}

#[test]
fn a_later_delivery_does_not_extend_the_periods_of_earlier_rotations() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    let (id, _) = grace.rotate(digest(1), (digest(2), "token".into()), refreshed("token"), now);
    assert!(grace.deliver(&digest(2), now).is_ok());
    grace.hold(id, now);
    let later = now + MAX_GRACE / 2;
    rotate(&mut grace, 2, 3, later);
    assert_eq!(find(&grace, 1, now + MAX_GRACE), None, "however long the family is held");
    assert!(find(&grace, 2, now + MAX_GRACE).is_some());
}

#[test]
fn the_period_starts_with_the_delivery_if_that_comes_after_the_last_release() {
    let now = Instant::now();
    let mut grace = Grace::new(PERIOD, 64 << 10);
    let (id, _) = grace.rotate(digest(1), (digest(2), "token".into()), refreshed("token"), now);
    grace.hold(id, now);
    grace.release(id, now);
    let later = now + 10 * PERIOD;
    assert!(grace.deliver(&digest(2), later).is_ok());
    assert!(find(&grace, 1, later + PERIOD / 2).is_some());
    assert_eq!(find(&grace, 1, later + PERIOD), None);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_other_replicas_have_rotated_join_the_family_of_their_successor() {
    let (mut grace, now) = (Grace::new(PERIOD, 1 << 20), Instant::now());
    // The first token came here again after the third one was issued, and so does the second.
    rotate(&mut grace, 1, 3, now);
    rotate(&mut grace, 2, 3, now);
    assert_eq!(grace.check(), 1);
    rotate(&mut grace, 3, 4, now);
    for token in 1..=3 {
        assert_eq!(find(&grace, token, now), Some((digest(4), true)), "{token}");
    }
    assert!(grace.revoke(&digest(1), now + PERIOD, now).is_some());
    rotate(&mut grace, 5, 4, now);
    assert!(grace.find(&digest(2), now).is_some_and(|known| known.is_revoked), "no family of its own brings it back");
    grace.check();
}
