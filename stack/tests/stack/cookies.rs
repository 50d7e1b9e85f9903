//! Tests of SYN cookies: handshakes whose only state is the answer.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);
const BACKLOG: usize = 2;

/// Returns a listener on B whose places are taken by incomplete handshakes.
fn crowded(pair: &mut Pair, options: TcpOptions) -> Arc<Listener> {
    let listener = pair.listen_with(B, 80, BACKLOG, options);
    let before = pair.capture.replace(Vec::new());
    let absent: Vec<_> = (0..BACKLOG).map(|_| pair.connect(A, 80)).collect();
    let syns = std::mem::replace(&mut pair.capture, before).unwrap();
    absent.iter().for_each(|flow| flow.fail(pair.now, Error::NetworkDown));
    pair.link.loss = 1000;
    syns.iter().for_each(|(_, syn)| pair.inject(B, syn));
    pair.link.loss = 0;
    listener
}

/// Frees the places of such handshakes.
fn give_up_handshakes(pair: &Pair) {
    for flow in pair.hosts[B].stack.all_flows() {
        flow.fail(pair.now, Error::NetworkDown);
    }
}

/// Connects from A; a cookie answers the SYN, and then a place becomes free. Returns B's listener, A's end
/// and the SYN.
fn answered_by_cookie(pair: &mut Pair) -> (Arc<Listener>, Arc<Flow>, Vec<u8>) {
    let listener = crowded(pair, TcpOptions::default());
    pair.capture = Some(Vec::new());
    let a = pair.connect(A, 80);
    let syn = pair.capture.take().unwrap().remove(0).1;
    pair.run(SECOND, |pair| pair.counter(B, "tcp_cookies_sent") == 1);
    give_up_handshakes(pair);
    (listener, a, syn)
}

/// A's SYN arrives twice: a cookie answers it first, and the second SYN gets a place. A already has the
/// cookie, and does not know of the place.
#[test]
fn a_cookie_holds_also_if_its_syn_gets_a_place_later() {
    for (checksums, is_ack_lost) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut pair = Pair::with(3, Config::default(), checksums);
        let (listener, a, syn) = answered_by_cookie(&mut pair);
        pair.inject(B, &syn);
        assert_eq!(pair.hosts[B].stack.flows(), 1, "the SYN has a place now");
        if is_ack_lost {
            pair.run(SECOND, |pair| {
                pair.link.loss = if pair.hosts[B].stack.flows() == 1 { 1000 } else { 0 };
                a.readiness().contains(Ready::CONNECTED)
            });
            pair.link.loss = 0;
            a.write(pair.now, b"x").unwrap();
            pair.kick(A, &a);
        }
        let mut accepted = None;
        pair.run(10 * SECOND, |pair| {
            accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
            accepted.is_some()
        });
        let b = accepted.unwrap();
        assert_eq!(pair.counter(B, "tcp_cookies_accepted"), 1);
        assert_eq!(pair.counter(A, "tcp_resets_received"), 0);
        if is_ack_lost {
            pair.run(SECOND, |_| b.readable() == 1);
            b.read(pair.now, &mut [0; 10]).unwrap();
        }
        pair.transfer(A, &a, &b, 1_000_000);
        pair.transfer(B, &b, &a, 1_000_000);
        // Its place is free again, so the full backlog is available.
        let more: Vec<_> = (0..BACKLOG).map(|_| pair.connect(A, 80)).collect();
        pair.run(SECOND, |_| more.iter().all(|flow| flow.readiness().contains(Ready::CONNECTED)));
        assert_eq!(pair.counter(B, "tcp_cookies_sent"), 1);
    }
}

/// A handshake has its place, and an acknowledgement has a wrong number: RFC 9293 3.10.7.4 demands a reset.
#[test]
fn what_is_no_cookie_is_reset_where_a_handshake_is_under_way() {
    let mut pair = Pair::new(4);
    let (listener, a, syn) = answered_by_cookie(&mut pair);
    pair.link.loss = 1000;
    pair.inject(B, &syn);
    let mut guess = syn[..60].to_vec();
    let seq = u32::from_be_bytes(syn[44..48].try_into().unwrap()).wrapping_add(1);
    guess[4..6].copy_from_slice(&20u16.to_be_bytes());
    guess[44..48].copy_from_slice(&seq.to_be_bytes());
    guess[52..54].copy_from_slice(&[0x50, 0x10]);
    pair.capture = Some(Vec::new());
    for ack in 0..1000u32 {
        guess[48..52].copy_from_slice(&ack.wrapping_mul(2_654_435_761).to_be_bytes());
        pair.inject(B, &guess);
    }
    let resets = pair.capture.take().unwrap();
    assert_eq!(resets.iter().filter(|(side, packet)| *side == B && packet[53] & 4 != 0).count(), 1000);
    assert_eq!((pair.counter(B, "tcp_cookies_accepted"), listener.accept(pair.now).is_err()), (0, true));
    drop(a);
}

#[test]
fn a_cookie_offers_no_more_than_the_buffer_holds() {
    let short = Config { tcp_memory: 64, ..Config::default() };
    for (config, receive_buffer, expected) in [
        (Config::default(), None, 65_535),
        (Config::default(), Some(8192), 8192),
        (Config::default(), Some(1 << 20), 65_535),
        (Config { receive_buffer: 20_000, ..Config::default() }, None, 20_000),
        (short, None, 16_384),
    ] {
        let mut pair = Pair::with(5, config, false);
        if expected == 16_384 {
            // The queue of one connection exceeds the memory limit.
            let (_, b) = pair.connected();
            b.write(pair.now, &[1; 4096]).unwrap();
        }
        let options = TcpOptions { receive_buffer, reuse_address: true, ..TcpOptions::default() };
        let listener = crowded(&mut pair, options);
        pair.capture = Some(Vec::new());
        let a = pair.connect(A, 80);
        pair.run(SECOND, |_| a.readiness().contains(Ready::CONNECTED));
        let sent = pair.capture.take().unwrap();
        let (_, answer) = sent.iter().find(|(side, packet)| *side == B && packet[53] == 0x12).unwrap();
        assert_eq!(u16::from_be_bytes([answer[54], answer[55]]), expected);
        // Data within the offered window is accepted.
        while a.write(pair.now, &[7; 30_000]).is_ok() {}
        pair.kick(A, &a);
        let mut accepted = None;
        pair.run(SECOND, |pair| {
            accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
            accepted.as_ref().is_some_and(|b| b.readable() >= usize::from(expected).min(8192) / 2)
        });
    }
}

/// Notes who is called, in what the connection keeps for its driver.
struct Noted;

impl Owners for Noted {
    fn owner(&self, _: InterfaceId, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn established(
        &self,
        interface: InterfaceId,
        remote: IpAddr,
        context: &OnceLock<Arc<dyn Any + Send + Sync>>,
    ) {
        context.set(Arc::new((interface, remote))).expect("once for each connection");
    }
}

/// Both ends are told, whether the handshake has a place or a cookie, and before anybody accepts it.
#[test]
fn the_peer_of_a_connection_is_noted_when_it_is_established() {
    for by_cookie in [false, true] {
        let mut pair = Pair::new(6);
        pair.hosts.iter().for_each(|host| host.stack.set_owners(Arc::new(Noted)));
        let (listener, a) = match by_cookie {
            true => {
                let (listener, a, _) = answered_by_cookie(&mut pair);
                (listener, a)
            }
            false => (pair.listen(B, 80), pair.connect(A, 80)),
        };
        assert!(a.context().get().is_none(), "there is no answer yet");
        pair.run(10 * SECOND, |_| a.readiness().contains(Ready::CONNECTED));
        let mut accepted = None;
        pair.run(10 * SECOND, |pair| {
            accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
            accepted.is_some()
        });
        assert_eq!(pair.counter(B, "tcp_cookies_accepted"), u64::from(by_cookie));
        for flow in [a, accepted.unwrap()] {
            let noted = flow.context().get().expect("it is established");
            let expected = (flow.interface(), flow.remote().ip());
            assert_eq!(noted.downcast_ref::<(InterfaceId, IpAddr)>(), Some(&expected));
        }
    }
}
