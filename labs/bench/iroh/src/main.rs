//! The load program `peersock-bench` over iroh: the same workloads and the same output, on the streams of one
//! connection. `cargo xtask bench rivals` builds and runs it.
//!
//! Peers know each other's addresses, so there is no relay and no look-up. Windows and all other settings are
//! iroh's defaults.
#![allow(clippy::print_stdout, reason = "a program whose results go to standard output")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use iroh::endpoint::{Connection, RecvStream, SendStream, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, SecretKey};

#[path = "../../src/report.rs"]
#[allow(dead_code, reason = "some of it is for workloads that only peersock-bench has")]
mod report;
#[path = "../../src/role.rs"]
mod role;
#[path = "../../src/quic/streams.rs"]
mod streams;
#[path = "../../src/usage.rs"]
#[allow(dead_code, reason = "some of it is for workloads that only peersock-bench has")]
mod usage;
#[path = "../../src/workload/mod.rs"]
#[allow(dead_code, unused_imports, reason = "of the workloads over sockets only the numbers are used")]
mod workload;

use role::Role;
use workload::Workload;

const ALPN: &[u8] = b"peersock-bench";
/// Keys of the server and of the client. They are not secret, because this only measures.
const SERVER_KEY: [u8; 32] = [1; 32];
const CLIENT_KEY: [u8; 32] = [2; 32];

/// Loads the network over iroh and measures it.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[tokio::main]
async fn main() -> ExitCode {
    role::follow_parent();
    let played = match Cli::parse().role {
        Role::Serve { address } => serve(address).await,
        Role::Client { address, workload } => client(address, &workload).await,
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peersock-bench-iroh: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended.
async fn serve(address: SocketAddr) -> io::Result<()> {
    let endpoint = endpoint(SERVER_KEY, address).await?;
    let bound = endpoint.bound_sockets().into_iter().next();
    report::print_ready(bound.ok_or_else(|| io::Error::other("the endpoint has no socket"))?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                streams::serve(&connection).await;
            }
        });
    }
    Ok(())
}

/// Runs a workload over one connection.
async fn client(address: SocketAddr, workload: &Workload) -> io::Result<()> {
    let endpoint = endpoint(CLIENT_KEY, (Ipv4Addr::UNSPECIFIED, 0).into()).await?;
    let server = EndpointAddr::new(SecretKey::from_bytes(&SERVER_KEY).public()).with_ip_addr(address);
    let connection = endpoint.connect(server, ALPN).await.map_err(io::Error::other)?;
    streams::run(&connection, workload).await?.print()?;
    connection.close(0_u32.into(), b"");
    endpoint.close().await;
    Ok(())
}

async fn endpoint(key: [u8; 32], address: SocketAddr) -> io::Result<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&key))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .clear_ip_transports()
        .bind_addr(address)
        .map_err(io::Error::other)?;
    builder.bind().await.map_err(io::Error::other)
}
