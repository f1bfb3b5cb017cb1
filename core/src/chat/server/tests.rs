//! Tests of the server.

mod hostile;
