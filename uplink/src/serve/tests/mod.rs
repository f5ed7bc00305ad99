//! Both ends of the link over real sockets on the loopback interface.

mod delivery;
mod enrolment;
mod hostile;
mod refusal;
mod renewal;
mod stranger;
mod superseded;
mod vault;
