//! Meters: how much of what flows hand to them may pass (§7.3.4.4).

use crate::{DecodeError, read::Reader, write::Writer};

/// The highest meter number a controller may use (`OFPM_MAX`).
pub const METER_MAX: u32 = 0xffff_0000;
/// What a switch sends to its controller, over all rules (`OFPM_CONTROLLER`).
pub const METER_CONTROLLER: u32 = 0xffff_fffe;
/// All meters, when they are deleted or read (`OFPM_ALL`).
pub const METER_ALL: u32 = 0xffff_ffff;

/// Rates are in kbit/s and bursts in kbit (`OFPMF_KBPS`).
pub const METER_KBPS: u16 = 1 << 0;
/// Rates are in packets/s and bursts in packets (`OFPMF_PKTPS`).
pub const METER_PKTPS: u16 = 1 << 1;
/// The bands' burst sizes count (`OFPMF_BURST`).
pub const METER_BURST: u16 = 1 << 2;
/// Keep counters (`OFPMF_STATS`).
pub const METER_STATS: u16 = 1 << 3;

/// What a [`MeterMod`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeterCommand {
    /// Add; a number in use is refused.
    Add,
    /// Change one that is there.
    Modify,
    /// Delete, and with it the flows that use it.
    Delete,
    /// A command the specification does not have; a switch refuses it.
    Other(u16),
}

impl MeterCommand {
    fn number(self) -> u16 {
        match self {
            Self::Add => 0,
            Self::Modify => 1,
            Self::Delete => 2,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Add,
            1 => Self::Modify,
            2 => Self::Delete,
            other => Self::Other(other),
        }
    }
}

/// What happens above a rate. Units are those of the meter's flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Drop what is above.
    Drop {
        /// The rate above which it drops.
        rate: u32,
        /// How much may pass at once.
        burst_size: u32,
    },
    /// Raise the drop precedence of what is above.
    DscpRemark {
        /// The rate above which it marks.
        rate: u32,
        /// How much may pass at once.
        burst_size: u32,
        /// By how many steps.
        prec_level: u8,
    },
    /// Any other band.
    Other {
        /// `OFPMBT_`, 0xffff for an experimenter's.
        kind: u16,
        /// What follows kind and length; filled up with zeros to a multiple of eight with them.
        body: Vec<u8>,
    },
}

impl Band {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Drop { rate, burst_size } => writer.element("meter band", 1, |writer| {
                writer.put(*rate);
                writer.put(*burst_size);
                writer.zeros(4);
            }),
            Self::DscpRemark {
                rate,
                burst_size,
                prec_level,
            } => writer.element("meter band", 2, |writer| {
                writer.put(*rate);
                writer.put(*burst_size);
                writer.put(*prec_level);
                writer.zeros(3);
            }),
            Self::Other { kind, body } => {
                writer.element("meter band", *kind, |writer| writer.slice(body));
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kind, mut body) = reader.element("meter band")?;
        let band = match kind {
            1 => {
                let (rate, burst_size) = (body.get()?, body.get()?);
                body.skip(4)?;
                Self::Drop { rate, burst_size }
            }
            2 => {
                let (rate, burst_size, prec_level) = (body.get()?, body.get()?, body.get()?);
                body.skip(3)?;
                Self::DscpRemark {
                    rate,
                    burst_size,
                    prec_level,
                }
            }
            _ => Self::Other {
                kind,
                body: body.rest().to_vec(),
            },
        };
        body.finished()?;
        Ok(band)
    }
}

/// A change of the meters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterMod {
    /// What is done.
    pub command: MeterCommand,
    /// `METER_…` bits.
    pub flags: u16,
    /// Which meter, 1 to [`METER_MAX`], or [`METER_ALL`] in a deletion.
    pub meter_id: u32,
    /// What happens above which rate.
    pub bands: Vec<Band>,
}

impl MeterMod {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.command.number());
        writer.put(self.flags);
        writer.put(self.meter_id);
        for band in &self.bands {
            band.write(writer);
        }
    }

    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            command: MeterCommand::from_number(reader.get()?),
            flags: reader.get()?,
            meter_id: reader.get()?,
            bands: reader.all(Band::read)?,
        })
    }
}

/// A meter as it is in the switch (§7.3.5.13).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterConfig {
    /// `METER_…` bits.
    pub flags: u16,
    /// Which meter.
    pub meter_id: u32,
    /// What happens above which rate.
    pub bands: Vec<Band>,
}

impl MeterConfig {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.position();
        writer.zeros(2);
        writer.put(self.flags);
        writer.put(self.meter_id);
        for band in &self.bands {
            band.write(writer);
        }
        writer.length("meter", start, start);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length: u16 = reader.named("meter").get()?;
        let mut entry = reader.part("meter", usize::from(length))?;
        entry.skip(2)?;
        Ok(Self {
            flags: entry.get()?,
            meter_id: entry.get()?,
            bands: entry.all(Band::read)?,
        })
    }
}
