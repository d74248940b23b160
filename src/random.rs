//! Random bits that tell one thing from every other, in this file and in others.

use std::hash::{BuildHasher, Hasher};

/// 64 random bits of the operating system: no two processes have the same, not even after a fork.
pub(crate) fn bits() -> u64 {
    let fallback = |_| std::hash::RandomState::new().build_hasher().finish();
    getrandom::u64().unwrap_or_else(fallback)
}

#[cfg(test)]
mod tests {
    #[test]
    fn bits_differ() {
        assert_ne!(super::bits(), super::bits());
    }
}
