//! What the hub knows of each connection.

use std::net::SocketAddr;

use cordee_core::ids::ConnId;
use socket2::Socket;

use crate::server::credit::Credit;
use crate::sync::Arc;

/// A connection as the hub sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnId,
    /// Where the other end is, for the log.
    pub(super) address: SocketAddr,
    pub(super) socket: Arc<Socket>,
    pub(super) credit: Arc<Credit>,
    /// Whether it follows the log as a peer.
    pub(super) peer: bool,
    /// What the machine knows of a frame that has begun and is not whole.
    pub(super) begun: u32,
    /// Whether the reader is not to have its credit back.
    pub(super) paused: bool,
    /// Whether it is withheld.
    pub(super) held: bool,
}

/// Connections by id.
#[derive(Debug, Default)]
pub(super) struct Links {
    slots: Vec<Option<Link>>,
}

impl Links {
    pub(super) fn insert(&mut self, link: Link) {
        let index = link.id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        assert!(self.slots[index].is_none(), "an id is given again only after its close");
        self.slots[index] = Some(link);
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Link> {
        let link = self.slots.get_mut(conn.index as usize)?.as_mut();
        link.filter(|link| link.id == conn)
    }

    pub(super) fn has(&self, conn: ConnId) -> bool {
        let link = self.slots.get(conn.index as usize).and_then(Option::as_ref);
        link.is_some_and(|link| link.id == conn)
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Link> {
        self.slots.get_mut(conn.index as usize)?.take_if(|link| link.id == conn)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.slots.iter().flatten()
    }
}
