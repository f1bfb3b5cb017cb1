//! Asks a block server for one file over and over, on some connections at once with some requests on
//! the way on each, and prints how much came. What comes is counted and dropped.
//!
//! cargo run --release --example block_load -- ADDRESS NAME CONNECTIONS REQUESTS BLOCKS SECONDS

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cordee_core::framing::HEADER_BYTES;
use cordee_core::wire::block::{AskBlocks, BlockWelcome, Open, Opened, Slice};
use cordee_core::wire::hello::{Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, VERSION_MAJOR, VERSION_MINOR};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, connections, requests, blocks, seconds] = &args[..] else {
        return Err("ADDRESS NAME CONNECTIONS REQUESTS BLOCKS SECONDS".into());
    };
    let (connections, requests): (usize, u64) = (connections.parse()?, requests.parse()?);
    let (blocks, seconds): (u32, f64) = (blocks.parse()?, seconds.parse()?);
    let time = Duration::from_secs_f64(seconds);
    let results = std::thread::scope(|scope| {
        let load = || load(address, name, requests, blocks, time);
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(load)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .collect::<Vec<_>>()
    });
    let (mut all_blocks, mut all_bytes) = (0, 0);
    for result in results {
        let (blocks, bytes) = result?;
        (all_blocks, all_bytes) = (all_blocks + blocks, all_bytes + bytes);
    }
    let rate = |count: u64| count as f64 / seconds;
    writeln!(io::stdout(), "{:.0} blocks/s, {:.3} GB/s", rate(all_blocks), rate(all_bytes) / 1e9)?;
    Ok(())
}

/// Loads on one connection; how many blocks came, and bytes.
fn load(
    address: &str,
    name: &str,
    requests: u64,
    blocks: u32,
    time: Duration,
) -> io::Result<(u64, u64)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        role: Role::Fetcher,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "",
    }
    .put_frame(&mut out);
    Open { request: 0, file: 0, name, hashes: false }.put_frame(&mut out);
    stream.write_all(&out)?;
    let mut input = Input { stream: stream.try_clone()?, bytes: vec![0; 256 << 10], at: 0, end: 0 };
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut payload = Vec::new();
    input.frame(BlockWelcome::KIND, &mut payload)?;
    input.frame(Opened::KIND, &mut payload)?;
    let opened = Opened::parse(&payload).map_err(wrong)?;
    let block_bytes = u64::from(opened.block_bytes);
    let runs = (opened.length / block_bytes / u64::from(blocks)).max(1);
    let mut asked = 0;
    let mut ask = |stream: &mut TcpStream, count: u64| -> io::Result<()> {
        let mut out = Vec::new();
        for _ in 0..count {
            let first = asked % runs * u64::from(blocks);
            AskBlocks { request: asked, file: 0, first, count: blocks }.put_frame(&mut out);
            asked += 1;
        }
        stream.write_all(&out)
    };
    ask(&mut stream, requests)?;
    let begun = Instant::now();
    let (mut done, mut bytes, mut owed) = (0, 0, 0);
    while begun.elapsed() < time {
        input.frame(Slice::KIND, &mut payload)?;
        let slice = Slice::parse(&payload).map_err(wrong)?;
        // The last byte is in the frame that follows.
        let length = u64::from(slice.count) * block_bytes;
        input.skip(length - 1 + HEADER_BYTES as u64 + 1)?;
        done += u64::from(slice.count);
        bytes += length;
        if (slice.first + u64::from(slice.count)) % u64::from(blocks) == 0 {
            owed += 1;
        }
        // As a fetcher does: the next request leaves long before the last answer has come.
        if owed > 0 && (owed >= requests / 4 || input.at == input.end) {
            ask(&mut stream, owed)?;
            owed = 0;
        }
    }
    Ok((done, bytes))
}

/// Bytes from the socket.
struct Input {
    stream: TcpStream,
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

impl Input {
    fn fill(&mut self) -> io::Result<()> {
        if self.at == self.end {
            (self.at, self.end) = (0, self.stream.read(&mut self.bytes)?);
            if self.end == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            self.fill()?;
            let step = count.min((self.end - self.at) as u64);
            self.at += step as usize;
            count -= step;
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.fill()?;
        self.at += 1;
        Ok(self.bytes[self.at - 1])
    }

    fn frame(&mut self, kind: u8, payload: &mut Vec<u8>) -> io::Result<()> {
        let mut length = 0_u32;
        for _ in 0..4 {
            length = length << 8 | u32::from(self.byte()?);
        }
        if self.byte()? != kind {
            return Err(io::ErrorKind::InvalidData.into());
        }
        payload.clear();
        for _ in 1..length {
            payload.push(self.byte()?);
        }
        Ok(())
    }
}
