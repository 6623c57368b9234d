//! From a request to a manifest: the template rendered with the request's values, checked, and with
//! the label by which the pod is known again.

use super::{
    book::{self, Entry, Step, Wanted},
    engine::UID_LABEL,
};
use crate::Config;
use dtn_api::{Problem, Size, local::DeployRequest, problem::Kind};
use dtn_workloads::{
    RenderedPod, Template, layout,
    template::POD_FILE,
    values::{Kind as ValueKind, Value},
};
use jiff::Timestamp;
use std::{collections::BTreeMap, path::Path, time::SystemTime};

/// Where templates keep data when nobody says otherwise; the site's own folder goes in its place.
const TEMPLATE_DATA: &str = "/srv/dtn/";
/// Values that the request has fields for.
const OWN: [&str; 3] = ["name", "slice", "nic_class"];

/// A pod that may be made.
#[derive(Debug)]
pub struct Manifest {
    template: Template,
    rendered: RenderedPod,
}

/// Renders and checks. Nothing is made; everything that is wrong is told at once.
pub fn render(config: &Config, request: &DeployRequest) -> Result<Manifest, Problem> {
    let template = load(&config.workload_dir, request.template.as_str())?;
    let mut values = request.values.clone();
    let mut doubled: Vec<&str> = OWN
        .into_iter()
        .filter(|n| values.contains_key(*n))
        .collect();
    doubled.sort_unstable();
    if !doubled.is_empty() {
        let mut problem = Problem::new(Kind::InvalidRequest, "a value is given in two places");
        for name in doubled {
            let why = "is a field of the request: leave it out of the values";
            problem = problem.at(format!("/values/{name}"), why);
        }
        return Err(problem);
    }
    let declared = &template.declarations.values;
    let slice = request.slice.as_ref().map(ToString::to_string);
    let fields = [
        ("name", Some(request.name.to_string())),
        ("slice", slice),
        ("nic_class", Some(request.nic_class.to_string())),
    ];
    for (name, value) in fields {
        if let Some(value) = value.filter(|_| declared.contains_key(name)) {
            values.insert(name.to_owned(), value);
        }
    }
    for (name, declaration) in declared {
        let below = declaration
            .default
            .as_deref()
            .filter(|_| declaration.kind == ValueKind::Folder && !values.contains_key(name))
            .and_then(|default| default.strip_prefix(TEMPLATE_DATA));
        if let Some(below) = below {
            let below = below.replace("{name}", request.name.as_str());
            let path = config.data_dir.join(below);
            values.insert(name.clone(), path.display().to_string());
        }
    }
    let rendered = template.render(&values).map_err(|problems| {
        let doing = format!("rendering the template {}", request.template);
        problems
            .iter()
            .fold(Problem::new(Kind::InvalidRequest, doing), |all, found| {
                all.at("", found.to_string())
            })
    })?;
    let wishes = rendered.wishes().ok_or_else(|| {
        Problem::new(
            Kind::InvalidRequest,
            format!("the template {} names no interface", request.template),
        )
    })?;
    if (wishes.nic_class, &wishes.slice) != (request.nic_class, &request.slice) {
        return Err(Problem::new(
            Kind::InvalidRequest,
            format!(
                "the template {} fixes the NIC class {} and the slice {}: ask for these, or write \
                 {{{{ nic_class }}}} and {{{{ slice }}}} into it",
                request.template,
                wishes.nic_class,
                wishes.slice.map_or("none".into(), |s| s.to_string())
            ),
        ));
    }
    Ok(Manifest { template, rendered })
}

/// The folders of the host that the request names itself. They are given to the pod's user and mounted,
/// so whoever may name one may take any.
pub fn named_folders(config: &Config, request: &DeployRequest) -> Result<Vec<String>, Problem> {
    let template = load(&config.workload_dir, request.template.as_str())?;
    let declared = template.declarations.values;
    let is_folder = |name: &&String| {
        declared
            .get(name.as_str())
            .is_some_and(|value| value.kind == ValueKind::Folder)
    };
    Ok(request.values.keys().filter(is_folder).cloned().collect())
}

fn load(folder: &Path, name: &str) -> Result<Template, Problem> {
    let path = folder.join(name);
    if !path.join(POD_FILE).is_file() {
        let known = match dtn_workloads::list(folder) {
            Ok(all) => {
                let names: Vec<String> = all.into_iter().map(|t| t.name).collect();
                format!("there are {}", names.join(", "))
            }
            Err(e) => chain(&e),
        };
        return Err(Problem::new(
            Kind::NotFound,
            format!("no template {name} in {}: {known}", folder.display()),
        ));
    }
    Template::load(&path).map_err(|e| {
        Problem::new(
            Kind::InvalidRequest,
            format!("the template {name}: {}", chain(&e)),
        )
    })
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

impl Manifest {
    /// The text for the engine.
    pub fn text(&self) -> Result<String, Problem> {
        self.rendered
            .podman_yaml()
            .map_err(|e| Problem::new(Kind::Internal, format!("writing the manifest: {e}")))
    }

    /// Makes the folders and the key that the pod mounts.
    pub fn lay_out(&self) -> Result<(), Problem> {
        let done = layout::lay_out(&self.template, &self.rendered.values, SystemTime::now())
            .map_err(|e| Problem::new(Kind::Internal, chain(&e)))?;
        for folder in &done.folders {
            tracing::info!(folder = %folder.display(), "made for the pod");
        }
        for key in &done.keys {
            tracing::info!(key = %key.display(), "a transfer key was made: the other end needs a copy");
        }
        Ok(())
    }

    /// The first entry of the book.
    pub fn entry(
        mut self,
        request: &DeployRequest,
        uid: &str,
        now: Timestamp,
    ) -> Result<Entry, Problem> {
        let wishes = self.rendered.wishes();
        let labels = self.rendered.pod.metadata.labels.get_or_insert_default();
        labels.insert(UID_LABEL.to_owned(), uid.to_owned());
        let ifname = wishes.map(|wishes| wishes.interface).ok_or_else(|| {
            Problem::new(Kind::Internal, "the pod lost the name of its interface")
        })?;
        Ok(Entry {
            version: book::VERSION,
            uid: uid.to_owned(),
            request: request.clone(),
            ifname,
            memory: memory(&self.rendered),
            streams: streams(&self.rendered.values),
            manifest: self.text()?,
            containers: self.rendered.container_names().len(),
            step: Step::Booked,
            wanted: Wanted::Up,
            boot_id: book::boot_id(),
            message: String::new(),
            created_at: now,
        })
    }
}

fn streams(values: &BTreeMap<String, Value>) -> u32 {
    match values.get("streams") {
        Some(Value::Number(streams)) => u32::try_from(*streams).unwrap_or(u32::MAX),
        _ => 1,
    }
}

/// The limits of all containers together; `None` where one has none.
fn memory(rendered: &RenderedPod) -> Option<Size> {
    let pod = serde_json::to_value(&rendered.pod).ok()?;
    let containers = pod["spec"]["containers"].as_array()?;
    let limits = containers.iter().map(|container| {
        container["resources"]["limits"]["memory"]
            .as_str()
            .and_then(quantity)
    });
    let bytes = limits.sum::<Option<u64>>()?;
    (bytes > 0).then(|| Size::from_bytes(bytes))
}

/// A quantity of Kubernetes: bytes, or with Ki, Mi, Gi, Ti, k, M, G, T.
fn quantity(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .or_else(|| format!("{text}B").parse::<Size>().ok().map(Size::bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_api::nic::NicClass;

    fn config() -> Config {
        let mut config = crate::config::example("dtn1");
        config.workload_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dtn-workloads");
        config.data_dir = "/data/site".into();
        config
    }
    fn request(template: &str) -> DeployRequest {
        DeployRequest {
            template: template.parse().unwrap(),
            name: "t1".parse().unwrap(),
            values: BTreeMap::new(),
            slice: Some("lhc".parse().unwrap()),
            nic_class: NicClass::Shared,
            nic: None,
            dry_run: false,
        }
    }

    #[test]
    fn fields_of_the_request_and_the_site_s_folder_go_into_the_template() {
        let made = render(&config(), &request("xrootd")).unwrap();
        let entry = made
            .entry(&request("xrootd"), "u1", Timestamp::UNIX_EPOCH)
            .unwrap();
        for words in [
            "dtn.uid: u1",
            "dtn.appliance/slice: lhc",
            "dtn.appliance/nic-class: shared",
            "/data/site/t1/data",
        ] {
            assert!(
                entry.manifest.contains(words),
                "{words}: {}",
                entry.manifest
            );
        }
        assert!(!entry.manifest.contains("/srv/dtn"));
        assert_eq!((entry.streams, entry.containers), (8, 1));
        assert!(entry.memory.unwrap().bytes() > 512 << 20);
    }

    #[test]
    fn a_folder_that_the_request_names_is_found() {
        let mut asked = request("xrootd");
        asked.values.insert("streams".into(), "4".into());
        let named = named_folders(&config(), &asked).unwrap();
        assert_eq!(named, Vec::<String>::new(), "its own are below data.dir");
        let template = load(&config().workload_dir, "xrootd").unwrap();
        let declared = template.declarations.values;
        for (name, value) in declared.iter().filter(|(_, v)| v.kind == ValueKind::Folder) {
            let mut asked = request("xrootd");
            asked.values.insert(name.clone(), "/opt".into());
            assert_eq!(
                named_folders(&config(), &asked).unwrap(),
                std::slice::from_ref(name),
                "{value:?}"
            );
        }
        assert!(declared.values().any(|v| v.kind == ValueKind::Folder));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_there_is() {
        let absent = render(&config(), &request("nothing")).unwrap_err();
        assert!(
            absent.is(Kind::NotFound) && absent.detail.contains("xrootd"),
            "{absent}"
        );
        let mut doubled = request("xrootd");
        doubled.values.insert("name".into(), "other".into());
        doubled.values.insert("slice".into(), "other".into());
        assert_eq!(render(&config(), &doubled).unwrap_err().errors.len(), 2);
        let mut wrong = request("xrootd");
        wrong.values.insert("port".into(), "80".into());
        wrong.values.insert("colour".into(), "red".into());
        assert_eq!(render(&config(), &wrong).unwrap_err().errors.len(), 2);
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        assert_eq!(quantity("603979776"), Some(603_979_776));
        assert_eq!(quantity("512Mi"), Some(512 << 20));
        assert_eq!(quantity("1G"), Some(1_000_000_000));
        assert_eq!(quantity("x"), None);
    }
}
