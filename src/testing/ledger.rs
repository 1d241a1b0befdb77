//! The refresh tokens: families, rotation, and the detection of reuse.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::keys::random_secret;

/// Every refresh token that was ever handed out, and the family that each belongs to.
#[derive(Debug)]
pub(super) struct Ledger {
    tokens: HashMap<String, Token>,
    families: Vec<Family>,
    rotation: bool,
    grace: Duration,
    secret_suffix: String,
    detections: usize,
}

/// What a redeemed token is exchanged for.
#[derive(Debug)]
pub(super) struct Redeemed {
    pub(super) user_id: String,
    pub(super) secret: String,
}

/// Why a token is not redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Revoked,
    Reused,
}

#[derive(Debug)]
struct Token {
    family: usize,
    one_time: bool,
    spent: Option<Spent>,
}

#[derive(Debug)]
struct Spent {
    at: Instant,
    child: String,
}

#[derive(Debug)]
struct Family {
    user_id: String,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    LoggingIn,
    Live,
    Revoked,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            tokens: HashMap::new(),
            families: Vec::new(),
            rotation: true,
            grace: Duration::ZERO,
            secret_suffix: String::new(),
            detections: 0,
        }
    }

    pub(super) fn set_rotation(&mut self, rotation: bool) {
        self.rotation = rotation;
    }

    pub(super) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    pub(super) fn set_secret_suffix(&mut self, suffix: String) {
        self.secret_suffix = suffix;
    }

    /// Opens a session, and hands out its first refresh token.
    pub(super) fn open(&mut self, user_id: &str) -> String {
        let family = self.found(user_id, Stage::Live);
        self.issue(family, false)
    }

    /// Hands out the one-time secret of a login whose session is not open yet.
    pub(super) fn one_time_secret(&mut self, user_id: &str) -> String {
        let family = self.found(user_id, Stage::LoggingIn);
        self.issue(family, true)
    }

    pub(super) fn redeem(&mut self, secret: &str) -> Result<Redeemed, Refusal> {
        let token = self.tokens.get(secret).ok_or(Refusal::Unknown)?;
        let family = token.family;
        if self.families[family].stage == Stage::Revoked {
            return Err(Refusal::Revoked);
        }

        let next = match &token.spent {
            None if self.rotation || token.one_time => self.rotate(family, secret),
            None => secret.to_owned(),
            Some(spent) if self.forgives(spent) => spent.child.clone(),
            Some(_) => {
                self.families[family].stage = Stage::Revoked;
                self.detections += 1;
                return Err(Refusal::Reused);
            }
        };
        self.families[family].stage = Stage::Live;
        Ok(Redeemed { user_id: self.families[family].user_id.clone(), secret: next })
    }

    /// Revokes the whole family of a token; one that was never handed out changes nothing.
    pub(super) fn revoke(&mut self, secret: &str) {
        if let Some(token) = self.tokens.get(secret) {
            self.families[token.family].stage = Stage::Revoked;
        }
    }

    pub(super) fn is_live(&self, secret: &str) -> bool {
        self.tokens
            .get(secret)
            .is_some_and(|token| token.spent.is_none() && self.families[token.family].stage != Stage::Revoked)
    }

    pub(super) fn live_sessions(&self) -> usize {
        self.families.iter().filter(|family| family.stage == Stage::Live).count()
    }

    pub(super) fn detections(&self) -> usize {
        self.detections
    }

    fn found(&mut self, user_id: &str, stage: Stage) -> usize {
        self.families.push(Family { user_id: user_id.to_owned(), stage });
        self.families.len() - 1
    }

    fn issue(&mut self, family: usize, one_time: bool) -> String {
        let secret = random_secret() + &self.secret_suffix;
        self.tokens.insert(secret.clone(), Token { family, one_time, spent: None });
        secret
    }

    fn rotate(&mut self, family: usize, secret: &str) -> String {
        let child = self.issue(family, false);
        if let Some(token) = self.tokens.get_mut(secret) {
            token.spent = Some(Spent { at: Instant::now(), child: child.clone() });
        }
        child
    }

    /// Only the direct parent of the newest token is forgiven: an older one means that two parties hold the family.
    fn forgives(&self, spent: &Spent) -> bool {
        spent.at.elapsed() < self.grace && self.tokens.get(&spent.child).is_some_and(|child| child.spent.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(grace: u64) -> Ledger {
        let mut ledger = Ledger::new();
        ledger.set_grace(Duration::from_secs(grace));
        ledger
    }

    fn redeemed(ledger: &mut Ledger, secret: &str) -> String {
        ledger.redeem(secret).expect("the token is good").secret
    }

    #[test]
    fn each_token_is_good_for_one_use() {
        let mut ledger = ledger(0);
        let first = ledger.open("alice");
        let second = redeemed(&mut ledger, &first);
        let third = redeemed(&mut ledger, &second);
        assert!(!ledger.is_live(&first) && !ledger.is_live(&second) && ledger.is_live(&third));
        assert_eq!(ledger.live_sessions(), 1);
    }

    #[test]
    fn a_second_use_revokes_the_family_and_no_other() {
        let mut ledger = ledger(0);
        let (first, other) = (ledger.open("alice"), ledger.open("alice"));
        let second = redeemed(&mut ledger, &first);
        assert_eq!(ledger.redeem(&first).unwrap_err(), Refusal::Reused);
        assert_eq!(ledger.redeem(&first).unwrap_err(), Refusal::Revoked);
        assert_eq!(ledger.redeem(&second).unwrap_err(), Refusal::Revoked);
        assert_eq!(ledger.detections(), 1);
        assert!(ledger.is_live(&other));
        assert_eq!(ledger.redeem("junk").unwrap_err(), Refusal::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn within_the_grace_a_direct_parent_gets_the_same_child() {
        let mut ledger = ledger(30);
        let first = ledger.open("alice");
        let second = redeemed(&mut ledger, &first);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(redeemed(&mut ledger, &first), second);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ledger.redeem(&first).unwrap_err(), Refusal::Reused);
        assert!(!ledger.is_live(&second));
    }

    #[test]
    fn within_the_grace_a_grandparent_is_a_reuse() {
        let mut ledger = ledger(30);
        let first = ledger.open("alice");
        let second = redeemed(&mut ledger, &first);
        let third = redeemed(&mut ledger, &second);
        assert_eq!(redeemed(&mut ledger, &second), third);
        assert_eq!(ledger.redeem(&first).unwrap_err(), Refusal::Reused);
        assert!(!ledger.is_live(&third));
    }

    #[test]
    fn without_rotation_a_token_stays_but_a_one_time_secret_does_not() {
        let mut ledger = ledger(0);
        ledger.set_rotation(false);
        let secret = ledger.one_time_secret("alice");
        assert_eq!(ledger.live_sessions(), 0);
        let token = redeemed(&mut ledger, &secret);
        assert_eq!(ledger.live_sessions(), 1);
        assert_ne!(token, secret);
        assert_eq!(redeemed(&mut ledger, &token), token);
        assert_eq!(ledger.redeem(&secret).unwrap_err(), Refusal::Reused);
    }
}
