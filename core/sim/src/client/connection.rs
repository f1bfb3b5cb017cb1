//! What the world tells a client: time, connections, bytes.

use super::*;

impl Client {
    pub(crate) fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        match self.state {
            State::Waiting(at) | State::Connecting(at) => Some(at),
            State::Attaching | State::Attached => Some(self.next_ping),
            State::Stopped => None,
        }
    }

    pub(crate) fn on_time(&mut self, now: Time) {
        self.now = now;
        if self.asleep && matches!(self.state, State::Attaching | State::Attached) {
            self.next_ping = now + PING_US;
            self.heard = now;
            // Whoever sleeps amid a change of servers goes on with it when it wakes.
            if let State::Waiting(at) | State::Connecting(at) = &mut self.state {
                *at = (*at).max(self.next_ping);
            }
            return;
        }
        match self.state {
            State::Waiting(at) if at <= now => {
                self.state = State::Connecting(now + CONNECT_US);
                self.actions.push_back(Action::Connect(self.server.clone()));
            }
            State::Connecting(at) if at <= now => self.on_closed(now),
            State::Attaching | State::Attached if self.next_ping <= now => {
                if now.since_us(self.heard) > PING_US * PINGS_MISSED_MAX {
                    self.lose(now, Reason::Silent);
                    return;
                }
                self.next_ping = now + PING_US;
                self.put(&Ping { nonce: now.0 });
            }
            _ => {}
        }
    }

    pub(crate) fn on_connected(&mut self, now: Time) {
        if !matches!(self.state, State::Connecting(_)) {
            return;
        }
        self.now = now;
        self.deframer = Deframer::new(FRAME_BYTES_MAX);
        self.refs.clear();
        self.given_up.clear();
        self.heard = now;
        self.next_ping = now + PING_US;
        self.state = State::Attaching;
        let cluster = self.cluster.clone();
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: Role::Client,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: &cluster,
        };
        self.put(&hello);
        self.send_attach();
    }

    pub(crate) fn on_closed(&mut self, now: Time) {
        if !matches!(self.state, State::Stopped | State::Waiting(_)) {
            self.lose(now, Reason::Ended);
        }
    }

    pub(crate) fn on_bytes(&mut self, now: Time, bytes: &[u8]) {
        self.now = now;
        self.heard = now;
        self.deframer.extend(bytes);
        let ready = self.deframer.ready().expect("a server sends valid frames").to_vec();
        self.deframer.consume(ready.len());
        for frame in frames(&ready) {
            if !matches!(self.state, State::Attaching | State::Attached) {
                return;
            }
            self.on_frame(frame);
        }
    }

    pub(super) fn tell(&mut self, happened: Happened) {
        self.happened.push(happened);
        self.happened_at.push(self.now);
    }
}
