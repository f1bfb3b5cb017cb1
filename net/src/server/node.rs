//! What the hub drives: the machine of a server, or a small one in a test.

use cordee_core::chat::server::{ChatServer, DialId, Effect, Input, Source};
use cordee_core::ids::ConnId;
use cordee_core::wire::Reason;
use cordee_core::{Machine, Outbox, Time};

/// The calls of [`ChatServer`] that the hub makes.
pub(crate) trait Node: Send + 'static {
    fn accept(
        &mut self,
        now: Time,
        source: Source,
        out: &mut Outbox<Effect>,
    ) -> Result<ConnId, Reason>;
    fn dialled(&mut self, now: Time, dial: DialId, out: &mut Outbox<Effect>) -> Option<ConnId>;
    fn handle_input(&mut self, now: Time, input: Input<'_>, out: &mut Outbox<Effect>);
    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Effect>);
    fn poll_timeout(&self) -> Option<Time>;
}

impl Node for ChatServer {
    fn accept(
        &mut self,
        now: Time,
        source: Source,
        out: &mut Outbox<Effect>,
    ) -> Result<ConnId, Reason> {
        ChatServer::accept(self, now, source, out)
    }

    fn dialled(&mut self, now: Time, dial: DialId, out: &mut Outbox<Effect>) -> Option<ConnId> {
        ChatServer::dialled(self, now, dial, out)
    }

    fn handle_input(&mut self, now: Time, input: Input<'_>, out: &mut Outbox<Effect>) {
        Machine::handle_input(self, now, input, out);
    }

    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Effect>) {
        Machine::handle_timeout(self, now, out);
    }

    fn poll_timeout(&self) -> Option<Time> {
        Machine::poll_timeout(self)
    }
}
