//! The device: packets from the kernel go to the overlay, and packets from peers to the kernel.

use std::fmt;
use std::io::{self, IoSlice};

use peersock::device::{Device, DeviceSender, Offload};
use rustix::event::{PollFd, PollFlags, poll};
use tun_rs::SyncDevice;

use crate::header::{self, HEADER, Wanted};
use crate::udp;

/// The most that the kernel gives at once: its header, and 64 KiB that are still to be cut.
const LARGEST: usize = HEADER + 65_536;

/// So many packets of one turn may wait for each other before they leave.
const TURN: usize = 64;

/// A TUN device of the machine.
///
/// It exists as long as this. See the [crate's](crate) example.
pub struct Tun {
    device: SyncDevice,
    name: String,
}

impl Tun {
    pub(crate) fn new(device: SyncDevice) -> io::Result<Tun> {
        device.set_nonblocking(true)?;
        Ok(Tun { name: device.name()?, device })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the interface, by which routes name it.
    pub(crate) fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }

    /// Sends what the kernel gives, until that fails: with ENODEV when somebody has removed the device.
    pub fn serve(&self, mut sender: DeviceSender) -> io::Error {
        let (mut buffer, mut piece) = (vec![0; LARGEST], Vec::new());
        loop {
            if let Err(error) = self.turn(&mut sender, &mut buffer, &mut piece) {
                return error;
            }
        }
    }

    /// Waits for packets, and sends those that are there.
    fn turn(&self, sender: &mut DeviceSender, buffer: &mut [u8], piece: &mut Vec<u8>) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.device, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for _ in 0..TURN {
            let length = match self.device.recv(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    sender.flush();
                    return Err(error);
                }
            };
            send(sender, &mut buffer[..length], piece);
        }
        sender.flush();
        Ok(())
    }
}

fn send(sender: &mut DeviceSender, given: &mut [u8], piece: &mut Vec<u8>) {
    let Some((header, packet)) = given.split_at_mut_checked(HEADER) else { return };
    match header::read(header) {
        Some(Wanted::Packet(offload)) => sender.send(packet, &offload),
        Some(Wanted::Datagrams { payload, checksum }) => {
            let offload = Offload { checksum: Some(checksum), segments: None };
            udp::cut(packet, payload, checksum, piece, |datagram| sender.send(datagram, &offload));
        }
        None => {}
    }
}

impl Device for Tun {
    fn deliver(&self, packet: &[u8], offload: &Offload) {
        let header = header::write(packet, offload);
        // What the kernel does not take is lost, as on any link.
        let _ = self.device.send_vectored(&[IoSlice::new(&header), IoSlice::new(packet)]);
    }
}

impl fmt::Debug for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tun").field("name", &self.name).finish_non_exhaustive()
    }
}
