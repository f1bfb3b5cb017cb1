//! Sources that are no good, each in its own way, and a small block server of the test's own that
//! can be one of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cordee_core::blocks::{BlockHash, BlockHasher, Layout, Manifest, Root};
use cordee_core::framing::{FRAME_BYTES_MAX, HEADER_BYTES, first_frame};
use cordee_core::wire::block::{
    AskBlocks, AskHashes, AskList, BlockWelcome, Hashes, ListedFile, Listing, Open, Opened,
    Refused, Slice, SliceEnd,
};
use cordee_core::wire::{Fixed64, Message, Reason, Seq};

/// How a source behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// As it should.
    Good,
    /// Nobody is there.
    Absent,
    /// Accepts, and says nothing.
    Silent,
    /// Says a few bytes of an answer, and closes.
    Closes,
    /// Says what is not the protocol.
    Garbage,
    /// One byte of every block is wrong.
    WrongBytes,
    /// The hashes do not fold into the root that it names.
    WrongManifest,
    /// Has another version of the file.
    OtherVersion,
    /// Is gone after so many bytes.
    Dies(u64),
    /// So many bytes a second.
    Slow(u64),
}

/// A source.
pub struct Source {
    /// Where it is.
    pub address: String,
    stop: Arc<AtomicBool>,
    /// Payload that was sent.
    pub sent: Arc<AtomicU64>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the one who accepts.
        let _ = TcpStream::connect(&self.address);
    }
}

struct Files {
    /// Under which names, in order, and what.
    names: Vec<String>,
    content: Vec<u8>,
    manifest: Manifest,
    manner: Manner,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

/// What the blocks of `content` are.
pub fn manifest(content: &[u8], block_bytes: u32) -> Manifest {
    let layout = Layout::new(content.len() as u64, block_bytes).expect("a layout");
    let hashes: Vec<BlockHash> = (0..layout.blocks().max(1))
        .map(|block| {
            let mut hasher = BlockHasher::new(&layout, block);
            if layout.blocks() > 0 {
                let range = layout.range(block, 1);
                hasher.update(&content[range.start as usize..range.end as usize]);
            }
            hasher.finish()
        })
        .collect();
    Manifest::of_hashes(layout, hashes).expect("as many as blocks")
}

/// The hash of `content`, as `b3sum` prints it.
pub fn hash(content: &[u8]) -> String {
    manifest(content, 256 << 10).root().to_string()
}

impl Source {
    /// A source of the file `content` under any name.
    pub fn start(manner: Manner, content: &[u8], block_bytes: u32) -> Source {
        Source::start_with(manner, content, block_bytes, Vec::new())
    }

    /// The same; these are the files that it lists below any directory.
    pub fn start_with(
        manner: Manner,
        content: &[u8],
        block_bytes: u32,
        names: Vec<String>,
    ) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        if manner == Manner::Absent {
            drop(listener);
            return Source { address, stop, sent };
        }
        let mut content = content.to_vec();
        if let (Manner::OtherVersion, Some(byte)) = (manner, content.last_mut()) {
            *byte ^= 1;
        }
        let manifest = manifest(&content, block_bytes);
        let files = Arc::new(Files {
            names,
            content,
            manifest,
            manner,
            stop: Arc::clone(&stop),
            sent: Arc::clone(&sent),
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                if files.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), files) = (stream, Arc::clone(&files)) else { continue };
                thread::spawn(move || files.serve(stream));
            }
        });
        Source { address, stop, sent }
    }
}

impl Files {
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        match self.manner {
            Manner::Silent => return drop(std::io::copy(&mut stream, &mut std::io::sink())),
            Manner::Closes => return drop(stream.write_all(&[0, 0, 0])),
            Manner::Garbage => {
                let garbage: Vec<u8> = (0..5_000_u32).map(|at| (at * 37 + 200) as u8).collect();
                return drop(stream.write_all(&garbage));
            }
            _ => {}
        }
        let mut bytes = Vec::new();
        let mut piece = [0; 4_096];
        while let Ok(count) = stream.read(&mut piece) {
            if count == 0 || self.stop.load(Ordering::SeqCst) {
                return;
            }
            bytes.extend_from_slice(&piece[..count]);
            while let Ok(Some(len)) = first_frame(&bytes, FRAME_BYTES_MAX) {
                let frame: Vec<u8> = bytes.drain(..len).collect();
                if self.answer(&mut stream, frame[4], &frame[HEADER_BYTES..]).is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut out = Vec::new();
        match kind {
            0x01 => BlockWelcome { minor: 0, requests_max: 16 }.put_frame(&mut out),
            Open::KIND => {
                let open = Open::parse(payload).expect("a fetcher's");
                if self.names.is_empty() || self.names.iter().any(|name| name == open.name) {
                    let layout = self.manifest.layout();
                    Opened {
                        request: open.request,
                        length: layout.length(),
                        block_bytes: layout.block_bytes(),
                        modified: Fixed64(0),
                        root: self.manifest.root(),
                        hashed: layout.blocks(),
                    }
                    .put_frame(&mut out);
                } else {
                    let reason = Reason::FileIsDirectory;
                    let (request, retry_ms, detail) = (open.request, 0, "");
                    Refused { request, reason, retry_ms, detail }.put_frame(&mut out);
                }
            }
            AskHashes::KIND => {
                let AskHashes { request, first, count, .. } =
                    AskHashes::parse(payload).expect("a fetcher's");
                let mut hashes = self.manifest.hashes()
                    [first as usize..first as usize + count as usize]
                    .to_vec();
                if self.manner == Manner::WrongManifest {
                    hashes[0] = BlockHash(Root::default().0);
                }
                Hashes { request, first, hashes: Seq::new(&hashes) }.put_frame(&mut out);
            }
            AskList::KIND => {
                let AskList { request, after, .. } = AskList::parse(payload).expect("a fetcher's");
                let length = self.content.len() as u64;
                let files: Vec<_> = self
                    .names
                    .iter()
                    .filter(|name| name.as_str() > after)
                    .map(|name| ListedFile { name, length })
                    .collect();
                Listing { request, files: Seq::new(&files), more: false }.put_frame(&mut out);
            }
            AskBlocks::KIND => {
                let ask = AskBlocks::parse(payload).expect("a fetcher's");
                for block in ask.first..ask.first + u64::from(ask.count) {
                    self.send_block(stream, ask.request, block)?;
                }
            }
            _ => {}
        }
        stream.write_all(&out)
    }

    fn send_block(&self, stream: &mut TcpStream, request: u64, block: u64) -> std::io::Result<()> {
        let range = self.manifest.layout().range(block, 1);
        let mut bytes = self.content[range.start as usize..range.end as usize].to_vec();
        let last_but_one = bytes.len() - 1;
        if self.manner == Manner::WrongBytes {
            bytes[last_but_one / 2] ^= 0x10;
        }
        let mut out = Vec::new();
        Slice { request, first: block, count: 1 }.put_frame(&mut out);
        out.extend_from_slice(&bytes[..last_but_one]);
        SliceEnd { last: bytes[last_but_one] }.put_frame(&mut out);
        let sent = self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        match self.manner {
            Manner::Dies(after) if sent >= after => {
                self.stop.store(true, Ordering::SeqCst);
                // In the middle of a block.
                stream.write_all(&out[..out.len() / 2])?;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            Manner::Slow(rate) => {
                for piece in out.chunks(8_192) {
                    stream.write_all(piece)?;
                    let wait = piece.len() as f64 / rate as f64;
                    thread::sleep(Duration::from_secs_f64(wait));
                }
                return Ok(());
            }
            _ => {}
        }
        stream.write_all(&out)
    }
}
