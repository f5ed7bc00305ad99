//! Both ends of the link over real sockets on the loopback interface.

mod delivery;
mod enrolment;
mod refusal;
mod renewal;
mod stranger;
mod superseded;
mod vault;
