//! What a mirror port shows of some TCP conversations, frame by frame; tests then do to it what a faulty mirror does.

/// The client's hardware address and the server's; neither is any interface's.
const HARDWARE: [[u8; 6]; 2] = [[2, 0x10, 0, 0, 0, 1], [2, 0x10, 0, 0, 0, 2]];

/// One frame on the mirrored line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredFrame {
    /// Sent by the side that opened the conversation.
    pub from_client: bool,
    /// Carries payload.
    pub has_payload: bool,
    /// The frame, without its check sequence.
    pub bytes: Vec<u8>,
}

impl MirroredFrame {
    /// The same frame with a VLAN tag.
    #[must_use]
    pub fn tagged(mut self, vlan: u16) -> Self {
        let [high, low] = vlan.to_be_bytes();
        self.bytes.splice(12..12, [0x81, 0x00, high, low]);
        self
    }
}

/// One side of a conversation.
struct Side {
    sequence: u32,
    identification: u16,
}

/// A conversation that is being written down.
struct Talk {
    number: u16,
    sides: [Side; 2],
    frames: Vec<MirroredFrame>,
}

const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
const ACK: u8 = 0x10;

impl Talk {
    fn send(&mut self, from_client: bool, flags: u8, payload: u16) {
        let (own, peer) = if from_client { (0, 1) } else { (1, 0) };
        let ports = [20_000 + self.number, 443];
        let peer_sequence = self.sides[peer].sequence;
        let side = &mut self.sides[own];
        let mut bytes = Vec::with_capacity(54 + usize::from(payload));
        bytes.extend(HARDWARE[peer]);
        bytes.extend(HARDWARE[own]);
        bytes.extend([0x08, 0x00, 0x45, 0x00]);
        bytes.extend((40 + payload).to_be_bytes());
        bytes.extend(side.identification.to_be_bytes());
        bytes.extend([0x40, 0x00, 64, 6, 0, 0]);
        let addresses = [[10, 7, 0, 1], [192, 0, 2, 7]];
        bytes.extend(addresses[own]);
        bytes.extend(addresses[peer]);
        bytes.extend(ports[own].to_be_bytes());
        bytes.extend(ports[peer].to_be_bytes());
        bytes.extend(side.sequence.to_be_bytes());
        let acknowledgement = if flags & ACK == 0 { 0 } else { peer_sequence };
        bytes.extend(acknowledgement.to_be_bytes());
        bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.resize(bytes.len() + usize::from(payload), b'.');
        // The shortest frame that Ethernet carries.
        bytes.resize(bytes.len().max(60), 0);
        let numbers =
            u32::from(payload) + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        side.sequence = side.sequence.wrapping_add(numbers);
        side.identification = side.identification.wrapping_add(1).max(1);
        self.frames.push(MirroredFrame { from_client, has_payload: payload > 0, bytes });
    }
}

/// So many conversations, one after another: a handshake; so many segments of so many bytes from the server, each
/// acknowledged by the client; an orderly end.
#[must_use]
pub fn mirrored(conversations: u16, segments: u16, payload: u16) -> Vec<MirroredFrame> {
    let mut frames = Vec::new();
    for number in 0..conversations {
        let start = u32::from(number).wrapping_mul(0x1234_5677);
        let sides = [start, !start].map(|sequence| Side { sequence, identification: 1 });
        let mut talk = Talk { number, sides, frames };
        talk.send(true, SYN, 0);
        talk.send(false, SYN | ACK, 0);
        talk.send(true, ACK, 0);
        talk.send(true, ACK, 100);
        for _ in 0..segments {
            talk.send(false, ACK, payload);
            talk.send(true, ACK, 0);
        }
        talk.send(true, ACK | FIN, 0);
        talk.send(false, ACK | FIN, 0);
        talk.send(true, ACK, 0);
        frames = talk.frames;
    }
    frames
}
