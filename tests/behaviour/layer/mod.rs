//! The tower layer: requests, responses and bodies, and where it can be placed.

mod body;
mod extract;
mod grpc;
mod placement;
mod rejection;
mod routes;
mod server;
mod service;
