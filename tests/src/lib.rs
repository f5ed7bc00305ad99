//! What the end-to-end tests share: where the programs and the captures are, what to do without a privilege, a
//! backend with an enrolled sensor on loopback, frames of every encapsulation and a wire to send them over, and a
//! look into everything that a process holds. In: nothing. Out: processes and interfaces that are gone when dropped.
#![forbid(unsafe_code)]

mod captures;
mod cpu;
mod disk;
mod enrolment;
pub mod frames;
mod generator;
mod image;
mod live;
mod mirror;
mod needles;
mod pcap;
mod programs;
mod python;
mod random;
mod station;
pub mod tshark;
mod veth;

pub use captures::{capture_files, capture_folder, ethernet_frames, skip};
pub use cpu::{allowed_cpus, stay_on_cpu, stay_on_one_cpu};
pub use disk::Disk;
pub use enrolment::enrol_alone;
pub use generator::{Generator, udp_frame};
pub use image::{TableImage, memory, tables};
pub use live::LiveSensor;
pub use mirror::{MirroredFrame, mirrored};
pub use needles::{Needles, PIECE_BYTES, contains};
pub use pcap::{ETHERNET_LINK, PcapFile};
pub use programs::{Process, program, read};
pub use python::python;
pub use random::Random;
pub use station::{Backend, Station};
pub use veth::VethPair;
