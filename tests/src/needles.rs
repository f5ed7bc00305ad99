//! Finds any piece of a secret in a lot of bytes. In: the secret, and whatever it might have leaked into. Out: where
//! eight bytes in a row of the one are eight bytes in a row of the other, at any offset.

use std::collections::HashSet;

use anyhow::{Result, ensure};

/// Bytes in a row that count as a piece: few enough to find scraps, enough never to meet by chance.
pub const PIECE_BYTES: usize = 8;

/// Every piece of a secret.
pub struct Needles {
    pieces: HashSet<u64>,
    /// By a hash of a few bits: whether any piece has it. Spares most look-ups.
    hints: Vec<bool>,
}

const HINT_BITS: u32 = 20;

fn hint(piece: u64) -> usize {
    let hash = piece.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HINT_BITS);
    usize::try_from(hash).unwrap_or(0)
}

impl Needles {
    /// All pieces of these secrets.
    ///
    /// # Errors
    ///
    /// When two pieces are equal: the secret is no random one, and a find would not say what was found.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut needles = Self { pieces: HashSet::new(), hints: vec![false; 1 << HINT_BITS] };
        for secret in secrets {
            for piece in secret.windows(PIECE_BYTES) {
                let piece = word(piece);
                ensure!(needles.pieces.insert(piece), "a piece occurs twice: {piece:#018x}");
                if let Some(hinted) = needles.hints.get_mut(hint(piece)) {
                    *hinted = true;
                }
            }
        }
        Ok(needles)
    }

    /// How many pieces there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Offsets at which a piece begins, the first few.
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Vec<usize> {
        const TOLD_MAX: usize = 8;
        let windows = haystack.windows(PIECE_BYTES).map(word).enumerate();
        let found = windows.filter(|(_, piece)| {
            self.hints.get(hint(*piece)).is_some_and(|hinted| *hinted)
                && self.pieces.contains(piece)
        });
        found.map(|(at, _)| at).take(TOLD_MAX).collect()
    }
}

fn word(piece: &[u8]) -> u64 {
    piece.first_chunk().map_or(0, |piece| u64::from_be_bytes(*piece))
}

/// Whether these bytes stand in a row anywhere.
#[must_use]
pub fn contains(haystack: &[u8], bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return true };
    let mut from = haystack;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        let Some((_, behind)) = from.split_at_checked(at + 1) else { return false };
        if behind.starts_with(rest) {
            return true;
        }
        from = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Needles, contains};

    #[test]
    fn a_piece_is_found_at_any_offset_and_nothing_else() -> anyhow::Result<()> {
        let secret: Vec<u8> = (0..64).collect();
        let needles = Needles::new([secret.as_slice()])?;
        assert_eq!(needles.len(), 57);
        let mut haystack = vec![0xff; 100];
        assert_eq!(needles.find(&haystack), Vec::<usize>::new());
        haystack.splice(33..41, 20..28);
        assert_eq!(needles.find(&haystack), vec![33]);
        haystack[36] = 0;
        assert_eq!(needles.find(&haystack), Vec::<usize>::new());
        assert!(Needles::new([[7; 64].as_slice()]).is_err(), "pieces have to differ");
        assert!(contains(&haystack, &[20, 21, 22]));
        assert!(!contains(&haystack, &[20, 21, 23]));
        Ok(())
    }
}
