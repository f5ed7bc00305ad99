//! In: a frame on the wire, as the kernel gives it to an XDP program. Out: counts in the kernel's flow cache,
//! and the verdict (drop, or pass on to the network stack unchanged).
//!
//! Never copies a byte from behind a transport header, never sends, never changes a frame. The sensor loads the
//! committed object; it is built by `cargo xtask ebpf build`, for the BPF target only.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(target_arch = "bpf")]
mod cache;
#[cfg(target_arch = "bpf")]
mod carrier;
#[cfg(target_arch = "bpf")]
mod coarse;
#[cfg(target_arch = "bpf")]
mod duplicate;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod handshake;
#[cfg(target_arch = "bpf")]
mod inspect;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod program;

/// On any other target there is nothing to run: says where the program is.
#[cfg(not(target_arch = "bpf"))]
fn main() -> std::io::Result<()> {
    use std::io::Write as _;

    let text = "This is the source of the XDP program. It is built for the BPF target by \
                `cargo xtask ebpf build`, and the sensor loads the object.";
    writeln!(std::io::stdout(), "{text}")
}
