//! What is recorded of a refresh token, and of JWTs that were revoked.

use std::time::Duration;

/// The name of a refresh token's record. Only the token reveals it.
pub(crate) type Id = [u8; 32];

/// Identifies a claim.
pub(crate) type Fence = [u8; 16];

/// An encrypted value.
pub(crate) type Sealed = Vec<u8>;

/// The records of a token and of its successors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chain {
    /// Crossmint's answers for the token and for those of its successors that were rotated as well, in order. At most
    /// [`MAX_ANSWERS`].
    pub(crate) answers: Vec<Sealed>,
    /// The state of the token behind them.
    pub(crate) tail: Tail,
}

/// The state of a token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tail {
    /// Nothing is recorded.
    Absent,
    /// A replica is sending it.
    Claimed {
        proof: Sealed,
        /// For how long the claim holds.
        lease: Duration,
    },
    /// The claim is over, and nothing was recorded: its replica has died, or the store has lost it.
    Stalled,
    /// So is a second claim, which this is the proof of. The token must not be sent again for a while.
    Lost(Sealed),
    /// It was rotated, and the chain is longer than one reply.
    Rotated,
    /// The refresh failed, and may be repeated after this time.
    Failed(Sealed, Duration),
    /// Crossmint has refused it.
    Refused(Sealed),
    /// The session was signed out.
    Ended(Sealed),
}

/// A claim to send a token.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) fence: Fence,
    /// Shows other replicas that the claim is not made up.
    pub(crate) proof: Sealed,
    pub(crate) lease: Duration,
}

/// The result of [`Store::claim`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Claimed {
    /// The caller holds the claim.
    Granted { is_takeover: bool },
    /// The caller does not: the record, as [`Store::look`] returns it.
    Denied(Chain),
}

/// What has become of a token.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Crossmint's answer, and the record of the successor in it.
    Done {
        answer: Sealed,
        next: Id,
        time_to_live: Duration,
    },
    Refused {
        refusal: Sealed,
        time_to_live: Duration,
    },
    Failed {
        failure: Sealed,
        time_to_live: Duration,
    },
    /// It was not sent: the claim is given up.
    Released,
}

/// The result of [`Store::finish`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finished {
    Recorded,
    /// There was a logout: the outcome must not be handed out.
    Ended(Sealed),
    /// Something else is recorded already, as [`Store::look`] returns it.
    Superseded(Chain),
}

/// What was recorded of a token before it was ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Previous {
    /// Nothing that matters any more.
    Nothing,
    /// A claim that still holds, and its proof: its replica revokes the successor.
    Claimed(Sealed),
    /// A claim that is over: its replica has died.
    Stalled,
    /// The answer with its successor.
    Rotated(Sealed),
}

/// The place of an entry in the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogPosition(pub(crate) String);

/// How many answers one reply has at most.
pub(crate) const MAX_ANSWERS: usize = 16;

/// For how long the record of a claim outlives its lease.
pub(crate) const MEMORY_OF_CLAIMS: Duration = Duration::from_secs(60);

pub(crate) const LOG_PAGE: usize = 1000;

/// What the log is watched as.
pub(crate) const LOG: Id = [0; 32];
