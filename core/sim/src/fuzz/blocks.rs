//! The scheduler of a fetch against a naive model: sources do whatever the protocol lets them, in
//! any order; in the end a good one comes, and all is stored.

use arbitrary::{Result, Unstructured};

use cordee_core::blocks::scheduler::{
    Config, Effect, Fault, FetchConn, Input, RunEnd, Scheduler, SourceId,
};
use cordee_core::blocks::{BlockSet, Layout};
use cordee_core::wire::Reason;
use cordee_core::{Machine, Outbox, Time};

use crate::blocks::Model;

const BLOCK_BYTES: u32 = 1 << 10;
const SOURCES_MAX: u32 = 6;
const OPERATIONS_MAX: usize = 400;
const PAUSES_MS: [u64; 8] = [0, 1, 7, 30, 120, 300, 1_100, 12_000];
const FAULTS: [Fault; 11] = [
    Fault::Unreachable,
    Fault::Ended,
    Fault::Busy { retry_us: 700_000 },
    Fault::Silent,
    Fault::Garbage,
    Fault::OtherVersion,
    Fault::Unknown,
    Fault::Forbidden,
    Fault::Changed,
    Fault::Hashing { retry_us: 300_000 },
    Fault::Asked,
];
const REASONS: [Reason; 4] =
    [Reason::Busy, Reason::FileChanged, Reason::FileUnreadable, Reason::FileUnknown];

/// The first four bytes: blocks (modulo 128), what is there already (a run of blocks: its beginning), how (bits: in order,
/// a connection a block, a limit of the rate, two connections), and how much may be in flight and wait.
/// Then a list of operations, one byte each and one for each of its arguments:
///
/// | byte modulo 12 | operation, arguments |
/// | --- | --- |
/// | 0 | a source is added |
/// | 1, 2 | time: how long |
/// | 3 | a connection stands: which |
/// | 4 to 6 | blocks come: connection, how many |
/// | 7 | a part of a block comes: connection, bytes |
/// | 8 | a block is wrong: connection |
/// | 9 | a run ends: connection, why |
/// | 10 | a connection is gone: which, why |
/// | 11 | what was closed is gone |
pub fn blocks(data: &[u8]) {
    let mut random = Unstructured::new(data);
    let Ok(mut run) = Run::new(&mut random) else { return };
    for _ in 0..OPERATIONS_MAX {
        if random.is_empty() || run.operate(&mut random).is_err() {
            break;
        }
    }
    run.end();
}

struct Run {
    scheduler: Scheduler,
    model: Model,
    out: Outbox<Effect>,
    now: Time,
    sources: u32,
    /// Those that are not gone, and whose they are.
    conns: Vec<(FetchConn, SourceId)>,
    closing: Vec<FetchConn>,
    blocks: u64,
}

impl Run {
    fn new(random: &mut Unstructured<'_>) -> Result<Run> {
        let blocks = u64::from(random.arbitrary::<u8>()? % 128);
        let length = (blocks * u64::from(BLOCK_BYTES)).saturating_sub(300);
        let layout = Layout::new(length, BLOCK_BYTES).expect("a layout");
        let mut stored = BlockSet::new(blocks);
        let first = u64::from(random.arbitrary::<u8>()?);
        if first < blocks {
            stored.insert_range(first..blocks.min(first + 9));
        }
        let how = random.arbitrary::<u8>()?;
        let bounds = random.arbitrary::<u8>()?;
        let config = Config {
            sequential: how & 1 != 0,
            connection_per_block: how & 2 != 0,
            limit_rate: (how & 4 != 0).then_some(100_000),
            connections: (how & 8 != 0).then_some(2),
            in_flight_bytes_max: u64::from(BLOCK_BYTES) * (1 + u64::from(bounds % 32)),
            requests_max: 1 + u32::from(bounds / 32),
            timeout_us: 30_000_000,
            ..Config::new(layout)
        };
        Ok(Run {
            scheduler: Scheduler::new(config.clone(), &stored, how.into()),
            model: Model::new(&config, stored.runs().flatten()),
            out: Outbox::new(),
            now: Time::ZERO,
            sources: 0,
            conns: Vec::new(),
            closing: Vec::new(),
            blocks,
        })
    }

    fn operate(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        match random.arbitrary::<u8>()? % 12 {
            0 => self.add(),
            1 | 2 => self.wait(PAUSES_MS[random.choose_index(PAUSES_MS.len())?]),
            3 => {
                if let Some(conn) = self.some_conn(random)?
                    && !self.model.is_open(conn)
                {
                    self.tell(Input::Connected { conn, rtt_us: 500, requests_max: 3 });
                }
            }
            4..=6 => {
                let Some(conn) = self.some_conn(random)? else { return Ok(()) };
                for _ in 0..=random.arbitrary::<u8>()? % 16 {
                    self.deliver(conn, false);
                }
            }
            7 => {
                let bytes = u64::from(random.arbitrary::<u8>()?) * 4;
                if let Some(conn) = self.some_conn(random)?
                    && self.model.next_of(conn).is_some()
                {
                    self.tell(Input::Arrived { conn, bytes });
                }
            }
            8 => {
                if let Some(conn) = self.some_conn(random)? {
                    self.deliver(conn, true);
                }
            }
            9 => {
                let reason = REASONS[random.choose_index(REASONS.len())?];
                if let Some(conn) = self.some_conn(random)?
                    && let Some((request, _, is_cancelled)) = self.model.next_of(conn)
                {
                    let end = match is_cancelled {
                        true => RunEnd::Cancelled,
                        false => RunEnd::Refused { reason, retry_us: 400_000 },
                    };
                    self.tell(Input::Ended { conn, request, end });
                }
            }
            10 => {
                let fault = FAULTS[random.choose_index(FAULTS.len())?];
                if let Some(conn) = self.some_conn(random)? {
                    self.gone(conn, fault);
                }
            }
            _ => self.close_all(),
        }
        Ok(())
    }

    fn some_conn(&self, random: &mut Unstructured<'_>) -> Result<Option<FetchConn>> {
        let which = usize::from(random.arbitrary::<u8>()?);
        Ok(self.conns.get(which % self.conns.len().max(1)).map(|(conn, _)| *conn))
    }

    fn add(&mut self) {
        if self.sources < SOURCES_MAX {
            self.sources += 1;
            self.tell(Input::SourceAdded { source: SourceId(self.sources - 1) });
        }
    }

    /// The next block of a connection comes, right or wrong.
    fn deliver(&mut self, conn: FetchConn, is_bad: bool) {
        let Some((_, block, _)) = self.model.next_of(conn) else { return };
        let is_here = |run: &Run| run.conns.iter().any(|(other, _)| *other == conn);
        self.now = self.now + 100;
        self.tell(Input::Arrived { conn, bytes: BLOCK_BYTES.into() });
        if is_here(self) {
            self.tell(match is_bad {
                true => Input::Bad { conn, block },
                false => Input::Stored { conn, block },
            });
        }
    }

    fn gone(&mut self, conn: FetchConn, fault: Fault) {
        self.conns.retain(|(other, _)| *other != conn);
        self.closing.retain(|other| *other != conn);
        self.tell(Input::Closed { conn, fault });
    }

    fn close_all(&mut self) {
        while let Some(conn) = self.closing.pop() {
            self.gone(conn, Fault::Asked);
        }
    }

    /// Time passes; every deadline fires.
    fn wait(&mut self, ms: u64) {
        let until = self.now + ms * 1_000;
        while let Some(at) = self.scheduler.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.scheduler.handle_timeout(self.now, &mut self.out);
            self.perform();
            let next = self.scheduler.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a deadline fires or moves");
        }
        self.now = until;
    }

    fn tell(&mut self, input: Input) {
        self.model.before(&input);
        self.scheduler.handle_input(self.now, input, &mut self.out);
        self.perform();
    }

    fn perform(&mut self) {
        self.scheduler.check();
        for effect in std::mem::take(&mut self.out).effects() {
            self.model.effect(effect);
            match *effect {
                Effect::Connect { source, conn } => self.conns.push((conn, source)),
                Effect::Close { conn } => self.closing.push(conn),
                _ => {}
            }
        }
    }

    /// Everybody else is gone, one good source is left: it gives all that is missing.
    fn end(&mut self) {
        if self.scheduler.is_over() {
            return;
        }
        self.sources += 1;
        let good = SourceId(self.sources - 1);
        self.tell(Input::SourceAdded { source: good });
        // A request, a connection each and a wait for every block would do.
        for _ in 0..20 * (self.blocks + 20) {
            if self.scheduler.is_over() {
                assert_eq!(self.model.missing(), 0, "given up beside a good source");
                return;
            }
            self.close_all();
            for (conn, source) in self.conns.clone() {
                if source != good {
                    self.gone(conn, Fault::Unreachable);
                } else if !self.model.is_open(conn) {
                    self.tell(Input::Connected { conn, rtt_us: 500, requests_max: 3 });
                } else {
                    match self.model.next_of(conn) {
                        Some((request, _, true)) => {
                            let end = RunEnd::Cancelled;
                            self.tell(Input::Ended { conn, request, end });
                        }
                        _ => self.deliver(conn, false),
                    }
                }
            }
            self.wait(20);
        }
        panic!("{} blocks are missing", self.model.missing());
    }
}
