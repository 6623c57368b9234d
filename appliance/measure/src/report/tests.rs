//! The JSON has the fields that scripts read, and the table says what a person must know.

use super::*;

fn direction(ok: bool) -> Direction {
    Direction {
        from: "daejeon".into(),
        to: "busan".into(),
        transfer: TransferEvidence {
            files: 4002,
            bytes: 2_200_000_000,
            seconds: 20.0,
            goodput_bps: 880_000_000,
            retransmits: 3,
        },
        large_file: Some(LargeFileEvidence {
            bytes: 2_147_000_000,
            seconds: 18.5,
            goodput_bps: 928_000_000,
        }),
        small_files: Some(SmallFilesEvidence {
            count: 4000,
            bytes: 52_000_000,
            seconds: 1.5,
            files_per_s: 2666.0,
        }),
        share_of_ceiling: 0.984,
        checksums_ok: ok,
        differences: if ok {
            vec![]
        } else {
            vec!["a: size 1, not 2".into()]
        },
        limited_by: LimitedBy::Slice,
        load: Load {
            share_of_ceiling: 0.984,
            cpu_busy: 0.7,
            io_wait: 0.01,
            disk_busy: 0.3,
        },
        wan_bytes: 2_300_000_000,
        resumed: None,
        series: vec![],
    }
}

fn gateway() -> GatewayEvidence {
    let knock = |wanted: bool, seen: &str, explained: &str| Knock {
        rules: "none".into(),
        direction: "outbound".into(),
        from: "10.20.0.12".into(),
        to: "198.51.100.1:443".into(),
        wanted,
        seen: seen.into(),
        explained: explained.into(),
    };
    GatewayEvidence {
        site: "daejeon".into(),
        name: "outside".into(),
        ok: true,
        wrong: vec![],
        knocks: vec![knock(false, "silent", "deny"), knock(true, "open", "allow")],
        changes: vec![RuleChange {
            what: "allow outbound tcp 443-444".into(),
            in_force_ms: Some(85.4),
        }],
        denied_outbound: 3,
        denied_inbound: 4,
        denied_by_switches: Some(5),
    }
}

fn report(ok: bool) -> Report {
    let first = direction(ok);
    let mut report = Report {
        version: REPORT_VERSION,
        appliance: "0.1.0".into(),
        ended_at: "2026-01-01T00:00:00Z".into(),
        sites: vec!["daejeon".into(), "busan".into()],
        nic: "dedicated".into(),
        engine: EngineEvidence {
            kind: "kubernetes".into(),
            version: Some("1.37.2".into()),
        },
        pods: vec![PodEvidence {
            site: "daejeon".into(),
            name: "transfer".into(),
            addresses: vec!["10.20.0.1".into(), "fd00:20::1".into()],
            ready_ms: 3210.0,
        }],
        mtu: 9000,
        rtt_ms: 10.0,
        slice: SliceEvidence {
            name: "lab".into(),
            class: "guaranteed".into(),
            rate_bps: 950_000_000,
            ceiling_bps: 943_044_153,
            asked_bps: None,
            limited_by: "daejeon:site-switch>wan".into(),
        },
        wan: WanEvidence {
            rate_bps: 1_000_000_000,
            delay_by: "relay".into(),
            carries_bps: Some(3_000_000_000),
            measured_rtt_ms: Some(10.2),
        },
        fabric: FabricEvidence {
            kind: "openflow".into(),
            by: None,
            switches: 6,
            carries_bps: Some(400_000_000),
            request_to_active_ms: Some(1234.5),
            meter_drops: Some(0),
            hosts: vec![ListedHost {
                site: "daejeon".into(),
                pod: "transfer".into(),
                name: "lab-02:00:00:00:00:01".into(),
                mac: "02:00:00:00:00:01".into(),
                addresses: vec!["10.20.0.1".into()],
                location: "of:0000000000000002/3".into(),
            }],
        },
        transfer: TransferEvidence {
            files: 0,
            bytes: 0,
            seconds: 0.0,
            goodput_bps: 0,
            retransmits: 0,
        },
        large_file: None,
        small_files: None,
        share_of_ceiling: 0.0,
        checksums_ok: true,
        limited_by: LimitedBy::Tool,
        simulated_wire: true,
        directions: vec![first],
        gateways: vec![gateway()],
        machine: "2 processors".into(),
        notes: vec![],
    };
    report.lift_first_direction();
    report
}

#[test]
fn scripts_find_the_fields() {
    let json = serde_json::to_value(report(true)).unwrap();
    for pointer in [
        "/sites/0",
        "/nic",
        "/mtu",
        "/rtt_ms",
        "/slice/rate_bps",
        "/slice/ceiling_bps",
        "/transfer/files",
        "/transfer/bytes",
        "/transfer/seconds",
        "/transfer/goodput_bps",
        "/transfer/retransmits",
        "/large_file/bytes",
        "/large_file/seconds",
        "/large_file/goodput_bps",
        "/small_files/count",
        "/small_files/files_per_s",
        "/share_of_ceiling",
        "/checksums_ok",
        "/limited_by",
        "/simulated_wire",
        "/fabric/kind",
        "/fabric/switches",
        "/fabric/carries_bps",
        "/fabric/request_to_active_ms",
        "/fabric/meter_drops",
        "/fabric/hosts/0/location",
        "/engine/kind",
        "/engine/version",
        "/pods/0/addresses/0",
        "/pods/0/ready_ms",
        "/gateways/0/ok",
        "/gateways/0/knocks/0/wanted",
        "/gateways/0/changes/0/in_force_ms",
        "/gateways/0/denied_by_switches",
    ] {
        assert!(
            json.pointer(pointer).is_some_and(|v| !v.is_null()),
            "{pointer} is missing"
        );
    }
    assert_eq!(json["limited_by"], "slice");
    assert_eq!(json["transfer"]["files"], 4002);
    let back: Report = serde_json::from_value(json).unwrap();
    assert_eq!(back, report(true));
}

#[test]
fn a_report_of_before_there_were_clusters_is_one_of_podman() {
    let mut json = serde_json::to_value(report(true)).unwrap();
    for field in ["engine", "pods"] {
        json.as_object_mut().unwrap().remove(field);
    }
    json["fabric"].as_object_mut().unwrap().remove("hosts");
    let back: Report = serde_json::from_value(json).unwrap();
    assert_eq!(back.engine, EngineEvidence::default());
    assert!(back.table().contains("engine                 podman\n"));
}

#[test]
fn who_ran_the_pods_and_where_they_are_is_in_the_table() {
    let table = report(true).table();
    for line in [
        "engine                 kubernetes 1.37.2, a cluster of its own at each site",
        "pod                    transfer of daejeon: 10.20.0.1 fd00:20::1, ready 3.2 s",
        "listed by the fabric   transfer of daejeon: lab-02:00:00:00:00:01 (02:00:00:00:00:01), 10.20.0.1, at of:0000000000000002/3",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
}

#[test]
fn one_direction_that_differs_spoils_the_verdict() {
    let mut both = report(true);
    both.directions.push(direction(false));
    both.lift_first_direction();
    assert!(!both.checksums_ok);
    assert!(
        both.table()
            .contains("DIFFERENT in 1 places: a: size 1, not 2")
    );
    let mut none = report(true);
    none.directions.clear();
    none.lift_first_direction();
    assert!(!none.checksums_ok, "nothing compared is not the same");
}

#[test]
fn the_table_names_units_and_the_simulated_wire() {
    let table = report(true).table();
    for part in [
        "950.0 Mb/s",
        "TCP ceiling 943.0 Mb/s",
        "98.4 % of the ceiling",
        "2666 files/s",
        "3 segments",
        "the wire is simulated",
        "measured RTT 10.20 ms",
        "openflow, 6 switches (which carry 400.0 Mb/s here), active 1234 ms",
        "0 frames dropped by meters",
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
}

#[test]
fn a_gateway_stands_in_one_line_and_what_went_wrong_is_said() {
    let mut report = report(true);
    let table = report.table();
    let line = "outside of daejeon: 2 of 2 connections went as its rules say, allow outbound tcp 443-444 in force after 85 ms, 7 packets dropped by its host and 5 by the switches\n";
    assert!(table.contains(line), "{table}");
    let gateway = &mut report.gateways[0];
    gateway.ok = false;
    gateway.wrong = vec!["no rule: 198.51.100.1:443 was open".into()];
    gateway.knocks[0].seen = "open".into();
    gateway.changes[0].in_force_ms = None;
    let table = report.table();
    for part in [
        "1 of 2 connections",
        "allow outbound tcp 443-444 NOT IN FORCE",
        "WRONG: no rule: 198.51.100.1:443 was open",
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
    report.gateways[0].wrong = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    assert_eq!(report.gateways[0].said(), "a; b; c; and 2 more");
    report.gateways[0].wrong.truncate(3);
    assert_eq!(report.gateways[0].said(), "a; b; c");
}

#[test]
fn a_connection_is_well_when_it_went_as_wanted_and_as_was_said() {
    let well = &gateway().knocks;
    assert!(well.iter().all(Knock::ok));
    for (at, seen, explained) in [
        (0, "open", "deny"),
        (0, "refused", "deny"),
        (0, "silent", "allow"),
        (1, "silent", "allow"),
        (1, "open", "deny"),
    ] {
        let mut knock = well[at].clone();
        (knock.seen, knock.explained) = (seen.into(), explained.into());
        assert!(!knock.ok(), "{knock:?}");
    }
}
