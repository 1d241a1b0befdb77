//! A configuration from environment variables.

use std::ffi::OsString;

use super::{CookieOptions, CrossmintAuthConfig, CrossmintAuthConfigBuilder};
use crate::error::ConfigError;

impl CrossmintAuthConfig {
    /// Starts a configuration from the environment of the process.
    ///
    /// | variable | option |
    /// | --- | --- |
    /// | `SERVER_CROSSMINT_API_KEY` | the API key; required |
    /// | `COOKIE_DOMAIN` | [`CookieOptions::domain`] |
    /// | `COOKIE_SECURE` | [`CookieOptions::secure`]: `true` (the default) or `false`, for development over plain HTTP |
    /// | `CROSSMINT_BASE_URL` | [`base_url`](CrossmintAuthConfigBuilder::base_url) |
    /// | `CROSSMINT_REFRESH_ROUTE` | [`refresh_route`](CrossmintAuthConfigBuilder::refresh_route) |
    /// | `CROSSMINT_LOGOUT_ROUTE` | [`logout_route`](CrossmintAuthConfigBuilder::logout_route) |
    ///
    /// The cookies are [hardened](CookieOptions::hardened). Calling [`cookies`](CrossmintAuthConfigBuilder::cookies)
    /// afterwards replaces all of their attributes. An empty variable counts as unset. A missing or invalid one
    /// is reported by [`build`](CrossmintAuthConfigBuilder::build).
    ///
    /// ```no_run
    /// use tower_crossmint_auth::{CrossmintAuthConfig, OutagePolicy};
    ///
    /// # fn main() -> Result<(), tower_crossmint_auth::ConfigError> {
    /// let config = CrossmintAuthConfig::from_env().on_outage(OutagePolicy::KeepSession).build()?;
    /// # let _ = config;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_env() -> CrossmintAuthConfigBuilder {
        read(std::env::var_os)
    }
}

/// Reads the variables that `get` returns.
fn read(get: impl Fn(&'static str) -> Option<OsString>) -> CrossmintAuthConfigBuilder {
    let text = |name| match get(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        Some(Err(_)) => Err(ConfigError::new(name, "it is not Unicode")),
    };
    let read = || {
        let missing =
            || ConfigError::new(API_KEY, "it is not set: copy a server key (`sk_...`) from the Crossmint console");
        let mut builder = CrossmintAuthConfig::builder(text(API_KEY)?.ok_or_else(missing)?);
        let secure = match text("COOKIE_SECURE")?.as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(ConfigError::new("COOKIE_SECURE", "it is neither `true` nor `false`")),
        };
        builder = builder.cookies(CookieOptions::hardened().secure(secure).domain(text("COOKIE_DOMAIN")?));
        if let Some(url) = text("CROSSMINT_BASE_URL")? {
            builder = builder.base_url(url);
        }
        if let Some(path) = text("CROSSMINT_REFRESH_ROUTE")? {
            builder = builder.refresh_route(path);
        }
        if let Some(path) = text("CROSSMINT_LOGOUT_ROUTE")? {
            builder = builder.logout_route(path);
        }
        Ok(builder)
    };
    read().unwrap_or_else(|error| CrossmintAuthConfigBuilder(Err(error)))
}

const API_KEY: &str = "SERVER_CROSSMINT_API_KEY";

#[cfg(test)]
mod tests {
    use super::*;

    /// A client key that Crossmint has published in its SDK's own tests.
    const KEY: &str = "ck_development_A61UZQnvjSQcM5qVBaBactgqebxafWAVsNdD2xLkgBxoYuH5q2guM8r9DUmZQzE1WYyoByGVYpEG2o9gVSzAZFsrLbfKGERUJ6D5CW6S9AsJGAc3ctgrsD4n2ioekzGj7KPbLwT3SysDjMamYXLxEroUbQSdwf6aLF4zeEpECq2crkTUQeLFzxzmjWNxFDHFYefDrfrFPCURvBXJLf5pCxCQ";

    fn build(variables: &[(&str, &str)]) -> Result<CrossmintAuthConfig, ConfigError> {
        let get = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
        read(get).build()
    }

    #[test]
    fn variables_become_options() {
        let config = build(&[
            (API_KEY, KEY),
            ("COOKIE_DOMAIN", ".example.com"),
            ("COOKIE_SECURE", "false"),
            ("CROSSMINT_BASE_URL", "https://proxy.example"),
            ("CROSSMINT_REFRESH_ROUTE", "/in"),
            ("CROSSMINT_LOGOUT_ROUTE", "/out"),
        ]);
        let settings = &config.unwrap().checked().settings.clone();
        assert_eq!(settings.cookies, CookieOptions::hardened().domain(".example.com").secure(false));
        assert_eq!(settings.base_url, "https://proxy.example");
        assert_eq!([&settings.refresh_route, &settings.logout_route], ["/in", "/out"]);
    }

    #[test]
    fn empty_variables_are_unset() {
        let config = build(&[(API_KEY, KEY), ("COOKIE_DOMAIN", ""), ("COOKIE_SECURE", ""), ("CROSSMINT_BASE_URL", "")]);
        assert_eq!(config.unwrap().checked().settings.cookies, CookieOptions::hardened());
    }

    #[test]
    fn a_bad_variable_is_named() {
        let cases = [
            ("no key", &[][..], "`SERVER_CROSSMINT_API_KEY` cannot be used: it is not set"),
            ("an empty key", &[(API_KEY, "")], "`SERVER_CROSSMINT_API_KEY` cannot be used: it is not set"),
            ("a bad key", &[(API_KEY, "\"sk_x\"")], "`api_key` cannot be used: it is in quotes"),
            ("secure", &[(API_KEY, KEY), ("COOKIE_SECURE", "yes")], "neither `true` nor `false`"),
            ("a domain", &[(API_KEY, KEY), ("COOKIE_DOMAIN", "localhost")], "`cookies.domain` cannot be used"),
        ];
        for (name, variables, expected) in cases {
            let error = build(variables).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert_eq!(format!("{error:?}"), error.to_string());
        }
    }
}
