//! Takes what the kernel says about the interfaces that are listened on, again and again; gives how many
//! of them can bring frames, and says so when one goes down, away, or comes back.
//!
//! A port that goes down keeps its program and counts on when it is up again. One that goes away (a
//! card that is unplugged, a namespace that ends) takes the program with it; attaching anew needs rights
//! that the sensor has given up by then, so it goes on with the others and says that it must be
//! restarted.

use tracing::{error, info, warn};

use super::interface::Interface;

/// How many of the interfaces can bring frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStates {
    /// Those that are up.
    pub up: u64,
    /// Those that are down, or without a carrier.
    pub down: u64,
    /// Those that are no longer there.
    pub gone: u64,
    /// Times that one of them went down or away.
    pub losses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Gone,
    /// It is gone, and another one has its name.
    Replaced,
}

struct Port {
    index: u32,
    name: String,
    state: State,
}

/// The interfaces as they were at the last look.
#[derive(Default)]
pub(super) struct Watch {
    ports: Vec<Port>,
    losses: u64,
}

impl Watch {
    /// Begins with an interface as it was when the program was attached.
    pub(super) fn add(&mut self, interface: &Interface) {
        let (index, name) = (interface.index, interface.name.clone());
        let state = if interface.is_up { State::Up } else { State::Down };
        if state == State::Down {
            warn!(interface = name, "it is down or has no carrier: nothing comes until it is up");
        }
        self.ports.push(Port { index, name, state });
    }

    /// Takes the machine's interfaces as they are now.
    pub(super) fn handle(&mut self, all: &[Interface]) -> PortStates {
        for port in &mut self.ports {
            let found = all.iter().find(|interface| interface.index == port.index);
            let state = match found {
                Some(interface) if interface.is_up => State::Up,
                Some(_) => State::Down,
                None if all.iter().any(|other| other.name == port.name) => State::Replaced,
                None => State::Gone,
            };
            if state == port.state {
                continue;
            }
            let name = port.name.as_str();
            match state {
                State::Up => info!(interface = name, "it is up again, and counted as before"),
                State::Down => warn!(
                    interface = name,
                    "it went down or lost its carrier: nothing comes until it is up again"
                ),
                State::Gone => {
                    error!(
                        interface = name,
                        "it has gone away; the sensor goes on with the others"
                    );
                }
                State::Replaced => error!(
                    interface = name,
                    "it has come back as a new interface: restart the sensor to listen on it"
                ),
            }
            self.losses += u64::from(port.state == State::Up);
            port.state = state;
        }
        let count = |states: &[State]| {
            self.ports.iter().filter(|port| states.contains(&port.state)).count() as u64
        };
        PortStates {
            up: count(&[State::Up]),
            down: count(&[State::Down]),
            gone: count(&[State::Gone, State::Replaced]),
            losses: self.losses,
        }
    }
}

#[cfg(test)]
mod tests;
