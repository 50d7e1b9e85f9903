//! A node of the DHT that lies. It stores only the first item it gets, and claims to have stored the rest. It
//! sends old and forged items, and names only nodes that lie too.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A lying node that runs until it is dropped.
pub(crate) struct Liar {
    pub(crate) address: SocketAddrV4,
    /// Number of requests for an item or to store one.
    pub(crate) asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    /// Starts the node, and announces it to `honest` nodes.
    pub(crate) fn new(seed: u8, honest: &[SocketAddrV4]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let SocketAddr::V4(address) = socket.local_addr().expect("bound") else {
            unreachable!("bound to IPv4")
        };
        // IDs spread over the space of IDs.
        let id: [u8; 20] = std::array::from_fn(|i| seed.wrapping_mul(37).wrapping_add(i as u8 * 11));
        for node in honest {
            // A node adds a searcher that looks for its own ID to its table as a new node.
            let ask =
                [b"d1:ad2:id20:", &id[..], b"6:target20:", &id, b"e1:q9:find_node1:t4:aaaa1:y1:qe"].concat();
            socket.send_to(&ask, node).expect("sent");
        }
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (its_stop, its_asked) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let mut state = State { id, address, items: BTreeMap::new(), asked: its_asked };
            let mut buffer = [0; 4096];
            while !its_stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = Value::parse(&buffer[..len]).and_then(|request| state.answer(&request))
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, asked, stop, thread: Some(thread) }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

struct State {
    id: [u8; 20],
    address: SocketAddrV4,
    /// The first item of each key.
    items: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Value>>,
    asked: Arc<AtomicUsize>,
}

impl State {
    fn answer(&mut self, request: &Value) -> Option<Vec<u8>> {
        let arguments = request.get(b"a")?;
        let mut result = BTreeMap::from([(b"id".to_vec(), Value::Bytes(self.id.to_vec()))]);
        match request.get(b"q")?.bytes()? {
            b"find_node" => {
                result.insert(b"nodes".to_vec(), self.nodes(arguments.get(b"target")?.bytes()?));
            }
            b"get" => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let target = arguments.get(b"target")?.bytes()?;
                result.insert(b"nodes".to_vec(), self.nodes(target));
                result.insert(b"token".to_vec(), Value::Bytes(b"lies".to_vec()));
                // The target is the hash of the key, which is unknown before a node has stored something.
                for mut item in self.items.values().cloned() {
                    if self.address.port().is_multiple_of(2) {
                        item.insert(b"seq".to_vec(), Value::Integer(i64::MAX));
                        item.insert(b"v".to_vec(), Value::Bytes(vec![7; 640]));
                    }
                    result.extend(item);
                }
            }
            b"put" => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let key = arguments.get(b"k")?.bytes()?.to_vec();
                let item = [&b"k"[..], b"seq", b"sig", b"v"]
                    .map(|name| Some((name.to_vec(), arguments.get(name)?.clone())));
                let item = item.into_iter().collect::<Option<_>>()?;
                self.items.entry(key).or_insert(item);
            }
            _ => {}
        }
        let answer = BTreeMap::from([
            (b"r".to_vec(), Value::Dictionary(result)),
            (b"t".to_vec(), request.get(b"t")?.clone()),
            (b"y".to_vec(), Value::Bytes(b"r".to_vec())),
        ]);
        let mut out = Vec::new();
        Value::Dictionary(answer).emit(&mut out);
        Some(out)
    }

    /// Returns eight nodes nearer to the target than any honest one: this node under other names, and ports
    /// without a node.
    fn nodes(&self, target: &[u8]) -> Value {
        let mut out = Vec::new();
        for i in 0..8 {
            let mut id = target.to_vec();
            id.resize(20, 0);
            id[19] ^= i + 1;
            out.extend(id);
            out.extend(Ipv4Addr::LOCALHOST.octets());
            let port = if i == 0 { self.address.port() } else { 1 };
            out.extend(port.to_be_bytes());
        }
        Value::Bytes(out)
    }
}

/// The subset of bencoding (BEP 3) that this needs.
#[derive(Debug, Clone)]
enum Value {
    Integer(i64),
    Bytes(Vec<u8>),
    Dictionary(BTreeMap<Vec<u8>, Value>),
}

impl Value {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self::parse_first(bytes)?.0)
    }

    fn parse_first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let split = |at: u8| -> Option<(&str, &[u8])> {
            let end = bytes.iter().position(|byte| *byte == at)?;
            Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
        };
        match bytes.first()? {
            b'i' => {
                let (number, rest) = split(b'e')?;
                Some((Self::Integer(number[1..].parse().ok()?), rest))
            }
            b'd' => {
                let (mut all, mut rest) = (BTreeMap::new(), &bytes[1..]);
                while *rest.first()? != b'e' {
                    let (key, after) = Self::parse_first(rest)?;
                    let (value, after) = Self::parse_first(after)?;
                    all.insert(key.bytes()?.to_vec(), value);
                    rest = after;
                }
                Some((Self::Dictionary(all), &rest[1..]))
            }
            _ => {
                let (len, rest) = split(b':')?;
                let (text, rest) = rest.split_at_checked(len.parse().ok()?)?;
                Some((Self::Bytes(text.to_vec()), rest))
            }
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend(format!("{}:", bytes.len()).into_bytes());
            out.extend(bytes);
        };
        match self {
            Self::Integer(number) => out.extend(format!("i{number}e").into_bytes()),
            Self::Bytes(bytes) => text(out, bytes),
            Self::Dictionary(all) => {
                out.push(b'd');
                for (key, value) in all {
                    text(out, key);
                    value.emit(out);
                }
                out.push(b'e');
            }
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Self> {
        if let Self::Dictionary(all) = self { all.get(key) } else { None }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}
