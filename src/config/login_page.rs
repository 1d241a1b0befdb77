//! The login page that requests without a session are redirected to, and the way back from it.

use std::sync::{Arc, LazyLock};

use http::Uri;
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::check_route;
use crate::error::ConfigError;

/// The page that [`Unauthenticated::Redirect`](crate::Unauthenticated::Redirect) redirects to.
///
/// The query parameter `return_to` tells it which page the user wanted. Requests for the login page itself are
/// forwarded without a session, whatever their method, so that it can be shown. What else it needs (styles, scripts)
/// belongs behind a layer with [`Unauthenticated::Allow`](crate::Unauthenticated::Allow), or behind none.
///
/// ```
/// use tower_crossmint_auth::{ApiKey, CrossmintAuthConfig, Environment, LoginPage, Unauthenticated};
///
/// # fn main() -> Result<(), tower_crossmint_auth::ConfigError> {
/// # let key = ApiKey::unverified("my-project", Environment::Development);
/// let config = CrossmintAuthConfig::builder(key)
///     .unauthenticated(Unauthenticated::Redirect(LoginPage::new("/login")?))
///     .build()?;
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginPage {
    path: Arc<str>,
    return_to: Option<Arc<str>>,
}

impl LoginPage {
    /// Names the login page by its path on this site, without a query.
    ///
    /// # Errors
    ///
    /// Returns an error if `path` is not a path.
    pub fn new(path: impl Into<String>) -> Result<Self, ConfigError> {
        let path = path.into();
        check_route("unauthenticated", &path)?;
        let why = format!("`{}` leads to another site: begin it with one slash", path.escape_debug());
        ConfigError::ensure(Self::local_path(&path).is_some(), "unauthenticated", why)?;
        Ok(Self { path: path.into(), return_to: Some("return_to".into()) })
    }

    /// Sets the name of the query parameter with the path and query of the request. `None` leaves it out.
    ///
    /// The default is `return_to`. The parameter is only added for `GET` and `HEAD`: a form that was posted cannot be
    /// repeated by a link.
    ///
    /// # Security
    ///
    /// Anybody can write a link to the login page with a parameter of their own. Check it with
    /// [`local_path`](Self::local_path) before you redirect to it.
    #[must_use]
    pub fn return_to<'a>(mut self, parameter: impl Into<Option<&'a str>>) -> Self {
        self.return_to = parameter.into().map(Into::into);
        self
    }

    /// Returns `target` if it is a path on this site, for a redirect after the login.
    ///
    /// Everything else would make the login page an open redirect, with which a link to your site leads to another one:
    /// URLs with a scheme or a host (`//evil.example`), what browsers take for one (backslashes, control characters,
    /// white space), the same in percent-encoding, however often it is encoded, and paths that begin with two slashes
    /// once their dot segments are removed.
    ///
    /// ```
    /// use tower_crossmint_auth::LoginPage;
    ///
    /// assert_eq!(LoginPage::local_path("/orders?page=2"), Some("/orders?page=2"));
    /// assert_eq!(LoginPage::local_path("//evil.example"), None);
    /// assert_eq!(LoginPage::local_path("https://evil.example"), None);
    /// ```
    #[must_use]
    pub fn local_path(target: &str) -> Option<&str> {
        // Longer ones do not fit into the login page's URL.
        if target.len() > MAX_RETURN_TO || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let path = target.split(['?', '#']).next().unwrap_or_default();
        // A handler, a proxy or a script may decode it once more. Each round makes it shorter.
        let mut decoded = path.to_owned();
        loop {
            if !is_local(&decoded) {
                return None;
            }
            let next = percent_decode_str(&decoded).decode_utf8().ok()?.into_owned();
            if next == decoded {
                return Some(target);
            }
            decoded = next;
        }
    }

    pub(crate) fn is_at(&self, uri: &Uri) -> bool {
        uri.path() == &*self.path
    }

    /// Returns the target of a redirect to the login page, and back to `from`.
    pub(crate) fn location(&self, from: Option<&Uri>) -> String {
        let from = from.and_then(Uri::path_and_query).and_then(|from| Self::local_path(from.as_str()));
        let (Some(parameter), Some(from)) = (&self.return_to, from) else { return (*self.path).to_owned() };
        let mut url = BASE.clone();
        let query = url.query_pairs_mut().append_pair(parameter, from).finish().query().unwrap_or_default();
        format!("{}?{query}", self.path)
    }
}

/// Returns whether browsers resolve a path, which has no query, to a page of the same site.
fn is_local(path: &str) -> bool {
    let is_plain = path.starts_with('/') && !path.contains('\\') && !path.chars().any(char::is_control);
    let stays = |url: Url| url.host_str() == BASE.host_str() && !url.path().starts_with("//");
    is_plain && !path.starts_with("//") && BASE.join(path).is_ok_and(stays)
}

static BASE: LazyLock<Url> = LazyLock::new(|| Url::parse("http://localhost").expect("it is a URL"));
const MAX_RETURN_TO: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_local() {
        let cases = [
            ("the root", "/", true),
            ("a path", "/orders/1", true),
            ("a query", "/orders?page=2&x=%2F%2F", true),
            ("a URL in the query", "/go?to=https://evil.example//", true),
            ("a fragment", "/orders#top", true),
            ("an encoded slash within", "/files/a%2Fb", true),
            ("an encoded space", "/a%20b", true),
            ("a percent sign", "/100%", true),
            ("dot segments", "/a/../b", true),
            ("nothing", "", false),
            ("a relative path", "orders", false),
            ("a query alone", "?a", false),
            ("a host", "//evil.example", false),
            ("three slashes", "///evil.example", false),
            ("a backslash", "/\\evil.example", false),
            ("two backslashes", "\\\\evil.example", false),
            ("a backslash later", "/a\\b", false),
            ("https", "https://evil.example", false),
            ("https, one slash", "https:/evil.example", false),
            ("javascript", "javascript:alert(1)", false),
            ("data", "data:text/html,x", false),
            ("a tab", "/\t/evil.example", false),
            ("a line break", "/\n/evil.example", false),
            ("a header", "/a\r\nSet-Cookie: a=b", false),
            ("a null", "/\0", false),
            ("a space before", " //evil.example", false),
            ("a space", "/ /evil.example", false),
            ("not ASCII", "/\u{2215}/evil.example", false),
            ("an encoded slash", "/%2Fevil.example", false),
            ("an encoded slash, lower case", "/%2fevil.example", false),
            ("two encoded slashes", "%2F%2Fevil.example", false),
            ("an encoded backslash", "/%5Cevil.example", false),
            ("an encoded backslash later", "/a%5c..%5c", false),
            ("encoded twice", "/%252Fevil.example", false),
            ("encoded three times", "/%25252Fevil.example", false),
            ("encoded in parts", "/%2%46evil.example", false),
            ("an encoded tab", "/%09/evil.example", false),
            ("an encoded line break", "/a%0d%0aSet-Cookie:%20a=b", false),
            ("not UTF-8", "/%ff", false),
            ("a dot segment", "/.//evil.example", false),
            ("a double dot segment", "/a/..//evil.example", false),
            ("an encoded dot segment", "/%2e//evil.example", false),
            ("a user name", "//user@evil.example", false),
            ("too long", &format!("/{}", "a".repeat(MAX_RETURN_TO)), false),
        ];
        for (name, target, is_local) in cases {
            assert_eq!(LoginPage::local_path(target), is_local.then_some(target), "{name}");
        }
    }

    #[test]
    fn a_location_leads_back_or_nowhere() {
        let page = LoginPage::new("/login").unwrap();
        let cases = [
            ("a path", "/orders", "/login?return_to=%2Forders"),
            (
                "a query",
                "/orders?page=2&a=b c".replace(' ', "+").leak(),
                "/login?return_to=%2Forders%3Fpage%3D2%26a%3Db%2Bc",
            ),
            ("an absolute URL", "https://app.example/orders", "/login?return_to=%2Forders"),
            ("another site", "//evil.example/", "/login"),
            ("no path", "*", "/login"),
        ];
        for (name, from, expected) in cases {
            assert_eq!(page.location(from.parse().ok().as_ref()), expected, "{name}");
        }
        assert_eq!(page.location(None), "/login");
        let uri = Uri::from_static("/orders");
        assert_eq!(page.clone().return_to("next").location(Some(&uri)), "/login?next=%2Forders");
        assert_eq!(page.return_to(None).location(Some(&uri)), "/login");
    }

    #[test]
    fn a_login_page_is_a_path_of_this_site() {
        for path in ["", "login", "/login?a", "//evil.example", "https://evil.example/login", "/a b", "/%2Flogin"] {
            assert_eq!(LoginPage::new(path).unwrap_err().option(), "unauthenticated", "{path}");
        }
    }
}
