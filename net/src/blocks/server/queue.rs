//! The queue of connections that have something to be done.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex, lock, wait};

/// Connections that wait for a worker. It is bounded because each connection is in it once at the most.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// Workers that wait.
    idle: usize,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), idle: 0, closed: false };
        Queue { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Puts one at the end. After the end of the server it is dropped.
    pub(super) fn push(&self, item: T) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        state.waiting.push_back(item);
        if state.idle > 0 {
            self.filled.notify_one();
        }
    }

    /// The first; waits for one. `None` after the end of the server.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.waiting.pop_front() {
                return Some(item);
            }
            state.idle += 1;
            state = wait(&self.filled, state);
            state.idle -= 1;
        }
    }

    /// Ends the workers. What waits is dropped.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = lock(&self.state);
            state.closed = true;
            self.filled.notify_all();
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_came_is_the_first_that_is_served() {
        let queue = Queue::new();
        (0..3).for_each(|number| queue.push(number));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn the_end_wakes_everyone_and_drops_what_waits() {
        let queue = crate::sync::Arc::new(Queue::new());
        let waiting = crate::sync::Arc::clone(&queue);
        let thread = std::thread::spawn(move || waiting.pop());
        queue.close();
        assert_eq!(thread.join().ok(), Some(None::<u8>));
        queue.push(7);
        assert_eq!(queue.pop(), None);
    }
}
