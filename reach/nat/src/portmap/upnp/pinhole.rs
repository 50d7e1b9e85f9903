//! Pinholes: holes in a router's firewall for IPv6 (WANIPv6FirewallControl:1).
//!
//! A router lets a node open pinholes only for itself. It compares the pinhole's address with the caller's
//! address (2.5.1 of that document), so calls leave by IPv6 from the address that becomes reachable.

use std::time::Duration;

use super::super::{Ask, Handle as MappingHandle, MapError, PortMapping, Protocol};
use super::description::{Service, text_of};
use super::http::Http;
use super::{Handle, call, refused};

/// The longest lifetime that can be requested, in seconds (2.4.7 of that document).
const MAX_LIFETIME_SECONDS: u32 = 86_400;

/// Checks that the firewall lets nodes open pinholes.
pub(super) fn is_allowed(http: &Http, service: &Service) -> Result<(), MapError> {
    let answer = call(http, service, "GetFirewallStatus", &[])?;
    match text_of(&answer, "InboundPinholeAllowed").as_deref() {
        Some("1" | "true" | "yes") => Ok(()),
        _ => Err(refused("it allows no pinholes")),
    }
}

/// Opens a pinhole to the local endpoint, for all sources.
pub(super) fn open(http: &Http, service: &Service, ask: &Ask) -> Result<PortMapping, MapError> {
    let lifetime = ask.lifetime.min(MAX_LIFETIME_SECONDS);
    let arguments = [
        ("RemoteHost", String::new()),
        // 0 means any port.
        ("RemotePort", "0".into()),
        ("InternalClient", ask.local.ip().to_string()),
        ("InternalPort", ask.local.port().to_string()),
        ("Protocol", ask.transport.number().to_string()),
        ("LeaseTime", lifetime.to_string()),
    ];
    let answer = call(http, service, "AddPinhole", &arguments)?;
    let nonsense = MapError::Nonsense { protocol: Protocol::Upnp, reason: "the pinhole has no number" };
    let id = text_of(&answer, "UniqueID").and_then(|id| id.parse().ok()).ok_or(nonsense)?;
    granted(service, id, ask, lifetime)
}

/// Extends the lifetime. Fails if the router has forgotten the pinhole.
pub(super) fn renew(http: &Http, service: &Service, id: u16, ask: &Ask) -> Result<PortMapping, MapError> {
    let lifetime = ask.lifetime.min(MAX_LIFETIME_SECONDS);
    let arguments = [("UniqueID", id.to_string()), ("NewLeaseTime", lifetime.to_string())];
    call(http, service, "UpdatePinhole", &arguments)?;
    granted(service, id, ask, lifetime)
}

pub(super) fn close(http: &Http, service: &Service, id: u16) -> Result<(), MapError> {
    call(http, service, "DeletePinhole", &[("UniqueID", id.to_string())])?;
    Ok(())
}

/// Makes the mapping. There is no NAT, so the local endpoint is reachable.
fn granted(service: &Service, id: u16, ask: &Ask, lifetime: u32) -> Result<PortMapping, MapError> {
    let handle = MappingHandle::Upnp(Handle::Pinhole(service.clone(), id));
    ask.granted(Protocol::Upnp, ask.local, Duration::from_secs(lifetime.into()), handle)
}
