//! Datagrams and trains to many destinations in one system call: sendmmsg(2). Neither `quinn-udp` nor
//! `rustix` has what a train needs. The only place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use quinn_udp::EcnCodepoint;
use socket2::SockAddr;

/// Limit of messages per call.
pub(super) const MAX_MESSAGES: usize = 64;

/// Data for one destination: a datagram, or a train.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) to: SocketAddr,
    /// Local source address, if the socket has several.
    pub(super) from: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    /// Size in bytes of each datagram of a train, the last one may be shorter; `None` for one datagram.
    pub(super) segment: Option<u16>,
    /// Bytes of the message, in order.
    pub(super) pieces: &'a [IoSlice<'a>],
}

/// Sends at most [`MAX_MESSAGES`] messages, and returns how many of them, from the first on, the system has
/// taken. An error is about the first one.
pub(super) fn send_messages(socket: BorrowedFd<'_>, messages: &[Message<'_>]) -> io::Result<usize> {
    let messages = &messages[..messages.len().min(MAX_MESSAGES)];
    let addresses: Vec<SockAddr> = messages.iter().map(|message| message.to.into()).collect();
    let mut controls = vec![Control([0; CONTROL]); messages.len()];
    let parts = messages.iter().zip(&addresses).zip(&mut controls);
    let mut headers: Vec<_> =
        parts.map(|((message, address), control)| header(message, address, control)).collect();
    loop {
        // SAFETY: the headers point to addresses, buffers and control messages that live until the call has
        // returned, with their lengths; the kernel writes to the headers' `msg_len` alone.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as libc::c_uint, 0)
        };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(sent),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if is_refused(&error) => return send_first(socket, &headers),
                error => return Err(error),
            },
        }
    }
}

/// Returns true if a sandbox may have refused the call itself. A firewall causes the same error for a
/// datagram.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}

/// Sends the first message alone, by a call that sandboxes allow.
fn send_first(socket: BorrowedFd<'_>, headers: &[libc::mmsghdr]) -> io::Result<usize> {
    let Some(first) = headers.first() else { return Ok(0) };
    // SAFETY: as above.
    match unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const first.msg_hdr, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(1),
    }
}

/// Buffer for the control messages of one message, aligned as their headers are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the macro only calculates.
const CONTROL: usize = unsafe {
    libc::CMSG_SPACE(size_of::<libc::c_int>() as _)
        + libc::CMSG_SPACE(size_of::<u16>() as _)
        + libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as _)
} as usize;

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

fn header(message: &Message<'_>, address: &SockAddr, control: &mut Control) -> libc::mmsghdr {
    // SAFETY: a header of zeros is valid: without address, buffers and control messages.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    let filled = &mut header.msg_hdr;
    filled.msg_name = address.as_ptr().cast_mut().cast();
    filled.msg_namelen = address.len();
    // An `IoSlice` is an iovec on Unix.
    filled.msg_iov = message.pieces.as_ptr().cast_mut().cast();
    filled.msg_iovlen = message.pieces.len() as _;
    let mut used = 0;
    if let Some(ecn) = message.ecn {
        let (level, kind) = match message.to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = control.add(used, level, kind, ecn as libc::c_int);
    }
    if let Some(segment) = message.segment {
        used = control.add(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    match message.from {
        Some(IpAddr::V4(ip)) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
            let none = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: none };
            used = control.add(used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let address = libc::in6_addr { s6_addr: ip.octets() };
            let info = libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: address };
            used = control.add(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if used > 0 {
        filled.msg_control = control.0.as_mut_ptr().cast();
        filled.msg_controllen = used as _;
    }
    header
}

impl Control {
    /// Writes a control message behind the first `used` bytes, and returns the new number of used bytes.
    fn add<T: Copy>(&mut self, used: usize, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
        // SAFETY: the macros only calculate.
        let (len, space) = unsafe {
            (libc::CMSG_LEN(size_of::<T>() as _) as usize, libc::CMSG_SPACE(size_of::<T>() as _) as usize)
        };
        let room = &mut self.0[used..used + space];
        let header = room.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the room is as long as CMSG_SPACE says, so header and value are within it; it is zeroed, so
        // the header is valid; it begins at a multiple of what CMSG_SPACE rounds to, so it is aligned.
        unsafe {
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = len as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        used + space
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

    use super::*;

    /// Receives one train: its source and mark, and the datagrams.
    fn receive(socket: &UdpSocket, state: &UdpSocketState) -> (RecvMeta, Vec<Vec<u8>>) {
        let mut memory = vec![0; 1 << 16];
        let mut metas = [RecvMeta::default()];
        socket.set_nonblocking(false).expect("it waits");
        state
            .recv(UdpSockRef::from(socket), &mut [io::IoSliceMut::new(&mut memory)], &mut metas)
            .expect("a datagram");
        let frames = memory[..metas[0].len].chunks(metas[0].stride.max(1)).map(<[u8]>::to_vec).collect();
        (metas[0], frames)
    }

    #[test]
    fn each_message_has_its_own_place_mark_segments_and_source() {
        for (any, from) in [("0.0.0.0:0", "127.0.0.5"), ("[::]:0", "::1")] {
            let (socket, from): (_, IpAddr) =
                (UdpSocket::bind(any).expect("a socket"), from.parse().unwrap());
            let ends = [(); 3].map(|()| UdpSocket::bind((from, 0)).expect("a socket"));
            let states = ends.each_ref().map(|end| UdpSocketState::new(UdpSockRef::from(end)).unwrap());
            let whole = [IoSlice::new(b"one "), IoSlice::new(b"piece"), IoSlice::new(b"s")];
            let train = [IoSlice::new(b"aaab"), IoSlice::new(b"bbcc")];
            let message = |at: usize, ecn, segment, pieces| Message {
                to: ends[at].local_addr().unwrap(),
                from: Some(from),
                ecn,
                segment,
                pieces,
            };
            let messages = [
                message(0, Some(EcnCodepoint::Ce), None, &whole[..]),
                message(1, None, Some(3), &train[..]),
                message(2, Some(EcnCodepoint::Ect0), None, &[]),
            ];
            assert_eq!(send_messages(socket.as_fd(), &messages).expect("sent"), 3);
            let [one, two, three] = [0, 1, 2].map(|at| receive(&ends[at], &states[at]));
            assert_eq!((one.0.ecn, one.1), (Some(EcnCodepoint::Ce), vec![b"one pieces".to_vec()]));
            assert_eq!(one.0.addr.ip(), from);
            let mut frames = two.1;
            while frames.len() < 3 {
                frames.extend(receive(&ends[1], &states[1]).1);
            }
            assert_eq!((two.0.ecn, frames), (None, vec![b"aaa".to_vec(), b"bbb".to_vec(), b"cc".to_vec()]));
            assert_eq!((three.0.ecn, three.0.len), (Some(EcnCodepoint::Ect0), 0));
        }
    }

    #[test]
    fn what_went_before_an_error_is_counted_and_the_error_is_about_the_first() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let end = UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().unwrap();
        let (short, long) = (vec![1; 10], vec![1; 70_000]);
        let pieces = [IoSlice::new(&short), IoSlice::new(&long)];
        let message = |pieces| Message { to: end, from: None, ecn: None, segment: None, pieces };
        let messages = [message(&pieces[..1]), message(&pieces[1..]), message(&pieces[..1])];
        assert_eq!(send_messages(socket.as_fd(), &messages).expect("one"), 1);
        let error = send_messages(socket.as_fd(), &messages[1..]).expect_err("it is too long");
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }

    /// Makes the kernel refuse a system call of the calling thread.
    fn refuse(call: libc::c_long, error: libc::c_int) {
        let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        // Loads the call's number; if equal, returns the error, otherwise allows the call.
        let mut filter = [
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 1, call as u32),
            instruction(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
            instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program is live, and as long as it says.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        assert!(refused, "{}", io::Error::last_os_error());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a filter stays with its thread")]
    fn where_a_sandbox_refuses_the_call_messages_leave_one_by_one() {
        for error in [libc::ENOSYS, libc::EPERM] {
            // The filter stays with its thread, so the test uses a separate one.
            let thread = std::thread::spawn(move || {
                refuse(libc::SYS_sendmmsg, error);
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let end = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let (one, two) = ([IoSlice::new(b"one")], [IoSlice::new(b"two")]);
                let to = end.local_addr().expect("it is bound");
                let message = |pieces| Message { to, from: None, ecn: None, segment: None, pieces };
                let messages = [message(&one[..]), message(&two[..])];
                assert_eq!(send_messages(socket.as_fd(), &messages).expect("the first"), 1);
                assert_eq!(send_messages(socket.as_fd(), &messages[1..]).expect("the second"), 1);
                let mut room = [0; 10];
                for wanted in [b"one", b"two"] {
                    assert_eq!(end.recv(&mut room).expect("a datagram"), 3);
                    assert_eq!(&room[..3], wanted);
                }
            });
            thread.join().expect("it does not panic");
        }
    }
}
