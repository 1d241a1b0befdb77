//! A Redis or Valkey server for tests, with no data on disk.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use redis::{Client, Connection};

use super::RedisStore;
use crate::config::RedisRenewals;

/// A child process, which is killed when this is dropped.
pub(crate) struct TestServer {
    child: Child,
    pub(crate) port: u16,
    options: Vec<String>,
    directory: PathBuf,
}

impl TestServer {
    /// Starts a server with options of its command line.
    ///
    /// `None` if none is installed, unless `REQUIRE_REDIS` is set. `REDIS_SERVER` is the program, by default
    /// `redis-server`.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let program = program();
        if Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(env::var_os("REQUIRE_REDIS").is_none(), "{program} is not installed");
            eprintln!("{program} is not installed: skipped a test that needs it");
            return None;
        }
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        // Another process can take the port first.
        (0..5).find_map(|_| Self::start_on(free_port(), &options))
    }

    fn start_on(port: u16, options: &[String]) -> Option<Self> {
        let directory = env::temp_dir().join(format!("tower-crossmint-auth-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the server");
        let child = spawn(port, options, &directory);
        let mut server = Self { child, port, options: options.to_vec(), directory };
        server.wait_until_ready().then_some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A store on this server, with a limit that a busy machine keeps.
    pub(crate) fn store(&self) -> RedisStore {
        RedisStore::new(&options(&self.url()), "test")
    }

    /// A connection beside the store's.
    pub(crate) fn connection(&self) -> Connection {
        Client::open(self.url()).and_then(|client| client.get_connection()).expect("a connection")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("a child");
    }

    /// Starts the server again, at the same address and without data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.options, &self.directory);
        assert!(self.wait_until_ready(), "the server does not start again");
    }

    /// Stops the process, without closing its connections.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    fn wait_until_ready(&mut self) -> bool {
        let give_up = Instant::now() + Duration::from_secs(20);
        while Instant::now() < give_up && matches!(self.child.try_wait(), Ok(None)) {
            if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
                && stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
                && stream.write_all(b"PING\r\n").is_ok()
                // A refusal will do.
                && stream.read_exact(&mut [0]).is_ok()
            {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn options(url: &str) -> RedisRenewals {
    RedisRenewals::new(url).expect("a URL").time_limit(Duration::from_secs(1))
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn program() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn spawn(port: u16, options: &[String], directory: &PathBuf) -> Child {
    Command::new(program())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(directory)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("a server that is installed")
}
