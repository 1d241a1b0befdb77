//! The listening socket, which can stop accepting connections and keep its port.

use std::{
    future::poll_fn,
    io, mem,
    net::{self, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    /// Wakes the accepting task when another listener has replaced the one that it polled.
    acceptor: Option<Waker>,
}

#[derive(Debug)]
enum Socket {
    Listening(TcpListener),
    /// Bound, which reserves the port, but not listening, so that connections are refused.
    Refusing(TcpSocket),
    /// Listening with a full accept queue: the kernel drops every further attempt to connect.
    #[expect(dead_code, reason = "the sockets only have to stay open")]
    Unreachable(TcpListener, net::TcpStream),
    /// The transition between two states: the port cannot be bound twice.
    Closed,
}

impl Listener {
    pub(crate) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State { socket: Socket::Listening(listener), acceptor: None };
        Ok(Self { address, state: Mutex::new(state) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        poll_fn(|cx| {
            let mut state = self.lock();
            state.acceptor = Some(cx.waker().clone());
            match &state.socket {
                Socket::Listening(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| stream),
                Socket::Refusing(_) | Socket::Unreachable(..) | Socket::Closed => Poll::Pending,
            }
        })
        .await
    }

    pub(crate) fn set_refusing(&self, refusing: bool) -> io::Result<()> {
        let mut state = self.lock();
        match (&state.socket, refusing) {
            (Socket::Refusing(_), true) => {}
            (_, true) => {
                state.socket = Socket::Closed;
                state.socket = Socket::Refusing(self.bound()?);
            }
            (Socket::Refusing(_), false) => self.reopen(&mut state)?,
            (_, false) => {}
        }
        Ok(())
    }

    pub(crate) fn set_unreachable(&self, unreachable: bool) -> io::Result<()> {
        let mut state = self.lock();
        match (&state.socket, unreachable) {
            (Socket::Unreachable(..), true) => {}
            (_, true) => {
                state.socket = Socket::Closed;
                // Linux queues one connection more than the backlog.
                let listener = self.bound()?.listen(0)?;
                let queued = net::TcpStream::connect(self.address)?;
                state.socket = Socket::Unreachable(listener, queued);
            }
            (Socket::Unreachable(..), false) => self.reopen(&mut state)?,
            (_, false) => {}
        }
        Ok(())
    }

    fn reopen(&self, state: &mut State) -> io::Result<()> {
        let socket = match mem::replace(&mut state.socket, Socket::Closed) {
            Socket::Refusing(reserved) => reserved,
            closed => {
                drop(closed);
                self.bound()?
            }
        };
        state.socket = Socket::Listening(socket.listen(BACKLOG)?);
        if let Some(acceptor) = state.acceptor.take() {
            acceptor.wake();
        }
        Ok(())
    }

    fn bound(&self) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        // Closed connections in TIME_WAIT would otherwise block the port for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        Ok(socket)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BACKLOG: u32 = 1024;
