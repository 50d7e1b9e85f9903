//! Parsers of a device's description, and of routers' other XML.

use std::net::SocketAddr;

use roxmltree::{Document, Node};

use super::http::Url;

/// The services that map ports, the best first.
const KINDS: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The service that opens a firewall for IPv6.
const FIREWALL: [&str; 1] = ["urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"];

/// A service of the router that maps ports, or opens its firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::portmap) struct Service {
    /// The URN of the service.
    pub(super) kind: String,
    /// The address for calls.
    pub(in crate::portmap) control: SocketAddr,
    pub(in crate::portmap) path: String,
}

/// Returns the best service for ports in the description that was fetched from `base`.
pub(in crate::portmap) fn port_service(xml: &str, base: &Url) -> Option<Service> {
    service_of(xml, base, &KINDS)
}

/// Returns the service for the firewall, if there is one.
pub(in crate::portmap) fn firewall_service(xml: &str, base: &Url) -> Option<Service> {
    service_of(xml, base, &FIREWALL)
}

fn service_of(xml: &str, base: &Url, kinds: &[&str]) -> Option<Service> {
    let document = Document::parse(xml).ok()?;
    let services = || document.descendants().filter(|node| node.tag_name().name() == "service");
    kinds.iter().find_map(|kind| {
        let service = services().find(|service| child(*service, "serviceType") == Some(kind))?;
        let url = base.join(child(service, "controlURL")?)?;
        Some(Service { kind: (*kind).to_owned(), control: url.at, path: url.path })
    })
}

/// Returns the text of the first element of that name.
pub(in crate::portmap) fn text_of(xml: &str, name: &str) -> Option<String> {
    let document = Document::parse(xml).ok()?;
    let element = document.descendants().find(|node| node.tag_name().name() == name)?;
    Some(element.text().unwrap_or_default().trim().to_owned())
}

fn child<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let element = node.children().find(|node| node.tag_name().name() == name)?;
    element.text().map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn description(services: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">\
             <device><deviceList><device><serviceList>{services}</serviceList>\
             </device></deviceList></device></root>"
        )
    }

    fn service(kind: &str, url: &str) -> String {
        format!(
            "<service><serviceType>urn:schemas-upnp-org:service:{kind}</serviceType>\
             <controlURL>{url}</controlURL></service>"
        )
    }

    fn base() -> Url {
        Url::parse("http://192.168.1.1:5000/dir/root.xml").expect("a URL")
    }

    #[test]
    fn the_best_service_is_taken() {
        let both = service("WANIPConnection:1", "/one") + &service("WANIPConnection:2", "/two");
        let found = port_service(&description(&both), &base()).expect("there is one");
        assert_eq!((found.path.as_str(), found.control.to_string()), ("/two", "192.168.1.1:5000".into()));
        let other = description(&service("Layer3Forwarding:1", "/three"));
        assert_eq!(port_service(&other, &base()), None);
    }

    #[test]
    fn the_firewall_is_another_service_than_that_for_ports() {
        let both = service("WANIPConnection:2", "/ports") + &service("WANIPv6FirewallControl:1", "/6fc");
        let path = |found: Option<Service>| found.map(|found| found.path);
        assert_eq!(path(firewall_service(&description(&both), &base())), Some("/6fc".into()));
        assert_eq!(path(port_service(&description(&both), &base())), Some("/ports".into()));
        assert_eq!(firewall_service(&description(&service("WANIPConnection:2", "/ports")), &base()), None);
    }

    #[test]
    fn a_link_local_device_keeps_its_interface() {
        let base = Url::parse("http://[fe80::1%7]:5000/root.xml").expect("a URL");
        for url in ["/ctl", "http://[fe80::1]:5000/ctl"] {
            let found = firewall_service(&description(&service("WANIPv6FirewallControl:1", url)), &base);
            assert_eq!(found.expect("it is the device itself").control, base.at);
        }
    }

    #[test]
    fn calls_go_to_the_device_itself_only() {
        let at = |url| {
            port_service(&description(&service("WANIPConnection:1", url)), &base()).map(|found| found.path)
        };
        assert_eq!(at("ctl"), Some("/dir/ctl".into()));
        assert_eq!(at("http://192.168.1.1:5000/ctl"), Some("/ctl".into()));
        assert_eq!(at("http://192.168.1.9:5000/ctl"), None);
        assert_eq!(at("/a b"), None);
        assert_eq!(at("/a\r\nHost: evil"), None);
    }

    #[test]
    fn entities_are_refused_as_they_could_fill_the_memory() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\">]><errorCode>&b;&b;</errorCode>";
        assert_eq!(text_of(bomb, "errorCode"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = text_of(&text, "errorCode");
            let _ = port_service(&description(&text), &base());
            let _ = port_service(&description(&service("WANIPConnection:1", &text)), &base());
        }
    }
}
