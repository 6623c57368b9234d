//! The answers to [`MultipartRequest`](crate::MultipartRequest)s.

use crate::{
    AggregateStats, DecodeError, Description, FlowStats, GroupDesc, MeterConfig, MeterFeatures,
    MeterStats, Port, PortStats, TableStats, read::Reader, write::Writer,
};

/// One message of an answer; entries are whole, never split over two messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MultipartReply {
    /// Who made the switch.
    Desc(Description),
    /// Flows and their counters.
    Flow(Vec<FlowStats>),
    /// How many flows there are, and their counters as one sum.
    Aggregate(AggregateStats),
    /// The tables' counters.
    Table(Vec<TableStats>),
    /// Ports' counters.
    PortStats(Vec<PortStats>),
    /// The groups and their buckets.
    GroupDesc(Vec<GroupDesc>),
    /// Meters' counters.
    Meter(Vec<MeterStats>),
    /// Meters' bands.
    MeterConfig(Vec<MeterConfig>),
    /// What meters the switch can have.
    MeterFeatures(MeterFeatures),
    /// The ports.
    PortDesc(Vec<Port>),
    /// Any other answer.
    Other {
        /// `OFPMP_`, 0xffff for an experimenter's.
        kind: u16,
        /// What follows the head.
        body: Vec<u8>,
    },
}

impl MultipartReply {
    pub(crate) fn write(&self, more: bool, writer: &mut Writer) {
        let kind = match self {
            Self::Desc(_) => 0,
            Self::Flow(_) => 1,
            Self::Aggregate(_) => 2,
            Self::Table(_) => 3,
            Self::PortStats(_) => 4,
            Self::GroupDesc(_) => 7,
            Self::Meter(_) => 9,
            Self::MeterConfig(_) => 10,
            Self::MeterFeatures(_) => 11,
            Self::PortDesc(_) => 13,
            Self::Other { kind, .. } => *kind,
        };
        writer.put(kind);
        writer.put(u16::from(more));
        writer.zeros(4);
        match self {
            Self::Desc(description) => description.write(writer),
            Self::Flow(flows) => flows.iter().for_each(|flow| flow.write(writer)),
            Self::Aggregate(sum) => sum.write(writer),
            Self::Table(tables) => tables.iter().for_each(|table| table.write(writer)),
            Self::PortStats(ports) => ports.iter().for_each(|port| port.write(writer)),
            Self::GroupDesc(groups) => groups.iter().for_each(|group| group.write(writer)),
            Self::Meter(meters) => meters.iter().for_each(|meter| meter.write(writer)),
            Self::MeterConfig(meters) => meters.iter().for_each(|meter| meter.write(writer)),
            Self::MeterFeatures(features) => features.write(writer),
            Self::PortDesc(ports) => ports.iter().for_each(|port| port.write(writer)),
            Self::Other { body, .. } => writer.slice(body),
        }
    }

    /// Whether more is to come, and this part.
    pub(crate) fn read(mut reader: Reader<'_>) -> Result<(bool, Self), DecodeError> {
        let (kind, flags): (u16, u16) = (reader.get()?, reader.get()?);
        reader.skip(4)?;
        let reply = match kind {
            0 => {
                let description = Description::read(&mut reader)?;
                reader.finished()?;
                Self::Desc(description)
            }
            1 => Self::Flow(reader.all(FlowStats::read)?),
            2 => {
                let sum = AggregateStats::read(&mut reader)?;
                reader.finished()?;
                Self::Aggregate(sum)
            }
            3 => Self::Table(reader.all(TableStats::read)?),
            4 => Self::PortStats(reader.all(PortStats::read)?),
            7 => Self::GroupDesc(reader.all(GroupDesc::read)?),
            9 => Self::Meter(reader.all(MeterStats::read)?),
            10 => Self::MeterConfig(reader.all(MeterConfig::read)?),
            11 => {
                let features = MeterFeatures::read(&mut reader)?;
                reader.finished()?;
                Self::MeterFeatures(features)
            }
            13 => Self::PortDesc(reader.all(Port::read)?),
            _ => Self::Other {
                kind,
                body: reader.rest().to_vec(),
            },
        };
        Ok((flags & 1 == 1, reply))
    }
}
