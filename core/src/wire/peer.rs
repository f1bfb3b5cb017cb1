//! Messages between two servers.

use super::chat::MemberState;
use super::entry::Scope;
use super::{ADDRESS_BYTES_MAX, Fixed64, Seq, VECTOR_PAIRS_MAX, wire, wire_enum};
use crate::hash::ClusterKey;
use crate::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, Tag};
use crate::names::NAME_BYTES_MAX;

wire_enum! {
    /// What a server does now.
    ServerState {
        /// It catches up and takes no sessions.
        Joining = 0,
        /// It serves.
        Active = 1,
        /// It is about to stop and takes no sessions.
        Draining = 2,
    }
    /// How a session stands.
    Presence {
        /// Attached at its home.
        Online = 0,
        /// Its connection or its home was lost; it may come back.
        Away = 1,
        /// It departed.
        Gone = 2,
    }
}

wire! {
    /// A member of the cluster.
    MemberRecord<'a> {
        /// Its id.
        server: ServerId,
        /// Its advertised address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// Its latest origin, as far as the sender knows; incarnation 0 when it knows of none.
        origin: Origin,
        /// How it stands.
        state: MemberState,
        /// Raised by whoever changes the state of a member that cannot speak for itself.
        version: u64,
    }

    /// What is left of the starts of a server up to one of them, all of which ended.
    Past {
        /// The last of them: whatever is not later belongs to them.
        through: Origin,
        /// What they add to the hash over the vector.
        vector: Fixed64,
        /// What they add to the sum in the digest.
        digest: Tag,
    }

    /// Messages of one author.
    MessageRange {
        /// Whose.
        author: AuthorId,
        /// The first of them.
        from: u64,
        /// The last of them.
        through: u64,
        /// At least the clock of every message of the author that the sender had.
        clock: Clock,
    }

    /// Introduces a server to another, from both sides, after hello and welcome.
    [0x50] PeerHello<'a> {
        /// Who speaks.
        server: ServerId,
        /// Its present origin.
        origin: Origin,
        /// Its advertised address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// The cluster's id as it knows it.
        cluster_id: Tag,
        /// When that cluster was founded: the earliest wins where two meet.
        founded: Clock,
        /// The key of the tags that goes with the id.
        key: ClusterKey,
        /// Its clock: above everything it stamped or announced.
        clock: Clock,
        /// Up to this clock it told clients that indexes are final.
        final_clock: Clock,
        /// The highest incarnation that it knows of an earlier start of the listener.
        known_incarnation: u32,
        /// What it is doing.
        state: ServerState,
        /// Everyone it knows.
        members: Seq<'a, MemberRecord<'a>>,
    }

    /// A part of the vector of what the sender holds, sent once at linking.
    [0x51] PeerVector<'a> {
        /// Whether another part follows.
        more: bool,
        /// Per origin: the highest number held without a gap, and the rolling hash there.
        held: Seq<'a, (Origin, u64, Tag)>[..=VECTOR_PAIRS_MAX],
    }

    /// The sender holds (persisted, showable) these now. Sent after each batch.
    [0x52] Have<'a> {
        /// Per origin, by the sender's references.
        held: Seq<'a, (OriginRef, u64)>[..=VECTOR_PAIRS_MAX],
    }

    /// A sign of life, every 150 ms.
    [0x53] Beat<'a> {
        /// The sender never stamps at or below this clock again.
        clock: Clock,
        /// A hash over the whole vector of what it holds: equal vectors, equal hashes.
        vector: Fixed64,
        /// The digest of its archive at that vector.
        digest: Tag,
        /// How many rows its archive has.
        ma: u64,
        /// What it is doing.
        state: ServerState,
        /// Users attached to it, with reservations.
        load: u32,
        /// Its limit of users.
        limit: u32,
        /// Per server that it hears directly, how long ago in milliseconds.
        heard: Seq<'a, (ServerId, u32)>,
    }

    /// Asks for entries of an origin, in order.
    [0x54] Pull {
        /// Whose.
        origin: Origin,
        /// The first number.
        from: u64,
        /// The last number.
        to: u64,
    }

    /// Asks whether a session may have a name.
    [0x55] Claim<'a> {
        /// Comes back in the vote.
        claim: u64,
        /// Who wants it.
        session: SessionId,
        /// The name.
        name: &'a str,
        /// When it was asked for: the earliest wins.
        clock: Clock,
    }

    /// The answer to a claim.
    [0x56] Vote {
        /// As in the claim.
        claim: u64,
        /// Whether the sender grants it.
        granted: bool,
    }

    /// The standing of a session, as its home last stated it. Merged by (attachment, version).
    [0x57] Session<'a> {
        /// Who.
        session: SessionId,
        /// The name as it is written.
        name: &'a str,
        /// When the name was claimed.
        claim: Clock,
        /// The attachment that this is about.
        attachment: u32,
        /// Raised with each change within an attachment.
        version: u64,
        /// Where it is, or was, attached.
        home: ServerId,
        /// How it stands.
        presence: Presence,
        /// Its rooms.
        rooms: Seq<'a, &'a str>,
    }

    /// A room. Rooms only ever come; the topic's last writer wins.
    [0x58] Room<'a> {
        /// Its name.
        room: &'a str,
        /// When it was first made.
        made: Clock,
        /// Its topic.
        topic: &'a str,
        /// When the topic was set; 0 when it never was.
        topic_clock: Clock,
        /// Who set it.
        topic_by: &'a str[..=NAME_BYTES_MAX],
    }

    /// A newcomer is about to be sent to the listener: keep a place for five seconds.
    [0x59] Reserve {
        /// What the newcomer will show.
        reservation: Fixed64,
    }

    /// How members stand that cannot speak for themselves.
    [0x5a] Members<'a> {
        /// The members.
        members: Seq<'a, MemberRecord<'a>>,
    }

    /// Everything that had to be said at linking was said.
    [0x5b] Linked {
        /// Nothing yet.
        reserved: u8,
    }
    /// What is left of an origin's oldest entries, which the sender trimmed. Scopes of one origin
    /// may come in several parts.
    [0x5c] Floor<'a> {
        /// Whose.
        origin: Origin,
        /// The last number that was trimmed.
        number: u64,
        /// The rolling hash after it.
        rolling: Tag,
        /// Its clock.
        clock: Clock,
        /// Up to it, rows by scope; a talk's other is empty.
        rows: Seq<'a, (Scope<'a>, u64)>,
    }

    /// Which messages are counted below the floors that were sent before. The last part makes the
    /// floor whole.
    [0x5d] FloorAuthors<'a> {
        /// Whether another part follows.
        more: bool,
        /// Whether the sender forgot authors who wrote nothing for long.
        forgot: bool,
        /// The messages.
        counted: Seq<'a, MessageRange>,
    }

    /// The sender has these no more as single origins. At linking all that there are, before the
    /// vector; then each that changed.
    [0x5e] Pasts<'a> {
        /// Of each server one.
        pasts: Seq<'a, Past>,
    }

    /// What is left of the entries of a past. Scopes of one may come in several parts.
    [0x5f] FloorPast<'a> {
        /// Of which.
        past: Past,
        /// At least the clock of each of the entries.
        clock: Clock,
        /// Rows by scope; a talk's other is empty.
        rows: Seq<'a, (Scope<'a>, u64)>,
    }
}
