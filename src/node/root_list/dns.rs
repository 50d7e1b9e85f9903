//! Lists of roots in the DNS: TXT records of `_peersock.DOMAIN`, each with the text of one root (RFC 1035,
//! RFC 8552).
//!
//! The system's resolver library knows only names and addresses, so this module asks the nameservers
//! directly: over UDP, and over TCP if the answer is truncated. The query has an unpredictable port and ID.
//! Answers are not signed: an attacker who forges them can name its own roots, which see what every root
//! sees.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::config::{RootAddress, RootDomain};

/// Limit of nameservers, the same as in `resolv.conf`.
const MAX_SERVERS: usize = 3;

/// Answer with the roots of a domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) roots: Vec<RootAddress>,
    /// Validity of the list.
    pub(super) ttl: Duration,
}

/// Asks for the roots of a domain; each nameserver has `patience` for its whole answer, by UDP and TCP.
///
/// # Errors
/// Returns `NotFound` if the domain lists none; else the last nameserver's error.
pub(super) fn look_up(domain: &RootDomain, patience: Duration) -> io::Result<Listed> {
    let servers = domain.server().map_or_else(system_servers, |server| vec![server]);
    let name = format!("{}{}", crate::config::ROOTS_LABEL, domain.name());
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the system has no nameserver");
    for server in servers {
        match ask(server, &name, patience) {
            Ok(listed) => return Ok(listed),
            Err(error) => last = told_of(server, &name, error),
        }
    }
    Err(last)
}

/// Adds the question and the nameserver to an error. The kind stays.
fn told_of(server: SocketAddr, name: &str, error: io::Error) -> io::Error {
    let text = match error.kind() {
        kind if is_timeout(&error) => {
            return io::Error::new(kind, format!("the nameserver {server} does not answer"));
        }
        io::ErrorKind::NotFound => format!("{name} {error}"),
        // The error contains the nameserver's code.
        io::ErrorKind::Other => format!("the nameserver {server} answers {error}"),
        _ => format!("the nameserver {server} cannot be asked: {error}"),
    };
    io::Error::new(error.kind(), text)
}

fn ask(server: SocketAddr, name: &str, patience: Duration) -> io::Result<Listed> {
    let deadline = Instant::now() + patience;
    // Random, so that an attacker off the path must guess it.
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let question = question(u16::from_be_bytes(id), name)?;
    let answer = over_udp(server, &question, deadline)?;
    match Packet::parse(&answer) {
        Ok(packet) if packet.has_flags(PacketFlag::TRUNCATION) => {
            let answer = over_tcp(server, &question, deadline)?;
            check(&answer, &question)?;
            read(&answer)
        }
        _ => read(&answer),
    }
}

/// Builds a query for TXT records, with recursion desired.
fn question(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(wrong)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::TXT), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(wrong)
}

fn over_udp(server: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    // The kernel then drops datagrams from other addresses.
    socket.connect(server)?;
    socket.send(question)?;
    // Without EDNS (RFC 6891) an answer has at most 512 bytes; a larger buffer does no harm.
    let mut buffer = [0; 4096];
    loop {
        socket.set_read_timeout(Some(left_until(deadline)?))?;
        match socket.recv(&mut buffer) {
            // A datagram that does not match may be forged, so wait for the right answer.
            Ok(len) if check(&buffer[..len], question).is_ok() => return Ok(buffer[..len].to_vec()),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Asks over TCP, where each message follows its length (RFC 1035, 4.2.2).
fn over_tcp(server: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    // One deadline for the whole exchange: a server that sends a byte now and then must not hold the thread.
    let mut stream = TcpStream::connect_timeout(&server, left_until(deadline)?)?;
    // A new connection's send buffer has space for a query, so this is one write.
    stream.set_write_timeout(Some(left_until(deadline)?))?;
    let len = u16::try_from(question.len()).map_err(wrong)?;
    stream.write_all(&[&len.to_be_bytes(), question].concat())?;
    let mut len = [0; 2];
    read_until(&mut stream, &mut len, deadline)?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    read_until(&mut stream, &mut answer, deadline)?;
    Ok(answer)
}

/// Fills the buffer before the deadline.
fn read_until(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            // The next iteration checks the deadline.
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left_until(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Fails unless the message answers this query.
pub(super) fn check(answer: &[u8], question: &[u8]) -> io::Result<()> {
    let (answer, asked) = (Packet::parse(answer).map_err(wrong)?, Packet::parse(question).map_err(wrong)?);
    let same = |(a, b): (&Question<'_>, &Question<'_>)| {
        let is_same_name = a.qname.to_string().eq_ignore_ascii_case(&b.qname.to_string());
        is_same_name && a.qtype == b.qtype && a.qclass == b.qclass
    };
    let is_answer = answer.has_flags(PacketFlag::RESPONSE)
        && answer.id() == asked.id()
        && answer.questions.len() == asked.questions.len()
        && answer.questions.iter().zip(&asked.questions).all(same);
    if is_answer { Ok(()) } else { Err(wrong("another answer")) }
}

/// Parses the roots in an answer.
pub(super) fn read(answer: &[u8]) -> io::Result<Listed> {
    let packet = Packet::parse(answer).map_err(wrong)?;
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        code => {
            // Names used by nameservers and their logs.
            let name = match code {
                RCODE::FormatError => "FORMERR",
                RCODE::ServerFailure => "SERVFAIL",
                RCODE::NotImplemented => "NOTIMP",
                RCODE::Refused => "REFUSED",
                _ => "an error",
            };
            return Err(io::Error::other(name));
        }
    }
    // The records' names are not compared, because behind an alias (CNAME) they are the alias's target.
    let (mut roots, mut ttl) = (Vec::<RootAddress>::new(), MAX_VALIDITY);
    for record in &packet.answers {
        let RData::TXT(text) = &record.rdata else { continue };
        // A long text is split into several strings, which are joined here.
        let Ok(text) = String::try_from(text.clone()) else { continue };
        match text.trim().parse::<RootAddress>() {
            // Everybody could read a token in the DNS.
            Ok(root) if root.token().is_none() => {
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                roots.push(root);
            }
            Ok(_) => {
                tracing::warn!("a root with a token, which everybody can read, is listed in the DNS: skipped")
            }
            Err(error) => tracing::debug!(%error, "a TXT record names no root: skipped"),
        }
    }
    // Nameservers rotate the order to spread the load; nodes do not need that, and a stable order causes no
    // changes.
    roots.sort_by_key(|root| root.to_string());
    roots.truncate(super::MAX_LISTED);
    if roots.is_empty() {
        let what = match packet.answers.iter().filter(|one| matches!(one.rdata, RData::TXT(_))).count() {
            0 => "has no TXT record in the DNS, and those would name the roots".to_owned(),
            count => format!("lists no roots: none of its {count} TXT records names one without a token"),
        };
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Ok(Listed { roots, ttl: ttl.max(MIN_VALIDITY) })
}

/// Limits of the validity, whatever the domain's owner sets: a list is asked for again after at most a day,
/// and at least a minute.
const MAX_VALIDITY: Duration = Duration::from_secs(24 * 3600);
const MIN_VALIDITY: Duration = Duration::from_secs(60);

/// Returns the nameservers of `resolv.conf`; without any, the one on this machine, as resolv.conf(5)
/// specifies.
fn system_servers() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    match nameservers(&text) {
        servers if servers.is_empty() => vec![(Ipv4Addr::LOCALHOST, PORT).into()],
        servers => servers,
    }
}

fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        let word = words.next()?;
        // A link-local address has its interface after a %.
        if let Some((ip, interface)) = word.split_once('%') {
            let index = nix::net::if_::if_nametoindex(interface).ok()?;
            return Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, index).into());
        }
        Some((word.parse::<IpAddr>().ok()?, PORT).into())
    };
    resolv_conf.lines().filter_map(server).take(MAX_SERVERS).collect()
}

const PORT: u16 = 53;

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;

    use peersock_overlay::Identity;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::TXT;

    use super::*;

    /// Limits the duration of a hang.
    const HANG_TIMEOUT: Duration = Duration::from_secs(60);

    fn root(seed: u8, endpoints: &str) -> String {
        format!("{}@{endpoints}", Identity::from_seed(&[seed; 32]).public())
    }

    /// Builds a nameserver's answer with these texts.
    pub(in super::super) fn reply(question: &[u8], texts: &[&str], ttl: u32) -> Vec<u8> {
        let asked = Packet::parse(question).expect("a question");
        let mut packet = Packet::new_reply(asked.id());
        packet.questions = asked.questions.clone();
        for text in texts {
            let mut strings = TXT::new();
            // Several strings of at most 255 bytes, as in zone files.
            for part in text.as_bytes().chunks(200) {
                strings.add_string(std::str::from_utf8(part).expect("ASCII")).expect("short enough");
            }
            let name = asked.questions[0].qname.clone();
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, ttl, RData::TXT(strings)).into_owned());
        }
        packet.build_bytes_vec().expect("a packet")
    }

    type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

    /// Starts a nameserver for one query by UDP and, if there is an answer for it, one by TCP.
    pub(in super::super) fn nameserver(
        udp: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
        tcp: Option<Answer>,
    ) -> (RootDomain, thread::JoinHandle<String>) {
        // Finds a port that is free for both.
        let (socket, listener) = (0..100)
            .find_map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
                let listener = TcpListener::bind(socket.local_addr().ok()?).ok()?;
                Some((socket, listener))
            })
            .expect("a port");
        let domain = format!("Example.org@{}", socket.local_addr().expect("its address"));
        let serving = thread::spawn(move || {
            let mut buffer = [0; 512];
            let (len, from) = socket.recv_from(&mut buffer).expect("a question");
            for answer in udp(&buffer[..len]) {
                socket.send_to(&answer, from).expect("room");
            }
            if let Some(tcp) = tcp {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut head = [0; 2];
                stream.read_exact(&mut head).expect("a length");
                let mut question = vec![0; u16::from_be_bytes(head).into()];
                stream.read_exact(&mut question).expect("a question");
                let answer = tcp(&question);
                let len = u16::try_from(answer.len()).expect("short enough");
                stream.write_all(&[&len.to_be_bytes(), answer.as_slice()].concat()).expect("room");
            }
            Packet::parse(&buffer[..len]).expect("a question").questions[0].qname.to_string()
        });
        (domain.parse().expect("a domain"), serving)
    }

    #[test]
    fn a_domain_lists_roots() {
        let long: Vec<_> = (1..=12).map(|n| format!("root-{n}.example.org:7420")).collect();
        let texts = [root(1, "192.0.2.1:7420"), root(2, &long.join(",")), "v=spf1 -all".to_owned()];
        let roots = texts[..2].to_vec();
        let (domain, serving) = nameserver(
            move |question| vec![reply(question, &texts.each_ref().map(String::as_str), 3600)],
            None,
        );
        let listed = look_up(&domain, HANG_TIMEOUT).expect("roots");
        let mut found: Vec<_> = listed.roots.iter().map(ToString::to_string).collect();
        found.sort_by_key(String::len);
        assert_eq!((found, listed.ttl), (roots, Duration::from_secs(3600)));
        assert_eq!(serving.join().expect("no panic"), "_peersock.example.org");
    }

    #[test]
    fn an_answer_that_is_cut_is_asked_for_again_by_tcp() {
        let text = root(1, "192.0.2.1:7420");
        let cut = |question: &[u8]| {
            let mut answer = reply(question, &[], 0);
            answer[2] |= 2;
            vec![answer]
        };
        let (theirs, expected) = (text.clone(), text);
        let (domain, serving) =
            nameserver(cut, Some(Box::new(move |question| reply(question, &[&theirs], 1))));
        let listed = look_up(&domain, HANG_TIMEOUT).expect("roots");
        assert_eq!(listed.roots[0].to_string(), expected);
        assert_eq!(listed.ttl, MIN_VALIDITY, "nobody is asked all the time");
        serving.join().expect("no panic");
    }

    #[test]
    fn a_server_that_drips_its_answer_holds_nobody_for_longer_than_one_that_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("its address");
        let (patience, end) = (Duration::from_millis(300), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&end);
        let dripping = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(&u16::MAX.to_be_bytes()).expect("room");
            // Each byte comes within the timeout, but never all of them.
            while !is_over.load(Ordering::SeqCst) && stream.write_all(&[0]).is_ok() {
                thread::sleep(patience / 10);
            }
        });
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            let question = question(7, "_peersock.a").expect("a name");
            _ = sender.send(over_tcp(server, &question, Instant::now() + patience));
        });
        let answer = asked.recv_timeout(Duration::from_secs(20));
        end.store(true, Ordering::SeqCst);
        let error = answer.expect("it has a deadline").expect_err("there is no answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        dripping.join().expect("no panic");
    }

    #[test]
    fn what_answers_another_question_is_not_believed() {
        let (forged, right) = (root(66, "192.0.2.66:1"), root(1, "192.0.2.1:7420"));
        let expected = right.clone();
        let answers = move |question: &[u8]| {
            let mut other_id = reply(question, &[&forged], 60);
            other_id[1] ^= 1;
            let other_name = {
                let id = u16::from_be_bytes([question[0], question[1]]);
                let question = super::question(id, "_peersock.example.com").expect("a name");
                reply(&question, &[&forged], 60)
            };
            let mut no_answer = reply(question, &[&forged], 60);
            no_answer[2] &= 0x7f;
            vec![other_id, other_name, no_answer, vec![1, 2, 3], reply(question, &[&right], 60)]
        };
        let (domain, serving) = nameserver(answers, None);
        let listed = look_up(&domain, HANG_TIMEOUT).expect("roots");
        assert_eq!(listed.roots.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        serving.join().expect("no panic");
    }

    #[test]
    fn a_domain_without_roots_and_a_server_that_fails_are_errors() {
        let with_token = format!("{}?token=x", root(1, "192.0.2.1:7420"));
        let (domain, serving) = nameserver(move |question| vec![reply(question, &[&with_token], 60)], None);
        let error = look_up(&domain, HANG_TIMEOUT).expect_err("no roots");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = error.to_string();
        assert!(
            error.contains("_peersock.example.org") && error.contains("none of its 1 TXT records"),
            "{error}"
        );
        serving.join().expect("no panic");
        let (domain, serving) = nameserver(|question| vec![reply(question, &[], 60)], None);
        let error = look_up(&domain, HANG_TIMEOUT).expect_err("no records");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = error.to_string();
        assert!(error.contains("_peersock.example.org has no TXT record"), "{error}");
        serving.join().expect("no panic");
        let refuse = |question: &[u8]| {
            let mut answer = reply(question, &[], 0);
            answer[3] |= 5;
            vec![answer]
        };
        let (domain, serving) = nameserver(refuse, None);
        let error = look_up(&domain, HANG_TIMEOUT).expect_err("a refusal").to_string();
        assert!(error.contains("REFUSED"), "{error}");
        serving.join().expect("no panic");
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = silent.local_addr().expect("its address");
        let domain = format!("a@{server}").parse().expect("a domain");
        let error = look_up(&domain, Duration::from_millis(1)).expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), format!("the nameserver {server} does not answer"));
        // Another program may get the port at once, and be silent, too.
        let refused = (0..5).any(|_| {
            let gone = UdpSocket::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port");
            let domain = format!("a@{gone}").parse().expect("a domain");
            let error = look_up(&domain, Duration::from_secs(5)).expect_err("a closed port").to_string();
            error.starts_with(&format!("the nameserver {gone} cannot be asked: "))
        });
        assert!(refused);
    }

    #[test]
    fn many_roots_are_cut_and_do_not_change_with_their_order() {
        let mut texts: Vec<_> = (1..20).map(|seed| root(seed, "192.0.2.1:7420")).collect();
        let read = |texts: &[String]| {
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let question = question(7, "_peersock.a").expect("a name");
            read(&reply(&question, &texts, 60)).expect("roots")
        };
        let first = read(&texts);
        assert_eq!(first.roots.len(), super::super::MAX_LISTED);
        texts.reverse();
        assert_eq!(read(&texts), first);
    }

    #[test]
    fn nameservers_are_read() {
        let text =
            "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver fe80::1%lo\nnameserver x\n";
        let index = nix::net::if_::if_nametoindex("lo").expect("there is one");
        let local = SocketAddrV6::new("fe80::1".parse().expect("an address"), 53, 0, index);
        assert_eq!(nameservers(text), [([192, 0, 2, 1], 53).into(), SocketAddr::from(local)]);
        assert_eq!(nameservers(&"nameserver 192.0.2.1\n".repeat(9)).len(), MAX_SERVERS);
    }
}
