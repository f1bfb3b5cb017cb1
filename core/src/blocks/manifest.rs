//! How a file is cut, and the hashes by which each block is checked by itself.
//!
//! The root is the file's ordinary BLAKE3 hash. BLAKE3 is a tree over chunks of 1 KiB, and a block
//! of a power of two of them is one whole subtree (the last block is whatever is left): its hash is
//! that subtree's chaining value, and the hashes of all blocks fold into the root the way the tree
//! does, the left side of a node being the largest power of two of blocks that leaves something for the
//! right (BLAKE3 paper, section 2.1). A file of one block, or of none, is its own root.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// The BLAKE3 hash of a whole file, what `b3sum` prints. Zeros stand for one that is not known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Root(pub [u8; 32]);

impl Root {
    /// Whether it stands for a hash that is not known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.0 == [0; 32]
    }
}

/// The hash of one block: the chaining value of its subtree, or the root if it is the only one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockHash(pub [u8; 32]);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({self})")
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({})", Root(self.0))
    }
}

impl core::str::FromStr for Root {
    type Err = ManifestError;

    /// 64 hexadecimal digits, as `b3sum` prints them; not all of them 0.
    fn from_str(text: &str) -> Result<Root, ManifestError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(ManifestError::NoHash);
        }
        let mut root = Root::default();
        for (byte, pair) in root.0.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(ManifestError::NoHash);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        if root.is_unknown() { Err(ManifestError::NoHash) } else { Ok(root) }
    }
}

/// Length of a block unless a server is told another, in bytes.
pub const BLOCK_BYTES_DEFAULT: u32 = 256 << 10;
/// The shortest block, in bytes: one chunk of BLAKE3.
pub const BLOCK_BYTES_MIN: u32 = 1 << 10;
/// The longest block, in bytes: a receiver holds one whole before it is verified.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// The most blocks of a file: 128 MiB of hashes. Servers take longer blocks for longer files.
pub const BLOCKS_MAX: u64 = 1 << 22;

/// A length of a file or a block that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// The length of a block is no power of two, or out of its range.
    #[error("blocks of {0} bytes: a power of two from 1 KiB to 16 MiB is allowed")]
    BlockBytes(u32),
    /// More blocks than [`BLOCKS_MAX`].
    #[error("{length} bytes in blocks of {block_bytes} are more than 4194304 blocks")]
    TooManyBlocks {
        /// Of the file.
        length: u64,
        /// Of a block.
        block_bytes: u32,
    },
}

/// How a file is cut into blocks: all of the same length but the last, which has what is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Layout {
    length: u64,
    block_bytes: u32,
}

impl Layout {
    /// A file of `length` bytes in blocks of `block_bytes`.
    ///
    /// # Errors
    ///
    /// A [`LayoutError`] for a block of another length than a power of two from
    /// [`BLOCK_BYTES_MIN`] to [`BLOCK_BYTES_MAX`], or for more than [`BLOCKS_MAX`] blocks.
    pub fn new(length: u64, block_bytes: u32) -> Result<Layout, LayoutError> {
        let range = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
        if !block_bytes.is_power_of_two() || !range.contains(&block_bytes) {
            return Err(LayoutError::BlockBytes(block_bytes));
        }
        if length.div_ceil(u64::from(block_bytes)) > BLOCKS_MAX {
            return Err(LayoutError::TooManyBlocks { length, block_bytes });
        }
        Ok(Layout { length, block_bytes })
    }

    /// A file of `length` bytes in blocks of `block_bytes`, or of the next power of two with which
    /// it has no more than [`BLOCKS_MAX`].
    ///
    /// # Errors
    ///
    /// A [`LayoutError`] when `block_bytes` is not allowed, or blocks of [`BLOCK_BYTES_MAX`] do not
    /// do.
    pub fn for_file(length: u64, block_bytes: u32) -> Result<Layout, LayoutError> {
        let mut block_bytes = block_bytes;
        loop {
            match Layout::new(length, block_bytes) {
                Err(LayoutError::TooManyBlocks { .. }) if block_bytes < BLOCK_BYTES_MAX => {
                    block_bytes *= 2;
                }
                result => return result,
            }
        }
    }

    /// The file's length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The length of every block but the last, in bytes.
    #[must_use]
    pub const fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// How many blocks there are; an empty file has none.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.length.div_ceil(self.block_bytes as u64)
    }

    /// Where the blocks of a run lie in the file, in bytes. Panics beyond the end of the file.
    #[must_use]
    pub fn range(&self, first: u64, count: u64) -> Range<u64> {
        let end = first.checked_add(count).filter(|end| *end <= self.blocks());
        let end = end.expect("a run within the file");
        let block_bytes = u64::from(self.block_bytes);
        first * block_bytes..(end * block_bytes).min(self.length)
    }

    /// The length of one block in bytes. Panics beyond the end of the file.
    #[must_use]
    pub fn block_len(&self, block: u64) -> u32 {
        let range = self.range(block, 1);
        (range.end - range.start) as u32
    }
}

/// Hashes one block, whose bytes come in pieces.
#[derive(Clone, Debug)]
pub struct BlockHasher {
    hasher: Hasher,
    is_whole_file: bool,
}

impl BlockHasher {
    /// For block `block` of a file.
    #[must_use]
    pub fn new(layout: &Layout, block: u64) -> BlockHasher {
        let mut hasher = Hasher::new();
        let is_whole_file = layout.blocks() <= 1;
        if !is_whole_file {
            hasher.set_input_offset(layout.range(block, 1).start);
        }
        BlockHasher { hasher, is_whole_file }
    }

    /// The next bytes of the block.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash, once all bytes came. A block has one byte at least, unless the file is empty.
    #[must_use]
    pub fn finish(&self) -> BlockHash {
        if self.is_whole_file {
            BlockHash(*self.hasher.finalize().as_bytes())
        } else {
            BlockHash(self.hasher.finalize_non_root())
        }
    }
}

/// The root that the hashes of all blocks fold into. Panics when there are none: the root of an
/// empty file is the only hash that [`Manifest::new`] gives it.
#[must_use]
pub fn root_of(hashes: &[BlockHash]) -> Root {
    match hashes {
        [] => panic!("hashes of no block"),
        [only] => Root(only.0),
        _ => {
            let (left, right) = split(hashes);
            let root = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
            Root(*root.as_bytes())
        }
    }
}

/// The chaining value over blocks that are not all of the file. Recurses as deep as the tree is:
/// 22 levels for [`BLOCKS_MAX`].
fn subtree(hashes: &[BlockHash]) -> [u8; 32] {
    match hashes {
        [only] => only.0,
        _ => {
            let (left, right) = split(hashes);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The left side has the largest power of two of blocks that leaves something for the right.
fn split(hashes: &[BlockHash]) -> (&[BlockHash], &[BlockHash]) {
    hashes.split_at((hashes.len().next_power_of_two()) / 2)
}

/// Why hashes are no manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManifestError {
    /// Text that is no hash.
    #[error("a hash has 64 hexadecimal digits, as b3sum prints it")]
    NoHash,
    /// More or fewer hashes than blocks.
    #[error("{given} hashes for {wanted} blocks")]
    Count {
        /// How many hashes there are.
        given: u64,
        /// How many there should be.
        wanted: u64,
    },
    /// The hashes fold into another root.
    #[error("the hashes of the blocks do not fold into the hash of the file")]
    Root,
}

/// How a file is cut, the hash of each block, and of the whole: proved to belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    layout: Layout,
    root: Root,
    hashes: Vec<BlockHash>,
}

impl Manifest {
    /// Of hashes that must fold into `root`; an empty file has one hash, its root.
    ///
    /// # Errors
    ///
    /// A [`ManifestError`] when they do not, or are not as many as blocks.
    pub fn new(
        layout: Layout,
        root: Root,
        hashes: Vec<BlockHash>,
    ) -> Result<Manifest, ManifestError> {
        let manifest = Manifest::of_hashes(layout, hashes)?;
        if manifest.root == root { Ok(manifest) } else { Err(ManifestError::Root) }
    }

    /// Of hashes that were made of the file itself; the root follows from them.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Count`] when they are not as many as blocks.
    pub fn of_hashes(layout: Layout, hashes: Vec<BlockHash>) -> Result<Manifest, ManifestError> {
        let (given, wanted) = (hashes.len() as u64, layout.blocks().max(1));
        if given != wanted {
            return Err(ManifestError::Count { given, wanted });
        }
        Ok(Manifest { layout, root: root_of(&hashes), hashes })
    }

    /// How the file is cut.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The hash of the whole file.
    #[must_use]
    pub const fn root(&self) -> Root {
        self.root
    }

    /// Per block its hash; one for an empty file.
    #[must_use]
    pub fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// Whether `bytes` are those of block `block`.
    #[must_use]
    pub fn verify(&self, block: u64, bytes: &[u8]) -> bool {
        let mut hasher = BlockHasher::new(&self.layout, block);
        hasher.update(bytes);
        bytes.len() == self.layout.block_len(block) as usize
            && hasher.finish() == self.hashes[block as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    fn manifest(file: &[u8], block_bytes: u32) -> Manifest {
        let layout = Layout::new(file.len() as u64, block_bytes).expect("a layout");
        let hashes = (0..layout.blocks().max(1)).map(|block| {
            let mut hasher = BlockHasher::new(&layout, block);
            if layout.blocks() > 0 {
                let range = layout.range(block, 1);
                hasher.update(&file[range.start as usize..range.end as usize]);
            }
            hasher.finish()
        });
        Manifest::of_hashes(layout, hashes.collect()).expect("as many as blocks")
    }

    #[test]
    fn the_blocks_fold_into_the_ordinary_hash_of_the_file() {
        for length in [0, 1, 1_023, 1_024, 1_025, 2_048, 3_000, 4_096, 5_121, 16_384, 33_333] {
            let file = bytes(length);
            for block_bytes in [1_024, 2_048, 4_096, 16_384] {
                let root = Root(*blake3::hash(&file).as_bytes());
                assert_eq!(manifest(&file, block_bytes).root(), root, "{length}, {block_bytes}");
            }
        }
    }

    #[test]
    fn a_block_is_known_by_its_bytes_and_its_place() {
        let file = bytes(5_000);
        let manifest = manifest(&file, 1_024);
        for block in 0..5_u64 {
            let range = manifest.layout().range(block, 1);
            let mut block_bytes = file[range.start as usize..range.end as usize].to_vec();
            assert!(manifest.verify(block, &block_bytes));
            assert!(!manifest.verify((block + 1) % 4, &block_bytes), "another's place");
            assert!(!manifest.verify(block, &block_bytes[1..]), "a byte is missing");
            block_bytes[7] ^= 1;
            assert!(!manifest.verify(block, &block_bytes), "a bit flipped");
        }
    }

    #[test]
    fn hashes_that_do_not_belong_to_the_root_are_refused() {
        let good = manifest(&bytes(5_000), 1_024);
        let (layout, root, mut hashes) = (*good.layout(), good.root(), good.hashes().to_vec());
        assert_eq!(Manifest::new(layout, root, hashes.clone()).as_ref(), Ok(&good));
        hashes[3].0[0] ^= 1;
        assert_eq!(Manifest::new(layout, root, hashes.clone()), Err(ManifestError::Root));
        hashes.pop();
        let count = Err(ManifestError::Count { given: 4, wanted: 5 });
        assert_eq!(Manifest::new(layout, root, hashes), count);
    }

    #[test]
    fn absurd_lengths_are_refused_and_long_files_get_longer_blocks() {
        for block_bytes in [0, 1, 512, 1_000, 3_072, 32 << 20, u32::MAX] {
            let refused = Err(LayoutError::BlockBytes(block_bytes));
            assert_eq!(Layout::new(1, block_bytes), refused);
        }
        let most = BLOCKS_MAX << 10;
        assert_eq!(Layout::new(most, 1_024).map(|layout| layout.blocks()), Ok(BLOCKS_MAX));
        let refused = LayoutError::TooManyBlocks { length: most + 1, block_bytes: 1_024 };
        assert_eq!(Layout::new(most + 1, 1_024), Err(refused));
        assert_eq!(Layout::for_file(most + 1, 1_024).map(|layout| layout.block_bytes()), Ok(2_048));
        assert!(Layout::for_file(u64::MAX, 1_024).is_err());
    }

    #[test]
    fn runs_end_with_the_file() {
        let layout = Layout::new(2_500, 1_024).expect("a layout");
        assert_eq!(layout.blocks(), 3);
        assert_eq!(layout.range(0, 3), 0..2_500);
        assert_eq!(layout.range(1, 1), 1_024..2_048);
        assert_eq!(layout.block_len(2), 452);
        assert_eq!(Layout::new(0, 1_024).map(|layout| layout.blocks()), Ok(0));
    }

    #[test]
    fn a_hash_is_read_as_it_is_printed() {
        let root = Root(core::array::from_fn(|at| at as u8 * 7 + 1));
        assert_eq!(alloc::format!("{root}").parse(), Ok(root));
        for text in ["", "00", &"0".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<Root>(), Err(ManifestError::NoHash));
        }
    }
}
