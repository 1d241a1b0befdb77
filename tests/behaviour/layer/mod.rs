//! The tower layer: what it does with requests, responses and bodies, and where it can stand.

mod body;
mod extract;
mod grpc;
mod placement;
mod rejection;
mod routes;
mod server;
mod service;
