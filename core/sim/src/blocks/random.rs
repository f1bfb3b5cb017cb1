//! Fetches drawn from a seed, and what must hold of each.
