//! Many machines under virtual time and faults.
//!
//! The servers are the machines of `cordee-core`, driven as a driver of sockets drives them: bytes
//! in order, cut anywhere, late, stalled or lost with their connection; a log of chunks that
//! cursors read; storage that takes its time. One heap of events moves all of them, every choice
//! is a hash of the seed and of what is chosen, so a seed and a script replay a run exactly.
//!
//! ```text
//! World ── events by (time, tie) ──▶ Node (machine, outlets) ◀── Pipes ──▶ Client
//!   └── History: what must hold, independent of the code under test
//! ```

pub mod blocks;
mod client;
mod draw;
mod drive;
mod faults;
pub mod fuzz;
mod history;
mod judge;
mod node;
mod observer;
mod perform;
mod pipe;
mod plan;
mod planted;
mod real;
mod rule;
mod shrink;
mod story;
mod watch;
mod world;

pub use client::{Client, Happened, Shown};
pub use draw::Draw;
pub use history::History;
pub use node::{Node, Setup};
pub use plan::{Act, Fault, Habit, Plan, What};
pub use planted::{Planted, SEEDS_MAX, hunt};
pub use real::Real;
pub use rule::{Rule, Tally};
pub use shrink::shrink;
pub use story::{Failure, Outcome, run};
pub use world::{Counts, Cut, Options, RawId, World};
