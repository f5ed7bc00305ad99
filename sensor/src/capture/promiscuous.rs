//! Keeps an interface promiscuous as long as the handle lives: a mirror port's frames are addressed to others, and a
//! network card drops those before any program sees them.
//!
//! The kernel counts who wants it, and forgets this process when it ends, however it ends. The socket is bound to no
//! protocol: not one frame reaches it.
#![expect(unsafe_code, reason = "the membership is a socket option that no library wraps")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A wish that an interface take all frames; withdrawn when dropped.
pub(super) struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Wishes it for the interface with this number. Needs `CAP_NET_RAW`.
    pub(super) fn enter(index: u32) -> io::Result<Self> {
        let interface = i32::try_from(index).map_err(io::Error::other)?;
        let socket =
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        #[expect(clippy::cast_possible_truncation, reason = "the constant is 1")]
        let wish = libc::packet_mreq {
            mr_ifindex: interface,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let bytes =
            libc::socklen_t::try_from(size_of::<libc::packet_mreq>()).map_err(io::Error::other)?;
        // SAFETY: the socket is open as long as it is borrowed here, and the kernel reads `bytes` bytes of a value
        // that lives until the call returns.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const wish).cast(),
                bytes,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { _socket: socket })
    }
}
