//! The accepted connections, and how each of them ends.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWrite as _,
    net::TcpStream,
    sync::{Notify, watch},
};

/// All connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    state: Mutex<State>,
    counts: Arc<watch::Sender<Counts>>,
}

#[derive(Debug, Default)]
struct State {
    is_down: bool,
    is_silent: bool,
    open: Vec<Weak<Connection>>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: usize,
    open: usize,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// TCP FIN.
    Close,
    /// TCP RST.
    Reset,
}

impl Connections {
    pub(crate) fn accepted(&self) -> usize {
        self.counts.borrow().accepted
    }

    pub(crate) async fn connected(&self, count: usize) {
        self.reached(|counts| counts.accepted >= count).await;
    }

    pub(crate) async fn disconnected(&self) {
        self.reached(|counts| counts.open == 0).await;
    }

    pub(crate) fn set_down(&self, down: bool) {
        let mut state = self.state();
        state.is_down = down;
        if down {
            state.end_all(Ending::Reset);
        }
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        let mut state = self.state();
        state.is_silent = silent;
        if silent {
            state.end_all(Ending::Close);
        }
    }

    pub(crate) fn end_all(&self, ending: Ending) {
        self.state().end_all(ending);
    }

    /// Registers an accepted connection.
    pub(crate) fn register(&self, stream: TcpStream) -> Registered {
        let mut state = self.state();
        let connection = Arc::new(Connection { is_silent: state.is_silent, ..Connection::default() });
        if state.is_down {
            connection.end(Ending::Reset);
        }
        state.open.retain(|connection| connection.strong_count() > 0);
        state.open.push(Arc::downgrade(&connection));
        let counted = Counted::new(Arc::clone(&self.counts));
        Registered { socket: Socket { io: Some(TokioIo::new(stream)), connection }, counted }
    }

    async fn reached(&self, condition: impl Fn(&Counts) -> bool) {
        // Fails only once the sender is dropped, and `self` owns it.
        let _ = self.counts.subscribe().wait_for(condition).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_all(&mut self, ending: Ending) {
        for connection in self.open.drain(..).filter_map(|connection| connection.upgrade()) {
            connection.end(ending);
        }
    }
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    socket: Socket,
    counted: Counted,
}

impl Registered {
    /// Runs a protocol on the connection until it completes or the connection is ended, and closes the socket.
    pub(crate) async fn serve<F: Future>(self, protocol: impl FnOnce(Socket, Arc<Connection>) -> F) {
        let Self { socket, counted } = self;
        let connection = Arc::clone(&socket.connection);
        if connection.ending.get().is_some() {
            return;
        }
        {
            let mut conversation = pin!(async {
                if connection.is_silent {
                    socket.discard().await;
                } else {
                    protocol(socket, Arc::clone(&connection)).await;
                }
            });
            let mut ended = pin!(connection.ended.notified());
            // Polls the protocol first: it writes its buffered output before the connection ends.
            poll_fn(|cx| match conversation.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => ended.as_mut().poll(cx),
            })
            .await;
        }
        let lingering = connection.lingering().take();
        if let Some(stream) = lingering {
            close(stream).await;
        }
        // Only now is the socket closed.
        drop(counted);
    }
}

/// Ends a connection from outside the task that serves it.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    is_silent: bool,
    ending: OnceLock<Ending>,
    ended: Notify,
    /// The stream of a socket that was dropped after [`Ending::Close`], which remains to be closed.
    lingering: Mutex<Option<TcpStream>>,
}

impl Connection {
    /// Ends the connection; the first call determines how.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.get_or_init(|| ending);
        self.ended.notify_one();
    }

    fn lingering(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that, when dropped, is reset or closed as its connection's [`Ending`] requires.
#[derive(Debug)]
pub(crate) struct Socket {
    /// `None` only during the drop.
    io: Option<TokioIo<TcpStream>>,
    connection: Arc<Connection>,
}

impl Socket {
    fn io(&mut self) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(self.io.as_mut().expect("a socket has its stream until it is dropped"))
    }

    async fn discard(self) {
        if let Some(io) = &self.io {
            discard(io.inner()).await;
        }
    }
}

impl Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(io) = self.io.take() else { return };
        match self.connection.ending.get() {
            Some(Ending::Close) => *self.connection.lingering() = Some(io.into_inner()),
            Some(Ending::Reset) => {
                // Fails only if the client has reset the connection already.
                let _ = io.inner().set_zero_linger();
            }
            None => {}
        }
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
struct Counted(Arc<watch::Sender<Counts>>);

impl Counted {
    fn new(counts: Arc<watch::Sender<Counts>>) -> Self {
        counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self(counts)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.open -= 1);
    }
}

/// Sends FIN, and waits until the client has closed its end: closing at once could reset what is still in flight.
async fn close(mut stream: TcpStream) {
    // Fails only if the client is gone.
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    discard(&stream).await;
}

/// Reads and discards input until the client closes the connection.
async fn discard(stream: &TcpStream) {
    let mut buffer = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
