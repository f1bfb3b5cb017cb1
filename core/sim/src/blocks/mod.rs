//! Fetching under virtual time: one scheduler, sources that are slow, late, silent or lying.
//!
//! ```text
//! Fetch ── Request, Cancel, Close ──▶ Source: connections, one link, what it was told to do wrong
//!   ▲  └── Model: who was asked for what, independent of the scheduler     │
//!   └────── Arrived, Stored, Bad, Ended, Closed ◀── latency ◀── (shared link)
//! ```

mod fetch;
mod model;
mod random;
mod source;

pub use fetch::{Change, Ending, Fetch, Outcome};
pub use model::Model;
pub use random::{Story, draw_fetch, run_fetch};
pub use source::{Manner, SourcePlan};

/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
