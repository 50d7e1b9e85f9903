//! Checks the rules of `deny.toml` for dependencies: licences, sources, and unwanted packages.
//!
//! The check uses cargo's metadata and runs on every machine. It also checks that our packages name no web
//! address, because the project has none. Advisories about vulnerabilities are in a database on the Internet.
//! If that is reachable, cargo-deny checks them.

use std::fs;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use super::command::{check as check_command, works};
use super::outcome::Outcome;
use super::tools::{provide, tool};
use super::workspace::Workspace;
use crate::{Result, cargo, root};

/// The workspaces, each with a separate lock file.
const MANIFESTS: [&str; 3] = ["Cargo.toml", "examples/grpc/Cargo.toml", "fuzz/Cargo.toml"];

/// Permitted source of packages.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The database that cargo-deny fetches by default.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";

/// The part of `deny.toml` that is checked here.
#[derive(Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    package: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    package: String,
}

/// Runs the checks.
/// Fails if `deny.toml` cannot be parsed.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let rules: Rules = toml::from_str(&fs::read_to_string(root().join("deny.toml"))?)?;
    let mut outcome = Outcome::default();
    for manifest in MANIFESTS {
        let mut command = cargo();
        command.args([
            "metadata",
            "--format-version=1",
            "--all-features",
            "--locked",
            "--manifest-path",
            manifest,
        ]);
        let output = command.output()?;
        if !output.status.success() {
            print!("{}", String::from_utf8_lossy(&output.stderr));
            outcome.add(Outcome::failed(format!("{manifest}: its lock file is not current")));
            continue;
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
        let complaints: Vec<_> = packages.iter().flat_map(|package| complaints(&rules, package)).collect();
        println!("{manifest}: {} packages", packages.len());
        for complaint in &complaints {
            println!("{complaint}");
        }
        outcome.add(Outcome::of_complaints(complaints));
    }
    let python: toml::Table =
        toml::from_str(&fs::read_to_string(root().join("bindings/python/pyproject.toml"))?)?;
    outcome.add(match python["project"].get("urls") {
        None => Outcome::passed(),
        Some(urls) => {
            Outcome::failed(format!("bindings/python/pyproject.toml: addresses that do not exist: {urls}"))
        }
    });
    outcome.add(advisories(workspace)?);
    Ok(outcome)
}

/// Returns a package's violations, from cargo's description.
fn complaints(rules: &Rules, package: &Value) -> Vec<String> {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let (name, version) = (text("name"), text("version"));
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(format!("{name} {version}: {what}"));
    let exceptions = rules.licenses.exceptions.iter().filter(|exception| exception.package == name);
    let allowed = rules.licenses.allow.iter().chain(exceptions.flat_map(|exception| &exception.allow));
    match is_allowed(text("license"), allowed) {
        Ok(true) => {}
        Ok(false) => complain(format!("the licence {} is not allowed", text("license"))),
        Err(_) => complain(format!("its licence cannot be told: '{}'", text("license"))),
    }
    if rules.bans.deny.iter().any(|banned| banned.package == name) {
        complain("is not wanted".to_owned());
    }
    // A package without a source is local.
    if !matches!(text("source"), "" | REGISTRY) {
        complain(format!("comes from {}", text("source")));
    }
    if text("source").is_empty() {
        // The project has no page yet, and an address must not lead users to a stranger.
        for key in ["homepage", "repository", "documentation"] {
            if let Some(address) = package[key].as_str() {
                complain(format!("its {key} is {address}, which does not exist"));
            }
        }
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|dependency| dependency["path"].is_null()) {
            if dependency["req"] == "*" {
                complain(format!("takes any version of {}", dependency["name"]));
            }
        }
    }
    complaints
}

fn is_allowed<'a>(licence: &str, allowed: impl Iterator<Item = &'a String>) -> Result<bool> {
    // Old packages say MIT/Apache-2.0.
    let expression = Expression::parse_mode(licence, ParseMode::LAX)?;
    let allowed: Vec<Licensee> =
        allowed.map(|text| Licensee::parse(text)).collect::<std::result::Result<_, _>>()?;
    Ok(expression.evaluate(|wanted: &LicenseReq| allowed.iter().any(|licence| licence.satisfies(wanted))))
}

fn advisories(workspace: &Workspace) -> Result<Outcome> {
    let mut reach = Command::new("timeout");
    reach.args(["20", "git", "ls-remote", "--quiet", "--exit-code", ADVISORIES, "HEAD"]);
    reach.env("GIT_TERMINAL_PROMPT", "0");
    if !works(reach) {
        return Ok(Outcome::skipped("advisories", format!("the database cannot be reached: {ADVISORIES}")));
    }
    if !provide(workspace, "deny")? {
        return Ok(Outcome::skipped("advisories", "cargo-deny is neither installed nor installable here"));
    }
    check_command("cargo deny check advisories", tool(workspace, "deny", &["check", "advisories"])?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaints_about(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let rules = r#"
            [licenses]
            allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
            exceptions = [{ crate = "odd", allow = ["MPL-2.0"] }]
            [bans]
            deny = [{ crate = "bad" }]"#;
        let mut package =
            json!({"name": "good", "version": "1.0.0", "license": "MIT OR GPL-3.0", "source": REGISTRY});
        change(&mut package);
        complaints(&toml::from_str(rules).unwrap(), &package)
    }

    #[test]
    fn packages_are_good_or_the_reason_is_told() {
        let none: [String; 0] = [];
        assert_eq!(complaints_about(|_| ()), none);
        assert_eq!(complaints_about(|package| package["license"] = "Apache-2.0/MIT".into()), none);
        assert_eq!(
            complaints_about(|package| package["license"] = "Apache-2.0 WITH LLVM-exception".into()),
            none
        );
        let complaint = |change: fn(&mut Value)| complaints_about(change).join("; ");
        assert_eq!(
            complaint(|p| p["license"] = "MPL-2.0".into()),
            "good 1.0.0: the licence MPL-2.0 is not allowed"
        );
        assert!(complaint(|p| p["license"] = "MIT AND GPL-3.0".into()).contains("not allowed"));
        assert!(complaint(|p| p["license"] = Value::Null).contains("cannot be told"));
        assert!(complaint(|p| p["name"] = "bad".into()).contains("not wanted"));
        assert!(complaint(|p| p["source"] = "git+ssh://somewhere".into()).contains("comes from git"));
        let homeless = complaint(|p| {
            p["source"] = Value::Null;
            p["repository"] = "https://example.org/x".into();
        });
        assert!(homeless.contains("repository is https://example.org/x"), "{homeless}");
        assert_eq!(complaints_about(|p| p["repository"] = "https://example.org/x".into()), none);
        let odd = complaints_about(|package| {
            package["name"] = "odd".into();
            package["license"] = "MPL-2.0".into();
        });
        assert_eq!(odd, none);
        let wild = complaint(|p| {
            p["source"] = Value::Null;
            p["dependencies"] = json!([{"name": "x", "req": "*"}, {"name": "y", "req": "*", "path": "/y"}]);
        });
        assert!(wild.contains("any version of \"x\"") && !wild.contains("\"y\""), "{wild}");
    }
}
