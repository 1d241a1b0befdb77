//! The tower layer: requests, responses and bodies, and where it can be placed.

mod bearer;
mod body;
mod extract;
mod grpc;
mod login_page;
mod placement;
mod policies;
mod rejection;
mod routes;
mod server;
mod service;
mod stacks;
mod streams;
mod tenants;
