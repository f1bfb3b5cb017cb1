//! Connections that a script writes itself: observers, operators, and whoever means harm.

use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, frames};
use cordee_core::time::MILLI_US;
use cordee_core::wire::chat::{AskServer, Done, Failed, Forget, MemberState, ServerStatus};
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Reason, VERSION_MAJOR, VERSION_MINOR};

use crate::world::{CLUSTER, RawId, World};

impl World {
    /// Opens a connection to a server and says hello.
    pub fn open_as(&mut self, node: usize, role: Role) -> RawId {
        let raw = self.open(node);
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: CLUSTER,
        };
        self.write_message(raw, &hello);
        raw
    }

    /// Writes a message.
    pub fn write_message<'a, M: Message<'a>>(&mut self, raw: RawId, message: &M) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.write(raw, &bytes);
    }

    /// The frames that came: kind and payload.
    #[must_use]
    pub fn frames_on(&self, raw: RawId) -> Vec<(u8, Vec<u8>)> {
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut all = Vec::new();
        for piece in self.received(raw).chunks(4 << 10) {
            deframer.extend(piece);
            let ready = deframer.ready().expect("a server sends valid frames").to_vec();
            all.extend(frames(&ready).map(|frame| (frame.kind, frame.payload.to_vec())));
            deframer.consume(ready.len());
        }
        all
    }

    /// Why the server ended the connection, when it did and said so.
    #[must_use]
    pub fn farewell(&self, raw: RawId) -> Option<Reason> {
        let frames = self.frames_on(raw);
        let (kind, payload) = frames.last()?;
        let bye = (*kind == Bye::KIND).then(|| Bye::parse(payload).expect("valid"))?;
        self.is_over(raw).then_some(bye.reason)
    }

    /// An operator at one server forgets another.
    pub fn forget(&mut self, node: usize, address: &str) -> RawId {
        let raw = self.open_as(node, Role::Observer);
        self.write_message(raw, &Forget { request: 1, address });
        raw
    }

    /// Whether a request was done.
    #[must_use]
    pub fn is_done(&self, raw: RawId) -> bool {
        self.frames_on(raw).iter().any(|(kind, _)| *kind == Done::KIND)
    }

    /// Why a request was refused.
    #[must_use]
    pub fn refused(&self, raw: RawId) -> Option<Reason> {
        let frames = self.frames_on(raw);
        let (_, failed) = frames.iter().find(|(kind, _)| *kind == Failed::KIND)?;
        Some(Failed::parse(failed).expect("valid").reason)
    }

    /// How a server sees another, as its status says. Takes some time.
    pub fn member_state(&mut self, node: usize, address: &str) -> Option<MemberState> {
        let raw = self.open_as(node, Role::Observer);
        self.write_message(raw, &AskServer { users: false });
        self.run(500 * MILLI_US);
        let frames = self.frames_on(raw);
        let (_, status) = frames.iter().find(|(kind, _)| *kind == ServerStatus::KIND)?;
        let status = ServerStatus::parse(status).expect("valid");
        let member = status.members.iter().find(|member| member.address == address);
        self.hang_up(raw);
        member.map(|member| member.state)
    }
}
