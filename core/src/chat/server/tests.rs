//! Tests of the server.

mod admission;
mod claims;
mod hostile;
mod peers;
mod queues;
