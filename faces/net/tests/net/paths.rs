//! Unix domain sockets.

use std::fs;
use std::io;
use std::sync::Arc;

use peersock_net::{self as net, UnixAddr};

use crate::common::soon;

#[tokio::test]
async fn listeners_remove_their_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let (there, own) = (folder.path().join("s"), folder.path().join("c"));
    let (path, own_path) =
        (UnixAddr::stream(&there).expect("a path"), UnixAddr::stream(&own).expect("a path"));
    let listener = net::listen_unix(&path, "unix").await.expect("a new path");
    assert!(there.exists());
    let taken = net::listen_unix(&path, "unix").await.expect_err("it is taken");
    assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
    let client = net::dial_unix(Some(&own_path), Some(&path), "unix").await.expect("it listens");
    let server = soon(listener.accept()).await.expect("it was dialed");
    assert_eq!((server.remote_addr(), client.local_addr()), (Some(own_path.clone()), Ok(own_path.clone())));
    assert_eq!(client.write(b"x").await, Ok(1));
    assert_eq!(soon(server.read_from(100)).await, Ok((b"x".to_vec(), own_path.clone())));
    let to = client.write_to(b"x", &path).await.expect_err("it is a stream");
    assert_eq!(to.raw_os_error(), Some(libc::EISCONN));
    drop((client, listener));
    // A connection leaves its own path behind.
    assert!(own.exists() && !there.exists());
    fs::remove_file(&own).expect("it is there");
    for own_path in [None, Some(&own_path)] {
        let missing = net::dial_unix(own_path, Some(&path), "unix").await.expect_err("it is gone");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
    // A failed dial removes the path it bound.
    assert!(!own.exists());
}

#[tokio::test]
async fn paths_stay_or_go_as_was_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("s");
    let path = UnixAddr::stream(&there).expect("a path");
    let listener = net::listen_unix(&path, "unix").await.expect("a new path");
    listener.set_unlink_on_close(false).expect("it is open");
    listener.close();
    assert!(there.exists());
    fs::remove_file(&there).expect("it is there");
    let server = net::listen_unixgram(&UnixAddr::datagram(&there).expect("a path"), "unixgram").await;
    let server = server.expect("a new path");
    server.set_unlink_on_close(true).expect("it is open");
    server.close();
    assert!(!there.exists());
    assert!(server.set_unlink_on_close(true).expect_err("it is closed").is_closed());
    assert!(listener.set_unlink_on_close(true).expect_err("it is closed").is_closed());
    // Another program's file may be at the path at the second close.
    let listener = net::listen_unix(&path, "unix").await.expect("a new path");
    listener.close();
    fs::write(&there, "somebody else's").expect("room");
    listener.close();
    drop(listener);
    assert!(there.exists());
}

#[tokio::test]
async fn datagrams() {
    let folder = tempfile::tempdir().expect("a folder");
    let [here, there] =
        ["here", "there"].map(|name| UnixAddr::datagram(folder.path().join(name)).expect("a path"));
    let server = net::listen_unixgram(&there, "unixgram").await.expect("a new path");
    let client = net::dial_unix(Some(&here), Some(&there), "unixgram").await.expect("it is there");
    assert_eq!((client.local_addr(), client.remote_addr()), (Ok(here.clone()), Some(there.clone())));
    client.write(b"hello").await.expect("room");
    assert_eq!(soon(server.read_from(100)).await, Ok((b"hello".to_vec(), here.clone())));
    assert_eq!(server.write_to(b"back", &here).await, Ok(4));
    assert_eq!(soon(client.read(100)).await, Ok(b"back".to_vec()));
    // A socket without a path gets no answer.
    let path = there.to_string();
    let nameless = net::dial(&path, "unixgram").await.expect("it is there");
    let unconnected = net::dial_unix(None, None, "unixgram").await.expect("a socket");
    nameless.write(b"1").await.expect("room");
    let no_name = UnixAddr::datagram("").expect("no name");
    assert_eq!(soon(server.read_from(100)).await, Ok((b"1".to_vec(), no_name)));
    unconnected.write_to(b"2", &there).await.expect("room");
    assert_eq!(soon(server.read(100)).await, Ok(b"2".to_vec()));
    drop(server);
    assert!(there.path().expect("a path").exists());
}

#[tokio::test]
async fn datagrams_wait_for_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = UnixAddr::datagram(folder.path().join("there")).expect("a path");
    let server = net::listen_unixgram(&there, "unixgram").await.expect("a new path");
    for is_connected in [false, true] {
        let remote = is_connected.then_some(&there);
        let sender = Arc::new(net::dial_unix(None, remote, "unixgram").await.expect("a socket"));
        let to = there.clone();
        let sent = tokio::spawn(async move {
            for number in 0..2_000_u32 {
                let data = number.to_be_bytes();
                match is_connected {
                    true => sender.write(&data).await.expect("it is there"),
                    false => sender.write_to(&data, &to).await.expect("it is there"),
                };
            }
        });
        for number in 0..2_000_u32 {
            assert_eq!(soon(server.read(100)).await, Ok(number.to_be_bytes().to_vec()));
        }
        soon(sent).await.expect("no panic");
    }
}

#[tokio::test]
async fn abstract_names() {
    let name = format!("@peersock-net-rust-{}", std::process::id());
    let addr = UnixAddr::stream(&name).expect("a name");
    let listener = net::listen(&name, "unix").await.expect("a new name");
    assert_eq!(listener.addr(), addr.clone().into());
    let client = net::dial(&name, "unix").await.expect("it listens");
    let server = soon(listener.accept()).await.expect("it was dialed");
    assert_eq!((client.remote_addr(), server.local_addr()), (Some(addr.clone().into()), Ok(addr.into())));
    // Datagram sockets work, too.
    let [here, there] = ["a", "b"].map(|end| UnixAddr::datagram(format!("{name}-{end}")).expect("a name"));
    let one = net::listen_unixgram(&here, "unixgram").await.expect("a new name");
    let other = net::listen_unixgram(&there, "unixgram").await.expect("a new name");
    one.write_to(b"x", &there).await.expect("room");
    assert_eq!(soon(other.read_from(10)).await, Ok((b"x".to_vec(), here)));
}
