//! The sites that the browser visits: the application behind the layer, and other sites.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, Method, header},
    middleware::{self, Next},
    response::{Html, Response},
    routing::{any, get},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tower_crossmint_auth::{
    AuthMaterial, CrossmintAuth, CrossmintAuthConfigBuilder, CrossmintAuthLayer, RefreshToken, Session,
    testing::{MockCrossmint, MockSession},
};

use crate::webdriver::{Browser, TIME_LIMIT};

/// A server on loopback, under any host name.
pub(crate) struct Site {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn serve(router: Router) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, server }
    }

    /// Serves one page at every path.
    pub(crate) async fn page(html: String) -> Self {
        Self::serve(Router::new().fallback(async move || Html(html))).await
    }

    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The application behind the layer. The page `/` is public, and all others need a session.
pub(crate) struct App {
    pub(crate) mock: MockCrossmint,
    host: &'static str,
    site: Site,
    visits: Arc<Visits>,
    material: watch::Sender<AuthMaterial>,
}

impl App {
    /// Serves the application. `edit` changes requests before the layer sees them.
    pub(crate) async fn serve(
        host: &'static str,
        configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
        users: Router,
        edit: fn(&mut HeaderMap),
    ) -> Self {
        Self::of(MockCrossmint::start().await, host, configure, users, Router::new(), edit).await
    }

    /// Serves the application with a mock of its own, and with routes that need no session.
    pub(crate) async fn of(
        mock: MockCrossmint,
        host: &'static str,
        configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
        users: Router,
        public: Router,
        edit: fn(&mut HeaderMap),
    ) -> Self {
        let auth = CrossmintAuth::new(configure(mock.config()).build().unwrap());
        let (material, signed_in) = watch::channel(AuthMaterial::new("", RefreshToken::new("")));
        let visits = Arc::new(Visits::default());
        let sign_in = {
            let auth = auth.clone();
            get(async move || {
                let mut headers = HeaderMap::new();
                auth.store_auth_material(&mut headers, &signed_in.borrow()).unwrap();
                (headers, "signed in")
            })
        };
        let router = users
            .route("/me", any(async |session: Session| session.user_id().to_owned()))
            .layer(CrossmintAuthLayer::from(auth.clone()))
            .route("/", get(async || Html(r#"<a id="me" href="/me">Who am I?</a>"#)))
            .route("/favicon.ico", get(async || ""))
            .route("/sign-in", sign_in)
            .merge(public)
            .merge(auth.routes())
            .layer(middleware::from_fn({
                let visits = Arc::clone(&visits);
                move |request, next| watch(Arc::clone(&visits), edit, request, next)
            }));
        Self { mock, host, site: Site::serve(router).await, visits, material }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.site.url(self.host, path)
    }

    /// Signs a user in: the application stores a session's cookies in the browser.
    pub(crate) async fn sign_in(&self, browser: &Browser, user_id: &str) -> MockSession {
        let session = self.mock.sign_in(user_id);
        self.store(browser, &session).await;
        assert!(self.is_alive(browser, &session).await, "the login failed");
        session
    }

    /// Stores a session's cookies in the browser.
    pub(crate) async fn store(&self, browser: &Browser, session: &MockSession) {
        let token = RefreshToken::new(session.refresh_token());
        self.material.send_replace(AuthMaterial::new(session.jwt(), token));
        browser.open(&self.url("/sign-in")).await;
    }

    /// Tells whether the browser still has both cookies of the session, reaches a page that needs a session, and is
    /// signed in at Crossmint.
    pub(crate) async fn is_alive(&self, browser: &Browser, session: &MockSession) -> bool {
        browser.open(&self.url("/")).await;
        let cookies = browser.cookies().await;
        browser.click("#me").await;
        let (user, after) = (browser.text().await, browser.cookies().await);
        let values: Vec<_> = cookies.values().map(String::as_str).collect();
        let holds = values == [session.jwt(), session.refresh_token()] && cookies == after;
        holds && user == session.user_id() && self.mock.is_live(session.refresh_token())
    }

    /// Waits until a request for this path and query has been answered, and returns the request.
    pub(crate) async fn visited(&self, target: &str) -> Visit {
        let mut count = self.visits.count.subscribe();
        let visit = async {
            loop {
                if let Some(visit) = self.visits.find(target) {
                    return visit;
                }
                count.changed().await.unwrap();
            }
        };
        timeout(TIME_LIMIT, visit).await.unwrap_or_else(|_| panic!("no request for {target}"))
    }
}

/// A request as the browser has sent it.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    target: String,
    pub(crate) method: Method,
    pub(crate) has_cookies: bool,
    pub(crate) site: Option<String>,
    pub(crate) origin: Option<String>,
}

impl Visit {
    fn of(request: &Request) -> Self {
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Self {
            target: request.uri().to_string(),
            method: request.method().clone(),
            has_cookies: request.headers().contains_key(header::COOKIE),
            site: text("sec-fetch-site"),
            origin: text("origin"),
        }
    }
}

#[derive(Debug, Default)]
struct Visits {
    all: Mutex<Vec<Visit>>,
    count: watch::Sender<usize>,
}

impl Visits {
    fn find(&self, target: &str) -> Option<Visit> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|visit| visit.target == target).cloned()
    }
}

async fn watch(visits: Arc<Visits>, edit: fn(&mut HeaderMap), mut request: Request, next: Next) -> Response {
    let visit = Visit::of(&request);
    edit(request.headers_mut());
    let response = next.run(request).await;
    visits.all.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
    visits.count.send_modify(|count| *count += 1);
    response
}
