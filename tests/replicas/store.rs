//! A Redis or Valkey server of a test.

use std::{
    env, fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    sync::{
        Once,
        atomic::{AtomicU16, Ordering},
    },
};

use redis::{FromRedisValue, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::Mutex,
};

/// A server on loopback that keeps nothing on disk. It is killed when it is dropped.
pub(crate) struct Store {
    pub(crate) port: u16,
    password: Option<&'static str>,
    options: Vec<String>,
    directory: PathBuf,
    process: Mutex<Child>,
}

impl Store {
    /// Starts a server. Returns `None` if none is installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(&[]).await
    }

    /// Starts a server with options of its command line. Returns `None` if none is installed.
    pub(crate) async fn with(options: &[&str]) -> Option<Self> {
        Self::with_files(options, &[]).await
    }

    /// Starts a server with options that name files, which have this text. Returns `None` if none is installed.
    pub(crate) async fn with_files(options: &[&str], files: &[(&str, String)]) -> Option<Self> {
        if let Err(why) = Command::new(program()).arg("--version").stdout(Stdio::null()).status().await {
            let why = format!("`{}` cannot be started: {why}", program());
            assert!(env::var_os("REQUIRE_REDIS").is_none(), "{why}");
            static REPORTED: Once = Once::new();
            // The test harness shows the output of failed tests only: write to stderr directly.
            REPORTED.call_once(|| drop(writeln!(io::stderr(), "skipped the tests of replicas: {why}")));
            return None;
        }
        let port = free_port();
        let directory = env::temp_dir().join(format!("replicas-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let process = launch(port, &directory, &options).await;
        Some(Self { port, password: None, options, directory, process: Mutex::new(process) })
    }

    /// Sets the password that [`connect`](Self::connect) uses.
    pub(crate) fn set_password(&mut self, password: &'static str) {
        self.password = Some(password);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Returns the file of this name in a directory of the test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Opens a connection without a time limit.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let password = self.password.map_or_else(String::new, |password| format!(":{password}@"));
        let client = redis::Client::open(format!("redis://{password}127.0.0.1:{}", self.port)).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Sends a command, such as `CONFIG SET maxmemory 1mb`, on a connection of its own.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &str) -> T {
        let mut connection = self.connect().await;
        let mut words = command.split(' ');
        let mut request = redis::cmd(words.next().unwrap());
        request.arg(words.collect::<Vec<_>>());
        request.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Kills the server, which forgets everything.
    pub(crate) async fn kill(&self) {
        self.process.lock().await.kill().await.unwrap();
    }

    /// Starts the server again, on the same port.
    pub(crate) async fn restart(&self) {
        *self.process.lock().await = launch(self.port, &self.directory, &self.options).await;
    }

    /// Sends the process a signal, such as `STOP`: the kernel then accepts connections, and nobody answers.
    pub(crate) async fn signal(&self, signal: &str) {
        signal_process(self.process.lock().await.id().unwrap(), signal).await;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A process that has ended already cannot be killed.
        let _ = self.process.get_mut().start_kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends a signal, such as `STOP`, to a process. A stopped one does nothing any more when this returns.
pub(crate) async fn signal_process(id: u32, signal: &str) {
    let status = Command::new("kill").args([format!("-{signal}"), id.to_string()]).status().await.unwrap();
    assert!(status.success(), "kill -{signal} {id}: {status}");
    // Its threads stop one by one, each when it gets a processor.
    while signal == "STOP" && is_running(id) {
        tokio::task::yield_now().await;
    }
}

/// Returns whether a thread of a process has neither stopped nor ended, as far as the system tells.
fn is_running(id: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
    let mut statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    statuses.any(|status| ["State:\tT", "State:\tZ", "State:\tX"].iter().all(|state| !status.contains(state)))
}

/// Returns a port outside of the range from which the system takes ports for clients, so that it stays free while the
/// server restarts.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 11_000).unwrap();
    loop {
        let port = 21_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 11_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts the server, and waits until it accepts connections.
async fn launch(port: u16, directory: &PathBuf, options: &[String]) -> Child {
    let mut process = Command::new(program())
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .args(["--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes"])
        .args(options)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut log = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("eady to accept connections") {
            // The server must not block on a full pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return process;
        }
        log = log + &line + "\n";
    }
    panic!("the server does not start:\n{log}");
}

fn program() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}
