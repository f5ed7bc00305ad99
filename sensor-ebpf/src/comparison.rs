//! Programs for measuring and for tests, in an object of their own that the sensor does not carry: the product's
//! programs on any number of flows, the usual designs that they are compared with, and a generator of frames.
//!
//! In: frames that `BPF_PROG_TEST_RUN` repeats. Out: counts in the product's tables, in the tables of the other
//! designs, or frames on an interface. Parser, cache and tables are the very sources that the product is built
//! from.
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
#[path = "comparison/flows.rs"]
mod flows;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
#[path = "comparison/generator.rs"]
mod generator;
#[cfg(target_arch = "bpf")]
mod handshake;
#[cfg(target_arch = "bpf")]
#[path = "comparison/lru.rs"]
mod lru;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod program;
#[cfg(target_arch = "bpf")]
#[path = "comparison/ring.rs"]
mod ring;

/// On any other target there is nothing to run: says where the programs are.
#[cfg(not(target_arch = "bpf"))]
fn main() -> std::io::Result<()> {
    use std::io::Write as _;

    let text = "This is the source of the programs that the XDP program is compared with. It is built for the \
                BPF target by `cargo xtask ebpf build`, and `spanwatch-bench xdp` loads the object.";
    writeln!(std::io::stdout(), "{text}")
}
