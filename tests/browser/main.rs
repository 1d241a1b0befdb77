//! What only a browser can show: which cookies it sends and accepts, and which headers tell the site of a request.
//!
//! Needs `chromium` and `chromedriver`, and the tests of Crossmint's browser SDK need `npm`. Without them, the tests
//! report that and pass, unless `REQUIRE_BROWSER` is set, as `.ci/run` sets it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod cross_site;
mod planted;
mod sdk;
mod site;
mod web_socket;
mod webdriver;
