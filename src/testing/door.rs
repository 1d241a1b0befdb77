//! The listening socket, which can be shut without losing its port.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Where connections come in, unless it is shut: they are refused then.
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
    /// Bound, so that nobody else gets the port; not listening, so that it refuses. `None` only in between.
    Shut(Option<TcpSocket>),
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

    /// Shuts the door, or opens it again.
    pub(super) fn set_shut(&self, shut: bool) -> io::Result<()> {
        let mut state = self.lock();
        match &mut state.socket {
            Socket::Listening(_) if shut => {
                // The listener goes first: the port cannot be bound beside it.
                state.socket = Socket::Shut(None);
                state.socket = Socket::Shut(Some(self.bound()?));
            }
            Socket::Shut(reserved) if !shut => {
                let socket = reserved.take().map_or_else(|| self.bound(), Ok)?;
                state.socket = Socket::Listening(socket.listen(BACKLOG)?);
                if let Some(acceptor) = state.acceptor.take() {
                    acceptor.wake();
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        poll_fn(|cx| {
            let mut state = self.lock();
            state.acceptor = Some(cx.waker().clone());
            match &state.socket {
                Socket::Listening(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| stream),
                Socket::Shut(_) => Poll::Pending,
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
