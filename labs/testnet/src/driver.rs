use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::{Attention, Endpoint, Opened, Peer, Place, RecvMeta, Session, data_index};

/// Handles a received datagram like a driver. Returns the inner packet with its session, if the datagram
/// contains one.
///
/// The caller must then take the endpoint's events and datagrams, as after every call.
pub fn receive(
    endpoint: &mut Endpoint,
    now: Instant,
    meta: RecvMeta,
    datagram: &[u8],
) -> Option<(Arc<Session>, Vec<u8>)> {
    let session = data_index(datagram).and_then(|index| endpoint.sessions().get(index));
    let Some(session) = session else {
        endpoint.handle_datagram(now, meta, datagram);
        return None;
    };
    let mut plaintext = vec![0; datagram.len()];
    let opened = session.open(datagram, &mut plaintext).ok()?;
    plaintext.truncate(opened.len());
    if session.note_received(now, &meta) {
        endpoint.session_attention(now, &session, Attention::received(meta, datagram.len(), opened));
    }
    if let Opened::Control(_) = opened {
        endpoint.handle_control(now, &session, meta, &plaintext);
        return None;
    }
    Some((session, plaintext))
}

/// Seals an inner packet for a peer, and returns its destination and the datagram. Without a session or path,
/// it requests one from the endpoint, and the packet has to wait.
pub fn send(
    endpoint: &mut Endpoint,
    now: Instant,
    peer: &Arc<Peer>,
    packet: &[u8],
) -> Option<(Place, Vec<u8>)> {
    let sender = peer.sender();
    let mut datagram = vec![0; packet.len() + sender.as_ref().map_or(0, |sender| sender.overhead())];
    let sender = sender.filter(|sender| sender.seal(packet, &mut datagram).is_ok());
    let Some(sender) = sender else {
        endpoint.want_session(now, peer);
        return None;
    };
    if sender.session.note_sent(now) {
        endpoint.session_attention(now, &sender.session, Attention::Sent);
    }
    Some((sender.path.place, datagram))
}
