//! What the load consists of: text that says who sent it, its place and when.
//!
//! ```text
//! | publisher: 2 | sequence: 8 | time: 8 | filler |
//! ```
//!
//! Six bits a character, from `0` (0x30) to `o` (0x6f): valid UTF-8, and read without a loop.

/// Bytes before the filler: the least length of a payload.
pub(crate) const STAMP_BYTES: usize = 18;
/// The most publishers that a payload can tell apart.
pub(crate) const PUBLISHERS_MAX: u64 = 64 * 64;

const ZERO: u64 = 0x3030_3030_3030_3030;

/// Who sent a message, its place among the sender's, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// Index of the publisher.
    pub(crate) publisher: u32,
    /// Counts 0, 1, 2, … per publisher.
    pub(crate) sequence: u64,
    /// Microseconds since the program started.
    pub(crate) sent_us: u64,
}

impl Stamp {
    /// Writes the stamp over the front of `payload`.
    pub(crate) fn put(self, payload: &mut [u8]) {
        debug_assert!(u64::from(self.publisher) < PUBLISHERS_MAX);
        payload[0] = b'0' + (self.publisher >> 6) as u8;
        payload[1] = b'0' + (self.publisher & 63) as u8;
        payload[2..10].copy_from_slice(&digits(self.sequence));
        payload[10..18].copy_from_slice(&digits(self.sent_us));
    }

    /// The stamp at the front of `payload`; `None` when it is too short.
    pub(crate) fn of(payload: &[u8]) -> Option<Stamp> {
        let (stamp, _) = payload.split_first_chunk::<STAMP_BYTES>()?;
        let publisher = [stamp[0], stamp[1]].map(|digit| u32::from(digit.wrapping_sub(b'0')));
        Some(Stamp {
            publisher: publisher[0] << 6 | publisher[1],
            sequence: number(stamp[2..10].first_chunk()?),
            sent_us: number(stamp[10..18].first_chunk()?),
        })
    }
}

/// 48 bits as eight characters.
fn digits(number: u64) -> [u8; 8] {
    let mut digits = [0; 8];
    for (at, digit) in digits.iter_mut().enumerate() {
        *digit = b'0' + (number >> (42 - 6 * at) & 63) as u8;
    }
    digits
}

/// Joins neighbours: eight lanes of 6 bits, four of 12, two of 24, one of 48.
fn number(digits: &[u8; 8]) -> u64 {
    let lanes = u64::from_be_bytes(*digits).wrapping_sub(ZERO);
    let lanes = (lanes & 0x3f00_3f00_3f00_3f00) >> 2 | (lanes & 0x003f_003f_003f_003f);
    let lanes = (lanes & 0x0fff_0000_0fff_0000) >> 4 | (lanes & 0x0000_0fff_0000_0fff);
    (lanes & 0x00ff_ffff_0000_0000) >> 8 | (lanes & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_text_and_comes_back() {
        for value in [0, 1, 63, 64, 4_095, 123_456_789, (1 << 48) - 1] {
            let stamp = Stamp { publisher: value as u32 & 4_095, sequence: value, sent_us: value };
            let mut payload = [b'x'; 64];
            stamp.put(&mut payload);
            assert!(payload.iter().all(u8::is_ascii_graphic));
            assert_eq!(Stamp::of(&payload), Some(stamp));
        }
        assert_eq!(Stamp::of(&[b'0'; STAMP_BYTES - 1]), None);
    }
}
