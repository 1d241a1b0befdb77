//! The fault matrix: every way for Crossmint to fail, in every state of the layer.
//!
//! Each cell asserts the outcome, and which calls were made for it: of the key set, of refreshes, of logouts.

mod clients;
mod http2;
mod jwks;
mod logout;
mod process;
mod refresh;
mod stage;
mod tls;
mod troubles;
