//! Why something was refused, ended or failed: a code on the wire, a word in JSON, a sentence.

use super::{Field, Reader, WireError};
use alloc::vec::Vec;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $word:literal, $text:literal;)*) => {
        /// Why a connection was refused or closed, or a request failed.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Reason { $($(#[$doc])* $name = $code,)* }

        impl Reason {
            /// Every reason there is, by code.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The word that stands for the reason in JSON; stable.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// A sentence for people: what is wrong, and the mend where there is one.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The reason of a code, [`Reason::Unknown`] for one that a newer version brought.
            #[must_use]
            pub const fn from_code(code: u16) -> Reason {
                match code { $($code => Reason::$name,)* _ => Reason::Unknown }
            }
        }
    };
}

reasons! {
    /// A code that this version does not know.
    Unknown = 0, "unknown", "a reason that this version does not know";
    // How a connection can be refused or closed.
    /// Bytes that are no valid frame or message.
    BadFrame = 1, "bad_frame", "what was sent is not a valid message";
    /// The first bytes are not those of the protocol.
    NotCordee = 2, "not_cordee", "this port speaks the Cordee protocol, what came does not";
    /// Another major version.
    WrongVersion = 3, "wrong_version", "another major version of the protocol";
    /// Another cluster's name.
    WrongCluster = 4, "wrong_cluster", "this server belongs to a cluster of another name";
    /// The secret is wrong or missing.
    WrongSecret = 5, "wrong_secret", "the secret is wrong or missing";
    /// Another server with the same id is linked already.
    SameServer = 6, "same_server", "another server has the same cluster and address";
    /// No hello in time.
    HelloTimeout = 7, "hello_timeout", "no complete hello came in time";
    /// A frame was begun and not finished in time.
    FrameTimeout = 8, "frame_timeout", "a frame was begun and not finished in time";
    /// Nothing came for too long.
    Idle = 9, "idle", "nothing came for too long";
    /// Nothing was read for too long.
    SlowReader = 10, "slow_reader", "nothing was read for too long: connect again to resume";
    /// No place for another connection.
    TooManyConnections = 11, "too_many_connections", "no place for another connection";
    /// More was sent than is allowed.
    Flood = 12, "flood", "too much was sent too fast";
    /// The session attached anew, here or elsewhere.
    Superseded = 13, "superseded", "the session is now attached elsewhere";
    /// All servers are full.
    Full = 14, "full", "all servers are full: a client tries again every few seconds";
    /// The server is still catching up.
    Joining = 15, "joining", "this server is still catching up: try the next";
    /// The server is about to stop.
    Draining = 16, "draining", "this server is about to stop: go on at the next";
    /// A message that does not belong here.
    Unexpected = 17, "unexpected", "a message that does not belong here";
    /// A clock more than a day ahead.
    ClockAhead = 18, "clock_ahead", "the other's clock is more than a day ahead";
    /// Both servers had dialled each other; the other connection stays.
    Redundant = 19, "redundant", "the other connection between these two servers stays";
    /// The client is going.
    Goodbye = 20, "goodbye", "goodbye";
    /// An older pending connection made room for a newer one.
    Displaced = 21, "displaced", "too many connections without a hello: make one and be quick";
    /// The server was removed from the cluster.
    Forgotten = 22, "forgotten", "this server was removed from the cluster";
    /// The connection fell silent: pings were missed.
    Silent = 23, "silent", "pings were not answered";
    /// The stream ended.
    Ended = 24, "ended", "the connection ended";
    /// Nobody listens there.
    Unreachable = 25, "unreachable", "nobody answers at that address";
    /// Another service than the one that was asked for listens there.
    WrongService = 26, "wrong_service", "another service of cordee listens there";
    // How a request can fail.
    /// The name belongs to somebody.
    NameTaken = 40, "name_taken", "the name is taken: choose another";
    /// The name has characters or a length that are not allowed.
    NameInvalid = 41, "name_invalid",
        "a name has 1 to 32 bytes: letters and digits, then also . _ - ~";
    /// After a partition healed, an earlier claim won.
    NameLost = 42, "name_lost", "somebody took the name earlier in another part of the network";
    /// The room's name has characters or a length that are not allowed.
    RoomInvalid = 43, "room_invalid",
        "a room's name is # and 1 to 63 bytes: letters, digits, . _ - ~";
    /// No such room.
    RoomUnknown = 44, "room_unknown", "there is no such room: /join makes one";
    /// The session is not in that room.
    NotMember = 45, "not_member", "you are not in that room: /join it first";
    /// The session is in as many rooms as it may.
    TooManyRooms = 46, "too_many_rooms", "no more rooms can be joined or made";
    /// The common room cannot be left.
    CommonRoom = 47, "common_room", "the common room cannot be left";
    /// No such user.
    UserUnknown = 48, "user_unknown", "there is no such user";
    /// The body is longer than allowed.
    BodyTooLong = 49, "body_too_long", "the message is too long";
    /// The body is empty.
    BodyEmpty = 50, "body_empty", "an empty message says nothing";
    /// The author's number is not the one that comes next.
    OutOfOrder = 51, "out_of_order", "an author's messages are taken in order only";
    /// The server was not started with the permission to be killed.
    KillForbidden = 52, "kill_forbidden", "this server was not started with --allow-kill";
    /// The request needs a session.
    NotAttached = 53, "not_attached", "choose a name first";
    /// A request of that kind is under way.
    Busy = 54, "busy", "the one before is still under way";
    /// The topic is longer than allowed.
    TopicTooLong = 55, "topic_too_long", "the topic is too long";
    /// Nothing to search for.
    SearchEmpty = 56, "search_empty", "say what to search for";
    /// The entry handed back is not one of this cluster's.
    BadTag = 57, "bad_tag", "an entry was handed back that this cluster did not accept";
    /// The member is not known.
    MemberUnknown = 58, "member_unknown", "no such member";
    /// Only an operator on the same machine may ask for that.
    OperatorOnly = 59, "operator_only", "only an operator on the server's own machine may do that";
    /// What was asked for is not of the form it must have.
    BadRequest = 60, "bad_request", "the request makes no sense";
    /// The cluster has as many talks as it may.
    TooManyTalks = 61, "too_many_talks", "no more talks between two users can be begun";
    /// The member is linked, or heard by one that is.
    MemberAlive = 62, "member_alive", "that member is alive: stop it first";
    /// The member is the server that is asked.
    MemberItself = 63, "member_itself", "a server does not forget itself: ask another one";
    /// The archive dropped the messages that are asked for.
    Trimmed = 64, "trimmed", "messages that old are not kept any more";
    // How a block server can refuse.
    /// No such file.
    FileUnknown = 80, "file_unknown", "there is no such file";
    /// A name that leads outside of what is served, or to what is never served.
    FileForbidden = 81, "file_forbidden",
        "that name is not served: nothing outside the directory, no hidden or unfinished files";
    /// The name is a directory's.
    FileIsDirectory = 82, "file_is_directory", "that is a directory";
    /// The file changed while it was open.
    FileChanged = 83, "file_changed", "the file changed while it was read";
    /// The server could not read the file.
    FileUnreadable = 84, "file_unreadable", "the server cannot read that file";
    /// The file's hashes are not known yet.
    FileHashing = 85, "file_hashing", "the file is still being hashed";
    /// The request was taken back.
    Cancelled = 86, "cancelled", "the request was cancelled";
}

impl Reason {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl From<WireError> for Reason {
    fn from(error: WireError) -> Reason {
        match error {
            WireError::NotCordee => Reason::NotCordee,
            _ => Reason::BadFrame,
        }
    }
}

impl Field<'_> for Reason {
    fn put(&self, out: &mut Vec<u8>) {
        self.code().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Reason::from_code(u16::take(from)?))
    }
}
