//! The fault matrix: every way in which Crossmint can fail, in every state of the layer.
//!
//! Each cell asserts the outcome and the calls that led to it: for the key set, refreshes and logouts.

mod clients;
mod failures;
mod http2;
mod jwks;
mod logout;
mod process;
mod refresh;
mod stage;
mod tls;
