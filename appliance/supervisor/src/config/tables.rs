//! Every field of the host's part: what may be written, what it is when it is left out, and when a
//! change of it is in force.

use dtn_api::layered::fields::{
    ADDRESS, FILE, Field, Kind, LOG, NAME, NET, PATH, RATE, SPAN, TEXT, Table, field,
};

const NIC: &[Field] = &[
    field(
        "name",
        Kind::Text("^[^/:\\s]{1,15}$"),
        "Its name on the host now, or a pattern of names as \"ens*\"",
    ),
    field(
        "pci",
        Kind::Text("^[0-9a-fA-F:.*?]+$"),
        "Where it sits, as \"0000:3b:00.0\", or a pattern as \"0000:3b:*\"",
    ),
    field(
        "mac",
        Kind::Text("^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"),
        "Its permanent hardware address",
    ),
    field(
        "class",
        Kind::Choice(&["dedicated", "shared"]),
        "How pods get it: moved whole into one, or by macvlan children",
    )
    .needed(),
    field(
        "speed",
        RATE,
        "Its speed, where its driver tells none or it is to give less",
    ),
    field(
        "share-with",
        Kind::Choice(&["nobody", "federation"]),
        "Who outside of the domain may ask for slices to it",
    )
    .or("\"nobody\""),
];

const GATEWAY: &[Field] = &[
    field("name", NAME, "Its name in the domain").needed(),
    field("inside", TEXT, "The NIC that members of slices come in by").needed(),
    field(
        "outside",
        TEXT,
        "The NIC that the external network is behind",
    )
    .needed(),
    field(
        "addresses",
        Kind::List(NET),
        "Its own addresses on the external network, with prefix length",
    )
    .needed(),
    field(
        "routers",
        Kind::List(NET),
        "Next hops there, one of each family",
    ),
    field(
        "networks",
        Kind::List(NET),
        "What members of slices reach through it",
    )
    .needed(),
    field(
        "nat",
        Kind::Flag,
        "Whether members are seen from outside with its address",
    )
    .or("false"),
];

/// At start the socket is opened, and what runs in it is taken up.
const ENGINE: &str = "the engine is spoken to from start to end: restart dtnd";
const NODE: &str = "the kubelet knows it by this from start to end: restart dtnd";

/// Every table that the supervisor reads.
pub const TABLES: &[Table] = &[
    FILE,
    Table {
        name: "host",
        what: "This host is a DTN",
        told_by: &[],
        fields: &[field("name", NAME, "The host's name in its domain")
            .needed()
            .at_start("its leases and slices go by this name: restart dtnd")],
    },
    Table {
        name: "nic",
        what: "A NIC that is given to the appliance",
        told_by: &["name", "pci", "mac"],
        fields: NIC,
    },
    Table {
        name: "gateway",
        what: "This host forwards between slices and an external network",
        told_by: &["name"],
        fields: GATEWAY,
    },
    Table {
        name: "podman",
        what: "The engine of a single machine",
        told_by: &[],
        fields: &[field("socket", PATH, "Socket of podman's REST service")
            .or("\"/run/podman/podman.sock\"")
            .at_start(ENGINE)],
    },
    Table {
        name: "kubernetes",
        what: "This host is a node of a Kubernetes cluster",
        told_by: &[],
        fields: &[
            field(
                "node",
                Kind::Text("^[a-z0-9.-]{1,253}$"),
                "The node's name in the cluster; host.name without one",
            )
            .at_start(NODE),
            field(
                "kubeconfig",
                PATH,
                "How to speak to the API server; the pod's own account without one",
            )
            .at_start(NODE),
            field("kubelet-dir", PATH, "The kubelet's folder")
                .or("\"/var/lib/kubelet\"")
                .at_start(NODE),
        ],
    },
    Table {
        name: "cni",
        what: "The plugins",
        told_by: &[],
        fields: &[field("bin-dir", PATH, "Folder of the plugin binaries").or("\"/opt/cni/bin\"")],
    },
    Table {
        name: "workloads",
        what: "The pod templates",
        told_by: &[],
        fields: &[
            field("dir", PATH, "Folder of the pod templates").or("\"/usr/share/dtn/workloads\"")
        ],
    },
    Table {
        name: "data",
        what: "What pods move",
        told_by: &[],
        fields: &[field("dir", PATH, "Folder below which pods keep their data").or("\"/srv/dtn\"")],
    },
    Table {
        name: "tuning",
        what: "What sandboxes are tuned for",
        told_by: &[],
        fields: &[field(
            "rtt",
            SPAN,
            "The longest round trip to a peer; pods that are made from now on have it",
        )
        .or("\"100ms\"")],
    },
    LOG,
    Table {
        name: "metrics",
        what: "Counts for a scraper",
        told_by: &[],
        fields: &[field(
            "listen",
            ADDRESS,
            "Serve metrics on this loopback address too",
        )],
    },
];
