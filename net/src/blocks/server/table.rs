//! Places for connections, and those that wait for their sockets or a time.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::connection::Handle;
use super::shared::Shared;
use crate::address::is_loopback;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, Wake, lock};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Table {
    state: Mutex<State>,
    pub(super) epoll: OwnedFd,
    pub(super) wake: Wake,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// By the time at which they are served whatever their sockets do.
    due: BTreeSet<(Instant, u32)>,
    addresses: HashMap<IpAddr, u32>,
    taken: u32,
    refused: u32,
    /// Until when the poller sleeps at most; none while it does not.
    asleep_until: Option<Option<Instant>>,
    /// Nobody is parked any more.
    closed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Which connection of those that had the place.
    generation: u32,
    registered: bool,
    refused: bool,
    address: Option<IpAddr>,
    parked: Option<(Handle, Instant)>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    table: Arc<Table>,
    index: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.leave(self.index);
    }
}

/// How a newcomer is received.
#[derive(Debug)]
pub(super) enum Admission {
    /// It is served.
    Taken(Place),
    /// It is told in its own protocol that there is no place.
    Refused(Place),
    /// There are too many of those, too.
    None,
}

impl Table {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Arc<Table>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Wake::new()?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN | EventFlags::ET)?;
        Ok(Arc::new(Table { state: Mutex::new(State::default()), epoll, wake, shared }))
    }

    /// A place for a newcomer. When there is none left, one that has not said yet what it wants gives
    /// up its own: it comes second, to be told.
    pub(super) fn enter(self: &Arc<Table>, from: IpAddr) -> (Admission, Option<Handle>) {
        let limits = &self.shared.limits;
        let mut state = lock(&self.state);
        let counted = (!is_loopback(from)).then_some(from);
        let of_address = counted.and_then(|from| state.addresses.get(&from)).copied().unwrap_or(0);
        let mut displaced = None;
        let mut refused = of_address >= limits.connections_per_address_max;
        if !refused && state.taken >= limits.connections_max {
            displaced = state.displace();
            refused = displaced.is_none();
        }
        if refused && state.refused >= limits.refused_max {
            return (Admission::None, None);
        }
        let index = state.take_slot(counted, refused);
        self.count(&state);
        let too_many = state.refused > limits.refused_max;
        drop(state);
        if too_many {
            // So many are being told already that this one is not.
            displaced = None;
        }
        let place = Place { table: Arc::clone(self), index };
        let admission = if refused { Admission::Refused(place) } else { Admission::Taken(place) };
        (admission, displaced)
    }

    /// Keeps a connection until its socket is ready for what it waits for, or that time has come.
    /// A connection that cannot be kept is over.
    pub(super) fn park(&self, connection: Handle, interest: EventFlags, until: Instant) {
        let over = self.keep(&mut lock(&self.state), connection, interest, until);
        // Outside of the lock, which its place takes.
        drop(over);
    }

    fn keep(
        &self,
        state: &mut State,
        connection: Handle,
        interest: EventFlags,
        until: Instant,
    ) -> Option<Handle> {
        if state.closed {
            return Some(connection);
        }
        let index = connection.place.index;
        let slot = &mut state.slots[index as usize];
        if !interest.is_empty() {
            let data = EventData::new_u64(u64::from(slot.generation) << 32 | u64::from(index));
            let interest = interest | EventFlags::ONESHOT;
            let armed = if slot.registered {
                epoll::modify(&self.epoll, connection.socket(), data, interest)
            } else {
                epoll::add(&self.epoll, connection.socket(), data, interest)
            };
            if armed.is_err() {
                return Some(connection);
            }
            slot.registered = true;
        }
        slot.parked = Some((connection, until));
        state.due.insert((until, index));
        let early = |asleep: Option<Instant>| asleep.is_none_or(|wakes| until < wakes);
        if state.asleep_until.is_some_and(early) {
            state.asleep_until = None;
            self.wake.wake();
        }
        None
    }

    /// The connection of which an event was reported, unless it is being served or has gone.
    pub(super) fn ready(&self, event: u64) -> Option<Handle> {
        let index = event as u32;
        let mut state = lock(&self.state);
        let slot = state.slots.get_mut(index as usize)?;
        if u64::from(slot.generation) != event >> 32 {
            return None;
        }
        state.unpark(index)
    }

    /// Those whose time has come; and how long the poller may sleep then.
    pub(super) fn due(&self, now: Instant, into: &mut Vec<Handle>) -> Option<Instant> {
        let mut state = lock(&self.state);
        while let Some((until, index)) = state.due.first().copied()
            && until <= now
        {
            into.extend(state.unpark(index));
        }
        let next = state.due.first().map(|(until, _)| *until);
        state.asleep_until = if into.is_empty() { Some(next) } else { None };
        next
    }

    /// Everybody who waits.
    pub(super) fn all(&self) -> Vec<Handle> {
        let mut state = lock(&self.state);
        let waiting: Vec<u32> = state.due.iter().map(|(_, index)| *index).collect();
        waiting.into_iter().filter_map(|index| state.unpark(index)).collect()
    }

    /// Keeps nobody any more.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        drop(self.all());
    }

    /// How many places are taken.
    pub(super) fn len(&self) -> u32 {
        let state = lock(&self.state);
        state.taken + state.refused
    }

    fn leave(&self, index: u32) {
        let mut state = lock(&self.state);
        state.leave(index);
        self.count(&state);
        if self.shared.is_stopping() && state.taken + state.refused == 0 {
            self.wake.wake();
        }
    }

    fn count(&self, state: &State) {
        self.shared.connections.store(state.taken + state.refused, Ordering::Relaxed);
    }
}

impl State {
    fn take_slot(&mut self, address: Option<IpAddr>, refused: bool) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        if let Some(address) = address {
            *self.addresses.entry(address).or_default() += 1;
        }
        *if refused { &mut self.refused } else { &mut self.taken } += 1;
        let slot = &mut self.slots[index as usize];
        (slot.address, slot.refused, slot.registered) = (address, refused, false);
        index
    }

    fn leave(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        *if slot.refused { &mut self.refused } else { &mut self.taken } -= 1;
        if let Some(address) = slot.address.take()
            && let Some(count) = self.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
        self.free.push(index);
    }

    fn unpark(&mut self, index: u32) -> Option<Handle> {
        let (connection, until) = self.slots[index as usize].parked.take()?;
        self.due.remove(&(until, index));
        Some(connection)
    }

    /// Takes the place of one that waits and has not said what it wants: of the many that a flood opens,
    /// whichever comes first.
    fn displace(&mut self) -> Option<Handle> {
        let pending = self.due.iter().map(|(_, index)| *index).find(|index| {
            let parked = self.slots[*index as usize].parked.as_ref();
            parked.is_some_and(|(connection, _)| connection.is_pending())
        })?;
        let connection = self.unpark(pending)?;
        let slot = &mut self.slots[pending as usize];
        slot.refused = true;
        self.taken -= 1;
        self.refused += 1;
        Some(connection)
    }
}

/// Stands for the wake among the events.
pub(super) const WAKE: u64 = u64::MAX;
