//! How requests are cut from the stream; what is answered to them is tested on the real binary.

use super::*;

fn feed(http: &mut Http, bytes: &[u8], piece: usize) -> usize {
    let mut taken = 0;
    for piece in bytes.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let space = http.space();
            if space.is_empty() {
                return taken;
            }
            let count = rest.len().min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            http.filled(count);
            taken += count;
            rest = &rest[count..];
        }
    }
    taken
}

#[test]
fn a_head_is_whole_at_its_empty_line_whatever_the_pieces() {
    let first = b"\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in 1..first.len() {
        let mut http = Http::new();
        feed(&mut http, &first[..first.len() - 1], piece);
        assert!(!http.has_whole() && http.is_amid_head() && !http.is_greeted(), "{piece}");
        feed(&mut http, b"\n", 1);
        assert!(http.has_whole() && !http.is_amid_head() && http.is_greeted(), "{piece}");
    }
}

#[test]
fn nothing_more_is_read_than_one_head_may_have() {
    let mut http = Http::new();
    let taken = feed(&mut http, &[b'A'; 100_000], 1_000);
    assert_eq!(taken, HEAD_BYTES_MAX);
    assert!(!http.wants_input());
    let mut http = Http::new();
    let request = b"GET /a HTTP/1.1\r\n\r\n".repeat(10_000);
    assert!(feed(&mut http, &request, 50_000) <= HEAD_BYTES_MAX);
}

#[test]
fn single_bytes_are_looked_at_once_or_a_few_times() {
    let mut http = Http::new();
    for byte in [b'A'; HEAD_BYTES_MAX] {
        let before = http.scanned;
        feed(&mut http, &[byte], 1);
        assert_eq!(http.scanned, before + 1, "from there on it goes on");
    }
}

impl Http {
    fn has_whole(&self) -> bool {
        self.whole.is_some()
    }
}
