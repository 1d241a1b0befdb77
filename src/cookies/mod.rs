//! The two cookies: no other module reads or writes one, or tells caches what to do with a response.

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
