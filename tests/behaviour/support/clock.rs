//! Time, as tokio measures it and as JWTs write it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lets time pass for everything that tokio measures. Real I/O goes on afterwards.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Seconds since the epoch, `offset` from now.
pub(crate) fn at(offset: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() + offset
}
