//! A block server, and fetchers of our own making that see every byte it sends.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use cordee_core::blocks::Layout;
use cordee_core::wire::block::{
    AskBlockServer, AskBlocks, AskHashes, AskList, BlockServerStatus, BlockWelcome, Hashes,
    Listing, Open, Opened, Refused, Slice, SliceEnd,
};
use cordee_core::wire::hello::{Bye, Hello, Role};
use cordee_core::wire::{Message, Reason};
use rustix::process::{Signal, kill_process};

use super::raw::{encoded, hello};
use super::{Lines, PATIENCE, SERVER_SECONDS_MAX, pid, wait_until};

/// `cordee block-server`, ended when the test is over.
pub struct Server {
    /// `timeout`, which ends the server when a killed test no longer can.
    process: Child,
    /// Where it listens.
    pub address: String,
    stderr: Lines,
}

impl Server {
    /// Serves `directory` on a free port.
    pub fn start(directory: &Path, args: &[&str]) -> Server {
        let mut process = Command::new("timeout")
            .args(["--kill-after=20", SERVER_SECONDS_MAX, env!("CARGO_BIN_EXE_cordee")])
            .arg("block-server")
            .arg(directory)
            .args(["-p", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("timeout (of coreutils) runs");
        let stdout = Lines::collect(process.stdout.take().expect("piped"));
        let stderr = Lines::collect(process.stderr.take().expect("piped"));
        let address = wait_until("the server to listen", || {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("the server ended: {status}\n{}", stderr.copy().join("\n"));
            }
            let lines = stdout.copy();
            lines.iter().find_map(|line| line.strip_prefix("listening on ")).map(str::to_owned)
        });
        Server { process, address, stderr }
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.copy()
    }

    /// The process that serves.
    pub fn pid(&self) -> u64 {
        self.status().pid.into()
    }

    /// How it stands.
    pub fn status(&self) -> BlockServerStatus {
        let mut observer = Fetcher::greet_as(&self.address, Role::Observer);
        observer.send(&AskBlockServer { request: 1 });
        let (_, payload) = observer.frame(BlockServerStatus::KIND);
        BlockServerStatus::parse(&payload).expect("valid")
    }

    /// A fetcher that is welcome.
    pub fn greet(&self) -> Fetcher {
        Fetcher::greet_as(&self.address, Role::Fetcher)
    }

    /// A connection on which nothing was said.
    pub fn connect(&self) -> Fetcher {
        Fetcher::connect(&self.address)
    }

    /// Asks it to stop (`SIGTERM`).
    pub fn terminate(&self) {
        // `timeout` would pass the signal on twice, which means at once.
        kill_process(pid(self.pid()), Signal::TERM).expect("it runs");
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the server to stop", || self.process.try_wait().expect("it is ours"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the server said: {:?}", self.stderr());
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            // Twice is at once.
            let timeout = pid(self.process.id().into());
            let _ = kill_process(timeout, Signal::TERM);
            std::thread::sleep(Duration::from_millis(20));
            let _ = kill_process(timeout, Signal::TERM);
            let _ = self.process.wait();
        }
    }
}

/// One end of a connection to a block server.
pub struct Fetcher {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    /// Of the file that was opened last.
    layout: Option<Layout>,
}

/// What a server sent.
#[derive(Debug)]
pub enum Answer {
    /// A frame, but for those of slices.
    Frame { kind: u8, payload: Vec<u8> },
    /// A slice whole with its last byte, or why that did not come.
    Slice { request: u64, first: u64, count: u32, result: Result<Vec<u8>, Reason> },
    /// The end of the stream.
    End,
}

impl Fetcher {
    pub fn connect(address: &str) -> Fetcher {
        Fetcher::over(TcpStream::connect(address).expect("it listens"))
    }

    pub fn over(stream: TcpStream) -> Fetcher {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        let reader = BufReader::with_capacity(1 << 17, stream.try_clone().expect("a descriptor"));
        Fetcher { stream, reader, layout: None }
    }

    pub fn greet_as(address: &str, role: Role) -> Fetcher {
        let mut fetcher = Fetcher::connect(address);
        fetcher.send(&Hello { role, cluster: "", ..hello() });
        fetcher.frame(BlockWelcome::KIND);
        fetcher
    }

    pub fn send<'a>(&mut self, message: &impl Message<'a>) -> bool {
        self.send_bytes(&encoded(message))
    }

    /// Sends bytes; whether they were taken. What is wrong with them the answer says.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Opens a file under a number, and gives what is answered.
    pub fn open(&mut self, number: u32, name: &str, hashes: bool) -> Result<File, Reason> {
        self.send(&Open { request: 1_000, file: number, name, hashes });
        match self.next() {
            Answer::Frame { kind: Opened::KIND, payload } => {
                let opened = Opened::parse(&payload).expect("valid");
                let layout = Layout::new(opened.length, opened.block_bytes).expect("a layout");
                self.layout = Some(layout);
                Ok(File { layout, opened })
            }
            Answer::Frame { kind: Refused::KIND, payload } => {
                let refused = Refused::parse(&payload).expect("valid");
                assert_eq!(refused.request, 1_000);
                Err(refused.reason)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Opens a file with hashes and waits until it is hashed.
    pub fn open_hashed(&mut self, number: u32, name: &str) -> File {
        wait_until("the file to be hashed", || {
            let file = self.open(number, name, true).expect("it is served");
            (!file.opened.root.is_unknown()).then_some(file)
        })
    }

    pub fn ask(&mut self, request: u64, file: u32, first: u64, count: u32) {
        self.send(&AskBlocks { request, file, first, count });
    }

    /// All blocks of a run, in slices that follow each other.
    pub fn run(&mut self, request: u64, first: u64, count: u32) -> Vec<u8> {
        let (mut next, mut bytes) = (first, Vec::new());
        while next < first + u64::from(count) {
            match self.next() {
                Answer::Slice { request: of, first: at, count, result: Ok(slice) } => {
                    assert_eq!((of, at), (request, next));
                    bytes.extend(slice);
                    next += u64::from(count);
                }
                other => panic!("block {next} of {request}: {other:?}"),
            }
        }
        bytes
    }

    /// Why a request is refused.
    pub fn refusal(&mut self, request: u64) -> (Reason, u32) {
        let (_, payload) = self.frame(Refused::KIND);
        let refused = Refused::parse(&payload).expect("valid");
        assert_eq!(refused.request, request);
        (refused.reason, refused.retry_ms)
    }

    /// Asks for hashes: they, or why not.
    pub fn hashes(&mut self, file: u32, first: u64, count: u32) -> Result<Vec<u8>, Reason> {
        self.send(&AskHashes { request: 2_000, file, first, count });
        match self.next() {
            Answer::Frame { kind: Hashes::KIND, payload } => {
                let hashes = Hashes::parse(&payload).expect("valid");
                assert_eq!((hashes.request, hashes.first), (2_000, first));
                Ok(hashes.hashes.iter().flat_map(|hash| hash.0).collect())
            }
            Answer::Frame { kind: Refused::KIND, payload } => {
                Err(Refused::parse(&payload).expect("valid").reason)
            }
            other => panic!("{other:?}"),
        }
    }

    /// All files below a directory, page by page.
    pub fn list(&mut self, name: &str) -> Result<Vec<(String, u64)>, Reason> {
        let (mut files, mut after) = (Vec::<(String, u64)>::new(), String::new());
        loop {
            self.send(&AskList { request: 3_000, name, after: &after });
            match self.next() {
                Answer::Frame { kind: Listing::KIND, payload } => {
                    let page = Listing::parse(&payload).expect("valid");
                    files.extend(page.files.iter().map(|file| (file.name.to_owned(), file.length)));
                    if !page.more {
                        return Ok(files);
                    }
                    after.clone_from(&files.last().expect("more follows something").0);
                }
                Answer::Frame { kind: Refused::KIND, payload } => {
                    return Err(Refused::parse(&payload).expect("valid").reason);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next answer, which is a frame of that kind.
    pub fn frame(&mut self, wanted: u8) -> (u8, Vec<u8>) {
        match self.next() {
            Answer::Frame { kind, payload } if kind == wanted => (kind, payload),
            other => panic!("not {wanted:#04x}: {other:?}"),
        }
    }

    /// Why the connection ends, after whatever came before, and when to come again.
    pub fn bye(&mut self) -> (Reason, u32) {
        loop {
            match self.next() {
                Answer::Frame { kind: Bye::KIND, payload } => {
                    let bye = Bye::parse(&payload).expect("valid");
                    assert!(matches!(self.next(), Answer::End), "nothing follows");
                    return (bye.reason, bye.retry_ms);
                }
                Answer::End => panic!("the connection ends without a word"),
                _ => {}
            }
        }
    }

    /// The next answer, whatever it is.
    pub fn next(&mut self) -> Answer {
        let Some((kind, payload)) = self.read_frame() else { return Answer::End };
        if kind != Slice::KIND {
            return Answer::Frame { kind, payload };
        }
        let slice = Slice::parse(&payload).expect("valid");
        let layout = self.layout.expect("a file is open");
        let range = layout.range(slice.first, slice.count.into());
        let mut bytes = vec![0; (range.end - range.start) as usize - 1];
        if self.reader.read_exact(&mut bytes).is_err() {
            return Answer::End;
        }
        let result = match self.read_frame() {
            Some((SliceEnd::KIND, payload)) => {
                bytes.push(SliceEnd::parse(&payload).expect("valid").last);
                Ok(bytes)
            }
            Some((Bye::KIND, payload)) => Err(Bye::parse(&payload).expect("valid").reason),
            None => return Answer::End,
            other => panic!("{other:?} after the bytes of a slice"),
        };
        Answer::Slice { request: slice.request, first: slice.first, count: slice.count, result }
    }

    fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.reader.read_exact(&mut frame).ok()?;
        let payload = frame.split_off(1);
        Some((frame[0], payload))
    }
}

/// A file that was opened.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub layout: Layout,
    pub opened: Opened,
}

impl File {
    /// How many blocks it has.
    pub fn blocks(&self) -> u32 {
        self.layout.blocks() as u32
    }
}

/// Bytes that are the same every time, and differ everywhere.
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
