//! The server: accepts connections, and executes the calls that arrive on them.

use std::{
    future::{pending, poll_fn},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::server::conn::auto;
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    answer::{Answer, AnswerBody, Delivery},
    api::Api,
    calls::{CallLog, Endpoint, RecordedRequest},
    connection::{Connection, Connections, Ending, Registered},
    fault::Fault,
    listener::Listener,
    script::{CallScript, Script},
};

/// The state that all of the mock's tasks share.
pub(crate) struct Server {
    pub(crate) api: Api,
    pub(crate) calls: CallLog,
    pub(crate) script: Script,
    pub(crate) connections: Connections,
    listener: Listener,
    /// `None` once the server has stopped. The tasks own the server in turn: dropping them breaks the reference cycle.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Server {
    pub(crate) fn start(api: Api, listener: Listener) -> Arc<Self> {
        let server = Arc::new(Self {
            api,
            calls: CallLog::default(),
            script: Script::default(),
            connections: Connections::default(),
            listener,
            tasks: Mutex::new(Some(JoinSet::new())),
        });
        server.spawn(accept(Arc::clone(&server)));
        server
    }

    /// Closes the listener and all connections, and aborts the calls in progress.
    pub(crate) fn stop(&self) {
        let tasks = self.tasks().take();
        drop(tasks);
    }

    pub(crate) fn set_refusing(&self, refusing: bool) -> io::Result<()> {
        self.listener.set_refusing(refusing)?;
        if refusing {
            self.connections.end_all(Ending::Reset);
        }
        Ok(())
    }

    pub(crate) fn set_unreachable(&self, unreachable: bool) -> io::Result<()> {
        self.listener.set_unreachable(unreachable)?;
        if unreachable {
            self.connections.end_all(Ending::Close);
        }
        Ok(())
    }

    /// Runs a task until the server stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = &mut *self.tasks() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// Runs a call in its own task, so that it completes even if the client disconnects.
    async fn detach(&self, call: impl Future<Output = Answer> + Send + 'static) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            // Fails only if the client has disconnected.
            let _ = sender.send(call.await);
        });
        // Fails if the function passed to `edit_refresh_answers` has panicked, or the server stops.
        receiver
            .await
            .unwrap_or_else(|_| Answer { response: Response::default(), delivery: Delivery::Ended(Ending::Reset) })
    }

    fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(server: Arc<Server>) {
    loop {
        match server.listener.accept().await {
            Ok(stream) => server.spawn(serve(Arc::clone(&server), server.connections.register(stream))),
            // Out of file descriptors, or the client has disconnected already: the next attempt may succeed.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn serve(server: Arc<Server>, connection: Registered) {
    connection
        .serve(|socket, connection| async move {
            let protocols = auto::Builder::new(StreamExecutor(Arc::clone(&server)));
            let service = service_fn(|request| respond(Arc::clone(&server), Arc::clone(&connection), request));
            // Fails if the client has disconnected, or does not speak HTTP.
            let _ = protocols.serve_connection(socket, service).await;
        })
        .await;
}

async fn respond(
    server: Arc<Server>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(_) => return pending().await,
    };
    let request = RecordedRequest {
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body,
    };
    let endpoint = Endpoint::at(head.uri.path());

    // The call is recorded only after this first poll: a test that has seen the call may change the script for later
    // calls, and may rely on the effects of this one unless it is held or delayed.
    let script = server.script.next(endpoint);
    let mut call = Box::pin(execute(Arc::clone(&server), endpoint, request.clone(), script));
    let first_poll = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    server.calls.record(endpoint, request);

    let answer = match first_poll {
        Poll::Ready(answer) => answer,
        Poll::Pending => server.detach(call).await,
    };
    match answer.into_response(&connection) {
        Some(response) => Ok(response),
        None => pending().await,
    }
}

async fn execute(server: Arc<Server>, endpoint: Endpoint, request: RecordedRequest, script: CallScript) -> Answer {
    script.before.wait().await;
    if let Some(Fault::Delay(delay)) = script.fault {
        tokio::time::sleep(delay).await;
    }
    let respond = || server.api.respond(endpoint, &request);
    let answer = match script.fault {
        Some(fault) => fault.answer(respond),
        None => Answer::whole(respond()),
    };
    script.after.wait().await;
    answer
}

/// Runs the streams of an HTTP/2 connection.
#[derive(Clone)]
struct StreamExecutor(Arc<Server>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// Far above the length of any refresh secret, and low enough to record thousands of requests.
const BODY_LIMIT: usize = 64 * 1024;
