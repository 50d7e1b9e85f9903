//! Subscriptions, bounded queues, slow receivers, and cancelled calls.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_lite::StreamExt as _;
use peersock::interfaces::IpBlock;
use peersock_pipe::{Filter, Message, Options, Pipe, PipeError, Proto, Subscription};
use tokio::sync::Semaphore;

use crate::common::{
    LOOPBACK_PLACES, Notes, PROTOS, close, connected, listening, open, pair, patient, read, received, settle,
    soon, until,
};

fn filter(pattern: &str) -> Filter {
    Filter::pattern(pattern).expect("a regular expression")
}

async fn texts(queue: &mut Subscription) -> Vec<String> {
    let mut texts = Vec::new();
    while let Ok(Some(message)) = queue.recv_within(Duration::ZERO).await {
        texts.push(String::from_utf8_lossy(&message).into_owned());
    }
    texts
}

#[tokio::test]
async fn each_subscription_has_its_own_queue() {
    let [_server, client, other] = pair(Proto::Udp).await;
    let mut greetings = other.subscribe(filter("^[hH]ello"));
    let mut digits = other.subscribe(filter(r"\d+"));
    for message in ["hello", "Hello 5", "6", "well, hello"] {
        client.send(message).await.expect("a way");
    }
    for message in ["hello", "Hello 5", "6", "well, hello"] {
        assert_eq!(received(&other).await, message.as_bytes());
    }
    assert_eq!(texts(&mut greetings).await, ["hello", "Hello 5"]);
    assert_eq!((digits.len(), digits.is_empty()), (2, false));
    assert_eq!(texts(&mut digits).await, ["Hello 5", "6"]);
    assert!(other.unsubscribe() && !other.unsubscribe());
    client.send("7").await.expect("a way");
    // The subscription as a stream.
    assert_eq!(soon(digits.next()).await.as_deref(), Some(&b"7"[..]));
    assert_eq!(other.recv().await, Err(PipeError::NotSubscribed));
    drop(greetings);
    // The stream ends with the pipe, after all earlier messages.
    client.send("8").await.expect("a way");
    until(|| digits.len() == 1).await;
    soon(other.close()).await;
    let rest: Vec<Message> = soon(digits.collect()).await;
    assert_eq!(rest.iter().map(Message::data).collect::<Vec<_>>(), [b"8"]);
}

#[tokio::test]
async fn a_subscription_keeps_the_pipe_open() {
    let server = listening(Proto::Udp, LOOPBACK_PLACES[0]).await;
    let at = server.local_addr();
    let mut all = server.subscribe(Filter::all());
    drop(server);
    let client = open(Pipe::connect(Proto::Udp, at)).await;
    client.send("hello").await.expect("a way");
    assert!(soon(all.recv()).await.expect("it is open").is_some() && all.pipe().is_running());
    drop(all);
    // Its port is free now.
    soon(async {
        while Pipe::listen(Proto::Udp, at).await.is_err() {
            settle().await
        }
    })
    .await;
}

#[tokio::test]
async fn sources_are_subscribed_to() {
    let server = listening(Proto::Udp, "[::1]:0").await;
    let route: SocketAddr = "[::1]:0".parse().expect("an address");
    let client = || open(Pipe::connect(Proto::Udp, server.local_addr()).route(route));
    let (first, second) = (client().await, client().await);
    let one = first.local_addr();
    let ip = |text: &str| text.parse().expect("an address");
    let block = |text: &str, prefix| IpBlock::new(ip(text), prefix).expect("a block");
    let all = Filter::all;
    let filters = [
        (all(), true, true),
        (all().from_addr(one), true, false),
        (all().from_addr(route), true, true),
        (all().from_addr("[::2]:0".parse().expect("an address")), false, false),
        (all().from_addr("127.0.0.1:0".parse().expect("an address")), false, false),
        (all().from_ip(ip("::1")), true, true),
        (all().from_block(block("::", 64)), true, true),
        (all().from_block(block("fe80::", 64)), false, false),
        (all().from_pattern(&format!(r"^\[::1\]:{}$", one.port())).expect("a pattern"), true, false),
        // The pattern of the message counts as well.
        (filter("^sec").from_ip(ip("::1")), false, true),
        (filter("^sec").from_addr(one), false, false),
    ];
    let mut subscribed: Vec<_> = filters.map(|(filter, a, b)| (server.subscribe(filter), a, b)).into();
    first.send("first").await.expect("a way");
    assert_eq!(received(&server).await, b"first");
    second.send("second").await.expect("a way");
    assert_eq!(received(&server).await, b"second");
    for (at, (queue, of_first, of_second)) in subscribed.iter_mut().enumerate() {
        let expected = [("first", *of_first), ("second", *of_second)];
        let expected: Vec<_> = expected.iter().filter(|(_, is)| *is).map(|(text, _)| *text).collect();
        assert_eq!(texts(queue).await, expected, "filter {at}");
    }
}

#[test]
fn wrong_patterns_are_refused() {
    let wrong = |result: Result<Filter, PipeError>| {
        let error = result.expect_err("it is no regular expression");
        assert!(
            matches!(&error, PipeError::Pattern { .. }) && error.to_string().contains("regular expression")
        );
    };
    wrong(Filter::pattern("("));
    wrong(Filter::all().from_pattern("["));
    // A pattern that would need more memory than allowed.
    wrong(Filter::pattern("((a{1000}){1000}){1000}"));
}

#[test]
fn patterns_are_of_bytes() {
    let from = "127.0.0.1:1".parse().expect("an address");
    for (pattern, data, is_there) in [
        (r"^\x00\xff.$", &b"\x00\xff\xfe"[..], true),
        ("ü", "grün".as_bytes(), true),
        (r"^\w$", b"\xfc", false),
        ("", b"", true),
        (r"(?i)HELLO", b"hello", true),
    ] {
        assert_eq!(filter(pattern).matches(&Message::new(data, from)), is_there, "{pattern}");
    }
}

#[tokio::test]
async fn a_receiver_whose_queue_is_removed_while_it_waits_is_told() {
    let pipe = listening(Proto::Udp, LOOPBACK_PLACES[0]).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let pipe = pipe.clone();
            tokio::spawn(async move { pipe.recv_within(None).await })
        })
        .collect();
    settle().await;
    pipe.unsubscribe();
    for task in waiting {
        assert_eq!(soon(task).await.expect("no panic"), Err(PipeError::NotSubscribed));
    }
}

#[tokio::test]
async fn a_recv_that_is_given_up_has_taken_nothing() {
    for proto in PROTOS {
        let [_server, client, other] = pair(proto).await;
        for number in 0..20 {
            let text = format!("{number:02}");
            {
                let mut waiting: [Pin<Box<dyn Future<Output = _>>>; 3] =
                    [0; 3].map(|_| Box::pin(other.recv_within(None)) as Pin<Box<dyn Future<Output = _>>>);
                for one in &mut waiting {
                    assert!(futures_lite::future::poll_once(one).await.is_none());
                }
                client.send(&text).await.expect("a way");
                // In some rounds the message has arrived, and woken one receiver, before they are cancelled.
                if number % 2 == 0 {
                    settle().await;
                }
            }
            assert_eq!(received(&other).await, text.as_bytes());
        }
        assert_eq!(other.recv_within(Duration::ZERO).await, Ok(None));
    }
}

#[tokio::test]
async fn full_queues_of_datagrams_drop_the_oldest_and_say_so() {
    let server =
        open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).options(Options::new().max_qsize(10))).await;
    let client = connected(&server).await;
    let odd = server.subscribe(filter("[13579]$"));
    let mut seen = server.subscribe(Filter::all());
    for number in 0..30 {
        client.send(format!("{number:02}")).await.expect("a way");
        soon(seen.recv_within(None)).await.expect("it is open");
    }
    let mut held = Vec::new();
    while let Some(message) = server.recv_within(Duration::ZERO).await.expect("it is open") {
        held.push(String::from_utf8_lossy(&message).into_owned());
    }
    assert_eq!(held, (20..30).map(|number| format!("{number:02}")).collect::<Vec<_>>());
    assert_eq!((server.dropped(), odd.dropped()), (20 + 5, 5));
    drop(odd);
    assert_eq!(server.dropped(), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_of_a_stream_stops_the_sender_and_loses_nothing() {
    let options = patient().max_qbytes(100_000).reader_limit(5000);
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(options)).await;
    let client = connected(&server).await;
    let other = soon(server.accept()).await.expect("a client");
    let data: Vec<u8> = (0..3_000_000).flat_map(|number: u32| format!("{number:07} ").into_bytes()).collect();
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = {
        let (client, data, sent) = (client.clone(), data.clone(), Arc::clone(&sent));
        tokio::spawn(async move {
            for piece in data.chunks(40_000) {
                sent.fetch_add(client.send(piece).await.expect("a way"), Ordering::SeqCst);
            }
        })
    };
    // More than all buffers hold: the sender waits until the other end reads.
    let mut before = usize::MAX;
    while sent.load(Ordering::SeqCst) != before || before == 0 {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < data.len() && !sending.is_finished());
    let first = received(&other).await;
    assert!(first.len() <= 5000);
    let rest = read(&other, data.len() - first.len()).await;
    assert!([first, rest].concat() == data[..]);
    soon(sending).await.expect("no panic");
    assert_eq!(other.dropped(), 0);
    close([client, server]).await;
}

#[tokio::test]
async fn who_does_not_read_does_not_stop_who_does() {
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(patient().max_qsize(4))).await;
    let client = connected(&server).await;
    let other = soon(server.accept()).await.expect("a client");
    // The pipe's own queue exists and is never read.
    let mut wanted = other.subscribe(filter("wanted"));
    let talk = async || {
        for number in 0..20 {
            client.send(format!("other {number}")).await.expect("a way");
            settle().await;
        }
    };
    talk().await;
    assert_eq!(other.dropped(), 0);
    let mut waiting = pin!(wanted.recv_within(None));
    assert!(futures_lite::future::poll_once(&mut waiting).await.is_none());
    talk().await;
    client.send("wanted").await.expect("a way");
    let message = soon(waiting).await.expect("it is open").expect("it was sent");
    assert!(message.ends_with(b"wanted"));
    assert!(other.dropped() > 0);
}

#[tokio::test]
async fn slow_callbacks_are_bounded_too() {
    let (gate, begun, notes) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Notes::default());
    let slow = {
        let (gate, begun, notes) = (Arc::clone(&gate), Arc::clone(&begun), notes.clone());
        move |message: Message, _: Pipe| {
            let (gate, notes) = (Arc::clone(&gate), notes.clone());
            begun.fetch_add(1, Ordering::SeqCst);
            async move {
                gate.acquire().await.expect("it is open").forget();
                notes.add(String::from_utf8_lossy(&message));
            }
        }
    };
    let server =
        Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).options(patient().max_qsize(10)).async_msg_cb(slow);
    let server = open(server).await;
    let mut seen = server.subscribe(Filter::all());
    let client = connected(&server).await;
    for number in 0..100 {
        client.send(format!("{number:02}")).await.expect("a way");
        soon(seen.recv()).await.expect("it is open");
    }
    until(|| begun.load(Ordering::SeqCst) == 64).await;
    assert_eq!(server.dropped(), 100 - 64 - 10);
    gate.add_permits(1000);
    until(|| notes.all().len() == 74).await;
    let mut worked = notes.all();
    worked.sort();
    let expected: Vec<_> = (0..64).chain(90..100).map(|number| format!("{number:02}")).collect();
    assert_eq!(worked, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_of_a_stream_have_one_message_after_the_other() {
    let (running, parts) = (Arc::new(AtomicUsize::new(0)), Notes::default());
    let slow = {
        let parts = parts.clone();
        move |message: Message, _: Pipe| {
            let (running, parts) = (Arc::clone(&running), parts.clone());
            async move {
                let others = running.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                assert_eq!(others, 0);
                parts.add(String::from_utf8_lossy(&message));
            }
        }
    };
    let options = patient().max_qsize(3).reader_limit(10);
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(options).async_msg_cb(slow)).await;
    let client = connected(&server).await;
    let data: String = (0..100).map(|number| format!("{number:05}")).collect();
    for piece in data.as_bytes().chunks(50) {
        client.send(piece).await.expect("a way");
    }
    // The end does not overtake the data.
    soon(client.close()).await;
    until(|| parts.all().concat().len() == data.len()).await;
    assert_eq!(parts.all().concat(), data);
    assert_eq!(server.dropped(), 0);
}

#[tokio::test]
async fn recv_waits_as_long_as_it_is_told() {
    let options = Options::new().recv_timeout(Duration::from_millis(10));
    let pipe = open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).options(options)).await;
    assert_eq!(soon(pipe.recv()).await, Ok(None));
    let forever = || {
        let pipe = pipe.clone();
        tokio::spawn(async move { pipe.recv_within(None).await })
    };
    let waiting = [forever(), forever()];
    settle().await;
    for text in ["a", "b"] {
        pipe.send_to(text, pipe.local_addr()).await.expect("a way");
    }
    let mut got = Vec::new();
    for task in waiting {
        got.extend(soon(task).await.expect("no panic").expect("it is open").expect("it was sent").into_vec());
    }
    got.sort_unstable();
    assert_eq!(got, b"ab");
    let waiting = forever();
    settle().await;
    soon(pipe.close()).await;
    assert_eq!(soon(waiting).await.expect("no panic"), Err(PipeError::Closed));
}

#[tokio::test]
async fn requests_are_repeated() {
    let asked = Arc::new(AtomicUsize::new(0));
    let deaf = {
        let asked = Arc::clone(&asked);
        move |message: Message, pipe: Pipe| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            async move {
                if number == 2 {
                    pipe.send_to("at last", message.from()).await.expect("a way");
                }
            }
        }
    };
    let server = open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).async_msg_cb(deaf)).await;
    let client = |times, wait| {
        let options = Options::new().send_retry(times).recv_timeout(wait);
        open(Pipe::connect(Proto::Udp, server.local_addr()).options(options))
    };
    let impatient = client(1, Duration::from_millis(10)).await;
    assert_eq!(soon(impatient.request("request")).await, Ok(None));
    until(|| asked.load(Ordering::SeqCst) == 2).await;
    let patient = client(3, crate::common::TEST_TIMEOUT).await;
    assert_eq!(soon(patient.request("request")).await.expect("a way").as_deref(), Some(&b"at last"[..]));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}
