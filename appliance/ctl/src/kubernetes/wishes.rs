//! What can be asked of a cluster on the command line, and the template that it is rendered from.
//! Nothing of the cluster is needed here.

use super::HEADING;
use crate::{cli::Context, deploy, failure::Failure, place::CARRY_OUT};
use dtn_api::{Name, Rate, Span, cluster::ClaimParameters};
use dtn_workloads::{
    Problem, RenderedPod, Template, TransferKey,
    kubernetes::{Asked, Manifests, manifests},
    template::POD_FILE,
};
use jiff::Timestamp;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the host keeps its templates unless its configuration says otherwise.
const TEMPLATES: &str = "/usr/share/dtn/workloads";
/// The configuration that says it.
const CONFIG: &str = "/etc/dtn/appliance.toml";
/// Values that options stand for.
const OWN: [(&str, &str); 3] = [
    ("name", "--name"),
    ("slice", "--slice"),
    ("nic_class", "--nic"),
];

/// Options of `deploy` that only a cluster has.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct Wishes {
    /// The node that the pod runs on
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// NUMA node of the NIC
    #[arg(long, value_name = "NUMBER")]
    numa: Option<u32>,
    /// Only a NIC that is a member of the slice already
    #[arg(long, requires = "slice")]
    member: bool,
    /// The part of the slice that is this pod's alone; all that is left when absent
    #[arg(long, value_name = "RATE", requires = "slice")]
    rate: Option<Rate>,
    /// The least that is still taken
    #[arg(long, value_name = "RATE", requires = "rate")]
    least_rate: Option<Rate>,
    /// The tenant whose slice it is
    #[arg(long, value_name = "NAME", requires = "slice")]
    tenant: Option<Name>,
    /// Until when the slice has to be booked at least
    #[arg(long, value_name = "TIME", requires = "slice")]
    until: Option<Timestamp>,
    /// An address of the slice to have; may be given again
    #[arg(long, value_name = "ADDRESS", requires = "slice")]
    address: Vec<IpAddr>,
    /// MTU of the interface; the slice's when absent
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// A PersistentVolumeClaim in the place of a folder of the node; may be given again
    #[arg(long, value_name = "FOLDER=CLAIM", value_parser = deploy::pair)]
    volume: Vec<(String, String)>,
    /// File with the transfer key of the other end; a new key when absent
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Folder of the templates; this host's when absent
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// Longest time until the pod is ready; it is left as it is then
    #[arg(long, value_name = "SPAN", default_value_t = Span::from_secs(CARRY_OUT.as_secs()))]
    timeout: Span,
    /// Only show what would change; the exit code is 0 for nothing, 1 for something, 2 for a fault
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) diff: bool,
}

impl Wishes {
    /// The options, and which of them are given.
    pub(crate) fn given(&self) -> Vec<(&'static str, bool)> {
        vec![
            ("--node", self.node.is_some()),
            ("--numa", self.numa.is_some()),
            ("--member", self.member),
            ("--rate", self.rate.is_some()),
            ("--least-rate", self.least_rate.is_some()),
            ("--tenant", self.tenant.is_some()),
            ("--until", self.until.is_some()),
            ("--address", !self.address.is_empty()),
            ("--mtu", self.mtu.is_some()),
            ("--volume", !self.volume.is_empty()),
            ("--key", self.key.is_some()),
            ("--templates", self.templates.is_some()),
            ("--timeout", self.timeout.duration() != CARRY_OUT),
            ("--diff", self.diff),
        ]
    }

    /// How long is waited.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.duration()
    }

    /// The key of the other end, when it is given.
    pub(crate) fn key(&self) -> Result<Option<TransferKey>, Failure> {
        let read = self.key.as_deref().map(TransferKey::read).transpose();
        read.map_err(|error| anyhow::Error::new(error).into())
    }

    fn asked(&self, args: &deploy::Args, namespace: Option<String>) -> Result<Asked, Failure> {
        Ok(Asked {
            namespace,
            parameters: ClaimParameters {
                tenant: self.tenant.clone(),
                rate: self.rate,
                least_rate: self.least_rate,
                until: self.until,
                addresses: self.address.clone(),
                mtu: self.mtu,
                ..ClaimParameters::default()
            },
            node: self.node.clone(),
            device: args.device.clone(),
            numa: self.numa,
            member: self.member,
            volumes: deploy::once("--volume", &self.volume)?,
        })
    }
}

/// The template with its values as a cluster takes it.
pub(crate) fn render(
    args: &deploy::Args,
    namespace: Option<String>,
    context: &Context,
) -> Result<Manifests, Failure> {
    let folder = match &args.wishes.templates {
        Some(folder) => folder.clone(),
        None => templates(context),
    };
    let template = load(&folder, args.template.as_str())?;
    let rendered = filled(&template, args)?;
    let asked = args.wishes.asked(args, namespace)?;
    manifests(&template, &rendered, &asked).map_err(|problems| wrong(args, &problems))
}

/// The folder of this host, or of the lab's site.
fn templates(context: &Context) -> PathBuf {
    let configured = std::fs::read_to_string(context.place.below(CONFIG)).ok();
    let table: Option<toml::Table> = configured.and_then(|text| text.parse().ok());
    let dir =
        table.and_then(|table| Some(table.get("workloads")?.get("dir")?.as_str()?.to_owned()));
    context.place.below(dir.as_deref().unwrap_or(TEMPLATES))
}

fn load(folder: &Path, name: &str) -> Result<Template, Failure> {
    let path = folder.join(name);
    if path.join(POD_FILE).is_file() {
        return Template::load(&path).map_err(|e| {
            anyhow::Error::new(e)
                .context(format!("the template {name}"))
                .into()
        });
    }
    let known: Vec<String> = match dtn_workloads::list(folder) {
        Ok(all) => all.into_iter().map(|template| template.name).collect(),
        Err(_) => Vec::new(),
    };
    let failure = Failure::because(format!("no template {name} in {}", folder.display()));
    Err(failure.or_next(match known.is_empty() {
        true => "name the folder of the templates: --templates DIR".to_owned(),
        false => format!("choose one of {}", known.join(", ")),
    }))
}

fn filled(template: &Template, args: &deploy::Args) -> Result<RenderedPod, Failure> {
    let mut values = deploy::once("--set", &args.set)?;
    if let Some((_, option)) = OWN.iter().find(|(value, _)| values.contains_key(*value)) {
        return Err(Failure::Usage(format!(
            "--set stands for what {option} says: leave it out"
        )));
    }
    let fields = [
        ("name", Some(args.name.to_string())),
        ("slice", args.slice.as_ref().map(ToString::to_string)),
        ("nic_class", Some(args.nic.to_string())),
    ];
    for (name, value) in fields {
        let declared = template.declarations.values.contains_key(name);
        if let Some(value) = value.filter(|_| declared) {
            values.insert(name.to_owned(), value);
        }
    }
    let rendered = template
        .render(&values)
        .map_err(|problems| wrong(args, &problems))?;
    let wishes = rendered.wishes();
    let fixed = wishes
        .as_ref()
        .is_none_or(|w| (w.nic_class, &w.slice) != (args.nic, &args.slice));
    match fixed {
        false => Ok(rendered),
        true => Err(Failure::because(format!(
            "the template {} fixes the NIC class or the slice: ask for what it fixes, or write \
             {{{{ nic_class }}}} and {{{{ slice }}}} into it",
            args.template
        ))),
    }
}

fn wrong(args: &deploy::Args, problems: &[Problem]) -> Failure {
    let lines: String = problems.iter().map(|p| format!("\n  {p}")).collect();
    Failure::because(format!("rendering the template {}:{lines}", args.template))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser;

    fn args(words: &str) -> deploy::Args {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dtn-workloads");
        let line = format!("dtnctl deploy xrootd --name t1 --engine kubernetes {words}");
        let folder = folder.to_str().unwrap().to_owned();
        let words = line.split_whitespace().map(str::to_owned);
        let cli = Cli::try_parse_from(words.chain(["--templates".into(), folder])).unwrap();
        match cli.verb {
            Verb::Deploy(args) => *args,
            _ => panic!("another verb"),
        }
    }

    fn context() -> Context {
        Context {
            place: crate::place::Place::host("/nonexistent".into()),
            json: false,
            now: Timestamp::UNIX_EPOCH,
            watched: false,
        }
    }

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let args = args(
            "--nic shared --slice lhc --rate 2Gbit --least-rate 1Gbit --numa 1 --node n1 \
             --until 2027-01-10T06:00:00Z --address 10.0.0.7 --mtu 9000 --volume data_dir=t1-data",
        );
        let made = render(&args, Some("science".into()), &context()).unwrap();
        let text = made.yaml().unwrap();
        for words in [
            "namespace: science",
            "deviceClassName: dtn-shared",
            "rate: 2Gbit",
            "leastRate: 1Gbit",
            "2027-01-10T06:00:00Z",
            "10.0.0.7",
            "mtu: 9000",
            "claimName: t1-data",
            "numaNode == 1",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_remedy() {
        let told = |words: &str| {
            render(&args(words), None, &context())
                .unwrap_err()
                .message()
        };
        assert!(told("--nic shared --set port=80").contains("values.port"));
        assert!(told("--nic shared --set name=x").contains("--name"));
        assert!(told("--nic shared --set port=1 --set port=2").contains("twice"));
        let small = told("--nic shared --slice a --rate 1Gbit --least-rate 2Gbit");
        assert!(small.contains("parameters.leastRate"), "{small}");
        let mut lost = args("--nic shared");
        lost.template = "nothing".parse().unwrap();
        let lost = render(&lost, None, &context()).unwrap_err().message();
        assert!(lost.contains("iperf3, xrootd"), "{lost}");
    }
}
