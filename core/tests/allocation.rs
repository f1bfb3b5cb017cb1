//! The way of a message through a server's machine allocates nothing, once its memory is warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use cordee_core::chat::server::Effect;

mod rig;
use rig::Rig;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM: usize = 5_000;
const COUNTED: usize = 2_000;

/// Runs `step` until memory is warm, then counts what it allocates.
fn allocations(rig: &mut Rig, mut step: impl FnMut(&mut Rig)) -> u64 {
    rig.server.reserve(WARM + COUNTED);
    for _ in 0..WARM {
        step(rig);
        rig.out.clear();
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..COUNTED {
        step(rig);
        let published = rig.out.effects().iter();
        let published = published.filter(|effect| matches!(effect, Effect::Publish { .. })).count();
        assert_eq!(published, 1, "one effect for all who see it");
        rig.out.clear();
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

// One test: the count is the process's.
#[test]
fn a_broadcast_allocates_nothing_on_the_server_that_accepts_it_nor_on_one_that_receives_it() {
    let mut rig = Rig::new(50);
    let body = "x".repeat(64);
    let accepted = allocations(&mut rig, |rig| rig.say(3, &body));
    assert_eq!(accepted, 0, "allocations while accepting {COUNTED} messages");
    rig.link_peer();
    rig.wait(10_000);
    let received = allocations(&mut rig, |rig| rig.replicate(&body));
    assert_eq!(received, 0, "allocations while receiving {COUNTED} messages");
}
