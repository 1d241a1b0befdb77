//! The login page that requests without a session are redirected to, and the way back from it.

use std::sync::Arc;

use form_urlencoded::Serializer;
use http::Uri;

use super::path::{check_route, local_path};
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
        ConfigError::ensure(local_path(&path).is_some(), "unauthenticated", why)?;
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
        local_path(target)
    }

    pub(crate) fn is_at(&self, uri: &Uri) -> bool {
        uri.path() == &*self.path
    }

    /// Returns the target of a redirect to the login page, and back to `from`.
    pub(crate) fn location(&self, from: Option<&Uri>) -> String {
        let from = from.and_then(Uri::path_and_query).and_then(|from| local_path(from.as_str()));
        let (Some(parameter), Some(from)) = (&self.return_to, from) else { return (*self.path).to_owned() };
        let query = Serializer::new(String::new()).append_pair(parameter, from).finish();
        format!("{}?{query}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
