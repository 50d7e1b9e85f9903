package peersock

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// each tries the addresses that a text as "name:80" or "[fd12::1]:80" stands for, in turn.
func (n *Node) each(ctx context.Context, op, networks, network, address string,
	open func(context.Context, string, netip.AddrPort) (*socket, error)) (*socket, error) {
	all, err := n.resolve(ctx, op, network, address)
	if len(network) > 4 || !strings.Contains(networks, " "+network+" ") {
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, opError(op, network, nil, nil, err)
	}
	for _, to := range all {
		s, failure := open(ctx, network, to)
		if failure == nil {
			return s, nil
		} else if err == nil {
			err = opError(op, network, nil, netAddr(network, to), failure)
		}
	}
	return nil, err
}

// resolve gives them. Names are those of members; without a host it is the wildcard, or to dial the node
// itself.
func (n *Node) resolve(ctx context.Context, op, network, address string) (all []netip.AddrPort, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	v4, found := strings.HasSuffix(network, "4"), []netip.Addr{netip.IPv6Unspecified()}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		found = []netip.Addr{ip.Unmap()}
	} else if host != "" || op == "dial" {
		found = n.lookup(host)
	} else if v4 {
		found[0] = netip.IPv4Unspecified()
	}
	for _, ip := range found {
		if len(network) == 3 || v4 == ip.Is4() {
			all = append(all, netip.AddrPortFrom(ip, uint16(port)))
		}
	}
	if all == nil {
		err = &net.DNSError{Err: "no member has this name and such an address", Name: host, IsNotFound: true}
	}
	return all, err
}

// netAddr gives an address as package net has it.
func netAddr(network string, address netip.AddrPort) net.Addr {
	if network[0] == 'u' {
		return net.UDPAddrFromAddrPort(address)
	}
	return net.TCPAddrFromAddrPort(address)
}
