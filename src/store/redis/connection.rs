//! One connection: TCP, TLS, the handshake and the subscription.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pin_project_lite::pin_project;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError,
    ServerError, Value, aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::AbortHandle,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::cause::Cause;
use crate::{config::Endpoint, store::watches::Watches};

/// A connection that is logged in. Dropping it ends its task.
pub(super) struct Connection {
    multiplexed: MultiplexedConnection,
    driver: AbortHandle,
    unparsed: Unparsed,
    /// Whether the server reports changes.
    pub(super) pushes: bool,
    pub(super) since: Instant,
    /// How many commands in a row have timed out.
    pub(super) timeouts: AtomicU32,
}

impl Connection {
    /// Connects, in the current runtime. The caller sets the time limit.
    pub(super) async fn open(endpoint: &Endpoint, channel: &str, watches: &Watches) -> Result<Self, Cause> {
        let opened = Self::log_in(endpoint, ProtocolVersion::RESP3, watches).await;
        let mut connection = match opened {
            // Older servers and some proxies do not know HELLO, and users may lack the permission. A login that fails
            // otherwise fails here, too.
            Err(Rejection::Protocol) => {
                Self::log_in(endpoint, ProtocolVersion::RESP2, watches).await.map_err(Rejection::into_cause)?
            }
            opened => opened.map_err(Rejection::into_cause)?,
        };
        if connection.pushes {
            // A user without access to the channel polls.
            let subscribed = connection.multiplexed.subscribe(channel).await;
            connection.pushes = match subscribed {
                Err(error) if error.is_unrecoverable_error() || error.is_io_error() => return Err(broken(&error)),
                subscribed => subscribed.is_ok(),
            };
        } else {
            // RESP2 needs no handshake, so that a missing password shows only now.
            let pong = connection.send(&redis::cmd("PING")).await.map_err(|error| broken(&error))?;
            if let Value::ServerError(error) = pong {
                return Err(Rejection::of_server(&error).into_cause());
            }
        }
        Ok(connection)
    }

    /// Whether its task runs: it ends with the connection, or with its runtime.
    pub(super) fn is_alive(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Sends a command, and returns the reply, which may be an error of the server's.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let reply = self.multiplexed.clone().send_packed_command(command).await;
        self.unparsed.reset();
        reply
    }

    async fn log_in(endpoint: &Endpoint, protocol: ProtocolVersion, watches: &Watches) -> Result<Self, Rejection> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
            .await
            .map_err(|error| Rejection::of_io(&error))?;
        tcp.set_nodelay(true).map_err(|error| Rejection::of_io(&error))?;
        match &endpoint.tls {
            None => Self::shake_hands(tcp, endpoint, protocol, watches).await,
            Some((config, name)) => {
                let tls = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await;
                Self::shake_hands(tls.map_err(|error| Rejection::of_tls(&error))?, endpoint, protocol, watches).await
            }
        }
    }

    async fn shake_hands<S>(
        stream: S,
        endpoint: &Endpoint,
        protocol: ProtocolVersion,
        watches: &Watches,
    ) -> Result<Self, Rejection>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unparsed = Unparsed::default();
        let stream = LimitedStream { stream, unparsed: unparsed.clone() };
        let mut info = RedisConnectionInfo::default()
            .set_db(endpoint.database)
            .set_protocol(protocol)
            // Not known to older servers.
            .set_skip_set_lib_name();
        if let Some(username) = &endpoint.username {
            info = info.set_username(username);
        }
        if let Some(password) = &endpoint.password {
            info = info.set_password(&**password);
        }
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let pushes = protocol.supports_resp3();
        if pushes {
            let (watches, unparsed) = (watches.clone(), unparsed.clone());
            config = config.set_push_sender(move |push: PushInfo| {
                unparsed.reset();
                wake(&watches, &push);
                Ok::<_, ()>(())
            });
        }
        let (multiplexed, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| Rejection::of_login(&error, protocol))?;
        let end = WakeAll(watches.clone());
        let driver = tokio::spawn(async move {
            let _end = end;
            driver.await;
        });
        Ok(Self {
            multiplexed,
            driver: driver.abort_handle(),
            unparsed,
            pushes,
            since: Instant::now(),
            timeouts: AtomicU32::new(0),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why there is no connection.
enum Rejection {
    /// The server does not speak this version of the protocol with this user.
    Protocol,
    Other(Cause),
}

impl Rejection {
    fn of_io(error: &io::Error) -> Self {
        Self::Other(Cause::new(format!("the connection failed: {error}")))
    }

    fn of_tls(error: &io::Error) -> Self {
        Self::Other(Cause::new(format!("the TLS handshake failed: {error}")))
    }

    fn of_login(error: &RedisError, protocol: ProtocolVersion) -> Self {
        let code = error.code().unwrap_or_default();
        match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => Self::Other(broken(error)),
            ErrorKind::AuthenticationFailed => Self::Other(Cause::new(format!("{REFUSED_LOGIN} (AUTH)"))),
            _ if LOGIN.contains(&code) => Self::Other(Cause::new(format!("{REFUSED_LOGIN} ({code})"))),
            _ if NOT_A_PRIMARY.contains(&code) => Self::Other(Cause::new(format!("the store is not ready ({code})"))),
            _ if protocol.supports_resp3() => Self::Protocol,
            // Only the code: what follows can repeat the password, as after an unknown command.
            _ => Self::Other(Cause::new(format!("the store refused the user or database ({code})"))),
        }
    }

    fn of_server(error: &ServerError) -> Self {
        Self::of_login(&error.clone().into(), ProtocolVersion::RESP2)
    }

    fn into_cause(self) -> Cause {
        match self {
            Self::Protocol => Cause::new("the store does not know the protocol"),
            Self::Other(cause) => cause,
        }
    }
}

pub(super) fn broken(error: &RedisError) -> Cause {
    match error.kind() {
        ErrorKind::Parse => Cause::new("the connection failed: the server does not speak the protocol of Redis"),
        _ => Cause::new(format!("the connection failed: {error}")),
    }
}

/// Wakes everyone when the task of a connection ends, whether it has failed or its runtime has ended.
struct WakeAll(Watches);

impl Drop for WakeAll {
    fn drop(&mut self) {
        self.0.wake_all();
    }
}

fn wake(watches: &Watches, push: &PushInfo) {
    if let (PushKind::Message, [_, Value::BulkString(name)]) = (&push.kind, push.data.as_slice())
        && let Ok(id) = URL_SAFE_NO_PAD.decode(name)
        && let Ok(id) = id.try_into()
    {
        watches.wake(&id);
    }
}

pin_project! {
    /// Fails when the server sends too much that is not a reply or a push.
    struct LimitedStream<S> {
        #[pin]
        stream: S,
        unparsed: Unparsed,
    }
}

/// How many bytes have been read since the last reply or push.
#[derive(Clone, Default)]
struct Unparsed(Arc<AtomicUsize>);

impl Unparsed {
    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

impl<S: AsyncRead> AsyncRead for LimitedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        ready!(this.stream.poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if this.unparsed.0.fetch_add(read, Relaxed) > MAX_UNPARSED {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server sends too much")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite> AsyncWrite for LimitedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

const REFUSED_LOGIN: &str = "the store refused the user or password";
const LOGIN: [&str; 2] = ["WRONGPASS", "NOAUTH"];
/// A server that has just started, or one whose primary is gone.
const NOT_A_PRIMARY: [&str; 2] = ["LOADING", "MASTERDOWN"];
/// Twice the largest reply that is accepted. More would cost not only memory: the parser reads a line from its start
/// again whenever more of it arrives.
const MAX_UNPARSED: usize = 4 * 1024 * 1024;
