//! Server processes that are measured.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use peersock_root::server::{Listen, SecondPort, Server};

use crate::client::config;

/// Runs a root in this process, until the parent process ends it.
pub(crate) fn serve() -> io::Result<()> {
    // An interrupted measurement must not leave a server behind.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let udp = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let server = Server::bind(
            config(),
            Listen {
                udp,
                second_port: SecondPort::None,
                streams: None,
                metrics: None,
                drain: Duration::ZERO,
            },
        )
        .await?;
        println!("{}", server.udp_addresses()[0]);
        server.run(std::future::pending()).await
    })
}

/// Server process, killed on drop.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn root() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program).arg("serve").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| io::Error::other("the root did not start"))?;
        Ok(Self { child, address })
    }

    /// Starts coturn with one relay thread and without authentication; returns `None` if it is not installed.
    pub(crate) fn coturn() -> io::Result<Option<Self>> {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let options = "-n --no-auth --no-tls --no-dtls --no-tcp --no-tcp-relay --no-cli --allow-loopback-peers \
                       --listening-ip 127.0.0.1 --relay-ip 127.0.0.1 --relay-threads 1 --log-file /dev/null \
                       --no-stdout-log --pidfile /dev/null --no-software-attribute";
        let mut command = Command::new("turnserver");
        command.args(options.split_ascii_whitespace()).arg("--listening-port").arg(port.to_string());
        let child = match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let server = Self { child, address };
        let probe = crate::turn::Turn::new()?;
        let end = Instant::now() + Duration::from_secs(20);
        while probe.binding(address).is_none() {
            if Instant::now() >= end {
                return Err(io::Error::other("coturn does not answer"));
            }
        }
        Ok(Some(server))
    }

    /// Sets whether the load may continue when a datagram arrives (SCHED_BATCH), until the server gets its
    /// turn. Then datagrams queue up, as with a busy server. Without `chrt` the scheduling does not change.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        let policy = if is_busy { "--batch" } else { "--other" };
        let mut command = Command::new("chrt");
        command.args(["--all-tasks", policy, "--pid", "0"]).arg(self.child.id().to_string());
        if !command.status().is_ok_and(|status| status.success()) {
            eprintln!("the scheduling of the server stays as it is");
        }
    }

    /// Returns the processor time of all threads so far.
    pub(crate) fn processor_time(&self) -> io::Result<Duration> {
        // First field: the time that the thread was on a processor, in nanoseconds.
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Returns the private memory in bytes.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        // Without file pages, which depend on the page cache.
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("the kernel does not say it"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
