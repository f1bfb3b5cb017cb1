//! Tests of the server.

mod admission;
mod claims;
mod delivery;
mod hostile;
mod peers;
mod queues;
