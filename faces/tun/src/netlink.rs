//! Netlink sockets, and requests to the kernel about routes and routing rules (rtnetlink).

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Opens a socket of a netlink protocol, connected to the kernel.
pub(crate) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request over a NETLINK_ROUTE socket, and waits for all answers.
pub(crate) fn exchange(
    socket: &Socket,
    question: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut answers = Vec::new();
    exchange_each(socket, question, flags, |answer| answers.push(answer))?;
    Ok(answers)
}

/// Requests all routes of a family, one by one, because a router may have a million.
pub(crate) fn each_route(
    socket: &Socket,
    family: AddressFamily,
    mut each: impl FnMut(RouteMessage),
) -> io::Result<()> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    exchange_each(socket, RouteNetlinkMessage::GetRoute(question), NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            each(route);
        }
    })
}

/// Sends a request as [`exchange`] does, without keeping the answers.
fn exchange_each(
    socket: &Socket,
    question: RouteNetlinkMessage,
    flags: u16,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (received, _) = socket.recv_from_full()?;
        let mut left = &received[..];
        while !left.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(left).map_err(io::Error::other)?;
            // Messages begin at multiples of four bytes (linux/netlink.h).
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            left = left.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => each(answer),
                _ => {}
            }
        }
    }
}

/// Opens a socket that gets each change of interfaces, addresses, routes and routing rules.
pub(crate) fn changes() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    CHANGES.into_iter().try_for_each(|group| socket.add_membership(group))?;
    Ok(socket)
}

/// RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE and _IPV6_RULE
/// (linux/rtnetlink.h).
const CHANGES: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
