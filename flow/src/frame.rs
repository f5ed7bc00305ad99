//! Takes a frame's captured bytes; gives fixed-size pieces of them. Never copies more than was asked for.

/// Largest offset that is read: the verifier wants a packet offset to be provably small. Headers end far before
/// it; what would begin behind it counts as cut, in user space too, so that both machines agree.
pub const OFFSET_MAX: usize = 2047;

/// The captured bytes of one frame, readable a fixed number at a time.
///
/// Two machines implement it: a byte slice in user space, and the packet pointers of an XDP context in the
/// kernel, where the constant `N` lets the verifier prove each access.
pub trait Frame {
    /// The `N` bytes that start at `offset`, or `None` when the capture ends before their last one, or the offset
    /// is beyond [`OFFSET_MAX`].
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The byte at `offset`, where another one follows it: of a check for a single byte the compiler makes a
    /// comparison that the verifier draws no conclusion from.
    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        self.bytes::<2>(offset).map(|[byte, _]| byte)
    }
}

impl Frame for [u8] {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}
