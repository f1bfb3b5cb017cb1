//! Tests of the server.

mod hostile;
mod queues;
