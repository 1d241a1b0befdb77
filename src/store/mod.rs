//! What replicas share: one record per refresh token, and a log of revoked JWTs.
//!
//! A record is in one of the states of [`Tail`]. The store decides which replica may send a token, by its own clock. It
//! knows tokens by their [`Id`] only, and everything else in encrypted form: it can be read and written by others
//! without harm, but for delays and lost records.

mod interface;
#[cfg(test)]
mod memory;
mod record;
mod redis;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
mod watches;

pub(crate) use self::{
    interface::{Reply, Store, Unreachable},
    record::{Chain, Claim, Claimed, Fence, Finished, Id, LOG_PAGE, LogPosition, Outcome, Previous, Sealed, Tail},
    redis::RedisStore,
};
#[cfg(test)]
pub(crate) use self::{
    memory::MemoryStore,
    record::MEMORY_OF_CLAIMS,
    watches::{Watch, Watches},
};
