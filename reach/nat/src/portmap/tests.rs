//! A router that lies, on loopback.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::*;

const BUDGET: Duration = Duration::from_secs(30);

/// A router's false answer.
#[derive(Debug, Clone, Copy)]
struct Lie {
    address: [u8; 4],
    port: u16,
    lifetime: u32,
}

const HONEST: Lie = Lie { address: [203, 0, 113, 9], port: 40_000, lifetime: 600 };

#[test]
fn what_no_peer_can_use_is_no_mapping() {
    let of_no_use = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ];
    let mut lies: Vec<_> = of_no_use.map(|address| Lie { address, ..HONEST }).to_vec();
    lies.extend([Lie { port: 0, ..HONEST }, Lie { lifetime: 0, ..HONEST }]);
    for lie in lies {
        let router = Router::start(lie);
        for protocol in [Protocol::Pcp, Protocol::NatPmp] {
            let answer = router.map(protocol);
            assert!(matches!(answer, Err(MapError::Nonsense { .. })), "{protocol}: {lie:?}: {answer:?}");
        }
    }
}

#[test]
fn an_address_behind_another_nat_is_a_mapping_since_peers_may_be_there_too() {
    for address in [[203, 0, 113, 9], [10, 1, 2, 3], [100, 64, 0, 1]] {
        let router = Router::start(Lie { address, ..HONEST });
        for protocol in [Protocol::Pcp, Protocol::NatPmp] {
            let mapping = router.map(protocol).unwrap_or_else(|error| panic!("{protocol}: {error}"));
            assert_eq!(mapping.external, SocketAddr::from((address, HONEST.port)));
            assert_eq!(mapping.lifetime, Duration::from_secs(HONEST.lifetime.into()));
        }
    }
}

#[test]
fn an_answer_of_the_other_family_is_no_mapping() {
    let local = "192.168.1.2:4660".parse().expect("an endpoint");
    let ask = Ask { transport: Transport::Udp, local, wanted: 4660, lifetime: 600 };
    let external = "[2001:db8::1]:4660".parse().expect("an endpoint");
    let granted = ask.granted(Protocol::Pcp, external, BUDGET, Handle::NatPmp);
    assert!(matches!(granted, Err(MapError::Nonsense { .. })), "{granted:?}");
}

/// A router that answers PCP and NAT-PMP at a separate address.
struct Router {
    gateway: Gateway,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    fn start(lie: Lie) -> Router {
        let (address, socket) = (0..100)
            .find_map(|_| {
                let mut random = [0; 3];
                getrandom::fill(&mut random).expect("randomness");
                let address = Ipv4Addr::new(127, random[0] | 1, random[1], random[2] | 1);
                Some((address, UdpSocket::bind((address, 5351)).ok()?))
            })
            .expect("an address that nobody else uses");
        socket.set_read_timeout(Some(Duration::from_millis(5))).expect("not zero");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 1100];
            while !stopped.load(Ordering::SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..len], lie) {
                    socket.send_to(&answer, from).expect("it leaves");
                }
            }
        });
        let router = SocketAddr::new(address.into(), 0);
        let gateway = Gateway { interface: None, local: Ipv4Addr::LOCALHOST.into(), router };
        Router { gateway, stop, thread: Some(thread) }
    }

    fn map(&self, protocol: Protocol) -> Result<PortMapping, MapError> {
        map_by(protocol, &self.gateway, Transport::Udp, 4660, BUDGET, BUDGET)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(request: &[u8], lie: Lie) -> Option<Vec<u8>> {
    let mut answer = request.to_vec();
    answer.get_mut(1).map(|operation| *operation |= 128)?;
    match *request.first()? {
        2 => {
            answer[4..8].copy_from_slice(&lie.lifetime.to_be_bytes());
            answer[42..44].copy_from_slice(&lie.port.to_be_bytes());
            answer[44..60].copy_from_slice(&Ipv4Addr::from(lie.address).to_ipv6_mapped().octets());
        }
        _ if request.len() == 2 => {
            answer.extend([0; 6]);
            answer.extend(lie.address);
        }
        _ => {
            answer.splice(4..4, [0; 4]);
            answer[10..12].copy_from_slice(&lie.port.to_be_bytes());
            answer[12..16].copy_from_slice(&lie.lifetime.to_be_bytes());
        }
    }
    Some(answer)
}
