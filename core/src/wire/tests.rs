//! `docs/PROTOCOL.md` is the golden file: every message stands there with its fields and with the
//! bytes of an example, and these tests hold the code to it, in both directions.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::entry::{self, Portable, flags};
use super::hello::{Role, Transport};
use super::{
    Field, Fixed64, Message, Reader, Reason, Seq, WireError, block, chat, hello, peer, reencode,
};
use crate::Limits;
use crate::archive::{Archive, NewEntry};
use crate::blocks::BlockHash;
use crate::framing::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use crate::hash;
use crate::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, SessionSecret, Tag};
use crate::names::{NAME_BYTES_MAX, ROOM_BYTES_MAX};

mod golden;

const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");

/// A struct as it stands in the source.
#[derive(Debug)]
pub(crate) struct Defined {
    /// 0 for what is no message.
    pub(crate) kind: u8,
    pub(crate) name: &'static str,
    /// Names, types, and the most items or bytes: 0 for no other bound than the frame.
    pub(crate) fields: &'static [(&'static str, &'static str, usize)],
}

/// The name of a field and its bytes.
pub(crate) type Piece = (&'static str, Vec<u8>);

/// What gives the bytes of each of its fields.
pub(crate) trait Pieces {
    fn pieces(&self) -> Vec<Piece>;
}

pub(crate) fn piece<'a>(name: &'static str, field: &impl Field<'a>) -> Piece {
    let mut bytes = Vec::new();
    field.put(&mut bytes);
    (name, bytes)
}

fn defined() -> impl Iterator<Item = &'static Defined> {
    [hello::DEFINED, chat::DEFINED, entry::DEFINED, peer::DEFINED, block::DEFINED]
        .into_iter()
        .flatten()
}

/// The text under the heading of a struct, up to the next heading.
fn section(defined: &Defined) -> &'static str {
    let heading = match defined.kind {
        0 => format!("\n#### {}\n", defined.name),
        kind => format!("\n#### {kind:#04x} {}\n", defined.name),
    };
    let parts: Vec<&str> = PROTOCOL.split(&heading).collect();
    let [_, after] = parts[..] else {
        panic!("{} times in PROTOCOL.md: {heading}", parts.len() - 1);
    };
    after.split("\n#").next().expect("a split gives something")
}

/// The pieces of an example, as the document has them: the bytes of a field stand in the line
/// whose comment begins with its name, and in the lines after it whose comments are indented.
fn pieces_of(block: &str) -> Vec<(String, Vec<u8>)> {
    let mut pieces: Vec<(String, Vec<u8>)> = Vec::new();
    for line in block.lines() {
        let (hex, comment) = line.split_once("; ").unwrap_or_else(|| panic!("no comment: {line}"));
        let bytes = hex.split_whitespace().map(|pair| {
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("not hexadecimal: {line}"))
        });
        if !comment.starts_with(' ') {
            let name = comment.split([':', ',']).next().expect("a split gives something");
            pieces.push((name.to_string(), Vec::new()));
        }
        pieces.last_mut().unwrap_or_else(|| panic!("of no field: {line}")).1.extend(bytes);
    }
    pieces
}

/// An example as the document would have it.
fn block_of(pieces: &[Piece]) -> String {
    let mut block = String::new();
    for (name, bytes) in pieces {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        block += &format!("{}  ; {name}:\n", hex.join(" "));
    }
    block
}

/// Holds one value against the `nth` example of its section. `same` reads a payload and says
/// whether it gives the value again.
fn hold(
    defined: &Defined,
    nth: usize,
    mut pieces: Vec<Piece>,
    same: impl Fn(&[u8]) -> Result<bool, WireError>,
) {
    let name = defined.name;
    let payload: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    if defined.kind != 0 {
        let length = (payload.len() + 1) as u32;
        pieces.insert(0, ("length", [&length.to_be_bytes()[..], &[defined.kind]].concat()));
    }
    let mut blocks = section(defined).split("```hex\n").skip(1);
    let block = blocks.nth(nth).and_then(|rest| rest.split("```").next()).unwrap_or("");
    let documented = pieces_of(block);
    let documented: Vec<_> = documented.iter().map(|(n, bytes)| (&n[..], &bytes[..])).collect();
    let encoded: Vec<_> = pieces.iter().map(|(n, bytes)| (*n, &bytes[..])).collect();
    assert!(
        documented == encoded,
        "PROTOCOL.md, {name}, example {nth}:\n{block}\nThe code says:\n{}",
        block_of(&pieces)
    );

    assert_eq!(same(&payload), Ok(true), "{name} read again");
    let longer = [&payload[..], &[0xff, 0]].concat();
    assert_eq!(same(&longer), Ok(true), "{name}: fields of a newer version are ignored");
    for end in 0..payload.len() {
        assert!(same(&payload[..end]).is_err(), "{name} cut to {end} bytes");
    }
    for at in 0..payload.len() {
        for value in 0..=u8::MAX {
            let mut changed = payload.clone();
            changed[at] = value;
            let mut again = Vec::new();
            if let Some(Ok(())) = reencode(defined.kind, &changed, &mut again) {
                assert!(again.len() <= changed.len(), "{name}: byte {at} as {value}");
            }
            assert!(same(&changed) != Ok(true) || value == payload[at], "{name}: byte {at}");
        }
    }
}

/// A type of the source as the document writes it.
fn type_in_words(ty: &str, max: usize) -> String {
    let ty: String = ty.chars().filter(|c| !c.is_whitespace()).collect();
    let ty = ty.replace("&'astr", "text").replace("<'a>", "").replace(',', ", ");
    let ty = match ty.strip_prefix("Seq<'a, ").and_then(|rest| rest.strip_suffix('>')) {
        Some(item) => format!("list of {item}"),
        None => ty,
    };
    if max == 0 { ty } else { format!("{ty}, ≤ {max}") }
}

#[test]
fn the_document_has_every_struct_with_its_fields_in_their_order() {
    for defined in defined() {
        let rows: Vec<(String, String)> = section(defined)
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(name, rest)| (name.to_string(), rest))
            .map(|(name, rest)| (name, rest.split(" |").next().unwrap_or("").to_string()))
            .collect();
        let fields: Vec<_> = defined
            .fields
            .iter()
            .map(|(name, ty, max)| (name.to_string(), type_in_words(ty, *max)))
            .collect();
        assert_eq!(rows, fields, "the table of {} in PROTOCOL.md", defined.name);
    }
}

#[test]
fn the_document_has_every_value_of_every_enumeration() {
    for (name, values) in [
        ("Role", Role::VALUES),
        ("Transport", Transport::VALUES),
        ("Intent", chat::Intent::VALUES),
        ("MemberState", chat::MemberState::VALUES),
        ("ServerState", peer::ServerState::VALUES),
        ("Presence", peer::Presence::VALUES),
    ] {
        let text = section(&Defined { kind: 0, name, fields: &[] });
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), values.len(), "{name}");
        for (row, (value, word)) in rows.iter().zip(values) {
            assert!(row.starts_with(&format!("| `{value}` | {word} | ")), "{name}: {row}");
        }
    }
}

#[test]
fn the_document_has_every_reason() {
    let text = section(&Defined { kind: 0, name: "Reason", fields: &[] });
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), Reason::ALL.len());
    for (row, reason) in rows.iter().zip(Reason::ALL) {
        let (code, word, text) = (reason.code(), reason.word(), reason.text());
        assert_eq!(*row, format!("| `{code}` | `{word}` | {text} |"));
        assert_eq!(Reason::from_code(code), *reason);
    }
}

#[test]
fn the_document_has_every_kind_once_and_no_other() {
    let mut kinds: Vec<u8> = defined().map(|defined| defined.kind).filter(|k| *k != 0).collect();
    let headings: Vec<u8> = PROTOCOL
        .lines()
        .filter_map(|line| line.strip_prefix("#### 0x")?.get(..2))
        .map(|hex| u8::from_str_radix(hex, 16).expect("a kind in hexadecimal"))
        .collect();
    kinds.sort_unstable();
    assert_eq!(headings, kinds, "in ascending order");
    kinds.dedup();
    assert_eq!(headings.len(), kinds.len(), "no kind twice");
    let known = (0..=u8::MAX).filter(|kind| reencode(*kind, &[], &mut Vec::new()).is_some());
    assert_eq!(known.collect::<Vec<_>>(), kinds);
}

#[test]
fn every_message_has_a_golden_example() {
    let mut held = Vec::new();
    golden::hold_all(&mut held);
    for defined in defined() {
        let wanted = defined.kind != 0 || defined.name == "Portable";
        assert_eq!(held.contains(&defined.name), wanted, "{}", defined.name);
        let blocks = section(defined).matches("```hex\n").count();
        let examples = held.iter().filter(|name| **name == defined.name).count();
        assert_eq!(blocks, examples, "examples of {} in PROTOCOL.md", defined.name);
    }
}

#[test]
fn the_document_has_the_constants() {
    for line in [
        format!("| longest frame | {FRAME_BYTES_MAX} bytes |"),
        format!("| longest frame before the welcome | {HELLO_BYTES_MAX} bytes |"),
        format!("| most pairs in a vector | {} |", super::VECTOR_PAIRS_MAX),
        format!("| most pairs in an `after` | {} |", entry::AFTER_PAIRS_MAX),
        format!("| longest address | {} bytes |", super::ADDRESS_BYTES_MAX),
        format!("| longest name of a cluster | {} bytes |", hello::CLUSTER_BYTES_MAX),
        format!("| version | {}.{} |", super::VERSION_MAJOR, super::VERSION_MINOR),
        format!("| longest name of a file | {} bytes |", block::FILE_NAME_BYTES_MAX),
        format!("| most hashes in a Hashes | {} |", block::HASHES_MAX),
        format!("| most files in a Listing | {} |", block::LISTED_MAX),
        format!("| `{}` | FINAL |", flags::FINAL),
        format!("| `{}` | REPLAY |", flags::REPLAY),
        format!("| `{}` | COPY |", flags::COPY),
    ] {
        assert!(PROTOCOL.contains(&line), "PROTOCOL.md lacks: {line}");
    }
}

#[test]
fn the_document_has_the_hashes() {
    let secret = SessionSecret(core::array::from_fn(|at| at as u8));
    let key = hash::ClusterKey(core::array::from_fn(|at| at as u8));
    for (what, value) in [
        ("session id", hash::session_id("cordee", &secret).to_string()),
        ("server id", hash::server_id("cordee", "127.0.0.1:5000").to_string()),
        ("tag", hash::entry_tag(&key, b"entry").to_string()),
        ("rolling hash", hash::rolling(&hash::entry_tag(&key, b"entry"), b"entry").to_string()),
        ("digest", hash::digest([&b"ab"[..], b"c"].into_iter()).to_string()),
    ] {
        let line = format!("| {what} | `{value}` |");
        assert!(PROTOCOL.contains(&line), "PROTOCOL.md lacks: {line}");
    }
}

#[test]
fn the_document_has_the_hashes_of_an_archive() {
    let mut archive = Archive::new(1 << 20, 8, 8);
    let (origin, _) = archive.define_origin(golden::HERE).expect("a place");
    let Portable { clock, author, author_number, name, body, .. } = golden::PORTABLE;
    archive.insert(&NewEntry {
        origin,
        number: 1,
        clock,
        author,
        author_number,
        name,
        scope: golden::TALK,
        after: &[],
        body,
        tag: Tag::default(),
    });
    for (what, value) in [
        ("rolling hash of the origin", archive.rolling(origin).to_string()),
        ("vector hash", format!("{:016x}", archive.vector_hash())),
        ("digest of the archive", archive.digest(&[b"#all\0\0"]).to_string()),
    ] {
        let line = format!("| {what} | `{value}` |");
        assert!(PROTOCOL.contains(&line), "PROTOCOL.md lacks: {line}");
    }
}

#[test]
fn a_list_or_a_text_of_more_than_allowed_is_refused() {
    let pairs = vec![(OriginRef(1), 1); entry::AFTER_PAIRS_MAX + 1];
    let address = "a".repeat(super::ADDRESS_BYTES_MAX + 1);
    for (more, expected) in [(1, Err(WireError::BadValue)), (0, Ok(()))] {
        let after = Seq::new(&pairs[..entry::AFTER_PAIRS_MAX + more]);
        let say = chat::Say { number: 1, scope: entry::Scope::Room("#all"), after, body: "x" };
        let address = &address[..super::ADDRESS_BYTES_MAX + more];
        let forget = chat::Forget { request: 1, address };
        assert_eq!(read_again(&say), expected);
        assert_eq!(read_again(&forget), expected);
    }
}

fn read_again<'a, M: Message<'a>>(message: &M) -> Result<(), WireError> {
    let mut payload = Vec::new();
    message.put(&mut payload);
    reencode(M::KIND, &payload, &mut Vec::new()).expect("a known kind")
}

#[test]
fn a_talk_is_read_in_one_form_only() {
    let talk = |low: u8, high: u8| {
        let mut bytes = vec![1];
        bytes.extend([[low; 8], [high; 8]].concat());
        bytes.push(0);
        entry::Scope::take(&mut Reader::new(&bytes)).map(|_| ())
    };
    assert_eq!(talk(1, 2), Ok(()));
    assert_eq!(talk(2, 2), Ok(()));
    assert_eq!(talk(3, 2), Err(WireError::BadValue));
}

#[test]
fn whatever_the_limits_allow_fits_a_frame() {
    let limits = Limits::default();
    let name = "n".repeat(NAME_BYTES_MAX);
    let room = "r".repeat(ROOM_BYTES_MAX);
    let address = "a".repeat(super::ADDRESS_BYTES_MAX);
    let rooms = vec![&room[..]; limits.rooms_per_session_max as usize];
    let vector = vec![(Origin::default(), u64::MAX); super::VECTOR_PAIRS_MAX];
    let ranges = vec![(Origin::default(), u64::MAX, u64::MAX); super::VECTOR_PAIRS_MAX];
    let indexes = vec![u64::MAX; limits.unacknowledged_max as usize];
    let partial = chat::Partial { room: &room, seen: Seq::default() };
    let partial = vec![partial; limits.rooms_per_session_max as usize];
    let record = peer::MemberRecord {
        server: ServerId(0),
        address: &address,
        origin: Origin::default(),
        state: chat::MemberState::Lost,
        version: u64::MAX,
    };
    let members = vec![record; limits.members_max as usize + 1];
    fits(&chat::Attach {
        secret: SessionSecret([0; 16]),
        process: Fixed64(0),
        attachment: u32::MAX,
        intent: chat::Intent::Resume,
        name: &name,
        reservation: Fixed64(0),
        hops: u8::MAX,
        author_number: u64::MAX,
        rooms: Seq::new(&rooms),
        seen: Seq::new(&vector),
        partial: Seq::new(&partial),
    });
    fits(&chat::Attached {
        session: SessionId(0),
        name: &name,
        intent: chat::Intent::Resume,
        author_number: u64::MAX,
        ma: u64::MAX,
        mt: u64::MAX,
        cut: Seq::new(&vector),
        rooms: Seq::new(&rooms),
    });
    fits(&chat::Want { ranges: Seq::new(&ranges) });
    fits(&chat::Ack { first: u64::MAX, copies: 0, durable: true, indexes: Seq::new(&indexes) });
    fits(&peer::Members { members: Seq::new(&members) });
    let body = "b".repeat(limits.body_bytes_max as usize);
    let entry = greatest_entry(&vector[..entry::AFTER_PAIRS_MAX], &name, &body);
    fits(&chat::Return { entry, tag: Tag::default() });
    let hashes = vec![BlockHash::default(); block::HASHES_MAX];
    fits(&block::Hashes { request: u64::MAX, first: u64::MAX, hashes: Seq::new(&hashes) });
    assert!(limits.origins_max as usize <= super::VECTOR_PAIRS_MAX, "one vector holds them all");
}

fn fits<'a, M: Message<'a>>(message: &M) {
    let mut frame = Vec::new();
    message.put_frame(&mut frame);
    assert!(frame.len() <= FRAME_BYTES_MAX);
}

fn greatest_entry<'a>(after: &'a [(Origin, u64)], name: &'a str, body: &'a str) -> Portable<'a> {
    Portable {
        origin: Origin::default(),
        number: u64::MAX,
        clock: Clock(u64::MAX),
        author: AuthorId::default(),
        author_number: u64::MAX,
        name,
        scope: entry::Scope::Talk { low: SessionId(1), high: SessionId(2), other: name },
        after: Seq::new(after),
        body,
    }
}
