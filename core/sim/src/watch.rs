//! What is looked at after every step of a server: limits, places kept, calm.

use cordee_core::Outbox;
use cordee_core::chat::server::Effect;
use cordee_core::framing::{HEADER_BYTES, frames};
use cordee_core::wire::Message;
use cordee_core::wire::chat::{Attached, Intent, Redirect};
use cordee_core::wire::entry::Entry;
use cordee_core::wire::peer::{Pull, Reserve, ServerState};

use crate::rule::holds;
use crate::world::{End, World};

/// How many entries there are among what is sent at once.
fn entries_again(bytes: &[u8]) -> usize {
    frames(bytes).filter(|frame| frame.kind == Entry::KIND).count()
}

impl World {
    /// Looks at what a server is about to tell others.
    pub(crate) fn watch_effects(&mut self, node: usize, effects: &[Effect], out: &Outbox<Effect>) {
        let mut reserved = false;
        for effect in effects {
            match *effect {
                Effect::Send { conn, bytes, .. } => {
                    let bytes = out.bytes(bytes);
                    let Some(kind) = bytes.get(HEADER_BYTES - 1).copied() else { continue };
                    if kind == Pull::KIND && self.story.is_some() {
                        let Pull { origin, from, to } =
                            Pull::parse(&bytes[HEADER_BYTES..]).expect("valid");
                        let whom = self.end_of(node, conn);
                        self.note(|| {
                            format!("s{node} asks {whom} for {from} to {to} of {origin:?}")
                        });
                    }
                    let again = if self.story.is_some() { entries_again(bytes) } else { 0 };
                    if again > 0 && matches!(self.end_of(node, conn), End::Node { .. }) {
                        let whom = self.end_of(node, conn);
                        self.note(|| format!("s{node} sends {again} entries to {whom}"));
                    }
                    if kind == Reserve::KIND {
                        reserved = true;
                    } else if kind == Redirect::KIND {
                        holds!(self.history.tally, Reserved, reserved, "s{node} kept no place");
                    } else if kind == Attached::KIND {
                        let attached = Attached::parse(&bytes[HEADER_BYTES..]).expect("valid");
                        if attached.intent == Intent::New {
                            self.nodes[node].newcomers.insert(conn);
                        }
                    }
                }
                Effect::Close { conn, .. } => {
                    self.nodes[node].newcomers.remove(&conn);
                }
                _ => {}
            }
        }
    }

    /// Looks at a server between two inputs.
    pub(crate) fn watch(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(machine) = node.machine.as_ref() else { return };
        let (users, newcomers) = (machine.users() as u32, node.newcomers.len() as u32);
        let limits = &node.setup.limits;
        let within = newcomers <= limits.users_max && users <= limits.users_hard_max;
        holds!(
            self.history.tally,
            Limit,
            within,
            "s{index} has {users} users, {newcomers} of them newcomers"
        );
        if self.story.is_some() && node.linked_then != machine.linked() {
            let linked = machine.linked();
            self.nodes[index].linked_then = linked;
            self.note(|| format!("s{index} is linked with {linked}"));
        }
        let node = &self.nodes[index];
        let Some(machine) = node.machine.as_ref() else { return };
        if !node.was_active && machine.state() == ServerState::Active {
            self.nodes[index].was_active = true;
            self.on_active(index);
        }
    }

    /// A server that goes to work without another that works has a cluster of its own for now:
    /// what it calls final can move when they meet.
    fn on_active(&mut self, index: usize) {
        self.note(|| format!("s{index} is active"));
        let linked = self.nodes[index].machine().map_or(0, |machine| machine.linked());
        let works = |other: &usize| *other != index && self.nodes[*other].was_active;
        let others = (0..self.nodes.len()).filter(works);
        if others.filter(|other| self.nodes[*other].is_up()).count() > linked {
            self.history.unsettled = Some("two clusters met");
        }
    }
}
