//! Proves that `cordee-core` needs no std: this library has a panic handler and an allocator of its
//! own, so the build fails ("found duplicate lang item") as soon as anything brings std in.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, frames};
use cordee_core::wire::{Message, hello::Ping};

/// Hands out pieces of one fixed region and takes none back.
struct Bump {
    region: UnsafeCell<[u8; REGION_BYTES]>,
    taken: AtomicUsize,
}

const REGION_BYTES: usize = 1 << 20;

// SAFETY: no byte of the region is handed out twice, because `taken` only grows.
unsafe impl Sync for Bump {}

// SAFETY: what is returned lies in the region, is aligned, and is never handed out again.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size() + layout.align();
        let start = self.taken.fetch_add(bytes, Ordering::Relaxed);
        if start.saturating_add(bytes) > REGION_BYTES {
            return core::ptr::null_mut();
        }
        // SAFETY: `start` and what follows it up to `bytes` lie in the region.
        let piece = unsafe { self.region.get().cast::<u8>().add(start) };
        // SAFETY: the piece is longer than the layout by its alignment.
        unsafe { piece.add(piece.align_offset(layout.align())) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: Bump = Bump { region: UnsafeCell::new([0; REGION_BYTES]), taken: AtomicUsize::new(0) };

#[panic_handler]
fn stop(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Sends a ping through the deframer and gives its nonce back.
#[unsafe(no_mangle)]
pub extern "C" fn cordee_echo(nonce: u64) -> u64 {
    let mut bytes = Vec::new();
    Ping { nonce }.put_frame(&mut bytes);
    let mut deframer = Deframer::new(FRAME_BYTES_MAX);
    deframer.extend(&bytes);
    let ready = deframer.ready().unwrap_or(&[]);
    frames(ready).find_map(|frame| Ping::parse(frame.payload).ok()).map_or(0, |ping| ping.nonce)
}
