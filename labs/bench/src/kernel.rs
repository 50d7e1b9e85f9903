//! Kernel TCP and UDP as a [`Transport`].

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::SockRef;

use crate::workload::{self, Datagrams, Listener, Stream, Transport, User};

/// Congestion control of both sides. The system's default may vary; CUBIC is what most machines run.
const CONGESTION_CONTROL: &[u8] = b"cubic";

/// Transport over kernel TCP and UDP.
pub(crate) struct Kernel;

impl Transport for Kernel {
    type Stream = TcpStream;
    type Listener = TcpListener;
    type Datagrams = UdpSocket;

    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        choose_congestion_control(&SockRef::from(&stream));
        Ok(stream)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        // Accepted sockets inherit the setting.
        choose_congestion_control(&SockRef::from(&listener));
        Ok(listener)
    }

    fn bind(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind(address)
    }

    fn swallow(&self, address: SocketAddr, user: User<TcpStream>) -> io::Result<()> {
        workload::runtime()?.block_on(async {
            let listener = tokio::net::TcpListener::bind(address).await?;
            user.serve(async || listener.accept().await.map(|(stream, _)| stream)).await
        })
    }
}

/// Sets the congestion control. A kernel that lacks it, or reserves it for root, keeps its default.
fn choose_congestion_control(socket: &SockRef<'_>) {
    if let Err(e) = socket.set_tcp_congestion(CONGESTION_CONTROL) {
        eprintln!("the default congestion control stays: {e}");
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).map(|(stream, _)| stream)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

impl Stream for TcpStream {
    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        TcpStream::set_nodelay(self, on)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, timeout)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Datagrams for UdpSocket {
    fn send_to(&self, datagram: &[u8], address: SocketAddr) -> io::Result<()> {
        UdpSocket::send_to(self, datagram, address).map(drop)
    }

    fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        UdpSocket::recv_from(self, buf)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        UdpSocket::set_read_timeout(self, timeout)
    }
}
