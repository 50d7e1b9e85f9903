//! Fuzzing of the root by members with valid keys, who send arbitrary messages, also in the name of others.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_overlay::wire::{
    Channel, Control, LookUpKey, MessageType, NicknameClaim, NicknameMessage, Registration, RelayToken,
    Relayed, RootMessage,
};
use peersock_overlay::{Identity, Nickname};
use peersock_root::{Config, Root, Source};
use peersock_testnet::{Adversary, Credit, Heard, Random};

use crate::input::{Damage, damaged, instant, pick, sequence};

/// Maximum number of operations in one input.
const MAX_OPERATIONS: usize = 100;

/// Nicknames that members claim.
const NAMES: [&str; 2] = ["alice", "bob"];

#[derive(Debug, Arbitrary)]
enum Operation {
    Initiate {
        who: u8,
        from: From,
    },
    /// Any plaintext, sealed.
    Seal {
        who: u8,
        from: From,
        plaintext: Vec<u8>,
    },
    Register {
        who: u8,
        from: From,
        sequence: u16,
        lifetime: u16,
        signer: u8,
    },
    LookUp {
        who: u8,
        from: From,
        of: u8,
        by_prefix: bool,
    },
    Claim {
        who: u8,
        from: From,
        sequence: u16,
        lifetime: u16,
        signer: u8,
        name: bool,
    },
    FindNickname {
        who: u8,
        from: From,
        name: bool,
    },
    /// Answers the last challenge.
    Answer {
        who: u8,
        from: From,
    },
    Frame {
        who: u8,
        from: From,
        token_of: u8,
        to: u8,
        len: u8,
    },
    /// Any bytes.
    Raw {
        who: u8,
        from: From,
        bytes: Vec<u8>,
    },
    /// Repeats an earlier datagram, altered or unchanged.
    Again {
        which: u8,
        who: u8,
        from: From,
        damages: Vec<Damage>,
    },
    Pass {
        millis: u16,
    },
    Drain,
}

/// Source of a datagram.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum From {
    /// The member's first endpoint, where it receives.
    Home,
    /// The member's second endpoint, where it receives too.
    Away,
    /// The endpoint of an uninvolved third party.
    Victim,
}

struct Member {
    adversary: Adversary,
    identity: Arc<Identity>,
    home: Source,
    away: Source,
    token: RelayToken,
    channel: Channel,
    challenge: [u8; 8],
}

struct World {
    root: Root,
    members: Vec<Member>,
    credit: Credit,
    /// Datagrams sent before.
    sent: Vec<Vec<u8>>,
    now: std::time::Instant,
}

/// Checks that no message makes the root panic. The root must not send a victim more than came from its
/// address, send strangers anything, or pass on a frame in another member's name.
pub fn root_ops(data: &[u8]) {
    let mut world = World::new();
    for operation in sequence::<Operation>(data, MAX_OPERATIONS) {
        world.run(operation);
        world.pass(Duration::ZERO);
        assert!(world.root.registered() <= world.members.len() && world.root.nodes() <= world.members.len());
        assert!(world.root.nicknames() <= NAMES.len());
    }
}

fn root_identity() -> &'static Arc<Identity> {
    static ROOT: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::from_seed(&[200; 32])));
    &ROOT
}

fn udp(last: u8, port: u16) -> Source {
    Source::Udp { socket: 0, remote: SocketAddr::from(([192, 0, last, 1], port)) }
}

fn victim() -> Source {
    udp(99, 9)
}

impl World {
    fn new() -> Self {
        let now = instant();
        let config = Config::new(root_identity().clone());
        let members = (1..=3).map(|number| {
            let identity = Arc::new(Identity::from_seed(&[number; 32]));
            let (clock, random) = (Duration::from_secs(1_800_000_000), Random::from_seed(number.into()));
            Member {
                adversary: Adversary::of_root(identity.clone(), *root_identity().public(), clock, random),
                identity,
                home: udp(number, 1),
                away: udp(number, 2),
                token: RelayToken::from_be_bytes([0; 3]),
                channel: Channel(0),
                challenge: [0; 8],
            }
        });
        Self {
            root: Root::new(config, &[7; 32], now, Duration::from_secs(1_800_000_000)),
            members: members.collect(),
            credit: Credit::default(),
            sent: Vec::new(),
            now,
        }
    }

    fn run(&mut self, operation: Operation) {
        let count = self.members.len();
        let member = |who: u8| usize::from(who) % count;
        match operation {
            Operation::Initiate { who, from } => {
                let datagram = self.members[member(who)].adversary.initiate(self.now);
                self.send(member(who), from, datagram);
            }
            Operation::Seal { who, from, plaintext } => self.seal(member(who), from, &plaintext),
            Operation::Register { who, from, sequence, lifetime, signer } => {
                let (root, signer) = (root_identity().node_id(), &self.members[member(signer)].identity);
                let registration = Registration::sign(signer, &root, sequence.into(), lifetime.into());
                self.say(member(who), from, &RootMessage::Register { registration, access: Vec::new() });
            }
            Operation::LookUp { who, from, of, by_prefix } => {
                let node = *self.members[member(of)].adversary.id();
                let prefix = node.as_bytes()[..10].try_into().expect("10 bytes");
                let key = if by_prefix { LookUpKey::Prefix(prefix) } else { LookUpKey::Id(node) };
                self.say(member(who), from, &RootMessage::LookUp { id: 1, key });
            }
            Operation::Claim { who, from, sequence, lifetime, signer, name } => {
                let (root, signer) = (root_identity().node_id(), &self.members[member(signer)].identity);
                let nickname: Nickname = NAMES[usize::from(name)].parse().expect("a nickname");
                let (sequence, lifetime) = (sequence.into(), lifetime.into());
                let claim = NicknameClaim::sign(signer, &root, &nickname, sequence, lifetime, 1);
                let message = NicknameMessage::Claim { nickname, claim };
                self.say(member(who), from, &RootMessage::Nickname(message));
            }
            Operation::FindNickname { who, from, name } => {
                let nickname = NAMES[usize::from(name)].parse().expect("a nickname");
                let message = NicknameMessage::Find { id: 1, nickname };
                self.say(member(who), from, &RootMessage::Nickname(message));
            }
            Operation::Answer { who, from } => {
                let mut plaintext = Vec::new();
                Control::Answer { data: self.members[member(who)].challenge }.emit(&mut plaintext);
                self.seal(member(who), from, &plaintext);
            }
            Operation::Frame { who, from, token_of, to, len } => {
                let (token, channel) =
                    (self.members[member(token_of)].token, self.members[member(to)].channel);
                // The content tells who sent the frame.
                let inner = vec![member(who) as u8; usize::from(len)];
                let frame = [&Relayed { token, channel }.to_bytes()[..], &inner].concat();
                self.send(member(who), from, frame);
            }
            Operation::Raw { who, from, bytes } => self.send(member(who), from, bytes),
            Operation::Again { which, who, from, damages } => {
                if let Some(datagram) = pick(&self.sent, which) {
                    let datagram = damaged(datagram, &damages);
                    self.send(member(who), from, datagram);
                }
            }
            Operation::Pass { millis } => self.pass(Duration::from_millis(millis.into())),
            Operation::Drain => {
                self.root.drain(self.now);
                self.take();
            }
        }
    }

    fn say(&mut self, who: usize, from: From, message: &RootMessage) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        assert_eq!(RootMessage::parse(&plaintext).as_ref(), Ok(message));
        self.seal(who, from, &plaintext);
    }

    fn seal(&mut self, who: usize, from: From, plaintext: &[u8]) {
        if let Some(datagram) = self.members[who].adversary.seal(plaintext) {
            self.send(who, from, datagram);
        }
    }

    fn send(&mut self, who: usize, from: From, datagram: Vec<u8>) {
        let source = match from {
            From::Home => self.members[who].home,
            From::Away => self.members[who].away,
            From::Victim => victim(),
        };
        if source == victim() {
            self.credit.forge(source.remote(), datagram.len());
        }
        self.root.handle_datagram(self.now, source, &datagram);
        self.sent.push(datagram);
        self.take();
    }

    /// Takes and checks the datagrams that the root sends.
    fn take(&mut self) {
        let mut datagram = Vec::new();
        while let Some(to) = self.root.poll_transmit(&mut datagram) {
            self.credit.spend(to.remote(), datagram.len()).expect("the victim pays for it");
            let hearer = self.members.iter_mut().find(|member| [member.home, member.away].contains(&to));
            let Some(member) = hearer else {
                assert_eq!(to, victim(), "it sends only to where something came from");
                continue;
            };
            if MessageType::of(&datagram) == Some(MessageType::Relayed) {
                let (header, _) = Relayed::parse(&datagram).expect("a frame");
                assert_eq!(header.token, member.token);
                assert!(self.members.iter().any(|sender| sender.channel == header.channel));
                continue;
            }
            if let Heard::Plaintext(plaintext) = member.adversary.hear(&datagram) {
                if let Ok(Control::Challenge { data, .. }) = Control::parse(&plaintext) {
                    member.challenge = data;
                } else if let Ok(message) = RootMessage::parse(&plaintext) {
                    member.judge(message);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1000 {
            let Some(at) = self.root.poll_timeout().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.root.handle_timeout(self.now);
            self.take();
        }
        panic!("the deadlines have no end");
    }
}

impl Member {
    fn judge(&mut self, message: RootMessage) {
        match message {
            RootMessage::Registered(answer) => {
                assert!(answer.voucher.verify(root_identity().public(), self.adversary.id()));
                assert!([self.home.remote(), self.away.remote()].contains(&answer.voucher.address));
                (self.token, self.channel) = (answer.token, answer.channel);
            }
            RootMessage::Found { result: Ok(entry), .. } => {
                assert!(entry.registration.verify(&entry.identity, &root_identity().node_id()));
            }
            RootMessage::Nickname(NicknameMessage::Found { result: Ok(owner), .. }) => {
                let is_signed =
                    |name: &Nickname| owner.claim.verify(&owner.identity, &root_identity().node_id(), name);
                assert!(NAMES.iter().any(|name| is_signed(&name.parse().expect("a nickname"))));
            }
            RootMessage::Nickname(NicknameMessage::Claimed { .. } | NicknameMessage::Found { .. }) => {}
            RootMessage::Found { .. } | RootMessage::Notice { .. } => {}
            other => panic!("a root does not say {other:?}"),
        }
    }
}
