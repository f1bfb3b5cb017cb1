//! What a client is started with, and how that can fail.

use cordee_core::chat::client::{ClientLimits, Config, split_address};
use cordee_core::ids::SessionSecret;
use cordee_core::names;
use cordee_core::wire::Reason;

/// What a client is started with.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// The cluster's name; a server of another cluster refuses the client.
    pub cluster: String,
    /// Where to look for a server first: `host:port` (IPv4, `[IPv6]` or a name). The client learns
    /// the others from the first that answers.
    pub servers: Vec<String>,
    /// The user's name. Empty: the client connects and waits for [`super::Command::Name`].
    pub name: String,
    /// Rooms to join besides the common one, with their `#`.
    pub rooms: Vec<String>,
    /// The session: whoever has it is that user. Keep it to come back as the same one.
    pub secret: SessionSecret,
    /// Half of the author's id: drawn anew for every client that starts.
    pub process: u64,
    /// The last [`super::Event::Connected`]'s `attachment` that was stored with the session; 0 for
    /// a new session. The client begins well above it, so that a stale file does no harm.
    pub attachment: u32,
    /// The classic behaviour: forget everything at every change of server, and receive the whole
    /// archive from the new one.
    pub reset: bool,
}

impl ChatConfig {
    /// A configuration with a new session, no name and no rooms but the common one.
    ///
    /// # Errors
    ///
    /// [`ClientError::Random`] when the system gives no random bytes.
    pub fn new(
        cluster: impl Into<String>,
        servers: Vec<String>,
    ) -> Result<ChatConfig, ClientError> {
        Ok(ChatConfig {
            cluster: cluster.into(),
            servers,
            name: String::new(),
            rooms: Vec::new(),
            secret: draw_secret()?,
            process: draw_u64()?,
            attachment: 0,
            reset: false,
        })
    }

    /// The machine's configuration, when this one makes sense.
    pub(super) fn checked(self) -> Result<Config, ClientError> {
        if self.servers.is_empty() {
            return Err(ClientError::NoServers);
        }
        if let Some(bad) = self.servers.iter().find(|address| split_address(address).is_none()) {
            return Err(ClientError::Address(bad.clone()));
        }
        if !self.name.is_empty() {
            let refuse = |reason| ClientError::Name { text: self.name.clone(), reason };
            names::user_key(&self.name).map_err(refuse)?;
        }
        let normalise = |room: &String| {
            names::room(room).map_err(|reason| ClientError::Name { text: room.clone(), reason })
        };
        Ok(Config {
            rooms: self.rooms.iter().map(normalise).collect::<Result<_, _>>()?,
            cluster: self.cluster,
            servers: self.servers,
            name: self.name,
            secret: self.secret,
            process: self.process,
            // A client that died may have attached more often than it could write down.
            attachment: self.attachment.saturating_add(ATTACHMENTS_UNWRITTEN),
            reset: self.reset,
            limits: ClientLimits::default(),
        })
    }
}

/// Attachments that a client may have made and not stored.
const ATTACHMENTS_UNWRITTEN: u32 = 64;

/// Draws a session's secret from the system's random source.
///
/// # Errors
///
/// [`ClientError::Random`] when the system gives no random bytes.
pub fn draw_secret() -> Result<SessionSecret, ClientError> {
    let mut secret = [0; 16];
    fill_random(&mut secret)?;
    Ok(SessionSecret(secret))
}

/// Draws 64 random bits.
pub(super) fn draw_u64() -> Result<u64, ClientError> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn fill_random(bytes: &mut [u8]) -> Result<(), ClientError> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ClientError::Random(error.into())),
        }
    }
    Ok(())
}

/// Why a client cannot start, or takes no command.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address to connect to.
    #[error("no server to connect to: give at least one address, host:port")]
    NoServers,
    /// An address that is not `host:port`.
    #[error("{0:?} is not an address: write host:port, for IPv6 [host]:port")]
    Address(String),
    /// A name or a room that is not allowed.
    #[error("{text:?}: {reason}")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[source] std::io::Error),
    /// The system has no thread or descriptor left for the client.
    #[error("the client cannot start: {0}")]
    Start(#[source] std::io::Error),
    /// The client has ended.
    #[error("the client has ended")]
    Closed,
}
