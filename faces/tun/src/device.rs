//! The device: packets from the kernel go to the overlay, and packets from peers to the kernel.

use std::fmt;
use std::io::{self, IoSlice};

use peersock::device::{Device, DeviceSender, Offload};
use rustix::event::{PollFd, PollFlags, poll};
use tun_rs::SyncDevice;

use crate::header::{self, HEADER, Wanted};
use crate::udp;

/// Largest read from the kernel: its header, and 64 KiB that must still be segmented.
const MAX_READ_BYTES: usize = HEADER + 65_536;

/// Limit of packets in one turn that may wait for each other before they leave.
const MAX_PACKETS_PER_TURN: usize = 64;

/// A TUN device of the machine.
///
/// Dropping it removes the device. See the [crate's](crate) example.
pub struct Tun {
    device: SyncDevice,
    name: String,
}

impl Tun {
    pub(crate) fn new(device: SyncDevice) -> io::Result<Tun> {
        device.set_nonblocking(true)?;
        Ok(Tun { name: device.name()?, device })
    }

    /// Returns the interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the index of the interface, which routes use.
    pub(crate) fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }

    /// Sends packets from the kernel, until reading fails: with ENODEV when another program has removed the
    /// device.
    pub fn serve(&self, mut sender: DeviceSender) -> io::Error {
        let (mut buffer, mut piece) = (vec![0; MAX_READ_BYTES], Vec::new());
        loop {
            if let Err(error) = self.turn(&mut sender, &mut buffer, &mut piece) {
                return error;
            }
        }
    }

    /// Waits for packets, and sends those that are available.
    fn turn(&self, sender: &mut DeviceSender, buffer: &mut [u8], piece: &mut Vec<u8>) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.device, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for _ in 0..MAX_PACKETS_PER_TURN {
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
        // A packet that the kernel refuses is lost, as on any link.
        let _ = self.device.send_vectored(&[IoSlice::new(&header), IoSlice::new(packet)]);
    }
}

impl fmt::Debug for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tun").field("name", &self.name).finish_non_exhaustive()
    }
}
