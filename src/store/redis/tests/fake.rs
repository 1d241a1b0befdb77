//! A server that answers what a test says.

use std::{
    io::{Read as _, Write as _},
    mem,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::store::{redis::RedisStore, test_server::options};

/// Answers each request with what a function returns, or closes the connection.
pub(super) struct Fake {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    attempts: Arc<AtomicUsize>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
    flooded: Arc<AtomicUsize>,
}

type Answer = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

impl Fake {
    pub(super) fn start(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Arc::new(answer)));
        let fake = Self { port, answer, attempts: Arc::default(), clients: Arc::default(), flooded: Arc::default() };
        let (answer, attempts, clients) = (fake.answer.clone(), fake.attempts.clone(), fake.clients.clone());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                attempts.fetch_add(1, Ordering::SeqCst);
                clients.lock().expect("no panic").push(stream.try_clone().expect("a stream"));
                let answer = Arc::clone(&answer);
                thread::spawn(move || {
                    let mut request = vec![0; 64 << 10];
                    while let Ok(length @ 1..) = stream.read(&mut request) {
                        let answer = Arc::clone(&answer.lock().expect("no panic"));
                        let Some(reply) = answer(&request[..length]) else { break };
                        if stream.write_all(&reply).is_err() {
                            break;
                        }
                    }
                    // There is a second handle.
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        fake
    }

    pub(super) fn answer(&self, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) {
        *self.answer.lock().expect("no panic") = Arc::new(answer);
    }

    /// Sends a value and then others, on every connection until it is closed.
    pub(super) fn flood(&self, start: &'static [u8], others: &'static [u8]) {
        let mut streams = mem::take(&mut *self.clients.lock().expect("no panic"));
        let others = others.repeat((64 << 10) / others.len());
        self.flooded.fetch_add(streams.len(), Ordering::SeqCst);
        let flooded = Arc::clone(&self.flooded);
        thread::spawn(move || {
            let mut next = start;
            while !streams.is_empty() {
                streams.retain_mut(|stream| {
                    let is_open = stream.write_all(next).is_ok();
                    flooded.fetch_sub(usize::from(!is_open), Ordering::SeqCst);
                    is_open
                });
                next = &others;
            }
        });
    }

    /// Returns how many connections are being flooded.
    pub(super) fn flooded(&self) -> usize {
        self.flooded.load(Ordering::SeqCst)
    }

    pub(super) fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn store(&self) -> RedisStore {
        RedisStore::new(&options(&self.url()), "test")
    }
}

/// Logs clients in that speak the older protocol.
pub(super) fn log_in(request: &[u8]) -> Option<Vec<u8>> {
    if contains(request, b"HELLO") {
        return Some(b"-ERR unknown command `HELLO`\r\n".to_vec());
    }
    contains(request, b"PING").then(|| b"+PONG\r\n".to_vec())
}

/// Logs clients in that speak the newer protocol.
pub(super) fn log_in_with_pushes(request: &[u8]) -> Option<Vec<u8>> {
    if contains(request, b"HELLO") {
        return Some(b"%0\r\n".to_vec());
    }
    contains(request, b"SUBSCRIBE").then(|| b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".to_vec())
}

/// A server without records.
pub(super) fn honest(request: &[u8]) -> Option<Vec<u8>> {
    log_in(request).or_else(|| Some(b"*4\r\n$6\r\nabsent\r\n$0\r\n\r\n:0\r\n*0\r\n".to_vec()))
}

fn contains(request: &[u8], word: &[u8]) -> bool {
    request.windows(word.len()).any(|window| window == word)
}
