use super::AgreementEffect::{AskHashes, Choose, Fail, LeaveOut, Use};
use super::*;
use alloc::vec;

const TIMEOUT_US: u64 = 60_000_000;

struct Run {
    agreement: Agreement,
    out: Outbox<AgreementEffect>,
}

fn root(n: u8) -> Root {
    Root([n; 32])
}

fn hashed(n: u8) -> Answer {
    Answer::Hashed { root: root(n), length: 1_000_000, block_bytes: 1 << 18 }
}

fn hashing() -> Answer {
    Answer::Hashing { length: 1_000_000, block_bytes: 1 << 18 }
}

fn plain(tag: u64) -> Answer {
    Answer::Plain { length: 1_000_000, block_bytes: None, tag }
}

fn version(root: Root) -> Version {
    Version { root, layout: Layout::new(1_000_000, 1 << 18).expect("a layout") }
}

impl Run {
    fn new(wanted: Option<Root>, sources: u32) -> Run {
        let mut run = Run { agreement: Agreement::new(wanted, TIMEOUT_US), out: Outbox::new() };
        for source in 0..sources {
            let input = AgreementInput::SourceAdded { source: SourceId(source) };
            assert_eq!(run.tell(0, input), []);
        }
        run
    }

    fn tell(&mut self, ms: u64, input: AgreementInput) -> Vec<AgreementEffect> {
        self.agreement.handle_input(Time(ms * 1_000), input, &mut self.out);
        self.effects()
    }

    fn answer(&mut self, ms: u64, source: u32, answer: Answer) -> Vec<AgreementEffect> {
        self.tell(ms, AgreementInput::Answered { source: SourceId(source), answer })
    }

    fn refuse(&mut self, source: u32) -> Vec<AgreementEffect> {
        let (source, why) = (SourceId(source), Trouble::Corrupt);
        self.tell(500, AgreementInput::HashesRefused { source, why })
    }

    fn wait(&mut self, ms: u64) -> Vec<AgreementEffect> {
        let now = Time(ms * 1_000);
        self.agreement.handle_timeout(now, &mut self.out);
        assert!(self.agreement.poll_timeout().is_none_or(|at| at > now));
        self.effects()
    }

    fn effects(&mut self) -> Vec<AgreementEffect> {
        self.agreement.check();
        let effects = self.out.effects().to_vec();
        self.out.clear();
        effects
    }
}

fn used(source: u32) -> AgreementEffect {
    Use { source: SourceId(source) }
}

fn left_out(source: u32, why: Trouble) -> AgreementEffect {
    LeaveOut { source: SourceId(source), why }
}

fn ask(source: u32) -> AgreementEffect {
    AskHashes { source: SourceId(source) }
}

fn choose(root: Root, sources: u32) -> AgreementEffect {
    Choose { version: version(root), sources }
}

#[test]
fn when_all_have_answered_the_version_of_most_is_chosen() {
    let mut run = Run::new(None, 3);
    assert_eq!(run.answer(1, 0, hashed(1)), []);
    assert_eq!(run.answer(2, 1, hashed(2)), []);
    let all = [choose(root(2), 2), left_out(0, Trouble::OtherVersion), used(1), used(2), ask(1)];
    assert_eq!(run.answer(3, 2, hashed(2)), all);
}

#[test]
fn of_two_versions_the_one_named_first_is_chosen() {
    let mut run = Run::new(None, 2);
    assert_eq!(run.answer(1, 1, hashed(2)), []);
    let all = [choose(root(1), 1), used(0), left_out(1, Trouble::OtherVersion), ask(0)];
    assert_eq!(run.answer(2, 0, hashed(1)), all);
}

#[test]
fn nobody_is_waited_for_longer_than_300_ms_after_the_first_hash() {
    let mut run = Run::new(None, 3);
    assert_eq!(run.answer(1, 2, Answer::Failed(Fault::Unreachable)), []);
    assert_eq!(run.answer(50, 1, hashed(1)), []);
    assert_eq!(run.wait(349), []);
    assert_eq!(run.wait(350), [choose(root(1), 1), used(1), ask(1)]);
    assert_eq!(run.answer(900, 0, hashed(1)), [used(0)], "whoever is late is judged");
    assert_eq!(run.answer(950, 2, hashed(3)), [left_out(2, Trouble::OtherVersion)]);
}

#[test]
fn the_hash_that_is_wanted_is_chosen_at_once_and_no_other_ever() {
    let mut run = Run::new(Some(root(7)), 3);
    assert_eq!(run.answer(1, 0, hashed(1)), [left_out(0, Trouble::OtherVersion)]);
    assert_eq!(run.answer(2, 1, hashed(7)), [choose(root(7), 1), used(1), ask(1)]);
    let mut run = Run::new(Some(root(7)), 2);
    assert_eq!(run.answer(1, 0, hashed(1)), [left_out(0, Trouble::OtherVersion)]);
    assert_eq!(run.answer(2, 1, hashed(2)), [left_out(1, Trouble::OtherVersion), Fail]);
}

#[test]
fn when_hashes_do_not_fold_the_next_is_asked_and_then_the_next_version_chosen() {
    let mut run = Run::new(None, 3);
    for source in 0..2 {
        run.answer(1, source, hashed(1));
    }
    run.answer(1, 2, Answer::Failed(Fault::Unreachable));
    assert_eq!(run.refuse(0), [left_out(0, Trouble::Corrupt), ask(1)]);
    assert_eq!(run.refuse(1), [left_out(1, Trouble::Corrupt)]);
    assert_eq!(run.agreement.chosen(), None);
    assert_eq!(run.answer(700, 2, hashed(2)), [choose(root(2), 1), used(2), ask(2)]);
    assert_eq!(run.refuse(2), [left_out(2, Trouble::Corrupt), Fail]);
}

#[test]
fn one_that_is_still_hashing_helps_with_a_version_that_others_have() {
    let mut run = Run::new(None, 2);
    assert_eq!(run.answer(1, 0, hashing()), []);
    assert_eq!(run.answer(2, 1, hashed(1)), [], "it may be through with it soon");
    assert_eq!(run.wait(302), [choose(root(1), 1), used(0), used(1), ask(1)]);
    assert_eq!(run.answer(400, 0, hashed(9)), [left_out(0, Trouble::OtherVersion)]);
}

#[test]
fn sources_without_hashes_go_by_those_of_others_or_by_their_tags() {
    let mut run = Run::new(None, 2);
    assert_eq!(run.answer(1, 0, plain(5)), []);
    assert_eq!(run.answer(2, 1, hashed(1)), [choose(root(1), 1), used(0), used(1), ask(1)]);
    let mut run = Run::new(None, 3);
    run.answer(1, 0, plain(5));
    run.answer(1, 1, plain(6));
    let all = [choose(Root::default(), 2), left_out(1, Trouble::OtherVersion), used(0), used(2)];
    assert_eq!(run.answer(1, 2, plain(5)), all, "nobody has hashes to ask for");
}

#[test]
fn absurd_lengths_and_missing_files_are_left_out() {
    let mut run = Run::new(None, 2);
    let absurd = Answer::Hashed { root: root(1), length: u64::MAX, block_bytes: 1 << 10 };
    assert_eq!(run.answer(1, 0, absurd), [left_out(0, Trouble::Garbage)]);
    let unknown = Answer::Failed(Fault::Unknown);
    assert_eq!(run.answer(2, 1, unknown), [left_out(1, Trouble::Unknown), Fail]);
}

#[test]
fn without_an_answer_it_fails_in_time() {
    let mut run = Run::new(None, 2);
    assert_eq!(run.answer(1, 0, Answer::Failed(Fault::Unreachable)), []);
    assert_eq!(run.answer(5_000, 1, hashing()), []);
    assert_eq!(run.wait(59_999), []);
    assert_eq!(run.wait(60_000), vec![Fail]);
}
