//! A table of bounded size whose keys are generational [`ConnId`]s.

use alloc::vec::Vec;

use crate::ids::ConnId;

/// Values by [`ConnId`]. A key of a removed value never finds the value that took its place.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value in and returns its key.
    pub fn insert(&mut self, value: T) -> ConnId {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return ConnId { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 connections");
        self.slots.push(Slot { generation: 0, value: Some(value) });
        ConnId { index, generation: 0 }
    }

    /// The value of `key`, unless it was removed.
    #[must_use]
    pub fn get(&self, key: ConnId) -> Option<&T> {
        self.slots
            .get(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.value.as_ref())
    }

    /// The value of `key`, to change it, unless it was removed.
    pub fn get_mut(&mut self, key: ConnId) -> Option<&mut T> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.value.as_mut())
    }

    /// Takes the value of `key` out; the key never matches again.
    pub fn remove(&mut self, key: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every value with its key, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = ConnId { index: index as u32, generation: slot.generation };
            slot.value.as_ref().map(|value| (key, value))
        })
    }

    /// Every value with its key, to change it, in the order of the table.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let key = ConnId { index: index as u32, generation: slot.generation };
            slot.value.as_mut().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_misses() {
        let mut slab = Slab::new();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("b");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"b"));
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.iter().count(), 1);
    }

    #[test]
    fn values_are_found_counted_and_changed_by_their_keys() {
        let mut slab = Slab::new();
        assert!(slab.is_empty() && slab.iter().next().is_none());
        let keys = ["a", "b", "c"].map(|value| slab.insert(value));
        assert_eq!(slab.remove(keys[1]), Some("b"));
        slab.iter_mut().for_each(|(_, value)| *value = if *value == "a" { "x" } else { "z" });
        *slab.get_mut(keys[0]).expect("it is there") = "y";
        assert!(slab.get_mut(keys[1]).is_none());
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(keys[0], &"y"), (keys[2], &"z")]);
        assert_eq!((slab.len(), slab.is_empty()), (2, false));
        assert_eq!(keys.map(|key| slab.remove(key)), [Some("y"), None, Some("z")]);
        assert_eq!((slab.len(), slab.is_empty()), (0, true));
        assert_eq!(slab.get(ConnId { index: 7, generation: 0 }), None);
    }
}
