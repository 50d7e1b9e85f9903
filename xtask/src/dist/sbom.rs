//! The list of dependencies, in SPDX 2.3 format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Context, VERSION, metadata};
use crate::{Result, root};

/// Products for users.
const PRODUCTS: [&str; 3] = ["peersock-cli", "peersock-ffi", "peersock-python"];

/// Parts that products include although cargo sees no dependency on them.
const INCLUDED: [(&str, &str); 1] = [("peersock-cli", "peersock-preload")];

/// Writes the list of all packages linked into the products.
pub(super) fn write(context: &Context) -> Result<PathBuf> {
    let metadata = metadata(&context.triple)?;
    let lock: toml::Table = toml::from_str(&fs::read_to_string(root().join("Cargo.lock"))?)?;
    let created = Command::new("date")
        .args(["--utc", "--date", &format!("@{}", context.time), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()?;
    let list = list(&metadata, &checksums(&lock), String::from_utf8(created.stdout)?.trim())
        .ok_or("cargo metadata: unknown form")?;
    let path = context.out.join(format!("peersock-{VERSION}.spdx.json"));
    fs::write(&path, format!("{list:#}\n"))?;
    Ok(path)
}

/// Returns the digests in the lock file, by name and version.
fn checksums(lock: &toml::Table) -> BTreeMap<(String, String), String> {
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    packages
        .filter_map(|package| {
            Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?))
        })
        .collect()
}

fn list(metadata: &Value, checksums: &BTreeMap<(String, String), String>, created: &str) -> Option<Value> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()?
        .iter()
        .map(|package| Some((package["id"].as_str()?, package)))
        .collect::<Option<_>>()?;
    let id_of = |name: &str| packages.iter().find(|(_, package)| package["name"] == name).map(|(id, _)| *id);
    let mut edges: BTreeSet<(&str, &str)> = BTreeSet::new();
    for node in metadata["resolve"]["nodes"].as_array()? {
        for dependency in node["deps"].as_array()? {
            // Dependencies of tests and build scripts are not in the products.
            if dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"].is_null()) {
                edges.insert((node["id"].as_str()?, dependency["pkg"].as_str()?));
            }
        }
    }
    for (product, part) in INCLUDED {
        edges.extend(id_of(product).zip(id_of(part)));
    }
    let products: Vec<&str> = PRODUCTS.iter().map(|name| id_of(name)).collect::<Option<_>>()?;
    let mut found: BTreeSet<&str> = products.iter().copied().collect();
    let mut left = products.clone();
    while let Some(id) = left.pop() {
        left.extend(
            edges.iter().filter(|(from, _)| *from == id).map(|(_, to)| *to).filter(|to| found.insert(to)),
        );
    }
    let describe = |id: &&str| {
        let package = packages.get(id)?;
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        let mut entry = json!({
            "SPDXID": identifier(package)?,
            "name": name,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            // Old packages say MIT/Apache-2.0.
            "licenseDeclared": package["license"].as_str().unwrap_or("NOASSERTION").replace('/', " OR "),
            "copyrightText": "NOASSERTION",
        });
        if !package["source"].is_null() {
            entry["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:cargo/{name}@{version}"),
            }]);
        }
        if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            entry["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": checksum}]);
        }
        Some(entry)
    };
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut relations: Vec<Value> = products
        .iter()
        .map(|id| Some(relation("SPDXRef-DOCUMENT", "DESCRIBES", &identifier(packages.get(id)?)?)))
        .collect::<Option<_>>()?;
    for (from, to) in edges.iter().filter(|(from, _)| found.contains(from)) {
        let (from, to) = (identifier(packages.get(from)?)?, identifier(packages.get(to)?)?);
        relations.push(relation(&from, "DEPENDS_ON", &to));
    }
    Some(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("peersock-{VERSION}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/peersock-{VERSION}-{created}"),
        "creationInfo": {"created": created, "creators": [format!("Tool: xtask-{VERSION}")]},
        "packages": found.iter().map(describe).collect::<Option<Vec<_>>>()?,
        "relationships": relations,
    }))
}

/// Makes an SPDX identifier. SPDX allows letters, digits, full stops and hyphens.
fn identifier(package: &Value) -> Option<String> {
    let text = format!("SPDXRef-{}-{}", package["name"].as_str()?, package["version"].as_str()?);
    Some(text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_builds_or_tests_it_is_not() {
        let package =
            |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let names =
            ["peersock-cli", "peersock-ffi", "peersock-python", "peersock-preload", "used_one", "tester"];
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": names.map(package),
            "resolve": {"nodes": [
                {"id": "peersock-cli", "deps": [dependency("used_one", Value::Null), dependency("tester", "dev".into())]},
                {"id": "tester", "deps": []},
            ]},
        });
        let sums = BTreeMap::from([(("used_one".to_owned(), "1.0.0".to_owned()), "abc".to_owned())]);
        let list = list(&metadata, &sums, "1970-01-01T00:00:00Z").expect("it has the form");
        let listed: Vec<_> =
            list["packages"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(
            listed,
            ["peersock-cli", "peersock-ffi", "peersock-preload", "peersock-python", "used_one"]
        );
        assert_eq!(list["packages"][4]["SPDXID"], "SPDXRef-used-one-1.0.0");
        assert_eq!(list["packages"][4]["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(list["packages"][4]["checksums"][0]["checksumValue"], "abc");
        assert_eq!(list["relationships"].as_array().unwrap().len(), 3 + 2);
    }
}
