//! Doing what the machine wants.

use cordee_core::chat::server::Effect;
use cordee_core::ids::ConnId;
use cordee_core::log::Items;
use cordee_core::wire::Reason;

use super::{Ended, Hub};
use crate::server::node::Node;
use crate::server::pump::Command;
use crate::sync::Arc;

impl<N: Node> Hub<N> {
    pub(super) fn apply(&mut self, effect: Effect, arena: &[u8]) {
        // Whoever crashes does nothing more.
        if self.ended == Some(Ended::Crashed) {
            return;
        }
        match effect {
            Effect::Send { conn, bytes, notify } => {
                self.order_send(conn, &arena[bytes.range()], notify);
            }
            Effect::SendStamped { conn, bytes } => {
                if let Some(orders) = self.orders_of(conn) {
                    let bytes = orders.put(&arena[bytes.range()]);
                    orders.push(Command::SendStamped { conn, bytes });
                }
            }
            Effect::SendAt { conn, at, bytes } => {
                if let Some(orders) = self.orders_of(conn) {
                    let bytes = orders.put(&arena[bytes.range()]);
                    orders.push(Command::SendAt { conn, at, bytes });
                }
            }
            Effect::Publish { frames, items } => {
                self.builder.push(&arena[frames.range()], Items::new(&arena[items.range()]));
                if self.builder.bytes() >= CHUNK_BYTES {
                    self.cut_chunk();
                }
            }
            Effect::Trim { before } => {
                for orders in &mut self.orders {
                    orders.push(Command::Trim { before });
                }
            }
            Effect::Follow { conn, from, peer, mt } => {
                if peer {
                    self.dials.linked(conn);
                    self.note_peer(conn);
                }
                self.order_known(conn, Command::Follow { conn, from, peer, mt });
            }
            Effect::Unfollow { conn } => self.order_known(conn, Command::Unfollow { conn }),
            Effect::Show { conn, scope, at, mt } => {
                self.order_known(conn, Command::Show { conn, scope, at, mt });
            }
            Effect::Hide { conn, scope, at, mt } => {
                self.order_known(conn, Command::Hide { conn, scope, at, mt });
            }
            Effect::Dial { dial, address } => {
                let address = String::from_utf8_lossy(&arena[address.range()]);
                self.dials.begin(dial, address.clone().into_owned());
                self.parts.keeper.dial(dial, address.into_owned());
            }
            Effect::Persist { sequence, bytes } => {
                self.parts.storage.persist(sequence, &arena[bytes.range()]);
                self.persisting = true;
            }
            Effect::Pause { conn } => {
                if let Some(link) = self.links.get_mut(conn) {
                    link.paused = true;
                }
            }
            Effect::Unpause { conn } => self.unpause(conn),
            Effect::Discard { conn } => self.order_known(conn, Command::Discard { conn }),
            Effect::Close { conn, reason } => {
                self.unlink(conn, reason);
            }
            Effect::Crash => {
                self.ended = Some(Ended::Crashed);
                self.parts.log.warn("a user rehearses a crash");
                self.parts.on_crash.call();
            }
            Effect::Stopped => self.ended = Some(Ended::Stopped),
        }
    }

    fn unpause(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(conn) {
            link.paused = false;
            if std::mem::take(&mut link.held) {
                link.credit.give_back();
            }
        }
    }

    /// From now on this connection is served before clients.
    fn note_peer(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(conn) else { return };
        link.credit.set_peer();
        if !std::mem::replace(&mut link.peer, true) {
            self.parts.log.info(&format!("linked with {}", link.address));
        }
    }

    /// Forgets a connection: the pump sends what is queued and closes it, its reader discards what still comes.
    /// Returns whether it was known.
    pub(super) fn unlink(&mut self, conn: ConnId, why: Reason) -> bool {
        let Some(link) = self.links.remove(conn) else { return false };
        if let Some(line) = self.dials.ended(conn, self.parts.clock.now(), why) {
            self.parts.log.warn(&line);
        }
        link.credit.close();
        if link.peer {
            self.parts.log.info(&format!("lost the link with {}: {why}", link.address));
        } else {
            self.parts.log.debug(&format!("closed {}: {}", link.address, why.word()));
        }
        self.order(conn, Command::Close { conn });
        true
    }

    fn order_send(&mut self, conn: ConnId, send: &[u8], send_notify: bool) {
        let Some(orders) = self.orders_of(conn) else { return };
        let sent = orders.put(send);
        // What goes to one connection in a row is one command.
        if let Some(Command::Send { conn: last, bytes, notify }) = orders.commands.last_mut()
            && *last == conn
            && bytes.end == sent.start
        {
            bytes.end = sent.end;
            *notify |= send_notify;
            return;
        }
        orders.push(Command::Send { conn, bytes: sent, notify: send_notify });
    }

    pub(super) fn order_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.order_send(conn, bytes, false);
    }

    fn order_known(&mut self, conn: ConnId, command: Command) {
        if self.links.has(conn) {
            self.order(conn, command);
        }
    }

    pub(super) fn order(&mut self, conn: ConnId, command: Command) {
        let pump = conn.index as usize % self.orders.len();
        self.orders[pump].push(command);
    }

    /// What goes to the pump of a connection, if that is known.
    fn orders_of(&mut self, conn: ConnId) -> Option<&mut crate::server::pump::Orders> {
        let pump = conn.index as usize % self.orders.len();
        self.links.has(conn).then(|| &mut self.orders[pump])
    }

    /// Makes a chunk of what was published and gives it to every pump.
    fn cut_chunk(&mut self) {
        let chunk = Arc::new(self.builder.take());
        for orders in &mut self.orders {
            orders.push(Command::Chunk(Arc::clone(&chunk)));
        }
    }

    /// Ends a round: hands over what the pumps are to do.
    pub(super) fn flush(&mut self) {
        if !self.builder.is_empty() {
            self.cut_chunk();
        }
        for (orders, mailbox) in self.orders.iter_mut().zip(&self.parts.pumps) {
            if !orders.is_empty() {
                mailbox.put(orders);
            }
        }
    }
}

/// The connection that an effect is about.
pub(super) fn conn_of(effect: &Effect) -> Option<ConnId> {
    match *effect {
        Effect::Send { conn, .. }
        | Effect::SendStamped { conn, .. }
        | Effect::SendAt { conn, .. }
        | Effect::Follow { conn, .. }
        | Effect::Unfollow { conn }
        | Effect::Show { conn, .. }
        | Effect::Hide { conn, .. }
        | Effect::Pause { conn }
        | Effect::Unpause { conn }
        | Effect::Discard { conn }
        | Effect::Close { conn, .. } => Some(conn),
        Effect::Publish { .. }
        | Effect::Trim { .. }
        | Effect::Dial { .. }
        | Effect::Persist { .. }
        | Effect::Crash
        | Effect::Stopped => None,
    }
}

/// A chunk is cut when it is about so long: pumps send it in one slice, and trimming is not coarse.
const CHUNK_BYTES: usize = 128 << 10;
