//! Cargo subcommands that a machine may lack. They are installed into the build folder.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use super::command::{run, works};
use super::workspace::Workspace;
use crate::{Result, cargo};

/// Returns `cargo NAME …`, also if it is installed only in the build folder.
/// Fails if the search path is broken.
pub(super) fn tool(workspace: &Workspace, name: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = cargo();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([folder(workspace).join("bin")]);
    command.env("PATH", env::join_paths(folders)?);
    command.arg(name).args(arguments);
    Ok(command)
}

/// Installs `cargo-NAME` if it is missing. Returns false if there is no network, or no compiler for it.
/// Fails if Cargo cannot be started.
pub(super) fn provide(workspace: &Workspace, name: &str) -> Result<bool> {
    if works(tool(workspace, name, &["--version"])?) {
        return Ok(true);
    }
    println!("cargo-{name} is missing: installing it into the build folder");
    Ok(run(installation(workspace, name))?.0)
}

/// Returns the command that installs `cargo-NAME`.
pub(super) fn installation(workspace: &Workspace, name: &str) -> Command {
    let mut command = cargo();
    command.args(["install", "--quiet", "--locked", &format!("cargo-{name}"), "--root"]);
    command.arg(folder(workspace));
    command
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools")
}
