//! What a controller asks that may have a long answer (§7.3.5).

use crate::{DecodeError, GROUP_ANY, Match, PORT_ANY, TABLE_ALL, read::Reader, write::Writer};

/// Which flows to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowStatsRequest {
    /// The table, or [`TABLE_ALL`].
    pub table_id: u8,
    /// Only flows with an output to this port; [`PORT_ANY`] for any.
    pub out_port: u32,
    /// Only flows with an output to this group; [`GROUP_ANY`] for any.
    pub out_group: u32,
    /// The cookie, in the bits of the mask.
    pub cookie: u64,
    /// Which bits of the cookie count; 0 for none.
    pub cookie_mask: u64,
    /// Only flows that this match covers.
    pub matches: Match,
}

impl Default for FlowStatsRequest {
    /// All flows.
    fn default() -> Self {
        Self {
            table_id: TABLE_ALL,
            out_port: PORT_ANY,
            out_group: GROUP_ANY,
            cookie: 0,
            cookie_mask: 0,
            matches: Match::default(),
        }
    }
}

impl FlowStatsRequest {
    fn write(&self, writer: &mut Writer) {
        writer.put(self.table_id);
        writer.zeros(3);
        writer.put(self.out_port);
        writer.put(self.out_group);
        writer.zeros(4);
        writer.put(self.cookie);
        writer.put(self.cookie_mask);
        self.matches.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let table_id = reader.get()?;
        reader.skip(3)?;
        let out_port = reader.get()?;
        let out_group = reader.get()?;
        reader.skip(4)?;
        Ok(Self {
            table_id,
            out_port,
            out_group,
            cookie: reader.get()?,
            cookie_mask: reader.get()?,
            matches: Match::read(reader)?,
        })
    }
}

/// A question whose answer may come in several messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MultipartRequest {
    /// Who made the switch.
    Desc,
    /// Flows and their counters.
    Flow(FlowStatsRequest),
    /// How many flows there are, and their counters as one sum.
    Aggregate(FlowStatsRequest),
    /// The tables' counters.
    Table,
    /// A port's counters.
    PortStats {
        /// The port, or [`PORT_ANY`] for all.
        port: u32,
    },
    /// The groups and their buckets.
    GroupDesc,
    /// A meter's counters.
    Meter {
        /// The meter, or [`METER_ALL`](crate::METER_ALL).
        id: u32,
    },
    /// A meter's bands.
    MeterConfig {
        /// The meter, or [`METER_ALL`](crate::METER_ALL).
        id: u32,
    },
    /// What meters the switch can have.
    MeterFeatures,
    /// The ports.
    PortDesc,
    /// Any other question.
    Other {
        /// `OFPMP_`, 0xffff for an experimenter's.
        kind: u16,
        /// What follows the head.
        body: Vec<u8>,
    },
}

impl MultipartRequest {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let kind = match self {
            Self::Desc => 0,
            Self::Flow(_) => 1,
            Self::Aggregate(_) => 2,
            Self::Table => 3,
            Self::PortStats { .. } => 4,
            Self::GroupDesc => 7,
            Self::Meter { .. } => 9,
            Self::MeterConfig { .. } => 10,
            Self::MeterFeatures => 11,
            Self::PortDesc => 13,
            Self::Other { kind, .. } => *kind,
        };
        writer.put(kind);
        // flags and padding
        writer.zeros(6);
        match self {
            Self::Desc | Self::Table | Self::GroupDesc | Self::MeterFeatures | Self::PortDesc => {}
            Self::Flow(request) | Self::Aggregate(request) => request.write(writer),
            Self::PortStats { port: number }
            | Self::Meter { id: number }
            | Self::MeterConfig { id: number } => {
                writer.put(*number);
                writer.zeros(4);
            }
            Self::Other { body, .. } => writer.slice(body),
        }
    }

    /// The question, or none when more of it is to come: a controller's only long question is about
    /// table features, which has no name here.
    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let (kind, flags): (u16, u16) = (reader.get()?, reader.get()?);
        reader.skip(4)?;
        if flags != 0 {
            return Ok(None);
        }
        let request = match kind {
            0 => Self::Desc,
            1 => Self::Flow(FlowStatsRequest::read(&mut reader)?),
            2 => Self::Aggregate(FlowStatsRequest::read(&mut reader)?),
            3 => Self::Table,
            4 => Self::PortStats {
                port: number(&mut reader)?,
            },
            7 => Self::GroupDesc,
            9 => Self::Meter {
                id: number(&mut reader)?,
            },
            10 => Self::MeterConfig {
                id: number(&mut reader)?,
            },
            11 => Self::MeterFeatures,
            13 => Self::PortDesc,
            _ => Self::Other {
                kind,
                body: reader.rest().to_vec(),
            },
        };
        reader.finished()?;
        Ok(Some(request))
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let number = reader.get()?;
    reader.skip(4)?;
    Ok(number)
}
