//! Lookup of members' names and addresses at the node.

use std::net::IpAddr;

use peersock_fd::{Client, Errno, Reply, Request};

/// Length of the longest name that the DNS knows, with dots (RFC 1035 3.1).
const MAX_NAME_BYTES: usize = 255;

/// Returns the addresses of the member with this name, or none if no member has it, as for literal addresses.
///
/// # Errors
/// No other resolver must be asked about the name: it would learn the name, and may know another host by it.
/// ENOENT: the name is that of a member who does not exist, as [`Client::resolve`] says. Other errors: the
/// node has not answered, so the name may be a member's. `localhost` is no such name (RFC 6761 6.3).
pub fn addresses_of(client: &Client, name: &str) -> Result<Vec<IpAddr>, Errno> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.parse::<IpAddr>().is_ok() {
        return Ok(Vec::new());
    }
    match client.resolve(name) {
        Err(_) if is_localhost(name) => Ok(Vec::new()),
        answer => answer,
    }
}

/// Returns true for the name that each machine has for itself.
pub fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

/// Returns the name of the member with this address, or `None` if no member has it.
///
/// # Errors
/// The node has not answered.
pub fn name_of(client: &Client, ip: IpAddr) -> Result<Option<String>, Errno> {
    match client.ask(Request::NameOf(ip.to_canonical()))? {
        Reply::Name(name) => Ok(name),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_answer_only_the_names_of_this_machine_are_nobodys() {
        let nowhere = format!("{:08x}:{:032x}", u32::MAX, 7);
        let client = Client::of_variable(&nowhere).expect("a variable");
        for name in ["alpha", "example.org", "localhost.example.org", "127.1"] {
            assert_eq!(addresses_of(&client, name), Err(Errno::NETDOWN), "{name}");
        }
        for name in ["", "localhost", "LocalHost", "127.0.0.1", "fd77::1", &"a".repeat(256)] {
            assert_eq!(addresses_of(&client, name), Ok(Vec::new()), "{name}");
        }
        assert_eq!(name_of(&client, "10.77.0.1".parse().expect("an address")), Err(Errno::NETDOWN));
    }
}
