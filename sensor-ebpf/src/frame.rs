//! Takes the packet pointers of an XDP context; gives the parser fixed-size pieces of the frame's headers.
#![expect(
    unsafe_code,
    reason = "packet memory is reached through pointers; the verifier proves each read"
)]

use aya_ebpf::programs::XdpContext;
use flow::{Frame, OFFSET_MAX};

/// The linear part of a frame.
pub(crate) struct XdpFrame {
    data: usize,
    data_end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self { data: context.data(), data_end: context.data_end() }
    }

    /// Length of the linear part, bytes.
    #[inline(always)]
    pub(crate) fn linear_length(&self) -> u64 {
        (self.data_end - self.data) as u64
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = self.data + offset;
        if start + N > self.data_end {
            return None;
        }
        // SAFETY: the comparison above is the one that the verifier demands before it lets a program read
        // these N bytes; it rejects the object if they could lie outside the frame. Unaligned on purpose.
        Some(unsafe { core::ptr::read_unaligned(start as *const [u8; N]) })
    }
}
