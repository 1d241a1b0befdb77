//! Somebody who can write anything to the store.

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;

use super::forgery::{Forgery, Value};

pub(super) type Record = BTreeMap<String, Vec<u8>>;

/// A connection with every permission.
pub(super) struct Writer(pub(super) MultiplexedConnection);

impl Writer {
    /// Returns the key of the record that appears meanwhile.
    pub(super) async fn key_of<T>(&mut self, change: impl Future<Output = T>) -> (T, String) {
        let before = self.keys("hash").await;
        let outcome = change.await;
        let after = self.keys("hash").await;
        let new: Vec<_> = after.difference(&before).collect();
        assert_eq!(new.len(), 1, "{new:?}");
        (outcome, new[0].clone())
    }

    pub(super) async fn keys(&mut self, kind: &str) -> BTreeSet<String> {
        let (_, keys): (String, _) =
            self.run(redis::cmd("SCAN").arg(0).arg("COUNT").arg(100_000).arg("TYPE").arg(kind)).await;
        keys
    }

    /// Returns how many scripts the server has run.
    pub(super) async fn scripts(&mut self) -> u64 {
        let counts: String = self.run(redis::cmd("INFO").arg("commandstats")).await;
        let calls = counts
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_eval")?.split_once("calls=")?.1.split(',').next());
        calls.map(|calls| calls.parse::<u64>().unwrap()).sum()
    }

    pub(super) async fn read(&mut self, key: &str) -> Record {
        self.run(redis::cmd("HGETALL").arg(key)).await
    }

    pub(super) async fn write(&mut self, key: &str, record: &Record) {
        let fields: Vec<_> = record.iter().map(|(field, value)| (field.as_bytes(), &**value)).collect();
        self.delete(key).await;
        self.run::<()>(redis::cmd("HSET").arg(key).arg(fields)).await;
        self.run(redis::cmd("PEXPIRE").arg(key).arg(3_600_000)).await
    }

    pub(super) async fn forge(&mut self, key: &str, forgery: &Forgery, genuine: &Record) {
        if forgery.fields.is_empty() {
            return self.run(redis::cmd("SET").arg(key).arg("no hash")).await;
        }
        let sealed = &genuine["v"];
        let fields = forgery.fields.iter().map(|(field, value)| {
            let value = match value {
                Value::Bytes(bytes) => bytes.clone(),
                Value::Genuine => sealed.clone(),
                Value::Half => sealed[..sealed.len() / 2].to_vec(),
                Value::Itself => name_of(key).into(),
            };
            ((*field).to_owned(), value)
        });
        self.write(key, &fields.collect()).await;
    }

    pub(super) async fn delete(&mut self, key: &str) {
        self.run(redis::cmd("DEL").arg(key)).await
    }

    pub(super) async fn run<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> T {
        command.query_async(&mut self.0).await.unwrap()
    }
}

/// Returns the part of a key that differs from one token to another.
pub(super) fn name_of(key: &str) -> &str {
    key.rsplit(':').next().unwrap()
}
