//! Ancillary data of received datagrams: control messages (RFC 3542, ip(7), ipv6(7)).

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ptr;

use libc::{c_int, c_uint, cmsghdr, in_pktinfo, in6_pktinfo, msghdr, timespec, timeval};
use peersock_fd::{Details, Family, Header, PacketInfo, Report, Timestamp, interface_index};

use crate::sockaddr::write_to;

/// Number of `struct ip6_mtuinfo`, which libc does not name (RFC 3542 6.3).
const IPV6_PATHMTU: c_int = 61;

/// Length of a control message's header with the padding before its data, bytes.
pub(crate) const HEADER: usize = {
    // SAFETY: it only computes.
    (unsafe { libc::CMSG_LEN(0) }) as usize
};

/// Writer of the control buffer of a message that receives.
pub(crate) struct ControlBuffer<'a> {
    message: &'a mut msghdr,
    room: usize,
    used: usize,
}

impl<'a> ControlBuffer<'a> {
    /// # Safety
    /// The message's control buffer is valid, or its pointer null.
    pub(crate) unsafe fn new(message: &'a mut msghdr) -> Self {
        let room = if message.msg_control.is_null() { 0 } else { length(message.msg_controllen) };
        message.msg_controllen = 0;
        Self { message, room, used: 0 }
    }

    /// Writes the details of a datagram from `remote`.
    pub(crate) fn put_details(&mut self, family: Family, remote: Option<SocketAddr>, details: &Details) {
        if let (Some(mtu), Some(remote)) = (details.path_mtu, remote) {
            return self.put_path_mtu(remote.ip(), mtu);
        }
        // IPv4's own options apply to datagrams that came over IPv4, also on IPv6 sockets.
        let is_v4 = remote.is_none_or(|remote| remote.ip().to_canonical().is_ipv4());
        match (family, details.packet_info) {
            (_, None) => {}
            (Family::V4, Some(PacketInfo { local: IpAddr::V4(local), interface })) => {
                let own = if local.is_multicast() { Ipv4Addr::UNSPECIFIED } else { local };
                let address = |ip: Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = in_pktinfo {
                    ipi_ifindex: interface_index(interface) as c_int,
                    ipi_spec_dst: address(own),
                    ipi_addr: address(local),
                };
                self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (_, Some(PacketInfo { local, interface })) => {
                let octets = match local {
                    IpAddr::V4(local) => local.to_ipv6_mapped().octets(),
                    IpAddr::V6(local) => local.octets(),
                };
                let info = in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: octets },
                    ipi6_ifindex: interface_index(interface) as _,
                };
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
        if let Some(hops) = details.hop_limit {
            let hops = c_int::from(hops);
            match is_v4 {
                true => self.put(libc::IPPROTO_IP, libc::IP_TTL, &hops),
                false => self.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops),
            }
        }
        if let Some(class) = details.traffic_class {
            match is_v4 {
                // Linux returns it as a single byte.
                true => self.put(libc::IPPROTO_IP, libc::IP_TOS, &class),
                false => self.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &c_int::from(class)),
            }
        }
    }

    /// Writes IPV6_HOPOPTS, IPV6_DSTOPTS, IPV6_RTHDR.
    pub(crate) fn put_headers(&mut self, headers: &[Header]) {
        for Header { kind, bytes } in headers {
            // SAFETY: that many bytes are there.
            unsafe { self.put_raw(libc::IPPROTO_IPV6, kind.option(), bytes.as_ptr(), bytes.len()) }
        }
    }

    /// Writes the time of SO_TIMESTAMP or SO_TIMESTAMPNS.
    pub(crate) fn put_timestamp(&mut self, timestamp: Timestamp) {
        let (seconds, nanoseconds) = (timestamp.time.as_secs(), timestamp.time.subsec_nanos());
        match timestamp.is_precise {
            true => {
                let time = timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
                self.put(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time);
            }
            false => {
                let time = timeval { tv_sec: seconds as _, tv_usec: (nanoseconds / 1000) as _ };
                self.put(libc::SOL_SOCKET, libc::SCM_TIMESTAMP, &time);
            }
        }
    }

    /// Writes IPV6_PATHMTU: `ip6_mtuinfo`, the destination and the MTU (RFC 3542 11.3).
    fn put_path_mtu(&mut self, destination: IpAddr, mtu: u32) {
        #[repr(C)]
        struct MtuInfo {
            address: libc::sockaddr_in6,
            mtu: u32,
        }
        // SAFETY: zeros are valid for both.
        let mut info: MtuInfo = unsafe { zeroed() };
        let room = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        // SAFETY: that much room is there.
        unsafe { write_to(SocketAddr::new(destination, 0), (&raw mut info.address).cast(), room) };
        info.mtu = mtu;
        self.put(libc::IPPROTO_IPV6, IPV6_PATHMTU, &info);
    }

    /// Writes a datagram's error: `sock_extended_err`, and the address of the host that reports it.
    pub(crate) fn put_report(&mut self, family: Family, report: &Report) {
        #[repr(C)]
        struct Extended {
            error: libc::sock_extended_err,
            offender: libc::sockaddr_in6,
        }
        // SAFETY: zeros are valid for both.
        let mut value: Extended = unsafe { zeroed() };
        value.error = libc::sock_extended_err {
            ee_errno: report.errno as u32,
            ee_origin: report.origin,
            ee_type: report.kind,
            ee_code: report.code,
            ee_pad: 0,
            ee_info: report.info,
            ee_data: 0,
        };
        if let Some(offender) = report.offender {
            let offender = match (family, offender) {
                (Family::V6, IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
                (_, ip) => ip,
            };
            let room = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            // SAFETY: that much room is there.
            unsafe { write_to(SocketAddr::new(offender, 0), (&raw mut value.offender).cast(), room) };
        }
        match family {
            Family::V4 => self.put(libc::IPPROTO_IP, libc::IP_RECVERR, &value),
            Family::V6 => self.put(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &value),
        }
    }

    /// Writes one control message, truncated if there is too little room, which MSG_CTRUNC reports.
    fn put<T>(&mut self, level: c_int, kind: c_int, value: &T) {
        // SAFETY: that many bytes are there.
        unsafe { self.put_raw(level, kind, ptr::from_ref(value).cast(), size_of::<T>()) }
    }

    /// Like [`put`](Self::put).
    ///
    /// # Safety
    /// There are `length` bytes at `value`.
    unsafe fn put_raw(&mut self, level: c_int, kind: c_int, value: *const u8, length: usize) {
        let left = self.room - self.used;
        if left < HEADER {
            self.message.msg_flags |= libc::MSG_CTRUNC;
            return;
        }
        let fits = length.min(left - HEADER);
        if fits < length {
            self.message.msg_flags |= libc::MSG_CTRUNC;
        }
        // SAFETY: zeros are a header.
        let mut header: cmsghdr = unsafe { zeroed() };
        (header.cmsg_level, header.cmsg_type, header.cmsg_len) = (level, kind, (HEADER + fits) as _);
        // SAFETY: `used` is within the control buffer, in which there is room for a header and `fits` bytes.
        unsafe {
            let at = self.message.msg_control.cast::<u8>().add(self.used);
            ptr::write_unaligned(at.cast(), header);
            ptr::copy_nonoverlapping(value, at.add(HEADER), fits);
        }
        // SAFETY: it only computes.
        let space = unsafe { libc::CMSG_SPACE(fits as c_uint) } as usize;
        self.used += space.min(left);
        self.message.msg_controllen = self.used as _;
    }
}

/// Converts a length whose type differs between C libraries.
pub(crate) fn length(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use peersock_fd::{Errno, HeaderKind};

    use super::*;
    use crate::sent_ancillary::{SentAncillary, read};

    /// Returns a message with a control buffer.
    fn message(control: &mut [u64]) -> msghdr {
        // SAFETY: zeros are a message.
        let mut message: msghdr = unsafe { zeroed() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(control) as _;
        message
    }

    fn details(local: &str) -> Details {
        let packet_info = Some(PacketInfo { local: local.parse().expect("an address"), interface: 3 });
        Details { packet_info, hop_limit: Some(9), traffic_class: Some(0xb8), ..Details::default() }
    }

    fn asking(details: Details) -> SentAncillary {
        SentAncillary { details: Some(details), headers: Vec::new() }
    }

    #[test]
    fn headers_come_behind_all_else_as_many_as_have_room() {
        let header = |kind, eighths: u8| Header { kind, bytes: vec![eighths - 1; 8 * usize::from(eighths)] };
        let headers = [header(HeaderKind::HopByHop, 1), header(HeaderKind::Routing, 3)];
        for (words, used, flags) in
            [(20, 40 + 24 + 40, 0), (12, 96, libc::MSG_CTRUNC), (5, 40, libc::MSG_CTRUNC)]
        {
            let mut buf = vec![0u64; words];
            let mut written = message(&mut buf);
            // SAFETY: the control buffer is there.
            let mut control = unsafe { ControlBuffer::new(&mut written) };
            let all = Details { hop_limit: None, traffic_class: None, ..details("fd00::2") };
            control.put_details(Family::V6, None, &all);
            control.put_headers(&headers);
            assert_eq!((written.msg_flags, length(written.msg_controllen)), (flags, used));
            let bytes: Vec<u8> = buf.iter().flat_map(|word| word.to_ne_bytes()).collect();
            if words == 12 {
                // As Linux: the length of a truncated header is that of the part that is there.
                assert_eq!(bytes[64..72], 32u64.to_ne_bytes());
                assert_eq!(bytes[80..96], [2; 16]);
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (family, remote, local) in [
            (Family::V4, "10.0.0.1:1", "10.0.0.2"),
            (Family::V6, "[fd00::1]:1", "fd00::2"),
            (Family::V6, "[::ffff:10.0.0.1]:1", "::ffff:10.0.0.2"),
        ] {
            let details = details(local);
            let mut buf = [0; 32];
            let mut written = message(&mut buf);
            // SAFETY: the control buffer is there.
            let mut control = unsafe { ControlBuffer::new(&mut written) };
            let remote = Some(remote.parse().expect("an address"));
            control.put_details(family, remote, &details);
            assert_eq!(written.msg_flags, 0);
            // SAFETY: as above.
            assert_eq!(unsafe { read(&written, family, remote) }, Ok(asking(details)));
        }
    }

    #[test]
    fn a_path_s_mtu_and_a_time_come_as_linux_tells_them() {
        let mut buf = [0u64; 16];
        let mut written = message(&mut buf);
        // SAFETY: the control buffer is there.
        let mut control = unsafe { ControlBuffer::new(&mut written) };
        let time = std::time::Duration::new(1_700_000_000, 123_456_789);
        control.put_timestamp(Timestamp { time, is_precise: false });
        let details = Details { path_mtu: Some(1280), ..Details::default() };
        control.put_details(Family::V6, Some("[fd00::9]:7".parse().expect("an address")), &details);
        assert_eq!((written.msg_flags, length(written.msg_controllen)), (0, 32 + 48));
        let bytes: Vec<u8> = buf.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes[HEADER..HEADER + 16], [1_700_000_000u64, 123_456].map(u64::to_ne_bytes).concat());
        let info = &bytes[32 + HEADER..];
        assert_eq!(info[..2], (libc::AF_INET6 as u16).to_ne_bytes());
        assert_eq!((info[2..4].to_vec(), info[8], info[23]), (vec![0, 0], 0xfd, 9));
        assert_eq!(info[28..32], 1280u32.to_ne_bytes());
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said_to_be() {
        let mut buf = [0; 5];
        let mut written = message(&mut buf);
        // SAFETY: the control buffer is there.
        let mut control = unsafe { ControlBuffer::new(&mut written) };
        control.put_details(Family::V6, None, &details("fd00::2"));
        assert_eq!(written.msg_flags, libc::MSG_CTRUNC);
        assert!(length(written.msg_controllen) <= 40);
        let mut none = message(&mut []);
        none.msg_control = ptr::null_mut();
        // SAFETY: null is allowed.
        let mut control = unsafe { ControlBuffer::new(&mut none) };
        control.put_details(Family::V6, None, &details("fd00::2"));
        assert_eq!((none.msg_flags, length(none.msg_controllen)), (libc::MSG_CTRUNC, 0));
    }

    #[test]
    fn values_have_the_lengths_that_linux_takes_and_other_protocols_are_ignored() {
        let seen = |family, remote: Option<&str>, level, kind, value: &[u8]| {
            let mut buf = [0u64; 8];
            for (at, byte) in value.iter().enumerate() {
                buf[2 + at / 8] |= u64::from(*byte) << (8 * (at % 8));
            }
            let (whole, kind) = (HEADER + value.len(), kind as u32);
            buf[0] = whole as u64;
            buf[1] = u64::from(level as u32) | u64::from(kind) << 32;
            let mut written = message(&mut buf);
            written.msg_controllen = whole.next_multiple_of(8) as _;
            // SAFETY: the control buffer is there.
            unsafe { read(&written, family, remote.map(|remote| remote.parse().expect("an address"))) }
        };
        let (nothing, none) = (Ok(SentAncillary::default()), Err(Errno::INVAL));
        for (level, kind, good) in [
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &[12][..]),
            (libc::IPPROTO_IP, libc::IP_TTL, &[4]),
            (libc::IPPROTO_IP, libc::IP_TOS, &[1, 4]),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[20, 21]),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &[4]),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &[4]),
        ] {
            let (family, other, remote) = match level {
                libc::IPPROTO_IP => (Family::V4, Family::V6, "[fd00::1]:1"),
                _ => (Family::V6, Family::V4, "10.0.0.1:1"),
            };
            for length in 0..22 {
                let mut value = vec![0; length];
                if length == 4 {
                    value[0] = 1;
                }
                let read = seen(family, None, level, kind, &value);
                assert_eq!(read.is_ok(), good.contains(&length), "{level} {kind} {length}");
                assert_eq!(
                    seen(other, Some(remote), level, kind, &value),
                    nothing,
                    "{level} {kind} {length}"
                );
            }
        }
        let mapped = Some("[::ffff:10.0.0.1]:1");
        let number = 300i32.to_ne_bytes();
        assert_eq!(seen(Family::V6, mapped, libc::IPPROTO_IP, libc::IP_TTL, &number), none);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let one = |level, kind, value: c_int| {
            let mut buf = [0; 4];
            let mut written = message(&mut buf);
            // SAFETY: the control buffer is there.
            let mut control = unsafe { ControlBuffer::new(&mut written) };
            control.put(level, kind, &value);
            // SAFETY: as above.
            unsafe { read(&written, Family::V6, None) }
        };
        assert_eq!(one(libc::IPPROTO_IP, libc::IP_TTL, 0), Err(Errno::INVAL));
        assert_eq!(one(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 256), Err(Errno::INVAL));
        assert_eq!(one(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, -1), Ok(SentAncillary::default()));
        assert_eq!(one(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 1), Err(Errno::INVAL));
        assert_eq!(one(libc::IPPROTO_UDP, 103, 1200), Err(Errno::INVAL));
        assert_eq!(one(libc::IPPROTO_TCP, 1, 1), Ok(SentAncillary::default()));
        let mut buf = [u64::MAX; 4];
        // SAFETY: the control buffer is there, though it holds nonsense.
        assert_eq!(unsafe { read(&message(&mut buf), Family::V6, None) }, Err(Errno::INVAL));
        let mut much = message(&mut buf);
        much.msg_controllen = usize::MAX as _;
        // SAFETY: a buffer of this length is rejected unread.
        assert_eq!(unsafe { read(&much, Family::V6, None) }, Err(Errno::NOBUFS));
    }

    #[test]
    fn a_control_buffer_need_not_be_aligned() {
        let mut buf = [0u64; 9];
        let details = details("fd00::2");
        let mut written = message(&mut buf);
        written.msg_control = written.msg_control.cast::<u8>().wrapping_add(3).cast();
        written.msg_controllen = 64 as _;
        let mut control = {
            // SAFETY: that much of the buffer is there.
            unsafe { ControlBuffer::new(&mut written) }
        };
        control.put_details(Family::V6, None, &Details { traffic_class: None, ..details });
        // SAFETY: as above.
        assert_eq!(
            // SAFETY: the message and what it points to live until the end of the test.
            unsafe { read(&written, Family::V6, None) },
            Ok(asking(Details { traffic_class: None, ..details }))
        );
    }
}
