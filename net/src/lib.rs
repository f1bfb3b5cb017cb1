//! Drivers: blocking threads over sockets.
