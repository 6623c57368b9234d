//! Two or more simulated sites on one machine, without hardware: the demo and the test bed.
//!
//! A run is four processes deep, so that whatever is killed, nothing stays:
//!
//! ```text
//! dtnctl lab run        prints, forwards Ctrl-C                        (machine's namespaces)
//!   janitor             holds the lock, sweeps cgroups and folders      (machine's namespaces)
//!     unshare           dies → its child dies with it
//!       catatonit       process 1 of the capsule: dies → the kernel reaps everything
//!         capsule       builds, runs the scenario                       (own PID, mount, net, cgroup)
//!           anchors     one per site: its network and mount namespace
//!           relay       the wide-area link's delay
//!           vdnd, dtnd, podman system service or a cluster's daemons, pods
//! ```
//!
//! * [`options`], [`place`]: what is wanted, and where everything lies.
//! * [`preflight`]: all that stands in the way, at once.
//! * [`outer`], [`janitor`], [`cgroups`], [`capsule`]: the frame.
//! * [`pillar`]: the processes that a lab stands on, and what is said when one ends.
//! * [`network`]: the steps that cable it all; [`site`], [`wan`], [`relay`], [`probe`]: cables, switches, the link between them.
//! * [`switches`], [`openvswitch`]: switches that a controller programs, as texts and running.
//! * [`onos`]: an ONOS between controller and switches, started or there already.
//! * [`engine`], [`runtime`], [`daemons`]: podman and the appliance's own daemons.
//! * [`cluster`]: a Kubernetes at each site in podman's place; [`pods`]: the words for both.
//! * [`scenario`], [`transfer`], [`mover`]: the verbs an operator would use, and the files that move.
//! * [`gateway`], [`knock`]: the external network of each site, and who may pass to it and from it.
//! * [`fault`]: what is killed on purpose.
//! * [`load`], [`evidence`]: what was measured, and the report.
//!
//! The lab is the crew that cables the sites. It uses iproute2 for that and not dtn-link, so that it
//! does not lean on the code that it tries out.

pub mod capsule;
pub mod cgroups;
pub mod cluster;
pub mod daemons;
pub mod engine;
pub mod evidence;
pub mod fault;
pub mod gateway;
pub mod janitor;
pub mod knock;
pub mod load;
mod mounts;
pub mod mover;
pub mod network;
pub mod onos;
pub mod openvswitch;
pub mod options;
pub mod outer;
pub mod part;
pub mod pillar;
pub mod place;
pub mod pods;
pub mod preflight;
pub mod probe;
pub mod progress;
pub mod relay;
pub mod root;
pub mod runtime;
pub mod scenario;
pub mod shell;
pub mod site;
pub mod switches;
pub mod transfer;
pub mod wan;

pub use options::Options;
