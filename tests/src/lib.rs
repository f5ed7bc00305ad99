//! What the end-to-end tests share: where the programs and the captures are, what to do without a privilege, and a
//! backend with an enrolled sensor on loopback. In: nothing. Out: processes that are ended when dropped.
#![forbid(unsafe_code)]

mod captures;
mod cpu;
mod mirror;
mod programs;
mod station;

pub use captures::{capture_folder, skip};
pub use cpu::stay_on_one_cpu;
pub use mirror::{MirroredFrame, mirrored};
pub use programs::{Process, program, read};
pub use station::{Backend, Station};
