//! Fetching files block by block: what a fetcher and a block server say to each other.
//!
//! Everything is framed but the blocks themselves: behind a [`Slice`] come the raw bytes of its
//! blocks but the last, then a [`SliceEnd`] with that last byte, or a `Bye` instead of it.

use super::{Fixed64, Reason, Seq, wire};
use crate::blocks::{BlockHash, Root};

/// The longest name of a file or directory, in bytes of UTF-8, with the slashes in it.
pub const FILE_NAME_BYTES_MAX: usize = 4_096;
/// The most hashes in one [`Hashes`]: with them it fits a frame.
pub const HASHES_MAX: usize = 2_000;
/// The most files in one [`Listing`].
pub const LISTED_MAX: usize = 1_000;

wire! {
    /// A block server's answer to a hello that is welcome.
    [0x70] BlockWelcome {
        /// The answerer's minor version.
        minor: u16,
        /// How many requests of one connection may wait at once; more are refused.
        requests_max: u32,
    }

    /// Opens a file under a number that the fetcher draws; it stands for this very version of the
    /// file until the connection ends or the number is opened anew.
    [0x71] Open<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The number, below the server's `requests_max`.
        file: u32,
        /// The file's name below the served directory: parts with slashes between them.
        name: &'a str[..=FILE_NAME_BYTES_MAX],
        /// Whether the hashes are wanted: then the server hashes the file unless it has them.
        hashes: bool,
    }

    /// Asks for the hashes of blocks.
    [0x72] AskHashes {
        /// Comes back in the answers.
        request: u64,
        /// The file's number.
        file: u32,
        /// The first block, from 0.
        first: u64,
        /// How many, at most [`HASHES_MAX`].
        count: u32,
    }

    /// Asks for a run of blocks.
    [0x73] AskBlocks {
        /// Comes back in the slices; the requests of a connection have different ones.
        request: u64,
        /// The file's number.
        file: u32,
        /// The first block, from 0.
        first: u64,
        /// How many, at least one, none beyond the file's end.
        count: u32,
    }

    /// Takes an [`AskBlocks`] back: what was not begun of it is not sent, and it is answered with
    /// `cancelled`, unless all of it was sent before.
    [0x74] Cancel {
        /// Whose.
        request: u64,
    }

    /// Asks for the files below a directory.
    [0x75] AskList<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The directory's name; empty for all that is served.
        name: &'a str[..=FILE_NAME_BYTES_MAX],
        /// The last name of the listing before this one, empty at first.
        after: &'a str[..=FILE_NAME_BYTES_MAX],
    }

    /// Asks how the server stands.
    [0x76] AskBlockServer {
        /// Comes back in the answer.
        request: u64,
    }

    /// A file is open.
    [0x78] Opened {
        /// As in the request.
        request: u64,
        /// The file's length in bytes.
        length: u64,
        /// The length of a block in bytes: a power of two from 2^10 to 2^24.
        block_bytes: u32,
        /// When it was last modified: microseconds since 1970-01-01 UTC.
        modified: Fixed64,
        /// The file's BLAKE3 hash, zeros while it is not known.
        root: Root,
        /// How many blocks of it are hashed; all when the root is known.
        hashed: u64,
    }

    /// Hashes of consecutive blocks.
    [0x79] Hashes<'a> {
        /// As in the request.
        request: u64,
        /// Of the block at which they begin.
        first: u64,
        /// Per block, its hash.
        hashes: Seq<'a, BlockHash>[..=HASHES_MAX],
    }

    /// Consecutive blocks. Raw bytes follow, outside of any frame: those of all these blocks but the very
    /// last byte. Then comes a [`SliceEnd`], or a `Bye` when the file changed meanwhile.
    [0x7a] Slice {
        /// As in the request.
        request: u64,
        /// The first block.
        first: u64,
        /// How many.
        count: u32,
    }

    /// The file was found unchanged after the bytes of the slice were sent.
    [0x7b] SliceEnd {
        /// The last byte of the slice.
        last: u8,
    }

    /// A request failed.
    [0x7c] Refused<'a> {
        /// Which.
        request: u64,
        /// Why.
        reason: Reason,
        /// When to try again, in milliseconds; 0 when there is no use in it.
        retry_ms: u32,
        /// More for people to read; may be empty.
        detail: &'a str,
    }

    /// A file below a directory.
    ListedFile<'a> {
        /// Its name below the served directory.
        name: &'a str[..=FILE_NAME_BYTES_MAX],
        /// Its length in bytes.
        length: u64,
    }

    /// Files below a directory, in the order of the bytes of their names.
    [0x7d] Listing<'a> {
        /// As in the request.
        request: u64,
        /// The files; at most [`LISTED_MAX`], fewer where names are long.
        files: Seq<'a, ListedFile<'a>>[..=LISTED_MAX],
        /// Whether there are more.
        more: bool,
    }

    /// How a block server stands.
    [0x7e] BlockServerStatus {
        /// As in the request.
        request: u64,
        /// The process.
        pid: u32,
        /// How many files it serves.
        files: u64,
        /// Requests for blocks that are being answered or wait.
        transfers: u32,
        /// Bytes of files sent since it started.
        bytes_sent: u64,
        /// Connections.
        connections: u32,
    }
}
