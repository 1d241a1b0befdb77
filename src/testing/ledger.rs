//! The refresh tokens: families, rotation and reuse detection.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::keys::random_secret;

/// Every refresh token that was ever issued, and its family.
pub(crate) struct Ledger {
    tokens: HashMap<String, Token>,
    families: Vec<Family>,
    rotation: bool,
    grace: Duration,
    secret_suffix: String,
    reuse_detections: usize,
}

/// The result of exchanging a refresh token.
#[derive(Debug)]
pub(crate) struct Redeemed {
    pub(crate) user_id: String,
    pub(crate) secret: String,
}

/// Why a refresh token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedeemError {
    Unknown,
    Revoked,
    Reused,
}

impl RedeemError {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Unknown => "Refresh token is not known",
            Self::Revoked => "Refresh token has been revoked",
            Self::Reused => "Refresh token has been used",
        }
    }
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
    pub(crate) fn new() -> Self {
        Self {
            tokens: HashMap::new(),
            families: Vec::new(),
            rotation: true,
            grace: Duration::ZERO,
            secret_suffix: String::new(),
            reuse_detections: 0,
        }
    }

    pub(crate) fn set_rotation(&mut self, rotation: bool) {
        self.rotation = rotation;
    }

    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    pub(crate) fn set_secret_suffix(&mut self, suffix: String) {
        self.secret_suffix = suffix;
    }

    /// Opens a session, and issues its first refresh token.
    pub(crate) fn open(&mut self, user_id: &str) -> String {
        let family = self.add_family(user_id, Stage::Live);
        self.issue(family, false)
    }

    /// Issues the one-time secret of a login; exchanging it opens the session.
    pub(crate) fn one_time_secret(&mut self, user_id: &str) -> String {
        let family = self.add_family(user_id, Stage::LoggingIn);
        self.issue(family, true)
    }

    pub(crate) fn redeem(&mut self, secret: &str) -> Result<Redeemed, RedeemError> {
        let token = self.tokens.get(secret).ok_or(RedeemError::Unknown)?;
        let family = token.family;
        if self.families[family].stage == Stage::Revoked {
            return Err(RedeemError::Revoked);
        }

        let next = match &token.spent {
            None if self.rotation || token.one_time => self.rotate(family, secret),
            None => secret.to_owned(),
            Some(spent) if self.is_in_grace(spent) => spent.child.clone(),
            Some(_) => {
                self.families[family].stage = Stage::Revoked;
                self.reuse_detections += 1;
                return Err(RedeemError::Reused);
            }
        };
        self.families[family].stage = Stage::Live;
        Ok(Redeemed { user_id: self.families[family].user_id.clone(), secret: next })
    }

    /// Revokes the family of a token; an unknown token is ignored.
    pub(crate) fn revoke(&mut self, secret: &str) {
        if let Some(token) = self.tokens.get(secret) {
            self.families[token.family].stage = Stage::Revoked;
        }
    }

    pub(crate) fn is_live(&self, secret: &str) -> bool {
        self.tokens
            .get(secret)
            .is_some_and(|token| token.spent.is_none() && self.families[token.family].stage != Stage::Revoked)
    }

    pub(crate) fn live_sessions(&self) -> usize {
        self.families.iter().filter(|family| family.stage == Stage::Live).count()
    }

    pub(crate) fn reuse_detections(&self) -> usize {
        self.reuse_detections
    }

    fn add_family(&mut self, user_id: &str, stage: Stage) -> usize {
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

    /// The grace covers only the direct parent of the current token: an older token shows that two clients share the
    /// family.
    fn is_in_grace(&self, spent: &Spent) -> bool {
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
        ledger.redeem(secret).expect("the token is valid").secret
    }

    #[test]
    fn a_token_can_be_redeemed_once() {
        let mut ledger = ledger(0);
        let first = ledger.open("alice");
        let second = redeemed(&mut ledger, &first);
        let third = redeemed(&mut ledger, &second);
        assert!(!ledger.is_live(&first) && !ledger.is_live(&second) && ledger.is_live(&third));
        assert_eq!(ledger.live_sessions(), 1);
    }

    #[test]
    fn reuse_revokes_the_family_and_no_other() {
        let mut ledger = ledger(0);
        let (first, other) = (ledger.open("alice"), ledger.open("alice"));
        let second = redeemed(&mut ledger, &first);
        assert_eq!(ledger.redeem(&first).unwrap_err(), RedeemError::Reused);
        assert_eq!(ledger.redeem(&first).unwrap_err(), RedeemError::Revoked);
        assert_eq!(ledger.redeem(&second).unwrap_err(), RedeemError::Revoked);
        assert_eq!(ledger.reuse_detections(), 1);
        assert!(ledger.is_live(&other));
        assert_eq!(ledger.redeem("junk").unwrap_err(), RedeemError::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn within_the_grace_period_a_direct_parent_yields_the_same_child() {
        let mut ledger = ledger(30);
        let first = ledger.open("alice");
        let second = redeemed(&mut ledger, &first);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(redeemed(&mut ledger, &first), second);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ledger.redeem(&first).unwrap_err(), RedeemError::Reused);
        assert!(!ledger.is_live(&second));
    }

    #[test]
    fn within_the_grace_period_a_grandparent_is_a_reuse() {
        let mut ledger = ledger(30);
        let first = ledger.open("alice");
        let second = redeemed(&mut ledger, &first);
        let third = redeemed(&mut ledger, &second);
        assert_eq!(redeemed(&mut ledger, &second), third);
        assert_eq!(ledger.redeem(&first).unwrap_err(), RedeemError::Reused);
        assert!(!ledger.is_live(&third));
    }

    #[test]
    fn without_rotation_a_token_stays_valid_but_a_one_time_secret_does_not() {
        let mut ledger = ledger(0);
        ledger.set_rotation(false);
        let secret = ledger.one_time_secret("alice");
        assert_eq!(ledger.live_sessions(), 0);
        let token = redeemed(&mut ledger, &secret);
        assert_eq!(ledger.live_sessions(), 1);
        assert_ne!(token, secret);
        assert_eq!(redeemed(&mut ledger, &token), token);
        assert_eq!(ledger.redeem(&secret).unwrap_err(), RedeemError::Reused);
    }
}
