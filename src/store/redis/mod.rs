//! A store in Redis or Valkey.
//!
//! 1. A record is a hash; [`scripts`] read and change it in one step, by the server's clock.
//! 2. The log is a stream, and every change is published on one channel.
//! 3. [`reply`] checks what comes back.
//! 4. [`keeper`] decides which commands are sent and which fail at once; [`connection`] is one connection.

mod cause;
mod connection;
mod keeper;
mod reply;
mod scripts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;

use self::keeper::Keeper;
use super::{
    interface::{Reply, Store},
    record::{
        Chain, Claim, Claimed, Fence, Finished, Id, LOG, LOG_PAGE, LogPosition, MEMORY_OF_CLAIMS, Outcome, Previous,
        Sealed,
    },
    watches::{Watch, Watches},
};
use crate::{config::RedisRenewals, session::RevokedJwt};

/// The server, and the names of one project's keys in it.
pub(crate) struct RedisStore {
    keeper: Keeper,
    /// `{prefix:context}:`, the start of every key.
    key_prefix: String,
    channel: String,
    watches: Watches,
}

impl RedisStore {
    /// `context` identifies the project and its environment in the names of keys. Connects with the first operation.
    pub(crate) fn new(options: &RedisRenewals, context: &str) -> Self {
        let key_prefix = format!("{{{}:{context}}}:", options.prefix);
        let channel = format!("{key_prefix}events");
        let watches = Watches::default();
        let keeper = Keeper::new(options.endpoint.clone(), options.time_limit, channel.clone(), watches.clone());
        Self { keeper, key_prefix, channel, watches }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.key_prefix)
    }
}

impl Store for RedisStore {
    fn look(&self, id: Id) -> Reply<'_, Chain> {
        async move {
            let key = self.key(&name_of(&id));
            let reply = scripts::LOOK.run(&self.keeper, &key, &[self.key_prefix.as_bytes()]).await?;
            reply::chain(reply)
        }
        .boxed()
    }

    fn claim(&self, id: Id, claim: Claim) -> Reply<'_, Claimed> {
        async move {
            let key = self.key(&name_of(&id));
            let (lease, memory) = (milliseconds(claim.lease), milliseconds(MEMORY_OF_CLAIMS));
            let arguments: [&[u8]; 5] =
                [self.key_prefix.as_bytes(), &claim.fence, &claim.proof, lease.as_bytes(), memory.as_bytes()];
            reply::claimed(scripts::CLAIM.run(&self.keeper, &key, &arguments).await?)
        }
        .boxed()
    }

    fn finish(&self, id: Id, fence: Fence, outcome: Outcome) -> Reply<'_, Finished> {
        async move {
            let name = name_of(&id);
            let (state, value, next, time_to_live) = match outcome {
                Outcome::Done { answer, next, time_to_live } => ("d", answer, name_of(&next), time_to_live),
                Outcome::Refused { refusal, time_to_live } => ("r", refusal, String::new(), time_to_live),
                Outcome::Failed { failure, time_to_live } => ("f", failure, String::new(), time_to_live),
                Outcome::Released => ("released", Sealed::new(), String::new(), Duration::ZERO),
            };
            let life = milliseconds(time_to_live);
            let arguments: [&[u8]; 8] = [
                self.key_prefix.as_bytes(),
                self.channel.as_bytes(),
                name.as_bytes(),
                &fence,
                state.as_bytes(),
                &value,
                next.as_bytes(),
                life.as_bytes(),
            ];
            reply::finished(scripts::FINISH.run(&self.keeper, &self.key(&name), &arguments).await?)
        }
        .boxed()
    }

    fn end(&self, id: Id, tombstone: Sealed, time_to_live: Duration) -> Reply<'_, Previous> {
        async move {
            let (name, life) = (name_of(&id), milliseconds(time_to_live));
            let arguments: [&[u8]; 5] =
                [self.key_prefix.as_bytes(), self.channel.as_bytes(), name.as_bytes(), &tombstone, life.as_bytes()];
            reply::previous(scripts::END.run(&self.keeper, &self.key(&name), &arguments).await?)
        }
        .boxed()
    }

    fn delivered(&self, id: Id, time_to_live: Duration) -> Reply<'_, ()> {
        async move {
            let (key, life) = (self.key(&name_of(&id)), milliseconds(time_to_live));
            let arguments = [self.key_prefix.as_bytes(), life.as_bytes()];
            reply::recorded(scripts::DELIVERED.run(&self.keeper, &key, &arguments).await?)
        }
        .boxed()
    }

    fn revoke(&self, revoked: Vec<RevokedJwt>) -> Reply<'_, ()> {
        async move {
            if revoked.is_empty() {
                return Ok(());
            }
            let (name, length, life) = (name_of(&LOG), LOG_LENGTH.to_string(), milliseconds(LOG_LIFE));
            let entries: Vec<_> = revoked.iter().map(|jwt| (jwt.digest, jwt.expires_at.to_string())).collect();
            let mut arguments: Vec<&[u8]> = vec![
                self.key_prefix.as_bytes(),
                self.channel.as_bytes(),
                name.as_bytes(),
                length.as_bytes(),
                life.as_bytes(),
            ];
            arguments.extend(entries.iter().flat_map(|(digest, expires_at)| [&digest[..], expires_at.as_bytes()]));
            reply::recorded(scripts::REVOKE.run(&self.keeper, &self.key(LOG_KEY), &arguments).await?)
        }
        .boxed()
    }

    fn revoked_since(&self, position: Option<LogPosition>) -> Reply<'_, Vec<(LogPosition, Option<RevokedJwt>)>> {
        async move {
            let start = position.as_ref().map(reply::behind).transpose()?.unwrap_or_else(|| "-".to_owned());
            let mut command = redis::cmd("XRANGE");
            command.arg(self.key(LOG_KEY)).arg(start).arg("+").arg("COUNT").arg(LOG_PAGE);
            reply::log_page(self.keeper.query(&command).await?)
        }
        .boxed()
    }

    fn watch(&self, id: Id) -> Watch {
        self.watches.watch(id)
    }

    fn pushes(&self) -> bool {
        self.keeper.pushes()
    }

    fn connect(&self) -> Reply<'_, ()> {
        self.keeper.connect().boxed()
    }
}

/// Returns a record's name in keys and in events.
fn name_of(id: &Id) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

/// At least one: the server deletes what is to live for no time, and `HSET` has no undo.
fn milliseconds(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}

/// Not the length of a record's name.
const LOG_KEY: &str = "revoked";
const LOG_LENGTH: u32 = 65_536;
/// How long JWTs live at most, with a wide margin.
const LOG_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
