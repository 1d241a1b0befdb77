//! What a store can do.

use std::{error::Error, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    record::{Chain, Claim, Claimed, Fence, Finished, Id, LOG, LogPosition, Outcome, Previous, Sealed},
    watches::Watch,
};
use crate::session::RevokedJwt;

/// A store, as the refreshes of one project see it. Every operation may be repeated after a failure.
pub(crate) trait Store: Send + Sync {
    /// Reads the record of a token, and follows its successors. Writes nothing.
    fn look(&self, id: Id) -> Reply<'_, Chain>;

    /// Claims the right to send a token, unless its record says otherwise.
    ///
    /// A record that is [absent](Tail::Absent) is claimed, and one that is [stalled](Tail::Stalled) is taken over.
    fn claim(&self, id: Id, claim: Claim) -> Reply<'_, Claimed>;

    /// Records what has become of a token.
    ///
    /// An answer is recorded whoever holds the claim; a failure only for the claim of this fence. Neither is recorded
    /// after a logout.
    fn finish(&self, id: Id, fence: Fence, outcome: Outcome) -> Reply<'_, Finished>;

    /// Records a logout: ends a token, or marks its claim so that it ends with the claim.
    fn end(&self, id: Id, tombstone: Sealed, time_to_live: Duration) -> Reply<'_, Previous>;

    /// Lets the record of a rotated token expire earlier, because its successor has been delivered.
    fn delivered(&self, id: Id, time_to_live: Duration) -> Reply<'_, ()>;

    /// Appends revoked JWTs to the log.
    fn revoke(&self, revoked: Vec<RevokedJwt>) -> Reply<'_, ()>;

    /// Reads what has been appended to the log since `position`, the oldest first, at most [`LOG_PAGE`] entries.
    ///
    /// The position `None` is the start of the log, and the entry `None` one that is not understood.
    fn revoked_since(&self, position: Option<LogPosition>) -> Reply<'_, Vec<(LogPosition, Option<RevokedJwt>)>>;

    /// Watches a record for changes. Changes that a failed connection has hidden are not seen.
    fn watch(&self, id: Id) -> Watch;

    /// Watches the log for additions.
    fn watch_log(&self) -> Watch {
        // No token has this ID.
        self.watch(LOG)
    }

    /// Returns whether watches are woken by the server, so that polling can be slow.
    fn pushes(&self) -> bool;

    /// Connects, unless there is a connection.
    fn connect(&self) -> Reply<'_, ()>;
}

/// What an operation returns.
pub(crate) type Reply<'a, T> = BoxFuture<'a, Result<T, Unreachable>>;

/// The store did not answer, or not in a way that can be understood.
#[derive(Debug)]
pub(crate) struct Unreachable(pub(crate) Box<dyn Error + Send + Sync>);
