//! The listener and its connections: how calls come in, and how answers, or none, go out.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use super::answer::{Answer, AnswerBody, Delivery, Ending};
use super::api::Api;
use super::calls::{Calls, Endpoint, RecordedRequest};
use super::door::Door;
use super::fault::Fault;
use super::switches::{Orders, Switches};

/// Everything that the mock's tasks share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) api: Api,
    pub(super) calls: Calls,
    pub(super) switches: Switches,
    pub(super) door: Door,
    connections: watch::Sender<Connections>,
    lines: Mutex<Lines>,
    /// `None` once the server has stopped. The tasks own the server in their turn: taking them out is what frees both.
    tasks: Mutex<Option<JoinSet<()>>>,
}

#[derive(Debug, Default)]
struct Connections {
    accepted: usize,
    open: usize,
}

#[derive(Debug, Default)]
struct Lines {
    down: bool,
    silent: bool,
    open: Vec<Weak<Line>>,
}

impl Server {
    pub(super) fn start(api: Api, door: Door) -> Arc<Self> {
        let server = Arc::new(Self {
            api,
            calls: Calls::default(),
            switches: Switches::default(),
            door,
            connections: watch::Sender::default(),
            lines: Mutex::default(),
            tasks: Mutex::new(Some(JoinSet::new())),
        });
        server.spawn(accept(Arc::clone(&server)));
        server
    }

    /// Closes the listener and every connection, and forgets the calls under way.
    pub(super) fn stop(&self) {
        let tasks = self.tasks().take();
        drop(tasks);
    }

    pub(super) fn accepted(&self) -> usize {
        self.connections.borrow().accepted
    }

    pub(super) async fn connected(&self, count: usize) {
        self.reached(|connections| connections.accepted >= count).await;
    }

    pub(super) async fn disconnected(&self) {
        self.reached(|connections| connections.open == 0).await;
    }

    pub(super) fn set_down(&self, down: bool) {
        let mut lines = self.lines();
        lines.down = down;
        if down {
            lines.end_all(Ending::Reset);
        }
    }

    pub(super) fn set_silent(&self, silent: bool) {
        let mut lines = self.lines();
        lines.silent = silent;
        if silent {
            lines.end_all(Ending::Close);
        }
    }

    pub(super) fn set_refusing(&self, refusing: bool) -> io::Result<()> {
        self.door.set_refusing(refusing)?;
        if refusing {
            self.lines().end_all(Ending::Reset);
        }
        Ok(())
    }

    pub(super) fn set_unreachable(&self, unreachable: bool) -> io::Result<()> {
        self.door.set_unreachable(unreachable)?;
        if unreachable {
            self.lines().end_all(Ending::Close);
        }
        Ok(())
    }

    pub(super) fn close_connections(&self) {
        self.lines().end_all(Ending::Close);
    }

    /// Runs a task until the server stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = &mut *self.tasks() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// Lets a call go on in a task of its own: as at the real service, a client that goes away does not undo it.
    async fn detach(&self, call: impl Future<Output = Answer> + Send + 'static) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.spawn(async move {
            // An error says that the client is gone.
            let _ = answer.send(call.await);
        });
        // An error says that the test's own closure panicked, or that the server stops.
        answered.await.unwrap_or_else(|_| Answer::none(Delivery::Ended(Ending::Reset)))
    }

    fn open_line(&self) -> Arc<Line> {
        let mut lines = self.lines();
        let line = Arc::new(Line { is_silent: lines.silent, ..Line::default() });
        if lines.down {
            line.end(Ending::Reset);
        }
        lines.open.retain(|line| line.strong_count() > 0);
        lines.open.push(Arc::downgrade(&line));
        line
    }

    async fn reached(&self, condition: impl Fn(&Connections) -> bool) {
        // An error would say that the sender is gone, which is here.
        let _ = self.connections.subscribe().wait_for(condition).await;
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn end_all(&mut self, ending: Ending) {
        for line in self.open.drain(..).filter_map(|line| line.upgrade()) {
            line.end(ending);
        }
    }
}

async fn accept(server: Arc<Server>) {
    loop {
        match server.door.accept().await {
            Ok(stream) => {
                let line = server.open_line();
                let counted = Counted::new(Arc::clone(&server));
                server.spawn(async move {
                    serve(Arc::clone(&counted.0), stream, line).await;
                    // The socket is closed by now.
                    drop(counted);
                });
            }
            // Out of file descriptors, or a client that was gone before it was accepted: the next one may do.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn serve(server: Arc<Server>, stream: TcpStream, line: Arc<Line>) {
    let socket = Socket { io: Some(TokioIo::new(stream)), line: Arc::clone(&line) };
    if line.ending.get().is_some() {
        return;
    }
    {
        let mut connection = pin!(converse(server, socket));
        let mut ended = pin!(line.ended.notified());
        poll_fn(|cx| {
            // The connection first: it writes out what it has before the line ends.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            ended.as_mut().poll(cx)
        })
        .await;
    }
    if let Some(stream) = line.take_closing() {
        close(stream).await;
    }
}

/// Answers the calls of a connection, or none, until the client closes it.
async fn converse(server: Arc<Server>, socket: Socket) {
    let line = Arc::clone(&socket.line);
    if line.is_silent {
        if let Some(io) = &socket.io {
            discard(io.inner()).await;
        }
        return;
    }
    let protocols = auto::Builder::new(Spawner(Arc::clone(&server)));
    let service = service_fn(|request| respond(Arc::clone(&server), Arc::clone(&line), request));
    // An error says that the client is gone, or that it does not speak HTTP.
    let _ = protocols.serve_connection(socket, service).await;
}

/// Closes a connection as servers do that want their last words to arrive: after the client has closed its end.
async fn close(mut stream: TcpStream) {
    // An error says that the client is gone.
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    discard(&stream).await;
}

/// Reads until there is no more.
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

async fn respond(
    server: Arc<Server>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(_) => return nothing().await,
    };
    let request = RecordedRequest {
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body,
    };
    let endpoint = Endpoint::at(head.uri.path());

    // Before the call is seen to have arrived: a test that has seen it may change the orders, for the calls after it,
    // and may rely on its effect where nothing holds it up.
    let orders = server.switches.next(endpoint);
    let mut call = Box::pin(carry_out(Arc::clone(&server), endpoint, request.clone(), orders));
    let at_once = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    server.calls.record(endpoint, request);

    let answer = match at_once {
        Poll::Ready(answer) => answer,
        Poll::Pending => server.detach(call).await,
    };
    match answer.over(&line) {
        Some(response) => Ok(response),
        None => nothing().await,
    }
}

async fn carry_out(server: Arc<Server>, endpoint: Endpoint, request: RecordedRequest, orders: Orders) -> Answer {
    orders.before.pass().await;
    if let Some(Fault::Delay(delay)) = orders.fault {
        tokio::time::sleep(delay).await;
    }
    let true_answer = || server.api.answer(endpoint, &request);
    let answer = match orders.fault {
        Some(fault) => fault.answer(true_answer),
        None => Answer::whole(true_answer()),
    };
    orders.after.pass().await;
    answer
}

/// Leaves a client waiting, until it goes away or its line ends.
async fn nothing() -> Result<Response<AnswerBody>, hyper::Error> {
    pending().await
}

/// The means to end a connection from outside of it.
#[derive(Debug, Default)]
pub(super) struct Line {
    is_silent: bool,
    ending: OnceLock<Ending>,
    ended: Notify,
    /// The socket of a connection that is over, if it is to be closed with care.
    closing: Mutex<Option<TcpStream>>,
}

impl Line {
    /// Ends the connection, unless it was ended before.
    pub(super) fn end(&self, ending: Ending) {
        self.ending.get_or_init(|| ending);
        self.ended.notify_one();
    }

    fn take_closing(&self) -> Option<TcpStream> {
        self.closing().take()
    }

    fn closing(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the open connections, until it is dropped.
struct Counted(Arc<Server>);

impl Counted {
    fn new(server: Arc<Server>) -> Self {
        server.connections.send_modify(|connections| {
            connections.accepted += 1;
            connections.open += 1;
        });
        Self(server)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.send_modify(|connections| connections.open -= 1);
    }
}

/// A connection that is reset or closed as its line says.
#[derive(Debug)]
struct Socket {
    /// `None` only once it was dropped.
    io: Option<TokioIo<TcpStream>>,
    line: Arc<Line>,
}

impl Socket {
    fn io(&mut self) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(self.io.as_mut().expect("nobody reads from or writes to what was dropped"))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(io) = self.io.take() else { return };
        match self.line.ending.get() {
            Some(Ending::Close) => *self.line.closing() = Some(io.into_inner()),
            Some(Ending::Reset) => {
                // A socket that cannot linger was reset by its peer.
                let _ = io.inner().set_zero_linger();
            }
            None => {}
        }
    }
}

/// Runs the streams of an HTTP/2 connection.
#[derive(Clone, Debug)]
struct Spawner(Arc<Server>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
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

/// Far above any secret's length; no test is to fill the memory with what it posts.
const BODY_LIMIT: usize = 64 * 1024;
