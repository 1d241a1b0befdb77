//! The two cookies. No other module reads or writes a cookie or a caching header.

mod clear;
mod read;
mod response;
mod store;

pub(crate) use self::{
    clear::ClearScope,
    read::{CookieCredentials, Slot},
    response::{add_to_response, replace_in_response, vary_by_cookie},
    store::{Cookies, MAX_COOKIE, is_cookie_value},
};

#[cfg(test)]
mod tests;
