//! Every kind of message (§7.1), the short ones in full.

use crate::{
    DecodeError, FlowMod, FlowRemoved, GroupMod, MeterMod, MultipartReply, MultipartRequest,
    PacketIn, PacketOut, Port, VERSION, read::Reader, write::Writer,
};

/// Role unchanged: only asks (`OFPCR_ROLE_NOCHANGE`).
pub const ROLE_NO_CHANGE: u32 = 0;
/// The role every connection starts in: may read and write, beside others (`OFPCR_ROLE_EQUAL`).
pub const ROLE_EQUAL: u32 = 1;
/// The one that may write (`OFPCR_ROLE_MASTER`).
pub const ROLE_MASTER: u32 = 2;
/// May read only (`OFPCR_ROLE_SLAVE`).
pub const ROLE_SLAVE: u32 = 3;

/// What a switch is (§7.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Features {
    /// Its name for life: 48 bits of a MAC address below 16 of its maker's choice.
    pub datapath_id: u64,
    /// Packets it can keep for the controller.
    pub n_buffers: u32,
    /// Its flow tables.
    pub n_tables: u8,
    /// 0 for the main connection.
    pub auxiliary_id: u8,
    /// `OFPC_` bits.
    pub capabilities: u32,
}

/// What is said. `Other` is any kind of message without a name here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "the fields have the names of the specification, the message says what it is"
)]
pub enum Message {
    /// The first message of both sides: the wire versions that it speaks, ascending. One without
    /// the list speaks all up to its own (§6.3.1) and is decoded so.
    Hello { versions: Vec<u8> },
    /// A refusal; `data` begins with what was refused. [`refusal`](crate::refusal) has the words.
    Error { kind: u16, code: u16, data: Vec<u8> },
    /// Asks whether the other side is there.
    EchoRequest(Vec<u8>),
    /// Says so, with the same bytes.
    EchoReply(Vec<u8>),
    /// Asks what the switch is.
    FeaturesRequest,
    /// Says it.
    FeaturesReply(Features),
    /// How fragments are handled and how much of a packet goes to the controller, bytes.
    SetConfig { flags: u16, miss_send_len: u16 },
    /// A packet for the controller.
    PacketIn(PacketIn),
    /// A packet for the switch to send.
    PacketOut(PacketOut),
    /// A flow is gone.
    FlowRemoved(FlowRemoved),
    /// A port came, went or changed.
    PortStatus { reason: u8, port: Port },
    /// Changes flows.
    FlowMod(FlowMod),
    /// Changes groups.
    GroupMod(GroupMod),
    /// Changes meters.
    MeterMod(MeterMod),
    /// Asks for a role, or which it is.
    RoleRequest { role: u32, generation_id: u64 },
    /// The role there is now.
    RoleReply { role: u32, generation_id: u64 },
    /// Asks that all before it be done first.
    BarrierRequest,
    /// All before it is done.
    BarrierReply,
    /// Asks for what may be long.
    MultipartRequest(MultipartRequest),
    /// A part of the answer; `more` when it is not the last.
    MultipartReply { more: bool, body: MultipartReply },
    /// Any other message, its type and all that follows the head.
    Other { kind: u8, body: Vec<u8> },
}

impl Message {
    /// The type in the head.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 0,
            Self::Error { .. } => 1,
            Self::EchoRequest(_) => 2,
            Self::EchoReply(_) => 3,
            Self::FeaturesRequest => 5,
            Self::FeaturesReply(_) => 6,
            Self::SetConfig { .. } => 9,
            Self::PacketIn(_) => 10,
            Self::FlowRemoved(_) => 11,
            Self::PortStatus { .. } => 12,
            Self::PacketOut(_) => 13,
            Self::FlowMod(_) => 14,
            Self::GroupMod(_) => 15,
            Self::MultipartRequest(_) => 18,
            Self::MultipartReply { .. } => 19,
            Self::BarrierRequest => 20,
            Self::BarrierReply => 21,
            Self::RoleRequest { .. } => 24,
            Self::RoleReply { .. } => 25,
            Self::MeterMod(_) => 29,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// The version in the head: a hello has the highest that its sender speaks.
    pub(crate) fn version(&self) -> u8 {
        match self {
            Self::Hello { versions } => versions.iter().copied().max().unwrap_or(VERSION),
            _ => VERSION,
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Hello { versions } => write_versions(versions, writer),
            Self::Error { kind, code, data } => {
                writer.put(*kind);
                writer.put(*code);
                writer.slice(data);
            }
            Self::FeaturesRequest | Self::BarrierRequest | Self::BarrierReply => {}
            Self::FeaturesReply(features) => {
                writer.put(features.datapath_id);
                writer.put(features.n_buffers);
                writer.put(features.n_tables);
                writer.put(features.auxiliary_id);
                writer.zeros(2);
                writer.put(features.capabilities);
                writer.zeros(4);
            }
            Self::SetConfig {
                flags,
                miss_send_len,
            } => {
                writer.put(*flags);
                writer.put(*miss_send_len);
            }
            Self::PacketIn(packet) => packet.write(writer),
            Self::PacketOut(packet) => packet.write(writer),
            Self::FlowRemoved(flow) => flow.write(writer),
            Self::PortStatus { reason, port } => {
                writer.put(*reason);
                writer.zeros(7);
                port.write(writer);
            }
            Self::FlowMod(change) => change.write(writer),
            Self::GroupMod(change) => change.write(writer),
            Self::MeterMod(change) => change.write(writer),
            Self::RoleRequest {
                role,
                generation_id,
            }
            | Self::RoleReply {
                role,
                generation_id,
            } => {
                writer.put(*role);
                writer.zeros(4);
                writer.put(*generation_id);
            }
            Self::MultipartRequest(request) => request.write(writer),
            Self::MultipartReply { more, body } => body.write(*more, writer),
            Self::EchoRequest(body) | Self::EchoReply(body) | Self::Other { body, .. } => {
                writer.slice(body);
            }
        }
    }

    pub(crate) fn read(version: u8, kind: u8, mut body: Reader<'_>) -> Result<Self, DecodeError> {
        let whole = body;
        let other = |mut body: Reader<'_>| Self::Other {
            kind,
            body: body.rest().to_vec(),
        };
        let message = match kind {
            0 => return read_hello(version, body.named("hello")),
            1 => Self::Error {
                kind: body.get()?,
                code: body.get()?,
                data: body.rest().to_vec(),
            },
            2 => Self::EchoRequest(body.rest().to_vec()),
            3 => Self::EchoReply(body.rest().to_vec()),
            5 => Self::FeaturesRequest,
            6 => Self::FeaturesReply(read_features(&mut body)?),
            9 => Self::SetConfig {
                flags: body.get()?,
                miss_send_len: body.get()?,
            },
            10 => return PacketIn::read(body.named("packet-in")).map(Self::PacketIn),
            11 => return FlowRemoved::read(body.named("flow-removed")).map(Self::FlowRemoved),
            12 => {
                let reason = body.get()?;
                body.skip(7)?;
                Self::PortStatus {
                    reason,
                    port: Port::read(&mut body)?,
                }
            }
            13 => return PacketOut::read(body.named("packet-out")).map(Self::PacketOut),
            14 => return FlowMod::read(body.named("flow-mod")).map(Self::FlowMod),
            15 => return GroupMod::read(body.named("group-mod")).map(Self::GroupMod),
            18 => {
                let request = MultipartRequest::read(body.named("multipart request"))?;
                return Ok(request.map_or_else(|| other(whole), Self::MultipartRequest));
            }
            19 => {
                let (more, body) = MultipartReply::read(body.named("multipart reply"))?;
                return Ok(Self::MultipartReply { more, body });
            }
            20 => Self::BarrierRequest,
            21 => Self::BarrierReply,
            24 | 25 => {
                let role = body.get()?;
                body.skip(4)?;
                let generation_id = body.get()?;
                if kind == 24 {
                    Self::RoleRequest {
                        role,
                        generation_id,
                    }
                } else {
                    Self::RoleReply {
                        role,
                        generation_id,
                    }
                }
            }
            29 => return MeterMod::read(body.named("meter-mod")).map(Self::MeterMod),
            _ => return Ok(other(body)),
        };
        body.finished()?;
        Ok(message)
    }
}

fn read_features(body: &mut Reader<'_>) -> Result<Features, DecodeError> {
    let datapath_id = body.get()?;
    let n_buffers = body.get()?;
    let n_tables = body.get()?;
    let auxiliary_id = body.get()?;
    body.skip(2)?;
    let capabilities = body.get()?;
    body.skip(4)?;
    Ok(Features {
        datapath_id,
        n_buffers,
        n_tables,
        auxiliary_id,
        capabilities,
    })
}

/// The hello element that lists versions, a bit each (`OFPHET_VERSIONBITMAP`).
const VERSION_BITMAP: u16 = 1;

fn write_versions(versions: &[u8], writer: &mut Writer) {
    let mut words = [0_u32; 8];
    // there is no version 0
    for version in versions.iter().filter(|version| **version > 0) {
        words[usize::from(version / 32)] |= 1 << (version % 32);
    }
    let last = words.iter().rposition(|word| *word != 0).unwrap_or(0);
    let start = writer.position();
    writer.put(VERSION_BITMAP);
    writer.zeros(2);
    for word in &words[..=last] {
        writer.put(*word);
    }
    writer.length("hello element", start + 2, start);
    writer.pad(start);
}

fn read_hello(version: u8, mut body: Reader<'_>) -> Result<Message, DecodeError> {
    let mut versions = None;
    while !body.is_empty() {
        let mut head = body;
        let (kind, length): (u16, u16) = (head.get()?, head.get()?);
        let length = usize::from(length);
        if length < 4 {
            let what = "hello element";
            return Err(DecodeError::Length { what, length });
        }
        let mut element = body.part("hello element", length)?;
        // some leave the padding of the last element out
        body.skip((length.next_multiple_of(8) - length).min(body.left()))?;
        element.skip(4)?;
        if kind == VERSION_BITMAP {
            versions = Some(read_bitmap(element)?);
        }
    }
    let versions = versions.unwrap_or_else(|| (1..=version).collect());
    Ok(Message::Hello { versions })
}

fn read_bitmap(element: Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let words: Vec<u32> = element.all(|word| word.get())?;
    let spoken = |version: &u8| {
        let word = words.get(usize::from(version / 32)).copied().unwrap_or(0);
        word & 1 << (version % 32) != 0
    };
    Ok((1..=u8::MAX).filter(spoken).collect())
}
