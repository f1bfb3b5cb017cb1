//! What a connection's thread reads into: one buffer, in which whole blocks lie in one piece.

use std::io;

use cordee_core::framing::FRAME_BYTES_MAX;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::Socket;

use super::Gone;
use cordee_core::blocks::scheduler::Fault;

/// Bytes that came and were not taken yet, at `start..end` of one buffer.
#[derive(Debug)]
pub(super) struct Inlet {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inlet {
    pub(super) fn new() -> Inlet {
        Inlet { buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Lets go of the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "only what came is taken");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Forgets the last `count` bytes.
    pub(super) fn shorten(&mut self, count: usize) {
        self.end -= count;
    }

    /// Whether what is there can grow to `len` bytes in its place.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.start + len <= self.buffer.len()
    }

    /// Lets what is there grow to `len` bytes: moves it to the front, or takes a longer buffer.
    pub(super) fn make_room(&mut self, len: usize) {
        if self.has_room(len) {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
    }

    /// Waits for bytes and reads what is there, at most `most`; there must be room.
    pub(super) fn read(&mut self, socket: &Socket, most: usize) -> Result<usize, Gone> {
        let to = self.buffer.len().min(self.end + most);
        debug_assert!(to > self.end, "room was made");
        loop {
            match rustix::net::recv(socket, &mut self.buffer[self.end..to], RecvFlags::empty()) {
                Ok((0, _)) => return Err(Gone::new(Fault::Ended, "it closed the connection")),
                Ok((count, _)) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(Gone::broken(&io::Error::from(error))),
            }
        }
    }

    /// Reads on until there are `len` bytes.
    pub(super) fn fill(&mut self, socket: &Socket, len: usize) -> Result<(), Gone> {
        self.make_room(len);
        while self.len() < len {
            self.read(socket, len - self.len())?;
        }
        Ok(())
    }
}

/// A block of the default length, what stands before and behind it, and the greatest frame.
pub(super) const BUFFER_BYTES: usize = (256 << 10) + FRAME_BYTES_MAX;
