//! The network itself.

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;

use super::{Network, Part, Proxy};
use crate::store::Store;

#[tokio::test]
async fn a_proxy_holds_the_nth_script_for_a_new_key_and_its_reply() {
    let Some(store) = Store::start().await else { return };
    let proxy = Proxy::start(store.address()).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/?protocol=resp3", proxy.port)).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let count = async |key: &str| -> redis::RedisResult<i64> {
        let script = "return redis.call('INCR', KEYS[1])";
        redis::cmd("EVAL").arg(script).arg(1).arg(key).query_async(&mut connection.clone()).await
    };
    let seen = async |key: &str| store.command::<Option<i64>>(&format!("GET {key}")).await;
    count("old").await.unwrap();
    for (key, part, before) in [("a", Part::Request, 1), ("b", Part::Reply, 2)] {
        let hold = proxy.hold(2, part);
        assert_eq!((count("old").await.is_ok(), count(key).await.unwrap()), (true, 1), "{key}");
        let scene = async {
            hold.reached().await;
            assert_eq!(seen(key).await, Some(before), "{key}");
            drop(hold);
        };
        let (second, ()) = tokio::join!(count(key), scene);
        assert_eq!(second.unwrap(), 2, "{key}");
    }

    let hold = proxy.hold(1, Part::Request);
    let scene = async {
        hold.reached().await;
        proxy.reset();
    };
    let (lost, ()) = tokio::join!(count("c"), scene);
    lost.unwrap_err();
    drop(hold);
    assert_eq!((seen("c").await, proxy.scripts()), (None, 8), "what was held is lost");
}

#[tokio::test]
async fn a_proxy_closes_resets_delays_and_goes_deaf() {
    let Some(store) = Store::start().await else { return };
    let proxy = Proxy::start(store.address()).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
    let limit = Some(Duration::from_millis(300));
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(limit).set_connection_timeout(limit);
    let connect = || client.get_multiplexed_async_connection_with_config(&config);
    for network in [Network::Closes, Network::Resets, Network::Deaf] {
        let mut connection = connect().await.unwrap();
        connection.set::<_, _, ()>("key", "value").await.unwrap();
        proxy.set(network);
        connection.get::<_, String>("key").await.unwrap_err();
        assert!(connect().await.is_err(), "{network:?}");
        proxy.set(Network::Works);
        assert!(connection.get::<_, String>("key").await.is_err(), "{network:?}: an old connection");
        assert_eq!(connect().await.unwrap().get::<_, String>("key").await.unwrap(), "value", "{network:?}");
    }
    let mut connection = connect().await.unwrap();
    let connections = proxy.connections();
    proxy.set(Network::Slow(Duration::from_millis(50)));
    let asked = Instant::now();
    connection.get::<_, String>("key").await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(100), "50 ms in each direction");
    assert_eq!(proxy.connections(), connections);
}
