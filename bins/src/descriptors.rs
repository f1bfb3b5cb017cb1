//! Every connection is a descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as this process may have. With fewer a server takes fewer connections, and says so.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
