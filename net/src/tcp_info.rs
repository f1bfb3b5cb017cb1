//! What the kernel knows of a TCP connection: round trips, and what the other end has taken.
//!
//! Neither `socket2` nor `rustix` asks for it; this is one call of the C library.
#![allow(unsafe_code, reason = "no safe wrapper of TCP_INFO exists")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TcpInfo {
    /// The smoothed time of a round trip.
    pub(crate) rtt: Duration,
    /// How many bytes the other end has acknowledged since the connection began.
    pub(crate) acknowledged: u64,
}

/// Asks the kernel.
pub(crate) fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let mut info = [0_u8; BYTES];
    let mut length = BYTES as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many, and says how
    // many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < BYTES {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let rtt = u32::from_ne_bytes([info[RTT], info[RTT + 1], info[RTT + 2], info[RTT + 3]]);
    let mut acknowledged = [0; 8];
    acknowledged.copy_from_slice(&info[ACKNOWLEDGED..ACKNOWLEDGED + 8]);
    Ok(TcpInfo {
        rtt: Duration::from_micros(rtt.into()),
        acknowledged: u64::from_ne_bytes(acknowledged),
    })
}

// Where the fields lie in `struct tcp_info` of linux/tcp.h: the layout is the kernel's promise, and
// that of the C library ends earlier.
const RTT: usize = 68;
const ACKNOWLEDGED: usize = 120;
const BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_the_other_end_took_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut writer = TcpStream::connect(address).expect("it listens");
        let (mut reader, _) = listener.accept().expect("a connection");
        let before = tcp_info(writer.as_fd()).expect("TCP").acknowledged;
        writer.write_all(&[7; 1_000]).expect("it is read");
        reader.read_exact(&mut [0; 1_000]).expect("it was written");
        let begun = std::time::Instant::now();
        loop {
            let info = tcp_info(writer.as_fd()).expect("TCP");
            if info.acknowledged - before >= 1_000 {
                assert!(info.rtt > Duration::ZERO && info.rtt < Duration::from_secs(60));
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{info:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_no_tcp_connection_is_an_error() {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert!(tcp_info(file.as_fd()).is_err());
    }
}
