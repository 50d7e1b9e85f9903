//! Controller in the process of a root, so that one program serves a network.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use clap::Parser as _;
use peersock::RootAddress;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::oneshot;

use crate::failure::{Failure, Outcome};
use crate::managed::{ControllerArgs, serve_until};

/// Options of a root that is a controller, too.
#[derive(clap::Args)]
pub(crate) struct WithController {
    /// Also serve this managed network, given by its name or ID, as `peersock controller` does
    ///
    /// The controller's node runs in this process and uses this root, by the endpoints that others use. Its
    /// machine's state directory is $PEERSOCK_STATE or the default one; the root's identity is in another
    /// one.
    #[arg(long, value_name = "NETWORK", conflicts_with = "ephemeral")]
    controller: Option<String>,

    /// Program that decides about machines that join the network, see `peersock controller --help`
    #[arg(long, value_name = "PROGRAM", requires = "controller")]
    approve_hook: Option<PathBuf>,
}

/// Options of `peersock controller` alone.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    args: ControllerArgs,
}

/// Work that is to be done before the process ends.
pub(crate) type AtEnd = Box<dyn FnOnce() + Send>;

impl WithController {
    /// Returns true if this root is a controller, too.
    pub(crate) fn is_wanted(&self) -> bool {
        self.controller.is_some()
    }

    /// Starts the controller, whose node uses this root and shows it this token. Once it serves, it sends
    /// what is to be done at its end. Returns the failure to come if it cannot serve, or `None` if there is
    /// no controller.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn start(
        &self,
        root: &RootAddress,
        token: Option<&[u8]>,
        ends: mpsc::Sender<AtEnd>,
    ) -> Outcome<Option<oneshot::Receiver<Failure>>> {
        let Some(network) = &self.controller else { return Ok(None) };
        let mut words: Vec<OsString> = ["-n", network, "--own-node"].map(Into::into).into();
        let has_endpoints = !root.endpoints().is_empty();
        if has_endpoints {
            words.extend(["--root".into(), root.to_string().into()]);
        }
        // The root has read its file, which may be a pipe.
        let token = token.filter(|_| has_endpoints).map(in_memory).transpose()?;
        if let Some(token) = &token {
            let path = format!("/proc/self/fd/{}", token.as_raw_fd());
            words.extend(["--root-token-file".into(), path.into()]);
        }
        if let Some(program) = &self.approve_hook {
            words.extend(["--approve-hook".into(), program.into()]);
        }
        let args = Alone::try_parse_from(words).map_err(|error| {
            Failure::usage(
                format_args!("--controller: {}", error.render()),
                "give --controller the name or ID of a network with a controller here",
            )
        })?;
        let (failed, failure) = oneshot::channel();
        let serve = move || {
            let _token = token;
            let served = serve_until(&args.args, |end| {
                // Fails if the root has ended already.
                let _ = ends.send(end);
                Ok(())
            });
            if let Err(error) = served {
                let _ = failed.send(error);
            }
        };
        thread::Builder::new().name("controller".into()).spawn(serve).map_err(super::root::cannot_start)?;
        Ok(Some(failure))
    }
}

/// Returns a file with these bytes that has no name in a folder.
fn in_memory(bytes: &[u8]) -> Outcome<File> {
    let mut file = File::from(memfd_create("token", MemfdFlags::CLOEXEC)?);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    Ok(file)
}
