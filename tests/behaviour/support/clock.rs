//! Time in tokio and in JWTs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Advances tokio's clock. I/O continues afterwards.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Returns the seconds since the epoch, `offset` from now.
pub(crate) fn at(offset: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() + offset
}
