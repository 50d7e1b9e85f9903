//! Extension headers as socket options: headers of all sent datagrams, and headers of received ones that the
//! socket wants to see (RFC 3542 sections 6 to 9).

use peersock_fd::{Errno, Header, HeaderKind};
use peersock_stack::{ExtensionHeaders, HeaderParts, ReceivedHeaders};

/// The longest value that Linux accepts, bytes.
const MAX_VALUE_BYTES: usize = 8 * 255;
/// Segment routing (RFC 8754): the one type for which Linux requires that the value is no longer than the
/// header.
const SEGMENT_ROUTING: u8 = 4;

/// Protocol numbers of received headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// The headers of a socket's datagrams that do not bring their own.
#[derive(Debug, Clone, Default)]
pub(super) struct StickyHeaders {
    /// In the order of [`HeaderKind::ALL`].
    parts: [Option<Vec<u8>>; 4],
    made: Option<ExtensionHeaders>,
}

impl StickyHeaders {
    /// Sets one header as Linux's `ipv6_set_opt_hdr` does; an empty value removes it.
    ///
    /// # Errors
    /// EINVAL; everything stays as it was.
    pub(super) fn set(&mut self, kind: HeaderKind, value: &[u8]) -> Result<(), Errno> {
        let part = if value.is_empty() { None } else { Some(whole(kind, value)?.to_vec()) };
        let mut parts = self.parts.clone();
        parts[kind as usize] = part;
        self.made = make(&parts)?;
        self.parts = parts;
        Ok(())
    }

    /// Returns the header as it was set.
    pub(super) fn get(&self, kind: HeaderKind) -> Vec<u8> {
        self.parts[kind as usize].clone().unwrap_or_default()
    }

    pub(super) fn made(&self) -> Option<&ExtensionHeaders> {
        self.made.as_ref()
    }
}

/// Returns the header at the front of a value, which may be longer.
fn whole(kind: HeaderKind, value: &[u8]) -> Result<&[u8], Errno> {
    if !value.len().is_multiple_of(8) || value.len() > MAX_VALUE_BYTES {
        return Err(Errno::INVAL);
    }
    let whole = value.get(..8 * (1 + usize::from(value[1]))).ok_or(Errno::INVAL)?;
    let must_fill = kind == HeaderKind::Routing && value[2] == SEGMENT_ROUTING;
    if must_fill && whole.len() < value.len() { Err(Errno::INVAL) } else { Ok(whole) }
}

fn make(parts: &[Option<Vec<u8>>; 4]) -> Result<Option<ExtensionHeaders>, Errno> {
    let [hop_by_hop, before_routing, routing, destination] = parts.each_ref().map(Option::as_deref);
    let parts = HeaderParts { hop_by_hop, before_routing, routing, destination };
    ExtensionHeaders::new(&parts).map_err(|_| Errno::INVAL)
}

/// Builds the headers that one datagram brings; the last of each kind counts. Returns `None` if none is sent.
///
/// # Errors
/// EINVAL for invalid headers.
pub(crate) fn own_headers(headers: &[Header]) -> Result<Option<ExtensionHeaders>, Errno> {
    let last = |kind| headers.iter().rev().find(|header| header.kind == kind);
    make(&HeaderKind::ALL.map(|kind| last(kind).map(|header| header.bytes.clone())))
}

/// The headers that a socket wants to see.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WantedHeaders {
    pub(super) hop_by_hop: bool,
    pub(super) routing: bool,
    pub(super) destination: bool,
}

impl WantedHeaders {
    pub(super) fn any(self) -> bool {
        self.hop_by_hop || self.routing || self.destination
    }

    /// Returns the wanted headers of a received datagram, in Linux's order.
    pub(super) fn of(self, received: &ReceivedHeaders) -> Vec<Header> {
        let wanted = |(protocol, bytes): (u8, &[u8])| {
            let (kind, is_wanted) = match protocol {
                HOP_BY_HOP => (HeaderKind::HopByHop, self.hop_by_hop),
                ROUTING => (HeaderKind::Routing, self.routing),
                DESTINATION => (HeaderKind::Destination, self.destination),
                _ => return None,
            };
            is_wanted.then(|| Header { kind, bytes: bytes.to_vec() })
        };
        received.iter().filter_map(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAD: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

    #[test]
    fn what_is_set_is_given_back_until_it_is_taken_away() {
        let mut sticky = StickyHeaders::default();
        for kind in [HeaderKind::HopByHop, HeaderKind::BeforeRouting, HeaderKind::Destination] {
            assert!(sticky.get(kind).is_empty());
            // Bytes behind the header are not kept.
            sticky.set(kind, &[PAD, PAD].concat()).expect("a header");
            assert_eq!(sticky.get(kind), PAD);
        }
        // Headers in front of a routing header are sent only with one.
        assert_eq!(sticky.made().map(ExtensionHeaders::len), Some(16));
        for kind in [HeaderKind::HopByHop, HeaderKind::Destination] {
            sticky.set(kind, &[]).expect("nothing");
        }
        assert_eq!(sticky.made(), None);
        assert_eq!(sticky.get(HeaderKind::BeforeRouting), PAD);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_changes_nothing() {
        let mut sticky = StickyHeaders::default();
        sticky.set(HeaderKind::Destination, &PAD).expect("a header");
        let long = [&[0, 254][..], &[0; 8 * 255 - 2]].concat();
        for value in [&PAD[..1], &PAD[..7], &[0, 1, 1, 4, 0, 0, 0, 0], &[&long[..], &[0; 8]].concat()] {
            assert_eq!(sticky.set(HeaderKind::Destination, value), Err(Errno::INVAL));
            assert_eq!(sticky.get(HeaderKind::Destination), PAD);
        }
        sticky.set(HeaderKind::Destination, &long).expect("as long as may be");
        let segments = [&[0, 2, SEGMENT_ROUTING, 0, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
        for (kind, filled, expected) in [
            (SEGMENT_ROUTING, true, Ok(())),
            (SEGMENT_ROUTING, false, Err(Errno::INVAL)),
            (0, true, Err(Errno::INVAL)),
        ] {
            let mut value = segments.clone();
            value[2] = kind;
            value.resize(if filled { 24 } else { 32 }, 0);
            assert_eq!(sticky.set(HeaderKind::Routing, &value), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(value in prop::collection::vec(any::<u8>(), 0..100), at in 0..4usize) {
            let kind = HeaderKind::ALL[at];
            if StickyHeaders::default().set(kind, &value).is_ok() && !value.is_empty() {
                let bytes = whole(kind, &value).expect("it was taken").to_vec();
                let alone = [Header { kind, bytes }];
                prop_assert!(own_headers(&alone).is_ok());
            }
            let _ = own_headers(&[Header { kind, bytes: value }]);
        }
    }
}
