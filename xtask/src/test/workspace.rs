//! Cargo's view of this workspace.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::{Result, cargo};

/// The workspace's members and its build folder.
pub(super) struct Workspace {
    /// The members.
    pub(super) packages: Vec<Package>,
    /// Build folder of cargo.
    pub(super) target: PathBuf,
}

/// One member.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) manifest: PathBuf,
    /// Names of the package's ordinary dependencies, without dependencies of tests and build scripts.
    pub(super) dependencies: Vec<String>,
}

impl Workspace {
    /// Reads the workspace from cargo.
    /// Fails if a manifest is broken.
    pub(super) fn read() -> Result<Workspace> {
        let output = cargo().args(["metadata", "--format-version=1", "--no-deps"]).output()?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Self::parse(&serde_json::from_slice(&output.stdout)?)
            .ok_or_else(|| "cargo metadata: unknown form".into())
    }

    fn parse(metadata: &Value) -> Option<Workspace> {
        let packages = metadata["packages"].as_array()?.iter().map(Package::parse).collect::<Option<_>>()?;
        Some(Workspace { packages, target: metadata["target_directory"].as_str()?.into() })
    }

    /// Returns a member by its name.
    pub(super) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

/// Returns the command that builds everything but the tests, and with the tests' features.
///
/// Cargo unifies the features of all packages built together, and examples may use features enabled by the
/// tests' dependencies. Without the examples, or with one package alone, most dependencies would have other
/// features and be rebuilt.
pub(super) fn build() -> Command {
    let mut command = cargo();
    command.args(["build", "--workspace", "--lib", "--bins", "--examples"]);
    command
}

impl Package {
    fn parse(package: &Value) -> Option<Package> {
        let dependencies = package["dependencies"].as_array()?;
        let ordinary = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        Some(Package {
            name: package["name"].as_str()?.to_owned(),
            manifest: package["manifest_path"].as_str()?.into(),
            dependencies: ordinary.map(|d| d["name"].as_str().map(str::to_owned)).collect::<Option<_>>()?,
        })
    }
}
