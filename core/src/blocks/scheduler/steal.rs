//! The end of a file: idle connections take from those that will be long about their runs.

use super::Scheduler;
use super::api::Effect;
use super::plan::time_us;
use super::runs::Conn;
use crate::outbox::Outbox;
use crate::time::{MILLI_US, Time};

/// What a split must gain, and what a second request for one block must.
const SPLIT_GAIN_US: u64 = 10 * MILLI_US;
const HEDGE_GAIN_US: u64 = 20 * MILLI_US;
/// So many blocks, and one of a hundred, may be asked for twice for that; the next one must gain this,
/// the one after twice as much, and so on.
const HEDGES_FREE: u64 = 4;
const DEAR_GAIN_US: u64 = crate::time::SECOND_US;
/// From one that needs longer than this, also those take a block whose speed is not known yet.
const SLOW_US: u64 = 100 * MILLI_US;

/// Who has the most to do, and what.
struct Victim {
    at: usize,
    /// Index of its last run that can be split.
    run: usize,
    /// What it needs for all that it owns.
    finish_us: u64,
}

impl Scheduler {
    /// Takes the tail of somebody's run for an idle connection, in proportion to the two speeds;
    /// where that is less than a block, asks for the same block.
    pub(super) fn take_from_another(
        &mut self,
        now: Time,
        at: usize,
        most: u64,
        out: &mut Outbox<Effect>,
    ) -> bool {
        let conn = &self.conns[at];
        let source = conn.source;
        if conn.in_flight_blocks() > 0 || !self.sources[source].may_take {
            return false;
        }
        let Some(victim) = self.victim(now, at) else { return false };
        let tail = self.tail_blocks(now, at, &victim).min(most);
        let is_hedge = tail == 0;
        if is_hedge && !self.is_hedge_of_use(now, at, &victim) {
            return false;
        }
        let theirs = &mut self.conns[victim.at].runs[victim.run];
        let end = theirs.keep;
        let mut first = end - tail.max(1);
        // Others may have stored some of them.
        while let Some(stored) = self.stored.next(first).filter(|stored| *stored < end) {
            first = self.stored.next_missing(stored);
        }
        theirs.keep = first;
        theirs.is_extra_welcome = is_hedge;
        self.hedges += u64::from(is_hedge);
        self.sources[source].may_take = false;
        let mut run = self.new_run(first..end);
        run.is_hedge = is_hedge;
        self.request(now, at, run, Some(victim.at), out);
        self.trim_runs(now, out);
        true
    }

    /// The one with the latest finish among those that own something that can be taken.
    fn victim(&self, now: Time, at: usize) -> Option<Victim> {
        let victims = self.conns.iter().enumerate().filter(|(other, _)| *other != at);
        let victims = victims.filter_map(|(at, conn)| {
            let can_be_taken =
                |run: &super::runs::Run| !run.is_cancelled && !run.is_hedge && run.keep > run.next;
            let run = conn.runs.iter().rposition(can_be_taken)?;
            Some(Victim { at, run, finish_us: self.finish_us(now, conn) })
        });
        victims.max_by_key(|victim| victim.finish_us)
    }

    /// How long a connection still needs for what it owns, in microseconds.
    fn finish_us(&self, now: Time, conn: &Conn) -> u64 {
        match conn.rate.rate(now) {
            // As long again as it has needed so far.
            0 => conn.rate.awaited_us(now) + conn.rtt_us,
            rate => time_us(self.owned_bytes(conn), rate),
        }
    }

    fn owned_bytes(&self, conn: &Conn) -> u64 {
        let bytes = conn.runs.iter().map(|run| super::bytes_of(&self.config, run.owned()));
        bytes.sum::<u64>().saturating_sub(conn.partial)
    }

    /// How many blocks of the victim's last run an idle connection should have, so that both end
    /// at the same time.
    fn tail_blocks(&self, now: Time, at: usize, victim: &Victim) -> u64 {
        let (conn, theirs) = (&self.conns[at], &self.conns[victim.at]);
        let run = &theirs.runs[victim.run];
        let is_begun = theirs.runs.iter().take(victim.run).all(|run| run.owned().is_empty());
        let whole = run.keep - run.next - u64::from(is_begun);
        if self.is_single(conn) && whole > 0 {
            return u64::from(victim.finish_us > SLOW_US + 2 * conn.rtt_us);
        }
        let block = u128::from(self.config.layout.block_bytes());
        let owned = u128::from(self.owned_bytes(theirs));
        let ours = u128::from(conn.rate.rate(now));
        let sum = ours + u128::from(theirs.rate.rate(now));
        if sum == 0 {
            return 0;
        }
        // They have sent theirs × t, we ours × (t - rtt), and together it is all.
        let round_trip = ours * u128::from(conn.rtt_us) / u128::from(crate::time::SECOND_US);
        let share = (ours * owned).saturating_sub((sum - ours) * round_trip) / sum;
        let blocks = u64::try_from(share / block).unwrap_or(u64::MAX).min(whole);
        let ours_us = time_us(blocks * block as u64, ours as u64).saturating_add(conn.rtt_us);
        if victim.finish_us.saturating_sub(ours_us) < SPLIT_GAIN_US { 0 } else { blocks }
    }

    /// Whether a block that is on its way will be here sooner when we ask for it, too.
    fn is_hedge_of_use(&self, now: Time, at: usize, victim: &Victim) -> bool {
        let conn = &self.conns[at];
        let block = u64::from(self.config.layout.block_bytes());
        let ours_us = match conn.rate.rate(now) {
            0 => SLOW_US + 2 * conn.rtt_us,
            rate => time_us(block, rate).saturating_add(conn.rtt_us),
        };
        let gain_us = victim.finish_us.saturating_sub(ours_us);
        let too_many = (self.hedges + 1).saturating_sub(HEDGES_FREE + self.stored.len() / 100);
        let wanted_us = (DEAR_GAIN_US * too_many).max(HEDGE_GAIN_US);
        ours_us < victim.finish_us / 4 * 3 && gain_us >= wanted_us
    }
}
