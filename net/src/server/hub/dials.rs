//! Members that are looked for in vain: an operator is told, once, and why.
//!
//! A member that is started a moment later is no news, so only what fails for a while is told.

use std::collections::BTreeMap;

use cordee_core::Time;
use cordee_core::chat::server::DialId;
use cordee_core::ids::ConnId;
use cordee_core::time::SECOND_US;
use cordee_core::wire::Reason;

/// Addresses that are dialled, and those that fail.
#[derive(Debug, Default)]
pub(super) struct Dials {
    under_way: BTreeMap<DialId, String>,
    /// Connections that were made and are no link yet.
    connected: BTreeMap<ConnId, String>,
    failing: BTreeMap<String, Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Time,
    last: Time,
    told: bool,
}

impl Dials {
    pub(super) fn begin(&mut self, dial: DialId, address: String) {
        self.under_way.insert(dial, address);
    }

    pub(super) fn connected(&mut self, dial: DialId, conn: ConnId) {
        if let Some(address) = self.under_way.remove(&dial) {
            self.connected.insert(conn, address);
        }
    }

    /// The connection is a link: all is well with its address.
    pub(super) fn linked(&mut self, conn: ConnId) {
        if let Some(address) = self.connected.remove(&conn) {
            self.failing.remove(&address);
        }
    }

    /// A dial failed. Returns what an operator should know.
    pub(super) fn failed(&mut self, dial: DialId, now: Time, why: &str) -> Option<String> {
        let address = self.under_way.remove(&dial)?;
        self.note(address, now, why)
    }

    /// A connection ended. If it was dialled and never was a link, its address fails; unless another
    /// connection is that link.
    pub(super) fn ended(&mut self, conn: ConnId, now: Time, why: Reason) -> Option<String> {
        if why == Reason::Redundant {
            self.linked(conn);
            return None;
        }
        let address = self.connected.remove(&conn)?;
        self.note(address, now, why.text())
    }

    fn note(&mut self, address: String, now: Time, why: &str) -> Option<String> {
        let line = format!("no link with {address}: {why}");
        let new = || Failing { since: now, last: now, told: false };
        let failing = self.failing.entry(address).or_insert_with(new);
        if now.since_us(failing.last) > PAUSE_US {
            *failing = new();
        }
        failing.last = now;
        let due = !failing.told && now.since_us(failing.since) >= PATIENCE_US;
        failing.told |= due;
        due.then_some(line)
    }
}

/// How long an address fails before that is told.
const PATIENCE_US: u64 = 3 * SECOND_US;
/// After such a time without a dial, failing begins anew.
const PAUSE_US: u64 = 30 * SECOND_US;

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { index: 1, generation: 0 };

    fn at(seconds: u64) -> Time {
        Time(seconds * SECOND_US)
    }

    #[test]
    fn what_fails_for_a_while_is_told_once_with_the_reason() {
        let mut dials = Dials::default();
        let mut told = Vec::new();
        for second in 0..20 {
            dials.begin(DialId(second), "b:5000".to_owned());
            if second % 2 == 0 {
                told.extend(dials.failed(DialId(second), at(second), "refused"));
            } else {
                dials.connected(DialId(second), CONN);
                told.extend(dials.ended(CONN, at(second), Reason::WrongCluster));
            }
        }
        let why = Reason::WrongCluster.text();
        assert_eq!(told, [format!("no link with b:5000: {why}")]);
    }

    #[test]
    fn a_link_ends_the_failing_and_its_own_end_is_no_failure() {
        let mut dials = Dials::default();
        dials.begin(DialId(1), "b:5000".to_owned());
        assert_eq!(dials.failed(DialId(1), at(0), "refused"), None);
        dials.begin(DialId(2), "b:5000".to_owned());
        dials.connected(DialId(2), CONN);
        dials.linked(CONN);
        assert_eq!(dials.ended(CONN, at(9), Reason::Ended), None);
        dials.begin(DialId(3), "b:5000".to_owned());
        assert_eq!(dials.failed(DialId(3), at(10), "refused"), None, "it has just begun");
    }
}
