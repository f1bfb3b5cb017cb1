//! The bare loops that bound every fetch: no protocol, no scheduler, no journal. A sender that does
//! nothing but `sendfile`, and receivers that do only what has to be done with the bytes.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What is done with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loop {
    /// Read, hashed with BLAKE3 block by block, written in place.
    Hash,
    /// Spliced into the file.
    Splice,
}

/// Connections of the bare loops: on two cores more gain nothing.
const CONNECTIONS: u64 = 2;
/// What is read and hashed at a time.
const PIECE_BYTES: usize = 256 << 10;
const PIPE_BYTES: usize = 1 << 20;

/// Sends `source` over loopback into a new preallocated file at `target`. Returns how long it took,
/// preallocation and all.
pub(crate) fn run(kind: Loop, source: &Path, target: &Path) -> io::Result<Duration> {
    let length = File::open(source)?.metadata()?.len();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let begun = Instant::now();
    let file = File::options().read(true).write(true).create(true).truncate(true).open(target)?;
    fallocate(&file, FallocateFlags::empty(), 0, length)?;
    let part = length.div_ceil(CONNECTIONS);
    thread::scope(|scope| -> io::Result<()> {
        let mut threads = Vec::new();
        for number in 0..CONNECTIONS {
            let first = (number * part).min(length);
            let count = part.min(length - first);
            let receiver = TcpStream::connect(address)?;
            let (sender, _) = listener.accept()?;
            threads.push(scope.spawn(move || send(&sender, source, first, count)));
            let file = &file;
            threads.push(scope.spawn(move || match kind {
                Loop::Hash => hash(&receiver, file, first, count),
                Loop::Splice => spliced(&receiver, file, first, count),
            }));
        }
        for thread in threads {
            thread.join().map_err(|_| io::Error::other("a thread died"))??;
        }
        Ok(())
    })?;
    Ok(begun.elapsed())
}

fn send(socket: &TcpStream, source: &Path, first: u64, count: u64) -> io::Result<()> {
    // As the server does on loopback; where the kernel has it not, its default must do.
    let _ = socket2::SockRef::from(socket).set_tcp_congestion(b"reno");
    let file = File::open(source)?;
    let mut at = first;
    let end = first + count;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        if rustix::fs::sendfile(socket, &file, Some(&mut at), most)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn hash(mut socket: &TcpStream, file: &File, first: u64, count: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, end) = (first, first + count);
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        socket.read_exact(&mut piece[..bytes])?;
        std::hint::black_box(blake3::hash(&piece[..bytes]));
        file.write_all_at(&piece[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

fn spliced(socket: &TcpStream, file: &File, first: u64, count: u64) -> io::Result<()> {
    let (from, into) = pipe_with(PipeFlags::CLOEXEC)?;
    // Not everybody may have so large a pipe.
    let _ = fcntl_setpipe_size(&into, PIPE_BYTES);
    let (mut at, end) = (first, first + count);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIPE_BYTES);
        let mut held = splice(socket, None, &into, None, most, SpliceFlags::MOVE)?;
        if held == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while held > 0 {
            held -= splice(&from, None, file, Some(&mut at), held, SpliceFlags::MOVE)?;
        }
    }
    Ok(())
}
