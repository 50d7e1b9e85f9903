//! Socket options that are remembered and told as Linux does: those that mean nothing here, or nothing that has to be asked
//! for, and those that are looked up when a listener or a connection is made.

use std::collections::BTreeMap;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use peersock_fd::Errno;

/// Level, name, and the value before it is set.
const OPTIONS: &[(i32, i32, i32)] = &[
    (SOL_SOCKET, libc::SO_BROADCAST, 0),
    (SOL_SOCKET, libc::SO_DEBUG, 0),
    (SOL_SOCKET, libc::SO_DONTROUTE, 0),
    (SOL_SOCKET, libc::SO_MARK, 0),
    (SOL_SOCKET, libc::SO_OOBINLINE, 0),
    (SOL_SOCKET, libc::SO_PRIORITY, 0),
    (SOL_SOCKET, libc::SO_REUSEPORT, 0),
    (SOL_SOCKET, libc::SO_TIMESTAMP, 0),
    (IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 0),
    (IPPROTO_IP, libc::IP_FREEBIND, 0),
    (IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
    (IPPROTO_IP, libc::IP_RECVERR, 0),
    (IPPROTO_IP, libc::IP_TOS, 0),
    (IPPROTO_IP, libc::IP_TTL, 64),
    (IPPROTO_IPV6, libc::IPV6_FREEBIND, 0),
    (IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    (IPPROTO_IPV6, libc::IPV6_RECVERR, 0),
    (IPPROTO_IPV6, libc::IPV6_TCLASS, 0),
    (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 64),
    (IPPROTO_TCP, libc::TCP_CORK, 0),
    (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 0),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 0),
    (IPPROTO_TCP, libc::TCP_LINGER2, 60),
    // RFC 9293 3.7.1: without the option of the same name.
    (IPPROTO_TCP, libc::TCP_MAXSEG, 536),
    (IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 0),
    (IPPROTO_TCP, libc::TCP_QUICKACK, 1),
    (IPPROTO_TCP, libc::TCP_SYNCNT, 6),
    (IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 0),
];

/// Those that were set.
#[derive(Debug, Clone, Default)]
pub(super) struct Inert(BTreeMap<(i32, i32), i32>);

impl Inert {
    pub(super) fn set(&mut self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        known(level, name)?;
        let value = match (level, value) {
            // ip(7): a single byte will do.
            (IPPROTO_IP, &[byte, ..]) if value.len() < 4 => byte.into(),
            _ => {
                let bytes = value.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)?;
                i32::from_ne_bytes(bytes)
            }
        };
        self.0.insert((level, name), value);
        Ok(())
    }

    pub(super) fn get(&self, level: i32, name: i32) -> Result<i32, Errno> {
        let initial = known(level, name)?;
        Ok(self.0.get(&(level, name)).copied().unwrap_or(initial))
    }
}

/// The value before it is set.
fn known(level: i32, name: i32) -> Result<i32, Errno> {
    let mut options = OPTIONS.iter();
    let found = options.find(|option| (option.0, option.1) == (level, name));
    found.map(|option| option.2).ok_or(Errno::NOPROTOOPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_told_and_what_is_unknown_refused() {
        let mut inert = Inert::default();
        assert_eq!(inert.get(IPPROTO_IP, libc::IP_TTL), Ok(64));
        inert.set(IPPROTO_IP, libc::IP_TOS, &[0x10]).expect("a byte is enough");
        inert.set(IPPROTO_TCP, libc::TCP_CORK, &1_i32.to_ne_bytes()).expect("an int");
        assert_eq!(inert.get(IPPROTO_IP, libc::IP_TOS), Ok(0x10));
        assert_eq!(inert.get(IPPROTO_TCP, libc::TCP_CORK), Ok(1));
        assert_eq!(inert.set(IPPROTO_TCP, libc::TCP_CORK, &[1]), Err(Errno::INVAL));
        assert_eq!(inert.get(IPPROTO_TCP, libc::TCP_ULP), Err(Errno::NOPROTOOPT));
    }
}
