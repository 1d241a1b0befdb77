//! A Redis or Valkey server on a free port, set up as the operations guide says.

use std::{
    env,
    error::Error,
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{self, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

/// The server, which is killed when this is dropped.
pub(crate) struct StoreServer {
    address: SocketAddr,
    directory: PathBuf,
    process: Child,
}

impl StoreServer {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        // Free again once this statement is over.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let directory = env::temp_dir().join(format!("tower-crossmint-auth-replicas-{}", process::id()));
        fs::create_dir_all(&directory)?;
        let mut server = Self { process: spawn(address, &directory)?, address, directory };
        server.wait_until_ready().await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{USER}:{PASSWORD}@{}", self.address)
    }

    /// Kills the server.
    pub(crate) async fn stop(&mut self) -> io::Result<()> {
        self.process.kill().await
    }

    /// Starts it again at the same address, empty.
    pub(crate) async fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        self.process = spawn(self.address, &self.directory)?;
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        for _ in 0..100 {
            if let Some(status) = self.process.try_wait()? {
                let log = fs::read_to_string(self.directory.join(LOG)).unwrap_or_default();
                return Err(format!("the store has ended with {status}: {log}").into());
            }
            if answers(self.address).await {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("the store has not answered within 5 s".into())
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(address: SocketAddr, directory: &PathBuf) -> Result<Child, Box<dyn Error>> {
    for program in PROGRAMS {
        let spawned = Command::new(program)
            .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--logfile", LOG])
            .args(["--user", "default", "off", "--user", USER, "on", &format!(">{PASSWORD}")])
            .args(PERMISSIONS.split(' '))
            .current_dir(directory)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            spawned => return Ok(spawned?),
        }
    }
    Err(format!("there is no {}: {INSTALL}", PROGRAMS.join(" and no ")).into())
}

/// Returns whether a server answers, if only that a password is missing.
async fn answers(address: SocketAddr) -> bool {
    let Ok(mut connection) = TcpStream::connect(address).await else { return false };
    let mut answer = [0; 7];
    connection.write_all(b"PING\r\n").await.is_ok()
        && connection.read_exact(&mut answer).await.is_ok()
        && &answer == b"-NOAUTH"
}

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
const INSTALL: &str = "install one, for example by `apt-get install redis-server` or `brew install redis`";
const LOG: &str = "store.log";
const USER: &str = "app";
const PASSWORD: &str = "no-secret-on-loopback";

/// Those of the operations guide.
const PERMISSIONS: &str = "~{tca1:* &{tca1:* -@all +eval +evalsha +subscribe +publish +time +hmget +hset +del \
                           +pexpire +pttl +xadd +xrange +ping";
