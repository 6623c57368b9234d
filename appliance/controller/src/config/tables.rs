//! Every field of the domain's part: what may be written, what it is when it is left out, and when a
//! change of it is in force.

use dtn_api::layered::fields::{
    ADDRESS, FILE, Field, Kind, LOG, NAME, PATH, PLACE, RATE, SPAN, TEXT, Table, field,
};

const SERVES: &str = "the socket and its certificate are made at start: restart vdnd";
/// Why what stands in the wiring waits.
const WIRED: &str = "the fabric is taken up at start: restart vdnd";
const PEERED: &str = "federations and slices go by it from start to end: restart vdnd";

/// A file that has a secret, or a credential of the service manager.
const SECRET: Kind = Kind::Text("^(/|credential:)");
const MTU: Kind = Kind::Integer(1280, 65_535);

const BORDER: &[Field] = &[
    field("name", NAME, "Name of the link here")
        .needed()
        .at_start(WIRED),
    field("peer-domain", NAME, "The domain at its other end")
        .needed()
        .at_start(PEERED),
    field(
        "peer-ref",
        NAME,
        "Name of the link there; the same when left out",
    )
    .at_start(PEERED),
    field("capacity", RATE, "What it carries, in frames").needed(),
    field("latency", SPAN, "One-way latency"),
    field("mtu", MTU, "MTU in bytes").or("1500").at_start(WIRED),
    field(
        "labels",
        Kind::Text("^[0-9,\\s-]+$"),
        "VLANs that slices may have on the link; all when left out",
    ),
    field("at", PLACE, "The port of the fabric that it starts at").at_start(WIRED),
];

const FABRIC: &[Field] = &[
    field(
        "kind",
        Kind::Choice(&["edge", "openflow", "onos"]),
        "What enforces slices",
    )
    .or("\"edge\"")
    .at_start(WIRED),
    field("listen", ADDRESS, "Where switches connect (openflow)").at_start(WIRED),
    field(
        "plain",
        Kind::Flag,
        "Whether switches, or ONOS, are spoken to without TLS",
    )
    .or("false")
    .at_start(WIRED),
    field(
        "neighbours",
        Kind::Choice(&["flood", "proxy"]),
        "Who answers a pod that asks for a neighbour (openflow)",
    )
    .or("\"flood\"")
    .at_start(WIRED),
    field(
        "dhcp",
        Kind::Flag,
        "Whether hosts that speak plain DHCP get addresses from here (openflow)",
    )
    .or("false")
    .at_start(WIRED),
    field("url", TEXT, "Where ONOS serves REST (onos)").at_start(WIRED),
    field(
        "credentials-file",
        SECRET,
        "File of mode 0600 with one line USER:PASSWORD (onos)",
    )
    .at_start(WIRED),
    field(
        "app-id",
        TEXT,
        "The name that ONOS keeps the rules under (onos)",
    )
    .or("\"org.dtn.vdn\"")
    .at_start(WIRED),
    field("ca-file", PATH, "Authority of ONOS's certificate (onos)").at_start(WIRED),
];

/// Every table that the controller reads.
pub const TABLES: &[Table] = &[
    FILE,
    Table {
        name: "domain",
        what: "This machine has the controller of a domain",
        told_by: &[],
        fields: &[field("name", NAME, "Name of the domain")
            .needed()
            .at_start("it is in every certificate of the domain: restart vdnd")],
    },
    Table {
        name: "listen",
        what: "Where the controller serves TLS",
        told_by: &[],
        fields: &[
            field("address", ADDRESS, "Address and port")
                .needed()
                .at_start(SERVES),
            field(
                "url",
                Kind::Text("^https://[^/?#]+/?$"),
                "How hosts and other domains reach it",
            )
            .at_start(SERVES),
            field(
                "names",
                TEXT,
                "More names and addresses for the certificate, separated by spaces",
            )
            .or("\"\"")
            .at_start(SERVES),
        ],
    },
    Table {
        name: "border",
        what: "A link that leaves the domain",
        told_by: &["name"],
        fields: BORDER,
    },
    Table {
        name: "fabric",
        what: "What enforces slices",
        told_by: &[],
        fields: FABRIC,
    },
    Table {
        name: "switch",
        what: "A switch of the fabric",
        told_by: &["name"],
        fields: &[
            field("name", NAME, "Its name").needed().at_start(WIRED),
            field(
                "datapath-id",
                Kind::Text("^([0-9a-fA-F]:?){15}[0-9a-fA-F]:?$"),
                "Its datapath id in 16 hexadecimal digits",
            )
            .needed()
            .at_start(WIRED),
            field(
                "tables",
                Kind::Integer(1, 3),
                "3, or 1 for a switch in which everything has to be in one table",
            )
            .or("3")
            .at_start(WIRED),
        ],
    },
    Table {
        name: "cable",
        what: "A cable between two switches",
        told_by: &["ends"],
        fields: &[
            field(
                "ends",
                Kind::Text("^\\s*\\S+/\\S+\\s+\\S+/\\S+\\s*$"),
                "Its two ends, each SWITCH/PORT",
            )
            .needed()
            .at_start(WIRED),
            field("capacity", RATE, "What it carries")
                .needed()
                .at_start(WIRED),
            field("mtu", MTU, "MTU in bytes").or("1500").at_start(WIRED),
        ],
    },
    Table {
        name: "port",
        what: "Where a node's NIC is plugged in",
        told_by: &["nic"],
        fields: &[
            field(
                "nic",
                Kind::Text("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[^/:\\s]{1,15}$"),
                "The NIC as NODE/NIC",
            )
            .needed()
            .at_start(WIRED),
            field("at", PLACE, "The port as SWITCH/PORT")
                .needed()
                .at_start(WIRED),
        ],
    },
    Table {
        name: "addresses",
        what: "Where slices' addresses come from",
        told_by: &[],
        fields: &[
            field(
                "ipv4",
                Kind::Text("^[0-9.]+/[0-9]{1,2}$"),
                "Pool of IPv4 subnets, a /24 each; slices that are made from now on",
            ),
            field(
                "ipv6",
                Kind::Text("^[0-9a-fA-F:.]+/[0-9]{1,3}$"),
                "Pool of IPv6 subnets, a /64 each; slices that are made from now on",
            ),
            field("lease", SPAN, "Lifetime of a lease, 30s to 30d").or("\"1h\""),
        ],
    },
    Table {
        name: "limits",
        what: "What is not given",
        told_by: &[],
        fields: &[field("window", SPAN, "Longest window of a slice").or("\"90d\"")],
    },
    Table {
        name: "operator",
        what: "People and tools that come over TLS",
        told_by: &[],
        fields: &[field(
            "token-file",
            SECRET,
            "File with a token of at least 16 characters",
        )],
    },
    LOG,
];
