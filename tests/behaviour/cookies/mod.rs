//! The two cookies.

mod planted;
mod read;
mod unscoped;
mod write;
