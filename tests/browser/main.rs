//! What only a browser can show: which cookies it sends, which it takes, and what it says of where a request comes from.
//!
//! Needs `chromium` and `chromedriver`. Where they are not installed, the tests say so and pass, unless
//! `REQUIRE_BROWSER` is set, as `.ci/run` sets it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod cross_site;
mod planted;
mod site;
mod web_socket;
mod webdriver;
