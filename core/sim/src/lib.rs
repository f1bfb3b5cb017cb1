//! Many machines under virtual time and faults.
