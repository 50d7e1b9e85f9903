//! Index of a network's interface for applications, as if_nametoindex(3) returns it.
//!
//! A node counts its networks from 1. The machine also counts its interfaces from 1, and a program may see
//! both at once. So the indices of networks begin beyond any index of the machine. Then an index alone tells
//! which side it belongs to, in `ipv6_mreq` or `in6_pktinfo` for example.

/// Offset added to a network's number.
const FIRST_INDEX: u32 = 1 << 24;

/// Returns the interface index of a network, whose numbers begin at 1. 0 stays 0, which means any.
pub const fn interface_index(number: u16) -> u32 {
    if number == 0 { 0 } else { FIRST_INDEX + number as u32 }
}

/// Returns the number of the network that an index refers to, 0 for any. Returns `None` for indices of the
/// machine's interfaces.
pub fn network_of_index(index: u32) -> Option<u16> {
    if index == 0 {
        return Some(0);
    }
    index.checked_sub(FIRST_INDEX).and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_stands_for_one_network_or_for_none() {
        for number in [0, 1, 2, 300, u16::MAX] {
            assert_eq!(network_of_index(interface_index(number)), Some(number));
        }
        for machines in [1, 2, 70_000, FIRST_INDEX, FIRST_INDEX + 65_536, u32::MAX] {
            assert_eq!(network_of_index(machines), None);
        }
        assert!(i32::try_from(interface_index(u16::MAX)).is_ok(), "it fits an int");
    }
}
