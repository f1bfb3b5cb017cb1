//! The one contract that every machine keeps.

use crate::outbox::Outbox;
use crate::time::Time;

/// A sans-IO state machine: bytes and time in, effects out.
///
/// The caller owns the outbox and drains it after every call. A machine reads no clock, draws no
/// global randomness, opens nothing and returns no errors from `handle_*`: a misbehaving peer is
/// an effect, a caller's mistake is a panic.
pub trait Machine {
    /// What can happen to the machine, in the past tense.
    type Input<'a>;
    /// What the machine wants done, in the imperative.
    type Effect;

    /// Takes one input in.
    fn handle_input(&mut self, now: Time, input: Self::Input<'_>, out: &mut Outbox<Self::Effect>);

    /// Fires every deadline that is due at `now`; does nothing when none is.
    ///
    /// Afterwards [`poll_timeout`](Self::poll_timeout) is later than `now`.
    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Self::Effect>);

    /// The next deadline, `None` when there is nothing to wait for.
    fn poll_timeout(&self) -> Option<Time>;

    /// Panics with a description when an invariant of the machine does not hold.
    fn check(&self);
}
