//! A connection to a block server.

use std::io;

use cordee_core::blocks::scheduler::{Fault, RunEnd};
use cordee_core::framing::{FRAME_BYTES_MAX, HEADER_BYTES, first_frame};
use cordee_core::wire::block::{BlockWelcome, Hashes, Listing, Open, Opened, Refused, Slice};
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Reason, VERSION_MAJOR, VERSION_MINOR};

use super::blocks::Intake;
use super::dial::dial;
use super::{Expected, FIRST_REQUEST, Gone, Run, Start, What};
use crate::sync::lock;

/// Connects, says hello, opens the file, and takes what comes until the connection ends.
pub(super) fn run(
    start: &Start,
    address: &str,
    name: &str,
    hashes: bool,
) -> Result<std::convert::Infallible, Gone> {
    let (socket, rtt_us) = dial(address, &start.shared)?;
    let mut bytes = Vec::new();
    let hello = Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        role: Role::Fetcher,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "",
    };
    hello.put_frame(&mut bytes);
    Open { request: FIRST_REQUEST, file: 0, name, hashes }.put_frame(&mut bytes);
    lock(&start.shared.expected).extend([
        Expected::Welcome,
        Expected::Answer { request: FIRST_REQUEST, kind: Opened::KIND },
    ]);
    io::Write::write_all(&mut &socket, &bytes).map_err(|error| Gone::broken(&error))?;
    let socket = start.shared.socket.get_or_init(|| socket);
    start.tell(What::Up { rtt_us })?;
    if start.shared.is_closing() {
        return Err(Gone::asked());
    }
    let mut intake = Intake::new(start, socket);
    loop {
        take_frame(&mut intake)?;
    }
}

/// Takes one frame, and the blocks behind it.
fn take_frame(intake: &mut Intake<'_>) -> Result<(), Gone> {
    let garbage = |error: cordee_core::wire::WireError| Gone::garbage(error.to_string());
    let bytes = intake.inlet.bytes();
    let Some(len) = first_frame(bytes, FRAME_BYTES_MAX).map_err(garbage)? else {
        let there = intake.inlet.len();
        intake.inlet.make_room(there + FRAME_BYTES_MAX);
        // Of a slice that is not to be looked at as little as may be; a block at most otherwise.
        let most = if front_is_unseen(intake.start) { FRAME_BYTES_FEW } else { usize::MAX >> 1 };
        intake.inlet.read(intake.socket, most)?;
        return Ok(());
    };
    let (kind, payload) = (bytes[4], &bytes[HEADER_BYTES..len]);
    match kind {
        Slice::KIND => {
            let slice = Slice::parse(payload).map_err(garbage)?;
            let run = begin_slice(intake.start, &slice)?;
            intake.inlet.consume(len);
            intake.take(&run, slice.count.into(), true)?;
            end_slice(intake.start, slice.count.into());
            return Ok(());
        }
        Bye::KIND => return Err(said_goodbye(&Bye::parse(payload).map_err(garbage)?)),
        Refused::KIND => {
            let refused = Refused::parse(payload).map_err(garbage)?;
            take_refusal(intake.start, &refused, payload)?;
        }
        BlockWelcome::KIND => {
            match lock(&intake.start.shared.expected).pop_front() {
                Some(Expected::Welcome) => {}
                _ => return Err(Gone::garbage("a second welcome")),
            }
            intake.start.tell(What::Frame { kind, payload: payload.to_vec() })?;
        }
        Opened::KIND | Hashes::KIND | Listing::KIND => {
            take_answer(intake.start, kind, payload)?;
        }
        // A newer minor version may say more than we know.
        _ => {}
    }
    intake.inlet.consume(len);
    Ok(())
}

/// Whether blocks come next that are not looked at.
fn front_is_unseen(start: &Start) -> bool {
    match lock(&start.shared.expected).front() {
        Some(Expected::Run(run)) => run.job.manifest.is_none(),
        _ => false,
    }
}

/// The run that a slice belongs to, if it is the very one that was asked for.
fn begin_slice(start: &Start, slice: &Slice) -> Result<Run, Gone> {
    let expected = lock(&start.shared.expected);
    let Some(Expected::Run(run)) = expected.front() else {
        return Err(Gone::garbage("blocks that were not asked for"));
    };
    let end = slice.first.checked_add(slice.count.into());
    let fits = run.wire == slice.request
        && run.left.start == slice.first
        && slice.count > 0
        && end.is_some_and(|end| end <= run.left.end);
    if fits { Ok(run.clone()) } else { Err(Gone::garbage("other blocks than were asked for")) }
}

fn end_slice(start: &Start, count: u64) {
    let mut expected = lock(&start.shared.expected);
    if let Some(Expected::Run(run)) = expected.front_mut() {
        run.left.start += count;
        if run.left.is_empty() {
            expected.pop_front();
        }
    }
}

fn take_refusal(start: &Start, refused: &Refused<'_>, payload: &[u8]) -> Result<(), Gone> {
    let mut expected = lock(&start.shared.expected);
    let what = match expected.front() {
        Some(Expected::Run(run)) if run.wire == refused.request => {
            let end = match refused.reason {
                Reason::Cancelled => RunEnd::Cancelled,
                reason => RunEnd::Refused { reason, retry_us: retry_us(refused.retry_ms) },
            };
            What::Ended { conn: run.conn, job: run.job.id, request: run.request, end }
        }
        Some(Expected::Answer { request, .. }) if *request == refused.request => {
            What::Frame { kind: Refused::KIND, payload: payload.to_vec() }
        }
        // The answer to something that was cancelled when all of it had been sent.
        _ if refused.reason == Reason::Cancelled => return Ok(()),
        _ => return Err(Gone::garbage("an answer to nothing that was asked")),
    };
    expected.pop_front();
    drop(expected);
    start.tell(what)
}

fn take_answer(start: &Start, kind: u8, payload: &[u8]) -> Result<(), Gone> {
    let garbage = |error: cordee_core::wire::WireError| Gone::garbage(error.to_string());
    let request = match kind {
        Opened::KIND => Opened::parse(payload).map_err(garbage)?.request,
        Hashes::KIND => Hashes::parse(payload).map_err(garbage)?.request,
        _ => Listing::parse(payload).map_err(garbage)?.request,
    };
    let mut expected = lock(&start.shared.expected);
    match expected.front() {
        Some(Expected::Answer { request: wanted, kind: of })
            if *wanted == request && *of == kind =>
        {
            expected.pop_front();
        }
        _ => return Err(Gone::garbage("an answer to nothing that was asked")),
    }
    drop(expected);
    start.tell(What::Frame { kind, payload: payload.to_vec() })
}

/// Why a source ends a connection, as the scheduler knows it.
pub(super) fn said_goodbye(bye: &Bye<'_>) -> Gone {
    let fault = match bye.reason {
        Reason::FileChanged => Fault::Changed,
        Reason::FileUnknown => Fault::Unknown,
        Reason::FileForbidden | Reason::WrongSecret => Fault::Forbidden,
        Reason::NotCordee | Reason::BadFrame | Reason::WrongVersion | Reason::WrongService => {
            Fault::Garbage
        }
        _ if bye.retry_ms > 0 => Fault::Busy { retry_us: retry_us(bye.retry_ms) },
        _ => Fault::Ended,
    };
    let detail = if bye.detail.is_empty() { bye.reason.text() } else { bye.detail };
    Gone::new(fault, detail)
}

/// A source that wants to be left alone for longer is asked again all the same.
pub(super) fn retry_us(retry_ms: u32) -> u64 {
    u64::from(retry_ms).min(RETRY_MS_MAX) * 1_000
}

const RETRY_MS_MAX: u64 = 60_000;
/// Holds any header of a slice, and the end of the one before.
const FRAME_BYTES_FEW: usize = 48;
