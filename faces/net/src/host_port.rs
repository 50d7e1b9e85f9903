//! Hosts and ports combined in one text.

use std::fmt;

use crate::AddressError;

/// Splits `host:port`, `[host]:port` or `[host%zone]:port` into host and port. Either may be empty. An IPv6
/// address needs its brackets.
///
/// ```
/// use peersock_net::split_host_port;
///
/// assert_eq!(split_host_port("[fe80::1%eth0]:http"), Ok(("fe80::1%eth0", "http")));
/// assert_eq!(split_host_port(":80"), Ok(("", "80")));
/// ```
///
/// # Errors
/// There is no port, there are too many colons, or brackets are missing or out of place.
pub fn split_host_port(address: &str) -> Result<(&str, &str), AddressError> {
    let wrong = |reason: &str| Err(AddressError::new(reason, address));
    let Some((before, port)) = address.rsplit_once(':') else {
        return wrong("missing port in address");
    };
    let host = if let Some(bracketed) = address.strip_prefix('[') {
        let Some((host, rest)) = bracketed.split_once(']') else {
            return wrong("missing ']' in address");
        };
        match rest.strip_prefix(':') {
            None => return wrong("missing port in address"),
            Some(rest) if rest != port => return wrong("too many colons in address"),
            Some(_) => host,
        }
    } else if before.contains(':') {
        return wrong("too many colons in address");
    } else {
        before
    };
    for bracket in ['[', ']'] {
        if host.contains(bracket) || port.contains(bracket) {
            return wrong(&format!("unexpected '{bracket}' in address"));
        }
    }
    Ok((host, port))
}

/// Joins a host and a port for [`split_host_port`]: the host gets brackets if it contains a colon.
///
/// ```
/// use peersock_net::join_host_port;
///
/// assert_eq!(join_host_port("::1", 80), "[::1]:80");
/// assert_eq!(join_host_port("there", "http"), "there:http");
/// ```
pub fn join_host_port(host: &str, port: impl fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Parses a port number, 0 for an empty text; `None` for other texts, which may be service names.
///
/// # Errors
/// The number is out of range.
pub(crate) fn numeric_port(text: &str) -> Result<Option<u16>, AddressError> {
    if text.is_empty() {
        return Ok(Some(0));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(None);
    }
    match digits.trim_start_matches('0') {
        "" => Ok(Some(0)),
        number if !text.starts_with('-') => match number.parse() {
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(AddressError::new("invalid port", text)),
        },
        _ => Err(AddressError::new("invalid port", text)),
    }
}
