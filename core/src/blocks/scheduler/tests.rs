use super::*;
use crate::blocks::Layout;
use crate::time::SECOND_US;

const BLOCK_BYTES: u32 = 1 << 18;

/// A scheduler, told what happens at some millisecond.
struct Run {
    scheduler: Scheduler,
    out: Outbox<Effect>,
}

impl Run {
    fn new(blocks: u64, stored: u64) -> Run {
        let layout = Layout::new(blocks * u64::from(BLOCK_BYTES), BLOCK_BYTES).expect("a layout");
        let mut set = BlockSet::new(blocks);
        set.insert_range(0..stored);
        let scheduler = Scheduler::new(Config::new(layout), &set, 7);
        Run { scheduler, out: Outbox::new() }
    }

    /// With sources that are connected.
    fn connected(blocks: u64, sources: u32) -> Run {
        let mut run = Run::new(blocks, 0);
        for source in 0..sources {
            run.tell(0, Input::SourceAdded { source: SourceId(source) });
        }
        for conn in 0..sources {
            let conn = FetchConn(conn);
            run.tell(0, Input::Connected { conn, rtt_us: 200, requests_max: 8 });
        }
        run
    }

    fn tell(&mut self, ms: u64, input: Input) -> Vec<Effect> {
        self.scheduler.handle_input(Time(ms * 1_000), input, &mut self.out);
        self.effects()
    }

    fn wait(&mut self, ms: u64) -> Vec<Effect> {
        let now = Time(ms * 1_000);
        self.scheduler.handle_timeout(now, &mut self.out);
        assert!(self.scheduler.poll_timeout().is_none_or(|at| at > now), "it fired or moved");
        self.effects()
    }

    /// Fires every deadline up to some millisecond when it is due.
    fn wait_through(&mut self, ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(at) = self.scheduler.poll_timeout().filter(|at| at.0 <= ms * 1_000) {
            self.scheduler.handle_timeout(at, &mut self.out);
            effects.extend(self.effects());
        }
        effects
    }

    fn store(&mut self, ms: u64, conn: u32, block: u64) -> Vec<Effect> {
        let conn = FetchConn(conn);
        let mut effects = self.tell(ms, Input::Arrived { conn, bytes: BLOCK_BYTES.into() });
        effects.extend(self.tell(ms, Input::Stored { conn, block }));
        effects
    }

    fn effects(&mut self) -> Vec<Effect> {
        self.scheduler.check();
        let effects = self.out.effects().to_vec();
        self.out.clear();
        effects
    }

    fn state(&self, source: usize, ms: u64) -> SourceState {
        self.scheduler.sources(Time(ms * 1_000)).nth(source).expect("a source").state
    }
}

fn close(conn: u32) -> Effect {
    Effect::Close { conn: FetchConn(conn) }
}

#[test]
fn where_nothing_is_missing_it_is_done_at_once() {
    for blocks in [0, 5] {
        let mut run = Run::new(blocks, blocks);
        assert_eq!(run.scheduler.poll_timeout(), Some(Time::ZERO));
        assert_eq!(run.wait(0), [Effect::Done]);
        assert_eq!(run.scheduler.poll_timeout(), None);
        assert_eq!(run.tell(1, Input::SourceAdded { source: SourceId(0) }), []);
    }
}

#[test]
fn a_source_shows_with_one_block_what_it_can_and_is_asked_for_what_suits_it() {
    let mut run = Run::new(1_000, 0);
    let added = run.tell(0, Input::SourceAdded { source: SourceId(0) });
    let conn = FetchConn(0);
    assert_eq!(added, [Effect::Connect { source: SourceId(0), conn }]);
    let first = run.tell(1, Input::Connected { conn, rtt_us: 1_000, requests_max: 8 });
    assert_eq!(first, [Effect::Request { conn, request: 1, first: 0, count: 1 }]);
    // A block in 10 ms beyond the round trip: 25 MiB/s, so a quarter of a second is 25 blocks.
    let next = run.store(12, 0, 0);
    assert_eq!(next[0], Effect::Request { conn, request: 2, first: 1, count: 25 });
    assert_eq!(next.len(), 1, "more only when little of that is left");
}

#[test]
fn what_a_silent_one_was_asked_for_is_asked_of_others_within_half_a_second() {
    let mut run = Run::connected(2, 2);
    run.store(10, 1, 1);
    assert_eq!(run.state(0, 10), SourceState::Working);
    let effects = run.wait_through(450);
    let (conn, second) = (FetchConn(1), FetchConn(0));
    let asked = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Request { conn: to, first: 0, .. } if *to == conn));
    assert!(asked, "{effects:?}");
    let done = run.store(460, 1, 0);
    assert!(done.contains(&Effect::Close { conn: second }), "{done:?}");
    assert_eq!(done.last(), Some(&Effect::Done));
}

#[test]
fn nobody_is_suspect_while_the_driver_was_not_there() {
    let mut run = Run::connected(100, 2);
    run.store(10, 0, 0);
    run.store(10, 1, 50);
    run.wait(5_000);
    assert_eq!(run.state(0, 5_000), SourceState::Working);
    assert_eq!(run.state(1, 5_000), SourceState::Working);
    run.wait_through(5_500);
    assert_eq!(run.state(0, 5_500), SourceState::Suspect, "now it had its time");
}

#[test]
fn a_second_wrong_block_is_the_last() {
    let mut run = Run::connected(100, 1);
    let conn = FetchConn(0);
    assert!(!run.tell(10, Input::Bad { conn, block: 0 }).contains(&close(0)));
    let why = Trouble::Corrupt;
    let last = run.tell(20, Input::Bad { conn, block: 0 });
    assert_eq!(last, [close(0), Effect::Drop { source: SourceId(0), why }, Effect::Failed]);
    assert_eq!(run.state(0, 20), SourceState::Dropped(why));
}

#[test]
fn a_source_that_refuses_connections_is_tried_again_ever_later_and_then_given_up() {
    let mut run = Run::new(10, 0);
    let mut effects = run.tell(0, Input::SourceAdded { source: SourceId(0) });
    let (mut tries, mut now) = (0, 0);
    while let [Effect::Connect { conn, .. }] = effects[..] {
        tries += 1;
        let fault = Fault::Unreachable;
        assert_eq!(run.tell(now / 1_000, Input::Closed { conn, fault }), []);
        effects = Vec::new();
        while effects.is_empty() {
            let at = run.scheduler.poll_timeout().expect("it goes on");
            run.scheduler.handle_timeout(at, &mut run.out);
            (effects, now) = (run.effects(), at.0);
        }
    }
    assert_eq!(effects, [Effect::Failed]);
    assert!((60 * SECOND_US..61 * SECOND_US).contains(&now), "{now} us");
    assert!((10..20).contains(&tries), "{tries} times");
}

#[test]
fn when_the_user_does_not_want_it_any_more_all_is_closed_and_nothing_follows() {
    let mut run = Run::connected(100, 2);
    assert_eq!(run.tell(5, Input::Cancelled), [close(0), close(1)]);
    assert_eq!(run.store(6, 0, 0), [], "what comes all the same is kept");
    assert!(run.scheduler.stored().contains(0));
    assert_eq!(run.scheduler.poll_timeout(), None);
}

#[test]
fn progress_counts_bytes_to_the_last() {
    let layout = Layout::new(u64::from(BLOCK_BYTES) + 5, BLOCK_BYTES).expect("a layout");
    let mut set = BlockSet::new(2);
    set.insert(1);
    let scheduler = Scheduler::new(Config::new(layout), &set, 7);
    let progress = scheduler.progress(Time::ZERO);
    assert_eq!((progress.bytes_stored, progress.blocks_stored), (5, 1));
    assert_eq!(progress.bytes, u64::from(BLOCK_BYTES) + 5);
}
