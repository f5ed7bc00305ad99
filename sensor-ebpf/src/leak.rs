//! The product with its promise broken on purpose: copies 64 bytes from behind the transport header into a table of
//! its own. Nothing loads it; it is there so that a test can show that the sensor's check of objects refuses it.
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
mod maps;
#[cfg(target_arch = "bpf")]
#[path = "leak/payload.rs"]
mod payload;
#[cfg(target_arch = "bpf")]
mod program;

/// On any other target there is nothing to run: says what this is for.
#[cfg(not(target_arch = "bpf"))]
fn main() -> std::io::Result<()> {
    use std::io::Write as _;

    let text = "This is the source of an XDP program that breaks the promise not to keep payload, for the test \
                that such a program is refused. It is built for the BPF target by `cargo xtask ebpf build`.";
    writeln!(std::io::stdout(), "{text}")
}
