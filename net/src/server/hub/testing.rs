//! A hub without threads around it, driven by a test.

use super::*;
use crate::acceptor::Acceptor;
use crate::server::keeper::Keeper;
use crate::server::reader::Desk;
use crate::server::storage::MemoryStorage;
use cordee_core::chat::server::Config;

/// A hub that is driven by the test.
pub(crate) fn testing<N: Node>(inbox: &Arc<Inbox>, node: impl FnOnce(Config) -> N) -> Hub<N> {
    let listen = crate::socket::listen("127.0.0.1:0".parse().expect("an address"));
    let listener = listen.expect("a free port");
    let acceptor = Acceptor::new(listener, Log::none());
    let from = "127.0.0.1".parse().expect("an address");
    let (_, keeper) = Keeper::new(Arc::clone(inbox), Log::none(), from);
    let limits = Limits::default();
    let parts = Parts {
        clock: Clock::start(),
        inbox: Arc::clone(inbox),
        readers: vec![Arc::new(Desk::new().expect("descriptors"))],
        pumps: vec![Arc::new(Mailbox::new().expect("descriptors"))],
        keeper,
        acceptor: acceptor.expect("descriptors").stopper(),
        storage: Box::new(MemoryStorage::default()),
        on_crash: OnCrash::End,
        limits: limits.clone(),
        log: Log::none(),
    };
    let config = Config {
        cluster: "test".to_owned(),
        advertise: "127.0.0.1:1".to_owned(),
        peers: Vec::new(),
        copies: 1,
        allow_kill: false,
        pid: 1,
        incarnation: 1,
        entropy: [0; 64],
        wall: wall(),
        limits,
    };
    Hub::new(node(config), parts)
}

impl<N: Node> Hub<N> {
    /// A new connection that nobody is at the other end of.
    pub(crate) fn connected(&mut self) -> ConnId {
        let domain = socket2::Domain::IPV4;
        let socket = Socket::new(domain, socket2::Type::STREAM, None).expect("a descriptor");
        let address = "127.0.0.1:1".parse().expect("an address");
        let source = Source { address: 1, loopback: true };
        let conn = self.node.accept(Time::ZERO, source, &mut self.outbox).expect("room");
        self.link(conn, socket, address, false);
        conn
    }

    pub(crate) fn one_round(&mut self) {
        self.parts.inbox.take(&mut self.taken, None);
        self.round(Time::ZERO);
    }
}
