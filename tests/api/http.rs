//! axum and hyper on the sockets without adapters.

use std::convert::Infallible;
use std::error::Error;
use std::future::{IntoFuture, poll_fn};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use peersock::http::{Connector, PeerAddr};
use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed, TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_service::Service;

use crate::common::{PATIENCE, member, network, pair, pattern};

#[tokio::test]
async fn axum_tells_handlers_the_overlay_address_of_the_client() {
    let [(server, joined), (client, home)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    serve(axum::serve(listener, peer_app().into_make_service_with_connect_info::<PeerAddr>()));
    let text = get_text(&web(&client), &joined, 1000).await;
    let from: SocketAddr = text.parse().expect("an address and a port");
    assert_eq!(from.ip(), home.address());
    assert_eq!(joined.peer_at(from.ip()), Some(client.id()), "and so it is known who that is");
}

#[tokio::test]
async fn a_tapped_listener_gives_addresses_of_either_type() {
    let [(server, joined), (client, home)] = pair();
    let tapped = async |port| {
        let listener = TcpListener::bind_on(&server, (joined.address(), port)).await.expect("bind");
        listener.tap_io(|stream| stream.set_nodelay(true).expect("it stands"))
    };
    let plain =
        Router::new().route("/", get(async |ConnectInfo(from): ConnectInfo<SocketAddr>| from.to_string()));
    serve(axum::serve(tapped(1000).await, plain.into_make_service_with_connect_info::<SocketAddr>()));
    serve(axum::serve(tapped(1001).await, peer_app().into_make_service_with_connect_info::<PeerAddr>()));
    for port in [1000, 1001] {
        let text = get_text(&web(&client), &joined, port).await;
        assert_eq!(text.parse::<SocketAddr>().expect("an address").ip(), home.address());
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    serve(axum::serve(listener, peer_app().into_make_service_with_connect_info::<PeerAddr>()));
    let web = web(&client);
    let first = get_text(&web, &joined, 1000).await;
    for _ in 0..20 {
        assert_eq!(get_text(&web, &joined, 1000).await, first, "the same port of the client");
    }
}

#[tokio::test]
async fn members_are_found_by_name() {
    let seed = Seed([9; 32]);
    let key = Identity::from_seed(&seed.0).public().to_string();
    let file = format!("network = \"fe00000000002042\"\n[[member]]\nname = \"alpha\"\nkey = \"{key}\"\n");
    let builder = Node::builder().identity(IdentitySource::Seed(seed)).interfaces(Interfaces::Loopback);
    let node = builder.discovery(false).start().expect("start");
    node.join(Network::parse_toml(&file).expect("a valid file")).expect("a member");
    let listener = TcpListener::bind_on(&node, "[::]:80").await.expect("bind");
    serve(axum::serve(listener, Router::new().route("/", get("hello"))));
    let web = web(&node);
    let answer = web.get(Uri::from_static("http://alpha/")).await.expect("an answer from port 80");
    assert_eq!(text(answer).await, "hello");
    let unknown = web.get(Uri::from_static("http://beta/")).await.expect_err("no such member");
    assert_eq!(cause(&unknown).kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn https_is_refused_with_advice() {
    let (node, joined) = member(network());
    let uri = uri(&joined, 1000).to_string().replace("http:", "https:");
    let error = web(&node).get(uri.parse().expect("a URI")).await.expect_err("there is no TLS");
    assert!(error.is_connect());
    assert_eq!(cause(&error).kind(), ErrorKind::InvalidInput);
    assert!(cause(&error).to_string().contains("enforce_http"), "{}", cause(&error));
}

#[tokio::test]
async fn a_refused_connection_says_so() {
    let [(_server, joined), (client, _)] = pair();
    let error = web(&client).get(uri(&joined, 1000)).await.expect_err("nobody listens");
    assert!(error.is_connect());
    assert_eq!(cause(&error).kind(), ErrorKind::ConnectionRefused);
    assert!(cause(&error).to_string().contains("refused"), "{}", cause(&error));
}

#[tokio::test]
async fn clients_that_reset_or_end_before_they_are_accepted_do_not_stop_the_server() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let mut kept = Vec::new();
    for round in 0..60 {
        let mut stream = TcpStream::connect_on(&client, (joined.address(), 1000)).await.expect("connect");
        match round % 3 {
            // With a linger of zero, dropping the stream resets it.
            0 => stream.set_linger(Some(Duration::ZERO)).expect("it stands"),
            // Half of a request, and the end.
            1 => {
                stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.expect("write");
                stream.shutdown().await.expect("shutdown");
                kept.push(stream);
            }
            // Nothing at all, for as long as the server runs.
            _ => kept.push(stream),
        }
    }
    serve(axum::serve(listener, Router::new().route("/", get("hello"))));
    assert_eq!(get_text(&web(&client), &joined, 1000).await, "hello");
    // These connections are reset while the server accepts.
    for _ in 0..60 {
        let stream = TcpStream::connect_on(&client, (joined.address(), 1000)).await.expect("connect");
        stream.set_linger(Some(Duration::ZERO)).expect("it stands");
    }
    assert_eq!(get_text(&web(&client), &joined, 1000).await, "hello");
}

#[tokio::test]
async fn clients_that_reset_amid_an_answer_do_not_stop_the_server() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let app = Router::new().route("/", get("hello")).route("/large", get(async || pattern(1, 10_000_000)));
    serve(axum::serve(listener, app));
    for _ in 0..20 {
        let mut stream = TcpStream::connect_on(&client, (joined.address(), 1000)).await.expect("connect");
        stream.set_linger(Some(Duration::ZERO)).expect("it stands");
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: there\r\n\r\n").await.expect("write");
        stream.read_exact(&mut [0; 10_000]).await.expect("the beginning");
    }
    assert_eq!(get_text(&web(&client), &joined, 1000).await, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_go_both_ways_through_axum() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let echo = async |request: Request| request.into_body();
    serve(axum::serve(listener, Router::new().route("/", post(echo))));
    assert_echo(&client, &joined).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hyper_serves_a_stream_without_an_adapter() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let service = service_fn(async |request: hyper::Request<Incoming>| {
            let body = request.into_body().collect().await.expect("the whole body").to_bytes();
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        });
        http1::Builder::new().keep_alive(false).serve_connection(stream, service).await
    });
    assert_echo(&client, &joined).await;
    serving.await.expect("no panic").expect("it ends as it should");
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_is_still_answered_where_hyper_is_told_to() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let mut stream = TcpStream::connect_on(&client, (joined.address(), 1000)).await.expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: there\r\n\r\n").await.expect("write");
    stream.shutdown().await.expect("shutdown");
    let (accepted, _) = listener.accept().await.expect("accept");
    let service = service_fn(async |_| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(pattern(1, 100_000)))))
    });
    tokio::spawn(http1::Builder::new().half_close(true).serve_connection(accepted, service));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the answer and the end");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(&pattern(1, 100_000)));
}

#[tokio::test]
async fn graceful_shutdown_waits_for_the_request_under_way() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (began, go_on) = (Arc::clone(&began), Arc::clone(&go_on));
        async move || {
            began.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, Router::new().route("/", get(handler)))
        .with_graceful_shutdown(async move { stopped.await.expect("the signal") });
    let serving = serve(server);
    let web = web(&client);
    let request = tokio::spawn(web.get(uri(&joined, 1000)));
    began.notified().await;
    stop.send(()).expect("the server runs");
    // The listener is dropped before the request is done.
    timeout(PATIENCE, connect_until_refused(&client, &joined)).await.expect("the listener goes");
    assert!(!serving.is_finished());
    go_on.notify_one();
    assert_eq!(text(request.await.expect("no panic").expect("an answer")).await, "done");
    timeout(PATIENCE, serving).await.expect("in time").expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_server_whose_node_is_shut_down_waits_for_its_signal() {
    let (node, joined) = member(network());
    let listener = TcpListener::bind_on(&node, (joined.address(), 1000)).await.expect("bind");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, Router::new())
        .with_graceful_shutdown(async move { stopped.await.expect("the signal") });
    let serving = serve(server);
    tokio::task::yield_now().await;
    node.shutdown(Duration::ZERO);
    // This runtime has one thread, so a server that retries in a loop would block it.
    tokio::task::yield_now().await;
    assert!(!serving.is_finished());
    stop.send(()).expect("the server runs");
    timeout(PATIENCE, serving).await.expect("in time").expect("no panic").expect("no error");
}

#[tokio::test]
async fn buffers_that_are_written_together_arrive_in_order() {
    let (node, joined) = member(network());
    let listener = TcpListener::bind_on(&node, (joined.address(), 1000)).await.expect("bind");
    let stream = TcpStream::connect_on(&node, (joined.address(), 1000)).await.expect("connect");
    let (mut accepted, _) = listener.accept().await.expect("accept");
    let data = pattern(3, 3_000_000);
    let sent = data.clone();
    let sender = tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        let mut at = 0;
        while at < sent.len() {
            // Many pieces, including empty ones, with more bytes than there is room for.
            let mut pieces = vec![std::io::IoSlice::new(&[])];
            pieces.extend(sent[at..].chunks(70_001).map(std::io::IoSlice::new));
            let written = poll_fn(|cx| hyper::rt::Write::poll_write_vectored(stream.as_mut(), cx, &pieces));
            at += written.await.expect("room");
        }
        let none = poll_fn(|cx| hyper::rt::Write::poll_write_vectored(stream.as_mut(), cx, &[])).await;
        assert_eq!(none.expect("nothing to wait for"), 0);
        poll_fn(|cx| hyper::rt::Write::poll_shutdown(stream.as_mut(), cx)).await.expect("it stands");
    });
    let mut got = Vec::new();
    accepted.read_to_end(&mut got).await.expect("all of it");
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    sender.await.expect("no panic");
}

#[tokio::test]
async fn connections_leave_small_writes_at_once_unless_told_otherwise() {
    let [(server, joined), (client, _)] = pair();
    let _listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let mut connector = Connector::on(&client);
    for nodelay in [true, false] {
        let stream = Service::call(&mut connector, uri(&joined, 1000)).await.expect("connect");
        assert_eq!(stream.nodelay().expect("it stands"), nodelay);
        connector.set_nodelay(false);
    }
}

/// Makes an application that answers with the client's address.
fn peer_app() -> Router {
    Router::new().route("/", get(async |ConnectInfo(from): ConnectInfo<PeerAddr>| from.to_string()))
}

/// Makes a client on a node.
fn web(node: &Node) -> Client<Connector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build(Connector::on(node))
}

fn serve(
    server: impl IntoFuture<Output = std::io::Result<()>, IntoFuture: Send + 'static>,
) -> JoinHandle<std::io::Result<()>> {
    tokio::spawn(server.into_future())
}

fn uri(at: &Joined, port: u16) -> Uri {
    format!("http://{}/", SocketAddr::new(IpAddr::from(at.address()), port)).parse().expect("a URI")
}

async fn get_text(web: &Client<Connector, Full<Bytes>>, at: &Joined, port: u16) -> String {
    text(web.get(uri(at, port)).await.expect("an answer")).await
}

async fn text(answer: Response<Incoming>) -> String {
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.expect("the whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

/// Sends ten million bytes to an echo server and checks the answer.
async fn assert_echo(client: &Node, at: &Joined) {
    let data = Bytes::from(pattern(2, 10_000_000));
    let request = hyper::Request::post(uri(at, 1000)).body(Full::new(data.clone())).expect("a request");
    let answer = web(client).request(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let back = answer.into_body().collect().await.expect("the whole body").to_bytes();
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
}

/// Returns the socket error inside a hyper error.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> &'a std::io::Error {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return error;
        }
        next = error.source();
    }
    panic!("no I/O error in {error}")
}

/// Connects until the listener is gone. Connections not accepted by then are reset.
async fn connect_until_refused(client: &Node, at: &Joined) {
    let is_refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    while !TcpStream::connect_on(client, (at.address(), 1000)).await.is_err_and(is_refused) {
        tokio::task::yield_now().await;
    }
}
