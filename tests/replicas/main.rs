//! Replicas that share their refreshes: real processes, a real Redis or Valkey, and whatever happens to either.
//!
//! Needs `redis-server`, or the server that `REDIS_SERVER` names. Without it, the tests report that and pass, unless
//! `REQUIRE_REDIS` is set, as `.ci/run` sets it. `FULL=1` makes the load tests large, and `MINUTES` sets how long the
//! longest of them runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod connections;
mod failures;
mod hostile;
mod load;
mod logouts;
mod outages;
mod proxy;
mod replica;
mod secrets;
mod stage;
mod store;

/// What a replica's process runs: the test executable starts itself with this test alone.
#[test]
fn replica_process() {
    replica::run_if_asked();
}
