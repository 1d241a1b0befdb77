//! The listening socket, which can be closed without losing its port.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Where connections come in, unless they are refused or not answered at all.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    /// Who accepts: the listener that it has last asked may be gone.
    acceptor: Option<Waker>,
}

#[derive(Debug)]
enum Socket {
    Listening(TcpListener),
    /// Bound, so that nobody else gets the port; not listening, so that it refuses.
    Refusing(TcpSocket),
    /// Listening, with a full queue from which nobody takes: the kernel drops every attempt to connect.
    #[expect(dead_code, reason = "the two sockets only have to be there")]
    Unreachable(TcpListener, std::net::TcpStream),
    /// In between: the port cannot be bound twice.
    Closed,
}

impl Door {
    pub(super) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State { socket: Socket::Listening(listener), acceptor: None };
        Ok(Self { address, state: Mutex::new(state) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set_refusing(&self, refusing: bool) -> io::Result<()> {
        let mut state = self.lock();
        let is_refusing = matches!(state.socket, Socket::Refusing(_));
        match (is_refusing, refusing) {
            (false, true) => {
                state.socket = Socket::Closed;
                state.socket = Socket::Refusing(self.bound()?);
                Ok(())
            }
            (true, false) => self.reopen(&mut state),
            _ => Ok(()),
        }
    }

    pub(super) fn set_unreachable(&self, unreachable: bool) -> io::Result<()> {
        let mut state = self.lock();
        let is_unreachable = matches!(state.socket, Socket::Unreachable(..));
        match (is_unreachable, unreachable) {
            (false, true) => {
                state.socket = Socket::Closed;
                // Linux queues one connection more than it is told.
                let listener = self.bound()?.listen(0)?;
                let queued = std::net::TcpStream::connect(self.address)?;
                state.socket = Socket::Unreachable(listener, queued);
                Ok(())
            }
            (true, false) => self.reopen(&mut state),
            _ => Ok(()),
        }
    }

    fn reopen(&self, state: &mut State) -> io::Result<()> {
        let socket = match std::mem::replace(&mut state.socket, Socket::Closed) {
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

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
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

    fn bound(&self) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        // The connections that this port has had would else keep it for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        Ok(socket)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BACKLOG: u32 = 1024;
