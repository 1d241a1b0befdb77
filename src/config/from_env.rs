//! A configuration from environment variables.

use std::ffi::OsString;

use super::{
    CookieOptions, CrossmintAuthConfig, CrossmintAuthConfigBuilder, Settings, parse_base_url, path::check_route,
};
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
    /// The cookies are [hardened](CookieOptions::hardened). An empty variable counts as unset. A missing or invalid one
    /// is reported by [`build`](CrossmintAuthConfigBuilder::build), by its name. Options that are set on the builder
    /// take precedence; [`cookies`](CrossmintAuthConfigBuilder::cookies) replaces `COOKIE_DOMAIN` and `COOKIE_SECURE`.
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
        CrossmintAuthConfigBuilder(read(std::env::var_os))
    }
}

/// Reads the variables that `get` returns. Checks each, so that an error names the variable and not only the option.
fn read(get: impl Fn(&'static str) -> Option<OsString>) -> Result<Settings, ConfigError> {
    let value_of = |variable, option| match get(variable).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        Some(Err(_)) => Err(ConfigError::new(option, "it is not Unicode").of_variable(variable)),
    };
    let missing =
        || ConfigError::new("api_key", "it is not set: copy a server key (`sk_...`) from the Crossmint console");
    let api_key = value_of(API_KEY, "api_key")?.ok_or_else(missing).and_then(|key| key.parse());
    let mut settings = Settings::new(api_key.map_err(|error| error.of_variable(API_KEY))?);

    let secure = match value_of(SECURE, "cookies.secure")?.as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(ConfigError::new("cookies.secure", "write `true` or `false`").of_variable(SECURE)),
    };
    settings.cookies = CookieOptions::hardened().secure(secure).domain(value_of(DOMAIN, "cookies.domain")?);
    settings.cookies.check().map_err(|error| error.of_variable(DOMAIN))?;

    if let Some(url) = value_of(BASE_URL, "base_url")? {
        let url = parse_base_url(&url, settings.api_key.environment());
        settings.base_url = url.map_err(|error| error.of_variable(BASE_URL))?;
    }
    for (variable, option, route) in [
        ("CROSSMINT_REFRESH_ROUTE", "refresh_route", &mut settings.refresh_route),
        ("CROSSMINT_LOGOUT_ROUTE", "logout_route", &mut settings.logout_route),
    ] {
        if let Some(path) = value_of(variable, option)? {
            check_route(option, &path).map_err(|error| error.of_variable(variable))?;
            *route = path;
        }
    }
    Ok(settings)
}

const API_KEY: &str = "SERVER_CROSSMINT_API_KEY";
const DOMAIN: &str = "COOKIE_DOMAIN";
const SECURE: &str = "COOKIE_SECURE";
const BASE_URL: &str = "CROSSMINT_BASE_URL";

#[cfg(test)]
mod tests {
    use super::*;

    /// A client key that Crossmint has published in its SDK's own tests.
    const KEY: &str = "ck_development_A61UZQnvjSQcM5qVBaBactgqebxafWAVsNdD2xLkgBxoYuH5q2guM8r9DUmZQzE1WYyoByGVYpEG2o9gVSzAZFsrLbfKGERUJ6D5CW6S9AsJGAc3ctgrsD4n2ioekzGj7KPbLwT3SysDjMamYXLxEroUbQSdwf6aLF4zeEpECq2crkTUQeLFzxzmjWNxFDHFYefDrfrFPCURvBXJLf5pCxCQ";

    fn build(variables: &[(&str, &str)]) -> Result<CrossmintAuthConfig, ConfigError> {
        let get = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
        CrossmintAuthConfigBuilder(read(get)).build()
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
        let config = config.unwrap();
        let settings = &config.checked().settings;
        assert_eq!(settings.cookies, CookieOptions::hardened().domain(".example.com").secure(false));
        assert_eq!(settings.base_url, "https://proxy.example");
        assert_eq!([&settings.refresh_route, &settings.logout_route], ["/in", "/out"]);
    }

    #[test]
    fn empty_variables_are_unset() {
        let empty =
            [SECURE, DOMAIN, BASE_URL, "CROSSMINT_REFRESH_ROUTE", "CROSSMINT_LOGOUT_ROUTE"].map(|name| (name, ""));
        let config = build(&[&[(API_KEY, KEY)], &empty[..]].concat()).unwrap();
        let settings = &config.checked().settings;
        assert_eq!(settings.cookies, CookieOptions::hardened());
        assert_eq!(settings.base_url, "http://localhost:3000");
        assert_eq!([&settings.refresh_route, &settings.logout_route], ["/api/auth/refresh", "/api/auth/logout"]);
    }

    #[test]
    fn a_bad_variable_is_named() {
        let cases = [
            ("no key", &[][..], API_KEY, "api_key", "not set"),
            ("an empty key", &[(API_KEY, "")], API_KEY, "api_key", "not set"),
            ("a quoted key", &[(API_KEY, "\"sk_x\"")], API_KEY, "api_key", "in quotes"),
            ("secure", &[(API_KEY, KEY), (SECURE, "yes")], SECURE, "cookies.secure", "`true` or `false`"),
            ("a domain", &[(API_KEY, KEY), (DOMAIN, "localhost")], DOMAIN, "cookies.domain", "`localhost`"),
            (
                "a URL",
                &[(API_KEY, KEY), (BASE_URL, "https://www.crossmint.com")],
                BASE_URL,
                "base_url",
                "the API key is for development",
            ),
            (
                "the refresh route",
                &[(API_KEY, KEY), ("CROSSMINT_REFRESH_ROUTE", "/{x}")],
                "CROSSMINT_REFRESH_ROUTE",
                "refresh_route",
                "placeholder",
            ),
            (
                "the logout route",
                &[(API_KEY, KEY), ("CROSSMINT_LOGOUT_ROUTE", "out")],
                "CROSSMINT_LOGOUT_ROUTE",
                "logout_route",
                "`out`",
            ),
        ];
        for (name, variables, variable, option, why) in cases {
            let error = build(variables).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("the environment variable `{variable}` cannot be used: ")), "{text}");
            assert_eq!(error.option(), option, "{name}");
            assert!(text.contains(why) && !text.contains("sk_x"), "{name}: {text}");
            assert_eq!(format!("{error:?}"), text, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn each_variable_must_be_unicode() {
        use std::os::unix::ffi::OsStringExt as _;

        for variable in [API_KEY, SECURE, DOMAIN, BASE_URL, "CROSSMINT_REFRESH_ROUTE", "CROSSMINT_LOGOUT_ROUTE"] {
            let get = |name: &str| match name {
                _ if name == variable => Some(OsString::from_vec(b"hunter2\xFF".to_vec())),
                API_KEY => Some(KEY.into()),
                _ => None,
            };
            let text = CrossmintAuthConfigBuilder(read(get)).build().unwrap_err().to_string();
            assert_eq!(text, format!("the environment variable `{variable}` cannot be used: it is not Unicode"));
        }
    }
}
