//! The list of materials of a release (SBOM), as CycloneDX 1.5: every package of the programs with its
//! version, licence and place, and which needs which. Pure, out of what `cargo metadata` says.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The crates whose programs are in a release.
const ROOTS: [&str; 5] = ["dtnctl", "dtnd", "vdnd", "dtn-install", "dtn-cni"];

/// Makes it. The same input gives the same text: no time, no random number.
pub(crate) fn cyclonedx(metadata: &Value, version: &str) -> Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let needs = list(&node["deps"])
                .iter()
                // what tests and build scripts need is in no program
                .filter(|dep| {
                    list(&dep["dep_kinds"])
                        .iter()
                        .any(|kind| kind["kind"].is_null())
                })
                .map(|dep| text(&dep["pkg"]))
                .collect();
            (text(&node["id"]), needs)
        })
        .collect();
    let mut queue: Vec<String> = packages
        .iter()
        .filter(|(_, package)| ROOTS.contains(&text(&package["name"]).as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    if queue.is_empty() {
        anyhow::bail!("cargo metadata names none of our crates");
    }
    let mut reached = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if reached.insert(id.clone()) {
            queue.extend(nodes.get(&id).cloned().unwrap_or_default());
        }
    }
    let purl = |id: &String| -> Result<String> {
        let package = packages
            .get(id)
            .with_context(|| format!("cargo metadata does not name {id}"))?;
        Ok(format!(
            "pkg:cargo/{}@{}",
            text(&package["name"]),
            text(&package["version"])
        ))
    };
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &reached {
        let (purl_of, package) = (purl(id)?, &packages[id]);
        let mut component = json!({
            "type": "library",
            "bom-ref": purl_of,
            "name": package["name"],
            "version": package["version"],
            "purl": purl_of,
        });
        if let Some(licence) = package["license"].as_str() {
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        if let Some(place) = package["repository"].as_str() {
            component["externalReferences"] = json!([{ "type": "vcs", "url": place }]);
        }
        components.push(component);
        let mut needs = nodes
            .get(id)
            .into_iter()
            .flatten()
            .filter(|other| reached.contains(*other))
            .map(purl)
            .collect::<Result<Vec<String>>>()?;
        needs.sort();
        needs.dedup();
        dependencies.push(json!({ "ref": purl(id)?, "dependsOn": needs }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "dtn-appliance",
                "name": "dtn-appliance",
                "version": version,
                "licenses": [{ "expression": "Apache-2.0" }],
            }
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_need_is_listed_and_what_tests_need_is_not() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "repository": null });
        let needs =
            |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("dtnd"), package("used"), package("dev"), package("other")],
            "resolve": { "nodes": [
                { "id": "dtnd", "deps": [needs("used", Value::Null), needs("dev", json!("dev"))] },
                { "id": "used", "deps": [] },
            ]},
        });
        let made = cyclonedx(&metadata, "2").unwrap();
        let names: Vec<&str> = made["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["dtnd", "used"]);
        assert_eq!(
            made["components"][1]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(
            made["dependencies"][0]["dependsOn"],
            json!(["pkg:cargo/used@1.0.0"])
        );
        assert!(cyclonedx(&json!({}), "2").is_err());
    }
}
