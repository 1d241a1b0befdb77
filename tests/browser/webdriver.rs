//! Chromium, driven through chromedriver with the commands of <https://www.w3.org/TR/webdriver2/>.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A browser with one window and an empty profile. It ends with this value.
#[derive(Debug)]
pub(crate) struct Browser {
    client: reqwest::Client,
    session: String,
    // In this order: the browser ends before its profile is removed.
    _driver: Driver,
    _profile: Profile,
}

impl Browser {
    /// Starts a browser, if it is installed or required.
    ///
    /// Every name below `test` resolves to this machine, as every name below `localhost` does without a rule.
    pub(crate) async fn start() -> Option<Self> {
        let missing = ["chromium", "chromedriver"].into_iter().find(|program| !is_installed(program));
        if let Some(missing) = missing {
            let why = format!("`{missing}` is not installed");
            assert!(env::var_os("REQUIRE_BROWSER").is_none(), "{why}");
            // The test harness shows the output of failed tests only: write to stderr directly.
            let _ = writeln!(io::stderr(), "skipped a test in the browser: {why}");
            return None;
        }
        let driver = Driver::start().await;
        let profile = Profile::create();
        let args = [
            "--headless=new".to_owned(),
            format!("--user-data-dir={}", profile.0.display()),
            "--host-resolver-rules=MAP *.test 127.0.0.1".to_owned(),
            // Chromium does not run as root otherwise.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
        ];
        // Third-party cookies are allowed: the protection must not depend on their being blocked.
        let prefs = json!({ "profile.cookie_controls_mode": 0 });
        let options = json!({ "goog:chromeOptions": { "args": args, "prefs": prefs } });
        // A command that hangs fails the test instead of the run.
        let client = reqwest::Client::builder().no_proxy().timeout(TIME_LIMIT).build().unwrap();
        let root = format!("http://{}/session", driver.address);
        let created =
            command(&client, Method::POST, &root, json!({ "capabilities": { "alwaysMatch": options } })).await;
        let session = format!("{root}/{}", created["sessionId"].as_str().unwrap());
        Some(Self { client, session, _driver: driver, _profile: profile })
    }

    /// Opens a page as if its address had been typed, and waits until it has loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Returns the address of the page, once it has loaded.
    pub(crate) async fn url(&self) -> String {
        text(self.get("/url").await)
    }

    /// Clicks an element. If this opens another page in the same window, waits until it has loaded.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.post("/element", json!({ "using": "css selector", "value": selector })).await;
        let id = element.as_object().and_then(|fields| fields.values().next()?.as_str()).unwrap();
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Runs the body of an async function in the page, and returns what its promise resolves to.
    pub(crate) async fn run(&self, body: &str) -> Value {
        let script =
            format!("const done = arguments[0]; (async () => {{ {body} }})().then(done, e => done(`${{e}}`));");
        self.post("/execute/async", json!({ "script": script, "args": [] })).await
    }

    /// Returns the text of the page.
    pub(crate) async fn text(&self) -> String {
        text(self.run("return document.body.innerText.trim()").await)
    }

    /// Returns the cookies for the address of the page, including those that scripts cannot read.
    pub(crate) async fn cookies(&self) -> BTreeMap<String, String> {
        let cookies = self.get("/cookie").await;
        let cookie = |cookie: &Value| (text(cookie["name"].clone()), text(cookie["value"].clone()));
        cookies.as_array().unwrap().iter().map(cookie).collect()
    }

    /// Does something in each window but the first, and closes it.
    pub(crate) async fn close_others(&self, mut each: impl AsyncFnMut()) {
        let first = self.get("/window").await;
        let windows = self.get("/window/handles").await;
        for window in windows.as_array().unwrap().iter().filter(|window| **window != first) {
            self.post("/window", json!({ "handle": window })).await;
            each().await;
            command(&self.client, Method::DELETE, &format!("{}/window", self.session), Value::Null).await;
        }
        self.post("/window", json!({ "handle": first })).await;
    }

    async fn get(&self, path: &str) -> Value {
        command(&self.client, Method::GET, &format!("{}{path}", self.session), Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        command(&self.client, Method::POST, &format!("{}{path}", self.session), body).await
    }
}

/// Longer than any step takes on a slow machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

async fn command(client: &reqwest::Client, method: Method, url: &str, body: Value) -> Value {
    let request = client.request(method, url);
    let request = if body.is_null() { request } else { request.json(&body) };
    let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
    let value = answer["value"].take();
    assert!(value["error"].is_null(), "{url} with {body}: {value:#}");
    value
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => panic!("not a text: {other}"),
    }
}

fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The folder of the browser's profile.
#[derive(Debug)]
struct Profile(PathBuf);

impl Profile {
    fn create() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("profile-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The process of chromedriver, which starts and ends the browser.
#[derive(Debug)]
struct Driver {
    address: SocketAddr,
    _process: Child,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    async fn start() -> Self {
        let mut command = Command::new("chromedriver");
        let mut process =
            command.arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("chromedriver starts");
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = loop {
            let line = output.next_line().await.unwrap().expect("chromedriver names its port");
            let port = line.split_once("started successfully on port ").map(|(_, port)| port.trim_end_matches('.'));
            if let Some(port) = port {
                break port.parse().unwrap();
            }
        };
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), _process: process, _output: output }
    }
}

impl Drop for Driver {
    /// Lets chromedriver end the browser. Killing chromedriver alone would leave the browser behind.
    fn drop(&mut self) {
        let shut_down = || -> io::Result<()> {
            let mut connection = TcpStream::connect_timeout(&self.address, SHUTDOWN_LIMIT)?;
            connection.set_read_timeout(Some(SHUTDOWN_LIMIT))?;
            write!(connection, "GET /shutdown HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address)?;
            connection.read_to_end(&mut Vec::new()).map(drop)
        };
        if let Err(error) = shut_down() {
            eprintln!("chromedriver may have left its browser behind: {error}");
        }
    }
}

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
