//! Any answer to a multipart request.

use crate::any::{band, body, bucket, group_kind, instruction, matches, port};
use dtn_openflow::{
    AggregateStats, BandStats, Description, FlowStats, GroupDesc, MeterConfig, MeterFeatures,
    MeterStats, MultipartReply, PortStats, TableStats,
};
use proptest::{collection::vec, prelude::*};

fn flow_stats() -> impl Strategy<Value = FlowStats> {
    let numbers = any::<(u8, [u64; 3], [u32; 2], [u16; 4])>();
    let parts = (numbers, matches(), vec(instruction(), 0..4));
    parts.prop_map(
        |((table_id, wide, long, short), matches, instructions)| FlowStats {
            table_id,
            duration_sec: long[0],
            duration_nsec: long[1],
            priority: short[0],
            idle_timeout: short[1],
            hard_timeout: short[2],
            flags: short[3],
            cookie: wide[0],
            packet_count: wide[1],
            byte_count: wide[2],
            matches,
            instructions,
        },
    )
}

fn port_stats() -> impl Strategy<Value = PortStats> {
    any::<(u32, [u64; 12], [u32; 2])>().prop_map(|(port_no, n, duration)| PortStats {
        port_no,
        rx_packets: n[0],
        tx_packets: n[1],
        rx_bytes: n[2],
        tx_bytes: n[3],
        rx_dropped: n[4],
        tx_dropped: n[5],
        rx_errors: n[6],
        tx_errors: n[7],
        rx_frame_err: n[8],
        rx_over_err: n[9],
        rx_crc_err: n[10],
        collisions: n[11],
        duration_sec: duration[0],
        duration_nsec: duration[1],
    })
}

fn meter_stats() -> impl Strategy<Value = MeterStats> {
    let bands = vec(any::<(u64, u64)>(), 0..4);
    (any::<([u32; 4], [u64; 2])>(), bands).prop_map(|((long, wide), bands)| MeterStats {
        meter_id: long[0],
        flow_count: long[1],
        packet_in_count: wide[0],
        byte_in_count: wide[1],
        duration_sec: long[2],
        duration_nsec: long[3],
        bands: bands
            .into_iter()
            .map(|(packet_count, byte_count)| BandStats {
                packet_count,
                byte_count,
            })
            .collect(),
    })
}

fn table_stats() -> impl Strategy<Value = TableStats> {
    any::<(u8, u32, u64, u64)>().prop_map(|n| TableStats {
        table_id: n.0,
        active_count: n.1,
        lookup_count: n.2,
        matched_count: n.3,
    })
}

/// One message of an answer.
pub(crate) fn reply() -> impl Strategy<Value = MultipartReply> {
    let description = [
        "[^\0]{0,60}",
        "[^\0]{0,60}",
        "[^\0]{0,60}",
        "[^\0]{0,7}",
        "[^\0]{0,60}",
    ];
    let description =
        description.prop_map(|[manufacturer, hardware, software, serial, datapath]| {
            MultipartReply::Desc(Description {
                manufacturer,
                hardware,
                software,
                serial,
                datapath,
            })
        });
    let group = (group_kind(), any::<u32>(), vec(bucket(), 0..3));
    let group = group.prop_map(|(kind, group_id, buckets)| GroupDesc {
        kind,
        group_id,
        buckets,
    });
    let meter = (any::<(u16, u32)>(), vec(band(), 0..3));
    let meter = meter.prop_map(|((flags, meter_id), bands)| MeterConfig {
        flags,
        meter_id,
        bands,
    });
    let features = any::<(u32, u32, u32, u8, u8)>().prop_map(|n| {
        MultipartReply::MeterFeatures(MeterFeatures {
            max_meter: n.0,
            band_types: n.1,
            capabilities: n.2,
            max_bands: n.3,
            max_color: n.4,
        })
    });
    prop_oneof![
        description,
        vec(flow_stats(), 0..4).prop_map(MultipartReply::Flow),
        any::<(u64, u64, u32)>().prop_map(|n| MultipartReply::Aggregate(AggregateStats {
            packet_count: n.0,
            byte_count: n.1,
            flow_count: n.2,
        })),
        vec(table_stats(), 0..4).prop_map(MultipartReply::Table),
        vec(port_stats(), 0..4).prop_map(MultipartReply::PortStats),
        vec(group, 0..4).prop_map(MultipartReply::GroupDesc),
        vec(meter_stats(), 0..4).prop_map(MultipartReply::Meter),
        vec(meter, 0..4).prop_map(MultipartReply::MeterConfig),
        features,
        vec(port(), 0..4).prop_map(MultipartReply::PortDesc),
        (14_u16.., body()).prop_map(|(kind, body)| MultipartReply::Other { kind, body }),
    ]
}
