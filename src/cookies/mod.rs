//! The two cookies: no other module reads or writes one, or tells caches what to do with a response.

mod clear;
mod read;
mod response;
mod store;

pub(crate) use self::{
    clear::ClearScope,
    read::{CookieCredentials, Slot},
    response::{add_to_response, replace_in_response, vary_by_cookie},
    store::{MAX_COOKIE, is_cookie_value},
};
use crate::config::{CookieOptions, NamePairs};

/// Reads and writes the cookies of one configuration.
#[derive(Debug)]
pub(crate) struct Cookies {
    names: NamePairs,
    /// The bytes that the names begin with.
    initials: [u8; 4],
    options: CookieOptions,
}

impl Cookies {
    pub(crate) fn new(names: NamePairs, options: CookieOptions) -> Self {
        Self { initials: names.initials(), names, options }
    }
}

#[cfg(test)]
mod tests;
