//! UPnP Internet Gateway Devices, version 1 and 2: ports of `WANIPConnection` and `WANPPPConnection`, and for
//! IPv6 pinholes of `WANIPv6FirewallControl`.

pub(super) mod description;
pub(super) mod discovery;
pub(super) mod http;
mod pinhole;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Ask, Gateway, Handle as MappingHandle, MapError, PortMapping, Protocol, Transport, is_of_use};
use description::Service;
use http::Http;

/// The description of the mapping in the router's list.
const NAME: &str = "peersock";
/// UPnP's error codes that are handled here (WANIPConnection:2, 2.5.16).
const ONLY_PERMANENT: u32 = 725;
const CONFLICTS: [u32; 3] = [718, 724, 727];
/// Number of external ports that are tried.
const MAX_EXTERNAL_PORTS: u16 = 4;

/// The origin of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handle {
    /// The router's service for ports.
    Port(Service),
    /// The router's service for its firewall, and the number of the pinhole.
    Pinhole(Service, u16),
}

/// Asks for the router's external address. With IPv6 there is none; then only checks for the service.
pub(super) fn external(gateway: &Gateway, until: Instant) -> Result<Option<IpAddr>, MapError> {
    let (http, service) = discover(gateway, until)?;
    if gateway.local.is_ipv6() {
        pinhole::is_allowed(&http, &service)?;
        return Ok(None);
    }
    // A router without a connection returns 0.0.0.0.
    Ok(outer_address(&http, &service).filter(|ip| is_of_use(*ip)))
}

pub(super) fn map(
    gateway: &Gateway,
    ask: &Ask,
    known: Option<&Handle>,
    until: Instant,
) -> Result<PortMapping, MapError> {
    let (http, service) = match known {
        Some(Handle::Pinhole(service, id)) => {
            let http = Http::new(gateway, until);
            return pinhole::renew(&http, service, *id, ask).or_else(|_| pinhole::open(&http, service, ask));
        }
        Some(Handle::Port(service)) => (Http::new(gateway, until), service.clone()),
        None => discover(gateway, until)?,
    };
    if ask.local.is_ipv6() {
        return pinhole::open(&http, &service, ask);
    }
    let mut lifetime = ask.lifetime;
    let mut refusal = refused("no port is free");
    for attempt in 0..MAX_EXTERNAL_PORTS {
        // The wanted port first, then others far from it and from each other.
        let port = ask.wanted.wrapping_add(attempt.wrapping_mul(7_919)).max(1024);
        let mut answer = add(&http, &service, ask, port, lifetime);
        if let Err(Failure::Code(ONLY_PERMANENT)) = answer {
            lifetime = 0;
            answer = add(&http, &service, ask, port, lifetime);
        }
        match answer {
            Ok(()) => {
                let ip = outer_address(&http, &service).ok_or_else(|| refused("it has no outer address"))?;
                let lifetime = match lifetime {
                    0 => Duration::MAX,
                    seconds => Duration::from_secs(seconds.into()),
                };
                let handle = MappingHandle::Upnp(Handle::Port(service));
                return ask.granted(Protocol::Upnp, SocketAddr::new(ip, port), lifetime, handle);
            }
            Err(Failure::Code(code)) if CONFLICTS.contains(&code) => {
                refusal = refused(&format!("error {code}"))
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(refusal)
}

pub(super) fn remove(
    gateway: &Gateway,
    mapping: &PortMapping,
    handle: &Handle,
    until: Instant,
) -> Result<(), MapError> {
    let http = Http::new(gateway, until);
    let service = match handle {
        Handle::Port(service) => service,
        Handle::Pinhole(service, id) => return pinhole::close(&http, service, *id),
    };
    let arguments = [
        ("NewRemoteHost", String::new()),
        ("NewExternalPort", mapping.external.port().to_string()),
        ("NewProtocol", name(mapping.transport).into()),
    ];
    call(&http, service, "DeletePortMapping", &arguments)?;
    Ok(())
}

fn discover(gateway: &Gateway, until: Instant) -> Result<(Http, Service), MapError> {
    let silent = |source| MapError::Silent { protocol: Protocol::Upnp, source };
    let http = Http::new(gateway, until);
    let service = discovery::find(gateway, &http, until).map_err(silent)?;
    Ok((http, service))
}

fn outer_address(http: &Http, service: &Service) -> Option<IpAddr> {
    let answer = call(http, service, "GetExternalIPAddress", &[]).ok()?;
    description::text_of(&answer, "NewExternalIPAddress")?.parse().ok()
}

fn add(http: &Http, service: &Service, ask: &Ask, port: u16, lifetime: u32) -> Result<(), Failure> {
    let arguments = [
        ("NewRemoteHost", String::new()),
        ("NewExternalPort", port.to_string()),
        ("NewProtocol", name(ask.transport).into()),
        ("NewInternalPort", ask.local.port().to_string()),
        ("NewInternalClient", ask.local.ip().to_string()),
        ("NewEnabled", "1".into()),
        ("NewPortMappingDescription", NAME.into()),
        ("NewLeaseDuration", lifetime.to_string()),
    ];
    call(http, service, "AddPortMapping", &arguments).map(drop)
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

/// Reasons for a failed call.
enum Failure {
    /// The router's error code.
    Code(u32),
    Io(std::io::Error),
}

impl From<Failure> for MapError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Code(code) => refused(&format!("error {code}")),
            Failure::Io(source) => MapError::Silent { protocol: Protocol::Upnp, source },
        }
    }
}

fn refused(reason: &str) -> MapError {
    MapError::Refused { protocol: Protocol::Upnp, reason: reason.into() }
}

/// Calls an action of the service by SOAP (UPnP Device Architecture, 3.2). None of the arguments contains
/// characters that need escaping in XML.
fn call(
    http: &Http,
    service: &Service,
    action: &str,
    arguments: &[(&str, String)],
) -> Result<String, Failure> {
    let kind = &service.kind;
    let arguments: String =
        arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!(
        "<?xml version=\"1.0\"?>\r\n\
         <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:{action} xmlns:u=\"{kind}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
    );
    let (status, answer) = http
        .post(service.control, &service.path, &format!("\"{kind}#{action}\""), &body)
        .map_err(Failure::Io)?;
    if status == 200 {
        return Ok(answer);
    }
    let code = description::text_of(&answer, "errorCode").and_then(|code| code.parse().ok());
    Err(Failure::Code(code.unwrap_or(status.into())))
}
