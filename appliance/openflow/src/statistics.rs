//! What a switch counts and says of itself: the entries of multipart replies (§7.3.5).

use crate::{DecodeError, Instruction, Match, read::Reader, write::Writer};

/// Who made the switch and what it runs (§7.3.5.1). Each text has 255 bytes at most, the serial
/// number 31.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Description {
    /// The manufacturer.
    pub manufacturer: String,
    /// The hardware.
    pub hardware: String,
    /// The software and its version.
    pub software: String,
    /// The serial number.
    pub serial: String,
    /// What people call this switch.
    pub datapath: String,
}

impl Description {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.text("manufacturer", &self.manufacturer, 256);
        writer.text("hardware", &self.hardware, 256);
        writer.text("software", &self.software, 256);
        writer.text("serial number", &self.serial, 32);
        writer.text("description of the datapath", &self.datapath, 256);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            manufacturer: reader.text(256)?,
            hardware: reader.text(256)?,
            software: reader.text(256)?,
            serial: reader.text(32)?,
            datapath: reader.text(256)?,
        })
    }
}

/// A flow as it is in the switch, with its counters (§7.3.5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowStats {
    /// Its table.
    pub table_id: u8,
    /// How long it has been there, whole seconds.
    pub duration_sec: u32,
    /// And nanoseconds beyond them.
    pub duration_nsec: u32,
    /// Its priority.
    pub priority: u16,
    /// Seconds without a packet after which it goes; 0 for never.
    pub idle_timeout: u16,
    /// Seconds after which it goes; 0 for never.
    pub hard_timeout: u16,
    /// `FLOW_…` bits.
    pub flags: u16,
    /// The controller's own mark on it.
    pub cookie: u64,
    /// Packets it matched.
    pub packet_count: u64,
    /// Bytes in them.
    pub byte_count: u64,
    /// Which packets.
    pub matches: Match,
    /// What is done with them; none is a drop.
    pub instructions: Vec<Instruction>,
}

impl FlowStats {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.position();
        writer.zeros(2);
        writer.put(self.table_id);
        writer.zeros(1);
        writer.put(self.duration_sec);
        writer.put(self.duration_nsec);
        writer.put(self.priority);
        writer.put(self.idle_timeout);
        writer.put(self.hard_timeout);
        writer.put(self.flags);
        writer.zeros(4);
        writer.put(self.cookie);
        writer.put(self.packet_count);
        writer.put(self.byte_count);
        self.matches.write(writer);
        for instruction in &self.instructions {
            instruction.write(writer);
        }
        writer.length("flow", start, start);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length: u16 = reader.named("flow").get()?;
        let mut flow = reader.part("flow", usize::from(length))?;
        flow.skip(2)?;
        let table_id = flow.get()?;
        flow.skip(1)?;
        let duration_sec = flow.get()?;
        let duration_nsec = flow.get()?;
        let priority = flow.get()?;
        let idle_timeout = flow.get()?;
        let hard_timeout = flow.get()?;
        let flags = flow.get()?;
        flow.skip(4)?;
        Ok(Self {
            table_id,
            duration_sec,
            duration_nsec,
            priority,
            idle_timeout,
            hard_timeout,
            flags,
            cookie: flow.get()?,
            packet_count: flow.get()?,
            byte_count: flow.get()?,
            matches: Match::read(&mut flow)?,
            instructions: flow.all(Instruction::read)?,
        })
    }
}

/// The flows that were asked for as one sum (§7.3.5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateStats {
    /// Packets that they matched.
    pub packet_count: u64,
    /// Bytes in them.
    pub byte_count: u64,
    /// How many flows.
    pub flow_count: u32,
}

impl AggregateStats {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.packet_count);
        writer.put(self.byte_count);
        writer.put(self.flow_count);
        writer.zeros(4);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let sum = Self {
            packet_count: reader.get()?,
            byte_count: reader.get()?,
            flow_count: reader.get()?,
        };
        reader.skip(4)?;
        Ok(sum)
    }
}

/// A table's counters (§7.3.5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableStats {
    /// Which table.
    pub table_id: u8,
    /// Flows in it.
    pub active_count: u32,
    /// Packets looked up in it.
    pub lookup_count: u64,
    /// Packets for which a flow was found.
    pub matched_count: u64,
}

impl TableStats {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.table_id);
        writer.zeros(3);
        writer.put(self.active_count);
        writer.put(self.lookup_count);
        writer.put(self.matched_count);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut table = reader.part("table", 24)?;
        let table_id = table.get()?;
        table.skip(3)?;
        Ok(Self {
            table_id,
            active_count: table.get()?,
            lookup_count: table.get()?,
            matched_count: table.get()?,
        })
    }
}

/// A port's counters (§7.3.5.6). A counter of all ones is one that the switch does not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortStats {
    /// Which port.
    pub port_no: u32,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Received packets dropped.
    pub rx_dropped: u64,
    /// Packets to be sent dropped.
    pub tx_dropped: u64,
    /// All errors in receiving.
    pub rx_errors: u64,
    /// All errors in sending.
    pub tx_errors: u64,
    /// Of the errors in receiving: frame alignment.
    pub rx_frame_err: u64,
    /// Of the errors in receiving: overruns.
    pub rx_over_err: u64,
    /// Of the errors in receiving: checksums.
    pub rx_crc_err: u64,
    /// Collisions.
    pub collisions: u64,
    /// How long the port has been there, whole seconds.
    pub duration_sec: u32,
    /// And nanoseconds beyond them.
    pub duration_nsec: u32,
}

impl PortStats {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.port_no);
        writer.zeros(4);
        writer.put(self.rx_packets);
        writer.put(self.tx_packets);
        writer.put(self.rx_bytes);
        writer.put(self.tx_bytes);
        writer.put(self.rx_dropped);
        writer.put(self.tx_dropped);
        writer.put(self.rx_errors);
        writer.put(self.tx_errors);
        writer.put(self.rx_frame_err);
        writer.put(self.rx_over_err);
        writer.put(self.rx_crc_err);
        writer.put(self.collisions);
        writer.put(self.duration_sec);
        writer.put(self.duration_nsec);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut port = reader.part("port counters", 112)?;
        let port_no = port.get()?;
        port.skip(4)?;
        Ok(Self {
            port_no,
            rx_packets: port.get()?,
            tx_packets: port.get()?,
            rx_bytes: port.get()?,
            tx_bytes: port.get()?,
            rx_dropped: port.get()?,
            tx_dropped: port.get()?,
            rx_errors: port.get()?,
            tx_errors: port.get()?,
            rx_frame_err: port.get()?,
            rx_over_err: port.get()?,
            rx_crc_err: port.get()?,
            collisions: port.get()?,
            duration_sec: port.get()?,
            duration_nsec: port.get()?,
        })
    }
}

/// What one band of a meter did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BandStats {
    /// Packets above its rate.
    pub packet_count: u64,
    /// Bytes in them.
    pub byte_count: u64,
}

/// A meter's counters (§7.3.5.12).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterStats {
    /// Which meter.
    pub meter_id: u32,
    /// Flows that use it.
    pub flow_count: u32,
    /// Packets handed to it.
    pub packet_in_count: u64,
    /// Bytes in them.
    pub byte_in_count: u64,
    /// How long it has been there, whole seconds.
    pub duration_sec: u32,
    /// And nanoseconds beyond them.
    pub duration_nsec: u32,
    /// What each band did, in the order of the bands.
    pub bands: Vec<BandStats>,
}

impl MeterStats {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.position();
        writer.put(self.meter_id);
        writer.zeros(8);
        writer.put(self.flow_count);
        writer.put(self.packet_in_count);
        writer.put(self.byte_in_count);
        writer.put(self.duration_sec);
        writer.put(self.duration_nsec);
        for band in &self.bands {
            writer.put(band.packet_count);
            writer.put(band.byte_count);
        }
        writer.length("meter counters", start + 4, start);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut head = reader.named("meter counters");
        let (meter_id, length): (u32, u16) = (head.get()?, head.get()?);
        let mut meter = reader.part("meter counters", usize::from(length))?;
        meter.skip(12)?;
        Ok(Self {
            meter_id,
            flow_count: meter.get()?,
            packet_in_count: meter.get()?,
            byte_in_count: meter.get()?,
            duration_sec: meter.get()?,
            duration_nsec: meter.get()?,
            bands: meter.all(|band| {
                Ok(BandStats {
                    packet_count: band.get()?,
                    byte_count: band.get()?,
                })
            })?,
        })
    }
}

/// What meters the switch can have (§7.3.5.14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterFeatures {
    /// How many; 0 when it has none.
    pub max_meter: u32,
    /// Which kinds of bands, a bit each: 1 << 1 drop, 1 << 2 DSCP remark.
    pub band_types: u32,
    /// Which flags it takes: `METER_…` bits.
    pub capabilities: u32,
    /// Bands in one meter.
    pub max_bands: u8,
    /// Highest colour value.
    pub max_color: u8,
}

impl MeterFeatures {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.max_meter);
        writer.put(self.band_types);
        writer.put(self.capabilities);
        writer.put(self.max_bands);
        writer.put(self.max_color);
        writer.zeros(2);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let features = Self {
            max_meter: reader.get()?,
            band_types: reader.get()?,
            capabilities: reader.get()?,
            max_bands: reader.get()?,
            max_color: reader.get()?,
        };
        reader.skip(2)?;
        Ok(features)
    }
}
