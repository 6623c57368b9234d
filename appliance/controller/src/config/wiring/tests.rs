use crate::config::tests::problems;

#[test]
fn onos_takes_no_switch_of_one_table() {
    let wired = |kind: &str| {
        problems(&format!(
            "version = 1\n[fabric]\nkind = \"{kind}\"\n[[switch]]\nname = \"s1\"\n\
                 datapath-id = \"0000000000000001\"\ntables = 1\n"
        ))
    };
    let told = |kind| {
        let all = wired(kind).into_iter();
        let mut own = all.filter(|line| line.starts_with("switch[0].tables: "));
        own.next()
    };
    assert!(told("onos").is_some_and(|why| why.contains("needs three tables")));
    assert_eq!(told("openflow"), None);
}

#[test]
fn dhcp_is_served_where_frames_come_here() {
    for (kind, on, fits) in [
        ("openflow", true, true),
        ("edge", true, false),
        ("edge", false, true),
        ("onos", true, false),
        ("onos", false, true),
    ] {
        let text = format!("version = 1\n[fabric]\nkind = \"{kind}\"\ndhcp = {on}\n");
        let all = problems(&text);
        let told = all.iter().any(|line| line.starts_with("fabric.dhcp: "));
        assert_eq!(told, !fits, "{kind} {on}: {all:#?}");
    }
}

#[test]
fn a_wiring_that_cannot_be_is_told_whole() {
    let told = problems(
        r#"version = 1
fabric = { kind = "openflow", plain = "yes", port = 1 }
[domain]
name = "a"
[listen]
address = "192.0.2.1:1"
[addresses]
ipv4 = "10.0.0.0/16"
[[switch]]
name = "s1"
datapath-id = "0000000000000001"
[[switch]]
name = "site-switch"
datapath-id = "1"
tables = 2
[[switch]]
name = "s2"
datapath-id = "0000000000000002"
[[switch]]
name = "s2"
datapath-id = "00:00:00:00:00:00:00:02"
[[cable]]
ends = "s2/1 s9/1"
capacity = "0bit"
mtu = 1
[[cable]]
ends = "s2/1"
capacity = "1Gbit"
[[cable]]
ends = "s2/2 s2/3"
capacity = "1Gbit"
[[port]]
nic = "data0"
at = "s2/2"
[[border]]
name = "s1"
peer-domain = "b"
capacity = "1Gbit"
labels = "1-5"
"#,
    );
    for field in [
        "fabric.port",
        "fabric.plain",
        "fabric.listen",
        "switch[0].name",
        "switch[1].name",
        "switch[1].datapath-id",
        "switch[1].tables",
        "switch[2].name",
        "switch[2].datapath-id",
        "cable[0].ends",
        "cable[0].capacity",
        "cable[0].mtu",
        "cable[1].ends",
        "cable[2].ends",
        "port[0].nic",
        "port[0].at",
        "border[0].labels",
        "border[0].at",
    ] {
        let prefix = format!("{field}: ");
        assert!(
            told.iter().any(|line| line.starts_with(&prefix)),
            "{field} is not in {told:#?}"
        );
    }
}
