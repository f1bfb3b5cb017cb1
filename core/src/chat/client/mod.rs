//! A chat client: keeps one session attached to one of many servers, whatever dies.
//!
//! ```text
//!            ┌────────────── primary lost ──────────────┐
//!            ▼                                          │
//!  seek ─▶ dial ─▶ hello ─▶ welcome ─▶ attach ─▶ attached ─▶ caught up ─▶ live
//!            ▲                 ▲          │  ▲
//!            │                 │          │  └── want ─▶ entries handed back
//!            └── redirect ─────┼──────────┘
//!                           standby: a second connection waits here
//! ```
//!
//! [`ChatClient`] is a [`Machine`]: the driver brings bytes, time and [`Command`]s, and does what
//! the [`Effect`]s say. What the application learns are the [`Event`]s among them.
//!
//! | file | concept |
//! | --- | --- |
//! | `way` | which server to connect to, the standby, what to do when one is lost |
//! | `attach` | from welcome to attached: names, redirects, handing back |
//! | `incoming`, `answers` | what an attached server sends, unasked and asked |
//! | `commands` | what the application wants |
//! | `outgoing`, `requests` | what was said and asked and is not answered |
//! | `seen`, `rows`, `rooms`, `store` | what was received: vector, rows, own rooms, entries kept |
//! | `roster` | who is there, which rooms there are |

mod answers;
mod api;
mod attach;
mod commands;
mod incoming;
mod limits;
mod link;
mod outgoing;
mod requests;
mod ring;
mod rooms;
mod roster;
mod rows;
mod seen;
mod store;
mod tell;
#[cfg(test)]
mod tests;
mod way;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

pub use api::{
    Command, Config, Effect, Event, Input, LinkId, Message, MessageId, Place, Target, items,
};
pub use limits::{ClientLimits, memory_bytes_max};
pub use ring::split_address;

use crate::hash;
use crate::ids::{AuthorId, SessionId, Tag};
use crate::machine::Machine;
use crate::names;
use crate::outbox::Outbox;
use crate::prng::Prng;
use crate::time::Time;
use crate::wire::Reason;
use crate::wire::chat::Intent;

use attach::HandBack;
use link::{Beat, Link, Phase};
use outgoing::Outgoing;
use requests::Requests;
use ring::Ring;
use rooms::{OwnRooms, Standing};
use roster::{Roster, RosterLimits};
use rows::Rows;
use seen::Seen;
use store::Store;
use way::{Spare, Way};

/// A chat client.
///
/// Ask [`Machine::poll_timeout`] right after [`new`](Self::new): the first connection is asked for
/// when that is due, which is at once.
#[derive(Debug)]
pub struct ChatClient {
    config: Config,
    prng: Prng,
    me: Me,
    ring: Ring,
    way: Way,
    spare: Spare,
    /// The connection that is attached, or is on the way to be.
    primary: Option<Link>,
    /// A connection to the server after that, welcome and idle.
    standby: Option<Link>,
    /// A connection that may become the standby.
    candidate: Option<Link>,
    next_link: u64,
    seen: Seen,
    rooms: OwnRooms,
    rows: Rows,
    /// Rows that were shown before they began to come anew: they are not shown again.
    shown_before: Rows,
    store: Store,
    /// Rows of talks that came.
    talks_held: u64,
    hand_back: Option<HandBack>,
    outgoing: Outgoing,
    requests: Requests,
    roster: Roster,
    /// Commands that came before the first attachment, their bytes, and how many are requests.
    waiting: VecDeque<Command>,
    waiting_bytes: usize,
    waiting_requests: usize,
    /// The lists of users and rooms that come on the first arrival.
    arrival: Arrival,
    /// Counts what the application wanted.
    order: u64,
    body_bytes_max: u32,
    stage: Stage,
    caught_up: bool,
    /// The session is attached, and what is outstanding waits until the server has said how it
    /// numbers the origins that messages are to name.
    resending: bool,
    quitting: bool,
    paused: bool,
}

/// Who the client is.
#[derive(Debug)]
struct Me {
    session: SessionId,
    process: u64,
    /// Empty while the application must choose one.
    name: String,
    /// The reference of the command that chose it.
    name_reference: u64,
    /// How many other names were tried because the own one was taken meanwhile.
    name_tries: u8,
    attachment: u32,
    /// What the next attachment asks for.
    intent: Intent,
    /// The id of the cluster that it was attached to.
    cluster: Option<Tag>,
    /// Own messages up to this number are shown when they come again: they were forgotten.
    forgotten: u64,
    /// How often entries were handed back to another cluster, which did not answer yet.
    offers: u8,
    /// How many messages had come before they were forgotten for a change of server.
    had: u64,
    /// How many messages had come from an archive that is gone, until the application was told.
    lost: Option<u64>,
}

/// The lists of the first arrival, as they are passed on.
#[derive(Debug, Default)]
struct Arrival {
    users: Vec<u8>,
    users_told: bool,
    rooms: Vec<u8>,
    rooms_told: bool,
}

/// How far the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Never attached: commands wait.
    Arriving,
    /// It was attached, and knows who is there.
    Arrived,
    /// It ended.
    Over,
}

/// Which of the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Primary,
    Standby,
    Candidate,
}

impl ChatClient {
    /// A client that has just started. `seed` is for jitter and for a new author's id; draw it.
    ///
    /// Panics when there is no server in `config`.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Time) -> Self {
        assert!(!config.servers.is_empty(), "a client needs a server to begin with");
        let limits = &config.limits;
        let mut rooms = OwnRooms::default();
        rooms.insert(names::COMMON_ROOM, Standing::In);
        for room in config.rooms.iter().take(limits.own_rooms_max as usize - 1) {
            rooms.insert(room, Standing::In);
        }
        let roster = Roster::new(RosterLimits {
            users_max: limits.users_max as usize,
            rooms_per_user_max: limits.own_rooms_max as usize,
            rooms_max: limits.rooms_max as usize,
        });
        let me = Me {
            session: hash::session_id(&config.cluster, &config.secret),
            process: config.process,
            name: config.name.clone(),
            name_reference: 0,
            name_tries: 0,
            attachment: config.attachment,
            intent: Intent::New,
            cluster: None,
            forgotten: 0,
            offers: 0,
            had: 0,
            lost: None,
        };
        ChatClient {
            ring: Ring::new(&config.servers),
            way: Way::new(&config, now),
            spare: Spare::new(limits),
            primary: None,
            standby: None,
            candidate: None,
            next_link: 0,
            seen: Seen::default(),
            rows: Rows::default(),
            shown_before: Rows::default(),
            store: Store::default(),
            talks_held: 0,
            hand_back: None,
            outgoing: Outgoing::default(),
            requests: Requests::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_requests: 0,
            arrival: Arrival::default(),
            order: 0,
            body_bytes_max: link::BODY_BYTES_MAX,
            stage: Stage::Arriving,
            caught_up: false,
            resending: false,
            quitting: false,
            paused: false,
            prng: Prng::new(seed),
            config,
            me,
            rooms,
            roster,
        }
    }

    /// The session's public id.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.me.session
    }

    /// Whether the client has ended: it wants nothing and takes nothing any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether another command can be taken now. One that comes nevertheless may be refused as
    /// [`Reason::Busy`].
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        // Whoever must choose a name first could not do so behind commands that wait.
        let chooses = self.me.name.is_empty();
        !self.is_full() || chooses
    }

    /// How many entries came of what the session may see, each once.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.rooms.held() + self.talks_held
    }

    fn is_full(&self) -> bool {
        let limits = &self.config.limits;
        let said = self.outgoing.kept() + self.waiting.len();
        said >= limits.unacknowledged_max as usize
            || self.outgoing.bytes() + self.waiting_bytes
                >= limits.unacknowledged_bytes_max as usize
            || self.requests.len() + self.waiting_requests >= limits.requests_max as usize
    }

    /// Who the author of the session's messages is. It becomes another one when the cluster has
    /// lost messages of this one that are not kept here any more either.
    #[must_use]
    pub fn author(&self) -> AuthorId {
        AuthorId { session: self.me.session, process: self.me.process }
    }

    fn is_attached(&self) -> bool {
        self.primary.as_ref().is_some_and(|link| link.phase == Phase::Attached)
    }

    /// Whether what is wanted can go out at once.
    fn is_sending(&self) -> bool {
        self.is_attached() && !self.resending
    }

    fn role(&self, link: LinkId) -> Option<Role> {
        let is = |slot: &Option<Link>| slot.as_ref().is_some_and(|held| held.id == link);
        if is(&self.primary) {
            Some(Role::Primary)
        } else if is(&self.standby) {
            Some(Role::Standby)
        } else if is(&self.candidate) {
            Some(Role::Candidate)
        } else {
            None
        }
    }

    fn link_mut(&mut self, role: Role) -> Option<&mut Link> {
        match role {
            Role::Primary => self.primary.as_mut(),
            Role::Standby => self.standby.as_mut(),
            Role::Candidate => self.candidate.as_mut(),
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.primary.iter().chain(&self.standby).chain(&self.candidate)
    }

    /// Forgets what was received: the whole archive is to come again, and to be shown again.
    fn forget(&mut self) {
        self.receive_anew();
        self.shown_before.forget();
        self.me.forgotten = self.outgoing.last();
    }

    /// The whole archive is to come again. What was shown is not shown again.
    fn receive_anew(&mut self) {
        self.shown_before.absorb(&mut self.rows, self.config.limits.authors_max);
        self.seen.forget();
        self.rooms.forget();
        self.store.forget();
        self.talks_held = 0;
        self.outgoing.forget();
        self.me.intent = Intent::Reset;
    }

    /// Ends the client: leaves for good where it can, and says what was left undone.
    fn finish(&mut self, why: Option<Reason>, out: &mut Outbox<Effect>) {
        if self.is_attached()
            && let Some(link) = &mut self.primary
        {
            link.send(&crate::wire::chat::Quit { reserved: 0 }, out);
        }
        for role in [Role::Primary, Role::Standby, Role::Candidate] {
            self.close(role, out);
        }
        self.stage = Stage::Over;
        self.way.retry_at = None;
        self.spare.retry_at = None;
        self.roster.forget();
        self.tell_closed(why, out);
    }

    /// Fires what is due on one connection.
    fn on_link_timeout(&mut self, now: Time, role: Role, out: &mut Outbox<Effect>) {
        let (paused, misses_max) = (self.paused, self.config.limits.misses_max);
        let Some(link) = self.link_mut(role) else { return };
        if link.deadline.is_some_and(|at| at <= now) {
            let why =
                if link.phase == Phase::Dialling { Reason::Unreachable } else { Reason::Silent };
            return self.fail(now, role, why, out);
        }
        if link.phase < Phase::Ready || link.pulse.next > now {
            return;
        }
        if paused {
            link.pulse.hear();
        }
        match link.pulse.beat(now, misses_max) {
            Beat::Ping => link.send(&crate::wire::hello::Ping { nonce: now.0 }, out),
            Beat::Dead => self.fail(now, role, Reason::Silent, out),
        }
    }
}

impl Machine for ChatClient {
    type Input<'a> = Input<'a>;
    type Effect = Effect;

    fn handle_input(&mut self, now: Time, input: Input<'_>, out: &mut Outbox<Effect>) {
        if self.is_over() {
            return;
        }
        match input {
            Input::Frame { link, frame } => {
                if let Some(role) = self.role(link) {
                    self.on_frame(now, role, frame, out);
                }
            }
            Input::Heard { link } => {
                let link = self.role(link).and_then(|role| self.link_mut(role));
                link.into_iter().for_each(|link| link.pulse.hear());
            }
            Input::Drained { link, bytes } => self.on_drained(now, link, bytes, out),
            Input::Opened { link } => {
                if let Some(role) = self.role(link) {
                    self.on_opened(now, role, out);
                }
            }
            Input::Failed { link } => self.on_void(now, link, Reason::Unreachable, out),
            Input::Closed { link } => self.on_void(now, link, Reason::Ended, out),
            Input::Broken { link, error } => {
                if let Some(role) = self.role(link) {
                    self.on_broken(now, role, error, out);
                }
            }
            Input::Paused(paused) => self.paused = paused,
            Input::Command(command) => self.on_command(now, command, out),
            Input::Stop => self.finish(None, out),
        }
        self.quit_when_done(out);
    }

    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Effect>) {
        // What fires moves its deadline beyond now, or takes a connection away; a standby that
        // takes the primary's place may be due itself.
        while self.poll_timeout().is_some_and(|at| at <= now) {
            for role in [Role::Primary, Role::Standby, Role::Candidate] {
                self.on_link_timeout(now, role, out);
            }
            if self.way.retry_at.is_some_and(|at| at <= now) {
                self.way.retry_at = None;
                self.seek(now, out);
            }
            if self.spare.retry_at.is_some_and(|at| at <= now) {
                self.spare.retry_at = None;
                self.spare.failed.clear();
                self.tend_standby(now, out);
            }
            self.roster.expire(now, &mut |change| tell::tell_change(&change, out));
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let links = self.links().filter_map(Link::next_deadline);
        let others = [self.way.retry_at, self.spare.retry_at, self.roster.next_deadline()];
        links.chain(others.into_iter().flatten()).min()
    }

    fn check(&self) {
        self.seen.check();
        self.store.check(self.config.limits.store_bytes_max);
        self.outgoing.check();
        self.requests.check();
        self.roster.check();
        for rows in [&self.rows, &self.shown_before] {
            assert!(rows.len() <= self.config.limits.authors_max as usize, "rows are bounded");
        }
        assert!(
            self.standby.as_ref().is_none_or(|link| link.phase == Phase::Ready),
            "a standby is ready"
        );
        assert!(
            self.candidate.as_ref().is_none_or(|link| link.phase < Phase::Ready),
            "a candidate is not"
        );
        let unplaced = self.primary.is_none() && self.way.retry_at.is_none();
        assert!(!unplaced || self.is_over(), "a client without a server looks for one");
        assert!(self.hand_back.is_none() || self.primary.is_some(), "handed back to somebody");
    }
}
