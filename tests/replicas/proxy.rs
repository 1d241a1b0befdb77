//! A network between a replica and the store.

mod resp;
mod tests;

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::sleep,
};

/// What the network does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Works,
    /// Everything arrives late, in both directions.
    Slow(Duration),
    /// Nothing arrives any more, and neither end is told. A connection that was deaf once stays so.
    Deaf,
    /// Every connection, old or new, is reset.
    Resets,
    /// Every connection, old or new, is closed.
    Closes,
}

/// A proxy on loopback in front of the store, which recognizes scripts (`EVALSHA`, `EVAL`) and their replies.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

/// Half of a script's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Request,
    Reply,
}

/// Holds one direction of a connection at a script, until it is dropped.
#[must_use = "the connection goes on as soon as the hold is dropped"]
pub(crate) struct Hold(Gate);

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State { network: Network::Works, resets: 0 }),
            server: Mutex::new(server),
            connections: watch::Sender::new(0),
            scripts: Mutex::default(),
        });
        let acceptor = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(Arc::clone(&shared), client));
                }
            }
        });
        Self { port, shared, acceptor }
    }

    /// Changes the network, for open connections and for new ones.
    pub(crate) fn set(&self, network: Network) {
        self.shared.state.send_modify(|state| state.network = network);
    }

    /// Resets the open connections, with everything that is held on them.
    pub(crate) fn reset(&self) {
        self.shared.state.send_modify(|state| state.resets += 1);
    }

    /// Leads new connections to another server, and resets the open ones.
    pub(crate) fn redirect(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
        self.reset();
    }

    /// Returns how many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until as many connections were opened.
    pub(crate) async fn connected(&self, count: usize) {
        self.shared.connections.subscribe().wait_for(|connections| *connections >= count).await.unwrap();
    }

    /// Returns how many scripts were sent.
    pub(crate) fn scripts(&self) -> usize {
        lock(&self.shared.scripts).count
    }

    /// Holds a script, or the reply to it: the `number`th, from 1, for a key that this proxy has not seen before.
    pub(crate) fn hold(&self, number: usize, part: Part) -> Hold {
        let gate = Gate { reached: Arc::new(Semaphore::new(0)), opened: Arc::new(Semaphore::new(0)) };
        let plan = Plan { key: None, left: number, part, gate: gate.clone() };
        lock(&self.shared.scripts).plans.push(plan);
        Hold(gate)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.set(Network::Resets);
    }
}

impl Hold {
    /// Waits until the script, or the reply to it, is held.
    pub(crate) async fn reached(&self) {
        self.0.reached.acquire().await.unwrap().forget();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.opened.close();
    }
}

struct Shared {
    state: watch::Sender<State>,
    server: Mutex<SocketAddr>,
    connections: watch::Sender<usize>,
    scripts: Mutex<Scripts>,
}

#[derive(Clone, Copy)]
struct State {
    network: Network,
    /// How often all connections were reset.
    resets: usize,
}

#[derive(Default)]
struct Scripts {
    count: usize,
    keys: HashSet<Vec<u8>>,
    plans: Vec<Plan>,
}

/// What is to be held.
struct Plan {
    /// The key, once there was a new one.
    key: Option<Vec<u8>>,
    /// The number of scripts for it up to the one that is held.
    left: usize,
    part: Part,
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    reached: Arc<Semaphore>,
    /// Closed when the gate opens.
    opened: Arc<Semaphore>,
}

impl Gate {
    async fn pass(&self) {
        self.reached.add_permits(1);
        drop(self.opened.acquire().await);
    }
}

impl Scripts {
    /// Notes a script for a key, and returns where it is held.
    fn note(&mut self, key: &[u8]) -> Vec<(Part, Gate)> {
        self.count += 1;
        let is_new = self.keys.insert(key.to_owned());
        let is_due = |plan: &mut Plan| {
            if is_new && plan.key.is_none() {
                plan.key = Some(key.to_owned());
            }
            plan.left -= usize::from(plan.key.as_deref() == Some(key));
            plan.left == 0
        };
        self.plans.extract_if(.., is_due).map(|plan| (plan.part, plan.gate)).collect()
    }
}

async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    let mut state = shared.state.subscribe();
    let before = state.borrow().resets;
    shared.connections.send_modify(|connections| *connections += 1);
    let ended = async move {
        let is_ending =
            |state: &State| state.resets > before || matches!(state.network, Network::Resets | Network::Closes);
        // The sender is part of what this task owns.
        let state = *state.wait_for(is_ending).await.unwrap();
        state.network != Network::Closes
    };
    let address = *lock(&shared.server);
    let link = Link { shared, is_deaf: AtomicBool::new(false), pending: Mutex::default() };
    let is_reset = tokio::select! {
        biased;
        is_reset = ended => is_reset,
        is_reset = link.serve(&mut client, address) => is_reset,
    };
    if is_reset {
        // The kernel sends RST in place of FIN.
        let _ = client.set_zero_linger();
    }
}

/// A connection to the server.
struct Link {
    shared: Arc<Shared>,
    is_deaf: AtomicBool,
    /// Where the replies that are still to come are held.
    pending: Mutex<VecDeque<Vec<Gate>>>,
}

impl Link {
    /// Serves a client. Returns whether its connection is reset.
    async fn serve(&self, client: &mut TcpStream, address: SocketAddr) -> bool {
        let Ok(mut server) = TcpStream::connect(address).await else { return true };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = self.requests(from_client, to_server) => {}
            () = self.replies(from_server, to_client) => {}
        }
        false
    }

    async fn requests(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut buffer = Vec::new();
        while from.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            while let Some(length) = resp::length(&buffer) {
                let command: Vec<u8> = buffer.drain(..length).collect();
                let (mut gates, mut reply_gates) = (Vec::new(), Vec::new());
                if let Some(key) = resp::key_of_script(&command) {
                    for (part, gate) in lock(&self.shared.scripts).note(key) {
                        if part == Part::Request { &mut gates } else { &mut reply_gates }.push(gate);
                    }
                }
                for gate in gates {
                    gate.pass().await;
                }
                if !self.delivers().await {
                    continue;
                }
                if resp::has_reply(&command) {
                    lock(&self.pending).push_back(reply_gates);
                }
                if to.write_all(&command).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn replies(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut buffer = Vec::new();
        while from.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            while let Some(length) = resp::length(&buffer) {
                let value: Vec<u8> = buffer.drain(..length).collect();
                let gates = if resp::is_push(&value) { None } else { lock(&self.pending).pop_front() };
                for gate in gates.into_iter().flatten() {
                    gate.pass().await;
                }
                if self.delivers().await && to.write_all(&value).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Takes the time that the network needs, and returns whether it delivers anything.
    async fn delivers(&self) -> bool {
        let network = self.shared.state.borrow().network;
        match network {
            Network::Slow(delay) => sleep(delay).await,
            Network::Deaf => self.is_deaf.store(true, Ordering::Relaxed),
            Network::Works | Network::Resets | Network::Closes => {}
        }
        !self.is_deaf.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
