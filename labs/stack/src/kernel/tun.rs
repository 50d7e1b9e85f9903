//! A TUN device: reads return packets that the kernel sends through it, and writes deliver packets to the
//! kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl, opcode};

/// A device that exists as long as this value.
#[derive(Debug)]
pub(crate) struct Tun(File);

/// Form of `struct ifreq` of <linux/if.h> with name and flags, which this call uses.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
// <linux/if_tun.h>
const IFF_TUN: i16 = 1;
const IFF_NO_PI: i16 = 0x1000;

impl Tun {
    /// Creates a device of this name in the thread's network namespace. Reads and writes never block.
    pub(crate) fn open(name: &str) -> io::Result<Tun> {
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
        let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the kernel reads and writes a `struct ifreq`, which is 40 bytes long on 64-bit systems and
        // no longer on others, and keeps no reference to it.
        #[expect(unsafe_code, reason = "there is no other way to name a TUN device")]
        unsafe {
            ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request))?;
        }
        Ok(Tun(file))
    }

    /// Takes the next packet that the kernel has sent, `None` if there is none.
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(buf) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Delivers a packet to the kernel. A refused packet is lost, as on any link.
    pub(crate) fn send(&self, packet: &[u8]) {
        let _ = (&self.0).write(packet);
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
